package server

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// clientSecret is that of the clients of these tests.
const clientSecret = "fedcba9876543210FEDCBA9876543210"

// withRevocations gives cfg a list in a Redis of its own, with a client that may do all.
func withRevocations(t *testing.T, cfg *Config) {
	t.Helper()
	cfg.Revocations = &Revocations{
		URL: "redis://" + redisAddr(t), TrustFirstRead: true, Deadline: 15 * time.Second,
		Clients: []RevocationClient{{
			Client: revocations.Client{ID: "orders", Secret: []byte(clientSecret)}, Introspect: true, Revoke: true,
		}},
		Logout: map[string]Logout{"acme": {ClientID: "shop"}},
	}
	for i := range cfg.Tenants { // whose logout tokens have an issuer
		id := cfg.Tenants[i].Rules.ID
		cfg.Tenants[i].Rules.AnyIssuer, cfg.Tenants[i].Rules.Issuer = false, "https://"+id+".example"
	}
}

// revocationServer is a server with a list that is ready.
func revocationServer(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	s := newAuthzServer(t, func(c *Config) {
		withRevocations(t, c)
		if change != nil {
			change(c)
		}
	})
	if s.revoked != nil {
		awaitList(t, s)
	}
	return s
}

// redisAddr runs a Redis for the test, and returns its address: the real one if it is installed. miniredis takes ten
// times as long for the first read of a list with the race detector.
func redisAddr(t *testing.T) string {
	t.Helper()
	if redistest.Missing() != nil {
		return miniredis.RunT(t).Addr()
	}
	return redistest.Run(t, redistest.Options{}).Addr()
}

