package metrics_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/metrics"
)

const (
	planted = "planted-subject"
	claims  = `{"sub":"planted-subject","exp":1798081200}`
	sealed  = "c2lnbmF0dXJlLW9mLWFubg"
)

func b64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// logged returns what both handlers of slog make of an attribute.
func logged(t *testing.T, value any) string {
	t.Helper()
	var out strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(metrics.Log(h)).Warn("m", "value", value)
	}
	return out.String()
}

// A token is recognised by what its parts decode to, whatever the spelling of its JSON.
func TestLogKnowsTokens(t *testing.T) {
	for _, header := range []string{
		`{"alg":"HS256"}`, `{"typ":"JWT","alg":"HS256"}`, `{"kid":"a","alg":"RS256"}`, `{ "alg":"HS256"}`, `{  "alg" : "HS256"}`, "{\n  \"alg\": \"HS256\"\n}",
		"{\t\"alg\":\"HS256\"}", "{\r\n\"alg\":\"HS256\"}", ` {"alg":"HS256"}`, "\n{\"alg\":\"HS256\"}", "\t\t{\"alg\":\"HS256\"}", "\r\n {\n\"alg\":\"HS256\"}",
		"{" + strings.Repeat(" ", 40) + `"alg":"HS256"}`, strings.Repeat(" ", 40) + `{"alg":"HS256"}`, `{"":0,"alg":"HS256"}`, `{"\u0061lg":"HS256"}`, `{"é":1,"alg":"HS256"}`,
		`{"alg":"dir","enc":"A256GCM"}`, "no JSON at all",
	} {
		jws := b64(header) + "." + b64(claims) + "." + sealed
		for name, text := range map[string]string{
			"alone": jws, "in a sentence": "the token " + jws + " is bad", "in a URL": "GET https://x.example/a?t=" + jws + "&x=1", "in a path": "/api/" + jws + "/x",
			"quoted": fmt.Sprintf("%q", jws), "after a word": "token-" + jws, "after a dot": "x." + jws, "cut off": jws[:len(b64(header))+30] + "...", "unsigned": b64(header) + "." + b64(claims) + ".",
			"padded":       base64.URLEncoding.EncodeToString([]byte(header)) + "." + base64.URLEncoding.EncodeToString([]byte(claims)) + "." + sealed + "==",
			"dots encoded": strings.ReplaceAll(jws, ".", "%2E"), "in JSON": `{"payload":"` + b64(claims) + `","signature":"` + sealed + `"}`,
			"a JWE": b64(header) + ".." + b64(claims) + "." + sealed + "." + sealed,
		} {
			if out := logged(t, text); strings.Contains(out, b64(claims)[4:20]) || name != "cut off" && name != "in JSON" && strings.Contains(out, sealed) || !strings.Contains(out, "(token)") {
				t.Errorf("%q %s: %s", header, name, out)
			}
		}
	}
}

// Words, names and numbers that only look a little like tokens stay readable.
func TestLogLeavesTheRest(t *testing.T) {
	for _, text := range []string{
		"api.example.com:443", "docs/operations.md#a-key-leaked", "v1.2.3-0.20261113113407-e3970619a1a4", "10.0.0.1, 192.0.2.7", "eyes.example.com",
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGCXq8", "eyJ8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGCXq8xNzbL" /* a thumbprint that begins so */, "rotation.Store", "ICD-10.codes.example",
		"a bearer token is required", "Basic authentication is not taken", "no Bearer", "https://login.example/a@b", "redis://h:6379/0", "x=1&y=2", "...", "a.b.c", "José", "password: none",
		"-----BEGIN CERTIFICATE----- and so on", "kid=2026-11-29.1", "CIDR.ranges.of.proxies", "Instance.names.IDs", "DNS.names.example",
	} {
		if out := logged(t, text); !strings.Contains(out, text) {
			t.Errorf("%q becomes %s", text, out)
		}
	}
}

