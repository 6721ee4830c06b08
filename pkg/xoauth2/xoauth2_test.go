package xoauth2

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"

	"github.com/o365pw/o365pw/pkg/secret"
)

// The example of Microsoft's page, in the base64 that it gives for it.
func TestInitialResponseAsDocumented(t *testing.T) {
	const want = "dXNlcj10ZXN0QGNvbnRvc28ub25taWNyb3NvZnQuY29tAWF1dGg9QmVhcmVyIEV3QkFBbDNCQUFVRkZwVUFvN0ozVmUwYmpMQldaV0NjbFJDM0VvQUEBAQ=="
	got, err := InitialResponse("test@contoso.onmicrosoft.com", secret.New("EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA"))
	if err != nil {
		t.Fatal(err)
	}
	if s := base64.StdEncoding.EncodeToString(got); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

var longToken = "eyJ0eXAiOiJKV1Qi." + strings.Repeat("aB3-_~+/", 500) + "=="

var pairs = []struct {
	user, token string
	ok          bool
}{
	{"alice@contoso.com", "t", true},
	{"alice@contoso.com", longToken, true},
	{"jürgen@müller.example", "eyJ0.eyJh.c2ln", true},
	{"a user with spaces", "t", true},
	{"user=x", "auth=Bearer", true},
	{"auth=Bearer x", "t=", true},
	{"", "t", false},
	{"alice", "", false},
	{"alice\x01auth=Bearer stolen\x01\x01", "t", false},
	{"alice\r\nA1 LOGOUT", "t", false},
	{"alice\n", "t", false},
	{"alice\x00", "t", false},
	{"alice\t", "t", false},
	{"alice\x7f", "t", false},
	{"alice\u0085", "t", false},
	{"alice\xff", "t", false},
	{"alice", "t\x01", false},
	{"alice", "t\x01\x01host=x", false},
	{"alice", "two words", false},
	{"alice", "t\n", false},
	{"alice", "tökén", false},
	{"alice", "t\xff", false},
	{"alice", "t\x7f", false},
}

func TestRoundTrip(t *testing.T) {
	for _, p := range pairs {
		response, err := InitialResponse(p.user, secret.New(p.token))
		if (err == nil) != p.ok {
			t.Errorf("InitialResponse(%q, %.20q): error %v", p.user, p.token, err)
			continue
		}
		if !p.ok {
			if response != nil || p.token != "t" && p.token != "" && strings.Contains(err.Error(), p.token) {
				t.Errorf("a response with the error, or the token in it: %q, %v", response, err)
			}
			continue
		}
		user, token, err := Parse(response)
		if err != nil || user != p.user || token.Reveal() != p.token {
			t.Errorf("Parse(%.60q) = %q, %.20q, %v", response, user, token.Reveal(), err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"",
		"user=",
		"user=a",
		"\x01\x01",
		"user=\x01auth=Bearer t\x01\x01",
		"user=a\x01auth=Bearer \x01\x01",
		"user=a\x01auth=Bearer t",
		"user=a\x01auth=Bearer t\x01",
		"user=a\x01auth=Bearer t\x01\x01\x01",
		"user=a\x01auth=Bearer t\x01\x01\r\n",
		"user=a\x01auth=Bearer t\x01host=x\x01\x01",
		"user=a\x01host=x\x01auth=Bearer t\x01\x01",
		"user=a\x01\x01auth=Bearer t\x01\x01",
		"user=a\x01auth=bearer t\x01\x01",
		"user=a\x01auth=Basic t\x01\x01",
		"user=a\x01auth=Bearer  t\x01\x01",
		"user=a auth=Bearer t\x01\x01",
		"USER=a\x01auth=Bearer t\x01\x01",
		" user=a\x01auth=Bearer t\x01\x01",
		"user=a\x01auth=Bearer t\x01auth=Bearer u\x01\x01",
		"auth=Bearer t\x01user=a\x01\x01",
		"n,a=a,\x01auth=Bearer t\x01\x01", // OAUTHBEARER
		"\x00alice\x00password",           // PLAIN
		"user=a\nb\x01auth=Bearer t\x01\x01",
		"user=\xff\x01auth=Bearer t\x01\x01",
	} {
		user, token, err := Parse([]byte(s))
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse(%q): error %v", s, err)
		}
		if user != "" || !token.IsZero() {
			t.Errorf("Parse(%q) gives %q and %q beside the error", s, user, token.Reveal())
		}
	}
	_, _, err := Parse([]byte("user=a\x01auth=Bearer top secret\x01\x01"))
	if err == nil || strings.Contains(err.Error(), "top") {
		t.Errorf("the error holds the token: %v", err)
	}
}

func TestClient(t *testing.T) {
	c := NewClient("alice@contoso.com", secret.New("token"))
	mech, ir, err := c.Start()
	if mech != "XOAUTH2" || string(ir) != "user=alice@contoso.com\x01auth=Bearer token\x01\x01" || err != nil {
		t.Fatalf("Start() = %q, %q, %v", mech, ir, err)
	}
	response, err := c.Next([]byte(`{"status":"401","schemes":"bearer","scope":"mail"}`))
	if err != nil || response == nil || len(response) != 0 {
		t.Errorf("the error challenge is answered with %q, %v, want an empty response", response, err)
	}
	if _, err := c.Next([]byte("more")); !errors.Is(err, sasl.ErrUnexpectedServerChallenge) {
		t.Errorf("a second challenge: %v", err)
	}
	if out := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(out, "token\"") || strings.Contains(out, "token}") {
		t.Errorf("the client prints its token: %s", out)
	}
	for _, p := range pairs {
		mech, ir, err := NewClient(p.user, secret.New(p.token)).Start()
		if (err == nil) != p.ok || (ir != nil) != p.ok || (mech == "XOAUTH2") != p.ok {
			t.Errorf("Start() for %q, %.20q = %q, %.20q, %v", p.user, p.token, mech, ir, err)
		}
	}
}

func TestServer(t *testing.T) {
	refused := errors.New("refused")
	authenticate := func(user string, token secret.Text) error {
		if user == "alice@contoso.com" && token.Reveal() == "token" {
			return nil
		}
		return refused
	}
	good := []byte("user=alice@contoso.com\x01auth=Bearer token\x01\x01")
	bad := []byte("user=alice@contoso.com\x01auth=Bearer other\x01\x01")
	for _, test := range []struct {
		name      string
		responses [][]byte
		err       error
	}{
		{"initial response", [][]byte{good}, nil},
		{"no initial response", [][]byte{nil, good}, nil},
		{"refused", [][]byte{bad}, refused},
		{"refused later", [][]byte{nil, bad}, refused},
		{"empty initial response", [][]byte{{}}, ErrMalformed},
		{"nothing, then empty", [][]byte{nil, {}}, ErrMalformed},
		{"nothing, then nothing", [][]byte{nil, nil}, ErrMalformed},
		{"garbage", [][]byte{[]byte("garbage")}, ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewServer(authenticate)
			last := len(test.responses) - 1
			for _, r := range test.responses[:last] {
				challenge, done, err := s.Next(r)
				if challenge == nil || len(challenge) != 0 || done || err != nil {
					t.Fatalf("Next(nil) = %q, %v, %v, want an empty challenge", challenge, done, err)
				}
			}
			challenge, done, err := s.Next(test.responses[last])
			if challenge != nil || !done || !errors.Is(err, test.err) || test.err == nil && err != nil {
				t.Errorf("Next = %q, %v, %v, want done and %v", challenge, done, err, test.err)
			}
			if _, _, err := s.Next(good); !errors.Is(err, sasl.ErrUnexpectedClientResponse) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// Both ends understand each other, with and without initial response.
func TestClientWithServer(t *testing.T) {
	for _, inline := range []bool{true, false} {
		var user, token string
		s := NewServer(func(u string, t secret.Text) error {
			user, token = u, t.Reveal()
			return nil
		})
		_, ir, err := NewClient("bob@contoso.com", secret.New(longToken)).Start()
		if err != nil {
			t.Fatal(err)
		}
		if !inline {
			if _, done, err := s.Next(nil); done || err != nil {
				t.Fatal(done, err)
			}
		}
		if _, done, err := s.Next(ir); !done || err != nil {
			t.Fatal(done, err)
		}
		if user != "bob@contoso.com" || token != longToken {
			t.Errorf("the server got %q and %.20q", user, token)
		}
	}
}

// What Parse accepts is exactly what InitialResponse makes of the result.
func FuzzParse(f *testing.F) {
	for _, p := range pairs {
		f.Add([]byte("user=" + p.user + "\x01auth=Bearer " + p.token + "\x01\x01"))
	}
	f.Add([]byte("user=a\x01auth=bearer t\x01\x01"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, response []byte) {
		user, token, err := Parse(response)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || user != "" || !token.IsZero() {
				t.Errorf("Parse(%q) = %q, %q, %v", response, user, token.Reveal(), err)
			}
			return
		}
		again, err := InitialResponse(user, token)
		if err != nil || string(again) != string(response) {
			t.Errorf("%q was taken for %q", response, again)
		}
	})
}

// What InitialResponse makes, Parse takes apart again.
func FuzzInitialResponse(f *testing.F) {
	for _, p := range pairs {
		f.Add(p.user, p.token)
	}
	f.Fuzz(func(t *testing.T, user, token string) {
		response, err := InitialResponse(user, secret.New(token))
		if err != nil {
			return
		}
		if strings.ContainsAny(user, "\x00\x01\r\n") {
			t.Errorf("user %q was let through", user)
		}
		u, tok, err := Parse(response)
		if err != nil || u != user || tok.Reveal() != token {
			t.Errorf("%q came back as %q, %q, %v", response, u, tok.Reveal(), err)
		}
	})
}
