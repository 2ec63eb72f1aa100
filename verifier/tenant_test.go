package verifier_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

func TestNewRefuses(t *testing.T) {
	rsOnly := []keystore.Algorithm{keystore.RS256}
	tests := []struct {
		name string
		edit func(*verifier.Config, *verifier.Tenant)
		want string // in the error; "" for none
	}{
		{"nothing wrong", func(*verifier.Config, *verifier.Tenant) {}, ""},
		{"no ID", func(_ *verifier.Config, r *verifier.Tenant) { r.ID = "" }, "no ID"},
		{"no keys", func(_ *verifier.Config, r *verifier.Tenant) { r.Keys = nil }, "Keys is nil"},
		{"a nil store in an interface", func(_ *verifier.Config, r *verifier.Tenant) { r.Keys = (*keystore.Static)(nil) }, "nil *keystore.Static"},
		{"no algorithms", func(_ *verifier.Config, r *verifier.Tenant) { r.Algorithms = nil }, "Algorithms is empty"},
		{"none", func(_ *verifier.Config, r *verifier.Tenant) { r.Algorithms = []keystore.Algorithm{"none"} }, `"none"`},
		{"unknown algorithm", func(_ *verifier.Config, r *verifier.Tenant) { r.Algorithms = []keystore.Algorithm{"hs256"} }, `"hs256"`},
		{"mixed", func(_ *verifier.Config, r *verifier.Tenant) { r.Algorithms = append(r.Algorithms, rsOnly...) }, "MixedFamilies"},
		{"mixed, waived", func(_ *verifier.Config, r *verifier.Tenant) {
			r.Algorithms, r.MixedFamilies = append(r.Algorithms, rsOnly...), true
		}, ""},
		{"no issuer", func(_ *verifier.Config, r *verifier.Tenant) { r.Issuer = "" }, "AnyIssuer"},
		{"issuer and its waiver", func(_ *verifier.Config, r *verifier.Tenant) { r.AnyIssuer = true }, "contradict"},
		{"no audience", func(_ *verifier.Config, r *verifier.Tenant) { r.Audiences = nil }, "AnyAudience"},
		{"audience and its waiver", func(_ *verifier.Config, r *verifier.Tenant) { r.AnyAudience = true }, "contradict"},
		{"empty audience", func(_ *verifier.Config, r *verifier.Tenant) { r.Audiences = []string{"api", ""} }, "empty string"},
		{"empty required", func(_ *verifier.Config, r *verifier.Tenant) { r.Required = []string{""} }, "empty string"},
		{"exp required and waived", func(_ *verifier.Config, r *verifier.Tenant) { r.Required, r.AllowNoExpiry = []string{"exp"}, true }, "contradict"},
		{"leeway 5m", func(_ *verifier.Config, r *verifier.Tenant) { r.Leeway = 5 * time.Minute }, ""},
		{"leeway above 5m", func(_ *verifier.Config, r *verifier.Tenant) { r.Leeway = 5*time.Minute + 1 }, "at most 5m"},
		{"negative max age", func(_ *verifier.Config, r *verifier.Tenant) { r.MaxAge = -1 }, "MaxAge"},
		{"a name the store does not have", func(_ *verifier.Config, r *verifier.Tenant) { r.ID = "Acme" }, "spelled the same"},
		{"a leeway beyond the store's", func(_ *verifier.Config, r *verifier.Tenant) { r.Keys = shortLeeway{r.Keys}; r.Leeway = 0 }, "Leeway is 30s"},
		{"the store's leeway", func(_ *verifier.Config, r *verifier.Tenant) { r.Keys = shortLeeway{r.Keys}; r.Leeway = time.Second }, ""},
		{"twice", func(c *verifier.Config, r *verifier.Tenant) { c.Tenants = append(c.Tenants, *r) }, "twice"},
		{"negative entries", func(c *verifier.Config, _ *verifier.Tenant) { c.CacheEntries = -1 }, "CacheEntries"},
		{"negative bytes", func(c *verifier.Config, _ *verifier.Tenant) { c.CacheBytes = -1 }, "CacheBytes"},
		{"negative token size", func(c *verifier.Config, _ *verifier.Tenant) { c.MaxTokenBytes = -1 }, "MaxTokenBytes"},
		{"token size of 1 MiB", func(c *verifier.Config, _ *verifier.Tenant) { c.MaxTokenBytes = 1 << 20 }, ""},
		{"token size above 1 MiB", func(c *verifier.Config, _ *verifier.Tenant) { c.MaxTokenBytes = 1<<20 + 1 }, "MaxTokenBytes is 1048577, want at most 1048576"},
		{"two spellings required", func(_ *verifier.Config, r *verifier.Tenant) { r.Required = []string{"role", "Role"} }, `"role" and "Role" differ only by case`},
		{"required twice", func(_ *verifier.Config, r *verifier.Tenant) { r.Required = []string{"role", "role"} }, ""},
		{"tenant claim and required in two spellings", func(_ *verifier.Config, r *verifier.Tenant) { r.TenantClaim, r.Required = "tid", []string{"TID"} }, `"tid" and "TID" differ only by case`},
		{"tenant claim like a registered one", func(_ *verifier.Config, r *verifier.Tenant) { r.TenantClaim = "Sub" }, `"sub" and "Sub" differ only by case`},
		{"required like scope", func(_ *verifier.Config, r *verifier.Tenant) { r.Required = []string{"Scope"} }, `"scope" and "Scope" differ only by case`},
		{"required registered", func(_ *verifier.Config, r *verifier.Tenant) { r.Required = []string{"sub", "scope", "jti"} }, ""},
		{"no tenants yet", func(c *verifier.Config, r *verifier.Tenant) { *r = verifier.Tenant{}; c.Tenants = nil }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, r := verifier.Config{}, acme(t)
			tt.edit(&cfg, &r)
			if r.ID != "" || tt.want != "" {
				cfg.Tenants = append(cfg.Tenants, r)
			}
			v, err := verifier.New(cfg)
			if tt.want == "" && (err != nil || v == nil) {
				t.Errorf("error %v", err)
			}
			if tt.want != "" && (err == nil || v != nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want one that holds %q", err, tt.want)
			}
		})
	}
}

