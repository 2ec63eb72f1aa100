package revocations

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// secret is that of the client orders. It has characters that a form encodes.
const secret = "0123456789abcdef0123456789abcd+/ %"

// A fakeRevocations is what the verifier of a test asks.
type fakeRevocations struct {
	revoked bool
	err     error
}

func (f *fakeRevocations) Revoked(*verifier.Token) (bool, error) { return f.revoked, f.err }

// testEndpoint is a configuration of two tenants and two clients, of which limited may ask about globex.
func testEndpoint(t *testing.T, list *fakeRevocations) EndpointConfig {
	t.Helper()
	v, err := verifier.New(verifier.Config{
		Tenants: []verifier.Tenant{tenantRules(t, "acme", opURL), tenantRules(t, "globex", "https://globex.example")}, Revocations: list, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return EndpointConfig{Verifier: v, Clients: []Client{
		{ID: "orders", Secret: []byte(secret)}, {ID: "limited", Secret: []byte(secret), Tenants: []string{"globex"}},
	}}
}

func accessToken(changes map[string]any) string {
	return sign(seed("acme"), `{"alg":"EdDSA","kid":"k1"}`, with(map[string]any{
		"iss": opURL, "aud": "api", "sub": "ann", "jti": "t1", "iat": now.Unix(), "exp": now.Unix() + 900,
	}, changes))
}

// as authenticates a request.
func as(id, secret string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(id, secret) }
}

func ask(h http.Handler, token string, change func(*http.Request)) *httptest.ResponseRecorder {
	return post(h, url.Values{"token": {token}, "token_type_hint": {"access_token"}}, change)
}

func newTestIntrospection(t *testing.T, list *fakeRevocations) http.Handler {
	t.Helper()
	h, err := IntrospectionHandler(testEndpoint(t, list))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestIntrospectionDescribesAGoodToken(t *testing.T) {
	h := newTestIntrospection(t, new(fakeRevocations))
	token := accessToken(map[string]any{"scope": "a b", "client_id": "web", "exp": float64(now.Unix()) + 900.9, "aud": []string{"api", "other"}})
	w := ask(h, token, as("orders", secret))
	wantAnswer(t, w, http.StatusOK, "")
	const want = `{"active":true,"scope":"a b","client_id":"web","token_type":"Bearer","exp":1900000900,"iat":1900000000,"sub":"ann","aud":["api","other"],"iss":"https://op.example","jti":"t1","tenant":"acme"}` + "\n"
	if got := w.Body.String(); got != want {
		t.Errorf("answer\n%s, want\n%s", got, want)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	one := ask(h, accessToken(map[string]any{"jti": nil, "iat": nil}), as("orders", secret)).Body.String()
	if want := `{"active":true,"token_type":"Bearer","exp":1900000900,"sub":"ann","aud":"api","iss":"https://op.example","tenant":"acme"}` + "\n"; one != want {
		t.Errorf("answer\n%s, want\n%s", one, want)
	}
}

func TestIntrospectionSaysNoMoreOfABadToken(t *testing.T) {
	for name, c := range map[string]struct {
		token  string
		client string
		list   fakeRevocations
	}{
		"expired":                  {accessToken(map[string]any{"exp": now.Unix() - 100}), "orders", fakeRevocations{}},
		"revoked":                  {accessToken(nil), "orders", fakeRevocations{revoked: true}},
		"forged":                   {sign(seed("mallory"), `{"alg":"EdDSA","kid":"k1"}`, map[string]any{"iss": opURL, "aud": "api", "exp": now.Unix() + 900}), "orders", fakeRevocations{}},
		"a logout token":           {sign(seed("acme"), edHeader, goodLogout()), "orders", fakeRevocations{}},
		"no token":                 {"x", "orders", fakeRevocations{}},
		"a tenant of another":      {accessToken(nil), "limited", fakeRevocations{}},
		"an unknown issuer's":      {accessToken(map[string]any{"iss": "https://evil.example"}), "orders", fakeRevocations{}},
		"for another service":      {accessToken(map[string]any{"aud": "other"}), "orders", fakeRevocations{}},
		"a token longer than that": {strings.Repeat("x", 20<<10), "orders", fakeRevocations{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(newTestIntrospection(t, &c.list), c.token, as(c.client, secret))
			wantAnswer(t, w, http.StatusOK, "")
			if got := w.Body.String(); got != inactive+"\n" {
				t.Errorf("answer %q", got)
			}
		})
	}
}

func TestIntrospectionThatCannotTellIsNeverInactive(t *testing.T) {
	cfg := testEndpoint(t, &fakeRevocations{err: errRedis})
	log, text := logs()
	cfg.Logger = log
	h, err := IntrospectionHandler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := ask(h, accessToken(nil), as("orders", secret))
	wantAnswer(t, w, http.StatusServiceUnavailable, "temporarily_unavailable")
	if strings.Contains(w.Body.String(), "active") {
		t.Errorf("answer %q", w.Body)
	}
	if got := text.String(); !strings.Contains(got, "reason=unavailable") || strings.Contains(got, accessToken(nil)[40:]) {
		t.Errorf("the log: %s", got)
	}
}

func TestClientsAuthenticate(t *testing.T) {
	h := newTestIntrospection(t, new(fakeRevocations))
	token := accessToken(nil)
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"as it is":              {as("orders", secret), http.StatusOK},
		"as in a form":          {as("orders", url.QueryEscape(secret)), http.StatusOK},
		"no client":             {nil, http.StatusUnauthorized},
		"an unknown client":     {as("x", secret), http.StatusUnauthorized},
		"an empty client":       {as("", secret), http.StatusUnauthorized},
		"an unknown without":    {as("x", ""), http.StatusUnauthorized},
		"no secret":             {as("orders", ""), http.StatusUnauthorized},
		"another secret":        {as("orders", secret+"x"), http.StatusUnauthorized},
		"a part of the secret":  {as("orders", secret[:32]), http.StatusUnauthorized},
		"the secret of a token": {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, http.StatusUnauthorized},
		"two":                   {func(r *http.Request) { as("orders", secret)(r); r.Header.Add("Authorization", "Basic x") }, http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(h, token, c.change)
			code := ""
			if c.status == http.StatusUnauthorized {
				code = "invalid_client"
			}
			wantAnswer(t, w, c.status, code)
			if got := w.Header().Get("WWW-Authenticate"); strings.HasPrefix(got, "Basic ") != (c.status == http.StatusUnauthorized) {
				t.Errorf("WWW-Authenticate: %q", got)
			}
		})
	}
	w := post(h, url.Values{"token": {token}, "client_secret": {secret}}, as("orders", secret))
	wantAnswer(t, w, http.StatusBadRequest, "invalid_request")
}

func TestEndpointsWantOneTokenInAForm(t *testing.T) {
	h := newTestIntrospection(t, new(fakeRevocations))
	token := accessToken(nil)
	for name, c := range map[string]struct {
		form   url.Values
		change func(*http.Request)
		status int
	}{
		"GET":          {nil, func(r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed},
		"in the query": {nil, func(r *http.Request) { r.URL.RawQuery = "token=" + token }, http.StatusBadRequest},
		"twice":        {url.Values{"token": {token, token}}, nil, http.StatusBadRequest},
		"too large":    {url.Values{"token": {strings.Repeat("x", 70<<10)}}, nil, http.StatusRequestEntityTooLarge},
		"multipart":    {url.Values{"token": {token}}, func(r *http.Request) { r.Header.Set("Content-Type", "multipart/form-data; boundary=x") }, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			w := post(h, c.form, func(r *http.Request) {
				as("orders", secret)(r)
				if c.change != nil {
					c.change(r)
				}
			})
			wantAnswer(t, w, c.status, "invalid_request")
		})
	}
}

func TestRevocationRevokesTheToken(t *testing.T) {
	log, text := logs()
	suspended := testEndpoint(t, new(fakeRevocations))
	if err := suspended.Verifier.Suspend("acme"); err != nil {
		t.Fatal(err)
	}
	away := testEndpoint(t, &fakeRevocations{err: errors.New("stale")})
	early := accessToken(map[string]any{"nbf": now.Unix() + 600})
	for name, c := range map[string]struct {
		cfg    EndpointConfig
		token  string
		client string
		write  error
		status int
		code   string
		want   string
	}{
		"a good one":       {token: accessToken(nil), status: http.StatusOK, want: "token acme t1 1900000900"},
		"expired":          {token: accessToken(map[string]any{"exp": now.Unix() - 100}), status: http.StatusOK},
		"forged":           {token: accessToken(nil)[:100] + "AAAA" + accessToken(nil)[104:], status: http.StatusOK},
		"nothing":          {token: "x", status: http.StatusOK},
		"without jti":      {token: accessToken(map[string]any{"jti": nil}), status: http.StatusBadRequest, code: "unsupported_token_type"},
		"another tenant's": {client: "limited", token: accessToken(nil), status: http.StatusBadRequest, code: "unauthorized_client"},
		"Redis is away":    {token: accessToken(nil), write: errRedis, status: http.StatusServiceUnavailable, code: "temporarily_unavailable"},
		"the list is old":  {cfg: away, token: accessToken(nil), status: http.StatusServiceUnavailable, code: "temporarily_unavailable"},
		"not valid yet":    {token: early, status: http.StatusServiceUnavailable, code: "temporarily_unavailable"},
		"suspended":        {cfg: suspended, token: accessToken(nil), status: http.StatusServiceUnavailable, code: "temporarily_unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.cfg.Verifier == nil {
				c.cfg = testEndpoint(t, new(fakeRevocations))
			}
			if c.client == "" {
				c.client = "orders"
			}
			c.cfg.Logger = log
			list := &fakeList{err: c.write}
			h, err := newRevocationHandler(list, c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			wantAnswer(t, ask(h, c.token, as(c.client, secret)), c.status, c.code)
			if got := list.revoked(); got != c.want {
				t.Errorf("revoked: %q, want %q", got, c.want)
			}
		})
	}
	for _, hidden := range []string{"t1", accessToken(nil)[40:], secret} {
		if strings.Contains(text.String(), hidden) {
			t.Errorf("the log holds %q:\n%s", hidden, text)
		}
	}
}

