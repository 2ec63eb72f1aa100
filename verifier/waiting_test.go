package verifier_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A waiting store has the key only after a Refresh, during which the test changes
// something.
type waiting struct {
	store  *keystore.Static // what it has after a Refresh
	asked  int
	during func(asked int)
	never  bool // Refresh brings nothing
}

func (w *waiting) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	if w.asked == 0 || w.never {
		return nil, errNotFound
	}
	return w.store.Lookup(id, alg)
}

func (w *waiting) Refresh(context.Context, keystore.ID) error {
	w.asked++
	w.during(w.asked)
	if w.never {
		return errUnavailable
	}
	return nil
}

// A waitTest changes something while a good token waits for its key.
type waitTest struct {
	name   string
	never  bool // the key does not come
	change func(w *waitWorld) error
	want   error
}

type waitWorld struct {
	t       *testing.T
	v       *verifier.Verifier
	now     time.Time
	rules   verifier.Tenant
	revoked *verifier.RevocationList
}

// put puts the tenant with changed rules.
func (w *waitWorld) put(edit func(*verifier.Tenant)) error {
	r := w.rules
	edit(&r)
	return w.v.Put(r)
}

var waitTests = []waitTest{
	{name: "nothing", change: func(*waitWorld) error { return nil }},
	{name: "suspended", change: func(w *waitWorld) error { return w.v.Suspend("acme") }, want: verifier.ErrSuspended},
	{name: "removed", change: func(w *waitWorld) error { return w.v.Remove("acme") }, want: verifier.ErrUnknownTenant},
	{name: "another audience", change: func(w *waitWorld) error {
		return w.put(func(r *verifier.Tenant) { r.Audiences = []string{"x"} })
	}, want: verifier.ErrAudience},
	{name: "another issuer", change: func(w *waitWorld) error {
		return w.put(func(r *verifier.Tenant) { r.Issuer = "https://x" })
	}, want: verifier.ErrInvalid},
	{name: "another algorithm", change: func(w *waitWorld) error {
		return w.put(func(r *verifier.Tenant) { r.Algorithms = []keystore.Algorithm{keystore.HS512} })
	}, want: verifier.ErrAlgorithm},
	{name: "another store, with another key", change: func(w *waitWorld) error {
		return w.put(func(r *verifier.Tenant) { r.Keys = static(w.t, key(w.t, "acme", "1", secretOf("x"))) })
	}, want: verifier.ErrSignature},
	{name: "another store, where the old one brings nothing", never: true, change: func(w *waitWorld) error {
		return w.put(func(r *verifier.Tenant) { r.Keys = static(w.t, key(w.t, "acme", "1", secret)) })
	}},
	{name: "resumed", change: func(w *waitWorld) error {
		if err := w.v.Suspend("acme"); err != nil {
			return err
		}
		return w.v.Resume("acme")
	}},
	{name: "expired", change: func(w *waitWorld) error { w.now = at(1800003600)(); return nil }, want: verifier.ErrExpired},
	{name: "expired, and the key does not come", never: true, change: func(w *waitWorld) error { w.now = at(1800003600)(); return nil }, want: verifier.ErrUnknownKey},
	{name: "not expired yet", change: func(w *waitWorld) error { w.now = at(1800003599)(); return nil }},
	{name: "revoked", change: func(w *waitWorld) error { return w.revoked.RevokeToken("acme", "7", time.Time{}) }, want: verifier.ErrRevoked},
	{name: "another tenant came", change: func(w *waitWorld) error { return w.v.Put(tenant(w.t, "new", "https://new", nil)) }},
}

// TestVerifyJudgesAfterItWaited: a token that waited for its key is judged by the rules and
// the time after the wait, with a hint and without one, and so is the next token.
func TestVerifyJudgesAfterItWaited(t *testing.T) {
	for _, tt := range waitTests {
		for _, hint := range []bool{false, true} {
			w := &waitWorld{t: t, now: at(nowUnix)(), rules: acme(t), revoked: verifier.NewRevocationList(1)}
			store := &waiting{store: static(t, key(t, "acme", "1", secret)), never: tt.never}
			store.during = func(int) {
				if err := tt.change(w); err != nil {
					t.Error(err)
				}
			}
			w.rules.Keys = store
			var err error
			w.v, err = verifier.New(verifier.Config{
				Tenants:     []verifier.Tenant{w.rules, tenant(t, "b", "https://b", nil), tenant(t, "c", "https://c", nil)},
				Revocations: w.revoked, Now: func() time.Time { return w.now },
			})
			if err != nil {
				t.Fatal(err)
			}
			verify := w.v.Verify
			if hint {
				verify = func(ctx context.Context, token string) (*verifier.Token, error) {
					return w.v.VerifyTenant(ctx, "acme", token)
				}
			}
			token := sign(goodHeader, with(`"jti":"7"`))
			tok, err := verify(t.Context(), token)
			check(t, tt.name, tok, err, tt.want)
			if store.asked != 1 {
				t.Errorf("%s: asked %d times", tt.name, store.asked)
			}
			store.during = func(int) {}
			tok, err = verify(t.Context(), token)
			check(t, tt.name+", the next one", tok, err, tt.want)
		}
	}
}

// TestVerifyWaitsWithinBounds: a tenant that changes during each wait does not hold a token up
// for ever. There is no verdict then, since each one would be of rules that are gone.
func TestVerifyWaitsWithinBounds(t *testing.T) {
	var v *verifier.Verifier
	r := acme(t)
	store := &waiting{store: static(t, key(t, "acme", "1", secret)), never: true}
	store.during = func(int) {
		if err := v.Put(r); err != nil {
			t.Error(err)
		}
	}
	r.Keys = store
	v = newVerifier(t, r)
	tok, err := v.Verify(t.Context(), sign(goodHeader, goodPayload))
	check(t, "changed each time", tok, err, verifier.ErrUnavailable)
	if store.asked != 2 {
		t.Errorf("asked %d times, want 2", store.asked)
	}
	store.never, store.asked = false, 0
	tok, err = v.Verify(t.Context(), sign(goodHeader, goodPayload))
	check(t, "changed, but the key has come", tok, err, nil)
}
