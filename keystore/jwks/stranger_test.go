package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
)

// A target is a service with many tenants that no token has used lately, and "acme".
type target struct {
	t       *testing.T
	v       *verifier.Verifier
	client  *jwks.Client
	sources map[string]*jwks.Source
	tenants []string                         // the others
	known   *jwkstest.Key                    // of every issuer
	publish *atomic.Pointer[[]*jwkstest.Key] // by acme's issuer
	fetches func() int

	senders sync.WaitGroup
	forged  atomic.Int64 // tokens so far
}

// newTarget opens the sources in a bubble. Half of the tenants sleep, and the others are fresh. Their
// issuers answer after 200 ms.
func newTarget(t *testing.T, tenants int, hosts func(i int) string, cfg jwks.Config) *target {
	w := &target{t: t, known: jwkstest.NewKey("a", "ES256"), publish: new(atomic.Pointer[[]*jwkstest.Key])}
	w.publish.Store(&[]*jwkstest.Key{w.known})
	common := jwkstest.Set(w.known)
	network := &network{maxAge: 3600, set: func(_ string, r *http.Request) string {
		time.Sleep(200 * time.Millisecond)
		if r.URL.Path == "/acme" {
			return jwkstest.Set(*w.publish.Load()...)
		}
		return common
	}}
	w.fetches = network.total
	t.Cleanup(network.answering.Wait)
	cfg.DialContext = network.dial
	w.client = jwks.New(cfg)
	t.Cleanup(func() { w.client.Close(context.Background()) })
	stores := make(map[string]keystore.KeyStore)
	w.sources = make(map[string]*jwks.Source)
	for i := range tenants {
		if i == tenants/2 {
			time.Sleep(3 * time.Hour) // the first half falls asleep
		}
		name := fmt.Sprint("tenant-", i)
		w.tenants = append(w.tenants, name)
		w.open(name, hosts(i))
	}
	w.open("acme", hosts(tenants))
	for name, s := range w.sources {
		stores[name] = s
	}
	w.v = verifyAll(t, stores)
	time.Sleep(time.Minute)
	synctest.Wait()
	return w
}

func (w *target) open(tenant, host string) {
	s, err := w.client.Open(tenant, "http://"+host+"/"+tenant, jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.sources[tenant] = s
}

// pass verifies a good token, which must pass at once, and returns for how long it waited.
func (w *target) pass(tenant string, key *jwkstest.Key) time.Duration {
	w.t.Helper()
	start := time.Now()
	if _, err := w.v.Verify(w.t.Context(), signed(key, tenant)); err != nil {
		w.t.Errorf("a good token of key %s: %v", key.KID, err)
	}
	return time.Since(start)
}

// learn has acme's issuer publish a key that it has not announced, and returns for how long the
// first good token of it waits.
func (w *target) learn(key *jwkstest.Key) time.Duration {
	w.t.Helper()
	keys := append(slices.Clone(*w.publish.Load()), key)
	w.publish.Store(&keys)
	return w.pass("acme", key)
}

// flood sends forged tokens of all tenants but acme until ctx ends. Every two seconds, each gets
// one of an unknown kid and one of a known kid; and if rubbish is set, such tokens that have
// expired, and so cannot be good whatever key they name.
func (w *target) flood(ctx context.Context, rubbish, plausible bool) {
	const crowd = 50
	for g := range crowd {
		w.senders.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				for i := g; i < len(w.tenants); i += crowd {
					iss := issuerOf(w.tenants[i])
					for _, kid := range []string{fmt.Sprint("unknown-", n), "a"} {
						if rubbish {
							w.send(expired(unsigned(kid, iss), iss), verifier.ErrInvalid)
						}
						if plausible {
							w.send(unsigned(kid, iss), verifier.ErrInvalid, verifier.ErrUnavailable)
						}
					}
					time.Sleep(2 * time.Second * crowd / time.Duration(len(w.tenants)))
				}
			}
		})
	}
}

