package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// A count is what was counted in a run.
type count struct {
	Strikes int // of the fault

	Signed, Verified          int
	RejectedFresh, Rejected   int // unexpired tokens of unrevoked keys that were refused: by fresh instances, by others
	Lacking                   int // tokens signed by a key that a fresh instance lacked
	UnavailFresh, Unavailable int // 503: from fresh instances, from others
	Fenced, NoSigner, Unsure  int // why nothing was signed; Unsure is anything else
	FreshRefused              int // of them, at fresh instances
	Rotations, ByHand         int // signers that took over; of them, or refused, by hand
	TwiceInLife, Twice        int // seqs that were minted more than once in one life of the store, and over lives
	LostMints                 int // that the store had and lost
	Repairs, Resyncs          uint64
	Healed                    time.Duration   // the longest from a fault's end until all were fresh
	Revoked                   []time.Duration // how long each revocation took to reach each instance
}

// bad reports whether the run has broken a promise.
func (c *count) bad() bool { return c.RejectedFresh+c.Lacking+c.TwiceInLife > 0 }

// A minting is a key, and when it was made by the store's clock.
type minting struct {
	kid string
	at  time.Time
}

type place struct {
	tenant string
	seq    int
}

// A tally is a count that is being made. It is safe for concurrent use.
type tally struct {
	mu      sync.Mutex
	count   count
	signers map[string]map[string]bool // tenant, kid
	gone    map[string]bool            // kids that are revoked
	mints   map[place][]minting
	lives   []time.Time // when each further life of the store began
	said    []string    // of violations
}

func newTally() *tally {
	return &tally{signers: make(map[string]map[string]bool), gone: make(map[string]bool), mints: make(map[place][]minting)}
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
			t.sayLocked("a fresh instance does not sign: %v", err)
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
			t.sayLocked("Sign: %v", err)
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
			t.sayLocked("neither 401 nor 503: %v", err)
		case fresh:
			c.UnavailFresh++
			t.sayLocked("503 of a fresh instance: %v", err)
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

func (t *tally) turned(err error) {
	if err == nil {
		t.do(func(c *count) { c.ByHand++ })
	}
}

func (t *tally) lacking(format string, args ...any) {
	t.do(func(c *count) { c.Lacking++ })
	t.say(format, args...)
}

// violation notes what must not be at all.
func (t *tally) violation(format string, args ...any) {
	t.do(func(c *count) { c.RejectedFresh++ })
	t.say(format, args...)
}

func (t *tally) say(format string, args ...any) {
	t.do(func(*count) { t.sayLocked(format, args...) })
}

func (t *tally) sayLocked(format string, args ...any) {
	if len(t.said) < 20 {
		t.said = append(t.said, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

func (t *tally) revoking(kid string, on bool) { t.do(func(*count) { t.gone[kid] = on }) }

func (t *tally) isRevoked(kid string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gone[kid]
}

func (t *tally) revoked(took []time.Duration) {
	t.do(func(c *count) { c.Revoked = append(c.Revoked, took...) })
}

// newLife notes that the store may have lost something.
func (t *tally) newLife() { t.do(func(*count) { t.lives = append(t.lives, time.Now()) }) }

func (t *tally) minted(tenant string, r rotation.Ring) {
	t.do(func(*count) {
		for _, k := range r.Keys {
			at := place{tenant, k.Seq}
			if !slices.ContainsFunc(t.mints[at], func(m minting) bool { return m.kid == k.KID }) {
				t.mints[at] = append(t.mints[at], minting{k.KID, k.Created})
			}
		}
	})
}

// newest returns the highest seq that has been seen of a tenant, and its kid.
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

// life returns in which life of the store a time lies.
func (t *tally) life(at time.Time) int {
	n, _ := slices.BinarySearchFunc(t.lives, at, time.Time.Compare)
	return n
}

// result returns what was counted.
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
	return c, slices.Clone(t.said)
}
