package verifier_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A noKIDTest is a token without kid, or with one, of a tenant with several keys.
type noKIDTest struct {
	name   string
	keys   int // of the tenant
	header string
	claims string // goodPayload if empty
	signer []byte // of the first key if nil
	edit   func(*verifier.Tenant)
	want   error
	checks int64
}

const noKID = `{"alg":"HS256"}`

var noKIDTests = []noKIDTest{
	// One candidate: the signature comes first.
	{name: "one key, good", keys: 1, header: noKID, checks: 1},
	{name: "one key, expired", keys: 1, header: noKID, claims: with(`"exp":1`), want: verifier.ErrExpired, checks: 1},
	{name: "one key, expired and forged", keys: 1, header: noKID, claims: with(`"exp":1`), signer: secretOf("x"), want: verifier.ErrSignature, checks: 1},
	// Several: the claims do.
	{name: "good, first key", keys: 4, header: noKID, checks: 1},
	{name: "good, last key", keys: 4, header: noKID, signer: secretOf("3"), checks: 4},
	{name: "forged", keys: 4, header: noKID, signer: secretOf("x"), want: verifier.ErrSignature, checks: 4},
	{name: "two keys, forged", keys: 2, header: noKID, signer: secretOf("x"), want: verifier.ErrSignature, checks: 2},
	{name: "more keys than are tried", keys: 9, header: noKID, want: verifier.ErrUnknownKey},
	{name: "expired", keys: 4, header: noKID, claims: with(`"exp":1`), want: verifier.ErrExpired},
	{name: "expired and forged", keys: 2, header: noKID, claims: with(`"exp":1`), signer: secretOf("x"), want: verifier.ErrExpired},
	{name: "not yet valid", keys: 4, header: noKID, claims: with(`"nbf":1900000000`), want: verifier.ErrNotYetValid},
	{name: "no exp", keys: 4, header: noKID, claims: without("exp"), want: verifier.ErrMissingClaim},
	{name: "another issuer", keys: 4, header: noKID, claims: with(`"iss":"x"`), want: verifier.ErrIssuer},
	{name: "another audience", keys: 4, header: noKID, claims: with(`"aud":"x"`), want: verifier.ErrAudience},
	{name: "another spelling", keys: 4, header: noKID, claims: with(`"EXP":1`), want: verifier.ErrClaim},
	{name: "another typ", keys: 4, header: `{"alg":"HS256","typ":"x"}`, want: verifier.ErrType},
	{name: "a missing claim", keys: 4, header: noKID, edit: func(r *verifier.Tenant) { r.Required = []string{"role"} }, want: verifier.ErrMissingClaim},
	{name: "another tenant claim", keys: 4, header: noKID, edit: func(r *verifier.Tenant) { r.TenantClaim = "tid" }, want: verifier.ErrTenantMismatch},
	// The tenant's own check must not see a token that nobody signed.
	{name: "own check, forged", keys: 4, header: noKID, signer: secretOf("x"), edit: ownCheck, want: verifier.ErrSignature, checks: 4},
	{name: "own check", keys: 4, header: noKID, edit: ownCheck, want: verifier.ErrClaim, checks: 1},
	// With a kid the order stays, however many keys share it.
	{name: "kid, expired and forged", keys: 4, header: `{"alg":"HS256","kid":"0"}`, claims: with(`"exp":1`), signer: secretOf("x"), want: verifier.ErrSignature, checks: 1},
}

func ownCheck(r *verifier.Tenant) { r.Check = func(*verifier.Token) error { return errOdd } }

// TestNoKID pins the exception to the order of the rules: where a token without kid has
// several candidate keys, its claims come before its signature, so that rubbish costs no
// signature check. On 2026-11-28, 249 bytes of it cost 12 ms.
func TestNoKID(t *testing.T) {
	for _, tt := range noKIDTests {
		for _, ttl := range []time.Duration{-1, 0} {
			r := acme(t)
			var keys []*keystore.Key
			for i := range tt.keys {
				keys = append(keys, key(t, "acme", string(rune('0'+i)), secretOf(string(rune('0'+i)))))
			}
			r.Keys = static(t, keys...)
			if tt.edit != nil {
				tt.edit(&r)
			}
			v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{r}, Now: at(nowUnix), CacheTTL: ttl})
			if err != nil {
				t.Fatal(err)
			}
			checks := v.CountChecks()
			claims, signer := tt.claims, tt.signer
			if claims == "" {
				claims = goodPayload
			}
			if signer == nil {
				signer = secretOf("0")
			}
			tok, err := v.Verify(t.Context(), signWith(signer, tt.header, claims))
			check(t, tt.name, tok, err, tt.want)
			if n := checks.Load(); n != tt.checks {
				t.Errorf("%s: %d signatures were checked, want %d", tt.name, n, tt.checks)
			}
		}
	}
}

// TestNoKIDUnusableKeys: only keys that may have signed the token count as candidates.
func TestNoKIDUnusableKeys(t *testing.T) {
	ended := key(t, "acme", "2", secretOf("2"))
	ended.SetUntil(time.Unix(nowUnix, 0))
	r := acme(t)
	r.Keys = static(t, key(t, "acme", "1", secret), ended)
	v := newVerifier(t, r)
	tok, err := v.Verify(t.Context(), signWith(secretOf("x"), noKID, with(`"exp":1`)))
	check(t, "one key is usable", tok, err, verifier.ErrSignature)
}
