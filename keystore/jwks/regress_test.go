package jwks_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
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
)

// A service that is not ready is sent no tokens, and Status asks nobody: a source
// that slept through an outage would never learn that it is over.
func TestOutageEndsByItself(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cold   bool
		quiet  time.Duration // before the outage
		outage time.Duration
		want   jwks.State // at its end
	}{
		{"from the start", true, 0, 5 * time.Hour, jwks.Cold},
		{"longer than stale-if-error", false, 0, 5 * time.Hour, jwks.Expired},
		{"a blip as the night begins", false, 7 * time.Minute, 10 * time.Minute, jwks.Stale},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				if tt.cold {
					w.issuer.Misbehave(jwkstest.Status(503))
				}
				s := w.open(jwks.SourceConfig{})
				synctest.Wait()
				time.Sleep(tt.quiet)
				w.issuer.Misbehave(jwkstest.Status(503))
				time.Sleep(tt.outage)
				synctest.Wait()
				if st := s.Status(); st.State != tt.want || st.Asleep {
					t.Fatalf("after the outage: state %v, asleep %v", st.State, st.Asleep)
				}
				before := len(w.issuer.Requests())
				if most := 50 + int(tt.outage/time.Minute); before > most {
					t.Errorf("%d requests in %v, though nobody asked", before, tt.outage)
				}

				w.issuer.Behave()
				time.Sleep(5*time.Minute + jwks.FetchTimeout)
				if st := s.Status(); st.State != jwks.Fresh || st.Failures != 0 {
					t.Errorf("the issuer is well, and %+v", st)
				}
				time.Sleep(24 * time.Hour)
				if got := len(w.issuer.Requests()) - before; !s.Status().Asleep || got > 3 {
					t.Errorf("a day later, nobody asks: asleep %v, %d requests", s.Status().Asleep, got)
				}
			})
		})
	}
}

// What validated an answer says nothing of another heapIndex: an older file there, whose
// date is before it, would be "not modified".
func TestValidatorStaysWhereItWas(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.discover(jwks.SourceConfig{})
		synctest.Wait()
		w.busy(s, w.a, 12*time.Hour)
		w.issuer.MoveSet("/moved") // and still at the old place, so that the metadata is not asked for at once
		w.issuer.AlsoAt("/jwks.json")
		w.issuer.Misbehave(jwkstest.RedirectFrom("/moved", "/")) // the first answers there are failures
		w.busy(s, w.a, 13*time.Hour)
		well := time.Now()
		w.issuer.Behave()
		w.busy(s, w.a, time.Hour)
		failures, answered := 0, 0
		for _, r := range w.issuer.Requests() {
			if r.Path != "/moved" {
				continue
			}
			if conditional := r.Header.Get("If-None-Match") != ""; conditional != (answered > 0) {
				t.Errorf("after %d failures and %d answers at the new heapIndex: If-None-Match %q", failures, answered, r.Header.Get("If-None-Match"))
			}
			if r.Time.Before(well) {
				failures++
			} else {
				answered++
			}
		}
		if failures < 2 || answered < 2 {
			t.Errorf("%d failures and %d answers at the new place", failures, answered)
		}
	})
}

// A jumpy clock can be put forward and back; timers do not notice, as on a machine
// that was suspended.
type jumpy struct{ ahead atomic.Int64 }

func (j *jumpy) now() time.Time       { return time.Now().Add(time.Duration(j.ahead.Load())) }
func (j *jumpy) jump(d time.Duration) { j.ahead.Add(int64(d)) }

// jumping is bubble with such a clock.
func jumping(t *testing.T, test func(t *testing.T, w *world, clock *jumpy)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		clock := new(jumpy)
		test(t, newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Now: clock.now}), clock)
	})
}

// However far the clock goes back, the schedule waits no longer than it would have,
// and turns no faster.
func TestClockGoesBack(t *testing.T) {
	for _, back := range []time.Duration{time.Second, 20 * time.Second, 20 * time.Minute, 3 * time.Hour, 1000 * time.Hour} {
		for _, cold := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v, cold %v", back, cold), func(t *testing.T) {
				jumping(t, func(t *testing.T, w *world, clock *jumpy) {
					if cold {
						w.issuer.Misbehave(jwkstest.Status(500))
					}
					s := w.open(jwks.SourceConfig{})
					synctest.Wait()
					wait := s.Status().NextFetch.Sub(clock.now())
					clock.jump(-back)
					before := s.Status().Fetches
					time.Sleep(wait + time.Minute)
					if s.Status().Fetches == before {
						t.Fatalf("nothing was fetched for %v: %+v", wait+time.Minute, s.Status())
					}
					w.issuer.Behave()
					time.Sleep(time.Minute)
					if _, err := get(s, "a"); err != nil {
						t.Errorf("a minute after the issuer is well: %v", err)
					}
					before = s.Status().Fetches
					for range 60 {
						get(s, "a")
						time.Sleep(time.Minute)
					}
					if got := s.Status().Fetches - before; got < 5 || got > 9 {
						t.Errorf("%d fetches in the hour after, with a TTL of 10 minutes", got)
					}
				})
			})
		}
	}
}

