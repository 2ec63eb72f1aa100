package verifier_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

// A hoarder keeps everything that it is asked for, as a memory of unknown kids does.
type hoarder struct {
	ids  []keystore.ID
	algs []keystore.Algorithm
}

func (h *hoarder) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	h.ids, h.algs = append(h.ids, id), append(h.algs, alg)
	return nil, errNotFound
}

// TestNothingKeepsTokensInMemory: on 2026-11-28 each remembered kid kept the whole header of
// its token. What outlives a verification holds no part of the token.
func TestNothingKeepsTokensInMemory(t *testing.T) {
	const n, pad = 1000, 5000
	long := `"x":"` + strings.Repeat("x", pad) + `"`
	for _, tt := range []struct {
		name  string
		token func(i int) string
		keys  keystore.KeyStore
	}{
		{name: "an error with a kid", token: func(i int) string {
			return sign(fmt.Sprintf(`{"alg":"HS256","kid":"k%d",%s}`, i, long), goodPayload)
		}},
		{name: "an error with a claim", token: func(i int) string {
			return sign(goodHeader, with(fmt.Sprintf(`"Sub":"%d",%s`, i, long)))
		}},
		{name: "a kid and an alg in a store", keys: new(hoarder), token: func(i int) string {
			return sign(fmt.Sprintf(`{"alg":"HS256","kid":"k%d",%s}`, i, long), goodPayload)
		}},
	} {
		r := acme(t)
		if tt.keys != nil {
			r.Keys = tt.keys
		}
		v := newVerifier(t, r)
		kept := make([]error, n)
		before := heap()
		for i := range n {
			_, kept[i] = v.Verify(t.Context(), tt.token(i))
			if kept[i] == nil {
				t.Fatal("a good token")
			}
		}
		if grown := heap() - before; grown > n*pad/5 {
			t.Errorf("%s: %d errors keep %d bytes", tt.name, n, grown)
		}
		runtime.KeepAlive(kept)
		runtime.KeepAlive(v)
	}
}
