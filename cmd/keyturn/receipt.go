package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
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
	CommittedAt   *string    `json:"committed_at"`
	RevokedAt     *string    `json:"revoked_at"`
	SignsFrom     *string    `json:"signs_from"`
	NoSignerUntil *string    `json:"no_signer_until"`
	WorstCase     *string    `json:"worst_case"`
	ReadersUntil  *string    `json:"readers_until,omitempty"` // of public keys alone
	Acks          *[]ackJSON `json:"acks"`
}

// An ackJSON says whether an instance has applied the change.
type ackJSON struct {
	Instance string  `json:"instance"`
	Applied  bool    `json:"applied"`
	HeardAt  *string `json:"heard_at"`
}

// A receiptPrinter prints a change, and which instances have applied it.
type receiptPrinter struct {
	*keysCommand
	rotator  *rotation.Rotator
	receipt  rotation.Receipt
	timing   rotation.Policy
	revoking bool
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

// print prints the receipt and, if asking is set, the instances that have applied the change. As
// text, the receipt is printed before the wait for them, since the change is made.
func (p *receiptPrinter) print(ctx context.Context, asking bool) error {
	asking = asking && p.receipt.CommittedAt != (time.Time{})
	if !p.json {
		if err := p.keysCommand.print(p.text()); err != nil || !asking {
			return err
		}
	}
	var acks []rotation.Ack
	if asking {
		var err error
		if acks, err = p.roster(ctx); err != nil {
			p.note("the change is made, but it is not known who has applied it: %s", errorText(err))
			asking = false
		}
	}
	switch {
	case p.json:
		return p.keysCommand.print(p.object(acks, asking))
	case asking:
		return p.keysCommand.print(p.rosterText(acks))
	}
	return nil
}

func (p *receiptPrinter) object(acks []rotation.Ack, asked bool) string {
	r := &p.receipt
	o := receiptJSON{
		Tenant: r.Tenant, Revoked: orNull(r.Revoked), Promoted: orNull(r.Promoted), Minted: orNull(r.Minted),
		CommittedAt: when(r.CommittedAt), RevokedAt: when(r.RevokedAt), SignsFrom: when(r.SignsFrom),
		NoSignerUntil: when(r.NoSignerUntil), WorstCase: when(r.WorstCase), ReadersUntil: when(r.ReadersUntil),
	}
	if asked {
		roster := []ackJSON{}
		for _, a := range acks {
			roster = append(roster, ackJSON{Instance: a.Instance, Applied: a.Applied, HeardAt: when(a.At)})
		}
		o.Acks = &roster
	}
	return toJSON(o)
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// text returns the receipt for people.
func (p *receiptPrinter) text() string {
	var b strings.Builder
	r, now := &p.receipt, p.now()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	if r.Revoked != "" {
		fmt.Fprintf(&b, "key %q of tenant %s is revoked\n", r.Revoked, quoteShort(r.Tenant))
		line("revoked", "%s (%s)", since(r.RevokedAt, now), r.RevokedAt.UTC().Format(milliseconds))
	} else {
		fmt.Fprintf(&b, "key %q of tenant %s signs now\n", r.Promoted, quoteShort(r.Tenant))
	}
	if r.CommittedAt.IsZero() {
		line("committed", "nothing: it was revoked already")
		return b.String()
	}
	line("committed", "%s", r.CommittedAt.UTC().Format(milliseconds))
	if r.Revoked != "" && r.Promoted != "" {
		line("signs now", "key %q", r.Promoted)
	}
	if r.Minted != "" {
		line("minted", "key %q, to sign %s (%s)", r.Minted, since(r.SignsFrom, now), stamp(r.SignsFrom))
	}
	if !r.NoSignerUntil.IsZero() {
		line("NO SIGNER", "until %s, %s: nothing can be signed for the tenant", r.NoSignerUntil.UTC().Format(milliseconds), since(r.NoSignerUntil.Add(time.Second-1), now))
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

// rosterEvery is how often roster asks which instances have applied a change.
const rosterEvery = 200 * time.Millisecond

// roster returns which instances have applied the change. It waits for those that are alive, for as
// long as two of their polls take, or until Ctrl-C.
func (p *receiptPrinter) roster(ctx context.Context) ([]rotation.Ack, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The longest time between two polls of an instance with the default settings.
	f := p.timing.Freshness
	w := min(15*time.Second, f/4)*6/5 + min(2*time.Second, f/30)
	limit := time.NewTimer(2 * w)
	defer limit.Stop()
	tick := time.NewTicker(rosterEvery)
	defer tick.Stop()
	said := -1
	var last []rotation.Ack
	for {
		acks, err := p.rotator.Acks(ctx, p.receipt)
		switch {
		case err != nil && last != nil:
			return last, nil
		case err != nil:
			return nil, err
		}
		last = acks
		missing := p.missing(acks, 2*w)
		if missing == 0 || p.noWait {
			return acks, nil
		}
		if missing != said {
			p.note("waiting for %s to apply it, %v at most", instances(missing), (2 * w).Round(time.Second))
			said = missing
		}
		select {
		case <-ctx.Done():
			return acks, nil
		case <-limit.C:
			return acks, nil
		case <-tick.C:
		}
	}
}

// missing counts the instances that are alive and have not applied the change.
func (p *receiptPrinter) missing(acks []rotation.Ack, live time.Duration) int {
	n := 0
	for _, a := range acks {
		if !a.Applied && a.At.After(p.receipt.CommittedAt.Add(-live)) {
			n++
		}
	}
	return n
}

func instances(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", n)
}

func (p *receiptPrinter) rosterText(acks []rotation.Ack) string {
	var b strings.Builder
	applied := 0
	for _, a := range acks {
		state := "NOT applied; last heard of " + since(a.At, p.now())
		if a.Applied {
			applied++
			state = "applied"
		}
		fmt.Fprintf(&b, "    %s  %s\n", printable(a.Instance, false), state)
	}
	head := fmt.Sprintf("%d of %s have applied it", applied, instances(len(acks)))
	if len(acks) == 0 {
		head = "none holds this ring now"
	}
	return fmt.Sprintf("  %-12s %s\n", "instances", head) + b.String()
}
