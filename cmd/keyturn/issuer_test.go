package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

func TestVerifyIssuer(t *testing.T) {
	issuer := jwkstest.New(t)
	held, other := jwkstest.NewKey("2026-11", "ES256"), jwkstest.NewKey("other", "ES256")
	issuer.Publish(held)
	good := held.Token(liveClaims(`,"iss":"` + issuer.Issuer() + `"`))
	forged := jwkstest.NewKey("2026-11", "ES256").Token(liveClaims(""))
	for _, tt := range []struct {
		name, token string
		flags       []string
		code        int
		reason      string
		says        string
	}{
		{"good", good, nil, exitYes, "", "iss is not checked"},
		{"iss", good, []string{"--iss", issuer.Issuer()}, exitYes, "", ""},
		{"another iss", good, []string{"--iss", issuer.Issuer() + "/"}, exitNo, "issuer", ""},
		{"no such key", other.Token(liveClaims("")), nil, exitNo, "unknown_key", `the issuer has no such key for this algorithm: has it rotated its keys, or is the token another issuer's? It has "2026-11"`},
		{"another algorithm", good, []string{"--alg", "RS256"}, exitNo, "algorithm", "--alg lists RS256"},
		{"forged", forged, nil, exitNo, "signature", "another key"},
		{"malformed", "x", nil, exitNo, "malformed", ""},
		{"expired", held.Token(json.RawMessage(`{"exp":1}`)), nil, exitNo, "expired", ""},
		{"long ago", held.Token(json.RawMessage(`{"exp":2}`)), []string{"--now", "1"}, exitYes, "", ""},
		{"in the far future", held.Token(json.RawMessage(`{"exp":8000000001}`)), []string{"--now", "8000000000"}, exitYes, "", ""},
	} {
		for flag, url := range map[string]string{"--issuer-url": issuer.Issuer(), "--jwks-url": issuer.URL()} {
			t.Run(tt.name+" "+flag, func(t *testing.T) {
				args := []string{"verify", "--json", flag, url}
				if !strings.Contains(strings.Join(tt.flags, " "), "--alg") {
					args = append(args, "--alg", "ES256")
				}
				r := atIssuer(t, issuer, append(append(args, tt.flags...), tt.token)...)
				if r.code != tt.code || !strings.Contains(r.stderr, tt.says) {
					t.Errorf("exit code = %d, stderr = %s; want %d, %q", r.code, r.stderr, tt.code, tt.says)
				}
				if tt.code == exitYes {
					if !strings.HasPrefix(r.stdout, `{"ok":true,"tenant":"default","kid":"2026-11","alg":"ES256","claims":{`) {
						t.Errorf("stdout = %s", r.stdout)
					}
				} else if got := r.reason(t); got != tt.reason {
					t.Errorf("reason = %s, want %s", got, tt.reason)
				}
			})
		}
	}
}

// Without --iss, iss is not checked. With --issuer-url the user still learns that the iss is another.
func TestVerifyIssuerOtherIss(t *testing.T) {
	issuer := jwkstest.New(t)
	key := jwkstest.NewKey("1", "ES256")
	issuer.Publish(key)
	r := atIssuer(t, issuer, "verify", "--issuer-url", issuer.Issuer(), "--alg", "ES256", key.Token(liveClaims(`,"iss":"https://other.example"`)))
	if r.code != exitYes || !strings.Contains(r.stderr, `the token's iss is "https://other.example", which is not --issuer-url`) {
		t.Errorf("%+v", r)
	}
}

