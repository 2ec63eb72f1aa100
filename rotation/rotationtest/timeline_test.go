package rotationtest_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

const tenant = "t"

// seldom is fast with a period so long that keys rotate only by hand during a test.
func seldom() rotation.Policy {
	p := fast
	p.Every = 20 * time.Second
	return p
}

// A timeline is a world in which a test decides what happens.
type timeline struct {
	*world
	t      *testing.T
	tokens []int
}

// runTimeline runs a timeline and checks all invariants on its history.
func runTimeline(t *testing.T, policy rotation.Policy, play func(l *timeline)) {
	t.Helper()
	runTimelineIn(t, 1, policy, play)
}

// silent is the seed of a world whose store does not tell its run.
const silent = 7

// runTimelineIn is runTimeline in the world of that seed.
func runTimelineIn(t *testing.T, seed uint64, policy rotation.Policy, play func(l *timeline)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &timeline{world: newWorld(t, seed, policy, tenant), t: t}
		func() {
			defer l.close()
			play(l)
		}()
		reportViolations(t, l.h, check(l.h))
	})
}

// fleet opens instances at 0 s and waits until they are in sync. The first one creates the ring,
// and is the only one that rotates its keys.
func (l *timeline) fleet(names ...string) []*instance { return l.fleetOf(false, names...) }

// fleetOf is fleet; with rotators all of the instances rotate keys.
func (l *timeline) fleetOf(rotators bool, names ...string) []*instance {
	var all []*instance
	for n, name := range names {
		i := l.connect(name, 0)
		if i.rotates = rotators || n == 0; n == 0 {
			i.open()
			i.create()
		} else {
			i.open()
		}
		all = append(all, i)
	}
	l.runUntil(2 * time.Second)
	return all
}

// runUntil lets all instances sign and verify until a moment.
func (l *timeline) runUntil(at time.Duration) {
	l.t.Helper()
	if at < l.now() {
		l.t.Fatalf("it is already %v, want to run until %v", l.now(), at)
	}
	for n := 0; l.now()+25*time.Millisecond < at; n++ {
		time.Sleep(25*time.Millisecond + time.Duration(n%7)*time.Microsecond)
		l.traffic(n)
	}
	time.Sleep(at - l.now())
}

func (l *timeline) runFor(d time.Duration) { l.runUntil(l.now() + d) }

func (l *timeline) traffic(n int) {
	alive := slices.DeleteFunc(l.alive(), func(i *instance) bool { k := i.k.Load(); return k != nil && !k.Serves(tenant) })
	if len(alive) == 0 {
		return
	}
	if k := alive[n%len(alive)].sign(tenant); k >= 0 {
		l.tokens = append(l.tokens, k)
		for _, i := range alive {
			i.checkKnows(k)
		}
	}
	// Verify old tokens, which are about to expire, as well as new ones. With the race detector each takes many
	// times as long, so they are fewer. make test runs all timelines without it, too.
	stride := 5
	if raceEnabled {
		stride = 25
	}
	for _, i := range alive {
		recent := l.tokens[max(0, len(l.tokens)-150):]
		for k := n % stride; k < len(recent); k += stride {
			i.verify(recent[k])
		}
		i.audit(tenant)
	}
}

// key returns the key of a seq, as i sees it now.
func (l *timeline) key(i *instance, seq int) ring.Key {
	l.t.Helper()
	st, err := i.k.Load().Tenant(tenant)
	if err != nil {
		l.t.Fatal(err)
	}
	n := slices.IndexFunc(st.Ring.Keys, func(k ring.Key) bool { return k.Seq == seq })
	if n < 0 {
		l.t.Fatalf("%v: %s has no key #%d: %s", l.now(), i.name, seq, (&audit{keys: st.Ring.Keys}).line())
	}
	return st.Ring.Keys[n]
}

// wantState checks the state of a key at instances.
func (l *timeline) wantState(seq int, want ring.State, at ...*instance) {
	l.t.Helper()
	for _, i := range at {
		if k := l.key(i, seq); k.State != want {
			l.t.Errorf("%v: at %s key #%d is %s, from %s, want %s", l.now(), i.name, seq, k.State, k.ActivatesAt.Format("05.000"), want)
		}
	}
}

// wantSigner checks which key instances sign with. A seq of 0 means that they cannot sign.
func (l *timeline) wantSigner(seq int, at ...*instance) {
	l.t.Helper()
	for _, i := range at {
		n := i.sign(tenant)
		switch {
		case n < 0 && seq != 0:
			l.t.Errorf("%v: %s cannot sign: %v", l.now(), i.name, l.h.events[len(l.h.events)-1].err)
		case n >= 0 && seq == 0:
			l.t.Errorf("%v: %s signs with %s, and must not", l.now(), i.name, short(l.h.tokens[n].kid))
		case n >= 0 && l.h.tokens[n].kid != l.key(i, seq).KID:
			l.t.Errorf("%v: %s signs with %s, want key #%d", l.now(), i.name, short(l.h.tokens[n].kid), seq)
		}
	}
}

// neverSigned checks that no instance has signed with a key after a moment, except those in but.
func (l *timeline) neverSigned(kid string, since time.Duration, but ...*instance) {
	l.t.Helper()
	for _, tok := range l.h.tokens {
		excused := slices.ContainsFunc(but, func(i *instance) bool { return i.id == tok.signer })
		if tok.kid == kid && tok.at > since && !excused {
			l.t.Errorf("%s signed with %s at %v, after %v", l.h.instances[tok.signer], short(kid), tok.at, since)
			return
		}
	}
}

func (l *timeline) failover(lag time.Duration) {
	l.lose(fmt.Sprintf("failover, %v behind", lag), "", func() { l.cluster.Failover(lag) })
}

func (l *timeline) wipe() { l.lose("wipe", "", l.cluster.Wipe) }

// must fails the test if a command failed.
func (l *timeline) must(_ rotation.Receipt, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("%v: %v", l.now(), err)
	}
}

// rotate rotates the keys by hand.
func (l *timeline) rotate(i *instance) {
	l.t.Helper()
	l.must(i.r.Load().Rotate(l.ctx, tenant))
}

// has reports whether the primary has a field of the ring.
func (l *timeline) has(field string) bool { return l.cluster.Ring(tenant)[field] != nil }

// cut cuts an instance off from the store until end is called.
func (i *instance) cut() (end func()) {
	return i.begin(&fault{change: func(f *rotationtest.Faults) { f.Cut = rotationtest.BlackHole }})
}
