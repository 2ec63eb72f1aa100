package verifier_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// TestSoak verifies while keys rotate and tenants come and go: no verdict is wrong.
// `make soak` runs it for longer.
func TestSoak(t *testing.T) {
	s := newSoak(t)
	stop := make(chan struct{})
	var changes, checkers sync.WaitGroup
	changes.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.change(t, i); err != nil {
				t.Error(err)
				return
			}
		}
	})
	const goroutines = 16
	checks := soakChecks()
	for g := range goroutines {
		checkers.Go(func() {
			for i := range checks / goroutines {
				s.check(t, (g+i)%soakTenants)
			}
		})
	}
	checkers.Wait()
	close(stop)
	changes.Wait()
	s.wrong.Range(func(what, _ any) bool { t.Error(what); return true })
	s.atRest(t)
}

const soakTenants = 8

// A soakTest has a verifier with one tenant that stays, and soakTenants that come and go.
type soakTest struct {
	v     *verifier.Verifier
	store *keystore.Static // of the tenant that stays

	base         string // of the tenant that stays
	rotating     string // of a key of that tenant which comes and goes
	good, forged [soakTenants]string

	wrong sync.Map // the texts of wrong verdicts
}

func newSoak(t *testing.T) *soakTest {
	s := &soakTest{store: static(t, key(t, "stays", "1", secretOf("stays")))}
	stays := tenant(t, "stays", "https://stays", func(r *verifier.Tenant) { r.Keys = s.store })
	var err error
	if s.v, err = verifier.New(verifier.Config{Tenants: []verifier.Tenant{stays}, Now: at(nowUnix), CacheEntries: 64}); err != nil {
		t.Fatal(err)
	}
	for i := range soakTenants {
		id := fmt.Sprint("t", i)
		s.good[i] = tokenOf(id, fmt.Sprintf(`"iss":"https://%s"`, id))
		s.forged[i] = tokenOf("stays", fmt.Sprintf(`"iss":"https://%s"`, id))
	}
	s.base = tokenOf("stays", `"iss":"https://stays"`)
	s.rotating = signWith(secretOf("rotating"), `{"alg":"HS256","kid":"r"}`, `{"exp":1800003600,"iss":"https://stays"}`)
	return s
}

// change changes one tenant, and the keys of the one that stays.
func (s *soakTest) change(t *testing.T, i int) error {
	id := fmt.Sprint("t", i%soakTenants)
	err := s.v.Put(tenant(t, id, "https://"+id, nil))
	switch i % 4 {
	case 0:
		err = errors.Join(err, s.v.Suspend(id))
	case 1:
		err = errors.Join(err, s.v.Remove(id))
	}
	keys := []*keystore.Key{key(t, "stays", "1", secretOf("stays"))}
	if i%2 == 0 {
		keys = append(keys, key(t, "stays", "r", secretOf("rotating")))
	}
	return errors.Join(err, s.store.Replace(keys...))
}

// check verifies four tokens, whose verdicts have bounds whatever happens meanwhile.
func (s *soakTest) check(t *testing.T, n int) {
	if _, err := s.v.Verify(t.Context(), s.base); err != nil {
		s.wrong.Store(fmt.Sprint("a good token: ", err), true)
	}
	if _, err := s.v.Verify(t.Context(), s.forged[n]); err == nil {
		s.wrong.Store("a forged token passed", true)
	}
	if tok, err := s.v.Verify(t.Context(), s.good[n]); err == nil && tok.Tenant() != fmt.Sprint("t", n) {
		s.wrong.Store("a token of another tenant", true)
	}
	if _, err := s.v.Verify(t.Context(), s.rotating); err != nil && !errors.Is(err, verifier.ErrUnknownKey) && !errors.Is(err, verifier.ErrSignature) {
		s.wrong.Store(fmt.Sprint("a key that comes and goes: ", err), true)
	}
}

// atRest checks that removed keys and tenants have no good tokens, cached or not.
func (s *soakTest) atRest(t *testing.T) {
	if err := s.store.Replace(key(t, "stays", "1", secretOf("stays"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.v.Verify(t.Context(), s.rotating); !errors.Is(err, verifier.ErrUnknownKey) {
		t.Errorf("a key that is gone: %v", err)
	}
	for i := range soakTenants {
		s.v.Remove(fmt.Sprint("t", i))
		if _, err := s.v.Verify(t.Context(), s.good[i]); err == nil {
			t.Error("a tenant that is gone")
		}
	}
}

// soakChecks returns how many rounds of four tokens TestSoak verifies: SOAK, or a number
// that fits every run of the tests.
func soakChecks() int {
	if n, err := strconv.Atoi(os.Getenv("SOAK")); err == nil {
		return n
	}
	return 20_000
}
