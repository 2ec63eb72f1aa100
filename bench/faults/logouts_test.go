package main

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// TestLogoutJudge gives the judge verdicts about tokens of users.
func TestLogoutJudge(t *testing.T) {
	now := time.Now()
	committed := now.Add(-time.Second)
	writer, other := &instance{name: "writer"}, &instance{name: "other"}
	for name, tt := range map[string]struct {
		by     *instance
		ready  bool
		good   time.Time // of the last sync
		began  time.Time
		hidden time.Time
		knew   bool
		iat    int64
		err    error
		want   logoutCount
	}{
		"accepted, ready, read since":        {by: other, ready: true, good: now, began: now, want: logoutCount{Late: 1, Longest: time.Second}},
		"accepted, ready, not read since":    {by: other, ready: true, good: committed.Add(-1), began: now, want: logoutCount{Longest: time.Second}},
		"accepted, not ready":                {by: other, good: now, began: now},
		"accepted, ready, could not be read": {by: other, ready: true, good: now, began: now, hidden: now.Add(1), want: logoutCount{Longest: time.Second}},
		"accepted, ready, beyond MaxStale": {by: other, ready: true, good: committed.Add(-1), began: committed.Add(13 * time.Second),
			want: logoutCount{Late: 1, Longest: 13 * time.Second}},
		"accepted by the writer":     {by: writer, began: now, want: logoutCount{Late: 1}},
		"accepted, had refused":      {by: other, began: now, knew: true, want: logoutCount{Forgotten: 1}},
		"accepted, of a later login": {by: writer, ready: true, good: now, began: now, iat: 10, knew: true},
		"refused":                    {by: other, err: verifier.ErrRevoked},
		"refused, of a later login":  {by: other, iat: 10, err: verifier.ErrRevoked, want: logoutCount{Refused: 1}},
		"refused for another reason": {by: other, err: verifier.ErrExpired},
		"503":                        {by: other, err: verifier.ErrUnavailable, want: logoutCount{Unavailable: 1}},
	} {
		f := &fleet{tally: newTally(), pace: fast}
		u := newLogouts(f, false)
		token := &userToken{tenant: "club-0", sub: "ann", jti: "1", iat: tt.iat}
		o := u.begin(writer, revocations.Subject, &userToken{tenant: "club-0", sub: "ann", iat: 1}, time.Unix(9, 1))
		o.committed = committed
		u.hidden = tt.hidden
		u.knows[knowledge{other, o}] = tt.knew
		h := hearing{by: tt.by, token: token, began: tt.began, good: tt.good, ready: tt.ready, err: tt.err}
		if tt.iat < o.before {
			h.must = []*order{o}
		}
		note := u.judge(&h)
		tt.want.Verified = 1
		if !reflect.DeepEqual(u.count, tt.want) || (note != "") != (tt.want.bad() > 0 || tt.err == verifier.ErrExpired) {
			t.Errorf("%s: %+v, want %+v; %q", name, u.count, tt.want, note)
		}
		if knows := u.knows[knowledge{other, o}]; knows != (tt.knew || name == "refused") {
			t.Errorf("%s: knows it: %v", name, knows)
		}
	}
}

