package keystoretest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

const (
	// maxFailures is how many failures of one check are reported. A check with a
	// loop may find the same failure over and over.
	maxFailures = 20

	// atOnce is how long a Refresh may take after its context has ended. It is
	// long enough for a busy machine.
	atOnce = 2 * time.Second
)

// checks are the parts of Run. Each returns the faults of the store as errors, so
// that a test of this package can expect them. t is for the Subject's functions.
var checks = []struct {
	name string
	run  func(t *testing.T, s Subject) []error
}{
	{"a key that is held is found and verifies", checkFound},
	{"what names no key finds none", checkMiss},
	{"tenants are kept apart", checkTenants},
	{"a token without kid", checkWithoutKID},
	{"a key that stays keeps its pointer", checkReload},
	{"a key that goes is withdrawn at once", checkRemove},
	{"Refresh", checkRefresh},
	{"concurrent use", checkConcurrent},
}

// failures collects the faults of a store. It is safe for concurrent use.
type failures struct {
	mu   sync.Mutex // guards errs
	errs []error
}

func (f *failures) addf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) < maxFailures {
		f.errs = append(f.errs, fmt.Errorf(format, args...))
	}
}

func (f *failures) all() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.errs)
}

// lookup asks the store, and checks the rules that hold for every answer.
func (f *failures) lookup(s Subject, id keystore.ID, alg keystore.Algorithm) []*keystore.Key {
	keys, err := s.Store.Lookup(id, alg)
	if err != nil {
		if !errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrUnavailable) {
			f.addf("Lookup(%v, %q): the error wraps neither ErrNotFound nor ErrUnavailable: %v", id, alg, err)
		}
		if len(keys) > 0 {
			f.addf("Lookup(%v, %q) returned keys along with an error", id, alg)
		}
		return nil
	}
	if len(keys) < 1 {
		f.addf("Lookup(%v, %q) returned 0 keys and no error, want at least one", id, alg)
	}
	cost := 0
	for _, k := range keys {
		switch {
		case k == nil:
			f.addf("Lookup(%v, %q) returned a nil key", id, alg)
			return nil
		case k.ID().Tenant != id.Tenant:
			f.addf("Lookup(%v, %q) returned a key of another tenant: %v", id, alg, k)
		case id.KID != "" && k.ID().KID != id.KID:
			f.addf("Lookup(%v, %q) returned a key of another kid: %v", id, alg, k)
		case !k.Algorithm().Same(alg):
			f.addf("Lookup(%v, %q) returned a key of another algorithm: %v", id, alg, k)
		}
		cost += k.Cost()
	}
	if cost > keystore.MaxCandidates {
		f.addf("Lookup(%v, %q) returned %d keys that cost %d together, want at most %d", id, alg, len(keys), cost, keystore.MaxCandidates)
	}
	return keys
}

// miss checks that the store finds nothing.
func (f *failures) miss(s Subject, id keystore.ID, alg keystore.Algorithm) {
	if keys := f.lookup(s, id, alg); len(keys) > 0 {
		f.addf("Lookup(%v, %q) found %v, want no key", id, alg, keys)
	}
}

// verifying returns the store's key that verifies signatures of key, and checks that
// it verifies nothing else.
func (f *failures) verifying(s Subject, key Signing) *keystore.Key {
	msg := []byte("a message of " + key.ID.KID)
	sig := key.Sign(msg)
	if len(sig) == 0 {
		f.addf("Subject: Sign of %v returned no signature", key.ID)
		return nil
	}
	var found *keystore.Key
	for _, k := range f.lookup(s, key.ID, key.Algorithm) {
		if !k.Verify(msg, sig) {
			continue
		}
		found = k
		if k.Verify([]byte("another message"), sig) {
			f.addf("%v verifies a signature of another message", k)
		}
		if k.Verify(msg, sig[:len(sig)-1]) {
			f.addf("%v verifies a truncated signature", k)
		}
		if k.Verify(msg, nil) {
			f.addf("%v verifies an empty signature", k)
		}
		if !k.Usable(s.now()) {
			f.addf("%v was found, but is not Usable", k)
		}
	}
	if found == nil {
		f.addf("Lookup(%v, %q) found no key that verifies what that key signed", key.ID, key.Algorithm)
	}
	return found
}

