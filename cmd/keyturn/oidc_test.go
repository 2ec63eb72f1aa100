package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// An oidcProvider is a process with an independent OpenID provider, on loopback.
type oidcProvider struct {
	issuer string
	stdin  io.Writer
	stdout *bufio.Scanner
}

// oidcFolder has the programs that run on node, and their packages.
const oidcFolder = "testdata/oidc"

func startProvider(t *testing.T, keys ...json.RawMessage) *oidcProvider {
	t.Helper()
	needNode(t)
	cmd := exec.CommandContext(t.Context(), "node", "provider.mjs")
	cmd.Dir = oidcFolder
	stderr := new(syncBuffer)
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
		if t.Failed() {
			t.Logf("the provider said: %s", stderr)
		}
	})
	p := &oidcProvider{stdin: stdin, stdout: bufio.NewScanner(stdout)}
	p.restart(t, keys...)
	return p
}

// restart starts the provider again with other keys. The first one signs.
func (p *oidcProvider) restart(t *testing.T, keys ...json.RawMessage) {
	t.Helper()
	line, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	p.stdin.Write(append(line, '\n'))
	var got struct{ Issuer string }
	if !p.stdout.Scan() || json.Unmarshal(p.stdout.Bytes(), &got) != nil || got.Issuer == "" {
		t.Fatalf("the provider answered %q, %v", p.stdout.Text(), p.stdout.Err())
	}
	p.issuer = got.Issuer
}

// token asks the provider for an access token that is a JWT.
func (p *oidcProvider) token(t *testing.T) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"read"}}
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("orders", "orders-secret")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var got struct {
		Token string `json:"access_token"`
	}
	if err != nil || json.Unmarshal(body, &got) != nil || got.Token == "" {
		t.Fatalf("the provider answered %s, %v", body, err)
	}
	return got.Token
}

// privateJWK makes a key for the provider to sign with.
func privateJWK(t *testing.T, kid string) json.RawMessage {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	doc, err := json.Marshal(map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": b64(point[1:33]), "y": b64(point[33:]), "d": b64(d),
	})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// A real OpenID provider changes its keys: once it announces the next key before that signs, and once
