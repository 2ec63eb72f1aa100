package rotationtest_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// accepts lets i accept the key of a partner for d, and returns the kid.
func (l *timeline) accepts(i *instance, name string, noKID bool, d time.Duration) string {
	l.t.Helper()
	r, err := i.accept(l.ctx, tenant, name, noKID, d)
	if l.must(r, err); len(r.Accepted) != 1 {
		l.t.Fatalf("%v: receipt %+v", l.now(), r)
	}
	return r.Accepted[0]
}

// partner lets a partner sign a token, which instances verify from now on.
func (l *timeline) partner(name, kid string) int {
	n := l.signAsPartner(tenant, name, kid)
	l.tokens = append(l.tokens, n)
	return n
}

// wantVerdict checks what instances say of a fresh token of a partner.
func (l *timeline) wantVerdict(want outcome, name, kid string, at ...*instance) {
	l.t.Helper()
	n := l.partner(name, kid)
	for _, i := range at {
		if got, err := i.lookup(i.k.Load(), tenant, l.h.tokens[n], i.now()); got != want {
			l.t.Errorf("%v: %s says of a token of %s: %s (%v), want %s", l.now(), i.name, name, got, err, want)
		}
	}
}

// Accept: a key is accepted, and ring keys that were created later are collected.
func TestTimelineAccept(t *testing.T) {
	runTimeline(t, never(), func(l *timeline) {
		f := l.fleet("one", "two")
		l.runUntil(3 * time.Second)
		l.accepts(f[0], "p", false, 24*time.Second)
		l.runUntil(5 * time.Second)
		l.rotate(f[0])
		second := l.key(f[0], 2).KID
		l.runUntil(10 * time.Second)
		l.rotate(f[0])
		l.runUntil(26 * time.Second)
		if l.has("k:"+second) || !l.has("gone") || !l.has("v:p") {
			t.Fatalf("gone %v; the store has the second key %v, the accepted one %v", l.has("gone"), l.has("k:"+second), l.has("v:p"))
		}
		l.wantVerdict(ok, "p", "p", f...)
		l.runUntil(27500 * time.Millisecond)
		l.wantVerdict(notFound, "p", "p", f...)
	})
}

// Extend: a failover loses the later date of an accepted key, which one instance has read and is then cut
// off. The others end the key, and collect it. The instance returns.
func TestTimelineExtend(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two")
		l.runUntil(3 * time.Second)
		l.accepts(f[0], "p", false, 3*time.Second)
		l.runFor(pollFor)
		before := l.cluster.Dump()
		l.accepts(f[0], "p", false, 17*time.Second)
		l.runFor(pollFor)
		holder, back := f[1], f[1].cut()
		f[0].close()
		l.lose("restart with an older dump", "", func() { l.cluster.Restore(before) })
		other := l.connect("three", 0)
		other.open()
		l.runUntil(13 * time.Second)
		if l.has("v:p") || l.hasDate("p") {
			t.Fatal("the accepted key was not collected")
		}
		l.wantVerdict(notFound, "p", "p", other)
		back()
		l.runFor(3 * pollFor)
		if !l.has("v:p") || !l.hasDate("p") {
			t.Errorf("the holder has put back the key: %v, its date: %v", l.has("v:p"), l.hasDate("p"))
		}
		l.wantVerdict(ok, "p", "p", holder, other)
		l.runUntil(21 * time.Second)
		l.wantVerdict(notFound, "p", "p", holder, other)
	})
}

