package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// A refusalJSON is what --json prints if a change was not made.
type refusalJSON struct {
	OK    bool    `json:"ok"`
	Error string  `json:"error"`
	From  *string `json:"from"` // when the change may be made
}

// A receiptJSON is what --json prints about a change. Acks is null if no instance was asked.
type receiptJSON struct {
	Tenant        string     `json:"tenant"`
	Revoked       *string    `json:"revoked"`
	Promoted      *string    `json:"promoted"`
	Minted        *string    `json:"minted"`
	Adopted       *string    `json:"adopted,omitempty"`  // of an import
	Replaced      []string   `json:"replaced,omitempty"` // keys that waited
	CommittedAt   *string    `json:"committed_at"`
	RevokedAt     *string    `json:"revoked_at"`
	SignsFrom     *string    `json:"signs_from"`
	ConfirmedAt   *string    `json:"confirmed_at"`
	NoSignerUntil *string    `json:"no_signer_until"`
	TokensUntil   *string    `json:"tokens_until"`
	WorstCase     *string    `json:"worst_case"`
	ReadersUntil  *string    `json:"readers_until,omitempty"` // of public keys alone
	Acks          *[]ackJSON `json:"acks"`
	Undone        bool       `json:"undone"`

	// Of accept alone.
	Accepted []string `json:"accepted,omitempty"`
	Until    *string  `json:"until,omitempty"`

	Waited float64 `json:"waited"` // in seconds
}

// An ackJSON says whether an instance has applied the change.
type ackJSON struct {
	Instance string  `json:"instance"`
	Applied  bool    `json:"applied"`
	HeardAt  *string `json:"heard_at"`

	Live  bool     `json:"live"`  // heard of within Freshness
	Holds bool     `json:"holds"` // it holds the ring of the change that it has applied
	KEKs  []string `json:"keks"`  // the primary first; empty if they cannot be read
}

// A receiptPrinter prints a change, and which instances have applied it.
type receiptPrinter struct {
	watcher
	revoking bool
	until    time.Time // until when the keys of accept are accepted
}

// noteForced says which instances may reject tokens meanwhile.
func (p *receiptPrinter) noteForced(refused *rotation.RefusedError) {
	if refused.From.IsZero() {
		p.note("forced, although %s", refused.Reason)
		return
	}
	who := "an instance that has not heard of the key may reject its tokens, or answer that it cannot tell (503)"
	if !p.timing.Algorithm.Symmetric() {
		who += ", and so may a verifier with an older copy of the JWK Set"
	}
	p.note("forced: until %s (%s), %s", refused.From.UTC().Format(milliseconds), since(refused.From.Add(time.Second-1), p.now()), who)
}

// print prints the receipt, waits for the instances that live, and prints which have applied the
// change. As text, the receipt is printed before the wait, since the change is made.
func (p *receiptPrinter) print(ctx context.Context) error {
	asking := p.receipt.CommittedAt != (time.Time{})
	if !p.json {
		if err := p.keysCommand.print(p.text()); err != nil || !asking {
			return err
		}
	}
	seen := watched{}
	if asking {
		seen = p.see(ctx)
	}
	p.printed = true
	text := p.rosterText(&seen)
	if p.json {
		text = p.object(&seen)
	}
	if err := p.keysCommand.print(text); err != nil {
		return err
	}
	return p.settled(&seen)
}

// see watches the change, or with --no-wait looks once.
func (p *receiptPrinter) see(ctx context.Context) (seen watched) {
	if p.waits.noWait {
		p.look(ctx, &seen, nil)
		return seen
	}
	return p.watch(ctx)
}

// settled is outcome. With --no-wait a change that is made is enough.
func (p *receiptPrinter) settled(seen *watched) error {
	if !p.waits.noWait {
		return p.outcome(seen)
	}
	if seen.err != nil {
		p.note("the change is made, but it is not known which instances have applied it: %s", printable(errorText(seen.err), false))
	}
	return nil
}

func (p *receiptPrinter) object(seen *watched) string {
	r := &p.receipt
	o := receiptJSON{
		Tenant: r.Tenant, Revoked: orNull(r.Revoked), Promoted: orNull(r.Promoted), Minted: orNull(r.Minted),
		Adopted: orNull(r.Adopted), Replaced: r.Replaced,
		CommittedAt: when(r.CommittedAt), RevokedAt: when(r.RevokedAt), SignsFrom: when(r.SignsFrom),
		ConfirmedAt: when(r.ConfirmedAt), NoSignerUntil: when(r.NoSignerUntil), TokensUntil: when(r.TokensUntil), WorstCase: when(r.WorstCase), ReadersUntil: when(r.ReadersUntil),
		Accepted: r.Accepted, Until: when(p.until),
		Undone: seen.undone, Waited: seen.waited.Round(time.Millisecond).Seconds(),
	}
	if !r.CommittedAt.IsZero() && (seen.err == nil || len(seen.acks) > 0) {
		roster := acksJSON(seen.acks)
		o.Acks = &roster
	}
	return toJSON(o)
}

