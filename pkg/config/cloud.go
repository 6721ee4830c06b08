package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// The built-in clouds. Login and Graph hosts are those of
// https://learn.microsoft.com/graph/deployments, mail hosts of GCC High and DoD
// those of the endpoint lists at https://learn.microsoft.com/microsoft-365/enterprise,
// portals those of https://learn.microsoft.com/entra/fundamentals/faq, Exchange
// environments those of https://learn.microsoft.com/powershell/module/exchange/connect-exchangeonline.
// What is marked was never confirmed by documentation that could be found; where
// it is wrong, a [clouds.NAME] table of one's own mends it. docs/clouds.md lists
// the same for people, and a test keeps it in step.
var (
	// Global, with GCC (US government, level 2).
	global = Cloud{
		Name: "global", About: "Microsoft 365 worldwide, with GCC",
		Authority: "https://login.microsoftonline.com",
		Graph:     "https://graph.microsoft.com/v1.0", GraphResource: "https://graph.microsoft.com",
		IMAP:              Endpoint{"outlook.office365.com", 993, "tls"},
		POP3:              Endpoint{"outlook.office365.com", 995, "tls"},
		SMTP:              Endpoint{"smtp.office365.com", 587, "starttls"},
		ExchangeResource:  "https://outlook.office365.com",
		ExchangeDelegated: "https://outlook.office.com",
		Portal:            "https://entra.microsoft.com", ExchangeEnvironment: "O365Default",
	}

	// GCC High. Resources and SMTP: seen in use, not documented; the endpoint list
	// has port 587 at outlook.office365.us.
	usgov = Cloud{
		Name: "usgov", About: "US government, GCC High",
		Authority: "https://login.microsoftonline.us",
		Graph:     "https://graph.microsoft.us/v1.0", GraphResource: "https://graph.microsoft.us",
		IMAP:              Endpoint{"outlook.office365.us", 993, "tls"},
		POP3:              Endpoint{"outlook.office365.us", 995, "tls"},
		SMTP:              Endpoint{"smtp.office365.us", 587, "starttls"},
		ExchangeResource:  "https://outlook.office365.us",
		ExchangeDelegated: "https://outlook.office365.us",
		Portal:            "https://entra.microsoft.us", ExchangeEnvironment: "O365USGovGCCHigh",
	}

	// US Department of Defense. Resources: unconfirmed, and sources differ
	// (outlook-dod.office365.us or outlook.office365.us). That the portal is GCC
	// High's: seen in use.
	dod = Cloud{
		Name: "dod", About: "US Department of Defense",
		Authority: "https://login.microsoftonline.us",
		Graph:     "https://dod-graph.microsoft.us/v1.0", GraphResource: "https://dod-graph.microsoft.us",
		IMAP:              Endpoint{"outlook-dod.office365.us", 993, "tls"},
		POP3:              Endpoint{"outlook-dod.office365.us", 995, "tls"},
		SMTP:              Endpoint{"outlook-dod.office365.us", 587, "starttls"},
		ExchangeResource:  "https://outlook-dod.office365.us",
		ExchangeDelegated: "https://outlook-dod.office365.us",
		Portal:            "https://entra.microsoft.us", ExchangeEnvironment: "O365USGovDoD",
	}

	// China, operated by 21Vianet. Mail hosts and resources: seen in use, not
	// documented. login.partner.microsoftonline.cn seems to be the newer name of
	// its sign-in.
	china = Cloud{
		Name: "china", About: "China, operated by 21Vianet",
		Authority: "https://login.chinacloudapi.cn",
		Graph:     "https://microsoftgraph.chinacloudapi.cn/v1.0", GraphResource: "https://microsoftgraph.chinacloudapi.cn",
		IMAP:              Endpoint{"partner.outlook.cn", 993, "tls"},
		POP3:              Endpoint{"partner.outlook.cn", 995, "tls"},
		SMTP:              Endpoint{"smtp.partner.outlook.cn", 587, "starttls"},
		ExchangeResource:  "https://partner.outlook.cn",
		ExchangeDelegated: "https://partner.outlook.cn",
		Portal:            "https://entra.microsoftonline.cn", ExchangeEnvironment: "O365China",
	}

	builtin = []Cloud{global, usgov, dod, china}
)

// BuiltinClouds are Microsoft's clouds, the global one first.
func BuiltinClouds() []Cloud { return slices.Clone(builtin) }

// BuiltinCloud gives one of Microsoft's clouds: global, usgov, dod or china. The
// Exchange resources of the last three are unconfirmed, and so are some of their
// mail servers: docs/clouds.md has which.
func BuiltinCloud(name string) (Cloud, bool) {
	for _, c := range builtin {
		if c.Name == name {
			return c, true
		}
	}
	return Cloud{}, false
}

// kin is the built-in cloud whose Graph a cloud of one's own names: what is not
// written in its table is as it is there. A Graph elsewhere, such as a sandbox's,
// has none: the zero Cloud.
func kin(graph string) Cloud {
	for _, c := range builtin {
		if strings.EqualFold(hostOf(c.Graph), hostOf(graph)) {
			return c
		}
	}
	return Cloud{}
}

// delegated is the resource of a person's sign-in where applications use
// resource. Only the global cloud is known to have two.
func delegated(resource string) string {
	for _, c := range builtin {
		if c.ExchangeResource == resource {
			return c.ExchangeDelegated
		}
	}
	return resource
}

// hostOf gives the host of a URL, without port; empty where v is none.
func hostOf(v string) string {
	u, err := url.Parse(v)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func builtinNames() []string {
	var names []string
	for _, c := range builtin {
		names = append(names, c.Name)
	}
	return names
}

// Table is the cloud as it is written in a configuration file, for one of one's
// own; ca_file without its folder.
func (c Cloud) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[clouds.%s]\n", quoteKey(c.Name))
	caFile := ""
	if c.CAFile != "" {
		caFile = filepath.Base(c.CAFile)
	}
	for _, s := range []Setting{
		{"authority", c.Authority}, {"graph", c.Graph}, {"imap", c.IMAP.URL("imap")}, {"pop3", c.POP3.URL("pop3")}, {"smtp", c.SMTP.URL("smtp")},
		{"exchange_resource", c.ExchangeResource}, {"ca_file", caFile},
	} {
		if s.Value != "" {
			value, _ := encode(s.Value) // text always can be
			fmt.Fprintf(&b, "%s = %s\n", s.Key, value)
		}
	}
	return b.String()
}

// ParseTable reads what [Cloud.Table] gives of the cloud called name, and nothing
// beside it. Its error is an *Error.
func ParseTable(name, table string) (Cloud, error) {
	cfg, err := parse("", []byte(table))
	if err != nil {
		return Cloud{}, err
	}
	c, ok := cfg.Clouds[name]
	if !ok || len(cfg.Clouds) > 1 || len(cfg.Profiles) > 0 || cfg.Written("gateway") || cfg.Written("hooks") || cfg.Written("default_profile") {
		return Cloud{}, &Error{Key: "clouds." + name, Problem: "is not a table of this cloud alone"}
	}
	return c, nil
}
