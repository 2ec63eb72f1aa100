package protocol

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A world is one store and three instances, as plain values. It shares only immutable values with
// other worlds, so one world can have many futures.
type world struct {
	now       time.Time // by the store's clock
	minted    int       // keys so far, to name the next
	changes   int       // of the store so far, lost ones included
	store     []state   // its history, the newest last
	instances [3]instance
	collected []collection
	shredded  []Record  // the records of lives that have ended
	backup    *Copy     // of the store
	backupAt  time.Time // when it was made
	path      []string  // the steps so far
}

// A state is the content of the store after one change.
type state struct {
	id  int
	raw Copy  // the fields as they are
	c   *Copy // the ring that an instance reads
}

// An instance is the memory of one process.
type instance struct {
	held  *Copy
	trust SyncState
	seen  int           // the id of the state that it read last
	skew  time.Duration // its clock, less the store's
	gone  []string      // kids of collections that it has read of, and that it does not hold
}

// A collection is the removal of one record from the store.
type collection struct {
	Record
	by int // the id of the state after it
}

// newWorld returns an empty store, and three instances whose clocks differ by less than ClockSkew.
func newWorld() world {
	w := world{now: sec(0)}
	w.instances[1].skew, w.instances[2].skew = 400*time.Millisecond, -400*time.Millisecond
	w.push(Copy{})
	return w
}

// A step is something that can happen. It reports whether it could happen.
type step struct {
	name string
	do   func(w *world) (bool, error)
}

// after returns the world after s. The error says which rule is broken, and by which steps.
func (w world) after(s step) (world, bool, error) {
	next := w.fork()
	next.path = append(next.path, s.name)
	ok, err := s.do(&next)
	if err == nil && ok {
		err = next.check(&w)
	}
	if err != nil {
		err = fmt.Errorf("%w\nafter: %s", err, strings.Join(next.path, "; "))
	}
	return next, ok, err
}

// fork returns w with slices that can be appended to.
func (w *world) fork() world {
	f := *w
	f.store, f.collected, f.path = slices.Clip(w.store), slices.Clip(w.collected), slices.Clip(w.path)
	f.shredded = slices.Clip(w.shredded)
	return f
}

func (w *world) push(raw Copy) {
	w.changes++
	w.store = append(w.store, state{w.changes, raw, NewCopy(raw)})
}

func (w *world) top() *state { return &w.store[len(w.store)-1] }

// clock returns the time by the clock of an instance.
func (w *world) clock(i int) time.Time { return w.now.Add(w.instances[i].skew) }

// A merger is Merge, or checkedMerge.
type merger func(MergeInput) (MergeResult, error)

func plainMerge(in MergeInput) (MergeResult, error) { return Merge(in), nil }

// sync lets instance i read the store, and write back the records and facts that the store lacks.
func (w *world) sync(i int, merge merger) error {
	me := &w.instances[i]
	in := MergeInput{Held: me.held, Stored: w.top().c, Now: w.now, LocalNow: w.clock(i), Good: me.trust.Good, Complete: me.trust.Complete, Deadline: roundDeadline}
	result, err := merge(in)
	if err != nil {
		return err
	}
	lostPlace := !w.has(me.seen)
	me.held = result.Union
	if result.Change != nil {
		raw, err := apply(w.top().raw, result.Change, in.Held, w.now)
		if err != nil {
			return err
		}
		w.push(raw)
		me.held = result.Healed
	}
	me.seen, me.gone = w.top().id, w.learnGone(*me)
	r := SyncReading{Sent: w.clock(i), Resync: lostPlace, Trusted: w.changes == 1}
	me.trust = me.trust.After(r, Limits{Fresh: round.Freshness, Recover: 4 * time.Second})
	return nil
}

// has reports whether the store has not lost the change to the state of that id.
func (w *world) has(id int) bool {
	return slices.ContainsFunc(w.store, func(s state) bool { return s.id == id })
}

