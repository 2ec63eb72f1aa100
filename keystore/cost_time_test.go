package keystore_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// TestReplaceOfManyKeys: a store takes four times as many keys in about four times the time. Each
// of these keys is there under both names of its algorithm, as a JWK without alg is.
func TestReplaceOfManyKeys(t *testing.T) {
	took := func(n int) (least time.Duration) {
		for i := range 3 {
			var keys []*keystore.Key
			for j := range n {
				seed := sha256.Sum256(fmt.Append(nil, j))
				for _, alg := range []keystore.Algorithm{keystore.EdDSA, keystore.Ed25519} {
					k, err := keystore.NewPublic(keystore.ID{Tenant: "acme", KID: fmt.Sprint(j)}, alg, ed25519.PublicKey(seed[:]))
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
			if d := time.Since(start); i == 0 || d < least {
				least = d
			}
		}
		return least
	}
	few, many := took(1024), took(4096)
	if many > 9*few { // 16 times as long, if each is compared with each
		t.Errorf("%d keys take %v, and %d keys %v", 1024, few, 4096, many)
	}
}
