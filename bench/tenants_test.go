//go:build unix

package bench

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// many returns n tenants, each with an issuer of its own. They share a store.
func (p pair) many(b *testing.B, n int) []verifier.Tenant {
	b.Helper()
	keys, err := keystore.NewStatic(p.key)
	check(b, err)
	// Of the keys, only that of the first tenant is ever looked up.
	list := make([]verifier.Tenant, n)
	for i := range list {
		list[i] = tenantOf(fmt.Sprint("tenant ", i), keys)
	}
	list[0].ID, list[0].Issuer = id.Tenant, issuer
	return list
}

// anyTenant is a store that serves all tenants.
type anyTenant struct{ *keystore.Static }

func (anyTenant) Serves(string) bool { return true }

func tenantOf(id string, keys *keystore.Static) verifier.Tenant {
	return verifier.Tenant{ID: id, Keys: anyTenant{keys}, Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://" + id, Audiences: []string{audience}}
}

// BenchmarkPut changes one tenant among many: ns/op of each change. Put replaces one, Suspend stands
// for Suspend and Resume, and Remove for a Remove and the Put that brings it back.
func BenchmarkPut(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		p := newPair(b, keystore.HS256)
		var v *verifier.Verifier
		var list []verifier.Tenant
		open := func(b *testing.B) usage {
			if v == nil {
				list = p.many(b, n)
				var err error
				v, err = verifier.New(verifier.Config{Tenants: list})
				check(b, err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			return used(b)
		}
		b.Run(fmt.Sprint("tenants=", n, "/change=put"), func(b *testing.B) {
			cpu := open(b)
			for i := 0; b.Loop(); i++ {
				check(b, v.Put(list[i*7919%n]))
			}
			cpu.report(b)
		})
		b.Run(fmt.Sprint("tenants=", n, "/change=suspend"), func(b *testing.B) {
			cpu := open(b)
			for i := 0; b.Loop(); i++ {
				check(b, v.Suspend(list[i*7919%n].ID))
				check(b, v.Resume(list[i*7919%n].ID))
			}
			cpu.report(b)
		})
		b.Run(fmt.Sprint("tenants=", n, "/change=remove"), func(b *testing.B) {
			cpu := open(b)
			for i := 0; b.Loop(); i++ {
				check(b, v.Remove(list[i*7919%n].ID))
				check(b, v.Put(list[i*7919%n]))
			}
			cpu.report(b)
		})
	}
}

// BenchmarkHitHinted verifies a cached token of one tenant among many with VerifyTenant, which looks
// the tenant up.
func BenchmarkHitHinted(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint("tenants=", n), func(b *testing.B) {
			p := newPair(b, keystore.HS256)
			v, err := verifier.New(verifier.Config{Tenants: p.many(b, n)})
			check(b, err)
			tokens := p.distinct(b, 1)
			warm(b, v, tokens)
			for b.Loop() {
				if _, err := v.VerifyTenant(b.Context(), id.Tenant, tokens[0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSync syncs to a list of unchanged rows, and to one in which a hundredth is new and as many
// are missing.
func BenchmarkSync(b *testing.B) {
	const n = 100_000
	p := newPair(b, keystore.HS256)
	rows := p.many(b, n+n/100)
	v, err := verifier.New(verifier.Config{})
	check(b, err)
	for _, moved := range []int{0, n / 100} {
		b.Run(fmt.Sprint("tenants=", n, "/new=", moved), func(b *testing.B) {
			v.Sync(rows[:n])
			b.ReportAllocs()
			cpu := used(b)
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				at := (i + 1) % 2 * moved
				if changed, errs := v.Sync(rows[at:][:n]); changed != 2*moved || errs != nil {
					b.Fatal(changed, errs)
				}
			}
			cpu.report(b)
		})
	}
}

// BenchmarkTenantMemory reports the heap of many tenants: B/tenant, without their keys.
func BenchmarkTenantMemory(b *testing.B) {
	const n = 100_000
	p := newPair(b, keystore.HS256)
	list := p.many(b, n)
	for b.Loop() {
		before := heap()
		v, err := verifier.New(verifier.Config{Tenants: list, CacheTTL: -1})
		check(b, err)
		b.ReportMetric(float64(heap()-before)/n, "B/tenant")
		runtime.KeepAlive(v)
	}
	runtime.KeepAlive(list)
}
