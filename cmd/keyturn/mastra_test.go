package main_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The guide that this project began with, on another port.
const (
	guideSecret = "supersecretdevkeythatishs256safe!"
	guideCurl   = `curl -X POST http://localhost:4111/api/agents/weatherAgent/generate \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer <your-jwt>" \
  -d '{
    "messages": "Weather in London"
  }'`

	clientFolder = "../../middleware/testdata/mastra"
)

// A guideCase is a token, and whether it opens the API.
type guideCase struct {
	name  string
	token string // "": no Authorization header
	good  bool
}

func guideCases() []guideCase {
	now := time.Now()
	live := fmt.Sprintf(`{"sub":"ann","iat":%d,"exp":%d}`, now.Unix(), now.Add(time.Hour).Unix())
	dead := fmt.Sprintf(`{"sub":"ann","iat":%d,"exp":%d}`, now.Add(-2*time.Hour).Unix(), now.Add(-time.Hour).Unix())
	return []guideCase{
		{"good", handmade(guideSecret, live), true},
		{"no token", "", false},
		{"expired", handmade(guideSecret, dead), false},
		{"another secret", handmade("another"+guideSecret, live), false},
	}
}

// handmade returns an HS256 token as jwt.io makes it. It uses nothing of ours, so that the command
// and its test cannot share a mistake.
func handmade(secret, claims string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + b64([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

// TestGuide walks through the guide, with the command in the place of its Mastra server.
func TestGuide(t *testing.T) {
	t.Parallel()
	keyturn := filepath.Join(t.TempDir(), "keyturn")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", keyturn, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("MastraClient", func(t *testing.T) { testMastraClient(t, keyturn) })
	t.Run("curl", func(t *testing.T) { testGuideCurl(t, keyturn) })
	t.Run("no exp", func(t *testing.T) { testGuideNoExpiry(t, keyturn) })
	t.Run("Mastra behind it", func(t *testing.T) { testMastraUpstream(t, keyturn) })
	t.Run("Mastra with auth behind it", func(t *testing.T) { testMastraWithAuth(t, keyturn) })
}

func testMastraClient(t *testing.T, keyturn string) {
	needNode(t)
	askByClient(t, startServe(t, keyturn), checkAnswer)
}

// askByClient asks with the real MastraClient. check checks the answer to a good token.
func askByClient(t *testing.T, s *guideServer, check func(*testing.T, []byte)) {
	for _, tt := range guideCases() {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "node", "client.mjs")
			cmd.Dir = clientFolder
			cmd.Env = append(os.Environ(), "MASTRA_BASE_URL="+s.url, "MASTRA_JWT_TOKEN="+tt.token)
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("client.mjs: %v", err)
			}
			var got struct {
				OK     bool
				Status int
				Result json.RawMessage
				Body   json.RawMessage
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("client.mjs printed %q: %v", out, err)
			}
			switch {
			case got.OK != tt.good:
				t.Errorf("MastraClient says %s", out)
			case tt.good:
				check(t, got.Result)
			case got.Status != 401:
				t.Errorf("status = %d, want 401", got.Status)
			default:
				checkRefusal(t, got.Body)
			}
		})
	}
}

func testGuideCurl(t *testing.T, keyturn string) {
	need(t, "curl")
	askByCurl(t, startServe(t, keyturn), checkAnswer)
}

