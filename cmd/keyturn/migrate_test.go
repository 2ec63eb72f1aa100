package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
)

// liveTokens is how many tokens of the old signer live during the move. make soak has 20 000.
func liveTokens(t *testing.T) int {
	t.Helper()
	n := 250
	if text, ok := os.LookupEnv("KEYTURN_MIGRATED"); ok {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A migration is the fleet of docs/migrate.md: services of node with one shared secret, and keyturn.
type migration struct {
	*ringCLI
	secret string // the name of the file

	old     []*oldVerifier
	new     []*newVerifier
	tokens  []string // of the old signer and of keyturn, all live
	checked int
}

// An oldVerifier is a process that verifies with jsonwebtoken and the shared secret.
type oldVerifier struct {
	url  string
	stop func()
}

// A newVerifier is a process of keyturn serve.
type newVerifier struct {
	url  string
	stop func()
}

func (m *migration) startOld() *oldVerifier {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), "node", "old.mjs", "serve", m.secret)
	cmd.Dir = oidcFolder
	out := m.started(cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		m.t.Fatalf("the old verifier prints no port: %v", err)
	}
	v := &oldVerifier{url: "http://127.0.0.1:" + strings.TrimSpace(line), stop: m.stopper(cmd)}
	m.old = append(m.old, v)
	return v
}

func (m *migration) startNew() *newVerifier {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), builtBinary(m.t), "serve", "--addr", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--redis", m.url,
		"--tenant", "acme", "--iss", "https://auth.example", "--aud", "api")
	cmd.Env = cleanEnv(envKEK + "=" + m.kek)
	log := new(syncBuffer)
	cmd.Stderr = log
	v := &newVerifier{url: waitURL(m.t, m.started(cmd), new(syncBuffer))}
	v.stop = m.stopper(cmd)
	wait(m.t, func() bool { return strings.Contains(log.String(), "ready: all rings are in step") })
	m.new = append(m.new, v)
	return v
}

// started starts cmd, which ends with the test, and returns its output.
func (m *migration) started(cmd *exec.Cmd) io.Reader {
	m.t.Helper()
	if _, err := cmd.StdinPipe(); err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return out
}

func (m *migration) stopper(cmd *exec.Cmd) func() {
	stop := sync.OnceFunc(func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() })
	m.t.Cleanup(stop)
	return stop
}

// oldSigner adds n tokens of jsonwebtoken.
func (m *migration) oldSigner(n int, prefix string) {
	m.t.Helper()
	out, err := m.node("sign", m.secret, strconv.Itoa(n), prefix)
	lines := strings.Fields(out)
	if err != nil || len(lines) != n {
		m.t.Fatalf("the old signer: %d tokens, %v", len(lines), err)
	}
	m.tokens = append(m.tokens, lines...)
}

func (m *migration) node(args ...string) (string, error) {
	cmd := exec.CommandContext(m.t.Context(), "node", append([]string{"old.mjs"}, args...)...)
	cmd.Dir = oidcFolder
	out, err := cmd.Output()
	return string(out), err
}

// newSigner adds n tokens of a service that embeds keyturn.
func (m *migration) newSigner(k *rotation.Keyring, n int) {
	m.t.Helper()
	s, err := rotation.NewSigner(k, rotation.SignerConfig{
		TTL:      time.Hour,
		Issuer:   func(string) string { return "https://auth.example" },
		Audience: func(string) []string { return []string{"api"} },
	})
	if err != nil {
		m.t.Fatal(err)
	}
	for i := range n {
		token, err := s.Sign(m.t.Context(), "acme", map[string]string{"sub": fmt.Sprintf("new%d", i)})
		if err != nil {
			m.t.Fatal(err)
		}
		m.tokens = append(m.tokens, token)
	}
}

// check has every live token verified by every verifier. step names the step.
func (m *migration) check(step string, old []*oldVerifier, new []*newVerifier) {
	m.t.Helper()
	for i, v := range old {
		if refused, first := v.refused(m.t, m.tokens); refused > 0 {
			m.t.Errorf("%s: old verifier %d refused %d of %d tokens: %s", step, i, refused, len(m.tokens), first)
		}
	}
	for i, v := range new {
		if refused, first := v.refused(m.t, m.tokens); refused > 0 {
			m.t.Errorf("%s: keyturn %d refused %d of %d tokens: %s", step, i, refused, len(m.tokens), first)
		}
	}
	m.checked += (len(old) + len(new)) * len(m.tokens)
}

func (v *oldVerifier) refused(t *testing.T, tokens []string) (n int, first string) {
	t.Helper()
	res, err := http.Post(v.url, "text/plain", strings.NewReader(strings.Join(tokens, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var said struct {
		Refused int
		First   string
	}
	if err := json.NewDecoder(res.Body).Decode(&said); err != nil {
		t.Fatal(err)
	}
	return said.Refused, said.First
}

func (v *newVerifier) refused(t *testing.T, tokens []string) (n int, first string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	var next, refused atomic.Int64
	var said atomic.Value
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(tokens); i = next.Add(1) - 1 {
				if err := v.accepts(client, tokens[i]); err != nil {
					refused.Add(1)
					said.CompareAndSwap(nil, err.Error())
				}
			}
		})
	}
	all.Wait()
	first, _ = said.Load().(string)
	return int(refused.Load()), first
}

