package jwks_test

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// For ten seconds after the issuer was asked, tokens without kid are judged by that answer.
func TestForgedTokensWithoutKIDAreRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := verifyAll(t, map[string]keystore.KeyStore{"acme": w.ready(jwks.SourceConfig{})})
		forged := withoutKID(jwkstest.NewKey("", "ES256"), "acme")
		asked := func(when string, want int) {
			t.Helper()
			if got := verdict(t, v, forged); got != http.StatusUnauthorized {
				t.Errorf("%s: a forged token gets %d", when, got)
			}
			if got := len(w.issuer.Requests()); got != want {
				t.Errorf("%s: %d requests, want %d", when, got, want)
			}
		}
		asked("the first", 2)
		time.Sleep(10*time.Second - time.Millisecond)
		asked("just before ten seconds", 2)
		time.Sleep(time.Millisecond)
		asked("after ten seconds", 3)
		last := w.issuer.Requests()[2].Header
		if last.Get("Cache-Control") != "no-cache" || last.Get("If-None-Match") != "" {
			t.Errorf("the request had the header %v", last)
		}
		w.issuer.Publish(w.a) // another set
		w.wantRefresh(w.open(jwks.SourceConfig{}), "c", keystore.ErrNotFound)
		asked("the set has changed", 5)
	})
}

// Refresh says whether a fetch brought another set.
func TestRefreshWithoutKID(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Publish(w.a)
		for i, want := range []error{nil, keystore.ErrNotFound, nil} {
			if i == 2 {
				time.Sleep(10 * time.Second)
				w.issuer.Publish(w.b)
			}
			if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme"}); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("call %d: %v, want %v", i, err, want)
			}
		}
		w.wantFetches(3)
		time.Sleep(10 * time.Second)
		w.wantRefresh(s, "", keystore.ErrNotFound) // asked, and unchanged
	})
}

// A lagging issuer answers after 100 ms. A request that a cache may answer gets other keys than one that asks past it.
type lagging struct {
	network
	cached, origin atomic.Pointer[string]
}

func newLagging(keys ...*jwkstest.Key) *lagging {
	l := new(lagging)
	l.network.set = func(_ string, r *http.Request) string {
		time.Sleep(100 * time.Millisecond)
		if r.Header.Get("Cache-Control") == "no-cache" {
			return *l.origin.Load()
		}
		return *l.cached.Load()
	}
	l.publish(keys, keys)
	return l
}

func (l *lagging) publish(cached, origin []*jwkstest.Key) {
	c, o := jwkstest.Set(cached...), jwkstest.Set(origin...)
	l.cached.Store(&c)
	l.origin.Store(&o)
}

// Good tokens that come together, while nothing or a scheduled fetch is under way, all pass after one fetch more. What a
// cache says is not taken for the issuer's word.
func TestTokensWithoutKIDShareAFetch(t *testing.T) {
	a, b, c := jwkstest.NewKey("", "ES256"), jwkstest.NewKey("", "ES256"), jwkstest.NewKey("", "ES256")
	type keys = []*jwkstest.Key
	for _, tt := range []struct {
		name           string
		scheduled      bool // a fetch of the schedule is under way
		cached, origin keys
		signer         *jwkstest.Key
		requests       int
	}{
		{"nothing under way", false, keys{a}, keys{b}, b, 1},
		{"the cache lags behind", true, keys{a}, keys{b}, b, 2},
		{"the schedule brings it", true, keys{b}, keys{b}, b, 2},
		{"the schedule brings another", true, keys{b}, keys{c}, c, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				l := newLagging(a)
				defer l.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: l.dial})
				defer client.Close(t.Context())
				s := l.open(t, client, "acme", "127.9.0.1")
				v := verifyAll(t, map[string]keystore.KeyStore{"acme": s})
				l.publish(tt.cached, tt.origin)
				if tt.scheduled {
					time.Sleep(time.Until(s.Status().NextFetch) + 50*time.Millisecond)
				}
				before, now := len(l.requests("127.9.0.1:80")), time.Now()
				if tt.scheduled {
					before--
				}
				var crowd sync.WaitGroup
				for range 100 {
					crowd.Go(func() {
						if got := verdict(t, v, withoutKID(tt.signer, "acme")); got != http.StatusOK {
							t.Errorf("a good token gets %d", got)
						}
					})
				}
				crowd.Wait()
				if waited := time.Since(now); waited > 200*time.Millisecond {
					t.Errorf("the tokens waited for %v", waited)
				}
				if got := len(l.requests("127.9.0.1:80")) - before; got != tt.requests {
					t.Errorf("%d requests, want %d", got, tt.requests)
				}
			})
		})
	}
}

