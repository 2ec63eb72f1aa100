package verifier_test

import (
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/verifier"
)

// TestMillion sends a million good tokens through a cache of 64 Ki entries, each of them
// once. The bounds of the cache hold. The tokens that come again and again stay in it,
// and so do those of another tenant. A million takes too long under the race detector,
// where it is a tenth.
func TestMillion(t *testing.T) {
	n := 1_000_000
	if raceEnabled {
		n = 50_000
	}
	const entries, bytes, working, quiet = 64 << 10, 64 << 20, 4000, 12_000
	v, err := verifier.New(verifier.Config{
		Tenants: []verifier.Tenant{tenant(t, "flood", "https://flood", nil), tenant(t, "quiet", "https://quiet", nil)},
		Now:     at(nowUnix), CacheEntries: entries, CacheBytes: bytes,
	})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(token string) bool {
		tok, err := v.Verify(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		return tok.Cached()
	}
	set := func(tenant string, n int) []string {
		tokens := make([]string, n)
		for i := range tokens {
			tokens[i] = tokenOf(tenant, fmt.Sprintf(`"iss":"https://%s","n":%d`, tenant, i))
			verify(tokens[i])
			verify(tokens[i])
		}
		return tokens
	}
	others := set("quiet", quiet)
	again := set("flood", working)
	hits := 0
	for i := range n {
		verify(tokenOf("flood", fmt.Sprintf(`"iss":"https://flood","once":%d`, i)))
		if verify(again[i%working]) {
			hits++
		}
		if i%50_000 == 0 {
			if s := v.CacheStats(); s.Entries > entries || s.Bytes > bytes {
				t.Fatalf("%+v", s)
			}
		}
	}
	t.Logf("%d hits of %d, %+v", hits, n, v.CacheStats())
	if hits < n*9/10 {
		t.Errorf("%d hits of %d in the working set", hits, n)
	}
	kept := 0
	for _, token := range others {
		if verify(token) {
			kept++
		}
	}
	if kept < quiet/2 {
		t.Errorf("%d of %d of the quiet tenant's tokens stayed", kept, quiet)
	}
}
