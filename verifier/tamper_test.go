package verifier_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/verifier"
)

// TestOneBit flips each bit of a good token, drops and doubles each byte, and inserts
// bytes at each place. Every result is refused.
func TestOneBit(t *testing.T) {
	none := []verifier.Tolerance{}
	odd := header(`"typ":null,"zip":"GZIP","cty":"json"`)
	for name, tt := range map[string]struct {
		token    string
		tolerate []verifier.Tolerance
	}{
		"strict":       {sign(goodHeader, goodPayload), none},
		"all, bare":    {sign(odd, with(`"sub":7`)), verifier.Tolerances()[:4]},
		"all":          {signPadded(odd, with(`"sub":7`)), verifier.Tolerances()},
		"null-members": {sign(header(`"typ":null`), with(`"nbf":null`)), null},
		"numeric-sub":  {sign(goodHeader, with(`"sub":7`)), number},
		"cty":          {sign(header(`"cty":"json"`), goodPayload), cty},
		"zip":          {sign(header(`"zip":"GZIP"`), goodPayload), zip},
		"padding":      {signPadded(goodHeader, goodPayload), padding},
	} {
		t.Run(name, func(t *testing.T) { testOneBit(t, tolerating(t, tt.tolerate...), tt.token) })
	}
}

func testOneBit(t *testing.T, r verifier.Tenant, good string) {
	v := newVerifier(t, r)
	if tok, err := v.Verify(t.Context(), good); err != nil || tok == nil {
		t.Fatal(err)
	}
	refuse := func(what, token string) {
		t.Helper()
		if tok, err := v.Verify(t.Context(), token); !errors.Is(err, verifier.ErrInvalid) || tok != nil {
			t.Errorf("%s: %v, %v", what, tok, err)
		}
	}
	for i := range len(good) {
		for bit := range 8 {
			b := []byte(good)
			b[i] ^= 1 << bit
			refuse(fmt.Sprintf("bit %d of byte %d", bit, i), string(b))
		}
		refuse("a byte dropped", good[:i]+good[i+1:])
		refuse("a byte doubled", good[:i]+good[i:i+1]+good[i:])
		for _, c := range []string{"\n", "\r\n", "=", " ", "\x00", "\u200b", "A"} {
			refuse("put in", good[:i]+c+good[i:])
		}
	}
	for _, tail := range []string{"\n", "=", "==", ".", " ", "A", "AAAA"} {
		refuse("a tail", good+tail)
		refuse("a head", tail+good)
	}
}
