package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
)

// A guest is a tenant that comes with a key of its own, and whose ring is destroyed in the end. The
// operators do to it everything that the other tenants are spared.
type guest struct {
	tenant  tenant
	old     rotation.Imported // the key with which it comes
	partner ring.ForeignKey   // a key that is accepted beside its ring
	secrets map[origin][]byte // of both

	mu       sync.Mutex // guards all below
	settled  bool       // all instances hold its ring
	oldEnds  time.Time  // when its old programs stop to sign
	accepted string     // the kid by which the partner's key is listed; "" before all instances list it
	until    time.Time  // the date until which the partner's key is accepted
	latest   time.Time  // the latest date that an instance may know of it
	changes  map[*instance]int
	kids     map[string]keystore.Algorithm // of the keys that its first ring has had, and of accepted ones
	dead     *death                        // nil: its ring has not been destroyed
}

// An origin says which key signed a token of a guest.
type origin int

const (
	ofRing    origin = iota // a key of the ring, at an instance
	ofOld                   // the imported key, by the program that the guest came with
	ofPartner               // the accepted key
	origins
)

// A death is the end of a guest's ring.
type death struct {
	lives   int                     // how many lives the store had begun before it
	done    time.Time               // when Destroy had returned; zero: it is not known to be committed
	known   time.Time               // when the last instance had shown it; zero: not all have
	knowing map[*instance]time.Time // since when an instance has shown it
}

// newGuest returns a guest whose old key carries a kid, or not.
func (f *fleet) newGuest() *guest {
	f.mu.Lock()
	f.arrived++
	n := f.arrived
	f.mu.Unlock()
	g := &guest{tenant: tenant{fmt.Sprint("guest-", n), keystore.HS256}, secrets: make(map[origin][]byte), changes: make(map[*instance]int),
		kids: make(map[string]keystore.Algorithm)}
	for _, of := range []origin{ofOld, ofPartner} {
		g.secrets[of] = make([]byte, 32)
		rand.Read(g.secrets[of]) // never fails
	}
	g.old = rotation.Imported{KID: g.tenant.name + "-old", Algorithm: keystore.HS256, Key: g.secrets[ofOld], Longest: f.pace.MaxTokenTTL * 3 / 2}
	g.partner = ring.ForeignKey{KID: g.tenant.name + "-partner", Algorithm: keystore.HS256, Key: g.secrets[ofPartner]}
	if n%2 == 0 { // a program from before kids
		g.old.KID, g.old.NoKID = "", true
	}
	if n%3 == 0 {
		g.partner.KID, g.partner.NoKID = "", true
	}
	g.kids[g.old.KID], g.kids[g.partner.KID] = keystore.HS256, keystore.HS256
	return g
}

// rules are those of the guest's tokens: a policy may change the algorithm of its keys.
func (g *guest) rules(m *instance) verifier.Tenant {
	return verifier.Tenant{ID: g.tenant.name, Keys: m.keys, Algorithms: []keystore.Algorithm{keystore.HS256, keystore.ES256}, MixedFamilies: true,
		Issuer: issuer(g.tenant.name), AnyAudience: true, Leeway: m.pace.Leeway}
}

// guestList returns the guests that have a ring, or had one.
func (f *fleet) guestList() []*guest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.guests)
}

// guestNames returns the names of the guests.
func (f *fleet) guestNames() (names []string) {
	for _, g := range f.guestList() {
		names = append(names, g.tenant.name)
	}
	return names
}

// A stay says what an instance should say about the tokens of a guest. If it differs before and after a
// verification, nothing can be said of that.
type stay struct {
	changes int // how often the guest was added to the instance's keyring, or removed from it; odd: it is held
	dying   bool
}

func (s stay) held() bool { return s.changes%2 == 1 }

func (g *guest) stayAt(m *instance) stay {
	g.mu.Lock()
	defer g.mu.Unlock()
	return stay{g.changes[m], g.dead != nil}
}

// ofFirst reports whether a key is of the ring that was destroyed, and not of another one of that name.
func (g *guest) ofFirst(kid string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.kids[kid]
	return ok
}

// change notes that the guest has been added to the keyring of an instance, or is about to be removed.
func (g *guest) change(m *instance) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changes[m]++
}

// welcome adds the guest to the keyrings of instances, except those that end meanwhile.
func (f *fleet) welcome(ctx context.Context, g *guest, members ...*instance) error {
	return atOnce(len(members), func(i int) error {
		m := members[i]
		return await(ctx, "a tenant to be added", func() bool {
			return f.tryWelcome(ctx, g, m) == nil || !slices.Contains(f.instances(), m)
		})
	})
}

// tryWelcome adds the guest to the keyring of an instance, unless it is there.
func (f *fleet) tryWelcome(ctx context.Context, g *guest, m *instance) error {
	if g.stayAt(m).held() {
		return nil
	}
	if err := m.keys.Add(ctx, g.tenant.name); err != nil {
		return err
	}
	for _, v := range m.verifiers {
		if err := v.Put(g.rules(m)); err != nil {
			return err
		}
	}
	f.tally.do(func(c *count) { c.Ops.Added++ })
	g.change(m)
	return nil
}

