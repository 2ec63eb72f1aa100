package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// A hearing is the answer of an instance about a token of a user, and the known state of that token.
type hearing struct {
	by    *instance
	token *userToken
	must  []*order // committed before the verification began, as far as the judge knew
	began time.Time
	good  time.Time // when the last good sync before that was sent, by true time
	ready bool      // the instance called itself ready, before and after
	err   error
}

// verify verifies a token at an instance, and judges the answer.
func (u *logouts) verify(m *instance, t *userToken, cached int) error {
	h := hearing{by: m, token: t}
	u.mu.Lock()
	for _, o := range u.ordersLocked(t) {
		if !o.committed.IsZero() {
			h.must = append(h.must, o)
		}
	}
	u.mu.Unlock()
	before := m.list.Status()
	h.good, h.began = before.Synced.Add(-m.offset), time.Now()
	_, h.err = m.guards[cached].VerifyTenant(context.Background(), t.tenant, t.raw)
	h.ready = before.Ready && m.list.Status().Ready
	if note := u.judge(&h); note != "" {
		u.f.tally.note("%s", note)
	}
	return h.err
}

// judge counts a verdict. It returns a line for a broken promise, or "".
func (u *logouts) judge(h *hearing) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.count.Verified++
	switch {
	case h.err == nil:
		return u.judgeAcceptedLocked(h)
	case errors.Is(h.err, verifier.ErrRevoked):
		return u.judgeRefusedLocked(h)
	case errors.Is(h.err, verifier.ErrUnavailable):
		u.count.Unavailable++
		return ""
	}
	return fmt.Sprintf("%s: neither good, revoked nor 503: %v", h.by.name, h.err)
}

// slack is what a busy machine may take beside a bound.
const slack = 2 * time.Second

func (u *logouts) judgeAcceptedLocked(h *hearing) string {
	for _, o := range u.ordersLocked(h.token) {
		if u.knows[knowledge{h.by, o}] {
			u.count.Forgotten++
			return fmt.Sprintf("%s accepts, ready %v, a token that it had refused: its %s was revoked", h.by.name, h.ready, o.what.kind)
		}
	}
	for _, o := range h.must {
		if note := u.judgeLateLocked(h, o); note != "" {
			u.count.Late++
			return note
		}
	}
	return ""
}

// judgeLateLocked returns why a token should have been refused because of o, or "".
func (u *logouts) judgeLateLocked(h *hearing, o *order) string {
	visible := later(o.committed, u.hidden)
	by, after := fmt.Sprintf("%s accepts, ready %v, a token whose %s %s revoked", h.by.name, h.ready, o.what.kind, o.by.name), h.began.Sub(o.committed)
	if h.ready {
		u.count.Longest = max(u.count.Longest, after)
	}
	switch {
	case o.by == h.by:
		return fmt.Sprintf("%s, itself, %v before", by, after)
	case h.ready && h.good.After(visible):
		return fmt.Sprintf("%s %v before, in a sync that was sent %v after it could be read", by, after, h.good.Sub(visible))
	case h.ready && h.began.Sub(visible) > u.maxStale+slack:
		return fmt.Sprintf("%s %v before, beyond MaxStale", by, after)
	}
	return ""
}

func (u *logouts) judgeRefusedLocked(h *hearing) string {
	orders := u.ordersLocked(h.token)
	switch len(orders) {
	case 0:
		u.count.Refused++
		return fmt.Sprintf("%s refuses, ready %v, a token of %s that was not revoked", h.by.name, h.ready, h.token.tenant)
	case 1:
		u.knows[knowledge{h.by, orders[0]}] = true
	}
	return ""
}

const logoutsText = `## Users log out

Each instance has a list of revocations (package verifier/revocations), which polls every %v. All
along users log in, and a random instance revokes a token, a session, a subject or a whole tenant. Then
the user logs in again. Random instances verify the tokens, revoked or not. A list calls itself ready
until its last sync is older than MaxStale, %v here.

These must be zero. *Late*: revoked tokens accepted by an instance that calls itself ready, right before
and right after, and whose last good sync was sent after the commit; or later than MaxStale after the
commit; or by the instance that had revoked them. If the fault may lose what was committed, the first
two count from the end of the fault and two polls. *Forgotten*: tokens accepted by an instance, ready or
not, that had refused them; and revoked tokens accepted by any instance after the faults, a newcomer
included. *Refused*: tokens that were not revoked, refused by any instance. *Failed*: calls that did not
say that they had revoked. *Accepted for*: the longest time after a commit at which an instance that
calls itself ready accepted a token. *Heard*: the time from the commit until an instance refuses a token
that it has in its cache.

`

// writeLogouts writes the table of the users.
func (r *report) writeLogouts(w io.Writer) {
	if !slices.ContainsFunc(r.rows, func(x row) bool { return x.count.Logouts.Revoked > 0 }) {
		return
	}
	fmt.Fprintf(w, logoutsText, fast.listPoll(), max(10*time.Second, 3*fast.listGap()))
	fmt.Fprint(w, "| fault | revoked | failed | verifications | late | forgotten | refused | 503 | accepted for | heard, median | heard, longest |\n",
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, x := range r.rows {
		c := &x.count.Logouts
		fmt.Fprintf(w, "| %s | %d | %d | %d | %s | %s | %s | %d | %s |", x.scenario.title, c.Revoked, c.Failed, c.Verified, zero(c.Late), zero(c.Forgotten), zero(c.Refused), c.Unavailable, round(c.Longest))
		if took := slices.Sorted(slices.Values(c.Heard)); len(took) > 0 {
			fmt.Fprintf(w, " %s | %s |\n", round(took[len(took)/2]), round(took[len(took)-1]))
		} else {
			fmt.Fprint(w, " | |\n")
		}
	}
	fmt.Fprintln(w)
}
