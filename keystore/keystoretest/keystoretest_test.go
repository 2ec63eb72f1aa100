package keystoretest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

func TestStaticKeepsContract(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		static := newStatic(t)
		return subject(t, static, static.Replace)
	})
}

func TestStaticOfWeakSecretsKeepsContract(t *testing.T) {
	until := time.Now().Add(time.Hour)
	Run(t, func(t *testing.T) Subject {
		static := newStatic(t)
		return subjectOf(t, &secrets{tenant: "acme", weakUntil: until}, static, static.Replace)
	})
}

func TestRefresherKeepsContract(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		store := asking{newStatic(t)}
		return subject(t, store, store.Replace)
	})
}

// A brokenStore breaks one rule of the contract.
type brokenStore struct {
	name  string
	open  func(t *testing.T) Subject
	check string // the check that finds it
	want  string // a part of what the check reports
}

// withWrongKeys return keys that a token must not get, or too many.
var withWrongKeys = []brokenStore{
	{
		"falls back to the only key", brokenLookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
			if keys, err := s.Static.Lookup(id, alg); err == nil {
				return keys, nil
			}
			return s.Static.Lookup(keystore.ID{Tenant: id.Tenant}, alg)
		}), "what names no key finds none", "want no key",
	},
	{
		"mixes tenants", brokenLookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
			return matching(s, func(k *keystore.Key) bool { return k.ID().KID == id.KID && k.Algorithm() == alg })
		}), "tenants are kept apart", "another tenant",
	},
	{
		"offers other tenants' keys without kid", brokenLookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
			if id.KID == "" {
				id.Tenant = "acme"
			}
			return s.Static.Lookup(id, alg)
		}), "tenants are kept apart", "another tenant",
	},
	{
		"returns ten candidates", brokenLookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
			if id.KID == "" {
				return matching(s, func(k *keystore.Key) bool { return k.ID().Tenant == id.Tenant && k.Algorithm() == alg })
			}
			return s.Static.Lookup(id, alg)
		}), "a token without kid", "cost 10 together, want at most 8",
	},
	{
		"ignores the algorithm", brokenLookup(func(s *altered, id keystore.ID, _ keystore.Algorithm) ([]*keystore.Key, error) {
			return s.Static.Lookup(id, keystore.HS256)
		}), "what names no key finds none", "another algorithm",
	},
	{
		"returns nothing and no error", brokenLookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
			keys, _ := s.Static.Lookup(id, alg)
			return keys, nil
		}), "what names no key finds none", "returned 0 keys and no error",
	},
}

// withWrongErrors return errors that say too little, or keys with them.
var withWrongErrors = []brokenStore{
	{
		"has an error of its own", brokenLookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
			keys, err := s.Static.Lookup(id, alg)
			if err != nil {
				return nil, errors.New("no such row")
			}
			return keys, nil
		}), "what names no key finds none", "wraps neither",
	},
	{
		"returns keys along with an error", brokenLookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
			keys, err := s.Static.Lookup(id, alg)
			if err != nil {
				return *s.all.Load(), err
			}
			return keys, nil
		}), "what names no key finds none", "keys along with an error",
	},
	{
		"makes a key for every lookup", brokenLookup(func(s *altered, id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
			keys, err := s.Static.Lookup(id, alg)
			if err != nil || id.KID == "" {
				return keys, err
			}
			n := strings.TrimPrefix(id.KID, "kid-")
			k, err := keystore.NewSecret(id, alg, []byte(strings.Repeat("0", 32-len(n))+n))
			return []*keystore.Key{k}, err
		}), "a key that is held is found and verifies", "two Keys for the same material",
	},
}

// withWrongChanges go wrong while keys change.
var withWrongChanges = []brokenStore{
	{"rebuilds its keys on reload", brokenReload(true), "a key that stays keeps its pointer", "another *Key after a reload"},
	{"rebuilds its keys and withdraws none", brokenReload(false), "a key that goes is withdrawn at once", "still Usable"},
	{"rebuilds its keys and withdraws none: they verify", brokenReload(false), "a key that goes is withdrawn at once", "still verifies"},
	{"waits in Refresh for a context that has ended", brokenRefresh(func(context.Context) error {
		time.Sleep(2 * atOnce)
		return nil
	}), "Refresh", "did not return"},
	{"returns ctx.Err() alone from Refresh", brokenRefresh(func(ctx context.Context) error {
		return ctx.Err()
	}), "Refresh", "wraps neither"},
	{"has an error of its own in Refresh", brokenRefresh(func(context.Context) error {
		return errors.New("connection reset")
	}), "Refresh", "wraps neither"},
	{"loses keys while others come and go", brokenLookup(losing()), "concurrent use", "while other keys came and went"},
}

// A store that breaks one rule is caught, by the check whose name says so.
func TestBrokenStoresAreCaught(t *testing.T) {
	for _, tt := range slices.Concat(withWrongKeys, withWrongErrors, withWrongChanges) {
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
