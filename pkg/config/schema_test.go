package config

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compiledSchema is the schema as a library of its own reads it, which also
// holds it to draft 2020-12.
func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if s.DraftVersion != 2020 {
		t.Errorf("draft %d", s.DraftVersion)
	}
	return s
}

// validate holds a file to the schema, as an editor does. TOML that cannot be
// read is an error, too.
func validate(s *jsonschema.Schema, text string) error {
	var v map[string]any
	if err := toml.Unmarshal([]byte(strings.TrimPrefix(text, "\uFEFF")), &v); err != nil {
		return err
	}
	return s.Validate(v)
}

// decoderKeys are the keys that the decoder's types know, in the form of keys.
func decoderKeys(t reflect.Type, at string, into map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer:
		decoderKeys(t.Elem(), at, into)
	case reflect.Map:
		into[at+".*"] = true
		decoderKeys(t.Elem(), at+".*", into)
	case reflect.Struct:
		for i := range t.NumField() {
			key := strings.TrimPrefix(at+"."+t.Field(i).Tag.Get("toml"), ".")
			into[key] = true
			decoderKeys(t.Field(i).Type, key, into)
		}
	}
}

// schemaKeys are the keys that the schema lets pass, and whether each has a
// description.
func schemaKeys(s *jsonschema.Schema, at string, into map[string]bool) {
	for name, p := range s.Properties {
		key := strings.TrimPrefix(at+"."+name, ".")
		into[key] = p.Description != ""
		schemaKeys(p, key, into)
	}
	if more, ok := s.AdditionalProperties.(*jsonschema.Schema); ok {
		into[at+".*"] = more.Description != ""
		schemaKeys(more, at+".*", into)
	}
}

// TestSchemaKeys holds decoder, words and schema to the same keys.
func TestSchemaKeys(t *testing.T) {
	decoded, told, schema := map[string]bool{}, map[string]bool{}, map[string]bool{}
	decoderKeys(reflect.TypeFor[file](), "", decoded)
	schemaKeys(compiledSchema(t), "", schema)
	for key := range keys {
		told[key] = true
	}
	if d := cmp.Diff(decoded, told); d != "" {
		t.Errorf("decoder and keys: %s", d)
	}
	if d := cmp.Diff(decoded, schema); d != "" {
		t.Errorf("decoder and schema, true where it is described: %s", d)
	}
	var names []string
	for _, d := range describedKeys {
		names = append(names, d.key)
	}
	slices.Sort(names)
	if d := cmp.Diff(slices.Sorted(maps.Keys(keys)), names); d != "" {
		t.Errorf("described: %s", d)
	}
}

// TestSchemaFile holds the published file to the program.
func TestSchemaFile(t *testing.T) {
	published, err := os.ReadFile(filepath.Join("..", "..", "docs", "config.schema.json"))
	if err != nil || !bytes.Equal(published, Schema()) {
		t.Errorf("docs/config.schema.json is not what the program prints; write it with: go run ./cmd/o365pw config schema >docs/config.schema.json (%v)", err)
	}
}