// learnGone returns the gone of an instance that has just read the store.
func (w *world) learnGone(me instance) (gone []string) {
	for _, c := range w.collected {
		if known := w.has(c.by) || slices.Contains(me.gone, c.KID); known && me.held.Find(c.KID) == nil {
			gone = append(gone, c.KID)
		}
	}
	return gone
}

// change lets instance i sync, decide about a change of the ring that the store has then, and make
// the change. As in package rotation, a recovering instance decides nothing.
func (w *world) change(i int, decide func(b *Base) (*Proposal, error)) (bool, error) {
	if err := w.sync(i, checkedMerge); err != nil || w.instances[i].trust.Recovering {
		return true, err
	}
	stored := spread(w.top().c)
	before := whole(stored)
	b := &Base{Tenant: "acme", Now: w.now, Deadline: roundDeadline, Copy: stored}
	b.MakeKey = func(ring.Policy) (string, error) {
		w.minted++
		return fmt.Sprintf("k%d", w.minted), nil
	}
	p, refused := decide(b)
	if err := unchanged("a decision", before, stored); err != nil {
		return false, err
	}
	if refused != nil || p == nil {
		return false, nil
	}
	for _, kid := range p.RemoveAccepts {
		if a := b.Copy.FindAccept(kid); a != nil && w.now.Before(b.Copy.Facts.Accepted(a.AcceptRecord).Until.Add(round.Leeway)) {
			return false, fmt.Errorf("the accepted key %s is collected before its end", kid)
		}
	}
	for _, r := range w.top().c.Records {
		if slices.Contains(p.Remove, r.KID) {
			w.collected = append(w.collected, collection{r, w.changes + 1})
		}
		if p.Sweep {
			w.shredded = append(w.shredded, r)
		}
	}
	raw, err := apply(w.top().raw, p, w.instances[i].held, w.now)
	if err != nil {
		return false, err
	}
	w.push(raw)
	return true, w.sync(i, checkedMerge)
}

// apply returns the content of the store once p is made by a holder of held. Restored records come
// from there.
func apply(raw Copy, p *Proposal, held *Copy, now time.Time) (Copy, error) {
	out := Copy{Head: max(raw.Head, p.Head), Count: raw.Count, Facts: raw.Facts.Clone(), TenantKeys: []TenantKey{{ID: "t"}}}
	if !p.LeaveHead {
		out.Count = NextCount(&raw, held)
	}
	out.Records, out.Accepts, out.Published = slices.Clone(raw.Records), slices.Clone(raw.Accepts), slices.Clone(raw.Published)
	publish := func(r Record) {
		out.Records = slices.DeleteFunc(out.Records, func(o Record) bool { return o.KID == r.KID }) // the store overwrites a field
		out.Records = append(out.Records, r)
		out.Published = append(out.Published, Publication{KID: r.KID, At: now})
	}
	for i := range p.Mint {
		publish(Record{Record: &p.Mint[i], TenantKey: "t", Sum: sha256.Sum256(fmt.Append(nil, p.Mint[i]))})
	}
	for _, kid := range p.Restore {
		i := slices.IndexFunc(held.Records, func(r Record) bool { return r.KID == kid })
		publish(held.Records[i])
	}
	accept := func(a Accept) {
		out.Accepts = slices.DeleteFunc(out.Accepts, func(o Accept) bool { return o.KID == a.KID })
		out.Accepts = append(out.Accepts, a)
	}
	for i := range p.Accept {
		accept(Accept{AcceptRecord: &p.Accept[i], TenantKey: "t", Sum: sha256.Sum256(fmt.Append(nil, p.Accept[i]))})
	}
	for _, kid := range p.RestoreAccepts {
		accept(*held.FindAccept(kid))
	}
	bounds := slices.Clone(p.Bounds)
	for _, f := range p.Facts {
		bounds = append(bounds, ring.Bound{At: f.At, From: f.From, To: f.To})
		switch f.Kind {
		case ring.FactDestroyed:
			out.Facts.Kill(f.Life, f.At)
		case ring.FactCollected:
			if f.Life == out.Facts.Dead {
				out.Facts.CollectedUntil = f.At
			}
		default: // the store overwrites a field, and joins nothing
			out.Facts.Forget(f.Kind, f.KID)
			out.Facts.Add(f.Kind, f.KID, f.At)
		}
	}
	for _, b := range bounds {
		if b.At.Before(now.Add(b.From)) || b.At.After(now.Add(b.To)) {
			return raw, fmt.Errorf("the store refuses %s: %v is not within %v and %v of %v", p.Op, b.At, b.From, b.To, now)
		}
	}
	remove(&out, p.Remove)
	out.Accepts = slices.DeleteFunc(out.Accepts, func(a Accept) bool { return slices.Contains(p.RemoveAccepts, a.KID) })
	out.Facts = out.Facts.Prune(func(id ring.FactID) bool {
		kid, _, ok := id.AcceptedKey()
		return !ok || !slices.Contains(p.RemoveAccepts, kid)
	})
	switch {
	case p.Sweep:
		out.Records, out.Accepts, out.Published, out.TenantKeys = nil, nil, nil, nil
		out.Facts = out.Facts.Prune(func(ring.FactID) bool { return false })
	case len(out.Records) == 0:
		out.TenantKeys = raw.TenantKeys
	}
	return out, nil
}

