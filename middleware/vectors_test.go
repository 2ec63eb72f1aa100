package middleware_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// A vectorFile is testdata/vectors/http.json. Its "about" explains the fields.
type vectorFile struct {
	Key     struct{ K, KID string }
	Expect  struct{ Iss, Aud string }
	Now     int64
	Tokens  map[string]string
	General []string
	Cases   []vector
}

type vector struct {
	ID, Why, Method, Target string
	Headers                 [][2]string
	Transport               string
	RawRequest              string `json:"raw_request"`
	StatusAny               []int  `json:"status_any"`
	PreferredStatus         int    `json:"preferred_status"`
	HandlerCalled           *bool  `json:"handler_called"`
	WWWAuthenticate         struct {
		Required       bool
		Match          string
		MustNotMatch   string `json:"must_not_match"`
		MustMatchIf400 string `json:"must_match_if_400"`
	} `json:"www_authenticate"`
}

func readVectors(tb testing.TB) *vectorFile {
	tb.Helper()
	text, err := os.ReadFile("testdata/vectors/http.json")
	if err != nil {
		tb.Fatal(err)
	}
	f := new(vectorFile)
	if err := json.Unmarshal(text, f); err != nil {
		tb.Fatal(err)
	}
	if len(f.Cases) < 30 {
		tb.Fatalf("%d cases, want over 30", len(f.Cases))
	}
	return f
}

var template = regexp.MustCompile(`\{\{[^}]*\}\}`)

// expand replaces {{NAME}} and {{REPEAT:c:n}}.
func (f *vectorFile) expand(tb testing.TB, text string) string {
	return template.ReplaceAllStringFunc(text, func(t string) string {
		name := strings.Trim(t, "{}")
		if rest, ok := strings.CutPrefix(name, "REPEAT:"); ok {
			c, n, _ := strings.Cut(rest, ":")
			count, err := strconv.Atoi(n)
			if err != nil {
				tb.Fatal(err)
			}
			return strings.Repeat(c, count)
		}
		token, ok := f.Tokens[name]
		if !ok {
			tb.Fatalf("there is no token %q", name)
		}
		return token
	})
}

func (f *vectorFile) verifier(tb testing.TB, keys keystore.KeyStore) *verifier.Verifier {
	tb.Helper()
	if keys == nil {
		secret, err1 := base64.RawURLEncoding.DecodeString(f.Key.K)
		key, err2 := keystore.NewSecret(keystore.ID{Tenant: "a", KID: f.Key.KID}, keystore.HS256, secret)
		static, err3 := keystore.NewStatic(key)
		if err := errors.Join(err1, err2, err3); err != nil {
			tb.Fatal(err)
		}
		keys = static
	}
	v, err := verifier.New(verifier.Config{
		Now: func() time.Time { return time.Unix(f.Now, 0) },
		Tenants: []verifier.Tenant{{ID: "a", Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
			Issuer: f.Expect.Iss, Audiences: []string{f.Expect.Aud}, Leeway: -1}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// A seen is the outcome of one case.
type seen struct {
	status int
	header http.Header
	body   string
	called bool
}

// recorder runs c in process, with header values set unvalidated.
func (c *vector) recorder(f *vectorFile, t *testing.T, guard func(http.Handler) http.Handler) seen {
	var s seen
	r := httptest.NewRequest(c.Method, f.expand(t, c.Target), nil)
	for _, h := range c.Headers {
		r.Header[h[0]] = append(r.Header[h[0]], f.expand(t, h[1]))
	}
	w := serve(guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.called = true })), r)
	s.status, s.header, s.body = w.Code, w.Header(), w.Body.String()
	return s
}

// raw runs c as bytes over a TCP connection to an http.Server.
func (c *vector) raw(f *vectorFile, t *testing.T, guard func(http.Handler) http.Handler) seen {
	var s seen
	server := httptest.NewServer(guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.called = true })))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text := f.expand(t, c.RawRequest)
	if text == "" {
		text = c.Method + " " + f.expand(t, c.Target) + " HTTP/1.1\r\nHost: x\r\n"
		for _, h := range c.Headers {
			text += h[0] + ": " + f.expand(t, h[1]) + "\r\n"
		}
		text += "Connection: close\r\n\r\n"
	}
	go io.WriteString(conn, text) // the server may answer, and close, before it has read all
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: c.Method})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	server.Close() // waits for the handler
	s.status, s.header, s.body = resp.StatusCode, resp.Header, string(body)
	return s
}

