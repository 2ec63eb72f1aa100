package verifier

import (
	"maps"
	"slices"

	"github.com/keyturn/keyturn/verifier/internal/trie"
)

// An edit is a change of the tenants in the making. Its cost grows with the number of tenants that it
// changes, and not with the number that there are: all rules about several tenants look only at the
// issuers of changed ones.
type edit struct {
	old      *tenants
	noSole   bool // there is no only tenant: [Config.Resolve] may know others
	byID     *trie.Edit[*rules]
	byIssuer *trie.Edit[claimants]
	any      claimants
	changed  map[string]bool // the IDs of tenants that may have other rules than before, or none
	touched  map[string]bool // the issuers of those, with "" for AnyIssuer
}

// newEdit starts an edit of the tenants as they are. The caller holds v.mu.
func (v *Verifier) newEdit() *edit {
	old := v.tenants.Load()
	return &edit{old: old, noSole: v.resolver != nil, byID: old.byID.Edit(), byIssuer: old.byIssuer.Edit(), any: old.any,
		changed: make(map[string]bool), touched: make(map[string]bool)}
}

func (e *edit) named(id string) *rules {
	r, _ := e.byID.Get(id)
	return r
}

// set makes r the rules of a tenant, or removes it if r is nil.
func (e *edit) set(id string, r *rules) {
	old := e.named(id)
	if old == r {
		return
	}
	e.changed[id] = true
	if r == nil {
		e.byID.Delete(id)
	} else {
		e.byID.Set(id, r)
	}
	if old != nil {
		for _, issuer := range old.names() {
			if !r.claimsAs(old, issuer) {
				e.claim(issuer, e.claimants(issuer).without(old, e.named))
			}
		}
	}
	if r == nil {
		return
	}
	for _, issuer := range r.names() {
		switch c := e.claimants(issuer); {
		case !old.claimsAs(r, issuer):
			e.claim(issuer, c.with(r))
		case c.only != nil:
			e.claim(issuer, claimants{only: r})
		}
	}
}

// claimsAs reports whether r has the issuer, and tells its tokens apart as o does.
func (r *rules) claimsAs(o *rules, issuer string) bool {
	return r != nil && o != nil && r.TenantClaim == o.TenantClaim && slices.Contains(r.names(), issuer)
}

func (e *edit) claimants(issuer string) claimants {
	if issuer == "" {
		return e.any
	}
	c, _ := e.byIssuer.Get(issuer)
	return c
}

func (e *edit) claim(issuer string, c claimants) {
	e.touched[issuer] = true
	switch {
	case issuer == "":
		e.any = c
	case c.none():
		e.byIssuer.Delete(issuer)
	default:
		e.byIssuer.Set(issuer, c)
	}
}

// contradictions returns the issuers whose tenants contradict each other, sorted.
func (e *edit) contradictions() (issuers []string) {
	for issuer := range e.touched {
		if e.claimants(issuer).contradict() {
			issuers = append(issuers, issuer)
		}
	}
	slices.Sort(issuers)
	return issuers
}

// check returns an error if tenants contradict each other. It names one that was changed.
func (e *edit) check() error {
	for _, issuer := range e.contradictions() {
		c := e.claimants(issuer)
		for _, id := range slices.Sorted(maps.Keys(e.changed)) {
			r := e.named(id)
			if r == nil || !slices.Contains(r.names(), issuer) {
				continue
			}
			if other := c.opponent(r); other != "" {
				return sharedIssuer(id, other, issuer)
			}
		}
	}
	return nil
}

// dropLeases removes the tenants of [Config.Resolve] that contradict one that was put, which counts
// more. They are asked for again.
func (e *edit) dropLeases() {
	for _, issuer := range e.contradictions() {
		for _, g := range e.claimants(issuer).groups {
			for id := range g.ids.All() {
				if e.named(id).lease != nil {
					e.set(id, nil)
				}
			}
		}
	}
}

// rival returns a tenant of [Config.Resolve] that contradicts r, or nil. It leaves out suspended ones: a
// suspension must not end because another tenant comes.
func (e *edit) rival(r *rules) *rules {
	for _, issuer := range e.contradictions() {
		if o := e.named(e.claimants(issuer).opponent(r)); o != nil && o.lease != nil && !o.suspended {
			return o
		}
	}
	return nil
}

// finish returns the tenants that the edit has made.
func (e *edit) finish() *tenants {
	e.renewMoved()
	return &tenants{byID: e.byID.Map(), byIssuer: e.byIssuer.Map(), any: e.any, sole: e.sole()}
}

// sole returns the only tenant, or nil.
func (e *edit) sole() *rules {
	if e.byID.Len() != 1 || e.noSole {
		return nil
	}
	for _, r := range e.byID.All() {
		return r
	}
	return nil
}

// renewMoved gives new rules to each unchanged tenant that tokens without a hint now reach in another
// way than before: because it is the only tenant, or by one of its issuers. The tokens that were cached
// for it are then checked again.
func (e *edit) renewMoved() {
	var moved []*rules
	move := func(before, after *rules) {
		for _, r := range []*rules{before, after} {
			if before != after && r != nil && e.old.named(r.ID) == r && e.named(r.ID) == r {
				moved = append(moved, r)
			}
		}
	}
	move(e.old.sole, e.sole())
	for issuer := range e.touched {
		if issuer != "" { // no token without a hint reaches a tenant by its AnyIssuer
			before, _ := e.old.byIssuer.Get(issuer)
			move(before.only, e.claimants(issuer).only)
		}
	}
	for _, r := range moved {
		if e.named(r.ID) == r {
			e.set(r.ID, r.renewed())
		}
	}
}
