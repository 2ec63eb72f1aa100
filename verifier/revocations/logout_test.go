package revocations

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

const ttl = 24 * time.Hour

// goodLogout returns the claims of a good logout token.
func goodLogout() map[string]any {
	return map[string]any{
		"iss": opURL, "aud": clientID, "sub": "ann", "jti": "l1", "iat": now.Unix(), "exp": now.Unix() + 120,
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
}

func newTestLogout(t *testing.T, list revoker, change func(*LogoutTenant, *LogoutConfig)) *logoutHandler {
	t.Helper()
	tenant := LogoutTenant{Rules: tenantRules(t, "acme", opURL), ClientID: clientID}
	cfg := LogoutConfig{Now: func() time.Time { return now }}
	if change != nil {
		change(&tenant, &cfg)
	}
	cfg.Tenants = append(cfg.Tenants, tenant)
	h, err := newLogout(list, ttl, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func sendLogout(h http.Handler, token string) *httptest.ResponseRecorder {
	return post(h, url.Values{"logout_token": {token}}, nil)
}

func TestALogoutTokenRevokesItsSubjectAndItsSession(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes map[string]any
		hasSID  bool
		want    string
	}{
		{"sub", nil, false, "subject acme ann 1900000001"},
		{"sub alone, where tokens have sid", nil, true, "subject acme ann 1900000001"},
		{"sid alone", map[string]any{"sub": nil, "sid": "s1"}, false, "session acme s1 1900086401"},
		{"both, where tokens may lack sid", map[string]any{"sid": "s1"}, false, "subject acme ann 1900000001; spare session acme s1 1900086401"},
		{"both, where tokens have sid", map[string]any{"sid": "s1"}, true, "session acme s1 1900086401"},
		{"a fraction in iat", map[string]any{"iat": 1_900_000_000.75}, false, "subject acme ann 1900000001"},
		{"an event with members", map[string]any{"events": map[string]any{logoutEvent: map[string]any{"x": 1}, "other": 1}}, false, "subject acme ann 1900000001"},
		{"several audiences", map[string]any{"aud": []string{"x", clientID}}, false, "subject acme ann 1900000001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := new(fakeList)
			h := newTestLogout(t, list, func(lt *LogoutTenant, _ *LogoutConfig) { lt.TokensHaveSID = c.hasSID })
			wantAnswer(t, sendLogout(h, sign(seed("acme"), edHeader, with(goodLogout(), c.changes))), http.StatusOK, "")
			if got := list.revoked(); got != c.want {
				t.Errorf("revoked: %q, want %q", got, c.want)
			}
		})
	}
}

func TestABadLogoutTokenDoesNothing(t *testing.T) {
	good, key := goodLogout(), seed("acme")
	changed := func(changes map[string]any) string { return sign(key, edHeader, with(good, changes)) }
	none := func(header string) string {
		body, _ := json.Marshal(good)
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(body) + "."
	}
	events := func(v any) map[string]any { return map[string]any{"events": map[string]any{logoutEvent: v}} }
	for name, token := range map[string]string{
		"alg none":                   none(`{"alg":"none","typ":"logout+jwt"}`),
		"alg none with a kid":        none(`{"alg":"none","kid":"k1","typ":"logout+jwt"}`),
		"the public key as a secret": hmacToken(key.Public().(ed25519.PublicKey), good),
		"another key":                sign(seed("mallory"), edHeader, good),
		"a foreign issuer":           changed(map[string]any{"iss": "https://evil.example"}),
		"no issuer":                  changed(map[string]any{"iss": nil}),
		"another client":             changed(map[string]any{"aud": "other"}),
		"no audience":                changed(map[string]any{"aud": nil}),
		"the API's audience":         changed(map[string]any{"aud": "api"}),
		"expired":                    changed(map[string]any{"iat": now.Unix() - 200, "exp": now.Unix() - 80}),
		"without exp":                changed(map[string]any{"exp": nil}),
		"without iat":                changed(map[string]any{"iat": nil}),
		"issued too long ago":        changed(map[string]any{"iat": now.Unix() - 400, "exp": now.Unix() + 1}),
		"issued in the future":       changed(map[string]any{"iat": now.Unix() + 60, "exp": now.Unix() + 120}),
		"living too long":            changed(map[string]any{"exp": now.Unix() + 301}),
		"without jti":                changed(map[string]any{"jti": nil}),
		"an empty jti":               changed(map[string]any{"jti": ""}),
		"a nonce":                    changed(map[string]any{"nonce": "n"}),
		"a nonce that is null":       changed(map[string]any{"nonce": json.RawMessage("null")}),
		"no events":                  changed(map[string]any{"events": nil}),
		"another event":              changed(map[string]any{"events": map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}}),
		"an event in a list":         changed(map[string]any{"events": []string{logoutEvent}}),
		"an event that is null":      changed(events(nil)),
		"an event that is true":      changed(events(true)),
		"neither sub nor sid":        changed(map[string]any{"sub": nil}),
		"empty sub and sid":          changed(map[string]any{"sub": "", "sid": ""}),
		"a sid that is a number":     changed(map[string]any{"sid": 1}),
		"an access token":            sign(key, `{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}`, good),
		"an ID token":                sign(key, `{"alg":"EdDSA","kid":"k1","typ":"JWT"}`, good),
		"no token":                   "x",
	} {
		t.Run(name, func(t *testing.T) {
			list := new(fakeList)
			wantAnswer(t, sendLogout(newTestLogout(t, list, nil), token), http.StatusBadRequest, "invalid_request")
			if got := list.revoked(); got != "" {
				t.Errorf("it has revoked %q", got)
			}
		})
	}
}

