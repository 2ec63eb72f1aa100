// Package jwks reads verification keys from JWK Sets (RFC 7517): from a document
// at hand, from a URL, and from an OpenID Connect issuer.
//
// [Parse] is for sets that anyone may read; [ParseWithSecrets] is for a file
// that you trust, which may hold shared secrets too. Both judge each JWK by
// itself: one that cannot serve is reported as [Skipped] and never fails the
// set. What they return can be handed to [keystore.NewStatic] as it is.
//
// A [Client] keeps any number of [Source]s in step with their issuers:
// [Client.Open] takes the URL of a set, [Client.Discover] an issuer. A Source is
// the keystore of one tenant. Its Lookup is memory and never waits; its Refresh
// asks the issuer for a kid that is not known, within a budget.
//
// # What a Source answers
//
//	state    since                                 a known kid   an unknown kid
//	Cold     Open                                  unavailable   unavailable
//	Fresh    a good answer                         its key       not found
//	Aging    4/5 of its TTL: being refreshed       its key       not found, or unavailable if the last attempt failed
//	Stale    its TTL is over, no refresh went well its key       unavailable
//	Expired  4 hours without a good answer         unavailable   unavailable
//
// "Unavailable" wraps [keystore.ErrUnavailable] (HTTP 503) and says in an [*Error]
// which step failed; "not found" wraps [keystore.ErrNotFound] (401). The TTL is the
// answer's max-age, at least a minute and at most an hour, or ten minutes if it
// does not say. An answer that is no JWK Set, or has no key that serves, is a failed
// attempt: the old keys stay.
//
// A key that a new set lacks is withdrawn at once, and the tokens that it vouched
// for, cached ones included, end with it; a key that stays keeps its pointer.
//
// A source that nobody asks for ten minutes, or for its TTL if that is longer, goes
// to sleep: it costs no fetch, no goroutine and no timer. Its keys then end for
// tokens that were verified earlier, so that the next one asks and wakes it; within
// the TTL that costs nothing, past it nothing is answered until a fetch has ended,
// or for two seconds. One whose last attempt failed, or that has never had an
// answer, stays awake, so that its state, and whatever readiness is made of it,
// comes back by itself.
//
// # Bounds
//
// docs/jwks.md has all of them, with their reasons, and what each fault of an
// issuer leads to.
package jwks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/jose"
	"github.com/keyturn/keyturn/keystore"
)

const (
	// maxUsable is how many JWKs of one set may serve.
	maxUsable = 64

	// maxKID is the longest kid, in bytes, that a token may carry.
	maxKID = 256

	// maxSharing is how many keys without kid may share an algorithm:
	// [keystore.Static] takes no more.
	maxSharing = 4
)

// A Skipped reports a JWK that does not serve, or not with all its algorithms.
type Skipped struct {
	// Index is the place of the JWK in the set, from 0.
	Index int

	// KID is the JWK's kid as it was sent: it may be of any length and hold
	// anything. It is empty if there is none, or none that is a string.
	KID string

	// Reason says why, without key material.
	Reason string

	// Exposed is true if the JWK holds a private key, or a secret where none
	// belongs: whoever could read the set can sign with it. It calls for an
	// alarm, and for a new key.
	Exposed bool
}

// String names the JWK, its kid quoted and cut to a readable length, and says
// why it was skipped, such as `key 2 ("2026-11"): use is "enc"`.
func (s Skipped) String() string {
	if s.KID == "" {
		return fmt.Sprintf("key %d: %s", s.Index, s.Reason)
	}
	return fmt.Sprintf("key %d (%s): %s", s.Index, jose.Quote(s.KID), s.Reason)
}

// Parse makes keys of tenant from a JWK Set. Secrets ("oct") are skipped: in a
// set that others can read they are nobody's secret.
//
// A JWK serves if it is a public RSA, EC or Ed25519 key that
// [keystore.NewPublic] takes, its use is "sig" or absent, and its key_ops
// include "verify" or are absent. With an alg it makes one key; without, one
// for each algorithm that its type and curve allow, and a verifier's own list
// decides.
//
// JWKs that share a kid are told apart by alg. If two share both and differ in
// material, neither serves; a JWK that is there twice counts once. A JWK
// without kid serves tokens without kid; where more than four of them share an
// algorithm, none serves with it.
//
// The error says that the document is not a JWK Set, or too large: above 1 MiB,
// 256 keys, or 64 that serve. It is an [*Error]. A set of which nothing serves is no
// error.
func Parse(tenant string, set []byte) ([]*keystore.Key, []Skipped, error) {
	keys, skipped, failed := parse(tenant, set, false)
	if failed != nil {
		return nil, nil, failed
	}
	return keys, skipped, nil
}

// ParseWithSecrets is [Parse] for a file that you trust: secrets ("oct") that
// [keystore.NewSecret] takes serve too, with their alg, or else with each HS*
// for which they are long enough. Private keys are still skipped.
func ParseWithSecrets(tenant string, set []byte) ([]*keystore.Key, []Skipped, error) {
	keys, skipped, failed := parse(tenant, set, true)
	if failed != nil {
		return nil, nil, failed
	}
	return keys, skipped, nil
}

// An entry is one JWK that can serve, with what is left of its keys.
type entry struct {
	index int
	kid   string
	keys  []*keystore.Key
}