func checkFound(t *testing.T, s Subject) []error {
	var f failures
	for range 2 {
		key := s.Add(t)
		if key.ID.Tenant != s.Tenant || key.ID.KID == "" || !key.Algorithm.Known() {
			f.addf("Subject: Add returned %v with algorithm %q: want a key of tenant %q with a kid and a known algorithm", key.ID, key.Algorithm, s.Tenant)
		}
		f.verifying(s, key)
		if one, two := f.verifying(s, key), f.verifying(s, key); one != two {
			f.addf("two lookups of %v returned two Keys for the same material", key.ID)
		}
	}
	if serving, ok := s.Store.(interface{ Serves(tenant string) bool }); ok && !serving.Serves(s.Tenant) {
		f.addf("Serves(%q) = false, while the store holds keys of that tenant", s.Tenant)
	}
	return f.all()
}

func checkMiss(t *testing.T, s Subject) []error {
	var f failures
	key := s.Add(t)
	for _, kid := range []string{
		"no-such-kid", key.ID.KID + "x", " " + key.ID.KID, key.ID.KID + "\x00", key.ID.KID[1:] + "?",
		"*", "../" + key.ID.KID, s.Tenant + ":" + key.ID.KID, s.Tenant + "/" + key.ID.KID, "\xff",
	} {
		f.miss(s, keystore.ID{Tenant: s.Tenant, KID: kid}, key.Algorithm)
	}
	// A public key may serve several algorithms. All of them are known, and none is
	// symmetric.
	for _, alg := range []keystore.Algorithm{"", "none", "None", "RSA-OAEP", key.Algorithm + " "} {
		f.miss(s, key.ID, alg)
	}
	for _, alg := range keystore.Algorithms() {
		if alg.Symmetric() != key.Algorithm.Symmetric() {
			f.miss(s, key.ID, alg)
		} else {
			f.lookup(s, key.ID, alg)
		}
	}
	return f.all()
}

func checkTenants(t *testing.T, s Subject) []error {
	var f failures
	key := s.Add(t)
	for _, tenant := range []string{"", "no-such-tenant", s.Tenant + "x", s.Tenant + ":", s.Tenant + "\x00", s.Tenant + "/" + key.ID.KID} {
		f.miss(s, keystore.ID{Tenant: tenant, KID: key.ID.KID}, key.Algorithm)
		f.miss(s, keystore.ID{Tenant: tenant}, key.Algorithm)
	}
	f.verifying(s, key)
	return f.all()
}

func checkWithoutKID(t *testing.T, s Subject) []error {
	var f failures
	none := keystore.ID{Tenant: s.Tenant}
	for range keystore.MaxCandidates + 2 {
		key := s.Add(t)
		f.lookup(s, none, key.Algorithm)
		f.verifying(s, key)
	}
	return f.all()
}

func checkReload(t *testing.T, s Subject) []error {
	var f failures
	keys := []Signing{s.Add(t), s.Add(t)}
	var held []*keystore.Key
	for _, key := range keys {
		held = append(held, f.verifying(s, key))
	}
	for range 2 {
		s.Reload(t)
		for i, key := range keys {
			if k := f.verifying(s, key); k != held[i] {
				f.addf("%v is another *Key after a reload, though nothing changed: tokens verified earlier lose their key", key.ID)
			}
			if held[i] != nil && !held[i].Usable(s.now()) {
				f.addf("%v is not Usable after a reload, though nothing changed", held[i])
			}
		}
	}
	return f.all()
}

