package rotation

import (
	"bytes"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A ringCopy is a copy of a ring with its sealed bytes, so that they can be written back, and with
// the keys of its records. Its records, facts and bytes never change. What a key of it may still
// verify does, through [ringCopy.applyEnds].
type ringCopy struct {
	*protocol.Copy
	sealed     []*sealedRecord   // those of Copy.Records, in that order
	tenantKeys []sealedTenantKey // those of Copy.TenantKeys, in that order
}

// A sealedRecord is a record with its key, and as it was sealed. All copies of a ring share one
// value for each record, so its [keystore.Key] stays the same as long as it is held. A verifier
// caches tokens with their key, and asks that key whether it is still usable.
type sealedRecord struct {
	protocol.Record
	blob []byte
	key  *keystore.Key   // that verifies; its ID has the record's kid, even if its tokens have none
	only []*keystore.Key // the key alone, so that Lookup does not allocate
}

// A sealedTenantKey is a tenant key under a KEK, as the store has it.
type sealedTenantKey struct {
	id   string
	blob []byte
}

// openCopy returns the copy of a ring whose fields were read from the store and opened. It takes
// over from old every record that old has too. old may be nil.
func openCopy(old *ringCopy, fields map[string][]byte, opened *seal.OpenedRing) *ringCopy {
	c := protocol.Copy{Head: opened.Head, Facts: opened.Facts}
	have := &ringCopy{sealed: sealedRecords(old, fields, opened)}
	for _, r := range have.sealed {
		c.Records = append(c.Records, r.Record)
	}
	for id := range opened.TenantKeys {
		have.tenantKeys = append(have.tenantKeys, sealedTenantKey{id, bytes.Clone(fields[seal.PrefixKey+id])})
		c.TenantKeys = append(c.TenantKeys, id)
	}
	slices.Sort(c.TenantKeys)
	for _, p := range seal.Publications(fields) {
		c.Published = append(c.Published, protocol.Publication{KID: p.KID, At: p.At})
	}
	return assemble(protocol.NewCopy(c), have)
}

// sealedRecords returns the records of [openCopy]: those that were opened, and those of old whose
// bytes the store still has although they cannot be opened now.
func sealedRecords(old *ringCopy, fields map[string][]byte, opened *seal.OpenedRing) []*sealedRecord {
	var records []*sealedRecord
	for _, r := range opened.Records {
		known := old.find(r.KID)
		if known == nil {
			record := r.Record
			known = &sealedRecord{Record: protocol.Record{Record: &record, TenantKey: r.TenantKey}, blob: bytes.Clone(fields[seal.PrefixRecord+r.KID]),
				key: r.Key, only: []*keystore.Key{r.Key}}
		}
		records = append(records, known)
	}
	if !opened.Facts.Dead.IsZero() {
		return records
	}
	// A record whose bytes are unchanged still counts as present, even if its tenant key is lost, or
	// is under another KEK now.
	for _, r := range old.all() {
		found := slices.ContainsFunc(records, func(o *sealedRecord) bool { return o.KID == r.KID })
		if !found && bytes.Equal(fields[seal.PrefixRecord+r.KID], r.blob) {
			records = append(records, r)
		}
	}
	return records
}

// assemble adds to c the sealed bytes and keys of its parts. Each part must be in at least one of
// from; any of them will do, because the bytes of a record never change.
func assemble(c *protocol.Copy, from ...*ringCopy) *ringCopy {
	a := &ringCopy{Copy: c}
	for _, r := range c.Records {
		i := slices.IndexFunc(from, func(f *ringCopy) bool { return f.find(r.KID) != nil })
		a.sealed = append(a.sealed, from[i].find(r.KID))
	}
	for _, id := range c.TenantKeys {
		i := slices.IndexFunc(from, func(f *ringCopy) bool { return f.tenantKey(id) != nil })
		a.tenantKeys = append(a.tenantKeys, sealedTenantKey{id, from[i].tenantKey(id)})
	}
	return a
}

// protocolCopy returns c as the protocol's decisions take it: without bytes, and nil if c is nil.
func (c *ringCopy) protocolCopy() *protocol.Copy {
	if c == nil {
		return nil
	}
	return c.Copy
}

// newest returns the newest record, whose timing is the policy of the ring, or nil if there is
// none. c may be nil.
func (c *ringCopy) newest() *ring.Record { return c.protocolCopy().Newest() }

// all returns all records, by kid. c may be nil.
func (c *ringCopy) all() []*sealedRecord {
	if c == nil {
		return nil
	}
	return c.sealed
}

// find returns the record of that kid, or nil. c may be nil.
func (c *ringCopy) find(kid string) *sealedRecord {
	for _, r := range c.all() { // a ring has few records, so a map would be no faster
		if r.KID == kid {
			return r
		}
	}
	return nil
}

// tenantKey returns the sealed tenant key of that id, or nil. c may be nil.
func (c *ringCopy) tenantKey(id string) []byte {
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

// open opens a record again, with its private key, for a [Signer]. Most instances sign for few of the
// tenants whose tokens they verify, so a copy holds no private keys: memory then holds fewer secrets.
func (c *ringCopy) open(keks *seal.KEKs, r *sealedRecord) (*seal.OpenedRecord, error) {
	tk, err := seal.OpenTenantKey(keks, r.Tenant, r.TenantKey, c.tenantKey(r.TenantKey))
	if err != nil {
		return nil, err
	}
	return seal.OpenRecord(map[string]*seal.TenantKey{r.TenantKey: tk}, r.Tenant, r.KID, r.blob)
}

// applyEnds tells every key until when it verifies (invariants I1 and I4), and withdraws those that
// verify nothing any longer: those that were revoked (I3), and those that only old holds. A
// verifier's cache sees that through the key, so cached tokens end at the same moment. complete is
// when the last complete read was sent, by this instance's clock: the longer the instance is out of
// sync, the fewer tokens of others can be alive. old may be nil.
func (c *ringCopy) applyEnds(old *ringCopy, complete time.Time) {
	for _, r := range c.sealed {
		switch _, revoked := c.Facts.At(ring.FactRevoked, r.KID); {
		case revoked || c.Plan.Dead:
			r.key.Withdraw()
		default:
			r.key.SetUntil(c.KeyEnd(r.Record.Record, complete))
		}
	}
	for _, r := range old.all() {
		if c.find(r.KID) != r {
			r.key.Withdraw()
		}
	}
}
