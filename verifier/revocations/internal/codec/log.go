package codec

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// MaxLogged is how many entries an entry of the log carries. One of more changes has none, and the
// reader reads the group.
const MaxLogged = 64

// A Logged is an entry of the log: which change it was, of which group. With the entries that were
// written, a reader learns of a revocation even if its field is gone when it reads the group.
type Logged struct {
	Op, Group, Actor, Nonce string

	Entries []table.Entry // that were written, with their digests
	Whole   bool          // the change wrote nothing else
}

// SealLog returns what the store keeps in the MAC of the entry.
//
//	start  digest key (4)  whole (1)  number of entries (1)  entries: digest (16), as in a field (23)  MAC (16)
func (k *Key) SealLog(l Logged) []byte {
	b := binary.BigEndian.AppendUint32(appendStart(nil, kindLog), k.ID)
	if len(l.Entries) > MaxLogged {
		l.Entries, l.Whole = nil, false
	}
	whole := byte(0)
	if l.Whole {
		whole = 1
	}
	b = append(b, whole, byte(len(l.Entries)))
	for i := range l.Entries {
		b = appendBare(append(b, l.Entries[i].Digest[:]...), &l.Entries[i])
	}
	return append(b, k.logMAC(b, l)...)
}

// logMAC authenticates the encoding with the rest of the entry.
func (k *Key) logMAC(b []byte, l Logged) []byte {
	h := hmac.New(sha256.New, k.log)
	h.Write(b)
	var size [2]byte
	for _, text := range []string{l.Op, l.Group, l.Actor, l.Nonce} {
		binary.BigEndian.PutUint16(size[:], uint16(len(text)))
		h.Write(size[:])
		h.Write([]byte(text))
	}
	return h.Sum(nil)[:macSize]
}

// OpenLog opens what SealLog has returned, and adds it to l, which has the rest of the entry.
func OpenLog(keys Keys, l Logged, sealed []byte) (Logged, error) {
	rest, err := cutStart(sealed, kindLog)
	if err != nil {
		return l, err
	}
	const head, each = 4 + 1 + 1, 16 + bareSize
	if len(rest) < head+macSize || rest[4] > 1 || len(rest) != head+int(rest[5])*each+macSize {
		return l, ErrMalformed
	}
	k := keys.Find(binary.BigEndian.Uint32(rest))
	if k == nil {
		return l, ErrNoKey
	}
	n := len(sealed) - macSize
	if !hmac.Equal(sealed[n:], k.logMAC(sealed[:n], l)) {
		return l, ErrForged
	}
	l.Whole = rest[4] == 1
	for at := head; at < len(rest)-macSize; at += each {
		e, err := readBare(rest[at+16:])
		if err != nil {
			return l, err
		}
		e.Digest = table.Digest(rest[at : at+16])
		l.Entries = append(l.Entries, e)
	}
	return l, nil
}
