//go:build unix

package compare

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// serveEnv makes this program the service. Its value is the secret of the tokens.
const serveEnv = "KEYTURN_BENCH_SERVICE"

func TestMain(m *testing.M) {
	if secret := os.Getenv(serveEnv); secret != "" {
		serve(key{"HS256", []byte(secret), []byte(secret)})
		return
	}
	os.Exit(m.Run())
}

// serve prints the address that it serves, and ends with its input.
func serve(k key) {
	tb := new(testing.B) // only the setup can fail here, and then it panics
	hits, misses := k.keyturnWith(tb, verifier.Config{}), k.keyturnWith(tb, verifier.Config{CacheTTL: time.Nanosecond})
	check := checkGolangJWT(k, time.Now)

	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	mux := http.NewServeMux()
	mux.Handle("GET /bare", bare)
	mux.Handle("GET /hit", middleware.Require(hits)(bare))
	mux.Handle("GET /miss", middleware.Require(misses)(bare))
	mux.HandleFunc("GET /golang-jwt", func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if _, _, err := check(token); !ok || err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		bare(w, r)
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(serviceStats{
			Hits:   hits.CacheStats().Hits,
			Misses: misses.CacheStats().Misses,
			CPU:    processorTime(),
		})
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	panic(http.Serve(listener, mux))
}

// serviceStats counts the work of the service since it began.
type serviceStats struct {
	Hits   uint64        // of /hit
	Misses uint64        // of /miss
	CPU    time.Duration // of the process
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A service is a process that serves on one core.
type service struct {
	addr  string
	token string
}

func startService(tb testing.TB) *service {
	tb.Helper()
	secret := strings.Repeat("secret, ", 4)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+secret, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	for _, err := range []error{err1, err2, cmd.Start()} {
		if err != nil {
			tb.Fatal(err)
		}
	}
	tb.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Error(err)
		}
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		tb.Fatal(err)
	}
	k := key{"HS256", []byte(secret), []byte(secret)}
	return &service{addr: strings.TrimSpace(addr), token: k.token(tb, payload)}
}

func (s *service) stats(tb testing.TB) serviceStats {
	tb.Helper()
	resp, err := http.Get("http://" + s.addr + "/stats")
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	var stats serviceStats
	if err := json.NewDecoder(resp.Body).Decode(&stats); err != nil {
		tb.Fatal(err)
	}
	return stats
}

// A generator puts a service under load for d, and returns how many requests were answered with
// 200, and the time that it took. Any other answer is an error.
type generator struct {
	name string
	run  func(s *service, path string, d time.Duration) (requests int, took time.Duration, err error)
}

// connections are busy at a time.
const connections = 16

// newGenerator returns wrk if it is there, and otherwise a generator of our own.
func newGenerator() generator {
	if path, err := exec.LookPath("wrk"); err == nil {
		return generator{"wrk", wrk{path}.run}
	}
	return generator{"go", runGo}
}

// wrk is https://github.com/wg/wrk. It knows whole seconds only.
type wrk struct{ path string }

var (
	wrkTotal = regexp.MustCompile(`(\d+) requests in ([\d.]+)(ms|s|m)`)
	wrkBad   = regexp.MustCompile(`(?m)^ *(Non-2xx.*|Socket errors.*)$`)
)

func (w wrk) run(s *service, path string, d time.Duration) (int, time.Duration, error) {
	out, err := exec.Command(w.path, "-t1", "-c", strconv.Itoa(connections), "-d", fmt.Sprintf("%.0fs", d.Seconds()),
		"-H", "Authorization: Bearer "+s.token, "http://"+s.addr+path).CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if bad := wrkBad.Find(out); bad != nil {
		return 0, 0, fmt.Errorf("wrk: %s", bad)
	}
	total := wrkTotal.FindSubmatch(out)
	if total == nil {
		return 0, 0, fmt.Errorf("wrk: no total in %q", out)
	}
	requests, err1 := strconv.Atoi(string(total[1]))
	took, err2 := time.ParseDuration(string(total[2]) + string(total[3]))
	return requests, took, errors.Join(err1, err2)
}

// maxRequests bounds the requests of one connection.
const maxRequests = 1_000_000

