package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

const listLong = `list without --tenant shows all rings, one line each: its state, its algorithm, when
its next key takes over, and which key signs. With --tenant it shows the keys of that
ring, and the life of each as a line: when it is published, when it signs, and until
when what it has signed is good. Keys whose last token has ended are left out. It
changes nothing.

With --tenant and --json it prints an array of {"kid","alg","state","seq",
"activates_at","retires_at","dropped_at","published_at","origin","held","waits",
"signs"}. Times are in RFC 3339, and null where they are not known; states are pending,
signing, retired and revoked; origins are generated, imported, and legacy for a key whose
tokens carry no kid. A key that is held signs until "keyturn keys rotate"; one that waits
signs from then on. "signs" is true of the key that signs now. While Redis could still
lose a key that was forced to sign, that is the one before it.
Keys that were accepted follow, with "seq" 0, the state accepted or revoked, and "until",
"no_kid", "weak" and "instances": the live ones that were in sync since.

Without --tenant, --json prints an array of {"tenant","state","alg","signing",
"next_rotation","keys","held","error"}: "signing" is the kid that signs, "keys" how
many are listed with --tenant, "held" whether it signs until an operator rotates.
States are signing, no_signer, incomplete (a part cannot be opened, and may be a
revocation), unreadable, destroyed, and no_ring (Redis names the tenant, and has no
ring of it). A ring that cannot be read has its own line, with the
reason; the others follow, and the exit code is 3. Rings are sorted by name if there are
at most 1000; more are printed as they are read, one bucket after the other.`

// sortedRings is up to how many rings a list is sorted. More are printed as they are read: a sorted
// list would say nothing for minutes, and hold all of them in memory.
const sortedRings = 1000

// listAll shows the rings of all tenants, one line each.
func (c *keysCommand) listAll(ctx context.Context) error {
	s, err := c.connect(&c.ring)
	if err != nil {
		return err
	}
	defer s.store.close()
	w, err := s.walk(ctx, c.tenant)
	if err != nil {
		return c.answer(err)
	}
	l := &ringList{keysCommand: c, out: bufio.NewWriter(c.stdout)}
	c.printed = true
	l.begin(w.count())
	w.each(ctx, l.add)
	if err := l.end(); err != nil {
		return exitf(exitCannotTell, "cannot write the answer to standard output")
	}
	return c.answer(l.outcome(w))
}

// A ringList prints rings, one line each.
type ringList struct {
	*keysCommand
	out    *bufio.Writer
	held   []seenRing // until the end, if they are to be sorted
	sorted bool

	printed  int
	unread   int    // rings that could not be read, or not whole
	unreadIs string // the reason of the first
}

func (l *ringList) begin(rings int) {
	l.sorted = rings <= sortedRings
	if l.json {
		l.out.WriteString("[")
	}
}

// add prints the rings of a bucket, or keeps them until the end.
func (l *ringList) add(_ context.Context, k *rotation.Keyring, tenants []string, err error) {
	for _, tenant := range tenants {
		r := see(k, tenant, err)
		if r.err != nil {
			if l.unread == 0 {
				l.unreadIs = r.err.Error()
			}
			l.unread++
		}
		if l.sorted {
			l.held = append(l.held, r)
			continue
		}
		l.write(&r)
	}
	if !l.sorted {
		l.out.Flush() // its error stays, and end returns it
	}
}

// end prints what was kept, and returns the error of writing.
func (l *ringList) end() error {
	slices.SortFunc(l.held, func(a, b seenRing) int { return strings.Compare(a.tenant, b.tenant) })
	for i := range l.held {
		l.write(&l.held[i])
	}
	switch {
	case l.json:
		l.out.WriteString("]\n")
	case l.printed == 0:
		l.out.WriteString("this Redis has no rings: \"keyturn keys create\" makes one; if it had some: docs/operations.md, \"Redis came back empty\"\n")
	}
	return l.out.Flush()
}

