package verifier

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/jwt"
	"github.com/keyturn/keyturn/keystore"
)

// A Tenant says whose tokens are good, and when. Fields without a stated
// default are required, unless their waiver is set.
type Tenant struct {
	// ID is the tenant's name, here and in its key store.
	ID string

	// Keys finds the tenant's keys. Tenants may share a store.
	Keys keystore.KeyStore

	// Algorithms are the only ones accepted (RFC 8725, section 3.1). HS* beside
	// asymmetric ones is an error unless MixedFamilies is set.
	Algorithms []keystore.Algorithm

	// Issuer is what "iss" must be, byte for byte.
	Issuer string

	// Audiences are the values of which "aud" must hold at least one.
	Audiences []string

	// Types are the "typ" headers accepted, "" standing for none. They are
	// compared as RFC 7515, section 4.1.9, says: without regard to case and with
	// "application/" implied. An empty list means "", "JWT" and "at+jwt".
	Types []string

	// TenantClaim names a claim that must equal ID, such as "tid" or "org_id".
	// The default, "", asks for none. Tenants that share an Issuer, or set
	// AnyIssuer, need one, and the same.
	TenantClaim string

	// Required names claims that must be there and not null.
	Required []string

	// Leeway is how far clocks may disagree when exp, nbf and iat are checked:
	// 0 means 30s, a negative value none. At most 5m.
	Leeway time.Duration

	// MaxAge, if it is not 0, is how long after its iat a token is accepted.
	MaxAge time.Duration

	// Check, if it is not nil, is the last rule. It must depend on the token
	// alone, since its yes may be remembered for the token, and be safe for
	// concurrent use. Its error becomes [ErrClaim]; [errors.Is] finds it, and
	// [Error] does not print it.
	Check func(*Token) error

	// Waivers. Each weakens the check that it names.
	AnyIssuer     bool // "iss" may be anything, or absent; beside other tenants, reached by VerifyTenant alone
	AnyAudience   bool // "aud" may be anything, or absent
	AllowNoExpiry bool // "exp" may be absent
	MixedFamilies bool // HS* beside asymmetric algorithms, as during a migration
}

const (
	defaultLeeway = 30 * time.Second
	maxLeeway     = 5 * time.Minute
)

// rules are a tenant, validated and compiled. They never change, but for live: a
// change to the tenant, or to which tokens are its, makes new ones and retires
// these.
type rules struct {
	Tenant
	leeway    time.Duration
	types     types
	suspended bool

	serial uint64      // unlike that of any other rules of the verifier; 0 is nobody's
	live   atomic.Bool // false from when they are retired: then no cached token is theirs
}

// renewed returns new rules that say the same.
func (r *rules) renewed() *rules {
	return &rules{Tenant: r.Tenant, leeway: r.leeway, types: r.types, suspended: r.suspended}
}

// compile validates t by itself, and returns rules that share nothing with it
// but its store.
func compile(t Tenant) (*rules, error) {
	fail := func(format string, args ...any) (*rules, error) {
		return nil, fmt.Errorf("verifier: tenant %q: %w", t.ID, fmt.Errorf(format, args...))
	}
	switch {
	case t.ID == "":
		return nil, errors.New("verifier: a Tenant has no ID")
	case t.Keys == nil:
		return fail("Keys is nil")
	case isNilPointer(t.Keys):
		return fail("Keys is a nil %T: was the error of its constructor dropped?", t.Keys)
	case len(t.Algorithms) == 0:
		return fail("Algorithms is empty: list what its tokens are signed with")
	case t.Issuer == "" && !t.AnyIssuer:
		return fail("Issuer is empty: set it, or waive the check with AnyIssuer")
	case t.Issuer != "" && t.AnyIssuer:
		return fail("Issuer and AnyIssuer contradict each other")
	case len(t.Audiences) == 0 && !t.AnyAudience:
		return fail("Audiences is empty: set it, or waive the check with AnyAudience")
	case len(t.Audiences) > 0 && t.AnyAudience:
		return fail("Audiences and AnyAudience contradict each other")
	case slices.Contains(t.Audiences, ""):
		return fail("Audiences holds an empty string")
	case slices.Contains(t.Required, ""):
		return fail("Required holds an empty string")
	case slices.Contains(t.Required, "exp") && t.AllowNoExpiry:
		return fail(`Required "exp" and AllowNoExpiry contradict each other`)
	case t.Leeway > maxLeeway:
		return fail("Leeway is %v, want at most %v", t.Leeway, maxLeeway)
	case t.MaxAge < 0:
		return fail("MaxAge is %v, want 0 or more", t.MaxAge)
	}
	if err := checkAlgorithms(t.Algorithms, t.MixedFamilies); err != nil {
		return fail("%w", err)
	}

	r := &rules{Tenant: t, leeway: max(t.Leeway, 0), types: newTypes(t.Types)}
	if t.Leeway == 0 {
		r.leeway = defaultLeeway
	}
	r.Algorithms = slices.Clone(t.Algorithms)
	r.Audiences = slices.Clone(t.Audiences)
	r.Types = slices.Clone(t.Types)
	r.Required = slices.Clone(t.Required)

	if s, ok := t.Keys.(interface{ Serves(tenant string) bool }); ok && !s.Serves(t.ID) {
		return fail("its key store serves no tenant of that name: is it spelled the same in both places?")
	}
	if s, ok := t.Keys.(interface {
		MaxLeeway(tenant string) time.Duration
	}); ok {
		if most := s.MaxLeeway(t.ID); r.leeway > most {
			return fail("Leeway is %v, and its key store keeps retired keys for a leeway of %v at most; set Leeway to no more than that", r.leeway, most)
		}
	}
	return r, nil
}

