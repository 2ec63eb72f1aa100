package rotation

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// maxAttempts bounds how often a change is decided again because other rotators changed the ring
// first. The pauses in between grow, so a fleet that acts at one moment does not fail on each
// other's changes.
const maxAttempts = 12

// A decision decides about a change on a ring as the store has it. A nil proposal means that there
// is nothing to do. It may be called several times, on newer bases.
type decision func(*base) (*protocol.Proposal, error)

// A reading reads the ring that a change is decided on.
type reading func(ctx context.Context, tenant string) (*base, error)

// change is apply for a change that a person waits for: its Receipt says which instances were live
// before. Only a change to an algorithm that one of them does not verify is refused because of that: a
// person can garble acknowledgements.
func (r *Rotator) change(ctx context.Context, tenant string, read reading, decide decision) (*protocol.Proposal, Receipt, error) {
	live, err := r.roster(ctx, tenant, true)
	if err != nil {
		r.k.cfg.Logger.Warn("the instances are not known before a change", "tenant", tenant, "error", err)
	}
	p, receipt, err := r.apply(ctx, tenant, read, func(b *base) (*protocol.Proposal, error) {
		b.live = live.Views
		return decide(b)
	})
	receipt.before = live.Acks("")
	return p, receipt, err
}

// apply reads the ring, lets decide decide, and writes the change, until the store has made it or
// there is nothing to do; then the proposal is nil. With [DryRun] it writes nothing, and the receipt is
// that of a change that was made, without its time, its place and the new key.
func (r *Rotator) apply(ctx context.Context, tenant string, read reading, decide decision) (*protocol.Proposal, Receipt, error) {
	r.catchUp(ctx, tenant)
	minted := new(held.Material)
	for attempt := range maxAttempts {
		if attempt > 0 {
			if err := r.pause(ctx, attempt); err != nil {
				return nil, Receipt{}, err
			}
		}
		b, err := read(ctx, tenant)
		if err != nil {
			return nil, Receipt{}, err
		}
		minted.Again()
		b.minted, b.MakeKey = minted, minted.Mint
		p, err := decide(b)
		if err != nil || p == nil {
			return nil, Receipt{}, err
		}
		if b.dryRun {
			receipt := b.receipt(p, Result{})
			receipt.Minted = ""
			return p, receipt, nil
		}
		result, err := r.write(ctx, b, p)
		if err != nil {
			return nil, Receipt{}, err
		}
		if result.Code == Committed {
			if !b.untold {
				r.remember(ctx, tenant, p.Op, b)
			}
			return p, b.receipt(p, result), nil
		}
	}
	return nil, Receipt{}, &ring.Error{Text: fmt.Sprintf("the ring of tenant %q changes all the time", tenant), Err: keystore.ErrUnavailable}
}

// catchUp syncs a ring that is out of sync, so that a command does not have to be repeated after a
// poll. If that fails, [Rotator.base] refuses to decide.
func (r *Rotator) catchUp(ctx context.Context, tenant string) {
	tr := r.k.ring(tenant)
	if tr == nil || tr.SyncStatus().InSync(r.k.cfg.Now(), r.k.times.Load().Fresh) {
		return
	}
	if err := r.k.rings.Sync(ctx, tenant, nil); err != nil {
		r.k.cfg.Logger.Warn("a ring that is to be changed is out of sync", "tenant", tenant, "error", err)
	}
}

// pause waits before a change is decided again: for a random time that grows with the attempts, at
// most 256ms.
func (r *Rotator) pause(ctx context.Context, attempt int) error {
	r.mu.Lock()
	d := 1 + r.jitter.IntN(4<<min(attempt, 6))
	r.mu.Unlock()
	select {
	case <-ctx.Done():
		return &ring.Error{Err: unavailable(ctx.Err())}
	case <-time.After(time.Duration(d) * time.Millisecond):
		return nil
	}
}