// Other secrets that a text may hold stay out too.
func TestLogKnowsSecrets(t *testing.T) {
	const secret = "s3cr3tS3cr3t"
	for name, text := range map[string]string{
		"PEM": "a key: -----BEGIN RSA PRIVATE KEY-----\n" + secret + "\n-----END RSA PRIVATE KEY-----\n", "PEM, cut off": "-----BEGIN PRIVATE KEY-----\n" + secret,
		"PEM, escaped": `-----BEGIN EC PRIVATE KEY-----\n` + secret, "a JWK": `{"kty":"oct","k":"` + secret + `"}`, "a JWK, escaped": `{\"kty\":\"EC\",\"d\" : \"` + secret + `\"}`,
		"a URL": "dial rediss://u:" + secret + "@h:6379/0: refused", "a URL without a user": "redis://:" + secret + "@h",
		"an at sign in a password": "dial redis://u:p@ss@" + secret + "@h:6379/0: refused", "a URL that is cut off": "redis://u:" + secret + " of ann@x.example",
		"Basic":  "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("orders:"+secret)),
		"Bearer": "authorization: bearer  " + secret, "DPoP": "DPoP " + secret, "a form": "grant_type=x&client_secret=" + secret + "&y=1", "a query": "/cb?access_token=" + secret,
		"an assertion": "client_assertion=" + secret, "a hint": "/end?id_token_hint=" + secret, "a password": "PASSWORD=" + secret,
	} {
		out := logged(t, text)
		if strings.Contains(out, secret) || strings.Contains(out, base64.StdEncoding.EncodeToString([]byte("orders:" + secret))[8:20]) {
			t.Errorf("%s: %s", name, out)
		}
	}
	if out := logged(t, "dial rediss://u:"+secret+"@h:6379/0: refused"); !strings.Contains(out, "dial rediss://u:(secret)@h:6379/0: refused") {
		t.Errorf("the rest of a URL is gone: %s", out)
	}
}

// A pointed hides a text behind a pointer, which %+v does not follow and JSON does.
type pointed struct{ Inner *struct{ Token string } }

// A marshaled says one thing by %+v and another by MarshalText.
type marshaled struct{ text string }

func (marshaled) String() string                 { return "fine" }
func (m marshaled) MarshalText() ([]byte, error) { return []byte(m.text), nil }

// A described error says more with %+v.
type described struct{ text string }

func (d described) Error() string { return "it failed" }
func (d described) Format(f fmt.State, verb rune) {
	if f.Flag('+') {
		io.WriteString(f, d.text)
	}
}

// Neither handler of slog finds a token where Log has not looked: each writes values in its own way.
func TestLogLooksIntoValues(t *testing.T) {
	token := b64(`{ "alg":"HS256"}`) + "." + b64(claims) + "." + sealed
	for name, value := range map[string]any{
		"bytes": []byte("a " + token), "an error": errors.New(token), "a pointer": pointed{&struct{ Token string }{token}}, "MarshalText": marshaled{token},
		"%+v of an error": described{token}, "a list": []string{"a", token}, "a map": map[string]any{"a": []any{token}}, "raw JSON": json.RawMessage(`{"a":"` + token + `"}`),
		"a wrapped error": fmt.Errorf("x: %w", errors.New(token)), "a group": slog.GroupValue(slog.Any("a", []byte(token))),
	} {
		if out := logged(t, value); strings.Contains(out, sealed) || strings.Contains(out, b64(claims)[4:20]) {
			t.Errorf("%s: %s", name, out)
		}
	}
	var out strings.Builder
	log := slog.New(metrics.Log(slog.NewJSONHandler(&out, nil)))
	log.With(token, token).WithGroup(token).Warn(token, token, token)
	if strings.Contains(out.String(), sealed) || strings.Contains(out.String(), planted) {
		t.Errorf("names and groups: %s", out.String())
	}
	out.Reset()
	log.Warn("m", "list", []string{"a", "b"}, "map", map[string]int{"x": 1}, "for", time.Second, "err", error(nil))
	if got := out.String(); !strings.Contains(got, `"list":["a","b"],"map":{"x":1},"for":1000000000,"err":null`) {
		t.Errorf("what is clean changes: %s", got)
	}
}

// The line that counts others holds no token of theirs either.
func TestLogOfCountsIsClean(t *testing.T) {
	token := b64(`{ "alg":"HS256"}`) + "." + b64(claims) + "." + sealed
	l := newLogTest()
	l.log(t, 12, "refused "+token, "reason", token, "tenant", token)
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := l.out.String(); strings.Contains(got, sealed) || !strings.Contains(got, `msg="and 2 more: refused (token)" tenant=(token) reason=(token)`) {
		t.Errorf("%s", got)
	}
}

