package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestInspect(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	token := hs256(testSecret, plainHeader, `{"sub":"ann","roles":["a"],"n":1.50,"iat":1799999940,"exp":1800000840}`)
	got := inspect(t.Context(), token, now).text(now)
	want := `NOT VERIFIED: anyone can write a token that says this. To check it: keyturn verify

header
  {
    "alg": "HS256",
    "typ": "JWT"
  }

payload
  {
    "sub": "ann",
    "roles": [
      "a"
    ],
    "n": 1.50,
    "iat": 1799999940,
    "exp": 1800000840
  }

signature
  32 bytes, not checked

times (now it is 2027-01-15T08:00:00Z)
  iat  1 minute ago (2027-01-15T07:59:00Z)
  exp  in 14 minutes (2027-01-15T08:14:00Z)

NOT VERIFIED: anyone can write a token that says this. To check it: keyturn verify
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r := keyturn(t, "inspect", token); r.code != exitYes || r.stderr != "" || strings.Contains(r.stdout, token[strings.LastIndexByte(token, '.'):]) {
		t.Errorf("inspect = %+v", r)
	}
}

func TestInspectJSON(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	token := hs256(testSecret, `{"alg":"none"}`, `{"exp":1799989200,"n":1.50}`)
	got := inspect(t.Context(), token, now).json()
	want := `{"verified":false,"header":{"alg":"none"},"payload":{"exp":1799989200,"n":1.50},"signature_bytes":32,` +
		`"times":{"exp":{"time":"2027-01-15T05:00:00Z","words":"expired 3 hours ago"}},` +
		`"warnings":["every verifier here refuses it: algorithm not allowed","alg is \"none\": the token is not signed, and must never be accepted"]}` + "\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r := keyturn(t, "inspect", "--json", "nonsense")
	if r.code != exitNo || !json.Valid([]byte(r.stdout)) || !strings.Contains(r.stdout, `"error":"it has 1 part,`) {
		t.Errorf("malformed: %+v", r)
	}
}

func TestInspectTimes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for payload, want := range map[string]string{
		`{"exp":1800000000}`:             "exp  expired now (",
		`{"exp":1799999999.5}`:           "exp  expired 1 second ago (",
		`{"exp":1800000060}`:             "exp  in 1 minute (",
		`{"exp":9,"nbf":1800000060}`:     "nbf  in 1 minute: not yet valid (",
		`{"exp":9,"nbf":1800000000}`:     "nbf  now (",
		`{"exp":9,"iat":1800000060}`:     "iat  in 1 minute: issued in the future (",
		`{"exp":1800000840000}`:          "is it in milliseconds?",
		`{"exp":"1800000840"}`:           "exp is not a time",
		`{"exp":null}`:                   "exp is not a time",
		`{"exp":-1}`:                     "exp is not a time",
		`{"exp":1e400}`:                  "exp is not a time",
		`{"exp":9007199254740992}`:       "exp is not a time",
		`{"exp":9007199254740991}`:       "in 285616357 years",
		`{"sub":"ann"}`:                  "it has no exp",
		`{"exp":9,"EXP":1}`:              `the name of claim "EXP" differs from "exp"`,
		"{\"exp\":9,\"i\u017fs\":\"a\"}": `differs from "iss"`,
	} {
		i := inspect(t.Context(), hs256(testSecret, plainHeader, payload), now)
		if got := i.text(now); !strings.Contains(got, want) {
			t.Errorf("%s: got\n%s\nwant %q in it", payload, got, want)
		}
	}
}

func TestInspectWarnings(t *testing.T) {
	good := hs256(testSecret, plainHeader, `{"exp":1}`)
	header := func(h string) string { return hs256(testSecret, h, `{"exp":1}`) }
	for _, tt := range []struct {
		name, token, want string
		code              int
	}{
		{"none", header(`{"alg":"nOnE"}`), `alg is "none"`, exitYes},
		{"no signature", good[:strings.LastIndexByte(good, '.')+1], "it has no signature", exitYes},
		{"crit", header(`{"alg":"HS256","crit":["b64"]}`), "the header has crit", exitYes},
		{"jku", header(`{"alg":"HS256","jku":"https://x"}`), "brings its own key along (jku)", exitYes},
		{"unknown alg", header(`{"alg":"HS257"}`), "every verifier here refuses it: algorithm not allowed", exitYes},
		{"long kid", header(`{"alg":"HS256","kid":"` + strings.Repeat("k", 257) + `"}`), "not a string of 1 to 256 bytes", exitYes},
		{"nested", header(`{"alg":"HS256","cty":"JWT"}`), "nested tokens are not accepted", exitYes},
		{"name twice", header(`{"alg":"HS256","alg":"none"}`), "the header is not strict JSON", exitYes},
		{"not UTF-8", hs256(testSecret, plainHeader, "{\"sub\":\"\xff\"}"), "the payload is not strict JSON", exitYes},
		{"white space", " " + good + "\n\n", "there is white space around the token", exitYes},
		{"Bearer", "Bearer  " + good, `it begins with "Bearer"`, exitYes},
		{"padding", good + "=", "the signature is not spelled as base64url", exitYes},
		{"too large", hs256(testSecret, plainHeader, `{"exp":1,"x":"`+strings.Repeat("x", 16<<10)+`"}`), "verifiers here refuse it unless told otherwise: token too large", exitYes},
		{"JWE", good + ".x.x", "it is encrypted (JWE)", exitYes},
		{"two parts", good[:strings.LastIndexByte(good, '.')], "it has 2 parts", exitNo},
		{"six parts", good + ".x.x.x", "it has 6 parts", exitNo},
		{"empty", "", "it has 1 part,", exitNo},
		{"signature that is not base64url", good[:strings.LastIndexByte(good, '.')] + ".c", "the signature is not base64url", exitNo},
		{"three parts of noise", "a.b.c", "  - the signature is not base64url", exitNo},
		{"not base64", "a*." + good, "it has 4 parts", exitNo},
		{"header not base64", "a*.e30.", "the header is not base64url", exitNo},
		{"payload not base64", "e30.*.", "the payload is not base64url", exitNo},
		{"signature not base64", "e30.e30.*", "the signature is not base64url", exitNo},
		{"header not JSON", "YQ.e30.", "the header is not JSON", exitNo},
		{"payload not JSON", "e30.YQ.", "the payload is not JSON", exitNo},
		{"payload no object", "e30.W10.", "the payload is not a JSON object", exitNo},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := keyturn(t, "inspect", "--", tt.token)
			if r.code != tt.code || !strings.Contains(r.stdout+r.stderr, tt.want) {
				t.Errorf("exit code = %d, want %d, and %q in\n%s%s", r.code, tt.code, tt.want, r.stdout, r.stderr)
			}
			if strings.Count(r.stdout, "NOT VERIFIED") != 2 {
				t.Errorf("it does not say NOT VERIFIED at both ends:\n%s", r.stdout)
			}
			wantPrintable(t, r.stdout+r.stderr)
		})
	}
}

