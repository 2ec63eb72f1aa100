package keystore_test

import (
	"crypto"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

func TestAlgorithmHash(t *testing.T) {
	byBits := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}
	for _, alg := range keystore.Algorithms() {
		want := byBits[string(alg[2:])]
		if strings.HasPrefix(string(alg), "Ed") {
			want = 0
		}
		if got := alg.Hash(); got != want || got != 0 && !got.Available() {
			t.Errorf("%s: Hash = %v, want %v", alg, got, want)
		}
	}
	for _, alg := range []keystore.Algorithm{"", "none", "hs256", "HS1", "ES256K"} {
		if got := alg.Hash(); got != 0 {
			t.Errorf("%q: Hash = %v, want 0", alg, got)
		}
	}
}
