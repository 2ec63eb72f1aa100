package rotation

import (
	"context"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/internal/token"
	"github.com/keyturn/keyturn/rotation/ring"
)

// AddKey mints a key that is pending, however soon after the last, and returns it
// with what signs with it.
func (r *Rotator) AddKey(ctx context.Context, tenant string) (keystore.ID, func([]byte) []byte, error) {
	p, _, err := r.apply(ctx, tenant, r.base, func(b *base) (*protocol.Proposal, error) {
		timing := b.Copy.Newest().Timing
		kid, err := b.MakeKey(timing)
		if err != nil {
			return nil, err
		}
		created, seq := later(b.Now, b.Copy.Newest().Created.Add(time.Millisecond)), b.Copy.MaxSeq()+1
		activate, window := b.Now.Add(time.Hour), timing.Window(b.Deadline)
		return &protocol.Proposal{Op: ring.OpMint, KID: kid, Seq: seq, Head: seq,
			Mint: []ring.Record{{Tenant: tenant, KID: kid, Seq: seq, Algorithm: timing.Algorithm, Created: created, ActivateAt: activate,
				SignUntil: activate.Add(timing.Every), Origin: ring.Generated, Timing: timing}},
			Facts: []protocol.ProposedFact{{FactID: ring.FactID{Kind: ring.FactAnnounced, KID: kid}, At: b.Now.Add(window / 2), To: window}},
		}, nil
	})
	if err != nil {
		return keystore.ID{}, nil, err
	}
	h := r.k.ring(tenant).Copy()
	rec, err := h.OpenRecord(r.k.keks.Load(), h.Find(p.KID))
	if err != nil {
		return keystore.ID{}, nil, err
	}
	key, err := token.NewKey(rec.TokenID(), rec.Algorithm, rec.Private(), "JWT")
	if err != nil {
		return keystore.ID{}, nil, err
	}
	return keystore.ID{Tenant: tenant, KID: p.KID}, func(msg []byte) []byte {
		sig, err := key.Sign(msg)
		if err != nil {
			panic(err)
		}
		return sig
	}, nil
}

// Reload reads a ring again.
func (k *Keyring) Reload(ctx context.Context, tenant string) error {
	return k.rings.Sync(ctx, tenant, nil)
}

// Rewrap wraps the tenant keys among fields under the primary of keks.
func Rewrap(keks *KEKs, tenant string, fields map[string][]byte) {
	for f, v := range fields {
		id, ok := strings.CutPrefix(f, seal.PrefixKey)
		if !ok {
			continue
		}
		b, err := seal.RewrapTenantKey(keks.sealing(), keks.sealing().Primary(), tenant, id, v)
		if err != nil {
			panic(err)
		}
		fields[f] = b
	}
}

// SealDead seals that a ring was destroyed.
func SealDead(keks *KEKs, tenant string, at time.Time) []byte {
	b, err := seal.SealRingFact(keks.sealing(), keks.sealing().Primary(), tenant, ring.FactDestroyed, 1, at)
	if err != nil {
		panic(err)
	}
	return b
}

// SealHead seals a head.
func SealHead(keks *KEKs, tenant string, seq int, count uint64) []byte {
	b, err := seal.SealHead(keks.sealing(), keks.sealing().Primary(), tenant, seal.Head{Seq: seq, Count: count})
	if err != nil {
		panic(err)
	}
	return b
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// OpenableKIDs returns the kids of the records among fields that keks open.
func OpenableKIDs(keks *KEKs, tenant string, fields map[string][]byte) (kids []string) {
	opened, _ := seal.OpenRing(keks.sealing(), tenant, fields)
	for _, r := range opened.Records {
		kids = append(kids, r.KID)
	}
	return kids
}

// KeysOf returns a function that reports whether any key usable now is in the copy of a tenant's ring that
// k holds at the moment, or ever after, whether or not k still holds the tenant. It is nil if k does not.
func KeysOf(k *Keyring, tenant string) (usable func() bool) {
	r := k.ring(tenant)
	if r == nil {
		return nil
	}
	return func() bool {
		for _, rec := range r.Live().All() {
			if rec.Usable(k.cfg.Now()) {
				return true
			}
		}
		return false
	}
}

// StatusOfEach returns what Status does, with a look at each ring.
func (k *Keyring) StatusOfEach() Status {
	s, now := Status{Ready: true, Fresh: true, CanVerify: true, CanSign: true, Counts: k.counts()}, k.cfg.Now()
	k.addBuckets(&s, now)
	k.addRings(&s, now, k.rings.All(), nil)
	s.CanSign = s.CanSign && s.Ready
	return s
}

// LooksAt returns how many rings Status looks at.
func (k *Keyring) LooksAt() int {
	rings, _ := k.rings.Standing(k.cfg.Now())
	return len(rings)
}
