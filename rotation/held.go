package rotation

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

var (
	// ErrFenced reports that an instance must not sign, since it has been out of
	// step with the store for too long: what others have decided meanwhile, it
	// cannot know. Its tokens might be refused. It wraps no error of keystore's.
	ErrFenced = errors.New("rotation: fenced: out of step with the store")

	// ErrNoSigner reports that no key of the ring signs now: the one that did was
	// revoked, or has come to its end, and the next has not taken effect.
	ErrNoSigner = errors.New("rotation: no key signs now")
)

// A held is what a keyring holds of one ring, or what the store has of it. It is
// immutable, and keeps what takes to merge it back. The plan is made of records
// and facts.
type held struct {
	head       int
	records    []*heldRecord // by kid
	facts      ring.Facts
	tenantKeys []sealedTenantKey
	published  []seal.Publication
	litter     []string // kids that are gone, and in the store again
	plan       *ring.Plan
}

// A heldRecord is a record with its key, and as it was sealed. One is made for a
// record once, so that its key stays the same.
type heldRecord struct {
	seal.OpenedRecord
	blob []byte
	only []*keystore.Key // for Lookup
}

type sealedTenantKey struct {
	id   string
	blob []byte
}

// newHeld returns the fields of a ring as they were opened. Records that old holds
// too are old's.
func newHeld(old *held, fields map[string][]byte, opened *seal.OpenedRing) *held {
	h := &held{head: opened.Head, facts: opened.Facts}
	for _, r := range opened.Records {
		blob := fields[seal.PrefixRecord+r.KID]
		known := old.find(r.KID)
		if known == nil {
			known = &heldRecord{OpenedRecord: r, blob: bytes.Clone(blob), only: []*keystore.Key{r.Key}}
			known.Public, known.Private = nil, nil // they are in the blob: see opened
		}
		h.records = append(h.records, known)
	}
	// What is byte for byte as it was is there, though its tenant key be lost or
	// under another KEK.
	for _, r := range old.all() {
		if h.find(r.KID) == nil && h.facts.Dead.IsZero() && bytes.Equal(fields[seal.PrefixRecord+r.KID], r.blob) {
			h.records = append(h.records, r)
		}
	}
	for id := range opened.TenantKeys {
		h.tenantKeys = append(h.tenantKeys, sealedTenantKey{id, bytes.Clone(fields[seal.PrefixKey+id])})
	}
	slices.SortFunc(h.tenantKeys, func(a, b sealedTenantKey) int { return strings.Compare(a.id, b.id) })
	h.published = seal.Publications(fields)
	return h.planned()
}

// planned makes the plan of h, without what is gone, and returns h.
func (h *held) planned() *held {
	h.records = slices.DeleteFunc(h.records, func(r *heldRecord) bool {
		gone := h.facts.Collected(&r.Record)
		if gone {
			h.litter = append(slices.Clip(h.litter), r.KID)
		}
		return gone
	})
	slices.SortFunc(h.records, func(a, b *heldRecord) int { return strings.Compare(a.KID, b.KID) })
	h.plan = ring.NewPlan(h.plain(), h.facts)
	return h
}

// plain returns the records without their keys.
func (h *held) plain() []*ring.Record {
	records := make([]*ring.Record, len(h.records))
	for i, r := range h.records {
		records[i] = &r.Record
	}
	return records
}

// vacant reports whether a ring can be made here: there is nothing, or all that there was is
// gone. A ring that has lost its records, and nothing says that they are gone, is not.
func (h *held) vacant() bool {
	nothing := len(h.tenantKeys) == 0 && h.facts.Equal(ring.Facts{})
	return !h.plan.Dead && len(h.records) == 0 && (nothing || !h.facts.CollectedUntil.IsZero())
}

func (h *held) all() []*heldRecord {
	if h == nil {
		return nil
	}
	return h.records
}

// find returns the record of that kid, or nil. h may be nil.
func (h *held) find(kid string) *heldRecord {
	if h == nil {
		return nil
	}
	for _, r := range h.records { // a handful
		if r.KID == kid {
			return r
		}
	}
	return nil
}

func (h *held) tenantKey(id string) []byte {
	for _, tk := range h.tenantKeys {
		if tk.id == id {
			return tk.blob
		}
	}
	return nil
}

// publishedAt returns when the store says that kid was published, or zero.
func (h *held) publishedAt(kid string) time.Time {
	for _, p := range h.published {
		if p.KID == kid {
			return p.At
		}
	}
	return time.Time{}
}

// opened opens a record again, for what signs with it. Few instances sign for all
// tenants whose tokens they verify: so that is not held for each key.
func (h *held) opened(keks *seal.KEKs, r *heldRecord) (*seal.OpenedRecord, error) {
	tk, err := seal.OpenTenantKey(keks, r.Tenant, r.TenantKey, h.tenantKey(r.TenantKey))
	if err != nil {
		return nil, err
	}
	return seal.OpenRecord(map[string]*seal.TenantKey{r.TenantKey: tk}, r.Tenant, r.KID, r.blob)
}

