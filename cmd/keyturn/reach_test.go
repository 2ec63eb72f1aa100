package main

import (
	"bufio"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A guarded issuer serves its set over TLS to those who show its token.
type guarded struct {
	*httptest.Server
	key   atomic.Pointer[jwkstest.Key]
	token atomic.Value // string
	ca    string       // PEM of its authority
}

func newGuarded(t *testing.T) *guarded {
	g := new(guarded)
	g.key.Store(jwkstest.NewKey("1", "ES256"))
	g.token.Store("s3cr3t")
	g.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+g.token.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, jwkstest.Set(g.first()))
	}))
	t.Cleanup(g.Close)
	g.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Certificate().Raw}))
	return g
}

func (g *guarded) first() *jwkstest.Key { return g.key.Load() }

// verify reaches an issuer that a cluster may have: with its own authority, a private
// address and a bearer token.
func TestVerifyGuardedIssuer(t *testing.T) {
	g := newGuarded(t)
	ca, token, wrong, empty, two := file(t, g.ca), file(t, "s3cr3t\n"), file(t, "another"), file(t, " \n"), file(t, "s3cr3t s3cr3t")
	missing := filepath.Join(t.TempDir(), "missing")
	for _, tt := range []struct {
		flags []string
		code  int
		says  string
	}{
		{[]string{"--ca-file", ca, "--bearer-token-file", token}, exitYes, ""},
		{[]string{"--bearer-token-file", token}, exitCannotTell, "TLS: the certificate is signed by an unknown authority"},
		{[]string{"--ca-file", ca}, exitCannotTell, "status 401"},
		{[]string{"--ca-file", ca, "--bearer-token-file", wrong}, exitCannotTell, "--bearer-token-file gives it a token"},
		{[]string{"--ca-file", ca, "--bearer-token-file", empty}, exitUsage, "the file of --bearer-token-file is empty"},
		{[]string{"--ca-file", ca, "--bearer-token-file", two}, exitUsage, "the file of --bearer-token-file holds more than one token"},
		{[]string{"--ca-file", ca, "--bearer-token-file", missing}, exitUsage, "cannot read the file of --bearer-token-file: no such file"},
		{[]string{"--ca-file", token}, exitUsage, "the file of --ca-file has no certificate"},
		{[]string{"--ca-file", missing}, exitUsage, "cannot read the file of --ca-file: no such file"},
		{[]string{"--proxy", "socks5://proxy.example"}, exitUsage, "--proxy: want the http or https URL of a proxy"},
		{[]string{"--proxy", "http://ann:s3cr3t@proxy.example"}, exitUsage, "--proxy: has a user or password"},
		{[]string{"--proxy", "http://proxy.example/x"}, exitUsage, "--proxy: want a host and a port"},
	} {
		args := append([]string{"verify", "--alg", "ES256", "--jwks-url", g.URL + "/jwks", "--allow-loopback"}, tt.flags...)
		r := keyturn(t, append(args, g.first().Token(liveClaims("")))...)
		if r.code != tt.code || !strings.Contains(r.stderr, tt.says) || strings.Contains(r.stderr, "s3cr3t") {
			t.Errorf("%q: exit code = %d, stderr = %s; want %d, %q", tt.flags, r.code, r.stderr, tt.code, tt.says)
		}
	}
}

func TestReachNeedsItsParts(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		phrase string
	}{
		{[]string{"--jwks-url", "http://keycloak:8080/x", "--allow-http"}, "--allow-http allows no address by itself: give --allow-cidr"},
		{[]string{"--jwks-url", "http://keycloak:8080/x", "--allow-cidr", "10.0.0.0/8"}, "scheme http: want https"},
		{[]string{"--jwks-url", "http://keycloak:8080/x", "--allow-loopback"}, "(--allow-http allows it in networks that are allowed by name)"},
		{[]string{"--jwks", file(t, `{"keys":[]}`), "--proxy", "http://proxy.example"}, "--proxy goes with --issuer-url or --jwks-url"},
		{[]string{"--jwks", file(t, `{"keys":[]}`), "--bearer-token-file", "x"}, "--bearer-token-file goes with"},
	} {
		keyturn(t, append(append([]string{"verify", "--alg", "ES256"}, tt.args...), "x")...).wantUsage(t, tt.phrase)
	}
}

// A proxy gets the name of the issuer, and does not see the bearer token.
func TestVerifyThroughProxy(t *testing.T) {
	g := newGuarded(t)
	var connect atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connect.Store(fmt.Sprint(r.Method, " ", r.Host, " ", r.Header))
		to, err := net.Dial("tcp", g.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer to.Close()
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go bufio.NewReader(to).WriteTo(conn)
		rw.WriteTo(to)
	}))
	defer proxy.Close()
	r := keyturn(t, "verify", "--alg", "ES256", "--jwks-url", "https://example.com/jwks", "--proxy", proxy.URL,
		"--ca-file", file(t, g.ca), "--bearer-token-file", file(t, "s3cr3t"), g.first().Token(liveClaims("")))
	if r.code != exitYes {
		t.Errorf("exit code = %d, stderr = %s", r.code, r.stderr)
	}
	if got, _ := connect.Load().(string); !strings.HasPrefix(got, "CONNECT example.com:443") || strings.Contains(got, "s3cr3t") {
		t.Errorf("the proxy got %s", got)
	}
}

