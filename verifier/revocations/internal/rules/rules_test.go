package rules

import (
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

const gap = 2900 * time.Millisecond

// at returns a moment, in seconds after a whole minute.
func at(seconds float64) time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// TestEnd: an entry is kept for the leeway after the last token, and both clocks may be off. It ends at a
// whole minute.
func TestEnd(t *testing.T) {
	for exp, want := range map[float64]float64{0: 360, -2: 300, -1.5: 360, 57: 360, 58: 360, 58.5: 420} {
		if got := End(at(exp), time.Second); got != at(want).Unix() {
			t.Errorf("a token until %v ends after %v s, want %v", exp, got-at(0).Unix(), want)
		}
	}
	if End(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Second) != codec.Forever {
		t.Error("a token of the far future ends")
	}
	e := table.Entry{End: at(60).Unix()}
	if Ended(e, at(59.9)) || !Ended(e, at(60)) || Ended(table.Entry{End: codec.Forever}, time.Unix(codec.Forever+1, 0)) {
		t.Error("an entry ends at another time than it says")
	}
}

// TestSeconds: a time is rounded up, so that a token issued within the second is revoked.
func TestSeconds(t *testing.T) {
	for before, want := range map[float64]float64{0: 0, 0.001: 1, 0.999: 1, 1: 1} {
		if got := Seconds(at(before)); got != at(want).Unix() {
			t.Errorf("%v is %d", before, got-at(0).Unix())
		}
	}
}

// TestReplaces: the revocation of a tenant replaces what was made at least the clocks' difference before it, and
// ends no later. It replaces no session, and nothing of others.
func TestReplaces(t *testing.T) {
	tenant := table.Entry{Digest: table.Digest{7: 7}, Kind: table.Tenant, Tenant: 7, Key: 1, Before: 1000, End: 5000}
	for _, tt := range []struct {
		what string
		edit func(e *table.Entry)
		want bool
	}{
		{"a token", func(*table.Entry) {}, true},
		{"a subject", func(e *table.Entry) { e.Kind = table.Subject }, true},
		{"a session", func(e *table.Entry) { e.Kind = table.Session }, false},
		{"a tenant", func(e *table.Entry) { e.Kind = table.Tenant }, false},
		{"another tenant", func(e *table.Entry) { e.Tenant = 8 }, false},
		{"another digest key", func(e *table.Entry) { e.Key = 2 }, false},
		{"one that is just old enough", func(e *table.Entry) { e.Before = 998 }, true},
		{"one that is too young", func(e *table.Entry) { e.Before = 999 }, false},
		{"one that ends later", func(e *table.Entry) { e.End = 5001 }, false},
	} {
		e := table.Entry{Kind: table.Token, Tenant: 7, Key: 1, Before: 900, End: 5000}
		tt.edit(&e)
		if got := Replaces(tenant, e, 1500*time.Millisecond); got != tt.want {
			t.Errorf("%s: %t", tt.what, got)
		}
	}
	now := at(0.5)
	if before := TokenBefore(now); before != at(302).Unix() {
		t.Errorf("a token revoked now was issued before %d", before-at(0).Unix())
	}
}

// TestJoin: an entry only grows, in whatever order the versions come.
func TestJoin(t *testing.T) {
	a, b := table.Entry{Before: 1, End: 9}, table.Entry{Before: 2, End: 8}
	want := table.Entry{Before: 2, End: 9}
	if Join(a, b) != want || Join(b, a) != want || Join(want, a) != want {
		t.Error("the join of two entries loses something")
	}
	if !Lacks(a, b) || !Lacks(b, a) || Lacks(want, a) || Lacks(want, want) {
		t.Error("it is not told which entry lacks something")
	}
}

// TestSum: a tenant's revocation replaces a sum only if it replaces all that were added, in any order.
func TestSum(t *testing.T) {
	tenant := table.Entry{Digest: table.Digest{7: 7}, Kind: table.Tenant, Tenant: 7, Key: 1, Before: 1000, End: 5000}
	first := table.Entry{Kind: table.Token, Tenant: 7, Key: 1, Before: 900, End: 4000}
	for _, tt := range []struct {
		what string
		edit func(e *table.Entry)
		want bool
	}{
		{"a token", func(*table.Entry) {}, true},
		{"a subject", func(e *table.Entry) { e.Kind = table.Subject }, true},
		{"a session", func(e *table.Entry) { e.Kind = table.Session }, false},
		{"another tenant's", func(e *table.Entry) { e.Tenant = 8 }, false},
		{"under another digest key", func(e *table.Entry) { e.Key = 2 }, false},
		{"one that is too young", func(e *table.Entry) { e.Before = 1000 }, false},
		{"one that ends later", func(e *table.Entry) { e.End = 5001 }, false},
	} {
		e := first
		tt.edit(&e)
		for _, sum := range []table.Entry{Sum(first, e), Sum(e, first), Sum(Sum(first, e), first)} {
			if Replaces(tenant, sum, time.Second) != tt.want || sum.End != max(e.End, first.End) {
				t.Errorf("%s: %+v", tt.what, sum)
			}
		}
	}
}

// TestKnown: to revoke a token again revokes nothing more, whatever the time. A subject, a tenant and a
// session are known if the store's entry goes as far.
func TestKnown(t *testing.T) {
	for _, tt := range []struct {
		kind        table.Kind
		before, end int64 // of the second revocation; the first has 5 and 9
		want        bool
	}{
		{table.Token, 5, 9, true}, {table.Token, 6, 9, true}, {table.Token, 6, 10, false},
		{table.Subject, 5, 9, true}, {table.Subject, 6, 9, false}, {table.Tenant, 6, 9, false}, {table.Session, 5, 10, false},
	} {
		stored := table.Entry{Kind: tt.kind, Before: 5, End: 9}
		if got := Known(stored, Join(stored, table.Entry{Kind: tt.kind, Before: tt.before, End: tt.end})); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
}

// TestState: the life of a bucket. Each step is a read at a time, and the doubt and the good time after it.
func TestState(t *testing.T) {
	type step struct {
		at    float64
		read  Reading
		doubt bool
		good  float64 // -1 for never
	}
	for name, steps := range map[string][]step{
		"a cold start waits": {
			{0, Reading{Resync: true}, true, -1}, {2.9, Reading{}, true, -1}, {5.7, Reading{}, true, -1}, {5.8, Reading{}, false, 5.8},
		},
		"one that is vouched for does not":            {{0, Reading{Resync: true, Vouched: true}, false, 0}},
		"one that has made the store does not":        {{0, Reading{Resync: true, Trusted: true}, false, 0}},
		"one that is vouched for later waits no more": {{0, Reading{Resync: true}, true, -1}, {2, Reading{Vouched: true}, false, 2}},
		"a dispute extends the wait": {
			{0, Reading{Resync: true}, true, -1}, {5.8, Reading{Disputed: true}, true, -1}, {8.7, Reading{}, true, -1}, {11.6, Reading{}, false, 11.6},
		},
		"a dispute that does not end is none": {
			{0, Reading{Resync: true}, true, -1}, {30, Reading{Disputed: true}, true, -1}, {34.7, Reading{Disputed: true}, true, -1}, {40.6, Reading{Disputed: true}, false, 40.6},
		},
		"a repair extends the wait": {
			{0, Reading{Resync: true}, true, -1}, {5, Reading{Merging: true}, true, -1}, {8.7, Reading{}, true, -1}, {10.8, Reading{}, false, 10.8},
		},
		"a lost place": {
			{0, Reading{Trusted: true}, false, 0}, {2, Reading{Resync: true}, true, 0}, {5, Reading{Merging: true, Disputed: true, Vouched: true}, true, 0}, {7.8, Reading{}, false, 7.8},
		},
		"a failover that kept the place": {
			{0, Reading{Trusted: true, Run: "a"}, false, 0}, {2, Reading{Run: "b"}, true, 0}, {7.8, Reading{Run: "b"}, false, 7.8},
		},
		"one that cannot see what others hold is not ready, however long": {
			{0, Reading{Resync: true, Hidden: true}, true, -1}, {5.8, Reading{Hidden: true}, true, -1}, {600, Reading{Hidden: true}, true, -1}, {602, Reading{}, false, 602},
		},
		"one that was ready is in sync again, whatever it sees": {
			{0, Reading{Trusted: true}, false, 0}, {2, Reading{Resync: true}, true, 0}, {7.8, Reading{Hidden: true, Disputed: true}, false, 7.8},
		},
		"a second loss begins the wait again": {
			{0, Reading{Trusted: true}, false, 0}, {2, Reading{Resync: true}, true, 0}, {6, Reading{Resync: true}, true, 0}, {7.8, Reading{}, true, 0}, {11.8, Reading{}, false, 11.8},
		},
	} {
		s := State{}
		for _, one := range steps {
			one.read.Sent = at(one.at)
			s = s.After(one.read, 2*gap)
			good := s.Good.IsZero() && one.good < 0 || s.Good.Equal(at(one.good))
			if s.Doubt != one.doubt || !good || s.Since.IsZero() != one.doubt {
				t.Errorf("%s: after %v s: %+v", name, one.at, s)
			}
		}
	}
}

// TestServes: a list answers for MaxStale after its last good read, by the clock that says more.
func TestServes(t *testing.T) {
	if !Serves(at(60), at(0), time.Minute, false) || Serves(at(60.1), at(0), time.Minute, false) || !Serves(at(600), at(0), time.Minute, true) {
		t.Error("a list answers for another time than MaxStale")
	}
	if Serves(at(0), time.Time{}, time.Minute, true) {
		t.Error("a list answers that has read nothing")
	}
	if Off(at(1), at(0), at(0.5), time.Second) || !Off(at(1.6), at(0), at(0.5), time.Second) || !Off(at(-1.1), at(0), at(0.5), time.Second) {
		t.Error("clocks that differ are not told")
	}
}

// TestCompare: two instances at one place of the log hold the same, or one has read a store that had lost
// something. Entries that one has forgotten already do not count.
func TestCompare(t *testing.T) {
	now := Held{Last: "c", Minute: 120, Print: 0b1}
	gone := []Gone{{End: 60, Fingerprint: 0b1000}, {End: 120, Fingerprint: 0b10}, {End: 180, Fingerprint: 0b100}}
	past := []Held{{Last: "a", Minute: 60, Print: 7}, {Last: "b", Minute: 120, Print: 8}}
	for _, tt := range []struct {
		last   string
		minute int64
		held   codec.Fingerprint
		want   Comparison
	}{
		{"c", 120, 0b1, Same}, {"c", 120, 0b11, Different}, {"c", 60, 0b11, Same}, {"c", 60, 0b1, Different}, {"c", 0, 0b1011, Same}, {"c", 0, 0b1, Unknown},
		{"c", 180, 0b1, Unknown}, {"a", 60, 7, Same}, {"b", 120, 8, Same}, {"b", 120, 7, Different}, {"b", 60, 8, Unknown}, {"d", 120, 0b1, Unknown},
	} {
		a := codec.Ack{Last: tt.last, Minute: tt.minute, Held: tt.held}
		if got := Compare(a, now, gone, past); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt, got, tt.want)
		}
	}
	now.Last = ""
	if Compare(codec.Ack{Last: "d", Minute: 120, Held: 0b1}, now, gone, past) != Same {
		t.Error("a log of forged entries alone hides that nothing is missing")
	}
}

