package rotation

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
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
	facts      Facts
	tenantKeys []sealedTenantKey
	published  []publication
	litter     []string // kids that are gone, and in the store again
	plan       *plan
}

// A heldRecord is a record with its key, and as it was sealed. One is made for a
// record once, so that its key stays the same.
type heldRecord struct {
	openedRecord
	blob []byte
	only []*keystore.Key // for Lookup
}

type sealedTenantKey struct {
	id   string
	blob []byte
}

// A publication is a "p:" field: not authenticated.
type publication struct {
	kid string
	at  time.Time
}

// newHeld returns the fields of a ring as they were opened. Records that old holds
// too are old's.
func newHeld(old *held, fields map[string][]byte, ring *openedRing) *held {
	h := &held{head: ring.head, facts: ring.facts}
	for _, r := range ring.records {
		blob := fields[prefixRecord+r.KID]
		known := old.find(r.KID)
		if known == nil {
			known = &heldRecord{openedRecord: r, blob: bytes.Clone(blob), only: []*keystore.Key{r.key}}
			known.public, known.sign = nil, nil // they are in the blob: see opened
		}
		h.records = append(h.records, known)
	}
	// What is byte for byte as it was is there, though its tenant key be lost or
	// under another KEK.
	for _, r := range old.all() {
		if h.find(r.KID) == nil && h.facts.Dead.IsZero() && bytes.Equal(fields[prefixRecord+r.KID], r.blob) {
			h.records = append(h.records, r)
		}
	}
	for id := range ring.tenantKeys {
		h.tenantKeys = append(h.tenantKeys, sealedTenantKey{id, bytes.Clone(fields[prefixKey+id])})
	}
	slices.SortFunc(h.tenantKeys, func(a, b sealedTenantKey) int { return strings.Compare(a.id, b.id) })
	h.published = publications(fields)
	return h.planned()
}

func publications(fields map[string][]byte) []publication {
	var all []publication
	for field, value := range fields {
		kid, ok := strings.CutPrefix(field, prefixPublish)
		ms, err := strconv.ParseInt(string(value), 10, 64)
		if ok && err == nil && ms > 0 && ms < maxDate.UnixMilli() {
			all = append(all, publication{kid, time.UnixMilli(ms).UTC()})
		}
	}
	slices.SortFunc(all, func(a, b publication) int { return strings.Compare(a.kid, b.kid) })
	return all
}

// planned makes the plan of h, without what is gone, and returns h.
func (h *held) planned() *held {
	h.records = slices.DeleteFunc(h.records, func(r *heldRecord) bool {
		gone := h.facts.gone(&r.Record)
		if gone {
			h.litter = append(slices.Clip(h.litter), r.KID)
		}
		return gone
	})
	slices.SortFunc(h.records, func(a, b *heldRecord) int { return strings.Compare(a.KID, b.KID) })
	h.plan = newPlan(h.plain(), h.facts)
	return h
}

// plain returns the records without their keys.
func (h *held) plain() []*Record {
	records := make([]*Record, len(h.records))
	for i, r := range h.records {
		records[i] = &r.Record
	}
	return records
}

// vacant reports whether a ring can be made here: there is nothing, or all that there was is
// gone. A ring that has lost its records, and nothing says that they are gone, is not.
func (h *held) vacant() bool {
	nothing := len(h.tenantKeys) == 0 && h.facts.Equal(Facts{})
	return !h.plan.dead && len(h.records) == 0 && (nothing || !h.facts.Gone.IsZero())
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
		if p.kid == kid {
			return p.at
		}
	}
	return time.Time{}
}

// opened opens a record again, for what signs with it. Few instances sign for all
// tenants whose tokens they verify: so that is not held for each key.
func (h *held) opened(keks *KEKs, r *heldRecord) (*openedRecord, error) {
	tk, err := openTenantKey(keks, r.Tenant, r.tenantKey, h.tenantKey(r.tenantKey))
	if err != nil {
		return nil, err
	}
	return openRecord(map[string]*tenantKey{r.tenantKey: tk}, r.Tenant, r.KID, r.blob)
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
func (h *held) planOf(r *heldRecord) *planned {
	for _, list := range [][]planned{h.plan.inOrder, h.plan.left} {
		for i := range list {
			if list[i].Record == &r.Record {
				return &list[i]
			}
		}
	}
	return &planned{Record: &r.Record} // of a ring that was destroyed
}

// recordOf is the other way.
func (h *held) recordOf(k *planned) *heldRecord { return h.find(k.KID) }

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
	s := h.plan.signer(t)
	if s == nil {
		return nil, ErrNoSigner
	}
	if good.IsZero() {
		return nil, &Error{Kind: ErrFenced, Text: "no good sync yet"}
	}
	if a := age(t, good); a > s.Timing.SignFor {
		return nil, &Error{Kind: ErrFenced, Text: fmt.Sprintf("the last good sync was %v ago, SignFor is %v", a.Round(time.Millisecond), s.Timing.SignFor)}
	}
	if !s.first && !good.After(s.Created.Add(s.Timing.Dwell)) {
		return nil, &Error{Kind: ErrFenced, Text: fmt.Sprintf("no good sync has confirmed key %q yet; it signs with the first after %s", s.KID, moment(s.Created.Add(s.Timing.Dwell)))}
	}
	now := later(t, h.plan.past)
	for i := range h.plan.left {
		k := &h.plan.left[i]
		wouldSign := !k.activatesAt.After(now) && byEffect(*k, *s) > 0
		if from := k.revokedAt.Add(k.Timing.Dwell + k.Timing.window(deadline)); wouldSign && !good.After(from) {
			return nil, &Error{Kind: ErrFenced, Text: fmt.Sprintf("no good sync has confirmed the revocation of key %q yet; the one before it signs with the first after %s", k.KID, moment(from))}
		}
	}
	return h.recordOf(s), nil
}

// window is how far a proposed time may be from the store's: 2(S + deadline).
func (p *Policy) window(deadline time.Duration) time.Duration { return 2 * (p.ClockSkew + deadline) }

// keyEnd returns when r's key ends for an instance whose last complete read was at
// complete: when the plan drops it, or when nothing can live that it knows of.
func (h *held) keyEnd(r *heldRecord, complete time.Time) time.Time {
	t := &r.Timing
	end := complete.Add(t.SignFor + t.MaxTokenTTL + t.Leeway)
	if dropped := h.planOf(r).droppedAt; !dropped.IsZero() && dropped.Before(end) {
		end = dropped
	}
	return end
}

// settle moves the ends of all keys, and withdraws those that vouch for nothing any
// more: revoked, or held no longer.
func (h *held) settle(old *held, complete time.Time) {
	for _, r := range h.records {
		switch _, revoked := h.facts.At(FactRevoked, r.KID); {
		case revoked || h.plan.dead:
			r.key.Withdraw()
		default:
			r.key.SetUntil(h.keyEnd(r, complete))
		}
	}
	if old == nil {
		return
	}
	for _, r := range old.records {
		if h.find(r.KID) != r {
			r.key.Withdraw()
		}
	}
}
