package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keyturn/keyturn/keystore"
)

// secretOwners has the tenants of a file by their secrets, so that two with the same one are found:
// each of them could make the other's tokens. It keeps digests, and no secret.
type secretOwners map[[sha256.Size]byte]*tenantConfig

// add adds a secret of t. It refuses one that is another tenant's too, unless both say that they
// share it.
func (o secretOwners) add(t *tenantConfig, secret []byte) error {
	// HMAC fills a key up with zeros (RFC 2104, section 2): with some more or less it is the same.
	sum := sha256.Sum256(bytes.TrimRight(secret, "\x00"))
	t.secrets = append(t.secrets, sum)
	return o.check(t, sum)
}

// check is add for the digest of a secret.
func (o secretOwners) check(t *tenantConfig, sum [sha256.Size]byte) error {
	other, known := o[sum]
	if !known {
		o[sum] = t
		return nil
	}
	if other == t || other.SharedSecret && t.SharedSecret {
		return nil
	}
	return t.errorf("its secret is that of tenant %s (%s): each could make the other's tokens; give each a secret of its own, or both shared_secret: true",
		quoteShort(other.ID), other.place())
}

// setSecrets returns the secrets of a JWK Set: those of keys, which were read from it. It reads the
// set as leniently, and its keys as strictly, as package jwks does: a secret that serves must not
// escape it because of an odd key beside it or a member whose name differs in case.
func setSecrets(doc []byte, keys []*keystore.Key) (secrets [][]byte) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	lenient := json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if json.Unmarshal(bytes.TrimPrefix(doc, []byte("\ufeff")), &set, lenient) != nil {
		return nil // no key was read from it
	}
	for _, raw := range set.Keys {
		var members map[string]jsontext.Value
		if json.Unmarshal(raw, &members) != nil {
			continue
		}
		text := func(name string) (s string) {
			if json.Unmarshal(members[name], &s) != nil {
				return ""
			}
			return s
		}
		used := slices.ContainsFunc(keys, func(key *keystore.Key) bool {
			return key.Algorithm().Symmetric() && key.ID().KID == text("kid")
		})
		secret, err := base64.RawURLEncoding.DecodeString(text("k"))
		if used && text("kty") == "oct" && err == nil {
			secrets = append(secrets, secret)
		}
	}
	return secrets
}