// TestComparePlace: at one place of the log two instances hold the same, also if they know another newest authentic
// entry: it may have been cut from the middle of the log.
func TestComparePlace(t *testing.T) {
	now := Held{Place: "9@9", Last: "c", Minute: 120, Print: 1}
	past := []Held{{Place: "7@7", Last: "b", Minute: 120, Print: 8}}
	for _, tt := range []struct {
		place, last string
		minute      int64
		held        codec.Fingerprint
		want        Comparison
	}{
		{"9@9", "d", 120, 1, Same}, {"9@9", "d", 120, 3, Different}, {"9@9", "", 120, 3, Different}, {"9@10", "d", 120, 3, Unknown},
		{"7@7", "d", 120, 8, Same}, {"7@7", "d", 120, 7, Different}, {"7@8", "d", 120, 8, Unknown}, {"9@9", "d", codec.Between, 3, Unknown},
		{"", "d", 120, 3, Unknown}, {"9@10", "c", 120, 3, Different},
	} {
		a := codec.Ack{Place: tt.place, Last: tt.last, Minute: tt.minute, Held: tt.held}
		if got := Compare(a, now, nil, past); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt, got, tt.want)
		}
	}
	now.Place = ""
	if Compare(codec.Ack{Place: "", Last: "d", Minute: 120, Held: 3}, now, nil, nil) != Unknown {
		t.Error("no place is a place")
	}
}

