package pkg_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/o365pw/o365pw/"

// layers of the project, the lowest first. A package may import packages of
// lower layers only.
var layers = []map[string]bool{
	{"pkg/internal/durable": true, "pkg/internal/jsontemplate": true, "pkg/internal/localca": true, "pkg/internal/logtest": true, "pkg/internal/transcript": true, "pkg/internal/integration": true},
	{"pkg/secret": true, "pkg/audit": true, "pkg/explain": true, "pkg/clientconfig": true, "pkg/sendmail": true},
	{"pkg/xoauth2": true},
	{"pkg/config": true, "pkg/entra": true, "pkg/graph": true},
	{"pkg/apppassword": true, "pkg/autoconfig": true, "pkg/gateway": true, "pkg/sandbox": true},
	{"pkg/cli": true},
	{"cmd/o365pw": true, "cmd/soak": true, "cmd/gendocs": true},
}

// serversOnly are modules that only the sandbox, the demo's mail program and
// tests may use: in front of a mailbox they would stand between client and
// server.
var serversOnly = map[string][]string{
	"github.com/emersion/go-imap/v2": {"pkg/sandbox", "pkg/cli"},
	"github.com/emersion/go-smtp":    {}, // tests alone
}

func layerOf(t *testing.T, pkg string) int {
	t.Helper()
	for i, l := range layers {
		if l[pkg] {
			return i
		}
	}
	t.Errorf("package %s has no layer: give it one in this test and in docs/design.md", pkg)
	return -1
}

// TestImportsGoDown holds every package to its layer: imports go down, never
// sideways, and the sandbox shares nothing with the clients it is to test.
func TestImportsGoDown(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == "pkg" {
			continue // only this test
		}
		seen++
		mine := layerOf(t, name)
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, module); ours {
				if theirs := layerOf(t, to); theirs >= mine {
					t.Errorf("%s imports %s, which is not below it", name, to)
				}
				if name == "pkg/sandbox" && (to == "pkg/graph" || to == "pkg/entra" || to == "pkg/config") {
					t.Errorf("the sandbox imports %s: a wrong name on the wire would cancel out", to)
				}
			}
			if imp == "text/template" || imp == "html/template" {
				t.Errorf("%s imports %s, which calls methods by name: the linker then keeps all there are, and the program grows by 2 MB", name, imp)
			}
			for mod, allowed := range serversOnly {
				if strings.HasPrefix(imp, mod) && !strings.Contains(strings.Join(allowed, " ")+" ", name+" ") {
					t.Errorf("%s imports %s", name, imp)
				}
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages were looked at", seen)
	}
}
