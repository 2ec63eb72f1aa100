package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/keyturn/keyturn/internal/freeport"
	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// testSecret is the secret that the guide to MastraJwtAuth uses.
const testSecret = "supersecretdevkeythatishs256safe!"

// A result is the outcome of a run of the command.
type result struct {
	code           int
	stdout, stderr string
}

// A call is a run of the command in this process. Its environment holds only the test's variables.
type call struct {
	env   map[string]string
	stdin io.Reader
}

func (c call) run(t testing.TB, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	stdin := c.stdin
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	env := func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }
	code := run(t.Context(), args, env, stdin, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func keyturn(t testing.TB, args ...string) result { t.Helper(); return call{}.run(t, args...) }

// binary builds the command once for all tests. TestMain removes the folder.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir(), "keyturn")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

var binaryDir = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "keyturn-test-")
	if err != nil {
		panic(err)
	}
	return dir
})

// TestMain gives the tests the environment of a shell in which an operator has worked. A test whose command
// takes it over fails.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{envRedis: "redis://127.0.0.1:1", envKEKFile: "no-such-file", envRedisPassword: "wrong", envSecret: "x", envMastraSecret: "x"} {
		os.Setenv(name, value)
	}
	code := m.Run()
	os.RemoveAll(binaryDir())
	os.Exit(code)
}

func builtBinary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// cleanEnv returns the environment of the test without what the command reads, and more.
func cleanEnv(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "KEYTURN_") || strings.HasPrefix(s, "MASTRA_")
	})
	return append(env, more...)
}

// process runs the built command.
func process(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	cmd := exec.Command(builtBinary(t), args...)
	cmd.Env = cleanEnv()
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// file writes a file, and returns its path.
func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hs256 makes a token without the packages under test, so that the two cannot
// agree on the same mistake.
func hs256(secret, header, payload string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(header)) + "." + b64([]byte(payload))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

const plainHeader = `{"alg":"HS256","typ":"JWT"}`

// wantUsage checks that a run ended with exit code 2, one line on stderr that
// holds the phrases, and nothing on stdout.
func (r result) wantUsage(t *testing.T, phrases ...string) {
	t.Helper()
	if r.code != exitUsage {
		t.Errorf("exit code = %d, want %d; stderr: %s", r.code, exitUsage, r.stderr)
	}
	if r.stdout != "" {
		t.Errorf("stdout = %q, want nothing", r.stdout)
	}
	if strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "keyturn: ") {
		t.Errorf("stderr = %q, want one line", r.stderr)
	}
	for _, p := range phrases {
		if !strings.Contains(r.stderr, p) {
			t.Errorf("stderr = %q, want it to say %q", r.stderr, p)
		}
	}
}

func (r result) want(t *testing.T, code int, stdout string) {
	t.Helper()
	if r.code != code || r.stdout != stdout {
		t.Errorf("exit code = %d, stdout = %q; want %d, %q; stderr: %s", r.code, r.stdout, code, stdout, r.stderr)
	}
}

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
	url   string
	admin string // the URL of the admin listener; empty without one
	log   *syncBuffer
	out   *syncBuffer // all of stdout
	stop  func() int  // ends the server, and returns the exit code
}

var (
	listening = regexp.MustCompile(`(?m)^listening on (http://127\.0\.0\.1:[0-9]+)$`)
	adminOn   = regexp.MustCompile(`(?m)^admin on (http://127\.0\.0\.1:[0-9]+)$`)
)

// waitURL copies stdout to out, and returns the address once serve has printed it.
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
	case <-time.After(time.Minute):
	}
	t.Fatalf("serve did not say where it listens; it said: %s", out)
	return ""
}

// startServe runs serve in this process, with an admin listener.
func startServe(t *testing.T, env map[string]string, flags ...string) *served {
	t.Helper()
	return startServeAlone(t, env, append([]string{"--admin", "127.0.0.1:0"}, flags...)...)
}

