package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
)

// A loopback is one server for any number of issuers on loopback, each with a host of its own.
type loopback struct {
	client  *jwks.Client
	clock   *jumpy
	latency atomic.Int64 // of answers, in nanoseconds
	publish func(host string, set string)
	fetches atomic.Int64 // on demand
}

// newLoopback returns a server that answers with common, or with what was published at that host.
func newLoopback(tb testing.TB, common string) *loopback {
	l := &loopback{clock: new(jumpy)}
	var sets sync.Map
	l.publish = func(host, set string) { sets.Store(host, set) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Duration(l.latency.Load()))
		if r.Header.Get("Cache-Control") != "" {
			l.fetches.Add(1)
		}
		set, ok := sets.Load(r.Host)
		if !ok {
			set = common
		}
		w.Header().Set("Cache-Control", "max-age=3600")
		io.WriteString(w, set.(string))
	}))
	tb.Cleanup(server.Close)
	l.client = jwks.New(jwks.Config{Now: l.clock.now, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}})
	tb.Cleanup(func() { l.client.Close(context.Background()) })
	return l
}

// open returns a verifier of many tenants, whose sources are ready.
func (l *loopback) open(tb testing.TB, tenants int) *verifier.Verifier {
	var all []verifier.Tenant
	var sources []*jwks.Source
	for i := range tenants {
		name := fmt.Sprint("tenant-", i)
		s, err := l.client.Open(name, "http://"+loopbackHost(i)+"/jwks.json", jwks.SourceConfig{AllowLoopback: true})
		if err != nil {
			tb.Fatal(err)
		}
		sources = append(sources, s)
		all = append(all, verifier.Tenant{
			ID: name, Keys: s, Issuer: issuerOf(name), Algorithms: []keystore.Algorithm{keystore.ES256}, AnyAudience: true,
		})
	}
	for _, s := range sources {
		if err := s.WaitReady(context.Background()); err != nil {
			tb.Fatal(err)
		}
	}
	v, err := verifier.New(verifier.Config{Tenants: all})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func loopbackHost(i int) string { return fmt.Sprintf("127.%d.%d.1", i/250+1, i%250) }

// flood forges tokens of unknown kids, and of known ones, for all tenants but the first ones, until
// the function that it returns is called. That waits, and returns how many tokens there were.
func (l *loopback) flood(v *verifier.Verifier, first, tenants int) (stop func() int64) {
	ctx, cancel := context.WithCancel(context.Background())
	var forged atomic.Int64
	var senders sync.WaitGroup
	for g := range 2 {
		senders.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				for i := first + g; i < tenants && ctx.Err() == nil; i += 2 {
					iss := issuerOf(fmt.Sprint("tenant-", i))
					for _, kid := range []string{fmt.Sprint("unknown-", n), "a"} {
						forged.Add(1)
						senders.Go(func() { _, _ = v.Verify(ctx, unsigned(kid, iss)) })
					}
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	return func() int64 {
		cancel()
		senders.Wait()
		return forged.Load()
	}
}

// As TestForgedTokensForAllTenants, in real time and over real sockets.
func TestForgedTokensOverSockets(t *testing.T) {
	const tenants = 2000
	known := jwkstest.NewKey("a", "ES256")
	l := newLoopback(t, jwkstest.Set(known))
	v := l.open(t, tenants)
	l.latency.Store(int64(50 * time.Millisecond))
	l.clock.jump(3 * time.Hour) // all are past their TTL, and silent
	if _, err := v.Verify(t.Context(), signed(known, "tenant-0")); err != nil {
		t.Fatal(err)
	}
	before, start, fetched := heap(), time.Now(), l.fetches.Load()
	stop := l.flood(v, 1, tenants)
	keys := []*jwkstest.Key{known}
	for i := range 2 { // and the first of three attempts woke the source
		time.Sleep(500 * time.Millisecond)
		keys = append(keys, jwkstest.NewKey(fmt.Sprint("new-", i), "ES256"))
		l.publish(loopbackHost(0), jwkstest.Set(keys...))
		published := time.Now()
		if _, err := v.Verify(t.Context(), signed(keys[i+1], "tenant-0")); err != nil || time.Since(published) > 2*time.Second {
			t.Errorf("a good token of a new key: %v after %v", err, time.Since(published))
		}
	}
	if more := heap() - before; more > 64<<20 {
		t.Errorf("%d bytes more are in use during the flood", more)
	}
	forged := stop()
	most := 320 + int64(32*time.Since(start).Seconds()) + 4
	if got := l.fetches.Load() - fetched; got > most {
		t.Errorf("%d forged tokens caused %d fetches, want at most %d", forged, got, most)
	}
}

// The first good token of a new key, while strangers forge tokens of 2000 tenants that are not in
// use. An issuer takes 20 ms.
func BenchmarkNewKeyUnderFlood(b *testing.B) {
	const tenants, inUse = 2200, 200
	for _, flooded := range []bool{false, true} {
		b.Run(fmt.Sprint("flooded: ", flooded), func(b *testing.B) {
			key := jwkstest.NewKey("a", "ES256")
			l := newLoopback(b, jwkstest.Set(key))
			v := l.open(b, tenants)
			l.latency.Store(int64(20 * time.Millisecond))
			l.clock.jump(3 * time.Hour)
			for i := range inUse {
				for {
					_, err := v.Verify(b.Context(), signed(key, fmt.Sprint("tenant-", i)))
					if err == nil {
						break
					}
					if !errors.Is(err, verifier.ErrUnavailable) {
						b.Fatal(err)
					}
				}
			}
			start, fetched, stop := time.Now(), l.fetches.Load(), func() int64 { return 0 }
			if flooded {
				stop = l.flood(v, inUse, tenants)
				time.Sleep(time.Second)
			}
			n := 0
			var slowest time.Duration
			for b.Loop() {
				i := n % inUse
				fresh := jwkstest.NewKey(fmt.Sprint("new-", n), "ES256")
				l.publish(loopbackHost(i), jwkstest.Set(key, fresh))
				token := signed(fresh, fmt.Sprint("tenant-", i))
				published := time.Now()
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
				slowest = max(slowest, time.Since(published))
				n++
			}
			forged := stop()
			b.ReportMetric(float64(slowest.Milliseconds()), "slowest-ms")
			b.ReportMetric(float64(l.fetches.Load()-fetched-int64(n))/time.Since(start).Seconds(), "strangers-fetches/s")
			b.ReportMetric(float64(forged)/time.Since(start).Seconds(), "forged/s")
		})
	}
}
