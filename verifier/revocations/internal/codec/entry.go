package codec

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// The errors of values that cannot be opened.
var (
	ErrForged    = errors.New("it was changed, moved or forged")
	ErrMalformed = errors.New("its form is of no version of keyturn")
	ErrNewer     = errors.New("a newer version of keyturn wrote it")
	ErrNoKey     = errors.New("its digest key is unknown")
)

// Every value begins with the magic, the version and the kind.
const (
	magic   = "kt"
	version = 1

	kindAck   = 'A' // as of rings, since a store reads its date
	kindEntry = 'e'
	kindLog   = 'l'
	kindPlain = 'p' // a digest key in clear

	kindSealed = 'B' // a digest key under a KEK; package rotation writes it
)

const (
	startSize = 4
	macSize   = 16 // bytes of an HMAC that are stored
	bareSize  = 1 + 4 + 8 + 5 + 5
	entrySize = startSize + bareSize + macSize
	fieldSize = 22 // characters of a digest
)

// Forever is the End of an entry that never ends, in seconds since 1970. It is the greatest one.
const Forever = 1<<33 - 1

func appendStart(b []byte, kind byte) []byte { return append(append(b, magic...), version, kind) }

// cutStart checks the beginning of a value, and returns the rest.
func cutStart(b []byte, kind byte) ([]byte, error) {
	switch {
	case len(b) < startSize || string(b[:2]) != magic || b[2] == 0:
		return nil, ErrMalformed
	case b[2] > version:
		return nil, ErrNewer
	case b[3] != kind:
		return nil, ErrMalformed
	}
	return b[startSize:], nil
}

func appendSecond(b []byte, s int64) []byte {
	return append(b, byte(s>>32), byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
}

func second(b []byte) int64 {
	return int64(b[0])<<32 | int64(binary.BigEndian.Uint32(b[1:]))
}

// appendBare appends an entry without its digest:
//
//	kind (1)  digest key (4)  tenant (8)  before (5)  end (5)
func appendBare(b []byte, e *table.Entry) []byte {
	b = append(b, byte(e.Kind))
	b = binary.BigEndian.AppendUint32(b, e.Key)
	b = binary.BigEndian.AppendUint64(b, e.Tenant)
	return appendSecond(appendSecond(b, e.Before), e.End)
}

// readBare reads what appendBare has appended.
func readBare(b []byte) (e table.Entry, err error) {
	e = table.Entry{Kind: table.Kind(b[0]), Key: binary.BigEndian.Uint32(b[1:]), Tenant: binary.BigEndian.Uint64(b[5:]), Before: second(b[13:]), End: second(b[18:])}
	if e.Kind < table.Token || e.Kind > table.Tenant || e.Before > Forever || e.End > Forever {
		return e, ErrMalformed
	}
	return e, nil
}

// Field returns the name of the field of an entry.
func Field(d table.Digest) string { return base64.RawURLEncoding.EncodeToString(d[:]) }

// FieldDigest returns the digest that the name of a field stands for.
func FieldDigest(field string) (d table.Digest, ok bool) {
	if len(field) != fieldSize {
		return d, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(field)
	if err != nil || len(b) != len(d) || table.Digest(b) == (table.Digest{}) {
		return d, false
	}
	return table.Digest(b), true
}

// A Fingerprint stands for one entry in all its parts. Those of several entries are joined by XOR.
// It is a part of an HMAC that is never stored, so a writer to the store cannot find entries whose
// fingerprints cancel out.
type Fingerprint uint64

// seal returns the MAC and the fingerprint of e.
func (k *Key) seal(e *table.Entry) (sum [macSize]byte, f Fingerprint) {
	m := k.entries.get()
	m.msg = appendBare(append(m.msg, e.Digest[:]...), e)
	whole := k.entries.done(m)
	return [macSize]byte(whole[:macSize]), Fingerprint(binary.BigEndian.Uint64(whole[macSize:]))
}

// Fingerprint returns the fingerprint of e, whose digest key k is.
func (k *Key) Fingerprint(e table.Entry) Fingerprint {
	_, f := k.seal(&e)
	return f
}

// SealEntry returns the value of the field of e, whose digest key k is.
func (k *Key) SealEntry(e table.Entry) []byte {
	sum, _ := k.seal(&e)
	return append(appendBare(appendStart(make([]byte, 0, entrySize), kindEntry), &e), sum[:]...)
}

// OpenEntry opens the value of a field. The error wraps one of those of this package.
func OpenEntry(keys Keys, field string, value []byte) (table.Entry, Fingerprint, error) {
	digest, ok := FieldDigest(field)
	if !ok {
		return table.Entry{}, 0, fmt.Errorf("a field %.32q: %w", field, ErrMalformed)
	}
	rest, err := cutStart(value, kindEntry)
	if err != nil {
		return table.Entry{}, 0, err
	}
	if len(rest) != bareSize+macSize {
		return table.Entry{}, 0, ErrMalformed
	}
	e, err := readBare(rest)
	e.Digest = digest
	if err != nil {
		return table.Entry{}, 0, err
	}
	k := keys.Find(e.Key)
	if k == nil {
		return table.Entry{}, 0, fmt.Errorf("digest key %s: %w", KeyName(e.Key), ErrNoKey)
	}
	sum, f := k.seal(&e)
	if !hmac.Equal(sum[:], rest[bareSize:]) {
		return table.Entry{}, 0, ErrForged
	}
	return e, f, nil
}

// Garbage reports whether err, of a value that cannot be opened, says that no keyturn wrote the value.
func Garbage(err error) bool { return errors.Is(err, ErrForged) || errors.Is(err, ErrMalformed) }
