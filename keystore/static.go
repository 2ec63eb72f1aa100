package keystore

import (
	"sync"
	"sync/atomic"
)

// Static is a [KeyStore] whose keys change only by [Static.Replace]: shared
// secrets and fixed public keys. Up to [MaxCandidates] keys may share an ID and algorithm,
// which is how an old and a new secret overlap. The zero Static is empty. Static
// is safe for concurrent use, starts no goroutines and needs no closing.
type Static struct {
	keys atomic.Pointer[staticKeys] // replaced whole, never modified
	mu   sync.Mutex                 // held while keys is replaced
}

var _ KeyStore = (*Static)(nil)

type staticKeys struct {
	all     []*Key
	by      map[lookup][]*Key // by their own IDs
	offered map[lookup][]*Key // what Lookup answers
	tenants map[string]bool
}

// load returns the keys, none for the zero Static.
func (s *Static) load() *staticKeys {
	if keys := s.keys.Load(); keys != nil {
		return keys
	}
	return new(staticKeys)
}

type lookup struct {
	id  ID
	alg Algorithm
}

// NewStatic returns a store that holds keys. See [Static.Replace] for the
// errors.
func NewStatic(keys ...*Key) (*Static, error) {
	s := new(Static)
	if err := s.Replace(keys...); err != nil {
		return nil, err
	}
	return s, nil
}

// Lookup implements [KeyStore].
func (s *Static) Lookup(id ID, alg Algorithm) ([]*Key, error) {
	if keys := s.load().offered[lookup{id, alg}]; keys != nil {
		return keys, nil
	}
	return nil, ErrNotFound
}

// Serves reports whether the store has keys of tenant. A store that is still
// empty serves any.
func (s *Static) Serves(tenant string) bool {
	now := s.load()
	return len(now.all) == 0 || now.tenants[tenant]
}

// Replace makes the store hold keys and no others, all at once. A key that is
// [Key.Equal] to one that the store holds is not taken in: the one held stays,
// with the end of the new one, so that a caller may rebuild all keys each time.
// The keys that go are withdrawn, and tokens that they vouched for end with
// them.
//
// It reports an error, and changes nothing, if a key is nil, was withdrawn, or
// belongs to another store, or if more than [MaxCandidates] keys share an ID and algorithm.
// A key given twice counts once.
func (s *Static) Replace(keys ...*Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.load()

	next := &staticKeys{by: make(map[lookup][]*Key), tenants: make(map[string]bool)}
	ends := make(map[*Key]int64) // where the held keys that stay will end
	var claimed []*Key
	fail := func(err error) error {
		for _, k := range claimed {
			k.owner.Store(nil)
		}
		return err
	}
	for _, k := range keys {
		if k == nil {
			return fail(failf("a nil Key"))
		}
		at := lookup{k.id, k.alg}
		end := k.until.Load()
		if end == withdrawn {
			return fail(failf("%v was withdrawn, which is final: make a new Key", k))
		}
		if held := equalIn(old.by[at], k); held != nil {
			ends[held] = end
			k = held
		}
		if equalIn(next.by[at], k) != nil {
			continue
		}
		if len(next.by[at]) == MaxCandidates {
			return fail(failf("more than %d keys share %v and %s: take the oldest out", MaxCandidates, k.id, k.alg))
		}
		if k.owner.CompareAndSwap(nil, s) {
			claimed = append(claimed, k)
		} else if k.owner.Load() != s {
			return fail(failf("%v belongs to another store: make a Key for each store", k))
		}
		next.all = append(next.all, k)
		next.by[at] = append(next.by[at], k)
		next.tenants[k.id.Tenant] = true
	}
	next.offer()

	for k, end := range ends {
		k.setEnd(end)
	}
	s.keys.Store(next)
	stays := make(map[*Key]bool, len(next.all))
	for _, k := range next.all {
		stays[k] = true
	}
	for _, k := range old.all {
		if !stays[k] {
			k.Withdraw()
		}
	}
	return nil
}

// equalIn returns the key of keys that is Equal to k, or nil.
func equalIn(keys []*Key, k *Key) *Key {
	for _, o := range keys {
		if o.Equal(k) {
			return o
		}
	}
	return nil
}

// offer sets what Lookup answers: each key under its own ID and, to tokens without
// kid, all keys of a tenant and algorithm, or none where there are too many to
// try.
func (s *staticKeys) offer() {
	s.offered = make(map[lookup][]*Key, 2*len(s.by))
	for _, k := range s.all {
		at := lookup{ID{Tenant: k.id.Tenant}, k.alg}
		s.offered[at] = append(s.offered[at], k)
	}
	for at, keys := range s.offered {
		if len(keys) > MaxCandidates {
			delete(s.offered, at)
		}
	}
	for at, keys := range s.by {
		if at.id.KID != "" {
			s.offered[at] = keys
		}
	}
}
