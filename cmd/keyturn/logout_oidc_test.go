package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// A logoutProvider is a process with an independent OpenID provider that sends logout tokens. They pass
// through the test, which keeps them, on their way to a server.
type logoutProvider struct {
	t      *testing.T
	issuer string
	key    json.RawMessage // that signs
	lines  *bufio.Scanner
	told   func(any)

	mu    sync.Mutex // guards what follows
	to    string     // the URL of the server
	sent  []string   // logout tokens
	codes []int      // that the server answered
}

func startLogoutProvider(t *testing.T) *logoutProvider {
	t.Helper()
	needNode(t)
	p := &logoutProvider{t: t, key: privateJWK(t, "op")}
	way := httptest.NewServer(http.HandlerFunc(p.pass))
	t.Cleanup(way.Close)
	cmd := exec.CommandContext(t.Context(), "node", "logout.mjs")
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
	p.lines = bufio.NewScanner(stdout)
	p.told = func(line any) { json.NewEncoder(stdin).Encode(line) }
	var at struct{ Issuer string }
	p.tell(map[string]any{"keys": []json.RawMessage{p.key}, "logout": way.URL + "/backchannel-logout"}, &at)
	p.issuer = at.Issuer
	return p
}

// pass notes a logout token, and has the server answer.
func (p *logoutProvider) pass(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	token := r.PostFormValue("logout_token")
	p.sent = append(p.sent, token)
	p.codes = append(p.codes, sendLogout(p.t, p.to, token))
	w.WriteHeader(p.codes[len(p.codes)-1])
}

// last returns the last logout token.
func (p *logoutProvider) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent[len(p.sent)-1]
}

func sendLogout(t *testing.T, server, token string) int {
	res, err := http.PostForm(server+"/backchannel-logout", url.Values{"logout_token": {token}})
	if err != nil {
		t.Error(err)
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// tell sends a line to the provider, and reads the answer.
func (p *logoutProvider) tell(line, answer any) {
	p.t.Helper()
	p.told(line)
	if !p.lines.Scan() {
		p.t.Fatalf("the provider has ended: %v", p.lines.Err())
	}
	if err := json.Unmarshal(p.lines.Bytes(), answer); err != nil {
		p.t.Fatalf("the provider answered %q", p.lines.Text())
	}
}

// login logs a user in, and returns the access token.
func (p *logoutProvider) login(browser, user string) string {
	p.t.Helper()
	var got struct{ Token string }
	if p.tell(map[string]any{"browser": browser, "login": user}, &got); got.Token == "" {
		p.t.Fatalf("no login: %s", p.lines.Text())
	}
	return got.Token
}

// logout logs the user of a browser out. The provider tells the server at once.
func (p *logoutProvider) logout(browser string) {
	p.t.Helper()
	var got struct {
		Sent  bool
		Error string
	}
	if p.tell(map[string]any{"browser": browser, "logout": true}, &got); !got.Sent {
		p.t.Fatalf("the logout token was not taken: %s", got.Error)
	}
}

// forge signs claims with the provider's own key.
func (p *logoutProvider) forge(header string, claims map[string]any) string {
	p.t.Helper()
	var jwk struct{ D string }
	if err := json.Unmarshal(p.key, &jwk); err != nil {
		p.t.Fatal(err)
	}
	d, err := base64.RawURLEncoding.DecodeString(jwk.D)
	if err != nil {
		p.t.Fatal(err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		p.t.Fatal(err)
	}
	return signES256(p.t, key, header, claims)
}

func signES256(t *testing.T, key *ecdsa.PrivateKey, header string, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64([]byte(header)) + "." + b64(body)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + b64(sig)
}

// A logoutFleet is two servers that share a list of revocations.
type logoutFleet struct {
	t       *testing.T
	servers []*served
}

func startLogoutFleet(t *testing.T, p *logoutProvider, logout string) *logoutFleet {
	t.Helper()
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{})
	f := &logoutFleet{t: t}
	config := fmt.Sprintf(`revocations:
  redis: redis://%s
  kek_file: kek
  max_token_ttl: 1h
  clients: [{id: orders, secret_file: orders.secret, may: [introspect, revoke]}]
  logout: {acme: {client_id: shop%s}}
tenants:
  - {id: acme, kind: jwks, issuer_url: %s, algorithms: [ES256], audiences: [orders], allow_loopback: true}
`, redis.Addr(), logout, p.issuer)
	kek := newKEK()
	for range 2 {
		f.servers = append(f.servers, startServe(t, nil, "--config", configFolder(t, config, map[string]string{"kek": kek, "orders.secret": testSecret})))
	}
	p.mu.Lock()
	p.to = f.servers[0].url
	p.mu.Unlock()
	for _, s := range f.servers {
		waitUntil(t, time.Minute, func() bool { return askAt(t, s.url, "GET", "/readyz", "").status == http.StatusOK })
	}
	return f
}

func waitUntil(t *testing.T, most time.Duration, done func() bool) {
	t.Helper()
	for end := time.Now().Add(most); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v", most)
		}
	}
}

// wantGood fails unless both servers accept a token.
func (f *logoutFleet) wantGood(when, token string) {
	f.t.Helper()
	for i, s := range f.servers {
		if a := s.ask(f.t, "GET", "/api/x", token); a.status != http.StatusOK {
			f.t.Errorf("%s: server %d answers %d %s; log: %s", when, i, a.status, a.body, s.log)
		}
	}
}

