package doctor

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// want checks that there is one finding of that level with those phrases, and that whatever is not ok
// says what to do.
func want(t *testing.T, findings []Finding, level Level, phrases ...string) {
	t.Helper()
	for _, f := range findings {
		text := f.Found
		if f.Do != nil {
			text += " -> " + *f.Do
		}
		if f.Level != OK && f.Do == nil {
			t.Errorf("%+v does not say what to do", f)
		}
		missing := slices.ContainsFunc(phrases, func(p string) bool { return !strings.Contains(text, p) })
		if f.Level == level && !missing {
			return
		}
	}
	t.Errorf("no %s finding with %q in %+v", level, phrases, findings)
}

// Tests with a real server have only its version.
func TestVersions(t *testing.T) {
	f := &Facts{}
	for version, w := range map[string]struct {
		level  Level
		phrase string
	}{
		"7.0.15": {OK, "Redis 7.0.15"}, "8.2.1": {OK, "Redis 8.2.1"}, "255.255.255": {OK, ""},
		"6.2.14": {Warn, "min-replicas-to-write above 1 counts as 1"}, "5.0.7": {Bad, "too old"}, "": {Unknown, "+info"}, "x": {Unknown, "+info"},
	} {
		want(t, f.version(&Server{Info: map[string]string{"redis_version": version}}), w.level, w.phrase)
	}
}

// An accepted key that is weak or ends soon is worth a warning, and one that has ended is not.
func TestAcceptedKeys(t *testing.T) {
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, n) }
	key := func(kid string, until int, weak bool, revoked time.Time) ring.Accepted {
		return ring.Accepted{AcceptRecord: ring.AcceptRecord{KID: kid, Weak: weak}, Until: day(until), RevokedAt: revoked}
	}
	r := &Ring{Tenant: "acme", Flags: "--tenant acme", Now: now, Accepted: []ring.Accepted{
		key("weak", 60, true, time.Time{}), key("soon", 3, false, time.Time{}), key("late", 30, false, time.Time{}),
		key("over", -1, true, time.Time{}), key("gone", 3, true, day(-1)),
	}}
	all := r.Check()
	want(t, all, Warn, `key "weak" is a weak secret`, "another 60 days", "keys revoke --tenant acme -- KID")
	want(t, all, Warn, `key "soon" is accepted for another 3 days`, "keys accept")
	want(t, all, OK, "accepted keys, and no ring")
	if len(all) != 3 {
		t.Errorf("%+v", all)
	}
}

// The commands that the doctor asks about are those that an operator is told to allow, except those without which
// only many rings are read more slowly.
func TestCallsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "ACL SETUSER keyturn on")
	text, _, _ = strings.Cut(text, "printf")
	var documented, asked []string
	for word := range strings.FieldsSeq(text) {
		name, ok := strings.CutPrefix(strings.Trim(word, "'"), "+")
		if ok && !slices.Contains([]string{"watch", "unwatch", "multi", "exec", "memory|usage"}, name) {
			documented = append(documented, name)
		}
	}
	for _, call := range Calls(false) {
		asked = append(asked, call.Command)
	}
	slices.Sort(documented)
	slices.Sort(asked)
	if !slices.Equal(documented, asked) {
		t.Errorf("the doctor asks about %q, docs/operations.md lists %q", asked, documented)
	}
	if all := Calls(true); all[len(all)-1].Command != "cluster|slots" || AllCalls()[len(AllCalls())-1].Command != "select" {
		t.Errorf("in a Cluster the last call is %v", all[len(all)-1])
	}
}

func TestUncovered(t *testing.T) {
	for _, c := range []struct{ have, missing []Slots }{
		{nil, []Slots{{0, 16383}}},
		{[]Slots{{0, 16383}}, nil},
		{[]Slots{{8000, 16383}, {0, 7999}}, nil},
		{[]Slots{{1, 100}, {50, 60}, {200, 16382}}, []Slots{{0, 0}, {101, 199}, {16383, 16383}}},
	} {
		if got := Uncovered(c.have); !slices.Equal(got, c.missing) {
			t.Errorf("Uncovered(%v) = %v, want %v", c.have, got, c.missing)
		}
	}
}

