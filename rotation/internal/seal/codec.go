package seal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Every sealed field begins with the magic, the version and the kind. docs/formats.md has the
// layout of all kinds; numbers are big-endian.
const (
	formatMagic   = "kt" // without it, garbage would look like a newer version
	formatVersion = 1
)

// The kinds of sealed fields.
const (
	blobTenantKey = 'K'
	blobRecord    = 'R'
	blobFact      = 'F'
)

// appendStart appends the beginning of a sealed field.
func appendStart(b []byte, kind byte) []byte {
	return append(append(b, formatMagic...), formatVersion, kind)
}

// Bounds and sizes in bytes, except maxSeq.
const (
	maxPublic   = 2 << 10 // of a SubjectPublicKeyInfo
	maxMaterial = 8 << 10 // of a secret or a PKCS #8: room for an RSA key of 8192 bits
	maxSeq      = math.MaxInt32

	tenantKeyIDSize = 8
	sealOverhead    = 12 + 16 // nonce and tag of AES-GCM
	macSize         = 32      // of HMAC-SHA-256
)

// Dates lie in [minDate, maxDate). So the sums that View makes of a date and the durations of a
// policy stay within the range of time.Time, of its nanoseconds and of RFC 3339.
var (
	minDate = time.UnixMilli(1).UTC()
	maxDate = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// origins are the origins by the code that stands for them in a record.
var origins = map[byte]ring.Origin{'g': ring.Generated, 'i': ring.Imported, 'l': ring.Legacy}

// A header is the part of a sealed record that is in the open. It is the additional data (AAD) of
// the sealed part, so all of it is authenticated.
type header struct {
	ring.Record
	tenantKey string // the id of the tenant key, 16 hexadecimal digits
	public    []byte // SubjectPublicKeyInfo in DER (RFC 5280); none for HS*
}

// durations returns the durations of a policy, in the order in which they are written.
func durations(p *ring.Policy) []*time.Duration {
	return []*time.Duration{&p.Every, &p.Propagation, &p.MaxTokenTTL, &p.Leeway, &p.ClockSkew, &p.Freshness, &p.Dwell, &p.SignFor, &p.ReaderStaleness}
}

// append appends the encoding of the header:
//
//	start  seq  created activate_at sign_until  origin no_kid  9 durations  id of the tenant key
//	tenant  kid  alg  alg of the policy  public part
//
// The first line has a fixed size, so that a script can read its fields at fixed offsets without a
// key.
func (h header) append(b []byte) []byte {
	b = appendStart(b, blobRecord)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Seq))
	b = appendDate(b, h.Created)
	b = appendDate(b, h.ActivateAt)
	b = appendDate(b, h.SignUntil)
	b = append(b, originCode(h.Origin), boolByte(h.NoKID))
	for _, d := range durations(&h.Timing) {
		b = binary.BigEndian.AppendUint64(b, uint64(d.Milliseconds()))
	}
	b = append(b, mustHex(h.tenantKey)...)
	b = appendText(b, h.Tenant)
	b = appendText(b, h.KID)
	b = appendText(b, string(h.Algorithm))
	b = appendText(b, string(h.Timing.Algorithm))
	return appendText(b, string(h.public))
}

// readHeader reads the header of a sealed record, and returns its length. It checks form and ranges
// only: if a rule for policies becomes stricter, records of the older rule must still open.
func readHeader(blob []byte) (h header, n int, err error) {
	r := reader{rest: blob}
	r.start(blobRecord)
	h.Seq = int(r.number(4, 1, maxSeq))
	h.Created, h.ActivateAt, h.SignUntil = r.date(), r.date(), r.date()
	h.Origin = r.origin()
	h.NoKID = r.number(1, 0, 1) == 1
	for _, d := range durations(&h.Timing) {
		*d = time.Duration(r.number(8, 0, uint64(ring.MaxDuration.Milliseconds()))) * time.Millisecond
	}
	h.tenantKey = hex.EncodeToString(r.take(tenantKeyIDSize))
	h.Tenant = r.text(1, ring.MaxTenantBytes)
	h.KID = r.text(1, keystore.MaxKIDBytes)
	h.Algorithm = r.algorithm()
	h.Timing.Algorithm = r.algorithm()
	h.public = r.bytes(0, maxPublic)
	if r.err != nil {
		return header{}, 0, r.err
	}
	n = len(blob) - len(r.rest)
	// Every value has one encoding. Otherwise two byte strings would be the same record, and
	// instances that compare bytes would overwrite each other's.
	if !bytes.Equal(h.append(nil), blob[:n]) {
		return header{}, 0, &ring.Error{Kind: ErrMalformed, Text: "not in the canonical encoding"}
	}
	return h, n, nil
}

