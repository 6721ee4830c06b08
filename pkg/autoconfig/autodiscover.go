package autoconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/o365pw/o365pw/pkg/clientconfig"
)

// Error codes of Autodiscover's answers ([MS-OXDSCLI] section 2.2.4.1.1.1.2).
const (
	invalidRequest = 600
	noProvider     = 601 // nobody here speaks the schema that was asked for
)

// autodiscover answers Outlook.
func (h *Handler) autodiscover(w http.ResponseWriter, r *http.Request) {
	const xml = "text/xml; charset=utf-8"
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		http.Error(w, "the request is too long", http.StatusRequestEntityTooLarge)
		return
	} else if err != nil {
		return // the client has gone, or was too slow
	}
	req, err := parseRequest(body)
	switch {
	case err != nil:
		write(w, xml, discoverError(invalidRequest, "Invalid Request"))
	case req.schema != clientconfig.AutodiscoverSchema:
		write(w, xml, discoverError(noProvider, "Provider is not available"))
	case h.domainOf(req.address) == "":
		http.NotFound(w, r)
	default:
		write(w, xml, clientconfig.Autodiscover(req.address, h.servers(r)))
	}
}

// discoverError is an error in Autodiscover's own terms.
func discoverError(code int, message string) []byte {
	return fmt.Appendf(nil, `<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="%s">
  <Response>
    <Error Time="%s" Id="0">
      <ErrorCode>%d</ErrorCode>
      <Message>%s</Message>
      <DebugData/>
    </Error>
  </Response>
</Autodiscover>
`, clientconfig.AutodiscoverNS, time.Now().UTC().Format("15:04:05.0000000"), code, message)
}

// discoverRequest is what an Autodiscover client asks.
type discoverRequest struct {
	address string // EMailAddress
	schema  string // AcceptableResponseSchema
}

var errRequest = errors.New("not an Autodiscover request")

// wanted are the elements of a request that matter, by their path.
var wanted = []string{"Autodiscover/Request/EMailAddress", "Autodiscover/Request/AcceptableResponseSchema"}

// parseRequest reads a request of the schema outlook/requestschema/2006. It
// knows as much of XML as such a request needs: elements, text, the five
// predefined entities and characters by number, a declaration and comments.
// What declares a type or entities, or nests deeper than a request does, is an
// error.
func parseRequest(body []byte) (discoverRequest, error) {
	var req discoverRequest
	body = bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF"))
	if !utf8.Valid(body) {
		return req, errRequest
	}
	rest := string(body)
	var open []string // qualified names of the elements that are open
	text, seen := "", map[string]bool{}
	for {
		before, after, found := strings.Cut(rest, "<")
		if len(open) > 0 {
			text += before
		} else if strings.TrimSpace(before) != "" {
			return req, errRequest
		}
		if !found {
			break
		}
		switch {
		case strings.HasPrefix(after, "!--"):
			if _, rest, found = strings.Cut(after[3:], "-->"); !found {
				return req, errRequest
			}
			continue
		case strings.HasPrefix(after, "?"):
			if _, rest, found = strings.Cut(after, "?>"); !found {
				return req, errRequest
			}
			continue
		case strings.HasPrefix(after, "!"): // a document type, CDATA
			return req, errRequest
		}
		var tag string
		if tag, rest, found = cutTag(after); !found {
			return req, errRequest
		}
		if name, closes := strings.CutPrefix(tag, "/"); closes {
			if len(open) == 0 || open[len(open)-1] != strings.TrimRight(name, " \t\r\n") {
				return req, errRequest
			}
			if i := slices.Index(wanted, localPath(open)); i >= 0 {
				value, ok := unescape(strings.TrimSpace(text))
				if !ok || seen[wanted[i]] {
					return req, errRequest
				}
				seen[wanted[i]] = true
				*[]*string{&req.address, &req.schema}[i] = value
			}
			open, text = open[:len(open)-1], ""
			continue
		}
		tag, empty := strings.CutSuffix(tag, "/")
		name, _, _ := strings.Cut(strings.Map(blank, tag), " ")
		if name == "" || len(open) == 8 || len(open) == 0 && seen["root"] || slices.Contains(wanted, localPath(open)) {
			return req, errRequest
		}
		seen["root"] = true
		text = ""
		if !empty {
			open = append(open, name)
		}
	}
	if len(open) > 0 || req.address == "" || req.schema == "" {
		return discoverRequest{}, errRequest
	}
	return req, nil
}

// cutTag cuts at the end of a tag, which is no > in quotes.
func cutTag(s string) (tag, rest string, found bool) {
	var quote byte
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '<':
			return "", "", false
		case c == '>':
			return s[:i], s[i+1:], true
		}
	}
	return "", "", false
}

func blank(r rune) rune {
	if r == '\t' || r == '\r' || r == '\n' {
		return ' '
	}
	return r
}

// localPath is the way to the innermost element, without prefixes of namespaces.
func localPath(open []string) string {
	var b strings.Builder
	for i, name := range open {
		if i > 0 {
			b.WriteByte('/')
		}
		if _, local, ok := strings.Cut(name, ":"); ok {
			name = local
		}
		b.WriteString(name)
	}
	return b.String()
}

// unescape reads the references in a text.
func unescape(s string) (string, bool) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "&")
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		name, rest, found := strings.Cut(after, ";")
		if !found {
			return "", false
		}
		r, ok := reference(name)
		if !ok {
			return "", false
		}
		b.WriteRune(r)
		s = rest
	}
}

// reference is the character that is meant by &name;.
func reference(name string) (rune, bool) {
	if r, ok := map[string]rune{"amp": '&', "lt": '<', "gt": '>', "quot": '"', "apos": '\''}[name]; ok {
		return r, true
	}
	digits, isNumber := strings.CutPrefix(name, "#")
	base := 10
	if hex, isHex := strings.CutPrefix(digits, "x"); isHex {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if !isNumber || err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) || n < ' ' && n != '\t' && n != '\n' && n != '\r' {
		return 0, false
	}
	return rune(n), true
}
