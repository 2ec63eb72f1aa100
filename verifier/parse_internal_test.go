package verifier

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keyturn/keyturn/keystore"
)

// FuzzParse checks two properties that every rule relies on: the parsed parts are those of
// the token, byte for byte, and a malformed token gives no parts.
func FuzzParse(f *testing.F) {
	for _, s := range tokenSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		var s scratch
		var p *parsed
		first, second, bad := findDots(token)
		if bad == nil {
			p, bad = s.parse(token, first, second, nil)
		}
		if bad != nil {
			if p != nil {
				t.Error("parse returned a value along with an error")
			}
			if !errors.Is(bad, ErrInvalid) {
				t.Errorf("parse error = %v, want ErrInvalid", bad)
			}
			return
		}
		if !strings.HasPrefix(token, string(p.signed)+".") {
			t.Errorf("the signed part %q is no prefix of %q", p.signed, token)
		}
		encoding := base64url
		if p.needs&needPadding != 0 {
			encoding = encoding.WithPadding(base64.StdPadding)
		}
		if again := string(p.signed) + "." + encoding.EncodeToString(p.sig); again != token {
			t.Errorf("%q has another spelling: %q", token, again)
		}
		if len(p.kid) > keystore.MaxKIDBytes || !utf8.ValidString(p.kid) {
			t.Errorf("kid %q", p.kid)
		}
		if strings.Count(token, ".") != 2 {
			t.Errorf("%q is a token", token)
		}
	})
}

func tokenSeeds() []string {
	b64 := base64url.EncodeToString
	seeds := []string{"", ".", "..", "...", "a.b.c", "e30.e30.", "e30.e30.AA", "e30=.e30.AA", "e30=.e30=.AA==", "e30=.e30=.AA", "e30=.e30=.AAA==", "e30=.e30=.====", "e3\n0.e30.AA", "\r\ne30.e30.AA", "e30.e30.AB", "e30.e30.A"}
	for _, h := range []string{`{"alg":"HS256"}`, `{"alg":"HS256","kid":"1"}`, `{"alg":"none"}`, `{"alg":"HS256","crit":["exp"]}`, `{"alg":1}`, `{"Alg":"x","alg":"HS256"}`,
		`{"alg":"HS256","kid":""}`, `{"alg":"HS256","cty":"JWT"}`, `{"alg":"ES256","typ":"at+jwt"}`} {
		seeds = append(seeds, b64([]byte(h))+"."+b64([]byte(`{"sub":"ann","exp":1800003600}`))+"."+b64([]byte("signature")))
	}
	return seeds
}