// TestUnmet: one that starts waits for a live instance that may compare with the next acknowledgement, and not for one
// that never will.
func TestUnmet(t *testing.T) {
	v := View{Self: "me", Now: at(100), Here: at(100), Gap: gap, Place: "9@9", Seen: []string{"9@9", "8"}, Held: Held{Place: "9@9", Last: "c", Minute: 120, Print: 1}}
	good := codec.Ack{Instance: "other", At: at(99), Place: "8@8", Last: "b", Minute: 120, Held: 1}
	for _, tt := range []struct {
		what                string
		edit                func(a *codec.Ack)
		unlike, unmet, away bool
	}{
		{"one at another place", func(*codec.Ack) {}, true, true, false},
		{"one that holds the same", func(a *codec.Ack) { a.Place = "9@9" }, false, false, false},
		{"one that holds something else", func(a *codec.Ack) { a.Place, a.Held = "9@9", 2 }, true, false, false},
		{"one between two rounds", func(a *codec.Ack) { a.Place, a.Minute = "9@9", codec.Between }, true, true, false},
		{"one without room", func(a *codec.Ack) { a.Place, a.Minute = "9@9", codec.Partial }, true, false, false},
		{"one whose clock is behind", func(a *codec.Ack) { a.Minute = 0 }, true, false, false},
		{"one whose clock is ahead", func(a *codec.Ack) { a.Minute = 180 }, true, false, false},
		{"one that is silent", func(a *codec.Ack) { a.At = at(9) }, false, false, false},
		{"this one", func(a *codec.Ack) { a.Instance = "me" }, false, false, false},
		{"one at a place that is gone", func(a *codec.Ack) { a.Place = "7@7" }, true, true, true},
		{"one at a place without nonce that is gone", func(a *codec.Ack) { a.Place = "@7" }, true, true, true},
	} {
		a := good
		tt.edit(&a)
		if v.Unlike(a) != tt.unlike || v.Unmet(a) != tt.unmet || v.Ahead(a) != tt.away {
			t.Errorf("%s is unlike: %t, unmet: %t, ahead: %t", tt.what, v.Unlike(a), v.Unmet(a), v.Ahead(a))
		}
	}
}

