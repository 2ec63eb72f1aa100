package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// A fixed store always answers the same.
type fixed struct {
	keys    []*keystore.Key
	err     error // of Lookup, where there are no keys
	refresh error
	asked   int
	used    int
}

func (f *fixed) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	if f.keys != nil {
		return f.keys, nil
	}
	return nil, f.err
}

func (f *fixed) Refresh(context.Context, keystore.ID) error { f.asked++; return f.refresh }
func (f *fixed) NoteUse(string)                             { f.used++ }

var errAway = fmt.Errorf("away: %w", keystore.ErrUnavailable)

func TestJoinLookup(t *testing.T) {
	one, two := hs256(t, "acme", "1", "a"), hs256(t, "acme", "1", "b")
	slow := public(t, "1", keystore.ES384, 3)
	missing, away := &fixed{err: keystore.ErrNotFound}, &fixed{err: errAway}
	skipped := &fixed{err: keystore.NotFound("skipped")}
	revoked := &fixed{err: fmt.Errorf("ring: %w", keystore.ErrRevoked)}
	tests := []struct {
		name   string
		stores []keystore.KeyStore
		want   int
		err    error
		unsure bool
	}{
		{name: "no stores", err: keystore.ErrNotFound},
		{name: "one has it", stores: []keystore.KeyStore{missing, &fixed{keys: []*keystore.Key{one}}}, want: 1},
		{name: "both have one", stores: []keystore.KeyStore{&fixed{keys: []*keystore.Key{one}}, &fixed{keys: []*keystore.Key{two}}}, want: 2},
		{name: "none has it", stores: []keystore.KeyStore{missing, missing}, err: keystore.ErrNotFound},
		{name: "none has it, one cannot tell", stores: []keystore.KeyStore{missing, away}, err: keystore.ErrUnavailable, unsure: true},
		{name: "none has it, the first cannot tell", stores: []keystore.KeyStore{away, missing}, err: keystore.ErrUnavailable, unsure: true},
		{name: "an odd error is unavailable", stores: []keystore.KeyStore{missing, &fixed{err: errors.New("odd")}}, err: keystore.ErrUnavailable, unsure: true},
		{name: "one has it, one cannot tell", stores: []keystore.KeyStore{away, &fixed{keys: []*keystore.Key{one}}}, want: 1, unsure: true},
		{name: "revoked in one", stores: []keystore.KeyStore{&fixed{keys: []*keystore.Key{one}}, revoked}, err: keystore.ErrRevoked},
		{name: "two slow keys", stores: []keystore.KeyStore{&fixed{keys: slow[:1]}, &fixed{keys: slow[1:2]}}, want: 2},
		{name: "too many together", stores: []keystore.KeyStore{&fixed{keys: slow[:2]}, &fixed{keys: slow[2:]}}, err: keystore.ErrNotFound},
		{name: "a detail is kept", stores: []keystore.KeyStore{missing, skipped, missing}, err: skipped.err},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := keystore.Join(tt.stores...)
			id := keystore.ID{Tenant: "acme", KID: "1"}
			keys, err := store.Lookup(id, keystore.HS256)
			if len(keys) != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Errorf("Lookup = %v, %v, want %d keys, %v", keys, err, tt.want, tt.err)
			}
			if errors.Is(err, keystore.ErrNotFound) == errors.Is(err, keystore.ErrUnavailable) && err != nil {
				t.Errorf("%v is both, or neither, of ErrNotFound and ErrUnavailable", err)
			}
			unsure := store.(interface {
				Unsure(keystore.ID, keystore.Algorithm) error
			}).Unsure(id, keystore.HS256)
			if (unsure != nil) != tt.unsure || unsure != nil && !errors.Is(unsure, keystore.ErrUnavailable) {
				t.Errorf("Unsure = %v, want an error: %v", unsure, tt.unsure)
			}
		})
	}
}

