package middleware_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func TestJWKS(t *testing.T) {
	src := &published{maxAge: 15*time.Minute + 999*time.Millisecond, keys: []*keystore.Key{
		publicKey(t, "acme", "c", keystore.ES256), publicKey(t, "acme", "a", keystore.EdDSA), publicKey(t, "acme", "b", keystore.ES256),
	}}
	h := middleware.JWKS(src, middleware.OneTenant("acme"))
	w := askSet(t, h, "GET")
	if w.Code != http.StatusOK || src.asked != "acme" {
		t.Fatalf("answer = %d %s, for %q", w.Code, w.Body, src.asked)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/jwk-set+json", "Cache-Control": "public, max-age=900", "X-Content-Type-Options": "nosniff",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil || len(set.Keys) != 3 {
		t.Fatalf("body = %s, %v", w.Body, err)
	}
	for i, kid := range []string{"a", "b", "c"} {
		k := set.Keys[i]
		members := slices.Sorted(maps.Keys(k))
		want := "alg crv kid kty use x y"
		if kid == "a" {
			want = "alg crv kid kty use x"
		}
		if k["kid"] != kid || k["use"] != "sig" || k["alg"] == "" || strings.Join(members, " ") != want {
			t.Errorf("key %d = %v, want kid %s and %s", i, k, kid, want)
		}
	}
	slices.Reverse(src.keys)
	if again := askSet(t, h, "GET"); again.Body.String() != w.Body.String() || again.Header().Get("ETag") != w.Header().Get("ETag") {
		t.Error("the same keys in another order give another set")
	}
}

func TestJWKSConditionalRequests(t *testing.T) {
	src := &published{keys: []*keystore.Key{publicKey(t, "acme", "1", keystore.ES256)}, maxAge: time.Minute}
	h := middleware.JWKS(src, middleware.OneTenant("acme"))
	first := askSet(t, h, "GET")
	tag := first.Header().Get("ETag")
	if len(tag) < 20 || tag[0] != '"' {
		t.Fatalf("ETag = %s", tag)
	}
	for _, match := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
		w := askSet(t, h, "GET", "If-None-Match", match)
		if w.Code != http.StatusNotModified || w.Body.Len() > 0 || w.Header().Get("ETag") != tag || w.Header().Get("Cache-Control") != "public, max-age=60" {
			t.Errorf("If-None-Match %s: %d %v %s", match, w.Code, w.Header(), w.Body)
		}
	}
	if w := askSet(t, h, "GET", "If-None-Match", `"other"`); w.Code != http.StatusOK {
		t.Errorf("another ETag: %d", w.Code)
	}
	if w := askSet(t, h, "HEAD"); w.Code != http.StatusOK || w.Body.Len() > 0 || w.Header().Get("ETag") != tag {
		t.Errorf("HEAD = %d %v %s", w.Code, w.Header(), w.Body)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "TRACE", "options"} {
		w := askSet(t, h, method)
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("%s = %d %v", method, w.Code, w.Header())
		}
	}
	src.keys = append(src.keys, publicKey(t, "acme", "2", keystore.ES256))
	if w := askSet(t, h, "GET", "If-None-Match", tag); w.Code != http.StatusOK || w.Header().Get("ETag") == tag {
		t.Errorf("after a change: %d, ETag %s", w.Code, w.Header().Get("ETag"))
	}
}

// The answer is a whole set, 304 or an error. Ranges and other preconditions do not change
// it, since caches and readers differ about them.
func TestJWKSComesWhole(t *testing.T) {
	src := &published{keys: []*keystore.Key{publicKey(t, "acme", "1", keystore.ES256)}, maxAge: time.Minute}
	h := middleware.JWKS(src, middleware.OneTenant("acme"))
	whole := askSet(t, h, "GET")
	tag := whole.Header().Get("ETag")
	for _, headers := range [][]string{
		{"Range", "bytes=0-9"}, {"Range", "bytes=0-0,5-6"}, {"Range", "bytes=100000-"}, {"Range", "bytes=5-9", "If-Range", tag},
		{"If-Match", `"other"`}, {"If-Match", ""}, {"If-Unmodified-Since", "Fri, 31 Dec 1999 00:00:00 GMT"},
		{"If-Modified-Since", "Fri, 31 Dec 2999 00:00:00 GMT"}, {"If-None-Match", ""}, {"If-None-Match", "garbage"},
		{"If-None-Match", `"other", "` + tag[2:]}, {"If-None-Match", strings.Trim(tag, `"`)},
	} {
		w := askSet(t, h, "GET", headers...)
		if w.Code != http.StatusOK || w.Body.String() != whole.Body.String() || w.Header().Get("ETag") != tag || w.Header().Get("Accept-Ranges") != "" {
			t.Errorf("%q: %d %v %s", headers, w.Code, w.Header(), w.Body)
		}
	}
	for _, headers := range [][]string{
		{"If-None-Match", `"other"`, "If-None-Match", tag}, {"If-None-Match", `"a,b",W/` + tag}, {"If-None-Match", tag, "Range", "bytes=0-9"},
	} {
		if w := askSet(t, h, "GET", headers...); w.Code != http.StatusNotModified || w.Body.Len() > 0 || w.Header().Get("Content-Type") != "" {
			t.Errorf("%q: %d %v %s", headers, w.Code, w.Header(), w.Body)
		}
	}
	if w := askSet(t, h, "HEAD", "Range", "bytes=0-9"); w.Code != http.StatusOK || w.Header().Get("Content-Length") != fmt.Sprint(whole.Body.Len()) {
		t.Errorf("HEAD = %d %v", w.Code, w.Header())
	}
}