func awaitList(t *testing.T, s *Server) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; {
		if status := s.revoked.list.Status(); status.Ready {
			return
		} else if time.Now().After(end) {
			t.Fatalf("the list is not ready: %+v", status)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// postForm sends a form to the handler, as a client.
func postForm(h http.Handler, path, name, value string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(url.Values{name: {value}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("orders", clientSecret)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRevocationsHavePathsOfTheirOwn(t *testing.T) {
	meter := new(listMeter)
	h := revocationServer(t, func(c *Config) { c.Meter = meter }).routes()
	token := tokenOf(`"iss":"https://acme.example","sub":"ann","jti":"t1"`)
	if w := postForm(h, "/introspect", "token", token); w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"active":true,`) || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("introspect: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := ask(t, h, "GET /api/x", token); w.Code != 200 {
		t.Errorf("before the revocation: %d", w.Code)
	}
	if w := postForm(h, "/revoke", "token", token); w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("revoke: %d %s", w.Code, w.Body)
	}
	if w := postForm(h, "/introspect", "token", token); w.Code != 200 || w.Body.String() != `{"active":false}`+"\n" {
		t.Errorf("introspect afterwards: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/api/x", "/authz"} {
		if w := ask(t, h, "GET "+path, token); w.Code != 401 {
			t.Errorf("%s after the revocation: %d", path, w.Code)
		}
	}
	if w := postForm(h, "/backchannel-logout", "logout_token", token); w.Code != 400 {
		t.Errorf("a token that is no logout token: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/introspect/", "/Introspect", "/%69ntrospect", "/revoke/x", "/backchannel-logout/", "//revoke"} {
		if w := postForm(h, path, "token", token); w.Code != 404 {
			t.Errorf("%s: %d, want 404", path, w.Code)
		}
	}
	if told := strings.Join(meter.told(), ";"); !strings.Contains(told, "revocations 200") || !strings.Contains(told, "revocations 400") {
		t.Errorf("counted %s", told)
	}
}

func TestRevocationsAreOffUnlessConfigured(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no list":    func(c *Config) { c.Revocations = nil },
		"no clients": func(c *Config) { c.Revocations.Clients, c.Revocations.Logout = nil, nil },
	} {
		h := revocationServer(t, change).routes()
		for _, path := range []string{"/introspect", "/revoke", "/backchannel-logout"} {
			if w := postForm(h, path, "token", "x"); w.Code != 404 {
				t.Errorf("%s: %s: %d, want 404", name, path, w.Code)
			}
		}
	}
	h := revocationServer(t, func(c *Config) { c.Revocations.Clients[0].Revoke = false }).routes()
	if w := postForm(h, "/revoke", "token", "x"); w.Code != 404 {
		t.Errorf("/revoke for clients that may not: %d, want 404", w.Code)
	}
	if w := postForm(h, "/introspect", "token", "x"); w.Code != 200 {
		t.Errorf("/introspect: %d, want 200", w.Code)
	}
}

func TestRevocationsComeBeforeTheUpstream(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "upstream "+r.URL.Path) }))
	defer upstream.Close()
	at, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	h := revocationServer(t, func(c *Config) {
		c.Admin, c.Upstream = "127.0.0.1:0", &Upstream{URL: at}
		c.Revocations.Clients[0].Revoke = false
	}).routes()
	token := tokenOf(`"iss":"https://acme.example","sub":"ann"`)
	if w := postForm(h, "/introspect", "token", token); w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"active":true,`) {
		t.Errorf("/introspect: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/revoke", "/introspect/x", "/%69ntrospect"} {
		if w := ask(t, h, "GET "+path, token); w.Code != 200 || !strings.HasPrefix(w.Body.String(), "upstream ") {
			t.Errorf("%s is the upstream's: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestReloadChangesWhoMayUseRevocations(t *testing.T) {
	s := revocationServer(t, nil)
	next := s.cfg
	again := *s.cfg.Revocations
	again.Clients = []RevocationClient{{Client: revocations.Client{ID: "orders", Secret: []byte(strings.ToLower(clientSecret) + "x")}, Introspect: true}}
	again.Logout, again.URL = nil, ""
	next.Revocations = &again
	if _, err := s.reload(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	h := s.routes()
	if w := postForm(h, "/introspect", "token", "x"); w.Code != 401 {
		t.Errorf("the old secret: %d, want 401", w.Code)
	}
	for _, path := range []string{"/revoke", "/backchannel-logout"} {
		if w := postForm(h, path, "token", "x"); w.Code != 404 {
			t.Errorf("%s: %d, want 404", path, w.Code)
		}
	}
	bad := again
	bad.Clients = []RevocationClient{{Client: revocations.Client{ID: "orders", Secret: []byte("short")}, Introspect: true}}
	next.Revocations = &bad
	if _, err := s.reload(t.Context(), next); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("a short secret was taken: %v", err)
	}
	next.Revocations = nil
	if _, err := s.reload(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if w := postForm(s.routes(), "/introspect", "token", "x"); w.Code != 401 {
		t.Errorf("without the section, which needs a restart: %d, want 401", w.Code)
	}
}

func TestCheckRefusesRevocationsThatCannotBeUsed(t *testing.T) {
	for want, change := range map[string]func(*Revocations){
		"short":           func(r *Revocations) { r.Clients[0].Secret = []byte("short") },
		"has no ClientID": func(r *Revocations) { r.Logout["acme"] = Logout{} },
		"http":            func(r *Revocations) { r.URL = "http://redis.example" },
	} {
		cfg := Config{Addr: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}}
		withRevocations(t, &cfg)
		if err := Check(cfg); err != nil {
			t.Fatalf("as it is: %v", err)
		}
		change(cfg.Revocations)
		if err := Check(cfg); err == nil || errors.As(err, new(*Error)) == false {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestReadinessOfTheList(t *testing.T) {
	at := time.Unix(1_900_000_000, 0)
	for name, c := range map[string]struct {
		status revocations.Status
		state  string
		reason string
	}{
		"ready":         {revocations.Status{Ready: true, Synced: at}, stateReady, ""},
		"never read":    {revocations.Status{Err: keystore.ErrUnavailable}, stateNotReady, "the revocations were not read yet"},
		"stale":         {revocations.Status{Err: keystore.ErrUnavailable, Synced: at}, stateNotReady, reasonAway},
		"stale, waived": {revocations.Status{Ready: true, Err: keystore.ErrUnavailable, Synced: at}, stateDegraded, reasonAway},
		"in doubt":      {revocations.Status{Err: keystore.ErrUnavailable, InDoubt: true, Synced: at}, stateNotReady, reasonInDoubt},
		"no KEK":        {revocations.Status{Err: revocations.ErrNotReady, InDoubt: true, Alarms: revocations.Alarms{Forged: 1}}, stateNotReady, "what Redis holds of the revocations cannot be opened"},
		"another KEK":   {revocations.Status{Err: rotation.ErrWrongKEK, Synced: at}, stateNotReady, "what Redis holds of the revocations cannot be opened"},
	} {
		if got := readyOfList(c.status); got.Status != c.state || got.Reason != c.reason {
			t.Errorf("%s: %+v, want %s, %q", name, got, c.state, c.reason)
		}
	}
}

func TestReadyzSaysHowTheListStands(t *testing.T) {
	s := revocationServer(t, func(c *Config) { c.Admin = "127.0.0.1:0" })
	if w := ask(t, s.routes(), "GET /readyz", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"revocations":{"status":"ready"}`) {
		t.Errorf("ready: %d %s", w.Code, w.Body)
	}
	if err := s.revoked.list.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	late := s.live.Load()
	late.readiness = map[purpose]*recent[readiness]{forVerify: {}, forSign: {}}
	if w := ask(t, late.public, "GET /readyz", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `"revocations":{"status":"not ready"}`) {
		t.Errorf("closed: %d %s", w.Code, w.Body)
	}
	if w := ask(t, late.private, "GET /readyz", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `"reason":`) {
		t.Errorf("closed, for the operator: %d %s", w.Code, w.Body)
	}
	if w := ask(t, late.public, "GET /readyz?for=sign", ""); strings.Contains(w.Body.String(), "revocations") {
		t.Errorf("to sign, no list is asked: %s", w.Body)
	}
}

// Anyone can begin a logout token, and not end it. In front of an upstream the server has no time limit of
// its own, since a stream may go on for hours.
func TestLogoutTokenThatNeverEnds(t *testing.T) {
	t.Parallel()
	p := startProxy(t, startEcho(t), func(c *Config) { withRevocations(t, c) })
	c, err := net.Dial("tcp", p.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(c, "POST /backchannel-logout HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nlogout_token=")
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("it is never answered: %v", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("answered %d", answer.StatusCode)
	}
}
