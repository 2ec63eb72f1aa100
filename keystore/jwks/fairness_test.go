package jwks_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// However many issuers hang, another tenant's key is fetched at once.
func TestBrokenTenantsDoNotStallOthers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.client.Close(t.Context())
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "[2d00::7]:443" {
				return w.issuer.DialContext(ctx, network, addr)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		client := jwks.New(jwks.Config{TLS: w.issuer.TLS(), LookupNetIP: w.issuer.LookupNetIP, DialContext: dial})
		defer client.Close(t.Context())
		for i := range 200 {
			if _, err := client.Open(fmt.Sprint("broken-", i), fmt.Sprintf("https://203.0.114.%d/", i), jwks.SourceConfig{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // each has failed at least once
		s, err := client.Open("acme", w.issuer.URL(), jwks.SourceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := s.WaitReady(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Errorf("ready after %v, %v", time.Since(start), err)
		}
	})
}

// A flood on one tenant does not delay another tenant.
func TestFloodDoesNotDelayOthers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		flooded, err := w.client.Open("globex", w.issuer.URL()+"?other", jwks.SourceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		s := w.ready(jwks.SourceConfig{})
		if err := flooded.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var flood sync.WaitGroup
		for g := range 50 {
			flood.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case <-time.After(10 * time.Millisecond):
					}
					_ = flooded.Refresh(t.Context(), keystore.ID{Tenant: "globex", KID: fmt.Sprint(g, "-", i)})
				}
			})
		}
		time.Sleep(time.Second)
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(w.a, c)
		start := time.Now()
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil || time.Since(start) > 100*time.Millisecond {
			t.Errorf("Refresh = %v after %v", err, time.Since(start))
		}
		close(stop)
		flood.Wait()
	})
}

// Unknown kids of many tenants with slow issuers take turns with the schedule of other tenants.
func TestFloodsDoNotDelaySchedule(t *testing.T) {
	parallel(t)
	const quietHost = "127.9.0.1"
	virtual(t, func(t *testing.T) {
		set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
		network := &network{set: func(addr string, _ *http.Request) string {
			if addr != quietHost+":80" {
				time.Sleep(1900 * time.Millisecond)
			}
			return set
		}}
		defer network.answering.Wait()
		client := jwks.New(jwks.Config{DialContext: network.dial})
		defer client.Close(t.Context())
		every, seconds := 200*time.Millisecond, 600
		if raceEnabled { // make test has the whole flood without the race detector
			every, seconds = time.Second, 200
		}
		var flood sync.WaitGroup
		defer flood.Wait()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for i := range 120 {
			tenant := fmt.Sprint("flooded-", i)
			s := network.open(t, client, tenant, fmt.Sprintf("127.1.%d.1", i))
			flood.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					_ = s.Refresh(ctx, keystore.ID{Tenant: tenant, KID: fmt.Sprint("unknown-", n)})
					time.Sleep(every)
				}
			})
		}
		s := network.open(t, client, "acme", quietHost)
		for range seconds {
			if _, err := get(s, "a"); err != nil {
				t.Fatal(err)
			}
			if st := s.Status(); st.State == jwks.Stale {
				t.Fatalf("its set is %v old, with a TTL of %v", st.Age, st.TTL)
			}
			time.Sleep(time.Second)
		}
	})
}