// remove removes records, and all facts about them except a revocation.
func remove(c *Copy, kids []string) {
	c.Records = slices.DeleteFunc(c.Records, func(r Record) bool { return slices.Contains(kids, r.KID) })
	c.Published = slices.DeleteFunc(c.Published, func(p Publication) bool { return slices.Contains(kids, p.KID) })
	c.Facts = c.Facts.Prune(func(id ring.FactID) bool { return id.Kind == ring.FactAccepted || !slices.Contains(kids, id.KID) })
}

// steps returns all steps of the first n instances.
func steps(n int) []step {
	all := []step{wait(3), wait(9), wait(40), loseNewest, loseAll, putBack, revive, backUp, restore}
	for i := range n {
		all = append(all, step{fmt.Sprintf("%d syncs", i), func(w *world) (bool, error) { return true, w.sync(i, checkedMerge) }})
		all = append(all, step{fmt.Sprintf("%d restarts", i), func(w *world) (bool, error) {
			w.instances[i] = instance{skew: w.instances[i].skew}
			return true, nil
		}})
		all = append(all, changes(i)...)
	}
	return all
}

// changes are the decisions of instance i.
func changes(i int) []step {
	decision := func(name string, decide func(b *Base) (*Proposal, error)) step {
		return step{fmt.Sprintf("%d %s", i, name), func(w *world) (bool, error) { return w.change(i, decide) }}
	}
	return []step{
		decision("creates", func(b *Base) (*Proposal, error) { return b.Create(round, false) }),
		decision("creates again", func(b *Base) (*Proposal, error) { return b.Create(round, true) }),
		decision("shreds", (*Base).Destroy),
		decision("adopts", func(b *Base) (*Proposal, error) { return b.Adopt(adopted(false), round) }),
		decision("adopts and holds", func(b *Base) (*Proposal, error) { return b.Adopt(adopted(true), round) }),
		decision("revokes strays", func(b *Base) (*Proposal, error) { return b.RevokeStray(), nil }),
		decision("mints", (*Base).MintDue),
		decision("mints ahead", func(b *Base) (*Proposal, error) { return b.SetPolicy(round) }),
		decision("rotates", func(b *Base) (*Proposal, error) { return b.Rotate(false) }),
		decision("rotates by force", func(b *Base) (*Proposal, error) { return b.Rotate(true) }),
		decision("promotes the last by force", func(b *Base) (*Proposal, error) { return b.Promote(lastPending(b), true) }),
		decision("revokes the signer", func(b *Base) (*Proposal, error) { return b.Revoke(signer(b), false) }),
		decision("revokes the signer by force", func(b *Base) (*Proposal, error) { return b.Revoke(signer(b), true) }),
		decision("revokes the last", func(b *Base) (*Proposal, error) { return b.Revoke(lastPending(b), false) }),
		decision("takes over", (*Base).TakeOver),
		decision("creates with the kids of before", func(b *Base) (*Proposal, error) {
			made := 0
			b.MakeKey = func(ring.Policy) (string, error) { made++; return fmt.Sprintf("k%d", made), nil }
			return b.Create(round, false)
		}),
		decision("accepts for 30s", func(b *Base) (*Proposal, error) { return b.Accept(request("v"), at(b.Now, 30)) }),
		decision("accepts for 100s", func(b *Base) (*Proposal, error) { return b.Accept(request("v"), at(b.Now, 100)) }),
		decision("accepts the kid of a key", func(b *Base) (*Proposal, error) { return b.Accept(request("k1"), at(b.Now, 100)) }),
		decision("revokes an accepted key", func(b *Base) (*Proposal, error) { return b.Revoke("v", false) }),
		decision("collects", func(b *Base) (*Proposal, error) { return b.Collect(), nil }),
	}
}

