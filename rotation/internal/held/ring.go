package held

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Ring is a copy of a ring with its sealed bytes, so that they can be written back, and with the
// keys of its records. Its records, facts and bytes never change. What a key of it may still verify
// does, through [Ring.ApplyEnds]. A nil Ring is that of an instance that knows nothing.
type Ring struct {
	*protocol.Copy
	sealed     []*Record   // those of Copy.Records, in that order
	accepts    []*Accept   // those of Copy.Accepts, in that order
	tenantKeys []tenantKey // those of Copy.TenantKeys, in that order, but for those of lives that have ended
	buried     []string    // kids that were held here, of lives that have ended since

	under []seal.KEKName // of what the store had of the ring when it was read last
}

// A Record is a record with its key, and as it was sealed. All copies of a ring share one
// value for each record, so its key stays the same as long as it is held. A verifier
// caches tokens with their key, and asks that key whether it is still usable.
type Record struct {
	protocol.Record
	blob []byte
	key  slot // of the key that verifies; its ID has the record's kid, even if its tokens have none
}

// A tenantKey is a tenant key under a KEK, as the store has it.
type tenantKey struct {
	id   string
	blob []byte
}

// Open returns the copy of a ring whose fields were read from the store and opened. It takes
// over from old every record that old has too. old may be nil.
func Open(old *Ring, fields map[string][]byte, opened *seal.OpenedRing) *Ring {
	c := protocol.Copy{Head: opened.Head.Seq, Count: opened.Head.Count, Facts: opened.Facts}
	have := &Ring{sealed: sealedRecords(old, fields, opened), accepts: sealedAccepts(old, fields, opened), under: opened.Under}
	c.Records = make([]protocol.Record, 0, len(have.sealed))
	for _, r := range have.sealed {
		c.Records = append(c.Records, r.Record)
	}
	for _, a := range have.accepts {
		c.Accepts = append(c.Accepts, a.Accept)
	}
	for id, tk := range opened.TenantKeys {
		have.tenantKeys = append(have.tenantKeys, tenantKey{id, bytes.Clone(fields[seal.PrefixKey+id])})
		c.TenantKeys = append(c.TenantKeys, protocol.TenantKey{ID: id, KEK: KEK(tk.KEK), Born: shared(tk.Born[:])})
		tk.Wipe() // its bytes are needed again only to mint or to sign, and are opened again then
	}
	for _, field := range opened.Ended { // so that they can be removed
		kid, isRecord := strings.CutPrefix(field, seal.PrefixRecord)
		accepted, isAccept := strings.CutPrefix(field, seal.PrefixAccept)
		switch {
		case isRecord:
			c.Revived = append(c.Revived, kid)
		case isAccept:
			c.RevivedAccepts = append(c.RevivedAccepts, accepted)
		default:
			c.TenantKeys = append(c.TenantKeys, protocol.TenantKey{ID: strings.TrimPrefix(field, seal.PrefixKey)})
		}
	}
	slices.SortFunc(c.TenantKeys, func(a, b protocol.TenantKey) int { return strings.Compare(a.ID, b.ID) })
	for _, p := range seal.Publications(fields) {
		// It is not authentic, so anyone who can write to the store can add a hundred thousand.
		if slices.ContainsFunc(c.Records, func(r protocol.Record) bool { return r.KID == p.KID }) {
			c.Published = append(c.Published, protocol.Publication{KID: p.KID, At: p.At})
		}
	}
	return Assemble(protocol.NewCopy(c), have)
}

// sealedRecords returns the records of [Open]: those that were opened, and those of old whose
// bytes the store still has although they cannot be opened now.
func sealedRecords(old *Ring, fields map[string][]byte, opened *seal.OpenedRing) []*Record {
	records := make([]*Record, 0, len(opened.Records))
	for i := range opened.Records {
		r := &opened.Records[i]
		known, blob := old.Find(r.KID), fields[seal.PrefixRecord+r.KID]
		if known == nil || !bytes.Equal(known.blob, blob) { // another key may have that kid: see protocol.Merge
			record := r.Record
			known = &Record{Record: protocol.Record{Record: &record, TenantKey: r.TenantKey, Sum: seal.Sum(blob), Cost: r.Cost}, blob: bytes.Clone(blob)}
		}
		records = append(records, known)
	}
	// A record whose bytes are unchanged still counts as present, even if its tenant key is lost, or
	// is under another KEK now.
	for _, r := range old.All() {
		found := slices.ContainsFunc(records, func(o *Record) bool { return o.KID == r.KID })
		if !found && !opened.Facts.Ignored(r.Record.Record) && bytes.Equal(fields[seal.PrefixRecord+r.KID], r.blob) {
			records = append(records, r)
		}
	}
	return records
}