// A ringJSON is a ring in the array of "keys list --json" without --tenant.
type ringJSON struct {
	Tenant       string  `json:"tenant"`
	State        string  `json:"state"`
	Algorithm    *string `json:"alg"`
	Signing      *string `json:"signing"`
	NextRotation *string `json:"next_rotation"`
	Keys         int     `json:"keys"`
	Held         bool    `json:"held"`
	Error        *string `json:"error"`
}

func (l *ringList) write(r *seenRing) {
	if !l.json {
		l.out.WriteString(l.line(r))
		l.printed++
		return
	}
	o := ringJSON{Tenant: r.tenant, State: r.state(), Keys: len(shownKeys(r.status)) + len(r.status.Accepted), Held: r.status.Held}
	if len(r.status.Ring.Keys) > 0 {
		o.Algorithm = orNull(string(newestTiming(r.status.Ring).Algorithm))
	}
	if signer := r.signer(); signer != nil {
		o.Signing, o.NextRotation = orNull(signer.KID), when(r.nextRotation(signer))
	}
	if r.err != nil {
		o.Error = orNull(r.oneLine())
	}
	if l.printed > 0 {
		l.out.WriteString(",")
	}
	l.out.WriteString(strings.TrimSuffix(toJSON(o), "\n"))
	l.printed++
}

// signer returns the key that signs, or nil.
func (r *seenRing) signer() *ring.Key {
	signs := signingKID(&r.status)
	for i := range r.status.Ring.Keys {
		if k := &r.status.Ring.Keys[i]; k.KID == signs {
			return k
		}
	}
	return nil
}

// nextRotation returns when another key than the signer signs, or zero.
func (r *seenRing) nextRotation(signer *ring.Key) time.Time {
	for _, k := range shownKeys(r.status) {
		if !k.forced.IsZero() {
			return k.forced
		}
	}
	return signer.RetiresAt
}

// line is for people. What is wrong is in capitals.
func (l *ringList) line(r *seenRing) string {
	alg, words, state := "", "", r.state()
	if len(r.status.Ring.Keys) > 0 {
		alg = string(newestTiming(r.status.Ring).Algorithm)
	}
	switch state {
	case stateIncomplete, stateUnreadable:
		state, words = strings.ToUpper(state), r.oneLine()
	case stateNoSigner:
		state, words = "NO SIGNER", "no key signs now"+nextSigner(shownKeys(r.status), l.now())
	case stateNoRing:
		state, words = "NO RING", "Redis names the tenant, and has no ring of it"
		if n := len(r.status.Accepted); n > 0 {
			words = fmt.Sprintf("accepted keys: %d, and no ring", n)
		}
	case stateSigning:
		signer := r.signer()
		words = "no key is pending: no rotator runs, or it has just begun"
		if r.status.Held {
			words = "HELD until \"keyturn keys rotate\""
		}
		if next := r.nextRotation(signer); !next.IsZero() {
			words = fmt.Sprintf("next rotation %s (%s)", since(next, l.now()), stamp(next))
		}
		words += "  " + signer.KID
	}
	return strings.TrimRight(fmt.Sprintf("%-24s  %-10s  %-6s  %s", printable(r.tenant, false), state, alg, printable(words, false)), " ") + "\n"
}

// outcome returns an error if not every ring could be read.
func (l *ringList) outcome(w *ringWalk) error {
	switch {
	case w.unnamed > 0:
		return exitf(exitCannotTell, "the rings in %d of %d buckets are not listed, as their names cannot be read: %s",
			w.unnamed, rotation.Buckets, printable(errorText(w.why), false))
	case l.unread == 1:
		return exitf(exitCannotTell, "one ring cannot be read, or not all of it: %s", l.unreadIs)
	case l.unread > 1:
		return exitf(exitCannotTell, "%d rings cannot be read, or not all of them; the first says: %s", l.unread, l.unreadIs)
	}
	return nil
}
