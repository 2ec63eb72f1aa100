package redistest_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
)

func TestServerStarts(t *testing.T) {
	redistest.Need(t)
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep %v", keep), func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			s := redistest.Run(t, redistest.Options{Keep: keep})
			set(t, s, "k", "v")
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
			want := map[bool]string{false: "", true: "v"}[keep]
			if got := s.Client().Get(ctx, "k").Val(); got != want {
				t.Errorf("after Restart: %q, want %q", got, want)
			}
			set(t, s, "k", "v")
			if err := s.RestartEmpty(); err != nil {
				t.Fatal(err)
			}
			if got := s.Client().Get(ctx, "k").Val(); got != "" {
				t.Errorf("after RestartEmpty: %q", got)
			}
			s.Kill()
			if err := s.Client().Ping(ctx).Err(); err == nil {
				t.Error("answers after Kill")
			}
		})
	}
}

func TestServerThatCannotStart(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	if _, err := redistest.Start(redistest.Options{Args: []string{"--no-such-option", "1"}}); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("error %v", err)
	}
}

func TestPause(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	s := redistest.Run(t, redistest.Options{})
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Client().Ping(ctx).Err(); err == nil {
		t.Error("answers while paused")
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().Ping(deadline(t)).Err(); err != nil {
		t.Error(err)
	}
}

func TestPair(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ctx := deadline(t)
	p := redistest.RunPair(t, redistest.Options{})
	set(t, p.Primary, "k", "v")
	if err := p.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	if got := p.Replica.Client().Get(ctx, "k").Val(); got != "v" {
		t.Errorf("the replica has %q", got)
	}
	p.Primary.Kill()
	if err := p.Replica.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	set(t, p.Replica, "k", "w")
	if err := p.Primary.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := p.Primary.Follow(ctx, p.Replica.Addr()); err != nil {
		t.Fatal(err)
	}
	if got := p.Primary.Client().Get(ctx, "k").Val(); got != "w" {
		t.Errorf("the former primary has %q", got)
	}
}

func TestSentinel(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	s := redistest.RunSentinel(t, redistest.Options{})
	if addr, err := s.Current(deadline(t)); err != nil || addr != s.Primary.Addr() {
		t.Fatalf("the primary is at %q, error %v; want %q", addr, err, s.Primary.Addr())
	}
	s.Primary.Kill()
	if err := s.Failover(); err != nil {
		t.Fatal(err)
	}
	set(t, s.Replica, "k", "v")
}

func TestCluster(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ctx := deadline(t)
	c := redistest.RunCluster(t, redistest.Options{})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs()})
	defer client.Close()
	var owners []int
	for i := range 32 {
		key := strconv.Itoa(i)
		if err := client.Set(ctx, key, key, 0).Err(); err != nil {
			t.Fatal(err)
		}
		owner, err := c.Owner(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Servers[owner].Client().Get(ctx, key).Result(); got != key {
			t.Errorf("key %s is not with its owner: %q, error %v", key, got, err)
		}
		owners = append(owners, owner)
	}
	if slices.Sort(owners); len(slices.Compact(owners)) != 3 {
		t.Errorf("not all servers own keys")
	}
}

// What a test must not leave behind if it is killed.
func TestServersDieWithTheProcess(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	const role = "REDISTEST_PARENT"
	if os.Getenv(role) != "" {
		s, err := redistest.Start(redistest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\n%s%s\n", role, s.Addr())
		select {} // until it is killed
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), role+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr := ""
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		addr, _ = strings.CutPrefix(lines.Text(), role)
		if addr == lines.Text() {
			addr = ""
		}
	}
	if c, err := net.Dial("tcp", addr); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for ctx := deadline(t); ctx.Err() == nil; {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the server lives on")
}

// The thread that starts a server may end long before it.
func TestServersSurviveTheThreadThatAsked(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	var wg sync.WaitGroup
	servers := make(chan *redistest.Server, 1)
	wg.Go(func() {
		runtime.LockOSThread() // and never unlocked: it ends with the goroutine
		s, err := redistest.Start(redistest.Options{})
		if err != nil {
			t.Error(err)
		}
		servers <- s
	})
	wg.Wait()
	s := <-servers
	defer s.Stop()
	time.Sleep(100 * time.Millisecond) // for another process: the thread has ended by then
	if err := s.Client().Ping(deadline(t)).Err(); err != nil {
		t.Error(err)
	}
}

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
		t.Errorf("n is %s, want 4: what a Cut broke must not arrive", n)
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

// Whoever breaks things does so from a goroutine of their own.
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

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func set(t *testing.T, s *redistest.Server, key, value string) {
	t.Helper()
	if err := s.Do(deadline(t), "SET", key, value); err != nil {
		t.Fatal(err)
	}
}
