package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A syncBuffer is an output that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A served is a running "keyturn serve", on a port of its own.
type served struct {
	url  string
	log  *syncBuffer
	out  *syncBuffer // all of stdout
	stop func() int  // ends it, and returns the exit code
}

var listening = regexp.MustCompile(`(?m)^listening on (http://127\.0\.0\.1:[0-9]+)$`)

// waitURL reads stdout until it names the address, and goes on copying it.
func waitURL(t *testing.T, stdout io.Reader, out *syncBuffer) string {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		defer close(found)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			fmt.Fprintln(out, lines.Text())
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	select {
	case url := <-found:
		if url != "" {
			return url
		}
	case <-time.After(20 * time.Second):
	}
	t.Fatalf("serve did not say where it listens; it said: %s", out)
	return ""
}

// startServe runs serve in this process.
func startServe(t *testing.T, env map[string]string, flags ...string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &served{log: new(syncBuffer), out: new(syncBuffer)}
	stdout, w := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
		args := append([]string{"serve", "--addr", "127.0.0.1:0"}, flags...)
		ended <- run(ctx, args, lookup, strings.NewReader(""), w, s.log)
		w.Close()
	}()
	s.stop = sync.OnceValue(func() int { cancel(); return <-ended })
	t.Cleanup(func() { s.stop() })
	s.url = waitURL(t, stdout, s.out)
	return s
}

// answered is a response with its body read.
type answered struct {
	status int
	header http.Header
	body   string
}

// ask sends a request with a token, or without if it is empty. A path may have
// any spelling.
func (s *served) ask(t *testing.T, method, path, token string) answered {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", method, path)
	if token != "" {
		fmt.Fprintf(conn, "Authorization: Bearer %s\r\n", token)
	}
	io.WriteString(conn, "Content-Type: application/json\r\nContent-Length: 33\r\n\r\n{\"messages\": \"Weather in London\"}")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{res.StatusCode, res.Header, string(body)}
}

const unauthorized = `{"error":"Invalid or expired token"}`

func (a answered) wantRefused(t *testing.T) {
	t.Helper()
	if a.status != http.StatusUnauthorized || a.body != unauthorized {
		t.Errorf("answer = %d %s, want 401 %s", a.status, a.body, unauthorized)
	}
}

func (a answered) wantOK(t *testing.T, tenant, subject, path string) {
	t.Helper()
	var got struct{ Text, Tenant, Subject, Path *string }
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || json.Unmarshal([]byte(a.body), &got) != nil {
		t.Fatalf("answer = %d %v %s", a.status, a.header, a.body)
	}
	if got.Text == nil || *got.Text == "" || got.Tenant == nil || *got.Tenant != tenant || got.Subject == nil || *got.Subject != subject ||
		got.Path == nil || *got.Path != path {
		t.Errorf("answer = %s, want tenant %q, subject %q, path %q", a.body, tenant, subject, path)
	}
}

// in returns claims that end after d.
func in(d time.Duration, claims string) string {
	return fmt.Sprintf(`{"exp":%d%s}`, time.Now().Add(d).Unix(), claims)
}

