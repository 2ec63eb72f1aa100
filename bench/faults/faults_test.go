package main

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
)

func TestMain(m *testing.M) {
	redis.SetLogger(discardLogger{})
	if racer := os.Getenv(raceVariable); racer != "" {
		exitOn(runRacer(racer))
		return
	}
	os.Exit(m.Run())
}

// busy returns 0 if the machine has little else to do, and up to 4.
func busy() int {
	average, err := strconv.ParseFloat(load(), 64)
	if err != nil {
		return 0
	}
	return min(4, int(average)/(3*runtime.NumCPU()))
}

// testOptions are the options of a short run. The busier the machine, the slower is all of it.
func testOptions() options {
	slower := 2 + busy()
	return options{seed: 1, tokens: 500, rate: 100 / slower, pace: fast.slower(time.Duration(slower)), guests: 1, short: true, log: slog.New(slog.DiscardHandler)}
}

// TestFaults lets every fault strike once. Its verdicts do not depend on the speed of the machine. With
// the race detector, a fleet needs so much of a machine that only three are let.
func TestFaults(t *testing.T) {
	redistest.Need(t)
	var rows []row
	for i := range scenarios {
		if s := &scenarios[i]; !raceEnabled || slices.Contains([]string{"none", "kill", "restart"}, s.name) {
			rows = append(rows, row{scenario: s})
		}
	}
	o := testOptions()
	if !raceEnabled { // lists need so much more of a machine
		o.logouts = shortLogouts
	}
	runRows(t.Context(), rows, o, len(rows), func(*row) {}) // all at once, because a run mostly waits
	for i := range rows {
		t.Run(rows[i].scenario.name, func(t *testing.T) { checkRow(t, &rows[i]) })
	}
}

// shortLogouts are the faults that strike users in a short run: those that lose committed changes, or
// keep half of the instances from hearing of it. make faults has users in all runs.
const shortLogouts = "kill cold cut-half"

func checkRow(t *testing.T, x *row) {
	t.Log(x.line(0))
	if err := x.broken(); err != nil {
		t.Error(err)
	}
	c := &x.count
	if c.Strikes == 0 || c.Signed < 500 || c.Verified < 1500 {
		t.Errorf("%d strikes, %d tokens, %d verifications: too few to prove anything", c.Strikes, c.Signed, c.Verified)
	}
	if c.Rejected > 0 {
		t.Errorf("%d false rejects by instances that were not fresh: they can only say 503", c.Rejected)
	}
	if o := &c.Ops; !x.scenario.byItself && (o.Imported == 0 || o.Accepted == 0 || o.Policies == 0 || o.Shredded == 0 || o.Removed == 0 || o.Verified < 100) {
		t.Errorf("%+v: too few to prove anything of guests", o)
	}
	if l := &c.Logouts; l.Verified > 0 && l.Revoked < 10 || !raceEnabled && l.Verified < 100 && slices.Contains(strings.Fields(shortLogouts), x.scenario.name) {
		t.Errorf("%+v: too few to prove anything of users", l)
	}
	switch x.scenario.name {
	case "restart":
		if o := &c.Ops; o.Restarts < 2 || o.Killed == 0 || o.FromSnapshot == 0 {
			t.Errorf("%+v: too few restarts to prove anything", o)
		}
	case "kill":
		if c.LostMints == 0 {
			t.Error("no mint was lost")
		}
	case "empty", "cold":
		if c.Repairs == 0 {
			t.Error("nothing was restored")
		}
	case "none", "deaf":
		if len(c.Revoked) == 0 {
			t.Error("nothing was revoked")
		}
		if c.Restores == 0 {
			t.Error("no backup was restored")
		}
	}
}

func TestRace(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	r, err := race(t.Context(), 2)
	if err != nil || r.Rounds != 2 || r.Mints < 2 || r.Twice > 0 {
		t.Errorf("%+v, error %v", r, err)
	}
}