// A sealedKey is the header of a wrapped tenant key. It is the AAD of the wrapped part.
type sealedKey struct {
	tenant string
	id     string // 16 hexadecimal digits
	kek    kekName
}

// append appends the encoding of the header:
//
//	start  id  KEK name  tenant
func (k sealedKey) append(b []byte) []byte {
	b = appendStart(b, blobTenantKey)
	b = append(b, mustHex(k.id)...)
	b = k.kek.append(b)
	return appendText(b, k.tenant)
}

// readSealedKey reads the header of a wrapped tenant key, and returns its length.
func readSealedKey(blob []byte) (k sealedKey, n int, err error) {
	r := reader{rest: blob}
	r.start(blobTenantKey)
	k.id = hex.EncodeToString(r.take(tenantKeyIDSize))
	k.kek = r.kekName()
	k.tenant = r.text(1, ring.MaxTenantBytes)
	if r.err == nil && len(r.rest) != tenantKeySize+sealOverhead {
		r.fail("%d bytes of tenant key", len(r.rest))
	}
	return k, len(blob) - len(r.rest), r.err
}

// A sealedFact is a fact as the store has it, without its MAC. Tenant, kind and kid are not in it:
// they are told by its place, and the MAC covers them.
type sealedFact struct {
	at  time.Time
	kek kekName
}

// append appends the encoding of the fact:
//
//	start  at  KEK name
//
// The time has a fixed offset, so that a script can compare two facts without a key.
func (f sealedFact) append(b []byte) []byte {
	return f.kek.append(appendDate(appendStart(b, blobFact), f.at))
}

// authenticated returns the message of the MAC: the fact, and the place where it must be found.
// Each part has a fixed length or says its length, so that no two facts have the same message.
func (f sealedFact) authenticated(tenant string, kind ring.FactKind, kid string) []byte {
	return appendText(appendText(append(f.append(nil), byte(kind)), tenant), kid)
}

// readSealedFact reads a fact and its MAC, which the caller checks.
func readSealedFact(blob []byte) (f sealedFact, mac []byte, err error) {
	r := reader{rest: blob}
	r.start(blobFact)
	f.at = r.date()
	f.kek = r.kekName()
	mac = r.take(macSize)
	if r.err == nil && len(r.rest) > 0 {
		r.fail("%d bytes after its end", len(r.rest))
	}
	return f, mac, r.err
}

// append appends the encoding of the name: the length of the id, the id, the check value.
func (n kekName) append(b []byte) []byte {
	b = append(append(b, byte(len(n.id))), n.id...)
	return append(b, n.check[:]...)
}

// checkRecord refuses a record that readHeader would refuse.
func checkRecord(r ring.Record) error {
	switch {
	case r.Seq < 1 || r.Seq > maxSeq:
		return &ring.Error{Text: fmt.Sprintf("a record with seq %d", r.Seq)}
	case !isText(r.Tenant, 1, ring.MaxTenantBytes):
		return &ring.Error{Text: fmt.Sprintf("a tenant of %d bytes: want 1 to %d, in UTF-8", len(r.Tenant), ring.MaxTenantBytes)}
	case !isText(r.KID, 1, keystore.MaxKIDBytes):
		return &ring.Error{Text: fmt.Sprintf("a kid of %d bytes: want 1 to %d, in UTF-8", len(r.KID), keystore.MaxKIDBytes)}
	case !r.Algorithm.Known():
		return &ring.Error{Text: fmt.Sprintf("a record for the unknown algorithm %q", string(r.Algorithm))}
	case originCode(r.Origin) == 0:
		return &ring.Error{Text: fmt.Sprintf("a record of unknown origin %q", string(r.Origin))}
	case !r.SignUntil.After(r.ActivateAt):
		return &ring.Error{Text: "a record whose SignUntil is not after its ActivateAt"}
	}
	for _, t := range []time.Time{r.Created, r.ActivateAt, r.SignUntil} {
		if err := checkDate(t); err != nil {
			return err
		}
	}
	return nil
}

// checkDate refuses a date that cannot be written.
func checkDate(t time.Time) error {
	if t.Before(minDate) || !t.Before(maxDate) || t.Nanosecond()%int(time.Millisecond) != 0 {
		return &ring.Error{Text: fmt.Sprintf("the date %v: want whole milliseconds from 1970 to 2199", t)}
	}
	return nil
}