// A token that is revoked already is revoked again: the write of the request before may have been lost.
func TestARevokedTokenIsRevokedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		client, token, want string
		write               error
		status              int
		code                string
	}{
		"of the client":     {"orders", accessToken(nil), "token acme t1 1900000900", nil, http.StatusOK, ""},
		"exp with a part":   {"orders", accessToken(map[string]any{"exp": float64(now.Unix()) + 900.1}), "token acme t1 1900000901", nil, http.StatusOK, ""},
		"exp far away":      {"orders", accessToken(map[string]any{"exp": now.UnixMilli()}), "token acme t1 1900000000000", nil, http.StatusOK, ""},
		"Redis is away":     {"orders", accessToken(nil), "", errRedis, http.StatusServiceUnavailable, "temporarily_unavailable"},
		"of another client": {"limited", accessToken(nil), "", nil, http.StatusOK, ""},
		"without jti":       {"orders", accessToken(map[string]any{"jti": nil}), "", nil, http.StatusOK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			list := &fakeList{err: c.write}
			h, err := newRevocationHandler(list, testEndpoint(t, &fakeRevocations{revoked: true}))
			if err != nil {
				t.Fatal(err)
			}
			wantAnswer(t, ask(h, c.token, as(c.client, secret)), c.status, c.code)
			if got := list.revoked(); got != c.want {
				t.Errorf("revoked: %q, want %q", got, c.want)
			}
		})
	}
}