// An answer without a set may not be cached, and no answer has an empty set.
func TestJWKSWithoutKeys(t *testing.T) {
	secret := secretKey(t, "acme", "s")
	good := []*keystore.Key{publicKey(t, "acme", "1", keystore.ES256)}
	for _, tt := range []struct {
		name   string
		src    published
		tenant func(*http.Request) (string, error)
		want   int
	}{
		{name: "none", want: 503},
		{name: "a secret alone", src: published{keys: []*keystore.Key{secret}}, want: 503},
		{name: "no kid", src: published{keys: []*keystore.Key{publicKey(t, "acme", "", keystore.ES256)}}, want: 503},
		{name: "of another tenant", src: published{keys: []*keystore.Key{publicKey(t, "globex", "1", keystore.ES256)}}, want: 503},
		{name: "not found", src: published{err: fmt.Errorf("no: %w", keystore.ErrNotFound)}, want: 404},
		{name: "unavailable", src: published{keys: good, err: fmt.Errorf("no: %w", keystore.ErrUnavailable)}, want: 503},
		{name: "both", src: published{err: errors.Join(keystore.ErrNotFound, keystore.ErrUnavailable)}, want: 503},
		{name: "another error", src: published{keys: good, err: errors.New("hush")}, want: 503},
		{name: "empty tenant", src: published{keys: good}, tenant: func(*http.Request) (string, error) { return "", nil }, want: 404},
		{name: "unknown tenant", src: published{keys: good}, tenant: func(*http.Request) (string, error) { return "", verifier.ErrUnknownTenant }, want: 404},
		{name: "tenant not found", src: published{keys: good}, tenant: func(*http.Request) (string, error) { return "", keystore.ErrNotFound }, want: 404},
		{name: "tenant cannot be told", src: published{keys: good}, tenant: func(*http.Request) (string, error) { return "acme", errors.New("hush") }, want: 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tenant := tt.tenant
			if tenant == nil {
				tenant = middleware.OneTenant("acme")
			}
			w := askSet(t, middleware.JWKS(&tt.src, tenant), "GET")
			if w.Code != tt.want || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("ETag") != "" {
				t.Errorf("answer = %d %v", w.Code, w.Header())
			}
			if (w.Header().Get("Retry-After") != "") != (tt.want == 503) {
				t.Errorf("Retry-After = %q", w.Header().Get("Retry-After"))
			}
			if body := w.Body.String(); strings.Contains(body, `"keys"`) || strings.Contains(body, "hush") {
				t.Errorf("body = %s", body)
			}
		})
	}
}

func TestJWKSLeavesSecretsOut(t *testing.T) {
	src := &published{maxAge: -time.Second, keys: []*keystore.Key{secretKey(t, "acme", "s"), publicKey(t, "acme", "1", keystore.ES256)}}
	w := askSet(t, middleware.JWKS(src, middleware.OneTenant("acme")), "GET")
	if body := w.Body.String(); w.Code != http.StatusOK || strings.Count(body, `"kid"`) != 1 || strings.Contains(body, "oct") {
		t.Errorf("answer = %d %s", w.Code, body)
	}
	if got := w.Header().Get("Cache-Control"); got != "public, max-age=0" {
		t.Errorf("Cache-Control = %q", got)
	}
}

func TestJWKSPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"no source":    func() { middleware.JWKS(nil, middleware.OneTenant("acme")) },
		"no func":      func() { middleware.JWKS(&published{}, nil) },
		"empty tenant": func() { middleware.OneTenant("") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}
