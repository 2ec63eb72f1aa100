package keyturn_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// A vector is one case of verifier/testdata/vectors/tokens.json. Its "about" explains the
// fields.
type vector struct {
	ID       string
	Why      string
	Keys     json.RawMessage
	Algs     []keystore.Algorithm
	Now      int64
	LeewayS  int `json:"leeway_s"`
	Expect   struct{ Iss, Aud string }
	Token    string
	TokenB64 []byte `json:"token_b64"`
	TokenGen *struct {
		Prefix, Repeat, Suffix string
		Count                  int
	} `json:"token_gen"`
	Verdict  string
	Policy   bool
	Decision string
}

func (v *vector) token() string {
	switch {
	case v.TokenGen != nil:
		return v.TokenGen.Prefix + strings.Repeat(v.TokenGen.Repeat, v.TokenGen.Count) + v.TokenGen.Suffix
	case v.TokenB64 != nil:
		return string(v.TokenB64)
	}
	return v.Token
}

func (v *vector) accept() bool {
	if v.Policy {
		return v.Decision == "accept"
	}
	return v.Verdict == "accept"
}

// tenant returns the vector's rules, or an error if its keys cannot be loaded.
func (v *vector) tenant() (verifier.Tenant, error) {
	keys, _, err := jwks.ParseWithSecrets("t", v.Keys)
	if err != nil {
		return verifier.Tenant{}, err
	}
	store, err := keystore.NewStatic(keys...)
	if err != nil {
		return verifier.Tenant{}, err
	}
	t := verifier.Tenant{
		ID: "t", Keys: store, Algorithms: v.Algs, MixedFamilies: true,
		Issuer: v.Expect.Iss, AnyIssuer: v.Expect.Iss == "", AnyAudience: v.Expect.Aud == "",
		Leeway: time.Duration(v.LeewayS) * time.Second,
	}
	if v.Expect.Aud != "" {
		t.Audiences = []string{v.Expect.Aud}
	}
	if v.LeewayS == 0 {
		t.Leeway = -1
	}
	return t, nil
}

func vectors(tb testing.TB) []vector {
	tb.Helper()
	text, err := os.ReadFile("verifier/testdata/vectors/tokens.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct{ Cases []vector }
	if err := json.Unmarshal(text, &file); err != nil {
		tb.Fatal(err)
	}
	if len(file.Cases) < 300 {
		tb.Fatalf("%d vectors, want over 300", len(file.Cases))
	}
	return file.Cases
}

// TestVectors runs the vectors with the cache of tokens and without. The verdict is the
// vector's, and the text of the error is the same each time.
func TestVectors(t *testing.T) {
	for _, c := range vectors(t) {
		t.Run(c.ID, func(t *testing.T) {
			var first error
			for i, ttl := range []time.Duration{-1, 0} {
				for range 2 {
					err := c.verify(t, ttl)
					if (err == nil) != c.accept() {
						t.Fatalf("%s: got error %v, want accept = %v", c.Why, err, c.accept())
					}
					if i == 0 {
						first = err
					} else if fmt.Sprint(err) != fmt.Sprint(first) {
						t.Fatalf("with the cache %v, without %v", err, first)
					}
				}
			}
			if first != nil && len(c.Token) > 40 && strings.Contains(first.Error(), c.Token[20:40]) {
				t.Errorf("the error holds the token: %v", first)
			}
		})
	}
}

// verify verifies the vector's token three times with one verifier.
func (c *vector) verify(t *testing.T, ttl time.Duration) error {
	tenant, err := c.tenant()
	if err != nil {
		return err
	}
	v, err := verifier.New(verifier.Config{
		Tenants: []verifier.Tenant{tenant}, CacheTTL: ttl,
		Now: func() time.Time { return time.Unix(c.Now, 0) },
	})
	if err != nil {
		return err
	}
	for i := range 3 {
		var tok *verifier.Token
		tok, err = v.Verify(t.Context(), c.token())
		if err != nil && !errors.Is(err, verifier.ErrInvalid) {
			t.Errorf("error %v is not ErrInvalid", err)
		}
		if err == nil && tok.Cached() != (i > 0 && ttl == 0) {
			t.Errorf("time %d with TTL %v: cached %v", i, ttl, tok.Cached())
		}
	}
	return err
}

// sign returns an HS256 token. It does not use the packages under test, so that the two
// cannot share a mistake.
func sign(secret, kid, iss string, exp time.Time) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64(fmt.Appendf(nil, `{"alg":"HS256","kid":%q}`, kid)) + "." +
		b64(fmt.Appendf(nil, `{"iss":%q,"sub":"ann","aud":"api","exp":%d}`, iss, exp.Unix()))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

func TestVerifierKeepsTenantsApart(t *testing.T) {
	acme, globex := strings.Repeat("a", 32), strings.Repeat("g", 32)
	k1, err1 := keystore.NewSecret(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256, []byte(acme))
	k2, err2 := keystore.NewSecret(keystore.ID{Tenant: "globex", KID: "1"}, keystore.HS256, []byte(globex))
	keys, err3 := keystore.NewStatic(k1, k2)
	tenant := func(id string) verifier.Tenant {
		return verifier.Tenant{ID: id, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
			Issuer: "https://" + id + ".example", Audiences: []string{"api"}}
	}
	v, err4 := verifier.New(verifier.Config{Tenants: []verifier.Tenant{tenant("acme"), tenant("globex")}})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour)

	token := sign(acme, "1", "https://acme.example", soon)
	if got, err := v.Verify(t.Context(), token); err != nil || got.Tenant() != "acme" || got.Subject() != "ann" {
		t.Errorf("its own token: %v, %v", got, err)
	}
	if _, err := v.VerifyTenant(t.Context(), "globex", token); !errors.Is(err, verifier.ErrIssuer) {
		t.Errorf("a token of acme at globex: %v, want ErrIssuer", err)
	}
	forged := sign(acme, "1", "https://globex.example", soon)
	_, err := v.Verify(t.Context(), forged)
	if !errors.Is(err, verifier.ErrSignature) {
		t.Errorf("acme signs as globex: %v, want ErrSignature", err)
	}
	if e := new(verifier.Error); !errors.As(err, &e) || e.Key.Tenant != "globex" || e.Tenant != "globex" {
		t.Errorf("error %v does not name the tenant", err)
	}
}
