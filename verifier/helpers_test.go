package verifier_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// The tests make tokens by hand, so that the library and its tests cannot share a
// mistake.

const nowUnix = 1800000000

var (
	secret = []byte(strings.Repeat("s", 32))
	b64    = base64.RawURLEncoding.EncodeToString
)

const (
	goodHeader  = `{"alg":"HS256","kid":"1","typ":"JWT"}`
	goodPayload = `{"iss":"https://acme.example","sub":"ann","aud":"api","exp":1800003600,"iat":1799999940}`
)

func signWith(secret []byte, header, payload string) string {
	return signText(secret, b64([]byte(header))+"."+b64([]byte(payload)))
}

func signText(secret []byte, signed string) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(signed))
	return signed + "." + b64(m.Sum(nil))
}

func sign(header, payload string) string { return signWith(secret, header, payload) }

// with returns goodPayload with a member added or replaced.
func with(member string) string {
	name := member[:strings.Index(member, ":")+1]
	var kept []string
	for _, m := range []string{`"iss":"https://acme.example"`, `"sub":"ann"`, `"aud":"api"`, `"exp":1800003600`, `"iat":1799999940`} {
		if !strings.HasPrefix(m, name) {
			kept = append(kept, m)
		}
	}
	return "{" + strings.Join(append(kept, member), ",") + "}"
}

// without returns goodPayload without a member.
func without(name string) string {
	text := strings.Replace(with(`"`+name+`":0`), `,"`+name+`":0`, "", 1)
	return text
}

