package wycheproof

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// differences are the cases in which keyturn decides otherwise than the vectors say, or takes what
// they leave to the reader ("acceptable").
var differences = []struct {
	file  string
	cases []int // tcId
	why   string
}{
	{"rsa_signature_2048_sha256_test.json", []int{258, 259}, exponent3},
	{"rsa_signature_2048_sha512_test.json", []int{259}, exponent3},
	{"rsa_signature_3072_sha256_test.json", []int{259}, exponent3},
	{"rsa_signature_3072_sha512_test.json", []int{260}, exponent3},
	{"hmac_sha256_test.json", []int{163, 164, 165}, shortKey},
	{"hmac_sha384_test.json", []int{163, 164, 165}, shortKey},
	{"hmac_sha512_test.json", []int{163, 164, 165}, shortKey},
	{"json_web_signature_test.json", []int{346, 350}, "the token says PS384, and its key is for PS256 alone"},
	{"json_web_signature_test.json", []int{347, 351}, "the key's alg is ES521, which does not exist: the set skips the key"},
	{"json_web_signature_test.json", []int{357, 358, 359, 376, 377}, zeroSecret},
	{"json_web_signature_test.json", []int{372, 373}, "a part has a character that is not of base64url; besides, " + zeroSecret},
	{"json_web_key_test.json", []int{1}, mixed},
	{"json_web_crypto_test.json", []int{47}, mixed},
	{"json_web_key_test.json", []int{4}, "two secrets have one kid, but one of them is not base64url, and skipped: the other serves"},
}

const (
	exponent3  = "the exponent of the key is 3: keyturn wants 65537"
	shortKey   = "the secret is shorter than the hash (RFC 7518, section 3.2)"
	zeroSecret = "the secret is all zero bytes"
	mixed      = "a set has a secret and a public key: a tenant takes both only with MixedFamilies, which this test sets"
)

// verdicts are those of one test, whose parts may run at once.
type verdicts struct {
	mu  sync.Mutex // guards met
	met map[string]bool
}

// add compares the verdict of keyturn with that of the vectors. fit says whether a valid signature
// is one in this use of it.
func (vs *verdicts) add(t *testing.T, file string, v vector, use string, fit, got bool) {
	t.Helper()
	if want := fit && v.Result == "valid"; got == want {
		return
	}
	for _, d := range differences {
		if d.file == file && slices.Contains(d.cases, v.ID) {
			vs.mu.Lock()
			vs.met[fmt.Sprint(file, " ", v.ID)] = true
			vs.mu.Unlock()
			return
		}
	}
	t.Errorf("%s: case %d (%s) with %s: keyturn says %v, the vectors say %s", file, v.ID, v.Comment, use, got, v.Result)
}

// checkAllMet checks that each of the differences in files whose names begin with one of the
// prefixes was met.
func (vs *verdicts) checkAllMet(t *testing.T, prefixes ...string) {
	t.Helper()
	for _, d := range differences {
		if !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(d.file, p) }) {
			continue
		}
		for _, id := range d.cases {
			if !vs.met[fmt.Sprint(d.file, " ", id)] {
				t.Errorf("keyturn agrees in case %d of %s, which the table calls different: %s", id, d.file, d.why)
			}
		}
	}
}
