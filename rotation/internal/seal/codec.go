package seal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
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
	blobLifeFact  = 'D' // a fact about the whole ring, with the number of a life
	blobHead      = 'H'
	blobAck       = 'A' // of an instance's acknowledgement
	blobEntry     = 'L' // of an entry of the log
	blobSnapshot  = 'S' // of a file
	blobAccept    = 'V' // of an accepted key
	blobSecret    = 'B' // of a small secret of another package
)

// appendStart appends the beginning of a sealed field.
func appendStart(b []byte, kind byte) []byte {
	return append(append(b, formatMagic...), formatVersion, kind)
}

// Bounds and sizes in bytes, except maxSeq and maxLife.
const (
	maxPublic   = 2 << 10 // of a SubjectPublicKeyInfo
	maxMaterial = 8 << 10 // of a secret or a PKCS #8: room for an RSA key of 8192 bits
	maxSeq      = math.MaxInt32
	maxLife     = math.MaxInt32

	tenantKeyIDSize = 8
	durationSize    = 5  // room for 34 years of milliseconds
	macSize         = 32 // of HMAC-SHA-256
)

// Dates lie in [minDate, maxDate). So the sums that View makes of a date and the durations of a
// policy stay within the range of time.Time, of its nanoseconds and of RFC 3339.
var (
	minDate = time.UnixMilli(1).UTC()
	maxDate = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// origins are the origins by the code that stands for them in a record.
var origins = map[byte]ring.Origin{'g': ring.Generated, 'i': ring.Imported, 'l': ring.Legacy}

// algorithms are the algorithms by the code that stands for them in a record.
var algorithms = map[byte]keystore.Algorithm{
	1: keystore.HS256, 2: keystore.HS384, 3: keystore.HS512, 4: keystore.RS256, 5: keystore.RS384, 6: keystore.RS512, 7: keystore.PS256,
	8: keystore.PS384, 9: keystore.PS512, 10: keystore.ES256, 11: keystore.ES384, 12: keystore.ES512, 13: keystore.EdDSA, 14: keystore.Ed25519,
}

// originCodes and algorithmCodes are the codes by what they stand for.
var originCodes, algorithmCodes = codesOf(origins), codesOf(algorithms)

// codesOf returns the codes by value.
func codesOf[V comparable](values map[byte]V) map[V]byte {
	codes := make(map[V]byte, len(values))
	for code, value := range values {
		codes[value] = code
	}
	return codes
}

// A header is the part of a sealed record that is in the open, with the record's place. Both are
// the additional data (AAD) of the sealed part, so all of it is authenticated.
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
//	start  seq  created activate_at sign_until  origin flags  alg  alg of the policy  9 durations
//	longest  life  id of the tenant key  public part
//
// All but the public part has a fixed size, so that a script can read a field at its offset without
// a key. Tenant and kid are not in it: they are told by its place, and place has them.
func (h header) append(b []byte) []byte {
	b = appendStart(b, blobRecord)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Seq))
	b = appendDate(b, h.Created)
	b = appendDate(b, h.ActivateAt)
	b = appendDate(b, h.SignUntil)
	b = append(b, originCodes[h.Origin], flagsOf(&h.Record), algorithmCodes[h.Algorithm], algorithmCodes[h.Timing.Algorithm])
	for _, d := range durations(&h.Timing) {
		b = appendDuration(b, *d)
	}
	b = binary.BigEndian.AppendUint32(appendDuration(b, h.Longest), uint32(h.Life))
	return appendText(appendHex(b, h.tenantKey), string(h.public))
}

// place returns where the record must be found: tenant, kid. The seal covers it.
func (h header) place() []byte {
	return appendText(appendText(make([]byte, 0, 4+len(h.Tenant)+len(h.KID)), h.Tenant), h.KID)
}

// readHeader reads the header of a sealed record, without its place, and returns its length. It
// checks form and ranges only: if a rule for policies becomes stricter, records of the older rule
// must still open.
func readHeader(blob []byte) (h header, n int, err error) {
	if h, n, err = parseHeader(blob); err != nil {
		return header{}, 0, err
	}
	// Every value has one encoding. Otherwise two byte strings would be the same record, and
	// instances that compare bytes would overwrite each other's.
	if !bytes.Equal(h.append(make([]byte, 0, 256)), blob[:n]) {
		return header{}, 0, &ring.Error{Kind: ErrMalformed, Text: "not in the canonical encoding"}
	}
	return h, n, nil
}