func key(tb testing.TB, tenant, kid string, secret []byte) *keystore.Key {
	tb.Helper()
	k, err := keystore.NewSecret(keystore.ID{Tenant: tenant, KID: kid}, keystore.HS256, secret)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func static(tb testing.TB, keys ...*keystore.Key) *keystore.Static {
	tb.Helper()
	s, err := keystore.NewStatic(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// acme returns a tenant with one secret, whose kid is "1".
func acme(tb testing.TB) verifier.Tenant {
	return verifier.Tenant{
		ID: "acme", Keys: static(tb, key(tb, "acme", "1", secret)),
		Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer:     "https://acme.example", Audiences: []string{"api", "other"},
		Leeway: -1,
	}
}

func at(unix float64) func() time.Time {
	return func() time.Time { return time.Unix(0, int64(unix*1e9)) }
}

func newVerifier(tb testing.TB, tenants ...verifier.Tenant) *verifier.Verifier {
	tb.Helper()
	v, err := verifier.New(verifier.Config{Tenants: tenants, Now: at(nowUnix)})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// check fails the test unless err is want, which is nil for a good token. It also checks
// every refusal against the contract of Error.
func check(tb testing.TB, what string, tok *verifier.Token, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		tb.Errorf("%s: error %v, want %v", what, err, want)
		return
	}
	if (tok == nil) != (err != nil) {
		tb.Errorf("%s: token %v along with error %v", what, tok, err)
	}
	if err == nil {
		return
	}
	e := new(verifier.Error)
	if !errors.As(err, &e) || e.Reason == "" {
		tb.Errorf("%s: %v (%T) has no reason", what, err, err)
	}
	if unavailable := errors.Is(err, verifier.ErrUnavailable); errors.Is(err, verifier.ErrInvalid) == unavailable {
		tb.Errorf("%s: %v is both, or neither, of ErrInvalid and ErrUnavailable", what, err)
	}
}

// padTo returns a good token of n bytes.
func padTo(n int) string {
	least := (n - len(sign(goodHeader, goodPayload))) * 3 / 4 // base64: four bytes for three
	for space := range 3 {
		for pad := least - 16; pad < least+16; pad++ {
			token := sign(strings.Repeat(" ", space)+goodHeader, with(`"x":"`+strings.Repeat("x", pad)+`"`))
			if len(token) == n {
				return token
			}
		}
	}
	panic("no token of that length")
}

// tenant returns a tenant whose own secret has kid "1".
func tenant(tb testing.TB, id, issuer string, edit func(*verifier.Tenant)) verifier.Tenant {
	r := verifier.Tenant{
		ID: id, Keys: static(tb, key(tb, id, "1", secretOf(id))),
		Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer:     issuer, AnyIssuer: issuer == "", AnyAudience: true, Leeway: -1,
	}
	if edit != nil {
		edit(&r)
	}
	return r
}

func secretOf(id string) []byte { return []byte(strings.Repeat("secret of "+id, 4)) }

// tokenOf returns a token that id signed, with exp and claims.
func tokenOf(id, claims string) string {
	return signWith(secretOf(id), goodHeader, strings.TrimSuffix(`{"exp":1800003600,`+claims, ",")+"}")
}

func verified(t *testing.T, claims string) *verifier.Token {
	t.Helper()
	tok, err := newVerifier(t, acme(t)).Verify(t.Context(), sign(goodHeader, claims))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// A twin is two verifiers that differ only in the cache. They must always agree.
type twin struct {
	t           *testing.T
	now         time.Time
	on, off     *verifier.Verifier
	revocations revoker
}

func newTwin(t *testing.T, tenants ...verifier.Tenant) *twin {
	return newTwinWith(t, verifier.NewRevocationList(100), tenants...)
}

func newTwinWith(t *testing.T, revocations revoker, tenants ...verifier.Tenant) *twin {
	w := &twin{t: t, now: time.Unix(nowUnix, 0), revocations: revocations}
	for _, v := range []struct {
		at  **verifier.Verifier
		ttl time.Duration
	}{{&w.on, 0}, {&w.off, -1}} {
		var err error
		*v.at, err = verifier.New(verifier.Config{
			Tenants: tenants, CacheTTL: v.ttl, Revocations: w.revocations, Now: func() time.Time { return w.now },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// do changes both verifiers.
func (w *twin) do(change func(v *verifier.Verifier) error) {
	w.t.Helper()
	if err := errors.Join(change(w.on), change(w.off)); err != nil {
		w.t.Error(err)
	}
}

// verify verifies token with both, several times with the cache, and wants the same
// verdict each time. hint is the hint, if any.
func (w *twin) verify(what, token string, want error, hint ...string) {
	w.t.Helper()
	w.verifyN(what, token, want, 3, hint...)
}

func (w *twin) verifyN(what, token string, want error, n int, hint ...string) {
	w.t.Helper()
	reason := ""
	for i, v := range append([]*verifier.Verifier{w.off}, w.on, w.on, w.on)[:1+n] {
		var tok *verifier.Token
		var err error
		if len(hint) == 0 {
			tok, err = v.Verify(w.t.Context(), token)
		} else {
			tok, err = v.VerifyTenant(w.t.Context(), hint[0], token)
		}
		check(w.t, what, tok, err, want)
		text := "good"
		if err != nil {
			text = err.Error()
		} else if tok.Cached() && v == w.off {
			w.t.Errorf("%s: cached without a cache", what)
		}
		if i == 0 {
			reason = text
		} else if text != reason {
			w.t.Errorf("%s: with the cache %q, without %q", what, text, reason)
		}
	}
}

// hit verifies a token that must come from the cache.
func (w *twin) hit(what, token string, hint ...string) {
	w.t.Helper()
	w.verify(what, token, nil, hint...)
	before := w.on.CacheStats().Hits
	w.verifyN(what, token, nil, 1, hint...)
	if w.on.CacheStats().Hits != before+1 {
		w.t.Errorf("%s: no hit", what)
	}
}

func (w *twin) at(unix float64) { w.now = at(unix)() }

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// scripted is a store with the answers of a test: Lookup returns before, and after a
// Refresh it returns after.
type scripted struct {
	before, after   []*keystore.Key
	lookupErr       error // of Lookup, where there are no keys
	refresh         error
	lookups, asked  int
	cancelInRefresh context.CancelFunc
	during          func() // of each Refresh
}

func (s *scripted) Lookup(keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
	s.lookups++
	keys := s.before
	if s.asked > 0 {
		keys = s.after
	}
	if keys == nil {
		return nil, s.lookupErr
	}
	return keys, nil
}

func (s *scripted) Refresh(ctx context.Context, _ keystore.ID) error {
	s.asked++
	if s.during != nil {
		s.during()
	}
	if s.cancelInRefresh != nil {
		s.cancelInRefresh()
		<-ctx.Done()
	}
	return s.refresh
}

// onlyLookup hides Refresh.
type onlyLookup struct{ keystore.KeyStore }

var (
	errNotFound    = fmt.Errorf("store: %w", keystore.ErrNotFound)
	errUnavailable = fmt.Errorf("store: %w", keystore.ErrUnavailable)
	errOdd         = errors.New("odd error of a store")
)
