package codec

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// KeySize is the size of a digest key in bytes.
const KeySize = 32

const infoPrefix = "keyturn/1/revocations-"

// A Key is a digest key. It turns names into digests, and authenticates values. It is safe
// for concurrent use.
type Key struct {
	ID uint32 // names it; not secret

	digests, entries macs
	log, acks        []byte
	secret           func() []byte // in a closure, so that no fmt verb reaches it
}

// NewKey returns a new random key.
func NewKey() (*Key, error) {
	secret := make([]byte, KeySize)
	rand.Read(secret)
	return ParseKey(secret)
}

// ParseKey returns the key of these bytes. It keeps a copy.
func ParseKey(secret []byte) (*Key, error) {
	if len(secret) != KeySize {
		return nil, fmt.Errorf("a digest key of %d bytes, want %d", len(secret), KeySize)
	}
	kept := string(secret)
	derived := make(map[string][]byte)
	for _, use := range []string{"id", "digest", "entry", "log", "ack"} {
		key, err := hkdf.Key(sha256.New, []byte(kept), nil, infoPrefix+use, sha256.Size)
		if err != nil {
			return nil, errors.New("the digest key cannot be used") // the error of a hash may say something of the key
		}
		derived[use] = key
	}
	return &Key{
		ID:      binary.BigEndian.Uint32(derived["id"]),
		digests: newMACs(derived["digest"]), entries: newMACs(derived["entry"]),
		log: derived["log"], acks: derived["ack"],
		secret: func() []byte { return []byte(kept) },
	}, nil
}

// Secret returns a copy of the bytes of the key.
func (k *Key) Secret() []byte { return k.secret() }

// Same reports whether other is the same key. Without a KEK a person can make another key of the same ID.
func (k *Key) Same(other *Key) bool { return hmac.Equal(k.secret(), other.secret()) }

// Name returns the ID as 8 hexadecimal digits.
func (k *Key) Name() string { return KeyName(k.ID) }

// KeyName returns an ID as 8 hexadecimal digits.
func KeyName(id uint32) string {
	return hex.EncodeToString(binary.BigEndian.AppendUint32(nil, id))
}

// Format implements [fmt.Formatter]: every verb prints the ID, and nothing of the key.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, "digest key "+k.Name()) }

// macs are HMACs under one key, so that one costs no allocation.
type macs struct{ pool *sync.Pool }

// A mac is an HMAC with room for its message and its sum.
type mac struct {
	hash hash.Hash
	msg  []byte
	sum  [sha256.Size]byte
}

func newMACs(key []byte) macs {
	return macs{&sync.Pool{New: func() any { return &mac{hash: hmac.New(sha256.New, key), msg: make([]byte, 0, 256)} }}}
}

// of returns the HMAC of the message that write appends.
func (m macs) get() *mac {
	one := m.pool.Get().(*mac)
	one.hash.Reset()
	one.msg = one.msg[:0]
	return one
}

// done returns the HMAC of m's message, and gives m back.
func (m macs) done(one *mac) [sha256.Size]byte {
	one.hash.Write(one.msg)
	one.hash.Sum(one.sum[:0])
	sum := one.sum
	m.pool.Put(one)
	return sum
}

// Digest returns the digest of a name of a tenant: the first 16 bytes of the HMAC of the kind, the
// tenant and the name. Of a tenant as a whole the name is empty. An empty name of another kind names
// nothing: its digest is zero.
func (k *Key) Digest(kind table.Kind, tenant, name string) table.Digest {
	if name == "" && kind != table.Tenant {
		return table.Digest{}
	}
	m := k.digests.get()
	m.msg = append(m.msg, byte(kind))
	m.msg = append(binary.BigEndian.AppendUint16(m.msg, uint16(len(tenant))), tenant...)
	m.msg = append(m.msg, name...)
	sum := k.digests.done(m)
	return table.Digest(sum[:len(table.Digest{})])
}

// TenantID returns the short name of a tenant in entries.
func (k *Key) TenantID(tenant string) uint64 {
	d := k.Digest(table.Tenant, tenant, "")
	return binary.BigEndian.Uint64(d[:8])
}
