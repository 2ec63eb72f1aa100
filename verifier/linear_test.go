package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// TestSoakLinearizable verifies tokens, cached and not, while tenants, keys, revocations and the
// clock change. A call that starts after a change has returned never gives the verdict of before,
// and neither does one that was waiting for a key when the change returned.
//
// A counter orders the starts and ends of all changes and calls. Each thing that changes has a
// timeline: its states, each with the verdict that it demands. A verdict is right if, for each
// thing, a state within the call allows it. `make soak` runs the test for longer.
func TestSoakLinearizable(t *testing.T) {
	testLinearizable(t, verifier.NewRevocationList(10), linearCalls())
}

func testLinearizable(t *testing.T, revoked revoker, calls int) {
	w := newLinearWorld(t, revoked)
	total := make(map[verifier.Reason]int)
	for left := calls; left > 0; left -= linearRound {
		for reason, n := range w.round(t, min(left, linearRound)) {
			total[reason] += n
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%v, %d changes, %d calls waited, %+v", total, w.changes.Load(), w.waited.Load(), w.v.CacheStats())
	for _, reason := range []verifier.Reason{"", verifier.ReasonUnknownTenant, verifier.ReasonSuspended, verifier.ReasonAudience,
		verifier.ReasonUnknownKey, verifier.ReasonRevoked, verifier.ReasonExpired, verifier.ReasonNotYetValid} {
		if total[reason] < 20 {
			t.Errorf("only %d calls ended with %q, so that the test proves little", total[reason], reason)
		}
	}
	if s := w.v.CacheStats(); s.Hits < 200 || w.waited.Load() < 5 {
		t.Errorf("%d hits, and %d calls that waited: the test proves little", s.Hits, w.waited.Load())
	}
}

const (
	linearRound   = 50_000 // calls
	linearTenants = 3      // the last one has a store that makes tokens wait
	linearTokens  = 100    // of each tenant; more than the cache holds
)

func linearCalls() int {
	if n, err := strconv.Atoi(os.Getenv("SOAK")); err == nil {
		return n
	}
	if raceEnabled {
		return linearRound / 3 // it takes ten times as long
	}
	return 2 * linearRound
}

// A timeline has the states of one thing, in their order. One goroutine changes it.
type timeline []stage

// A stage is a state that a change brought about.
type stage struct {
	from, until int64           // the change began at from, and had returned at until
	demands     verifier.Reason // the verdict that the state demands; "" if it allows the token
}

// during returns the states in which a thing may have been during a call: from the last one that
// was there when the call started, to the last one that began before its end.
func (l timeline) during(start, end int64) []stage {
	first := sort.Search(len(l), func(i int) bool { return l[i].until >= start }) - 1
	last := sort.Search(len(l), func(i int) bool { return l[i].from >= end })
	return l[max(first, 0):last]
}

func (l timeline) allows(start, end int64, verdict verifier.Reason) bool {
	return slices.ContainsFunc(l.during(start, end), func(s stage) bool { return s.demands == verdict })
}

// A linearTenant is a tenant with all that changes about it.
type linearTenant struct {
	id     string
	tokens []string // the first one comes again and again
	store  *keystore.Static
	slow   *slowStore // nil, or the store that makes tokens wait

	rules, key, jti, sub, all timeline

	present, suspended, narrow bool // the rules as they are
	k                          *keystore.Key
}

type linearWorld struct {
	v       *verifier.Verifier
	revoked revoker
	tenants []*linearTenant

	seq, changes, waited atomic.Int64
	now                  atomic.Int64 // in seconds
	clock                timeline
}

// A slowStore forgets its key now and then, and gets it back in a Refresh that takes its time.
type slowStore struct {
	*keystore.Static
	w    *linearWorld
	here atomic.Bool
}

func (s *slowStore) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	if !s.here.Load() {
		return nil, errUnavailable
	}
	return s.Static.Lookup(id, alg)
}

func (s *slowStore) Refresh(ctx context.Context, _ keystore.ID) error {
	s.w.pause(30)
	s.here.Store(true)
	s.w.waited.Add(1)
	// What was there before the wait is no excuse any more.
	*ctx.Value(startKey{}).(*int64) = s.w.seq.Add(1)
	return nil
}

type startKey struct{}

// pause lets that many things happen, or gives up if they do not.
func (w *linearWorld) pause(things int64) {
	until := w.seq.Load() + things
	for i := 0; w.seq.Load() < until && i < 200; i++ {
		runtime.Gosched()
	}
}

func newLinearWorld(t *testing.T, revoked revoker) *linearWorld {
	t.Helper()
	w := &linearWorld{revoked: revoked}
	w.now.Store(nowUnix)
	cfg := verifier.Config{
		Revocations: w.revoked, Now: func() time.Time { return time.Unix(w.now.Load(), 0) }, CacheEntries: linearTenants * linearTokens / 4,
		Tenants: []verifier.Tenant{tenant(t, "idle", "https://idle", nil), tenant(t, "still", "https://still", nil)},
	}
	for i := range linearTenants {
		l := &linearTenant{id: fmt.Sprint("t", i), present: true}
		l.k = key(t, l.id, "1", secretOf(l.id))
		l.store = static(t, l.k)
		if i == linearTenants-1 {
			l.slow = &slowStore{Static: l.store, w: w}
		}
		for j := range linearTokens {
			l.tokens = append(l.tokens, signWith(secretOf(l.id), goodHeader, fmt.Sprintf(
				`{"iss":"https://%s","aud":"api","sub":"ann","jti":"%d","nbf":%d,"iat":%d,"exp":%d}`, l.id, j, nowUnix, nowUnix-100, nowUnix+100)))
		}
		cfg.Tenants = append(cfg.Tenants, l.tenant())
		w.tenants = append(w.tenants, l)
	}
	var err error
	if w.v, err = verifier.New(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

// tenant returns the rules as they are.
func (l *linearTenant) tenant() verifier.Tenant {
	r := verifier.Tenant{ID: l.id, Keys: l.store, Algorithms: []keystore.Algorithm{keystore.HS256},
		Issuer: "https://" + l.id, Audiences: []string{"api"}, Leeway: -1}
	if l.slow != nil {
		r.Keys = l.slow
	}
	if l.narrow {
		r.Audiences = []string{"other"}
	}
	return r
}

// record does a change, and adds what it brought about to the timeline.
func (w *linearWorld) record(l *timeline, demands func() verifier.Reason, change func() error) error {
	from := w.seq.Add(1)
	err := change()
	*l = append(*l, stage{from, w.seq.Add(1), demands()})
	w.changes.Add(1)
	return err
}

func (l *linearTenant) demands() verifier.Reason {
	switch {
	case !l.present:
		return verifier.ReasonUnknownTenant
	case l.suspended:
		return verifier.ReasonSuspended
	case l.narrow:
		return verifier.ReasonAudience
	}
	return ""
}

// changeRules changes the tenant in the verifier.
func (w *linearWorld) changeRules(l *linearTenant, n int) error {
	return w.record(&l.rules, l.demands, func() error {
		switch {
		case !l.present:
			l.present, l.narrow, l.suspended = true, n%4 == 0, false
			return w.v.Put(l.tenant())
		case l.suspended && n%3 > 0:
			l.suspended = false
			return w.v.Resume(l.id)
		case n%4 == 0:
			l.present = false
			return w.v.Remove(l.id)
		case n%4 == 1:
			l.suspended = true
			return w.v.Suspend(l.id)
		}
		l.narrow = !l.narrow
		return w.v.Put(l.tenant())
	})
}

// changeKey takes the key away, in one of three ways, or brings it back.
func (w *linearWorld) changeKey(t *testing.T, l *linearTenant, n int) error {
	demands := verifier.ReasonUnknownKey
	if last := l.key[len(l.key)-1]; last.demands != "" {
		demands = ""
	}
	return w.record(&l.key, func() verifier.Reason { return demands }, func() error {
		switch {
		case demands == "" && l.k != nil:
			l.k.SetUntil(time.Unix(nowUnix+1000, 0))
		case demands == "":
			l.k = key(t, l.id, "1", secretOf(l.id))
			return l.store.Replace(l.k)
		case n%3 == 0:
			l.k.SetUntil(time.Unix(nowUnix-1000, 0))
		case n%3 == 1:
			l.k.Withdraw()
			l.k = nil
		default:
			l.k = nil
			return l.store.Replace()
		}
		return nil
	})
}

// toggle revokes something, or takes that back.
func (w *linearWorld) toggle(l *timeline, revoke func() error, remove func() bool) error {
	if (*l)[len(*l)-1].demands == "" {
		return w.record(l, func() verifier.Reason { return verifier.ReasonRevoked }, revoke)
	}
	return w.record(l, func() verifier.Reason { return "" }, func() error {
		if !remove() {
			return errors.New("a revocation was not there")
		}
		return nil
	})
}

// change does one random change of a tenant. What is bad is soon made good again, so that good
// tokens are frequent.
func (w *linearWorld) change(t *testing.T, l *linearTenant, r *rand.Rand) error {
	bad := func(l timeline) bool { return l[len(l)-1].demands != "" }
	what := r.IntN(6)
	if l.slow != nil && r.IntN(2) == 0 {
		l.slow.here.Store(false)
	}
	for i, line := range []timeline{l.rules, l.key, l.jti, l.sub, l.all} {
		if bad(line) && r.IntN(3) > 0 {
			what = i
		}
	}
	switch what {
	case 0:
		return w.changeRules(l, r.IntN(12))
	case 1:
		return w.changeKey(t, l, r.IntN(3))
	case 2:
		return w.toggle(&l.jti, func() error { return w.revoked.RevokeToken(l.id, "0", time.Time{}) },
			func() bool { return w.revoked.RemoveToken(l.id, "0") })
	case 3: // of a later second than that of the tenant, which does not replace it
		return w.toggle(&l.sub, func() error { return w.revoked.RevokeSubject(l.id, "ann", time.Unix(nowUnix+1, 0)) },
			func() bool { return w.revoked.RemoveSubject(l.id, "ann") })
	case 4:
		return w.toggle(&l.all, func() error { return w.revoked.RevokeTenant(l.id, time.Unix(nowUnix, 0)) },
			func() bool { return w.revoked.RemoveTenant(l.id) })
	}
	return nil
}

// stepClock sets the clock to a time at which tokens are good, or for a short while to another.
func (w *linearWorld) stepClock(n int) {
	for _, s := range []struct {
		at      int64
		demands verifier.Reason
	}{{nowUnix - 1 - int64(n%2), verifier.ReasonNotYetValid}, {nowUnix + int64(n%100), ""}, {nowUnix + 100, verifier.ReasonExpired}, {nowUnix + 99, ""}} {
		w.record(&w.clock, func() verifier.Reason { return s.demands }, func() error { w.now.Store(s.at); return nil })
		if w.pause(20); s.demands == "" {
			w.pause(300)
		}
	}
}

// A callRecord is one call of Verify.
type callRecord struct {
	start, end int64
	tenant     *linearTenant
	token      int
	hint       bool
	verdict    verifier.Reason
}

// verify makes one call of Verify.
func (w *linearWorld) verify(ctx context.Context, r *rand.Rand) callRecord {
	c := callRecord{tenant: w.tenants[r.IntN(linearTenants)], hint: r.IntN(2) == 0}
	if r.IntN(3) == 0 || c.tenant.slow != nil && r.IntN(3) > 0 {
		c.token = r.IntN(linearTokens)
	}
	if c.tenant.slow != nil {
		ctx = context.WithValue(ctx, startKey{}, &c.start)
	}
	token := c.tenant.tokens[c.token]
	var err error
	c.start = w.seq.Add(1)
	if c.hint {
		_, err = w.v.VerifyTenant(ctx, c.tenant.id, token)
	} else {
		_, err = w.v.Verify(ctx, token)
	}
	c.end = w.seq.Add(1)
	if e := (*verifier.Error)(nil); errors.As(err, &e) {
		c.verdict = e.Reason
	}
	return c
}

// round makes that many calls while everything changes, and checks their verdicts. It returns how
// many there were of each.
func (w *linearWorld) round(t *testing.T, calls int) map[verifier.Reason]int {
	w.rewind()
	stop := make(chan struct{})
	var changes, callers sync.WaitGroup
	change := func(step func(i int) error) {
		changes.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := step(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	change(func(i int) error { w.stepClock(i); return nil })
	if m, ok := w.revoked.(*marking); ok {
		change(func(i int) error { w.pause(5000); m.rekey(1 + i%4); return nil })
	}
	for n, l := range w.tenants {
		r := rand.New(rand.NewPCG(uint64(n), uint64(w.seq.Load())))
		change(func(int) error { w.pause(100); return w.change(t, l, r) })
	}
	const goroutines = 4
	records := make([][]callRecord, goroutines)
	for g := range goroutines {
		r := rand.New(rand.NewPCG(uint64(g), uint64(w.seq.Load())))
		callers.Go(func() {
			for range calls / goroutines {
				records[g] = append(records[g], w.verify(t.Context(), r))
			}
		})
	}
	callers.Wait()
	close(stop)
	changes.Wait()
	return w.judge(t, slices.Concat(records...))
}

// rewind begins all timelines with the present states.
func (w *linearWorld) rewind() {
	again := func(l *timeline) {
		var now stage
		if n := len(*l); n > 0 {
			now.demands = (*l)[n-1].demands
		}
		*l = timeline{now}
	}
	again(&w.clock)
	for _, l := range w.tenants {
		for _, line := range []*timeline{&l.rules, &l.key, &l.jti, &l.sub, &l.all} {
			again(line)
		}
	}
}

// judge checks each verdict against the timelines.
func (w *linearWorld) judge(t *testing.T, records []callRecord) map[verifier.Reason]int {
	count := make(map[verifier.Reason]int)
	wrong := 0
	for _, c := range records {
		count[c.verdict]++
		if why := w.wrong(c); why != "" {
			if wrong++; wrong <= 5 {
				t.Errorf("tenant %s, token %d, hint %v, from %d to %d: verdict %q, %s", c.tenant.id, c.token, c.hint, c.start, c.end, c.verdict, why)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d verdicts are wrong", wrong, len(records))
	}
	return count
}

// wrong says why the verdict cannot be right, or returns "".
func (w *linearWorld) wrong(c callRecord) string {
	l := c.tenant
	lines := map[string]timeline{"clock": w.clock, "rules": l.rules, "key": l.key, "subject": l.sub, "tenant": l.all}
	if c.token == 0 {
		lines["jti"] = l.jti
	}
	verdict := c.verdict
	if verdict == verifier.ReasonSignature {
		verdict = verifier.ReasonUnknownKey // the key was withdrawn after it was found
	}
	if l.slow != nil && (verdict == verifier.ReasonUnknownKey || verdict == verifier.ReasonUnavailable) {
		return "" // the store forgot the key
	}
	for name, line := range lines {
		switch allowed := line.allows(c.start, c.end, verdict); {
		case verdict == "" && !allowed:
			return fmt.Sprintf("though of the %s there was only %v", name, line.during(c.start, c.end))
		case verdict != "" && allowed:
			return ""
		}
	}
	if verdict != "" {
		return "for which there was no reason"
	}
	return ""
}