// send verifies a forged token without waiting for the answer, which must be one of want.
func (w *target) send(token string, want ...error) {
	w.forged.Add(1)
	w.senders.Go(func() {
		_, err := w.v.Verify(w.t.Context(), token)
		if !slices.ContainsFunc(want, func(want error) bool { return errors.Is(err, want) }) {
			w.t.Errorf("a forged token: %v", err)
		}
	})
}

// expired returns a token with other claims: it has expired.
func expired(token, iss string) string {
	parts := strings.Split(token, ".")
	return parts[0] + "." + b64([]byte(fmt.Sprintf(`{"iss":%q,"exp":1}`, iss))) + "." + parts[2]
}

// Forged tokens that are plausible until their signature is checked, for 2000 tenants, do not delay
// another tenant's good token of a new key, and cost no more than the budget and no memory.
func TestForgedTokensForAllTenants(t *testing.T) {
	keys := 3
	if raceEnabled {
		keys = 1 // make test has the whole flood without the race detector
	}
	virtual(t, func(t *testing.T) {
		w := newTarget(t, 2000, loopbackHost, jwks.Config{})
		w.pass("acme", w.known) // so it is in use
		fetched, before, start := w.fetches(), heap(), time.Now()
		ctx, stop := context.WithCancel(t.Context())
		w.flood(ctx, true, true)
		for i := range keys {
			time.Sleep(5 * time.Second)
			if waited := w.learn(jwkstest.NewKey(fmt.Sprint("new-", i), "ES256")); waited > 2*time.Second {
				t.Errorf("a good token of a new key waited for %v", waited)
			}
		}
		if more := heap() - before; more > 32<<20 {
			t.Errorf("%d bytes more are in use during the flood", more)
		}
		stop()
		w.senders.Wait()
		most := 320 + int(32*time.Since(start).Seconds()) + 3 // of acme
		if got := w.fetches() - fetched; got > most || got < most/2 {
			t.Errorf("%d forged tokens caused %d fetches, want at most %d", w.forged.Load(), got, most)
		}
		time.Sleep(time.Minute) // until all have been asked that are queued
		if more := heap() - before; more > 4<<20 {
			t.Errorf("the flood left %d bytes", more)
		}
	})
}

// That holds at a host that all issuers share, too, although only two fetches at once are for it.
func TestForgedTokensForAllTenantsOfHost(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newTarget(t, 200, func(int) string { return "127.9.0.1" }, jwks.Config{})
		w.pass("acme", w.known)
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		w.flood(ctx, false, true)
		for i := range 2 {
			time.Sleep(4 * time.Second)
			if waited := w.learn(jwkstest.NewKey(fmt.Sprint("new-", i), "ES256")); waited > 2*time.Second {
				t.Errorf("a good token of a new key waited for %v", waited)
			}
		}
		w.senders.Wait()
	})
}

// A token that cannot be good whatever its key, such as one that has expired, causes no fetch and
// wakes nothing.
func TestRubbishWakesNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newTarget(t, 200, loopbackHost, jwks.Config{})
		w.pass("acme", w.known)
		fetched := w.fetches()
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		w.flood(ctx, true, false)
		time.Sleep(5 * time.Second)
		if waited := w.learn(jwkstest.NewKey("new", "ES256")); waited != 200*time.Millisecond {
			t.Errorf("a good token of a new key waited for %v, want one fetch", waited)
		}
		w.senders.Wait()
		time.Sleep(time.Minute)
		if got := w.fetches() - fetched; got != 1 {
			t.Errorf("%d forged tokens caused %d fetches", w.forged.Load(), got-1)
		}
		for i, name := range w.tenants {
			if st := w.sources[name].Status(); st.Asleep != (i < 100) {
				t.Errorf("%s: asleep %v", name, st.Asleep)
			}
		}
	})
}