func acksJSON(acks []ackSeen) []ackJSON {
	roster := []ackJSON{}
	for _, a := range acks {
		roster = append(roster, ackJSON{Instance: a.Instance, Applied: a.Applied, HeardAt: when(a.At), Live: a.live, Holds: a.Holds, KEKs: append([]string{}, a.KEKs...)})
	}
	return roster
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// text returns the receipt for people.
func (p *receiptPrinter) text() string {
	if len(p.receipt.Accepted) > 0 {
		return p.acceptedText()
	}
	var b strings.Builder
	r, now := &p.receipt, p.now()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	switch {
	case r.Adopted != "":
		return p.importedText()
	case r.Revoked == "" && r.Promoted == "":
		return p.policyText()
	}
	if r.Revoked != "" {
		fmt.Fprintf(&b, "key %q of tenant %s is revoked\n", r.Revoked, quoteShort(r.Tenant))
		line("revoked", "%s (%s)", since(r.RevokedAt, now), r.RevokedAt.UTC().Format(milliseconds))
	} else {
		fmt.Fprintf(&b, "key %q of tenant %s signs %s\n", r.Promoted, quoteShort(r.Tenant), p.signsFrom())
	}
	if r.CommittedAt.IsZero() {
		line("committed", "nothing: it was revoked already; no instance was asked")
		return b.String()
	}
	line("committed", "%s", r.CommittedAt.UTC().Format(milliseconds))
	if r.Revoked != "" && r.Promoted != "" {
		line("signs now", "key %q", r.Promoted)
	}
	if r.Minted != "" {
		line("minted", "key %q, to sign %s (%s)", r.Minted, since(r.SignsFrom, now), stamp(r.SignsFrom))
	}
	if r.ConfirmedAt.After(now) && r.NoSignerUntil.IsZero() {
		line("until then", "the key before it signs: a failover could still lose this one")
	}
	if !r.NoSignerUntil.IsZero() {
		what := "nothing can be signed for the tenant"
		if r.Revoked != "" && r.Minted == "" && r.Promoted == "" {
			what += " from when the key was to take effect"
		}
		line("NO SIGNER", "until %s, %s: %s", r.NoSignerUntil.UTC().Format(milliseconds), since(r.NoSignerUntil.Add(time.Second-1), now), what)
	}
	if !r.TokensUntil.IsZero() && r.Revoked != "" {
		line("tokens", "of the key, good until %s otherwise, are rejected", stamp(r.TokensUntil))
	} else if !r.TokensUntil.IsZero() {
		line("tokens", "of the key before it are accepted until %s", stamp(r.TokensUntil))
	}
	if !r.WorstCase.IsZero() {
		line("worst case", "until %s: an instance that is cut off and hears", stamp(r.WorstCase))
		line("", "of nothing may accept the key's tokens until then")
	}
	if !r.ReadersUntil.IsZero() {
		line("readers", "of the JWK Set accept them until they read it again: until %s", stamp(r.ReadersUntil))
		line("", "where they can, and later where they cannot")
	}
	return b.String()
}

// signsFrom says when the promoted key signs.
func (p *receiptPrinter) signsFrom() string {
	if at := p.receipt.ConfirmedAt; at.After(p.now()) {
		return fmt.Sprintf("from %s on (%s)", at.UTC().Format(milliseconds), since(at.Add(time.Second-1), p.now()))
	}
	return "now"
}

func instances(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", n)
}

// appliedBy says how many of the instances have applied a change.
func appliedBy(n, all int) string {
	return fmt.Sprintf("%d of %s applied it", n, haveInstances(all))
}

func haveInstances(n int) string {
	if n == 1 {
		return "1 instance has"
	}
	return instances(n) + " have"
}

// rosterText is for people. It is empty if nothing is known.
func (p *receiptPrinter) rosterText(seen *watched) string {
	if seen.err != nil && len(seen.acks) == 0 {
		return ""
	}
	var b strings.Builder
	applied := 0
	for _, a := range seen.acks {
		state := "NOT applied; last heard of " + since(a.At, p.now())
		switch {
		case a.Applied:
			applied++
			state = "applied"
			if !a.Holds {
				state += "; it holds no ring of this tenant"
			}
		case !a.live:
			state += ", so it has ended or is cut off"
		case len(a.KEKs) == 0:
			state += "; its KEK is not one of this command's"
		}
		fmt.Fprintf(&b, "    %s  %s\n", printable(a.Instance, false), state)
	}
	head := appliedBy(applied, len(seen.acks))
	if len(seen.acks) == 0 {
		head = "none was seen, so none has confirmed it"
	}
	return fmt.Sprintf("  %-12s %s\n", "instances", head) + b.String()
}
