package main

import (
	"fmt"
	"io"
	"strings"
)

// A line of a table that compares: the library, and its benchmark.
type line struct{ label, name string }

var firstTime = []line{
	{"**keyturn**, cache off", verifyHS256 + "keyturn"},
	{"**keyturn**, a miss: looked for, checked, remembered", missHS256 + "keyturn"},
	{"golang-jwt", verifyHS256 + "golang-jwt"},
	{"go-jose", verifyHS256 + "go-jose"},
	{"jwx v2, `jwt.Parse`", verifyHS256 + "jwx"},
	{"fast-jwt on Node", "compare.Node/lib=fast-jwt/cache=off"},
	{"jsonwebtoken on Node, prepared key", "compare.Node/lib=jsonwebtoken/key=prepared"},
	{"jsonwebtoken on Node, the secret as a string", "compare.Node/lib=jsonwebtoken/key=string"},
}

// again are the libraries that remember tokens, by the number of tokens.
var again = []struct {
	label string
	name  func(tokens int) string
}{
	{"**keyturn**", func(n int) string { return hit(n, "keyturn") }},
	{"golang-jwt behind otter, by SHA-256", func(n int) string { return hit(n, "golang-jwt+otter") }},
	{"Kubernetes' cached token authenticator", func(n int) string { return hit(n, "kubernetes") }},
	{"fast-jwt on Node, with its cache", func(n int) string { return fmt.Sprintf("compare.Node/lib=fast-jwt/cache=on/tokens=%d", n) }},
	{"golang-jwt, which remembers nothing", func(n int) string { return hit(n, "golang-jwt") }},
}

var againTokens = []int{1, 1000, 50_000, 100_000}

func writeMarkdown(w io.Writer, r *run) {
	least, most := r.rounds()
	rounds := fmt.Sprintf("%d rounds", least)
	if most != least {
		rounds = fmt.Sprintf("%d to %d rounds", least, most)
	} else if most == 1 {
		rounds = "a single round"
	}
	fmt.Fprintf(w, head, r.setting("date"), r.setting("cpu"), r.setting("cores"), r.setting("goos"), r.setting("goarch"),
		r.setting("go"), r.setting("benchtime"), rounds, r.setting("load"))
	writeGoals(w, r)
	writeFirstTime(w, r)
	writeAgain(w, r)
	writeSignatures(w, r)
	writeSigning(w, r)
	writeService(w, r)
	fmt.Fprint(w, notes)
	writeVersions(w, r)
	writeAll(w, r)
}

const head = `# Benchmarks

<!-- Written by make bench. Do not edit: the next run overwrites it. -->

Measured %s on %s, %s cores, %s/%s, %s.
Everything runs on one core unless it says otherwise. Each benchmark ran for %s, in %s.
The numbers are medians of the rounds. A ratio is taken within each round, and the table has the
median of those: its last digit may differ from the ratio of two medians. The machine's load average
before the run was %s.

![Time to check one token](benchmarks.svg)

To measure again, from the root: ` + "`make bench`" + `. It takes about ten minutes, needs an idle machine
with two cores, and writes this file and the chart. ` + "`make bench BENCHCOUNT=1 BENCHTIME=100ms`" + ` is a
quick look. For one part only: ` + "`go test -bench Hit -run '^$' ./bench`" + `, or the same with ` + "`.`" + ` in
` + "`bench/compare`" + `.

`

func writeGoals(w io.Writer, r *run) {
	fmt.Fprint(w, "## Goals\n\n"+
		"| | at least | aim | measured | rounds | reached | aim reached |\n|---|---|---|---|---|---|---|\n")
	for _, g := range goals {
		m := g.measure(r)
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n",
			g.what, g.leastText(), g.aimText(), m, m.spread(), m.verdict(g.bounds), m.verdictAim(g.bounds))
	}
}

func writeFirstTime(w io.Writer, r *run) {
	fmt.Fprint(w, "\n## A token seen for the first time\n\n"+
		"HS256, 413 bytes, nine claims; alg, signature, exp, nbf, iss and aud are checked.\n\n"+
		"| | time | bytes | allocations | next to keyturn |\n|---|---|---|---|---|\n")
	for _, l := range firstTime {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", l.label, duration(r, l.name),
			count(r, l.name, "B/op"), count(r, l.name, "allocs/op"), times(ratio(l.name, verifyHS256+"keyturn")(r)))
	}
}

func writeAgain(w io.Writer, r *run) {
	fmt.Fprint(w, "\n## A token seen before\n\nThe column is the number of different tokens, verified one after another. The cache holds all of them.\n\n|")
	for _, n := range againTokens {
		fmt.Fprintf(w, " | %s", thousands(n))
	}
	fmt.Fprint(w, " | allocations | 1 000: next to keyturn |\n|---|---|---|---|---|---|---|\n")
	for _, l := range again {
		fmt.Fprintf(w, "| %s", l.label)
		for _, n := range againTokens {
			fmt.Fprintf(w, " | %s", duration(r, l.name(n)))
		}
		fmt.Fprintf(w, " | %s | %s |\n", count(r, l.name(1000), "allocs/op"), times(ratio(l.name(1000), hit(1000, "keyturn"))(r)))
	}
}

func writeSignatures(w io.Writer, r *run) {
	libs := []string{"stdlib", "keyturn", "golang-jwt", "go-jose", "jwx"}
	fmt.Fprint(w, "\n## Signatures with public keys, first time\n\nThe standard library checks the bare signature alone.\n\n"+
		"| | standard library | **keyturn** | golang-jwt | go-jose | jwx v2 |\n|---|---|---|---|---|---|\n")
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		fmt.Fprintf(w, "| %s", alg)
		for _, lib := range libs {
			fmt.Fprintf(w, " | %s", duration(r, "compare.Verify/alg="+alg+"/lib="+lib))
		}
		fmt.Fprint(w, " |\n")
	}
}

