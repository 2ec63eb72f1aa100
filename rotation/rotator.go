package rotation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Rotator rotates keys: by itself in [Rotator.Run], and on command. Any number of them may work
// on the same store. Each decides on the ring as the store has it at that moment, by the store's
// clock, and the store makes the change only if the ring is still the same. So of several that see
// the same due ring one mints, and the others find the work done. A Rotator is safe for concurrent
// use and holds no goroutine of its own.
//
// Besides what each method says, its errors wrap [keystore.ErrUnavailable] if the store cannot be
// reached, this instance is out of sync or recovering, or a field of the ring cannot be opened.
// Then nothing was changed, unless the error says that this is not known. An error that is
// [ErrRefused] means that the change would cost tokens: see [RefusedError]. [keystore.ErrNotFound]
// means that the tenant has no ring, or the ring no such key. Each call of the store may take as
// long as [Config.Deadline].
type Rotator struct {
	k *Keyring

	mu     sync.Mutex // guards jitter; held for one draw, with no other mutex
	jitter *rand.Rand // spreads the instances that lost a race and decide again
}

// NewRotator returns a Rotator of the rings that k holds. It starts nothing: call [Rotator.Run].
func NewRotator(k *Keyring) (*Rotator, error) {
	if k == nil {
		return nil, &ring.Error{Text: "NewRotator needs a Keyring"}
	}
	return &Rotator{k: k, jitter: held.NewJitter(k.cfg.Instance, 1)}, nil
}

// An Option changes how a Rotator makes one change: [Force], [DryRun] and [Again].
type Option func(*options)

// options are the sum of a call's Options.
type options struct{ force, dryRun, again bool }

// Force makes a change that would be refused because it costs tokens. Instances that have not heard
// of the key that signs then reject its tokens, or answer that they cannot tell, until they have.
// If that key was minted less than Dwell ago, the key before it signs on until Dwell is over: see
// [Receipt]. Force does not override the limit of [ring.MaxPublished] public keys.
func Force(o *options) { o.force = true }

// optionsOf returns what opts say together.
func optionsOf(opts []Option) (o options) {
	for _, set := range opts {
		set(&o)
	}
	return o
}

// on returns decide with the options that say whether its change is made. A change to an algorithm that
// a live instance does not verify is refused, unless it is forced or revokes a key.
func (o options) on(decide decision) decision {
	return func(b *base) (*protocol.Proposal, error) {
		b.dryRun = o.dryRun
		p, err := decide(b)
		if err == nil && p != nil && p.Op != ring.OpRevoke && !o.force {
			err = b.CheckVerified(p, b.live)
		}
		return p, err
	}
}

// DryRun makes a method of a [Rotator] change nothing. Its errors are those of the change. Its Receipt
// says what the change would cost: Minted, CommittedAt and Place are zero.
func DryRun(o *options) { o.dryRun = true }

// A Receipt says what a change did and what it cost. Times are by the store's clock. A field that
// does not apply is zero. The store may still lose a change for Dwell after CommittedAt, in a
// failover; this instance and each that has read it restore it.
type Receipt struct {
	Tenant   string // whose ring it is
	Revoked  string // the kid of the key that was revoked
	Promoted string // the kid of the key that signs from now on
	Minted   string // the kid of the new key
	Adopted  string // the kid of the imported key, for people if its tokens have none

	// Replaced are the kids of keys that waited behind a key with Hold, and were revoked with this
	// change. They have signed no token.
	Replaced []string

	Accepted    []string  // the kids of the keys that [Rotator.Accept] was given, in that order
	DestroyedAt time.Time // when the ring was destroyed; earlier than the call if it was destroyed before

	RevokedAt time.Time // when Revoked was revoked; earlier than the call if it was revoked before
	SignsFrom time.Time // when Minted takes effect, unless it is promoted or revoked before; zero if it waits

	// ConfirmedAt is when Promoted signs, if it was forced within Dwell. Until then the one before does.
	ConfirmedAt time.Time

	// NoSignerUntil is the time until which no instance signs for the tenant: a forced revocation left
	// it without a known key, or none may sign until ConfirmedAt. Or a pending key was revoked just
	// before it took effect: then the key before it signs until that moment, and not again before no
	// failover can lose the revocation. Afterwards an instance signs from its next poll on.
	NoSignerUntil time.Time

	// TokensUntil is the time until which tokens may live of the key that does not sign any more: of
	// Revoked, whose tokens are rejected from now on, or of the key before Promoted, which verifies
	// until then. Of a key that was Adopted it is the same, once Minted signs; programs that sign with
	// it must stop before that. It is zero if that key has signed nothing, or Minted waits.
	TokensUntil time.Time

	// WorstCase is the time until which an instance that is cut off from the store accepts tokens
	// of the revoked key: Dwell + SignFor + MaxTokenTTL + Leeway after the change.
	WorstCase time.Time

	// ReadersUntil is the time until which readers of the JWK Set accept tokens of the revoked key,
	// because they may keep the set for ReaderStaleness. It is a minute at least: a jwks.Client keeps
	// a set for as long, whatever its max-age.
	ReadersUntil time.Time

	losses uint64 // of the ring in the store, when the change was made: see [Rotator.Await]
	before []Ack  // of the instances that were live before the change
	told   int    // see [Result]

	CommittedAt time.Time // when the store made the change; zero if there was nothing to change
	Place       Place     // of the change in its bucket's log, for [Rotator.Acks]
}