func isNilPointer(v any) bool {
	r := reflect.ValueOf(v)
	return r.Kind() == reflect.Pointer && r.IsNil()
}

func checkAlgorithms(algs []keystore.Algorithm, mixed bool) error {
	symmetric := 0
	for _, a := range algs {
		switch {
		case a == "none":
			return errors.New(`Algorithms holds "none": unsigned tokens are never accepted`)
		case !a.Known():
			return fmt.Errorf("Algorithms holds %q: want some of %v", string(a), keystore.Algorithms())
		case a.Symmetric():
			symmetric++
		}
	}
	if symmetric > 0 && symmetric < len(algs) && !mixed {
		return errors.New("Algorithms holds HS* beside asymmetric ones, so that a public key might be taken for a secret: " +
			"keep one family, or set MixedFamilies for the time of a migration")
	}
	return nil
}

// tenants are all the tenants of a verifier at one time: replaced whole, never
// modified.
type tenants struct {
	byID     map[string]*rules
	byIssuer map[string]*rules // nil for an issuer that tenants share
	sole     *rules            // the only tenant, if there is one
}

// newTenants validates the tenants beside each other, and indexes them.
func newTenants(byID map[string]*rules) (*tenants, error) {
	t := &tenants{byID: byID, byIssuer: make(map[string]*rules, len(byID))}
	first := make(map[string]*rules, len(byID)) // the first met of each issuer, "" for any
	for _, r := range byID {
		t.sole = r
		other, shared := first[r.Issuer]
		if !shared {
			first[r.Issuer] = r
			if r.Issuer != "" {
				t.byIssuer[r.Issuer] = r
			}
			continue
		}
		if r.Issuer != "" {
			t.byIssuer[r.Issuer] = nil
		}
		// With two claims, one token could name a tenant in each.
		if r.TenantClaim == "" || r.TenantClaim != other.TenantClaim {
			return nil, sharedIssuer(r, other)
		}
	}
	if len(byID) != 1 {
		t.sole = nil
	}
	return t, nil
}

func sharedIssuer(a, b *rules) error {
	if a.ID > b.ID {
		a, b = b, a // the same words each time
	}
	if a.Issuer == "" {
		return fmt.Errorf("verifier: tenants %q and %q both set AnyIssuer: then they need one and the same TenantClaim to tell their tokens apart", a.ID, b.ID)
	}
	return fmt.Errorf("verifier: tenants %q and %q share the issuer %q: then they need one and the same TenantClaim to tell their tokens apart", a.ID, b.ID, a.Issuer)
}

// reached says how tokens without a hint reach r: as the only tenant's, and by
// its issuer.
func (t *tenants) reached(r *rules) (alone, byIssuer bool) {
	return t.sole == r, r.Issuer != "" && t.byIssuer[r.Issuer] == r
}

// ofToken picks the tenant of a token that came without a hint, by its iss,
// which proves nothing yet (rule 6).
func (t *tenants) ofToken(c *claims) (*rules, *Error) {
	if t.sole != nil {
		return t.sole, nil // rule 13 judges its iss
	}
	iss, _ := jwt.String(c.iss.text)
	if r := t.byIssuer[iss]; r != nil {
		return r, nil
	}
	return nil, refuseClaim(ErrUnknownTenant, "iss")
}

// ofHint picks the tenant that a trusted hint names, whose issuer must be the
// token's (rule 6).
func (t *tenants) ofHint(hint string, c *claims) (*rules, *Error) {
	r := t.byID[hint]
	if r == nil {
		return nil, refuse(ErrUnknownTenant)
	}
	if r.AnyIssuer {
		return r, nil
	}
	if iss, ok := jwt.String(c.iss.text); !ok || iss != r.Issuer {
		return r, refuseClaim(ErrIssuer, "iss")
	}
	return r, nil
}
