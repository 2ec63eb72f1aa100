package bench

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// caching returns a verifier with room for that many tokens.
func (p pair) caching(b *testing.B, tokens int) *verifier.Verifier {
	b.Helper()
	keys, err := keystore.NewStatic(p.key)
	check(b, err)
	v, err := verifier.New(verifier.Config{
		CacheEntries: max(2*tokens, 1024), CacheBytes: max(2048*int64(tokens), 1<<20),
		Tenants: []verifier.Tenant{{ID: id.Tenant, Keys: keys, Algorithms: []keystore.Algorithm{p.key.Algorithm()},
			Issuer: issuer, Audiences: []string{audience}}},
	})
	check(b, err)
	return v
}

// distinct returns tokens of 413 bytes that differ in jti alone.
func (p pair) distinct(b *testing.B, n int) []string {
	b.Helper()
	list := make([]string, n)
	c := claims()
	for i := range list {
		c["jti"] = fmt.Sprintf("3f0d8c1e-6b7a-4c52-9e1f-%012x", i)
		list[i] = p.sign(b, c)
	}
	return list
}

// warm verifies each token until all are remembered, or a round adds none.
func warm(b *testing.B, v *verifier.Verifier, tokens []string) {
	b.Helper()
	for range 3 {
		for _, token := range tokens {
			_, err := v.Verify(b.Context(), token)
			check(b, err)
		}
	}
}

// BenchmarkHit verifies tokens that were verified before, one after another. hits/op below 1 means
// that the cache had forgotten some.
func BenchmarkHit(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint("tokens=", n), func(b *testing.B) {
			p := newPair(b, keystore.HS256)
			tokens := p.distinct(b, n)
			v := p.caching(b, n)
			warm(b, v, tokens)
			hits := 0
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				t, err := v.Verify(b.Context(), tokens[i])
				if err != nil {
					b.Fatal(err)
				}
				if t.Cached() {
					hits++
				}
				if i++; i == n {
					i = 0
				}
			}
			b.ReportMetric(float64(hits)/float64(b.N), "hits/op")
		})
	}
}

// BenchmarkHitParallel measures how hits scale with -cpu 1,2.
func BenchmarkHitParallel(b *testing.B) {
	b.Run("tokens=1000", func(b *testing.B) {
		p := newPair(b, keystore.HS256)
		tokens := p.distinct(b, 1000)
		v := p.caching(b, 1000)
		warm(b, v, tokens)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i = (i + 1) % len(tokens) {
				if _, err := v.Verify(b.Context(), tokens[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// BenchmarkStdlib measures the bare verification of the same token's signature.
func BenchmarkStdlib(b *testing.B) {
	for _, alg := range algorithms[1:] {
		b.Run("alg="+string(alg), func(b *testing.B) {
			p := newPair(b, alg)
			public, _ := p.key.Public()
			token := p.sign(b, claims())
			cut := strings.LastIndexByte(token, '.')
			signed := []byte(token[:cut])
			sig, err := base64.RawURLEncoding.DecodeString(token[cut+1:])
			check(b, err)
			b.ReportAllocs()
			for b.Loop() {
				if !bare(public, signed, sig) {
					b.Fatal("the signature does not verify")
				}
			}
		})
	}
}

func bare(public crypto.PublicKey, signed, sig []byte) bool {
	digest := sha256.Sum256(signed)
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(public, signed, sig)
	}
	return false
}

// BenchmarkMiddleware measures a handler in process: bare, behind Require with a remembered token,
// and behind Require without a cache.
func BenchmarkMiddleware(b *testing.B) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	hit := newPair(b, keystore.HS256)
	miss := newPair(b, keystore.HS256)
	for _, tt := range []struct {
		name    string
		handler http.Handler
	}{
		{"bare", hello},
		{"hit", middleware.Require(hit.caching(b, 1))(hello)},
		{"miss", middleware.Require(miss.verifier(b))(hello)},
	} {
		b.Run("handler="+tt.name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+hit.sign(b, claims()))
			w := discard{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				tt.handler.ServeHTTP(w, r)
			}
		})
	}
}

// discard is a ResponseWriter that costs nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkMemory reports the memory of a million remembered tokens: B/entry on the heap, including
// the table, and heap-MB in total.
func BenchmarkMemory(b *testing.B) {
	const n = 1_000_000
	b.Run(fmt.Sprint("entries=", n), func(b *testing.B) {
		p := newPair(b, keystore.HS256)
		for b.Loop() {
			before := heap()
			keys, err := keystore.NewStatic(newPair(b, keystore.HS256).key)
			check(b, err)
			v, err := verifier.New(verifier.Config{
				CacheEntries: n, CacheBytes: n << 10,
				Tenants: []verifier.Tenant{{ID: id.Tenant, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
					Issuer: issuer, Audiences: []string{audience}}},
			})
			check(b, err)
			c := claims()
			for i := range n {
				c["jti"] = fmt.Sprintf("3f0d8c1e-6b7a-4c52-9e1f-%012x", i)
				_, err := v.Verify(b.Context(), p.sign(b, c))
				check(b, err)
			}
			grown := heap() - before
			entries := v.CacheStats().Entries
			b.ReportMetric(float64(grown)/float64(entries), "B/entry")
			b.ReportMetric(float64(grown)/1e6, "heap-MB")
			b.ReportMetric(float64(entries), "entries")
			b.ReportMetric(float64(v.CacheStats().Bytes)/float64(entries), "counted-B/entry")
			runtime.KeepAlive(v)
		}
	})
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