// Five: two sides of a split accept more keys without kid, together, than are tried for a token. Those
// with the latest dates serve, at all instances the same. Once one is revoked the next serves.
func TestTimelineFive(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two")
		l.runUntil(3 * time.Second)
		l.lose("split", "", func() { l.cluster.Split(0, false, f[0].conn) })
		l.h.unsafe = append(l.h.unsafe, window{l.now(), forever})
		var names, kids []string
		for n, name := range []string{"a", "b", "c", "d", "e"} {
			names = append(names, name)
			kids = append(kids, l.accepts(f[n%2], name, true, time.Duration(20+n)*time.Second))
		}
		l.runFor(pollFor)
		l.lose("heal", "", l.cluster.Heal)
		l.runFor(4 * pollFor)
		for n, name := range names {
			want := ok
			if n == 0 {
				want = badSig // the other four are tried
			}
			l.wantVerdict(want, name, kids[n], f...)
		}
		l.must(f[0].r.Load().Revoke(l.ctx, tenant, kids[2]))
		l.runFor(pollFor)
		l.wantVerdict(ok, names[0], kids[0], f...)
		l.wantVerdict(badSig, names[2], kids[2], f...)
	})
}

// Disown: an accepted key with a far date is revoked, and an instance is cut off just before. It accepts
// the key for as long as tokens of the ring could live, and then cannot tell.
func TestTimelineDisown(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two")
		l.runUntil(3 * time.Second)
		l.accepts(f[0], "p", false, 300*24*time.Hour)
		l.runFor(pollFor)
		back := f[1].cut()
		r, err := f[0].r.Load().Revoke(l.ctx, tenant, "p")
		l.must(r, err)
		if want := r.RevokedAt.Add(l.policy.Dwell + l.policy.SignFor + l.policy.MaxTokenTTL + l.policy.Leeway); !r.WorstCase.Equal(want) {
			t.Errorf("the worst case is %v, want %v", r.WorstCase, want)
		}
		l.runFor(4 * time.Second)
		l.wantVerdict(notFound, "p", "p", f[0])
		l.wantVerdict(ok, "p", "p", f[1])
		l.runFor(5 * time.Second)
		l.wantVerdict(unavailable, "p", "p", f[1])
		back()
		l.runFor(3 * pollFor)
		l.wantVerdict(notFound, "p", "p", f...)
		if _, err := f[1].k.Load().Lookup(keystore.ID{Tenant: tenant, KID: "p"}, keystore.HS256); !errors.Is(err, keystore.ErrRevoked) {
			t.Errorf("of the revoked key: %v", err)
		}
	})
}

// Ended: a person who can write to the store puts back an accepted key that has ended and was collected,
// with its date. It accepts nothing, and is collected again.
func TestTimelineEnded(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two")
		l.runUntil(3 * time.Second)
		l.accepts(f[0], "p", false, 2*time.Second)
		l.runFor(pollFor)
		fields := l.cluster.Ring(tenant)
		l.runUntil(12 * time.Second)
		if l.has("v:p") || l.hasDate("p") {
			t.Fatal("the accepted key was not collected")
		}
		l.edit(tenant, "edit: put back what was accepted", func(now map[string][]byte) {
			for field, value := range fields {
				if field == "v:p" || isDateOf(field, "p") {
					now[field] = value
				}
			}
		})
		l.runFor(l.policy.Freshness + pollFor)
		l.wantVerdict(notFound, "p", "p", f...)
		l.runFor(2 * pollFor)
		if l.has("v:p") || l.hasDate("p") {
			t.Error("what was put back was not collected")
		}
	})
}