// If the keys cannot be read, the token is neither good nor bad. The answer names the failed step.
func TestVerifyIssuerFaults(t *testing.T) {
	key := jwkstest.NewKey("1", "ES256")
	token := key.Token(liveClaims(""))
	for _, tt := range []struct {
		fault        jwkstest.Fault
		step, advice string
	}{
		{jwkstest.NoSuchHost(), "DNS: " + jwkstest.Host, "is the host's name right"},
		{jwkstest.Refused(), "connect: ", "is the port right"},
		{jwkstest.CertificateExpired(), "TLS: the certificate has expired", "SSL_CERT_FILE"},
		{jwkstest.CertificateOfAnotherHost(), "TLS: the certificate is for another host", "for that host"},
		{jwkstest.CertificateUnknown(), "TLS: the certificate is signed by an unknown authority", "SSL_CERT_FILE"},
		{jwkstest.Status(404), "status: ", "is the URL right?"},
		{jwkstest.Status(500), "status: ", "try again later"},
		{jwkstest.RetryAfter(503, "60"), "status: ", "try again later"},
		{jwkstest.RedirectLoop(), "redirect: ", "curl -I"},
		{jwkstest.ResetBody(), "body: ", "curl"},
		{jwkstest.GzipBomb(), "body: ", "curl"},
		{jwkstest.HangBody(), "body: ", "curl"},
	} {
		t.Run(tt.fault.Name, func(t *testing.T) {
			t.Parallel()
			issuer := jwkstest.New(t)
			issuer.Publish(key)
			issuer.Misbehave(tt.fault)
			for flag, url := range map[string]string{"--issuer-url": issuer.Issuer(), "--jwks-url": issuer.URL()} {
				wantUnavailable(t, issuer, flag, url, token, tt.step, tt.advice)
			}
		})
	}
}

// An issuer in a private network is read only if a flag allows that network.
func TestVerifyOwnIssuer(t *testing.T) {
	issuer := jwkstest.New(t)
	key := jwkstest.NewKey("1", "ES256")
	issuer.Publish(key)
	for _, tt := range []struct {
		addr  string
		flags []string
		code  int
		says  string
	}{
		{"10.1.2.3", nil, exitCannotTell, "address refused: address 10.1.2.3 is not a public one"},
		{"10.1.2.3", nil, exitCannotTell, "--allow-cidr allows the network of an issuer of your own"},
		{"10.1.2.3", []string{"--allow-cidr", "10.0.0.0/8"}, exitYes, ""},
		{"10.1.2.3", []string{"--allow-cidr", "192.168.0.0/16", "--allow-cidr", "10.1.2.3/32"}, exitYes, ""},
		{"10.1.2.3", []string{"--allow-cidr", "10.1.2.4/32"}, exitCannotTell, "address refused"},
		{"fd00::1", []string{"--allow-cidr", "fd00::/8"}, exitYes, ""},
		{"127.0.0.1", []string{"--allow-cidr", "10.0.0.0/8"}, exitCannotTell, "address refused"},
	} {
		lookup := func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr(tt.addr)}, ctx.Err()
		}
		var stdout, stderr bytes.Buffer
		w := &app{
			env: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: time.Now,
			network: jwks.Config{TLS: issuer.TLS(), LookupNetIP: lookup, DialContext: issuer.DialContext},
		}
		args := append([]string{"verify", "--jwks-url", issuer.URL(), "--alg", "ES256"}, tt.flags...)
		if code := w.run(t.Context(), append(args, key.Token(liveClaims("")))); code != tt.code || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%s %q: exit code = %d, stdout = %s, stderr = %s", tt.addr, tt.flags, code, stdout.String(), stderr.String())
		}
	}
}

// A kid that is a thumbprint is not cut.
func TestVerifyIssuerShowsThumbprints(t *testing.T) {
	issuer := jwkstest.New(t)
	kid := strings.Repeat("k", 42) + "z"
	issuer.Publish(jwkstest.NewKey(kid, "ES256"))
	r := atIssuer(t, issuer, "verify", "--jwks-url", issuer.URL(), "--alg", "ES256", jwkstest.NewKey("other", "ES256").Token(liveClaims("")))
	if r.code != exitNo || !strings.Contains(r.stderr, `It has "`+kid+`"`) {
		t.Errorf("%+v", r)
	}
}