// An undecodable signature is not reported as missing. Bytes that are not JSON are not shown.
func TestInspectNoise(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	for _, token := range []string{"a.b.c", "e30.e30.*"} {
		if r := keyturn(t, "inspect", token); strings.Contains(r.stdout, "no signature") {
			t.Errorf("inspect %s says that there is no signature:\n%s", token, r.stdout)
		}
	}
	for _, token := range []string{"abc", "abc.abc.abc", b64([]byte("plain text")) + ".e30.", b64([]byte("{\xff")) + ".e30."} {
		for _, flag := range []string{"--json=false", "--json"} {
			r := keyturn(t, "inspect", flag, token)
			if r.code != exitNo || strings.Contains(r.stdout, "\nheader\n") || strings.Contains(r.stdout, `"header`) {
				t.Errorf("inspect %s %s = %+v, want no header", flag, token, r)
			}
		}
	}
	if r := keyturn(t, "inspect", b64([]byte(` {"alg":HS256}`))+".e30."); !strings.Contains(r.stdout, `{"alg":HS256}`) {
		t.Errorf("a header with a slip in it is not shown:\n%s", r.stdout)
	}
}

func TestInspectEmpty(t *testing.T) {
	for _, text := range []string{"", " \n", "Bearer ", "bearer"} {
		r := keyturn(t, "inspect", text)
		if r.code != exitNo || !strings.Contains(r.stderr, "note: the TOKEN is empty: is the variable set?\n") {
			t.Errorf("inspect %q = %+v", text, r)
		}
	}
	if r := keyturn(t, "inspect", "bearerish"); strings.Contains(r.stdout+r.stderr, "Authorization") || strings.Contains(r.stderr, "empty") {
		t.Errorf("a word that only begins with the scheme: %+v", r)
	}
}

// A token must not be able to control the terminal of the user who inspects it.
func TestInspectHostile(t *testing.T) {
	t.Parallel()
	b64 := base64.RawURLEncoding.EncodeToString
	hostile := "\x1b]0;owned\x07\x1b[2J\u009b1m\u202e\u2028\r\x00\x7f"
	nested := `{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}"
	for _, token := range []string{
		hostile, hostile + "." + hostile + "." + hostile,
		b64([]byte(hostile)) + "." + b64([]byte(hostile)) + ".",
		hs256("", "{\"alg\":\"\u009b1m\",\"kid\":\"\u202e\"}", "{\"\u009b2J\":\"\u202e\u2028\u007f\"}"),
		hs256("", `{"alg":"\u001b[2J"}`, `{"EXP\u001b":1,"exp":"\u001b"}`),
		hs256("", nested, nested), hs256("", strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 100_000)),
		hs256("", `{"alg":"HS256"}`, `{"a":[`+strings.Repeat("0,", 300_000)+`0]}`),
		strings.Repeat(".", 1<<20), strings.Repeat("a", 1<<20), strings.Repeat("\x1b", 1<<20), strings.Repeat("\n", 1<<20),
		strings.Repeat("a", 1<<20+1),
	} {
		for _, flag := range []string{"--json=false", "--json"} {
			r := call{stdin: strings.NewReader(token)}.run(t, "inspect", flag, "-")
			if r.code != exitYes && r.code != exitNo {
				t.Errorf("%.20q: exit code = %d", token, r.code)
			}
			wantPrintable(t, r.stdout+r.stderr)
			if len(r.stdout) > 8<<20 {
				t.Errorf("%.20q: %d bytes of output", token, len(r.stdout))
			}
			if flag == "--json" && !json.Valid([]byte(r.stdout)) {
				t.Errorf("%.20q: the output is not JSON: %.200s", token, r.stdout)
			}
		}
	}
}

func FuzzInspect(f *testing.F) {
	for _, v := range readVectors(f) {
		if len(v.Token) < 2000 {
			f.Add(v.Token)
		}
	}
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		now := time.Unix(1_800_000_000, 0)
		i := inspect(t.Context(), token, now)
		wantPrintable(t, i.text(now))
		wantPrintable(t, i.broken)
		if doc := i.json(); !json.Valid([]byte(doc)) || strings.Count(doc, "\n") != 1 {
			t.Errorf("not one line of JSON: %q", doc)
		}
	})
}
