package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"

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
	other, known := o[sum]
	if !known {
		o[sum] = t
		return nil
	}
	if other == t || other.SharedSecret && t.SharedSecret {
		return nil
	}
	return t.errorf("its secret is that of tenant %s (line %d): each could make the other's tokens; give each a secret of its own, or both shared_secret: true",
		quoteShort(other.ID), other.line)
}

// setSecrets returns the secrets of a JWK Set: those of keys, which were read from it.
func setSecrets(doc []byte, keys []*keystore.Key) (secrets [][]byte) {
	var set struct {
		Keys []struct{ Kty, Kid, K string }
	}
	if json.Unmarshal(doc, &set) != nil {
		return nil // no key was read from it
	}
	for _, k := range set.Keys {
		used := slices.ContainsFunc(keys, func(key *keystore.Key) bool {
			return key.Algorithm().Symmetric() && key.ID().KID == k.Kid
		})
		secret, err := base64.RawURLEncoding.DecodeString(k.K)
		if used && k.Kty == "oct" && err == nil {
			secrets = append(secrets, secret)
		}
	}
	return secrets
}
