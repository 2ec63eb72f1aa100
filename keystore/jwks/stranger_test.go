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

// A target is a service with one tenant in use, "acme", and many that no token has used lately.
type target struct {
	t       *testing.T
	v       *verifier.Verifier
	client  *jwks.Client
	acme    *jwks.Source
	tenants []string                         // the others
	known   *jwkstest.Key                    // of every issuer
	publish *atomic.Pointer[[]*jwkstest.Key] // by acme's issuer
	fetches func() int

	senders sync.WaitGroup
	forged  atomic.Int64 // tokens so far
}

// half of the tenants sleep, and the others are fresh. Their issuers have a host each, and answer
// after 200 ms.
func newTarget(t *testing.T, tenants int) *target {
	w := &target{t: t, known: jwkstest.NewKey("a", "ES256"), publish: new(atomic.Pointer[[]*jwkstest.Key])}
	w.publish.Store(&[]*jwkstest.Key{w.known})
	common := jwkstest.Set(w.known)
	network := &network{maxAge: 3600, set: func(addr string, _ *http.Request) string {
		time.Sleep(200 * time.Millisecond)
		if addr == "127.99.0.1:80" {
			return jwkstest.Set(*w.publish.Load()...)
		}
		return common
	}}
	w.fetches = network.total
	t.Cleanup(network.answering.Wait)
	w.client = jwks.New(jwks.Config{DialContext: network.dial})
	t.Cleanup(func() { w.client.Close(context.Background()) })
	stores := make(map[string]keystore.KeyStore)
	for i := range tenants {
		if i == tenants/2 {
			time.Sleep(3 * time.Hour) // the first half falls asleep
		}
		name := fmt.Sprint("tenant-", i)
		w.tenants = append(w.tenants, name)
		stores[name] = w.open(name, fmt.Sprintf("127.%d.%d.1", i/250+1, i%250))
	}
	w.acme = network.open(t, w.client, "acme", "127.99.0.1")
	stores["acme"] = w.acme
	w.v = verifyAll(t, stores)
	time.Sleep(time.Minute)
	synctest.Wait()
	w.pass("acme", w.known)
	return w
}

func (w *target) open(tenant, host string) *jwks.Source {
	s, err := w.client.Open(tenant, "http://"+host+"/jwks.json", jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// pass verifies a good token, which must pass at once, and returns for how long it waited.
func (w *target) pass(tenant string, key *jwkstest.Key) time.Duration {
	w.t.Helper()
	start := time.Now()
	if _, err := w.v.Verify(w.t.Context(), signed(key, tenant)); err != nil {
		w.t.Errorf("a good token of key %s: %v", key.KID, err)
	} else if tenant == "acme" {
		w.acme.NoteUse(tenant)
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
	synctest.Test(t, func(t *testing.T) {
		w := newTarget(t, 2000)
		fetched, before, start := w.fetches(), heap(), time.Now()
		ctx, stop := context.WithCancel(t.Context())
		w.flood(ctx, true, true)
		for i := range 3 {
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