// A clock is off by what no round trip explains.
func TestClock(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f := &Facts{Timing: Timing{ClockSkew: 5 * time.Second}}
	for _, c := range []struct {
		trip, at time.Duration // how long the call took, and when after it was sent Redis' clock was
		level    Level
		phrase   string
	}{
		{time.Second, 0, OK, ""}, {time.Second, time.Second, OK, ""},
		{time.Second, 3500 * time.Millisecond, OK, ""}, {time.Second, 3501 * time.Millisecond, Warn, "behind"},
		{time.Second, -2501 * time.Millisecond, Warn, "ahead of"}, {time.Second, 6 * time.Second, Warn, ""},
		{time.Second, 6001 * time.Millisecond, Bad, "behind"}, {time.Second, -5001 * time.Millisecond, Bad, "ahead of"},
		{6 * time.Second, 3 * time.Second, Unknown, "an answer took"}, {6 * time.Second, 12 * time.Second, Bad, "behind"},
	} {
		s := &Server{Sent: now, Received: now.Add(c.trip), Time: now.Add(c.at)}
		want(t, f.clock(s), c.level, c.phrase)
	}
}

func TestLatency(t *testing.T) {
	f := &Facts{Timing: Timing{Freshness: time.Minute}}
	for worst, level := range map[time.Duration]Level{
		time.Millisecond: OK, 250 * time.Millisecond: OK, 251 * time.Millisecond: Warn, 999 * time.Millisecond: Warn, time.Second: Bad,
	} {
		f.Calls = []time.Duration{time.Millisecond, worst, time.Millisecond}
		want(t, f.latency(), level)
	}
}

func TestWords(t *testing.T) {
	const day = 24 * time.Hour
	for d, text := range map[time.Duration]string{
		0: "1ms", 40 * time.Millisecond: "40ms", 1500 * time.Millisecond: "1.5s", 90 * time.Second: "1 minute 30 seconds",
		time.Hour: "1 hour", day: "24 hours", day + 15*time.Minute: "24 hours 15 minutes", 14 * day: "14 days", 14*day + 5*time.Hour: "14 days 5 hours",
	} {
		if got := words(d); got != text {
			t.Errorf("words(%v) = %q, want %q", d, got, text)
		}
	}
}

// ringAt returns a ring whose keys follow each other, the first of them signing.
func ringAt(now time.Time, p ring.Policy, begins ...time.Duration) *Ring {
	r := &Ring{Tenant: "acme", Now: now}
	r.Sealed.Primary = "k"
	for i, d := range begins {
		k := ring.Key{State: ring.Pending, ActivatesAt: now.Add(d)}
		k.KID, k.Seq, k.Algorithm, k.Timing = "key", i+1, p.Algorithm, p
		k.ActivateAt, k.SignUntil = k.ActivatesAt, k.ActivatesAt.Add(3*p.Every)
		if i == 0 {
			k.State = ring.Signing
		}
		r.View.Keys = append(r.View.Keys, k)
	}
	return r
}

func TestOutage(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	long := ring.Policy{SignFor: 14 * day}.WithDefaults()
	want(t, ringAt(now, long, -day, 29*day).Check(), OK, "Redis may be away for 14 days before signing is at risk, and for 14 days before")
	// No key follows, and the last one ends before SignFor does.
	want(t, ringAt(now, long, -85*day).Check(), OK, "Redis may be away for 5 days before")
	want(t, ringAt(now, long, -91*day).Check(), Warn, "Redis may be away for 1ms before", "keyturn keys policy --sign-for DURATION ", "SetPolicy")
	short := ring.Policy{SignFor: time.Minute}.WithDefaults()
	want(t, ringAt(now, short, -day, 29*day).Check(), Warn, "1 minute before signing is at risk")
}

// No rotator makes such a policy. A ring that has one was written by another program, or another
// version.
func TestPolicy(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := ring.Policy{}.WithDefaults()
	p.Leeway = p.ClockSkew
	want(t, ringAt(now, p, -time.Hour, 29*24*time.Hour).Check(), Bad, "Leeway >= 2 ClockSkew: 5s is less than 10s", "SetPolicy", "Policies")
}

