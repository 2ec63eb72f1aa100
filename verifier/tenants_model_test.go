package verifier_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// modelRules are a tenant of the model. Two pointers to equal rules differ: a token that was cached
// under the one is verified again under the other.
type modelRules struct {
	verifier.Tenant
	bySuspend bool
}

func (r *modelRules) issuers() []string {
	if r.AnyIssuer {
		return nil
	}
	return append([]string{r.Issuer}, r.OtherIssuers...)
}

// A tenantModel is the tenants of a verifier in the plainest way: each change looks at all of them.
type tenantModel struct{ byID map[string]*modelRules }

// of returns the tenant of un-hinted tokens with that issuer, or nil.
func (m tenantModel) of(issuer string) *modelRules {
	var found []*modelRules
	for _, r := range m.byID {
		if len(m.byID) == 1 {
			return r
		}
		if slices.Contains(r.issuers(), issuer) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		return nil
	}
	return found[0]
}

// routes says which of all tokens without a hint reach r.
func (m tenantModel) routes(r *modelRules) (all []string) {
	for _, issuer := range append(r.issuers(), "none of all") {
		if m.of(issuer) == r {
			all = append(all, issuer)
		}
	}
	return all
}

// valid reports whether no two tenants contradict each other.
func (m tenantModel) valid() bool {
	for _, a := range m.byID {
		for _, b := range m.byID {
			shares := a.AnyIssuer && b.AnyIssuer || slices.ContainsFunc(a.issuers(), func(i string) bool { return slices.Contains(b.issuers(), i) })
			if a != b && shares && (a.TenantClaim == "" || a.TenantClaim != b.TenantClaim) {
				return false
			}
		}
	}
	return true
}

// change returns the model after a change, or false if it is refused. A tenant that un-hinted tokens
// reach in another way gets new rules.
func (m tenantModel) change(edit func(byID map[string]*modelRules) bool) (tenantModel, bool) {
	next := tenantModel{maps.Clone(m.byID)}
	if !edit(next.byID) || !next.valid() {
		return m, false
	}
	moved := maps.Clone(next.byID)
	for id, r := range next.byID {
		if m.byID[id] == r && !slices.Equal(m.routes(r), next.routes(r)) {
			moved[id] = &modelRules{r.Tenant, r.bySuspend}
		}
	}
	return tenantModel{moved}, true
}

func (m tenantModel) change1(put []verifier.Tenant, remove []string) (tenantModel, bool) {
	return m.change(func(byID map[string]*modelRules) bool {
		for _, id := range remove {
			if byID[id] == nil {
				return false
			}
			delete(byID, id)
		}
		for i, t := range put {
			if len(t.Algorithms) == 0 || slices.ContainsFunc(put[:i], func(o verifier.Tenant) bool { return o.ID == t.ID }) {
				return false
			}
			old := byID[t.ID]
			byID[t.ID] = &modelRules{t, old != nil && old.bySuspend}
		}
		return true
	})
}

func (m tenantModel) suspend(id string, suspended bool) (tenantModel, bool) {
	return m.change(func(byID map[string]*modelRules) bool {
		r := byID[id]
		if r == nil {
			return false
		}
		if r.bySuspend != suspended || !suspended && r.Suspended {
			byID[id] = &modelRules{r.Tenant, suspended}
			byID[id].Suspended = suspended && r.Suspended
		}
		return true
	})
}

// verdict returns the rules that judge a token of signer, and what they say.
func (m tenantModel) verdict(hint, signer, issuer string) (*modelRules, verifier.Reason) {
	r := m.of(issuer)
	if hint != noHint {
		r = m.byID[hint]
	}
	switch has := r != nil && (r.AnyIssuer || slices.Contains(r.issuers(), issuer)); {
	case r == nil:
		return nil, verifier.ReasonUnknownTenant
	case hint != noHint && !has:
		return r, verifier.ReasonIssuer
	case r.Suspended || r.bySuspend:
		return r, verifier.ReasonSuspended
	case r.ID != signer:
		return r, verifier.ReasonSignature
	case !has:
		return r, verifier.ReasonIssuer
	case len(r.Required) > 0:
		return r, verifier.ReasonMissingClaim
	}
	return r, ""
}

const noHint = "-"

// A modelWorld is a verifier and its model.
type modelWorld struct {
	v    *verifier.Verifier
	m    tenantModel
	r    *rand.Rand
	keys keystore.KeyStore
	ids  []string
	saw  map[[3]string]*modelRules // under which rules a token was verified last
	seen map[verifier.Reason]int
	hits int
}

var modelIssuers = []string{"https://1", "https://2", "https://3", "https://4"}

func newModelWorld(t *testing.T, seed uint64) *modelWorld {
	w := &modelWorld{v: newVerifier(t), m: tenantModel{map[string]*modelRules{}}, r: rand.New(rand.NewPCG(seed, 2)),
		saw: make(map[[3]string]*modelRules), seen: make(map[verifier.Reason]int), ids: []string{"a", "b", "c", "d", "e"}}
	var keys []*keystore.Key
	for _, id := range w.ids {
		keys = append(keys, key(t, id, "1", secretOf(id)))
	}
	w.keys = static(t, keys...)
	return w
}