// Assemble adds to c the sealed bytes and keys of its parts. Each part must be in at least one of
// from; any of them will do. The first is what the store has.
func Assemble(c *protocol.Copy, from ...*Ring) *Ring {
	a := &Ring{Copy: c, under: from[0].under, sealed: make([]*Record, 0, len(c.Records)), tenantKeys: make([]tenantKey, 0, len(c.TenantKeys))}
	for _, r := range c.Records {
		i := slices.IndexFunc(from, func(f *Ring) bool { return f.Find(r.KID).is(r.Sum) })
		a.sealed = append(a.sealed, from[i].Find(r.KID))
	}
	for _, r := range c.Accepts {
		i := slices.IndexFunc(from, func(f *Ring) bool { return f.Accepted(r.KID).is(r.Sum) })
		a.accepts = append(a.accepts, from[i].Accepted(r.KID))
	}
	for _, tk := range c.TenantKeys {
		if i := slices.IndexFunc(from, func(f *Ring) bool { return f.TenantKey(tk.ID) != nil }); i >= 0 {
			a.tenantKeys = append(a.tenantKeys, tenantKey{tk.ID, from[i].TenantKey(tk.ID)})
		}
	}
	for _, f := range from {
		a.bury(f)
	}
	return a
}

// Sharing returns c with the records of o where they are the same, so that their keys stay the same.
func (c *Ring) Sharing(o *Ring) *Ring {
	s := *c
	s.sealed = slices.Clone(c.sealed)
	for i, r := range s.sealed {
		if same := o.Find(r.KID); same.is(r.Sum) {
			s.sealed[i] = same
		}
	}
	s.bury(o)
	return &s
}

// Names reports whether the ring has a record of that kid, or, if it is empty, one whose tokens have none.
func (c *Ring) Names(kid string) bool {
	if kid == "" {
		return slices.ContainsFunc(c.sealed, func(r *Record) bool { return r.NoKID })
	}
	return c.Find(kid) != nil
}

// is reports whether the record has that digest. It tells two records of one kid apart. r may be nil.
func (r *Record) is(sum [32]byte) bool { return r != nil && r.Sum == sum }

// maxBuried is how many kids of lives that have ended are remembered.
const maxBuried = 64

// bury notes the keys that from holds, and whose life has ended in c. The tokens of such a key are
// refused whether or not the store can be asked: no key of another life has its kid, since that was made at
// random. Kids that others have chosen, of imported and of accepted keys, are not noted: the next life of
// the ring may have them again. from may be nil.
func (c *Ring) bury(from *Ring) {
	if from == nil {
		return
	}
	buried := slices.Clone(from.buried)
	for _, r := range from.sealed {
		if r.Life < c.Facts.Dead && r.Origin == ring.Generated {
			buried = append(buried, r.KID)
		}
	}
	for _, kid := range buried {
		if !slices.Contains(c.buried, kid) && len(c.buried) < maxBuried {
			c.buried = append(c.buried, kid)
		}
	}
}

// Buried reports whether the kid is known to be of a life of the ring that has ended. c may be nil.
func (c *Ring) Buried(kid string) bool {
	return c != nil && slices.Contains(c.buried, kid) && c.Find(kid) == nil && c.Accepted(kid) == nil
}

// Plain returns c as the protocol's decisions take it: without bytes, and nil if c is nil.
func (c *Ring) Plain() *protocol.Copy {
	if c == nil {
		return nil
	}
	return c.Copy
}

// Newest returns the newest record, whose timing is the policy of the ring, or nil if there is
// none. c may be nil.
func (c *Ring) Newest() *ring.Record { return c.Plain().Newest() }

// All returns all records, by kid. c may be nil.
func (c *Ring) All() []*Record {
	if c == nil {
		return nil
	}
	return c.sealed
}

// Find returns the record of that kid, or nil. c may be nil.
func (c *Ring) Find(kid string) *Record {
	for _, r := range c.All() { // a ring has few records, so a map would be no faster
		if r.KID == kid {
			return r
		}
	}
	return nil
}

// Revoked reports whether the key of that kid is known to be revoked. Nothing undoes that, so it
// needs no store. c may be nil.
func (c *Ring) Revoked(kid string) bool {
	if c == nil {
		return false
	}
	_, revoked := c.Facts.At(ring.FactRevoked, kid)
	return revoked
}

// TenantKey returns the sealed tenant key of that id, or nil. c may be nil.
func (c *Ring) TenantKey(id string) []byte {
	if c == nil {
		return nil
	}
	for _, tk := range c.tenantKeys {
		if tk.id == id {
			return tk.blob
		}
	}
	return nil
}

// OpenRecord opens a record again, with its private key, for a [Signer]. Most instances sign for few of the
// tenants whose tokens they verify, so a copy holds no private keys: memory then holds fewer secrets.
func (c *Ring) OpenRecord(keks *seal.KEKs, r *Record) (*seal.OpenedRecord, error) {
	tk, err := seal.OpenTenantKey(keks, r.Tenant, r.TenantKey, c.TenantKey(r.TenantKey))
	if err != nil {
		return nil, err
	}
	defer tk.Wipe()
	return seal.OpenRecord(map[string]*seal.TenantKey{r.TenantKey: tk}, r.Tenant, r.KID, r.blob)
}