// TestBrokenPromiseIsSeen breaks promises on purpose. The tally must count that.
func TestBrokenPromiseIsSeen(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	s, err := startSingle(testOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	f, err := newFleet(t.Context(), s, testOptions(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.stop()
	end := f.begin(t.Context(), false, 0)
	t.Run("a key that the others do not have", func(t *testing.T) { signWithout(t, f) })
	t.Run("a key that was revoked in secret", func(t *testing.T) { revokeInSecret(t, f) })
	t.Run("a KEK that opens too much", func(t *testing.T) { openAll(t, f) })
	end()
}

// openAll gives the attacker the fleet's own KEK.
func openAll(t *testing.T, f *fleet) {
	dump, err := f.readRings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	later, err := f.awaitMints(t.Context(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	before, _ := f.tally.result()
	if err := f.openWith(t.Context(), f.kek, dump, dump, later); err != nil {
		t.Fatal(err)
	}
	if c, _ := f.tally.result(); c.RejectedFresh < before.RejectedFresh+len(tenants) {
		t.Errorf("%d keys that were opened were not counted", len(later))
	}
}

// signWithout pretends that an instance signed with a key that the others do not have.
func signWithout(t *testing.T, f *fleet) {
	m := f.instances()[1]
	err := await(t.Context(), "it to be counted", func() bool { // a busy instance may be out of sync at first
		f.checkKnows(m, token{tenant: tenants[0], kid: "unknown", exp: time.Now().Add(fast.MaxTokenTTL), by: "another"})
		c, _ := f.tally.result()
		return c.Lacking > 0
	})
	if err != nil {
		t.Error(err)
	}
}

// revokeInSecret revokes a key without telling the tally.
func revokeInSecret(t *testing.T, f *fleet) {
	m := f.instances()[1]
	err := await(t.Context(), "a false reject to be counted", func() bool { // a busy instance may be out of sync at first
		token, _, err := f.revokeSigning(t.Context(), tenants[1], f.instances()[0])
		if err != nil {
			return false
		}
		f.tally.setRevoked(token.kid, false)
		_, _ = m.refuses(t.Context(), token, time.Now())
		f.verify(m, token)
		c, _ := f.tally.result()
		return c.RejectedFresh > 0
	})
	if err != nil {
		t.Error(err)
	}
}

func BenchmarkVerifyBlackholed(b *testing.B) {
	if err := redistest.Missing(); err != nil {
		b.Fatal(err)
	}
	bench, err := newAwayBench(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer bench.stop()
	for _, cached := range []bool{false, true} {
		b.Run(fmt.Sprintf("cached=%v", cached), func(b *testing.B) {
			r, err := bench.measure(b.Context(), cached, b.Loop)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(0, "ns/op") // hides the time of a whole turn
			for name, q := range map[string]quantiles{"up": r.Up, "away": r.Away} {
				b.ReportMetric(float64(q.p50), "p50-ns-"+name)
				b.ReportMetric(float64(q.p99), "p99-ns-"+name)
			}
			b.ReportMetric(r.p99Ratio(), "p99-ratio")
		})
	}
}

// TestVerifyDoesNotWaitForRedis checks, also on a busy machine, that no verification waits for a
// poll that hangs.
func TestVerifyDoesNotWaitForRedis(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	results, err := measureAway(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		t.Logf("%+v", r)
		if r.Failures == 0 || r.Away.n == 0 {
			t.Errorf("%+v: Redis was not away", r)
		}
		if r.Away.p50 > 20*time.Millisecond { // a poll hangs for 400 ms
			t.Errorf("%+v: it waits", r)
		}
	}
}

func TestReport(t *testing.T) {
	r := report{command: "go run ./bench/faults", race: &raceResult{Rounds: 1, Mints: 1}, away: []awayResult{{Cached: true}}}
	for i := range scenarios {
		r.rows = append(r.rows, row{scenario: &scenarios[i], count: count{RejectedFresh: i, Revoked: []time.Duration{time.Duration(i)}}})
	}
	var b strings.Builder
	r.write(&b)
	for _, s := range scenarios {
		if strings.Count(b.String(), "| "+s.title+" |") != 5 || !strings.Contains(b.String(), "(`"+s.name+"`).\n"+s.text) {
			t.Errorf("%s is not in all tables", s.name)
		}
	}
	if !strings.Contains(b.String(), "| **1** |") {
		t.Error("a broken promise does not stand out")
	}
}

func TestRound(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 s", 999: "999 ns", 1234: "1.23 µs", 5_474_230: "5.47 ms", 1_777_533_618: "1.78 s"} {
		if got := round(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

// TestPageIsCurrent checks that docs/faults.md has every fault and its expectation, as this program
// writes them.
func TestPageIsCurrent(t *testing.T) {
	page, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios {
		has := strings.Contains(string(page), s.title) && strings.Contains(string(page), s.text)
		if has == slices.Contains(unwritten, s.name) {
			t.Errorf("docs/faults.md has %s and its expectation: %v: make faults, and mend unwritten", s.name, has)
		}
	}
	wrong := append(wrongInTable(string(page)), wrongInRest(string(page))...)
	if len(unwritten) == 0 {
		wrong = append(wrong, wrongInOps(string(page))...)
	}
	wrong = append(wrong, wrongInLogouts(string(page))...)
	for _, wrong := range wrong {
		t.Errorf("docs/faults.md: %s: make faults", wrong)
	}
}

// unwritten are the scenarios that are newer than the last whole run. The commit of the next page empties
// the list: then the page must also have the tables of what operators do.
var unwritten []string

// leastTokens is how many tokens must be signed under a fault for a zero to mean something.
const leastTokens = 20_000

// wrongInTable returns the mistakes in a page's table of counts that must be zero: a fault that is
// missing, or has too few tokens, or has a count that is not zero.
func wrongInTable(page string) (wrong []string) {
	_, table, _ := strings.Cut(page, "## What must be zero")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := make(map[string][]string)
	var names []string
	for line := range strings.Lines(table) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if names == nil {
			names = cells
			continue
		}
		rows[cells[0]] = cells
	}
	column := func(name string) int { return slices.Index(names, name) }
	tokens := column("tokens")
	for _, s := range scenarios {
		row := rows[s.title]
		if slices.Contains(unwritten, s.name) && row == nil {
			continue
		}
		if len(row) != len(names) || tokens < 0 {
			wrong = append(wrong, "no row of "+s.title)
			continue
		}
		if n, err := strconv.Atoi(row[tokens]); err != nil || n < leastTokens {
			wrong = append(wrong, fmt.Sprintf("%s: %s tokens, want %d", s.title, row[tokens], leastTokens))
		}
		for _, name := range []string{"false rejects, fresh", "unknown key", "minted twice"} {
			if i := column(name); i < 0 || row[i] != "0" {
				wrong = append(wrong, s.title+": "+name+" is not 0")
			}
		}
	}
	return wrong
}

// wrongInRest returns what is missing or wrong in the rest of the page: the adversary's table, the
// bits and the newcomer.
func wrongInRest(page string) (wrong []string) {
	for _, text := range []string{"holders did not put **0** right", "**0** rings were made again", "**0** places were minted twice"} {
		if !strings.Contains(page, text) {
			wrong = append(wrong, "lacks: "+text)
		}
	}
	_, table, _ := strings.Cut(page, "| the adversary |")
	titles := []string{"all"}
	for _, m := range moves {
		titles = append(titles, m.title)
	}
	for _, title := range titles {
		_, row, _ := strings.Cut(table, "\n| "+title+" | ")
		row, _, _ = strings.Cut(row, "\n")
		cells := strings.Split(row, " | ")
		if len(cells) < 9 {
			wrong = append(wrong, "no row of the adversary who "+title)
			continue
		}
		if n, err := strconv.Atoi(cells[0]); err != nil || n < leastMoves {
			wrong = append(wrong, fmt.Sprintf("the adversary who %s: %s moves, want %d", title, cells[0], leastMoves))
		}
		for _, cell := range cells[3:9] {
			if cell != "0" {
				wrong = append(wrong, fmt.Sprintf("the adversary who %s: a count that must be 0 is %s", title, cell))
			}
		}
	}
	return wrong
}

// leastMoves is how often the adversary must make each move for a zero to mean something.
const leastMoves = 5

// TestWrongInRest gives wrongInRest pages with one mistake each.
func TestWrongInRest(t *testing.T) {
	for name, change := range map[string]func(r *report){
		"":                          func(*report) {},
		"lacks: holders did not":    func(r *report) { r.bits.Unrepaired["x:"] = 1 },
		"lacks: **0** rings":        func(r *report) { r.bootstrap.Again = 1 },
		"lacks: **0** places":       func(r *report) { r.race.Twice = 1 },
		"flips bits: 4 moves":       func(r *report) { r.hostile.Rows["flip"] = wrongs{Blows: 4} },
		"no row of the adversary":   func(r *report) { delete(r.hostile.Rows, "kill") },
		"who flips bits: a count":   func(r *report) { r.hostile.Rows["flip"] = wrongs{Blows: 9, Unrepaired: 1} },
		"who trims or deletes":      func(r *report) { r.hostile.Rows["trim"] = wrongs{Blows: 9, Late: 1} },
		"nudge: a count that must ": func(r *report) { r.hostile.Rows["hide"] = wrongs{Blows: 9, Lied: 1} },
	} {
		r := report{race: new(raceResult), bits: &bitsResult{Unrepaired: make(map[string]int)}, bootstrap: new(bootstrapResult),
			hostile: &hostileResult{Rows: make(map[string]wrongs)}}
		for _, m := range moves {
			r.hostile.Rows[m.name] = wrongs{Blows: leastMoves}
		}
		change(&r)
		var b strings.Builder
		r.write(&b)
		got := wrongInRest(b.String())
		if (name == "") != (len(got) == 0) || !strings.Contains(strings.Join(got, "; "), name) {
			t.Errorf("%q: %q", name, got)
		}
	}
}

// TestWrongInTable gives wrongInTable pages with one mistake each.
func TestWrongInTable(t *testing.T) {
	written := func(change func(c *count)) string {
		var r report
		for i := range scenarios {
			r.rows = append(r.rows, row{scenario: &scenarios[i], count: count{Strikes: 5, Signed: leastTokens, Verified: 4 * leastTokens}})
		}
		change(&r.rows[1].count)
		var b strings.Builder
		r.write(&b)
		return b.String()
	}
	for name, tt := range map[string]struct {
		change func(*count)
		wrong  string
	}{
		"no mistake":     {func(*count) {}, ""},
		"too few":        {func(c *count) { c.Signed-- }, "tokens, want 20000"},
		"a false reject": {func(c *count) { c.RejectedFresh = 1 }, "false rejects, fresh is not 0"},
		"an unknown key": {func(c *count) { c.Lacking = 2 }, "unknown key is not 0"},
		"minted twice":   {func(c *count) { c.TwiceInLife = 1 }, "minted twice is not 0"},
	} {
		got := wrongInTable(written(tt.change))
		found := len(got) == 1 && strings.HasPrefix(got[0], scenarios[1].title) && strings.HasSuffix(got[0], tt.wrong)
		if tt.wrong == "" && len(got) > 0 || tt.wrong != "" && !found {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := wrongInTable("## What must be zero\n"); len(got) != len(scenarios)-len(unwritten) {
		t.Errorf("of no table: %q", got)
	}
}
