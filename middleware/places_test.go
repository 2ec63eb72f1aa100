package middleware_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// One or more spaces stand between the scheme and the token (RFC 6750, section 2.1), and
// nothing else does. Whatever names another scheme is no token at all.
func TestSchemeAndSpaces(t *testing.T) {
	v, token := newVerifier(t, "acme"), good("acme")
	for value, want := range map[string]int{
		"Bearer   " + token:                        200,
		"bearer " + token:                          200,
		"BEARER" + strings.Repeat(" ", 50) + token: 200,
		"Bearer  " + badSignature(token):           401,
		"Bearer  null":                             401,
		"Digest " + token:                          401,
		"Digest x":                                 401,
		"Digest  Bearer " + token:                  401,
		"Beaver " + token:                          401,
		"bearer2" + token:                          401,
		"":                                         401,
		" ":                                        401,
		" Bearer " + token:                         401, // net/http trims it on the wire
		"Bearer":                                   400,
		"Bearer ":                                  400,
		"Bearer     ":                              400,
		"Bearer\t" + token:                         400,
		"Bearer \t" + token:                        400,
		"Bearer\t " + token:                        400,
		"Bearer  \t  " + token:                     400,
		"Bearer \u2003" + token:                    400,
		"Bearer  " + token + "\u00e9":              400,
		"Bearer  " + token + " ":                   400,
		"Bearer  " + token + "  " + token:          400,
		"Bearer " + token + "," + token:            400,
		"Bearer " + token + ", Bearer " + token:    400,
		"Bearer\r\n " + token:                      400,
		"Bearer \x00" + token:                      400,
	} {
		for _, h := range []http.Handler{middleware.Require(v)(whoami), middleware.Require(v, middleware.FromCookie("c"))(whoami)} {
			w := serve(h, request("GET", "/", "Authorization", value))
			if w.Code != want || (w.Body.String() == "ann of acme") != (want == 200) {
				t.Errorf("%.30q: got %d %s, want %d", value, w.Code, w.Body, want)
			}
			if anonymous := w.Header().Get("WWW-Authenticate") == `Bearer realm="api"`; want == 401 && anonymous == strings.HasPrefix(value, "Bearer ") {
				t.Errorf("%.30q: WWW-Authenticate %q", value, w.Header().Get("WWW-Authenticate"))
			}
		}
	}
}

func TestFromHeader(t *testing.T) {
	v, token := newVerifier(t, "acme"), good("acme")
	other := good("acme", "sub", "bob")
	jwt := func(value string) []string { return []string{"X-Jwt", value} }
	for _, tt := range []struct {
		name    string
		headers []string
		status  int
		err     error
	}{
		{"it", jwt(token), 200, nil},
		{"beside another scheme", append(jwt(token), "Authorization", "Basic eDp5"), 200, nil},
		{"the same token in Authorization", append(jwt(token), bearer(token)...), 200, nil},
		{"the same token in Authorization, with spaces", append(jwt(token), "Authorization", "Bearer   "+token), 200, nil},
		{"the second name", []string{"Cf-Access-Jwt-Assertion", token}, 200, nil},
		{"the same token under both names", append(jwt(token), "Cf-Access-Jwt-Assertion", token), 200, nil},
		{"empty", jwt(""), 401, middleware.ErrNoToken},
		{"empty, and Authorization", append(jwt(""), bearer(token)...), 200, nil},
		{"bad", jwt(badSignature(token)), 401, verifier.ErrSignature},
		{"bad, and a good one in Authorization", append(jwt(badSignature(token)), bearer(token)...), 400, middleware.ErrRequest},
		{"another good one in Authorization", append(jwt(token), bearer(other)...), 400, middleware.ErrRequest},
		{"another good one under the other name", append(jwt(token), "Cf-Access-Jwt-Assertion", other), 400, middleware.ErrRequest},
		{"a malformed Authorization", append(jwt(token), "Authorization", "Bearer"), 400, middleware.ErrRequest},
		{"twice", append(jwt(token), jwt(token)...), 400, middleware.ErrRequest},
		{"twice, one bad", append(jwt(badSignature(token)), jwt(token)...), 400, middleware.ErrRequest},
		{"twice, one empty", append(jwt(""), jwt(token)...), 400, middleware.ErrRequest},
		{"joined by a comma", jwt(token + ", " + other), 400, middleware.ErrRequest},
		{"joined by a comma alone", jwt(token + "," + token), 400, middleware.ErrRequest},
		{"with a scheme", jwt("Bearer " + token), 400, middleware.ErrRequest},
		{"with a space", jwt(token + " "), 400, middleware.ErrRequest},
		{"with a line end", jwt(token + "\r\nX: y"), 400, middleware.ErrRequest},
		{"in quotes", jwt(`"` + token + `"`), 400, middleware.ErrRequest},
		{"outside ASCII", jwt(token + "\u00e9"), 400, middleware.ErrRequest},
		{"not UTF-8", jwt(token + "\xff"), 400, middleware.ErrRequest},
		{"only padding", jwt("=="), 400, middleware.ErrRequest},
		{"padding", jwt(token + "="), 401, verifier.ErrMalformed},
		{"padding within", jwt(strings.Replace(token, ".", "=.", 1)), 401, verifier.ErrMalformed},
		{"padding within, beside another scheme", append(jwt(strings.Replace(token, ".", "=.", 1)), "Authorization", "Basic eDp5"), 401, verifier.ErrMalformed},
		{"padding within, beside an empty Authorization", append(jwt(strings.Replace(token, ".", "=.", 1)), "Authorization", ""), 401, verifier.ErrMalformed},
		{"in a name that some servers take for it", []string{"X_jwt", token}, 401, middleware.ErrNoToken},
		{"in a longer name", []string{"X-Jwt-2", token, "X-Original-X-Jwt", token}, 401, middleware.ErrNoToken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c capture
			h := middleware.Require(v, middleware.FromHeader("x-jwt"), middleware.FromHeader("Cf-Access-Jwt-Assertion"), middleware.WithErrorHandler(c.handle))(whoami)
			w := serve(h, request("GET", "/", tt.headers...))
			if w.Code != tt.status || !errors.Is(c.err, tt.err) || (w.Body.String() == "ann of acme") != (tt.status == 200) {
				t.Errorf("got %d %s %v, want %d %v", w.Code, w.Body, c.err, tt.status, tt.err)
			}
		})
	}
}

