package rotationtest_test

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestHistories simulates histories and checks all invariants on each. KEYTURN_HISTORIES is their
// number, KEYTURN_SEED the first seed. KEYTURN_SEED=7 KEYTURN_HISTORIES=1 runs one again;
// KEYTURN_TRACE=1 prints all events of a history that breaks a rule, and of a timeline that fails.
func TestHistories(t *testing.T) {
	const shards = 16
	n, first := number(t, "KEYTURN_HISTORIES", 2000), number(t, "KEYTURN_SEED", 1)
	before := debug.SetGCPercent(200) // saves an eighth of the time
	t.Cleanup(func() { debug.SetGCPercent(before) })
	var c coverage
	t.Cleanup(func() {
		t.Log(c.report())
		if missing := c.missing(); n >= 2000 && len(missing) > 0 {
			t.Errorf("in %d histories these never happened: %q", n, missing)
		}
	})
	for shard := range uint64(shards) {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			for seed := first + shard; seed < first+n; seed += shards {
				h := simulate(t, seed)
				bad := check(h)
				c.add(h, len(bad) > 0)
				if reportViolations(t, h, bad); c.tooMany() {
					return
				}
			}
		})
	}
}

// reportViolations reports the first violation of each rule, with the events that led to it.
func reportViolations(t *testing.T, h *history, bad []violation) {
	t.Helper()
	seen := make(map[string]bool)
	for _, v := range bad {
		if !seen[v.rule] {
			seen[v.rule] = true
			t.Errorf("seed %d: %s: %s\n%s", h.seed, v.rule, v.text, h.around(v, 60))
		}
	}
	if t.Failed() && os.Getenv("KEYTURN_TRACE") != "" {
		for _, e := range h.events {
			fmt.Println(h.line(e))
		}
	}
}

// coverage counts the events of all histories.
type coverage struct {
	mu     sync.Mutex
	counts map[string]int
	bad    int
}

func (c *coverage) add(h *history, bad bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[string]int)
	}
	c.counts["history"]++
	c.counts["token"] += len(h.tokens)
	c.counts["instance"] += len(h.instances)
	if len(h.instances) >= 12 {
		c.counts["history with 12 instances or more"]++
	}
	if h.begins != "" {
		c.counts["history that begins with "+h.begins]++
	}
	tenants := make(map[string]bool)
	for _, t := range h.tokens {
		tenants[t.tenant] = true
	}
	if len(tenants) >= 20 {
		c.counts["history with 20 tenants or more"]++
	}
	if bad {
		c.bad++
		c.counts["history with a violation"]++
	}
	for _, e := range h.events {
		what := kindNames[e.kind]
		switch {
		case e.kind == evFault && (e.note == "on" || strings.HasPrefix(e.note, "on ")), strings.HasSuffix(e.note, " ends"):
			continue
		case e.kind == evFault:
			what += " " + e.note
		case e.commit != nil:
			what += " " + string(e.commit.Op)
		case e.kind == evOp:
			first, _, _ := strings.Cut(e.note, " ")
			what += " " + first
			if strings.Contains(e.note, "forced") {
				what += " forced"
			}
		}
		c.counts[strings.TrimSpace(what+" "+string(e.result))]++
	}
}

// missing returns the events that should have happened in some history, and did not.
func (c *coverage) missing() []string {
	want := []string{"fault restart with a snapshot", "op rotate ok", "op rotate forced ok", "op promote ok", "op promote forced ok", "op revoke ok", "op revoke forced ok", "op replace ok", "op replace forced ok", "op set ok", "op rekey ok", "op shred ok", "op again ok", "op accept ok", "op accept failed", "op disown ok",
		"commit create", "commit import", "commit mint", "history that begins with an imported key", "history that begins with a held key", "commit promote", "commit rotate", "commit revoke", "commit merge", "commit collect", "commit rekey", "commit shred", "commit accept",
		"history with 12 instances or more", "history with 20 tenants or more", "sign ok", "sign fenced", "verify ok", "verify not found", "verify unavailable", "knows ok", "loss"}
	for _, f := range faultKinds {
		want = append(want, "fault "+f.name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(want, func(what string) bool { return c.counts[what] > 0 })
}

func (c *coverage) tooMany() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bad > 20
}

func (c *coverage) report() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, what := range keysOf(c.counts) {
		fmt.Fprintf(&b, "%9d %s\n", c.counts[what], what)
	}
	return b.String()
}