// TestMeeting: one that starts waits a while for a live instance that reads no further, and as long as it takes for one
// that does.
func TestMeeting(t *testing.T) {
	for _, tt := range []struct {
		what             string
		unmet, exact     bool
		m                Meeting
		hidden, disputed bool
		at               time.Time
	}{
		{"one that is new", true, true, Meeting{}, true, false, at(100)},
		{"one that holds the same at once", false, true, Meeting{}, false, false, at(100)},
		{"one that held the same a moment ago", true, true, Meeting{at(98), "p", true}, false, false, at(98)},
		{"one that was new a moment ago", true, true, Meeting{at(98), "p", false}, true, false, at(98)},
		{"one that has never held the same, and is stuck", true, true, Meeting{at(97), "p", false}, false, true, at(97)},
		{"one that held the same too long ago, and is stuck", true, true, Meeting{at(97), "p", true}, false, true, at(97)},
		{"one that reads on", true, true, Meeting{at(1), "o", true}, true, false, at(1)},
		{"while the groups here change", true, false, Meeting{at(1), "p", false}, true, false, at(1)},
		{"one that holds the same again", false, true, Meeting{at(1), "o", false}, false, false, at(100)},
	} {
		m, hidden, disputed := tt.m.After(tt.unmet, "p", at(100), tt.exact, gap)
		if hidden != tt.hidden || disputed != tt.disputed || m.At != tt.at || m.Place != "p" || m.Same != (tt.m.Same || !tt.unmet) {
			t.Errorf("%s: %+v, hidden %t, disputed %t", tt.what, m, hidden, disputed)
		}
	}
}

