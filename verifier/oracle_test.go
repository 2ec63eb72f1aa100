package verifier_test

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keyturn/keyturn/verifier"
)

// oracle is a second verifier: HS256, and the tenant of acme with tolerances. It is written for
// clarity alone, and shares nothing with the first. It returns the reason, or "" for a good
// token.
func oracle(token string, now time.Time, tolerate ...verifier.Tolerance) verifier.Reason {
	may := map[verifier.Tolerance]bool{}
	for _, t := range tolerate {
		may[t] = true
	}
	if len(token) > 16<<10 {
		return "too_large"
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "malformed"
	}
	var raw [3][]byte
	for i, p := range parts {
		encoding := base64.RawURLEncoding
		if may["padding"] {
			encoding = base64.URLEncoding
		}
		b, err := encoding.DecodeString(p)
		if err != nil || encoding.EncodeToString(b) != p {
			return "malformed"
		}
		raw[i] = b
	}
	header, ok := object(raw[0])
	if !ok {
		return "malformed"
	}
	if reason := oracleHeader(header, may); reason != "" {
		return reason
	}
	claims, ok := object(raw[1])
	if !ok {
		return "malformed"
	}
	if may["null-members"] {
		dropNulls(claims, "iss sub aud exp nbf iat jti")
	}
	if may["numeric-sub"] {
		oracleNumbers(raw[1], claims)
	}
	if header["alg"] != "HS256" {
		return "algorithm"
	}
	if kid, ok := header["kid"]; ok && kid != "1" {
		return "unknown_key"
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	if !bytes.Equal(mac.Sum(nil), raw[2]) {
		return "signature"
	}
	return cmp.Or(oracleTimes(claims, now), oracleClaims(claims), oracleType(header))
}

func dropNulls(m map[string]any, names string) {
	for name := range strings.FieldsSeq(names) {
		if v, has := m[name]; has && v == nil {
			delete(m, name)
		}
	}
}

// oracleNumbers makes integers of sub and jti strings.
func oracleNumbers(payload []byte, claims map[string]any) {
	var raw map[string]jsontext.Value
	if err := json.Unmarshal(payload, &raw); err != nil {
		panic(err)
	}
	for _, name := range []string{"sub", "jti"} {
		if text := string(raw[name]); regexp.MustCompile(`^-?[0-9]+$`).MatchString(text) && text != "-0" {
			claims[name] = text
		}
	}
}

func oracleHeader(header map[string]any, may map[verifier.Tolerance]bool) verifier.Reason {
	if may["null-members"] {
		dropNulls(header, "alg kid typ enc zip cty")
	}
	if _, ok := header["alg"].(string); !ok {
		return "malformed"
	}
	kid, hasKID := header["kid"]
	if s, ok := kid.(string); hasKID && (!ok || s == "" || len(s) > 256) {
		return "malformed"
	}
	typ, hasTyp := header["typ"]
	if _, ok := typ.(string); hasTyp && !ok {
		return "malformed"
	}
	if folded(header, "alg jku jwk kid x5u x5c x5t x5t#S256 typ cty crit b64 zip enc") {
		return "malformed"
	}
	if _, ok := header["enc"]; ok {
		return "malformed"
	}
	for _, name := range []string{"crit", "b64", "zip"} {
		if _, ok := header[name]; ok && (name != "zip" || !may["zip"]) {
			return "critical"
		}
	}
	if _, ok := header["cty"]; ok && !may["cty"] {
		return "type"
	}
	return ""
}

func oracleTimes(claims map[string]any, now time.Time) verifier.Reason {
	dates := map[string]float64{}
	for _, name := range []string{"exp", "nbf", "iat"} {
		v, has := claims[name]
		if !has && name == "exp" {
			return "missing_claim"
		}
		f, ok := v.(float64)
		if has && (!ok || f < 0 || f >= 1<<53) {
			return "claim"
		}
		dates[name] = f
	}
	t := float64(now.Unix())
	switch {
	case t >= dates["exp"]:
		return "expired"
	case t < dates["nbf"], t < dates["iat"]:
		return "not_yet_valid"
	}
	return ""
}

func oracleClaims(claims map[string]any) verifier.Reason {
	if claims["iss"] != "https://acme.example" {
		return "issuer"
	}
	aud, ok := claims["aud"].([]any)
	if !ok {
		aud = []any{claims["aud"]}
	}
	ours := false
	for _, a := range aud {
		if _, ok := a.(string); !ok {
			return "audience"
		}
		ours = ours || a == "api" || a == "other"
	}
	if !ours {
		return "audience"
	}
	for _, name := range []string{"sub", "jti"} {
		if v, has := claims[name]; has {
			if _, ok := v.(string); !ok {
				return "claim"
			}
		}
	}
	if folded(claims, "iss sub aud exp nbf iat jti scope scp") {
		return "claim"
	}
	return ""
}

func oracleType(header map[string]any) verifier.Reason {
	typ, ok := header["typ"].(string)
	if !ok {
		return ""
	}
	for _, r := range typ {
		if r > 127 {
			return "type"
		}
	}
	s := strings.ToLower(typ)
	if !strings.Contains(s, "/") {
		s = "application/" + s
	}
	if s != "application/jwt" && s != "application/at+jwt" {
		return "type"
	}
	return ""
}

func object(text []byte) (map[string]any, bool) {
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil || m == nil {
		return nil, false
	}
	d := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		if _, err := d.ReadToken(); err != nil {
			return m, true
		}
		if d.StackDepth() > 32 {
			return nil, false
		}
	}
}

