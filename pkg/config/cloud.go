package config

// The built-in clouds. Login and Graph hosts are those of
// https://learn.microsoft.com/graph/deployments; what is marked was never
// confirmed by documentation that could be found. Where one of those is wrong,
// a [clouds.NAME] table of one's own mends it.
var (
	// Global, with GCC (US government, level 2).
	global = Cloud{
		Name:      "global",
		Authority: "https://login.microsoftonline.com",
		Graph:     "https://graph.microsoft.com/v1.0", GraphResource: "https://graph.microsoft.com",
		IMAP:              Endpoint{"outlook.office365.com", 993, "tls"},
		POP3:              Endpoint{"outlook.office365.com", 995, "tls"},
		SMTP:              Endpoint{"smtp.office365.com", 587, "starttls"},
		ExchangeResource:  "https://outlook.office365.com",
		ExchangeDelegated: "https://outlook.office.com",
	}

	// GCC High. Exchange: seen in use, not documented; SMTP: unconfirmed.
	usgov = Cloud{
		Name:      "usgov",
		Authority: "https://login.microsoftonline.us",
		Graph:     "https://graph.microsoft.us/v1.0", GraphResource: "https://graph.microsoft.us",
		IMAP:              Endpoint{"outlook.office365.us", 993, "tls"},
		POP3:              Endpoint{"outlook.office365.us", 995, "tls"},
		SMTP:              Endpoint{"smtp.office365.us", 587, "starttls"},
		ExchangeResource:  "https://outlook.office365.us",
		ExchangeDelegated: "https://outlook.office365.us",
	}

	// US Department of Defense. Exchange: unconfirmed, and sources differ
	// (outlook-dod.office365.us or outlook.office365.us).
	dod = Cloud{
		Name:      "dod",
		Authority: "https://login.microsoftonline.us",
		Graph:     "https://dod-graph.microsoft.us/v1.0", GraphResource: "https://dod-graph.microsoft.us",
		IMAP:              Endpoint{"outlook-dod.office365.us", 993, "tls"},
		POP3:              Endpoint{"outlook-dod.office365.us", 995, "tls"},
		SMTP:              Endpoint{"outlook-dod.office365.us", 587, "starttls"},
		ExchangeResource:  "https://outlook-dod.office365.us",
		ExchangeDelegated: "https://outlook-dod.office365.us",
	}

	// China, operated by 21Vianet. Exchange: seen in use, not documented; SMTP:
	// unconfirmed.
	china = Cloud{
		Name:      "china",
		Authority: "https://login.chinacloudapi.cn",
		Graph:     "https://microsoftgraph.chinacloudapi.cn/v1.0", GraphResource: "https://microsoftgraph.chinacloudapi.cn",
		IMAP:              Endpoint{"partner.outlook.cn", 993, "tls"},
		POP3:              Endpoint{"partner.outlook.cn", 995, "tls"},
		SMTP:              Endpoint{"smtp.partner.outlook.cn", 587, "starttls"},
		ExchangeResource:  "https://partner.outlook.cn",
		ExchangeDelegated: "https://partner.outlook.cn",
	}

	builtin = []Cloud{global, usgov, dod, china}
)

// BuiltinCloud gives one of Microsoft's clouds: global, usgov, dod or china. The
// mail servers of the last three, and their Exchange resources, are unconfirmed;
// Microsoft documents their login and Graph hosts alone.
func BuiltinCloud(name string) (Cloud, bool) {
	for _, c := range builtin {
		if c.Name == name {
			return c, true
		}
	}
	return Cloud{}, false
}

func builtinNames() []string {
	var names []string
	for _, c := range builtin {
		names = append(names, c.Name)
	}
	return names
}
