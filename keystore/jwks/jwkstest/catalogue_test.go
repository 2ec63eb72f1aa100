package jwkstest_test

import (
	"slices"
	"testing"

	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// catalogue names everything that an issuer may do to its readers. Tests that run all Faults rely
// on each of them.
var catalogue = []string{
	"DNS failure", "refused", "accept then silence", "TLS expired", "TLS wrong host", "TLS unknown CA",
	"request then silence", "headers then silence", "1 byte/s", "reset in the body", "truncated JSON",
	"endless chunked body", "gzip bomb",
	"redirect loop", "redirect to http://issuer.test/jwks.json", "redirect to https://169.254.169.254/latest/meta-data/",
	"status 429, Retry-After 30", "status 503, Retry-After 30",
	"status 503, Retry-After Fri, 31 Dec 2999 23:59:59 GMT", "status 503, Retry-After 999999999999999999999",
	"status 500", "status 404", "500 and 200 flapping", "status 304", "status 204",
	"HTML with 200", "null", "[]", "{}", "keys null", "keys an object", "no keys", "nothing",
	"trailing garbage", "duplicate members", "depth 10k", "10k keys", "a kid of 1 MB",
	"two replicas in turn", "an older answer after a newer one",
	"max-age 0", "max-age -1", "max-age 315360000",
	"a key without kid among good keys", "off-curve among good keys", "RSA 512 among good keys", "RSA 16384 among good keys",
	"e = 1 among good keys", "wrong OKP length among good keys", "unknown kty among good keys", "not an object among good keys",
	"a kid that is no string among good keys", "use enc among good keys", "a shared secret among good keys", "a private key among good keys",
}

func TestCatalogueIsWhole(t *testing.T) {
	var names []string
	for _, f := range jwkstest.Faults() {
		names = append(names, f.Name)
	}
	for _, name := range catalogue {
		if !slices.Contains(names, name) {
			t.Errorf("Faults lacks %q", name)
		}
	}
	if len(names) != len(catalogue) {
		t.Errorf("%d faults, %d in the catalogue: %q", len(names), len(catalogue), names)
	}
}
