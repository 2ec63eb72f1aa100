package verifier

import (
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/internal/jwt"
	"github.com/keyturn/keyturn/verifier/internal/trie"
)

// tenants are all the tenants of a verifier at one time. The value is immutable: a
// change makes another one with an [edit], which shares most of it.
type tenants struct {
	byID     trie.Map[*rules]
	byIssuer trie.Map[claimants]
	any      claimants // the tenants with AnyIssuer
	sole     *rules    // the only tenant; nil if there are several, or no tenants
}

func noTenants() *tenants {
	return &tenants{byID: trie.New[*rules](), byIssuer: trie.New[claimants]()}
}

// named returns the tenant of that ID, or nil.
func (t *tenants) named(id string) *rules {
	r, _ := t.byID.Get(id)
	return r
}

// claimants are the tenants that have one issuer: a token that names it may be of any of them. The
// value is immutable.
type claimants struct {
	only   *rules  // the only one; nil if there are several, or none
	groups []group // all of them, if there are several. More than one group is a contradiction
}

// A group is the claimants that tell their tokens apart by the same TenantClaim.
type group struct {
	claim string
	ids   trie.Map[struct{}]
}

func (c claimants) none() bool { return c.only == nil && len(c.groups) == 0 }

// with returns the claimants with r, which is not one of them yet.
func (c claimants) with(r *rules) claimants {
	if c.none() {
		return claimants{only: r}
	}
	groups := slices.Clone(c.groups)
	if c.only != nil {
		groups = addTo(nil, c.only)
	}
	return claimants{groups: addTo(groups, r)}
}

// addTo adds r to its group.
func addTo(groups []group, r *rules) []group {
	i := slices.IndexFunc(groups, func(g group) bool { return g.claim == r.TenantClaim })
	if i < 0 {
		i, groups = len(groups), append(groups, group{r.TenantClaim, trie.New[struct{}]()})
	}
	groups[i].ids = groups[i].ids.With(r.ID, struct{}{})
	return groups
}

// without returns the claimants without r. named finds the tenant that is left, if it is only one.
func (c claimants) without(r *rules, named func(id string) *rules) claimants {
	if c.only != nil {
		return claimants{}
	}
	left, groups := 0, make([]group, 0, len(c.groups))
	for _, g := range c.groups {
		if g.claim == r.TenantClaim {
			g.ids = g.ids.Without(r.ID)
		}
		if g.ids.Len() > 0 {
			left += g.ids.Len()
			groups = append(groups, g)
		}
	}
	if left == 1 {
		return claimants{only: named(groups[0].first(""))}
	}
	return claimants{groups: groups}
}

// first returns one of the group, other than not.
func (g group) first(not string) string {
	for id := range g.ids.All() {
		if id != not {
			return id
		}
	}
	return ""
}

// contradict reports whether the claimants contradict each other: several may have an issuer only
// if one claim tells their tokens apart. If they named two claims, one token could belong to two
// tenants.
func (c claimants) contradict() bool {
	return len(c.groups) > 1 || len(c.groups) == 1 && c.groups[0].claim == ""
}

// opponent returns a tenant that contradicts r, or "".
func (c claimants) opponent(r *rules) string {
	for _, g := range c.groups {
		if g.claim != r.TenantClaim || g.claim == "" {
			if id := g.first(r.ID); id != "" {
				return id
			}
		}
	}
	return ""
}

// names returns the issuers of r, or "" alone if it has AnyIssuer.
func (r *rules) names() []string {
	if r.AnyIssuer {
		return []string{""}
	}
	return r.issuers
}

func sharedIssuer(a, b, issuer string) error {
	if a > b {
		a, b = b, a // the same text in every run
	}
	if issuer == "" {
		return fmt.Errorf("verifier: tenants %q and %q both set AnyIssuer: then they need one and the same TenantClaim to tell their tokens apart", a, b)
	}
	return fmt.Errorf("verifier: tenants %q and %q share the issuer %q: then they need one and the same TenantClaim to tell their tokens apart", a, b, issuer)
}

// known returns the tenant that judges every token with this hint, or without one: the one that
// the hint names, or the only one. It is nil if the token's iss decides, or if there is no
// such tenant.
func (t *tenants) known(hint *string) *rules {
	if hint != nil {
		return t.named(*hint)
	}
	return t.sole
}

// pick returns the tenant whose rules judge the token. It returns rules along with
// an error if the tenant is known and the token is not one of its own.
func (t *tenants) pick(hint *string, c *claims) (*rules, *Error) {
	if hint != nil {
		return t.byHint(*hint, c)
	}
	return t.byToken(c)
}

// byToken picks the tenant of a token that came without a hint, by its iss. The
// signature is not checked yet: iss selects a tenant and proves nothing.
func (t *tenants) byToken(claims *claims) (*rules, *Error) {
	if t.sole != nil {
		return t.sole, nil // checkIssuer judges its iss
	}
	iss, _ := jwt.String(claims.iss.text)
	c, known := t.byIssuer.Get(iss)
	if c.only != nil {
		return c.only, nil
	}
	return nil, refuseClaim(t.unknownIssuer(iss, known || !t.any.none()), "iss")
}

// byHint picks the tenant that a trusted hint names. Its issuer must be the
// token's.
func (t *tenants) byHint(hint string, c *claims) (*rules, *Error) {
	r := t.named(hint)
	if r == nil {
		return nil, refuse(ErrUnknownTenant)
	}
	if r.AnyIssuer {
		return r, nil
	}
	return r, r.checkIssuer(c)
}
