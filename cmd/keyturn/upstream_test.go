package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/keyturn/keyturn/internal/redistest"
)

func TestUpstreamUsage(t *testing.T) {
	config := func(more string) []string {
		return []string{"serve", "--config", configFolder(t, "tenants:\n"+acmeTenant+more, map[string]string{"s": testSecret})}
	}
	up := func(fields string) []string {
		return config("admin: {addr: 127.0.0.1:0}\nupstream: {url: http://127.0.0.1:3000, " + fields + "}\n")
	}
	for _, tt := range []struct {
		args   []string
		phrase string
	}{
		{config("upstream: {url: http://127.0.0.1:3000}\n"), "--admin ADDR: probes and metrics need a place"},
		{append(config(""), "--upstream", "http://127.0.0.1:3000"), "--admin ADDR: probes and metrics need a place"},
		{[]string{"serve", "--secret-file", file(t, testSecret), "--upstream", "http://127.0.0.1:3000"}, "--admin ADDR: probes and metrics need a place"},
		{[]string{"serve", "--upstream", "http://127.0.0.1:3000", "--admin", "127.0.0.1:0"}, "the demo has an API of its own"},
		{[]string{"serve", "--upstream", "hush"}, "want a URL that begins with http://, https:// or h2c://"},
		{[]string{"serve", "--upstream", "http://hush:hush@127.0.0.1"}, "without a user or a password"},
		{[]string{"serve", "--upstream", "http://127.0.0.1/hush"}, "without a path"},
		{[]string{"serve", "--upstream", "http://127.0.0.1?hush"}, "without a path"},
		{[]string{"serve", "--upstream", "http://"}, "with a host"},
		{[]string{"serve", "--upstream", "http://a b/hush"}, "want a URL such as"},
		{config("admin: {addr: 127.0.0.1:0}\nupstream: {forward_token: true}\n"), "upstream.url is missing"},
		{config("admin: {addr: 127.0.0.1:0}\nupstream: {url: hush}\n"), "upstream.url: want a URL that begins"},
		{config("trusted_proxies: [10.0.0.0/8]\n"), "trusted_proxies goes with upstream"},
		{append(up(""), "--upstream", "http://127.0.0.1/hush"), "without a path"},
		{up("hush: 1"), `unknown field "hush"`},
		{[]string{"serve", "--first-byte", "5s"}, "go with --upstream"},
		{[]string{"serve", "--forward-token"}, "go with --upstream"},
		{[]string{"serve", "--upstream", "http://127.0.0.1:3000", "--first-byte", "hush"}, "want a duration"},
		{up("preflight: hush"), "upstream.preflight: want refuse or pass"},
		{up("streams: hush"), "upstream.streams: want token or request"},
		{up("streams: request, recheck: 5s"), "upstream.recheck is for streams: token"},
		{up("recheck: 1h"), "upstream.recheck: want at most 1m"},
		{up("idle: 1ms"), "upstream.idle: want at least 1s"},
		{up("first_byte: hush"), "upstream.first_byte: want a duration"},
		{up("max_body: -1"), "upstream.max_body: want a number of bytes"},
		{up("public: [hush]"), "upstream.public: want a method and a path"},
		{up(`public: ["GET /a*"]`), "upstream.public: want a method and a path"},
		{up(`public: ["GET /a?b"]`), "upstream.public: want a method and a path"},
		{up(`public: ["get /a"]`), "upstream.public: want a method and a path"},
		{up(`public: ["GET /a|b"]`), "upstream.public: want a method and a path"},
		{up(`public: ["GET a"]`), "upstream.public: want a method and a path"},
		{append(up(""), "--allow-no-exp"), "only --addr, --admin, --drain, --upstream, --first-byte, --forward-token and --max-token-bytes go with it"},
	} {
		r := keyturn(t, tt.args...)
		r.wantUsage(t, tt.phrase)
		if strings.Contains(r.stderr, "hush") && !strings.Contains(tt.phrase, "hush") {
			t.Errorf("%q: the error repeats the value: %s", tt.args, r.stderr)
		}
	}
	// To trust every client is how clients came to choose their address: oauth2-proxy GHSA-7x63-xv5r-3p2x,
	// oauth2-proxy/oauth2-proxy#3506.
	for network, phrase := range map[string]string{"0.0.0.0/0": "trust every client", "::/0": "trust every client", "::ffff:10.0.0.0/104": "of IPv4 as such", "hush": "want networks"} {
		keyturn(t, config("admin: {addr: 127.0.0.1:0}\nupstream: {url: http://127.0.0.1:3000}\ntrusted_proxies: ['"+network+"']\n")...).wantUsage(t, phrase)
	}
}

