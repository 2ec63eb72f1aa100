package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	connections = 32
	benchSecret = "0123456789abcdef0123456789ABCDEF"
)

// benchToken returns a token that the measured server accepts.
func benchToken() string {
	b64 := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"iss":"https://auth.example","sub":"auth0|507f1f77bcf86cd799439011","aud":"orders","scope":"orders:read orders:write","email":"ann@example.com","iat":%d,"exp":%d}`,
		time.Now().Unix(), time.Now().Add(time.Hour).Unix())
	signed := b64([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + b64([]byte(claims))
	mac := hmac.New(sha256.New, []byte(benchSecret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

// startUpstream starts the service behind the proxies.
func startUpstream() *httptest.Server {
	body := []byte(strings.Repeat("x", 1024))
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}))
}

// serveBare is the proxy that keyturn is compared with.
func serveBare(upstream string) error {
	u, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", l.Addr())
	return http.Serve(l, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.SetXForwarded()
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 2 * connections, DisableCompression: true},
	})
}

// A process is a proxy that runs.
type process struct {
	cmd  *exec.Cmd
	addr string
}

var listening = regexp.MustCompile(`listening on http://(\S+)`)

// start runs a proxy on one core, and waits until it says where it listens.
func start(program string, args ...string) (*process, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "KEYTURN_SECRET="+benchSecret)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, out)
			return &process{cmd, m[1]}, nil
		}
	}
	cmd.Process.Kill()
	return nil, errors.Join(fmt.Errorf("%s does not say where it listens", program), cmd.Wait())
}

func (p *process) stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// load sends requests of a path over all connections, and returns how many of them a second of the proxy's
// processor time is enough for.
func (p *process) load(path string, requests int) (perSecond float64, err error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: edge\r\nAccept: */*\r\nAuthorization: Bearer %s\r\n\r\n", path, benchToken())
	errs := make(chan error, connections)
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			if err := ask(p.addr, request, requests/connections); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
	}
	after, err := p.cpu()
	return float64(requests/connections*connections) / (after - before).Seconds(), err
}

// ask sends a request n times over one connection.
func ask(addr, request string, n int) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range n {
		if _, err := io.WriteString(conn, request); err != nil {
			return err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", addr, res.Status)
		}
	}
	return nil
}

// cpu returns the processor time that the threads of the process have taken, in user and system mode. The
// scheduler counts nanoseconds. /proc/PID/stat rounds to 10 ms, which is 3 % of a part of a round.
func (p *process) cpu() (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		return 0, errors.Join(err, errors.New("/proc/PID/task has no schedstat: the process has ended, or this is not Linux"))
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			return 0, err
		}
		ran, _, _ := strings.Cut(string(stat), " ")
		nanoseconds, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", thread, err)
		}
		sum += time.Duration(nanoseconds)
	}
	return sum, nil
}