// parseHeader is readHeader, and does not ask whether the encoding is the only one.
func parseHeader(blob []byte) (h header, n int, err error) {
	r := reader{rest: blob}
	r.start(blobRecord)
	h.Seq = int(r.number(4, 1, maxSeq))
	h.Created, h.ActivateAt, h.SignUntil = r.date(), r.date(), r.date()
	h.Origin = readCode(&r, origins, "origin")
	r.flags(&h.Record)
	// A new algorithm comes with a new version of the format, so an unknown one is malformed.
	h.Algorithm, h.Timing.Algorithm = readCode(&r, algorithms, "algorithm"), readCode(&r, algorithms, "algorithm")
	for _, d := range durations(&h.Timing) {
		*d = r.duration()
	}
	h.Longest, h.Life = r.duration(), int(r.number(4, 0, maxLife))
	h.tenantKey = hex.EncodeToString(r.take(tenantKeyIDSize))
	h.public = r.bytes(0, maxPublic)
	if r.err != nil {
		return header{}, 0, r.err
	}
	return h, len(blob) - len(r.rest), nil
}

// A sealedKey is the header of a wrapped tenant key, with its place. Both are the AAD of the
// wrapped part.
type sealedKey struct {
	born   [checkSize]byte // the check value of the KEK under which the key was made
	kek    KEKName         // the KEK that wraps it now
	id     string          // 16 hexadecimal digits
	tenant string
}

// append appends the encoding of the header:
//
//	start  born  KEK name
//
// The id and the tenant are not in it: they are told by its place, and place has them.
func (k sealedKey) append(b []byte) []byte {
	return k.kek.append(append(appendStart(b, blobTenantKey), k.born[:]...))
}

// place returns where the tenant key must be found: id, tenant. The seal covers it.
func (k sealedKey) place() []byte {
	return appendText(appendHex(make([]byte, 0, tenantKeyIDSize+2+len(k.tenant)), k.id), k.tenant)
}

// readSealedKey reads the header of a wrapped tenant key, without its place, and returns its
// length. known is as in reader.
func readSealedKey(blob []byte, known ...*kek) (k sealedKey, n int, err error) {
	r := reader{rest: blob, known: known}
	r.start(blobTenantKey)
	copy(k.born[:], r.take(checkSize))
	k.kek = r.kekName()
	if r.err == nil && len(r.rest) != tenantKeySize+boxOverhead {
		r.fail("%d bytes of tenant key", len(r.rest))
	}
	if r.err != nil {
		return sealedKey{}, 0, r.err
	}
	return k, len(blob) - len(r.rest), nil
}

// A sealedFact is a fact as the store has it, without its MAC. Tenant, kind and kid are not in it:
// they are told by its place, and the MAC covers them.
type sealedFact struct {
	ofRing bool // it is about the whole ring, and has a life
	life   int  // how many lives have ended, or the one that the fact is about
	at     time.Time
	kek    KEKName
}

// append appends the encoding of the fact, where a fact about one record has no life:
//
//	start  at  life  KEK name
//
// Time and life have a fixed offset, so that a script can compare two facts without a key.
func (f sealedFact) append(b []byte) []byte {
	if !f.ofRing {
		return f.kek.append(appendDate(appendStart(b, blobFact), f.at))
	}
	b = appendDate(appendStart(b, blobLifeFact), f.at)
	return f.kek.append(binary.BigEndian.AppendUint32(b, uint32(f.life)))
}

// authenticated returns the message of the MAC: the fact, and the place where it must be found.
// Each part has a fixed length or says its length, so that no two facts have the same message.
func (f sealedFact) authenticated(tenant string, kind ring.FactKind, kid string) []byte {
	return f.appendAuthenticated(nil, tenant, kind, kid)
}

// appendAuthenticated appends it to b.
func (f sealedFact) appendAuthenticated(b []byte, tenant string, kind ring.FactKind, kid string) []byte {
	return appendText(appendText(append(f.append(b), byte(kind)), tenant), kid)
}

// readSealedFact reads a fact of that kind and its MAC, which the caller checks. known is as in reader.
func readSealedFact(kind ring.FactKind, blob []byte, known ...*kek) (f sealedFact, mac []byte, err error) {
	r := reader{rest: blob, known: known}
	if f.ofRing = isOfRing(kind); f.ofRing {
		r.start(blobLifeFact)
	} else {
		r.start(blobFact)
	}
	f.at = r.date()
	if f.ofRing {
		f.life = int(r.number(4, uint64(leastLife(kind)), maxSeq))
	}
	f.kek = r.kekName()
	mac = r.mac()
	return f, mac, r.err
}

// isOfRing reports whether facts of that kind are about the whole ring.
func isOfRing(kind ring.FactKind) bool {
	return kind == ring.FactDestroyed || kind == ring.FactCollected
}

