package adapters

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A vectorFile is middleware/testdata/vectors/http.json. Its "about" explains the fields.
type vectorFile struct {
	Key    struct{ K, KID string }
	Expect struct{ Iss, Aud string }
	Now    int64
	Tokens map[string]string
	Cases  []vector
}

type vector struct {
	ID, Why, Method, Target string
	Headers                 [][2]string
	RawRequest              string `json:"raw_request"`
	StatusAny               []int  `json:"status_any"`
	PreferredStatus         int    `json:"preferred_status"`
	WWWAuthenticate         struct {
		Required       bool
		Match          string
		MustNotMatch   string `json:"must_not_match"`
		MustMatchIf400 string `json:"must_match_if_400"`
	} `json:"www_authenticate"`
}

func readVectors(tb testing.TB) *vectorFile {
	tb.Helper()
	text, err := os.ReadFile("../../../middleware/testdata/vectors/http.json")
	if err != nil {
		tb.Fatal(err)
	}
	f := new(vectorFile)
	if err := json.Unmarshal(text, f); err != nil || len(f.Cases) < 30 {
		tb.Fatalf("%d cases: %v", len(f.Cases), err)
	}
	return f
}

// expand replaces {{NAME}} and {{REPEAT:c:n}}.
func (f *vectorFile) expand(tb testing.TB, text string) string {
	return regexp.MustCompile(`\{\{[^}]*\}\}`).ReplaceAllStringFunc(text, func(t string) string {
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

// A downStore is a key store that cannot be reached.
type downStore struct{}

func (downStore) Lookup(keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
	return nil, keystore.ErrUnavailable
}

func (f *vectorFile) keys(tb testing.TB) keystore.KeyStore {
	tb.Helper()
	secret, err1 := base64.RawURLEncoding.DecodeString(f.Key.K)
	key, err2 := keystore.NewSecret(keystore.ID{Tenant: "a", KID: f.Key.KID}, keystore.HS256, secret)
	static, err3 := keystore.NewStatic(key)
	if err := errors.Join(err1, err2, err3); err != nil {
		tb.Fatal(err)
	}
	return static
}

func (f *vectorFile) verifier(tb testing.TB, keys keystore.KeyStore) *verifier.Verifier {
	tb.Helper()
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

// A seen is an answer.
type seen struct {
	status int
	header http.Header
	body   string
}

// ask sends c as bytes over a connection.
func (c *vector) ask(f *vectorFile, t *testing.T, addr string) seen {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
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
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return seen{resp.StatusCode, resp.Header, string(body)}
}

// overTheWire reports whether a case means the same as bytes: a line end in a value ends the header.
func (c *vector) overTheWire(f *vectorFile, t *testing.T) bool {
	return !slices.ContainsFunc(c.Headers, func(h [2]string) bool { return strings.ContainsAny(f.expand(t, h[1]), "\r\n\x00") })
}

// check checks an answer. own is set if the server or the router answers by itself, before any
// middleware: then only the status counts, and that no handler ran.
func (c *vector) check(t *testing.T, got seen, own, connect bool) {
	t.Helper()
	want := []int{c.PreferredStatus}
	switch {
	case own:
		want = append(slices.Clone(c.StatusAny), http.StatusMethodNotAllowed)
	case connect || c.ID == "http-obs-fold": // Connect has one code for all bad tokens; net/http unfolds a line
		want = c.StatusAny
	}
	if !slices.Contains(want, got.status) {
		t.Errorf("%s: status %d, want %d; body %q", c.Why, got.status, want, got.body)
	}
	const greeting = "hello user-1 of a\n"
	switch called := strings.Contains(got.body, "hello"); {
	case own && called, !own && called != (got.status == http.StatusOK), called && got.body != greeting:
		t.Errorf("%s: status %d with body %q", c.Why, got.status, got.body)
	case !own && !called:
		c.checkRefusal(t, got, connect)
	}
}

func (c *vector) checkRefusal(t *testing.T, got seen, connect bool) {
	t.Helper()
	values, a := got.header.Values("WWW-Authenticate"), c.WWWAuthenticate
	challenge := strings.Join(values, "\n")
	if len(values) > 1 || a.Required && len(values) != 1 || len(values) == 1 && !regexp.MustCompile(a.Match).MatchString(challenge) {
		t.Errorf("WWW-Authenticate %q, want one that matches %q", values, a.Match)
	}
	if a.MustNotMatch != "" && regexp.MustCompile(a.MustNotMatch).MatchString(challenge) ||
		got.status == http.StatusBadRequest && !regexp.MustCompile(a.MustMatchIf400).MatchString(challenge) {
		t.Errorf("WWW-Authenticate %q", challenge)
	}
	if got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	if got.header.Get("Cache-Control") != "no-store" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", got.header)
	}
	var body struct{ Error, Code string }
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || connect && body.Code+body.Error == "" || !connect && body.Error == "" {
		t.Errorf("body %q: %v", got.body, err)
	}
}
