package verifier

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// A Tenant holds the rules for the tokens of one issuer. A field without a stated
// default is required, unless its waiver is set.
type Tenant struct {
	// ID is the tenant's name, in the verifier and in its key store.
	ID string

	// Keys finds the tenant's keys. Tenants may share a store.
	Keys keystore.KeyStore

	// Algorithms are the only ones accepted (RFC 8725, section 3.1). A list with
	// HS* and asymmetric algorithms is an error unless MixedFamilies is set.
	Algorithms []keystore.Algorithm

	// Issuer must equal "iss" byte for byte.
	Issuer string

	// OtherIssuers are accepted beside Issuer, byte for byte too: some issuers have two
	// spellings, as Google does, or two versions, as Entra does. [Token.Issuer] is the
	// token's own. An issuer belongs to one tenant, unless TenantClaim tells tenants apart.
	// All issuers of a tenant share its subjects and jtis, so list only names of one
	// authority.
	OtherIssuers []string

	// Audiences are accepted values of "aud". A token must have at least one of
	// them.
	Audiences []string

	// Types are the "typ" headers accepted. "" stands for a header without typ.
	// Values are compared as in RFC 7515, section 4.1.9: without regard to case,
	// and with "application/" implied. An empty list means "", "JWT" and "at+jwt".
	Types []string

	// TenantClaim names a claim that must equal ID, such as "tid" or "org_id". The
	// default, "", demands none. Tenants that share an Issuer, and several tenants
	// that set AnyIssuer, must all name the same claim.
	TenantClaim string

	// Required names claims that must be present and not null.
	Required []string

	// Match maps claims to the values that they may have: each of these claims must be one of
	// its values, or an array of strings that holds one. Names are those of [Token.HasAny].
	// A claim that is missing does not match.
	Match map[string][]string

	// MatchHeader is Match for parameters of the header, by their exact names. A load balancer of
	// AWS names itself in signer, and must be checked: all of a region have the same keys.
	// Parameters of the standards have rules of their own, and cannot be listed.
	MatchHeader map[string][]string

	// Tolerate lists departures from the standards that this tenant's issuer is known for.
	// Each is refused unless it is listed.
	Tolerate []Tolerance

	// Leeway is how far clocks may disagree when exp, nbf and iat are checked: 0
	// means 30s, and a negative value means none. It is at most 5m.
	Leeway time.Duration

	// MaxAge, if it is not 0, is how long after its iat a token is accepted.
	MaxAge time.Duration

	// Check, if it is not nil, is the last rule for the claims. It must depend on
	// the token alone, since a nil may be cached with the token, and be safe for
	// concurrent use. Its error becomes [ErrClaim]. [errors.Is] finds the error
	// itself, and [Error.Error] does not print it.
	Check func(*Token) error

	// Suspended makes the verifier refuse the tenant's tokens, with [ErrSuspended]. It is
	// part of the rules, as in a row of a database: the next Put or [Verifier.Sync] sets it
	// again. [Verifier.Suspend] suspends a tenant beside its rules, until [Verifier.Resume].
	Suspended bool

	// Waivers. Each weakens the check that it names.
	AnyIssuer     bool // "iss" may be anything or missing; among several tenants, only VerifyTenant reaches this one
	AnyAudience   bool // "aud" may be anything or missing
	AllowNoExpiry bool // "exp" may be missing
	MixedFamilies bool // Algorithms may hold HS* and asymmetric ones, as during a migration
}

const (
	defaultLeeway = 30 * time.Second
	maxLeeway     = 5 * time.Minute
)

// rules are a tenant, validated and compiled. They are immutable except for live, and for expected,
// which wants fills.
// Any change to a tenant, or to how tokens reach it, creates new rules and clears
// live on the old ones, which invalidates their cached tokens.
type rules struct {
	compiled
	serial   uint64      // unique among the rules of the verifier; 0 until they are installed
	live     atomic.Bool // true while they are installed
	expected atomic.Pointer[expected]
}

// compiled is the content of rules.
type compiled struct {
	Tenant
	leeway    time.Duration
	types     types
	spelling  spelling
	issuers   []string  // Issuer and OtherIssuers; empty with AnyIssuer
	match     []matched // of Match
	tolerates needs

	matchHeader []matched         // of MatchHeader
	unsure      unsure            // Keys, or nil if it is not one
	several     bool              // Keys answers for several stores
	noter       keystore.UseNoter // Keys, or nil if it is not one
	suspended   bool              // by Verifier.Suspend, beside Tenant.Suspended
	lease       *lease            // nil unless Config.Resolve returned the tenant
}

// renewed returns new rules with the same content.
func (r *rules) renewed() *rules { return &rules{compiled: r.compiled} }

// noteUse tells the key store, and the lease, that a token passed every rule.
func (r *rules) noteUse(now time.Time) {
	if r.noter != nil {
		r.noter.NoteUse(r.ID)
	}
	if r.lease != nil {
		r.lease.use(now)
	}
}

