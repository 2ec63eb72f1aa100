package rules

import (
	"encoding/binary"
	"time"

	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// Leeway is the most that a verifier forgives an expired token, and an iat of the future.
const Leeway = 5 * time.Minute

// Seconds returns t in whole seconds since 1970, rounded up: a token that was issued within the second
// has its start as iat, and is revoked.
func Seconds(t time.Time) int64 {
	if t.Nanosecond() > 0 {
		return t.Unix() + 1
	}
	return t.Unix()
}

// End returns when an entry may be forgotten whose last token expires at exp, in seconds since 1970:
// the verifier forgives [Leeway], and its clock and the store's may differ by skew each.
//
// It is a whole minute. So all instances forget entries at the same moments, and their fingerprints
// agree all the minute between.
func End(exp time.Time, skew time.Duration) int64 {
	s := Seconds(exp.Add(Leeway + 2*skew))
	return min((s+59)/60*60, codec.Forever)
}

// Ended reports whether e may be forgotten. now is the earlier of this clock and the store's: a clock
// that is ahead must not end an entry.
func Ended(e table.Entry, now time.Time) bool {
	return e.End != codec.Forever && e.End <= now.Unix()
}

// Minute returns the last whole minute, in seconds since 1970. Entries that end up to it have ended.
func Minute(now time.Time) int64 { return now.Unix() / 60 * 60 }

// TokenBefore returns the Before of the entry of a single token that is revoked at now: the token was
// issued earlier, by a clock that may be ahead. Only [Replaces] uses it.
func TokenBefore(now time.Time) int64 { return Seconds(now.Add(Leeway)) + 1 }

// Join returns the entry that revokes what a and b revoke. They have the same digest. Entries only
// grow, so all instances come to the same, in whatever order they hear of them.
func Join(a, b table.Entry) table.Entry {
	a.Before, a.End = max(a.Before, b.Before), max(a.End, b.End)
	return a
}

// Lacks reports whether b revokes something that a does not.
func Lacks(a, b table.Entry) bool { return b.Before > a.Before || b.End > a.End }

// Known reports whether stored, which the store had, revokes all that joined does. The Before of a single
// token says when it was revoked, and a repetition revokes nothing more: only [Replaces] uses it.
func Known(stored, joined table.Entry) bool {
	if joined.Kind == table.Token {
		return stored.End >= joined.End
	}
	return !Lacks(stored, joined)
}

// Replaces reports whether the entry of a whole tenant revokes every token that e does. Then e can
// be forgotten. An entry that was made less than skew before it stays, since the clocks may differ. So does
// that of a session: it has no time, and revokes tokens that are issued later too.
func Replaces(tenant, e table.Entry, skew time.Duration) bool {
	return tenant.Kind == table.Tenant && (e.Kind == table.Token || e.Kind == table.Subject) &&
		e.Key == tenant.Key && e.Tenant == tenant.Tenant && binary.BigEndian.Uint64(tenant.Digest[:8]) == tenant.Tenant &&
		e.Before <= tenant.Before-int64((skew+time.Second-1)/time.Second) && e.End <= tenant.End
}

// HasRoom reports whether a list that holds so many entries is worth another look for those that it had no
// room for. It holds up to twice its share, so that what is read then finds room.
func HasRoom(held, share int) bool { return held <= share }

// Sum returns an entry that stands for a and b: it ends with the later one, and [Replaces] says that a tenant's
// revocation replaces it only if that replaces both. It says nothing of their digests.
func Sum(a, b table.Entry) table.Entry {
	if b.Kind == table.Session || a.Key != b.Key || a.Tenant != b.Tenant {
		a.Kind = table.Session
	}
	return Join(a, b)
}

// ShortageOver reports whether the entries that found no room count for nothing any more. Either the last of them
// ended at until. Or their groups were read again, and the last entry that was not noted ended at beyond: the store
// may have lost that one unseen. Other instances count an entry for a while after its end, so that is over two
// minutes later.
func ShortageOver(groups int, until, beyond, swept int64) bool {
	passed := func(end int64) bool { return end != codec.Forever && end+2*oldMinute <= swept }
	return passed(until) || groups == 0 && passed(beyond)
}