// TestSchemaDefaults holds the defaults in the schema to those that take effect.
func TestSchemaDefaults(t *testing.T) {
	cfg, err := Load(write(t, "[profiles.work]\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := cfg.Profiles["work"]
	for key, want := range map[string]any{
		"profiles.*.backing": p.Backing, "profiles.*.allow": p.Allow, "profiles.*.expires": p.Expires, "profiles.*.cloud": p.CloudName,
		"profiles.*.keychain": p.Keychain, "profiles.*.assertion_algorithm": p.AssertionAlgorithm,
		"gateway.imap": cfg.Gateway.IMAP, "gateway.pop3": cfg.Gateway.POP3, "gateway.smtp": cfg.Gateway.SMTP,
	} {
		if d := cmp.Diff(want, describedKey(key).standard); d != "" {
			t.Errorf("%s: %s", key, d)
		}
	}
	if d, err := ParseDuration(describedKey("gateway.revalidate").standard.(string)); err != nil || d != cfg.Gateway.Revalidate {
		t.Errorf("revalidate: %v %v", d, err)
	}
}

// beyondSchema are the faults that a schema cannot tell: what belongs together,
// what exists, how long something is, what a whole value means.
var beyondSchema = []string{
	"default", "tenant common", "tenant organizations", "personal accounts", "personal accounts by id", "personal accounts in China",
	"cloud", "endpoint port", "resource", "metrics host", "hook NUL", "revalidate never",
	"legacy every IPv6", "legacy public", "legacy public IPv6",
}

// TestSchemaAgrees holds Load and schema against each other.
func TestSchemaAgrees(t *testing.T) {
	s := compiledSchema(t)
	for _, tt := range loadFaults() {
		if err := validate(s, tt.content); err == nil && !slices.Contains(beyondSchema, tt.name) {
			t.Errorf("%s: the schema lets it pass, Load does not", tt.name)
		} else if err != nil && slices.Contains(beyondSchema, tt.name) {
			t.Errorf("%s: a schema can tell it after all: %v", tt.name, err)
		}
	}
	const profile, cloud = "[profiles.work]\n", "[clouds.lab]\nauthority = \"https://login.example\"\ngraph = \"https://graph.example/v1.0\"\n"
	for _, good := range []string{
		"", "\uFEFF" + full, profile, "profiles.work = {}", "default_profile = \"\"", "default_profile = \"a.b\"\n[profiles.\"a.b\"]\ntenant = \"\"",
		profile + "tenant = \"" + guid + "\"\nclient_id = \"00001111-AAAA-2222-bbbb-3333CCCC4444\"", profile + "tenant = \"a_b.example\"",
		profile + "backing = \"user\"\ntenant = \"Common\"", profile + "backing = \"user\"\ntenant = \"consumers\"",
		profile + "mailbox = \"o'neil+x@xn--bcher-kva.example\"", profile + "mailbox = \"älice@bücher.example\"",
		profile + "expires = \"1d12h\"", profile + "expires = \" 6MO \"", profile + "expires = \"2027-05-01\"", profile + "expires = \"2027-05-01T12:00:00Z\"",
		profile + "expires = \"2027-05-01t12:00:00+01:00\"", profile + "expires = \"\"", profile + "cloud = \"usgov\"", profile + "certificate = \"\"",
		cloud, cloud + "imap = \"IMAPS://[::1]:993/\"\npop3 = \"pop3://pop.example\"\nsmtp = \"smtps://192.0.2.1\"", cloud + "imap = \"\"",
		"[clouds.lab]\nauthority = \"HTTP://LocalHost:8400/x\"\ngraph = \"http://[::1]:1/v1.0\"", "[clouds.l]\nauthority = \"http://127.9.9.9\"\ngraph = \"https://u.example:8443\"",
		cloud + "exchange_resource = \"api://x/y\"", "[gateway]\nimap = \":1993\"\npop3 = \"\"\nsmtp = \"[fe80::1%eth0]:587\"", "[gateway]\nrevalidate = \"24h\"",
		"[gateway]\nautoconfig = \"0.0.0.0:8443\"\nautoconfig_domains = [\"Contoso.com\", \"a-b.contoso.co.uk\"]",
		"[gateway.legacy]\nimap = \"10.1.2.3:993\"\npop3 = \"[fd00::1]:995\"\nsmtp = \"[fe80::1%eth0]:587\"", "[gateway.legacy]\nimap = \"\"\nsmtp = \"[::1]:0\"",
		"[gateway]\nimap = \"localhost:0\"\ntls_cert = \"a\"\ntls_key = \"b\"", "[hooks]\non_decoy = \"\"\non_refused = \"a\\n\\nb\"",
	} {
		if _, err := parse("/etc/o365pw.toml", []byte(good)); err != nil {
			t.Errorf("%q: Load gives %v", good, err)
		}
		if err := validate(s, good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	// An empty value is what Load takes for the default; editors are to propose
	// those that there are.
	for _, key := range []string{"backing", "keychain", "assertion_algorithm"} {
		text := profile + key + " = \"\""
		if _, err := parse("/etc/o365pw.toml", []byte(text)); err != nil || validate(s, text) == nil {
			t.Errorf("%q: Load gives %v", text, err)
		}
	}
}

// TestSchemaSamples holds all examples of the configuration in the documents to
// the schema and to Load.
func TestSchemaSamples(t *testing.T) {
	s := compiledSchema(t)
	names, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```toml\n(.*?)```")
	seen := 0
	for _, name := range append(names, filepath.Join("..", "..", "README.md")) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range block.FindAllStringSubmatch(string(b), -1) {
			seen++
			if err := validate(s, m[1]); err != nil {
				t.Errorf("%s: %v\n%s", name, err, m[1])
			}
			if _, err := parse("/etc/o365pw.toml", []byte(m[1])); err != nil {
				t.Errorf("%s: %v\n%s", name, err, m[1])
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d examples were found", seen)
	}
	if e, ok := errors.AsType[*jsonschema.ValidationError](validate(s, "x = 1")); !ok {
		t.Errorf("a wrong one passes: %v", e)
	}
}
