package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestVerifyJSON(t *testing.T) {
	good := hs256(testSecret, plainHeader, goodPayload)
	for _, tt := range []struct {
		name, token string
		code        int
		want        string
	}{
		{"good", good, exitYes, `{"ok":true,"tenant":"default","kid":"","alg":"HS256","claims":` + goodPayload + "}\n"},
		{"line ends in the payload", hs256(testSecret, plainHeader, "{\"sub\" : \"a\\u0062 \\/\" ,\r\n \"exp\":1.80000001e9 }"), exitYes,
			`{"ok":true,"tenant":"default","kid":"","alg":"HS256","claims":{"sub":"a\u0062 \/","exp":1.80000001e9}}` + "\n"},
		{"control characters", hs256(testSecret, plainHeader, "{\"sub\":\"\u009b2J\u2028\",\"exp\":1800000840}"), exitYes,
			`{"ok":true,"tenant":"default","kid":"","alg":"HS256","claims":{"sub":"\u009b2J\u2028","exp":1800000840}}` + "\n"},
		{"another secret", hs256("another"+testSecret, plainHeader, goodPayload), exitNo,
			refusal("signature", `"key \"default\"/\"\": invalid signature"`)},
		{"expired", hs256(testSecret, plainHeader, `{"exp":1800000000}`), exitNo,
			refusal("expired", `"key \"default\"/\"\": token expired: claim \"exp\""`)},
		{"no exp", hs256(testSecret, plainHeader, `{"sub":"ann"}`), exitNo,
			refusal("missing_claim", `"key \"default\"/\"\": claim missing: claim \"exp\""`)},
		{"kid", hs256(testSecret, `{"alg":"HS256","kid":"k\u001b1"}`, goodPayload), exitNo,
			refusal("unknown_key", `"key \"default\"/\"k\\x1b1\": unknown key"`)},
		{"none", hs256(testSecret, `{"alg":"none"}`, goodPayload), exitNo,
			refusal("algorithm", `"tenant \"default\": algorithm not allowed: want HS256"`)},
		{"empty", "", exitNo, refusal("malformed", `"malformed token: want three parts with two dots between them"`)},
		{"too large", strings.Repeat("a", 16<<10+1), exitNo, refusal("too_large", `"token too large: 16385 bytes, and MaxTokenBytes allows 16384"`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keyturn(t, verifyArgs(t, "--json", tt.token)...).want(t, tt.code, tt.want)
		})
	}
}

func TestVerifyText(t *testing.T) {
	r := keyturn(t, verifyArgs(t, "--kid", "k1", "--tenant", "acme", hs256(testSecret, `{"alg":"HS256","kid":"k1"}`, goodPayload))...)
	r.want(t, exitYes, `ok: the token is good
  tenant   "acme"
  kid      "k1"
  alg      HS256
  expires  in 14 minutes (2027-01-15T08:14:00Z)
  claims   `+goodPayload+"\n")
	wantNotes := "keyturn: note: iss is not checked: --iss says which issuer to expect\n" +
		"keyturn: note: aud is not checked: --aud says which audience to expect\n"
	if r.stderr != wantNotes {
		t.Errorf("stderr = %q, want %q", r.stderr, wantNotes)
	}

	r = keyturn(t, verifyArgs(t, "--allow-no-exp", "--iss", "i", "--aud", "a", hs256(testSecret, plainHeader, `{"iss":"i","aud":"a"}`))...)
	if r.code != exitYes || !strings.Contains(r.stdout, "expires  never\n") || r.stderr != "" {
		t.Errorf("without exp: %+v", r)
	}

	r = keyturn(t, verifyArgs(t, hs256(testSecret, plainHeader, `{"exp":1}`))...)
	r.want(t, exitNo, "")
	if !strings.HasSuffix(r.stderr, "keyturn: refused (expired): token expired: claim \"exp\"\n") {
		t.Errorf("stderr = %q", r.stderr)
	}
}

func TestVerifyHints(t *testing.T) {
	r := keyturn(t, verifyArgs(t, hs256(testSecret, `{"alg":"HS256","kid":"k1"}`, goodPayload))...)
	if !strings.Contains(r.stderr, `the token names the kid "k1"`) || !strings.Contains(r.stderr, "--kid") {
		t.Errorf("unknown kid: stderr = %q", r.stderr)
	}
	r = keyturn(t, verifyArgs(t, hs256(testSecret, plainHeader, `{}`))...)
	if !strings.Contains(r.stderr, "--allow-no-exp") {
		t.Errorf("no exp: stderr = %q", r.stderr)
	}
}

