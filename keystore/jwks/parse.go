package jwks

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/keystore"
)

// A Skipped reports a JWK that does not serve, or not with all its algorithms.
type Skipped struct {
	// Index is the place of the JWK in the set, from 0.
	Index int

	// KID is the JWK's kid as it was sent: it may be of any length and hold anything. It is empty
	// if the JWK has no kid, or one that is not a string.
	KID string

	// Reason says why, without key material.
	Reason string

	// Exposed is true if the JWK holds a private key, or a secret in a set that others can read:
	// every reader of the set can sign with it. It calls for an alarm, and for a new key.
	Exposed bool

	conflict bool // with other JWKs; by itself it would serve
}

// String names the JWK, its kid quoted and cut to a readable length, and says why it was skipped,
// such as `key 2 ("2026-11"): use is "enc"`.
func (s Skipped) String() string {
	if s.KID == "" {
		return fmt.Sprintf("key %d: %s", s.Index, s.Reason)
	}
	return fmt.Sprintf("key %d (%s): %s", s.Index, quote(s.KID), s.Reason)
}

// An Irregular reports a JWK that serves, although its issuer spells a member of it otherwise than
// the RFCs want. Other readers may refuse it, so its issuer should know.
type Irregular struct {
	// KID is the JWK's kid, or empty.
	KID string

	// What says which member is irregular and why, without key material.
	What string

	// Index is the place of the JWK in the set, from 0.
	Index int
}

// String names the JWK, its kid quoted, and says what is irregular, such as
// `key 2 ("2026-11"): "n" is padded (RFC 7515, section 2)`.
func (i Irregular) String() string {
	return Skipped{Index: i.Index, KID: i.KID, Reason: i.What}.String()
}

// A Report is what [Inspect] finds in a set. Each list is in the order of the set.
type Report struct {
	Keys      []*keystore.Key
	Skipped   []Skipped   // JWKs that do not serve, or not with all their algorithms
	Irregular []Irregular // JWKs that serve, and are spelled otherwise than the RFCs want
}

// Parse makes keys of tenant from a JWK Set. It skips secrets ("oct"): in a set that others can
// read they are not secret.
//
// A JWK serves if it is a public RSA, EC or Ed25519 key that [keystore.NewPublic] takes, its use is
// "sig" or absent, and its key_ops include "verify" or are absent. With an alg it makes one key.
// Without, it makes one for each algorithm that its type and curve allow, and a verifier's own list
// decides.
//
// A member that is null is absent, and so are empty key_ops, an empty kid, and a private member that
// is an empty string or array. Numbers may be padded, in the standard alphabet of base64, or with
// zero bytes too many or too few: see [Irregular], which [Inspect] returns.
//
// JWKs that share a kid are told apart by alg. If two public keys share both, a token of that kid may
// be of either; a JWK that is there twice counts once. Where the keys of one kid and alg cost more
// than [keystore.MaxCandidates] together, none of them serves with it. That holds for the keys
// without kid too, which serve tokens without kid.
//
// The error, an [*Error], says that the document is not a JWK Set, or too large: above 1 MiB, 1024
// JWKs, or 512 that serve. A set of which nothing serves is no error.
func Parse(tenant string, set []byte) ([]*keystore.Key, []Skipped, error) {
	r, failed := parse(tenant, set, reading{})
	if failed != nil {
		return nil, nil, failed
	}
	return r.Keys, r.Skipped, nil
}

// ParseWithSecrets is [Parse] for a file that you trust. Secrets ("oct") that [keystore.NewSecret]
// takes serve too, with their alg, or else with each HS* for which they are long enough. If two
// secrets share kid and alg, neither serves. A secret has one spelling. Private keys are still
// skipped.
func ParseWithSecrets(tenant string, set []byte) ([]*keystore.Key, []Skipped, error) {
	r, failed := parse(tenant, set, reading{secrets: true})
	if failed != nil {
		return nil, nil, failed
	}
	return r.Keys, r.Skipped, nil
}

// Inspect is [Parse] that also tells of the JWKs that serve although they are irregular.
func Inspect(tenant string, set []byte) (Report, error) {
	r, failed := parse(tenant, set, reading{})
	if failed != nil {
		return Report{}, failed
	}
	return r, nil
}

