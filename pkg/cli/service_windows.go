package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

// winService is the service control manager's.
type winService struct {
	a   *app
	dir string // configuration and state
}

// windowsService is Windows' own. With change, the caller has to be an
// administrator, with a token that says so.
func (a *app) windowsService(change bool) (supervisor, error) {
	if change && !windows.GetCurrentProcessToken().IsElevated() {
		return nil, &noServiceError{problem: "only administrators can change the services of this machine", hint: "run it in a terminal that was opened by \"Run as administrator\""}
	}
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, 0)
	if err != nil {
		return nil, fmt.Errorf("find the folder ProgramData: %w", err)
	}
	return &winService{a, filepath.Join(dir, "o365pw")}, nil
}

// open gives the service with the rights asked for; nil: there is none.
func (s *winService) open(access uint32) (*mgr.Service, error) {
	m, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return nil, fmt.Errorf("ask the service control manager: %w", err)
	}
	defer windows.CloseServiceHandle(m)
	name, err := windows.UTF16PtrFromString(windowsServiceName)
	if err != nil {
		return nil, err
	}
	h, err := windows.OpenService(m, name, access)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the service %s: %w", windowsServiceName, err)
	}
	return &mgr.Service{Name: windowsServiceName, Handle: h}, nil
}

var errNoWindowsService = &noServiceError{problem: "the service is not installed", hint: "o365pw service install"}

func (s *winService) environ(passphraseFile string) []string {
	return []string{
		"O365PW_CONFIG=" + filepath.Join(s.dir, "config.toml"), "O365PW_STATE=" + s.dir, "O365PW_KEYCHAIN=file",
		"O365PW_KEYCHAIN_PASSPHRASE_FILE=" + passphraseFile,
	}
}

const windowsServiceKey = `SYSTEM\CurrentControlSet\Services\` + windowsServiceName

// identity is that of the installed service.
func (s *winService) identity(context.Context) (serviceIdentity, error) {
	id := serviceIdentity{environ: s.environ(filepath.Join(s.dir, "keychain-passphrase"))}
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, windowsServiceKey, registry.QUERY_VALUE)
	if errors.Is(err, registry.ErrNotExist) {
		return id, nil
	}
	if err != nil {
		return id, fmt.Errorf("read the service's environment: %w", err)
	}
	defer k.Close()
	if v, _, err := k.GetStringsValue("Environment"); err == nil {
		id.environ = v
	}
	return id, nil
}

func (s *winService) install(_ context.Context, o serviceOptions) (p servicePlan, err error) {
	if s.a.configPath != "" {
		return p, &usageError{problem: "the machine's service has its configuration in " + filepath.Join(s.dir, "config.toml"), hint: "put the file there, and leave --config out"}
	}
	given := o.passphraseFile
	if given != "" {
		if given, err = s.a.checkPassphraseFile(given); err != nil {
			return p, err
		}
	}
	p.then = append(p.then, serviceStep{show: "a folder for the service and administrators alone: " + s.dir + " (" + serviceSDDL() + ")", run: func(context.Context) error {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		if err := keepToService(s.dir); err != nil {
			return &os.PathError{Op: "keep others from", Path: s.dir, Err: err}
		}
		return nil
	}})
	if given == "" {
		given = filepath.Join(s.dir, "keychain-passphrase")
		p.then = append(p.then, s.a.passphraseFile(given)...)
	}
	environ := s.environ(given)
	p.then = append(p.then,
		serviceStep{show: `the event log's source "` + windowsServiceName + `"`, run: s.makeSource},
		serviceStep{
			show: fmt.Sprintf(`sc.exe create %s binPath= "\"%s\" serve" obj= "NT SERVICE\%[1]s" start= auto, with %[3]s`, windowsServiceName, o.program, strings.Join(environ, " ")),
			run:  func(context.Context) error { return s.create(o.program, environ) },
		})
	p.next = []string{"set it up: o365pw service run setup", "then start it: o365pw service start"}
	return p, nil
}

