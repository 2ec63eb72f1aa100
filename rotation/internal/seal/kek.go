package seal

import (
	"bytes"
	"cmp"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/rotation/ring"
)

// KEKs are key-encryption keys (NIST SP 800-57, part 1, section 5.1.1): secrets that the instances
// of a service share and the store does not have. The first one is the primary. It seals what has
// no KEK yet, and the others open, and seal what is under them. Nil and zero KEKs seal and open
// nothing.
//
// KEKs are of one realm, and may open what is of others: see [KEKs.In].
//
// KEKs are immutable and safe for concurrent use. The keys are in closures, so no fmt verb, log
// handler or encoder reaches them.
type KEKs struct {
	list   []*kek   // those of realms[0] first, then those of the next one
	realms []string // see ownRealms
}

// A kek is one key-encryption key in one realm. Everything that it can do is in closures.
type kek struct {
	name   KEKName
	label  string // of its check value
	realm  string
	derive func(use string) []byte     // 32 bytes for a use in the realm
	states func(use string) *sync.Pool // of the HMAC under that key
	tools  *tools
	box    func() (*box, error) // wraps tenant keys
	in     func(realm string) (*kek, error)
}

// A KEKName says in a sealed field which KEK it is under. It reveals nothing of the KEK.
type KEKName struct {
	ID    string          // as an operator calls it; may change
	Check [checkSize]byte // identifies the KEK, even if two share an id
	Realm [checkSize]byte // tells realms apart that share the KEK
}

// String returns the id and the check value.
func (n KEKName) String() string { return fmt.Sprintf("%s (check value %x)", n.ID, n.Check) }

const (
	kekSize   = 32 // bytes
	checkSize = 8  // bytes
	maxKEKID  = 64 // bytes
	maxKEKs   = 16 // in one list
	maxRealm  = 64 // bytes

	insecureID = "insecure"   // of InsecurePlaintext
	infoPrefix = "keyturn/1/" // of the info of every derived key
	howToKEK   = "make one with: (umask 077; openssl rand -base64 32 > kek)"
)

// The uses of a KEK. Each has a key of its own, derived by HKDF (RFC 5869), so that no two uses
// share one. docs/formats.md has the whole info.
const (
	useID    = "kek-id"    // its first 8 bytes are the id of a KEK that was given none
	useCheck = "kek-check" // its first 8 bytes are KEKName.Check
	useRealm = "kek-realm" // its first 8 bytes are KEKName.Realm
	useWrap  = "kek-wrap"  // seals tenant keys
	useFacts = "kek-facts" // the HMAC key of facts
	useHead  = "kek-head"  // of heads
	useAcks  = "kek-acks"  // of acknowledgements
	useLog   = "kek-log"   // of entries of the log

	useSnapshot = "kek-snapshot" // seals snapshots
	useSecrets  = "kek-secrets"  // seals small secrets of other packages
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
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			continue
		}
		if err := ks.addLine(line); err != nil {
			return nil, &ring.Error{Text: fmt.Sprintf("KEK, line %d", i+1), Err: err}
		}
	}
	if len(ks.list) == 0 {
		return nil, &ring.Error{Text: fmt.Sprintf("no KEK; %s", howToKEK)}
	}
	return ks, nil
}