type shortLeeway struct{ keystore.KeyStore }

func (shortLeeway) MaxLeeway(string) time.Duration { return time.Second }

// TestWhoseToken pins rules 6 and 7.
func TestWhoseToken(t *testing.T) {
	claim := func(r *verifier.Tenant) { r.TenantClaim = "tid" }
	v := newVerifier(t,
		tenant(t, "a", "https://a", nil),
		tenant(t, "b", "https://b", nil),
		tenant(t, "s1", "https://shared", claim), tenant(t, "s2", "https://shared", claim),
		tenant(t, "any", "", nil),
	)
	if err := v.Suspend("b"); err != nil {
		t.Fatal(err)
	}
	const none = "-"
	tests := []struct {
		name, hint, token string
		want              error
	}{
		{"own iss", none, tokenOf("a", `"iss":"https://a"`), nil},
		{"own iss and hint", "a", tokenOf("a", `"iss":"https://a"`), nil},
		{"iss and hint disagree", "a", tokenOf("a", `"iss":"https://b"`), verifier.ErrIssuer},
		{"hint without iss", "a", tokenOf("a", ``), verifier.ErrIssuer},
		{"hint, iss of the wrong type", "a", tokenOf("a", `"iss":1`), verifier.ErrIssuer},
		{"hint and iss disagree, before the signature", "a", tokenOf("x", `"iss":"https://b"`), verifier.ErrIssuer},
		{"empty hint", "", tokenOf("a", `"iss":"https://a"`), verifier.ErrUnknownTenant},
		{"unknown hint", "c", tokenOf("a", `"iss":"https://a"`), verifier.ErrUnknownTenant},
		{"hint in another case", "A", tokenOf("a", `"iss":"https://a"`), verifier.ErrUnknownTenant},
		{"iss of nobody", none, tokenOf("a", `"iss":"https://c"`), verifier.ErrUnknownTenant},
		{"no iss", none, tokenOf("a", ``), verifier.ErrUnknownTenant},
		{"empty iss", none, tokenOf("any", `"iss":""`), verifier.ErrUnknownTenant},
		{"iss of the wrong type", none, tokenOf("a", `"iss":["https://a"]`), verifier.ErrUnknownTenant},
		{"iss with a prefix of ours", none, tokenOf("a", `"iss":"https://a/x"`), verifier.ErrUnknownTenant},
		{"another's key", none, tokenOf("any", `"iss":"https://a"`), verifier.ErrSignature},
		{"suspended", none, tokenOf("b", `"iss":"https://b"`), verifier.ErrSuspended},
		{"suspended, hinted", "b", tokenOf("b", `"iss":"https://b"`), verifier.ErrSuspended},
		{"suspended before the algorithm", none, signWith(secretOf("b"), `{"alg":"none"}`, `{"iss":"https://b"}`), verifier.ErrSuspended},
		{"shared issuer without hint", none, tokenOf("s1", `"iss":"https://shared","tid":"s1"`), verifier.ErrUnknownTenant},
		{"shared issuer with hint", "s1", tokenOf("s1", `"iss":"https://shared","tid":"s1"`), nil},
		{"shared issuer, the other's token", "s2", tokenOf("s1", `"iss":"https://shared","tid":"s1"`), verifier.ErrSignature},
		{"shared issuer, the other's claim", "s1", tokenOf("s1", `"iss":"https://shared","tid":"s2"`), verifier.ErrTenantMismatch},
		{"any issuer is reached by hint", "any", tokenOf("any", `"iss":"https://anyone.example"`), nil},
		{"any issuer is not reached without", none, tokenOf("any", `"iss":"https://anyone.example"`), verifier.ErrUnknownTenant},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tok *verifier.Token
			var err error
			if tt.hint == none {
				tok, err = v.Verify(t.Context(), tt.token)
			} else {
				tok, err = v.VerifyTenant(t.Context(), tt.hint, tt.token)
			}
			check(t, tt.name, tok, err, tt.want)
		})
	}
}

