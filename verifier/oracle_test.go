package verifier_test

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keyturn/keyturn/verifier"
)

// oracle is a second verifier: HS256, and the tenant of acme. It is written for clarity
// alone, and shares nothing with the first. It returns the reason, or "" for a good
// token.
func oracle(token string, now time.Time) verifier.Reason {
	if len(token) > 16<<10 {
		return "too_large"
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "malformed"
	}
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil || base64.RawURLEncoding.EncodeToString(b) != p {
			return "malformed"
		}
		raw[i] = b
	}
	header, ok := object(raw[0])
	if !ok {
		return "malformed"
	}
	if reason := oracleHeader(header); reason != "" {
		return reason
	}
	claims, ok := object(raw[1])
	if !ok {
		return "malformed"
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

func oracleHeader(header map[string]any) verifier.Reason {
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
	for _, name := range []string{"crit", "b64", "zip"} {
		if _, ok := header[name]; ok {
			return "critical"
		}
	}
	if _, ok := header["cty"]; ok {
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
	{goodHeader, `{"iss":"https://acme.example","aud":"api","exp":1800000000.9,"nbf":1800000000.1}`},
}

// FuzzVerify compares the verifier with the oracle: they must agree on the verdict and the
// reason. Some tokens are signed, so that every rule is reached, and some are not.
func FuzzVerify(f *testing.F) {
	for _, s := range oracleSeeds {
		f.Add(s.header, s.payload, "")
	}
	f.Add(goodHeader, goodPayload, "x")
	f.Add("", "", sign(goodHeader, goodPayload))
	v := newVerifier(f, acme(f))
	now := at(nowUnix)()
	f.Fuzz(func(t *testing.T, header, payload, raw string) {
		token := raw
		if raw == "" {
			token = sign(header, payload)
		}
		tok, err := v.Verify(t.Context(), token)
		want := oracle(token, now)
		e := new(verifier.Error)
		var got verifier.Reason
		if errors.As(err, &e) {
			got = e.Reason
		}
		if got != want || (tok == nil) != (want != "") {
			t.Errorf("header %q\npayload %q\ntoken %q\nreason %q, the oracle says %q", header, payload, token, got, want)
		}
	})
}