func TestJoinRefresh(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []error
		want    error
	}{
		{"none can be asked", nil, keystore.ErrNotFound},
		{"one has news", []error{nil}, nil},
		{"one of two has news", []error{errAway, nil}, nil},
		{"no news", []error{keystore.ErrNotFound, keystore.ErrNotFound}, keystore.ErrNotFound},
		{"one could not be asked", []error{keystore.ErrNotFound, errAway}, keystore.ErrUnavailable},
		{"one could not be asked, the other has no news", []error{errAway, keystore.ErrNotFound}, keystore.ErrUnavailable},
	} {
		stores := []keystore.KeyStore{static(t)}
		for _, err := range tt.answers {
			stores = append(stores, &fixed{refresh: err})
		}
		err := keystore.Join(stores...).(keystore.Refresher).Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "1"})
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || errors.Is(err, keystore.ErrNotFound) && errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		for _, s := range stores[1:] {
			if s.(*fixed).asked != 1 {
				t.Errorf("%s: a store was asked %d times", tt.name, s.(*fixed).asked)
			}
		}
	}
}

// A slowRefresher answers after a second, or when its context ends.
type slowRefresher struct{ fixed }

func (s *slowRefresher) Refresh(ctx context.Context, _ keystore.ID) error {
	select {
	case <-time.After(time.Second):
		return s.refresh
	case <-ctx.Done():
		return errAway
	}
}

// TestJoinRefreshWithoutKID: news of one store does not answer a token without kid, whose key may be that of another.
func TestJoinRefreshWithoutKID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			kid        string
			fast, slow error
			want       error
			waits      bool
		}{
			{kid: "1", slow: errAway},
			{kid: "1", fast: keystore.ErrNotFound, waits: true},
			{slow: errAway, want: keystore.ErrUnavailable, waits: true},
			{fast: errAway, want: keystore.ErrUnavailable, waits: true},
			{slow: keystore.ErrNotFound, waits: true},
			{fast: keystore.ErrNotFound, waits: true},
			{waits: true},
			{fast: keystore.ErrNotFound, slow: keystore.ErrNotFound, want: keystore.ErrNotFound, waits: true},
		} {
			start := time.Now()
			store := keystore.Join(&slowRefresher{fixed{refresh: tt.slow}}, &fixed{refresh: tt.fast}).(keystore.Refresher)
			err := store.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: tt.kid})
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || time.Since(start) >= time.Second != tt.waits {
				t.Errorf("%+v: %v after %v", tt, err, time.Since(start))
			}
		}
	})
}

// limited has the optional methods of a store, for the tenant acme.
type limited struct {
	fixed
	leeway time.Duration
	ready  error
}

func (l *limited) Serves(tenant string) bool                    { return tenant == "acme" }
func (l *limited) MaxLeeway(string) time.Duration               { return l.leeway }
func (l *limited) CanServe(_ string, a keystore.Algorithm) bool { return !a.Symmetric() }
func (l *limited) Ready(string) error                           { return l.ready }

func TestJoinForwards(t *testing.T) {
	long, short := &limited{leeway: time.Minute}, &limited{leeway: time.Second, ready: errors.New("cold")}
	store := keystore.Join(long, short).(interface {
		keystore.UseNoter
		Serves(string) bool
		MaxLeeway(string) time.Duration
		CanServe(string, keystore.Algorithm) bool
		Ready(string) error
	})
	store.NoteUse("acme")
	if long.used != 1 || short.used != 1 {
		t.Error("a use was not noted")
	}
	if !store.Serves("acme") || store.Serves("globex") || store.MaxLeeway("acme") != time.Second || store.MaxLeeway("globex") < time.Hour {
		t.Error("Serves or MaxLeeway is not that of the stores")
	}
	if store.CanServe("acme", keystore.HS256) || !store.CanServe("acme", keystore.ES256) || !keystore.Join(long, static(t)).(interface {
		CanServe(string, keystore.Algorithm) bool
	}).CanServe("acme", keystore.HS256) {
		t.Error("CanServe is not that of the stores")
	}
	if err := store.Ready("acme"); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "cold") || store.Ready("globex") != nil {
		t.Errorf("Ready = %v", err)
	}
}

// TestJoinOfNil: a store whose constructor failed is found at once, and not by the first token.
func TestJoinOfNil(t *testing.T) {
	for _, store := range []keystore.KeyStore{nil, (*keystore.Static)(nil)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Join takes a nil %T", store)
				}
			}()
			keystore.Join(static(t), store)
		}()
	}
}

func TestJoinAllocatesNothing(t *testing.T) {
	k := hs256(t, "acme", "1", "a")
	store := keystore.Join(static(t), static(t, k))
	if n := testing.AllocsPerRun(100, func() {
		if keys, err := store.Lookup(k.ID(), keystore.HS256); err != nil || keys[0] != k {
			t.Error(err)
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}