// sendAway removes the guest from the keyring of an instance. From then on none of its tokens may be
// accepted there, also not from the verifier's cache.
func (f *fleet) sendAway(ctx context.Context, g *guest, m *instance) error {
	t, err := g.sign(f, ofOld, g.old.Longest)
	if err != nil {
		return err
	}
	for range 3 { // a verifier caches a token that comes again
		_, _ = m.verifiers[1].VerifyTenant(ctx, g.tenant.name, t.raw)
	}
	g.change(m)
	m.keys.Remove(g.tenant.name)
	f.tally.do(func(c *count) { c.Ops.Removed++ })
	f.checkAway(ctx, m, t)
	return f.welcome(ctx, g, m)
}

// checkAway checks that an instance accepts no token of a guest that it does not hold.
func (f *fleet) checkAway(ctx context.Context, m *instance, t token) {
	for i, v := range m.verifiers {
		if _, err := v.VerifyTenant(ctx, t.tenant.name, t.raw); err == nil {
			f.tally.wrong(func(o *ops) { o.AfterRemove++ }, "%s, cache %d, accepts a token of %s, which was removed from its keyring", m.name, i, t.tenant.name)
		}
	}
}

// guestTraffic signs tokens of all guests ten times a second, by instances and by the holders of the
// guests' own keys, until ctx ends. Each is verified as those of the other tenants.
func (f *fleet) guestTraffic(ctx context.Context) {
	for sleep(ctx, 100*time.Millisecond) == nil {
		for _, g := range f.guestList() {
			for of := range origins {
				if t, ok := f.signFor(g, of); ok {
					f.schedule(t)
				}
			}
		}
	}
}

// signFor makes a token of a guest, if the holder of the key may sign now.
func (f *fleet) signFor(g *guest, of origin) (token, bool) {
	g.mu.Lock()
	ready, oldEnds, partner := g.settled, g.oldEnds, g.accepted != ""
	g.mu.Unlock()
	if of == ofRing {
		return f.signAt(f.random(1)[0], g)
	}
	if !ready || of == ofOld && !time.Now().Before(oldEnds) || of == ofPartner && !partner {
		return token{}, false
	}
	life := g.old.Longest
	if of == ofPartner {
		life = f.pace.MaxTokenTTL
	}
	t, err := g.sign(f, of, life)
	return t, err == nil
}

// signAt lets an instance sign a token of a guest. It must not if it knows that the ring was destroyed.
func (f *fleet) signAt(m *instance, g *guest) (token, bool) {
	knew := g.knows(m)
	away := m.away.Load()
	raw, err := m.signer.Sign(context.Background(), g.tenant.name, nil)
	f.checkAwaySigned(m, away, err)
	if err != nil || !g.stayAt(m).held() {
		return token{}, false
	}
	t, err := f.pace.readToken(raw, g.tenant)
	if knew && g.ofFirst(t.kid) {
		f.tally.wrong(func(o *ops) { o.Back++ }, "%s signs for %s, although it has shown that the ring was destroyed", m.name, g.tenant.name)
	}
	t.guest, t.from, t.by = g, ofRing, m.name
	return t, err == nil
}

// verifyGuest verifies a token of a guest at an instance, and judges the answer.
func (f *fleet) verifyGuest(ctx context.Context, m *instance, t token) {
	g := t.guest
	before := g.stayAt(m)
	fresh, good := m.inSync(t.tenant.name)
	v := verdict{by: m, token: t, began: time.Now(), good: good.Add(-m.offset)}
	at := m.now()
	ended := !at.Before(g.latestEnd(t))
	_, v.err = m.verifiers[t.cached].VerifyTenant(ctx, t.tenant.name, t.raw)
	f.tally.ofSnapshot(m, v.err)
	v.fresh = fresh && m.fresh(t.tenant.name)
	late, after := !m.now().Before(t.end()), g.stayAt(m)
	switch {
	case after.dying:
		if before.dying && before.held() && g.ofFirst(t.kid) {
			f.judgeDead(v, t.kid)
		}
	case before != after || !before.held():
	case ended:
		if v.err == nil && !at.Before(g.latestEnd(t)) { // its key may have been accepted for longer meanwhile
			f.tally.wrong(func(o *ops) { o.Beyond++ }, "%s accepts a token of %s, key %q, beyond its end at %v", m.name, t.tenant.name, t.kid, g.latestEnd(t))
		}
	case !late:
		f.tally.ofGuest(v, g)
	}
}

// latestEnd returns the time from which on no instance may accept the token, by its own clock.
func (g *guest) latestEnd(t token) time.Time {
	if t.from == ofPartner {
		g.mu.Lock()
		defer g.mu.Unlock()
		t.until = g.latest
	}
	return t.end()
}