func TestSharedIssuersNeedTenantClaims(t *testing.T) {
	claim := func(r *verifier.Tenant) { r.TenantClaim = "tid" }
	for _, issuer := range []string{"https://shared", ""} {
		other := func(r *verifier.Tenant) { r.TenantClaim = "org_id" }
		for _, edits := range [][2]func(*verifier.Tenant){{nil, nil}, {claim, nil}, {nil, claim}, {claim, other}} {
			v := newVerifier(t, tenant(t, "a", issuer, edits[0]))
			err := v.Put(tenant(t, "b", issuer, edits[1]))
			if err == nil || !strings.Contains(err.Error(), "TenantClaim") {
				t.Errorf("issuer %q: %v", issuer, err)
			}
			if err := v.Suspend("b"); err == nil {
				t.Error("a Put that failed left its tenant behind")
			}
		}
		v := newVerifier(t, tenant(t, "a", issuer, claim))
		if err := v.Put(tenant(t, "b", issuer, claim)); err != nil {
			t.Error(err)
		}
	}
}

func TestTenantsComeAndGo(t *testing.T) {
	v := newVerifier(t, tenant(t, "a", "https://a", nil))
	verify := func(what, token string, want error) {
		t.Helper()
		tok, err := v.Verify(t.Context(), token)
		check(t, what, tok, err, want)
	}
	a, b := tokenOf("a", `"iss":"https://a"`), tokenOf("b", `"iss":"https://b"`)
	verify("alone, iss of nobody is judged by rule 13", b, verifier.ErrSignature)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	must(v.Put(tenant(t, "b", "https://b", nil)))
	verify("put", b, nil)
	must(v.Suspend("b"))
	verify("suspended", b, verifier.ErrSuspended)
	verify("the other", a, nil)
	must(v.Put(tenant(t, "b", "https://b", func(r *verifier.Tenant) { r.Required = []string{"role"} })))
	verify("put keeps a suspension", b, verifier.ErrSuspended)
	must(v.Resume("b"))
	verify("resumed under the new rules", b, verifier.ErrMissingClaim)
	must(v.Put(tenant(t, "b", "https://b2", nil)))
	verify("its issuer changed", b, verifier.ErrUnknownTenant)
	must(v.Remove("b"))
	verify("removed", tokenOf("b", `"iss":"https://b2"`), verifier.ErrSignature)
	must(v.Remove("a"))
	verify("nobody left", a, verifier.ErrUnknownTenant)

	for name, err := range map[string]error{"Remove": v.Remove("x"), "Suspend": v.Suspend("x"), "Resume": v.Resume("x")} {
		if err == nil || !strings.Contains(err.Error(), `"x"`) {
			t.Errorf("%s of an unknown tenant: %v", name, err)
		}
	}
	bad := tenant(t, "bad", "https://bad", func(r *verifier.Tenant) { r.Algorithms = nil })
	if err := v.Put(tenant(t, "a", "https://a", nil), bad); err == nil {
		t.Error("a bad tenant was put")
	}
	verify("all or none", a, verifier.ErrUnknownTenant)
}

