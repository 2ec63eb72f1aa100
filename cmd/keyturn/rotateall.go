package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has "keys rekey --rotate-all", for the day on which a KEK has leaked. A person who has it,
// and a dump of Redis, has every key that was made under it; sealing the ring again changes nothing
// about that.

// A rotatedRing is what --rotate-all has done to a ring, and what it has left.
type rotatedRing struct {
	receipt rotation.Receipt // of the last rotation; zero if there was none
	left    []string         // signing and pending keys that were made under another KEK
	from    time.Time        // when the next of them can be rotated out; zero if that is not known
	why     string           // it cannot be done now
}

// rotatedRings is the sum of all [rotatedRing].
type rotatedRings struct {
	rings, left int
	from        time.Time // the latest of all rings
	until       time.Time // when the last retired key that was made under another KEK is dropped
}

// rotateRing rotates a ring for as long as a key that was made under another KEK signs or is pending,
// and a rotation costs no token. It ends: each rotation has one pending key less of that kind, or the
// last one that signs, since new keys are made under the KEK that the ring is under now.
func (r *rekeying) rotateRing(ctx context.Context, k *rotation.Keyring, rotator *rotation.Rotator, one *rekeyedRing) error {
	status, err := r.inUse(k, one)
	for err == nil && len(one.left) > 0 && one.why == "" && !r.looks() {
		receipt, failed := rotator.Rotate(ctx, one.Tenant)
		if !receipt.CommittedAt.IsZero() {
			one.receipt = receipt
		}
		refused := (*rotation.RefusedError)(nil)
		switch {
		case errors.As(failed, &refused):
			one.from, one.why = refused.From, refused.Reason
		case failed != nil:
			return r.failedRing(failed)
		}
		status, err = r.inUse(k, one)
	}
	if err != nil {
		return r.failedRing(err)
	}
	r.sum(one, status)
	return nil
}

// inUse notes in one which of its keys that were made under another KEK sign or are pending.
func (r *rekeying) inUse(k *rotation.Keyring, one *rekeyedRing) (rotation.TenantStatus, error) {
	status, err := ringOf(k, one.Tenant)
	one.left = nil
	for _, key := range status.Ring.Keys {
		if (key.State == ring.Signing || key.State == ring.Pending) && slices.Contains(one.OldKeys, key.KID) {
			one.left = append(one.left, key.KID)
		}
	}
	return status, err
}

// failedRing notes that a ring could not be rotated, and returns why.
func (r *rekeying) failedRing(err error) error {
	if e := (*exitError)(nil); !errors.As(err, &e) {
		err = ringError(err)
	}
	if r.failed == nil {
		r.failed = err
	}
	return err
}

// sum adds a ring to r.rotated.
func (r *rekeying) sum(one *rekeyedRing, status rotation.TenantStatus) {
	all := &r.rotated
	if !one.receipt.CommittedAt.IsZero() {
		all.rings++
	}
	if len(one.left) > 0 {
		all.left++
		all.from = later(all.from, one.from)
	}
	for _, key := range status.Ring.Keys {
		if key.State == ring.Retired && slices.Contains(one.OldKeys, key.KID) {
			all.until = later(all.until, key.DroppedAt)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// rotationsLeft returns an error if --rotate-all has left something, and else err, which is about the
// instances.
func (r *rekeying) rotationsLeft(err error) error {
	all := &r.rotated
	if e := (*exitError)(nil); all.left == 0 || r.dryRun || errors.As(err, &e) && e.code != exitNotEverywhere {
		return err
	}
	if err != nil {
		r.note("%s", err)
	}
	text := "repeat it without --check"
	switch {
	case r.check:
	case all.from.IsZero():
		text = "repeat it later"
	default:
		text = fmt.Sprintf("repeat it from %s on (%s)", all.from.UTC().Format(milliseconds), since(all.from.Add(time.Second-1), r.now()))
	}
	return exitf(exitNo, "%s with a signing or pending key that was made under another KEK: %s", countRings(all.left), text)
}

// rotatedText is for people.
func (r *rekeying) rotatedText() string {
	if !r.rotateAll {
		return ""
	}
	var b strings.Builder
	all := &r.rotated
	done := fmt.Sprintf("%d rotated, ", all.rings)
	if r.looks() {
		done = ""
	}
	fmt.Fprintf(&b, "rings: %s%d with a signing or pending key that was made under another KEK\n", done, all.left)
	if !all.until.IsZero() {
		fmt.Fprintf(&b, "the last retired key that was made under another KEK verifies until %s; \"keyturn keys revoke\" ends one sooner\n", stamp(all.until))
	}
	return b.String()
}

// text says what happened to the ring of a tenant.
func (o *rotatedRing) text(tenant string) string {
	var b strings.Builder
	if o.receipt.Promoted != "" {
		fmt.Fprintf(&b, "tenant %s: key %q signs now\n", tenant, o.receipt.Promoted)
	}
	if o.receipt.Minted != "" {
		fmt.Fprintf(&b, "tenant %s: minted key %q\n", tenant, o.receipt.Minted)
	}
	if len(o.left) > 0 {
		fmt.Fprintf(&b, "tenant %s: to be rotated out: %s", tenant, printable(strings.Join(o.left, " "), false))
		if o.why != "" {
			fmt.Fprintf(&b, ": not yet, since %s", o.why)
		}
		b.WriteString("\n")
	}
	return b.String()
}
