package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// ops are the counts of what operators do to a fleet, and of what goes wrong meanwhile.
type ops struct {
	Imported, Held    int             // keys with which a ring began; those of them with Hold
	Accepted          int             // keys, and later dates of them
	Policies          int             // changes of a policy
	Shredded, Again   int             // rings that were destroyed; those of the same names that were made again
	Added, Removed    int             // tenants, to keyrings and from them
	Restarts, Killed  int             // instances that started from a snapshot while Redis was away; those of them with one of before
	Verified          int             // verifications of the guests' live tokens
	FromSnapshot      int             // live tokens that an instance accepted before its first sync
	Unavailable       int             // 503
	Heard             []time.Duration // how long each shred took to reach each instance
	Refused           [origins]int    // live tokens that were rejected, by the key that signed them
	Beyond            int             // tokens of an accepted key that were accepted after its date, and others beyond their end
	Back              int             // keys and tokens of a destroyed ring that were accepted after the bound
	AfterRemove       int             // tokens of a removed tenant that were accepted
	SignedOfSnapshots int             // tokens that an instance signed before its first sync
}

// bad returns the sum of the counts that must be zero.
func (o *ops) bad() int {
	return o.Refused[ofRing] + o.Refused[ofOld] + o.Refused[ofPartner] + o.Beyond + o.Back + o.AfterRemove + o.SignedOfSnapshots
}

// String says which promises were broken.
func (o *ops) String() string {
	return fmt.Sprintf("of rings, imported and accepted keys %v live tokens refused, %d accepted beyond their end, %d of destroyed rings, %d of removed tenants, %d signed from a snapshot",
		o.Refused, o.Beyond, o.Back, o.AfterRemove, o.SignedOfSnapshots)
}

// wrong counts a broken promise, and notes it.
func (t *tally) wrong(change func(*ops), format string, args ...any) {
	t.do(func(c *count) {
		change(&c.Ops)
		t.noteLocked(format, args...)
	})
}

// ofGuest counts a verdict about a live token of a guest. An instance that is not in sync may say 503,
// but it has held the key, so it must not reject the token either.
func (t *tally) ofGuest(v verdict, g *guest) {
	t.do(func(c *count) {
		c.Ops.Verified++
		switch {
		case v.err == nil:
		case errors.Is(v.err, keystore.ErrUnavailable):
			c.Ops.Unavailable++
		case errors.Is(v.err, verifier.ErrInvalid):
			c.Ops.Refused[v.token.from]++
			t.noteLocked("%s refuses, fresh %v, cache %d, a token of %s that %s signed %v ago with key %q: %v", v.by.name, v.fresh, v.token.cached,
				g.tenant.name, v.token.by, time.Since(v.token.signed), v.token.kid, v.err)
		default:
			t.noteLocked("neither 401 nor 503: %v", v.err)
		}
	})
}

// ofSnapshot counts a token that an instance accepted although it has read nothing since its start.
func (t *tally) ofSnapshot(m *instance, err error) {
	if err == nil && m.away.Load() {
		t.do(func(c *count) { c.Ops.FromSnapshot++ })
	}
}

// policy counts a change of a policy.
func (t *tally) policy(err error) {
	if err == nil {
		t.do(func(c *count) { c.Ops.Policies++ })
	}
}

const opsText = `## What operators do meanwhile

Beside the five tenants there are guests. A guest comes with a key of its own, with which an old
program signs, with a kid or without one. The key is *imported* (Rotator.Adopt), every other time
*with Hold*, and the program signs until the second key takes over. A partner's key is *accepted*
until a date, which is moved once for some. The guest gets another *policy*, under which its keys are
of another algorithm; the five tenants get one too. It is *added* to the keyrings of all instances,
and *removed* from one for a moment. In the end its ring is *shredded* (Rotator.Destroy), a backup of
before is restored, and some names get another ring. *Restarts*: instances that start from their
sealed snapshot while Redis is away; *killed*: those of them that had ended without writing it; *by
snapshot*: live tokens that they accepted before Redis was back.
*Restored*: rings of backups that were restored.

These must be zero. *Refused*: live tokens that an instance rejected, in sync or not: of the ring's
keys, of the imported key, and of the accepted key until its date. *Beyond*: tokens of an accepted key
that were accepted after its date, or of another key beyond their end. *Back*: tokens and keys of a
destroyed ring that an instance accepted after it had shown that the ring was destroyed, or while it
was in sync since a sync that was sent after the commit. If the store lost its last changes since, that
counts from when all instances had shown it. It counts to the end of the run, and what the store has of
such a key at that end counts too. *After Remove*: tokens that an instance accepted although the
tenant was removed from its keyring. *Signed*: tokens that an instance signed between its start from a
snapshot and its first sync.

`

// writeOps writes the table of the operators.
func (r *report) writeOps(w io.Writer) {
	fmt.Fprint(w, opsText,
		"| fault | imported | with Hold | accepted | policies | shredded | made again | added | removed | restored | restarts | killed | by snapshot | verifications | 503 |\n",
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, x := range r.rows {
		o := &x.count.Ops
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d |\n", x.scenario.title, o.Imported, o.Held, o.Accepted,
			o.Policies, o.Shredded, o.Again, o.Added, o.Removed, x.count.Restores, o.Restarts, o.Killed, o.FromSnapshot, o.Verified, o.Unavailable)
	}
	fmt.Fprint(w, "\n| fault | refused, ring's | refused, imported | refused, accepted | beyond | back | after Remove | signed |\n",
		"|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, x := range r.rows {
		o := &x.count.Ops
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", x.scenario.title, zero(o.Refused[ofRing]), zero(o.Refused[ofOld]), zero(o.Refused[ofPartner]),
			zero(o.Beyond), zero(o.Back), zero(o.AfterRemove), zero(o.SignedOfSnapshots))
	}
	fmt.Fprintln(w)
}