// Keys past their TTL are served where a refresh went wrong, not where none was
// tried, since the machine was suspended.
func TestSuspended(t *testing.T) {
	t.Run("a key that was removed meanwhile", func(t *testing.T) {
		jumping(t, func(t *testing.T, w *world, clock *jumpy) {
			s := w.ready(jwks.SourceConfig{})
			a, err := get(s, "a")
			if err != nil {
				t.Fatal(err)
			}
			w.issuer.Publish(w.b)
			clock.jump(3 * time.Hour)
			w.wantLookup(s, "a", keystore.ErrUnavailable)
			if a.Usable(clock.now()) {
				t.Error("it vouches for cached tokens")
			}
			w.wantRefresh(s, "a", keystore.ErrNotFound)
			w.wantLookup(s, "a", keystore.ErrNotFound)
			if _, err := get(s, "b"); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("and the issuer hangs", func(t *testing.T) {
		jumping(t, func(t *testing.T, w *world, clock *jumpy) {
			s := w.ready(jwks.SourceConfig{})
			w.issuer.Misbehave(jwkstest.HangHeader())
			clock.jump(3 * time.Hour)
			w.wantLookup(s, "a", keystore.ErrUnavailable)
			time.Sleep(jwks.WakeWait)
			if _, err := get(s, "a"); err != nil {
				t.Errorf("after %v: %v", jwks.WakeWait, err)
			}
			w.wantState(s, jwks.Stale)
		})
	})
	t.Run("within the TTL", func(t *testing.T) {
		jumping(t, func(t *testing.T, w *world, clock *jumpy) {
			s := w.ready(jwks.SourceConfig{})
			clock.jump(s.Status().NextFetch.Sub(clock.now()) + time.Second)
			if _, err := get(s, "a"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if age := s.Status().Age; age > time.Minute {
				t.Errorf("refreshed %v ago", age)
			}
		})
	})
	t.Run("nobody asks", func(t *testing.T) {
		jumping(t, func(t *testing.T, w *world, clock *jumpy) {
			w.issuer.SetHeader("Cache-Control", "max-age=3600")
			s := w.ready(jwks.SourceConfig{})
			a, err := get(s, "a")
			if err != nil {
				t.Fatal(err)
			}
			clock.jump(3 * time.Hour)
			time.Sleep(time.Minute)
			synctest.Wait()
			if a.Usable(clock.now()) {
				t.Error("cached tokens do not ask")
			}
		})
	})
}

// A network is one in memory, where every address answers with the set that it is
// said to have.
type network struct {
	set func(addr string, r *http.Request) string

	answering sync.WaitGroup

	mu    sync.Mutex
	times map[string][]time.Time // of requests, by address
}

func (n *network) dial(_ context.Context, _, addr string) (net.Conn, error) {
	client, server := net.Pipe()
	n.answering.Go(func() {
		defer server.Close()
		r, err := http.ReadRequest(bufio.NewReader(server))
		if err != nil {
			return
		}
		n.mu.Lock()
		if n.times == nil {
			n.times = make(map[string][]time.Time)
		}
		n.times[addr] = append(n.times[addr], time.Now())
		n.mu.Unlock()
		body := n.set(addr, r)
		fmt.Fprintf(server, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	})
	return client, nil
}

// requests returns when an address was asked.
func (n *network) requests(addr string) []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.times[addr])
}

// open returns a source of what host answers, and waits for its first set.
func (n *network) open(t *testing.T, client *jwks.Client, tenant, host string) *jwks.Source {
	t.Helper()
	s, err := client.Open(tenant, "http://"+host+"/jwks.json", jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// A fetch of the schedule may be answered by a cache that does not have the newest
// key yet: that is no reason to refuse its tokens.
func TestKidThatACacheLacks(t *testing.T) {
	a, c := jwkstest.NewKey("a", "ES256"), jwkstest.NewKey("c", "ES256")
	for _, tt := range []struct {
		name string
		test func(t *testing.T, s *jwks.Source) (requests int)
	}{
		{"is asked for past it, once for all", func(t *testing.T, s *jwks.Source) int {
			var callers sync.WaitGroup
			for range 100 {
				callers.Go(func() {
					if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
						t.Errorf("Refresh = %v", err)
					}
				})
			}
			callers.Wait()
			return 2
		}},
		{"is not remembered as missing", func(t *testing.T, s *jwks.Source) int {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
			defer cancel() // 10 ms after the cache has answered
			wantOnly(t, "Refresh", s.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "c"}), keystore.ErrUnavailable)
			if got := jwks.Missing(s); got != 0 {
				t.Errorf("%d kids are remembered", got)
			}
			return 2
		}},
		{"is refused if the issuer lacks it, too", func(t *testing.T, s *jwks.Source) int {
			for range 10 {
				err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "unknown"})
				wantOnly(t, "Refresh", err, keystore.ErrNotFound)
			}
			return 2
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := &network{set: func(_ string, r *http.Request) string {
					time.Sleep(100 * time.Millisecond)
					if r.Header.Get("Cache-Control") == "no-cache" {
						return jwkstest.Set(a, c)
					}
					return jwkstest.Set(a) // from a cache
				}}
				defer network.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: network.dial})
				defer client.Close(t.Context())
				s := network.open(t, client, "acme", "127.9.0.1")
				time.Sleep(time.Until(s.Status().NextFetch) + 50*time.Millisecond)
				if !s.Status().NextFetch.IsZero() {
					t.Fatal("no fetch is under way")
				}
				want := tt.test(t, s)
				time.Sleep(time.Second)
				if got := len(network.requests("127.9.0.1:80")) - 1; got != want {
					t.Errorf("%d requests, want %d", got, want)
				}
			})
		})
	}
}