// newest returns the newest record: its timing is the policy of the ring. It is
// nil if there are none.
func (h *held) newest() *heldRecord {
	if h == nil || len(h.records) == 0 {
		return nil
	}
	return slices.MaxFunc(h.records, func(a, b *heldRecord) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), a.Created.Compare(b.Created), cmp.Compare(a.KID, b.KID))
	})
}

// maxSeq returns the highest seq that is known to have been given.
func (h *held) maxSeq() int {
	most := 0
	for _, r := range h.records {
		most = max(most, r.Seq)
	}
	if h.head > most && h.head < most+maxHeadAhead {
		most = h.head
	}
	return most
}

// maxHeadAhead is how far head, which anyone can write, may be ahead of the records
// that are left. Beyond, it is rubbish, and would only wear out the numbers.
const maxHeadAhead = 1 << 16

// planOf returns where the plan has r.
func (h *held) planOf(r *heldRecord) *ring.PlannedKey {
	for _, list := range [][]ring.PlannedKey{h.plan.InOrder, h.plan.NeverActive} {
		for i := range list {
			if list[i].Record == &r.Record {
				return &list[i]
			}
		}
	}
	return &ring.PlannedKey{Record: &r.Record} // of a ring that was destroyed
}

// recordOf is the other way.
func (h *held) recordOf(k *ring.PlannedKey) *heldRecord { return h.find(k.KID) }

// signing returns the record that signs at t, on an instance whose last good sync
// was at good, by the same clock. window is how far apart the store and whoever
// proposes times may be: 2(S + deadline).
//
// Three things stop it that the plan does not know: an instance that is out of
// step (SignFor); a key that a failover may have lost again, since no good sync
// has confirmed it beyond the replication dwell (P >= SignFor + D + S spares
// scheduled keys that); and a revocation of a pending key that may be lost
// likewise, for then others sign with that one.
func (h *held) signing(t, good time.Time, deadline time.Duration) (*heldRecord, error) {
	s := h.plan.Signer(t)
	if s == nil {
		return nil, ErrNoSigner
	}
	if good.IsZero() {
		return nil, &ring.Error{Kind: ErrFenced, Text: "no good sync yet"}
	}
	if a := age(t, good); a > s.Timing.SignFor {
		return nil, &ring.Error{Kind: ErrFenced, Text: fmt.Sprintf("the last good sync was %v ago, SignFor is %v", a.Round(time.Millisecond), s.Timing.SignFor)}
	}
	if !s.First && !good.After(s.Created.Add(s.Timing.Dwell)) {
		return nil, &ring.Error{Kind: ErrFenced, Text: fmt.Sprintf("no good sync has confirmed key %q yet; it signs with the first after %s", s.KID, moment(s.Created.Add(s.Timing.Dwell)))}
	}
	now := later(t, h.plan.Past)
	for i := range h.plan.NeverActive {
		k := &h.plan.NeverActive[i]
		wouldSign := !k.ActivatesAt.After(now) && ring.ByEffect(*k, *s) > 0
		if from := k.RevokedAt.Add(k.Timing.Dwell + k.Timing.Window(deadline)); wouldSign && !good.After(from) {
			return nil, &ring.Error{Kind: ErrFenced, Text: fmt.Sprintf("no good sync has confirmed the revocation of key %q yet; the one before it signs with the first after %s", k.KID, moment(from))}
		}
	}
	return h.recordOf(s), nil
}

// keyEnd returns when r's key ends for an instance whose last complete read was at
// complete: when the plan drops it, or when nothing can live that it knows of.
func (h *held) keyEnd(r *heldRecord, complete time.Time) time.Time {
	t := &r.Timing
	end := complete.Add(t.SignFor + t.MaxTokenTTL + t.Leeway)
	if dropped := h.planOf(r).DroppedAt; !dropped.IsZero() && dropped.Before(end) {
		end = dropped
	}
	return end
}

// settle moves the ends of all keys, and withdraws those that vouch for nothing any
// more: revoked, or held no longer.
func (h *held) settle(old *held, complete time.Time) {
	for _, r := range h.records {
		switch _, revoked := h.facts.At(ring.FactRevoked, r.KID); {
		case revoked || h.plan.Dead:
			r.Key.Withdraw()
		default:
			r.Key.SetUntil(h.keyEnd(r, complete))
		}
	}
	if old == nil {
		return
	}
	for _, r := range old.records {
		if h.find(r.KID) != r {
			r.Key.Withdraw()
		}
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// moment writes a time of the store.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }
