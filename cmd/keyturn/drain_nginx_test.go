package main

import (
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/proxytest"
)

// SIGTERM under load, behind a real nginx with two servers: no request fails, whether nginx may repeat it
// or not.
func TestDrainBehindNginx(t *testing.T) {
	t.Parallel()
	proxytest.Need(t, "nginx")
	first, second := startBehind(t, "127.0.0.1:0"), startBehind(t, "127.0.0.1:0")
	addr := func(s *behind) string { return strings.TrimPrefix(s.url, "http://") }
	front := proxytest.Nginx(t, proxytest.Config{
		File: "../../docs/serve/nginx-rolling.conf", Listen: "127.0.0.1:8080",
		Replace: map[string]string{"127.0.0.1:4111": addr(first), "127.0.0.1:4112": addr(second)},
	})
	l := startLoad(t, front.URL())
	l.more(200)
	first.signal(syscall.SIGTERM)
	select {
	case err := <-first.ended:
		if err != nil || !strings.Contains(first.out.String(), "stopping: serving on for 1s") {
			t.Errorf("%v: %s", err, first.out)
		}
	case <-time.After(time.Minute):
		t.Fatal("SIGTERM did not end the server")
	}
	l.more(200)
	if n := l.end(); n > 0 {
		t.Errorf("%d of %d requests failed: %s; nginx: %s", n, l.asked.Load(), l.why.Load(), front.Log())
	}
	t.Logf("%d requests", l.asked.Load())
}

// A behind is a server behind nginx.
type behind struct {
	*served
	signal func(syscall.Signal)
	ended  chan error
}

func startBehind(t *testing.T, addr string) *behind {
	t.Helper()
	s := &behind{served: &served{log: new(syncBuffer), out: new(syncBuffer)}, ended: make(chan error, 1)}
	cmd := exec.Command(builtBinary(t), "serve", "--addr", addr, "--admin", "127.0.0.1:0", "--drain", "1s")
	cmd.Env, cmd.Stderr, cmd.Stdout = cleanEnv(envSecret+"="+testSecret), s.log, s.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	wait(t, func() bool { return strings.Contains(s.out.String(), "Ctrl-C ends it") })
	s.url, s.signal = listening.FindStringSubmatch(s.out.String())[1], func(sig syscall.Signal) { cmd.Process.Signal(sig) }
	return s
}

// requests are asked again and again, by GET and by POST.
type requests struct {
	t             *testing.T
	asked, failed atomic.Int64
	why           atomic.Value // of one failure
	stop          chan struct{}
	wg            sync.WaitGroup
}

func startLoad(t *testing.T, url string) *requests {
	l := &requests{t: t, stop: make(chan struct{})}
	l.why.Store("")
	token := hs256(testSecret, plainHeader, in(time.Hour, `,"sub":"ann"`))
	for i := range 4 {
		l.wg.Go(func() {
			client := &http.Client{Timeout: time.Minute}
			for n := i; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				l.ask(client, url, token, n%2 == 0)
			}
		})
	}
	t.Cleanup(func() { l.end() })
	return l
}

func (l *requests) ask(client *http.Client, url, token string, post bool) {
	method, body := http.MethodGet, ""
	if post {
		method, body = http.MethodPost, strings.Repeat("b", 1000)
	}
	req, err := http.NewRequest(method, url+"/api/x", strings.NewReader(body))
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+token)
		var res *http.Response
		if res, err = client.Do(req); err == nil {
			text, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				l.failed.Add(1)
				l.why.Store(method + " " + res.Status + " " + string(text))
			}
		}
	}
	if err != nil {
		l.failed.Add(1)
		l.why.Store(method + " " + err.Error())
	}
	l.asked.Add(1)
}

// more waits until n more requests were answered.
func (l *requests) more(n int64) {
	l.t.Helper()
	for until, end := l.asked.Load()+n, time.Now().Add(time.Minute); l.asked.Load() < until; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatal("the load stands still")
		}
	}
}

// end ends the load, and returns how many requests failed.
func (l *requests) end() int64 {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
	return l.failed.Load()
}
