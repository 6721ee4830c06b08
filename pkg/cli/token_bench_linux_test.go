package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// BenchmarkToken is one mail program that asks for a token, which is cached: the
// program itself, as it is released. It should stay below 20 ms.
func BenchmarkToken(b *testing.B) {
	dir := b.TempDir()
	program := filepath.Join(dir, "o365pw")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-tags=nethttpomithttp2", "-gcflags=github.com/o365pw/o365pw/pkg/cli=-l", "-gcflags=github.com/o365pw/o365pw/pkg/sandbox=-l", "-o", program, "github.com/o365pw/o365pw/cmd/o365pw")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	srv := &sandbox.Server{AutoSignIn: true}
	if err := srv.Start(); err != nil {
		b.Fatal(err)
	}
	defer srv.Close()
	ca, config := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "config.toml")
	if err := os.WriteFile(ca, srv.CAPEM(), 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(srv.Config(ca)), 0o600); err != nil {
		b.Fatal(err)
	}
	id, secret := srv.AdminClient()
	run := func(args ...string) {
		cmd := exec.Command(program, args...)
		cmd.Env = []string{"HOME=" + dir, "O365PW_CONFIG=" + config, "O365PW_STATE=" + filepath.Join(dir, "state"), "O365PW_KEYCHAIN=file",
			"O365PW_KEYCHAIN_PASSPHRASE=bench", "AZURE_CLIENT_ID=" + id, "AZURE_CLIENT_SECRET=" + secret}
		if out, err := cmd.Output(); err != nil || len(out) == 0 {
			b.Fatalf("o365pw %v: %v", args, err)
		}
	}
	run("create", "mutt")
	run("token", "mutt")
	srv.SetFaults(func(f *sandbox.Faults) { f.EntraDown = true }) // what is not cached is an error
	for b.Loop() {
		run("token", "mutt")
	}
}
