package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// scripted is a store whose answers a test gives: Lookup those of before, and
// after a Refresh those of after.
type scripted struct {
	before, after   []*keystore.Key
	lookupErr       error // of Lookup, where there are no keys
	refresh         error
	lookups, asked  int
	cancelInRefresh context.CancelFunc
}

func (s *scripted) Lookup(keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
	s.lookups++
	keys := s.before
	if s.asked > 0 {
		keys = s.after
	}
	if keys == nil {
		return nil, s.lookupErr
	}
	return keys, nil
}

func (s *scripted) Refresh(ctx context.Context, _ keystore.ID) error {
	s.asked++
	if s.cancelInRefresh != nil {
		s.cancelInRefresh()
		<-ctx.Done()
	}
	return s.refresh
}

// onlyLookup hides Refresh.
type onlyLookup struct{ keystore.KeyStore }

var (
	errNotFound    = fmt.Errorf("store: %w", keystore.ErrNotFound)
	errUnavailable = fmt.Errorf("store: %w", keystore.ErrUnavailable)
	errOdd         = errors.New("odd error of a store")
)

// TestUnknownKey pins rules 9 and 10: who asks for news, and whether the verdict
// is 401 or 503.
func TestUnknownKey(t *testing.T) {
	good := key(t, "acme", "1", secret)
	withdrawn := key(t, "acme", "1", secret)
	withdrawn.Withdraw()
	ended := key(t, "acme", "1", secret)
	ended.SetUntil(time.Unix(nowUnix, 0))
	ends := key(t, "acme", "1", secret)
	ends.SetUntil(time.Unix(nowUnix, 1))
	list := func(keys ...*keystore.Key) []*keystore.Key { return keys }
	rs := func() *keystore.Key {
		k, err := keystore.NewSecret(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS384, append(secret, secret...))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}()

	token := sign(goodHeader, goodPayload)
	tests := []struct {
		name   string
		store  scripted
		plain  bool // no Refresher
		token  string
		want   error
		asked  int
		cancel bool
	}{
		{name: "at hand", store: scripted{before: list(good)}},
		{name: "one of several", store: scripted{before: list(key(t, "acme", "1", secretOf("x")), good)}},
		{name: "none of several", store: scripted{before: list(key(t, "acme", "1", secretOf("x")))}, want: verifier.ErrSignature},
		{name: "the fifth candidate is not tried", store: scripted{before: list(key(t, "acme", "1", secretOf("x")), key(t, "acme", "1", secretOf("x")),
			key(t, "acme", "1", secretOf("x")), key(t, "acme", "1", secretOf("x")), good)}, want: verifier.ErrSignature},
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

		{name: "withdrawn", store: scripted{before: list(withdrawn), refresh: errNotFound, lookupErr: errNotFound}, asked: 1, want: verifier.ErrUnknownKey},
		{name: "at its end", store: scripted{before: list(ended), refresh: errNotFound, lookupErr: errNotFound}, asked: 1, want: verifier.ErrUnknownKey},
		{name: "just before its end", store: scripted{before: list(ends)}},
		{name: "at its end, store out of step", store: scripted{before: list(ended), after: list(ended), refresh: errUnavailable}, asked: 1, want: verifier.ErrUnavailable},
		{name: "a store that hands out another tenant's key", plain: true, store: scripted{before: list(key(t, "globex", "1", secret))}, want: verifier.ErrUnknownKey},
		{name: "a store that hands out another kid", plain: true, store: scripted{before: list(key(t, "acme", "2", secret))}, want: verifier.ErrUnknownKey},
		{name: "a store that hands out another algorithm", plain: true, store: scripted{before: list(rs)}, want: verifier.ErrUnknownKey},
		{name: "a store that hands out nil", plain: true, store: scripted{before: list(nil)}, want: verifier.ErrUnknownKey},
		{name: "a store that hands out nothing", plain: true, store: scripted{before: list()}, want: verifier.ErrUnknownKey},

		// What never costs a Refresh, whether the key is unknown or cannot be told.
		{name: "expired", token: sign(goodHeader, with(`"exp":1`)), store: scripted{lookupErr: errUnavailable}, want: verifier.ErrUnknownKey},
		{name: "another audience", token: sign(goodHeader, with(`"aud":"x"`)), store: scripted{lookupErr: errUnavailable}, want: verifier.ErrUnknownKey},
		{name: "another issuer", token: sign(goodHeader, with(`"iss":"x"`)), store: scripted{lookupErr: errNotFound}, want: verifier.ErrUnknownKey},
		{name: "another typ", token: sign(`{"alg":"HS256","kid":"1","typ":"x"}`, goodPayload), store: scripted{lookupErr: errNotFound}, want: verifier.ErrUnknownKey},
		{name: "another alg", token: sign(`{"alg":"HS512","kid":"1"}`, goodPayload), store: scripted{lookupErr: errNotFound}, want: verifier.ErrAlgorithm},
		{name: "not yet valid", token: sign(goodHeader, with(`"nbf":1800000001`)), store: scripted{lookupErr: errNotFound}, want: verifier.ErrUnknownKey},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
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
			if tt.token == "" {
				tt.token = token
			}
			tok, err := v.Verify(ctx, tt.token)
			check(t, tt.name, tok, err, tt.want)
			if tt.store.asked != tt.asked {
				t.Errorf("asked for news %d times, want %d", tt.store.asked, tt.asked)
			}
			if tt.cancel && seen.Outcome != verifier.Canceled {
				t.Errorf("observed %+v: a caller that leaves is no outage", seen)
			}
		})
	}
}