// A server that answers without keys counts as unavailable.
func TestVerifyIssuerNonsense(t *testing.T) {
	token := jwkstest.NewKey("1", "ES256").Token(liveClaims(""))
	for name, body := range map[string]string{
		"HTML": "<html>", "null": "null", "no keys": "{}", "empty": `{"keys":[]}`, "one that does not serve": `{"keys":[{"kty":"oct","kid":"s","k":"aGk"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			issuer := jwkstest.New(t)
			issuer.PublishBody(body)
			wantUnavailable(t, issuer, "--jwks-url", issuer.URL(), token, "set: ", "the URL must lead to a JWK Set")
			wantUnavailable(t, issuer, "--issuer-url", issuer.Issuer(), token, "set: ", "jwks_uri")
		})
	}
	issuer := jwkstest.New(t)
	issuer.ClaimIssuer(issuer.Issuer() + "/")
	wantUnavailable(t, issuer, "--issuer-url", issuer.Issuer(), token, "discovery mismatch: ", "byte for byte")
	issuer.ClaimIssuer("https://login.microsoftonline.com/{tenantid}/v2.0") // as that of Entra's /common does
	if r := atIssuer(t, issuer, "verify", "--issuer-url", issuer.Issuer(), "--alg", "ES256", token); strings.Contains(r.stderr, "look for a slash") || !strings.Contains(r.stderr, "a template, which no token has as its iss") {
		t.Errorf("a template: %s", r.stderr)
	}
	issuer.Misbehave(jwkstest.Body("not metadata", "[]"))
	wantUnavailable(t, issuer, "--issuer-url", issuer.Issuer(), token, "discovery mismatch: ", "a slash at the end")
}

// A key that other readers may refuse is named, and is used.
func TestVerifyIrregularKey(t *testing.T) {
	issuer, key := jwkstest.New(t), jwkstest.NewKey("1", "ES256")
	body := regexp.MustCompile(`"(x|y)":"([^"]{43})"`).ReplaceAllString(jwkstest.Set(key), `"$1":"$2="`)
	issuer.PublishBody(body)
	const want = `irregular key 0 ("1"): "x" is padded`
	token := key.Token(liveClaims(""))
	if r := atIssuer(t, issuer, "verify", "--jwks-url", issuer.URL(), "--alg", "ES256", token); r.code != exitYes || !strings.Contains(r.stderr, want) {
		t.Errorf("--jwks-url: %+v", r)
	}
	if r := keyturn(t, "verify", "--jwks", file(t, body), "--alg", "ES256", token); r.code != exitYes || !strings.Contains(r.stderr, want) {
		t.Errorf("--jwks: %+v", r)
	}
}

// An unusable key is named, and the other keys are used.
func TestVerifyIssuerSkips(t *testing.T) {
	issuer := jwkstest.New(t)
	key := jwkstest.NewKey("1", "ES256")
	issuer.Publish(key)
	issuer.Misbehave(jwkstest.Among("a secret", `{"kty":"oct","kid":"leaked","k":"aGk"}`))
	r := atIssuer(t, issuer, "verify", "--jwks-url", issuer.URL(), "--alg", "ES256", key.Token(liveClaims("")))
	if r.code != exitYes || !strings.Contains(r.stderr, `skipped key 0 ("leaked")`) || strings.Contains(r.stderr, "aGk") {
		t.Errorf("%+v", r)
	}

	// A token of such a key learns why it is not known.
	other := jwkstest.NewKey("2", "ES256")
	issuer.Misbehave(jwkstest.Among("a key of encryption", strings.Replace(other.JWK(), `"use":"sig"`, `"use":"enc"`, 1)))
	r = atIssuer(t, issuer, "verify", "--jwks-url", issuer.URL(), "--alg", "ES256", other.Token(liveClaims("")))
	if want := `unknown key: kid "2" is in the set, but was skipped: its use is "enc"`; r.code != exitNo || !strings.Contains(r.stderr, want) {
		t.Errorf("%+v, want %s", r, want)
	}
}