// Each tenant of a file reaches its issuer its own way, and a token that the kubelet replaces is read
// again.
func TestServeGuardedIssuer(t *testing.T) {
	g := newGuarded(t)
	key := jwkstest.NewKey("2", "ES256")
	plain := startPlainIssuer(t, key)
	defer plain.close()
	path := configFolder(t, "tenants:\n"+
		"  - {id: guarded, kind: jwks, jwks_url: '"+g.URL+"/jwks', allow_loopback: true, ca_file: ca.pem, bearer_token_file: token, algorithms: [ES256], issuer: https://a.example, audiences: [api]}\n"+
		"  - {id: plain, kind: jwks, jwks_url: '"+plain.url+"/jwks', allow_http: true, allow_cidr: [127.0.0.0/8], algorithms: [ES256], issuer: https://b.example, audiences: [api]}\n",
		map[string]string{"ca.pem": g.ca, "token": "s3cr3t\n"})
	s := startServe(t, nil, "--config", path)
	token := func(key *jwkstest.Key, iss string) string {
		return key.Token(liveClaims(`,"aud":"api","iss":"` + iss + `"`))
	}
	s.ask(t, "GET", "/api/x", token(g.first(), "https://a.example")).wantOK(t, "guarded", "ann", "/api/x")
	s.ask(t, "GET", "/api/x", token(key, "https://b.example")).wantOK(t, "plain", "ann", "/api/x")

	g.token.Store("another")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "token"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := jwkstest.NewKey("3", "ES256")
	g.key.Store(fresh)
	s.ask(t, "GET", "/api/x", token(fresh, "https://a.example")).wantOK(t, "guarded", "ann", "/api/x")
	if strings.Contains(s.log.String()+s.out.String(), "s3cr3t") {
		t.Error("the bearer token is in the log")
	}
}

// A token from a pipe is read once. A file that becomes a pipe is refused: a fetch does not wait for
// its writer, who may never come.
func TestBearerTokenInPipe(t *testing.T) {
	g := newGuarded(t)
	ca, pipe := file(t, g.ca), filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go os.WriteFile(pipe, []byte("s3cr3t\n"), 0o600)
	done := make(chan result, 1)
	go func() {
		done <- keyturn(t, "verify", "--alg", "ES256", "--jwks-url", g.URL+"/jwks", "--allow-loopback", "--ca-file", ca,
			"--bearer-token-file", pipe, g.first().Token(liveClaims("")))
	}()
	select {
	case r := <-done:
		r.wantCode(t, exitYes)
	case <-time.After(time.Minute):
		t.Error("verify waits for a second writer of the pipe")
		os.WriteFile(pipe, nil, 0o600)
	}

	path := file(t, "s3cr3t")
	flag := func(setting string) string { return setting }
	source, err := new(app).source("", g.URL, reach{tokenFile: path, name: flag, file: flag}, jwks.SourceConfig{})
	if err := errors.Join(err, os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := source.Config.Header(t.Context())
		asked <- err
	}()
	select {
	case err := <-asked:
		if err == nil || !strings.Contains(err.Error(), "is no regular file any more") {
			t.Errorf("error %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the fetch waits for a writer of the pipe")
		os.WriteFile(path, nil, 0o600)
	}
}

func TestConfigOfReach(t *testing.T) {
	reachable := func(more string) string {
		return "tenants:\n  - {id: j, kind: jwks, algorithms: [ES256], jwks_url: https://x.example, issuer: i, audiences: [a], " + more + "}\n"
	}
	for _, tt := range []struct{ config, phrase string }{
		{reachable("allow_cidr: [10.0.0.1]"), "allow_cidr: want a network"},
		{reachable("allow_http: true"), `line 2 (tenant "j"): allow_http: true allows no address by itself: give allow_cidr`},
		{reachable("proxy: 'socks5://hush@x'"), "proxy: want the http or https URL of a proxy"},
		{reachable("ca_file: none.pem"), `cannot read the file of ca_file of tenant "j"`},
		{reachable("ca_file: s"), "has no certificate"},
		{reachable("bearer_token_file: none"), `cannot read the file of bearer_token_file of tenant "j"`},
		{reachable("bearer_token_file: blank"), `bearer_token_file of tenant "j" in the file of --config is empty`},
		{strings.Replace(reachable("proxy: 'http://x'"), "jwks_url: https://x.example", "jwks_file: s", 1), "proxy goes with"},
		{"tenants:\n  - {id: a, kind: static, secret_file: s, ca_file: s, issuer: i, audiences: [a]}\n", "ca_file is for tenants of kind jwks"},
	} {
		path := configFolder(t, tt.config, map[string]string{"s": testSecret, "blank": " \n"})
		r := keyturn(t, "serve", "--addr", "127.0.0.1:0", "--config", path)
		r.wantUsage(t, tt.phrase)
		if strings.Contains(r.stderr, "hush") {
			t.Errorf("%s: stderr = %s", tt.config, r.stderr)
		}
	}
}
