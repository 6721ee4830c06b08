package cli

import (
	"os"

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
	caller := ""
	if u, err := windows.GetCurrentProcessToken().GetTokenUser(); err == nil {
		caller = u.User.Sid.String()
	}
	return othersRead(sd.String(), caller), nil
}

// keepToService lets nobody but the system, administrators and the service at a
// folder and what comes into it.
func keepToService(dir string) error {
	sd, err := windows.SecurityDescriptorFromString(serviceSDDL())
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
}