// addLine appends the key of a line of a KEK file. The line stays bytes, and what is decoded from
// it is cleared, so that no copy of the key stays in memory.
func (ks *KEKs) addLine(line []byte) error {
	var id string
	encoded := line
	if before, after, named := bytes.Cut(line, []byte(":")); named {
		if id, encoded = string(before), after; checkKEKID(id) != nil {
			return checkKEKID(id)
		}
	}
	key := make([]byte, base64.StdEncoding.DecodedLen(len(encoded)))
	defer clear(key)
	// The decoder skips line ends within the text, which only the length shows.
	n, err := base64.StdEncoding.Strict().Decode(key, encoded)
	if err != nil || n != kekSize || len(encoded) != base64.StdEncoding.EncodedLen(kekSize) {
		return fmt.Errorf("not base64 of %d bytes; %s", kekSize, howToKEK)
	}
	return ks.add(id, key[:n])
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

// In returns the same keys for a realm. A realm is a name of the operator's, such as "production",
// and is part of every key that is derived from a KEK. So a field of one realm does not
// open in another, even under the same KEK. It is not stored: the store cannot lose or change it.
// All other constructors return KEKs of the realm "".
//
// The result also opens fields of the other realms, and seals again what a ring has there. To
// its callers a KEK in another realm is another KEK, further down in the list. So a ring moves from
// realm to realm as it moves from KEK to KEK.
func (ks *KEKs) In(realm string, others ...string) (*KEKs, error) {
	in, own := &KEKs{realms: append([]string{realm}, others...)}, ks.all()
	own = own[:len(own)/len(ks.ownRealms())] // once each
	for i, realm := range in.realms {
		switch {
		case !isText(realm, 0, maxRealm):
			return nil, &ring.Error{Text: fmt.Sprintf("a realm of %d bytes: want at most %d, in UTF-8", len(realm), maxRealm)}
		case slices.Contains(in.realms[:i], realm):
			return nil, &ring.Error{Text: fmt.Sprintf("the realm %q is given twice", realm)}
		}
		for _, k := range own {
			k, err := k.in(realm)
			if err != nil {
				return nil, &ring.Error{Text: "KEK", Err: err}
			}
			in.list = append(in.list, k)
		}
	}
	if len(in.list) > maxKEKs { // an acknowledgement names all of them
		return nil, &ring.Error{Text: fmt.Sprintf("%d KEKs in %d realms: want at most %d together", len(own), len(in.realms), maxKEKs)}
	}
	return in, nil
}

// ownRealms returns the realms that ks are of, the one that seals first. ks may be nil.
func (ks *KEKs) ownRealms() []string {
	if ks == nil || len(ks.realms) == 0 {
		return []string{""}
	}
	return ks.realms
}

// Names returns the names of the keys, the primary first.
func (ks *KEKs) Names() []KEKName {
	var names []KEKName
	for _, k := range ks.all() {
		names = append(names, k.name)
	}
	return names
}

// SeveralRealms reports whether ks also open fields of another realm than their own.
func (ks *KEKs) SeveralRealms() bool { return len(ks.ownRealms()) > 1 }

// Describe returns a name as text for people: its String and, if ks are of several realms, the realm
// that it is in.
func (ks *KEKs) Describe(name KEKName) string {
	if k, err := ks.find(name); err == nil && ks.SeveralRealms() {
		return fmt.Sprintf("%v in realm %q", name, k.realm)
	}
	return name.String()
}

// Primary returns the name of the first key, or the zero KEKName without any.
func (ks *KEKs) Primary() KEKName {
	if len(ks.all()) == 0 {
		return KEKName{}
	}
	return ks.list[0].name
}

// Label returns the check value of a KEK as text: a short name that does not change with the id or
// the realm. All calls for a KEK of ks return the same memory, since a large keyring holds a label
// for each tenant key.
func (ks *KEKs) Label(check [checkSize]byte) string {
	for _, k := range ks.all() {
		if k.name.Check == check {
			return k.label
		}
	}
	return hex.EncodeToString(check[:])
}

// Has reports whether ks has the key of that name, in the realm of that name. The id does not
// count, since an operator may change it.
func (ks *KEKs) Has(name KEKName) bool {
	_, err := ks.find(name)
	return err == nil
}

// IDs returns the ids of the keys, the primary first.
func (ks *KEKs) IDs() []string {
	var ids []string
	for _, k := range ks.all() {
		if !slices.Contains(ids, k.name.ID) { // it is there once for each realm
			ids = append(ids, k.name.ID)
		}
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

// sealing returns the key of that name, to seal with.
func (ks *KEKs) sealing(under KEKName) (*kek, error) {
	if len(ks.all()) == 0 {
		return nil, &ring.Error{Text: fmt.Sprintf("no KEK to seal with; %s", howToKEK)}
	}
	k, err := ks.find(under)
	if err != nil {
		return nil, &ring.Error{Text: "not sealed", Err: err}
	}
	return k, nil
}

// find returns the key of that name. The check values decide, because an operator may change the
// id.
func (ks *KEKs) find(n KEKName) (*kek, error) {
	elsewhere := false // the key is here, in other realms
	for _, k := range ks.all() {
		switch {
		case k.name.Check != n.Check:
		case k.name.Realm != n.Realm:
			elsewhere = true
		default:
			return k, nil
		}
	}
	if elsewhere {
		return nil, &ring.Error{Kind: ErrWrongRealm, Text: fmt.Sprintf("it is sealed under KEK %q in another realm, this process is in %s", n.ID, strings.Join(quoteAll(ks.ownRealms()), " and "))}
	}
	// The id alone would mislead here: this process has a KEK of that id, and it is another key.
	if slices.Contains(ks.IDs(), n.ID) {
		return nil, &ring.Error{Kind: ErrWrongKEK, Text: fmt.Sprintf("it is sealed under another KEK that is also called %q (check value %x)", n.ID, n.Check)}
	}
	return nil, &ring.Error{Kind: ErrWrongKEK, Text: fmt.Sprintf("it is sealed under KEK %q, this process has %v", n.ID, ks)}
}

// add appends a key. An empty id is derived from it.
func (ks *KEKs) add(id string, key []byte) error {
	k, err := newKEK(id, key)
	switch {
	case err != nil:
		return err
	case k.name.ID == insecureID: // the id tells operators that nothing is protected
		return fmt.Errorf("only InsecurePlaintext is called %q", insecureID)
	case bytes.Equal(key, insecureKey[:]):
		return fmt.Errorf("the key is the published one of InsecurePlaintext; %s", howToKEK)
	case len(ks.list) == maxKEKs:
		return fmt.Errorf("more than %d keys", maxKEKs)
	}
	// A key that is listed twice hides which line is the older one. Two keys of one id would make
	// errors ambiguous.
	for _, other := range ks.list {
		if other.name.Check == k.name.Check {
			return fmt.Errorf("the same key as %q", other.name.ID)
		}
		if other.name.ID == k.name.ID {
			return fmt.Errorf("a second key that is called %q", k.name.ID)
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

// newKEK returns the KEK of these bytes in the realm "". The id and the check value, which are
// stored in the open, are derived from the key like its other uses and are no bare hash of it.
func newKEK(id string, key []byte) (*kek, error) {
	switch {
	case len(key) != kekSize:
		return nil, fmt.Errorf("%d bytes, want %d; %s", len(key), kekSize, howToKEK)
	case bytes.Equal(key, bytes.Repeat(key[:1], kekSize)): // zeros or a placeholder, never random
		return nil, fmt.Errorf("all bytes are the same; %s", howToKEK)
	}
	// What HKDF extracts stands for the key from here on, so that the caller can clear the key.
	extracted, err := hkdf.Extract(sha256.New, key, nil)
	if err != nil {
		return nil, errUnusable
	}
	derived, err := expand(extracted, "", useID, useCheck)
	if err != nil {
		return nil, err
	}
	name := KEKName{ID: cmp.Or(id, hex.EncodeToString(derived[useID][:8])), Check: [checkSize]byte(derived[useCheck])}
	return inRealm(extracted, name, "")
}

// inRealm returns a KEK in a realm. extracted and the id and check value of name are those of the
// KEK.
func inRealm(extracted []byte, name KEKName, realm string) (*kek, error) {
	derived, err := expand(extracted, ":"+realm, useRealm, useWrap, useFacts, useHead, useAcks, useLog, useSnapshot, useSecrets)
	if err != nil {
		return nil, err
	}
	name.Realm = [checkSize]byte(derived[useRealm])
	states := make(map[string]*sync.Pool, len(derived))
	for use, key := range derived {
		states[use] = &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}
	}
	shared := new(tools)
	return &kek{
		tools:  shared,
		states: func(use string) *sync.Pool { return states[use] },
		name:   name,
		label:  hex.EncodeToString(name.Check[:]),
		realm:  realm,
		derive: func(use string) []byte { return derived[use] },
		box: sync.OnceValues(func() (*box, error) {
			key := derived[useWrap]
			b, err := newBoxWith(shared, key, sync.OnceValues(func() (cipher.AEAD, error) { return newAEAD(key) }))
			if err == nil {
				b.states = &sync.Pool{New: func() any { return b.commit() }}
			}
			return b, err
		}),
		in: func(realm string) (*kek, error) { return inRealm(extracted, name, realm) },
	}, nil
}

// expand derives a key of 32 bytes for each use. suffix is the end of each info.
func expand(extracted []byte, suffix string, uses ...string) (map[string][]byte, error) {
	derived := make(map[string][]byte)
	for _, use := range uses {
		key, err := hkdf.Expand(sha256.New, extracted, infoPrefix+use+suffix, kekSize)
		if err != nil {
			return nil, errUnusable
		}
		derived[use] = key
	}
	return derived, nil
}

// errUnusable hides the error of a hash or cipher, which may say something about a key.
var errUnusable = errors.New("it cannot be used")

// mac authenticates a message for a use.
func (k *kek) mac(use string, message []byte) []byte { return k.appendMAC(nil, use, message) }

// appendMAC appends what mac returns to b.
func (k *kek) appendMAC(b []byte, use string, message []byte) []byte {
	h := k.states(use).Get().(hash.Hash)
	defer k.states(use).Put(h)
	h.Reset()
	h.Write(message)
	return h.Sum(b)
}

// authentic reports whether mac is that of a message for a use. message appends it to its argument.
func (k *kek) authentic(use string, mac []byte, message func(b []byte) []byte) bool {
	m := k.tools.borrow()
	defer k.tools.giveBack(m)
	*m = message(*m)
	n := len(*m)
	*m = k.appendMAC(*m, use, *m)
	return hmac.Equal(mac, (*m)[n:])
}