func TestALogoutTokenIsUsedOnce(t *testing.T) {
	list := new(fakeList)
	h := newTestLogout(t, list, nil)
	token := sign(seed("acme"), edHeader, goodLogout())
	list.fail(errRedis)
	wantAnswer(t, sendLogout(h, token), http.StatusServiceUnavailable, "temporarily_unavailable")
	list.fail(nil) // and the provider repeats it
	wantAnswer(t, sendLogout(h, token), http.StatusOK, "")
	wantAnswer(t, sendLogout(h, token), http.StatusBadRequest, "invalid_request")
	again := sign(seed("acme"), edHeader, with(goodLogout(), map[string]any{"sub": "bob"})) // with the same jti
	wantAnswer(t, sendLogout(h, again), http.StatusBadRequest, "invalid_request")
	if got, want := list.revoked(), "subject acme ann 1900000001"; got != want {
		t.Errorf("revoked: %q, want %q", got, want)
	}
	another := sign(seed("acme"), edHeader, with(goodLogout(), map[string]any{"jti": "l2", "sub": "bob"}))
	wantAnswer(t, sendLogout(h, another), http.StatusOK, "")
}

func TestALogoutTokenInUseMayComeAgain(t *testing.T) {
	list := &fakeList{hold: make(chan struct{})}
	h := newTestLogout(t, list, nil)
	token := sign(seed("acme"), edHeader, goodLogout())
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- sendLogout(h, token) }()
	key := tokenKey("acme", "l1")
	for h.state(key) == unused {
		time.Sleep(time.Millisecond)
	}
	wantAnswer(t, sendLogout(h, token), http.StatusServiceUnavailable, "temporarily_unavailable")
	close(list.hold)
	wantAnswer(t, <-first, http.StatusOK, "")
}

// state returns what h knows of a logout token.
func (h *logoutHandler) state(key [32]byte) use {
	h.used.mu.Lock()
	defer h.used.mu.Unlock()
	used, ok := h.used.young[key]
	switch {
	case used:
		return wasUsed
	case ok:
		return inUse
	}
	return unused
}

func TestUsedLogoutTokensAreForgottenInTime(t *testing.T) {
	var o once
	key := func(i int) [32]byte { return tokenKey("acme", strings.Repeat("x", i)) }
	if got := o.begin(now, key(1)); got != unused {
		t.Fatalf("the first use: %v", got)
	}
	o.end(key(1), true)
	for _, c := range []struct {
		after time.Duration
		want  use
	}{{keepUsed, wasUsed}, {keepUsed + time.Second, wasUsed}, {3 * keepUsed, unused}} {
		if got := o.begin(now.Add(c.after), key(1)); got != c.want {
			t.Errorf("after %v: %v, want %v", c.after, got, c.want)
		}
	}
	for i := range 3 * mostUsed {
		k := tokenKey("globex", string(rune(i)))
		o.begin(now, k)
		o.end(k, true)
	}
	if n := len(o.young) + len(o.old); n > 2*mostUsed {
		t.Errorf("%d are remembered, want at most %d", n, 2*mostUsed)
	}
}

