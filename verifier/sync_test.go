package verifier_test

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// rows returns a list for Sync. Most rows are as before; some are missing, new, different, bad, or there
// twice.
func (w *modelWorld) rows() (list []verifier.Tenant) {
	for _, id := range w.ids {
		r := w.m.byID[id]
		switch n := w.r.IntN(10); {
		case n < 2:
		case n < 6 && r != nil:
			list = append(list, r.Tenant)
		case n == 9:
			list = append(list, w.tenant(id), w.tenant(id))
		default:
			list = append(list, w.tenant(id))
		}
	}
	w.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// syncStep syncs to a random list. The model takes the rows without error as listed, and leaves those
// with one as they were; that must be valid.
func (w *modelWorld) syncStep(t *testing.T) (refused int) {
	t.Helper()
	list := w.rows()
	changed, errs := w.v.Sync(list)
	if len(list) == 0 && len(w.m.byID) > 0 {
		if changed != 0 || errs[""] == nil {
			t.Errorf("an empty list: %d changed, %v", changed, errs)
		}
		return 0
	}
	before, want := w.m, 0
	next, ok := w.m.change(func(byID map[string]*modelRules) bool {
		listed := make(map[string]bool)
		for _, row := range list {
			listed[row.ID] = true
			old := byID[row.ID]
			if errs[row.ID] != nil || old != nil && reflect.DeepEqual(old.Tenant, row) {
				continue
			}
			byID[row.ID] = &modelRules{row, old != nil && old.bySuspend}
			want++
		}
		for _, id := range w.ids {
			if !listed[id] && byID[id] != nil {
				delete(byID, id)
				want++
			}
		}
		return true
	})
	if w.m = next; !ok || changed != want {
		t.Errorf("Sync: %v, valid %v, %d changed, want %d", errs, ok, changed, want)
	}
	for id, err := range errs {
		if !w.isBad(list, before, id) {
			t.Errorf("%s has error %v, and nothing wrong", id, err)
		}
	}
	w.syncAgain(t, list, errs)
	return len(errs)
}

// isBad reports whether something is wrong with the row: on its own, or beside another row or another
// tenant as it was.
func (w *modelWorld) isBad(list []verifier.Tenant, before tenantModel, id string) bool {
	rows := slices.DeleteFunc(slices.Clone(list), func(t verifier.Tenant) bool { return t.ID != id })
	if len(rows) != 1 || len(rows[0].Algorithms) == 0 {
		return true
	}
	others := slices.Clone(list)
	for _, r := range before.byID {
		others = append(others, r.Tenant)
	}
	return slices.ContainsFunc(others, func(o verifier.Tenant) bool {
		pair := tenantModel{map[string]*modelRules{"row": {Tenant: rows[0]}, "other": {Tenant: o}}}
		return o.ID != id && !pair.valid()
	})
}

// syncAgain checks that the same list, in any order, changes nothing more.
func (w *modelWorld) syncAgain(t *testing.T, list []verifier.Tenant, errs map[string]error) {
	t.Helper()
	w.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	changed, again := w.v.Sync(list)
	if changed != 0 || !slices.Equal(slices.Sorted(maps.Keys(errs)), slices.Sorted(maps.Keys(again))) {
		t.Errorf("the list a second time: %d changed, %v, and first %v", changed, again, errs)
	}
}

// TestSyncModel makes random changes, calls of Sync among them, and compares the verifier with the
// model, as TestTenantsModel does.
func TestSyncModel(t *testing.T) {
	refused, hits := 0, 0
	for seed := range uint64(20) {
		w := newModelWorld(t, seed+100)
		for range 150 {
			if w.r.IntN(2) == 0 {
				w.step(t)
			} else {
				refused += w.syncStep(t)
			}
			w.verify(t)
			w.verify(t)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		hits += w.hits
	}
	if t.Logf("%d rows were refused, %d hits", refused, hits); refused < 1000 || hits < 100 {
		t.Errorf("%d rows were refused, %d hits: the test proves little", refused, hits)
	}
}

// TestSyncDoesNotDependOnOrder syncs two verifiers from one state to one list in two orders.
func TestSyncDoesNotDependOnOrder(t *testing.T) {
	for seed := range uint64(200) {
		w := newModelWorld(t, seed)
		first, list := w.rows(), w.rows()
		turned := slices.Clone(list)
		slices.Reverse(turned)
		other := newVerifier(t)
		w.v.Sync(first)
		other.Sync(first)
		n, errs := w.v.Sync(list)
		if m, errs2 := other.Sync(turned); n != m || !slices.Equal(slices.Sorted(maps.Keys(errs)), slices.Sorted(maps.Keys(errs2))) {
			t.Errorf("seed %d: %d changed, %v; and turned around %d, %v", seed, n, errs, m, errs2)
		}
	}
}

// TestSyncWhoIsBad: a row with the issuer of another tenant is bad, and never takes the issuer away.
func TestSyncWhoIsBad(t *testing.T) {
	a, b := tenant(t, "a", "https://a", nil), tenant(t, "b", "https://b", nil)
	edited := func(r verifier.Tenant, edit func(*verifier.Tenant)) verifier.Tenant { edit(&r); return r }
	thief := tenant(t, "c", "https://a", nil)
	elsewhere := func(r *verifier.Tenant) { r.Issuer = "https://elsewhere" }
	broken := func(r *verifier.Tenant) { r.Algorithms = nil }
	tests := []struct {
		name string
		list []verifier.Tenant
		bad  string // IDs
	}{
		{"the thief is new", []verifier.Tenant{a, b, thief}, "c"},
		{"the holder changed too", []verifier.Tenant{thief, edited(a, func(r *verifier.Tenant) { r.Required = []string{"x"} }), b}, "c"},
		{"two new ones", []verifier.Tenant{a, b, tenant(t, "c", "https://new", nil), tenant(t, "d", "https://new", nil)}, "c d"},
		{"the issuer moves", []verifier.Tenant{edited(a, elsewhere), b, thief}, ""},
		{"the holder is gone", []verifier.Tenant{b, thief}, ""},
		{"the holder's move is bad", []verifier.Tenant{edited(edited(a, elsewhere), broken), b, thief}, "a c"},
		{"two swap", []verifier.Tenant{edited(a, func(r *verifier.Tenant) { r.Issuer = b.Issuer }), edited(b, func(r *verifier.Tenant) { r.Issuer = a.Issuer })}, ""},
		{"a refused row does not refuse a third", []verifier.Tenant{a, b, edited(thief, func(r *verifier.Tenant) { r.OtherIssuers = []string{"https://d"} }), tenant(t, "d", "https://d", nil)}, "c"},
		{"twice", []verifier.Tenant{a, a, b}, "a"},
		{"no ID", []verifier.Tenant{a, b, edited(thief, func(r *verifier.Tenant) { r.ID = "" })}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := newVerifier(t, a, b)
			_, errs := v.Sync(tt.list)
			if got := strings.TrimSpace(strings.Join(slices.Sorted(maps.Keys(errs)), " ")); got != tt.bad {
				t.Errorf("bad are %q (%v), want %q", got, errs, tt.bad)
			}
			if tt.name == "no ID" && errs[""] == nil {
				t.Error("a row without ID has no error")
			}
		})
	}
}

// TestSyncEmptyList: a query that failed must not remove all tenants.
func TestSyncEmptyList(t *testing.T) {
	v := newVerifier(t, tenant(t, "a", "https://a", nil))
	if n, errs := v.Sync(nil); n != 0 || errs[""] == nil || !strings.Contains(errs[""].Error(), "Remove") {
		t.Errorf("%d, %v", n, errs)
	}
	if err := v.Remove("a"); err != nil {
		t.Errorf("after an empty list: %v", err)
	}
	if n, errs := v.Sync(nil); n != 0 || errs != nil {
		t.Errorf("without tenants: %d, %v", n, errs)
	}
}

// uncomparable is a store that == cannot compare.
type uncomparable struct {
	keystore.KeyStore
	_ []int
}

// TestSyncComparesRows: a row that is as before keeps its cached tokens, and every difference counts.
func TestSyncComparesRows(t *testing.T) {
	base := acme(t)
	base.Match, base.MatchHeader = map[string][]string{"sub": {"ann", "bob"}}, nil
	var checks []func(*verifier.Token) error
	for _, denied := range []string{"bob", "ann"} { // the same code, which remembers different things
		checks = append(checks, func(tok *verifier.Token) error {
			if tok.Subject() == denied {
				return errors.New(denied)
			}
			return nil
		})
	}
	base.Check = checks[0]
	v := newVerifier(t, base, tenant(t, "z", "https://z", nil))
	z := tenant(t, "z", "https://z", nil)
	v.Sync([]verifier.Tenant{base, z})
	same := base
	same.Algorithms, same.Audiences = slices.Clone(base.Algorithms), slices.Clone(base.Audiences)
	same.Match = map[string][]string{"sub": {"ann", "bob"}}
	same.Required, same.Tolerate = []string{}, []verifier.Tolerance{}
	if n, errs := v.Sync([]verifier.Tenant{same, z}); n != 0 || errs != nil {
		t.Errorf("an equal row: %d, %v", n, errs)
	}
	for name, edit := range map[string]func(*verifier.Tenant){
		"Keys":            func(r *verifier.Tenant) { r.Keys = static(t, key(t, "acme", "1", secret)) },
		"a store without": func(r *verifier.Tenant) { r.Keys = uncomparable{KeyStore: r.Keys} },
		"Algorithms":      func(r *verifier.Tenant) { r.Algorithms = append(slices.Clone(r.Algorithms), keystore.HS512) },
		"Issuer":          func(r *verifier.Tenant) { r.Issuer += "/" },
		"OtherIssuers":    func(r *verifier.Tenant) { r.OtherIssuers = []string{"x"} },
		"Audiences":       func(r *verifier.Tenant) { r.Audiences = []string{"api"} },
		"Types":           func(r *verifier.Tenant) { r.Types = []string{"JWT"} },
		"TenantClaim":     func(r *verifier.Tenant) { r.TenantClaim = "tid" },
		"Required":        func(r *verifier.Tenant) { r.Required = []string{"sub"} },
		"Match":           func(r *verifier.Tenant) { r.Match = map[string][]string{"sub": {"ann"}} },
		"no Match":        func(r *verifier.Tenant) { r.Match = nil },
		"MatchHeader":     func(r *verifier.Tenant) { r.MatchHeader = map[string][]string{"x": {"1"}} },
		"Tolerate":        func(r *verifier.Tenant) { r.Tolerate = []verifier.Tolerance{verifier.NullMembers} },
		"Leeway":          func(r *verifier.Tenant) { r.Leeway = 1 },
		"MaxAge":          func(r *verifier.Tenant) { r.MaxAge = 1 << 40 },
		"Check":           func(r *verifier.Tenant) { r.Check = checks[1] },
		"no Check":        func(r *verifier.Tenant) { r.Check = nil },
		"Suspended":       func(r *verifier.Tenant) { r.Suspended = true },
		"AnyIssuer":       func(r *verifier.Tenant) { r.Issuer, r.AnyIssuer = "", true },
		"AnyAudience":     func(r *verifier.Tenant) { r.Audiences, r.AnyAudience = nil, true },
		"AllowNoExpiry":   func(r *verifier.Tenant) { r.AllowNoExpiry = true },
		"MixedFamilies":   func(r *verifier.Tenant) { r.MixedFamilies = true },
	} {
		edited := base
		edit(&edited)
		if n, errs := v.Sync([]verifier.Tenant{edited, z}); n != 1 || errs != nil {
			t.Errorf("another %s: %d, %v", name, n, errs)
		}
		v.Sync([]verifier.Tenant{base, z})
	}
	fields := reflect.TypeFor[verifier.Tenant]().NumField()
	if fields != 20 {
		t.Errorf("a Tenant has %d fields: compare the new ones in madeOf, and here", fields)
	}
}

// TestSyncKeepsCachedTokens: tokens of unchanged and of suspended rows.
func TestSyncKeepsCachedTokens(t *testing.T) {
	a, b := tenant(t, "a", "https://a", nil), tenant(t, "b", "https://b", nil)
	w := newTwin(t, a, b)
	sync := func(list ...verifier.Tenant) {
		w.do(func(v *verifier.Verifier) error {
			_, errs := v.Sync(list)
			return errors.Join(slices.Collect(maps.Values(errs))...)
		})
	}
	token := tokenOf("a", `"iss":"https://a"`)
	w.hit("before", token)
	sync(a, b, tenant(t, "c", "https://c", nil))
	before := w.on.CacheStats().Hits
	w.verifyN("unchanged", token, nil, 1)
	if w.on.CacheStats().Hits != before+1 {
		t.Error("Sync ended the cached token of an unchanged row")
	}
	w.do(func(v *verifier.Verifier) error { return v.Suspend("a") })
	sync(a, b)
	w.verify("a suspension stays", token, verifier.ErrSuspended)
	w.do(func(v *verifier.Verifier) error { return v.Resume("a") })
	w.verify("resumed", token, nil)
	a.Suspended = true
	sync(a, b)
	w.verify("a suspended row", token, verifier.ErrSuspended)
	w.do(func(v *verifier.Verifier) error { return v.Resume("a") })
	w.verify("resumed against its row", token, nil)
	sync(a, b)
	w.verify("the row suspends again", token, verifier.ErrSuspended)
	a.Suspended = false
	sync(a, b)
	w.verify("a row that is no longer suspended", token, nil)
	sync(b)
	w.verify("gone", token, verifier.ErrSignature)
}

// hooked is a store that is asked whether it serves a tenant, and calls a function then.
type hooked struct {
	keystore.KeyStore
	serves func()
}

func (h hooked) Serves(string) bool { h.serves(); return true }

// TestSyncWhileTenantsChange: a Put in the midst of a Sync, after its row was found to be as before. What
// the list says counts.
func TestSyncWhileTenantsChange(t *testing.T) {
	a, narrow := tenant(t, "a", "https://a", nil), tenant(t, "a", "https://a", func(r *verifier.Tenant) { r.Required = []string{"role"} })
	narrow.Keys = a.Keys
	v := newVerifier(t, a)
	for _, change := range []func() error{
		func() error { return v.Put(narrow) },
		func() error { return v.Remove("a") },
		func() error { return v.Suspend("a") },
	} {
		put := true
		b := tenant(t, "b", "https://b", func(r *verifier.Tenant) {
			r.Keys = &hooked{r.Keys, func() {
				if put {
					put = false
					if err := change(); err != nil {
						t.Error(err)
					}
				}
			}}
		})
		if _, errs := v.Sync([]verifier.Tenant{a, b}); errs != nil || put {
			t.Fatal(errs, put)
		}
		if err := v.Resume("a"); err != nil {
			t.Fatal(err)
		}
		tok, err := v.Verify(t.Context(), tokenOf("a", `"iss":"https://a"`))
		check(t, "after Sync", tok, err, nil)
	}
}
