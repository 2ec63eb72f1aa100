package verifier

import (
	"errors"
	"maps"
	"reflect"
	"slices"

	"github.com/keyturn/keyturn/keystore"
)

// Sync makes all the tenants of the verifier, such as the rows of a database or a file: it puts those
// that are new or differ, and removes those that are not listed. No call of Verify sees a part of it.
// changed counts the tenants that were put or removed.
//
// A bad row does not hold back the others. errs has its error under its ID, and its tenant stays as it
// was: the last good version, or none. Rows are bad if
//
//   - their rules are, as for [Verifier.Put];
//   - their ID is in several rows, even if these are equal;
//   - they contradict another tenant, because both have one issuer. A row that is as before is never
//     the bad one. Among changed rows, those stay whose tenant had that issuer already, if they agree.
//     Otherwise all of them are bad, so the order of rows does not matter.
//
// If the list is empty but the verifier has tenants, Sync removes none and returns an error under "": it
// is more likely that a query failed. A list that was cut off cannot be told from one that became
// shorter, so check the error of the query first. [Verifier.Remove] removes the last tenant.
//
// Suspensions by [Verifier.Suspend] stay. A tenant that is as before keeps its cached tokens. For that
// Keys are compared with ==, so rows need the same store as before, and not an equal one. A Check is as
// before only if it is the same function value: one closure that is kept, not one made for each row of
// each list. A difference of no effect, such as the order of Audiences, is a change.
func (v *Verifier) Sync(all []Tenant) (changed int, errs map[string]error) {
	s := syncing{errs: make(map[string]error)}
	s.read(all, v.tenants.Load())
	v.mu.Lock()
	defer v.mu.Unlock()
	s.edit = v.newEdit()
	if len(all) == 0 && s.old.byID.Len() > 0 {
		return 0, map[string]error{"": errEmptyList}
	}
	if v.resolver != nil {
		v.resolver.sweep()
	}
	s.apply()
	s.resolveContradictions()
	for id := range s.changed {
		if s.named(id) != s.old.named(id) {
			changed++
		}
	}
	v.install(s.edit)
	if len(s.errs) == 0 {
		s.errs = nil
	}
	return changed, s.errs
}

var errEmptyList = errors.New("verifier: Sync got an empty list and changed nothing, as the query may have failed: remove the last tenants with Remove")

// syncing is one call of Sync.
type syncing struct {
	rows []row
	ids  map[string]int // of all rows, bad ones included; how many have that ID
	errs map[string]error
	*edit
}

// A row is a tenant of the list that is good on its own.
type row struct {
	*Tenant
	same  *rules // the tenant's rules, if the row was as before when it was read
	fresh *rules // otherwise: the row, compiled
}

// read compiles the rows that differ from old. It runs without the lock, as it asks key stores.
func (s *syncing) read(all []Tenant, old *tenants) {
	s.ids = make(map[string]int, len(all))
	for i := range all {
		s.ids[all[i].ID]++
	}
	s.rows = make([]row, 0, len(all))
	for i := range all {
		r := row{Tenant: &all[i]}
		if s.ids[r.ID] > 1 && r.ID != "" {
			s.errs[r.ID] = givenTwice(r.ID)
			continue
		}
		if held := old.named(r.ID); held.isRow(r.Tenant) {
			r.same = held
		} else if r.fresh, s.errs[r.ID] = compile(*r.Tenant); s.errs[r.ID] != nil {
			continue
		} else {
			delete(s.errs, r.ID)
		}
		s.rows = append(s.rows, r)
	}
}

// apply makes the edit what the list says, except for rows that are bad.
func (s *syncing) apply() {
	for id := range s.old.byID.All() {
		if s.ids[id] == 0 {
			s.set(id, nil)
		}
	}
	for i := range s.rows {
		r := &s.rows[i]
		held := s.old.named(r.ID)
		if r.same != nil && (held == r.same || held.isRow(r.Tenant)) {
			continue
		}
		if r.fresh == nil { // the tenant was changed since the row was read
			var err error
			if r.fresh, err = compile(*r.Tenant); err != nil {
				s.errs[r.ID] = err
				continue
			}
		}
		s.put(r.fresh)
	}
}

// resolveContradictions takes back changed rows until no two tenants contradict each other. That ends:
// each round takes back at least one, and without changed rows the tenants are as they were, which was
// no contradiction.
func (s *syncing) resolveContradictions() {
	for {
		losers := s.losers()
		if len(losers) == 0 {
			return
		}
		for id, err := range losers {
			s.errs[id] = err
			s.set(id, s.old.named(id))
		}
	}
}

// losers returns the rows to take back next. Those that contradict an unchanged tenant come first, and
// then those that contradict one that has the issuer from before. The contradictions of the other rows
// may end by that.
func (s *syncing) losers() map[string]error {
	issuers := s.contradictions()
	if len(issuers) == 0 {
		return nil
	}
	disputes := s.disputes(issuers)
	for _, weak := range []func(d *dispute) map[string]error{(*dispute).againstUnchanged, (*dispute).againstHolders, (*dispute).all} {
		losers := make(map[string]error)
		for _, d := range disputes {
			maps.Copy(losers, weak(d))
		}
		if len(losers) > 0 {
			return losers
		}
	}
	return nil
}