// The hints for the user stand beside the refusal, whose text does not change.
func TestVerifyNotes(t *testing.T) {
	good := hs256(testSecret, plainHeader, goodPayload)
	header := func(h string) string { return hs256(testSecret, h, goodPayload) }
	long := strings.Repeat("x", 41)
	for _, tt := range []struct {
		name, token string
		flags       []string
		reason      string
		notes       []string
	}{
		{"empty", "", nil, "malformed", []string{"the TOKEN is empty: is the variable set?"}},
		{"only white space", "\n", nil, "malformed", []string{"the TOKEN is empty: is the variable set?"}},
		{"only Bearer", "Bearer", nil, "malformed", []string{`it begins with "Bearer"`, "the TOKEN is empty"}},
		{"Bearer", "bearer " + good, nil, "malformed", []string{`it begins with "Bearer"`}},
		{"white space", good + " ", nil, "malformed", []string{"there is white space around the token"}},
		{"line end", good + "\n", nil, "malformed", []string{"there is white space around the token"}},
		{"alg", header(`{"alg":"HS384"}`), nil, "algorithm", []string{`the token's header (not verified) has alg "HS384"; --alg lists HS256` + "\n"}},
		{"no alg", header(`{"alg":"none"}`), nil, "algorithm", []string{`has alg "none"; --alg lists HS256`}},
		{"long alg", header(`{"alg":"` + long + `"}`), nil, "algorithm", []string{`has alg "` + long[:40] + `"...; --alg lists`}},
		{"hostile alg", header(`{"alg":"\u001b[2J\u202e"}`), nil, "algorithm", []string{`has alg "\x1b[2J\u202e"; --alg lists`}},
		{"typ", header(`{"alg":"HS256","typ":"dpop+jwt"}`), nil, "type", []string{`the token's header (not verified) has typ "dpop+jwt"; without --typ, none, "JWT" or "at+jwt" is accepted`}},
		{"another typ", good, []string{"--typ", "at+jwt"}, "type", []string{`has typ "JWT"; --typ wants "at+jwt"`}},
		{"no typ", header(`{"alg":"HS256"}`), []string{"--typ", "JWT"}, "type", []string{`has no typ; --typ wants "JWT"`}},
		{"nested", header(`{"alg":"HS256","cty":"JWT"}`), nil, "type", []string{"the token departs from the standards; if its issuer is known for that: --tolerate cty"}},
		{"another secret", hs256("another"+testSecret, plainHeader, goodPayload), nil, "signature", []string{"made with another secret, or changed since"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := keyturn(t, verifyArgs(t, append(tt.flags, "--json", tt.token)...)...)
			if r.code != exitNo || !strings.Contains(r.stdout, `"reason":"`+tt.reason+`"`) {
				t.Fatalf("verify = %+v, want reason %s", r, tt.reason)
			}
			for _, note := range tt.notes {
				if !strings.Contains(r.stderr, note) {
					t.Errorf("stderr = %q, want %q in it", r.stderr, note)
				}
			}
			const always = 2 // iss and aud are not checked
			if n := strings.Count(r.stderr, "\n") - always; n != len(tt.notes) {
				t.Errorf("stderr = %q, want %d notes", r.stderr, len(tt.notes))
			}
			wantPrintable(t, r.stderr)
		})
	}
	r := call{stdin: strings.NewReader(good + "\n\n")}.run(t, verifyArgs(t, "-")...)
	if r.code != exitNo || !strings.Contains(r.stderr, "white space around the token") {
		t.Errorf("two line ends on standard input: %+v", r)
	}
	if r := keyturn(t, verifyArgs(t, good)...); strings.Contains(r.stderr, "header") || strings.Contains(r.stderr, "white space") {
		t.Errorf("a good token: %+v", r)
	}
}

// A refusal names the key if the user or the token has named it.
func TestVerifyNamesTheKey(t *testing.T) {
	bad := hs256("another"+testSecret, plainHeader, goodPayload)
	for _, tt := range []struct {
		token string
		flags []string
		want  string
	}{
		{bad, nil, `refused (signature): invalid signature`},
		{bad, []string{"--tenant", "acme"}, `refused (signature): key "acme"/"": invalid signature`},
		{bad, []string{"--kid", "k1"}, `refused (signature): key "default"/"": invalid signature`},
		{hs256(testSecret, `{"alg":"HS256","kid":"k1"}`, goodPayload), nil, `refused (unknown_key): key "default"/"k1": unknown key`},
		{hs256(testSecret, `{"alg":"none"}`, goodPayload), nil, `refused (algorithm): algorithm not allowed: want HS256`},
	} {
		r := keyturn(t, verifyArgs(t, append(tt.flags, tt.token)...)...)
		if r.code != exitNo || r.stdout != "" || !strings.HasSuffix(r.stderr, "keyturn: "+tt.want+"\n") {
			t.Errorf("%q: %+v, want %s", tt.flags, r, tt.want)
		}
	}
}