func TestServeSharedSecret(t *testing.T) {
	const path = "/api/agents/weatherAgent/generate"
	for name, start := range map[string]func() *served{
		envSecret:       func() *served { return startServe(t, map[string]string{envSecret: testSecret}) },
		envMastraSecret: func() *served { return startServe(t, map[string]string{envMastraSecret: testSecret}) },
		"--secret-file": func() *served { return startServe(t, nil, "--secret-file", file(t, testSecret+"\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start()
			good := hs256(testSecret, plainHeader, in(time.Hour, `,"sub":"ann"`))
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
				s.ask(t, method, path, good).wantOK(t, "default", "ann", path)
				s.ask(t, method, path, "").wantRefused(t)
			}
			if a := s.ask(t, "HEAD", path, good); a.status != http.StatusOK || a.body != "" {
				t.Errorf("HEAD = %d %q", a.status, a.body)
			}
			if a := s.ask(t, "HEAD", path, ""); a.status != http.StatusUnauthorized || a.body != "" {
				t.Errorf("HEAD without token = %d %q", a.status, a.body)
			}
			s.ask(t, "GET", "/api/x", hs256(testSecret, plainHeader, in(time.Hour, ""))).wantOK(t, "default", "", "/api/x")
			for _, bad := range []string{
				hs256("another"+testSecret, plainHeader, in(time.Hour, "")),
				hs256(testSecret, plainHeader, in(-time.Hour, "")),
				hs256(testSecret, plainHeader, `{"sub":"ann"}`),
				hs256(testSecret, `{"alg":"HS256","kid":"k1"}`, in(time.Hour, "")),
				hs256(testSecret, `{"alg":"none"}`, in(time.Hour, "")),
				good[:len(good)-1], "nonsense",
			} {
				s.ask(t, "POST", path, bad).wantRefused(t)
				if strings.Contains(s.log.String(), bad) {
					t.Error("a token is in the log")
				}
			}
			if strings.Contains(s.log.String()+s.out.String(), testSecret) {
				t.Error("the secret is in the output")
			}
			for _, want := range []string{
				"iss and aud are not checked", "reason=signature", "reason=expired", "reason=missing_claim", "--allow-no-exp",
				"reason=unknown_key", "make tokens without kid", "reason=algorithm", "reason=malformed",
			} {
				if !strings.Contains(s.log.String(), want) {
					t.Errorf("the log does not say %q:\n%s", want, s.log)
				}
			}
			if code := s.stop(); code != exitYes {
				t.Errorf("exit code = %d", code)
			}
		})
	}
}

// What serve prints works for those who have keyturn, and those who have a clone.
func TestServeBanner(t *testing.T) {
	banner := func(env map[string]string, flags ...string) string {
		s := startServe(t, env, flags...)
		s.stop()
		wait(t, func() bool { return strings.HasSuffix(s.out.String(), "\nstopped\n") })
		return s.out.String()
	}
	check := func(banner string, phrases ...string) {
		t.Helper()
		for _, p := range append(phrases, "there is no CORS") {
			if !strings.Contains(banner, p) {
				t.Errorf("the banner does not say %q:\n%s", p, banner)
			}
		}
	}
	shared := map[string]string{envMastraSecret: testSecret}
	check(banner(shared), "add an exp, or start serve with --allow-no-exp", "where MASTRA_JWT_SECRET is set to the same secret too",
		"keyturn sign --claim sub=ann   (from a clone: go run ./cmd/keyturn sign --claim sub=ann)")
	if b := banner(shared, "--allow-no-exp"); strings.Contains(b, "add an exp") || strings.Contains(b, "all addresses") {
		t.Errorf("the banner = %s", b)
	}
	check(banner(nil, "--secret-file", file(t, testSecret)), "go run ./cmd/keyturn sign --secret-file FILE")
	check(banner(nil), "KEYTURN_SECRET or MASTRA_JWT_SECRET", "go run ./cmd/keyturn serve --help")
}

func TestAddresses(t *testing.T) {
	for _, open := range []bool{false, true} {
		at := endpoint{URL: "http://localhost:4111", Open: open}
		if strings.Contains(at.addresses(), "on all addresses of this machine; for this machine alone: --addr 127.0.0.1:4111\n") != open {
			t.Errorf("%v: %s", at, at.addresses())
		}
	}
}

// The log tells what was wrong with a request, and nothing that may be a token.
func TestServeLogHints(t *testing.T) {
	s := startServe(t, nil)
	token := hs256(testSecret, plainHeader, in(time.Hour, ""))
	send := func(method, authorization string) answered {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "%s /api/hush HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n", method, authorization)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answered{res.StatusCode, res.Header, string(body)}
	}
	const noBearer = "there is an Authorization header, but it does not begin with Bearer"
	send("GET", "").wantRefused(t)
	if log := s.log.String(); !strings.Contains(log, "method=GET") || strings.Contains(log, noBearer) {
		t.Errorf("log = %s", log)
	}
	send("DELETE", "Authorization: "+token+"\r\n").wantRefused(t)
	if log := s.log.String(); !strings.Contains(log, "method=DELETE") || !strings.Contains(log, noBearer) {
		t.Errorf("log = %s", log)
	}
	send(token, "Authorization: Bearer "+token+"\r\n").wantRefused(t)
	if log := s.log.String(); !strings.Contains(log, `method="(none known)"`) || !strings.Contains(log, "the demo accepts only the tokens that it printed") {
		t.Errorf("log = %s", log)
	}
	if log := s.log.String(); strings.Contains(log, token[:20]) || strings.Contains(log, "hush") {
		t.Errorf("a token or a path is in the log: %s", log)
	}
}

