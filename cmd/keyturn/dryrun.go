package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has --dry-run: what a change would cost, before it is made.

// dryRunHelp is what the help of each change says about --dry-run.
const dryRunHelp = `With --dry-run nothing is changed: it says what the change would cost. The exit code
is 0, or 1 if the change would be refused. With --json it prints {"dry_run","tenant",
"revoked","promoted","forced","forced_until","signs_from","confirmed_at",
"no_signer_until","tokens_until","worst_case","readers_until","readers_from","live",
"unread"}: "live" are the instances that live, and "unread" those of them that have not
read the key that would sign. "forced" says why the change would be refused without
--force, or is null, and until "forced_until" instances and readers may reject the new
tokens. Readers of the JWK Set know the key from "readers_from" on. Tokens may live until
"tokens_until" of the key that would be revoked, or of the one that signs now, which
verifies until then. The other names are those of the receipt.`

// A planJSON is what --dry-run --json prints.
type planJSON struct {
	DryRun        bool     `json:"dry_run"`
	Tenant        string   `json:"tenant"`
	Revoked       *string  `json:"revoked"`
	Promoted      *string  `json:"promoted"`
	Forced        *string  `json:"forced"`
	ForcedUntil   *string  `json:"forced_until"`
	SignsFrom     *string  `json:"signs_from"`
	ConfirmedAt   *string  `json:"confirmed_at"`
	NoSignerUntil *string  `json:"no_signer_until"`
	TokensUntil   *string  `json:"tokens_until"`
	WorstCase     *string  `json:"worst_case"`
	ReadersUntil  *string  `json:"readers_until"`
	ReadersFrom   *string  `json:"readers_from"`
	Live          []string `json:"live"`
	Unread        []string `json:"unread"`
}

// A plan is a change that is not made.
type plan struct {
	*keysCommand
	receipt rotation.Receipt
	ring    rotation.TenantStatus
	timing  rotation.Policy
	forced  *rotation.RefusedError
	live    []rotation.Ack
}

// preview prints what a change would cost.
func (c *keysCommand) preview(ctx context.Context, do ringChange) error {
	err := c.withRotator(ctx, settleNot, func(ctx context.Context, o *opened) error {
		before, err := ringOf(o.keyring, c.tenant.value)
		if err != nil {
			return err
		}
		receipt, forced, err := c.apply(ctx, o.rotator, do)
		if errors.Is(err, keystore.ErrNotFound) {
			return noSuchKey(c.tenant.value)
		}
		if err != nil {
			return err
		}
		p := &plan{keysCommand: c, receipt: receipt, ring: before, timing: newestTiming(before.Ring), forced: forced}
		if p.live, err = c.liveIn(ctx, o.rotator, c.tenant.value, p.timing); err != nil {
			return err
		}
		return c.print(p.shown())
	})
	return c.answer(err)
}

// shown returns the plan for people or, with --json, for programs.
func (p *plan) shown() string {
	if p.json {
		return p.object()
	}
	return p.text()
}

// noSuchKey returns an error for a kid that the ring of a tenant does not have.
func noSuchKey(tenant string) error {
	return exitf(exitNo, `tenant %s has no such key: "keyturn keys list --tenant TENANT" shows those that it has`, quoteShort(tenant))
}

// liveIn returns the acknowledgements of the live instances in the bucket of a tenant, sorted.
func (c *keysCommand) liveIn(ctx context.Context, r *rotation.Rotator, tenant string, timing rotation.Policy) ([]rotation.Ack, error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	acks, err := r.Acks(ctx, rotation.Receipt{Tenant: tenant})
	if err != nil {
		return nil, ringError(err)
	}
	acks = slices.DeleteFunc(acks, func(a rotation.Ack) bool { return c.now().Sub(a.At) > timing.Freshness })
	slices.SortFunc(acks, func(a, b rotation.Ack) int { return strings.Compare(a.Instance, b.Instance) })
	return acks, nil
}

// unreadBy returns the instances that have not read what the store has had since a moment, or of which
// that is not known.
func unreadBy(acks []rotation.Ack, since time.Time) []string {
	names := []string{}
	for _, a := range acks {
		read := placeTime(rotation.Place{ID: a.ReadTo}, time.Time{})
		if a.GoodSince.IsZero() || read.Before(since.Truncate(time.Millisecond)) {
			names = append(names, printable(a.Instance, false))
		}
	}
	return names
}

// published returns when the key that would sign was published.
func (p *plan) published() time.Time {
	for _, k := range p.ring.Ring.Keys {
		if k.KID == p.receipt.Promoted {
			return later(k.Created, p.ring.Published[k.KID])
		}
	}
	return time.Time{}
}

// unread returns the live instances that have not read the key that would sign.
func (p *plan) unread() []string {
	if p.receipt.Promoted == "" {
		return []string{}
	}
	return unreadBy(p.live, p.published())
}

// readersFrom returns from when on all readers of the JWK Set know the key that would sign, or zero.
func (p *plan) readersFrom() time.Time {
	if p.receipt.Promoted == "" || p.timing.Algorithm.Symmetric() {
		return time.Time{}
	}
	return p.published().Add(max(p.timing.ReaderStaleness, time.Minute))
}

