// Package examples_test runs the example services as their users do.
package examples_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

const kek = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=\n"

// A site is a Redis, the built programs, and the tenant whose ring they use.
type site struct {
	t               *testing.T
	dir, redis, kek string
	tenant          string
}

func newSite(t *testing.T, tenant string, programs ...string) *site {
	t.Helper()
	redistest.Need(t)
	t.Parallel()
	s := &site{t: t, dir: t.TempDir(), redis: "redis://" + redistest.Run(t, redistest.Options{}).Addr(), tenant: tenant}
	s.kek = filepath.Join(s.dir, "kek")
	if err := os.WriteFile(s.kek, []byte(kek), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, program := range append(programs, "../../cmd/keyturn") {
		build := exec.Command("go", "build", "-o", s.dir, program)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", build, err, out)
		}
	}
	return s
}

// keyturn runs the command.
func (s *site) keyturn(args ...string) {
	s.t.Helper()
	args = append(args, "--redis", s.redis, "--tenant", s.tenant, "--kek-file", s.kek)
	if out, err := exec.Command(filepath.Join(s.dir, "keyturn"), args...).CombinedOutput(); err != nil {
		s.t.Fatalf("keyturn %v: %v\n%s", args, err, out)
	}
}

// start runs a program until the test ends, and returns where it listens.
func (s *site) start(program string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.dir, program), append(args, "-addr", "127.0.0.1:0")...)
	cmd.Stderr = s.t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("%s: %v", program, err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		s.t.Fatalf("%s said %q: %v", program, line, err)
	}
	return url
}

// ask returns the status and the body of a request.
func (s *site) ask(method, url, token string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func (s *site) login(url string) string {
	s.t.Helper()
	status, token := s.ask("POST", url+"/login", "")
	if status != http.StatusOK {
		s.t.Fatalf("login: %d %s", status, token)
	}
	return token
}

func (s *site) wantHello(url, token string, want int) {
	s.t.Helper()
	if status, body := s.ask("GET", url+"/hello", token); status != want || want == http.StatusOK && body != "hello ann of "+s.tenant+"\n" {
		s.t.Errorf("%d %q, want %d", status, body, want)
	}
}

// quick is a policy by which instances learn of new keys within a test.
var quick = []string{"--every", "10s", "--max-ttl", "30s"}

func TestAFleetOnHMAC(t *testing.T) {
	s := newSite(t, "acme", "./fleet")
	s.keyturn(append([]string{"keys", "create"}, quick...)...)
	one := s.start("fleet", "-redis", s.redis, "-kek", s.kek)
	two := s.start("fleet", "-redis", s.redis, "-kek", s.kek)
	before := s.login(one)
	s.wantHello(two, before, http.StatusOK)
	s.wantHello(two, before[:len(before)-4]+"AAAA", http.StatusUnauthorized)
	s.keyturn("keys", "rotate", "--force")
	time.Sleep(2 * time.Second) // the dwell, during which a failover could lose the key
	s.wantHello(two, before, http.StatusOK)
	s.wantHello(one, s.login(two), http.StatusOK)
}

func TestOneThatSignsAndOneThatReads(t *testing.T) {
	s := newSite(t, "globex", "./issuer", "./reader")
	s.keyturn(append([]string{"keys", "create", "--alg", "ES256"}, quick...)...)
	issuer := s.start("issuer", "-redis", s.redis, "-kek", s.kek)
	reader := s.start("reader", "-keys", issuer+"/.well-known/jwks.json")
	before := s.login(issuer)
	s.wantHello(reader, before, http.StatusOK)
	// The pending key takes over. The reader knows it already.
	time.Sleep(11 * time.Second)
	after := s.login(issuer)
	header := func(token string) string { return token[:strings.IndexByte(token, '.')] }
	if header(before) == header(after) {
		t.Error("the key did not turn")
	}
	s.wantHello(reader, before, http.StatusOK)
	s.wantHello(reader, after, http.StatusOK)
}

// An issuer whose ring has secrets says so, and ends.
func TestTheIssuerWantsPublicKeys(t *testing.T) {
	s := newSite(t, "globex", "./issuer")
	s.keyturn(append([]string{"keys", "create"}, quick...)...)
	out, err := exec.CommandContext(t.Context(), filepath.Join(s.dir, "issuer"), "-redis", s.redis, "-kek", s.kek, "-addr", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "needs a ring with public keys") || !strings.Contains(string(out), "HS256") {
		t.Errorf("%v: %s", err, out)
	}
}