// startServeAlone is startServe with an admin listener only if the flags or the file want one.
func startServeAlone(t *testing.T, env map[string]string, flags ...string) *served {
	t.Helper()
	return startServeIn(t, jwks.Config{}, env, flags...)
}

// startServeIn is startServeAlone in a network of the test's own.
func startServeIn(t *testing.T, network jwks.Config, env map[string]string, flags ...string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &served{log: new(syncBuffer), out: new(syncBuffer)}
	stdout, w := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
		args := append([]string{"serve", "--addr", "127.0.0.1:0"}, flags...)
		serve := &app{env: lookup, stdin: strings.NewReader(""), stdout: w, stderr: s.log, now: time.Now, network: network}
		ended <- serve.run(ctx, args)
		w.Close()
	}()
	s.stop = sync.OnceValue(func() int { cancel(); return <-ended })
	t.Cleanup(func() { s.stop() })
	s.url = waitURL(t, stdout, s.out)
	wait(t, func() bool { return strings.Contains(s.out.String(), "\nCtrl-C ends it\n") })
	if m := adminOn.FindStringSubmatch(s.out.String()); m != nil {
		s.admin = m[1]
	}
	return s
}

// answered is a response with its body read.
type answered struct {
	status int
	header http.Header
	body   string
}

// ask sends a request, with a token unless it is empty. A path may have any spelling.
func (s *served) ask(t *testing.T, method, path, token string) answered {
	t.Helper()
	return askAt(t, s.url, method, path, token)
}

func askAt(t *testing.T, url, method, path, token string) answered {
	t.Helper()
	if token == "" {
		return askWith(t, url, method, path, "")
	}
	return askWith(t, url, method, path, "Authorization: Bearer "+token+"\r\n")
}

// askWith asks with more header lines.
func askWith(t *testing.T, url, method, path, headers string) answered {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", method, path)
	io.WriteString(conn, headers+"Content-Type: application/json\r\nContent-Length: 33\r\n\r\n{\"messages\": \"Weather in London\"}")
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

// in returns claims that expire after d.
func in(d time.Duration, claims string) string {
	return fmt.Sprintf(`{"exp":%d%s}`, time.Now().Add(d).Unix(), claims)
}

// wait waits until done, for something that another goroutine does.
func wait(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timeout")
		}
	}
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

// half sends the beginning of a request. It returns once the handler waits for the body.
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

// The paths and states of serve, spelled as clients spell them.
const (
	jwksPath      = "/.well-known/jwks.json"
	discoveryPath = "/.well-known/openid-configuration"
	stateReady    = "ready"
	stateDegraded = "degraded"
	stateNotReady = "not ready"
)

// A tenantReady is what /readyz answers about a tenant.
type tenantReady struct{ Status, Reason string }

// readiness is what /readyz answers on the admin listener.
func (s *served) readiness(t *testing.T) (status int, all string, each map[string]tenantReady) {
	t.Helper()
	a := askAt(t, s.admin, "GET", "/readyz", "")
	var got struct {
		Status  string
		Tenants map[string]tenantReady
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatalf("/readyz = %s, %v", a.body, err)
	}
	return a.status, got.Status, got.Tenants
}

// newKEK returns the text of a KEK.
func newKEK() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// A ringCLI runs the command against one Redis, and keeps everything that it prints.
type ringCLI struct {
	t    *testing.T
	url  string
	kek  string
	now  func() time.Time
	said *strings.Builder
}

func newRingCLI(t *testing.T, addr string) *ringCLI {
	c := &ringCLI{t: t, url: "redis://" + addr, kek: newKEK(), now: time.Now, said: new(strings.Builder)}
	t.Cleanup(func() {
		if strings.Contains(c.said.String(), c.kek) {
			t.Error("the KEK is in the output")
		}
	})
	return c
}