// TestBrokenLogoutsAreSeen breaks promises on purpose, at lists on a real Redis. Each count must count
// that.
func TestBrokenLogoutsAreSeen(t *testing.T) {
	redistest.Need(t)
	if raceEnabled {
		return // a fleet with lists needs too much of a machine then
	}
	t.Parallel()
	o := testOptions()
	o.logouts, o.pace = inAll, fast
	s, err := startSingle(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	f, err := newFleet(t.Context(), s, o, t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.stop()
	u, all := f.logouts, f.instances()
	counted := func(what string, of func(logoutCount) int, until func()) {
		t.Helper()
		err := awaitEvery(t.Context(), 10*time.Millisecond, patience, what, func() bool { until(); return of(u.result()) > 0 })
		if err != nil {
			t.Error(err)
		}
	}
	in := u.login(userTenant(0), "")
	if _, err := all[0].list.RevokeToken(t.Context(), in.tenant, in.jti, time.Time{}); err != nil {
		t.Fatal(err)
	}
	counted("a good token that is refused", func(c logoutCount) int { return c.Refused }, func() { u.verify(all[0], in, 0) })
	in = u.login(userTenant(0), "")
	u.begin(all[0], revocations.Session, in, time.Now()).committed = time.Now() // a user without a revocation
	counted("a revoked token that is accepted", func(c logoutCount) int { return c.Late }, func() { u.verify(all[1], in, 1) })
	if err := u.after(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := u.result(); c.Forgotten == 0 {
		t.Errorf("%+v: what was forgotten is not counted", c)
	}
	if c := (count{Logouts: u.result()}); !c.bad() {
		t.Error("the run is good")
	}
}

// TestLogoutAdversary lets an adversary make the moves against lists that are the most likely to break a
// promise. make faults makes all of them, for ten minutes.
func TestLogoutAdversary(t *testing.T) {
	redistest.Need(t)
	if raceEnabled {
		return // a fleet with lists needs too much of a machine then
	}
	t.Parallel()
	o := testOptions()
	o.pace = fast
	moves := slices.DeleteFunc(slices.Clone(logoutMoves), func(m logoutMove) bool {
		return !slices.Contains([]string{"hide", "edit", "keys", "flush"}, m.name)
	})
	a, err := underLogoutAttack(t.Context(), o, moves, 15*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	a.write(&table)
	t.Logf("%s\n%s", table.String(), strings.Join(a.notes(), "\n"))
	if err := a.broken(); err != nil {
		t.Error(err)
	}
	if len(a.rows) < 3 || a.u.result().Revoked < 8 {
		t.Errorf("%d moves, %+v: too few to prove anything", len(a.rows), a.u.result())
	}
}

// wrongInLogouts returns the mistakes in a page's tables of users and of the adversary of their lists: a row
// that is missing, has too few revocations, or a count that is not zero.
func wrongInLogouts(page string) (wrong []string) {
	check := func(section, title string, revoked int, zeros ...int) {
		_, table, _ := strings.Cut(page, "\n## "+section+"\n")
		table, _, _ = strings.Cut(table, "\n## ")
		_, row, _ := strings.Cut(table, "\n| "+title+" | ")
		row, _, _ = strings.Cut(row, "\n")
		cells := strings.Split(row, " | ")
		if len(cells) < 8 {
			wrong = append(wrong, section+": no row of "+title)
			return
		}
		if n, err := strconv.Atoi(cells[revoked]); err != nil || n < 10 {
			wrong = append(wrong, section+": "+title+": too few revocations")
		}
		for _, i := range zeros {
			if cells[i] != "0" {
				wrong = append(wrong, fmt.Sprintf("%s: %s: a count that must be 0 is %s", section, title, cells[i]))
			}
		}
	}
	for _, s := range scenarios {
		check("Users log out", s.title, 0, 3, 4, 5)
	}
	for _, m := range logoutMoves {
		check("An adversary that writes the lists", m.title, 1, 4, 5, 6, 7)
	}
	return wrong
}

// TestWrongInLogouts gives wrongInLogouts pages with one mistake each.
func TestWrongInLogouts(t *testing.T) {
	for name, change := range map[string]func(c *logoutCount, r *logoutRow){
		"":                                 func(*logoutCount, *logoutRow) {},
		"too few":                          func(c *logoutCount, _ *logoutRow) { c.Revoked = 1 },
		scenarios[1].title + ": a count":   func(c *logoutCount, _ *logoutRow) { c.Late = 1 },
		"a count that must be 0 is **2**":  func(c *logoutCount, _ *logoutRow) { c.Forgotten = 2 },
		"a count that must be 0 is **3**":  func(c *logoutCount, _ *logoutRow) { c.Refused = 3 },
		logoutMoves[0].title + ": a count": func(_ *logoutCount, r *logoutRow) { r.Late = 1 },
		"writes the lists: " + logoutMoves[0].title: func(_ *logoutCount, r *logoutRow) { r.Unrepaired = 1 },
	} {
		r := report{logouts: &logoutAttack{rows: make(map[string]*logoutRow)}}
		for i := range scenarios {
			r.rows = append(r.rows, row{scenario: &scenarios[i], count: count{Logouts: logoutCount{Revoked: 100}}})
		}
		for _, m := range logoutMoves {
			r.logouts.rows[m.name] = &logoutRow{Blows: 1, logoutCount: logoutCount{Revoked: 100}}
		}
		change(&r.rows[1].count.Logouts, r.logouts.rows[logoutMoves[0].name])
		var b strings.Builder
		r.write(&b)
		got := wrongInLogouts(b.String())
		if (name == "") != (len(got) == 0) || len(got) > 1 || !strings.Contains(strings.Join(got, "; "), name) {
			t.Errorf("%q: %q", name, got)
		}
	}
	if got := wrongInLogouts(""); len(got) != len(scenarios)+len(logoutMoves) {
		t.Errorf("of no page: %q", got)
	}
}