// Both: the key that a ring began with is accepted too, under the same kid, for longer than the ring
// keeps it. One revocation ends both.
func TestTimelineBoth(t *testing.T) {
	runTimeline(t, never(), func(l *timeline) {
		i := l.connect("one", 0)
		i.open()
		i.opened()
		key := rotation.Imported{KID: "p", Algorithm: keystore.HS256, Key: partnerSecret(tenant, "p"), Longest: l.policy.MaxTokenTTL}
		l.must(i.r.Load().Adopt(l.ctx, tenant, key, l.policy, rotation.AdoptOptions{}))
		l.runUntil(3 * time.Second)
		if _, err := i.accept(l.ctx, tenant, "q", false, time.Minute); err != nil {
			t.Error(err)
		}
		l.accepts(i, "p", false, 14*time.Second)
		l.accepts(i, "p", false, time.Minute)
		keys, err := i.k.Load().Lookup(keystore.ID{Tenant: tenant, KID: "p"}, keystore.HS256)
		if err != nil || len(keys) != 2 {
			t.Errorf("of a kid that both have: %v, %v", keys, err)
		}
		l.runUntil(5 * time.Second)
		l.rotate(i)
		l.runUntil(20 * time.Second)
		if l.has("k:p") || !l.has("v:p") {
			t.Fatalf("the store has the ring's key: %v, the accepted one: %v", l.has("k:p"), l.has("v:p"))
		}
		if n := i.k.Load().Status().Counts.Repairs; n > 0 {
			t.Errorf("something of the accepted key was lost with the ring's key: %d repairs", n)
		}
		l.wantVerdict(ok, "p", "p", i)
		l.must(i.r.Load().Revoke(l.ctx, tenant, "p"))
		l.runFor(pollFor)
		l.wantVerdict(notFound, "p", "p", i)
		l.wantVerdict(ok, "q", "q", i)
	})
}

// Kid: after the store was emptied, the same kid is imported again, by an instance that holds nothing, as
// another key. The holder of the first returns. All go by the key that was imported first; the other is
// withdrawn, and its tokens are refused everywhere.
func TestTimelineKid(t *testing.T) {
	runTimeline(t, never(), func(l *timeline) {
		one := l.connect("one", 0)
		one.open()
		one.opened()
		imported := func(i *instance, secret []byte, longest time.Duration) {
			l.t.Helper()
			key := rotation.Imported{KID: "p", Algorithm: keystore.HS256, Key: secret, Longest: longest}
			l.must(i.r.Load().Adopt(l.ctx, tenant, key, l.policy, rotation.AdoptOptions{}))
		}
		imported(one, partnerSecret(tenant, "p"), 9*time.Second)
		l.runUntil(3 * time.Second)
		back := one.cut()
		l.wipe()
		l.h.unsafe = append(l.h.unsafe, window{l.now(), forever}) // a ring is made though another one exists
		two := l.connect("two", 0)
		two.open()
		two.opened()
		imported(two, partnerSecret(tenant, "other"), 3*time.Second)
		l.runFor(pollFor)
		stranger, err := two.k.Load().Lookup(keystore.ID{Tenant: tenant, KID: "p"}, keystore.HS256)
		if err != nil || !stranger[0].Usable(two.now()) {
			t.Fatal(err)
		}
		back()
		l.runFor(4 * pollFor)
		l.wantVerdict(ok, "p", "p", one, two)
		if stranger[0].Usable(two.now()) {
			t.Error("the key that does not count any more is usable")
		}
		for _, i := range []*instance{one, two} {
			keys := i.listed(l)
			if !slices.Equal(keys, one.listed(l)) {
				t.Errorf("%s has %q, one %q", i.name, keys, one.listed(l))
			}
			if k := l.key(i, 1); k.KID != "p" || k.TokenTTL() != 9*time.Second {
				t.Errorf("at %s the tokens of the first key live for %v", i.name, k.TokenTTL())
			}
		}
	})
}

// listed lists the keys of the ring as i has them.
func (i *instance) listed(l *timeline) (keys []string) {
	l.t.Helper()
	st, err := i.k.Load().Tenant(tenant)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, k := range st.Ring.Keys {
		keys = append(keys, k.KID+" "+string(k.State)+" "+k.Created.Format("05.000"))
	}
	return keys
}

// isDateOf reports whether a field of a ring has a date of the accepted key of that kid.
func isDateOf(field, kid string) bool {
	id, is := strings.CutPrefix(field, "u:")
	of, _, ok := ring.FactID{Kind: ring.FactAccepted, KID: id}.AcceptedKey()
	return is && ok && of == kid
}

// hasDate reports whether the store has a date of the accepted key of that kid.
func (l *timeline) hasDate(kid string) bool {
	for field := range l.cluster.Ring(tenant) {
		if isDateOf(field, kid) {
			return true
		}
	}
	return false
}
