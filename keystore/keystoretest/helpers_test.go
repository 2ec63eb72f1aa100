package keystoretest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// secrets is the source of the keys of a Subject, as a file or a server is for a real
// store.
type secrets struct {
	tenant string
	held   []secret
	minted int

	weakUntil time.Time // if not zero, the secrets are half as long, and weak until then
}

type secret struct {
	id    keystore.ID
	value []byte
}

func (s *secrets) mint() Signing {
	s.minted++
	it := secret{
		id:    keystore.ID{Tenant: s.tenant, KID: fmt.Sprintf("kid-%d", s.minted)},
		value: fmt.Appendf(nil, "%032d", s.minted),
	}
	if !s.weakUntil.IsZero() {
		it.value = it.value[16:]
	}
	s.held = append(s.held, it)
	return Signing{ID: it.id, Algorithm: keystore.HS256, Sign: func(msg []byte) []byte {
		mac := hmac.New(sha256.New, it.value)
		mac.Write(msg)
		return mac.Sum(nil)
	}}
}

func (s *secrets) keys(t *testing.T) (keys []*keystore.Key) {
	for _, it := range s.held {
		k, err := keystore.NewSecret(it.id, keystore.HS256, it.value)
		if !s.weakUntil.IsZero() {
			k, err = keystore.NewWeakSecret(it.id, keystore.HS256, it.value, s.weakUntil)
		}
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// subject returns a Subject that passes all keys to replace after every change.
func subject(t *testing.T, store keystore.KeyStore, replace func(keys ...*keystore.Key) error) Subject {
	return subjectOf(t, &secrets{tenant: "acme"}, store, replace)
}

// subjectOf is subject, with the source of the keys.
func subjectOf(t *testing.T, from *secrets, store keystore.KeyStore, replace func(keys ...*keystore.Key) error) Subject {
	load := func(t *testing.T) {
		t.Helper()
		if err := replace(from.keys(t)...); err != nil {
			t.Fatal(err)
		}
	}
	return Subject{
		Store:  store,
		Tenant: from.tenant,
		Add: func(t *testing.T) Signing {
			key := from.mint()
			load(t)
			return key
		},
		Reload: load,
		Remove: func(t *testing.T, id keystore.ID) {
			from.held = slices.DeleteFunc(from.held, func(it secret) bool { return it.id == id })
			load(t)
		},
	}
}

func newStatic(t *testing.T) *keystore.Static {
	static, err := keystore.NewStatic()
	if err != nil {
		t.Fatal(err)
	}
	return static
}

// asking is a Refresher without news, which keeps its contract.
type asking struct{ *keystore.Static }

func (asking) Refresh(ctx context.Context, _ keystore.ID) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", keystore.ErrUnavailable, ctx.Err())
	}
	return keystore.ErrNotFound
}

// altered is a store with a Lookup that breaks the contract.
type altered struct {
	*keystore.Static
	all    atomic.Pointer[[]*keystore.Key]
	lookup func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error)
}

func (s *altered) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	return s.lookup(s, id, alg)
}

func (s *altered) replace(keys ...*keystore.Key) error {
	s.all.Store(&keys)
	return s.Replace(keys...)
}

// rebuilding makes a new Static for every load. Its old keys are withdrawn if
// withdraws is set.
type rebuilding struct {
	now       atomic.Pointer[keystore.Static]
	withdraws bool
}

func (s *rebuilding) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	return s.now.Load().Lookup(id, alg)
}

func (s *rebuilding) replace(keys ...*keystore.Key) error {
	next, err := keystore.NewStatic(keys...)
	if err != nil {
		return err
	}
	if old := s.now.Swap(next); s.withdraws && old != nil {
		return old.Replace()
	}
	return nil
}

// refreshing is a Refresher that breaks its contract.
type refreshing struct {
	*keystore.Static
	refresh func(ctx context.Context) error
}

func (s refreshing) Refresh(ctx context.Context, _ keystore.ID) error { return s.refresh(ctx) }

// brokenLookup opens a store whose Lookup is f.
func brokenLookup(f func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error)) func(t *testing.T) Subject {
	return func(t *testing.T) Subject {
		s := &altered{Static: newStatic(t), lookup: f}
		s.all.Store(new([]*keystore.Key))
		return subject(t, s, s.replace)
	}
}

// brokenReload opens a store that makes new keys for every load.
func brokenReload(withdraws bool) func(t *testing.T) Subject {
	return func(t *testing.T) Subject {
		s := &rebuilding{withdraws: withdraws}
		s.now.Store(newStatic(t))
		return subject(t, s, s.replace)
	}
}

// brokenRefresh opens a store whose Refresh is f.
func brokenRefresh(f func(ctx context.Context) error) func(t *testing.T) Subject {
	return func(t *testing.T) Subject {
		s := refreshing{newStatic(t), f}
		return subject(t, s, s.Replace)
	}
}

// matching returns the keys of s that match, or ErrNotFound.
func matching(s *altered, match func(*keystore.Key) bool) ([]*keystore.Key, error) {
	var found []*keystore.Key
	for _, k := range *s.all.Load() {
		if held, err := s.Static.Lookup(k.ID(), k.Algorithm()); err == nil && match(held[0]) {
			found = append(found, held[0])
		}
	}
	if found == nil {
		return nil, keystore.ErrNotFound
	}
	return found, nil
}

// losing returns a Lookup that fails now and then.
func losing() func(*altered, keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
	var asked atomic.Int64
	return func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
		if asked.Add(1)%50 == 0 {
			return nil, keystore.ErrUnavailable
		}
		return s.Static.Lookup(id, alg)
	}
}