// run runs the command with --redis.
func (c *ringCLI) run(args ...string) result {
	c.t.Helper()
	var stdout, stderr bytes.Buffer
	env := map[string]string{envKEK: c.kek}
	w := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: c.now}
	w.env = func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	at := 1 // after the name of the command
	if args[0] == "keys" || args[0] == "revocations" {
		at = 2
	}
	args = slices.Insert(slices.Clone(args), at, "--redis", c.url)
	if args[1] == "revoke" && !slices.Contains(args, "--wait") && !slices.Contains(args, "--no-wait") {
		// Where no instance lives, a revocation is watched for a poll.
		args = slices.Insert(args, at, "--wait", "200ms")
	}
	code := w.run(c.t.Context(), args)
	r := result{code, stdout.String(), stderr.String()}
	c.said.WriteString(r.stdout + r.stderr)
	return r
}

func (r result) wantCode(t *testing.T, code int, phrases ...string) result {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code = %d, want %d; stdout: %s; stderr: %s", r.code, code, r.stdout, r.stderr)
	}
	for _, p := range phrases {
		if !strings.Contains(r.stdout+r.stderr, p) {
			t.Errorf("it does not say %q; stdout: %s; stderr: %s", p, r.stdout, r.stderr)
		}
	}
	return r
}

// list returns the keys of "keys list --json", by state.
func (c *ringCLI) list(flags ...string) (states []string, byState map[string]listed) {
	c.t.Helper()
	if !slices.Contains(flags, "--tenant") {
		flags = append(flags, "--tenant", "default")
	}
	r := c.run(append([]string{"keys", "list", "--json"}, flags...)...).wantCode(c.t, exitYes)
	var keys []listed
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&keys); err != nil || strings.Count(r.stdout, "\n") != 1 {
		c.t.Fatalf("keys list --json = %s, %v", r.stdout, err)
	}
	byState = make(map[string]listed)
	for _, k := range keys {
		states = append(states, k.State)
		byState[k.State] = k
	}
	return states, byState
}

type listed struct {
	KID, Alg, State string
	Seq             int
	ActivatesAt     *time.Time `json:"activates_at"`
	RetiresAt       *time.Time `json:"retires_at"`
	DroppedAt       *time.Time `json:"dropped_at"`
	PublishedAt     *time.Time `json:"published_at"`
	Origin          string
	Held, Waits     bool
	Signs           bool

	Until     *time.Time // of accepted keys, as the rest
	NoKID     bool       `json:"no_kid"`
	Weak      bool
	Instances []string
}

func (c *ringCLI) wantStates(states ...string) map[string]listed {
	c.t.Helper()
	got, keys := c.list()
	if !slices.Equal(got, states) {
		c.t.Errorf("states = %q, want %q", got, states)
	}
	return keys
}

// anyRedis runs a test on the Redis of [redisAddr].
func anyRedis(t *testing.T, test func(t *testing.T, c *ringCLI)) {
	t.Helper()
	test(t, newRingCLI(t, redisAddr(t)))
}

// redisAddr runs a Redis for the test, and returns its address: the real one if it is installed. miniredis takes ten
// times as long for a read of all buckets with the race detector, and a busy machine misses deadlines then.
func redisAddr(t *testing.T) string {
	t.Helper()
	if redistest.Missing() != nil {
		return miniredis.RunT(t).Addr()
	}
	return redistest.Run(t, redistest.Options{}).Addr()
}

// oldRing makes a ring that is three minutes old, so that its pending key may sign already.
func oldRing(t *testing.T, flags ...string) *ringCLI {
	t.Helper()
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	then := time.Now().Add(-3 * time.Minute)
	m.SetTime(then)
	c.now = func() time.Time { return then }
	c.run(append([]string{"keys", "create"}, flags...)...).wantCode(t, exitYes)
	m.SetTime(time.Time{})
	c.now = time.Now
	return c
}

// sign returns the token that "keyturn sign" prints, alone on its line.
func sign(t *testing.T, args ...string) string {
	t.Helper()
	r := keyturn(t, append([]string{"sign"}, args...)...)
	token, ok := strings.CutSuffix(r.stdout, "\n")
	if r.code != exitYes || !ok || strings.Contains(token, "\n") || r.stderr != "" {
		t.Fatalf("sign %q = %+v", args, r)
	}
	return token
}

