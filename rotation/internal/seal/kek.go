package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/rotation/ring"
)

// KEKs are key-encryption keys (NIST SP 800-57, part 1, section 5.1.1): the
// secret that the instances of a service share, and the store does not have. The
// first is the primary, which seals; the others are older ones that still open.
// Make them with [ParseKEKs], [NewKEKs], [UnwrapKEKs] or [InsecurePlaintext]; the
// zero KEKs seal and open nothing.
//
// KEKs are immutable and safe for concurrent use. They hold their keys in
// closures: no fmt verb, log handler or encoder reaches them.
type KEKs struct {
	list []*kek
}

// A kek is one of them. What it does is in closures.
type kek struct {
	id    string
	check [checkSize]byte // tells keys apart that share an id; reveals nothing of the key
	aead  func() (cipher.AEAD, error)
	mac   func(msg []byte) []byte
}

const (
	kekSize   = 32
	checkSize = 8
	maxKEKID  = 64
	maxKEKs   = 16

	insecureID = "insecure"
	howToKEK   = "make one with: (umask 077; openssl rand -base64 32 > kek)"
)

// insecureKey is published in docs/formats.md. It protects nothing.
var insecureKey = sha256.Sum256([]byte("keyturn: InsecurePlaintext: this key is public"))

// ParseKEKs reads the text of a KEK file, or of KEYTURN_KEK: one key a line, in
// base64 (RFC 4648, section 4, with padding) of 32 bytes, alone or after an id and
// a colon. The first is the primary; further lines are older keys that still open
// what they sealed. Empty lines count for nothing. There are no comments.
//
// An id is 1 to 64 of the characters A-Z a-z 0-9 . _ and -. A key without one is
// named by 16 hexadecimal digits that follow from it, and do not give it away.
//
// Errors name the line, and hold nothing of it.
func ParseKEKs(text []byte) (*KEKs, error) {
	ks := new(KEKs)
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			continue
		}
		id, encoded, named := strings.Cut(line, ":")
		if !named {
			id, encoded = "", line
		} else if err := checkKEKID(id); err != nil {
			return nil, &ring.Error{Text: fmt.Sprintf("KEK, line %d", i+1), Err: err}
		}
		key, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if err != nil || len(key) != kekSize || len(encoded) != base64.StdEncoding.EncodedLen(kekSize) {
			return nil, &ring.Error{Text: fmt.Sprintf("KEK, line %d: not base64 of %d bytes; %s", i+1, kekSize, howToKEK)}
		}
		if err := ks.add(id, key); err != nil {
			return nil, &ring.Error{Text: fmt.Sprintf("KEK, line %d", i+1), Err: err}
		}
	}
	if len(ks.list) == 0 {
		return nil, &ring.Error{Text: fmt.Sprintf("no KEK; %s", howToKEK)}
	}
	return ks, nil
}

// NewKEKs returns KEKs of 32 bytes each, the primary first. It keeps copies. They
// are named as those without an id are in [ParseKEKs].
func NewKEKs(keys ...[]byte) (*KEKs, error) {
	ks := new(KEKs)
	for i, key := range keys {
		if err := ks.add("", key); err != nil {
			return nil, &ring.Error{Text: fmt.Sprintf("KEK %d", i+1), Err: err}
		}
	}
	if len(ks.list) == 0 {
		return nil, &ring.Error{Text: fmt.Sprintf("no KEK; %s", howToKEK)}
	}
	return ks, nil
}

// InsecurePlaintext returns KEKs whose only key is published in docs/formats.md:
// whoever can read the store can read the keys in it, and whoever can write to it
// can sign as anyone. It is for tests, and for a demo that nothing depends on. The
// KEK is called "insecure", and no other may be.
func InsecurePlaintext() *KEKs {
	k, err := newKEK(insecureID, insecureKey[:])
	if err != nil {
		panic("rotation: " + err.Error()) // a constant
	}
	return &KEKs{list: []*kek{k}}
}

// IDs returns what the keys are called, the primary first.
func (ks *KEKs) IDs() []string {
	var ids []string
	for _, k := range ks.all() {
		ids = append(ids, k.id)
	}
	return ids
}

// String names the keys, such as `KEK "3f0c9a1e5b7d2468"`.
func (ks *KEKs) String() string {
	switch ids := ks.IDs(); len(ids) {
	case 0:
		return "no KEK"
	case 1:
		return fmt.Sprintf("KEK %q", ids[0])
	default:
		return "KEKs " + strings.Join(quoteAll(ids), ", ")
	}
}