// Each pair is a flag's value on both sides of its edge.
func TestVerifyFlags(t *testing.T) {
	iss := `{"iss":"https://acme.example","exp":1800000840}`
	aud := `{"aud":["api","web"],"exp":1800000840}`
	for _, tt := range []struct {
		name            string
		header, payload string
		flags           []string
		code            int
	}{
		{"exp is exclusive", plainHeader, `{"exp":1800000000}`, nil, exitNo},
		{"before exp", plainHeader, `{"exp":1800000001}`, nil, exitYes},
		{"no leeway unless given: exp", plainHeader, `{"exp":1799999999}`, nil, exitNo},
		{"no leeway unless given: nbf", plainHeader, `{"exp":1800000840,"nbf":1800000001}`, nil, exitNo},
		{"leeway", plainHeader, `{"exp":1799999996}`, []string{"--leeway", "5s"}, exitYes},
		{"leeway ends", plainHeader, `{"exp":1799999995}`, []string{"--leeway", "5s"}, exitNo},
		{"leeway 0", plainHeader, `{"exp":1799999999}`, []string{"--leeway", "0s"}, exitNo},
		{"iss", plainHeader, iss, []string{"--iss", "https://acme.example"}, exitYes},
		{"other iss", plainHeader, iss, []string{"--iss", "https://acme.example/"}, exitNo},
		{"no iss", plainHeader, aud, []string{"--iss", "https://acme.example"}, exitNo},
		{"aud", plainHeader, aud, []string{"--aud", "web"}, exitYes},
		{"other aud", plainHeader, aud, []string{"--aud", "we"}, exitNo},
		{"one of two aud", plainHeader, aud, []string{"--aud", "x", "--aud", "api"}, exitYes},
		{"default typ", `{"alg":"HS256","typ":"dpop+jwt"}`, iss, nil, exitNo},
		{"no typ", `{"alg":"HS256"}`, iss, nil, exitYes},
		{"typ", `{"alg":"HS256","typ":"dpop+jwt"}`, iss, []string{"--typ", "dpop+jwt"}, exitYes},
		{"other typ", plainHeader, iss, []string{"--typ", "dpop+jwt"}, exitNo},
		{"no exp", plainHeader, `{}`, nil, exitNo},
		{"allow no exp", plainHeader, `{}`, []string{"--allow-no-exp"}, exitYes},
		{"kid", `{"alg":"HS256","kid":"k1"}`, iss, []string{"--kid", "k1"}, exitYes},
		{"other kid", `{"alg":"HS256","kid":"k1"}`, iss, []string{"--kid", "k2"}, exitNo},
		{"kid, and none in the token", plainHeader, iss, []string{"--kid", "k1"}, exitYes},
		{"kid in the token only", `{"alg":"HS256","kid":"k1"}`, iss, nil, exitNo},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := keyturn(t, verifyArgs(t, append(tt.flags, hs256(testSecret, tt.header, tt.payload))...)...)
			if r.code != tt.code {
				t.Errorf("exit code = %d, want %d; stderr: %s", r.code, tt.code, r.stderr)
			}
		})
	}
}

