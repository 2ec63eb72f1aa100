package bench

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations"
)

const million = 1_000_000

// listOf returns a list of a fleet with n revocations: one third tokens, sessions and subjects each.
// The subjects are user-0, user-3, and so on. It is filled once, which takes a minute with a million.
var listOf = func() func(b *testing.B, n int) *revocations.List {
	var mu sync.Mutex
	filled := make(map[int]*revocations.List)
	return func(b *testing.B, n int) *revocations.List {
		b.Helper()
		mu.Lock()
		defer mu.Unlock()
		if filled[n] == nil {
			filled[n] = fill(b, n)
		}
		return filled[n]
	}
}()

func fill(b *testing.B, n int) *revocations.List {
	b.Helper()
	store := rotationtest.NewCluster(rotationtest.ClusterConfig{History: 1}).Connect("bench")
	list, err := revocations.OpenStore(b.Context(), store, revocations.Config{TrustFirstRead: true, MaxEntries: 2 * max(n, 1), MaxPerTenant: max(n, 1), StaleOK: true,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	check(b, err)
	check(b, list.WaitReady(b.Context()))
	exp, before := time.Now().Add(24*time.Hour), time.Now()
	for i := range n {
		switch i % 3 {
		case 0:
			_, err = list.RevokeSubject(b.Context(), id.Tenant, fmt.Sprint("user-", i), before)
		case 1:
			_, err = list.RevokeSession(b.Context(), id.Tenant, fmt.Sprint("session-", i), exp)
		default:
			_, err = list.RevokeToken(b.Context(), id.Tenant, fmt.Sprint("token-", i), exp)
		}
		check(b, err)
	}
	if list.Len() != n {
		b.Fatalf("the list has %d revocations, want %d", list.Len(), n)
	}
	return list
}

// asking returns a verifier of HS256 tokens, with room for that many, that asks r, unless that is nil.
func asking(b *testing.B, tokens int, r verifier.Revocations) *verifier.Verifier {
	b.Helper()
	keys, err := keystore.NewStatic(newPair(b, keystore.HS256).key)
	check(b, err)
	v, err := verifier.New(verifier.Config{
		CacheEntries: max(2*tokens, 1024), CacheBytes: max(2048*int64(tokens), 1<<20), Revocations: r,
		Tenants: []verifier.Tenant{{ID: id.Tenant, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
			Issuer: issuer, Audiences: []string{audience}}},
	})
	check(b, err)
	return v
}

// users returns tokens of users whose numbers are multiples of 3, plus offset, with sessions of their
// own. They were issued after every revocation.
func (p pair) users(b *testing.B, n, offset int) []string {
	b.Helper()
	list := make([]string, n)
	c := claims()
	c["iat"], c["nbf"] = time.Now().Unix()+1, 0
	for i := range list {
		c["sub"], c["sid"], c["jti"] = fmt.Sprint("user-", 3*i+offset), fmt.Sprint("s-", i), fmt.Sprintf("3f0d8c1e-6b7a-4c52-9e1f-%012x", i)
		list[i] = p.sign(b, c)
	}
	time.Sleep(1100 * time.Millisecond) // until they are valid
	return list
}

// BenchmarkHitRevocations measures what revocations add to a hit, with four digests a token. Rounds of
// hits with a list and without one take turns. ns/op is a hit with the list, and over-ns what it costs
// more than one without: both are of the fastest rounds, as other work on the machine only adds. With
// named=0 the list names no token; with named=1 it holds the
// subject of each, who has logged in again since. With changes=1 it learns a revocation before each
// round, so that each token is looked up again: otherwise the list has told of it before.
func BenchmarkHitRevocations(b *testing.B) {
	for _, tt := range []struct {
		revocations, named, tokens int
		changes                    string
	}{{0, 0, 1000, ""}, {million, 0, 1000, ""}, {million, 1, 1000, ""}, {million, 0, 100_000, ""}, {million, 0, 1000, "/changes=1"}, {million, 1, 1000, "/changes=1"}, {million, 0, 100_000, "/changes=1"}} {
		b.Run(fmt.Sprintf("revocations=%d/named=%d/tokens=%d%s", tt.revocations, tt.named, tt.tokens, tt.changes), func(b *testing.B) {
			p := newPair(b, keystore.HS256)
			list := listOf(b, tt.revocations)
			tokens := p.users(b, tt.tokens, 1-tt.named)
			with, without := asking(b, tt.tokens, list), asking(b, tt.tokens, nil)
			warm(b, with, tokens)
			warm(b, without, tokens)
			changes, change := 0, func() {}
			if tt.changes != "" {
				change = func() {
					_, err := list.RevokeToken(b.Context(), "another tenant", fmt.Sprint(changes), time.Now().Add(24*time.Hour))
					check(b, err)
					changes++
				}
			}
			compare(b, tokens, change, with, without)
		})
	}
}

// compare verifies all tokens with one verifier and then with the other, again and again.
func compare(b *testing.B, tokens []string, change func(), with, without *verifier.Verifier) {
	var each [2][]float64
	for b.Loop() {
		change()
		for i, v := range []*verifier.Verifier{with, without} {
			began := time.Now()
			for _, token := range tokens {
				if t, err := v.Verify(b.Context(), token); err != nil || !t.Cached() && len(tokens) <= 1000 {
					b.Fatal("no hit: ", err)
				}
			}
			each[i] = append(each[i], float64(time.Since(began))/float64(len(tokens)))
		}
	}
	b.ReportMetric(slices.Min(each[0]), "ns/op")
	b.ReportMetric(slices.Min(each[0])-slices.Min(each[1]), "over-ns")
}

// BenchmarkRevoked measures how long a revoked token takes to be refused: the full check, as no refusal
// is remembered.
func BenchmarkRevoked(b *testing.B) {
	for _, claim := range []struct{ name, value string }{{"sub", "user-3"}, {"sid", "session-1"}, {"jti", "token-2"}} {
		b.Run(fmt.Sprintf("revocations=%d/by=%s", million, claim.name), func(b *testing.B) {
			p := newPair(b, keystore.HS256)
			list := listOf(b, million)
			c := claims()
			c[claim.name] = claim.value
			token, v := p.sign(b, c), asking(b, 1, list)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); !errors.Is(err, verifier.ErrRevoked) {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestHitWithRevocationsAllocatesNothing pins the hits of a fleet's list.
func TestHitWithRevocationsAllocatesNothing(t *testing.T) {
	r := testing.Benchmark(func(b *testing.B) {
		p := newPair(b, keystore.HS256)
		v := asking(b, 1, listOf(b, 30))
		token := p.users(b, 2, 0)[1] // of user-3, who is in the list
		warm(b, v, []string{token})
		n := testing.AllocsPerRun(1000, func() {
			if tok, err := v.Verify(b.Context(), token); err != nil || !tok.Cached() {
				b.Error("no hit: ", err)
			}
		})
		b.ReportMetric(n, "allocs")
	})
	if n, ok := r.Extra["allocs"]; !ok || n != 0 {
		t.Errorf("%v allocations, measured %v", n, ok)
	}
}
