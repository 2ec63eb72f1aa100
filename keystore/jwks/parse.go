package jwks

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/keystore"
)

// maxUsable is how many JWKs of one set may serve.
const maxUsable = 64

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
}

// String names the JWK, its kid quoted and cut to a readable length, and says why it was skipped,
// such as `key 2 ("2026-11"): use is "enc"`.
func (s Skipped) String() string {
	if s.KID == "" {
		return fmt.Sprintf("key %d: %s", s.Index, s.Reason)
	}
	return fmt.Sprintf("key %d (%s): %s", s.Index, quote(s.KID), s.Reason)
}

// Parse makes keys of tenant from a JWK Set. It skips secrets ("oct"): in a set that others can
// read they are not secret.
//
// A JWK serves if it is a public RSA, EC or Ed25519 key that [keystore.NewPublic] takes, its use is
// "sig" or absent, and its key_ops include "verify" or are absent. With an alg it makes one key.
// Without, it makes one for each algorithm that its type and curve allow, and a verifier's own list
// decides.
//
// JWKs that share a kid are told apart by alg. Public keys that share both all serve, if they cost
// at most [keystore.MaxCandidates] together, and else none; of two secrets that share both, neither
// serves. A JWK that is there twice counts once. A JWK without kid serves tokens without kid, under
// the same bound for all those of an algorithm.
//
// The error, an [*Error], says that the document is not a JWK Set, or too large: above 1 MiB, 256
// keys, or 64 that serve. A set of which nothing serves is no error.
func Parse(tenant string, set []byte) ([]*keystore.Key, []Skipped, error) {
	keys, skipped, failed := parse(tenant, set, false)
	if failed != nil {
		return nil, nil, failed
	}
	return keys, skipped, nil
}

// ParseWithSecrets is [Parse] for a file that you trust. Secrets ("oct") that [keystore.NewSecret]
// takes serve too, with their alg, or else with each HS* for which they are long enough. Private
// keys are still skipped.
func ParseWithSecrets(tenant string, set []byte) ([]*keystore.Key, []Skipped, error) {
	keys, skipped, failed := parse(tenant, set, true)
	if failed != nil {
		return nil, nil, failed
	}
	return keys, skipped, nil
}

// parse reads a set in three steps: it splits the document into elements, judges each element by
// itself, and removes the keys that cannot serve beside each other.
func parse(tenant string, set []byte, secrets bool) ([]*keystore.Key, []Skipped, *Error) {
	elements, err := splitSet(set)
	if err != nil {
		return nil, nil, failf("", "%s", err)
	}
	var entries []*entry
	var skipped []Skipped
	for i, raw := range elements {
		k := readJWK(raw)
		keys, err := k.judge(tenant, secrets)
		if err != nil {
			skipped = append(skipped, newSkipped(i, k.kid.value, err))
			continue
		}
		entries = append(entries, &entry{index: i, kid: k.kid.value, keys: keys})
	}
	skipped = append(skipped, removeConflicts(entries)...)
	slices.SortFunc(skipped, func(a, b Skipped) int { return a.Index - b.Index })

	var keys []*keystore.Key
	usable := 0
	for _, e := range entries {
		if len(e.keys) > 0 {
			usable++
		}
		keys = append(keys, e.keys...)
	}
	if usable > maxUsable {
		return nil, nil, failf("", "a JWK Set of %d usable keys: at most %d are taken", usable, maxUsable)
	}
	return keys, skipped, nil
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
func (k *jwk) judge(tenant string, secrets bool) ([]*keystore.Key, error) {
	if err := k.checkPurpose(secrets); err != nil {
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
func (k *jwk) checkPurpose(secrets bool) error {
	switch {
	case (k.kty.value == typeOct || k.secret) && !secrets:
		return errSecret
	case k.private && k.kty.value != typeOct:
		return errPrivate
	case k.unreadable != nil:
		return k.unreadable
	case k.kid.given && k.kid.value == "":
		return errors.New("its kid is empty, so no token can name it")
	case len(k.kid.value) > keystore.MaxKIDBytes:
		return fmt.Errorf("a kid of %d bytes: at most %d are accepted in a token", len(k.kid.value), keystore.MaxKIDBytes)
	case k.use.given && k.use.value != "sig": // RFC 7517, section 4.2
		return fmt.Errorf(`its use is %s, not "sig"`, quote(k.use.value))
	case k.hasKeyOps && !slices.Contains(k.keyOps, "verify"): // RFC 7517, section 4.3
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
	allowed := k.allowed()
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
func (k *jwk) allowed() []keystore.Algorithm {
	switch k.kty.value + " " + k.crv.value {
	case "EC P-256":
		return []keystore.Algorithm{keystore.ES256}
	case "EC P-384":
		return []keystore.Algorithm{keystore.ES384}
	case "EC P-521":
		return []keystore.Algorithm{keystore.ES512}
	case "OKP Ed25519":
		return []keystore.Algorithm{keystore.EdDSA, keystore.Ed25519}
	}
	switch k.kty.value {
	case typeRSA:
		return []keystore.Algorithm{keystore.RS256, keystore.RS384, keystore.RS512, keystore.PS256, keystore.PS384, keystore.PS512}
	case typeOct:
		return []keystore.Algorithm{keystore.HS256, keystore.HS384, keystore.HS512}
	}
	return nil
}

// An entry is one JWK that can serve, with the keys that it still has.
type entry struct {
	index int
	kid   string
	keys  []*keystore.Key
}

// removeConflicts removes the keys that cannot serve beside each other, and reports them. A key
// that equals an earlier one is removed without a report.
func removeConflicts(entries []*entry) (skipped []Skipped) {
	type name struct {
		kid string
		alg keystore.Algorithm
	}
	distinct := make(map[name][]*keystore.Key)
	nameOf := func(k *keystore.Key) name {
		if k.Algorithm().Same(keystore.EdDSA) { // two names of one algorithm
			return name{k.ID().KID, keystore.EdDSA}
		}
		return name{k.ID().KID, k.Algorithm()}
	}
	for _, e := range entries {
		for _, k := range e.keys {
			at := nameOf(k)
			if !slices.ContainsFunc(distinct[at], k.Equal) {
				distinct[at] = append(distinct[at], k)
			}
		}
	}
	for _, e := range entries {
		var lost []string
		var reason string
		e.keys = slices.DeleteFunc(e.keys, func(k *keystore.Key) bool {
			all := distinct[nameOf(k)]
			if why := conflict(k, all); why != "" {
				lost, reason = append(lost, string(k.Algorithm())), why
				return true
			}
			return !slices.Contains(all, k) // equal to an earlier one
		})
		if lost != nil {
			skipped = append(skipped, Skipped{Index: e.index, KID: e.kid, Reason: reason + ": " + strings.Join(lost, ", ")})
		}
	}
	return skipped
}

// conflict returns why k cannot serve beside the others of its kid and algorithm, or "". all has k.
func conflict(k *keystore.Key, all []*keystore.Key) string {
	kid := k.ID().KID
	switch {
	case len(all) > 1 && kid != "" && k.Algorithm().Symmetric(): // one of them may be an attacker's
		return "same kid and alg as another secret"
	case keystore.CheckCost(k.ID(), all) == nil:
		return ""
	case kid == "":
		return fmt.Sprintf("%d keys without kid share its alg, which is too costly for one token (at most %d checks)", len(all), keystore.MaxCandidates)
	}
	return fmt.Sprintf("%d keys share its kid and alg, which is too costly for one token (at most %d checks)", len(all), keystore.MaxCandidates)
}