// A token that is revoked by its subject, session or tenant alone takes no place in the list.
func TestATokenOfARevokedSubjectTakesNoRoom(t *testing.T) {
	list := &fakeList{none: true, err: ErrFull}
	h, err := newRevocationHandler(list, testEndpoint(t, &fakeRevocations{revoked: true}))
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, ask(h, accessToken(nil), as("orders", secret)), http.StatusOK, "")
}

func TestIDOf(t *testing.T) {
	for payload, want := range map[string]string{`{"jti":"a","exp":5}`: "a", `{"jti":7,"exp":5}`: "7", `{"jti":"a"}`: "", `{"exp":5}`: "", `{`: ""} {
		for _, encoding := range []*base64.Encoding{base64.RawURLEncoding, base64.URLEncoding} {
			if got, exp := idOf("x." + encoding.EncodeToString([]byte(payload)) + ".y"); got != want || want != "" && exp.Unix() != 5 {
				t.Errorf("%s: %q, %v, want %q", payload, got, exp, want)
			}
		}
	}
}

// Of tenants that share an issuer one may be suspended, and one may not be able to tell: the verdict of the token's own
// tenant counts, whatever their order.
func TestVerdictsOfASharedIssuer(t *testing.T) {
	token := accessToken(map[string]any{"iss": "https://shared.example", "org": "b"})
	for _, tenants := range [][]string{{"a", "b"}, {"b", "a"}} {
		for _, c := range []struct {
			list               fakeRevocations
			revoke, introspect int
			want               string
		}{
			{fakeRevocations{}, http.StatusOK, http.StatusOK, "token b t1 1900000900"},
			{fakeRevocations{revoked: true}, http.StatusOK, http.StatusOK, "token b t1 1900000900"},
			{fakeRevocations{err: errRedis}, http.StatusServiceUnavailable, http.StatusServiceUnavailable, ""},
		} {
			cfg := testEndpoint(t, &c.list)
			shareIssuer(t, cfg.Verifier)
			cfg.Verifier.Suspend("a")
			cfg.Clients = []Client{{ID: "both", Secret: []byte(secret), Tenants: tenants}}
			list := new(fakeList)
			revoke, err := newRevocationHandler(list, cfg)
			if err != nil {
				t.Fatal(err)
			}
			introspect, err := IntrospectionHandler(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if w := ask(revoke, token, as("both", secret)); w.Code != c.revoke || list.revoked() != c.want {
				t.Errorf("%v %+v: status %d, revoked %q, want %d, %q", tenants, c.list, w.Code, list.revoked(), c.revoke, c.want)
			}
			if w := ask(introspect, token, as("both", secret)); w.Code != c.introspect {
				t.Errorf("%v %+v: introspection: %d %s, want %d", tenants, c.list, w.Code, w.Body, c.introspect)
			}
		}
	}
}

// A tenant with AnyIssuer may have any token: a client without a list of tenants cannot be told.
func TestTokensOfAnyIssuer(t *testing.T) {
	cfg := testEndpoint(t, new(fakeRevocations))
	for id, issuer := range map[string]string{"any": "", "named": opURL + "/named"} {
		rules := tenantRules(t, id, issuer)
		rules.Keys, rules.AnyIssuer = keysOf(t, id, id), issuer == ""
		if err := cfg.Verifier.Put(rules); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Clients = []Client{{ID: "all", Secret: []byte(secret)}, {ID: "one", Secret: []byte(secret), Tenants: []string{"any"}}}
	h, err := IntrospectionHandler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for issuer, all := range map[string]string{"https://some.example": "temporarily_unavailable", opURL + "/named": inactive} {
		token := sign(seed("any"), `{"alg":"EdDSA","kid":"k1"}`, map[string]any{"iss": issuer, "aud": "api", "exp": now.Unix() + 900})
		for client, want := range map[string]string{"all": all, "one": `"tenant":"any"`} {
			if w := ask(h, token, as(client, secret)); !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s, %s: %d %s, want %s", issuer, client, w.Code, w.Body, want)
			}
		}
	}
}

// shareIssuer adds two tenants of one issuer and one key.
func shareIssuer(t *testing.T, v *verifier.Verifier) {
	t.Helper()
	for _, id := range []string{"a", "b"} {
		rules := tenantRules(t, id, "https://shared.example")
		rules.Keys, rules.TenantClaim = keysOf(t, id, "acme"), "org"
		if err := v.Put(rules); err != nil {
			t.Fatal(err)
		}
	}
}

// Tenants that share an issuer are told apart by the client's list. Without one nothing is known of their tokens: that
// is 503, and never 200 or inactive.
func TestTokensOfASharedIssuer(t *testing.T) {
	cfg := testEndpoint(t, new(fakeRevocations))
	shareIssuer(t, cfg.Verifier)
	cfg.Clients = append(cfg.Clients, Client{ID: "both", Secret: []byte(secret), Tenants: []string{"a", "b"}}, Client{ID: "first", Secret: []byte(secret), Tenants: []string{"a"}})
	list := new(fakeList)
	revoke, err := newRevocationHandler(list, cfg)
	if err != nil {
		t.Fatal(err)
	}
	introspect, err := IntrospectionHandler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	shared := map[string]any{"iss": "https://shared.example", "org": "b"}
	early := with(shared, map[string]any{"nbf": now.Unix() + 600})
	for _, c := range []struct {
		client       string
		claims       map[string]any
		active       string
		status       int
		introspected int
		want         string
	}{
		{"both", shared, `"tenant":"b"`, http.StatusOK, http.StatusOK, "token b t1 1900000900"},
		{"both", with(shared, map[string]any{"org": "c"}), "false", http.StatusOK, http.StatusOK, ""},
		{"both", early, "false", http.StatusServiceUnavailable, http.StatusOK, ""},
		{"first", shared, "false", http.StatusOK, http.StatusOK, ""},
		{"limited", shared, "false", http.StatusOK, http.StatusOK, ""},
		{"orders", shared, "temporarily", http.StatusServiceUnavailable, http.StatusServiceUnavailable, ""},
	} {
		list.calls = nil
		if w := ask(revoke, accessToken(c.claims), as(c.client, secret)); w.Code != c.status || list.revoked() != c.want {
			t.Errorf("%s %v: status %d, revoked %q, want %d, %q", c.client, c.claims, w.Code, list.revoked(), c.status, c.want)
		}
		if w := ask(introspect, accessToken(c.claims), as(c.client, secret)); w.Code != c.introspected || !strings.Contains(w.Body.String(), c.active) {
			t.Errorf("%s %v: introspection: %d %s, want %d and %s", c.client, c.claims, w.Code, w.Body, c.introspected, c.active)
		}
	}
}

// A token that is bound to a key is no bearer token, and the service hears of the key.
func TestIntrospectionOfABoundToken(t *testing.T) {
	h := newTestIntrospection(t, new(fakeRevocations))
	for cnf, want := range map[string]string{
		`{"jkt":"abc"}`:      `"token_type":"DPoP","exp":1900000900,"iat":1900000000,"sub":"ann","aud":"api","iss":"https://op.example","jti":"t1","cnf":{"jkt":"abc"}`,
		`{"x5t#S256":"abc"}`: `{"active":true,"exp":1900000900,"iat":1900000000,"sub":"ann","aud":"api","iss":"https://op.example","jti":"t1","cnf":{"x5t#S256":"abc"}`,
		`"of a newer kind"`:  `{"active":true,"exp":1900000900,"iat":1900000000,"sub":"ann","aud":"api","iss":"https://op.example","jti":"t1","cnf":"of a newer kind"`,
	} {
		w := ask(h, accessToken(map[string]any{"cnf": json.RawMessage(cnf)}), as("orders", secret))
		if got := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(got, want) {
			t.Errorf("%s: %d %s, want %s", cnf, w.Code, got, want)
		}
	}
}

func TestATokenWithoutEndIsNotRevokedAlone(t *testing.T) {
	cfg := testEndpoint(t, new(fakeRevocations))
	endless := tenantRules(t, "acme", opURL)
	endless.AllowNoExpiry = true
	if err := cfg.Verifier.Put(endless); err != nil {
		t.Fatal(err)
	}
	list := new(fakeList)
	h, err := newRevocationHandler(list, cfg)
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, ask(h, accessToken(map[string]any{"exp": nil}), as("orders", secret)), http.StatusBadRequest, "unsupported_token_type")
	if got := list.revoked(); got != "" {
		t.Errorf("revoked: %q", got)
	}
}

