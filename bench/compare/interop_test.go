package compare

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// Each library accepts the tokens of all the others.
func TestLibrariesAcceptEachOther(t *testing.T) {
	for _, alg := range algorithms {
		k := newKey(t, alg)
		for _, maker := range libraries {
			if !maker.knows(alg) {
				continue
			}
			token, err := maker.signer(t, k)()
			if err == nil && maker.structSigner != nil {
				var other string
				other, err = maker.structSigner(t, k)()
				checkClaims(t, k, maker.name+" with a struct", other)
			}
			if err != nil {
				t.Errorf("%s: %s cannot sign: %v", alg, maker.name, err)
				continue
			}
			for _, checker := range libraries {
				if !checker.knows(alg) {
					continue
				}
				if err := checker.verifier(t, k)(token); err != nil {
					t.Errorf("%s: %s refuses the token of %s: %v", alg, checker.name, maker.name, err)
				}
			}
			checkClaims(t, k, maker.name, token)
		}
	}
}

// checkClaims checks that our verifier reads from a token the claims that its maker wrote.
func checkClaims(t *testing.T, k key, maker, token string) {
	t.Helper()
	got, err := k.keyturn(t).Verify(t.Context(), token)
	if err != nil {
		t.Errorf("%s: Verify refuses the token of %s: %v", k.alg, maker, err)
		return
	}
	if got.Tenant() != tenant || got.Subject() != "user-31415" || got.Issuer() != issuer || !got.HasAudience(audience) ||
		got.KeyID() != kid || string(got.Algorithm()) != k.alg || got.ID() != "3f0d8c1e-6b7a-4c52-9e1f-2a8b5d7c9e04" ||
		!got.Expires().Equal(time.Unix(expires, 0)) || !got.HasScope("orders:write") {
		t.Errorf("%s: the token of %s is read as %+v", k.alg, maker, got)
	}
	type custom struct {
		TID string `json:"tid"`
	}
	if c, err := verifier.Claims[custom](got); err != nil || c.TID != tenant {
		t.Errorf("%s: Claims of the token of %s = %+v, %v", k.alg, maker, c, err)
	}
}

// Our signer adds the claims that a caller leaves out. All libraries accept those too.
func TestLibrariesAcceptWhatTheSignerFillsIn(t *testing.T) {
	for _, alg := range algorithms {
		k := newKey(t, alg)
		signer, err := rotation.NewStaticSigner(id, keystore.Algorithm(alg), k.private, rotation.SignerConfig{
			TTL:      time.Minute,
			Issuer:   func(string) string { return issuer },
			Audience: func(string) []string { return []string{audience, "https://other.example"} },
		})
		if err != nil {
			t.Fatal(err)
		}
		token, err := signer.Sign(t.Context(), tenant, map[string]any{"sub": "ann"})
		if err != nil {
			t.Fatal(err)
		}
		for _, lib := range libraries {
			if !lib.knows(alg) {
				continue
			}
			if err := lib.verifier(t, k)(token); err != nil {
				t.Errorf("%s: %s refuses %v", alg, lib.name, err)
			}
		}
	}
}

// A comparison is fair if all libraries do the same work: each refuses the tokens that the checks
// are for.
func TestLibrariesCheckTheSame(t *testing.T) {
	k := newKey(t, "HS256")
	change := func(old, new string) string {
		if !strings.Contains(payload, old) {
			t.Fatalf("there is no %s in %s", old, payload)
		}
		return k.token(t, strings.Replace(payload, old, new, 1))
	}
	otherAlg, otherKey := newKey(t, "HS512"), k
	otherKey.private = []byte(strings.Repeat("k", 64))
	bad := map[string]string{
		"exp past":     change(fmt.Sprint(`"exp":`, expires), fmt.Sprint(`"exp":`, issued)),
		"exp absent":   change(fmt.Sprint(`"exp":`, expires, ","), ""),
		"nbf future":   change(fmt.Sprint(`"nbf":`, issued), fmt.Sprint(`"nbf":`, expires)),
		"iss":          change(issuer, "https://auth.globex.example"),
		"aud":          change(audience, "https://api.globex.example"),
		"alg":          otherAlg.token(t, payload),
		"key":          otherKey.token(t, payload),
		"alg none":     base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".",
		"no signature": strings.TrimRight(k.token(t, payload), "-_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
	}
	for _, lib := range libraries {
		verify := lib.verifier(t, k)
		if err := verify(k.token(t, payload)); err != nil {
			t.Errorf("%s refuses a good token: %v", lib.name, err)
		}
		for why, token := range bad {
			if verify(token) == nil {
				t.Errorf("%s accepts a token with a bad %s", lib.name, why)
			}
		}
	}
}

func TestBareVerification(t *testing.T) {
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		k := newKey(t, alg)
		if !stdlib(t, k, k.token(t, payload))() {
			t.Errorf("%s: the standard library refuses a good token", alg)
		}
		token := k.token(t, payload)
		other := k.token(t, strings.Replace(payload, "user-31415", "user-31416", 1))
		mixed := token[:strings.LastIndexByte(token, '.')] + other[strings.LastIndexByte(other, '.'):]
		if stdlib(t, k, mixed)() {
			t.Errorf("%s: the standard library accepts another token's signature", alg)
		}
	}
}

// jwxKey returns k's private key as a JWK with its kid: jwx puts that into the header.
func jwxKey(tb testing.TB, k key) jwk.Key {
	tb.Helper()
	signing, err := jwk.FromRaw(k.private)
	if err != nil {
		tb.Fatal(err)
	}
	if err := signing.Set(jwk.KeyIDKey, kid); err != nil {
		tb.Fatal(err)
	}
	return signing
}

func TestClaimsAreThoseOfThePayload(t *testing.T) {
	var got map[string]any
	if err := json.Unmarshal([]byte(payload), &got); err != nil {
		t.Fatal(err)
	}
	want := claims()
	if len(got) != 9 || len(want) != 9 {
		t.Errorf("%d and %d claims, want 9", len(got), len(want))
	}
	for name, value := range want {
		if fmt.Sprint(got[name]) != fmt.Sprint(value) && fmt.Sprintf("%.0f", got[name]) != fmt.Sprint(value) {
			t.Errorf("%s is %v in the payload, %v in the claims", name, got[name], value)
		}
	}
}