// overTheWire reports whether a case for the recorder means the same as bytes. It does
// unless net/http refuses the request first or reads it as another one.
func (c *vector) overTheWire(f *vectorFile, t *testing.T) bool {
	for _, h := range c.Headers {
		v := f.expand(t, h[1])
		if strings.ContainsAny(v, "\r\n\x00") || len(v) > http.DefaultMaxHeaderBytes/2 {
			return false
		}
	}
	return true
}

func TestVectors(t *testing.T) {
	f := readVectors(t)
	up := middleware.Require(f.verifier(t, nil))
	down := middleware.Require(f.verifier(t, downStore{keystore.ErrUnavailable}))
	for _, c := range f.Cases {
		guard := up
		if c.ID == "http-keystore-down" {
			guard = down
		}
		if c.Transport == "recorder" {
			t.Run(c.ID+"/recorder", func(t *testing.T) { c.check(t, f, c.recorder(f, t, guard)) })
			if !c.overTheWire(f, t) {
				continue
			}
		}
		t.Run(c.ID+"/raw", func(t *testing.T) { c.check(t, f, c.raw(f, t, guard)) })
	}
}

func (c *vector) check(t *testing.T, f *vectorFile, got seen) {
	t.Helper()
	want := c.PreferredStatus
	if c.ID == "http-obs-fold" {
		want = http.StatusOK // net/http unfolds it to one space before we see it: status_any has 200
	}
	if got.status != want {
		t.Errorf("%s: status %d, want %d", c.Why, got.status, want)
	}
	if called := got.status == http.StatusOK; got.called != called || c.HandlerCalled != nil && *c.HandlerCalled != called {
		t.Errorf("%s: the handler was called: %t, with status %d", c.Why, got.called, got.status)
	}
	values := got.header.Values("WWW-Authenticate")
	challenge := strings.Join(values, "\n")
	a := c.WWWAuthenticate
	if len(values) > 1 || a.Required && len(values) != 1 {
		t.Errorf("WWW-Authenticate %q, want one", values)
	}
	if len(values) == 1 && !regexp.MustCompile(a.Match).MatchString(challenge) {
		t.Errorf("WWW-Authenticate %q does not match %q", challenge, a.Match)
	}
	if a.MustNotMatch != "" && regexp.MustCompile(a.MustNotMatch).MatchString(challenge) {
		t.Errorf("WWW-Authenticate %q matches %q", challenge, a.MustNotMatch)
	}
	if got.status == http.StatusBadRequest && len(values) == 1 && !regexp.MustCompile(a.MustMatchIf400).MatchString(challenge) {
		t.Errorf("WWW-Authenticate %q does not match %q", challenge, a.MustMatchIf400)
	}
	if c.ID != "http-nul-raw" { // net/http answers by itself
		c.checkGeneral(t, f, got, challenge)
	}
}

var (
	quoted          = `"(?:[\x20-\x21\x23-\x5B\x5D-\x7E]|\\[\x20-\x7E])*"`
	challengeSyntax = regexp.MustCompile(`^Bearer realm=` + quoted + `(?:, (?:error|error_description|scope)=` + quoted + `)*$`)
	description     = regexp.MustCompile(`error_description="([^"]*)"`)
)

// checkGeneral checks the "general" list of the file.
func (c *vector) checkGeneral(t *testing.T, f *vectorFile, got seen, challenge string) {
	t.Helper()
	if got.status == http.StatusOK {
		return
	}
	if got.status == http.StatusUnauthorized && challenge == "" {
		t.Error("401 without WWW-Authenticate")
	}
	if challenge != "" && !challengeSyntax.MatchString(challenge) {
		t.Errorf("WWW-Authenticate %q is not a well formed challenge", challenge)
	}
	for _, m := range description.FindAllStringSubmatch(challenge, -1) {
		if strings.ContainsAny(m[1], `"\`) {
			t.Errorf("error_description %q", m[1])
		}
	}
	if got.header.Get("Cache-Control") != "no-store" || got.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", got.header)
	}
	if want := `error="invalid_token", error_description="the token is not accepted"`; strings.Contains(challenge, "invalid_token") && !strings.HasSuffix(challenge, want) {
		t.Errorf("WWW-Authenticate %q tells tokens apart", challenge)
	}
	out := fmt.Sprint(got.header, got.body)
	for _, secret := range []string{f.Key.KID + `"`, "nope", "pwned", "Set-Cookie", "verifier:", "keystore:", "user-1", "eyJ", "AAAA"} {
		if strings.Contains(out, secret) {
			t.Errorf("the answer holds %q: %s", secret, out)
		}
	}
	if c.Method != http.MethodHead {
		var body struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		if err := json.Unmarshal([]byte(got.body), &body); err != nil || body.Error == "" || body.Description == "" {
			t.Errorf("body %q: %v", got.body, err)
		}
	}
}