// isText reports whether s has from least to most bytes, of UTF-8.
func isText(s string, least, most int) bool {
	return len(s) >= least && len(s) <= most && utf8.ValidString(s)
}

// appendDate appends t in milliseconds since 1970.
func appendDate(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
}

// appendText appends s after its length.
func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// originCode returns the code of an origin, or 0 if it is unknown.
func originCode(o ring.Origin) byte {
	for code, origin := range origins {
		if o == origin {
			return code
		}
	}
	return 0
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// mustHex decodes the id of a tenant key. An id that this package has not checked is a mistake of
// the program, so it panics.
func mustHex(id string) []byte {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != tenantKeyIDSize {
		panic("rotation: not the id of a tenant key")
	}
	return b
}

// isTenantKeyID reports whether id is the id of a tenant key, in lower case.
func isTenantKeyID(id string) bool {
	return len(id) == 2*tenantKeyIDSize && strings.Trim(id, "0123456789abcdef") == ""
}

// A reader reads a sealed field from the front. It keeps the first error and returns zeros from
// then on, so that callers check once, at the end. Errors quote nothing of the input.
type reader struct {
	rest []byte
	err  error
}

// fail keeps the first error, an ErrMalformed.
func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf(format, args...)}
	}
	r.rest = nil
}

// start reads the beginning of a sealed field. A newer version may have changed everything after
// the version, so nothing of that is read.
func (r *reader) start(kind byte) {
	// A field of another program is malformed. It must not count as a newer version, over which
	// nothing is written.
	if magic := r.take(len(formatMagic)); r.err == nil && string(magic) != formatMagic {
		r.fail("not written by keyturn")
	}
	switch version := r.number(1, 0, math.MaxUint8); {
	case r.err != nil:
	case version > formatVersion:
		r.err, r.rest = &ring.Error{Kind: ErrNewer, Text: fmt.Sprintf("version %d; this keyturn reads up to %d", version, formatVersion)}, nil
	case version < 1:
		r.fail("version 0")
	}
	if got := r.take(1); r.err == nil && got[0] != kind {
		r.fail("kind %#x, want %q", got[0], kind)
	}
}

// take returns the next n bytes, or n zeros after an error.
//
// Callers may so go on after an error, and index the result.
func (r *reader) take(n int) []byte {
	if r.err == nil && len(r.rest) < n {
		r.fail("cut short")
	}
	if r.err != nil {
		return make([]byte, n)
	}
	b := r.rest[:n:n] // an append to it must not write into the input
	r.rest = r.rest[n:]
	return b
}

// number reads an unsigned number of size bytes, at most 8. It must lie from least to most.
func (r *reader) number(size int, least, most uint64) uint64 {
	var wide [8]byte
	copy(wide[8-size:], r.take(size))
	n := binary.BigEndian.Uint64(wide[:])
	if r.err == nil && (n < least || n > most) {
		r.fail("a number out of range")
	}
	if r.err != nil {
		return 0
	}
	return n
}

// date reads a date in milliseconds.
func (r *reader) date() time.Time {
	ms := r.number(8, uint64(minDate.UnixMilli()), uint64(maxDate.UnixMilli()-1))
	return time.UnixMilli(int64(ms)).UTC()
}

// bytes reads a length from least to most, and so many bytes.
func (r *reader) bytes(least, most int) []byte {
	return r.take(int(r.number(2, uint64(least), uint64(most))))
}

// text reads bytes that must be UTF-8.
func (r *reader) text(least, most int) string {
	b := r.bytes(least, most)
	if r.err == nil && !utf8.Valid(b) {
		r.fail("a text that is not UTF-8")
	}
	return string(b)
}

// algorithm reads the name of an algorithm. A new algorithm comes with a new version of the format,
// so an unknown one is malformed.
func (r *reader) algorithm() keystore.Algorithm {
	alg := keystore.Algorithm(r.text(1, 16))
	if r.err == nil && !alg.Known() {
		r.fail("an unknown algorithm")
	}
	return alg
}

// origin reads the code of an origin.
func (r *reader) origin() ring.Origin {
	origin, ok := origins[r.take(1)[0]]
	if r.err == nil && !ok {
		r.fail("an unknown origin")
	}
	return origin
}

// kekName reads the name of a KEK.
func (r *reader) kekName() (n kekName) {
	n.id = string(r.take(int(r.number(1, 1, maxKEKID))))
	if r.err == nil && checkKEKID(n.id) != nil {
		r.fail("not the id of a KEK")
	}
	copy(n.check[:], r.take(checkSize))
	return n
}