// wantDead fails unless both servers refuse a token within a second of the logout, which has been answered.
//
// The second is counted in what a server does in one: it answers a request every 10 ms. So a machine that is
// busy with other tests has longer, as much as its servers are slower, and an idle one has a second.
func (f *logoutFleet) wantDead(when, token string) {
	f.t.Helper()
	const pause, most = 10 * time.Millisecond, time.Second
	begin, accepted := time.Now(), make([]int, len(f.servers))
	for left := len(f.servers); left > 0; time.Sleep(pause) {
		left = 0
		for i, s := range f.servers {
			if s.ask(f.t, "GET", "/api/x", token).status == http.StatusUnauthorized {
				continue
			}
			if accepted[i]++; accepted[i] > int(most/pause) {
				f.t.Fatalf("%s: server %d still accepts the token %v after the logout, which it may for %v", when, i, time.Since(begin).Round(time.Millisecond), most)
			}
			left++
		}
	}
	f.t.Logf("%s: refused by all %v after the logout; accepted %v times before", when, time.Since(begin).Round(time.Millisecond), accepted)
}

// A logout at an independent OpenID provider ends the user's tokens at every server, and nothing else
// that looks like a logout token does anything.
func TestBackChannelLogout(t *testing.T) {
	t.Parallel()
	p := startLogoutProvider(t)
	f := startLogoutFleet(t, p, "")
	phone, laptop, bob := p.login("phone", "ann"), p.login("laptop", "ann"), p.login("bob's", "bob")
	for _, token := range []string{phone, laptop, bob} {
		f.wantGood("at first", token)
	}
	p.logout("phone")
	f.wantDead("ann", phone)
	f.wantDead("ann elsewhere", laptop)
	f.wantGood("bob", bob)

	time.Sleep(time.Until(time.Unix(time.Now().Unix()+1, 0))) // a login in the second of the logout is refused too
	again := p.login("phone", "ann")
	f.wantGood("ann, who has logged in again", again)
	for i, s := range f.servers {
		if code := sendLogout(t, s.url, p.last()); i == 0 && code != http.StatusBadRequest {
			t.Errorf("the logout token once more, at server %d: %d", i, code)
		}
	}
	for name, token := range p.badLogouts() {
		for i, s := range f.servers {
			if code := sendLogout(t, s.url, token); code != http.StatusBadRequest {
				t.Errorf("%s at server %d: %d, want 400", name, i, code)
			}
		}
	}
	f.wantGood("ann, after all of these", again)
	f.wantGood("bob, after all of these", bob)
}

// badLogouts are tokens about ann that are no good logout tokens. All but the forged one are signed by
// the provider's key.
func (p *logoutProvider) badLogouts() map[string]string {
	const header = `{"alg":"ES256","kid":"op","typ":"logout+jwt"}`
	now := time.Now().Unix() + 1 // so that it would end the token that is good
	claims := func(change map[string]any) map[string]any {
		all := map[string]any{
			"iss": p.issuer, "aud": "shop", "sub": "ann", "iat": now, "exp": now + 120, "jti": rand.Text(),
			"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
		}
		for name, value := range change {
			if all[name] = value; value == nil {
				delete(all, name)
			}
		}
		return all
	}
	mallory, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	none := strings.Split(p.forge(`{"alg":"none","typ":"logout+jwt"}`, claims(nil)), ".")
	return map[string]string{
		"forged":             signES256(p.t, mallory, header, claims(nil)),
		"unsigned":           none[0] + "." + none[1] + ".",
		"expired":            p.forge(header, claims(map[string]any{"iat": now - 300, "exp": now - 180})),
		"of another issuer":  p.forge(header, claims(map[string]any{"iss": "https://evil.example"})),
		"for another client": p.forge(header, claims(map[string]any{"aud": "mail"})),
		"with a nonce":       p.forge(header, claims(map[string]any{"nonce": "n"})),
		"without the event":  p.forge(header, claims(map[string]any{"events": nil})),
		"an access token":    p.login("phone", "ann"),
	}
}

// Where tokens have sid, a logout of one session leaves the user's other sessions alone. A service on
// node asks about a token with a standard client, and revokes it in the whole fleet.
func TestLogoutOfOneSessionAndIntrospection(t *testing.T) {
	t.Parallel()
	p := startLogoutProvider(t)
	f := startLogoutFleet(t, p, ", tokens_have_sid: true")
	phone, laptop := p.login("phone", "ann"), p.login("laptop", "ann")
	f.wantGood("at first", phone)
	p.logout("phone")
	f.wantDead("the phone", phone)
	f.wantGood("the laptop", laptop)

	cmd := exec.CommandContext(t.Context(), "node", "introspect.mjs", f.servers[1].url, "orders")
	cmd.Dir, cmd.Stdin = oidcFolder, strings.NewReader(testSecret+"\n"+laptop+"\n")
	out, err := cmd.CombinedOutput()
	var said []struct {
		Active        bool
		Sub, Iss, Aud string
		Scope         string
		ClientID      string `json:"client_id"`
		TokenType     string `json:"token_type"`
	}
	if err != nil || json.Unmarshal(out, &said) != nil || len(said) != 2 {
		t.Fatalf("introspect.mjs: %v\n%s", err, out)
	}
	if b := said[0]; !b.Active || b.Sub != "ann" || b.Iss != p.issuer || b.Aud != "orders" || b.Scope != "read" || b.ClientID != "shop" || b.TokenType != "Bearer" {
		t.Errorf("before: %+v", b)
	}
	if said[1].Active {
		t.Errorf("afterwards: %+v", said[1])
	}
	f.wantDead("the laptop", laptop)
}
