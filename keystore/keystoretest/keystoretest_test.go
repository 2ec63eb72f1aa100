package keystoretest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// secrets is where the keys of a Subject come from: what a file or a server is
// to a real store.
type secrets struct {
	tenant string
	held   []secret
	minted int
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
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// subject returns a Subject whose store is told of all keys after every change.
func subject(t *testing.T, store keystore.KeyStore, replace func(keys ...*keystore.Key) error) Subject {
	from := &secrets{tenant: "acme"}
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

func TestStaticKeepsTheContract(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		static := newStatic(t)
		return subject(t, static, static.Replace)
	})
}

// asking is a Refresher that has nothing new, as its contract wants it.
type asking struct{ *keystore.Static }

func (asking) Refresh(ctx context.Context, _ keystore.ID) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", keystore.ErrUnavailable, ctx.Err())
	}
	return keystore.ErrNotFound
}

func TestRefresherKeepsTheContract(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		store := asking{newStatic(t)}
		return subject(t, store, store.Replace)
	})
}

// altered is a store whose Lookup a test spoils.
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

// refreshing is a Refresher that a test spoils.
type refreshing struct {
	*keystore.Static
	refresh func(ctx context.Context) error
}

func (s refreshing) Refresh(ctx context.Context, _ keystore.ID) error { return s.refresh(ctx) }

// A store that breaks one rule is caught, and by the check whose name says so.
func TestBrokenStoresAreCaught(t *testing.T) {
	lookup := func(f func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error)) func(t *testing.T) Subject {
		return func(t *testing.T) Subject {
			s := &altered{Static: newStatic(t), lookup: f}
			s.all.Store(new([]*keystore.Key))
			return subject(t, s, s.replace)
		}
	}
	rebuild := func(withdraws bool) func(t *testing.T) Subject {
		return func(t *testing.T) Subject {
			s := &rebuilding{withdraws: withdraws}
			s.now.Store(newStatic(t))
			return subject(t, s, s.replace)
		}
	}
	refresh := func(f func(ctx context.Context) error) func(t *testing.T) Subject {
		return func(t *testing.T) Subject {
			s := refreshing{newStatic(t), f}
			return subject(t, s, s.Replace)
		}
	}
	// matching returns the keys of s that match, or ErrNotFound.
	matching := func(s *altered, match func(*keystore.Key) bool) ([]*keystore.Key, error) {
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

	tests := []struct {
		name  string
		open  func(t *testing.T) Subject
		check string
		want  string
	}{
		{"rebuilds its keys on reload", rebuild(true), "a key that stays keeps its pointer", "another *Key after a reload"},
		{"rebuilds its keys and withdraws none", rebuild(false), "a key that goes is withdrawn at once", "still Usable"},
		{"rebuilds its keys and withdraws none: they verify", rebuild(false), "a key that goes is withdrawn at once", "still verifies"},
		{
			"falls back to the only key", lookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
				if keys, err := s.Static.Lookup(id, alg); err == nil {
					return keys, nil
				}
				return s.Static.Lookup(keystore.ID{Tenant: id.Tenant}, alg)
			}), "what names no key finds none", "want no key",
		},
		{
			"mixes tenants", lookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
				return matching(s, func(k *keystore.Key) bool { return k.ID().KID == id.KID && k.Algorithm() == alg })
			}), "tenants are kept apart", "another tenant",
		},
		{
			"offers other tenants' keys without kid", lookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
				if id.KID == "" {
					id.Tenant = "acme"
				}
				return s.Static.Lookup(id, alg)
			}), "tenants are kept apart", "another tenant",
		},
		{
			"returns five candidates", lookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
				if id.KID == "" {
					return matching(s, func(k *keystore.Key) bool { return k.ID().Tenant == id.Tenant && k.Algorithm() == alg })
				}
				return s.Static.Lookup(id, alg)
			}), "a token without kid", "want 1 to 4 keys",
		},
		{
			"ignores the algorithm", lookup(func(s *altered, id keystore.ID, _ keystore.Algorithm) ([]*keystore.Key, error) {
				return s.Static.Lookup(id, keystore.HS256)
			}), "what names no key finds none", "another algorithm",
		},
		{
			"returns nothing and no error", lookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
				keys, _ := s.Static.Lookup(id, alg)
				return keys, nil
			}), "what names no key finds none", "returned 0 keys and no error",
		},
		{
			"has an error of its own", lookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
				keys, err := s.Static.Lookup(id, alg)
				if err != nil {
					return nil, errors.New("no such row")
				}
				return keys, nil
			}), "what names no key finds none", "wraps neither",
		},
		{
			"returns keys along with an error", lookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
				keys, err := s.Static.Lookup(id, alg)
				if err != nil {
					return *s.all.Load(), err
				}
				return keys, nil
			}), "what names no key finds none", "keys along with an error",
		},
		{
			"makes a key for every lookup", lookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
				keys, err := s.Static.Lookup(id, alg)
				if err != nil || id.KID == "" {
					return keys, err
				}
				n := strings.TrimPrefix(id.KID, "kid-")
				k, err := keystore.NewSecret(id, alg, []byte(strings.Repeat("0", 32-len(n))+n))
				return []*keystore.Key{k}, err
			}), "a key that is held is found and verifies", "two Keys for the same material",
		},
		{"waits in Refresh for a context that has ended", refresh(func(context.Context) error {
			time.Sleep(2 * atOnce)
			return nil
		}), "Refresh", "did not return"},
		{"returns ctx.Err() alone from Refresh", refresh(func(ctx context.Context) error {
			return ctx.Err()
		}), "Refresh", "wraps neither"},
		{"has an error of its own in Refresh", refresh(func(context.Context) error {
			return errors.New("connection reset")
		}), "Refresh", "wraps neither"},
		{
			"loses keys while others come and go", lookup(func() func(*altered, keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
				var asked atomic.Int64
				return func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
					if asked.Add(1)%50 == 0 {
						return nil, keystore.ErrUnavailable
					}
					return s.Static.Lookup(id, alg)
				}
			}()), "concurrent use", "while other keys came and went",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range checks {
				if c.name != tt.check {
					continue
				}
				errs := c.run(t, tt.open(t))
				if !slices.ContainsFunc(errs, func(err error) bool { return strings.Contains(err.Error(), tt.want) }) {
					t.Errorf("check %q reported %q, want a failure with %q", c.name, errs, tt.want)
				}
				return
			}
			t.Errorf("there is no check %q", tt.check)
		})
	}
}