func TestALogoutThatCannotBeCheckedIsUnavailable(t *testing.T) {
	list := new(fakeList)
	h := newTestLogout(t, list, func(lt *LogoutTenant, _ *LogoutConfig) { lt.Rules.Keys = awayKeys{} })
	wantAnswer(t, sendLogout(h, sign(seed("acme"), edHeader, goodLogout())), http.StatusServiceUnavailable, "temporarily_unavailable")
	if got := list.revoked(); got != "" {
		t.Errorf("revoked: %q", got)
	}
}

// awayKeys cannot tell which keys there are.
type awayKeys struct{}

func (awayKeys) Lookup(keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
	return nil, keystore.ErrUnavailable
}

func TestLogoutTypesMayBeOlder(t *testing.T) {
	list := new(fakeList)
	h := newTestLogout(t, list, func(lt *LogoutTenant, _ *LogoutConfig) { lt.Types = []string{"JWT"} })
	wantAnswer(t, sendLogout(h, sign(seed("acme"), `{"alg":"EdDSA","kid":"k1","typ":"JWT"}`, goodLogout())), http.StatusOK, "")
	wantAnswer(t, sendLogout(h, sign(seed("acme"), edHeader, with(goodLogout(), map[string]any{"jti": "l2"}))), http.StatusBadRequest, "invalid_request")
	withoutType := newTestLogout(t, list, nil)
	wantAnswer(t, sendLogout(withoutType, sign(seed("acme"), `{"alg":"EdDSA","kid":"k1"}`, goodLogout())), http.StatusOK, "")
}

func TestLogoutRequestsAreForms(t *testing.T) {
	token := sign(seed("acme"), edHeader, goodLogout())
	for name, c := range map[string]struct {
		form   url.Values
		change func(*http.Request)
		status int
	}{
		"GET":           {nil, func(r *http.Request) { r.Method = http.MethodGet; r.URL.RawQuery = "logout_token=" + token }, http.StatusMethodNotAllowed},
		"in the query":  {nil, func(r *http.Request) { r.URL.RawQuery = "logout_token=" + token }, http.StatusBadRequest},
		"JSON":          {nil, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, http.StatusBadRequest},
		"without type":  {url.Values{"logout_token": {token}}, func(r *http.Request) { r.Header.Del("Content-Type") }, http.StatusBadRequest},
		"twice":         {url.Values{"logout_token": {token, token}}, nil, http.StatusBadRequest},
		"another twice": {url.Values{"logout_token": {token}, "x": {"1", "2"}}, nil, http.StatusBadRequest},
		"too large":     {url.Values{"logout_token": {strings.Repeat("x", 70<<10)}}, nil, http.StatusRequestEntityTooLarge},
		"empty":         {url.Values{"logout_token": {""}}, nil, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			list := new(fakeList)
			wantAnswer(t, post(newTestLogout(t, list, nil), c.form, c.change), c.status, "invalid_request")
			if got := list.revoked(); got != "" {
				t.Errorf("revoked: %q", got)
			}
		})
	}
}

