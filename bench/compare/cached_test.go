package compare

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	golangjwt "github.com/golang-jwt/jwt/v5"
	"github.com/maypok86/otter/v2"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	tokencache "k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/keyturn/keyturn/cache"
	"github.com/keyturn/keyturn/verifier"
)

// A cached is a verifier that remembers good tokens.
type cached struct {
	verify func(token string) error
	misses func() uint64 // how many tokens were checked in full, so far
}

// A cachedLibrary opens one with room for more than n tokens. now is the time that it judges by.
type cachedLibrary struct {
	name string
	open func(tb testing.TB, k key, n int, now func() time.Time) cached

	// servesExpired says that the library accepts a token that expires while it is remembered.
	servesExpired bool
}

var cachedLibraries = []cachedLibrary{
	{name: "keyturn", open: openKeyturn},
	{name: "kubernetes", open: openKubernetes, servesExpired: true},
	{name: "golang-jwt+otter", open: openOtter},
}

// Up to 10 000 tokens our cache has its default bounds. Beyond, it has room for twice as many.
func openKeyturn(tb testing.TB, k key, n int, now func() time.Time) cached {
	cfg := verifier.Config{Now: now}
	if n > 10_000 {
		cfg.CacheEntries, cfg.CacheBytes = 2*n, int64(2*n)<<10
	}
	v, ctx := k.keyturnWith(tb, cfg), tb.Context()
	return cached{
		verify: func(token string) error {
			_, err := v.Verify(ctx, token)
			return err
		},
		misses: func() uint64 { return v.CacheStats().Misses },
	}
}

// Kubernetes' API server wraps its authenticators like this. It believes an entry for its time to
// live, 10 s there, and does not check the token's expiry again. The context has no audience, which
// would cost it more.
func openKubernetes(_ testing.TB, k key, _ int, now func() time.Time) cached {
	var misses atomic.Uint64
	check := checkGolangJWT(k, now)
	full := authenticator.TokenFunc(func(_ context.Context, token string) (*authenticator.Response, bool, error) {
		misses.Add(1)
		claims, _, err := check(token)
		if err != nil {
			return nil, false, err
		}
		subject, err := claims.GetSubject()
		if err != nil {
			return nil, false, err
		}
		return &authenticator.Response{User: &user.DefaultInfo{Name: subject}}, true, nil
	})
	a, ctx := tokencache.New(full, false, time.Hour, 0), context.Background()
	return cached{
		verify: func(token string) error {
			_, ok, err := a.AuthenticateToken(ctx, token)
			if err == nil && !ok {
				return errors.New("not authenticated")
			}
			return err
		},
		misses: misses.Load,
	}
}

// openOtter is the solution that a careful team writes in an afternoon: golang-jwt behind a cache
// of known quality, by the SHA-256 of the token. Each hit checks the expiry.
func openOtter(_ testing.TB, k key, n int, now func() time.Time) cached {
	type entry struct {
		claims golangjwt.MapClaims
		exp    time.Time
	}
	var misses atomic.Uint64
	check := checkGolangJWT(k, now)
	remembered := otter.Must(&otter.Options[[sha256.Size]byte, *entry]{MaximumSize: 2*n + 1000})
	return cached{
		verify: func(token string) error {
			var buf [1024]byte // on the stack: a conversion alone would allocate
			digest := sha256.Sum256(append(buf[:0], token...))
			if e, ok := remembered.GetIfPresent(digest); ok && now().Before(e.exp) {
				return nil
			}
			misses.Add(1)
			claims, exp, err := check(token)
			if err == nil {
				remembered.Set(digest, &entry{claims, exp})
			}
			return err
		},
		misses: misses.Load,
	}
}

// settled returns the remembered tokens once they no longer change: nearly all. Our table has small
// buckets. Of 100 000 tokens that come one after another, about a hundred share a dozen buckets
// that are too small for them, and evict each other.
func settled(tb testing.TB, tokens []string, isHit func(token string) bool) []string {
	tb.Helper()
	n := len(tokens)
	for range 10 {
		var hits []string
		for _, token := range tokens {
			if isHit(token) {
				hits = append(hits, token)
			}
		}
		if len(hits) == len(tokens) {
			return tokens
		}
		if tokens = hits; len(tokens) < n-n/100 {
			tb.Fatalf("%d of %d tokens are remembered", len(tokens), n)
		}
	}
	tb.Fatal("what is remembered does not settle")
	return nil
}

// isHit checks a token, and reports whether it was remembered.
func (c cached) isHit(tb testing.TB) func(token string) bool {
	return func(token string) bool {
		before := c.misses()
		if err := c.verify(token); err != nil {
			tb.Fatal(err)
		}
		return c.misses() == before
	}
}

