package main

import (
	"encoding/base64"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestSign(t *testing.T) {
	secret := file(t, testSecret+"\n")
	begin := time.Now().Unix()
	token := sign(t, "--secret-file", secret, "--claim", "sub=ann", "--claim", "a=b=c", "--claim", "empty=",
		"--claim-json", `roles=["a", "b"]`, "--claim-json", "n=1.50", "--iss", "https://acme.example", "--aud", "api", "--kid", "k1")
	end := time.Now().Unix()

	if got, want := fmt.Sprint(partOf(t, token, 0)), "map[alg:HS256 kid:k1 typ:JWT]"; got != want {
		t.Errorf("header = %s, want %s", got, want)
	}
	claims := partOf(t, token, 1)
	iat, exp := claims["iat"].(float64), claims["exp"].(float64)
	if int64(iat) < begin || int64(iat) > end || exp-iat != 15*60 {
		t.Errorf("iat = %v and exp = %v, want now and 15 minutes on", iat, exp)
	}
	if jti, ok := claims["jti"].(string); !ok || len(jti) < 16 {
		t.Errorf("jti = %v, want a random text", claims["jti"])
	}
	for _, name := range []string{"iat", "exp", "jti"} {
		delete(claims, name)
	}
	if got, want := fmt.Sprint(claims), "map[a:b=c aud:api empty: iss:https://acme.example n:1.5 roles:[a b] sub:ann]"; got != want {
		t.Errorf("claims = %s, want %s", got, want)
	}
	signed := token[:strings.LastIndexByte(token, '.')]
	if want := resign(testSecret, signed); token != want {
		t.Error("the signature is not that of HMAC-SHA-256")
	}
	if r := keyturn(t, "verify", "--secret-file", secret, "--alg", "HS256", "--kid", "k1", "--iss", "https://acme.example", "--aud", "api", token); r.code != exitYes {
		t.Errorf("verify: %+v", r)
	}
}

// resign puts an HS256 signature on a header and a payload in base64url.
func resign(secret, signed string) string {
	header, payload, _ := strings.Cut(signed, ".")
	h, err1 := base64.RawURLEncoding.DecodeString(header)
	p, err2 := base64.RawURLEncoding.DecodeString(payload)
	if err1 != nil || err2 != nil {
		return ""
	}
	return hs256(secret, string(h), string(p))
}

func TestSignVerify(t *testing.T) {
	secret := file(t, strings.Repeat("s", 64))
	for _, alg := range []string{"HS256", "HS384", "HS512"} {
		token := sign(t, "--secret-file", secret, "--alg", alg, "--ttl", "1h", "--typ", "at+jwt", "--aud", "a", "--aud", "b", "--tenant", "acme")
		r := keyturn(t, "verify", "--secret-file", secret, "--alg", alg, "--aud", "b", "--typ", "at+jwt", "--tenant", "acme", token)
		if r.code != exitYes {
			t.Errorf("%s: %+v", alg, r)
		}
		if r := keyturn(t, "verify", "--secret-file", secret, "--alg", alg, "--typ", "JWT", token); r.code != exitNo {
			t.Errorf("%s with another type: %+v", alg, r)
		}
		claims := partOf(t, token, 1)
		if claims["exp"].(float64)-claims["iat"].(float64) != 3600 {
			t.Errorf("%s: --ttl 1h, but the claims are %v", alg, claims)
		}
	}
}

func TestSignSecretFromEnvironment(t *testing.T) {
	for _, name := range []string{envSecret, envMastraSecret} {
		r := call{env: map[string]string{name: testSecret}}.run(t, "sign", "--claim", "sub=ann")
		token := strings.TrimSuffix(r.stdout, "\n")
		if r.code != exitYes || token != resign(testSecret, token[:max(0, strings.LastIndexByte(token, '.'))]) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// A claim of the user replaces the one that sign would add.
func TestSignClaimsWin(t *testing.T) {
	token := sign(t, "--secret-file", file(t, testSecret), "--claim-json", "exp=1800000840", "--claim-json", "iat=1.5",
		"--claim", "jti=j", "--claim", "iss=i", "--claim-json", `aud=["a"]`)
	if got, want := fmt.Sprint(partOf(t, token, 1)), "map[aud:[a] exp:1.80000084e+09 iat:1.5 iss:i jti:j]"; got != want {
		t.Errorf("claims = %s, want %s", got, want)
	}
}

// Tests need expired tokens, and tokens that are not yet valid.
func TestSignTokensOfOtherTimes(t *testing.T) {
	secret := file(t, testSecret)
	sign(t, "--secret-file", secret, "--claim-json", "exp=1")
	sign(t, "--secret-file", secret, "--claim-json", fmt.Sprintf("nbf=%d", int64(math.MaxInt32)*2))
	sign(t, "--secret-file", secret, "--claim", "big="+strings.Repeat("x", 10<<10)) // a verifier may allow that
}

// Only a value of the wrong type brings the hint about strings and JSON.
func TestSignHints(t *testing.T) {
	const hint = "--claim makes strings, --claim-json all else"
	secret := file(t, testSecret)
	for claim, want := range map[string]bool{"exp=5": true, "SUB=5": false} {
		r := keyturn(t, "sign", "--secret-file", secret, "--claim", claim)
		if r.code != exitUsage || strings.Contains(r.stderr, hint) != want {
			t.Errorf("--claim %s: %+v, want the hint: %v", claim, r, want)
		}
	}
	if r := keyturn(t, "sign", "--secret-file", file(t, "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ\n-----END")); strings.Contains(r.stderr, "NewPublic") || strings.Contains(r.stderr, "package") {
		t.Errorf("stderr gives a Go programmer's advice: %s", r.stderr)
	}
}

func TestSignUsage(t *testing.T) {
	base := []string{"sign", "--secret-file", file(t, testSecret)}
	for _, tt := range []struct {
		args   []string
		phrase string
	}{
		{[]string{"sign"}, "no secret to sign with: give --secret-file, or set KEYTURN_SECRET or MASTRA_JWT_SECRET"},
		{[]string{"sign", "--secret-file", file(t, testSecret[:31])}, "is 31 bytes, want at least 32"},
		{[]string{"sign", "--secret-file", file(t, "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ\n-----END")}, "give public keys with --jwks"},
		{append(base, "--alg", "HS384"), "is 33 bytes, want at least 48"},
		{append(base, "--alg", "ES256"), "want HS256, HS384 or HS512"},
		{append(base, "--alg", "none"), "want HS256, HS384 or HS512"},
		{append(base, "--alg", ""), "want HS256, HS384 or HS512"},
		{append(base, "--ttl", "999ms"), "want at least 1s"},
		{append(base, "--ttl", "15"), "want a duration"},
		{append(base, "--ttl", "1h", "--ttl", "2h"), "--ttl: given twice"},
		{append(base, "--claim", "sub"), "want NAME=VALUE"},
		{append(base, "--claim", "=ann"), "there is no NAME"},
		{append(base, "--claim", "sub=\xff"), "not valid UTF-8"},
		{append(base, "--claim", "sub=a", "--claim", "sub=b"), `claim "sub" is given twice`},
		{append(base, "--claim", "sub=a", "--claim-json", `sub="b"`), `claim "sub" is given twice`},
		{append(base, "--claim", "iss=a", "--iss", "b"), `claim "iss" is given twice: once by --iss`},
		{append(base, "--claim", "aud=a", "--aud", "b"), `claim "aud" is given twice: once by --aud`},
		{append(base, "--claim-json", "exp=1", "--ttl", "1h"), `claim "exp" is given twice: once by --ttl`},
		{append(base, "--claim", "exp=1800000000"), `claim "exp" must be a number`},
		{append(base, "--claim-json", "sub=1"), `claim "sub" must be a string`},
		{append(base, "--claim", "EXP=1"), `claim "EXP" differs from "exp" only by case`},
		{append(base, "--claim-json", "a=ann"), "not strict JSON"},
		{append(base, "--claim-json", "a="), "not strict JSON"},
		{append(base, "--claim-json", `a={"b":1,"b":2}`), "not strict JSON"},
		{append(base, "--claim-json", "a=1,\"b\":2"), "not strict JSON"},
		{append(base, "--claim-json", "a=1e999"), "no verifier would accept"},
		{append(base, "--claim-json", "a="+strings.Repeat("[", 40)+strings.Repeat("]", 40)), "no verifier would accept"},
		{append(base, "--kid", strings.Repeat("k", 257)), "at most 256"},
		{append(base, "--typ", ""), "--typ: is empty"},
	} {
		t.Run(tt.phrase, func(t *testing.T) { keyturn(t, tt.args...).wantUsage(t, tt.phrase) })
	}
}