// ApplyEnds tells every key until when it verifies (invariants I1 and I4), and withdraws those that
// verify nothing any longer: those that were revoked (I3), and those that only old holds. A
// verifier's cache sees that through the key, so cached tokens end at the same moment. complete is
// when the last complete read was sent, by this instance's clock: the longer the instance is out of
// sync, the fewer tokens of others can be alive. old may be nil.
func (c *Ring) ApplyEnds(old *Ring, complete time.Time) {
	for _, r := range c.sealed {
		if c.Revoked(r.KID) {
			r.key.withdraw()
		} else {
			r.key.setUntil(c.KeyEnd(r.Record.Record, complete))
		}
	}
	for _, r := range old.All() {
		if c.Find(r.KID) != r {
			r.key.withdraw()
		}
	}
	c.applyAcceptEnds(old, complete)
}

// WithdrawAll ends all keys of the copy, accepted ones too. c may be nil.
func (c *Ring) WithdrawAll() {
	for _, r := range c.All() {
		r.key.withdraw()
	}
	for _, a := range c.AllAccepted() {
		a.Key.Withdraw()
	}
}

// WithoutKID returns the keys for alg whose tokens have no kid. A verifier tries each of them. Those of
// the ring come first. If they cost more than [keystore.MaxCandidates] together, it returns none and
// the error of [keystore.CheckCost]. Accepted keys follow as far as there is room, see
// [ring.MaxWithoutKID].
func (c *Ring) WithoutKID(keks *seal.KEKs, id keystore.ID, alg keystore.Algorithm, now time.Time) (keys []*keystore.Key, err error) {
	for _, r := range c.sealed {
		// The keys of a copy that has just been opened were not told their ends yet.
		if r.NoKID && r.Algorithm.Same(alg) && r.Usable(now) && !c.Revoked(r.KID) && !c.PlanOf(r.Record.Record).Dropped(now) {
			made, err := c.keyOf(keks, r)
			if err != nil {
				return nil, err
			}
			if made != nil {
				keys = append(keys, made.key)
			}
		}
	}
	if err := keystore.CheckCost(id, keys); err != nil {
		return nil, err
	}
	return c.addAcceptedWithoutKID(keys, id, alg, now), nil
}

// PublicKeys returns the public keys that readers of the JWK Set need at now.
func (c *Ring) PublicKeys(keks *seal.KEKs, now time.Time) (keys []*keystore.Key, err error) {
	for i := range c.Plan.InOrder {
		planned := &c.Plan.InOrder[i]
		if planned.Algorithm.Symmetric() || !planned.Published(now) {
			continue
		}
		made, err := c.keyOf(keks, c.Find(planned.KID))
		if err != nil {
			return nil, err
		}
		if made == nil {
			continue
		}
		if _, public := made.key.Public(); public { // else it was withdrawn
			keys = append(keys, made.key)
		}
	}
	return keys, nil
}

// CacheFor returns how long a reader may cache the JWK Set: a quarter of ReaderStaleness, so that a
// reader may fail to refresh it three times. A key is published for ReaderStaleness + Freshness +
// ClockSkew before it signs. This copy may be old by Freshness; if it is older, readers get that
// much less time. The shortest time of all records counts. old is the age of the copy.
func (c *Ring) CacheFor(old time.Duration) time.Duration {
	least := time.Duration(-1)
	for _, r := range c.Records {
		t := &r.Timing
		if v := max(0, t.ReaderStaleness-max(0, old-t.Freshness)) / 4; least < 0 || v < least {
			least = v
		}
	}
	return max(0, least).Truncate(time.Second)
}

// Born returns the name of the KEK under which the tenant key of the newest record was made, or "".
func (c *Ring) Born() string {
	if n := c.Newest(); n != nil {
		return c.BornOf(c.Find(n.KID))
	}
	return ""
}

// BornOf returns the name of the KEK under which the tenant key of r was made, or "" if the tenant
// key is lost. Who has that KEK, and a copy of the store from then, can open r.
func (c *Ring) BornOf(r *Record) string { return c.bornOf(r.Record.TenantKey) }

// bornOf is BornOf for a blob that is sealed under the tenant key of that id.
func (c *Ring) bornOf(id string) string {
	for _, tk := range c.Copy.TenantKeys {
		if tk.ID == id {
			return tk.Born
		}
	}
	return ""
}

// Ends returns the facts of the ring of tenant that end trust: its revocations, that it was
// destroyed, and up to when its records were collected. c may be nil.
func (c *Ring) Ends(tenant string) (ends []seal.TenantEnd) {
	if c == nil {
		return nil
	}
	add := func(f seal.EndFact) { ends = append(ends, seal.TenantEnd{Tenant: tenant, EndFact: f}) }
	for id, at := range c.Facts.All {
		if id.Kind == ring.FactRevoked {
			add(seal.EndFact{Kind: id.Kind, KID: id.KID, At: at})
		}
	}
	if c.Facts.Dead > 0 {
		add(seal.EndFact{Kind: ring.FactDestroyed, At: c.Facts.DeadAt, Life: c.Facts.Dead})
	}
	if !c.Facts.CollectedUntil.IsZero() {
		add(seal.EndFact{Kind: ring.FactCollected, At: c.Facts.CollectedUntil})
	}
	return ends
}