// partOf decodes the header (0) or payload (1) of a token.
func partOf(t *testing.T, token string, n int) (object map[string]any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[n])
	if err != nil || json.Unmarshal(b, &object) != nil {
		t.Fatalf("part %d of the token cannot be read", n)
	}
	return object
}

// now is the moment of these tests: 2027-01-15T08:00:00Z.
const now = "1800000000"

// goodPayload expires 14 minutes after now. Its number has more digits than a float64 holds.
const goodPayload = `{"sub":"ann","n":12345678901234567890.10,"exp":1800000840}`

// verifyArgs returns a command line that verifies with the test's secret, with more arguments.
func verifyArgs(t testing.TB, more ...string) []string {
	t.Helper()
	return append([]string{"verify", "--secret-file", file(t, testSecret), "--alg", "HS256", "--now", now}, more...)
}

func refusal(reason, text string) string {
	return fmt.Sprintf(`{"ok":false,"reason":"%s","error":%s}`+"\n", reason, text)
}

// configFolder writes a keyturn.yaml with files beside it, and returns its path.
func configFolder(t *testing.T, config string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "keyturn.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const acmeTenant = "  - {id: acme, kind: static, secret_file: s, issuer: https://acme.example, audiences: [api]}\n"

// atIssuer runs the command in a network that has only the issuer.
func atIssuer(t *testing.T, issuer *jwkstest.Server, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	w := &app{
		env: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: time.Now,
		network: jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext},
	}
	code := w.run(t.Context(), args)
	return result{code, stdout.String(), stderr.String()}
}

// reason returns the reason of a refusal in JSON.
func (r result) reason(t *testing.T) string {
	t.Helper()
	var got struct {
		OK            bool
		Reason, Error string
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || got.OK || got.Error == "" || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("stdout = %q, want a refusal; stderr: %s", r.stdout, r.stderr)
	}
	return got.Reason
}

func liveClaims(more string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"sub":"ann","exp":%d%s}`, time.Now().Add(time.Hour).Unix(), more))
}

func wantUnavailable(t *testing.T, issuer *jwkstest.Server, flag, url, token, step, advice string) {
	t.Helper()
	r := atIssuer(t, issuer, "verify", flag, url, "--alg", "ES256", token)
	r.want(t, exitCannotTell, "")
	said := "keyturn: no keys from " + flag + ": " + step
	told := strings.Replace(r.stderr, ": discovery: ", ": ", 1) // if reading the metadata failed
	if !strings.Contains(told, said) || !strings.Contains(told, advice) {
		t.Errorf("stderr = %q, want %q and %q", r.stderr, said, advice)
	}
	r = atIssuer(t, issuer, "verify", flag, url, "--alg", "ES256", "--json", token)
	if got := r.reason(t); r.code != exitCannotTell || got != "unavailable" || !strings.Contains(r.stderr, step[:strings.Index(step, ":")]) {
		t.Errorf("exit code = %d, reason = %s, stderr = %s", r.code, got, r.stderr)
	}
}

// closedPort returns a loopback address on which no program listens.
func closedPort(t *testing.T) string {
	t.Helper()
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// A plainIssuer is an issuer over http on loopback, as one may run beside a service.
type plainIssuer struct {
	url   string
	set   string
	close func()
}

func startPlainIssuer(t *testing.T, keys ...*jwkstest.Key) *plainIssuer {
	t.Helper()
	p := &plainIssuer{set: jwkstest.Set(keys...)}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	p.url, p.close = srv.URL, srv.Close
	t.Cleanup(srv.Close)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.url, p.url+"/jwks")
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, p.set) })
	return p
}

func needNode(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat(oidcFolder + "/node_modules")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("node or its packages are missing (make setup brings them): %v", err)
	}
}
