package cli

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// windowsServiceName is what Windows calls the service, and its log's source.
const windowsServiceName = "o365pw"

// serviceSID is the identity of a service's virtual account ("NT SERVICE\" and
// its name): S-1-5-80 and the SHA-1 of the name in upper case, in UTF-16
// ([MS-DTYP] 2.4.2.4, well-known SID NT_SERVICE).
func serviceSID(name string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(strings.ToUpper(name))) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	sum := sha1.Sum(b)
	sid := "S-1-5-80"
	for i := 0; i < len(sum); i += 4 {
		sid += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(sum[i:]))
	}
	return sid
}

// serviceSDDL lets the system, administrators and the service at a folder and
// all that comes into it, and nobody else ([MS-DTYP] 2.5.1).
func serviceSDDL() string {
	return "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;" + serviceSID(windowsServiceName) + ")"
}

// othersRead tells whether a security descriptor lets somebody at a file who is
// neither its owner, the caller, the system, an administrator nor a service.
// What cannot be understood counts as yes.
func othersRead(sddl, caller string) bool {
	owner, _, _ := strings.Cut(strings.TrimPrefix(sddl, "O:"), "G:")
	_, dacl, found := strings.Cut(sddl, "D:")
	dacl, _, _ = strings.Cut(dacl, "S:(") // what is audited
	if !found || strings.HasPrefix(dacl, "NO_ACCESS_CONTROL") {
		return true
	}
	_, dacl, _ = strings.Cut(dacl, "(") // behind the flags
	for entry := range strings.SplitSeq(strings.TrimSuffix(dacl, ")"), ")(") {
		if entry == "" {
			continue // nobody is let in
		}
		f := strings.Split(entry, ";") // type;flags;rights;object;inherited object;who
		if len(f) < 6 {
			return true
		}
		who := f[5]
		trusted := slices.Contains([]string{owner, caller, "SY", "BA", "OW", "S-1-5-18", "S-1-5-32-544", "S-1-3-4"}, who) || strings.HasPrefix(who, "S-1-5-80-")
		if f[0] != "D" && !strings.Contains(f[1], "IO") && !trusted {
			return true
		}
	}
	return false
}

// foreignOwner tells whether a security descriptor names an owner who is neither
// the caller, the system, an administrator nor a service: an owner can let himself
// in again, whatever the list says.
func foreignOwner(sddl, caller string) bool {
	owner, found := strings.CutPrefix(sddl, "O:")
	for _, next := range []string{"G:", "D:", "S:"} {
		owner, _, _ = strings.Cut(owner, next)
	}
	return !found || !slices.Contains([]string{caller, "SY", "BA", "S-1-5-18", "S-1-5-32-544"}, owner) && !strings.HasPrefix(owner, "S-1-5-80-")
}

// levelOf is the level of a line of the gateway's log, which is JSON there;
// of other lines, which tell a person something, INFO.
func levelOf(line []byte) string {
	var v struct {
		Level string `json:"level"`
	}
	if err := json.Unmarshal(line, &v); err != nil || v.Level == "" {
		return "INFO"
	}
	return v.Level
}