// A client that names the gateway's header in Connection makes some proxies drop it
// (golang/go#50580). Then there is no token, and the client's own does not take its place.
func TestHeaderThatAProxyDrops(t *testing.T) {
	v := newVerifier(t, "acme")
	service := httptest.NewServer(middleware.Require(v, middleware.FromHeader("X-Jwt"), middleware.WithoutAuthorization())(whoami))
	defer service.Close()
	target, err := url.Parse(service.URL)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 proxies that still use Director are what this test is about
	gateway := httptest.NewServer(&httputil.ReverseProxy{Director: func(r *http.Request) {
		r.URL.Scheme, r.URL.Host = target.Scheme, target.Host
		r.Header.Set("X-Jwt", good("acme"))
	}})
	defer gateway.Close()
	for connection, want := range map[string]string{
		"keep-alive": "200 ann of acme",
		"X-Jwt":      `401 {"error":"unauthorized","error_description":"a bearer token is required"}`,
	} {
		r := mustRequest(t, "GET", gateway.URL, nil)
		r.Header.Set("Connection", connection)
		r.Header.Set("Authorization", "Bearer "+good("acme", "sub", "eve"))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := resp.Status[:4] + strings.TrimSpace(string(body)); got != want {
			t.Errorf("Connection: %s: %s, want %s", connection, got, want)
		}
	}
}

func TestFromFunc(t *testing.T) {
	v, token := newVerifier(t, "acme"), good("acme")
	for _, tt := range []struct {
		found   string
		headers []string
		status  int
	}{
		{token, nil, 200},
		{token, bearer(token), 200},
		{"", nil, 401},
		{"", bearer(token), 200},
		{badSignature(token), nil, 401},
		{"rubbish", nil, 401},
		{"rubbish", bearer(token), 400},
		{good("acme", "sub", "bob"), bearer(token), 400},
		{"Bearer " + token, nil, 400},
		{" ", nil, 400},
		{"=", nil, 400},
		{token + "\n", nil, 400},
		{"a\r\nSet-Cookie: b", nil, 400},
		{"\xff\x00", nil, 400},
		{"\u212a", nil, 400},
		{token, []string{"Authorization", "Bearer"}, 400},
	} {
		find := middleware.FromFunc(func(*http.Request) string { return tt.found })
		w := serve(middleware.Require(v, find)(whoami), request("GET", "/", tt.headers...))
		if w.Code != tt.status || (w.Body.String() == "ann of acme") != (tt.status == 200) {
			t.Errorf("%.20q with %d headers: got %d %s, want %d", tt.found, len(tt.headers)/2, w.Code, w.Body, tt.status)
		}
		if c := w.Header().Get("WWW-Authenticate"); tt.status != 200 && !challengeSyntax.MatchString(c) {
			t.Errorf("%.20q: WWW-Authenticate %q", tt.found, c)
		}
		want := tt.status
		if want == 401 && tt.found == "" {
			want = 200 // as nobody
		}
		if w := serve(middleware.Optional(v, find)(whoami), request("GET", "/", tt.headers...)); w.Code != want {
			t.Errorf("%.20q, optional: got %d %s, want %d", tt.found, w.Code, w.Body, want)
		}
	}
}