// An instance that does not list the algorithm of a key in use may refuse its tokens. If it has one ring, it
// does.
func TestVerified(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := ringAt(now, ring.Policy{Algorithm: "ES256"}.WithDefaults(), -day, 29*day)
	r.Flags = "--tenant acme"
	r.Instances = []Instance{{Name: "a", At: now, Opened: true, Verifies: []string{"HS256", "RS256"}}}
	want(t, r.verified(), Warn, "instance a lists HS256, RS256 for all its tenants, and not ES256, with which key key signs", "add ES256 to Tenant.Algorithms of tenant acme")
	r.Only = true
	want(t, r.verified(), Bad, "instance a accepts tokens of HS256, RS256 alone, and key key signs with ES256: they are refused there (401)", "add ES256 to Tenant.Algorithms of tenant acme", "Config.Verifies")
	r.View.Keys[0].Algorithm = "HS256"
	want(t, r.verified(), Bad, "key key will sign with ES256 in 29 days: they are refused there", "or undo the change before that: keyturn keys revoke --tenant acme -- key")
	for name, in := range map[string]Instance{
		"it lists the algorithm": {Name: "a", At: now, Opened: true, Verifies: []string{"ES256", "HS256"}},
		"it takes all":           {Name: "a", At: now, Opened: true},
		"its tenants differ":     {Name: "a", At: now, Opened: true, Verifies: []string{"none"}},
		"it has ended":           {Name: "a", At: now.Add(-time.Hour), Opened: true, Verifies: []string{"HS256"}},
		"it cannot be read":      {Name: "a", At: now, Verifies: []string{"HS256"}},
	} {
		if r.Instances = []Instance{in}; len(r.verified()) > 0 {
			t.Errorf("%s: %+v", name, r.verified())
		}
	}
}

func TestInstances(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	with := func(in ...Instance) []Finding {
		return (&Facts{Now: now, HasKEK: true, Primary: "new", Timing: DefaultTiming(), Instances: in}).instances()
	}
	good := Instance{Name: "a", At: now.Add(-time.Minute), Opened: true, InSync: true, KEKs: []string{"new", "old"}}
	want(t, with(good), OK, "1 instance lives")
	if all := with(good, good); len(all) != 1 {
		t.Errorf("two good instances: %+v", all)
	}
	odd := good
	odd.InSync = false
	want(t, with(odd), Warn, "instance a is not in sync", "/readyz")
	odd = good
	odd.KEKs = []string{"old"}
	want(t, with(odd), Warn, "has KEK old first, and here it is new", "A new KEK")
	odd.KEKs = nil
	want(t, with(odd), Warn, "not in the file here", "give this command the KEK file of the service")
	odd = good
	odd.Verifies = []string{"HS256"}
	want(t, with(odd), OK, "instance a accepts tokens of HS256 alone")
	odd = good
	odd.At = odd.At.Add(-1)
	want(t, with(odd), Warn, "was last heard of 1 minute ago", "after a day")
	want(t, with(odd), Warn, "no instance lives", "keyturn serve")
	want(t, (&Facts{Now: now, Forged: 2}).instances(), Bad, "2 acknowledgements are not authentic", "Someone writes to Redis")
	want(t, (&Facts{Now: now, AcksErr: "down"}).instances(), Unknown, "down")
}

// What is bad decides before what cannot be told.
func TestExit(t *testing.T) {
	for _, c := range []struct {
		levels []Level
		code   int
	}{{nil, 0}, {[]Level{OK, Warn}, 0}, {[]Level{OK, Unknown, Warn}, 3}, {[]Level{Unknown, Bad}, 1}} {
		var findings []Finding
		for _, level := range c.levels {
			findings = append(findings, Finding{Level: level})
		}
		if got := Exit(findings); got != c.code {
			t.Errorf("Exit(%v) = %d, want %d", c.levels, got, c.code)
		}
	}
}