// An issuer has answered with its keys, but fails when it is asked about another kid.
func TestVerifyIssuerFailsAgain(t *testing.T) {
	issuer := jwkstest.New(t)
	issuer.Publish(jwkstest.NewKey("1", "ES256"))
	flapping := jwkstest.Flapping() // 500 first
	issuer.Misbehave(flapping)
	token := jwkstest.NewKey("2", "ES256").Token(liveClaims(""))
	atIssuer(t, issuer, "verify", "--jwks-url", issuer.URL(), "--alg", "ES256", token)
	r := atIssuer(t, issuer, "verify", "--jwks-url", issuer.URL(), "--alg", "ES256", "--json", token)
	if got := r.reason(t); r.code != exitCannotTell || got != "unavailable" || !strings.Contains(r.stderr, "could not be asked about this one: status: status 500") {
		t.Errorf("%+v", r)
	}
}

func TestVerifyIssuerUsage(t *testing.T) {
	set, secret := file(t, `{"keys":[]}`), file(t, testSecret)
	const url = "https://issuer.example"
	for _, tt := range []struct {
		args   []string
		phrase string
	}{
		{[]string{"--issuer-url", url, "--jwks-url", url}, "--jwks-url and --issuer-url: give one of them"},
		{[]string{"--issuer-url", url, "--jwks", set}, "--jwks and --issuer-url: give one of them"},
		{[]string{"--jwks-url", url, "--secret-file", secret}, "--secret-file and --jwks-url: give one of them"},
		{[]string{"--jwks-url", url, "--redis", "redis://x"}, "--jwks-url and --redis: give one of them"},
		{[]string{"--jwks-url", url, "--kid", "k"}, "have their own names"},
		{[]string{"--jwks", set, "--allow-loopback"}, "--allow-loopback goes with"},
		{[]string{"--jwks", set, "--allow-cidr", "10.0.0.0/8"}, "--allow-cidr goes with"},
		{[]string{"--issuer-url", url, "--allow-cidr", "10.0.0.1"}, "--allow-cidr: want a network such as 10.0.0.0/8"},
		{[]string{"--issuer-url", "http://issuer.example"}, "--issuer-url: scheme http: want https (--allow-loopback"},
		{[]string{"--issuer-url", "http://127.0.0.1:1"}, "--issuer-url: scheme http: want https (--allow-loopback"},
		{[]string{"--issuer-url", "http://issuer.example", "--allow-loopback"}, "--issuer-url: scheme http: allowed on a loopback host only"},
		{[]string{"--jwks-url", "issuer.example"}, "--jwks-url: want an absolute https URL"},
		{[]string{"--jwks-url", "https://a:hush@issuer.example"}, "--jwks-url: user or password"},
		{[]string{"--issuer-url", url + "?x=hush"}, "--issuer-url: an issuer has no query"},
		{[]string{"--jwks-url", ""}, "--jwks-url: is empty"},
	} {
		r := keyturn(t, append(append([]string{"verify", "--alg", "ES256"}, tt.args...), "x")...)
		r.wantUsage(t, tt.phrase)
		if strings.Contains(r.stderr, "hush") {
			t.Errorf("%q: stderr = %s", tt.args, r.stderr)
		}
	}
}

// The built command uses the real network. It reads from this machine only if a flag allows that, and
// checks the authority of the certificate.
func TestVerifyIssuerProcess(t *testing.T) {
	issuer := jwkstest.New(t)
	key := jwkstest.NewKey("1", "ES256")
	issuer.Publish(key)
	token := key.Token(liveClaims(""))
	url := "https://" + issuer.Addr() + strings.TrimPrefix(issuer.URL(), issuer.Issuer())
	says := func(r result, code int, phrase string) {
		t.Helper()
		if r.code != code || !strings.Contains(r.stderr, phrase) {
			t.Errorf("exit code = %d, stderr = %s; want %d, %q", r.code, r.stderr, code, phrase)
		}
	}
	verify := []string{"verify", "--alg", "ES256", "--jwks-url"}
	says(process(t, "", append(verify, url, token)...), exitCannotTell, "address refused: address 127.0.0.1 is not a public one")
	says(process(t, "", append(verify, url, "--allow-loopback", token)...), exitCannotTell, "TLS: the certificate is signed by an unknown authority")
	says(process(t, "", append(verify, "http://"+closedPort(t)+"/jwks", "--allow-loopback", token)...), exitCannotTell, "connect: no connection to 127.0.0.1")
}
