package redistest_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
)

func TestProxy(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	s := redistest.Run(t, redistest.Options{})
	p := redistest.RunProxy(t, s.Addr())
	client := redis.NewClient(&redis.Options{Addr: p.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
	defer client.Close()
	ask := func(d time.Duration) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		start := time.Now()
		err := client.Incr(ctx, "n").Err()
		return time.Since(start), err
	}
	if _, err := ask(time.Second); err != nil {
		t.Fatal(err)
	}
	p.Delay(60 * time.Millisecond)
	if took, err := ask(time.Second); err != nil || took < 60*time.Millisecond {
		t.Errorf("Delay: took %v, error %v", took, err)
	}
	p.HoldReplies()
	if _, err := ask(100 * time.Millisecond); err == nil {
		t.Error("HoldReplies: an answer came")
	}
	if n := s.Client().Get(t.Context(), "n").Val(); n != "3" {
		t.Errorf("HoldReplies: n is %s, want 3: the request has to pass", n)
	}
	p.Blackhole()
	if took, err := ask(100 * time.Millisecond); err == nil || took < 90*time.Millisecond {
		t.Errorf("Blackhole: took %v, error %v", took, err)
	}
	p.Cut()
	if took, err := ask(5 * time.Second); err == nil || took > 4*time.Second {
		t.Errorf("Cut: took %v, error %v", took, err)
	}
	p.Heal()
	if _, err := ask(time.Second); err != nil {
		t.Errorf("Heal: %v", err)
	}
	if n := s.Client().Get(t.Context(), "n").Val(); n != "4" {
		t.Errorf("n is %s, want 4: a request that Cut broke must not arrive", n)
	}
}

func TestProxyArrivesLate(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	s := redistest.Run(t, redistest.Options{})
	p := redistest.RunProxy(t, s.Addr())
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p.Blackhole()
	if _, err := c.Write([]byte("SET k late\r\n")); err != nil {
		t.Fatal(err)
	}
	p.Heal()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "+OK\r\n" {
		t.Errorf("answer %q, error %v", answer, err)
	}
}

// The proxy's state may change while connections are open.
func TestProxyConcurrently(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	s := redistest.Run(t, redistest.Options{})
	p := redistest.RunProxy(t, s.Addr())
	client := redis.NewClient(&redis.Options{Addr: p.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
	defer client.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
				_ = client.Ping(ctx).Err()
				cancel()
			}
		})
	}
	for range 50 {
		for _, f := range []func(){p.Cut, p.Heal, p.Blackhole, p.HoldReplies, func() { p.Delay(time.Millisecond) }} {
			f()
			time.Sleep(100 * time.Microsecond)
		}
	}
	wg.Wait()
	p.Heal()
	if err := client.Ping(deadline(t)).Err(); err != nil {
		t.Error(err)
	}
}

// The end of a connection does not pass a black hole: after a partition neither side hears that the
// other has gone.
func TestProxyHoldsTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := redistest.RunProxy(t, l.Addr().String())
	client, err1 := net.Dial("tcp", p.Addr())
	server, err2 := l.Accept()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	defer server.Close()
	p.Blackhole()
	client.Close()
	var ne net.Error
	_ = server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := server.Read(make([]byte, 1)); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("while the proxy holds everything: %v", err)
	}
	p.Heal()
	_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after Heal: %v, want EOF", err)
	}
}