func TestWithoutAuthorization(t *testing.T) {
	v, token := newVerifier(t, "acme"), good("acme")
	for _, tt := range []struct {
		headers []string
		status  int
	}{
		{bearer(token), 401},
		{append(bearer(good("acme", "sub", "eve")), "X-Jwt", token), 200},
		{[]string{"Authorization", "Bearer", "Authorization", "x", "X-Jwt", token}, 200},
		{append(bearer(token), "X-Jwt", badSignature(token)), 401},
	} {
		h := middleware.Require(v, middleware.FromHeader("X-Jwt"), middleware.WithoutAuthorization())(whoami)
		if w := serve(h, request("GET", "/", tt.headers...)); w.Code != tt.status || tt.status == 200 && w.Body.String() != "ann of acme" {
			t.Errorf("%.60q: got %d %s, want %d", tt.headers, w.Code, w.Body, tt.status)
		}
	}
}

// AWS load balancers pad each part of the token in X-Amzn-Oidc-Data. Where the tenant
// tolerates that, such a token serves in every place, and a bad one is a bad token and not
// a malformed request: clients get a new token at 401 alone.
func TestPaddedTokenInEachPlace(t *testing.T) {
	padded := func(claims map[string]any) string {
		part := func(v any) string {
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return base64.URLEncoding.EncodeToString(text)
		}
		signed := part(map[string]string{"alg": "HS256", "kid": "kid-acme"}) + "." + part(claims)
		mac := hmac.New(sha256.New, secretOf("acme"))
		mac.Write([]byte(signed))
		return signed + "." + base64.URLEncoding.EncodeToString(mac.Sum(nil))
	}
	rules := tenantOf("acme", newStatic(t, "acme"))
	rules.Tolerate = []verifier.Tolerance{verifier.Padding}
	tolerant, err := verifier.New(verifier.Config{Now: func() time.Time { return time.Unix(now, 0) }, Tenants: []verifier.Tenant{rules}})
	if err != nil {
		t.Fatal(err)
	}
	live, expired := padded(claimsOf("acme")), padded(claimsOf("acme", "exp", 1))
	if strings.Count(live, "=.") == 0 || !strings.HasSuffix(live, "=") {
		t.Fatalf("the token has no padding within: %s", live)
	}
	for place, send := range map[string]func(token string) *http.Request{
		"Authorization": func(token string) *http.Request { return request("GET", "/", bearer(token)...) },
		"header":        func(token string) *http.Request { return request("GET", "/", "X-Amzn-Oidc-Data", token) },
		"cookie":        func(token string) *http.Request { return request("GET", "/", "Cookie", "session="+token) },
		"query":         func(token string) *http.Request { return request("GET", "/?access_token="+url.QueryEscape(token)) },
		"query, raw":    func(token string) *http.Request { return request("GET", "/?access_token="+token) },
		"func":          func(token string) *http.Request { return request("GET", "/", "X-Func", token) },
	} {
		opts := []middleware.Option{middleware.FromHeader("X-Amzn-Oidc-Data"), middleware.FromCookie("session"), middleware.FromQuery("access_token"),
			middleware.FromFunc(func(r *http.Request) string { return r.Header.Get("X-Func") })}
		strict := 401
		if place == "Authorization" {
			strict = 400 // it is no b64token, and malformed for a tenant that wants no padding
		}
		for _, tt := range []struct {
			v      *verifier.Verifier
			token  string
			status int
		}{{tolerant, live, 200}, {tolerant, expired, 401}, {tolerant, badSignature(live[:strings.LastIndexByte(live, '.')+44]) + "=", 401}, {newVerifier(t, "acme"), live, strict}} {
			if w := serve(middleware.Require(tt.v, opts...)(whoami), send(tt.token)); w.Code != tt.status {
				t.Errorf("%s: got %d %s, want %d", place, w.Code, w.Body, tt.status)
			}
		}
	}
}
