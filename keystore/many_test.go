package keystore_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// TestReplaceOfManyKeys: a store takes as many keys as a set may have, each under both names of its
// algorithm, without comparing each with each. That took six seconds, and takes a tenth of one.
func TestReplaceOfManyKeys(t *testing.T) {
	var keys []*keystore.Key
	for i := range 8192 {
		seed := sha256.Sum256(fmt.Append(nil, i))
		for _, alg := range []keystore.Algorithm{keystore.EdDSA, keystore.Ed25519} {
			k, err := keystore.NewPublic(keystore.ID{Tenant: "acme", KID: fmt.Sprint(i)}, alg, ed25519.PublicKey(seed[:]))
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, k)
		}
	}
	start := time.Now()
	if _, err := keystore.NewStatic(keys...); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("%d keys take %v", len(keys), took)
	}
}
