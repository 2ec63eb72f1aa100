package jwks_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A switchboard is a network whose addresses connect to one issuer after some time. An address
// without a time never answers.
type switchboard struct {
	issuer *jwkstest.Server
	addrs  []netip.Addr
	after  map[string]time.Duration

	mu     sync.Mutex
	dialed []string
	conns  []*countedConn
}

// A countedConn knows whether it was closed.
type countedConn struct {
	net.Conn
	mu     sync.Mutex
	closed bool
}

func (c *countedConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return c.Conn.Close()
}

func (s *switchboard) lookup(context.Context, string, string) ([]netip.Addr, error) {
	return s.addrs, nil
}

func (s *switchboard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(addr)
	s.mu.Lock()
	s.dialed = append(s.dialed, host)
	s.mu.Unlock()
	after, answers := s.after[host]
	if !answers {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	conn, err := s.issuer.DialContext(context.Background(), network, addr)
	if err != nil {
		return nil, err
	}
	c := &countedConn{Conn: conn}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	return c, nil
}

// open returns how many connections were made, and how many of them are still open.
func (s *switchboard) open() (made, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.mu.Lock()
		if !c.closed {
			open++
		}
		c.mu.Unlock()
	}
	return len(s.conns), open
}

// answering returns addresses of a pattern, and the time that each takes to answer; 0 means that it
// never does.
func answering(pattern string, n int, after time.Duration) (addrs []netip.Addr, times map[string]time.Duration) {
	times = make(map[string]time.Duration)
	for i := range n {
		a := netip.MustParseAddr(fmt.Sprintf(pattern, i+1))
		addrs = append(addrs, a)
		if after > 0 {
			times[a.String()] = after
		}
	}
	return addrs, times
}

// Addresses that hang delay a fetch by a quarter of a second each at most, in whatever order the
// resolver names them (RFC 8305).
func TestDialingOverlaps(t *testing.T) {
	const v4, v6 = "8.8.8.%d", "2d00::%d"
	type group struct {
		pattern string
		n       int
		after   time.Duration // 0: never
	}
	for _, tt := range []struct {
		name   string
		groups []group
		within time.Duration
	}{
		{"8 IPv6 that hang before 8 good IPv4", []group{{v6, 8, 0}, {v4, 8, time.Millisecond}}, time.Second},
		{"8 IPv4 that hang before 8 good IPv6", []group{{v4, 8, 0}, {v6, 8, time.Millisecond}}, time.Second},
		{"16 IPv6 that hang before a good IPv4", []group{{v6, 16, 0}, {v4, 1, time.Millisecond}}, time.Second},
		{"an IPv4 that hangs before a good one", []group{{v4, 1, 0}, {"8.8.4.%d", 1, time.Millisecond}}, time.Second},
		{"8 that take 600 ms", []group{{v4, 8, 600 * time.Millisecond}}, 2 * time.Second},
		{"15 that hang before a good one", []group{{v4, 15, 0}, {"8.8.4.%d", 1, 100 * time.Millisecond}}, 2 * time.Second},
		{"refused ones of both families count for nothing", []group{{"fd00::%d", 20, 0}, {"10.0.0.%d", 20, 0}, {v4, 1, time.Millisecond}}, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s := &switchboard{issuer: jwkstest.NewInMemory(t), after: make(map[string]time.Duration)}
				s.issuer.Publish(jwkstest.NewKey("a", "ES256"))
				for _, g := range tt.groups {
					addrs, times := answering(g.pattern, g.n, g.after)
					s.addrs = append(s.addrs, addrs...)
					for a, d := range times {
						s.after[a] = d
					}
				}
				client := jwks.New(jwks.Config{TLS: s.issuer.TLS(), LookupNetIP: s.lookup, DialContext: s.dial})
				defer client.Close(t.Context())
				start := time.Now()
				source, err := client.Open("acme", s.issuer.URL(), jwks.SourceConfig{})
				if err != nil {
					t.Fatal(err)
				}
				if err := source.WaitReady(t.Context()); err != nil || time.Since(start) > tt.within {
					t.Errorf("ready after %v, %v", time.Since(start), err)
				}
				if got := source.Status().Fetches; got != 1 {
					t.Errorf("%d attempts", got)
				}
				time.Sleep(jwks.FetchTimeout)
				synctest.Wait()
				if made, open := s.open(); open != 0 {
					t.Errorf("%d of %d connections are left open", open, made)
				}
			})
		})
	}
}

// Addresses are dialled family by family in turns, the resolver's first choice first, and sixteen at
// most.
func TestFamiliesTakeTurns(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := &switchboard{issuer: jwkstest.NewInMemory(t)}
		v6, _ := answering("2d00::%d", 20, 0)
		v4, _ := answering("8.8.8.%d", 3, 0)
		s.addrs = slices.Concat(v6, v4, v4) // some resolvers repeat themselves
		client := jwks.New(jwks.Config{TLS: s.issuer.TLS(), LookupNetIP: s.lookup, DialContext: s.dial})
		defer client.Close(t.Context())
		source, err := client.Open("acme", s.issuer.URL(), jwks.SourceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := attempted(source); stepOf(err) != jwks.StepConnect {
			t.Errorf("%v, want step connect", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		want := []string{"2d00::1", "8.8.8.1", "2d00::2", "8.8.8.2", "2d00::3", "8.8.8.3", "2d00::4"}
		if len(s.dialed) != 16 || !slices.Equal(s.dialed[:7], want) {
			t.Errorf("dialled %q", s.dialed)
		}
	})
}

// A connection that comes after another one has won, or after the end of the Client, is closed, and
// Close waits for the dialer to return.
func TestLateConnectionsAreClosed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		issuer := jwkstest.NewInMemory(t)
		issuer.Publish(jwkstest.NewKey("a", "ES256"))
		s := &switchboard{issuer: issuer}
		s.addrs, s.after = answering("8.8.8.%d", 2, time.Millisecond)
		late := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "8.8.8.1:443" { // deaf to ctx, for a while
				time.Sleep(3 * time.Second)
				ctx = context.Background()
			}
			return s.dial(ctx, network, addr)
		}
		client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: s.lookup, DialContext: late})
		source, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := source.WaitReady(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Errorf("ready after %v, %v", time.Since(start), err)
		}
		if err := client.Close(t.Context()); err != nil || time.Since(start) < 3*time.Second {
			t.Errorf("Close = %v after %v: a dial is under way", err, time.Since(start))
		}
		synctest.Wait()
		if made, open := s.open(); made != 2 || open != 0 {
			t.Errorf("%d of %d connections are left open", open, made)
		}
	})
}

// The guard judges an address once more at the moment it is connected to: a dialer of the house that
// is given another one by mistake connects to nothing.
func TestGuardJudgesAtConnect(t *testing.T) {
	listener := listen(t)
	if err := jwks.DialUnjudged(t.Context(), listener.Addr().String()); stepOf(err) != jwks.StepAddress {
		t.Errorf("a connection to loopback = %v, want step address", err)
	}
}
