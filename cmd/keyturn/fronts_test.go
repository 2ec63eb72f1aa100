//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/keyturn/keyturn/internal/proxytest"
)

// frontUpstream is the service behind keyturn behind a proxy: it echoes what it got. /ws is a WebSocket
// that echoes, and /sse an event stream that ends when the client has read an event and says so.
func frontUpstream(read <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
			if err != nil {
				return
			}
			defer c.CloseNow()
			for {
				kind, message, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), kind, message) != nil {
					return
				}
			}
		case "/sse":
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: hello\n\n")
			http.NewResponseController(w).Flush()
			<-read
			fmt.Fprint(w, "data: bye\n\n")
		default:
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(fronted{r.Method, r.RequestURI, r.Host, len(body), r.Header})
		}
	}
}

type fronted struct {
	Method, Target, Host string
	Body                 int
	Header               http.Header
}

// A chain is a proxy in front of keyturn in front of a service.
type chain struct {
	url   string
	token string
	read  chan struct{}
}

// startChain runs the three of them, with the files of docs/proxies.
func startChain(t *testing.T, start func(testing.TB, proxytest.Config) *proxytest.Proxy, file string) *chain {
	t.Helper()
	read := make(chan struct{})
	service := httptest.NewServer(frontUpstream(read))
	t.Cleanup(service.Close)
	yaml, err := os.ReadFile("../../docs/proxies/upstream.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := configFolder(t, string(yaml), map[string]string{"acme.secret": testSecret})
	s := startServe(t, nil, "--config", config, "--upstream", service.URL)
	replace := map[string]string{"127.0.0.1:4111": strings.TrimPrefix(s.url, "http://")}
	if strings.HasSuffix(file, ".cfg") {
		replace["port 9102"] = "port " + s.admin[strings.LastIndexByte(s.admin, ':')+1:]
	}
	p := start(t, proxytest.Config{File: "../../docs/proxies/" + file, Listen: "127.0.0.1:8080", Replace: replace})
	return &chain{p.URL(), hs256(testSecret, plainHeader, in(time.Hour, frontClaims)), read}
}

const frontClaims = `,"sub":"ann","iss":"https://acme.example","aud":"api","scope":"a b"`

// fronts are the proxies that stand in front of --upstream, since neither asks a forward-auth server.
func fronts(t *testing.T, test func(t *testing.T, f *chain)) {
	for _, one := range []struct {
		name, file string
		start      func(testing.TB, proxytest.Config) *proxytest.Proxy
	}{{"Apache", "apache.conf", proxytest.Apache}, {"HAProxy", "haproxy.cfg", proxytest.HAProxy}} {
		t.Run(one.name, func(t *testing.T) { test(t, startChain(t, one.start, one.file)) })
	}
}

// reached is the echo of a request that must reach the service.
func (f *chain) reached(t *testing.T, method, target, headers string) fronted {
	t.Helper()
	a := askWith(t, f.url, method, target, headers)
	var got fronted
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
		t.Fatalf("%s %s = %d %s", method, target, a.status, a.body)
	}
	return got
}

func TestFronts(t *testing.T) {
	fronts(t, func(t *testing.T, f *chain) {
		bearer := "Authorization: Bearer " + f.token + "\r\n"
		t.Run("good", func(t *testing.T) {
			got := f.reached(t, "POST", "/a%2Fb//c/../d;e?q=1;2&x=%zz", bearer+"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Prefix: /x\r\nForwarded: for=6.6.6.6\r\n")
			for name, want := range map[string]string{
				"X-Auth-Tenant": "acme", "X-Auth-Subject": "ann", "X-Auth-Scopes": "a b", "Authorization": "", "X-Forwarded-Proto": "http",
				"X-Forwarded-For": "127.0.0.1, 127.0.0.1", "X-Forwarded-Host": "localhost", "Forwarded": "", "X-Forwarded-Prefix": "",
			} {
				if v := strings.Join(got.Header[name], "; "); v != want {
					t.Errorf("%s = %q, want %q", name, v, want)
				}
			}
			if got.Target != "/a%2Fb//c/../d;e?q=1;2&x=%zz" || got.Body != 33 || got.Host != "localhost" || got.Method != "POST" {
				t.Errorf("the service got %+v", got)
			}
		})
		t.Run("refused", func(t *testing.T) { f.testRefused(t) })
		t.Run("HEAD", func(t *testing.T) {
			if a := askWith(t, f.url, "HEAD", "/", bearer); a.status != 200 || a.body != "" {
				t.Errorf("answer = %d %q", a.status, a.body)
			}
		})
		t.Run("a token of 7 KiB", func(t *testing.T) {
			long := hs256(testSecret, plainHeader, in(time.Hour, frontClaims+`,"pad":"`+strings.Repeat("x", 5300)+`"`))
			if len(long) < 7<<10 {
				t.Fatalf("it has %d bytes", len(long))
			}
			f.reached(t, "GET", "/", "Authorization: Bearer "+long+"\r\n")
		})
		t.Run("spellings", func(t *testing.T) {
			for _, name := range []string{"X-Auth-Subject", "x_auth_subject", "X.Auth.Subject", "X-Auth-Groups", "x_auth_groups", "X_Auth-Tenant"} {
				for _, more := range []string{"", name + ": forged\r\n", "X-Odd: 1\r\nConnection: X-Auth-Subject, x_auth_subject\r\n"} {
					got := f.reached(t, "GET", "/", bearer+name+": forged\r\n"+more)
					if text := fmt.Sprint(got.Header); strings.Contains(text, "forged") || got.Header.Get("X-Auth-Subject") != "ann" {
						t.Errorf("%s: the service got %s", name, text)
					}
				}
			}
		})
		t.Run("WebSocket", func(t *testing.T) { f.testWebSocket(t) })
		t.Run("events", func(t *testing.T) { f.testEvents(t) })
	})
}

