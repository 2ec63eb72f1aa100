package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A keyJSON is a key in the array of "keys list --json".
type keyJSON struct {
	KID         string  `json:"kid"`
	Algorithm   string  `json:"alg"`
	State       string  `json:"state"`
	Seq         int     `json:"seq"`
	ActivatesAt *string `json:"activates_at"`
	RetiresAt   *string `json:"retires_at"`
	DroppedAt   *string `json:"dropped_at"`
	PublishedAt *string `json:"published_at"`
	Origin      string  `json:"origin"` // generated, imported or legacy
	Held        bool    `json:"held"`   // it signs until an operator rotates
	Waits       bool    `json:"waits"`  // it takes effect only then
	Signs       bool    `json:"signs"`  // instances in sync sign with it now

	// Of accepted keys alone.
	Until     *string   `json:"until,omitempty"`
	NoKID     bool      `json:"no_kid,omitempty"`
	Weak      bool      `json:"weak,omitempty"`
	Instances *[]string `json:"instances,omitzero"`
}

func listJSON(status rotation.TenantStatus, accepted ...acceptedKey) string {
	list := []keyJSON{}
	for _, k := range shownKeys(status) {
		list = append(list, keyJSON{
			KID: k.KID, Algorithm: string(k.Algorithm), State: string(k.State), Seq: k.Seq,
			ActivatesAt: when(k.ActivatesAt), RetiresAt: when(k.RetiresAt), DroppedAt: when(k.DroppedAt),
			PublishedAt: when(status.Published[k.KID]), Origin: string(k.Origin),
			Held: k.Hold && k.State == ring.Signing, Waits: k.State == ring.Pending && k.ActivatesAt.IsZero(), Signs: k.signs,
		})
	}
	for i := range accepted {
		list = append(list, accepted[i].json())
	}
	return toJSON(list)
}

// A shownKey is a key and the time at which it was published.
type shownKey struct {
	ring.Key
	begins time.Time
	signs  bool      // instances in sync sign with it now
	forced time.Time // it was forced to sign, and does so from then on; or zero
}

// signingKID returns the kid with which instances in sync sign now, or "". A key that was forced to sign
// does not do so while a failover could still lose it: then the key before it signs, or none.
func signingKID(status *rotation.TenantStatus) string {
	if i := status.Ring.Signer; i >= 0 && i < len(status.Ring.Keys) && status.SignsWith == "" && !status.Fresh {
		return status.Ring.Keys[i].KID // this command is not in sync, and cannot tell more
	}
	return status.SignsWith
}

// shownKeys returns the keys of a ring without those whose last token has expired.
func shownKeys(status rotation.TenantStatus) []shownKey {
	var keys []shownKey
	signs := signingKID(&status)
	for _, k := range status.Ring.Keys {
		if k.State == ring.Dropped {
			continue
		}
		begins := k.Created
		if published, ok := status.Published[k.KID]; ok {
			begins = published
		}
		shown := shownKey{Key: k, begins: begins, signs: k.KID == signs}
		if k.State == ring.Signing && !shown.signs {
			shown.forced = k.Created.Add(k.Timing.Dwell)
		}
		keys = append(keys, shown)
	}
	return keys
}

// listText is for people, on a terminal of 80 columns without colour.
func listText(tenant string, status rotation.TenantStatus, now time.Time) string {
	var b strings.Builder
	if status.Ring.Dead {
		return fmt.Sprintf("tenant %s at %s\nits ring was destroyed%s: its tokens are refused\n", quoteShort(tenant), stamp(now), onDate(status.Ring.DeadAt))
	}
	timing := newestTiming(status.Ring)
	fmt.Fprintf(&b, "tenant %s at %s\n", quoteShort(tenant), stamp(now))
	if len(status.Ring.Keys) == 0 {
		b.WriteString("no ring: nothing is signed for it, and \"keyturn keys create\" makes one\n")
		return b.String()
	}
	fmt.Fprintf(&b, "%s; a new key every %s, published at least %s before; tokens live up to %s\n",
		timing.Algorithm, short(timing.Every), short(timing.Propagation), short(timing.MaxTokenTTL))
	keys := shownKeys(status)
	if signingKID(&status) == "" {
		b.WriteString("\nNO KEY SIGNS NOW" + nextSigner(keys, now) + "\n")
	}
	b.WriteString(heldText(status.Ring, status.Held))
	l := newLifeline(keys, now)
	b.WriteString("\n" + lifeIndent + l.header() + "\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "%3d  %-7s  %s\n", k.Seq, k.stateText(), printable(k.KID, false))
		b.WriteString(lifeIndent + l.draw(k) + "\n")
		b.WriteString(lifeIndent + k.words(now) + "\n")
		if origin := originText(&k.Record); origin != "" {
			b.WriteString(lifeIndent + origin + "\n")
		}
		b.WriteString("\n")
	}
	b.WriteString(lifeIndent + l.footer() + "\n")
	b.WriteString(lifeIndent + ". published   = signs   - verifies only   x revoked   | now\n")
	return b.String()
}

// nextSigner says when a key signs again.
func nextSigner(keys []shownKey, now time.Time) string {
	for _, k := range keys {
		if !k.forced.IsZero() {
			return ": the forced one does " + since(k.forced, now) + " (" + stamp(k.forced) + ")"
		}
	}
	for _, k := range keys {
		if k.State == ring.Pending && k.ActivatesAt.IsZero() {
			return `: "keyturn keys rotate" makes the one sign that waits`
		}
		if k.State == ring.Pending {
			return ": the next one does " + since(k.ActivatesAt, now) + " (" + stamp(k.ActivatesAt) + ")"
		}
	}
	return `, and none is pending: "keyturn keys rotate" mints one`
}