// TestChangeIsOneStep moves an issuer from one tenant to another, which Put and Remove cannot without
// a moment in which its tokens are refused.
func TestChangeIsOneStep(t *testing.T) {
	v := newVerifier(t, tenant(t, "a", "https://a", nil), tenant(t, "b", "https://b", nil))
	moved := tenant(t, "a2", "https://a", nil)
	if err := v.Put(moved); err == nil {
		t.Error("Put took an issuer that another tenant has")
	}
	if err := v.Change([]verifier.Tenant{moved}, []string{"a", "x"}); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("Change with an unknown tenant: %v", err)
	}
	tok, err := v.Verify(t.Context(), tokenOf("a", `"iss":"https://a"`))
	check(t, "after a change that failed", tok, err, nil)
	if err := v.Change([]verifier.Tenant{moved}, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	tok, err = v.Verify(t.Context(), tokenOf("a2", `"iss":"https://a"`))
	check(t, "the new tenant", tok, err, nil)
	tok, err = v.Verify(t.Context(), tokenOf("a", `"iss":"https://a"`))
	check(t, "the key of the removed one", tok, err, verifier.ErrSignature)
}

// TestRulesAreCopied: a later change to the caller's Tenant has no effect.
func TestRulesAreCopied(t *testing.T) {
	r := acme(t)
	r.Required = []string{"sub"}
	v := newVerifier(t, r)
	r.Algorithms[0], r.Audiences[0], r.Required[0] = keystore.RS256, "x", "x"
	if _, err := v.Verify(t.Context(), sign(goodHeader, goodPayload)); err != nil {
		t.Error(err)
	}
}

func TestTenThousandTenants(t *testing.T) {
	const n = 10_000
	keys := make([]*keystore.Key, n)
	tenants := make([]verifier.Tenant, n)
	for i := range n {
		keys[i] = key(t, fmt.Sprint("t", i), "1", secretOf(fmt.Sprint("t", i)))
	}
	store := static(t, keys...)
	for i := range n {
		id := fmt.Sprint("t", i)
		tenants[i] = verifier.Tenant{ID: id, Keys: store, Algorithms: []keystore.Algorithm{keystore.HS256},
			Issuer: "https://" + id, AnyAudience: true}
	}
	v := newVerifier(t)
	if err := v.Put(tenants...); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"t0", "t5000", "t9999"} {
		tok, err := v.Verify(t.Context(), tokenOf(id, `"iss":"https://`+id+`"`))
		if err != nil || tok.Tenant() != id {
			t.Errorf("%s: %v, %v", id, tok, err)
		}
	}
	_, err := v.Verify(t.Context(), tokenOf("t1", `"iss":"https://t2"`))
	if !errors.Is(err, verifier.ErrSignature) {
		t.Errorf("t1 signs as t2: %v", err)
	}
}

// TestConcurrentChanges verifies while tenants and keys change. A token of the tenant that
// stays is always good. A token that another tenant's key signed is always bad.
func TestConcurrentChanges(t *testing.T) {
	store := static(t, key(t, "a", "1", secretOf("a")))
	r := tenant(t, "a", "https://a", func(r *verifier.Tenant) { r.Keys = store })
	v := newVerifier(t, r, tenant(t, "b", "https://b", nil))
	good, forged := tokenOf("a", `"iss":"https://a"`), tokenOf("b", `"iss":"https://a"`)
	var readers, writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			id := fmt.Sprint("t", i%10)
			err := v.Put(tenant(t, id, "https://"+id, nil), r)
			err = errors.Join(err, store.Replace(key(t, "a", "1", secretOf("a")), key(t, "a", id, secretOf(id))))
			if i%3 == 0 {
				err = errors.Join(err, v.Remove(id))
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	for range 4 {
		readers.Go(func() {
			for range 500 {
				if _, err := v.Verify(t.Context(), good); err != nil {
					t.Error(err)
				}
				if _, err := v.Verify(t.Context(), forged); !errors.Is(err, verifier.ErrSignature) {
					t.Error(err)
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writer.Wait()
}