// A base is a ring as the store had it at one moment, with its sealed bytes: the optimistic lock of
// a change. The change carries the digest, and the store makes it only if that is still the ring's.
type base struct {
	protocol.Base
	have      *held.Ring   // Base.Copy with its bytes
	mine      *held.Ring   // what this instance holds of the ring, or nil
	under     seal.KEKName // see [held.Sealer]
	keks      *seal.KEKs
	digest    string            // "" if there is no ring
	fields    map[string][]byte // of the ring
	unwhole   bool              // some field cannot be opened
	dryRun    bool              // nothing is to be written
	leaveHead bool              // the head cannot be opened, and may be another instance's later word
	others    []string          // instances that have another primary KEK, if that matters
	unasked   error             // why others is not known, or nil
	asked     bool              // roster has the live instances, unless unasked says why not
	roster    []protocol.AckView
	live      []protocol.AckView // of the instances before a change that a person waits for
	untold    bool               // this process has no use for the change, and does not read it back
	losses    uint64             // see synced.Ring.losses
	minted    *held.Material     // that Base.Mint makes
	foreign   []*seal.ForeignKey // see [held.Sealer]
	read      time.Time          // Now, with all its digits
	sent      time.Time          // before Now, by this instance's clock
	received  time.Time          // after Now, by this instance's clock
	written   synced.Written     // the change, once the store has made it
}

// base reads the ring as the store has it. It returns an error if nothing may be decided on it:
// this instance is out of sync, the ring cannot be opened or lacks something that this instance
// holds, or the clocks differ (invariant I10).
func (r *Rotator) base(ctx context.Context, tenant string) (*base, error) {
	return r.load(ctx, tenant, false)
}

// load is base, also where create says that no ring should exist yet. Then being out of sync is no
// obstacle, and only a ring that this instance holds is.
func (r *Rotator) load(ctx context.Context, tenant string, create bool) (*base, error) {
	tr := r.k.ring(tenant)
	if tr == nil && !(create && r.k.holdsAll()) {
		return nil, r.k.missingRing(tenant)
	}
	status, mine := new(synced.Status), (*held.Ring)(nil)
	if tr != nil {
		status, mine = tr.SyncStatus(), tr.Copy() // in this order: see synced.Ring
	}
	if err := r.notInSync(tr, create); err != nil {
		return nil, err
	}
	b, err := r.open(ctx, tenant, mine)
	if err != nil {
		return nil, err
	}
	r.agree(ctx, b)
	if r.lacks(b, mine, status) {
		return nil, inTenant(tenant, &ring.Error{Kind: keystore.ErrUnavailable, Text: "the store lacks what this instance holds; it is being put back"})
	}
	if err := protocol.CheckClock(b.read, b.sent, b.received, b.have.ClockSkew()); err != nil {
		return nil, inTenant(tenant, err)
	}
	return b, r.notInSync(tr, create) // a sync may have found something meanwhile
}

// open reads and opens the ring. Its error means that nothing is known of it: a field that cannot be
// opened may be a key or a revocation, so nothing is decided without it. Then the base has the
// fields that could be opened.
func (r *Rotator) open(ctx context.Context, tenant string, mine *held.Ring) (*base, error) {
	deadline := r.k.times.Load().Deadline
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	b := &base{mine: mine, keks: r.k.keks.Load()}
	if tr := r.k.ring(tenant); tr != nil {
		b.losses = tr.Losses.Load()
	}
	b.sent = r.k.cfg.Now()
	snap := r.k.store.Load(ctx, []string{tenant})[0]
	b.received = r.k.cfg.Now()
	if snap.Err != nil {
		return nil, inTenant(tenant, unavailable(snap.Err))
	}
	opened, err := seal.OpenRing(b.keks, tenant, snap.Fields)
	b.have = held.Open(mine, snap.Fields, opened)
	b.digest, b.read, b.fields = snap.Digest, snap.Now, snap.Fields
	b.Base = protocol.Base{Tenant: tenant, Now: protocol.WholeMillis(snap.Now), Deadline: deadline, Copy: b.have.Copy, Primary: held.KEK(b.keks.Primary()), Origin: held.Origin(b.keks.Primary())}
	if err != nil {
		return b, unavailable(err)
	}
	return b, nil
}