// it replaces all keys at once. A running service learns a new key with the first token that names it.
// A command that starts reads the current keys.
func TestOIDCProvider(t *testing.T) {
	t.Parallel()
	first, second, third := privateJWK(t, "first"), privateJWK(t, "second"), privateJWK(t, "third")
	p := startProvider(t, first)
	client := jwks.New(jwks.Config{})
	defer client.Close(t.Context())
	source, err := client.Discover("acme", p.issuer, jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	ready, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := source.WaitReady(ready); err != nil {
		t.Fatal(err)
	}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: source, Issuer: p.issuer, Audiences: []string{"orders"}, Algorithms: []keystore.Algorithm{keystore.ES256},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	verifies := func(when, token string) {
		t.Helper()
		if typ := partOf(t, token, 0)["typ"]; typ != "at+jwt" {
			t.Errorf("%s: typ is %v, want at+jwt (RFC 9068)", when, typ)
		}
		got, err := v.Verify(t.Context(), token)
		if err != nil || got.Subject() != "orders" || !got.HasScope("read") {
			t.Errorf("%s: the library says %v, %v", when, got, err)
		}
		p.wantVerdict(t, when, token, exitYes, `"claims":{`)
	}

	old := p.token(t)
	verifies("at first", old)
	p.restart(t, first, second)
	verifies("the next key is announced", p.token(t))
	p.restart(t, second, first)
	turned := p.token(t)
	verifies("the next key signs", turned)
	verifies("the old one is still there", old)

	p.restart(t, third)
	verifies("another key, unannounced", p.token(t))
	for _, gone := range []string{old, turned} {
		if _, err := v.Verify(t.Context(), gone); err == nil {
			t.Error("the library accepts a token whose key the provider has dropped")
		}
		p.wantVerdict(t, "gone", gone, exitNo, `{"ok":false,"reason":"unknown_key"`)
	}
	if status := source.Status(); status.Failures != 0 || status.Fetches > 5 {
		t.Errorf("status = %+v, want a fetch at first, and one for each kid that was not there", status)
	}
}

// wantVerdict asks the built command about a token.
func (p *oidcProvider) wantVerdict(t *testing.T, when, token string, code int, says string) {
	t.Helper()
	r := process(t, token+"\n", "verify", "--issuer-url", p.issuer, "--allow-loopback", "--iss", p.issuer, "--aud", "orders", "--alg", "ES256", "--json", "-")
	if r.code != code || !strings.Contains(r.stdout, says) {
		t.Errorf("%s: the command says %d, %s%s", when, r.code, r.stdout, r.stderr)
	}
}

// Tokens that depart from the standards, as jose and jsonwebtoken on node make them, are refused by an
// error that names the tolerance, and accepted with it.
func TestOddTokens(t *testing.T) {
	needNode(t)
	cmd := exec.CommandContext(t.Context(), "node", "odd.mjs")
	cmd.Dir = oidcFolder
	out, err := cmd.Output()
	var odd struct {
		Set    json.RawMessage
		Tokens map[string]string
	}
	if err != nil || json.Unmarshal(out, &odd) != nil || len(odd.Tokens) != 6 {
		t.Fatalf("odd.mjs: %v\n%s", err, out)
	}
	set := file(t, string(odd.Set))
	for tolerance, token := range odd.Tokens {
		args := []string{"verify", "--jwks", set, "--alg", "ES256"}
		if tolerance != "plain" {
			r := keyturn(t, append(args, token)...)
			if r.code != exitNo || !strings.Contains(strings.ToLower(r.stdout+r.stderr), "tolerate "+tolerance) {
				t.Errorf("%s: %d %s%s", tolerance, r.code, r.stdout, r.stderr)
			}
			args = append(args, "--tolerate", tolerance)
		}
		if r := keyturn(t, append(args, token)...); r.code != exitYes {
			t.Errorf("%s, tolerated: %d %s%s", tolerance, r.code, r.stdout, r.stderr)
		}
	}
}

// The errors of the command about a real provider.
func TestOIDCProviderErrors(t *testing.T) {
	t.Parallel()
	p := startProvider(t, privateJWK(t, "first"))
	token := p.token(t)
	for _, tt := range []struct {
		url  string
		code int
		says string
	}{
		{p.issuer + "/", exitCannotTell, "discovery mismatch: "},
		{strings.Replace(p.issuer, "127.0.0.1", "localhost", 1), exitCannotTell, "discovery mismatch: "},
		{p.issuer + "/tenant", exitCannotTell, "status: discovery: "},
		{strings.Replace(p.issuer, "http:", "https:", 1), exitCannotTell, "TLS: "},
	} {
		r := process(t, "", "verify", "--issuer-url", tt.url, "--allow-loopback", "--alg", "ES256", token)
		if r.code != tt.code || !strings.Contains(r.stderr, tt.says) {
			t.Errorf("%s: %d, %s, want %d, %s", tt.url, r.code, r.stderr, tt.code, tt.says)
		}
	}
	r := process(t, "", "verify", "--jwks-url", p.issuer+"/jwks", "--allow-loopback", "--alg", "ES256", token)
	if r.code != exitYes {
		t.Errorf("by the URL of its keys: %d, %s", r.code, r.stderr)
	}
}

// The issuer's URL is enough to find the keys that serve publishes: for openid-client on node, for our
// reader, and for the command.
func TestServeDiscovery(t *testing.T) {
	t.Parallel()
	needNode(t)
	s := startServe(t, nil)
	wait(t, func() bool { return strings.Contains(s.out.String(), "Ctrl-C") })
	tokens := regexp.MustCompile(`(?m)^(eyJ\S+)$`).FindAllString(s.out.String(), -1)
	issuer := s.url + "/globex"
	for _, path := range []string{"/globex" + discoveryPath, discoveryPath} {
		a := s.ask(t, "GET", path, "")
		want := `{"issuer":"` + issuer + `","jwks_uri":"` + issuer + jwksPath + `",`
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(a.body, want) {
			t.Errorf("GET %s = %d %v %s", path, a.status, a.header, a.body)
		}
	}
	if a := s.ask(t, "GET", "/acme"+discoveryPath, ""); a.status != http.StatusNotFound {
		t.Errorf("metadata of a tenant without public keys: %d %s", a.status, a.body)
	}

	cmd := exec.CommandContext(t.Context(), "node", "discover.mjs", issuer, tokens[1])
	cmd.Dir = oidcFolder
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "bob\n" {
		t.Errorf("openid-client: %v\n%s", err, out)
	}
	r := keyturn(t, "verify", "--issuer-url", issuer, "--allow-loopback", "--iss", issuer, "--alg", "ES256", tokens[1])
	if r.code != exitYes {
		t.Errorf("verify: %d %s", r.code, r.stderr)
	}
	client := jwks.New(jwks.Config{})
	defer client.Close(t.Context())
	source, err := client.Discover("globex", issuer, jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	ready, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := source.WaitReady(ready); err != nil {
		t.Error(err)
	}
}
