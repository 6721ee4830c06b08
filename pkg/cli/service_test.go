package cli

import (
	"encoding/xml"
	"errors"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/gateway"
)

func TestUnitWord(t *testing.T) {
	for in, want := range map[string]string{
		"/usr/bin/o365pw":     "/usr/bin/o365pw",
		"/opt/my mail/o365pw": `"/opt/my mail/o365pw"`,
		"/opt/100%/o365pw":    "/opt/100%%/o365pw",
		"/opt/$HOME/o365pw":   "/opt/$HOME/o365pw", // nothing is put in its place there
		`/opt/a"b\c/o365pw`:   `"/opt/a\"b\\c/o365pw"`,
		"/opt/it's/o365pw":    `"/opt/it's/o365pw"`,
		"NO_PROXY=a;b":        `"NO_PROXY=a;b"`,
		"/home/jürgen/o365pw": "/home/jürgen/o365pw",
	} {
		if got, err := unitWord(in); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"/opt/a\nExecStart=/bin/sh", "/opt/a\x00", "/opt/a\tb\x7f"} {
		if got, err := unitWord(in); err == nil {
			t.Errorf("%q became %s", in, got)
		}
	}
}

func TestServiceUnit(t *testing.T) {
	unit, err := serviceUnit(systemUnit, "/opt/o365pw", []string{"A=b c"}, "/etc/a%b")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"ExecStart=/opt/o365pw serve\n", "Environment=\"A=b c\"\n", "LoadCredential=o365pw.keychain-passphrase:/etc/a%%b\n"} {
		if !strings.Contains(unit, "\n"+line) {
			t.Errorf("%q is missing in\n%s", line, unit)
		}
	}
	if strings.Contains(unit, "/usr/bin/o365pw") || strings.Contains(unit, "LoadCredentialEncrypted=") {
		t.Errorf("what was replaced is still there:\n%s", unit)
	}
	for _, program := range []string{`/opt/a"b/o365pw`, `/opt/a\b/o365pw`, "/opt/it's/o365pw", "/opt/a\nb"} {
		if _, err := serviceUnit(systemUnit, program, nil, ""); err == nil {
			t.Errorf("a unit that systemd refuses, for %q", program)
		}
	}
	for name, unit := range map[string]string{"system": systemUnit, "user": userUnit} {
		if same, err := serviceUnit(unit, "/usr/bin/o365pw", nil, ""); err != nil || same != unit {
			t.Errorf("the %s unit of a package is changed: %v\n%s", name, err, same)
		}
	}
}

