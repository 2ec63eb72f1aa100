package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// dies says that the guest's ring is about to be destroyed, which ends the promises about its tokens.
func (g *guest) dies(lives int) *death {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = &death{lives: lives, knowing: make(map[*instance]time.Time)}
	return g.dead
}

// knows reports whether an instance has shown that the guest's ring was destroyed.
func (g *guest) knows(m *instance) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead != nil && !g.dead.knowing[m].IsZero()
}

// shred destroys the guest's ring, restores a backup of before, and makes another ring for some.
func (f *fleet) shred(ctx context.Context, g *guest) error {
	saved, err := f.save(ctx, g)
	if err != nil {
		return err
	}
	d := g.dies(f.tally.livesBegun())
	var receipt rotation.Receipt
	err = f.insist(ctx, "a ring to be destroyed", func(r *rotation.Rotator) (err error) {
		receipt, err = r.Destroy(ctx, g.tenant.name)
		return err
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	d.done = time.Now()
	g.mu.Unlock()
	f.tally.do(func(c *count) { c.Ops.Shredded++ })
	if err := await(ctx, "all instances to know that a ring was destroyed", func() bool { return f.allKnow(g) }); err != nil {
		return err
	}
	g.mu.Lock()
	d.known = time.Now()
	for _, at := range d.knowing {
		f.tally.do(func(c *count) { c.Ops.Heard = append(c.Ops.Heard, max(0, at.Sub(receipt.DestroyedAt))) })
	}
	g.mu.Unlock()
	_, _, err = f.random(1)[0].rotator.Restore(ctx, g.tenant.name, saved)
	f.tally.restored(err)
	if f.intN(2) == 0 {
		return nil
	}
	f.tally.do(func(c *count) { c.Ops.Again++ })
	return f.insistOnce(ctx, "another ring", func(r *rotation.Rotator) error {
		_, err := r.Create(ctx, g.tenant.name, f.pace.policy(g.tenant), rotation.Again)
		return err
	})
}

func (f *fleet) allKnow(g *guest) bool {
	for _, m := range f.instances() {
		if g.stayAt(m).held() && !g.knows(m) {
			return false
		}
	}
	return true
}

// insist lets instances make a change until one of them does.
func (f *fleet) insist(ctx context.Context, what string, change func(*rotation.Rotator) error) error {
	var last error
	err := await(ctx, what, func() bool {
		last = change(f.random(1)[0].rotator)
		if refused := new(rotation.RefusedError); errors.As(last, &refused) {
			_ = sleep(ctx, max(50*time.Millisecond, min(time.Second, time.Until(refused.From))))
		}
		return last == nil
	})
	return errors.Join(err, last)
}

// insistOnce is insist for a ring that is made. If the answer was lost, the refusal of a second ring says that the
// first was made.
func (f *fleet) insistOnce(ctx context.Context, what string, change func(*rotation.Rotator) error) error {
	lost := false
	return f.insist(ctx, what, func(r *rotation.Rotator) error {
		err := change(r)
		if err != nil && strings.Contains(err.Error(), "it has a ring already") && lost {
			return nil
		}
		lost = lost || err != nil && !errors.Is(err, rotation.ErrRefused)
		return err
	})
}

// save makes a backup of the guest's ring.
func (f *fleet) save(ctx context.Context, g *guest) (saved rotation.Snapshot, err error) {
	err = f.withStore(func(store rotation.Store) error {
		return await(ctx, "a backup of a ring", func() bool {
			calling, cancel := context.WithTimeout(ctx, f.pace.deadline)
			defer cancel()
			saved = store.Load(calling, []string{g.tenant.name})[0]
			return saved.Err == nil && len(saved.Fields) > 0
		})
	})
	return saved, err
}

// withStore calls do with a store on a connection of its own.
func (f *fleet) withStore(do func(rotation.Store) error) (err error) {
	l := f.newLink()
	client := l.client(f.servers.address())
	defer func() { err = errors.Join(err, client.Close(), l.stop()) }()
	store, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		return err
	}
	return do(store)
}

// watchDead looks, until ctx ends, for keys of destroyed rings at all instances.
func (f *fleet) watchDead(ctx context.Context) {
	for sleep(ctx, f.pace.glance()) == nil {
		for _, g := range f.guestList() {
			for _, m := range f.instances() {
				f.lookForDead(m, g)
			}
		}
	}
}

// lookForDead notes whether an instance knows that a guest's ring was destroyed, and checks that it has
// no key of it then.
func (f *fleet) lookForDead(m *instance, g *guest) {
	s, err := m.keys.Tenant(g.tenant.name)
	if err != nil {
		return
	}
	for kid, alg := range g.note(m, s) {
		v := verdict{by: m, token: token{guest: g, kid: kid, tenant: g.tenant}, began: time.Now(), good: s.LastGood.Add(-m.offset)}
		_, v.err = m.keys.Lookup(keystore.ID{Tenant: g.tenant.name, KID: kid}, alg)
		v.fresh = s.Fresh && m.fresh(g.tenant.name)
		f.judgeDead(v, kid)
	}
}

// note notes what an instance shows of the guest's ring. It returns all keys of the ring once that was
// destroyed.
func (g *guest) note(m *instance, s rotation.TenantStatus) map[string]keystore.Algorithm {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range s.Ring.Keys {
		if k.Life == 0 {
			g.kids[k.KID] = k.Algorithm
		}
	}
	for _, a := range s.Accepted {
		if a.Life == 0 {
			g.kids[a.KID] = a.Algorithm
		}
	}
	if g.dead == nil {
		return nil
	}
	if s.Ring.Lives > 0 && g.dead.knowing[m].IsZero() {
		g.dead.knowing[m] = time.Now()
	}
	return maps.Clone(g.kids)
}

// judgeDead judges what an instance said about a token, or a key, of a destroyed ring.
func (f *fleet) judgeDead(v verdict, kid string) {
	if v.err != nil {
		return
	}
	g := v.token.guest
	lives := f.tally.livesBegun()
	g.mu.Lock()
	d := g.dead
	knew, bound := d.knowing[v.by], d.done
	if lives != d.lives { // the store may have lost it for a while
		bound = d.known
	}
	g.mu.Unlock()
	why := ""
	switch {
	case !knew.IsZero() && v.began.After(knew):
		why = fmt.Sprintf("%v after it had shown that the ring was destroyed", v.began.Sub(knew))
	case v.fresh && !bound.IsZero() && v.good.After(bound):
		why = fmt.Sprintf("in a sync that was sent %v after the ring was destroyed for all", v.good.Sub(bound))
	default:
		return
	}
	f.tally.wrong(func(o *ops) { o.Back++ }, "%s accepts key %q of %s, fresh %v, %s", v.by.name, kid, g.tenant.name, v.fresh, why)
}

// checkBuried checks, at the end of a run, that the store has nothing of a key of a destroyed ring.
// Instances need a few polls to remove what a merge brought back.
func (f *fleet) checkBuried(ctx context.Context, patience time.Duration) error {
	return f.withStore(func(store rotation.Store) error {
		var found []string
		err := awaitEvery(ctx, 100*time.Millisecond, patience, "the keys of destroyed rings to be removed", func() bool {
			found = nil
			names := f.guestNames()
			for i, s := range store.Load(ctx, names) {
				g := f.guestList()[i]
				if s.Err != nil {
					found = append(found, s.Err.Error())
				}
				found = append(found, g.remains(s)...)
			}
			return len(found) == 0
		})
		for _, what := range found {
			f.tally.wrong(func(o *ops) { o.Back++ }, "at the end the store has %s", what)
		}
		if ctx.Err() != nil {
			return err
		}
		return nil
	})
}

// remains returns the fields of the store with keys of the guest's destroyed ring.
func (g *guest) remains(s rotation.Snapshot) (found []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead == nil || g.dead.known.IsZero() {
		return nil
	}
	for name := range s.Fields {
		kind, kid, _ := strings.Cut(name, ":")
		if _, dead := g.kids[kid]; dead && (kind == "k" || kind == "v") {
			found = append(found, name+" of "+g.tenant.name)
		}
	}
	return found
}