// startEcho runs an upstream that answers with the headers that it got.
func startEcho(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"target": r.RequestURI, "host": r.Host, "header": r.Header})
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// The modes with an upstream: a secret, and a file.
func TestServeUpstream(t *testing.T) {
	token := hs256(testSecret, plainHeader, in(time.Hour, `,"sub":"ann","iss":"https://acme.example","aud":"api"`))
	secret := map[string]string{envMastraSecret: testSecret}
	config := configFolder(t, "admin: {addr: 127.0.0.1:0}\nupstream: {url: http://127.0.0.1:1, forward_token: true, preserve_host: false, public: [GET /open]}\n"+
		"trusted_proxies: [127.0.0.1]\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret})
	for name, s := range map[string]*served{
		"default": startServe(t, secret, "--upstream", startEcho(t)),
		"acme":    startServeAlone(t, nil, "--config", config, "--upstream", startEcho(t)),
	} {
		t.Run(name, func(t *testing.T) {
			s.ask(t, "GET", "/", "").wantRefused(t)
			s.ask(t, "GET", "/healthz", "").wantRefused(t)
			a := askWith(t, s.url, "POST", "/api/x?q", "Authorization: Bearer "+token+"\r\nX_Auth_Subject: root\r\nX-Forwarded-For: 1.2.3.4\r\n")
			var got struct {
				Target, Host string
				Header       http.Header
			}
			if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
				t.Fatalf("answer = %d %s", a.status, a.body)
			}
			if got.Target != "/api/x?q" || got.Header.Get("X-Auth-Subject") != "ann" || got.Header.Get("X-Auth-Tenant") != name || strings.Contains(a.body, "root") {
				t.Errorf("the upstream got %s", a.body)
			}
			file := name == "acme"
			if file != (got.Header.Get("Authorization") != "") || file == (got.Host == "localhost") || file != strings.HasPrefix(got.Header.Get("X-Forwarded-For"), "1.2.3.4, ") {
				t.Errorf("the upstream got %s", a.body)
			}
			if open := s.ask(t, "GET", "/open", ""); file != (open.status == 200) {
				t.Errorf("GET /open = %d", open.status)
			}
			for _, path := range []string{"/healthz", "/readyz"} {
				if a := askAt(t, s.admin, "GET", path, ""); a.status != 200 {
					t.Errorf("admin %s = %d", path, a.status)
				}
			}
			if !strings.Contains(s.out.String(), "requests with a good token go to http://127.0.0.1:") || strings.Contains(s.log.String(), token[:30]) {
				t.Errorf("it said %s; log: %s", s.out, s.log)
			}
		})
	}
}

// What a file says of the service, flags say for a server without one. They beat the file.
func TestUpstreamFlags(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			select {
			case <-ended:
			case <-r.Context().Done():
			}
		case "/late":
			time.Sleep(300 * time.Millisecond)
		}
		io.WriteString(w, "token: "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(ended) })
	token := hs256(testSecret, plainHeader, in(time.Hour, `,"sub":"ann","iss":"https://acme.example","aud":"api"`))
	config := configFolder(t, "admin: {addr: 127.0.0.1:0}\nupstream: {first_byte: 1h}\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret})
	for name, s := range map[string]*served{
		"secret": startServe(t, map[string]string{envSecret: testSecret}, "--upstream", slow.URL, "--first-byte", "200ms", "--forward-token"),
		"file":   startServeAlone(t, nil, "--config", config, "--upstream", slow.URL, "--first-byte", "200ms", "--forward-token"),
	} {
		if a := s.ask(t, "GET", "/", token); a.status != 200 || a.body != "token: Bearer "+token {
			t.Errorf("%s: %d %s, want the token", name, a.status, a.body)
		}
		if a := s.ask(t, "GET", "/slow", token); a.status != http.StatusGatewayTimeout {
			t.Errorf("%s: a slow answer: %d", name, a.status)
		}
	}
	patient := startServe(t, map[string]string{envSecret: testSecret}, "--upstream", slow.URL, "--first-byte", "0s")
	if a := patient.ask(t, "GET", "/late", token); a.status != 200 || a.body != "token: " {
		t.Errorf("with no limit: %d %s", a.status, a.body)
	}
}

