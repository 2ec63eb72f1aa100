package main

import (
	"fmt"
	"slices"
	"strconv"
)

// none stands for a value that was not measured.
const none = "–"

// A measured has the values of all rounds. It is empty if there were no rounds.
type measured []float64

func (m measured) median() float64 {
	s := slices.Sorted(slices.Values(m))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// String returns the median as the tables show it.
func (m measured) String() string {
	if len(m) == 0 {
		return "not measured"
	}
	return short(m.median())
}

func (m measured) spread() string {
	if len(m) == 0 {
		return none
	}
	low, high := m.ends()
	return short(low) + " to " + short(high)
}

func (m measured) ends() (low, high float64) { return slices.Min(m), slices.Max(m) }

// short writes whole numbers in full, and other numbers as digits does.
func short(v float64) string {
	if v == float64(int64(v)) {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return digits(v)
}

// digits writes three digits, or all digits before the point if there are more.
func digits(v float64) string {
	decimals := 3
	switch {
	case v >= 99.95:
		decimals = 0
	case v >= 9.995:
		decimals = 1
	case v >= 0.9995:
		decimals = 2
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// bounds are the values that a measurement has to reach: at least, or at most if atMost is set.
type bounds struct {
	least, aim float64
	hasAim     bool
	atMost     bool
}

func atLeast(v float64) bounds { return bounds{least: v} }
func atMost(v float64) bounds  { return bounds{least: v, atMost: true} }

func (b bounds) aiming(v float64) bounds {
	b.aim, b.hasAim = v, true
	return b
}

func (b bounds) leastText() string {
	if b.atMost {
		return "≤ " + short(b.least)
	}
	return "≥ " + short(b.least)
}

func (b bounds) aimText() string {
	if !b.hasAim {
		return none
	}
	if b.atMost {
		return "≤ " + short(b.aim)
	}
	return "≥ " + short(b.aim)
}

func (b bounds) reached(v, bound float64) bool {
	if b.atMost {
		return v <= bound
	}
	return v >= bound
}

func (m measured) verdict(b bounds) string {
	if len(m) == 0 {
		return none
	}
	return yesNo(b.reached(m.median(), b.least))
}

func (m measured) verdictAim(b bounds) string {
	if len(m) == 0 || !b.hasAim {
		return none
	}
	return yesNo(b.reached(m.median(), b.aim))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "**no**"
}

// A goal is a row of the table of goals.
type goal struct {
	what    string
	measure func(*run) measured
	bounds
}

// ratio divides one time by another, round by round: how many times as fast the second is.
func ratio(slow, fast string) func(*run) measured {
	return func(r *run) measured {
		above, below := r.values(slow, "ns/op"), r.values(fast, "ns/op")
		var m measured
		for i := range min(len(above), len(below)) {
			m = append(m, above[i]/below[i])
		}
		return m
	}
}

// metric returns one unit of one benchmark, times factor.
func metric(name, unit string, factor float64) func(*run) measured {
	return func(r *run) measured {
		var m measured
		for _, v := range r.values(name, unit) {
			m = append(m, v*factor)
		}
		return m
	}
}

// eitherWay returns the metric of the first of the benchmarks that was measured.
func eitherWay(unit string, factor float64, names ...string) func(*run) measured {
	return func(r *run) measured {
		for _, name := range names {
			if m := metric(name, unit, factor)(r); len(m) > 0 {
				return m
			}
		}
		return nil
	}
}

func hit(tokens int, lib string) string {
	return fmt.Sprintf("compare.Hit/tokens=%d/lib=%s", tokens, lib)
}

func sign(claims, lib string) string {
	return "compare.Sign/alg=HS256/claims=" + claims + "/lib=" + lib
}

const (
	verifyHS256 = "compare.Verify/alg=HS256/lib="
	missHS256   = "compare.Miss/alg=HS256/lib="
)

// goals are those of the project.
var goals = []goal{
	{"hit, 1 000 tokens: times as fast as golang-jwt", ratio(hit(1000, "golang-jwt"), hit(1000, "keyturn")), atLeast(30).aiming(40)},
	{"hit, 1 000 tokens: times as fast as a hit of Kubernetes' cache", ratio(hit(1000, "kubernetes"), hit(1000, "keyturn")), atLeast(3.5).aiming(5)},
	{"hit, 1 000 tokens: allocations", metric(hit(1000, "keyturn"), "allocs/op", 1), atMost(0)},
	{"hit, 100 000 tokens: times as fast as golang-jwt", ratio(hit(100_000, "golang-jwt"), hit(100_000, "keyturn")), atLeast(18).aiming(30)},
	{"hit, 100 000 tokens: times as fast as a hit of Kubernetes' cache with 50 000", ratio(hit(50_000, "kubernetes"), hit(100_000, "keyturn")), atLeast(3).aiming(5)},
	{"hit, 100 000 tokens: allocations", metric(hit(100_000, "keyturn"), "allocs/op", 1), atMost(0)},
	{"miss, HS256: times as fast as golang-jwt", ratio(missHS256+"golang-jwt", missHS256+"keyturn"), atLeast(3.5).aiming(5)},
	{"miss, HS256: times as fast as jwx v2", ratio(missHS256+"jwx", missHS256+"keyturn"), atLeast(10).aiming(15)},
	{"miss, HS256: allocations", metric(missHS256+"keyturn", "allocs/op", 1), atMost(10).aiming(4)},
	{"cache off, HS256: times as fast as golang-jwt", ratio(verifyHS256+"golang-jwt", verifyHS256+"keyturn"), atLeast(3.5).aiming(5)},
	{"cache off, HS256: times as fast as jwx v2", ratio(verifyHS256+"jwx", verifyHS256+"keyturn"), atLeast(10).aiming(15)},
	{"full check, ES256: time next to the bare signature check", overStdlib("ES256"), atMost(1.10).aiming(1.04)},
	{"full check, RS256: time next to the bare signature check", overStdlib("RS256"), atMost(1.10).aiming(1.04)},
	{"full check, EdDSA: time next to the bare signature check", overStdlib("EdDSA"), atMost(1.10).aiming(1.04)},
	{"two cores: hits, times the throughput of one", ratio("bench.HitParallel/tokens=1000", "bench.HitParallel/tokens=1000-2"), atLeast(1.8).aiming(1.95)},
	{"service, hit: % of the bare handler's requests per second", eitherWay("%-of-bare", 1, serviceNames("hit")...), atLeast(92).aiming(97)},
	{"garbage: time next to a good token's", ratio("bench.Reject/why=garbage", "bench.Reject/why=none"), atMost(0.1)},
	{"forged: time next to a good token's, uncached", ratio("bench.Reject/why=forged", "bench.Reject/why=none"), atMost(1.05)},
	{"expired: time next to a good token's, uncached", ratio("bench.Reject/why=expired", "bench.Reject/why=none"), atMost(1.05)},
	{"forged, with a header of its own: time next to a good token's, uncached", metric("bench.Refuse/why=forged-with-a-new-header", "of-good", 1), atMost(1.05)},
	{"no kid, two keys of ES512, expired: time next to a good token's", metric("bench.NoKID/claims=impossible", "of-good", 1), atMost(0.1)},
	{"no kid, two keys of ES512, forged: time next to a good token's of the last key", metric("bench.NoKID/claims=plausible", "of-good", 1), atMost(1.05)},
	{"memory, 1 000 000 entries: bytes an entry", metric("bench.Memory/entries=1000000", "B/entry", 1), atMost(600).aiming(400)},
	{"memory, 1 000 000 entries: MB of heap", metric("bench.Memory/entries=1000000", "heap-MB", 1), atMost(700)},
	{"signing, HS256, claims in a map: times as fast as golang-jwt", signing("map"), atLeast(2).aiming(3)},
	{"signing, HS256, claims in a struct: times as fast as golang-jwt", signing("struct"), atLeast(2).aiming(3)},
	{"our table, 1 text: times as fast as otter with the same digest", overOtter(1), atLeast(1)},
	{"our table, 1 000 texts: times as fast as otter with the same digest", overOtter(1000), atLeast(1)},
	{"our table, 100 000 texts: times as fast as otter with the same digest", overOtter(100_000), atLeast(1)},
}

func overStdlib(alg string) func(*run) measured {
	return metric("compare.BesideStdlib/alg="+alg+"/lib=keyturn", "x-of-stdlib", 1)
}

func overOtter(texts int) func(*run) measured {
	name := fmt.Sprintf("compare.CacheGet/tokens=%d/lib=", texts)
	return ratio(name+"otter", name+"keyturn")
}

func signing(claims string) func(*run) measured {
	return ratio(sign(claims, "golang-jwt"), sign(claims, "keyturn"))
}

// serviceNames returns the names of a handler's benchmark under either load generator.
func serviceNames(handler string) []string {
	return []string{"compare.Service/handler=" + handler + "/by=wrk", "compare.Service/handler=" + handler + "/by=go"}
}
