package middleware_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

const now = 1_800_000_000

func secretOf(tenant string) []byte { return []byte(strings.Repeat(tenant[:1], 32)) }

// claims of a good token of the tenant, with changes: an even number of names and
// values, where nil removes the claim.
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

// badSignature returns token with another well-formed signature.
func badSignature(token string) string {
	i := strings.LastIndexByte(token, '.') + 1
	return token[:i] + strings.Repeat("A", len(token)-i)
}

// newVerifier returns a verifier of tenants that sign with secretOf.
func newVerifier(tb testing.TB, tenants ...string) *verifier.Verifier {
	tb.Helper()
	cfg := verifier.Config{Now: func() time.Time { return time.Unix(now, 0) }}
	for _, id := range tenants {
		cfg.Tenants = append(cfg.Tenants, tenantOf(id, newStatic(tb, id)))
	}
	v, err := verifier.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// newStatic returns a store with the tenant's key, whose kid is kid-TENANT.
func newStatic(tb testing.TB, id string) *keystore.Static {
	tb.Helper()
	k, err1 := keystore.NewSecret(keystore.ID{Tenant: id, KID: "kid-" + id}, keystore.HS256, secretOf(id))
	keys, err2 := keystore.NewStatic(k)
	if err := errors.Join(err1, err2); err != nil {
		tb.Fatal(err)
	}
	return keys
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

// capture is an error handler that keeps the error, and answers with its status.
type capture struct{ err error }

func (c *capture) handle(w http.ResponseWriter, _ *http.Request, err error) {
	c.err = err
	w.WriteHeader(middleware.Status(err))
}

func issuerIs(issuer string) func(string) string { return func(string) string { return issuer } }

// published is a source with one answer. It keeps the tenant that it was asked for.
type published struct {
	keys   []*keystore.Key
	maxAge time.Duration
	err    error
	asked  string
}

func (p *published) PublicKeys(_ context.Context, tenant string) ([]*keystore.Key, time.Duration, error) {
	p.asked = tenant
	return p.keys, p.maxAge, p.err
}

func publicKey(t *testing.T, tenant, kid string, alg keystore.Algorithm) *keystore.Key {
	t.Helper()
	var pub crypto.PublicKey
	if alg == keystore.EdDSA {
		pub, _, _ = ed25519.GenerateKey(rand.Reader)
	} else {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		pub = &k.PublicKey
	}
	k, err := keystore.NewPublic(keystore.ID{Tenant: tenant, KID: kid}, alg, pub)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func secretKey(t *testing.T, tenant, kid string) *keystore.Key {
	t.Helper()
	k, err := keystore.NewSecret(keystore.ID{Tenant: tenant, KID: kid}, keystore.HS256, secretOf(tenant))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func askSet(t *testing.T, h http.Handler, method string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return serve(h, request(method, "/.well-known/jwks.json", headers...))
}

// A fakeSource numbers its tokens: t1, t2, ...
type fakeSource struct {
	mu    sync.Mutex
	n     int
	life  time.Duration // 0 if the expiry is not known
	err   error
	delay time.Duration
}

func (s *fakeSource) Token(ctx context.Context) (string, time.Time, error) {
	s.mu.Lock()
	s.n++
	n, life, err, delay := s.n, s.life, s.err, s.delay
	s.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return "", time.Time{}, ctx.Err()
	}
	if err != nil {
		return "", time.Time{}, err
	}
	var end time.Time
	if life != 0 {
		end = time.Now().Add(life)
	}
	return fmt.Sprintf("t%d", n), end, nil
}

func (s *fakeSource) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *fakeSource) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// A fakeBase records the requests, and answers with respond, or 200.
type fakeBase struct {
	mu      sync.Mutex
	sent    []string // "URL token body"
	opened  int      // response bodies that are not closed yet
	respond func(r *http.Request) (status int, err error)
}

func (b *fakeBase) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		text, _ := io.ReadAll(r.Body)
		r.Body.Close()
		body = string(text)
	}
	status, err := 200, error(nil)
	if b.respond != nil {
		status, err = b.respond(r)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent = append(b.sent, strings.TrimSpace(fmt.Sprint(r.URL, " ", strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), " ", body)))
	if err != nil {
		return nil, err
	}
	b.opened++
	return &http.Response{StatusCode: status, Header: make(http.Header), Request: r, Body: &closer{Reader: strings.NewReader("answer"), done: func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.opened--
	}}}, nil
}

func (b *fakeBase) log() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.sent, ", ")
}

type closer struct {
	io.Reader
	once sync.Once
	done func()
}

func (c *closer) Close() error { c.once.Do(c.done); return nil }

func mustRequest(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// get sends a GET, and returns the status.
func get(t *testing.T, tr http.RoundTripper) int {
	t.Helper()
	resp, err := tr.RoundTrip(mustRequest(t, "GET", "http://a.example/", nil))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// A redirector answers with one redirect after the other, then 200. Like some fakes it
// leaves Response.Request nil.
type redirector struct {
	hops, sent []string
}

func (b *redirector) RoundTrip(r *http.Request) (*http.Response, error) {
	b.sent = append(b.sent, strings.TrimSpace(r.URL.String()+" "+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
	resp := &http.Response{StatusCode: 200, Header: make(http.Header), Body: http.NoBody}
	if len(b.hops) > 0 {
		resp.StatusCode = http.StatusTemporaryRedirect
		resp.Header.Set("Location", b.hops[0])
		b.hops = b.hops[1:]
	}
	return resp, nil
}
