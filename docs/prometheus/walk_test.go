package prometheus_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier/revocations"
)

const (
	secret = "0123456789abcdef0123456789ABCDEF"
	issuer = "https://late.example"
)

// hasty is a policy whose keys live for seconds, so that what takes days is seen in a minute.
var hasty = rotation.Policy{
	Every: 12 * time.Second, MaxTokenTTL: 6 * time.Second, Algorithm: keystore.HS256, Propagation: 5 * time.Second,
	Freshness: time.Second, Dwell: time.Second, ClockSkew: 250 * time.Millisecond, SignFor: 2 * time.Second, Leeway: time.Second,
}

// A service is what Prometheus watches: "keyturn serve" with an issuer, and an instance that signs, on
// one Redis.
type service struct {
	redis    *redistest.Server
	serve    *exec.Cmd
	program  string
	config   string // its file
	addr     string // of the API
	admin    string
	issuer   *httptest.Server
	answers  atomic.Bool // the issuer does
	late     *jwkstest.Key
	rotator  *rotation.Rotator
	keyring  *rotation.Keyring
	signer   *rotation.Signer
	page     *metrics.Collector // of the instance that signs
	instance *httptest.Server   // the page of the instance that signs
	revoked  atomic.Pointer[string]
}

// base is the configuration without the issuer that comes late.
const base = `
admin: {addr: %q}
reload: {every: 1s}
rings: {redis: %q, kek_file: kek}
tenants:
  - {id: acme, kind: ring, issuer: i, any_audience: true}
  - {id: static, kind: static, secret_file: secret, issuer: s, any_audience: true}
`

func (s *service) configuration(late bool) string {
	text := fmt.Sprintf(base, s.admin, "redis://"+s.redis.Addr())
	if late {
		text += fmt.Sprintf("  - {id: late, kind: jwks, jwks_url: %q, allow_loopback: true, issuer: %q, algorithms: [ES256], any_audience: true}\n", s.issuer.URL, issuer)
	}
	return text
}

func startService(t *testing.T) *service {
	t.Helper()
	redistest.Need(t)
	s := &service{
		redis: redistest.Run(t, redistest.Options{}), addr: freeAddr(t), admin: freeAddr(t), late: jwkstest.NewKey("late", "ES256"),
		program: filepath.Join(t.TempDir(), "keyturn"),
	}
	if out, err := exec.Command("go", "build", "-o", s.program, "../../cmd/keyturn").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !s.answers.Load() {
			http.Error(w, "down", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, jwkstest.Set(s.late))
	}))
	t.Cleanup(s.issuer.Close)
	dir := t.TempDir()
	s.config = filepath.Join(dir, "keyturn.yaml")
	write(t, filepath.Join(dir, "kek"), base64.StdEncoding.EncodeToString([]byte(secret)))
	write(t, filepath.Join(dir, "secret"), secret)
	write(t, s.config, s.configuration(false))
	s.startInstance(t)
	s.startServe(t)
	return s
}

func (s *service) startServe(t *testing.T) {
	t.Helper()
	s.serve = start(t, filepath.Dir(s.config), s.program, "serve", "--addr", s.addr, "--config", s.config)
}

// startInstance starts the instance that makes the ring, rotates it and signs.
func (s *service) startInstance(t *testing.T) {
	t.Helper()
	client, err := rediskeys.Open("redis://" + s.redis.Addr())
	must(t, err)
	store, err := rediskeys.New(client, rediskeys.Config{})
	must(t, err)
	keks, err := rotation.NewKEKs([]byte(secret))
	must(t, err)
	c := metrics.New(metrics.Config{})
	s.page = c
	s.keyring, err = rotation.Open(t.Context(), store, rotation.Config{KEKs: keks, Tenants: []string{"acme"}, TrustFirstRead: true})
	must(t, err)
	s.rotator, err = rotation.NewRotator(s.keyring)
	must(t, err)
	_, err = s.rotator.Create(t.Context(), "acme", hasty)
	must(t, err)
	s.signer, err = rotation.NewSigner(s.keyring, rotation.SignerConfig{Issuer: func(string) string { return "i" }, Observe: c.ObserveSign})
	must(t, err)
	list, err := revocations.Open(t.Context(), client, revocations.Config{KEKs: keks, TrustFirstRead: true})
	must(t, err)
	c.Watch(metrics.Watched{Keyring: s.keyring, Revocations: func() (metrics.RevocationsState, bool) { return stateOf(list.Status()), true }})
	c.CertificateEnds(time.Now().Add(90 * 24 * time.Hour))
	s.instance = httptest.NewServer(c.Handler())
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { s.rotator.Run(ctx) })
	running.Go(func() { s.traffic(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		s.instance.Close()
		ended, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		list.Close(ended)
		s.keyring.Close(ended)
		client.Close()
	})
}

// stateOf returns what the page shows of a list.
func stateOf(s revocations.Status) metrics.RevocationsState {
	return metrics.RevocationsState{
		Entries: s.Entries, Synced: s.Synced, InDoubt: s.InDoubt, Ready: s.Ready, Unreadable: s.Unreadable,
		Forged: s.Alarms.Forged, Restored: s.Alarms.Restored, Over: s.Alarms.Over, Disputed: s.Alarms.Disputed,
	}
}