// Create makes the first ring of a tenant: one key that signs now, and one that is pending. Zero
// fields of policy take their defaults. Call it once for each tenant, from one place, such as a
// command or the code that adds a customer.
//
// It is refused ([ErrRefused]) if the store or this instance has a ring of the tenant, or if a live
// instance lacks the primary KEK of this process, and so could not open the ring. It does not
// wait until the instance stops recovering: the caller says that there is no ring to be restored.
// The error is a [*PolicyError] if the policy does not hold. Minted of the Receipt is the key that
// signs.
//
// The name of a ring that was destroyed is refused, unless [Again] says that the tenant is to have
// another one. Its former keys stay destroyed.
func (r *Rotator) Create(ctx context.Context, tenant string, policy ring.Policy, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	return r.found(ctx, tenant, policy, options{}, func(b *base, policy ring.Policy) (*protocol.Proposal, error) { return b.Create(policy, o.again) })
}

// found makes the first ring of a tenant, as decide says. It gives it the policy with its defaults.
func (r *Rotator) found(ctx context.Context, tenant string, policy ring.Policy, o options, decide func(*base, ring.Policy) (*protocol.Proposal, error)) (Receipt, error) {
	if !synced.IsTenant(tenant) {
		return Receipt{}, &ring.Error{Text: fmt.Sprintf("a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
	}
	policy, err := r.policy(policy)
	if err != nil {
		return Receipt{}, err
	}
	if err := r.allHold(ctx, tenant, r.k.keks.Load().Primary()); err != nil {
		return Receipt{}, err
	}
	_, receipt, err := r.change(ctx, tenant, func(ctx context.Context, tenant string) (*base, error) { return r.load(ctx, tenant, true) }, o.on(func(b *base) (*protocol.Proposal, error) {
		if err := protocol.CheckClock(b.Now, b.sent, b.received, policy.ClockSkew); err != nil {
			return nil, inTenant(tenant, err) // base knew of no policy, so it did not compare the clocks
		}
		return decide(b, policy)
	}))
	return receipt, err
}

// policy returns p with its defaults. The error says which inequality does not hold, or that this
// instance polls too seldom for its Freshness.
func (r *Rotator) policy(p ring.Policy) (ring.Policy, error) {
	if err := p.Validate(); err != nil {
		return p, err
	}
	p = p.WithDefaults()
	return p, r.k.rings.CheckTimes(p.Freshness)
}

// SetPolicy mints the next key of a tenant under another policy. The policy takes effect with that
// key, after the keys that are pending already; existing keys keep theirs. Where the signing key has
// Hold, the new key replaces the one that waits. Zero fields take their defaults, not the values of
// the old policy. The error is a [*PolicyError] if the policy does not hold. It is refused within
// Freshness + Dwell + ClockSkew of the last mint, and beyond [ring.MaxPublished] public keys. It is
// refused too while a live instance does not list the algorithm in its [Config.Verifies], unless
// [Force] is given.
func (r *Rotator) SetPolicy(ctx context.Context, tenant string, policy ring.Policy, opts ...Option) (Receipt, error) {
	policy, err := r.policy(policy)
	if err != nil {
		return Receipt{}, err
	}
	_, receipt, err := r.change(ctx, tenant, r.base, optionsOf(opts).on(func(b *base) (*protocol.Proposal, error) { return b.SetPolicy(policy) }))
	return receipt, err
}

// Rotate makes the next pending key sign now, and mints another if no other is pending. No token is
// rejected: the previous key verifies until its tokens have expired.
//
// It is refused until every instance and reader can know the pending key: Freshness + Dwell +
// ClockSkew after it was published, plus ReaderStaleness if others read the JWK Set.
// [Force] overrides that. If no key is pending, one is minted, and the error is a [*RefusedError]
// whose From says when it may sign; the Receipt is valid then.
func (r *Rotator) Rotate(ctx context.Context, tenant string, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	p, receipt, err := r.change(ctx, tenant, r.base, o.on(func(b *base) (*protocol.Proposal, error) { return b.Rotate(o.force) }))
	if err == nil && p.Op == ring.OpMint {
		minted, reason := receipt.CommittedAt, "no key was pending; this one was minted and has to become known first"
		if o.dryRun {
			minted, reason = p.Mint[0].Created, "no key is pending; one would be minted and has to become known first"
		}
		err = &ring.RefusedError{Tenant: tenant, KID: receipt.Minted, Reason: reason, From: minted.Add(p.VisibleAfter)}
	}
	return receipt, err
}

// Promote makes a pending key sign now, under the same conditions as [Rotator.Rotate], and mints
// nothing. Without [Force] it must be the next one.
func (r *Rotator) Promote(ctx context.Context, tenant, kid string, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	_, receipt, err := r.change(ctx, tenant, r.base, o.on(func(b *base) (*protocol.Proposal, error) { return b.Promote(kid, o.force) }))
	return receipt, err
}

// Revoke ends a key, of the ring or an accepted one: every instance rejects its tokens, live ones too, from its next nudge or poll
// on. Readers of the JWK Set do with their next refresh. [Rotator.Acks] says which instances have
// heard.
//
// If the key signs, the next pending key takes over in the same change. If no key is ready for
// that, Revoke is refused; also if no key signs and this one is the next, or if it signs until
// [Receipt].ConfirmedAt of another. With [Force] a new key is minted instead where none follows,
// and none signs until NoSignerUntil. Revoking a key again changes nothing, and returns when.
//
// A ring of which a field cannot be opened takes revocations too, but no other change: then no key
// takes over, and the signing key is revoked only with [Force]. The same holds for any key if
// nothing of the ring can be opened: the KEKs of this process may be those of another service.
func (r *Rotator) Revoke(ctx context.Context, tenant, kid string, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	var before Receipt
	decide := func(b *base) (*protocol.Proposal, error) {
		p, err := b.revoke(kid, o.force)
		if err == nil && p == nil {
			at, _ := b.Copy.Facts.At(ring.FactRevoked, kid)
			before = Receipt{Tenant: tenant, Revoked: kid, RevokedAt: at}
			before.WorstCase, before.ReadersUntil = b.WorstCase(kid)
		}
		return p, err
	}
	p, receipt, err := r.change(ctx, tenant, func(ctx context.Context, tenant string) (*base, error) {
		b, err := r.base(ctx, tenant)
		if parts := (*ring.UnreadableError)(nil); errors.As(err, &parts) {
			return r.unwhole(ctx, tenant, o.force)
		}
		return b, err
	}, o.on(decide))
	if err != nil || p == nil {
		return before, err
	}
	return receipt, nil
}

// Replace makes the next step by which leaked keys, those of kids, are replaced: another key is minted,
// made to sign, and then the leaked ones are revoked, one after the other. Call it until nothing is Left.
// Where it returns no Next, wait until From. The steps are told by the ring alone, so another process
// can go on. No instance is without a signer meanwhile, and only tokens of leaked keys are rejected.
//
// With [Force] nothing is waited for: the Replacement says what that costs. With [DryRun] nothing is
// changed. Before a step that revokes a key which has signed, wait until all instances have applied the
// step before it ([Rotator.Await]): one that has not signs tokens that will be rejected.
func (r *Rotator) Replace(ctx context.Context, tenant string, kids []string, opts ...Option) (ring.Replacement, Receipt, error) {
	o := optionsOf(opts)
	var outlook ring.Replacement
	_, receipt, err := r.change(ctx, tenant, r.base, o.on(func(b *base) (p *protocol.Proposal, err error) {
		if outlook, err = b.Outlook(kids, o.force); err != nil {
			return nil, err
		}
		p, _, err = b.Base.Replace(kids, o.force)
		return p, err
	}))
	return outlook, receipt, err
}

// receipt returns the Receipt of p, which was decided on b and which the store has made with that
// result.
func (b *base) receipt(p *protocol.Proposal, result Result) Receipt {
	receipt := Receipt{Tenant: b.Tenant, losses: b.losses, told: result.Told, CommittedAt: result.Now, Place: result.Place,
		ConfirmedAt: p.ConfirmedAt, NoSignerUntil: p.NoSignerUntil, TokensUntil: b.TokensUntil(p)}
	for _, f := range p.Facts {
		switch f.Kind {
		case ring.FactPromoted:
			receipt.Promoted = f.KID
		case ring.FactRevoked:
			if f.KID == p.KID {
				receipt.Revoked, receipt.RevokedAt = f.KID, f.At
				receipt.WorstCase, receipt.ReadersUntil = b.WorstCase(f.KID)
			} else {
				receipt.Replaced = append(receipt.Replaced, f.KID)
			}
		case ring.FactDestroyed:
			receipt.DestroyedAt = f.At
		}
	}
	if len(p.Mint) > 0 {
		minted := &p.Mint[0]
		if p.Op == ring.OpAdopt {
			minted = &p.Mint[1]
		}
		if receipt.Minted = minted.KID; !minted.Waits {
			receipt.SignsFrom = minted.ActivateAt
		}
	}
	if p.Op == ring.OpAdopt {
		receipt.Adopted = p.KID
	}
	return receipt
}