func TestEndpointConfigIsChecked(t *testing.T) {
	good := testEndpoint(t, new(fakeRevocations))
	client := func(id string, bytes int) Client { return Client{ID: id, Secret: []byte(strings.Repeat("x", bytes))} }
	for want, cfg := range map[string]EndpointConfig{
		"Verifier is nil":    {Clients: good.Clients},
		"Clients is empty":   {Verifier: good.Verifier},
		"has 31 bytes":       {Verifier: good.Verifier, Clients: []Client{client("a", 31)}},
		"two Clients":        {Verifier: good.Verifier, Clients: []Client{client("a", 32), client("a", 32)}},
		"ID is empty":        {Verifier: good.Verifier, Clients: []Client{client("", 32)}},
		"without a colon":    {Verifier: good.Verifier, Clients: []Client{client("a:b", 32)}},
		"MaxBodyBytes is -1": {Verifier: good.Verifier, Clients: good.Clients, MaxBodyBytes: -1},
		"an empty list":      {Verifier: good.Verifier, Clients: []Client{{ID: "a", Secret: []byte(strings.Repeat("x", 32)), Tenants: []string{}}}},
	} {
		if _, err := IntrospectionHandler(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("IntrospectionHandler: error %v, want one with %q", err, want)
		} else if strings.Contains(err.Error(), "xxxx") {
			t.Errorf("the error holds a secret: %v", err)
		}
		if _, err := newRevocationHandler(new(fakeList), cfg); err == nil {
			t.Errorf("newRevocation: no error, want one with %q", want)
		}
	}
	if _, err := RevocationHandler(nil, good); err == nil {
		t.Error("RevocationHandler took a nil list")
	}
	if _, err := LogoutHandler(nil, LogoutConfig{}); err == nil {
		t.Error("LogoutHandler took a nil list")
	}
}

func FuzzForm(f *testing.F) {
	for _, body := range []string{"token=a", "token=a&token=b", "%zz", "a;b=c", "token=%00", strings.Repeat("a&", 1000)} {
		f.Add(body)
	}
	list := new(fakeList)
	f.Fuzz(func(t *testing.T, body string) {
		h, err := newRevocationHandler(list, testEndpoint(t, new(fakeRevocations)))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("orders", secret)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if b := bytes.TrimSpace(w.Body.Bytes()); len(b) > 0 && !json.Valid(b) {
			t.Errorf("the answer is not JSON: %q", b)
		}
		if list.revoked() != "" {
			t.Errorf("the body %q revoked %s", body, list.revoked())
		}
	})
}