// parse reads a set in three steps: it splits the document into elements, judges each element by
// itself, and removes the keys that cannot serve beside each other.
func parse(tenant string, set []byte, how reading) (Report, *Error) {
	if most := how.bytes(); len(set) > most {
		return Report{}, how.over(SettingMaxBytes, "a JWK Set of %d bytes: at most %d are read", len(set), most)
	}
	most := how.elements()
	elements, err := splitSet(set, most+1)
	switch {
	case err != nil:
		return Report{}, failf("", "%s", err)
	case len(elements) > most:
		return Report{}, how.over(SettingMaxKeys, "a JWK Set of more than %d keys", most)
	}
	var entries []*entry
	var r Report
	for i, raw := range elements {
		k := readJWK(raw)
		keys, err := k.judge(tenant, how)
		if err != nil {
			r.Skipped = append(r.Skipped, newSkipped(i, k.kid.value, err))
			continue
		}
		entries = append(entries, &entry{index: i, kid: k.kid.value, keys: keys, irregular: k.irregular})
	}
	r.Skipped = append(r.Skipped, removeConflicts(entries)...)
	slices.SortFunc(r.Skipped, func(a, b Skipped) int { return a.Index - b.Index })

	usable := 0
	for _, e := range entries {
		if len(e.keys) > 0 {
			usable++
		}
		r.Keys = append(r.Keys, e.keys...)
		if len(e.irregular) > 0 && !e.lost {
			r.Irregular = append(r.Irregular, Irregular{Index: e.index, KID: e.kid, What: strings.Join(e.irregular, "; ")})
		}
	}
	if most := how.keys(); usable > most {
		return Report{}, how.over(SettingMaxKeys, "a JWK Set of %d usable keys: at most %d are taken", usable, most)
	}
	return r, nil
}

// The reasons that are an alarm.
var (
	errSecret  = errors.New("ALARM: holds a shared secret, with which whoever reads the set can sign")
	errPrivate = errors.New("ALARM: holds a private key, with which whoever reads the set can sign")
)

// newSkipped reports that a JWK does not serve.
func newSkipped(index int, kid string, reason error) Skipped {
	s := Skipped{Index: index, KID: kid, Reason: reason.Error()}
	s.Exposed = reason == errSecret || reason == errPrivate
	if e := new(keystore.Error); errors.As(reason, &e) { // without the name of that package
		s.Reason = e.Detail
		if e.Hint != "" {
			s.Reason += "; " + e.Hint
		}
	}
	return s
}

// judge returns the keys of a JWK, at least one, or the reason why it does not serve. The members
// that say what the key is for come first, then its material, then its algorithms.
func (k *jwk) judge(tenant string, how reading) ([]*keystore.Key, error) {
	if err := k.checkPurpose(how); err != nil {
		return nil, err
	}
	newKey, err := k.material(keystore.ID{Tenant: tenant, KID: k.kid.value})
	if err != nil {
		return nil, err
	}
	algs, err := k.algorithms()
	if err != nil {
		return nil, err
	}
	// Without alg, one algorithm may refuse what another takes: a secret of 32 bytes is for HS256
	// alone. The first refusal is the reason only if all refuse.
	var keys []*keystore.Key
	var first error
	for _, alg := range algs {
		key, err := newKey(alg)
		switch {
		case err == nil:
			keys = append(keys, key)
		case first == nil:
			first = err
		}
	}
	if len(keys) == 0 {
		return nil, first
	}
	return keys, nil
}

// checkPurpose returns why a JWK may not serve, whatever its material is, or nil. What leaks a key
// comes first: the alarm must be raised even where another rule would refuse the JWK too.
func (k *jwk) checkPurpose(how reading) error {
	switch {
	case k.secret && !how.secrets:
		return errSecret
	case k.private && (k.kty.value != typeOct || !how.secrets):
		return errPrivate
	case k.unreadable != nil:
		return k.unreadable
	case k.secret && k.kty.value != typeOct: // in a file: what it is meant for cannot be told
		return errors.New(`it has "k", which is of a secret alone (RFC 7518, section 6.4.1)`)
	case len(k.kid.value) > keystore.MaxKIDBytes:
		return fmt.Errorf("a kid of %d bytes: at most %d are accepted in a token", len(k.kid.value), keystore.MaxKIDBytes)
	case k.use.given && k.use.value != "sig" && !how.takes(k.use.value): // RFC 7517, section 4.2
		return fmt.Errorf(`its use is %s, not "sig"`, quote(k.use.value))
	case k.hasKeyOps && !slices.Contains(k.keyOps, "verify") && !slices.ContainsFunc(k.keyOps, how.takes): // RFC 7517, section 4.3
		return errors.New(`its key_ops do not include "verify"`)
	case k.use.given && slices.ContainsFunc(k.keyOps, isEncryption):
		return errors.New("its use and key_ops contradict each other (RFC 7517, section 4.3)")
	}
	return nil
}

// isEncryption reports whether op is a registered key_ops value that does not go with the use
// "sig".
func isEncryption(op string) bool {
	switch op {
	case "encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits":
		return true
	}
	return false
}

// material reads the secret or public key of a JWK, once for all its algorithms.
func (k *jwk) material(id keystore.ID) (func(keystore.Algorithm) (*keystore.Key, error), error) {
	if k.kty.value == typeOct {
		secret, err := k.octKey()
		if err != nil {
			return nil, err
		}
		return func(alg keystore.Algorithm) (*keystore.Key, error) { return keystore.NewSecret(id, alg, secret) }, nil
	}
	pub, err := k.publicKey()
	if err != nil {
		return nil, err
	}
	return func(alg keystore.Algorithm) (*keystore.Key, error) { return keystore.NewPublic(id, alg, pub) }, nil
}