func TestVerifyUsage(t *testing.T) {
	secret := file(t, testSecret)
	base := []string{"verify", "--secret-file", secret, "--alg", "HS256"}
	for _, tt := range []struct {
		args   []string
		phrase string
	}{
		{[]string{"verify", "--secret-file", secret}, "--alg is missing"},
		{[]string{"verify", "--secret-file", secret, "--alg", ""}, "--alg: is empty"},
		{[]string{"verify", "--secret-file", secret, "--alg", "HS256,"}, "--alg: is empty"},
		{[]string{"verify", "--secret-file", secret, "--alg", "none"}, "unsigned tokens are never accepted"},
		{[]string{"verify", "--secret-file", secret, "--alg", "HS256,None"}, "unsigned tokens are never accepted"},
		{[]string{"verify", "--secret-file", secret, "--alg", "HS256,HS1"}, "unknown algorithm"},
		{[]string{"verify", "--secret-file", secret, "--alg", "hs256"}, "unknown algorithm"},
		{[]string{"verify", "--secret-file", secret, "--alg", "HS256, HS384"}, "commas without spaces"},
		{[]string{"verify", "--secret-file", secret, "--alg", "HS256 HS384"}, "commas without spaces"},
		{[]string{"verify", "--secret-file", secret, "--alg", "HS256,", "HS384"}, "commas without spaces"},
		{[]string{"verify", "--secret-file", "-", "--alg", "HS256"}, "--secret-file: - is not standard input here: use /dev/stdin"},
		{[]string{"verify", "--jwks", "-", "--alg", "HS256"}, "--jwks: - is not standard input here: use /dev/stdin"},
		{[]string{"verify", "--secret-file", secret, "--alg", "ES256"}, "--jwks"},
		{[]string{"verify", "--secret-file", secret, "--alg", "HS512"}, "want at least 64"},
		{[]string{"verify", "--secret-file", file(t, ""), "--alg", "HS256"}, "openssl rand"},
		{[]string{"verify", "--secret-file", file(t, strings.Repeat("\x00", 32)), "--alg", "HS256"}, "all zero"},
		{[]string{"verify", "--secret-file", secret + "/no", "--alg", "HS256"}, "cannot read the file of --secret-file"},
		{[]string{"verify", "--secret-file", t.TempDir(), "--alg", "HS256"}, "is a directory"},
		{[]string{"verify", "--secret-file", file(t, strings.Repeat("x", 1<<20+1)), "--alg", "HS256"}, "larger than 1 MiB"},
		{[]string{"verify", "--secret-file", "", "--alg", "HS256"}, "--secret-file: is empty"},
		{[]string{"verify", "--alg", "HS256"}, "give --jwks or --secret-file, or set KEYTURN_SECRET or MASTRA_JWT_SECRET"},
		{append(base, "--jwks", secret), "give one of them"},
		{[]string{"verify", "--jwks", secret, "--kid", "k", "--alg", "HS256"}, "--kid names a shared secret"},
		{[]string{"verify", "--jwks", secret + "/no", "--alg", "HS256"}, "cannot read the file of --jwks"},
		{[]string{"verify", "--jwks", secret, "--alg", "HS256"}, "not valid JSON"},
		{[]string{"verify", "--jwks", file(t, `{"kty":"oct"}`), "--alg", "HS256"}, "a single JWK"},
		{[]string{"verify", "--jwks", file(t, strings.Repeat(" ", 1<<20+1)), "--alg", "HS256"}, "the file of --jwks is larger than 1 MiB"},
		{append(base, "--alg", "HS256"), "--alg: given twice"},
		{append(base, "--iss", "a", "--iss", "b"), "--iss: given twice"},
		{append(base, "--iss", ""), "--iss: is empty"},
		{append(base, "--aud", ""), "--aud: is empty"},
		{append(base, "--aud", "\xff"), "--aud: is not valid UTF-8"},
		{append(base, "--typ", ""), "--typ: is empty"},
		{append(base, "--kid", ""), "--kid: is empty"},
		{append(base, "--kid", strings.Repeat("k", 257)), "at most 256"},
		{append(base, "--tenant", ""), "--tenant: is empty"},
		{append(base, "--leeway", "5"), "want a duration"},
		{append(base, "--leeway", "-1s"), "want at least 0s"},
		{append(base, "--leeway", "5m1s"), "want at most 5m0s"},
		{append(base, "--now", "today"), "want seconds since 1970"},
		{append(base, "--now", "-1"), "want seconds since 1970"},
		{append(base, "--now", "1e9"), "want seconds since 1970"},
		{append(base, "--now", "9007199254740992"), "want seconds since 1970"},
		{append(base, "--now", ""), "want seconds since 1970"},
	} {
		t.Run(tt.phrase, func(t *testing.T) {
			keyturn(t, append(tt.args, "token")...).wantUsage(t, tt.phrase)
		})
	}
}

func TestVerifySeveralAlgorithms(t *testing.T) {
	token := hs256(testSecret, plainHeader, goodPayload)
	secret := file(t, testSecret)
	r := keyturn(t, "verify", "--secret-file", secret, "--alg", "ES256,HS256,HS512", "--now", now, token)
	if r.code != exitYes || !strings.Contains(r.stderr, "the secret for HS512 is 33 bytes, want at least 64") {
		t.Errorf("with a secret too short for one: %+v", r)
	}
	r = keyturn(t, "verify", "--secret-file", secret, "--alg", "HS256,HS256", "--now", now, token)
	if r.code != exitYes {
		t.Errorf("one algorithm twice: %+v", r)
	}
}