func (s *winService) makeSource(context.Context) error {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\EventLog\Application\`+windowsServiceName, registry.QUERY_VALUE)
	if err == nil {
		return k.Close()
	}
	if err := eventlog.InstallAsEventCreate(windowsServiceName, eventlog.Error|eventlog.Warning|eventlog.Info); err != nil {
		return fmt.Errorf("make a source of the event log: %w", err)
	}
	return nil
}

// create makes the service, or brings one that was made here up to date.
func (s *winService) create(program string, environ []string) error {
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("ask the service control manager: %w", err)
	}
	defer m.Disconnect()
	c := mgr.Config{
		ServiceType: windows.SERVICE_WIN32_OWN_PROCESS, StartType: mgr.StartAutomatic, ErrorControl: mgr.ErrorNormal,
		ServiceStartName: `NT SERVICE\` + windowsServiceName,
		DisplayName:      "o365pw mail gateway", Description: "Lets old mail programs at Microsoft 365 mailboxes. " + serviceMark,
	}
	service, err := s.open(windows.SERVICE_ALL_ACCESS)
	if err != nil {
		return err
	}
	if service == nil {
		service, err = m.CreateService(windowsServiceName, program, c, "serve")
	} else {
		var now mgr.Config
		if now, err = service.Config(); err == nil && !strings.Contains(now.Description, serviceMark) {
			service.Close()
			return &noServiceError{problem: "there is a service " + windowsServiceName + ", which was not made by o365pw service install", hint: "remove it, and run this again: sc.exe delete " + windowsServiceName}
		}
		c.BinaryPathName = windows.ComposeCommandLine([]string{program, "serve"})
		if err == nil {
			err = service.UpdateConfig(c)
		}
	}
	if err != nil {
		return fmt.Errorf("make the service: %w", err)
	}
	defer service.Close()
	again := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: 10 * time.Second}
	if err := service.SetRecoveryActions([]mgr.RecoveryAction{again, again, again}, 3600); err != nil {
		return fmt.Errorf("have the service started again after a fault: %w", err)
	}
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, windowsServiceKey, registry.SET_VALUE)
	if err != nil {
		return fmt.Errorf("set the service's environment: %w", err)
	}
	defer k.Close()
	if err := k.SetStringsValue("Environment", environ); err != nil {
		return fmt.Errorf("set the service's environment: %w", err)
	}
	s.a.note("made the service %s", windowsServiceName)
	return nil
}

func (s *winService) uninstall(ctx context.Context) (p servicePlan, err error) {
	p.first = []serviceStep{
		{show: "sc.exe stop " + windowsServiceName, run: s.stop},
		{show: "sc.exe delete " + windowsServiceName, run: func(context.Context) error {
			service, err := s.open(windows.DELETE | windows.SERVICE_QUERY_CONFIG)
			if err != nil {
				return err
			}
			if service == nil {
				return errNoWindowsService
			}
			defer service.Close()
			c, err := service.Config()
			if err == nil && !strings.Contains(c.Description, serviceMark) {
				return &noServiceError{problem: "the service " + windowsServiceName + " was not made by o365pw service install", hint: "sc.exe delete " + windowsServiceName}
			}
			if err == nil {
				err = service.Delete()
			}
			if err != nil {
				return fmt.Errorf("delete the service: %w", err)
			}
			_ = eventlog.Remove(windowsServiceName) // its entries stay readable
			return nil
		}},
	}
	p.next = []string{"still there: " + s.dir + " with configuration, state, keychain and its passphrase"}
	return p, nil
}

func (s *winService) start(ctx context.Context) error {
	service, err := s.open(windows.SERVICE_START | windows.SERVICE_QUERY_STATUS)
	if err != nil {
		return err
	}
	if service == nil {
		return errNoWindowsService
	}
	defer service.Close()
	if err := service.Start(); err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		return &commandError{line: "sc.exe start " + windowsServiceName, err: err}
	}
	state, err := s.await(ctx, service, svc.Running, svc.Stopped)
	if err == nil && state != svc.Running {
		err = &noServiceError{problem: "the service has ended while it started", hint: "o365pw service logs"}
	}
	return err
}

func (s *winService) stop(ctx context.Context) error {
	service, err := s.open(windows.SERVICE_STOP | windows.SERVICE_QUERY_STATUS)
	if err != nil {
		return err
	}
	if service == nil {
		return errNoWindowsService
	}
	defer service.Close()
	if _, err := service.Control(svc.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return &commandError{line: "sc.exe stop " + windowsServiceName, err: err}
	}
	_, err = s.await(ctx, service, svc.Stopped)
	return err
}

func (s *winService) restart(ctx context.Context) error {
	if err := s.stop(ctx); err != nil {
		return err
	}
	return s.start(ctx)
}

// windowsPoll is how often the service is looked at that starts or stops.
const windowsPoll = 250 * time.Millisecond

// await returns when the service is in one of the states.
func (s *winService) await(ctx context.Context, service *mgr.Service, states ...svc.State) (svc.State, error) {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	for {
		st, err := service.Query()
		if err != nil {
			return 0, fmt.Errorf("ask for the service's state: %w", err)
		}
		for _, want := range states {
			if st.State == want {
				return want, nil
			}
		}
		select {
		case <-ctx.Done():
			return st.State, ctx.Err()
		case <-time.After(windowsPoll):
		}
	}
}

// windowsStates are the states as sc.exe names them.
var windowsStates = map[svc.State]string{
	svc.Stopped: "stopped", svc.StartPending: "start pending", svc.StopPending: "stop pending", svc.Running: "running",
	svc.ContinuePending: "continue pending", svc.PausePending: "pause pending", svc.Paused: "paused",
}

func (s *winService) state(context.Context) (serviceState, error) {
	st := serviceState{Supervisor: "windows", Scope: "system", stateDir: s.dir}
	service, err := s.open(windows.SERVICE_QUERY_STATUS | windows.SERVICE_QUERY_CONFIG)
	if err != nil || service == nil {
		return st, err
	}
	defer service.Close()
	c, err := service.Config()
	if err != nil {
		return st, fmt.Errorf("read the service's configuration: %w", err)
	}
	now, err := service.Query()
	if err != nil {
		return st, fmt.Errorf("ask for the service's state: %w", err)
	}
	st.Installed, st.Path, st.Enabled = true, c.BinaryPathName, c.StartType == mgr.StartAutomatic
	st.Running, st.State = now.State == svc.Running, windowsStates[now.State]
	if now.State == svc.Stopped && now.ServiceSpecificExitCode != 0 {
		st.State += ", exit code " + strconv.Itoa(int(now.ServiceSpecificExitCode))
	}
	if !st.Running {
		return st, nil
	}
	st.PID = int(now.ProcessId)
	if h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, now.ProcessId); err == nil {
		defer windows.CloseHandle(h)
		var created, exited, kernel, user windows.Filetime
		if windows.GetProcessTimes(h, &created, &exited, &kernel, &user) == nil {
			st.Since = utc(time.Unix(0, created.Nanoseconds()))
		}
	}
	return st, nil
}

// eventXPath selects the service's entries of the application event log.
const eventXPath = "*[System[Provider[@Name='" + windowsServiceName + "']]]"

func (s *winService) logs(ctx context.Context, o serviceOptions) error {
	if o.follow {
		return &usageError{problem: "the event log cannot be followed from here", hint: "o365pw service logs --lines 20; or open Event Viewer: Windows Logs, Application, source o365pw"}
	}
	return s.a.show(ctx, "wevtutil", "query-events", "Application", "/query:"+eventXPath, "/count:"+strconv.Itoa(o.lines), "/reversedirection:true", "/format:text")
}

// asService runs the gateway for Windows, where Windows has started it.
func (a *app) asService(ctx context.Context, o serveOptions) (bool, error) {
	is, err := svc.IsWindowsService()
	if err != nil || !is {
		return false, nil // started by a person
	}
	log, err := eventlog.Open(windowsServiceName)
	if err != nil {
		return true, fmt.Errorf("open the event log: %w", err)
	}
	defer log.Close()
	a.Stderr = &eventWriter{log}
	h := &serviceHandler{a: a, ctx: ctx, o: o}
	if err := svc.Run(windowsServiceName, h); err != nil {
		return true, fmt.Errorf("answer the service control manager: %w", err)
	}
	return true, h.err
}

// eventWriter writes each line of the log as an event.
type eventWriter struct{ log *eventlog.Log }

// Write takes whole lines, as they are logged.
func (w *eventWriter) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		line = strings.TrimSpace(line)
		report := w.log.Info
		switch levelOf([]byte(line)) {
		case "WARN":
			report = w.log.Warning
		case "ERROR":
			report = w.log.Error
		}
		if err := report(1, line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// serviceHandler is the gateway in the terms of the service control manager.
type serviceHandler struct {
	a   *app
	ctx context.Context
	o   serveOptions
	err error
}

// Execute runs the gateway until it is told to stop. PARAMCHANGE (sc.exe
// control o365pw paramchange) is a reload. The exit code is the program's.
func (h *serviceHandler) Execute(_ []string, requests <-chan svc.ChangeRequest, states chan<- svc.Status) (bool, uint32) {
	states <- svc.Status{State: svc.StartPending, WaitHint: 30000}
	ctx, stop := context.WithCancel(h.ctx)
	defer stop()
	g, err := h.a.newGateway(ctx, h.o)
	if err != nil {
		h.err = err
		return true, uint32(h.a.advise(err).code)
	}
	reload := make(chan os.Signal, 1)
	ended := make(chan error, 1)
	h.a.announce(g)
	go func() { ended <- g.run(ctx, reload) }()
	running := svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown | svc.AcceptParamChange}
	states <- running
	for {
		select {
		case err := <-ended:
			h.err = err
			if err != nil {
				return true, uint32(h.a.advise(err).code)
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				states <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				running = svc.Status{State: svc.StopPending, WaitHint: uint32(stopLimit.Milliseconds())}
				states <- running
				stop()
			case svc.ParamChange:
				states <- running
				select {
				case reload <- windows.SIGHUP:
				default: // one is under way
				}
			}
		}
	}
}
