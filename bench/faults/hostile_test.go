package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/verifier"
)

// TestAdversary lets an adversary make the moves that broke the most promises. make faults makes
// all of them, for ten minutes.
func TestAdversary(t *testing.T) {
	redistest.Need(t)
	var worst []*move
	for _, m := range moves {
		if slices.Contains([]string{"hide-promotion", "newcomer", "acks", "kill", "replay", "junk", "flip"}, m.name) {
			worst = append(worst, m)
		}
	}
	o := testOptions()
	o.pace = hostilePace(6 * time.Second)
	r, err := underAttack(t.Context(), o, worst, 15*time.Second)
	var table strings.Builder
	r.write(&table)
	t.Logf("%s\n%s", table.String(), strings.Join(r.Notes, "\n"))
	if err != nil {
		t.Error(err)
	}
	if err := r.broken(); err != nil {
		t.Error(err)
	}
	if s := r.sum(); s.Blows < 4 || s.Changed == 0 || s.Revoked == 0 || r.Count.Verified < 1000 {
		t.Errorf("%+v, %d verifications: too few to prove anything", s, r.Count.Verified)
	}
}

// TestJudge gives the judge verdicts about a token of a revoked key.
func TestJudge(t *testing.T) {
	now := time.Now()
	m := &instance{name: "a"}
	accepted := verdict{by: m, token: token{tenant: tenants[0], kid: "k"}, began: now, good: now, fresh: true}
	stale, early := accepted, accepted
	stale.fresh, early.good = false, now.Add(-2*time.Second)
	for name, tt := range map[string]struct {
		hidden time.Time
		what   []what
		v      verdict
		want   wrongs
	}{
		"in sync, and had read it":      {v: accepted, want: wrongs{Late: 1}},
		"out of sync":                   {v: stale},
		"its sync was before":           {v: early},
		"it could not be read":          {v: accepted, hidden: now.Add(time.Second)},
		"it could be read again":        {v: accepted, hidden: now.Add(-time.Second / 2), want: wrongs{Late: 1}},
		"out of sync, it had acked":     {v: stale, what: []what{applied}, want: wrongs{Lied: 1}},
		"out of sync, it had shown it":  {v: stale, what: []what{knows}, want: wrongs{Forgotten: 1}},
		"its sync was before; it knew":  {v: early, what: []what{knows, held}, want: wrongs{Forgotten: 1}},
		"it had the key, and no more":   {v: early, what: []what{held}},
		"hidden, but it had applied it": {v: accepted, hidden: now.Add(time.Hour), what: []what{applied}, want: wrongs{Lied: 1}},
	} {
		j := newJudge()
		j.begin("move", tenants[0].name)
		j.add(&revocation{tenant: tenants[0], kid: "k", at: now.Add(-time.Second), tokens: []token{{}}})
		j.hide(tenants[0].name, tt.hidden)
		for _, w := range tt.what {
			j.seen[sight{w, "a", "k"}] = now.Add(-time.Second / 4)
		}
		j.hear(tt.v)
		tt.want.Blows, tt.want.Revoked = 1, 1
		got := *j.rows["move"]
		if got.Longest = 0; got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestJudgeOfRejections gives the judge rejections of good tokens.
func TestJudgeOfRejections(t *testing.T) {
	v := verdict{by: &instance{name: "a"}, token: token{tenant: tenants[0], kid: "k"}, fresh: true, err: verifier.ErrUnknownKey}
	j := newJudge()
	j.reject(v)
	v.err = nil
	j.reject(v)
	if got := *j.rows[""]; got != (wrongs{NeverHeld: 1}) {
		t.Errorf("a key that it never had: %+v", got)
	}
	v.err, v.fresh = verifier.ErrUnknownKey, false
	j.see(held, v.by, "k")
	j.reject(v)
	if got := *j.rows[""]; got != (wrongs{NeverHeld: 1, Refused: 1}) {
		t.Errorf("a key that it had: %+v", got)
	}
}