// "keys revoke" ends a WebSocket and an event stream of the key within 6 s.
func TestRevokeEndsStreams(t *testing.T) {
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	c.run("keys", "create", "--tenant", "acme", "--alg", "ES256").wantCode(t, exitYes)
	s := startServe(t, map[string]string{envKEK: c.kek}, "--redis", c.url, "--tenant", "acme", "--upstream", silentUpstream(t))
	token := strings.TrimSpace(c.run("sign", "--tenant", "acme", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	kid, _ := partOf(t, token, 0)["kid"].(string)
	wantStreamsEnded(t, s, token, "revoked", func() {
		c.run("keys", "revoke", "--tenant", "acme", "--force", "--wait", "20s", kid).wantCode(t, exitYes)
	})
}

// A revocation of the list ends the streams of a subject, a session or a token, wherever they came in.
func TestRevocationsEndStreams(t *testing.T) {
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	path := configFolder(t, "revocations: {redis: '"+c.url+"', kek_file: kek}\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret, "kek": c.kek})
	s := startServe(t, nil, "--config", path, "--upstream", silentUpstream(t))
	wait(t, func() bool { _, all, _ := s.readiness(t); return all == stateReady })
	for _, flags := range [][]string{{"--subject", "ann"}, {"--session", "s1"}, {"--jti", "j1", "--exp", tomorrow()}, {"--all"}} {
		t.Run(flags[0], func(t *testing.T) {
			// Each has names of its own, and was issued a minute ago: --all refuses all of these.
			name := flags[0]
			token := hs256(testSecret, plainHeader, in(time.Hour, fmt.Sprintf(`,"iat":%d,"iss":"https://acme.example","aud":"api","sub":"ann%s","sid":"s1%[2]s","jti":"j1%[2]s"`, time.Now().Add(-time.Minute).Unix(), name)))
			if len(flags) > 1 {
				flags[1] += name
			}
			wantStreamsEnded(t, s, token, "revoked", func() {
				c.run(append([]string{"revoke", "--tenant", "acme", "--wait", "20s"}, flags...)...).wantCode(t, exitYes)
			})
		})
	}
}

// At exp a stream ends, with the time of the default between two questions.
func TestStreamsEndAtExp(t *testing.T) {
	path := configFolder(t, "tenants:\n"+strings.Replace(acmeTenant, "}", ", leeway: 0s}", 1), map[string]string{"s": testSecret})
	s := startServe(t, nil, "--config", path, "--upstream", silentUpstream(t))
	token := hs256(testSecret, plainHeader, in(3*time.Second, `,"iss":"https://acme.example","aud":"api","sub":"ann"`))
	wantStreamsEnded(t, s, token, "expired", func() {})
}

// wantStreamsEnded opens a WebSocket and an event stream, and has them end for this reason within 6 s of
// end.
func wantStreamsEnded(t *testing.T, s *served, token, reason string, end func()) {
	t.Helper()
	header := http.Header{"Authorization": {"Bearer " + token}}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	said := strings.Count(s.log.String(), "reason="+reason)
	socket, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.url, "http")+"/ws", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseNow()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/sse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	events := bufio.NewReader(res.Body)
	if line, err := events.ReadString('\n'); err != nil || line != "data: hello\n" {
		t.Fatalf("event = %q, %v", line, err)
	}
	end()
	began := time.Now()
	if _, err := io.ReadAll(events); err == nil || ctx.Err() != nil {
		t.Errorf("the event stream ended with %v, want it cut off", err)
	}
	if _, _, err := socket.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the WebSocket ended with %v, want it cut off", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the streams ended after %v", took)
	}
	wait(t, func() bool { return strings.Count(s.log.String(), "reason="+reason) == said+2 })
}

// silentUpstream starts a service of [silentStreams].
func silentUpstream(t *testing.T) (url string) {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(silentStreams))
	t.Cleanup(upstream.Close)
	return upstream.URL
}

// silentStreams is a WebSocket, or an event stream, that says hello and then nothing.
func silentStreams(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ws" {
		if c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}); err == nil {
			defer c.CloseNow()
			c.Read(r.Context())
		}
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "data: hello\n\n")
	http.NewResponseController(w).Flush()
	<-r.Context().Done()
}
