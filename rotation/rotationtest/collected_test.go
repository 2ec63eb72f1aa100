package rotationtest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// never is [seldom] with a period that is longer than a test.
func never() rotation.Policy {
	p := seldom()
	p.Every = 40 * time.Second
	return p
}

// Gone: the store is rolled back to a time before a key was collected. A new instance takes that as
// the truth and signs with the key. A holder of the collection, cut off for longer than SignFor,
// must give in, so that both accept each other's tokens.
func TestTimelineGoneGivesIn(t *testing.T) {
	runTimeline(t, never(), func(l *timeline) {
		holder := l.fleet("holder")[0]
		l.runUntil(4 * time.Second)
		dump := l.cluster.Dump()
		l.rotate(holder)
		first := l.key(holder, 1).KID
		l.runUntil(18 * time.Second)
		if l.has("k:"+first) || !l.has("gone") {
			t.Fatal("the first key has not been collected")
		}
		back := holder.cut()
		l.lose("restart with an older dump", "", func() { l.cluster.Restore(dump) })
		joiner := l.connect("joiner", 0)
		joiner.rotates = false
		joiner.open()
		l.runFor(l.policy.SignFor + 200*time.Millisecond)
		l.wantSigner(1, joiner)
		l.wantSigner(0, holder)
		back()
		l.runFor(2*pollFor + pollFor)
		l.wantSigner(2, holder, joiner)
		l.runFor(6 * time.Second)
	})
}

// Gone: a holder that comes back within SignFor restores the collection, because no instance has
// signed with the key again yet.
func TestTimelineGoneIsAsserted(t *testing.T) {
	runTimeline(t, never(), func(l *timeline) {
		holder := l.fleet("holder")[0]
		l.runUntil(4 * time.Second)
		dump := l.cluster.Dump()
		l.rotate(holder)
		first := l.key(holder, 1).KID
		l.runUntil(18 * time.Second)
		back := holder.cut()
		l.lose("restart with an older dump", "", func() { l.cluster.Restore(dump) })
		joiner := l.connect("joiner", 0)
		joiner.rotates = false
		joiner.open()
		l.runFor(700 * time.Millisecond)
		l.wantState(1, ring.Signing, joiner) // by its own account; it is recovering
		back()
		l.runFor(2 * pollFor)
		l.wantSigner(2, holder)
		l.runFor(2 * pollFor) // the joiner recovers for two polls after the last merge
		l.wantSigner(2, joiner)
		l.runFor(6 * time.Second)
		l.neverSigned(first, 18*time.Second)
		if !l.has("gone") || l.has("k:"+first) {
			t.Errorf("the store has the collection: %v; the collected record: %v", l.has("gone"), l.has("k:"+first))
		}
	})
}

// Gone: an attacker who can write to the store, but has no KEK, puts back the record of a key that
// was promoted and collected, without its promotion. All instances are cut off for longer than
// SignFor. By the date in its record the key would come after the signing one and take its place.
func TestTimelineGoneIsNotRevived(t *testing.T) {
	for _, name := range []string{"beside the others", "alone"} {
		t.Run(name, func(t *testing.T) {
			runTimeline(t, seldom(), func(l *timeline) {
				f := l.fleet("one", "two")
				l.runUntil(4 * time.Second)
				second := l.key(f[0], 2).KID
				record := l.cluster.Ring(tenant)["k:"+second]
				l.rotate(f[0])
				l.runUntil(9 * time.Second)
				l.rotate(f[0])
				l.runUntil(23 * time.Second) // the second key was scheduled for 20 s
				if l.has("k:" + second) {
					t.Fatal("the second key has not been collected")
				}
				back1, back2 := f[0].cut(), f[1].cut()
				l.edit(tenant, "edit: put back the second", func(fields map[string][]byte) {
					for field := range fields {
						if field == "gone" || name == "alone" && !strings.HasPrefix(field, "tk:") {
							delete(fields, field)
						}
					}
					fields["k:"+second] = record
				})
				l.runFor(l.policy.SignFor + 300*time.Millisecond)
				l.wantSigner(0, f...)
				back1()
				back2()
				l.runFor(3 * pollFor)
				l.wantSigner(3, f...)
				l.runFor(6 * time.Second)
				l.neverSigned(second, 10*time.Second)
			})
		})
	}
}
