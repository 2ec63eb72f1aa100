package keystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Join returns a store that answers for several, such as a shared secret and a JWK Set during a
// move from one to the other. A Lookup returns the keys of all of them. A store that cannot tell
// now hides no key of another, and while it cannot tell, no key is missing for sure: a verifier
// answers [ErrUnavailable] to a token whose signature none of the other keys verifies.
//
// The bound on candidates holds for the keys of all stores together: if they cost more than
// [MaxCandidates], none is returned. A kid that one store knows to be revoked is revoked in all,
// since a key that leaked must not be accepted from a copy of it. So give every store its own kids.
//
// The store has all optional methods of a [KeyStore], and a Ready(tenant string) error that is nil
// if every store can answer for tenant now; each asks the stores that have it. Join panics if a
// store is nil, or a nil pointer.
func Join(stores ...KeyStore) KeyStore {
	for i, s := range stores {
		if v := reflect.ValueOf(s); s == nil || v.Kind() == reflect.Pointer && v.IsNil() {
			panic(fmt.Sprintf("keystore: Join: store %d is nil", i))
		}
	}
	return &joined{slices.Clone(stores)}
}

type joined struct{ stores []KeyStore }

var (
	_ Refresher = (*joined)(nil)
	_ UseNoter  = (*joined)(nil)
)

// Lookup implements [KeyStore]. It allocates nothing while one store alone has keys.
func (j *joined) Lookup(id ID, alg Algorithm) ([]*Key, error) {
	var all []*Key
	var miss error
	for _, s := range j.stores {
		keys, err := s.Lookup(id, alg)
		switch {
		case err == nil && all == nil:
			all = keys
		case err == nil:
			all = append(all[:len(all):len(all)], keys...) // the slice is the store's
		case isMiss(err) && errors.Is(err, ErrRevoked):
			return nil, err
		case all == nil:
			miss = worse(miss, err)
		}
	}
	if all == nil {
		return nil, cmp.Or(miss, ErrNotFound)
	}
	if err := CheckCost(id, all); err != nil {
		return nil, err
	}
	return all, nil
}

// Unsure returns why a Lookup may lack keys although it returned some: the error of the first
// store that cannot tell now, or is unsure itself. It is nil if every store can.
func (j *joined) Unsure(id ID, alg Algorithm) error {
	for _, s := range j.stores {
		_, err := s.Lookup(id, alg)
		if u, ok := s.(interface{ Unsure(ID, Algorithm) error }); ok && err == nil {
			err = u.Unsure(id, alg)
		}
		if err != nil && !isMiss(err) {
			return cannotTell(err)
		}
	}
	return nil
}

// isMiss reports whether a store is sure that there is no such key.
func isMiss(err error) bool { return errors.Is(err, ErrNotFound) && !errors.Is(err, ErrUnavailable) }

// cannotTell returns err as an ErrUnavailable.
func cannotTell(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// worse returns the error of two stores of which neither has news. That one of them cannot tell
// counts most, then that the key was revoked, then an error with a detail. a may be nil.
func worse(a, b error) error {
	switch {
	case a != nil && !isMiss(a):
		return a
	case !isMiss(b):
		return cannotTell(b)
	case a == nil, errors.Is(b, ErrRevoked), NotFoundDetail(b) != "" && !errors.Is(a, ErrRevoked):
		return b
	}
	return a
}

// Refresh implements [Refresher]. It asks all stores that can be asked at once, and returns nil as
// soon as one of them has news. While another one could not be asked, no kid is missing for sure.
// Without a kid, news of one store may be other keys than the one that the caller asks for. So then it
// waits for all stores.
func (j *joined) Refresh(ctx context.Context, id ID) error {
	var asked []Refresher
	for _, s := range j.stores {
		if r, ok := s.(Refresher); ok {
			asked = append(asked, r)
		}
	}
	switch len(asked) {
	case 0:
		return ErrNotFound
	case 1:
		return asked[0].Refresh(ctx, id)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(asked))
	var wait sync.WaitGroup
	for i, r := range asked {
		wait.Go(func() {
			if errs[i] = r.Refresh(ctx, id); errs[i] == nil && id.KID != "" {
				cancel() // the others go on by themselves: their callers share the request
			}
		})
	}
	wait.Wait()
	var miss error
	news := false
	for _, err := range errs {
		if err == nil {
			news = true
		} else {
			miss = worse(miss, err)
		}
	}
	if news && (id.KID != "" || miss == nil || isMiss(miss)) {
		return nil
	}
	return miss
}

// NoteUse implements [UseNoter]: it tells every store that notes uses.
func (j *joined) NoteUse(tenant string) {
	for _, s := range j.stores {
		if n, ok := s.(UseNoter); ok {
			n.NoteUse(tenant)
		}
	}
}

// Serves reports whether one of the stores serves tenant. A store without that method may serve
// any.
func (j *joined) Serves(tenant string) bool {
	for _, s := range j.stores {
		if serves(s, tenant) {
			return true
		}
	}
	return false
}

func serves(s KeyStore, tenant string) bool {
	v, ok := s.(interface{ Serves(tenant string) bool })
	return !ok || v.Serves(tenant)
}

// CanServe reports whether one of the stores can ever serve a key of alg for tenant. A store without
// that method may serve any.
func (j *joined) CanServe(tenant string, alg Algorithm) bool {
	for _, s := range j.stores {
		v, ok := s.(interface {
			CanServe(tenant string, alg Algorithm) bool
		})
		if !ok || v.CanServe(tenant, alg) {
			return true
		}
	}
	return false
}

// MaxLeeway returns the least of the leeways for which the stores that serve tenant keep retired
// keys.
func (j *joined) MaxLeeway(tenant string) time.Duration {
	least := time.Duration(math.MaxInt64)
	for _, s := range j.stores {
		v, ok := s.(interface {
			MaxLeeway(tenant string) time.Duration
		})
		if ok && serves(s, tenant) {
			least = min(least, v.MaxLeeway(tenant))
		}
	}
	return least
}

// Ready returns nil if every store can answer for tenant now, and else why one cannot, as an
// [ErrUnavailable]. A store without that method always can.
func (j *joined) Ready(tenant string) error {
	for _, s := range j.stores {
		v, ok := s.(interface{ Ready(tenant string) error })
		if !ok || !serves(s, tenant) {
			continue
		}
		if err := v.Ready(tenant); err != nil {
			return cannotTell(err)
		}
	}
	return nil
}
