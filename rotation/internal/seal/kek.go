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

// KEKs are key-encryption keys (NIST SP 800-57, part 1, section 5.1.1): secrets that the instances
// of a service share and the store does not have. The first one is the primary. It seals and opens,
// and the others only open. Nil and zero KEKs seal and open nothing.
//
// KEKs are immutable and safe for concurrent use. The keys are in closures, so no fmt verb, log
// handler or encoder reaches them.
type KEKs struct {
	list []*kek
}

// A kek is one key-encryption key. Everything that it can do is in closures.
type kek struct {
	id    string
	check [checkSize]byte             // identifies the key, even if two share an id; does not reveal it
	aead  func() (cipher.AEAD, error) // wraps tenant keys
	mac   func(message []byte) []byte // authenticates facts
}

const (
	kekSize   = 32 // bytes
	checkSize = 8  // bytes
	maxKEKID  = 64 // bytes
	maxKEKs   = 16 // in one list

	insecureID = "insecure" // of InsecurePlaintext
	howToKEK   = "make one with: (umask 077; openssl rand -base64 32 > kek)"
)

// insecureKey is the key of InsecurePlaintext. It is published in docs/formats.md and protects
// nothing.
var insecureKey = sha256.Sum256([]byte("keyturn: InsecurePlaintext: this key is public"))

// ParseKEKs reads the text of a KEK file, or of KEYTURN_KEK. Each line is one key: the base64 (RFC
// 4648, section 4, with padding) of 32 bytes, alone or after an id and a colon. The first key is
// the primary. The others are older keys that still open what they sealed. Empty lines are ignored.
// There are no comments.
//
// An id is 1 to 64 of the characters A-Z a-z 0-9 . _ and -. A key without one gets an id of 16
// hexadecimal digits, which is derived from the key and does not reveal it.
//
// Errors name the line by number, and quote nothing of it.
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
		// The decoder skips line ends within the text, which only the length shows.
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

// NewKEKs returns KEKs of 32 bytes each, the primary first. It keeps copies. Their ids are derived
// as in [ParseKEKs].
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

// InsecurePlaintext returns KEKs whose only key is published in docs/formats.md. Every reader of
// the store can read the keys in it, and every writer can sign as any tenant. It is for tests, and
// for a demo on which nothing depends. Its id is "insecure", which no other KEK may have.
func InsecurePlaintext() *KEKs {
	k, err := newKEK(insecureID, insecureKey[:])
	if err != nil {
		panic("rotation: " + err.Error()) // a constant
	}
	return &KEKs{list: []*kek{k}}
}

// IDs returns the ids of the keys, the primary first.
func (ks *KEKs) IDs() []string {
	var ids []string
	for _, k := range ks.all() {
		ids = append(ids, k.id)
	}
	return ids
}

// String returns the ids as a text such as `KEK "3f0c9a1e5b7d2468"`.
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

// Format implements [fmt.Formatter]. Every verb prints String.
func (ks *KEKs) Format(f fmt.State, _ rune) { io.WriteString(f, ks.String()) }

// quoteAll returns the texts in quotes.
func quoteAll(texts []string) []string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = fmt.Sprintf("%q", t)
	}
	return quoted
}

// all returns the keys. ks may be nil.
func (ks *KEKs) all() []*kek {
	if ks == nil {
		return nil
	}
	return ks.list
}

// primary returns the key that seals.
func (ks *KEKs) primary() (*kek, error) {
	if len(ks.all()) == 0 {
		return nil, &ring.Error{Text: fmt.Sprintf("no KEK to seal with; %s", howToKEK)}
	}
	return ks.list[0], nil
}

// find returns the key of that name. The check value decides, because an operator may change the
// id.
func (ks *KEKs) find(n kekName) (*kek, error) {
	for _, k := range ks.all() {
		if k.check == n.check {
			return k, nil
		}
	}
	// The id alone would mislead here: this process has a KEK of that id, and it is another key.
	if slices.Contains(ks.IDs(), n.id) {
		return nil, &ring.Error{Kind: ErrWrongKEK, Text: fmt.Sprintf("it is sealed under another KEK that is also called %q (check value %x)", n.id, n.check)}
	}
	return nil, &ring.Error{Kind: ErrWrongKEK, Text: fmt.Sprintf("it is sealed under KEK %q, this process has %v", n.id, ks)}
}

// add appends a key. An empty id is derived from it.
func (ks *KEKs) add(id string, key []byte) error {
	k, err := newKEK(id, key)
	switch {
	case err != nil:
		return err
	case k.id == insecureID: // the id tells operators that nothing is protected
		return fmt.Errorf("only InsecurePlaintext is called %q", insecureID)
	case bytes.Equal(key, insecureKey[:]):
		return fmt.Errorf("the key is the published one of InsecurePlaintext; %s", howToKEK)
	case len(ks.list) == maxKEKs:
		return fmt.Errorf("more than %d keys", maxKEKs)
	}
	// A key that is listed twice hides which line is the older one. Two keys of one id would make
	// errors ambiguous.
	for _, other := range ks.list {
		if other.check == k.check {
			return fmt.Errorf("the same key as %q", other.id)
		}
		if other.id == k.id {
			return fmt.Errorf("a second key that is called %q", k.id)
		}
	}
	ks.list = append(ks.list, k)
	return nil
}

// checkKEKID refuses a text that cannot be an id. It does not quote the text, which may be a key in
// another form.
func checkKEKID(id string) error {
	if id == "" || len(id) > maxKEKID || strings.ContainsFunc(id, func(r rune) bool { return !kekIDRune(r) }) {
		return fmt.Errorf("the text before the colon is no id: want 1 to %d of A-Z a-z 0-9 . _ -", maxKEKID)
	}
	return nil
}

// kekIDRune reports whether an id may have r.
func kekIDRune(r rune) bool {
	return 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-'
}

// newKEK derives a key for each use of a KEK by HKDF (RFC 5869), so that no two uses share one. The
// id and the check value, which are stored in the open, are derived in the same way and are no bare
// hash of the key.
func newKEK(id string, key []byte) (*kek, error) {
	switch {
	case len(key) != kekSize:
		return nil, fmt.Errorf("%d bytes, want %d; %s", len(key), kekSize, howToKEK)
	case bytes.Equal(key, bytes.Repeat(key[:1], kekSize)): // zeros or a placeholder, never random
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
		mac: func(message []byte) []byte {
			h := hmac.New(sha256.New, facts)
			h.Write(message)
			return h.Sum(nil)
		},
	}, nil
}

// newAEAD returns AES-256-GCM with a random nonce of 96 bits before each ciphertext. One key may
// seal 2^32 messages with such nonces (NIST SP 800-38D, section 8.3). A KEK seals once for each
// tenant, and a tenant key once for each rotation.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// name returns the name that stands in each field sealed under k.
func (k *kek) name() kekName { return kekName{id: k.id, check: k.check} }

// A kekName says in a sealed field which KEK it is under.
type kekName struct {
	id    string
	check [checkSize]byte
}
