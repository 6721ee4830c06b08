package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// readableByOthers tells whether anybody but the owner, the caller, the system,
// administrators and services can read the file.
func readableByOthers(path string) (bool, error) {
	if _, err := os.Stat(path); err != nil {
		return false, err
	}
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return false, &os.PathError{Op: "read the access control list of", Path: path, Err: err}
	}
	return othersRead(sd.String(), callerSID()), nil
}

func callerSID() string {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return ""
	}
	return u.User.Sid.String()
}

// keepToService lets nobody but the system, administrators and the service at a
// folder and what comes into it. Everybody may make folders in ProgramData, and
// who owns one can let himself in again: a folder in which something is anybody
// else's, or that leads elsewhere, is an error.
func keepToService(dir string) error {
	sd, err := windows.SecurityDescriptorFromString(serviceSDDL())
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("it is no folder, or leads to another one")
	}
	if err != nil {
		return err
	}
	err = windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
		if err == nil && foreignOwner(sd.String(), callerSID()) {
			err = errors.New(`somebody else has made it; look at it, then delete it, or take it over: takeown /A /F "` + path + `"`)
		}
		if err != nil {
			return &os.PathError{Op: "trust", Path: path, Err: err}
		}
		return nil
	})
}