// TestVouches: what another instance says counts for as long as it is fresh, or in the same run of the store, and if it
// holds what was read.
func TestVouches(t *testing.T) {
	v := View{Self: "me", Now: at(100), Run: "r", Place: "p", Gap: gap, Held: Held{Last: "c", Print: 1}}
	good := codec.Ack{Instance: "other", At: at(99), Good: at(90), Last: "c", Place: "x", Run: "r", Held: 1}
	for _, tt := range []struct {
		what     string
		edit     func(a *codec.Ack)
		vouches  bool
		disputes bool
	}{
		{"a live instance in sync", func(*codec.Ack) {}, true, false},
		{"one that is in doubt", func(a *codec.Ack) { a.Good = time.Time{} }, false, false},
		{"one that holds something else", func(a *codec.Ack) { a.Held = 2 }, false, true},
		{"one in sync for less than two polls", func(a *codec.Ack) { a.Good = at(94) }, false, false},
		{"one that is silent for a poll", func(a *codec.Ack) { a.At = at(97) }, false, false},
		{"one of another run", func(a *codec.Ack) { a.Run = "s" }, false, false},
		{"one that does not know its run", func(a *codec.Ack) { a.Run = "" }, false, false},
		{"this one", func(a *codec.Ack) { a.Instance = "me" }, false, false},
		{"this one, with something else", func(a *codec.Ack) { a.Instance, a.Held = "me", 2 }, false, false},
		{"one that is silent for three polls, with something else", func(a *codec.Ack) { a.Held, a.At = 2, at(91) }, false, false},
		{"one that has ended, in this run", func(a *codec.Ack) { a.At, a.Run, a.Place = at(-9999), "r", "p" }, true, false},
		{"one that has ended, in this run, at a place that is gone", func(a *codec.Ack) { a.At, a.Run = at(-9999), "r" }, false, false},
		{"one that has ended, in this run, with something else", func(a *codec.Ack) { a.At, a.Place, a.Held = at(-9999), "p", 2 }, false, false},
		{"one that has ended, in another run", func(a *codec.Ack) { a.At, a.Run, a.Place = at(-9999), "s", "p" }, false, false},
		{"one that has ended, in a run without name", func(a *codec.Ack) { a.At, a.Run, a.Place = at(-9999), "", "p" }, false, false},
	} {
		a := good
		tt.edit(&a)
		if v.Vouches(a) != tt.vouches || v.Disputes(a) != tt.disputes {
			t.Errorf("%s vouches: %t, and disputes: %t", tt.what, v.Vouches(a), v.Disputes(a))
		}
	}
}

// TestRoster: a change is applied when every instance says so that was there, also one that is silent since.
func TestRoster(t *testing.T) {
	acks := func(names ...string) (all []codec.Ack) {
		for _, name := range names {
			a := codec.Ack{Instance: name, At: at(0)}
			if name < "m" {
				a.Applied = []string{"other", "n"}
			}
			all = append(all, a)
		}
		return all
	}
	r := RosterOf("n", acks("z", "a"), at(1), at(1), 3*gap, Roster{})
	if !slices.Equal(r.Applied, []string{"a"}) || !slices.Equal(r.Missing, []string{"z"}) {
		t.Errorf("the roster is %+v", r)
	}
	if r = RosterOf("n", acks("b"), at(1), at(1), 3*gap, r); !slices.Equal(r.Applied, []string{"a", "b"}) || !slices.Equal(r.Missing, []string{"z"}) {
		t.Errorf("with one that is silent it is %+v", r)
	}
	if r = RosterOf("n", acks("y"), at(9), at(9), 3*gap, Roster{}); len(r.Applied)+len(r.Missing) != 0 {
		t.Errorf("one that was not there counts: %+v", r)
	}
	var applied []string
	for i := range 2 * codec.MaxApplied {
		applied = Remember(applied, string(rune('a'+i%40)))
		applied = Remember(applied, "")
	}
	if len(applied) != codec.MaxApplied || applied[len(applied)-1] != string(rune('a'+23)) {
		t.Errorf("remembered are %q", applied)
	}
	if Collects("b", []string{"a", "c"}) || !Collects("a", []string{"b", "a"}) || !Collects("a", nil) {
		t.Error("not the first instance collects")
	}
}
