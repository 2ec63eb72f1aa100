package compare

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// BenchmarkVerify checks one token in full: alg, signature, exp, nbf, iss and aud.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"HS256", "ES256", "RS256", "EdDSA"} {
		k := newKey(b, alg)
		token := k.token(b, payload)
		if alg != "HS256" {
			b.Run("alg="+alg+"/lib=stdlib", func(b *testing.B) {
				verify := stdlib(b, k, token)
				b.ReportAllocs()
				for b.Loop() {
					if !verify() {
						b.Fatal("bad signature")
					}
				}
			})
		}
		for _, lib := range libraries {
			b.Run("alg="+alg+"/lib="+lib.name, func(b *testing.B) {
				verify := lib.verifier(b, k)
				b.ReportAllocs()
				for b.Loop() {
					if err := verify(token); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkBesideStdlib alternates the full check and the bare signature check by the standard
// library, so that both run under the same conditions. x-of-stdlib is the first time divided by the
// second.
func BenchmarkBesideStdlib(b *testing.B) {
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		b.Run("alg="+alg+"/lib=keyturn", func(b *testing.B) {
			k := newKey(b, alg)
			token := k.token(b, payload)
			bare, full := stdlib(b, k, token), libraryNamed(b, "keyturn").verifier(b, k)
			var ours, theirs time.Duration
			for b.Loop() {
				start := time.Now()
				ok := bare()
				between := time.Now()
				err := full(token)
				ours += time.Since(between)
				theirs += between.Sub(start)
				if !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
			b.ReportMetric(float64(ours)/float64(theirs), "x-of-stdlib")
			b.ReportMetric(float64(theirs)/float64(b.N), "stdlib-ns/op")
			b.ReportMetric(float64(ours)/float64(b.N), "ns/op")
		})
	}
}

// BenchmarkSign signs nine claims.
func BenchmarkSign(b *testing.B) {
	k := newKey(b, "HS256")
	for _, claims := range []string{"map", "struct"} {
		for _, lib := range libraries {
			signer := lib.signer
			if claims == "struct" {
				signer = lib.structSigner
			}
			if signer == nil {
				continue
			}
			b.Run("alg=HS256/claims="+claims+"/lib="+lib.name, func(b *testing.B) {
				sign := signer(b, k)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := sign(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkHit checks tokens that were checked before, one after another. lib=golang-jwt remembers
// nothing: the others are compared with it.
func BenchmarkHit(b *testing.B) {
	k := newKey(b, "HS256")
	for _, n := range []int{1, 1000, 50_000, 100_000} {
		tokens := k.distinct(b, n)
		name := func(lib string) string { return fmt.Sprintf("tokens=%d/lib=%s", n, lib) }
		b.Run(name("golang-jwt"), func(b *testing.B) {
			roundRobin(b, tokens, libraryNamed(b, "golang-jwt").verifier(b, k))
		})
		for _, lib := range cachedLibraries {
			b.Run(name(lib.name), func(b *testing.B) {
				c := lib.open(b, k, n, time.Now)
				for _, token := range tokens {
					if err := c.verify(token); err != nil {
						b.Fatal(err)
					}
				}
				remembered := settled(b, tokens, c.isHit(b))
				before := c.misses()
				roundRobin(b, remembered, c.verify)
				if missed := c.misses() - before; missed != 0 {
					b.Fatalf("%d misses, want none", missed)
				}
			})
		}
	}
}

// BenchmarkMiss verifies a token that the cache does not hold: it is looked up, checked in full and
// remembered. Its entry expires at once, so that one token is new each time. The other libraries
// remember nothing. They run here again so that the comparison covers the same seconds.
func BenchmarkMiss(b *testing.B) {
	k := newKey(b, "HS256")
	tokens := k.distinct(b, 1)
	b.Run("alg=HS256/lib=keyturn", func(b *testing.B) {
		v, ctx := k.keyturnWith(b, verifier.Config{CacheTTL: time.Nanosecond}), b.Context()
		roundRobin(b, tokens, func(token string) error {
			_, err := v.Verify(ctx, token)
			return err
		})
		if s := v.CacheStats(); s.Hits != 0 || s.Entries != 1 {
			b.Fatalf("%d hits, %d entries, want 0 and 1", s.Hits, s.Entries)
		}
	})
	for _, lib := range []string{"golang-jwt", "jwx"} {
		b.Run("alg=HS256/lib="+lib, func(b *testing.B) {
			roundRobin(b, tokens, libraryNamed(b, lib).verifier(b, k))
		})
	}
}

// BenchmarkCacheGet measures the table of our cache and the best known cache library. Both find
// texts by the same digest.
func BenchmarkCacheGet(b *testing.B) {
	k := newKey(b, "HS256")
	for _, n := range []int{1, 1000, 100_000} {
		tokens := k.distinct(b, n)
		for _, table := range tables {
			b.Run(fmt.Sprintf("tokens=%d/lib=%s", n, table.name), func(b *testing.B) {
				get := table.open(b, tokens)
				remembered := settled(b, tokens, get)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if !get(remembered[i]) {
						b.Fatal("not there")
					}
					if i++; i == len(remembered) {
						i = 0
					}
				}
			})
		}
	}
}

// roundRobin measures verify with one token after another.
func roundRobin(b *testing.B, tokens []string, verify func(string) error) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := verify(tokens[i]); err != nil {
			b.Fatal(err)
		}
		if i++; i == len(tokens) {
			i = 0
		}
	}
}