func (v *newVerifier) accepts(client *http.Client, token string) error {
	req, err := http.NewRequestWithContext(context.Background(), "GET", v.url+"/api/x", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var body bytes.Buffer
	body.ReadFrom(res.Body)
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %s", res.StatusCode, body.String())
	}
	return nil
}

// TestMigration plays docs/migrate.md, "From one shared secret", on processes: no live token is refused
// at any step, and each step up to the rotation is undone once.
func TestMigration(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	needNode(t)
	m := &migration{ringCLI: newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr()), secret: file(t, guideSecretOfOld+"\n")}
	m.startOld()
	m.startOld()
	m.oldSigner(liveTokens(t), "old")
	m.check("before", m.old, nil)

	m.importSecret()
	m.rollVerifiers()
	k := m.peer("issuer", m.kek, "acme")
	m.moveSigner(k)
	m.changeAlgorithm()
	m.rotateAway(k)
	t.Logf("%d verifications of %d live tokens", m.checked, len(m.tokens))
}

// guideSecretOfOld is the secret that everything was signed with.
const guideSecretOfOld = "a secret that two million tokens have"

// quickly are flags of a ring that can be rotated after seconds.
var quickly = []string{"--freshness", "6s", "--skew", "500ms", "--dwell", "1s", "--max-ttl", "1h"}

// importSecret is the first step. It is undone by shredding the ring, which no service reads yet.
func (m *migration) importSecret() {
	m.t.Helper()
	adopt := append([]string{"keys", "import", "--tenant", "acme", "--secret-file", m.secret, "--no-kid", "--hold", "--longest-token", "1h"}, quickly...)
	m.run(adopt...).wantCode(m.t, exitYes)
	m.run("keys", "shred", "--tenant", "acme", "--confirm", "acme").wantCode(m.t, exitYes)
	m.run(append(adopt, "--again")...).wantCode(m.t, exitYes)
}

// rollVerifiers replaces one verifier after the other.
func (m *migration) rollVerifiers() {
	m.t.Helper()
	first := m.startNew()
	m.check("one new verifier", m.old, m.new)
	m.oldSigner(50, "during")
	m.check("the old signer goes on", m.old, m.new)
	first.stop() // undone, and done again
	m.check("undone", m.old, nil)
	m.new = nil
	m.startNew()
	m.old[1].stop()
	m.startNew()
	m.check("one old verifier is left", m.old[:1], m.new)
}

// moveSigner has keyturn sign with the old secret, whose tokens the old verifier accepts.
func (m *migration) moveSigner(k *rotation.Keyring) {
	m.t.Helper()
	m.newSigner(k, 50)
	m.check("keyturn signs", m.old[:1], m.new)
	m.oldSigner(50, "undone") // both may sign
	m.check("the old signer is back", m.old[:1], m.new)
	m.newSigner(k, 50)
	m.check("keyturn signs again", m.old[:1], m.new)
}

// changeAlgorithm has the next key be one for ES256.
func (m *migration) changeAlgorithm() {
	m.t.Helper()
	to := func(alg string, more ...string) {
		m.t.Helper()
		m.until(append([]string{"keys", "policy", "--tenant", "acme", "--alg", alg}, more...)...)
		m.check("the next key is for "+alg, m.old[:1], m.new)
	}
	to("ES256", "--reader-staleness", "1s")
	to("HS256")
	to("ES256", "--reader-staleness", "1s")
}

// until repeats a command that is refused for some seconds, until the key before it is known everywhere, or
// to which Redis answers too late.
func (m *migration) until(args ...string) {
	m.t.Helper()
	for ended := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		r := m.run(args...)
		if r.code == exitYes {
			return
		}
		late := r.code == exitCannotTell && strings.Contains(r.stderr, "did not answer in time")
		if r.code != exitNo && !late || time.Now().After(ended) {
			m.t.Fatalf("%q: %d %s%s", args, r.code, r.stdout, r.stderr)
		}
	}
}

// rotateAway has the ES256 key sign. From then on old programs are cut off, so they have ended.
func (m *migration) rotateAway(k *rotation.Keyring) {
	m.t.Helper()
	m.old[0].stop()
	m.until("keys", "rotate", "--tenant", "acme")
	m.newSigner(k, 50)
	last := m.tokens[len(m.tokens)-1]
	if header := partOf(m.t, last, 0); header["alg"] != "ES256" || header["kid"] == nil {
		m.t.Errorf("header = %v", header)
	}
	m.check("after the rotation", nil, m.new)
	foreign := hs256("another "+guideSecretOfOld, plainHeader, in(time.Hour, `,"iss":"https://auth.example","aud":"api"`))
	if err := m.new[0].accepts(http.DefaultClient, foreign); err == nil || !strings.HasPrefix(err.Error(), "401") {
		m.t.Errorf("a token of another secret: %v", err)
	}
}
