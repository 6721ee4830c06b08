package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
)

// maxPages bounds how far paging is followed.
const maxPages = 1000

// listPage is one page of a list.
type listPage struct {
	request  request
	response response
	items    []json.RawMessage
}

// pages gives the list at first, page by page. An error is the last item.
// Paging links are followed to the host of BaseURL alone.
// https://learn.microsoft.com/graph/paging
func (c *Client) pages(ctx context.Context, b *budget, first string) iter.Seq2[listPage, error] {
	return func(yield func(listPage, error) bool) {
		next := first
		followed := map[string]bool{}
		for len(followed) < maxPages {
			followed[next] = true
			r := request{method: http.MethodGet, url: next}
			resp, err := c.send(ctx, b, r)
			if err != nil {
				yield(listPage{}, err)
				return
			}
			items, link, err := decodePage(resp.body)
			if err == nil && link != "" {
				err = sameService(c.BaseURL, link)
			}
			if err == nil && followed[link] {
				err = errors.New("the paging links run in a circle")
			}
			if err != nil {
				yield(listPage{}, r.malformed(resp, err))
				return
			}
			if !yield(listPage{r, resp, items}, nil) || link == "" {
				return
			}
			next = link
		}
		yield(listPage{}, &Error{Method: http.MethodGet, URL: withoutQuery(next), Err: fmt.Errorf("more than %d pages", maxPages)})
	}
}

func decodePage(body []byte) (items []json.RawMessage, next string, err error) {
	var w struct {
		Value    *[]json.RawMessage `json:"value"`
		NextLink string             `json:"@odata.nextLink"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return nil, "", err
	}
	if w.Value == nil {
		return nil, "", errors.New("a list without value")
	}
	return *w.Value, w.NextLink, nil
}

// decodeItems decodes the items of a page. Its error is an *Error.
func decodeItems[T any](p listPage, decode func([]byte) (T, error)) ([]T, error) {
	list := make([]T, 0, len(p.items))
	for _, item := range p.items {
		t, err := decode(item)
		if err != nil {
			return nil, p.request.malformed(p.response, err)
		}
		list = append(list, t)
	}
	return list, nil
}

// all gives the whole list at first.
func all[T any](ctx context.Context, c *Client, b *budget, first string, decode func([]byte) (T, error)) ([]T, error) {
	var list []T
	for p, err := range c.pages(ctx, b, first) {
		if err != nil {
			return nil, err
		}
		items, err := decodeItems(p, decode)
		if err != nil {
			return nil, err
		}
		list = append(list, items...)
	}
	return list, nil
}

// filter is the query option for the OData expression. Spaces become %20, as
// Graph's own links have them.
func filter(expression string) string {
	return "$filter=" + strings.ReplaceAll(url.QueryEscape(expression), "+", "%20")
}

// quoted is the OData literal for s: a quote within it is doubled.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Applications gives the app registrations that carry the tag, or all for an
// empty one, page by page. An error is the last item. Paging links are followed
// to the host of BaseURL alone.
// https://learn.microsoft.com/graph/api/application-list
func (c *Client) Applications(ctx context.Context, tag string) iter.Seq2[Application, error] {
	return func(yield func(Application, error) bool) {
		first := c.base() + "/applications?" + selectApplication
		if tag != "" {
			first += "&" + filter("tags/any(t:t eq "+quoted(tag)+")")
		}
		for p, err := range c.pages(ctx, c.budget(), first) {
			var apps []Application
			if err == nil {
				apps, err = decodeItems(p, decodeApplication)
			}
			if err != nil {
				yield(Application{}, err)
				return
			}
			for _, app := range apps {
				c.remember(clockAhead(p.response.header), app.PasswordCredentials...)
				if !yield(app, nil) {
					return
				}
			}
		}
	}
}

// sameService says whether the token may go to link: it must have scheme, host
// and port of base, and no credentials of its own.
func sameService(base, link string) error {
	b, err := url.Parse(base)
	if err != nil {
		return errors.New("the base URL is malformed")
	}
	l, err := url.Parse(link)
	if err != nil || l.Opaque != "" || l.User != nil {
		return errors.New("the paging link is malformed")
	}
	if !strings.EqualFold(l.Scheme, b.Scheme) || !strings.EqualFold(l.Hostname(), b.Hostname()) || port(l) != port(b) {
		return fmt.Errorf("the paging link leads away from %s", b.Host)
	}
	return nil
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case strings.EqualFold(u.Scheme, "https"):
		return "443"
	}
	return "80"
}