// leastLife is the least life that a fact about the whole ring may have: to be destroyed, a ring must
// have had a life.
func leastLife(kind ring.FactKind) int {
	if kind == ring.FactDestroyed {
		return 1
	}
	return 0
}

// append appends the encoding of the name: the length of the id, the id, the check value, the realm
// check.
func (n KEKName) append(b []byte) []byte {
	b = append(append(b, byte(len(n.ID))), n.ID...)
	return append(append(b, n.Check[:]...), n.Realm[:]...)
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
	case originCodes[r.Origin] == 0:
		return &ring.Error{Text: fmt.Sprintf("a record of unknown origin %q", string(r.Origin))}
	case !r.SignUntil.After(r.ActivateAt):
		return &ring.Error{Text: "a record whose SignUntil is not after its ActivateAt"}
	case r.Hold && r.Waits:
		return &ring.Error{Text: "a record with both Hold and Waits: a key that waits is promoted before it can hold another"}
	case r.Life < 0 || r.Life > maxLife:
		return &ring.Error{Text: fmt.Sprintf("a record of life %d", r.Life)}
	case r.Longest < 0 || r.Longest > ring.MaxDuration || r.Longest%time.Millisecond != 0:
		return &ring.Error{Text: fmt.Sprintf("a record whose tokens live for up to %v: want whole milliseconds up to %v", r.Longest, ring.MaxDuration)}
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

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// The flags of a record, one bit each.
const (
	flagNoKID = 1 << iota
	flagHold
	flagWaits
)

// flagsOf returns the flags of a record.
func flagsOf(r *ring.Record) byte {
	return flagNoKID*boolByte(r.NoKID) | flagHold*boolByte(r.Hold) | flagWaits*boolByte(r.Waits)
}

// appendDuration appends d in milliseconds.
func appendDuration(b []byte, d time.Duration) []byte {
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], uint64(d.Milliseconds()))
	return append(b, wide[8-durationSize:]...)
}

// appendHex appends the bytes of the id of a tenant key. An id that this package has not checked is a
// mistake of the program, so it panics.
func appendHex(b []byte, id string) []byte {
	n := len(b)
	b, err := hex.AppendDecode(b, []byte(id))
	if err != nil || len(b) != n+tenantKeyIDSize {
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
	rest  []byte
	err   error
	known []*kek // whose ids need no memory of their own; may be empty
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

// duration reads a duration in milliseconds.
func (r *reader) duration() time.Duration {
	return time.Duration(r.number(durationSize, 0, uint64(ring.MaxDuration.Milliseconds()))) * time.Millisecond
}

// flags reads the flags of a record into it. A key that waits for a promotion holds no other: both
// at once are malformed.
func (r *reader) flags(to *ring.Record) {
	flags := r.number(1, 0, flagNoKID|flagHold|flagWaits)
	to.NoKID, to.Hold, to.Waits = flags&flagNoKID != 0, flags&flagHold != 0, flags&flagWaits != 0
	if to.Hold && to.Waits {
		r.fail("a key that holds and waits")
	}
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

// readCode reads a code of one byte, and returns its value. what says what it stands for.
func readCode[V any](r *reader, codes map[byte]V, what string) V {
	value, ok := codes[r.take(1)[0]]
	if r.err == nil && !ok {
		r.fail("an unknown %s", what)
	}
	return value
}

// kekName reads the name of a KEK.
func (r *reader) kekName() (n KEKName) {
	id := r.take(int(r.number(1, 1, maxKEKID)))
	if i := slices.IndexFunc(r.known, func(k *kek) bool { return k.name.ID == string(id) }); i >= 0 {
		n.ID = r.known[i].name.ID
	} else if n.ID = string(id); r.err == nil && checkKEKID(n.ID) != nil {
		r.fail("not the id of a KEK")
	}
	copy(n.Check[:], r.take(checkSize))
	copy(n.Realm[:], r.take(checkSize))
	return n
}

// mac reads a MAC, which is the end of the field.
func (r *reader) mac() []byte {
	mac := r.take(macSize)
	if r.err == nil && len(r.rest) > 0 {
		r.fail("%d bytes after its end", len(r.rest))
	}
	return mac
}

// dateOrZero reads a date in milliseconds, where 0 is the zero time.
func (r *reader) dateOrZero() time.Time {
	if ms := r.number(8, 0, uint64(maxDate.UnixMilli()-1)); ms > 0 {
		return time.UnixMilli(int64(ms)).UTC()
	}
	return time.Time{}
}