func TestTheLogOfLogoutsHoldsNoToken(t *testing.T) {
	log, text := logs()
	h := newTestLogout(t, new(fakeList), func(_ *LogoutTenant, c *LogoutConfig) { c.Logger = log })
	bad := sign(seed("acme"), edHeader, with(goodLogout(), map[string]any{"nonce": "secret-nonce"}))
	good := sign(seed("acme"), edHeader, with(goodLogout(), map[string]any{"sid": "secret-sid"}))
	sendLogout(h, bad)
	sendLogout(h, good)
	sendLogout(h, good)
	for _, want := range []string{"nonce, as ID tokens do", "a user is logged out", "reason=replay"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
	for _, secret := range []string{"secret-nonce", "secret-sid", "ann", good[:20], good[len(good)-20:]} {
		if strings.Contains(text.String(), secret) {
			t.Errorf("the log holds %q:\n%s", secret, text)
		}
	}
}

func TestLogoutHandlerRefusesTenantsThatCannotBeToldApart(t *testing.T) {
	tenant := func(id, issuer, client string) LogoutTenant {
		return LogoutTenant{Rules: tenantRules(t, id, issuer), ClientID: client}
	}
	open := LogoutTenant{Rules: tenantRules(t, "acme", ""), ClientID: "c"}
	open.Rules.AnyIssuer = true
	for want, tenants := range map[string][]LogoutTenant{
		"Tenants is empty":   nil,
		"no ClientID":        {tenant("acme", opURL, "")},
		"no Issuer":          {open},
		"share the issuer":   {tenant("acme", opURL, "c"), tenant("globex", opURL, "d")},
		"a Tenant has no ID": {{Rules: verifier.Tenant{Issuer: opURL}, ClientID: "c"}},
	} {
		_, err := newLogout(new(fakeList), ttl, LogoutConfig{Tenants: tenants})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// The user of a logout comes first. If there is no room for the session besides, its tokens have ended all the same.
func TestALogoutWithoutRoomForItsSession(t *testing.T) {
	list := &fakeList{full: true}
	h := newTestLogout(t, list, nil)
	wantAnswer(t, sendLogout(h, sign(seed("acme"), edHeader, with(goodLogout(), map[string]any{"sid": "s1"}))), http.StatusOK, "")
	if got, want := list.revoked(), "subject acme ann 1900000001"; got != want {
		t.Errorf("revoked: %q, want %q", got, want)
	}
}

// A store that does not answer has the handlers answer 503 in time: providers and clients do not wait for ever, and
// know then that they have to come again.
func TestAnAnswerDoesNotWaitForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &fakeList{silent: true}
		revoke, err := newRevocationHandler(list, testEndpoint(t, new(fakeRevocations)))
		if err != nil {
			t.Fatal(err)
		}
		logout := newTestLogout(t, list, nil)
		begin := time.Now()
		wantAnswer(t, ask(revoke, accessToken(nil), as("orders", secret)), http.StatusServiceUnavailable, "temporarily_unavailable")
		wantAnswer(t, sendLogout(logout, sign(seed("acme"), edHeader, goodLogout())), http.StatusServiceUnavailable, "temporarily_unavailable")
		if waited := time.Since(begin); waited > 10*time.Second {
			t.Errorf("both answers took %v", waited)
		}
	})
}

// A logout of a session alone leaves tokens without sid alone: the log says so.
func TestALogoutOfASessionAloneIsNoted(t *testing.T) {
	for _, hasSID := range []bool{false, true} {
		log, text := logs()
		h := newTestLogout(t, new(fakeList), func(lt *LogoutTenant, c *LogoutConfig) { lt.TokensHaveSID, c.Logger = hasSID, log })
		wantAnswer(t, sendLogout(h, sign(seed("acme"), edHeader, with(goodLogout(), map[string]any{"sub": nil, "sid": "s1"}))), http.StatusOK, "")
		if noted := strings.Contains(text.String(), "tokens without sid go on"); noted == hasSID {
			t.Errorf("tokens have sid: %v; the log: %s", hasSID, text)
		}
	}
}

// Where the provider's clock is ahead, the tokens up to now end at once, and the provider is asked to
// repeat the logout.
func TestALogoutFromTheFutureIsRepeated(t *testing.T) {
	list := &fakeList{latest: now.Add(3 * time.Second), storeNow: now.Add(-10 * time.Second)} // this clock is ahead, too
	at := now
	h := newTestLogout(t, list, func(_ *LogoutTenant, c *LogoutConfig) { c.Now = func() time.Time { return at } })
	token := sign(seed("acme"), edHeader, with(goodLogout(), map[string]any{"iat": now.Unix() + 20}))
	wantAnswer(t, sendLogout(h, token), http.StatusServiceUnavailable, "temporarily_unavailable")
	at, list.latest = now.Add(20*time.Second), now.Add(23*time.Second)
	wantAnswer(t, sendLogout(h, token), http.StatusOK, "")
	if got, want := list.revoked(), "subject acme ann 1899999990; subject acme ann 1900000021"; got != want {
		t.Errorf("revoked: %q, want %q", got, want)
	}
}