func writeSigning(w io.Writer, r *run) {
	fmt.Fprint(w, "\n## Signing\n\nHS256, the same nine claims.\n\n"+
		"| | **keyturn** | golang-jwt | go-jose | jwx v2 |\n|---|---|---|---|---|\n")
	for _, claims := range []string{"map", "struct"} {
		fmt.Fprintf(w, "| claims in a %s", claims)
		for _, lib := range []string{"keyturn", "golang-jwt", "go-jose", "jwx"} {
			fmt.Fprintf(w, " | %s", duration(r, sign(claims, lib)))
		}
		fmt.Fprint(w, " |\n")
	}
}

func writeService(w io.Writer, r *run) {
	by := "a generator of our own (wrk was missing)"
	if len(r.values(serviceNames("hit")[0], "req/s")) > 0 {
		by = "wrk"
	}
	fmt.Fprintf(w, "\n## A whole service\n\nAn `http.Server` on one core, under load on loopback by %s on another, 16 connections.\n"+
		"Each handler ran between two windows of the bare one. All get the same requests, including the token.\n\n"+
		"| | requests/s | the bare handler's | %% of it | rounds |\n|---|---|---|---|---|\n", by)
	for _, l := range []line{{"`middleware.Require`, hit", "hit"}, {"`middleware.Require`, miss", "miss"}, {"golang-jwt", "golang-jwt"}} {
		names := serviceNames(l.name)
		share := eitherWay("%-of-bare", 1, names...)(r)
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", l.label, rounded(eitherWay("req/s", 1, names...)(r)),
			rounded(eitherWay("bare-req/s", 1, names...)(r)), share, share.spread())
	}
}

const notes = `
## How fair this is

- Each library is used as its own documentation says, checks the same rules, and refuses the same
  bad tokens: tests in ` + "`bench/compare`" + ` hold that. Work that does not depend on the token is done
  before, where the library has a place for it.
- keyturn's hit checks the time, the key, the tenant's rules and revocation again. golang-jwt behind
  otter checks the token's expiry. Kubernetes' authenticator checks nothing: **a token that expires
  while it is remembered is accepted** until its time to live is over, 10 s in an API server.
  fast-jwt checks ` + "`exp`" + ` and ` + "`nbf`" + `.
- Kubernetes' authenticator counts and times each call for its metrics, which cannot be disabled,
  and wraps golang-jwt here. fast-jwt and jsonwebtoken were timed by Node's own clock, in one
  process, after warming up.
- Our cache has its default bounds up to 10 000 tokens, and room for twice as many above. When 100
  000 tokens come one after another, about one in a thousand still finds its place in the table
  taken. Those tokens are left out, so that only hits are measured.
- jwx builds tokens claim by claim; that is in the row of the map. The full check and the bare
  signature check are measured alternately.
- A miss is measured with one token that is new each time, because its entry expires at once. Where
  many different tokens come, memory is colder.
`

func writeVersions(w io.Writer, r *run) {
	fmt.Fprint(w, "\n## Versions\n\n| | |\n|---|---|\n")
	fmt.Fprintf(w, "| Go | %s |\n", r.setting("go"))
	for _, v := range r.settings["version"] {
		name, version, _ := strings.Cut(v, " ")
		fmt.Fprintf(w, "| %s | %s |\n", name, version)
	}
}

func writeAll(w io.Writer, r *run) {
	fmt.Fprint(w, "\n## Everything measured\n\nA name that ends in `-2` ran on two cores.\n\n"+
		"| benchmark | time | rounds | bytes | allocations | other |\n|---|---|---|---|---|---|\n")
	for _, result := range r.order {
		pkg, name, _ := strings.Cut(result.name, ".")
		fmt.Fprintf(w, "| %s `%s` | %s | %s | %s | %s | %s |\n", pkg, name, duration(r, result.name), spreadNS(r, result.name),
			count(r, result.name, "B/op"), count(r, result.name, "allocs/op"), others(r, result))
	}
}

// others writes the units that have no column, by name.
func others(r *run, result *result) string {
	var list []string
	for _, unit := range result.units() {
		switch unit {
		case "ns/op", "B/op", "allocs/op":
		default:
			list = append(list, fmt.Sprintf("%s %s", measured(r.values(result.name, unit)), unit))
		}
	}
	if list == nil {
		return none
	}
	return strings.Join(list, ", ")
}

// duration writes the median time of a benchmark.
func duration(r *run, name string) string {
	m := measured(r.values(name, "ns/op"))
	if len(m) == 0 {
		return none
	}
	return nanoseconds(m.median())
}

func spreadNS(r *run, name string) string {
	m := measured(r.values(name, "ns/op"))
	if len(m) == 0 {
		return none
	}
	low, high := m.ends()
	return nanoseconds(low) + " to " + nanoseconds(high)
}

func nanoseconds(ns float64) string {
	switch {
	case ns < 1e3:
		return digits(ns) + " ns"
	case ns < 1e6:
		return digits(ns/1e3) + " µs"
	case ns < 1e9:
		return digits(ns/1e6) + " ms"
	}
	return digits(ns/1e9) + " s"
}

func count(r *run, name, unit string) string {
	m := measured(r.values(name, unit))
	if len(m) == 0 {
		return none
	}
	return short(m.median())
}

func times(m measured) string {
	if len(m) == 0 {
		return none
	}
	return "× " + m.String()
}

func rounded(m measured) string {
	if len(m) == 0 {
		return none
	}
	return thousands(int(m.median() + 0.5))
}

// thousands writes 100000 as "100 000".
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s %03d", thousands(n/1000), n%1000)
}
