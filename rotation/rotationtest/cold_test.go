package rotationtest_test

import (
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// doubts reports whether an instance recovers.
func (i *instance) doubts() bool {
	st, err := i.opened().Tenant(tenant)
	return err != nil || st.InDoubt
}

// kill ends an instance that says nothing to the store, and leaves the snapshot that it has, as kill -9
// does.
func (i *instance) kill() {
	i.begin(&fault{change: func(f *rotationtest.Faults) { f.Cut = rotationtest.Refused }})
	var left []byte
	if i.snapshot != "" {
		left, _ = os.ReadFile(i.snapshot) // it may have written none
	}
	i.close()
	if left != nil {
		i.putSnapshot(left)
	}
}

// knowsKID returns what an instance says of a kid.
func (i *instance) knowsKID(kid string) outcome {
	result, _ := i.lookup(i.opened(), tenant, token{kid: kid}, i.now())
	return result
}

// wantCold starts an instance, and checks whether it recovers and how its first token fares.
func (l *timeline) wantCold(name string, doubts bool) *instance {
	l.t.Helper()
	return l.wantStart(l.connect(name, 0), doubts)
}

// wantStart is wantCold of an instance that was connected.
func (l *timeline) wantStart(i *instance, doubts bool) *instance {
	l.t.Helper()
	i.open()
	if got := i.opened() != nil && i.doubts(); got != doubts {
		l.t.Errorf("%v: %s recovers: %v", l.now(), i.name, got)
	}
	if n := i.sign(tenant); (n < 0) != doubts {
		l.t.Errorf("%v: %s signs: %v", l.now(), i.name, n >= 0)
	}
	return i
}

// Run: a whole fleet ends, properly or killed, long before the next one starts, and the store goes on.
// The first of the next is ready at once. It does not call a key missing before it is certain.
func TestTimelineRun(t *testing.T) {
	for name, end := range map[string]func(*instance){"closed": (*instance).close, "killed": (*instance).kill} {
		t.Run(name, func(t *testing.T) {
			runTimeline(t, seldom(), func(l *timeline) {
				all := l.fleet("a", "b")
				l.runUntil(5 * time.Second)
				for _, i := range all {
					end(i)
				}
				l.runFor(3 * time.Second)
				last := l.tokens[len(l.tokens)-1]
				c := l.wantCold("c", false)
				c.verify(last)
				if got := c.knowsKID("strange"); got != unavailable {
					t.Errorf("a key that is missing is %s", got)
				}
				l.runFor(4 * time.Second)
				if got := c.knowsKID("strange"); got != notFound {
					t.Errorf("later a key that is missing is %s", got)
				}
			})
		})
	}
}

// Cold: A ends. B rotates twice, so a key signs that A has never seen, and all end. A dump from after
// A's end is put back. A's place is in it, and A recovers all the same: B returns, and has the key.
func TestTimelineCold(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		all := l.fleetOf(true, "a", "b")
		l.runUntil(4500 * time.Millisecond)
		all[0].close()
		l.runFor(100 * time.Millisecond)
		d := l.cluster.Dump()
		for range 2 {
			l.runFor(l.policy.Propagation)
			l.rotate(all[1])
		}
		l.runFor(time.Second)
		back := all[1].cut()
		l.lose("restart with an older dump", "", func() { l.cluster.Restore(d) })
		l.wantCold("a2", true)
		l.runFor(time.Second)
		back()
		l.runFor(6 * time.Second)
	})
}

// Power: the store and all instances lose their power, and the store its last second. Or it fails over
// and back while no instance runs, and loses one write. Or a dump is put back.
// The acknowledgements that are left are of another run: each fleet that starts recovers.
func TestTimelinePower(t *testing.T) {
	for name, lose := range map[string]func(c *rotationtest.Cluster, d rotationtest.Dump){
		"power":     func(c *rotationtest.Cluster, _ rotationtest.Dump) { c.Failover(time.Second) },
		"failback":  func(c *rotationtest.Cluster, _ rotationtest.Dump) { c.Failover(50 * time.Millisecond); c.Failover(0) },
		"same data": func(c *rotationtest.Cluster, _ rotationtest.Dump) { c.Failover(0) },
		"dump":      func(c *rotationtest.Cluster, d rotationtest.Dump) { c.Restore(d) },
	} {
		t.Run(name, func(t *testing.T) {
			runTimeline(t, seldom(), func(l *timeline) {
				all := l.fleet("a", "b")
				l.runUntil(5 * time.Second)
				d := l.cluster.Dump()
				l.runFor(time.Second)
				for _, i := range all {
					i.kill()
				}
				l.lose(name, "", func() { lose(l.cluster, d) })
				l.runFor(time.Second)
				l.wantCold("c", true)
				l.runFor(4 * time.Second)
			})
		})
	}
}

// Flush: a person empties the store, and the server runs on. No instance is left that could put the
// ring back. The first of the next fleet recovers. So does one beside a holder, which puts it back.
func TestTimelineFlush(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		all := l.fleet("a", "b")
		l.runUntil(5 * time.Second)
		all[0].kill()
		back := all[1].cut()
		l.lose("flush", "", l.cluster.Flush)
		l.wantCold("c", true)
		l.runFor(500 * time.Millisecond)
		back()
		l.runFor(4 * time.Second)
	})
}

// Unheard: a write is lost at a failover, and its holder is cut off. An instance that stays in sync
// with the new primary does not know that. It ends at once, and another starts, within two polls of the
// failover: it recovers, so the holder has the time to put back what it knows.
func TestTimelineUnheard(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		all := l.fleet("a", "b")
		l.runUntil(5 * time.Second)
		back := all[0].cut()
		l.failover(50 * time.Millisecond)
		l.runFor(600 * time.Millisecond) // b has polled
		all[1].kill()
		l.wantCold("c", true)
		back()
		l.runFor(5 * time.Second)
	})
}
