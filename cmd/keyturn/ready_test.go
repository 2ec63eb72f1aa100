package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
)

// If the only source does not answer, the service cannot verify any token.
func TestServeConfigNotReady(t *testing.T) {
	path := configFolder(t, "tenants:\n  - {id: away, kind: jwks, jwks_url: 'http://"+closedPort(t)+"/jwks', allow_loopback: true, algorithms: [ES256], any_issuer: true, any_audience: true}\n", nil)
	s := startServe(t, nil, "--config", path)
	if status, all, _ := s.readiness(t); status != http.StatusServiceUnavailable || all != stateNotReady {
		t.Errorf("/readyz = %d %s", status, all)
	}
}

// In shared-secret mode the server is ready at once, and publishes nothing.
func TestServeSecretReady(t *testing.T) {
	s := startServe(t, map[string]string{envSecret: testSecret})
	if status, all, _ := s.readiness(t); status != http.StatusOK || all != "ready" {
		t.Errorf("/readyz = %d %s", status, all)
	}
	if a := s.ask(t, "GET", "/.well-known/jwks.json", ""); a.status != http.StatusNotFound {
		t.Errorf("a JWK Set: %d %s", a.status, a.body)
	}
	if a := s.ask(t, "POST", "/readyz", ""); a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST /readyz = %d", a.status)
	}
}

// The reasons of /readyz show no address and no name of a KEK.
func TestReadyzHidesAddresses(t *testing.T) {
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{})
	c := newRingCLI(t, redis.Addr())
	c.run("keys", "create", "--freshness", "6s", "--skew", "100ms", "--dwell", "1s").wantCode(t, exitYes)
	s := startServe(t, map[string]string{envKEK: c.kek}, "--redis", c.url)
	redis.Kill()
	wait(t, func() bool { return strings.Contains(s.log.String(), "the store cannot be reached") })
	wait(t, func() bool { _, all, _ := s.readiness(t); return all != stateReady })
	a := askAt(t, s.admin, "GET", "/readyz", "")
	if strings.Contains(a.body, "127.0.0.1") || !strings.Contains(a.body, `"reason":"`) {
		t.Errorf("/readyz = %s", a.body)
	}
}