// However many issuers hang from the start, even before one has failed, another tenant's new key is
// fetched at once.
func TestNewTenantsDoNotStallOthers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.client.Close(t.Context())
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if strings.HasPrefix(addr, "11.") {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return w.issuer.DialContext(ctx, network, addr)
		}
		w.client = jwks.New(jwks.Config{TLS: w.issuer.TLS(), LookupNetIP: w.issuer.LookupNetIP, DialContext: dial})
		s := w.ready(jwks.SourceConfig{})
		var callers sync.WaitGroup
		for i := range 200 {
			tenant := fmt.Sprint("new-", i)
			s, err := w.client.Open(tenant, fmt.Sprintf("https://11.0.0.%d/", i), jwks.SourceConfig{})
			if err != nil {
				t.Fatal(err)
			}
			callers.Go(func() { _ = s.Refresh(t.Context(), keystore.ID{Tenant: tenant, KID: "x"}) })
		}
		synctest.Wait()
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(w.a, w.b, c)
		start := time.Now()
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil || time.Since(start) > 100*time.Millisecond {
			t.Errorf("Refresh = %v after %v", err, time.Since(start))
		}
		w.wantKey(s, c)
		callers.Wait()
	})
}

// A fetch that a caller waits for goes first.
func TestQueuedFetchIsHurried(t *testing.T) {
	virtual(t, func(t *testing.T) {
		a, c := jwkstest.NewKey("a", "ES256"), jwkstest.NewKey("c", "ES256")
		var slow atomic.Bool
		network := &network{set: func(string, *http.Request) string {
			if !slow.Load() {
				return jwkstest.Set(a)
			}
			time.Sleep(500 * time.Millisecond)
			return jwkstest.Set(a, c)
		}}
		defer network.answering.Wait()
		client := jwks.New(jwks.Config{DialContext: network.dial})
		defer client.Close(t.Context())
		var sources []*jwks.Source
		for i := range 200 {
			sources = append(sources, network.open(t, client, fmt.Sprint("other-", i), fmt.Sprintf("127.1.%d.1", i)))
		}
		s := network.open(t, client, "acme", "127.9.0.1")
		slow.Store(true)
		var schedule sync.WaitGroup
		defer schedule.Wait()
		for _, s := range append(sources, s) { // 56 at once: two seconds
			schedule.Go(func() { _ = jwks.Reload(t.Context(), s) })
			synctest.Wait()
		}
		start := time.Now()
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil || time.Since(start) > 1100*time.Millisecond {
			t.Errorf("Refresh = %v after %v", err, time.Since(start))
		}
	})
}

// That holds for endpoints that have not been asked yet, too, as after a restart.
func TestColdFetchIsHurried(t *testing.T) {
	token := func(ctx context.Context, s *jwks.Source) error {
		return s.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "a"})
	}
	ready := func(ctx context.Context, s *jwks.Source) error { return s.WaitReady(ctx) }
	own := func(i int) string { return fmt.Sprintf("127.1.%d.1", i) }
	for _, tt := range []struct {
		name string
		host func(i int) string
		one  bool // one tenant has all the other sources
		wait func(ctx context.Context, s *jwks.Source) error
	}{
		{"by a token", own, false, token},
		{"by WaitReady", own, false, ready},
		{"by a token, behind a tenant of many issuers", own, true, token},
		{"by WaitReady, behind a tenant of many issuers", own, true, ready},
		{"by a token, at a host that all use", func(int) string { return "127.9.0.1" }, false, token},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				set := jwkstest.Set(jwkstest.NewKey("a", "ES256"))
				network := &network{set: func(string, *http.Request) string {
					time.Sleep(500 * time.Millisecond)
					return set
				}}
				defer network.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: network.dial})
				defer client.Close(t.Context())
				open := func(tenant, host, path string) *jwks.Source {
					s, err := client.Open(tenant, "http://"+host+path, jwks.SourceConfig{AllowLoopback: true})
					if err != nil {
						t.Fatal(err)
					}
					return s
				}
				for i := range 200 { // forty at once, 32 at a host: two and a half
					tenant := fmt.Sprint("other-", i)
					if tt.one {
						tenant = "big"
					}
					open(tenant, tt.host(i), fmt.Sprint("/", i))
				}
				s := open("acme", "127.9.0.1", "/jwks.json")
				start := time.Now()
				if err := tt.wait(t.Context(), s); err != nil || time.Since(start) > 1100*time.Millisecond {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		})
	}
}