// TestStoresOwnDeadline: a store that ran out of its own time is an outage.
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

type revocations struct {
	revoked bool
	err     error
	asked   *verifier.Token
}

func (r *revocations) Revoked(t *verifier.Token) (bool, error) {
	r.asked = t
	return r.revoked, r.err
}

// TestRevocations pins rule 17: asked last, and only of good tokens.
func TestRevocations(t *testing.T) {
	for _, tt := range []struct {
		name  string
		list  revocations
		token string
		asked bool
		want  error
	}{
		{"not revoked", revocations{}, sign(goodHeader, goodPayload), true, nil},
		{"revoked", revocations{revoked: true}, sign(goodHeader, goodPayload), true, verifier.ErrRevoked},
		{"cannot tell", revocations{err: errOdd}, sign(goodHeader, goodPayload), true, verifier.ErrUnavailable},
		{"expired is not asked", revocations{revoked: true}, sign(goodHeader, with(`"exp":1`)), false, verifier.ErrExpired},
	} {
		v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Now: at(nowUnix), Revocations: &tt.list})
		if err != nil {
			t.Fatal(err)
		}
		tok, err := v.Verify(t.Context(), tt.token)
		check(t, tt.name, tok, err, tt.want)
		if (tt.list.asked != nil) != tt.asked {
			t.Errorf("%s: asked %v", tt.name, tt.list.asked)
		}
	}
}

func TestObserve(t *testing.T) {
	var seen []verifier.Event
	now := time.Unix(nowUnix, 0)
	v, err := verifier.New(verifier.Config{
		Tenants: []verifier.Tenant{acme(t)},
		Now:     func() time.Time { now = now.Add(time.Millisecond); return now },
		Observe: func(_ context.Context, e verifier.Event) { seen = append(seen, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{sign(goodHeader, goodPayload), sign(goodHeader, with(`"exp":1`)), "x"} {
		v.Verify(t.Context(), token)
	}
	v.VerifyTenant(t.Context(), "nobody", sign(goodHeader, goodPayload))
	want := []verifier.Event{
		{Tenant: "acme", Outcome: verifier.Accepted, Duration: time.Millisecond},
		{Tenant: "acme", Outcome: verifier.Refused, Reason: verifier.ReasonExpired, Duration: time.Millisecond},
		{Outcome: verifier.Refused, Reason: verifier.ReasonMalformed, Duration: time.Millisecond},
		{Outcome: verifier.Refused, Reason: verifier.ReasonUnknownTenant, Duration: time.Millisecond},
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("observed %+v\nwant     %+v", seen, want)
	}
}

// TestVerdictsDoNotMix: what a store or a Check wraps in its error does not turn
// "cannot tell" into a verdict, or a verdict into "cannot tell".
func TestVerdictsDoNotMix(t *testing.T) {
	token := sign(goodHeader, goodPayload)
	r := acme(t)
	r.Check = func(*verifier.Token) error { return fmt.Errorf("%w: %w", verifier.ErrUnavailable, errOdd) }
	tok, err := newVerifier(t, r).Verify(t.Context(), token)
	check(t, "a Check that cannot tell", tok, err, verifier.ErrClaim)
	check(t, "its own error", tok, err, errOdd)

	r = acme(t)
	refusal := &verifier.Error{Reason: verifier.ReasonExpired, Err: verifier.ErrExpired}
	r.Keys = onlyLookup{&scripted{lookupErr: fmt.Errorf("%w: %w", errOdd, refusal)}}
	tok, err = newVerifier(t, r).Verify(t.Context(), token)
	check(t, "a store that wraps a verdict", tok, err, verifier.ErrUnavailable)
	check(t, "its own error", tok, err, errOdd)
	if errors.Is(err, verifier.ErrExpired) {
		t.Errorf("%v is a verdict", err)
	}
}
