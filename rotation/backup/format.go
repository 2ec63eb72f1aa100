package backup

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// ErrDamaged reports that a file is no backup, or not a whole one: it was truncated, changed or
// extended. Nothing of it is restored.
var ErrDamaged = errors.New("backup: the file is damaged")

// ErrNewer reports that a newer version of keyturn has written the file.
var ErrNewer = errors.New("backup: the file was written by a newer keyturn")

// The parts of a file, each of which begins with its letter and the length of its content.
const (
	magic   = "kt"
	version = 1
	kind    = 'B' // of a sealed field this byte is the kind, and none of those is B

	partRing   = 'R'
	partMissed = 'M'
	partEnd    = 'E'
)

// Sizes in bytes.
const (
	startSize  = len(magic) + 2 + 8
	headSize   = 1 + 4
	digestSize = 32
	endSize    = 8 + 8 + digestSize

	// maxContent is the most that the content of a part has. A store reads no ring of more than 1 MiB
	// of names and values. Each field has 6 bytes besides, and could be as short as one byte.
	maxContent = 8 << 20
	maxReason  = 512
)

// Dates lie in [minDate, maxDate), as those of sealed fields do.
var (
	minDate = time.UnixMilli(1).UTC()
	maxDate = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// An Entry is what a backup has of one tenant: its ring, or the reason that it has none.
type Entry struct {
	Tenant string

	// Ring is the ring as the store had it at Ring.Now, by the store's clock. It has no Digest.
	Ring store.Snapshot

	// Missed is why the ring could not be read when the backup was made. It is "" if it was read.
	Missed string
}

// A Summary counts what a file has.
type Summary struct {
	Taken  time.Time // when the backup began, by the clock of the process that made it
	Rings  int
	Missed int // tenants whose ring could not be read
	Bytes  int64

	// Digest is the SHA-256 of the file up to its last part, in which it stands.
	Digest [digestSize]byte
}

// compare orders the tenants of a file: by bucket, and then by name.
func compare(a, b string) int {
	return cmp.Or(cmp.Compare(store.BucketOf(a), store.BucketOf(b)), strings.Compare(a, b))
}

// isTenant reports whether name can be that of a tenant.
func isTenant(name string) bool {
	return len(name) >= 1 && len(name) <= ring.MaxTenantBytes && utf8.ValidString(name)
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendDate(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
}

func isDate(t time.Time) bool { return !t.Before(minDate) && t.Before(maxDate) }

// appendRing appends the content of a part for a ring: the tenant, the date, and the fields sorted by
// name.
func appendRing(b []byte, tenant string, snap store.Snapshot) ([]byte, error) {
	if !isDate(snap.Now) {
		return nil, fmt.Errorf("backup: tenant %q: its ring was read at %v, which is no date of this format", tenant, snap.Now)
	}
	b = appendDate(appendText(b, tenant), snap.Now)
	b = binary.BigEndian.AppendUint32(b, uint32(len(snap.Fields)))
	for _, name := range slices.Sorted(maps.Keys(snap.Fields)) {
		if len(name) > 1<<16-1 {
			return nil, fmt.Errorf("backup: tenant %q: a field of its ring has a name of %d bytes", tenant, len(name))
		}
		value := snap.Fields[name]
		b = binary.BigEndian.AppendUint32(appendText(b, name), uint32(len(value)))
		b = append(b, value...)
		if len(b) > maxContent {
			return nil, fmt.Errorf("backup: tenant %q: its ring has more than %d bytes", tenant, maxContent)
		}
	}
	return b, nil
}

// readEntry reads the content of a part for a ring, or for one that was missed.
func readEntry(part byte, content []byte) (e Entry, err error) {
	c := cursor{rest: content}
	if e.Tenant = c.text(); !isTenant(e.Tenant) {
		c.bad = true
	}
	switch part {
	case partMissed:
		e.Missed = c.text()
		c.bad = c.bad || e.Missed == "" || len(e.Missed) > maxReason || !utf8.ValidString(e.Missed)
	default:
		e.Ring.Now = c.date()
		e.Ring.Fields = c.fields()
	}
	if c.bad || len(c.rest) > 0 {
		return Entry{}, errors.New("a part that no keyturn writes")
	}
	return e, nil
}

// A cursor reads values one after the other. Once one is malformed, bad is set, and the others are
// empty.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.rest) {
		c.bad = true
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) number(size int) (n uint64) {
	for _, b := range c.take(size) {
		n = n<<8 | uint64(b)
	}
	return n
}

func (c *cursor) text() string { return string(c.take(int(c.number(2)))) }

func (c *cursor) date() time.Time {
	ms := c.number(8)
	if ms < uint64(minDate.UnixMilli()) || ms >= uint64(maxDate.UnixMilli()) {
		c.bad = true
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// fields reads the fields of a ring. They are sorted, and none is there twice. A number of fields is
// not believed before they are read.
func (c *cursor) fields() map[string][]byte {
	n := c.number(4)
	fields := make(map[string][]byte)
	last := ""
	for i := uint64(0); i < n && !c.bad; i++ {
		name := c.text()
		value := c.take(int(min(c.number(4), maxContent+1)))
		if i > 0 && name <= last {
			c.bad = true
		}
		fields[name], last = bytes.Clone(value), name
	}
	return fields
}
