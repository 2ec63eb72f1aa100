package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A tenant may be called api. Its public keys are public, and the API still wants a token.
func TestServeTenantNamedAPI(t *testing.T) {
	t.Parallel()
	c := newRingCLI(t, redisAddr(t))
	c.run("keys", "create", "--tenant", "api", "--alg", "ES256", "--freshness", "6s", "--skew", "500ms", "--dwell", "1s").wantCode(t, exitYes)
	s := startServe(t, map[string]string{envKEK: c.kek}, "--redis", c.url, "--tenant", "api", "--iss", "https://auth.example/{tenant}")
	wait(t, func() bool { return strings.Contains(s.log.String(), "ready: all rings are in step") })
	for _, path := range []string{"/api" + jwksPath, "/api" + discoveryPath} {
		if a := s.ask(t, "GET", path, ""); a.status != http.StatusOK {
			t.Errorf("GET %s = %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{
		"/api/x", "/api/x" + jwksPath, "/API" + jwksPath, "//api" + jwksPath, "/api/api" + jwksPath, "/x/../api" + jwksPath, "/api" + jwksPath + "/", "/api//.well-known/jwks.json",
	} {
		s.ask(t, "GET", path, "").wantRefused(t)
	}
}

// The log says why a request was refused. It holds nothing that may be a token.
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

// No spelling of a path reaches the API without a token.
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
	t.Parallel()
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

// TestServeRefusesBeforeBody: a client without a token cannot make the server wait for a body that
// never comes.
func TestServeRefusesBeforeBody(t *testing.T) {
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