func TestServeAllowNoExp(t *testing.T) {
	s := startServe(t, map[string]string{envSecret: testSecret}, "--allow-no-exp")
	s.ask(t, "GET", "/api/", hs256(testSecret, plainHeader, `{"sub":"ann"}`)).wantOK(t, "default", "ann", "/api/")
	s.ask(t, "GET", "/api/", hs256(testSecret, plainHeader, in(-time.Hour, ""))).wantRefused(t)
	if !strings.Contains(s.log.String(), "they never end") {
		t.Errorf("the log has no warning:\n%s", s.log)
	}
}

// The demo prints a token for each tenant, which opens the API for that tenant,
// and the curl command to paste.
func TestServeDemo(t *testing.T) {
	s := startServe(t, nil)
	s.stop() // so that all of the output is there
	first := s.out.String()

	s = startServe(t, nil)
	s.ask(t, "GET", "/healthz", "") // by now, all has been printed
	wait(t, func() bool { return strings.Contains(s.out.String(), "Ctrl-C") })
	tokens := regexp.MustCompile(`(?m)^(eyJ\S+)$`).FindAllString(s.out.String(), -1)
	if len(tokens) != 2 {
		t.Fatalf("%d tokens are printed, want 2:\n%s", len(tokens), s.out)
	}
	s.ask(t, "POST", "/api/agents/a/generate", tokens[0]).wantOK(t, "acme", "ann", "/api/agents/a/generate")
	s.ask(t, "POST", "/api/agents/a/generate", tokens[1]).wantOK(t, "globex", "bob", "/api/agents/a/generate")
	s.ask(t, "POST", "/api/agents/a/generate", "").wantRefused(t)
	if strings.Contains(first, tokens[0]) {
		t.Error("two runs print the same token")
	}
	// Neither a token of the run before, nor one that swaps the tenant.
	for _, old := range regexp.MustCompile(`(?m)^(eyJ\S+)$`).FindAllString(first, -1) {
		s.ask(t, "GET", "/api/", old).wantRefused(t)
	}
	acme, globex := strings.Split(tokens[0], "."), strings.Split(tokens[1], ".")
	s.ask(t, "GET", "/api/", acme[0]+"."+globex[1]+"."+acme[2]).wantRefused(t)
	s.ask(t, "GET", "/api/", hs256(testSecret, plainHeader, in(time.Hour, ""))).wantRefused(t)

	curl := `curl -X POST ` + s.url + `/api/agents/weatherAgent/generate -H "Content-Type: application/json"` +
		` -H "Authorization: Bearer ` + tokens[0] + `" -d '{"messages": "Weather in London"}'`
	if !strings.Contains(s.out.String(), "\n"+curl+"\n") {
		t.Errorf("no curl command to paste; want %s in\n%s", curl, s.out)
	}
}

// wait waits for what another goroutine is about to do.
func wait(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timeout")
		}
	}
}