// askByCurl asks with the guide's own curl. check checks the answer to a good token.
func askByCurl(t *testing.T, s *guideServer, check func(*testing.T, []byte)) {
	port := s.url[strings.LastIndexByte(s.url, ':')+1:]
	for _, tt := range guideCases() {
		t.Run(tt.name, func(t *testing.T) {
			line := strings.NewReplacer(":4111", ":"+port, "<your-jwt>", tt.token).Replace(guideCurl)
			if tt.token == "" {
				line = strings.Replace(line, `  -H "Authorization: Bearer " \`+"\n", "", 1)
			}
			out, err := exec.CommandContext(t.Context(), "sh", "-c", line+` -sS -w '\n%{http_code}'`).CombinedOutput()
			if err != nil {
				t.Fatalf("curl: %v\n%s", err, out)
			}
			if tt.good {
				check(t, cutStatus(t, out, 200))
			} else {
				checkRefusal(t, cutStatus(t, out, 401))
			}
		})
	}
}

// testMastraUpstream has a real Mastra server behind the command. It has no auth of its own.
func testMastraUpstream(t *testing.T, keyturn string) {
	needNode(t)
	need(t, "curl")
	mastra := runMastra(t)
	s := startServe(t, keyturn, "--upstream", mastra.url, "--admin", "127.0.0.1:0")
	t.Run("forged headers", func(t *testing.T) { testMastraHeaders(t, s, mastra) })
	t.Run("curl", func(t *testing.T) { askByCurl(t, s, checkWeather) })
	t.Run("MastraClient", func(t *testing.T) { askByClient(t, s, checkWeather) })
	t.Run("stream", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "-N", s.url+"/api/agents/weatherAgent/stream", "-H", "Content-Type: application/json",
			"-H", "Authorization: Bearer "+guideCases()[0].token, "-d", `{"messages":"Weather in London"}`).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(`"text":"rains "`)) || !bytes.Contains(out, []byte(`"type":"finish"`)) {
			t.Errorf("the event stream is %.2000s, %v", out, err)
		}
	})
}

// A Mastra server that keeps its own auth, with the same secret, wants the token too.
func testMastraWithAuth(t *testing.T, keyturn string) {
	needNode(t)
	need(t, "curl")
	mastra := startMastra(t, guideSecret)
	s := startServe(t, keyturn, "--upstream", mastra, "--admin", "127.0.0.1:0", "--forward-token")
	askByCurl(t, s, checkWeather)
	// By itself it refuses requests without a token, and so it does behind a server that keeps the token.
	without := startServe(t, keyturn, "--upstream", mastra, "--admin", "127.0.0.1:0")
	for _, tt := range []struct {
		url, token string
	}{{mastra, ""}, {without.url, guideCases()[0].token}} {
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", tt.url+"/api/agents/weatherAgent/generate", "-H", "Content-Type: application/json",
			"-H", "Authorization: Bearer "+tt.token, "-d", `{"messages":"Weather in London"}`, "-w", "\n%{http_code}").CombinedOutput()
		if err != nil {
			t.Fatalf("curl: %v\n%s", err, out)
		}
		cutStatus(t, out, 401)
	}
}

// testMastraHeaders checks that no spelling of an identity header reaches Mastra from a client.
func testMastraHeaders(t *testing.T, s, mastra *guideServer) {
	args := []string{"-sS", s.url + "/api/agents/weatherAgent/generate", "-H", "Content-Type: application/json",
		"-H", "Authorization: Bearer " + guideCases()[0].token, "-d", `{"messages":"Weather in London"}`}
	for _, name := range []string{"X-Auth-Subject", "x_auth_subject", "X.Auth.Subject", "X-Auth_Tenant", "X-Auth-Groups", "X_Auth_Groups", "X-Forwarded-User", "X_Forwarded_For", "X-Original-URL", "Forwarded"} {
		args = append(args, "-H", name+": forged")
	}
	out, err := exec.CommandContext(t.Context(), "curl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("curl: %v\n%s", err, out)
	}
	checkWeather(t, out)
	seen := mastra.waitFor(t, `(?m)^headers .*\n`)
	if strings.Contains(seen, "forged") || !strings.Contains(seen, `"x-auth-subject":"`) || !strings.Contains(seen, `"x-auth-tenant":"default"`) {
		t.Errorf("Mastra got %s", seen)
	}
}

// startMastra is runMastra for the URL alone.
func startMastra(t *testing.T, secret ...string) string {
	t.Helper()
	return runMastra(t, secret...).url
}

// runMastra runs the Mastra server, which has auth of its own if it gets a secret.
func runMastra(t *testing.T, secret ...string) *guideServer {
	t.Helper()
	cmd := exec.Command("node", append([]string{"server.mjs"}, secret...)...)
	cmd.Dir = clientFolder
	cmd.Env = append(os.Environ(), "MASTRA_TELEMETRY_DISABLED=1")
	printed := new(output)
	cmd.Stdout, cmd.Stderr = printed, printed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s := &guideServer{output: printed}
	s.url = "http://127.0.0.1:" + strings.TrimSpace(s.waitFor(t, `(?m)^[1-9][0-9]*\n`))
	return s
}

// checkWeather checks the answer of the Mastra server's agent.
func checkWeather(t *testing.T, body []byte) {
	t.Helper()
	var got struct{ Text string }
	if err := json.Unmarshal(body, &got); err != nil || got.Text != "It rains in London." {
		t.Errorf("answer = %.500s, %v", body, err)
	}
}

// jwt.io's "Generate example" has no exp. Such a token never expires, so it is refused. The log says
// what to do about it; the client does not learn it.
func testGuideNoExpiry(t *testing.T, keyturn string) {
	need(t, "curl")
	token := handmade(guideSecret, `{"sub":"ann","name":"John Doe","admin":true,"iat":1516239022}`)
	ask := func(t *testing.T, s *guideServer) []byte {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "-X", "POST", s.url+"/api/agents/weatherAgent/generate",
			"-H", "Content-Type: application/json", "-H", "Authorization: Bearer "+token, "-d", `{"messages":"Weather in London"}`,
			"-w", "\n%{http_code}").CombinedOutput()
		if err != nil {
			t.Fatalf("curl: %v\n%s", err, out)
		}
		return out
	}

	t.Run("refused", func(t *testing.T) {
		s := startServe(t, keyturn)
		checkRefusal(t, cutStatus(t, ask(t, s), 401))
		s.waitFor(t, "reason=missing_claim .*allow-no-exp")
		if log := s.output.String(); strings.Contains(log, token) || strings.Contains(log, guideSecret) {
			t.Error("the token or the secret is in the log")
		}
	})
	t.Run("allowed", func(t *testing.T) {
		checkAnswer(t, cutStatus(t, ask(t, startServe(t, keyturn, "--allow-no-exp")), 200))
	})
}

// Some @mastra packages of June 2026 contained malware. These versions did not. The manifest pins them
// by their exact numbers, and the lock file has a hash for each package.
func TestMastraLockFile(t *testing.T) {
	manifest, err := os.ReadFile(filepath.Join(clientFolder, "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	pinned := map[string]string{"@mastra/client-js": "1.47.0", "@mastra/hono": "1.7.9", "@hono/node-server": "1.19.19"}
	for name, version := range pinned {
		if !bytes.Contains(manifest, []byte(`"`+name+`": "`+version+`"`)) {
			t.Errorf("package.json does not pin %s %s", name, version)
		}
	}
	text, err := os.ReadFile(filepath.Join(clientFolder, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("easy-day")) {
		t.Error("package-lock.json has easy-day-js, which is malware")
	}
	var lock struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	for name, version := range pinned {
		if v := lock.Packages["node_modules/"+name].Version; v != version {
			t.Errorf("package-lock.json has %s %q, want %s", name, v, version)
		}
	}
	for name, p := range lock.Packages {
		if name != "" && !strings.HasPrefix(p.Integrity, "sha512-") {
			t.Errorf("package-lock.json has no sha512 for %s", name)
		}
	}
}

// cutStatus returns what curl printed before the status, which must be want.
func cutStatus(t *testing.T, out []byte, want int) []byte {
	t.Helper()
	i := bytes.LastIndexByte(out, '\n')
	if i < 0 || string(out[i+1:]) != strconv.Itoa(want) {
		t.Fatalf("curl printed %s, want status %d", out, want)
	}
	return out[:i]
}

// checkAnswer checks the demo API's answer to a token of ann's.
func checkAnswer(t *testing.T, body []byte) {
	t.Helper()
	var got struct {
		Text                  *string
		Tenant, Subject, Path string
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("answer %s: %v", body, err)
	}
	if got.Text == nil || got.Tenant != "default" || got.Subject != "ann" || got.Path != "/api/agents/weatherAgent/generate" {
		t.Errorf("answer = %s", body)
	}
}

// checkRefusal checks that body is exactly the guide's.
func checkRefusal(t *testing.T, body []byte) {
	t.Helper()
	if got := strings.TrimSpace(string(body)); got != `{"error":"Invalid or expired token"}` {
		t.Errorf("body = %s", got)
	}
}

// A guideServer is a running `keyturn serve` in shared-secret mode.
type guideServer struct {
	url    string
	output *output
}

// startServe starts the command, and stops it with Ctrl-C when the test ends.
func startServe(t *testing.T, keyturn string, flags ...string) *guideServer {
	t.Helper()
	s := &guideServer{output: new(output)}
	cmd := exec.Command(keyturn, append([]string{"serve", "--addr", "127.0.0.1:0"}, flags...)...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "KEYTURN_")
	}), "MASTRA_JWT_SECRET="+guideSecret)
	cmd.Stdout, cmd.Stderr = s.output, s.output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve after Ctrl-C: %v\n%s", err, s.output)
			}
		case <-time.After(time.Minute):
			cmd.Process.Kill()
			t.Errorf("serve does not end after Ctrl-C\n%s", s.output)
		}
	})
	s.url = strings.TrimPrefix(s.waitFor(t, `listening on http://127\.0\.0\.1:[1-9][0-9]*`), "listening on ")
	return s
}

// waitFor waits until the command has printed what pattern matches, and returns that.
func (s *guideServer) waitFor(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for range 3000 { // node takes seconds to load Mastra
		if match := re.FindString(s.output.String()); match != "" {
			return match
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("serve has not printed %s, but\n%s", pattern, s.output)
	return ""
}

// An output holds what a process prints while a test reads it.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// needNode skips the test if Node or the client's packages are missing: in CI, that fails it.
func needNode(t *testing.T) {
	t.Helper()
	need(t, "node")
	if _, err := os.Stat(filepath.Join(clientFolder, "node_modules")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("MastraClient is not installed (make setup does that): %v", err)
	}
}

// need skips the test if a program is missing: in CI, that fails it.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("%s is missing (make setup brings it): %v", program, err)
	}
}
