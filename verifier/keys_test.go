package verifier_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A keyTest is a token and a store that holds its key, or not.
type keyTest struct {
	name   string
	store  scripted
	plain  bool   // the store is no Refresher
	token  string // a good one if empty
	want   error
	asked  int  // calls of Refresh
	cancel bool // the caller's context ends during Refresh
}

func (tt *keyTest) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if tt.cancel {
		tt.store.cancelInRefresh = cancel
	}
	r := acme(t)
	r.Keys = &tt.store
	if tt.plain {
		r.Keys = onlyLookup{&tt.store}
	}
	var seen verifier.Event
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{r}, Now: at(nowUnix),
		Observe: func(_ context.Context, e verifier.Event) { seen = e }})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := v.Verify(ctx, cmp.Or(tt.token, sign(goodHeader, goodPayload)))
	check(t, tt.name, tok, err, tt.want)
	if tt.store.asked != tt.asked {
		t.Errorf("asked for news %d times, want %d", tt.store.asked, tt.asked)
	}
	if tt.cancel && seen.Outcome != verifier.Canceled {
		t.Errorf("observed %+v: a caller that leaves is no outage", seen)
	}
}

// TestUnknownKey pins rules 9 and 10: which tokens make the store ask for news, and
// whether the verdict is 401 or 503.
func TestUnknownKey(t *testing.T) {
	for _, tests := range [][]keyTest{candidateTests(t), newsTests(t), unfitTests(t), implausibleTests} {
		for _, tt := range tests {
			t.Run(tt.name, tt.run)
		}
	}
}

func list(keys ...*keystore.Key) []*keystore.Key { return keys }

func candidateTests(t *testing.T) []keyTest {
	good := key(t, "acme", "1", secret)
	return []keyTest{
		{name: "at hand", store: scripted{before: list(good)}},
		{name: "one of several", store: scripted{before: list(key(t, "acme", "1", secretOf("x")), good)}},
		{name: "none of several", store: scripted{before: list(key(t, "acme", "1", secretOf("x")))}, want: verifier.ErrSignature},
		{name: "eight candidates", store: scripted{before: append(slices.Repeat(list(key(t, "acme", "1", secretOf("x"))), 7), good)}},
		{name: "of nine candidates none is tried", plain: true, store: scripted{before: append(list(good), slices.Repeat(list(key(t, "acme", "1", secretOf("x"))), 8)...)}, want: verifier.ErrUnknownKey},
	}
}

func newsTests(t *testing.T) []keyTest {
	good := key(t, "acme", "1", secret)
	return []keyTest{
		{name: "not found, no refresher", plain: true, store: scripted{lookupErr: errNotFound}, want: verifier.ErrUnknownKey},
		{name: "unavailable, no refresher", plain: true, store: scripted{lookupErr: errUnavailable}, want: verifier.ErrUnavailable},
		{name: "an odd error, no refresher", plain: true, store: scripted{lookupErr: errOdd}, want: verifier.ErrUnavailable},
		{name: "not found in one store, unavailable in another", plain: true, store: scripted{lookupErr: errors.Join(errNotFound, errUnavailable)}, want: verifier.ErrUnavailable},
		{name: "news: not found in one store, unavailable in another", store: scripted{lookupErr: errNotFound, refresh: errors.Join(errNotFound, errUnavailable)}, asked: 1, want: verifier.ErrUnavailable},
		{name: "an odd error is wrapped", plain: true, store: scripted{lookupErr: errOdd}, want: errOdd},
		{name: "learned", store: scripted{lookupErr: errNotFound, after: list(good)}, asked: 1},
		{name: "learned while unavailable", store: scripted{lookupErr: errUnavailable, after: list(good)}, asked: 1},
		{name: "learned by another, though the budget is spent", store: scripted{lookupErr: errNotFound, refresh: errNotFound, after: list(good)}, asked: 1},
		{name: "nothing new", store: scripted{lookupErr: errNotFound, refresh: errNotFound}, asked: 1, want: verifier.ErrUnknownKey},
		{name: "asked, still not found", store: scripted{lookupErr: errNotFound}, asked: 1, want: verifier.ErrUnknownKey},
		{name: "asked, still unavailable", store: scripted{lookupErr: errUnavailable}, asked: 1, want: verifier.ErrUnavailable},
		{name: "cannot ask", store: scripted{lookupErr: errNotFound, refresh: errUnavailable}, asked: 1, want: verifier.ErrUnavailable},
		{name: "an odd error in asking", store: scripted{lookupErr: errNotFound, refresh: errOdd}, asked: 1, want: verifier.ErrUnavailable},
		{name: "the caller leaves", cancel: true, store: scripted{lookupErr: errNotFound, refresh: errUnavailable}, asked: 1, want: context.Canceled},
		{name: "the caller leaves: cannot tell", cancel: true, store: scripted{lookupErr: errNotFound, refresh: context.Canceled}, asked: 1, want: verifier.ErrUnavailable},
	}
}