// However a path is spelled, it does not reach the API without a token.
func TestServePaths(t *testing.T) {
	s := startServe(t, map[string]string{envSecret: testSecret})
	good := hs256(testSecret, plainHeader, in(time.Hour, ""))
	protected := []string{
		"/api/x", "/api/", "/api", "/api?x=1", "/api/x?token=" + good, "//api/x", "/./api/x", "/x/../api/x", "/api/../x", "/api//x",
		"/%61pi/x", "/api%2fx", "/api/%2e%2e/x", "/x/%2e%2e/api/x", "/API/x", "/Api/x", "/api/x;y=1", "/api/%00", "/api/%ff", "/api/healthz", "/api/../healthz",
		"http://localhost/api/x", "/api/\x7f"[:5],
	}
	for _, path := range protected {
		if a := s.ask(t, "GET", path, ""); a.status != http.StatusUnauthorized || a.body != unauthorized {
			t.Errorf("GET %s = %d %s, want 401", path, a.status, a.body)
		}
		if a := s.ask(t, "GET", path, good); a.status != http.StatusOK {
			t.Errorf("GET %s with a token = %d %s, want 200", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/", "/apis", "/apix/x", "/x", "/x/api", "/api.json", "/\\api/x", "/metrics", "/healthz/", "/%2561pi/x", "*"} {
		for _, token := range []string{"", good} {
			method := "GET"
			if path == "*" {
				method = "OPTIONS"
			}
			a := s.ask(t, method, path, token)
			if path == "*" && a.status == http.StatusOK && a.body == "" {
				continue // net/http answers that itself
			}
			if a.status != http.StatusNotFound || a.body != `{"error":"Not found"}`+"\n" || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("GET %s = %d %s, want 404", path, a.status, a.body)
			}
		}
	}
	if a := s.ask(t, "GET", "/healthz", ""); a.status != http.StatusOK || a.body != `{"status":"ok"}`+"\n" {
		t.Errorf("GET /healthz = %d %s", a.status, a.body)
	}
	if a := s.ask(t, "HEAD", "/healthz", ""); a.status != http.StatusOK {
		t.Errorf("HEAD /healthz = %d", a.status)
	}
	if a := s.ask(t, "POST", "/healthz", ""); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /healthz = %d", a.status)
	}
	for _, path := range []string{"/", "/healthz", "/api/x"} {
		a := s.ask(t, "GET", path, good)
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("GET %s: %s = %q, want %q", path, name, got, want)
			}
		}
	}
	if strings.Contains(s.log.String(), good[:40]) {
		t.Error("a token from a path is in the log")
	}
}

