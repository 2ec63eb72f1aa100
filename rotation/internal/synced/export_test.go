package synced

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/rotation/internal/seal"
)

// Begin is Open, and leaves the loop to the test: finish ends the sync that Open has begun. It is nil if there
// is nothing left to do.
func Begin(ctx context.Context, keks *seal.KEKs, cfg Config) (k *Rings, finish func(), err error) {
	k, left, err := begin(ctx, keks, cfg)
	if err != nil || left == nil {
		return k, nil, err
	}
	left.run.ctx = ctx
	return k, left.finish, nil
}

// Unopened returns how many rings were read, and not opened.
func (k *Rings) Unopened() (n int) {
	for _, r := range k.All() {
		if r.IsUnopened() {
			n++
		}
	}
	return n
}

// AnyUnopened returns a ring that was read, and not opened.
func (k *Rings) AnyUnopened() *Ring {
	for _, r := range k.All() {
		if r.IsUnopened() {
			return r
		}
	}
	return nil
}

// IsUnopened reports whether r was read, and not opened.
func (r *Ring) IsUnopened() bool { return r.unopened.Load() != nil }

// SyncAll syncs all buckets, as a poll does.
func (k *Rings) SyncAll(ctx context.Context) {
	(&syncRun{k: k, ctx: ctx, buckets: k.buckets}).run()
}

// A Look is what the loop knows of a ring besides its copy.
type Look struct {
	Digested, Dirty, Busy, Calm, Looked, Own bool
	CalmUntil, WorkFrom                      int64
	Signer, Ends                             string
}

// Look returns what the loop knows of r.
func (r *Ring) Look() Look {
	return Look{Digested: r.digest != 0, Dirty: r.dirty, Busy: r.busy, Calm: r.calm, Looked: r.looked, Own: r.own.Load() != nil,
		CalmUntil: r.calmUntil, WorkFrom: r.workFrom.Load(), Signer: r.signer, Ends: r.ends()}
}

// EndsDigests returns the digests with which the buckets vouch.
func (k *Rings) EndsDigests() map[int][16]byte {
	all := make(map[int][16]byte)
	for _, b := range k.buckets {
		all[b.index] = b.endsDigest()
	}
	return all
}

// Outlooks returns what the outlooks of the buckets say that have rings.
func (k *Rings) Outlooks() string {
	var all []string
	for _, b := range k.buckets {
		o := b.Outlook.Load()
		if len(b.rings) == 0 {
			continue
		}
		all = append(all, fmt.Sprint(b.index, len(o.Odd), o.calm, len(o.soon), o.until, o.signFor, o.skew))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}
