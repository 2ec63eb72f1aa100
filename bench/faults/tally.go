package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
)

// A count has the counts of a run.
type count struct {
	Strikes int // how often the fault struck

	Signed, Verified          int
	RejectedFresh, Rejected   int // unexpired tokens of unrevoked keys that were rejected: by instances in sync, by others
	Lacking                   int // tokens signed by a key that an instance in sync did not have
	UnavailFresh, Unavailable int // 503: from instances in sync, from others
	Fenced, NoSigner, Unsure  int // refusals to sign; Unsure counts all other errors
	FreshRefused              int // refusals to sign at instances in sync
	Rotations, ByHand         int // keys that began to sign; rotations by hand
	Restores                  int // of backups
	TwiceInLife, Twice        int // seqs that were minted more than once: in one life of the store, in any lives
	LostMints                 int // keys that the store lost
	Repairs, Resyncs          uint64
	Healed                    time.Duration   // the longest time from a fault's end until all were in sync
	Revoked                   []time.Duration // how long each revocation took to reach each instance
	Ops                       ops
	Logouts                   logoutCount
}

// bad reports whether the run broke a promise.
func (c *count) bad() bool {
	return c.RejectedFresh+c.Lacking+c.TwiceInLife+c.Ops.bad()+c.Logouts.bad() > 0
}

// A mintedKey is a key and its creation time, by the store's clock.
type mintedKey struct {
	kid string
	at  time.Time
}

type place struct {
	tenant string
	seq    int
}

// A tally makes the counts of a run. It is safe for concurrent use.
type tally struct {
	mu          sync.Mutex
	count       count
	signers     map[string]map[string]bool // tenant -> kids that have signed
	revokedKIDs map[string]bool            // kids that are revoked
	mints       map[place][]mintedKey
	lives       []time.Time // when each further life of the store began
	notes       []string    // a line for each violation, at most 20
}

func newTally() *tally {
	return &tally{signers: make(map[string]map[string]bool), revokedKIDs: make(map[string]bool), mints: make(map[place][]mintedKey)}
}

func (t *tally) do(f func(c *count)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.count)
}

func (t *tally) signing(err error, freshRefused bool) {
	t.do(func(c *count) {
		if freshRefused {
			c.FreshRefused++
			t.noteOftenLocked("a fresh instance does not sign: %v", err)
		}
		switch {
		case err == nil:
			c.Signed++
		case errors.Is(err, rotation.ErrFenced):
			c.Fenced++
		case errors.Is(err, rotation.ErrNoSigner):
			c.NoSigner++
		default:
			c.Unsure++
			t.noteLocked("Sign: %v", err)
		}
	})
}

func (t *tally) verdict(err error, fresh bool) {
	t.do(func(c *count) {
		c.Verified++
		switch {
		case err == nil:
		case errors.Is(err, verifier.ErrInvalid) && fresh:
			c.RejectedFresh++
		case errors.Is(err, verifier.ErrInvalid):
			c.Rejected++
		case !errors.Is(err, keystore.ErrUnavailable):
			t.noteLocked("neither 401 nor 503: %v", err)
		case fresh:
			c.UnavailFresh++
			t.noteLocked("503 of a fresh instance: %v", err)
		default:
			c.Unavailable++
		}
	})
}

func (t *tally) used(tenant, kid string) {
	t.do(func(*count) {
		if t.signers[tenant] == nil {
			t.signers[tenant] = make(map[string]bool)
		}
		t.signers[tenant][kid] = true
	})
}

func (t *tally) rotated(err error) {
	if err == nil {
		t.do(func(c *count) { c.ByHand++ })
	}
}

func (t *tally) restored(err error) {
	if err == nil {
		t.do(func(c *count) { c.Restores++ })
	}
}

func (t *tally) lacking(format string, args ...any) {
	t.do(func(c *count) { c.Lacking++ })
	t.note(format, args...)
}

// violation counts a broken promise that has no count of its own as a false reject.
func (t *tally) violation(format string, args ...any) {
	t.do(func(c *count) { c.RejectedFresh++ })
	t.note(format, args...)
}

func (t *tally) note(format string, args ...any) {
	t.do(func(*count) { t.noteLocked(format, args...) })
}

func (t *tally) noteLocked(format string, args ...any) {
	if len(t.notes) < 20 {
		t.notes = append(t.notes, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// noteOftenLocked notes what may happen often, and leaves room for the rest.
func (t *tally) noteOftenLocked(format string, args ...any) {
	if len(t.notes) < 3 {
		t.noteLocked(format, args...)
	}
}

func (t *tally) setRevoked(kid string, on bool) { t.do(func(*count) { t.revokedKIDs[kid] = on }) }

func (t *tally) isRevoked(kid string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.revokedKIDs[kid]
}

func (t *tally) revoked(took []time.Duration) {
	t.do(func(c *count) { c.Revoked = append(c.Revoked, took...) })
}

// newLife begins another life of the store, which may have lost data.
func (t *tally) newLife() { t.do(func(*count) { t.lives = append(t.lives, time.Now()) }) }

// livesBegun returns how many further lives of the store have begun.
func (t *tally) livesBegun() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.lives)
}

func (t *tally) minted(tenant string, r ring.Ring) {
	t.do(func(*count) {
		for _, k := range r.Keys {
			at := place{tenant, k.Seq}
			if !slices.ContainsFunc(t.mints[at], func(m mintedKey) bool { return m.kid == k.KID }) {
				t.mints[at] = append(t.mints[at], mintedKey{k.KID, k.Created})
			}
		}
	})
}

// newest returns the highest seq of a tenant that an instance has seen, and its kid.
func (t *tally) newest(tenant string) (seq int, kid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, all := range t.mints {
		if at.tenant == tenant && at.seq > seq {
			seq, kid = at.seq, all[len(all)-1].kid
		}
	}
	return seq, kid
}

// life returns the life of the store in which a time lies.
func (t *tally) life(at time.Time) int {
	n, _ := slices.BinarySearchFunc(t.lives, at, time.Time.Compare)
	return n
}

// result returns the counts and the notes.
func (t *tally) result() (count, []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.count
	for _, kids := range t.signers {
		c.Rotations += len(kids) - 1
	}
	for _, all := range t.mints {
		lives := make(map[int]int)
		for _, m := range all {
			lives[t.life(m.at)]++
		}
		for _, n := range lives {
			c.TwiceInLife += min(1, n-1)
		}
		c.Twice += min(1, len(all)-1)
	}
	return c, slices.Clone(t.notes)
}