// Format implements [fmt.Formatter]: every verb prints what [KEKs.String] does.
func (ks *KEKs) Format(f fmt.State, _ rune) { io.WriteString(f, ks.String()) }

func quoteAll(texts []string) []string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = fmt.Sprintf("%q", t)
	}
	return quoted
}

func (ks *KEKs) all() []*kek {
	if ks == nil {
		return nil
	}
	return ks.list
}

// primary returns the one that seals.
func (ks *KEKs) primary() (*kek, error) {
	if len(ks.all()) == 0 {
		return nil, &ring.Error{Text: fmt.Sprintf("no KEK to seal with; %s", howToKEK)}
	}
	return ks.list[0], nil
}

// named returns the one that sealed something. The check value decides, not the
// id, which an operator may change.
func (ks *KEKs) named(n kekName) (*kek, error) {
	for _, k := range ks.all() {
		if k.check == n.check {
			return k, nil
		}
	}
	if slices.Contains(ks.IDs(), n.id) {
		return nil, &ring.Error{Kind: ErrWrongKEK, Text: fmt.Sprintf("it is sealed under another key that is called %q, too (check value %x)", n.id, n.check)}
	}
	return nil, &ring.Error{Kind: ErrWrongKEK, Text: fmt.Sprintf("it is sealed under KEK %q, this process has %v", n.id, ks)}
}

func (ks *KEKs) add(id string, key []byte) error {
	k, err := newKEK(id, key)
	switch {
	case err != nil:
		return err
	case k.id == insecureID:
		return fmt.Errorf("only InsecurePlaintext is called %q", insecureID)
	case bytes.Equal(key, insecureKey[:]):
		return fmt.Errorf("the key is the published one of InsecurePlaintext; %s", howToKEK)
	case len(ks.list) == maxKEKs:
		return fmt.Errorf("more than %d keys", maxKEKs)
	}
	for _, other := range ks.list {
		if other.check == k.check {
			return fmt.Errorf("the key of %q a second time", other.id)
		}
		if other.id == k.id {
			return fmt.Errorf("a second key that is called %q", k.id)
		}
	}
	ks.list = append(ks.list, k)
	return nil
}

func checkKEKID(id string) error {
	if id == "" || len(id) > maxKEKID || strings.ContainsFunc(id, func(r rune) bool { return !kekIDRune(r) }) {
		// Not the text: it may be a key in another spelling.
		return fmt.Errorf("what stands before the colon is no id: want 1 to %d of A-Z a-z 0-9 . _ -", maxKEKID)
	}
	return nil
}

func kekIDRune(r rune) bool {
	return 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-'
}

// newKEK derives from one key what each of its uses needs, so that no two uses
// share a key. Nothing is a bare hash of it.
func newKEK(id string, key []byte) (*kek, error) {
	switch {
	case len(key) != kekSize:
		return nil, fmt.Errorf("%d bytes, want %d; %s", len(key), kekSize, howToKEK)
	case bytes.Equal(key, bytes.Repeat(key[:1], kekSize)):
		return nil, fmt.Errorf("all bytes are the same; %s", howToKEK)
	}
	derived := make(map[string][]byte)
	for _, use := range []string{"kek-id", "kek-check", "kek-wrap", "kek-facts"} {
		d, err := hkdf.Key(sha256.New, key, nil, "keyturn/1/"+use, kekSize)
		if err != nil {
			return nil, errors.New("it cannot be used")
		}
		derived[use] = d
	}
	if id == "" {
		id = hex.EncodeToString(derived["kek-id"][:8])
	}
	wrap, facts := derived["kek-wrap"], derived["kek-facts"]
	return &kek{
		id:    id,
		check: [checkSize]byte(derived["kek-check"]),
		aead:  func() (cipher.AEAD, error) { return newAEAD(wrap) },
		mac: func(msg []byte) []byte {
			h := hmac.New(sha256.New, facts)
			h.Write(msg)
			return h.Sum(nil)
		},
	}, nil
}

// newAEAD returns AES-256-GCM that puts a random nonce of 96 bits before what it
// seals. A KEK seals a tenant key once a tenant, a tenant key a record once a
// rotation: far from the 2^32 messages of NIST SP 800-38D, section 8.3.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (k *kek) name() kekName { return kekName{id: k.id, check: k.check} }

// A kekName is what sealed things say of their KEK.
type kekName struct {
	id    string
	check [checkSize]byte
}