// request asks to accept one key.
func request(kid string) []AcceptRequest {
	return []AcceptRequest{{AcceptRecord: ring.AcceptRecord{KID: kid, Algorithm: round.Algorithm}}}
}

func wait(s float64) step {
	return step{fmt.Sprintf("%vs pass", s), func(w *world) (bool, error) {
		w.now = at(w.now, s)
		return true, nil
	}}
}

// loseNewest is a failover that loses one change.
var loseNewest = step{"the newest change is lost", func(w *world) (bool, error) {
	if len(w.store) == 1 {
		return false, nil
	}
	w.store = slices.Clip(w.store[:len(w.store)-1])
	return true, nil
}}

// loseAll empties the store. Only instances can restore the ring.
var loseAll = step{"the store is emptied", func(w *world) (bool, error) {
	if len(w.store) == 1 {
		return false, nil
	}
	w.store = slices.Clip(w.store[:1])
	return true, nil
}}

// putBack writes a collected record into the store again, without the facts about it.
var putBack = step{"a collected record is put back", func(w *world) (bool, error) {
	if len(w.collected) == 0 {
		return false, nil
	}
	raw, c := w.top().raw, w.collected[len(w.collected)-1]
	if !w.has(c.by) || slices.ContainsFunc(raw.Records, func(o Record) bool { return o.KID == c.KID }) {
		return false, nil
	}
	raw.Records = append(slices.Clone(raw.Records), c.Record)
	w.push(raw)
	return true, nil
}}

// revive writes a record of a life that has ended into the store again, as an old dump does.
var revive = step{"a shredded record is put back", func(w *world) (bool, error) {
	raw := w.top().raw
	if len(w.shredded) == 0 {
		return false, nil
	}
	r := w.shredded[len(w.shredded)-1]
	if slices.ContainsFunc(raw.Records, func(o Record) bool { return o.KID == r.KID }) {
		return false, nil
	}
	raw.Records = append(slices.Clone(raw.Records), r)
	w.push(raw)
	return true, nil
}}

// signer returns the kid of the key that signs, or "".
func signer(b *Base) string {
	if k := b.Copy.Plan.Signer(b.Now); k != nil {
		return k.KID
	}
	return ""
}

// lastPending returns the kid of the pending key that is to sign last, or "".
func lastPending(b *Base) string {
	if pending := b.Copy.Plan.Pending(b.Now); len(pending) > 0 {
		return pending[len(pending)-1].KID
	}
	return ""
}