// A dispute is about an issuer whose tenants contradict each other.
type dispute struct {
	issuer    string
	tenants   claimants
	rows      []*rules // the changed ones
	holders   []*rules // those of rows whose tenant had the issuer before
	unchanged bool     // there are unchanged ones
	claim     string   // the TenantClaim of the unchanged ones
}

// disputes returns what the issuers' tenants are.
func (s *syncing) disputes(issuers []string) []*dispute {
	of := make(map[string]*dispute, len(issuers))
	list := make([]*dispute, len(issuers))
	for i, issuer := range issuers {
		list[i] = &dispute{issuer: issuer, tenants: s.edit.claimants(issuer)}
		of[issuer] = list[i]
	}
	for _, id := range slices.Sorted(maps.Keys(s.changed)) {
		r, old := s.named(id), s.old.named(id)
		if r == nil || r == old {
			continue
		}
		for _, issuer := range r.names() {
			if d := of[issuer]; d != nil {
				d.rows = append(d.rows, r)
				if old != nil && slices.Contains(old.names(), issuer) {
					d.holders = append(d.holders, r)
				}
			}
		}
	}
	for _, d := range list {
		for _, g := range d.tenants.groups {
			changed := 0
			for _, r := range d.rows {
				if r.TenantClaim == g.claim {
					changed++
				}
			}
			if g.ids.Len() > changed { // unchanged ones do not contradict each other: this is their group
				d.unchanged, d.claim = true, g.claim
			}
		}
	}
	return list
}

// againstUnchanged returns the rows that contradict an unchanged tenant.
func (d *dispute) againstUnchanged() map[string]error {
	if !d.unchanged {
		return nil
	}
	return d.against(d.claim, d.rows)
}

// againstHolders returns the rows that contradict those that have the issuer from before, if these
// agree with each other.
func (d *dispute) againstHolders() map[string]error {
	if len(d.holders) == 0 {
		return nil
	}
	claim := d.holders[0].TenantClaim
	if len(d.holders) > 1 && (claim == "" || len(d.against(claim, d.holders)) > 0) {
		return nil
	}
	return d.against(claim, slices.DeleteFunc(slices.Clone(d.rows), func(r *rules) bool { return slices.Contains(d.holders, r) }))
}

// all returns all changed rows.
func (d *dispute) all() map[string]error { return d.against("", d.rows) }

// against returns those of the rows that cannot share the issuer with a tenant of that TenantClaim.
func (d *dispute) against(claim string, rows []*rules) map[string]error {
	losers := make(map[string]error)
	for _, r := range rows {
		if claim == "" || r.TenantClaim != claim {
			losers[r.ID] = sharedIssuer(r.ID, d.tenants.opponent(r), d.issuer)
		}
	}
	return losers
}

// isRow reports whether the tenant is as the row says, and nothing is to be done. One that
// [Config.Resolve] returned becomes one that was put.
func (r *rules) isRow(t *Tenant) bool { return r != nil && r.lease == nil && r.madeOf(t) }

// madeOf reports whether compile would make the same rules of t. It may say no where it would.
func (r *rules) madeOf(t *Tenant) bool {
	return r.ID == t.ID && sameStore(r.Keys, t.Keys) && sameFunc(&r.Check, &t.Check) &&
		r.Issuer == t.Issuer && r.TenantClaim == t.TenantClaim && r.Leeway == t.Leeway && r.MaxAge == t.MaxAge &&
		r.Suspended == t.Suspended && r.AnyIssuer == t.AnyIssuer && r.AnyAudience == t.AnyAudience &&
		r.AllowNoExpiry == t.AllowNoExpiry && r.MixedFamilies == t.MixedFamilies &&
		slices.Equal(r.Algorithms, t.Algorithms) && slices.Equal(r.Audiences, t.Audiences) &&
		slices.Equal(r.OtherIssuers, t.OtherIssuers) && slices.Equal(r.Types, t.Types) &&
		slices.Equal(r.Required, t.Required) && slices.Equal(r.Tolerate, t.Tolerate) &&
		matchMadeOf(r.match, t.Match) && matchMadeOf(r.matchHeader, t.MatchHeader)
}

func matchMadeOf(list []matched, of map[string][]string) bool {
	return len(list) == len(of) && !slices.ContainsFunc(list, func(m matched) bool {
		values, ok := of[m.name]
		return !ok || !slices.Equal(m.values, values)
	})
}

// sameStore reports whether a and b are one store. Stores that cannot be compared, such as a struct
// with a slice, are never the same: == panics on them.
func sameStore(a, b keystore.KeyStore) (same bool) {
	defer func() {
		if recover() != nil {
			same = false
		}
	}()
	return a == b
}

// sameFunc reports whether a and b hold one function value. The pointer that reflect.Value.Pointer
// returns is that of the code, which is the same for two closures that remember different things: a
// changed rule would be taken for the old one. A function value is a pointer to the code along with what
// it remembers, so that pointer is compared.
func sameFunc(a, b *func(*Token) error) bool {
	value := func(f *func(*Token) error) uintptr {
		return *reflect.NewAt(reflect.TypeFor[uintptr](), reflect.ValueOf(f).UnsafePointer()).Interface().(*uintptr)
	}
	if *a == nil || *b == nil {
		return *a == nil && *b == nil
	}
	return value(a) == value(b)
}