// Identity comes from the token alone.
func TestServeIdentity(t *testing.T) {
	s := startServe(t, map[string]string{envSecret: testSecret})
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/api/x?tenant=evil&subject=evil",
		strings.NewReader(`{"tenant":"evil","subject":"evil"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+hs256(testSecret, plainHeader, in(time.Hour, `,"sub":"ann"`)))
	for _, name := range []string{"X-Auth-Tenant", "X-Auth-Subject", "X-Forwarded-User"} {
		req.Header.Set(name, "evil")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	answered{res.StatusCode, res.Header, string(body)}.wantOK(t, "default", "ann", "/api/x")
}

func TestServeBodyIsBounded(t *testing.T) {
	s := startServe(t, map[string]string{envSecret: testSecret})
	good := hs256(testSecret, plainHeader, in(time.Hour, ""))
	for size, want := range map[int]int{10 << 20: http.StatusOK, 10<<20 + 1: http.StatusRequestEntityTooLarge} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/api/x", bytes.NewReader(make([]byte, size)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+good)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("a body of %d bytes: status = %d, want %d", size, res.StatusCode, want)
		}
	}
}

// TestServeRefusesBeforeTheBody: who has no token does not make the server wait
// for a body that never comes.
func TestServeRefusesBeforeTheBody(t *testing.T) {
	s := startServe(t, map[string]string{envSecret: testSecret})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second)) // well below the server's own limit
	fmt.Fprint(conn, "POST /api/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("answer = %v, %v", res, err)
	}
}

func TestServeUsage(t *testing.T) {
	short := map[string]string{envMastraSecret: testSecret[:31]}
	call{env: short}.run(t, "serve", "--addr", "127.0.0.1:0").wantUsage(t, "MASTRA_JWT_SECRET", "31 bytes, want at least 32", "openssl rand -base64 32")
	call{env: map[string]string{envSecret: "", envMastraSecret: testSecret}}.run(t, "serve").wantUsage(t, "set, but empty")
	keyturn(t, "serve", "--secret-file", "/no/such/file").wantUsage(t, "cannot read the file of --secret-file: no such file")
	for _, addr := range []string{"4111", "localhost", "http://localhost:4111", "::1"} {
		keyturn(t, "serve", "--addr", addr).wantUsage(t, "want HOST:PORT")
	}
	keyturn(t, "serve", "--allow-no-exp").wantUsage(t, "--allow-no-exp goes with a secret", "--secret-file", "KEYTURN_SECRET or MASTRA_JWT_SECRET")
	keyturn(t, "serve", "--addr", "127.0.0.1:99999").wantUsage(t, "--addr: cannot listen there")
	keyturn(t, "serve", "--addr", "192.0.2.1:4111").wantUsage(t, "--addr: cannot listen there")
}

func TestServePortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	keyturn(t, "serve", "--addr", l.Addr().String()).wantUsage(t, "port "+port+" is in use", "--addr")
}

// startProcess runs the built command's serve.
func startProcess(t *testing.T) (*served, *exec.Cmd) {
	t.Helper()
	s := &served{log: new(syncBuffer), out: new(syncBuffer)}
	cmd := exec.Command(builtBinary(t), "serve", "--addr", "127.0.0.1:0")
	cmd.Env = cleanEnv(envSecret + "=" + testSecret)
	cmd.Stderr = s.log
	stdout, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdout.Close() })
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.stop = sync.OnceValue(func() int { cmd.Wait(); return cmd.ProcessState.ExitCode() })
	t.Cleanup(func() { cmd.Process.Kill(); s.stop() })
	s.url = waitURL(t, stdout, s.out)
	return s, cmd
}

func TestServeSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		s, cmd := startProcess(t)
		cmd.Process.Signal(sig)
		if code := s.stop(); code != exitYes {
			t.Errorf("%v: exit code = %d, want 0; log: %s", sig, code, s.log)
		}
		wait(t, func() bool {
			return strings.Contains(s.out.String(), "shutting down") && strings.HasSuffix(s.out.String(), "\nstopped\n")
		})
	}
}

// half sends the beginning of a request, and returns when the handler has it.
func half(t *testing.T, s *served) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "POST /api/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
		hs256(testSecret, plainHeader, in(time.Hour, "")))
	// The server asks for the body when the handler reads it.
	line := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(conn, line); err != nil || !strings.HasPrefix(string(line), "HTTP/1.1 100") {
		t.Fatalf("answer = %q, %v", line, err)
	}
	return conn
}

func TestServeEndsRequestsInFlight(t *testing.T) {
	s, cmd := startProcess(t)
	conn := half(t, s)
	cmd.Process.Signal(syscall.SIGINT)
	wait(t, func() bool { return strings.Contains(s.out.String(), "shutting down") })
	wait(t, func() bool { // no new connections
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	io.WriteString(conn, "0123456789")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("status = %d, want 200", res.StatusCode)
	}
	if code := s.stop(); code != exitYes {
		t.Errorf("exit code = %d, want 0", code)
	}
}

func TestServeSecondSignal(t *testing.T) {
	s, cmd := startProcess(t)
	half(t, s)
	begin := time.Now()
	cmd.Process.Signal(syscall.SIGINT)
	wait(t, func() bool { return strings.Contains(s.out.String(), "shutting down") })
	cmd.Process.Signal(syscall.SIGINT)
	if code := s.stop(); code == exitYes || time.Since(begin) > 5*time.Second {
		t.Errorf("exit code = %d after %v, want it to end at once", code, time.Since(begin))
	}
}

// A request that does not end is cut off.
func TestServeGraceEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &served{log: new(syncBuffer), out: new(syncBuffer)}
	stdout, w := io.Pipe()
	env := func(name string) (string, bool) { return testSecret, name == envSecret }
	cmd := newServeCommand(&app{env: env, stdout: w, stderr: s.log, now: time.Now})
	o, err := cmd.offer()
	if err != nil {
		t.Fatal(err)
	}
	o.server.Addr, o.server.Drain = "127.0.0.1:0", 50*time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- cmd.serve(ctx, o); w.Close() }()
	s.url = waitURL(t, stdout, s.out)
	conn := half(t, s)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run = %v", err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		t.Error("the request was answered, want it cut off")
	}
	if !strings.Contains(s.log.String(), "cut off") {
		t.Errorf("log = %s", s.log)
	}
}

// Whoever reads the address and goes away must not end the server.
func TestServeOutlivesItsReader(t *testing.T) {
	cmd := exec.Command(builtBinary(t), "serve", "--addr", "127.0.0.1:0")
	cmd.Env = cleanEnv()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	buf := make([]byte, 4096)
	n, err := io.ReadAtLeast(stdout, buf, 200)
	m := listening.FindSubmatch(buf[:n])
	if err != nil || m == nil {
		t.Fatalf("stdout = %q, %v", buf[:n], err)
	}
	stdout.Close()
	stderr.Close()
	s := &served{url: string(m[1])}
	s.ask(t, "GET", "/api/", "").wantRefused(t)
	s.ask(t, "GET", "/api/", "").wantRefused(t)
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
}