// lacks reports whether the store lacks something that this instance holds. It was lost, and a change
// decided without it could undo it.
func (r *Rotator) lacks(b *base, mine *held.Ring, status *synced.Status) bool {
	if mine == nil {
		return false
	}
	in := protocol.MergeInput{Held: mine.Copy, Stored: b.Copy, Now: b.Now, Good: status.Good, Complete: status.Complete, LocalNow: r.k.cfg.Now(), Deadline: b.Deadline}
	return protocol.Merge(in).Change != nil
}

// notInSync returns why this instance may not decide about tr, or nil. create is the caller's word
// that there is no ring, so there is nothing to be in sync with.
func (r *Rotator) notInSync(tr *synced.Ring, create bool) error {
	now := r.k.cfg.Now()
	if create || tr.SyncStatus().InSync(now, r.k.times.Load().Fresh) {
		return nil
	}
	s := r.k.status(tr, now)
	return inTenant(tr.Tenant, unavailable(s.Err))
}

// write seals p and asks the store to make the change. A revocation is made even where it is not known
// which KEKs the other instances have: see docs/decisions.md.
func (r *Rotator) write(ctx context.Context, b *base, p *protocol.Proposal) (Result, error) {
	if b.unasked != nil && p.Op != ring.OpRevoke && p.Op != ring.OpDestroy {
		return Result{}, b.unasked
	}
	c, err := r.k.rings.Seal(p, &held.Sealer{Tenant: b.Tenant, Have: b.have, Count: protocol.NextCount(b.Copy, b.mine.Plain()), Under: b.under, Fields: b.fields, Foreign: b.foreign}, b.digest, b.minted)
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.Deadline)
	defer cancel()
	sent := r.k.cfg.Now()
	result, err := r.k.store.Write(ctx, c)
	received := r.k.cfg.Now()
	switch {
	case err != nil && result.Code == NotMade:
		return Result{}, &ring.Error{Text: fmt.Sprintf("tenant %q: the change was not made", b.Tenant), Err: unavailable(err)}
	case err != nil:
		return Result{}, &ring.Error{Text: fmt.Sprintf("tenant %q: it is not known whether the change was made", b.Tenant), Err: unavailable(err)}
	case result.Code == Committed:
		b.written = synced.Written{Facts: p.Stated(), Base: b.digest, Ring: b.after(&c, &result), Sent: sent, Received: received}
		b.written.Note(&c)
	}
	return result, nil
}

// after returns the ring as the store has it once it has made c.
func (b *base) after(c *Change, result *Result) Snapshot {
	fields := make(map[string][]byte, len(b.fields)+len(c.Set))
	maps.Copy(fields, b.fields)
	for _, name := range c.Delete {
		delete(fields, name)
	}
	maps.Copy(fields, c.Set)
	for _, kid := range c.Publish {
		fields[seal.PrefixPublish+kid] = strconv.AppendInt(nil, result.Now.UnixMilli(), 10)
	}
	return Snapshot{Fields: fields, Digest: result.Digest, Now: result.Now}
}

// remember adds the change of b to the copy that this instance holds, and reads the ring
// again. The change is made whether or not that succeeds now: even if the store loses it at once,
// this instance knows it, and restores it, unless another instance has changed the ring since this one read it last.
// Then it knows what ends trust.
//
// A revoked key is withdrawn at once, and so are all keys of a ring that was destroyed: the caller may give up while the loop is busy with another
// sync, and this process must not accept such a key after it has said so.
func (r *Rotator) remember(ctx context.Context, tenant string, op ring.Op, b *base) {
	r.k.rings.Withdraw(tenant, b.written.Facts)
	if err := r.k.rings.Sync(ctx, tenant, &b.written); err != nil {
		r.k.cfg.Logger.Warn("a ring was changed, but could not be read again yet", "tenant", tenant, "op", string(op), "error", err)
	}
}