func (w *modelWorld) id() string { return w.ids[w.r.IntN(len(w.ids))] }

// tenant returns a random tenant. Most are good, and many share an issuer.
func (w *modelWorld) tenant(id string) verifier.Tenant {
	t := verifier.Tenant{ID: id, Keys: w.keys, Algorithms: []keystore.Algorithm{keystore.HS256}, AnyAudience: true, Leeway: -1}
	t.TenantClaim = []string{"", "tid", "tid", "tid", "org"}[w.r.IntN(5)]
	t.Issuer = modelIssuers[w.r.IntN(len(modelIssuers))]
	switch w.r.IntN(12) {
	case 0:
		t.Issuer, t.AnyIssuer = "", true
	case 1:
		t.Algorithms = nil
	case 2:
		t.Required = []string{"role"}
	case 3:
		t.Suspended = true
	case 4, 5:
		if other := modelIssuers[w.r.IntN(len(modelIssuers))]; other != t.Issuer {
			t.OtherIssuers = []string{other}
		}
	}
	return t
}

func (w *modelWorld) some() (put []verifier.Tenant, remove []string) {
	for range w.r.IntN(4) {
		put = append(put, w.tenant(w.id()))
	}
	for range w.r.IntN(3) {
		remove = append(remove, w.id())
	}
	return put, remove
}

// step makes a random change of both, which must agree about whether it is valid.
func (w *modelWorld) step(t *testing.T) {
	t.Helper()
	id := w.id()
	put, remove := w.some()
	var what string
	var err error
	var ok bool
	switch w.r.IntN(6) {
	case 0:
		what, err = "Remove "+id, w.v.Remove(id)
		w.m, ok = w.m.change1(nil, []string{id})
	case 1:
		what, err = "Suspend "+id, w.v.Suspend(id)
		w.m, ok = w.m.suspend(id, true)
	case 2:
		what, err = "Resume "+id, w.v.Resume(id)
		w.m, ok = w.m.suspend(id, false)
	case 3:
		one := w.tenant(id)
		what, err = "Put "+id, w.v.Put(one)
		w.m, ok = w.m.change1([]verifier.Tenant{one}, nil)
	case 4:
		what, err = fmt.Sprint("Put ", len(put)), w.v.Put(put...)
		w.m, ok = w.m.change1(put, nil)
	default:
		what, err = fmt.Sprint("Change ", len(put), remove), w.v.Change(put, remove)
		w.m, ok = w.m.change1(put, remove)
	}
	if (err == nil) != ok {
		t.Errorf("%s: %v, and the model says %v", what, err, ok)
	}
}

// verify verifies a random token of each tenant, and compares the verdict, and whether it comes from
// the cache.
func (w *modelWorld) verify(t *testing.T) {
	t.Helper()
	for _, signer := range w.ids {
		issuer, hint := modelIssuers[w.r.IntN(len(modelIssuers))], append(w.ids, noHint, noHint, noHint, signer, signer)[w.r.IntN(len(w.ids)+5)]
		token := tokenOf(signer, fmt.Sprintf(`"iss":%q,"tid":%q,"org":%q`, issuer, signer, signer))
		var tok *verifier.Token
		var err error
		if hint == noHint {
			tok, err = w.v.Verify(t.Context(), token)
		} else {
			tok, err = w.v.VerifyTenant(t.Context(), hint, token)
		}
		r, want := w.m.verdict(hint, signer, issuer)
		var got verifier.Reason
		if e := (*verifier.Error)(nil); errors.As(err, &e) {
			got = e.Reason
		}
		w.seen[want]++
		if got != want {
			t.Errorf("hint %s, signer %s, issuer %s: %q (%v), want %q", hint, signer, issuer, got, err, want)
			continue
		}
		if err != nil {
			continue
		}
		at := [3]string{hint, signer, issuer}
		if cached := w.saw[at] == r; tok.Cached() != cached {
			t.Errorf("hint %s, signer %s, issuer %s: cached %v, want %v", hint, signer, issuer, tok.Cached(), cached)
		} else if cached {
			w.hits++
		}
		w.saw[at] = r
	}
}

// TestTenantsModel makes random changes of tenants, and compares the verifier with the model: which
// changes are refused, the verdict on each token, and which cached tokens live on. Issuers become
// shared and stop being shared, one tenant becomes two and two become one.
func TestTenantsModel(t *testing.T) {
	seen, hits, alone := make(map[verifier.Reason]int), 0, 0
	for seed := range uint64(20) {
		w := newModelWorld(t, seed)
		for range 200 {
			w.step(t)
			w.verify(t)
			w.verify(t)
			if len(w.m.byID) == 1 {
				alone++
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		for reason, n := range w.seen {
			seen[reason] += n
		}
		hits += w.hits
	}
	t.Logf("%v, %d hits, %d times one tenant", seen, hits, alone)
	for _, reason := range []verifier.Reason{"", verifier.ReasonUnknownTenant, verifier.ReasonIssuer, verifier.ReasonSuspended, verifier.ReasonSignature, verifier.ReasonMissingClaim} {
		if seen[reason] < 100 || hits < 500 || alone < 100 {
			t.Errorf("%d verdicts were %q: the test proves little", seen[reason], reason)
		}
	}
}
