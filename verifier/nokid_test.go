package verifier_test

import (
	"cmp"
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

// A noKIDNews is a plausible token without kid whose signature the keys at hand do not verify, and what asking the
// store for others brings.
type noKIDNews struct {
	name   string
	store  scripted
	plain  bool   // the store is no Refresher
	token  string // one of a key that the store may learn if empty
	during func(now *time.Time)
	want   error
	asked  int
	checks int64
}

func noKIDNewsTests(t *testing.T) []noKIDNews {
	old, other, good := key(t, "acme", "", secretOf("old")), key(t, "acme", "2", secretOf("2")), key(t, "acme", "3", secret)
	held := list(old)
	forged := signWith(secretOf("x"), noKID, goodPayload)
	past := func(now *time.Time) { *now = at(1800003600)() } // the end of the token
	return []noKIDNews{
		{name: "at hand", store: scripted{before: held}, token: signWith(secretOf("old"), noKID, goodPayload), checks: 1},
		{name: "learned", store: scripted{before: held, after: list(old, good)}, asked: 1, checks: 2},
		{name: "learned by another, though the budget is spent", store: scripted{before: held, after: list(good), refresh: errNotFound}, asked: 1, checks: 2},
		{name: "learned from one source, while another hangs", store: scripted{before: held, after: list(good), refresh: errUnavailable}, asked: 1, checks: 2},
		{name: "no news", store: scripted{before: held, after: held, refresh: errNotFound}, want: verifier.ErrSignature, asked: 1, checks: 1},
		{name: "news of another key", store: scripted{before: held, after: list(old, other)}, token: forged, want: verifier.ErrSignature, asked: 1, checks: 2},
		{name: "the source could not be asked", store: scripted{before: held, after: held, refresh: errUnavailable}, token: forged, want: verifier.ErrUnavailable, asked: 1, checks: 1},
		{name: "an odd error in asking", store: scripted{before: held, after: held, refresh: errOdd}, want: errOdd, asked: 1, checks: 1},
		{name: "its keys are gone", store: scripted{before: held, lookupErr: errNotFound}, want: verifier.ErrUnknownKey, asked: 1, checks: 1},
		{name: "its keys are gone, or it cannot tell", store: scripted{before: held, lookupErr: errUnavailable}, want: verifier.ErrUnavailable, asked: 1, checks: 1},
		{name: "no refresher", plain: true, store: scripted{before: held}, want: verifier.ErrSignature, checks: 1},
		{name: "implausible", store: scripted{before: held}, token: signWith(secretOf("x"), noKID, with(`"aud":"x"`)), want: verifier.ErrSignature, checks: 1},
		{name: "a kid that is held", store: scripted{before: list(key(t, "acme", "1", secretOf("x"))), after: list(key(t, "acme", "1", secret))}, token: sign(goodHeader, goodPayload), want: verifier.ErrSignature, checks: 1},
		{name: "it ends during the wait", store: scripted{before: held, after: list(good)}, during: past, want: verifier.ErrExpired, asked: 1, checks: 2},
		{name: "of two candidates, it ends during the wait", store: scripted{before: list(old, other), after: list(good)}, during: past, want: verifier.ErrExpired, asked: 1, checks: 3},
		{name: "it ends during a wait in vain", store: scripted{before: held, after: held, refresh: errUnavailable}, during: past, want: verifier.ErrSignature, asked: 1, checks: 1},
	}
}

// TestNoKIDAsksForItsKey: a token without kid that no key at hand verifies may be of a key that is too new. The store
// is asked, as for an unknown kid, and no key is tried twice.
func TestNoKIDAsksForItsKey(t *testing.T) {
	for _, tt := range noKIDNewsTests(t) {
		t.Run(tt.name, func(t *testing.T) {
			now := at(nowUnix)()
			if tt.during != nil {
				tt.store.during = func() { tt.during(&now) }
			}
			r := acme(t)
			if r.Keys = &tt.store; tt.plain {
				r.Keys = onlyLookup{&tt.store}
			}
			v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{r}, Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			checks := v.CountChecks()
			tok, err := v.Verify(t.Context(), cmp.Or(tt.token, sign(noKID, goodPayload)))
			check(t, tt.name, tok, err, tt.want)
			if tt.store.asked != tt.asked || checks.Load() != tt.checks {
				t.Errorf("asked %d times and checked %d signatures, want %d and %d", tt.store.asked, checks.Load(), tt.asked, tt.checks)
			}
		})
	}
}

// TestNoKIDWaitsWithinBounds: a token waits twice at most, also if it waited for its first keys. And a store that was
// put meanwhile decides.
func TestNoKIDWaitsWithinBounds(t *testing.T) {
	r := acme(t)
	cold := &scripted{lookupErr: errUnavailable, after: list(key(t, "acme", "1", secretOf("old")))}
	r.Keys = cold
	tok, err := newVerifier(t, r).Verify(t.Context(), sign(noKID, goodPayload))
	check(t, "cold", tok, err, verifier.ErrSignature)
	if cold.asked != 2 {
		t.Errorf("asked %d times, want 2: for its first keys, and for others", cold.asked)
	}
	var v *verifier.Verifier
	changing := &scripted{before: cold.after, after: cold.after}
	changing.during = func() {
		r := r
		if changing.asked == 2 {
			r.Keys = static(t, key(t, "acme", "1", secret))
		}
		if err := v.Put(r); err != nil {
			t.Error(err)
		}
	}
	r.Keys = changing
	v = newVerifier(t, r)
	tok, err = v.Verify(t.Context(), sign(noKID, goodPayload))
	check(t, "the store is replaced", tok, err, nil)
}