// unfitTests have stores that hold a key which does not serve, or break their contract.
func unfitTests(t *testing.T) []keyTest {
	withdrawn := key(t, "acme", "1", secret)
	withdrawn.Withdraw()
	ended := key(t, "acme", "1", secret)
	ended.SetUntil(time.Unix(nowUnix, 0))
	ends := key(t, "acme", "1", secret)
	ends.SetUntil(time.Unix(nowUnix, 1))
	hs384, err := keystore.NewSecret(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS384, append(secret, secret...))
	if err != nil {
		t.Fatal(err)
	}
	return []keyTest{
		{name: "withdrawn", store: scripted{before: list(withdrawn), refresh: errNotFound, lookupErr: errNotFound}, asked: 1, want: verifier.ErrUnknownKey},
		{name: "at its end", store: scripted{before: list(ended), refresh: errNotFound, lookupErr: errNotFound}, asked: 1, want: verifier.ErrUnknownKey},
		{name: "just before its end", store: scripted{before: list(ends)}},
		{name: "at its end, store out of sync", store: scripted{before: list(ended), after: list(ended), refresh: errUnavailable}, asked: 1, want: verifier.ErrUnavailable},
		{name: "a store that hands out another tenant's key", plain: true, store: scripted{before: list(key(t, "globex", "1", secret))}, want: verifier.ErrUnknownKey},
		{name: "a store that hands out another kid", plain: true, store: scripted{before: list(key(t, "acme", "2", secret))}, want: verifier.ErrUnknownKey},
		{name: "a store that hands out another algorithm", plain: true, store: scripted{before: list(hs384)}, want: verifier.ErrUnknownKey},
		{name: "a store that hands out nil", plain: true, store: scripted{before: list(nil)}, want: verifier.ErrUnknownKey},
		{name: "a store that hands out nothing", plain: true, store: scripted{before: list()}, want: verifier.ErrUnknownKey},
	}
}

// implausibleTests have tokens that never cost a Refresh, whether the store knows that
// there is no such key or cannot tell.
var implausibleTests = []keyTest{
	{name: "expired", token: sign(goodHeader, with(`"exp":1`)), store: scripted{lookupErr: errUnavailable}, want: verifier.ErrUnknownKey},
	{name: "another audience", token: sign(goodHeader, with(`"aud":"x"`)), store: scripted{lookupErr: errUnavailable}, want: verifier.ErrUnknownKey},
	{name: "another issuer", token: sign(goodHeader, with(`"iss":"x"`)), store: scripted{lookupErr: errNotFound}, want: verifier.ErrUnknownKey},
	{name: "another typ", token: sign(`{"alg":"HS256","kid":"1","typ":"x"}`, goodPayload), store: scripted{lookupErr: errNotFound}, want: verifier.ErrUnknownKey},
	{name: "another alg", token: sign(`{"alg":"HS512","kid":"1"}`, goodPayload), store: scripted{lookupErr: errNotFound}, want: verifier.ErrAlgorithm},
	{name: "not yet valid", token: sign(goodHeader, with(`"nbf":1800000001`)), store: scripted{lookupErr: errNotFound}, want: verifier.ErrUnknownKey},
}

// TestStoresOwnDeadline: a timeout of the store's own is an outage.
func TestStoresOwnDeadline(t *testing.T) {
	r := acme(t)
	r.Keys = &scripted{lookupErr: errNotFound, refresh: context.DeadlineExceeded}
	var seen verifier.Event
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{r}, Now: at(nowUnix),
		Observe: func(_ context.Context, e verifier.Event) { seen = e }})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := v.Verify(t.Context(), sign(goodHeader, goodPayload))
	check(t, "own deadline", tok, err, verifier.ErrUnavailable)
	if seen.Outcome != verifier.Unavailable || seen.Tenant != "acme" || seen.Reason != verifier.ReasonUnavailable {
		t.Errorf("observed %+v", seen)
	}
}

// TestEndedContext: if the store has the key, an ended context does not matter.
func TestEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newVerifier(t, acme(t)).Verify(ctx, sign(goodHeader, goodPayload)); err != nil {
		t.Error(err)
	}
}