func TestSocketUnit(t *testing.T) {
	if got := socketUnitFor([]string{"127.0.0.1:1993", "127.0.0.1:1995", "127.0.0.1:1587"}); got != socketUnit {
		t.Errorf("for the default addresses:\n%s", got)
	}
	got := socketUnitFor([]string{":993", "", "[::1]:1587"})
	if !strings.Contains(got, "\nListenStream=993\nListenStream=[::1]:1587\nFreeBind") {
		t.Errorf("for others:\n%s", got)
	}
	for in, want := range map[string]string{
		"localhost:1993": "127.0.0.1:1993", "0.0.0.0:993": "0.0.0.0:993", ":993": "993", "[::]:993": "[::]:993",
		"mail.contoso.com:993": "", "127.0.0.1:0": "", "": "",
	} {
		if got := listenStream(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	if got := socketUnitFor([]string{"mail.contoso.com:993", "", "127.0.0.1:0"}); got != "" {
		t.Errorf("for none that systemd could listen on:\n%s", got)
	}
}

// propertyListOf reads a property list of dictionaries, arrays, texts, numbers
// and truths.
func propertyListOf(t *testing.T, text string) map[string]any {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	next := func() xml.Token {
		for {
			tok, err := d.Token()
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			switch tok.(type) {
			case xml.StartElement, xml.EndElement:
				return tok
			}
		}
	}
	var value func(start xml.StartElement) any
	value = func(start xml.StartElement) any {
		switch name := start.Name.Local; name {
		case "dict":
			v := map[string]any{}
			for {
				tok, ok := next().(xml.StartElement)
				if !ok {
					return v
				}
				var key string
				if err := d.DecodeElement(&key, &tok); err != nil || tok.Name.Local != "key" {
					t.Fatalf("%v: %v where a key has to be", err, tok)
				}
				v[key] = value(next().(xml.StartElement))
			}
		case "array":
			var v []string
			for {
				tok, ok := next().(xml.StartElement)
				if !ok {
					return v
				}
				v = append(v, value(tok).(string))
			}
		case "string", "integer":
			var v string
			if err := d.DecodeElement(&v, &start); err != nil {
				t.Fatal(err)
			}
			return v
		case "true", "false":
			_ = d.Skip()
			return name == "true"
		default:
			t.Fatalf("an element %s", name)
			return nil
		}
	}
	if tok := next().(xml.StartElement); tok.Name.Local != "plist" {
		t.Fatalf("it begins with %v", tok)
	}
	v := value(next().(xml.StartElement)).(map[string]any)
	if _, err := d.Token(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return v
}

func TestPropertyList(t *testing.T) {
	l := &launchd{system: true, log: "/Library/Logs/a & b.log"}
	v := propertyListOf(t, l.propertyList("/opt/my <mail>/o365pw", []string{"O365PW_STATE=/a=b \"c\"", "NO_PROXY=*"}))
	if got, want := v["ProgramArguments"], []string{"/opt/my <mail>/o365pw", "serve"}; !slices.Equal(got.([]string), want) {
		t.Errorf("it runs %q", got)
	}
	if env := v["EnvironmentVariables"].(map[string]any); len(env) != 2 || env["O365PW_STATE"] != `/a=b "c"` || env["NO_PROXY"] != "*" {
		t.Errorf("the environment: %v", env)
	}
	for key, want := range map[string]any{
		"Label": "io.github.o365pw", "UserName": "_o365pw", "RunAtLoad": true, "StandardErrorPath": "/Library/Logs/a & b.log", "ExitTimeOut": "45", "Umask": "63",
	} {
		if v[key] != want {
			t.Errorf("%s: %v, want %v", key, v[key], want)
		}
	}
	if v["KeepAlive"].(map[string]any)["SuccessfulExit"] != false {
		t.Errorf("it starts again after %v", v["KeepAlive"])
	}
	l.system = false
	if v := propertyListOf(t, l.propertyList("/usr/bin/o365pw", nil)); v["UserName"] != nil || v["EnvironmentVariables"] != nil {
		t.Errorf("a person's: %v", v)
	}
}

// TestServiceSID: the account of a service that Windows comes with is known.
func TestServiceSID(t *testing.T) {
	if got, want := serviceSID("TrustedInstaller"), "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if sddl := serviceSDDL(); !strings.HasPrefix(sddl, "D:P(") || othersRead("O:BAG:SY"+sddl, "") {
		t.Errorf("the state folder's access control list: %s", sddl)
	}
}

func TestOthersRead(t *testing.T) {
	const alice, bob = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002"
	for sddl, want := range map[string]bool{
		"O:BAG:SYD:P(A;;FA;;;SY)(A;;FA;;;BA)":               false,
		"O:" + alice + "G:DUD:PAI(A;;FA;;;" + alice + ")":   false,
		"O:BAG:DUD:(A;;FA;;;" + alice + ")":                 false, // who asks
		"O:BAG:DUD:(A;;FA;;;" + bob + ")":                   true,
		"O:BAG:DUD:(A;ID;0x1200a9;;;BU)(A;ID;FA;;;SY)":      true,
		"O:BAG:DUD:(D;;FA;;;BU)(A;;FA;;;SY)":                false,
		"O:BAG:DUD:(A;OICIIO;FA;;;CO)(A;;FA;;;SY)":          false, // for what comes into a folder
		"O:BAG:DUD:P(A;;FR;;;" + serviceSID("o365pw") + ")": false,
		"O:BAG:DUD:P":                 false,
		"O:BAG:DUD:NO_ACCESS_CONTROL": true,
		"O:BAG:DU":                    true,
		"O:BAG:DUD:(A;;FA)":           true,
		"O:BAG:DUD:(A;;FA;;;WD)S:(AU;SAFA;FA;;;WD)":                           true,
		"O:BAG:DUD:(A;;FA;;;SY)S:(AU;SAFA;FA;;;WD)":                           false,
		"O:" + alice + "G:DUD:AI(A;ID;FA;;;" + alice + ")(A;ID;FR;;;S-1-1-0)": true,
	} {
		if got := othersRead(sddl, alice); got != want {
			t.Errorf("%s: %v", sddl, got)
		}
	}
}

func TestForeignOwner(t *testing.T) {
	const me = "S-1-5-21-1-2-3-1001"
	for sddl, want := range map[string]bool{
		"O:BA": false, "O:SYG:SYD:P(A;OICI;FA;;;SY)": false, "O:" + me: false, "O:" + serviceSID("o365pw"): false,
		"O:S-1-5-21-1-2-3-1002D:(A;;FA;;;BA)": true, "O:BU": true, "O:WD": true, "D:(A;;FA;;;BA)": true, "": true,
		"O:S-1-5-21-1-2-3-10010": true,
	} {
		if got := foreignOwner(sddl, me); got != want {
			t.Errorf("%q: %v", sddl, got)
		}
	}
}

func TestLevelOf(t *testing.T) {
	for line, want := range map[string]string{
		`{"time":"x","level":"WARN","msg":"sign-in refused","user":"\"level\":\"ERROR\""}`: "WARN",
		`{"level":"ERROR"}`: "ERROR", `o365pw: imap on 127.0.0.1:1993`: "INFO", `{"user":"ERROR"}`: "INFO", ``: "INFO",
	} {
		if got := levelOf([]byte(line)); got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
}

func TestCommandLine(t *testing.T) {
	args := []string{"journalctl", "--user", "--unit=o365pw.service", "-n", "5", "/a b/c", "--name=a b", "-", "$x"}
	if got, want := commandLine(args), `journalctl --user --unit=o365pw.service -n 5 '/a b/c' --name='a b' - '$x'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAdviseCommand(t *testing.T) {
	for said, want := range map[string]string{
		"Failed to connect to bus: No medium found":                                         "enable-linger",
		"Failed to start o365pw.service: Access denied":                                     "sudo",
		"Failed to start o365pw.service: Interactive authentication required.":              "sudo",
		"Failed to start o365pw.service: Unit o365pw.service not found.":                    "service install",
		"Job for o365pw.service failed because the control process exited with error code.": "service logs",
		"Could not find service \"io.github.o365pw\" in domain for port":                    "service install",
		"something else": "service logs",
	} {
		if a := advise(&commandError{line: "x", said: said, err: errors.New("exit status 1")}); a.code != failed || !strings.Contains(a.hint, want) {
			t.Errorf("%s: %+v", said, a)
		}
	}
	if a := advise(&commandError{line: "systemctl", err: &exec.Error{Name: "systemctl", Err: exec.ErrNotFound}}); !strings.Contains(a.hint, "PATH") {
		t.Errorf("no program: %+v", a)
	}
	if a := advise(&commandError{line: "systemd-creds encrypt", err: &exec.Error{Name: "systemd-creds", Err: exec.ErrNotFound}}); !strings.Contains(a.hint, "--passphrase-file") {
		t.Errorf("an old systemd: %+v", a)
	}
}

func TestListensOn(t *testing.T) {
	for _, tt := range []struct {
		have, want string
		ok         bool
	}{
		{"127.0.0.1:1993", "127.0.0.1:1993", true},
		{"127.0.0.1:1993", "localhost:1993", true},
		{"127.0.0.1:1993", "127.0.0.1:0", true},
		{"127.0.0.1:1993", "127.0.0.1:1995", false},
		{"127.0.0.1:1993", "127.0.0.2:1993", false},
		{"127.0.0.1:1993", ":1993", false},
		{"[::]:1993", ":1993", true},
		{"0.0.0.0:1993", ":1993", true},
		{"[::]:1993", "0.0.0.0:1993", false}, // more than was asked for
		{"[::1]:1993", "[::1]:1993", true},
		{"127.0.0.1:1993", "", false},
	} {
		addr, err := net.ResolveTCPAddr("tcp", tt.have)
		if err != nil {
			t.Fatal(err)
		}
		if got := listensOn(t.Context(), addr, tt.want, true); got != tt.ok {
			t.Errorf("%s for %s: %v", tt.have, tt.want, got)
		}
	}
	if listensOn(t.Context(), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1993}, "127.0.0.1:0", false) {
		t.Error("any port, for a socket that does not say what it is for")
	}
	if listensOn(t.Context(), &net.UnixAddr{Name: "/run/x"}, "127.0.0.1:1993", true) {
		t.Error("a socket of the file system")
	}
}

// TestActivatedMatch: sockets find their protocol by address, and by name
// where they have one; one too many is an error.
func TestActivatedMatch(t *testing.T) {
	listen := func(name string) (activatedSocket, string) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return activatedSocket{name, ln}, ln.Addr().String()
	}
	one, addr := listen("o365pw.socket")
	two, addr2 := listen("imap")
	got, err := activated{one, two}.match(t.Context(), map[gateway.Protocol]string{gateway.IMAP: addr2, gateway.SMTP: addr, gateway.POP3: "127.0.0.1:1"})
	if err != nil || len(got) != 2 || got[gateway.IMAP] != two.ln || got[gateway.SMTP] != one.ln {
		t.Errorf("%v %v", got, err)
	}
	for name, addrs := range map[string]map[gateway.Protocol]string{
		"another address":  {gateway.IMAP: "127.0.0.1:1"},
		"another protocol": {gateway.IMAP: "127.0.0.1:1", gateway.SMTP: addr2},
		"nothing":          {},
	} {
		_, err := activated{two}.match(t.Context(), addrs)
		if a := advise(err); err == nil || a.code != wrongUsage || !strings.Contains(err.Error(), addr2) || !strings.Contains(a.hint, "service install") {
			t.Errorf("%s: %v %+v", name, err, a)
		}
	}
	if _, err := (activated{one, one}).match(t.Context(), map[gateway.Protocol]string{gateway.IMAP: addr}); err == nil {
		t.Error("the same twice")
	}
}