// stateText returns the state of a key for people. For programs it is the one by the schedule.
func (k *shownKey) stateText() string {
	switch {
	case !k.forced.IsZero():
		return "forced"
	case k.signs:
		return string(ring.Signing)
	}
	return string(k.State)
}

// words says which state a key is in, and until when.
func (k *shownKey) words(now time.Time) string {
	switch {
	case !k.forced.IsZero():
		return fmt.Sprintf("signs %s (%s): until then Redis could lose it", since(k.forced, now), stamp(k.forced))
	case k.signs && k.State != ring.Signing:
		return fmt.Sprintf("signs in place of the forced key; verifies for another %s", left(k.DroppedAt, now))
	}
	switch k.State {
	case ring.Pending:
		if k.ActivatesAt.IsZero() {
			return fmt.Sprintf("waits until \"keyturn keys rotate\"; published %s", since(k.begins, now))
		}
		return fmt.Sprintf("signs %s (%s); published %s", since(k.ActivatesAt, now), stamp(k.ActivatesAt), since(k.begins, now))
	case ring.Signing:
		if k.RetiresAt.IsZero() && k.Hold {
			return fmt.Sprintf("signs since %s (%s); held", ago(k.ActivatesAt, now), stamp(k.ActivatesAt))
		}
		if k.RetiresAt.IsZero() {
			return fmt.Sprintf("signs since %s (%s); no key follows it yet", ago(k.ActivatesAt, now), stamp(k.ActivatesAt))
		}
		return fmt.Sprintf("signs for another %s (until %s)", left(k.RetiresAt, now), stamp(k.RetiresAt))
	case ring.Retired:
		if k.DroppedAt.IsZero() {
			return fmt.Sprintf("signed until %s, and no key follows it", since(k.SignUntil, now))
		}
		return fmt.Sprintf("verifies for another %s (until %s)", left(k.DroppedAt, now), stamp(k.DroppedAt))
	}
	return fmt.Sprintf("revoked %s (%s)", since(k.RevokedAt, now), stamp(k.RevokedAt))
}

// ago is since for a moment that has passed.
func ago(t, now time.Time) string {
	if s := since(t, now); s != "now" {
		return s
	}
	return "just now"
}

// left says how long the time until t is.
func left(t, now time.Time) string { return howLong(max(1, t.Unix()-now.Unix())) }

// short writes a duration as the flags take it: 30d, 15m.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

const (
	lifeIndent = "     "
	lifeWidth  = 74
)

// A lifeline is the scale on which the lives of keys are drawn.
type lifeline struct {
	from time.Time
	span time.Duration
	now  int // the column
}

func newLifeline(keys []shownKey, now time.Time) lifeline {
	from, to := now, now
	for _, k := range keys {
		for _, t := range []time.Time{k.begins, k.ActivatesAt, k.RetiresAt, k.DroppedAt} {
			if t.IsZero() || k.State == ring.Revoked && t.After(now) {
				continue
			}
			if t.Before(from) {
				from = t
			}
			if t.After(to) {
				to = t
			}
		}
	}
	span := to.Sub(from)
	l := lifeline{from: from, span: max(span+span/12, time.Second)}
	l.now = l.column(now)
	return l
}

func (l lifeline) column(t time.Time) int {
	part := float64(t.Sub(l.from)) / float64(l.span)
	return min(max(0, int(part*lifeWidth)), lifeWidth-1)
}

// at returns the moment in the middle of a column.
func (l lifeline) at(column int) time.Time {
	return l.from.Add(time.Duration((float64(column) + 0.5) / lifeWidth * float64(l.span)))
}

// draw returns the line of one key. A phase that is too short for a column is drawn in the column in
// which it begins.
func (l lifeline) draw(k shownKey) string {
	line := []byte(strings.Repeat(" ", lifeWidth))
	for i := range line {
		line[i] = k.phase(l.at(i))
	}
	for _, t := range []time.Time{k.begins, k.ActivatesAt, k.RetiresAt, k.RevokedAt} {
		if !t.IsZero() && (k.RevokedAt.IsZero() || !t.After(k.RevokedAt)) {
			line[l.column(t)] = k.phase(t)
		}
	}
	if !k.RevokedAt.IsZero() {
		line[l.column(k.RevokedAt)] = 'x'
	}
	line[l.now] = '|'
	return strings.TrimRight(string(line), " ")
}

// phase returns the character that a key is drawn with at t.
func (k *shownKey) phase(t time.Time) byte {
	switch {
	case t.Before(k.begins), !k.RevokedAt.IsZero() && !t.Before(k.RevokedAt), !k.DroppedAt.IsZero() && !t.Before(k.DroppedAt):
		return ' '
	case t.Before(k.ActivatesAt), k.ActivatesAt.IsZero(): // zero: it waits, or waited until it was revoked
		return '.'
	case !k.RetiresAt.IsZero() && !t.Before(k.RetiresAt), !k.Hold && !t.Before(k.SignUntil):
		return '-'
	}
	return '='
}

func (l lifeline) header() string {
	return strings.Repeat(" ", min(max(0, l.now-1), lifeWidth-len("now"))) + "now"
}

func (l lifeline) footer() string {
	from, to := stamp(l.from), stamp(l.from.Add(l.span))
	return from + strings.Repeat(" ", max(1, lifeWidth-len(from)-len(to))) + to
}