func folded(m map[string]any, names string) bool {
	for have := range m {
		for name := range strings.FieldsSeq(names) {
			if have != name && strings.EqualFold(have, name) {
				return true
			}
		}
	}
	return false
}

var oracleSeeds = []struct{ header, payload string }{
	{goodHeader, goodPayload}, {`{"alg":"HS256"}`, goodPayload}, {`{"alg":"none"}`, goodPayload}, {`{"alg":"HS256","kid":"2"}`, goodPayload},
	{`{"alg":"HS256","crit":[]}`, goodPayload}, {`{"alg":"HS256","cty":"JWT"}`, goodPayload}, {`{"alg":"HS256","typ":"at+JWT"}`, goodPayload},
	{`{"alg":"HS256","Kid":"1"}`, goodPayload}, {`{"alg":"HS256","typ":"application/jwt"}`, goodPayload}, {`{"alg":"HS256","typ":""}`, goodPayload},
	{goodHeader, `{"exp":1}`}, {goodHeader, `{}`}, {goodHeader, `{"exp":"1"}`}, {goodHeader, `{"exp":1e300}`}, {goodHeader, `[]`},
	{goodHeader, `{"iss":"https://acme.example","aud":["x","api"],"exp":9007199254740991,"nbf":0,"iat":1.5,"jti":"","sub":""}`},
	{goodHeader, `{"iss":"https://acme.example","aud":[1,"api"],"exp":1800000001}`}, {goodHeader, `{"iss":"https:\/\/acme.example","aud":"other","exp":1800000000}`},
	{goodHeader, `{"iss":"https://acme.example","aud":"api","exp":1800000001,"EXP":1}`}, {goodHeader, `{"iss":"https://acme.example","aud":"api","exp":1800000001,"sub":null}`},
	{goodHeader, `{"iss":"https://acme.example","aud":"api","exp":1800000001,"scope":"a","SCOPE":"b"}`},
	{`{"alg":"HS256","typ":null,"kid":null,"zip":null,"cty":null}`, goodPayload}, {`{"alg":"HS256","zip":"GZIP","cty":"json"}`, goodPayload},
	{`{"alg":"HS256","enc":null,"crit":null}`, goodPayload}, {`{"alg":"HS256","enc":"A128GCM"}`, goodPayload}, {goodHeader + " ", goodPayload + " "},
	{goodHeader, `{"iss":"https://acme.example","aud":"api","exp":1800000001,"sub":7,"jti":-7}`},
	{goodHeader, `{"iss":"https://acme.example","aud":"api","exp":1800000001,"sub":7.0}`}, {goodHeader, `{"iss":null,"aud":null,"exp":null}`},
	{goodHeader, `{"iss":"https://acme.example","aud":"api","exp":1800000001,"sub":-0,"jti":123456789012345678901234567890,"nbf":null,"iat":null}`},
	{goodHeader, `{"iss":"https://acme.example","aud":"api","exp":1800000000.9,"nbf":1800000000.1}`},
}

// FuzzVerify compares the verifier with the oracle: they must agree on the verdict and the
// reason, without tolerances, with each alone, and with all. Some tokens are signed, so that every
// rule is reached, and some are not.
func FuzzVerify(f *testing.F) {
	for _, s := range oracleSeeds {
		f.Add(s.header, s.payload, "")
	}
	f.Add(goodHeader, goodPayload, "x")
	f.Add("", "", sign(goodHeader, goodPayload))
	f.Add("", "", signPadded(goodHeader, goodPayload))
	lists := [][]verifier.Tolerance{nil, verifier.Tolerances()}
	for _, one := range verifier.Tolerances() {
		lists = append(lists, []verifier.Tolerance{one})
	}
	var verifiers []*verifier.Verifier
	for _, list := range lists {
		verifiers = append(verifiers, newVerifier(f, tolerating(f, list...)))
	}
	now := at(nowUnix)()
	f.Fuzz(func(t *testing.T, header, payload, raw string) {
		tokens := []string{raw}
		if raw == "" {
			tokens = []string{sign(header, payload), signPadded(header, payload)}
		}
		for _, token := range tokens {
			for i, v := range verifiers {
				tok, err := v.Verify(t.Context(), token)
				want := oracle(token, now, lists[i]...)
				e := new(verifier.Error)
				var got verifier.Reason
				if errors.As(err, &e) {
					got = e.Reason
				}
				if got != want || (tok == nil) != (want != "") {
					t.Errorf("tolerate %v\nheader %q\npayload %q\ntoken %q\nreason %q, the oracle says %q", lists[i], header, payload, token, got, want)
				}
			}
		}
	})
}