func TestVerifyTokenArgument(t *testing.T) {
	good := hs256(testSecret, plainHeader, goodPayload)
	for _, token := range []string{good + "\n", " " + good, good + " ", "-" + good, "--" + good, "Bearer " + good, "-", ""} {
		r := keyturn(t, verifyArgs(t, "--json", "--", token)...)
		if r.code != exitNo || !strings.Contains(r.stdout, `"reason":"malformed"`) {
			t.Errorf("token %.10q: exit code = %d, stdout = %s", token, r.code, r.stdout)
		}
	}
	keyturn(t, verifyArgs(t, "-"+good)...).wantUsage(t, `a TOKEN that begins with a dash goes after "--"`)

	// Flags may follow the token.
	args := append([]string{"verify", good}, verifyArgs(t)[1:]...)
	if r := keyturn(t, args...); r.code != exitYes {
		t.Errorf("flags after the token: %+v", r)
	}
}

func TestVerifyJWKS(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	oct := fmt.Sprintf(`{"kty":"oct","kid":"s1","alg":"HS256","k":"%s"}`, b64([]byte(testSecret)))
	short := fmt.Sprintf(`{"kty":"oct","kid":"short\u001b[2J","alg":"HS256","k":"%s"}`, b64([]byte("short")))
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ec := fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":"e1","x":"%s","y":"%s"}`, b64(point[1:33]), b64(point[33:]))
	token := hs256(testSecret, `{"alg":"HS256","kid":"s1"}`, goodPayload)
	set := func(keys ...string) string { return file(t, `{"keys":[`+strings.Join(keys, ",")+`]}`) }

	r := keyturn(t, "verify", "--jwks", set(ec, short, oct), "--alg", "ES256,HS256", "--now", now, "--json", "--tenant", "acme", token)
	r.want(t, exitYes, `{"ok":true,"tenant":"acme","kid":"s1","alg":"HS256","claims":`+goodPayload+"}\n")
	if !strings.Contains(r.stderr, `skipped key 1 ("short\x1b[2J"): `) || strings.Count(r.stderr, "skipped") != 1 {
		t.Errorf("stderr = %q, want the skipped key in it", r.stderr)
	}
	wantPrintable(t, r.stderr)

	for name, path := range map[string]string{"only unusable keys": set(short), "no keys": set()} {
		r := keyturn(t, "verify", "--jwks", path, "--alg", "HS256", "--now", now, "--json", token)
		r.want(t, exitNo, refusal("unknown_key", `"key \"default\"/\"s1\": unknown key"`))
		if !strings.Contains(r.stderr, "no key of the set is usable") {
			t.Errorf("%s: stderr = %q", name, r.stderr)
		}
	}

	// The secret of the environment is not added to the JWK Set.
	env := map[string]string{envSecret: testSecret}
	if r := (call{env: env}).run(t, "verify", "--jwks", set(ec), "--alg", "HS256,ES256", "--now", now, hs256(testSecret, plainHeader, goodPayload)); r.code != exitNo {
		t.Errorf("with a secret in the environment: %+v", r)
	}
}

// Without --now, the token is judged by the clock.
func TestVerifyClock(t *testing.T) {
	secret := file(t, testSecret)
	at := func(d time.Duration) string {
		return hs256(testSecret, plainHeader, fmt.Sprintf(`{"exp":%d}`, time.Now().Add(d).Unix()))
	}
	if r := keyturn(t, "verify", "--secret-file", secret, "--alg", "HS256", at(time.Hour)); r.code != exitYes {
		t.Errorf("a token for an hour: %+v", r)
	}
	if r := keyturn(t, "verify", "--secret-file", secret, "--alg", "HS256", at(-time.Hour)); r.code != exitNo {
		t.Errorf("a token of an hour ago: %+v", r)
	}
}

func TestVerifyFractionOfNow(t *testing.T) {
	secret, token := file(t, testSecret), hs256(testSecret, plainHeader, `{"exp":1800000000.5}`)
	for at, code := range map[string]int{"1800000000.4": exitYes, "1800000000.5": exitNo} {
		if r := keyturn(t, "verify", "--secret-file", secret, "--alg", "HS256", "--now", at, token); r.code != code {
			t.Errorf("at %s: exit code = %d, want %d", at, r.code, code)
		}
	}
}
