package rotationtest_test

import (
	"encoding/binary"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has what the rules say of accepted keys.

// An acceptance is what a history says of an accepted key.
type acceptance struct {
	stored spans     // while the store had it, with its date
	first  time.Time // the earliest date until which it was accepted
	last   time.Time // and the latest
}

func (c *checker) acceptanceOf(kid string) *acceptance {
	if c.accepted[kid] == nil {
		c.accepted[kid] = &acceptance{}
	}
	return c.accepted[kid]
}

// noteAccept notes an accepted key, or its later date, that was set. docs/formats.md has the offsets.
func (c *commit) noteAccept(kind, kid string, blob []byte) {
	date := func(at int) time.Time { return time.UnixMilli(int64(binary.BigEndian.Uint64(blob[at:]))) }
	if kind == "u" {
		c.until[kid] = date(4)
		return
	}
	c.accepts[kid], c.lives[kid] = date(12), int(binary.BigEndian.Uint32(blob[22:]))
}

// noteAccepts notes the accepted keys of a commit.
func (c *checker) noteAccepts(e event) {
	note := func(kid string, until time.Time) {
		a := c.acceptanceOf(kid)
		if a.first.IsZero() || until.Before(a.first) {
			a.first = until
		}
		if until.After(a.last) {
			a.last = until
		}
	}
	for kid, until := range e.commit.accepts {
		note(kid, until)
		if e.commit.Primary {
			c.acceptanceOf(kid).stored = c.acceptanceOf(kid).stored.open(e.at)
		}
	}
	for kid, until := range e.commit.until {
		note(kid, until)
	}
	for _, kid := range e.commit.ended {
		if e.commit.Primary {
			c.acceptanceOf(kid).stored = c.acceptanceOf(kid).stored.close(e.at)
		}
	}
}

// acceptedVerifies (I1): once every instance in sync can have heard of an accepted key, a live token of
// it verifies, until its date. An instance that is out of sync or cannot ask the store may answer that it
// cannot tell.
func (c *checker) acceptedVerifies(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind != evVerify || e.result == ok || !c.tokens[e.token].partner || c.beyondS || c.isUnsafe(e.at) {
			continue
		}
		t := c.tokens[e.token]
		a, at := c.acceptanceOf(t.kid), c.start.Add(e.at)
		revoked, is := c.revoked[t.kid]
		known, there := a.stored.at(e.at)
		switch {
		case e.tenant != t.tenant, is && revoked <= e.at, !there, e.at-known.from <= c.policy.HeardWithin()+2*c.timing.latency:
		case !at.Add(c.policy.ClockSkew).Before(a.first):
		case e.result != unavailable:
			report(n, "a live token of the accepted key %s: %s", t.kid, e.result)
		case e.fresh && e.reach > 2*time.Second && !c.justEdited(e):
			report(n, "a live token of the accepted key %s: %s, at an instance in sync and in reach of the store", t.kid, e.result)
		}
	}
}

// acceptedEnds (I3): no instance accepts a key after the latest date that it was given.
func (c *checker) acceptedEnds(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind != evVerify || e.result != ok || !c.tokens[e.token].partner || c.beyondS {
			continue
		}
		kid := c.tokens[e.token].kid
		if a := c.acceptanceOf(kid); c.start.Add(e.at).After(a.last.Add(c.policy.ClockSkew)) {
			report(n, "the accepted key %s has ended at %v", kid, a.last.Format("05.000"))
		}
	}
}

// acceptedStored (I7, I12): the store has every accepted key that an instance holds, with its date.
func (c *checker) acceptedStored(n int, e event, report func(int, string, ...any)) {
	for _, a := range e.audit.accepted {
		switch later := c.start.Add(e.at + 2*c.policy.ClockSkew); {
		case !a.Verifies(later):
		case !e.audit.fields["v:"+a.KID]:
			report(n, "the store lacks the accepted key %s, which an instance holds", a.KID)
		case a.Until.After(a.AcceptRecord.Until) && !e.audit.hasDate(a.KID):
			report(n, "the store lacks the later date of the accepted key %s, which an instance holds", a.KID)
		}
	}
}

// revoked returns the kids of the keys that the instance knows as revoked.
func (a *audit) revoked() (kids []string) {
	for _, k := range a.keys {
		if k.State == ring.Revoked {
			kids = append(kids, k.KID)
		}
	}
	for _, k := range a.accepted {
		if !k.RevokedAt.IsZero() {
			kids = append(kids, k.KID)
		}
	}
	return kids
}

// hasDate reports whether the store had a date of the accepted key of that kid.
func (a *audit) hasDate(kid string) bool {
	for field := range a.fields {
		if isDateOf(field, kid) {
			return true
		}
	}
	return false
}
