package keystore

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Static is a [KeyStore] whose keys change only by [Static.Replace]. It is for shared
// secrets and fixed public keys. Several keys may share an ID and an algorithm, if they cost at most
// [MaxCandidates] together: so an old and a new secret can overlap. The zero Static is empty. Static
// is safe for concurrent use, starts no goroutines and needs no closing.
type Static struct {
	keys atomic.Pointer[staticKeys] // immutable, and replaced as a whole
	mu   sync.Mutex                 // held while keys is replaced; readers do not take it

	shared bool // made by NewStaticShared
}

var _ KeyStore = (*Static)(nil)

type staticKeys struct {
	all     []*Key
	by      map[lookup][]*Key // by their own IDs, EdDSA as Ed25519
	offered map[lookup]answer // the results of Lookup
	tenants map[string]bool
}

// load returns the keys. The zero Static has none.
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

// An answer is the result of a Lookup.
type answer struct {
	keys []*Key
	err  error
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

// NewStaticShared is [NewStatic] without one rule: in this store several tenants may have
// the same secret. The holder of a shared secret signs tokens of all these tenants. So
// use it only if one party signs for all of them, and let a claim say whose a token is.
func NewStaticShared(keys ...*Key) (*Static, error) {
	s := &Static{shared: true}
	if err := s.Replace(keys...); err != nil {
		return nil, err
	}
	return s, nil
}

// Lookup implements [KeyStore].
func (s *Static) Lookup(id ID, alg Algorithm) ([]*Key, error) {
	if a, ok := s.load().offered[lookup{id, alg}]; ok {
		return a.keys, a.err
	}
	return nil, ErrNotFound
}

// CanServe returns true: [Static.Replace] can bring keys of every algorithm.
func (s *Static) CanServe(string, Algorithm) bool { return true }

// Serves reports whether the store has keys of tenant. An empty store serves every
// tenant, since its keys may come later.
func (s *Static) Serves(tenant string) bool {
	now := s.load()
	return len(now.all) == 0 || now.tenants[tenant]
}

// Replace replaces all keys of the store at once.
//
// If a new key is [Key.Equal] to one that the store holds, the old *Key stays, and
// takes over the end of the new one. So a caller may build all keys again each time.
// Replace does not touch the end of an old *Key that is given itself: a concurrent
// [Key.SetUntil] counts. Replace withdraws the keys that are no longer in the store,
// which also invalidates the cached tokens of these keys.
//
// Replace returns an error and changes nothing if a key is nil, was withdrawn, or
// belongs to another store, or if keys share an ID and an algorithm that cost more than
// [MaxCandidates] together. A key that is given twice counts once. If the two have different ends,
// the earlier one counts.
//
// It also returns an error if two tenants have the same secret, under any algorithm:
// each could sign tokens of the other. Zero bytes and line ends after a secret make no
// difference. [NewStaticShared] waives this rule. Tenants may share a public key.
func (s *Static) Replace(keys ...*Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.newReplacement()
	for _, k := range keys {
		if err := r.add(k); err != nil {
			r.undo()
			return err
		}
	}
	r.commit()
	return nil
}

// A replacement is one call of Replace.
type replacement struct {
	store     *Static
	old, next *staticKeys
	ends      map[*Key]int64 // the ends that keys which stay take over
	caps      map[*Key]int64 // the ends of second copies of keys which come
	secrets   map[[32]byte]*Key
	claimed   []*Key // the keys that got their owner in this call
}

func (s *Static) newReplacement() *replacement {
	return &replacement{
		store: s,
		old:   s.load(),
		next:  &staticKeys{by: make(map[lookup][]*Key), tenants: make(map[string]bool)},
		ends:  make(map[*Key]int64),
		caps:  make(map[*Key]int64),

		secrets: make(map[[32]byte]*Key),
	}
}

// add adds k to the next keys, or the equal key that the store holds.
func (r *replacement) add(k *Key) error {
	if k == nil {
		return failf("a nil Key")
	}
	at := lookup{k.id, k.alg.plain()}
	end := k.until.Load()
	if end == withdrawn {
		return failf("%v was withdrawn, which is final: make a new Key", k)
	}
	if held := equalIn(r.old.by[at], k); held != nil {
		if held != k { // else end is not news, and may be old by the time of commit
			setEarlier(r.ends, held, end)
		}
		k = held
	}
	if first := equalIn(r.next.by[at], k); first != nil {
		if first != k {
			setEarlier(r.caps, first, end)
		}
		return nil
	}
	sharing := append(slices.Clip(r.next.by[at]), k)
	if CheckCost(k.id, sharing) != nil {
		return failf("%d keys share %v and %s, and cost more than %d together: take the oldest out", len(sharing), k.id, k.alg, MaxCandidates)
	}
	if err := r.checkShared(k); err != nil {
		return err
	}
	if k.owner.CompareAndSwap(nil, r.store) {
		r.claimed = append(r.claimed, k)
	} else if k.owner.Load() != r.store {
		return failf("%v belongs to another store: make a Key for each store", k)
	}
	r.next.all = append(r.next.all, k)
	r.next.by[at] = sharing
	r.next.tenants[k.id.Tenant] = true
	return nil
}

// checkShared returns an error if k has the secret of another tenant.
func (r *replacement) checkShared(k *Key) error {
	m := k.mat.Load()
	if r.store.shared || m == nil || m.secret == nil {
		return nil
	}
	sum := m.secret()
	first, ok := r.secrets[sum]
	if ok && first.id.Tenant != k.id.Tenant {
		return failf("%v has the secret of %v: each tenant could sign tokens of the other", k, first).
			hint("give each tenant a secret of its own, or use NewStaticShared if one party signs for both")
	}
	r.secrets[sum] = k
	return nil
}

// undo gives up the keys that this call claimed.
func (r *replacement) undo() {
	for _, k := range r.claimed {
		k.owner.Store(nil)
	}
}

// commit installs the next keys, and withdraws the old ones that are not among them.
func (r *replacement) commit() {
	r.next.offer()
	for k, end := range r.ends {
		k.setEnd(end)
	}
	for k, end := range r.caps {
		k.lowerEnd(end)
	}
	r.store.keys.Store(r.next)
	stays := make(map[*Key]bool, len(r.next.all))
	for _, k := range r.next.all {
		stays[k] = true
	}
	for _, k := range r.old.all {
		if !stays[k] {
			k.Withdraw()
		}
	}
}

// setEarlier sets ends[k] to end, unless it is earlier already.
func setEarlier(ends map[*Key]int64, k *Key, end int64) {
	if old, ok := ends[k]; !ok || end < old {
		ends[k] = end
	}
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

// offer sets the results of Lookup. It offers each key under its own ID. To tokens
// without kid it offers all keys of a tenant and algorithm, or none if these cost more
// than MaxCandidates.
func (s *staticKeys) offer() {
	s.offered = make(map[lookup]answer, 2*len(s.by))
	without := make(map[lookup][]*Key)
	for _, k := range s.all {
		at := lookup{ID{Tenant: k.id.Tenant}, k.alg.plain()}
		without[at] = append(without[at], k)
	}
	for at, keys := range without {
		s.offerAs(at, keys)
	}
	for at, keys := range s.by {
		if at.id.KID != "" {
			s.offerAs(at, keys)
		}
	}
}

// offerAs offers keys of one algorithm under both its names.
func (s *staticKeys) offerAs(at lookup, keys []*Key) {
	for _, alg := range []Algorithm{at.alg, at.alg.twin()} {
		if alg == "" {
			continue
		}
		a := answer{keys: offeredTo(alg, keys)}
		if a.err = CheckCost(at.id, a.keys); a.err != nil {
			a.keys = nil
		}
		s.offered[lookup{at.id, alg}] = a
	}
}

// offeredTo returns the keys that may have signed a token of alg, which is one of the names of
// their algorithm. Those of that very name come first, and one key under two names counts once: a
// JWK without alg makes two keys.
func offeredTo(alg Algorithm, keys []*Key) []*Key {
	if alg.twin() == "" {
		return keys
	}
	var of []*Key
	named := make(map[ID][]*Key) // those in of; many keys are not compared each with each
	for _, k := range keys {
		if k.alg == alg {
			of = append(of, k)
			named[k.id] = append(named[k.id], k)
		}
	}
	for _, k := range keys {
		if k.alg != alg && !slices.ContainsFunc(named[k.id], k.isTwin) {
			of = append(of, k)
		}
	}
	return of
}