func (p *plan) object() string {
	r := &p.receipt
	o := planJSON{
		DryRun: true, Tenant: r.Tenant, Revoked: orNull(r.Revoked), Promoted: orNull(r.Promoted), SignsFrom: when(r.SignsFrom), ConfirmedAt: when(r.ConfirmedAt),
		NoSignerUntil: when(r.NoSignerUntil), TokensUntil: when(r.TokensUntil), WorstCase: when(r.WorstCase), ReadersUntil: when(r.ReadersUntil),
		ReadersFrom: when(p.readersFrom()), Live: namesOf(p.live), Unread: p.unread(),
	}
	if p.forced != nil {
		o.Forced, o.ForcedUntil = &p.forced.Reason, when(p.forced.From)
	}
	return toJSON(o)
}

func namesOf(acks []rotation.Ack) []string {
	names := []string{}
	for _, a := range acks {
		names = append(names, printable(a.Instance, false))
	}
	return names
}

// text is for people.
func (p *plan) text() string {
	var b strings.Builder
	r := &p.receipt
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	b.WriteString("dry run: nothing is changed\n")
	switch {
	case p.isRevoked(r.Revoked):
		fmt.Fprintf(&b, "key %q of tenant %s was revoked already\n", r.Revoked, quoteShort(p.tenant.value))
		return b.String()
	case r.Revoked != "":
		fmt.Fprintf(&b, "key %q of tenant %s would be revoked\n", r.Revoked, quoteShort(p.tenant.value))
	default:
		fmt.Fprintf(&b, "key %q of tenant %s would sign\n", r.Promoted, quoteShort(p.tenant.value))
	}
	line("instances", "%s", p.heard())
	p.signers(line)
	p.costs(line)
	return b.String()
}

// isRevoked reports whether a key is revoked before the change.
func (p *plan) isRevoked(kid string) bool {
	return slices.ContainsFunc(p.ring.Ring.Keys, func(k ring.Key) bool { return k.KID == kid && k.State == ring.Revoked })
}

// heard says how many instances would have to hear of the change, and how many have not read the key
// that would sign.
func (p *plan) heard() string {
	if len(p.live) == 0 {
		return "none lives that could hear of it"
	}
	if unread := p.unread(); len(unread) > 0 {
		live := instances(len(p.live)) + " that live have"
		if len(p.live) == 1 {
			live = "1 instance that lives has"
		}
		return fmt.Sprintf("%d of %s NOT read the key yet (%s)", len(unread), live, strings.Join(unread, ", "))
	}
	if p.receipt.Promoted == "" {
		return instances(len(p.live)) + " would have to hear of it: " + strings.Join(namesOf(p.live), ", ")
	}
	return instances(len(p.live)) + " would have to hear of it, and have read the key: " + strings.Join(namesOf(p.live), ", ")
}

// signers writes which key would sign then, and until when none would.
func (p *plan) signers(line func(name, format string, args ...any)) {
	r, now := &p.receipt, p.now()
	if r.Revoked != "" && r.Promoted != "" {
		line("then signs", "key %q", r.Promoted)
	}
	if !r.NoSignerUntil.IsZero() {
		line("NO SIGNER", "until %s, %s: nothing could be signed for the tenant", r.NoSignerUntil.UTC().Format(milliseconds), since(r.NoSignerUntil.Add(time.Second-1), now))
	}
	if r.ConfirmedAt.After(now) {
		line("signs from", "%s (%s): a failover may lose the key until then", r.ConfirmedAt.UTC().Format(milliseconds), since(r.ConfirmedAt.Add(time.Second-1), now))
	}
	if !r.SignsFrom.IsZero() {
		line("minted", "one more key, to sign %s (%s)", since(r.SignsFrom, now), stamp(r.SignsFrom))
	}
}

// costs writes which tokens would be rejected, and by whom.
func (p *plan) costs(line func(name, format string, args ...any)) {
	r, now := &p.receipt, p.now()
	if p.forced != nil && !p.forced.From.IsZero() {
		line("forced", "until %s, instances and readers that do not know the key may reject its tokens", stamp(p.forced.From))
	}
	if r.Revoked != "" && !r.TokensUntil.IsZero() {
		line("tokens", "of the key may live until %s, and would be rejected", stamp(r.TokensUntil))
	} else if !r.TokensUntil.IsZero() {
		line("tokens", "of the key that signs now are good until they end, by %s", stamp(r.TokensUntil))
	}
	if !r.WorstCase.IsZero() {
		line("worst case", "an instance that hears of nothing accepts them until %s", stamp(r.WorstCase))
	}
	if !r.ReadersUntil.IsZero() {
		line("readers", "of the JWK Set accept them until %s", stamp(r.ReadersUntil))
	}
	if from := p.readersFrom(); from.After(now) {
		line("readers", "of the JWK Set know the key that signs from %s on", stamp(from))
	}
}
