package held

import (
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Pack returns c in few bytes, for a ring whose keys no lookup has asked for: as a [Ring] it takes three
// times as many. [Unpack] makes a copy of them that equals c. The sealed parts lie in them as they are
// sealed, and were authentic when they were read; so Unpack needs no KEK. ok is false for a ring with something that
// few rings have: accepted keys, parts of a life that has ended, a tenant key that is lost. It has to stay
// as it is. c may be nil.
func (c *Ring) Pack() (packed string, ok bool) {
	if c == nil || !c.ordinary() {
		return "", false
	}
	p := packer{kids: c.sealed}
	p.b.Grow(c.packedSize())
	p.number(uint64(c.Head))
	p.number(c.Count)
	p.number(uint64(len(c.sealed)))
	for _, r := range c.sealed {
		p.text(r.KID)
		p.number(uint64(r.Cost))
		p.blob(r.blob)
	}
	p.facts(c)
	p.number(uint64(len(c.tenantKeys)))
	for _, tk := range c.tenantKeys {
		p.text(tk.id)
		p.blob(tk.blob)
	}
	p.number(uint64(len(c.Published)))
	for _, pub := range c.Published {
		p.kid(pub.KID)
		p.date(pub.At)
	}
	p.under(c.under, c.tenantKeys)
	return p.b.String(), !p.bad
}

// packedSize returns how many bytes Pack needs at most, except where a fact names a kid that no record has:
// little more than it does need, since they stay.
func (c *Ring) packedSize() int {
	size := 12
	for _, r := range c.sealed {
		size += len(r.blob) + len(r.KID) + 4
	}
	for range c.Facts.All {
		size += 8
	}
	for _, tk := range c.tenantKeys {
		size += len(tk.id) + len(tk.blob) + 3
	}
	return size + 7*len(c.Published)
}

// ordinary reports whether c has nothing that Pack leaves out.
func (c *Ring) ordinary() bool {
	return len(c.accepts)+len(c.buried)+len(c.Accepts)+len(c.Revived)+len(c.RevivedAccepts) == 0 && len(c.tenantKeys) == len(c.TenantKeys) &&
		len(c.sealed) == len(c.Records) && !slices.ContainsFunc(c.sealed, func(r *Record) bool { return r.key.made.Load() != nil })
}

// A packer writes the parts of a ring.
type packer struct {
	b    strings.Builder
	kids []*Record // whose kids are written as their place
	bad  bool      // something cannot be written
}

func (p *packer) number(n uint64) {
	for ; n >= 0x80; n >>= 7 {
		p.b.WriteByte(byte(n) | 0x80)
	}
	p.b.WriteByte(byte(n))
}

func (p *packer) text(s string) {
	p.number(uint64(len(s)))
	p.b.WriteString(s)
}

func (p *packer) blob(b []byte) {
	p.number(uint64(len(b)))
	p.b.Write(b)
}

// kid writes the place of a kid among the records, or 0 and the kid.
func (p *packer) kid(kid string) {
	i := slices.IndexFunc(p.kids, func(r *Record) bool { return r.KID == kid })
	if p.number(uint64(i + 1)); i < 0 {
		p.text(kid)
	}
}

// date writes a date in whole milliseconds, as all dates of a ring are, or 0 for none.
func (p *packer) date(t time.Time) {
	if t.IsZero() {
		p.number(0)
		return
	}
	ms := t.UnixMilli()
	p.bad = p.bad || ms <= 0 || t != time.UnixMilli(ms).UTC()
	p.number(uint64(ms))
}

// facts writes the facts of a ring.
func (p *packer) facts(c *Ring) {
	p.number(uint64(c.Facts.Dead))
	p.date(c.Facts.DeadAt)
	p.date(c.Facts.CollectedUntil)
	for id, at := range c.Facts.All {
		p.b.WriteByte(byte(id.Kind))
		p.kid(id.KID)
		p.date(at)
	}
	p.b.WriteByte(0) // no kind of fact
}

// under writes the names of KEKs. Nearly always there is one, that of the tenant key.
func (p *packer) under(names []seal.KEKName, keys []tenantKey) {
	if len(keys) > 0 && len(names) == 1 {
		if name, _, err := seal.ReadTenantKeyNames(keys[0].blob); err == nil && name == names[0] {
			p.number(0)
			return
		}
	}
	p.number(uint64(len(names)) + 1)
	for _, name := range names {
		p.text(name.ID)
		p.b.Write(name.Check[:])
		p.b.Write(name.Realm[:])
	}
}

// Unpack returns the ring of tenant that [Ring.Pack] has packed. It panics if it has not.
func Unpack(tenant, packed string) *Ring {
	u := unpacker{rest: packed}
	c, have := protocol.Copy{Head: int(u.number()), Count: u.number()}, new(Ring)
	have.sealed = u.records(tenant)
	for _, r := range have.sealed {
		c.Records = append(c.Records, r.Record)
	}
	c.Facts = u.facts(have.sealed)
	have.tenantKeys, c.TenantKeys = u.tenantKeys()
	for range u.number() {
		c.Published = append(c.Published, protocol.Publication{KID: u.kid(have.sealed), At: u.date()})
	}
	have.under = u.under(have.tenantKeys)
	have.Copy = protocol.NewCopy(c)
	return have
}

// An unpacker reads what a packer has written.
type unpacker struct{ rest string }

func (u *unpacker) records(tenant string) (all []*Record) {
	for range u.number() {
		kid, cost, blob := u.text(), int(u.number()), []byte(u.text())
		record, tenantKey, err := seal.ReadRecord(tenant, kid, blob)
		if err != nil {
			panic("held: a ring that was packed cannot be read: " + err.Error())
		}
		all = append(all, &Record{Record: protocol.Record{Record: record, TenantKey: tenantKey, Sum: seal.Sum(blob), Cost: cost}, blob: blob})
	}
	return all
}

func (u *unpacker) facts(records []*Record) ring.Facts {
	facts := ring.Facts{Dead: int(u.number()), DeadAt: u.date(), CollectedUntil: u.date()}
	for {
		kind := ring.FactKind(u.take(1)[0])
		if kind == 0 {
			return facts
		}
		facts.Add(kind, u.kid(records), u.date())
	}
}

func (u *unpacker) tenantKeys() (keys []tenantKey, names []protocol.TenantKey) {
	for range u.number() {
		tk := tenantKey{u.text(), []byte(u.text())}
		name, born, err := seal.ReadTenantKeyNames(tk.blob)
		if err != nil {
			panic("held: a tenant key that was packed cannot be read: " + err.Error())
		}
		keys, names = append(keys, tk), append(names, protocol.TenantKey{ID: tk.id, KEK: KEK(name), Born: shared(born[:])})
	}
	return keys, names
}

func (u *unpacker) take(n int) string {
	s := u.rest[:n]
	u.rest = u.rest[n:]
	return s
}

func (u *unpacker) number() (n uint64) {
	for shift := 0; ; shift += 7 {
		b := u.take(1)[0]
		if n |= uint64(b&0x7f) << shift; b < 0x80 {
			return n
		}
	}
}

func (u *unpacker) text() string { return u.take(int(u.number())) }

func (u *unpacker) kid(records []*Record) string {
	if i := u.number(); i > 0 {
		return records[i-1].KID
	}
	return u.text()
}

func (u *unpacker) date() time.Time {
	if ms := u.number(); ms > 0 {
		return time.UnixMilli(int64(ms)).UTC()
	}
	return time.Time{}
}

func (u *unpacker) under(keys []tenantKey) (names []seal.KEKName) {
	n := u.number()
	if n == 0 {
		name, _, _ := seal.ReadTenantKeyNames(keys[0].blob)
		return []seal.KEKName{name}
	}
	for range n - 1 {
		name := seal.KEKName{ID: u.text()}
		copy(name.Check[:], u.take(len(name.Check)))
		copy(name.Realm[:], u.take(len(name.Realm)))
		names = append(names, name)
	}
	return names
}
