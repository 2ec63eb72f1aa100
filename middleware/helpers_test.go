package middleware_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

const now = 1_800_000_000

func secretOf(tenant string) []byte { return []byte(strings.Repeat(tenant[:1], 32)) }

// claims of a good token of the tenant, with changes: an even number of names and
// values, of which nil takes the claim out.
func claimsOf(tenant string, changes ...any) map[string]any {
	c := map[string]any{"iss": "https://" + tenant + ".example", "sub": "ann", "aud": "api", "exp": now + 600}
	for i := 0; i < len(changes); i += 2 {
		c[changes[i].(string)] = changes[i+1]
		if changes[i+1] == nil {
			delete(c, changes[i].(string))
		}
	}
	return c
}

// sign makes an HS256 token by hand, without the packages under test.
func sign(secret []byte, kid string, claims any) string {
	b64 := base64.RawURLEncoding.EncodeToString
	header, _ := json.Marshal(map[string]string{"alg": "HS256", "kid": kid})
	payload, _ := json.Marshal(claims)
	signed := b64(header) + "." + b64(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

// good returns a good token of the tenant.
func good(tenant string, changes ...any) string {
	return sign(secretOf(tenant), "kid-"+tenant, claimsOf(tenant, changes...))
}

// badSignature returns token with another signature, as well formed.
func badSignature(token string) string {
	i := strings.LastIndexByte(token, '.') + 1
	return token[:i] + strings.Repeat("A", len(token)-i)
}

// newVerifier returns a verifier of tenants that sign with secretOf.
func newVerifier(tb testing.TB, tenants ...string) *verifier.Verifier {
	tb.Helper()
	cfg := verifier.Config{Now: func() time.Time { return time.Unix(now, 0) }}
	for _, id := range tenants {
		k, err1 := keystore.NewSecret(keystore.ID{Tenant: id, KID: "kid-" + id}, keystore.HS256, secretOf(id))
		keys, err2 := keystore.NewStatic(k)
		if err := errors.Join(err1, err2); err != nil {
			tb.Fatal(err)
		}
		cfg.Tenants = append(cfg.Tenants, tenantOf(id, keys))
	}
	v, err := verifier.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func tenantOf(id string, keys keystore.KeyStore) verifier.Tenant {
	return verifier.Tenant{ID: id, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://" + id + ".example", Audiences: []string{"api", "admin"}, Leeway: -1}
}

// downVerifier returns a verifier whose key store fails with err.
func downVerifier(tb testing.TB, err error) *verifier.Verifier {
	tb.Helper()
	v, e := verifier.New(verifier.Config{
		Now:     func() time.Time { return time.Unix(now, 0) },
		Tenants: []verifier.Tenant{tenantOf("acme", downStore{err})},
	})
	if e != nil {
		tb.Fatal(e)
	}
	return v
}

type downStore struct{ err error }

func (s downStore) Lookup(keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
	return nil, s.err
}

// waitStore knows no key, and waits for news until the context ends.
type waitStore struct{}

func (waitStore) Lookup(keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
	return nil, keystore.ErrNotFound
}

func (waitStore) Refresh(ctx context.Context, _ keystore.ID) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", keystore.ErrUnavailable, ctx.Err())
}

// whoami answers 200 with the identity that it finds.
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	t, ok := middleware.TokenFrom(r.Context())
	if !ok {
		io.WriteString(w, "nobody")
		return
	}
	fmt.Fprintf(w, "%s of %s", t.Subject(), t.Tenant())
})

// request returns a request with these headers, which are set without validation.
func request(method, target string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	return r
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// capture is an error handler that keeps the error, and answers its status.
type capture struct{ err error }

func (c *capture) handle(w http.ResponseWriter, _ *http.Request, err error) {
	c.err = err
	w.WriteHeader(middleware.Status(err))
}
