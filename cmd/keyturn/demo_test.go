package main

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The demo publishes public keys, reports when it is ready, and leaves no goroutine running.
func TestServeDemoRings(t *testing.T) {
	running := goleak.IgnoreCurrent()
	s := startServe(t, nil)
	for _, path := range []string{"/globex/.well-known/jwks.json", "/.well-known/jwks.json"} {
		a := s.ask(t, "GET", path, "")
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/jwk-set+json" || strings.Count(a.body, `"alg":"ES256"`) != 2 {
			t.Errorf("GET %s = %d %v %s", path, a.status, a.header, a.body)
		}
		if !regexp.MustCompile(`^public, max-age=[1-8]$`).MatchString(a.header.Get("Cache-Control")) || strings.Contains(a.body, `"d"`) || strings.Contains(a.body, `"k"`) {
			t.Errorf("GET %s = %v %s", path, a.header, a.body)
		}
		if a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("GET %s: a page of another origin cannot read it: %v", path, a.header)
		}
		if a := s.ask(t, "OPTIONS", path, ""); a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Headers") != "*" {
			t.Errorf("OPTIONS %s = %d %v", path, a.status, a.header)
		}
	}
	for _, path := range []string{"/api/x", "/readyz", "/healthz", "/"} {
		if a := s.ask(t, "GET", path, ""); a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("GET %s: any page may read it: %v", path, a.header)
		}
	}
	for _, path := range []string{"/acme/.well-known/jwks.json", "/nobody/.well-known/jwks.json", "/globex/.well-known/jwks.json/", "/api.well-known/jwks.json"} {
		if a := s.ask(t, "GET", path, ""); a.status != http.StatusNotFound {
			t.Errorf("GET %s = %d %s", path, a.status, a.body)
		}
	}
	s.ask(t, "GET", "/api/.well-known/jwks.json", "").wantRefused(t)
	if status, all, each := s.readiness(t); status != http.StatusOK || all != "ready" || len(each) != 2 || each["acme"].Status != "ready" {
		t.Errorf("/readyz = %d %s %v", status, all, each)
	}
	if code := s.stop(); code != exitYes {
		t.Errorf("exit code = %d; log: %s", code, s.log)
	}
	wait(t, func() bool { return strings.HasSuffix(s.out.String(), "\nstopped\n") })
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, running)
}

// The demo prints a token for each tenant, which opens the API for that tenant,
// and the curl command to paste.
func TestServeDemo(t *testing.T) {
	s := startServe(t, nil)
	s.stop() // so that the output is complete
	first := s.out.String()

	s = startServe(t, nil)
	s.ask(t, "GET", "/healthz", "") // a server that answers has printed everything
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
	// A token of the previous run is refused, and one with the payload of another tenant.
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