// algorithms returns the algorithms of a JWK: its alg, or else each that its type and curve allow.
func (k *jwk) algorithms() ([]keystore.Algorithm, error) {
	allowed := allowed(k.kty.value, k.crv.value)
	if !k.alg.given {
		return allowed, nil
	}
	alg := keystore.Algorithm(k.alg.value)
	if !alg.Known() {
		return nil, fmt.Errorf("its alg is %s, which is no signature algorithm known here", quote(k.alg.value))
	}
	if !slices.Contains(allowed, alg) {
		return nil, fmt.Errorf("its alg is %s, which does not fit its kty and crv", alg)
	}
	return []keystore.Algorithm{alg}, nil
}

// allowed returns the algorithms that a JWK's type and curve allow.
func allowed(kty, crv string) []keystore.Algorithm {
	switch kty + " " + crv {
	case "EC P-256":
		return []keystore.Algorithm{keystore.ES256}
	case "EC P-384":
		return []keystore.Algorithm{keystore.ES384}
	case "EC P-521":
		return []keystore.Algorithm{keystore.ES512}
	case "OKP Ed25519":
		return []keystore.Algorithm{keystore.EdDSA, keystore.Ed25519}
	}
	switch kty {
	case typeRSA:
		return []keystore.Algorithm{keystore.RS256, keystore.RS384, keystore.RS512, keystore.PS256, keystore.PS384, keystore.PS512}
	case typeOct:
		return []keystore.Algorithm{keystore.HS256, keystore.HS384, keystore.HS512}
	}
	return nil
}

// An entry is one JWK that can serve, with the keys that it still has.
type entry struct {
	index     int
	kid       string
	keys      []*keystore.Key
	irregular []string
	lost      bool // removeConflicts removed all its keys, and reported them
}

// A name is what a token says of its key. EdDSA and Ed25519 are one.
type name struct {
	kid string
	alg keystore.Algorithm
}

func nameOf(kid string, k *keystore.Key) name {
	if k.Algorithm().Same(keystore.Ed25519) {
		return name{kid, keystore.Ed25519}
	}
	return name{kid, k.Algorithm()}
}

// enough is how many keys of one name are compared with each other: so many always cost too much
// together, since a key is there under two names at most. Without it the keys of one large set took
// a minute.
const enough = 2*keystore.MaxCandidates + 1

// removeConflicts removes the keys that cannot serve beside each other, and reports them. A key
// that equals an earlier one is removed without a report.
func removeConflicts(entries []*entry) (skipped []Skipped) {
	distinct := make(map[name][]*keystore.Key)
	for _, e := range entries {
		for _, k := range e.keys {
			at := nameOf(e.kid, k)
			if len(distinct[at]) < enough && !slices.ContainsFunc(distinct[at], k.Equal) {
				distinct[at] = append(distinct[at], k)
			}
		}
	}
	refused := make(map[name]string)
	for at, keys := range distinct {
		if reason := conflict(at, keys); reason != "" {
			refused[at] = reason
		}
	}
	for _, e := range entries {
		var lost, reasons []string
		e.keys = slices.DeleteFunc(e.keys, func(k *keystore.Key) bool {
			at := nameOf(e.kid, k)
			reason := refused[at]
			if reason == "" {
				return !slices.Contains(distinct[at], k) // equal to an earlier one
			}
			lost = append(lost, string(k.Algorithm()))
			if !slices.Contains(reasons, reason) {
				reasons = append(reasons, reason)
			}
			return true
		})
		if lost != nil {
			e.lost = len(e.keys) == 0
			skipped = append(skipped, Skipped{
				Index: e.index, KID: e.kid, conflict: true,
				Reason: strings.Join(reasons, "; ") + ": " + strings.Join(lost, ", "),
			})
		}
	}
	return skipped
}

// conflict says why the keys of one name do not serve beside each other, or "".
//
// Two public keys of one name do: issuers have published the old and the new key under one kid, and
// that costs a token one more check. Two secrets do not: a file that names them alike is a mistake,
// and which of them is meant cannot be told.
func conflict(at name, keys []*keystore.Key) string {
	switch {
	case len(keys) > 1 && at.kid != "" && at.alg.Symmetric():
		return "same kid and alg as another secret"
	case keystore.CheckCost(keystore.ID{KID: at.kid}, keys) == nil:
		return ""
	}
	count, share := strconv.Itoa(len(keys)), "share its kid and alg"
	if len(keys) == enough {
		count = fmt.Sprintf("more than %d", enough-1)
	}
	if at.kid == "" {
		share = "without kid share its alg"
	}
	return fmt.Sprintf("%s keys %s, which is too costly for one token (at most %d checks)", count, share, keystore.MaxCandidates)
}
