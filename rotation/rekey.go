package rotation

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has the change of KEKs, and what depends on which KEKs the other instances have.

// SetKEKs replaces the KEKs of [Config], such as after a KEK file has changed. Rings that could not
// be opened are read again at once. It changes nothing and returns an error if the new KEKs lack
// one that a held ring needs: its keys could not sign any longer. keks must not be nil.
func (k *Keyring) SetKEKs(keks *KEKs) error {
	in, err := keks.sealing().In(k.cfg.Realm, k.cfg.OtherRealms...)
	if err != nil {
		return err
	}
	if len(in.Names()) == 0 {
		return &ring.Error{Text: "SetKEKs needs a KEK"}
	}
	for _, r := range k.rings.All() {
		if err := r.Copy().CheckKeeps(r.Tenant, in); err != nil {
			return err
		}
	}
	k.keks.Store(in)
	k.cfg.Logger.Info("the KEKs were replaced", "keks", in.IDs())
	k.rings.Nudge() // unreadable rings are dirty, so a sync reads them
	return nil
}

// agree notes in b whether a new tenant key may be made under this process's primary KEK: all live
// instances have the same. It asks only where the tenant key was made or is wrapped under another one.
// Without that, two halves of a fleet that get a new KEK one after the other would each make
// another tenant key with every mint.
func (r *Rotator) agree(ctx context.Context, b *base) {
	if b.have.Born() == b.Origin && b.Copy.SealingKEK() == b.Primary {
		b.Agreed = true
		return
	}
	live, err := r.roster(ctx, b.Tenant, true)
	b.others, b.roster, b.asked, b.unasked = live.NotFirst(b.Primary), live.Views, true, err
	b.Agreed = err == nil && len(b.others) == 0
}

// allHold refuses a change that is to be sealed under a KEK that a live instance lacks.
func (r *Rotator) allHold(ctx context.Context, tenant string, name seal.KEKName) error {
	live, err := r.roster(ctx, tenant, true)
	if err != nil {
		return err
	}
	return allHold(tenant, name, live.Views)
}

// allHold is [Rotator.allHold] for live instances that have been asked already.
func allHold(tenant string, name seal.KEKName, live []protocol.AckView) error {
	if lack := protocol.AllHold(held.KEK(name), live); len(lack) > 0 {
		return &ring.RefusedError{Tenant: tenant, Reason: fmt.Sprintf("these instances lack KEK %v, and could not open it: %s; give them the KEK first", name, strings.Join(lack, ", "))}
	}
	return nil
}

// Rekey seals a ring under the primary KEK, in [Config.Realm]: all tenant keys are wrapped again, all
// facts and the head sealed again, in one change. Afterwards nothing of the ring needs another KEK, or
// one of OtherRealms. Keys that are minted later are sealed under a new tenant key, which no older KEK
// has ever opened; keys that exist already keep theirs: see [ring.Rekeyed].
//
// It is refused ([ErrRefused]) as long as a live instance has another primary KEK, or is in another
// realm. [Force] overrides that: one that cannot open the ring then hears of no revocation, and stops
// to sign. With [DryRun] it only reports. CommittedAt is zero if there was nothing to change.
func (r *Rotator) Rekey(ctx context.Context, tenant string, opts ...Option) (ring.Rekeyed, Receipt, error) {
	o := optionsOf(opts)
	var report ring.Rekeyed
	p, receipt, err := r.change(ctx, tenant, r.base, func(b *base) (*protocol.Proposal, error) {
		report, b.SealedUnder = b.have.Rekeyed(tenant, b.keks, b.fields)
		if len(report.Others) > 0 && len(b.others) > 0 && !o.force && !o.dryRun {
			return nil, &ring.RefusedError{Tenant: tenant, Reason: held.NotFirstReason(b.keks, b.others)}
		}
		b.Agreed = b.Agreed || o.force || o.dryRun
		p, err := b.Rekey()
		if o.dryRun {
			p = nil
		}
		return p, err
	})
	report.Changed = p != nil
	return report, receipt, err
}

// unwhole reads a ring of which a field cannot be opened, for a revocation. That is sealed under the
// KEK of a tenant key that can be opened: every reader of the ring needs that KEK anyway, so no
// acknowledgement is asked, which a person could garble.
//
// If there is none, the KEKs of this process may be those of another service, and what it sealed would
// fence the fleet. So the caller has to say that they are right, by force.
func (r *Rotator) unwhole(ctx context.Context, tenant string, force bool) (*base, error) {
	var mine *held.Ring
	if tr := r.k.ring(tenant); tr != nil {
		mine = tr.Copy()
	}
	b, err := r.open(ctx, tenant, mine)
	if b == nil {
		return nil, err
	}
	if err := protocol.CheckClock(b.read, b.sent, b.received, b.have.ClockSkew()); err != nil {
		return nil, inTenant(tenant, err)
	}
	if b.under, b.unwhole = b.have.UnderKEK(b.keks), true; b.under == (seal.KEKName{}) {
		if b.under = b.keks.Primary(); !force {
			return nil, &ring.RefusedError{Tenant: tenant, Reason: fmt.Sprintf("nothing of its ring can be opened; force it if KEK %v of this process is right", b.under)}
		}
	}
	return b, nil
}

// revoke decides about a revocation, also where the ring is not whole.
func (b *base) revoke(kid string, force bool) (*protocol.Proposal, error) {
	if !b.unwhole {
		return b.Revoke(kid, force)
	}
	_, record := b.fields[seal.PrefixRecord+kid]
	_, accept := b.fields[seal.PrefixAccept+kid]
	return b.RevokeUnwhole(kid, record, accept, force)
}