// traffic sends tokens of all tenants until ctx ends.
func (s *service) traffic(ctx context.Context) {
	static, err := rotation.NewStaticSigner(keystore.ID{Tenant: "static"}, keystore.HS256, []byte(secret), rotation.SignerConfig{})
	if err != nil {
		panic(err)
	}
	client := &http.Client{Timeout: 5 * time.Second}
	for ctx.Err() == nil {
		var all []string
		if token, err := s.signer.Sign(ctx, "acme", nil); err == nil {
			all = append(all, token)
		}
		if token, err := static.Sign(ctx, "static", map[string]any{"iss": "s"}); err == nil {
			all = append(all, token)
		}
		all = append(all, s.late.Token(map[string]any{"iss": issuer, "exp": time.Now().Add(time.Minute).Unix()}), "rubbish")
		if token := s.revoked.Load(); token != nil {
			all = append(all, *token)
		}
		for _, token := range all {
			r, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.addr+"/api/x", nil)
			if err != nil {
				panic(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			if answer, err := client.Do(r); err == nil {
				answer.Body.Close()
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// revoke revokes the key that signs, after a token of it was made that goes on being sent.
func (s *service) revoke(t *testing.T) {
	t.Helper()
	token, err := s.signer.Sign(t.Context(), "acme", nil)
	must(t, err)
	status, err := s.keyring.Tenant("acme")
	must(t, err)
	if _, err := s.rotator.Revoke(t.Context(), "acme", status.SignsWith, rotation.Force); err != nil {
		t.Fatal(err)
	}
	s.revoked.Store(&token)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// walked are the alerts that a real Prometheus shows in all states. One other looks back a day, and one is of
// a list of revocations that is broken by hand: promtool runs those.
var walked = []string{
	"KeyturnCannotVerify", "KeyturnRingOutOfStep", "KeyturnNoNextKey", "KeyturnSignerFenced", "KeyturnRepairs", "KeyturnJWKSStale",
	"KeyturnConfigReloadFailed", "KeyturnDown", "KeyturnCertificateExpires",
}

// TestAlerts breaks a running service in every way that an alert is about, and mends it. Each alert is
// inactive, pending, firing and resolved.
func TestAlerts(t *testing.T) {
	s := startService(t)
	p := startPrometheus(t, faster(rules(t)), s.admin, strings.TrimPrefix(s.instance.URL, "http://"))
	eventually(t, "all is well", func() bool { return quiet(t, p) })
	checkPanels(t, p)
	s.page.CertificateEnds(time.Now().Add(14 * 24 * time.Hour / speed / 2)) // it is seen at the end

	write(t, s.config, s.configuration(true)) // an issuer that does not answer
	p.await(t, "KeyturnCannotVerify", "firing")
	p.await(t, "KeyturnJWKSStale", "firing")
	s.answers.Store(true)
	p.await(t, "KeyturnCannotVerify", "inactive")
	p.await(t, "KeyturnJWKSStale", "inactive")

	write(t, s.config, s.configuration(true)+"rubbish: 1\n")
	p.await(t, "KeyturnConfigReloadFailed", "firing")
	must(t, s.redis.Pause())
	for _, alert := range []string{"KeyturnRingOutOfStep", "KeyturnSignerFenced", "KeyturnNoNextKey"} {
		p.await(t, alert, "firing")
	}
	write(t, s.config, s.configuration(true))
	must(t, s.redis.Resume())
	for _, alert := range []string{"KeyturnRingOutOfStep", "KeyturnSignerFenced", "KeyturnNoNextKey", "KeyturnConfigReloadFailed"} {
		p.await(t, alert, "inactive")
	}

	must(t, s.redis.Do(t.Context(), "FLUSHALL"))
	p.await(t, "KeyturnRepairs", "firing")
	s.serve.Process.Kill()
	p.await(t, "KeyturnDown", "firing")
	s.startServe(t)
	p.await(t, "KeyturnDown", "inactive")
	p.await(t, "KeyturnRepairs", "inactive")
	p.await(t, "KeyturnCertificateExpires", "firing")
	s.page.CertificateEnds(time.Now().Add(90 * 24 * time.Hour))
	p.await(t, "KeyturnCertificateExpires", "inactive")

	s.revoke(t)
	eventually(t, "the revoked key is counted", func() bool {
		all := p.query(t, `sum (keyturn_verifications_total{reason="revoked_key"})`)
		return len(all) > 0 && all[0].number(t) > 0
	})
	for _, alert := range walked {
		pending, firing := p.since(t, alert, "pending"), p.since(t, alert, "firing")
		if pending.IsZero() || !firing.After(pending) {
			t.Errorf("%s was pending at %v and firing at %v", alert, pending, firing)
		}
	}
}

// quiet reports whether no alert is pending or firing.
func quiet(t *testing.T, p *prom) bool {
	t.Helper()
	states := p.states(t)
	for _, state := range states {
		if state != "inactive" {
			return false
		}
	}
	return len(states) == 11 && len(p.query(t, "keyturn_build_info")) == 2 && len(p.query(t, `keyturn_rings{state="ready"} == 1`)) == 2
}

// checkPanels asks each query of the dashboard: each has data.
func checkPanels(t *testing.T, p *prom) {
	t.Helper()
	text, err := os.ReadFile("../grafana/keyturn.json")
	must(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal(text, &dashboard))
	fill := strings.NewReplacer("$job", ".+", "$instance", ".+", "$__rate_interval", "4s")
	queries := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries++
			eventually(t, panel.Title+" has data for "+target.Expr, func() bool { return len(p.query(t, fill.Replace(target.Expr))) > 0 })
		}
	}
	if queries < 20 {
		t.Errorf("only %d queries were found", queries)
	}
}
