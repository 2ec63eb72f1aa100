package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// secrets are planted texts by where they stand. Each is unlike any other text.
type secrets map[string]string

// plant returns a new secret for a place.
func (s secrets) plant(place string) string {
	s[place] = fmt.Sprintf("planted%02dsecret%02d%s", len(s), 97-len(s), strings.Repeat("q7", 8))
	return s[place]
}

// leaks returns the places whose secrets, or an encoding or a long part of them, are in a text.
func (s secrets) leaks(text string) (places []string) {
	for place, secret := range s {
		b := []byte(secret)
		for _, form := range []string{
			secret, secret[:17], base64.StdEncoding.EncodeToString(b[:18]), base64.RawURLEncoding.EncodeToString(b[1:16]),
			base64.RawURLEncoding.EncodeToString(b[2:17]), hex.EncodeToString(b[:16]),
		} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
				places = append(places, place)
				break
			}
		}
	}
	slices.Sort(places)
	return places
}

// token returns a token with planted claims and header parameters. more replaces claims.
func (s secrets) token(t *testing.T, key, name string, header, more map[string]any) string {
	t.Helper()
	head := map[string]any{"alg": "HS256", "typ": "JWT"}
	maps.Copy(head, header)
	claims := map[string]any{
		"iss": "https://acme.example", "aud": "api", "exp": time.Now().Add(time.Hour).Unix(),
		"sub": s.plant(name + " sub"), "jti": s.plant(name + " jti"), "email": s.plant(name + " email"),
	}
	maps.Copy(claims, more)
	h, err := json.Marshal(head)
	if err != nil {
		t.Fatal(err)
	}
	c, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return hs256(key, string(h), string(c))
}

// tokens returns tokens that are bad for reasons of their own.
func (s secrets) tokens(t *testing.T, key string) []string {
	past := time.Now().Add(-time.Hour).Unix()
	good := s.token(t, key, "forged", nil, nil)
	return []string{
		s.token(t, key, "expired", nil, map[string]any{"exp": past}),
		s.token(t, key, "audience", nil, map[string]any{"aud": s.plant("aud")}),
		s.token(t, key, "issuer", nil, map[string]any{"iss": s.plant("iss")}),
		s.token(t, key, "algorithm", map[string]any{"alg": s.plant("alg")}, nil),
		s.token(t, key, "type", map[string]any{"typ": s.plant("typ")}, nil),
		s.token(t, key, "crit", map[string]any{"crit": []string{s.plant("crit")}}, nil),
		s.token(t, key, "kid", map[string]any{"kid": "a-kid-may-be-seen"}, nil),
		s.token(t, s.plant("another secret"), "signature", nil, nil),
		good[:strings.LastIndexByte(good, '.')+1] + s.plant("signature"),
		s.plant("opaque token"),
		s.plant("part one") + "." + s.plant("part two") + "." + s.plant("part three"),
	}
}

// Secrets, claims and whatever else a client writes stay out of the log, the metrics, /readyz, what
// serve prints and what a client gets that is refused (prometheus-community/elasticsearch_exporter#263
// had secrets in labels, mikkelchokolate/Veil#142 tokens in paths).
func TestNoSecretLeavesServe(t *testing.T) {
	s := make(secrets)
	redis := miniredis.RunT(t)
	password, key, kek := s.plant("Redis password"), s.plant("shared secret"), s.plant("KEK")[:32]
	redis.RequireAuth(password)
	path := configFolder(t, "metrics: {tenants: 5}\nrings: {redis: 'redis://"+redis.Addr()+"', kek_file: kek, bootstrap: true}\ntenants:\n"+acmeTenant+
		"  - {id: rings, kind: ring, issuer: r, audiences: [api]}\n",
		map[string]string{"s": key, "kek": base64.StdEncoding.EncodeToString([]byte(kek))})
	served := startServe(t, map[string]string{envRedisPassword: password}, "--config", path)
	good := s.token(t, key, "good", nil, nil)
	if got := served.ask(t, "GET", "/api/x", good); got.status != 200 {
		t.Fatalf("a good token: %d %s", got.status, got.body)
	}
	var out strings.Builder
	note := func(a answered) { fmt.Fprintln(&out, a.status, a.header, a.body) }
	for _, token := range s.tokens(t, key) {
		note(served.ask(t, "GET", "/api/x", token))
		note(served.ask(t, "GET", "/api/"+token+"?access_token="+token, token))
		r := keyturn(t, "verify", "--secret-file", file(t, key), token)
		fmt.Fprintln(&out, r.stderr)
	}
	for _, header := range []string{
		"Cookie: session=%s", "User-Agent: %s", "Authorization: Basic %s", "X-Api-Key: %s", "Referer: https://x.example/%s", "X-Forwarded-For: %s",
		"X-%s: 1", "Authorization: Bearer %[1]s %[1]s", "Baggage: k=%s", "Traceparent: %s",
	} {
		note(askWith(t, served.url, "GET", "/api/x", fmt.Sprintf(header, s.plant(header))+"\r\n"))
	}
	note(served.ask(t, strings.ToUpper(s.plant("method")), "/api/x", ""))
	note(served.ask(t, "GET", "/"+s.plant("path"), ""))
	note(served.ask(t, "GET", "/healthz?"+s.plant("query"), ""))
	note(askAt(t, served.admin, "GET", "/readyz", ""))
	page := askAt(t, served.admin, "GET", "/metrics", s.plant("Prometheus' own token"))
	note(page)
	served.stop()
	if len(s) < 40 {
		t.Errorf("only %d secrets are planted", len(s))
	}
	for name, text := range map[string]string{"the log": served.log.String(), "the output": served.out.String(), "an answer, the metrics or an error": out.String()} {
		if places := s.leaks(text); len(places) > 0 {
			t.Errorf("%s has %q: %s", name, places, text)
		}
	}
	if !strings.Contains(served.log.String(), "a-kid-may-be-seen") || !strings.Contains(page.body, `outcome="refused",reason="expired"} 2`) {
		t.Errorf("the outputs are not those of these requests: %s", served.log)
	}
}

// A secret is found in each form that it may leave in.
func TestLeaksAreFound(t *testing.T) {
	s := make(secrets)
	b := []byte(s.plant("here"))
	for _, text := range []string{
		"x=" + string(b), strings.ToUpper(string(b)), string(b[:20]), base64.StdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b),
		base64.RawURLEncoding.EncodeToString(append([]byte(`{"`), b...)), base64.RawURLEncoding.EncodeToString(append([]byte(`{`), b...)), hex.EncodeToString(b),
	} {
		if s.leaks("a line with "+text) == nil {
			t.Errorf("not found in %s", text)
		}
	}
}
