package seal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Why something that the store holds cannot be opened. Each of them is doubt:
// there may be a key, or a revocation, that cannot be read here and now. None of
// them ever means that there is no key, and none may lead to a new one.
var (
	// ErrWrongKEK reports that it is sealed under a KEK that this process does
	// not have.
	ErrWrongKEK = errors.New("rotation: wrong KEK")

	// ErrTampered reports that it is not what somebody with the KEK has written
	// in this place: it was changed, moved or forged.
	ErrTampered = errors.New("rotation: authentication failed")

	// ErrNewer reports that it was written by a newer keyturn than this.
	ErrNewer = errors.New("rotation: written by a newer keyturn")

	// ErrMalformed reports that it has no form that any keyturn writes.
	ErrMalformed = errors.New("rotation: malformed")
)

// The layout of everything here is in docs/formats.md. Numbers are big-endian.
const (
	formatMagic   = "kt" // so that rubbish does not pass for a newer version
	formatVersion = 1
)

// appendStart appends what every sealed thing begins with.
func appendStart(b []byte, kind byte) []byte {
	return append(append(b, formatMagic...), formatVersion, kind)
}

// The kinds of sealed things.
const (
	blobTenantKey = 'K'
	blobRecord    = 'R'
	blobFact      = 'F'
)

const (
	maxPublic   = 2 << 10
	maxMaterial = 8 << 10
	maxSeq      = math.MaxInt32

	tenantKeyIDSize = 8
	sealOverhead    = 12 + 16 // nonce and tag
	macSize         = 32
)

// Dates lie in [minDate, maxDate): whatever View adds to them stays far from
// where a time.Time, its nanoseconds or RFC 3339 end.
var (
	minDate = time.UnixMilli(1).UTC()
	maxDate = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// origins are the codes of where a key came from.
var origins = map[byte]ring.Origin{'g': ring.Generated, 'i': ring.Imported, 'l': ring.Legacy}

// A header is what a record says openly: all of it is authenticated.
type header struct {
	ring.Record
	tenantKey string // 16 hexadecimal digits
	public    []byte // SubjectPublicKeyInfo in DER (RFC 5280); none for HS*
}

// durations are the fields of a Policy that are times, in the order in which they
// are written.
func durations(p *ring.Policy) []*time.Duration {
	return []*time.Duration{&p.Every, &p.Propagation, &p.MaxTokenTTL, &p.Leeway, &p.ClockSkew, &p.Freshness, &p.Dwell, &p.SignFor, &p.ReaderStaleness}
}

// append appends the header as it is written.
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

// readHeader reads the header of a sealed record, and returns how long it is. It
// judges ranges, and nothing else: a rule that became stricter must not lock out
// the rings of those who followed it as it was.
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
	if !bytes.Equal(h.append(nil), blob[:n]) {
		return header{}, 0, &ring.Error{Kind: ErrMalformed, Text: "not in its one spelling"}
	}
	return h, n, nil
}

// A sealedKey is a tenant key as the store has it.
type sealedKey struct {
	tenant string
	id     string // 16 hexadecimal digits
	kek    kekName
}

func (k sealedKey) append(b []byte) []byte {
	b = appendStart(b, blobTenantKey)
	b = append(b, mustHex(k.id)...)
	b = k.kek.append(b)
	return appendText(b, k.tenant)
}

// readSealedKey reads the header of a wrapped tenant key, for which it needs no
// key, and returns how long it is.
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

// A sealedFact is a fact as the store has it. Tenant, kind and kid are where it
// was found, and in the MAC.
type sealedFact struct {
	at  time.Time
	kek kekName
}

// append appends the fact without its MAC. The time is at a fixed place, so that
// a script can compare two without a key.
func (f sealedFact) append(b []byte) []byte {
	return f.kek.append(appendDate(appendStart(b, blobFact), f.at))
}

// authenticated returns what the MAC of a fact is over.
func (f sealedFact) authenticated(tenant string, kind ring.FactKind, kid string) []byte {
	return appendText(appendText(append(f.append(nil), byte(kind)), tenant), kid)
}

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

func (n kekName) append(b []byte) []byte {
	b = append(append(b, byte(len(n.id))), n.id...)
	return append(b, n.check[:]...)
}

// checkRecord reports what readHeader would refuse.
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

func checkDate(t time.Time) error {
	if t.Before(minDate) || !t.Before(maxDate) || t.Nanosecond()%int(time.Millisecond) != 0 {
		return &ring.Error{Text: fmt.Sprintf("the date %v: want whole milliseconds from 1970 to 2199", t)}
	}
	return nil
}

func isText(s string, least, most int) bool {
	return len(s) >= least && len(s) <= most && utf8.ValidString(s)
}

func appendDate(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

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

// mustHex decodes an id that we made.
func mustHex(id string) []byte {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != tenantKeyIDSize {
		panic("rotation: not the id of a tenant key")
	}
	return b
}

// isTenantKeyID reports whether id is one, in its one spelling.
func isTenantKeyID(id string) bool {
	return len(id) == 2*tenantKeyIDSize && strings.Trim(id, "0123456789abcdef") == ""
}

// A reader reads a sealed thing from the front. After an error it returns zeros.
// Its errors hold no text of what it reads.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf("%s", fmt.Sprintf(format, args...))}
	}
	r.rest = nil
}

// start reads how every sealed thing begins. What comes after the version of a
// newer keyturn is not ours to judge.
func (r *reader) start(kind byte) {
	if magic := r.take(len(formatMagic)); r.err == nil && string(magic) != formatMagic {
		r.fail("not of keyturn")
	}
	switch version := r.number(1, 0, math.MaxUint8); {
	case r.err != nil:
	case version > formatVersion:
		r.err, r.rest = &ring.Error{Kind: ErrNewer, Text: fmt.Sprintf("version %d, this one knows %d", version, formatVersion)}, nil
	case version < 1:
		r.fail("version 0")
	}
	if got := r.take(1); r.err == nil && got[0] != kind {
		r.fail("kind %#x, want %q", got[0], kind)
	}
}

// take returns the next n bytes, or n zeros after an error.
func (r *reader) take(n int) []byte {
	if r.err == nil && len(r.rest) < n {
		r.fail("cut short")
	}
	if r.err != nil {
		return make([]byte, n)
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// number reads an unsigned number of size bytes from least to most.
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

func (r *reader) date() time.Time {
	ms := r.number(8, uint64(minDate.UnixMilli()), uint64(maxDate.UnixMilli()-1))
	return time.UnixMilli(int64(ms)).UTC()
}

func (r *reader) bytes(least, most int) []byte {
	return r.take(int(r.number(2, uint64(least), uint64(most))))
}

func (r *reader) text(least, most int) string {
	b := r.bytes(least, most)
	if r.err == nil && !utf8.Valid(b) {
		r.fail("a text that is not UTF-8")
	}
	return string(b)
}

func (r *reader) algorithm() keystore.Algorithm {
	alg := keystore.Algorithm(r.text(1, 16))
	if r.err == nil && !alg.Known() {
		// A newer one would have come with a newer version.
		r.fail("an unknown algorithm")
	}
	return alg
}

func (r *reader) origin() ring.Origin {
	origin, ok := origins[r.take(1)[0]]
	if r.err == nil && !ok {
		r.fail("an unknown origin")
	}
	return origin
}

func (r *reader) kekName() (n kekName) {
	n.id = string(r.take(int(r.number(1, 1, maxKEKID))))
	if r.err == nil && checkKEKID(n.id) != nil {
		r.fail("no id of a KEK")
	}
	copy(n.check[:], r.take(checkSize))
	return n
}