// testRefused asks without a good token. What the client learns arrives whole.
func (f *chain) testRefused(t *testing.T) {
	cannotTell := hs256(testSecret, `{"alg":"RS256","kid":"1"}`, in(time.Hour, `,"iss":"https://login.globex.example","aud":"api"`))
	for _, tt := range []struct {
		name, headers, header string
		status                int
	}{
		{"none", "", "Www-Authenticate", 401},
		{"bad", "Authorization: Bearer a.b.c\r\n", "Www-Authenticate", 401},
		{"expired", "Authorization: Bearer " + hs256(testSecret, plainHeader, in(-time.Hour, frontClaims)) + "\r\n", "Www-Authenticate", 401},
		{"twice", "Authorization: Bearer " + f.token + "\r\nAuthorization: Bearer " + f.token + "\r\n", "", 400},
		{"malformed", "Authorization: Bearer " + f.token + " x\r\n", "Www-Authenticate", 400},
		{"scheme alone", "Authorization: Bearer\r\n", "Www-Authenticate", 400},
		{"cannot tell", "Authorization: Bearer " + cannotTell + "\r\n", "Retry-After", 503},
	} {
		a := askWith(t, f.url, "POST", "/", tt.headers)
		if a.status != tt.status || tt.header != "" && a.header.Get(tt.header) == "" {
			t.Errorf("%s: answer = %d %v %s, want %d", tt.name, a.status, a.header, a.body, tt.status)
		}
	}
}

func (f *chain) testWebSocket(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(f.url, "http")+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + f.token}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, text := range []string{"one", "two"} {
		if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != text {
			t.Fatalf("Read = %q, %v", got, err)
		}
	}
	if _, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(f.url, "http")+"/ws", nil); err == nil || res == nil || res.StatusCode != 401 {
		t.Errorf("without a token: %v, %v", res, err)
	}
}

// testEvents reads an event while the stream goes on.
func (f *chain) testEvents(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/sse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, len("data: hello\n\n"))
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "data: hello\n\n" {
		t.Fatalf("first event = %q, %v", first, err)
	}
	f.read <- struct{}{}
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "data: bye\n\n" {
		t.Errorf("rest = %q, %v", rest, err)
	}
}

// SIGTERM under load loses no request: the proxy in front moves to another server before this one ends.
func TestSIGTERMUnderLoad(t *testing.T) {
	t.Parallel()
	service := httptest.NewServer(frontUpstream(nil))
	t.Cleanup(service.Close)
	one, signal, ended := startWithAdmin(t, "--upstream", service.URL, "--drain", "4s")
	two, _, _ := startWithAdmin(t, "--upstream", service.URL)
	port := func(url string) string { return "port " + url[strings.LastIndexByte(url, ':')+1:] }
	p := proxytest.HAProxy(t, proxytest.Config{
		File: "../../docs/proxies/haproxy.cfg", Listen: "127.0.0.1:8080",
		Replace: map[string]string{"127.0.0.1:4111": strings.TrimPrefix(one.url, "http://"), "port 9102": port(one.admin), "127.0.0.1:4112": strings.TrimPrefix(two.url, "http://"), "port 9103": port(two.admin)},
		Edit: func(text string) string {
			return text + "\tserver two 127.0.0.1:4112 check addr 127.0.0.1 port 9103 inter 1s fall 2\n"
		},
	})
	token := hs256(testSecret, plainHeader, in(time.Hour, frontClaims))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var good, lost atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := askOnce(p.URL(), token); err == nil {
					good.Add(1)
				} else if lost.Add(1) == 1 {
					t.Errorf("a request is lost: %v", err)
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	wait(t, func() bool { return good.Load() > 100 })
	signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v: %s", err, one.log)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("it did not end")
	}
	before := good.Load()
	wait(t, func() bool { return good.Load() > before+100 })
	stop()
	wg.Wait()
	if strings.Contains(one.log.String(), "cut off") || lost.Load() > 0 {
		t.Errorf("%d requests are lost, %d are not; log: %s", lost.Load(), good.Load(), one.log)
	}
}

// askOnce sends a POST, which a proxy does not repeat.
func askOnce(url, token string) error {
	req, err := http.NewRequest(http.MethodPost, url+"/orders", strings.NewReader("{}"))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s", res.Status, body)
	}
	return err
}

// The pages show the files that the tests run.
func TestFrontPagesShowTheFiles(t *testing.T) {
	for page, file := range map[string]string{"upstream.md": "upstream.yaml", "apache.md": "apache.conf", "haproxy.md": "haproxy.cfg"} {
		text, err1 := os.ReadFile("../../docs/proxies/" + page)
		want, err2 := os.ReadFile("../../docs/proxies/" + file)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "\n"+string(want)+"```\n") {
			t.Errorf("docs/proxies/%s does not show %s byte for byte", page, file)
		}
	}
}