// Unknown kids of many tenants with slow issuers take turns with the schedule of the
// others.
func TestFloodsLeaveTheScheduleAlone(t *testing.T) {
	const quietHost = "127.9.0.1"
	synctest.Test(t, func(t *testing.T) {
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
					time.Sleep(200 * time.Millisecond)
				}
			})
		}
		s := network.open(t, client, "acme", quietHost)
		for range 600 {
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

// However many issuers hang from the start, before any has failed, another tenant's
// new key is learned at once.
func TestNewTenantsStallNobody(t *testing.T) {
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

// What decodes to nothing is bounded as it comes.
func TestGzipOfNothing(t *testing.T) {
	var empty bytes.Buffer
	if err := gzip.NewWriter(&empty).Close(); err != nil {
		t.Fatal(err)
	}
	members := bytes.Repeat(empty.Bytes(), 1000)
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan int, 1)
		dial := func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				_, err := http.ReadRequest(bufio.NewReader(server))
				total := 0
				if err == nil {
					total, err = fmt.Fprint(server, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n")
				}
				for n := 0; err == nil && total < 64*jwks.MaxRaw; total += n {
					n, err = server.Write(members)
				}
				sent <- total
			}()
			return client, nil
		}
		client := jwks.New(jwks.Config{DialContext: dial})
		defer client.Close(t.Context())
		s, err := client.Open("acme", "http://127.9.0.1/jwks.json", jwks.SourceConfig{AllowLoopback: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-sent; got > jwks.MaxRaw {
			t.Errorf("%d bytes were taken, want at most %d", got, jwks.MaxRaw)
		}
		synctest.Wait()
		e := new(jwks.Error)
		if err := s.Status().LastError; !errors.As(err, &e) || e.Step != jwks.StepBody || !strings.Contains(e.Error(), "on the connection") {
			t.Errorf("%v, want step body", err)
		}
		client.Close(t.Context()) // before it tries again
	})
}

// Metadata that is a day old is asked for anew, but the keys decide whether they are
// still where it said.
func TestOldMetadata(t *testing.T) {
	const host, issuer = "127.9.0.1", "http://127.9.0.1"
	metadata := func(issuer, path string) string {
		return fmt.Sprintf(`{"issuer":%q,"jwks_uri":"http://%s%s"}`, issuer, host, path)
	}
	for _, tt := range []struct {
		name   string
		hangs  bool
		answer string // when it is a day old
		want   bool   // whether the keys stay in step
	}{
		{name: "hangs", hangs: true, answer: metadata(issuer, "/v2"), want: true},
		{name: "names another issuer", answer: metadata("http://127.9.0.2", "/v1")},
		{name: "names another place", answer: metadata(issuer, "/v2"), want: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var old, well atomic.Bool
				var asked, moved atomic.Int64
				network := &network{set: func(_ string, r *http.Request) string {
					switch {
					case r.URL.Path == "/v2":
						moved.Add(1)
						fallthrough
					case r.URL.Path == "/v1":
						return jwkstest.Set(jwkstest.NewKey("a", "ES256")) // another one each time
					case old.Load():
						asked.Add(1)
						if tt.hangs && !well.Load() {
							time.Sleep(10 * time.Second)
						}
						return tt.answer
					}
					return metadata(issuer, "/v1")
				}}
				defer network.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: network.dial})
				defer client.Close(t.Context())
				s, err := client.Discover("acme", issuer, jwks.SourceConfig{AllowLoopback: true})
				if err != nil {
					t.Fatal(err)
				}
				busy := func(d time.Duration) {
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
						_, _ = get(s, "a")
					}
				}
				busy(time.Hour)
				old.Store(true)
				busy(25 * time.Hour)
				if got := inSync(s); got != tt.want || asked.Load() == 0 {
					t.Errorf("in step: %v, want %v; asked %d times; %v", got, tt.want, asked.Load(), s.Status().LastError)
				}
				if !tt.hangs {
					return
				}
				// It is asked for with each attempt, until it answers.
				before := asked.Load()
				busy(10 * time.Minute)
				if got := asked.Load() - before; got < 10 {
					t.Errorf("asked %d times in ten minutes, want each time", got)
				}
				well.Store(true)
				busy(time.Minute)
				if moved.Load() == 0 {
					t.Error("what it says was not heard")
				}
			})
		})
	}
}