func checkRemove(t *testing.T, s Subject) []error {
	var f failures
	stays, goes := s.Add(t), s.Add(t)
	kept, gone := f.verifying(s, stays), f.verifying(s, goes)
	msg := []byte("signed before it went")
	sig := goes.Sign(msg)

	s.Remove(t, goes.ID)
	if gone != nil {
		if gone.Usable(s.now()) {
			f.addf("%v was removed, but is still Usable: cached tokens outlive it", gone)
		}
		if gone.Verify(msg, sig) {
			f.addf("%v was removed, but still verifies", gone)
		}
	}
	f.miss(s, goes.ID, goes.Algorithm)
	for _, k := range f.lookup(s, keystore.ID{Tenant: s.Tenant}, goes.Algorithm) {
		if k == gone {
			f.addf("%v was removed, but is offered to tokens without kid", k)
		}
	}
	s.Reload(t)
	f.miss(s, goes.ID, goes.Algorithm)
	if k := f.verifying(s, stays); k != kept {
		f.addf("%v is another *Key after the removal of %v", stays.ID, goes.ID)
	}
	return f.all()
}

func checkRefresh(t *testing.T, s Subject) []error {
	store, ok := s.Store.(keystore.Refresher)
	if !ok {
		return nil
	}
	var f failures
	key := s.Add(t)
	held := f.verifying(s, key)
	ids := []keystore.ID{
		{Tenant: s.Tenant, KID: "no-such-kid"},
		{Tenant: s.Tenant},
		{Tenant: "no-such-tenant", KID: key.ID.KID},
		key.ID,
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, id := range ids {
		done := make(chan error, 1)
		go func() { done <- store.Refresh(ended, id) }()
		select {
		case err := <-done:
			f.refreshed(id, err)
		case <-time.After(atOnce):
			f.addf("Refresh(%v) did not return within %v of its context's end", id, atOnce)
			return f.all()
		}
	}
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(t.Context(), atOnce)
		f.refreshed(id, store.Refresh(ctx, id))
		cancel()
	}
	f.miss(s, ids[0], key.Algorithm)
	f.miss(s, ids[2], key.Algorithm)
	if k := f.verifying(s, key); k != held {
		f.addf("%v is another *Key after a Refresh that brought nothing", key.ID)
	}
	return f.all()
}

// refreshed checks the error of a Refresh.
func (f *failures) refreshed(id keystore.ID, err error) {
	if err != nil && !errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrUnavailable) {
		f.addf("Refresh(%v): the error wraps neither ErrNotFound nor ErrUnavailable: %v", id, err)
	}
}

func checkConcurrent(t *testing.T, s Subject) []error {
	var f failures
	stays := s.Add(t)
	held := f.verifying(s, stays)
	if held == nil {
		return f.all()
	}
	msg := []byte("verified all the while")
	sig := stays.Sign(msg)

	stop := make(chan struct{})
	var rounds atomic.Int64
	var readers sync.WaitGroup
	end := sync.OnceFunc(func() {
		close(stop)
		readers.Wait()
	})
	defer end() // the Subject's functions may call t.FailNow
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				rounds.Add(1)
				if keys := f.lookup(s, stays.ID, stays.Algorithm); !slices.Contains(keys, held) || !held.Verify(msg, sig) || !held.Usable(s.now()) {
					f.addf("%v was not found, or did not verify, while other keys came and went", stays.ID)
				}
				f.miss(s, keystore.ID{Tenant: s.Tenant, KID: "no-such-kid"}, stays.Algorithm)
				f.lookup(s, keystore.ID{Tenant: s.Tenant}, stays.Algorithm)
			}
		})
	}
	for range 4 {
		key := s.Add(t)
		f.verifying(s, key)
		s.Reload(t)
		s.Remove(t, key.ID)
		f.miss(s, key.ID, key.Algorithm)
		// Without this wait, all changes may be over before a reader starts.
		for until := rounds.Load() + 100; rounds.Load() < until; {
			runtime.Gosched()
		}
	}
	end()
	return f.all()
}