// The first token of a source that is cold, or sleeps past its TTL, needs one fetch. So does a forged one that wakes it.
func TestTokenWithoutKIDNeedsOneFetch(t *testing.T) {
	for _, kid := range []string{"", "a"} {
		t.Run(fmt.Sprintf("kid %q", kid), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				a, b, forger := jwkstest.NewKey(kid, "ES256"), jwkstest.NewKey(kid, "ES256"), jwkstest.NewKey("", "ES256")
				l := newLagging(a)
				defer l.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: l.dial})
				defer client.Close(t.Context())
				s, err := client.Open("acme", "http://127.9.0.1/jwks.json", jwks.SourceConfig{AllowLoopback: true})
				if err != nil {
					t.Fatal(err)
				}
				v := verifyAll(t, map[string]keystore.KeyStore{"acme": s})
				total := 0
				want := func(when string, key *jwkstest.Key, status, requests int) {
					t.Helper()
					if got := verdict(t, v, withoutKID(key, "acme")); got != status {
						t.Errorf("%s: a token gets %d, want %d", when, got, status)
					}
					total += requests
					if got := len(l.requests("127.9.0.1:80")); got != total {
						t.Errorf("%s: %d requests, want %d", when, got, total)
					}
				}
				sleep := func() {
					time.Sleep(time.Hour)
					synctest.Wait()
					if total = len(l.requests("127.9.0.1:80")); !s.Status().Asleep {
						t.Error("it does not sleep")
					}
				}
				want("cold", a, http.StatusOK, 1)
				sleep()
				l.publish([]*jwkstest.Key{b}, []*jwkstest.Key{b})
				want("asleep, and rotated", b, http.StatusOK, 1)
				want("the old key", a, http.StatusUnauthorized, 0)
				sleep()
				want("asleep, and forged", forger, http.StatusUnauthorized, 1)
			})
		})
	}
}

// Two issuers of one tenant have rotated. A token of either passes.
func TestTokenWithoutKIDOfJoinedSources(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		other := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{})
		v := verifyAll(t, map[string]keystore.KeyStore{"acme": keystore.Join(w.ready(jwks.SourceConfig{}), other.ready(jwks.SourceConfig{}))})
		c, d := jwkstest.NewKey("", "ES256"), jwkstest.NewKey("", "ES256")
		w.issuer.Publish(c)
		other.issuer.Publish(d)
		for name, key := range map[string]*jwkstest.Key{"first": c, "second": d} {
			if got := verdict(t, v, withoutKID(key, "acme")); got != http.StatusOK {
				t.Errorf("a token of the %s issuer gets %d", name, got)
			}
		}
		w.wantFetches(2)
		other.wantFetches(2)
		time.Sleep(11 * time.Second)
		other.issuer.Misbehave(jwkstest.HangHeader())
		w.issuer.Publish(w.a)
		for key, want := range map[*jwkstest.Key]int{w.a: http.StatusOK, w.b: http.StatusServiceUnavailable, d: http.StatusOK} {
			if got := verdict(t, v, withoutKID(key, "acme")); got != want {
				t.Errorf("one issuer hangs: a token gets %d, want %d", got, want)
			}
		}
	})
}

// A source that was woken answers with the keys that it has if its issuer hangs. Whether a token of no such key is
// good cannot be told.
func TestTokenWithoutKIDWhileIssuerHangsAtWake(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		v := verifyAll(t, map[string]keystore.KeyStore{"acme": s})
		w.sleep(s, time.Hour)
		w.issuer.Misbehave(jwkstest.HangHeader())
		now := time.Now()
		if got := verdict(t, v, withoutKID(w.a, "acme")); got != http.StatusOK || time.Since(now) > 2*time.Second {
			t.Errorf("a token of a held key gets %d after %v", got, time.Since(now))
		}
		if got := verdict(t, v, withoutKID(jwkstest.NewKey("", "ES256"), "acme")); got != http.StatusServiceUnavailable {
			t.Errorf("another token gets %d", got)
		}
	})
}