// compile validates t on its own. It returns rules that share only the store
// with t.
func compile(t Tenant) (*rules, error) {
	if t.ID == "" {
		return nil, errors.New("verifier: a Tenant has no ID")
	}
	r := newRules(t)
	err := t.validate()
	if err == nil {
		r.tolerates, err = newTolerances(t.Tolerate)
	}
	if err == nil {
		err = t.validateMatch()
	}
	if err == nil {
		err = r.spelling.validate()
	}
	if err == nil {
		err = r.checkStore()
	}
	if err != nil {
		return nil, fmt.Errorf("verifier: tenant %q: %w", t.ID, err)
	}
	return r, nil
}

func newRules(t Tenant) *rules {
	r := &rules{compiled: compiled{Tenant: t, leeway: max(t.Leeway, 0), types: acceptDefault, spelling: newSpelling(&t)}}
	if len(t.Types) > 0 {
		r.types = newTypes(t.Types)
	}
	r.noter, _ = t.Keys.(keystore.UseNoter)
	r.unsure, _ = t.Keys.(unsure)
	alone, ok := t.Keys.(interface{ Alone() bool })
	r.several = r.unsure != nil && !(ok && alone.Alone())
	if t.Leeway == 0 {
		r.leeway = defaultLeeway
	}
	r.Algorithms = slices.Clone(t.Algorithms)
	r.Audiences = slices.Clone(t.Audiences)
	r.Types = slices.Clone(t.Types)
	r.Required = slices.Clone(t.Required)
	r.OtherIssuers = slices.Clone(t.OtherIssuers)
	r.Tolerate = slices.Clone(t.Tolerate)
	r.Match, r.match = nil, newMatch("claim", t.Match)
	r.MatchHeader, r.matchHeader = nil, newMatch("header parameter", t.MatchHeader)
	if t.Issuer != "" {
		r.issuers = append([]string{t.Issuer}, t.OtherIssuers...)
	}
	return r
}

// validate returns an error that names the first rule which is missing, unsafe or
// contradicts another.
func (t *Tenant) validate() error {
	switch {
	case t.Keys == nil:
		return errors.New("Keys is nil")
	case isNilPointer(t.Keys):
		return fmt.Errorf("Keys is a nil %T: was the error of its constructor dropped?", t.Keys)
	case len(t.Algorithms) == 0:
		return errors.New("Algorithms is empty: list what its tokens are signed with")
	case t.Issuer == "" && !t.AnyIssuer:
		return errors.New("Issuer is empty: set it, or waive the check with AnyIssuer")
	case t.Issuer != "" && t.AnyIssuer:
		return errors.New("Issuer and AnyIssuer contradict each other")
	case len(t.OtherIssuers) > 0 && t.AnyIssuer:
		return errors.New("OtherIssuers and AnyIssuer contradict each other")
	case slices.Contains(t.OtherIssuers, ""):
		return errors.New("OtherIssuers holds an empty string")
	case hasTwice(append([]string{t.Issuer}, t.OtherIssuers...)) != "":
		return fmt.Errorf("Issuer and OtherIssuers have %q twice", hasTwice(append([]string{t.Issuer}, t.OtherIssuers...)))
	case len(t.Audiences) == 0 && !t.AnyAudience:
		return errors.New("Audiences is empty: set it, or waive the check with AnyAudience")
	case len(t.Audiences) > 0 && t.AnyAudience:
		return errors.New("Audiences and AnyAudience contradict each other")
	case slices.Contains(t.Audiences, ""):
		return errors.New("Audiences holds an empty string")
	case slices.Contains(t.Required, ""):
		return errors.New("Required holds an empty string")
	case slices.Contains(t.Required, "exp") && t.AllowNoExpiry:
		return errors.New(`Required "exp" and AllowNoExpiry contradict each other`)
	case t.Leeway > maxLeeway:
		return fmt.Errorf("Leeway is %v, want at most %v", t.Leeway, maxLeeway)
	case t.MaxAge < 0:
		return fmt.Errorf("MaxAge is %v, want 0 or more", t.MaxAge)
	}
	return checkAlgorithms(t.Algorithms, t.MixedFamilies)
}

// checkStore asks the store, if it has the optional methods of a
// [keystore.KeyStore], whether it knows the tenant, can serve its algorithms, and allows
// its leeway.
func (r *rules) checkStore() error {
	if s, ok := r.Keys.(interface{ Serves(tenant string) bool }); ok && !s.Serves(r.ID) {
		return errors.New("its key store serves no tenant of that name: is it spelled the same in both places?")
	}
	if s, ok := r.Keys.(interface {
		CanServe(tenant string, alg keystore.Algorithm) bool
	}); ok {
		for _, alg := range r.Algorithms {
			if !s.CanServe(r.ID, alg) {
				return fmt.Errorf("Algorithms holds %s, and its key store can never have a key for that: take it out", alg)
			}
		}
	}
	if s, ok := r.Keys.(interface {
		MaxLeeway(tenant string) time.Duration
	}); ok {
		if most := s.MaxLeeway(r.ID); r.leeway > most {
			return fmt.Errorf("Leeway is %v, and its key store keeps retired keys for a leeway of %v at most; set Leeway to no more than that", r.leeway, most)
		}
	}
	return nil
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
