package cli

import (
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/o365pw/o365pw/pkg/secret"
)

// A file that is written whole has another name until it is; people are told of
// what they can look at.
func TestHintsNameWhatStays(t *testing.T) {
	denied := func(path string) error { return &fs.PathError{Op: "open", Path: path, Err: os.ErrPermission} }
	full := func(path string) error { return &fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC} }
	for _, tc := range []struct {
		err  error
		hint string
	}{
		{denied("/s/.registry.json.123.tmp"), "run it as the user whom /s belongs to, or set O365PW_STATE to a folder of your own"},
		{denied("/s/registry.json"), "run it as the user whom /s/registry.json belongs to, or set O365PW_STATE to a folder of your own"},
		{full("/s/.registry.json.123.tmp"), "see that you can write to /s, or set O365PW_STATE to a folder where you can"},
		{full("/s/.hidden"), "see that you can write to /s/.hidden, or set O365PW_STATE to a folder where you can"},
		{&secret.UnavailableError{Err: denied("/s/.keychain.age.123.tmp")}, "see that you can write to /s, or set O365PW_STATE to a folder where you can"},
	} {
		if got := advise(tc.err).hint; got != tc.hint {
			t.Errorf("%v: %s\nwant %s", tc.err, got, tc.hint)
		}
	}
}