// FuzzLogHoldsNoToken puts a token with any JSON of white space into any text.
func FuzzLogHoldsNoToken(f *testing.F) {
	f.Add("GET /x?t=", "", "", " HTTP/1.1")
	f.Add("a.b-", "\n", "  ", "/x")
	f.Add("eyJ", "", "\t", ".")
	f.Fuzz(func(t *testing.T, before, outer, inner, after string) {
		if strings.Trim(outer+inner, " \t\r\n") != "" {
			return
		}
		if n := len(before); n > 0 && strings.IndexByte("+/%=", before[n-1]) < 0 && strings.Contains(before, "%") {
			return // a token within a longer one is removed with it
		}
		token := b64(outer+"{"+inner+`"alg":"HS256"}`) + "." + b64(claims) + "." + sealed
		var out strings.Builder
		slog.New(metrics.Log(slog.NewTextHandler(&out, nil))).Warn(before + token + after)
		if strings.Contains(out.String(), b64(claims)[4:20]) {
			t.Errorf("%q: %s", before+token+after, out.String())
		}
	})
}

func BenchmarkLogClean(b *testing.B) {
	err := errors.New("rotation: tenant acme: the store cannot be reached: dial tcp 127.0.0.1:6379: connect: connection refused")
	for name, log := range map[string]*slog.Logger{"bare": slog.New(slog.NewTextHandler(io.Discard, nil)), "clean": slog.New(metrics.Log(slog.NewTextHandler(io.Discard, nil)))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				log.Warn("a ring is out of sync", "tenant", "acme", "kid", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGCXq8", "err", err)
			}
		})
	}
}

// A rawToken is written as text by [slog.TextHandler], as every slice of bytes is.
type rawToken []byte

// A textError is written as its MarshalText says by [slog.TextHandler], and as Error says by [slog.JSONHandler].
type textError struct{ text, err string }

func (e textError) Error() string                { return e.err }
func (e textError) MarshalText() ([]byte, error) { return []byte(e.text), nil }
func (e textError) Format(f fmt.State, _ rune)   { io.WriteString(f, "nothing") }

// A jsonError is written as JSON by [slog.JSONHandler], since it says how.
type jsonError struct{ json string }

func (e jsonError) Error() string                { return "an error" }
func (e jsonError) MarshalJSON() ([]byte, error) { return json.Marshal(e.json) }
func (e jsonError) Format(f fmt.State, _ rune)   { io.WriteString(f, "nothing") }

// A nilError has an Error that fails for nil.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// A method that fails for a nil pointer ends no program. Package slog catches it too.
func TestLogOutlivesNilPointers(t *testing.T) {
	if out := logged(t, (*nilError)(nil)); strings.Count(out, "value") != 2 {
		t.Errorf("logged %s", out)
	}
}

// What a handler of slog makes of a value is clean, whichever way it takes to make a text of it.
func TestLogCleansEveryText(t *testing.T) {
	token := b64(`{"alg":"HS256"}`) + "." + b64(claims) + "." + sealed
	for name, value := range map[string]any{
		"named bytes": rawToken(token), "an error with MarshalText": textError{text: token}, "MarshalText with an error": textError{err: token}, "an error with MarshalJSON": jsonError{token},
		"a struct that has no JSON of version 2": struct {
			For   time.Duration
			Token *string
		}{time.Second, &token},
		"text that is not UTF-8": struct {
			Text  string
			Token *string
		}{"\xff", &token},
	} {
		if out := logged(t, value); strings.Contains(out, b64(claims)[4:20]) || strings.Contains(out, sealed) {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// A client chooses the text. Text that looks like the begin of a token at each place costs as much a byte as
// other text.
func TestLogCostsGrowWithTheText(t *testing.T) {
	log := slog.New(metrics.Log(slog.NewTextHandler(io.Discard, nil)))
	text := strings.Repeat("eyIi", 32<<10) + "AAAA"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	log.Warn("m", "value", text)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("a line of %d bytes allocates %d", len(text), n)
	}
}
