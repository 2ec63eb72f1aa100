package synced

import (
	"sync/atomic"
	"time"
	"unique"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has how a ring's copy lies in memory. A large keyring holds a hundred thousand rings, and looks
// up the keys of a few. So a ring is packed until a lookup asks for one of its keys: then it takes a third
// of the memory, and the garbage collector has nothing to look through. A reader of a packed
// ring gets a copy of its own, which is not kept.
//
// A key that a lookup has got must be told when it ends. So a ring is never packed again once it has made a
// key, and a copy of a packed ring makes none: see [Ring.Live].

// A node is the copy of a ring, in one of two forms, with what polls ask of every ring. It is immutable.
type node struct {
	whole  *held.Ring // nil if it is packed
	packed string
	policy unique.Handle[ring.Policy] // of the newest record; zero without a record
	ends   string                     // what it adds to the digest of [Bucket.endsDigest]: see [seal.EndsText]
}

// A cell has the copy of a ring.
type cell struct{ node atomic.Pointer[node] }

// newNode returns the node of a copy: packed, unless some parts cannot be or live says that its keys are in
// use.
func newNode(tenant string, c *held.Ring, live bool) *node {
	n := &node{ends: string(seal.EndsText(c.Ends(tenant)))}
	if newest := c.Newest(); newest != nil {
		n.policy = unique.Make(newest.Timing)
	}
	ok := false
	if !live {
		n.packed, ok = c.Pack()
	}
	if !ok {
		n.whole, n.packed = c, ""
	}
	return n
}

// ring returns the copy. n may be nil.
func (n *node) ring(tenant string) *held.Ring {
	switch {
	case n == nil:
		return nil
	case n.whole != nil:
		return n.whole
	}
	return held.Unpack(tenant, n.packed)
}

// newest returns the policy of the newest record, and whether there is one. n may be nil.
func (n *node) newest() (policy ring.Policy, ok bool) {
	if n == nil || n.policy == (unique.Handle[ring.Policy]{}) {
		return ring.Policy{}, false
	}
	return n.policy.Value(), true
}

// Known reports whether anything is known of the ring: whether Copy returns one.
func (r *Ring) Known() bool { return r.opened().known() }

// The methods whose names begin small are those of that name, of the loop, which opens the rings itself.

func (r *Ring) known() bool                           { return r.state.node.Load() != nil }
func (r *Ring) copy() *held.Ring                      { return r.read(r.state.node.Load()) }
func (r *Ring) policy() (policy ring.Policy, ok bool) { return r.state.node.Load().newest() }

// Copy returns what this instance knows of the ring, or nil for nothing. Nothing may look up keys in it: see
// Live.
func (r *Ring) Copy() *held.Ring { return r.opened().copy() }

// read returns the copy of a node. That of a packed ring was told when its keys end, and no sync tells it
// again.
func (r *Ring) read(n *node) *held.Ring {
	c := n.ring(r.Tenant)
	if n != nil && n.whole == nil {
		c.ApplyEnds(nil, r.syncStatus().Complete)
	}
	return c
}

// For returns what Live does if the ring has a key of that kid, and else what Copy does: a token with a
// kid that does not exist must not cost memory. An empty kid stands for all keys whose tokens have none.
func (r *Ring) For(kid string) *held.Ring {
	n := r.opened().state.node.Load()
	if c := r.read(n); n == nil || n.whole != nil || !c.Names(kid) {
		return c
	}
	return r.Live()
}

// Policy returns the policy of the newest record, and whether there is one.
func (r *Ring) Policy() (policy ring.Policy, ok bool) { return r.opened().policy() }

// Accepted returns the accepted keys of the ring: see [held.Ring.ListAccepted].
func (r *Ring) Accepted(now time.Time) []ring.Accepted {
	if n := r.opened().state.node.Load(); n != nil {
		return n.whole.ListAccepted(now) // a ring that is packed has none
	}
	return nil
}

// ends returns what r adds to the digest of the facts that end trust.
func (r *Ring) ends() string {
	if n := r.state.node.Load(); n != nil {
		return n.ends
	}
	return ""
}

// Live returns what Copy does, for a caller that looks up keys in it or withdraws them: the keys of the
// result are told their ends from now on.
func (r *Ring) Live() *held.Ring {
	r.opened()
	for {
		n := r.state.node.Load()
		if n == nil || n.whole != nil {
			return n.ring(r.Tenant)
		}
		c := r.read(n)
		// The bucket has it first, so that no sync passes over it.
		r.bucket.lived(r)
		if r.state.node.CompareAndSwap(n, &node{whole: c, policy: n.policy, ends: n.ends}) {
			if r.removed.Load() {
				c.WithdrawAll()
			}
			return c
		}
	}
}

// set makes c the copy of r, and notes when to look at it again. See [Ring.set]. At the first look, what signs
// is no news.
func (k *Rings) set(r *Ring, c, old *held.Ring) {
	r.set(c, old)
	now := k.cfg.Now()
	k.look(r, c, now)
	switch {
	case k.cfg.OneShot:
	case r.looked:
		k.watching.put(r, now) // the log is written after the poll
	default:
		k.logSigner(r, c, now)
	}
}

// set makes c the copy of r. old is the one that c was made from. Only the loop calls it, and one goroutine
// for a ring. Its keys verify nothing if r was removed: either this call sees that, or [Rings.Remove] sees c.
func (r *Ring) set(c, old *held.Ring) {
	for {
		n := r.state.node.Load()
		live := n != nil && n.whole != nil
		if live && n.whole != old {
			c, old = c.Sharing(n.whole), n.whole // a lookup has got keys of it meanwhile
		}
		next := newNode(r.Tenant, c, live)
		if next.whole != nil && !live {
			r.bucket.lived(r)
		}
		if next.whole != nil {
			c.ApplyEnds(old, r.syncStatus().Complete)
		}
		if r.state.node.CompareAndSwap(n, next) {
			break
		}
	}
	if r.removed.Load() {
		r.copy().WithdrawAll()
	}
}