// runGo is a plain closed loop on each connection.
func runGo(s *service, path string, d time.Duration) (int, time.Duration, error) {
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", path, s.addr, s.token)
	start := time.Now()
	var requests atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, connections)
	for i := range errs {
		wg.Go(func() {
			n, err := loop(s.addr, request, start.Add(d))
			requests.Add(int64(n))
			errs[i] = err
		})
	}
	wg.Wait()
	return int(requests.Load()), time.Since(start), errors.Join(errs...)
}

func loop(addr string, request []byte, end time.Time) (requests int, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(end.Add(5 * time.Second)); err != nil {
		return 0, err
	}
	r := bufio.NewReader(conn)
	for requests < maxRequests && time.Now().Before(end) {
		if _, err := conn.Write(request); err != nil {
			return requests, err
		}
		if err := readOK(r); err != nil {
			return requests, err
		}
		requests++
	}
	return requests, nil
}

// readOK reads a response to its end. It understands the responses of our service alone.
func readOK(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answer %q", status)
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("answer without Content-Length")
	}
	_, err = r.Discard(length)
	return err
}

// window is how long one load lasts.
const window = time.Second

// BenchmarkService is a whole service under load on loopback: an http.Server in a process of its
// own, on one core, and the generator on the other. A handler is measured between two windows of
// the bare one: bare, handler, handler, bare. Hits are measured three times, because their few per
// cent would drown in the noise of a shared machine. cpu-% is how busy the service kept its core.
// Well below 100, the generator was the bottleneck.
func BenchmarkService(b *testing.B) {
	s, g := startService(b), newGenerator()
	if _, _, err := g.run(s, "/hit", window); err != nil { // warms the service up
		b.Fatal(err)
	}
	for _, handler := range []string{"hit", "miss", "golang-jwt"} {
		b.Run("handler="+handler+"/by="+g.name, func(b *testing.B) {
			turns := 1
			if handler == "hit" {
				turns = 3
			}
			var bare, handled rate
			var busy float64
			for range b.N { // one is enough: it takes longer than any benchtime
				for _, path := range slices.Repeat([]string{"bare", handler, handler, "bare"}, turns) {
					before := s.stats(b)
					n, took, err := g.run(s, "/"+path, window)
					if err != nil {
						b.Fatal(err)
					}
					after := s.stats(b)
					if path == "bare" {
						bare.add(n, took)
						continue
					}
					handled.add(n, took)
					busy += (after.CPU - before.CPU).Seconds()
					if path == "hit" && after.Hits-before.Hits < uint64(n) || path == "miss" && after.Misses-before.Misses < uint64(n) {
						b.Fatalf("%d requests, but hits %+v, %+v", n, before, after)
					}
				}
			}
			b.ReportMetric(0, "ns/op") // not shown
			b.ReportMetric(bare.perSecond(), "bare-req/s")
			b.ReportMetric(handled.perSecond(), "req/s")
			b.ReportMetric(100*handled.perSecond()/bare.perSecond(), "%-of-bare")
			b.ReportMetric(100*busy/handled.took.Seconds(), "cpu-%")
		})
	}
}

type rate struct {
	requests int
	took     time.Duration
}

func (r *rate) add(requests int, took time.Duration) {
	r.requests += requests
	r.took += took
}

func (r *rate) perSecond() float64 { return float64(r.requests) / r.took.Seconds() }

// The service gives the right answers, and our generator notices wrong ones.
func TestService(t *testing.T) {
	s := startService(t)
	for _, path := range []string{"/bare", "/hit", "/miss", "/golang-jwt"} {
		if n, _, err := runGo(s, path, 20*time.Millisecond); n == 0 || err != nil {
			t.Errorf("%s: %d requests, %v", path, n, err)
		}
	}
	if stats := s.stats(t); stats.Hits == 0 || stats.Misses == 0 || stats.CPU == 0 {
		t.Errorf("stats are %+v", stats)
	}
	s.token += "A"
	for _, path := range []string{"/hit", "/miss", "/golang-jwt"} {
		if _, _, err := runGo(s, path, 20*time.Millisecond); err == nil {
			t.Errorf("%s: a bad token is let in", path)
		}
	}
}