// checkGolangJWT returns the full check by golang-jwt, as in libraries, and returns the claims too.
func checkGolangJWT(k key, now func() time.Time) func(token string) (golangjwt.MapClaims, time.Time, error) {
	return func(token string) (golangjwt.MapClaims, time.Time, error) {
		claims := golangjwt.MapClaims{}
		_, err := golangjwt.ParseWithClaims(token, claims,
			func(*golangjwt.Token) (any, error) { return k.public, nil },
			golangjwt.WithValidMethods([]string{k.alg}),
			golangjwt.WithIssuer(issuer),
			golangjwt.WithAudience(audience),
			golangjwt.WithExpirationRequired(),
			golangjwt.WithTimeFunc(now))
		if err != nil {
			return nil, time.Time{}, err
		}
		exp, err := claims.GetExpirationTime()
		if err != nil {
			return nil, time.Time{}, err
		}
		return claims, exp.Time, nil
	}
}

// Each cache checks a token in full once. Only the one that servesExpired names accepts it after
// its expiry.
func TestCachedLibraries(t *testing.T) {
	k := newKey(t, "HS256")
	end := time.Unix(expires, 0)
	for _, lib := range cachedLibraries {
		t.Run(lib.name, func(t *testing.T) {
			now := end.Add(-time.Minute)
			c := lib.open(t, k, 100, func() time.Time { return now })
			for _, token := range append(k.distinct(t, 100), k.distinct(t, 100)...) {
				if err := c.verify(token); err != nil {
					t.Fatal(err)
				}
			}
			if n := c.misses(); n != 100 {
				t.Errorf("%d full checks of 100 tokens that came twice", n)
			}
			if c.verify(k.distinct(t, 1)[0]+"A") == nil {
				t.Error("accepts a token with a letter too many")
			}
			now = end.Add(time.Minute)
			if served := c.verify(k.distinct(t, 1)[0]) == nil; served != lib.servesExpired {
				t.Errorf("a token that ended while it was remembered: accepted: %t, expected: %t", served, lib.servesExpired)
			}
		})
	}
}

// A table is a cache of texts without anything around it.
type table struct {
	name string
	open func(tb testing.TB, texts []string) (get func(text string) bool)
}

var tables = []table{
	{"otter", openOtterTable},
	{"keyturn", openKeyturnTable},
}

func openKeyturnTable(tb testing.TB, texts []string) func(string) bool {
	good := func(*int) bool { return true }
	c, err := cache.New[int](cache.Config{Entries: max(2*len(texts), 64<<10), Bytes: 1 << 30})
	if err != nil {
		tb.Fatal(err)
	}
	for i, text := range texts {
		_, k := c.Get(0, text, good)
		c.Add(k, "", &cache.Entry[int]{Value: i}, 8, nil)
	}
	return func(text string) bool {
		found, _ := c.Get(0, text, good)
		return found != nil
	}
}

func openOtterTable(tb testing.TB, texts []string) func(string) bool {
	digest := newGHASH(tb)
	c := otter.Must(&otter.Options[ghashKey, *int]{MaximumSize: max(2*len(texts), 64<<10)})
	for i, text := range texts {
		c.Set(digest.key(text), &i)
	}
	return func(text string) bool {
		_, ok := c.GetIfPresent(digest.key(text))
		return ok
	}
}

func TestTables(t *testing.T) {
	for _, table := range tables {
		get := table.open(t, []string{"a", "b"})
		if !get("a") || !get("b") || get("c") || get("") {
			t.Errorf("%s: a %t, b %t, c %t, none %t; want the first two", table.name, get("a"), get("b"), get("c"), get(""))
		}
	}
}

// A ghash is the digest of package cache, written again for a table that has none of its own.
type ghash struct{ pool sync.Pool }

type ghashState struct {
	gcm   cipher.AEAD
	nonce [12]byte
	text  []byte
	sum   [16]byte
}

type ghashKey struct {
	digest [16]byte
	length uint32
}

func newGHASH(tb testing.TB) *ghash {
	secret := make([]byte, 16)
	rand.Read(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		tb.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		tb.Fatal(err)
	}
	return &ghash{pool: sync.Pool{New: func() any { return &ghashState{gcm: gcm} }}}
}

func (g *ghash) key(text string) ghashKey {
	s := g.pool.Get().(*ghashState)
	s.text = append(s.text[:0], text...)
	s.gcm.Seal(s.sum[:0], s.nonce[:], nil, s.text)
	k := ghashKey{s.sum, uint32(len(text))}
	clear(s.text)
	g.pool.Put(s)
	return k
}