// A stranger who forges tokens of all tenants delays the first good token of one that sleeps: until
// its turn among them, at half of OnDemand. Until then it is 503, never 401.
func TestSleepersWakeInTurns(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newTarget(t, 120, loopbackHost, jwks.Config{OnDemand: 4}) // 2 a second, and 20 at once
		ctx, stop := context.WithCancel(t.Context())
		defer w.senders.Wait()
		defer stop()
		w.flood(ctx, false, true)
		time.Sleep(4 * time.Second) // all have a fetch queued
		last := w.tenants[59]
		start := time.Now()
		for {
			_, err := w.v.Verify(t.Context(), signed(w.known, last))
			if err == nil {
				break
			}
			if !errors.Is(err, verifier.ErrUnavailable) {
				t.Fatalf("a good token of a tenant that sleeps: %v, want ErrUnavailable", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if waited := time.Since(start); waited < 10*time.Second || waited > 55*time.Second {
			t.Errorf("it passed after %v, want (120 - 20) / 2 s at most", waited)
		}
		// It is in use from then on. So are its tokens of known keys.
		if waited := w.pass(last, w.known); waited != 0 {
			t.Errorf("its next token waited for %v", waited)
		}
	})
}

// While the fetch that wakes a source is queued, its old keys do not serve: a stranger who floods
// the service could have a key served that was removed meanwhile.
func TestFloodDoesNotBringBackRemovedKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newTarget(t, 60, loopbackHost, jwks.Config{OnDemand: 2}) // 1 a second, and 10 at once
		time.Sleep(3 * time.Hour)                                     // acme sleeps, too
		w.publish.Store(&[]*jwkstest.Key{jwkstest.NewKey("b", "ES256")})
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		w.flood(ctx, false, true)
		time.Sleep(2 * time.Second)
		start := time.Now()
		for {
			_, err := w.v.Verify(t.Context(), signed(w.known, "acme"))
			if errors.Is(err, verifier.ErrUnknownKey) {
				break
			}
			if !errors.Is(err, verifier.ErrUnavailable) || time.Since(start) > 2*time.Minute {
				t.Fatalf("a token of a removed key, %v after the first: %v, want ErrUnavailable", time.Since(start), err)
			}
		}
		if waited := time.Since(start); waited < 10*time.Second {
			t.Errorf("its issuer was asked after %v: it was not queued", waited)
		}
		w.senders.Wait()
	})
}

// A source whose fetch is queued behind those that strangers caused does not stay there when it
// comes into use.
func TestSourceComesIntoUseWhileQueued(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newTarget(t, 60, loopbackHost, jwks.Config{OnDemand: 2})
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		defer w.senders.Wait()
		w.flood(ctx, false, true)
		time.Sleep(2 * time.Second)
		w.send(unsigned("unknown", issuerOf("acme")), verifier.ErrUnavailable, verifier.ErrUnknownKey)
		time.Sleep(time.Second)
		if got := w.sources["acme"].Status(); got.Fetches != 1 || !got.NextFetch.IsZero() {
			t.Fatalf("%d fetches so far, and the next at %v: want one that is queued", got.Fetches, got.NextFetch)
		}
		w.pass("acme", w.known)
		if waited := w.learn(jwkstest.NewKey("new", "ES256")); waited != 200*time.Millisecond {
			t.Errorf("a good token of a new key waited for %v, want one fetch", waited)
		}
	})
}

// A forged token may wake a source for one fetch. Only a verified one keeps it awake.
func TestForgedTokensKeepNothingAwake(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		v := verify(t, s)
		w.sleep(s, time.Hour)
		before := len(w.issuer.Requests())
		forged := jwkstest.NewKey("a", "ES256")
		for range 100 {
			if _, err := v.Verify(t.Context(), token(forged, time.Hour)); !errors.Is(err, verifier.ErrSignature) {
				t.Fatalf("a forged token: %v", err)
			}
			w.sleep(s, 10*time.Minute)
		}
		if got := len(w.issuer.Requests()) - before; got != 100 {
			t.Errorf("%d requests for 100 tokens", got)
		}
		if _, err := v.Verify(t.Context(), token(w.a, time.Hour)); err != nil {
			t.Fatal(err)
		}
		if time.Sleep(10 * time.Minute); s.Status().Asleep {
			t.Error("ten minutes after a good token it sleeps")
		}
	})
}
