package rotation

import (
	"context"
	"fmt"
	"slices"
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
	in, err := keks.sealing().In(k.cfg.Realm)
	if err != nil {
		return err
	}
	if len(in.Names()) == 0 {
		return &ring.Error{Text: "SetKEKs needs a KEK"}
	}
	for _, r := range k.allRings() {
		if name, lacks := r.state.Load().LacksKEK(in); lacks {
			return &ring.Error{Kind: seal.ErrWrongKEK, Text: fmt.Sprintf("the new KEKs lack %v, which the ring of tenant %q needs: keep it until keyturn keys rekey is done", name, r.tenant)}
		}
	}
	k.keks.Store(in)
	k.cfg.Logger.Info("the KEKs were replaced", "keks", in.IDs())
	for i := range k.byIndex {
		k.loop.nudge(i) // unreadable rings are dirty, so a sync reads them
	}
	return nil
}

// agree notes in b whether a new tenant key may be made under this process's primary KEK: all live
// instances have the same. It asks only where the tenant key in use was made under another one.
// Without that, two halves of a fleet that get a new KEK one after the other would each make
// another tenant key with every mint.
func (r *Rotator) agree(ctx context.Context, b *base) error {
	if b.have.Born() == b.Primary {
		b.Agreed = true
		return nil
	}
	if b.have.Newest() == nil {
		return nil
	}
	live, err := r.roster(ctx, b.Tenant, true)
	if err != nil {
		return err
	}
	b.Agreed = protocol.AgreeOn(b.Primary, live.views)
	for _, a := range live.views {
		if a.Unreadable || len(a.KEKs) == 0 || a.KEKs[0] != b.Primary {
			b.others = append(b.others, a.Instance)
		}
	}
	return nil
}

// allHold refuses a change that is to be sealed under a KEK that a live instance lacks.
func (r *Rotator) allHold(ctx context.Context, tenant string, name seal.KEKName) error {
	live, err := r.roster(ctx, tenant, true)
	if err != nil {
		return err
	}
	if lack := protocol.AllHold(held.KEK(name), live.views); len(lack) > 0 {
		return &ring.RefusedError{Tenant: tenant, Reason: fmt.Sprintf("these instances lack KEK %v, and could not open it: %s; give them the KEK first", name, strings.Join(lack, ", "))}
	}
	return nil
}

// DryRun makes [Rotator.Rekey] look, and change nothing.
func DryRun(o *options) { o.dryRun = true }

// Rekey seals a ring under the primary KEK: all tenant keys are wrapped again, all facts and the
// head sealed again, in one change. Afterwards nothing of the ring needs another KEK. Keys that are
// minted later are sealed under a new tenant key, which no older KEK has ever opened; keys that
// exist already keep theirs: see [ring.Rekeyed].
//
// It is refused ([ErrRefused]) as long as a live instance has another primary KEK. With [DryRun] it
// only reports.
func (r *Rotator) Rekey(ctx context.Context, tenant string, opts ...Option) (ring.Rekeyed, error) {
	o := optionsOf(opts)
	var report ring.Rekeyed
	p, _, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) {
		report = b.rekeyed()
		if err := b.Ring(); err != nil || o.dryRun || len(report.Others) == 0 {
			return nil, err
		}
		if len(b.others) > 0 {
			return nil, &ring.RefusedError{Tenant: tenant, Reason: fmt.Sprintf("these instances do not have KEK %v first: %s; make it the first line of their KEKs, and wait a minute for those that have ended",
				report.Primary, strings.Join(b.others, ", "))}
		}
		return b.Rekey()
	})
	report.Changed = p != nil
	return report, err
}

// rekeyed returns under which KEKs the ring is.
func (b *base) rekeyed() ring.Rekeyed {
	report := ring.Rekeyed{Tenant: b.Tenant, Primary: b.keks.Primary().String(), Others: make(map[string][]string)}
	for field, name := range seal.UnderKEKs(b.fields) {
		if held.KEK(name) != b.Primary {
			report.Others[name.String()] = append(report.Others[name.String()], field)
		}
		b.SealedUnder = append(b.SealedUnder, held.KEK(name))
	}
	for _, fields := range report.Others {
		slices.Sort(fields)
	}
	slices.Sort(b.SealedUnder)
	b.SealedUnder = slices.Compact(b.SealedUnder)
	for _, r := range b.have.All() {
		if b.have.BornOf(r) != b.Primary && !b.have.Revoked(r.KID) {
			report.OldKeys = append(report.OldKeys, r.KID)
		}
	}
	return report
}

// applyUnwhole makes a change of a ring of which a field cannot be opened. decide may only add a
// revocation. It is sealed under the KEK that the ring is under, as far as that can be told, and
// every live instance must have that KEK: otherwise one wrong KEK file would fence the fleet.
func (r *Rotator) applyUnwhole(ctx context.Context, tenant string, decide decision) (*protocol.Proposal, Result, error) {
	var mine *held.Ring
	if tr := r.k.ring(tenant); tr != nil {
		mine = tr.state.Load()
	}
	for attempt := range maxAttempts {
		if attempt > 0 {
			if err := r.pause(ctx, attempt); err != nil {
				return nil, Result{}, err
			}
		}
		b, err := r.load(ctx, tenant, mine)
		if b == nil {
			return nil, Result{}, err
		}
		if err := checkClock(b.read, b.sent, b.received, b.have.ClockSkew()); err != nil {
			return nil, Result{}, inTenant(tenant, err)
		}
		b.unwhole, b.under = true, b.underKEK()
		if err := r.allHold(ctx, tenant, b.under); err != nil {
			return nil, Result{}, err
		}
		p, err := decide(b)
		if err != nil || p == nil {
			return nil, Result{}, err
		}
		result, err := r.write(ctx, b, p)
		if err != nil {
			return nil, Result{}, err
		}
		if result.Code == Committed {
			r.remember(ctx, tenant, p)
			return p, result, nil
		}
	}
	return nil, Result{}, errBusy(tenant)
}

// underKEK returns the KEK of a tenant key of the ring that this process has, or the primary.
func (b *base) underKEK() seal.KEKName {
	for field, name := range seal.UnderKEKs(b.fields) {
		if strings.HasPrefix(field, seal.PrefixKey) && b.keks.Has(name) {
			return name
		}
	}
	return b.keks.Primary()
}

// revoke decides about a revocation, also where the ring is not whole.
func (b *base) revoke(kid string, force bool) (*protocol.Proposal, error) {
	if !b.unwhole {
		return b.Revoke(kid, force)
	}
	_, exists := b.fields[seal.PrefixRecord+kid]
	return b.RevokeUnwhole(kid, exists, force)
}