func parse(tenant string, set []byte, secrets bool) ([]*keystore.Key, []Skipped, *Error) {
	elements, err := jose.ParseSet(set)
	if err != nil {
		return nil, nil, failf("", "%s", err)
	}
	var entries []*entry
	var skipped []Skipped
	for i := range elements {
		k := &elements[i]
		if reason, exposed := refuse(k, secrets); reason != "" {
			skipped = append(skipped, Skipped{Index: i, KID: k.KID, Reason: reason, Exposed: exposed})
			continue
		}
		keys, err := makeKeys(tenant, k)
		if err != nil {
			// The prefix of an error of package keystore says nothing here.
			reason := strings.TrimPrefix(err.Error(), "keystore: ")
			skipped = append(skipped, Skipped{Index: i, KID: k.KID, Reason: reason})
			continue
		}
		entries = append(entries, &entry{index: i, kid: k.KID, keys: keys})
	}
	skipped = append(skipped, untangle(entries)...)
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

// refuse says why a JWK may not serve, whatever it is made of, or returns "".
// What leaks a key comes first: it must be heard even where another rule would
// do.
func refuse(k *jose.JWK, secrets bool) (reason string, exposed bool) {
	switch {
	case (k.Type == jose.TypeOct || k.HasSecret) && !secrets:
		return "ALARM: holds a shared secret, with which whoever reads the set can sign", true
	case k.Private && k.Type != jose.TypeOct:
		return "ALARM: holds a private key, with which whoever reads the set can sign", true
	case k.Err != nil:
		return k.Err.Error(), false
	case k.HasKID && k.KID == "":
		return "its kid is empty, so no token can name it", false
	case len(k.KID) > maxKID:
		return fmt.Sprintf("a kid of %d bytes: at most %d are accepted in a token", len(k.KID), maxKID), false
	case k.HasUse && k.Use != "sig": // RFC 7517, section 4.2
		return "its use is " + jose.Quote(k.Use) + `, not "sig"`, false
	case k.HasKeyOps && !slices.Contains(k.KeyOps, "verify"): // RFC 7517, section 4.3
		return `its key_ops do not include "verify"`, false
	case k.HasUse && slices.ContainsFunc(k.KeyOps, isEncryption):
		return "its use and key_ops contradict each other (RFC 7517, section 4.3)", false
	}
	return "", false
}

// isEncryption reports whether op is a registered key_ops value that does not
// go with the use "sig".
func isEncryption(op string) bool {
	switch op {
	case "encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits":
		return true
	}
	return false
}

// algorithms returns what a JWK can verify by its type and curve.
func algorithms(k *jose.JWK) []keystore.Algorithm {
	switch k.Type + " " + k.Curve {
	case "EC P-256":
		return []keystore.Algorithm{keystore.ES256}
	case "EC P-384":
		return []keystore.Algorithm{keystore.ES384}
	case "EC P-521":
		return []keystore.Algorithm{keystore.ES512}
	case "OKP Ed25519":
		return []keystore.Algorithm{keystore.EdDSA, keystore.Ed25519}
	}
	switch k.Type {
	case jose.TypeRSA:
		return []keystore.Algorithm{keystore.RS256, keystore.RS384, keystore.RS512, keystore.PS256, keystore.PS384, keystore.PS512}
	case jose.TypeOct:
		return []keystore.Algorithm{keystore.HS256, keystore.HS384, keystore.HS512}
	}
	return nil
}

// makeKeys makes a key for each algorithm of a JWK, at least one.
func makeKeys(tenant string, k *jose.JWK) ([]*keystore.Key, error) {
	newKey, err := maker(keystore.ID{Tenant: tenant, KID: k.KID}, k)
	if err != nil {
		return nil, err
	}
	algs := algorithms(k)
	if k.HasAlgorithm {
		alg := keystore.Algorithm(k.Algorithm)
		if !alg.Known() {
			return nil, fmt.Errorf("its alg is %s, which is no signature algorithm known here", jose.Quote(k.Algorithm))
		}
		if !slices.Contains(algs, alg) {
			return nil, fmt.Errorf("its alg is %s, which does not fit its kty and crv", alg)
		}
		algs = []keystore.Algorithm{alg}
	}
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

// maker reads what a JWK is made of, once for all its algorithms.
func maker(id keystore.ID, k *jose.JWK) (func(keystore.Algorithm) (*keystore.Key, error), error) {
	if k.Type == jose.TypeOct {
		secret, err := k.Secret()
		if err != nil {
			return nil, err
		}
		return func(alg keystore.Algorithm) (*keystore.Key, error) { return keystore.NewSecret(id, alg, secret) }, nil
	}
	pub, err := k.Public()
	if err != nil {
		return nil, err
	}
	return func(alg keystore.Algorithm) (*keystore.Key, error) { return keystore.NewPublic(id, alg, pub) }, nil
}

// untangle takes from the entries the keys that cannot serve beside each other,
// and reports them.
func untangle(entries []*entry) (skipped []Skipped) {
	type name struct {
		kid string
		alg keystore.Algorithm
	}
	distinct := make(map[name][]*keystore.Key)
	for _, e := range entries {
		for _, k := range e.keys {
			at := name{e.kid, k.Algorithm()}
			if !slices.ContainsFunc(distinct[at], k.Equal) {
				distinct[at] = append(distinct[at], k)
			}
		}
	}
	for _, e := range entries {
		most, reason := 1, "same kid and alg as another key, other material"
		if e.kid == "" {
			most, reason = maxSharing, fmt.Sprintf("more than %d keys without kid share its alg", maxSharing)
		}
		var lost []string
		e.keys = slices.DeleteFunc(e.keys, func(k *keystore.Key) bool {
			all := distinct[name{e.kid, k.Algorithm()}]
			if len(all) > most {
				lost = append(lost, string(k.Algorithm()))
				return true
			}
			return !slices.Contains(all, k) // Equal to one that came before
		})
		if lost != nil {
			skipped = append(skipped, Skipped{Index: e.index, KID: e.kid, Reason: reason + ": " + strings.Join(lost, ", ")})
		}
	}
	return skipped
}
