package rotationtest_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Writer: a person who can write to the store removes each revocation, and the promotion that goes
// with it, before an instance has read them. All instances must reject the key all the same, and one
// that starts meanwhile too. No instance signs with the key again.
func TestTimelineWriter(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("revoker", "one", "two")
		l.runUntil(4 * time.Second)
		first := l.key(f[0], 1).KID
		token := l.tokens[len(l.tokens)-1]
		stop := l.writer(tenant, endsTrust)
		l.must(f[0].r.Load().Revoke(l.ctx, tenant, first))
		revoked := l.now()
		l.runFor(pollFor)
		joiner := l.connect("joiner", 0)
		joiner.rotates = false
		joiner.open()
		joiner.opened()
		l.rejects(token, append(f, joiner)...)
		l.runFor(2 * pollFor)
		l.rejects(token, append(f, joiner)...)
		f[1].close()
		again := l.connect("one again", 0)
		again.rotates = false
		again.open()
		again.opened()
		l.rejects(token, f[0], f[2], joiner, again)
		stop()
		l.runFor(3 * time.Second)
		l.wantState(1, ring.Revoked, f[0], f[2], joiner, again)
		if !l.has("x:" + first) {
			t.Error("the store lacks the revocation")
		}
		if n := f[2].k.Load().Status().Counts.Undone; n == 0 {
			t.Error("no alarm was raised")
		}
		l.neverSigned(first, revoked+100*time.Millisecond)
	})
}

// rejects checks that instances reject a token, now and without asking the store.
func (l *timeline) rejects(token int, at ...*instance) {
	l.t.Helper()
	tok := l.h.tokens[token]
	for _, i := range at {
		if got, err := i.lookup(i.k.Load(), tenant, tok, i.now()); got == ok {
			l.t.Errorf("%v: %s accepts token %d of %s, which was revoked (%v)", l.now(), i.name, token, short(tok.kid), err)
		}
	}
}
