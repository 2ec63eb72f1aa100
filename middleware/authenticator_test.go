package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// answerOf returns all that a client sees of an answer.
func answerOf(w *httptest.ResponseRecorder) string {
	return fmt.Sprintf("%d %q %s", w.Code, w.Header(), w.Body)
}

// Authenticator and Refuse, with the same options, are what Require is.
func TestAuthenticatorAndRefuseAreRequire(t *testing.T) {
	token := good("acme")
	headers := [][]string{nil, bearer(token), bearer(badSignature(token)), bearer(good("acme", "exp", 1)), bearer(good("globex")), bearer("x y"),
		{"Authorization", "Bearer"}, {"Authorization", "Digest x"}, append(bearer(token), bearer(token)...), {"X-Jwt", token},
		append(bearer(token), "X-Jwt", token), append(bearer(token), "X-Jwt", good("acme", "sub", "eve")), {"Cookie", "s=" + token}}
	noTenant := middleware.TenantFunc(func(*http.Request) (string, error) { return "", middleware.ErrNoToken })
	options := [][]middleware.Option{nil, {middleware.Realm("r"), middleware.WithDetail()}, {middleware.FromHeader("X-Jwt"), middleware.FromCookie("s")},
		{middleware.WithErrorHandler(middleware.MastraErrors)}, {middleware.WithResourceMetadata("https://api.example/x"), middleware.Realm("r")},
		{middleware.TenantFromPath("tenant")}, {noTenant}}
	for _, v := range []*verifier.Verifier{newVerifier(t, "acme"), downVerifier(t, keystore.ErrUnavailable)} {
		for i, opts := range options {
			authenticate := middleware.Authenticator(v, opts...)
			byHand := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				token, err := authenticate(r)
				if err != nil {
					if token != nil {
						t.Errorf("a token beside %v", err)
					}
					middleware.Refuse(w, r, err, opts...)
					return
				}
				whoami(w, r.WithContext(verifier.NewContext(r.Context(), token)))
			})
			required := middleware.Require(v, opts...)(whoami)
			for _, header := range headers {
				for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST"} {
					got, want := answerOf(serve(byHand, request(method, "/", header...))), answerOf(serve(required, request(method, "/", header...)))
					if got != want {
						t.Errorf("options %d, %s with %.40q:\n got %s\nwant %s", i, method, header, got, want)
					}
				}
			}
		}
	}
}

func TestRefuse(t *testing.T) {
	secret := errors.New(`hush "\` + "\r\nSet-Cookie: a=b")
	unavailable := `{"error":"temporarily_unavailable","error_description":"the token cannot be checked now"}` + "\n"
	for _, tt := range []struct {
		name   string
		err    error
		status int
		body   string
	}{
		{"nil", nil, 503, unavailable},
		{"any", secret, 503, unavailable},
		{"the context's", context.Canceled, 503, unavailable},
		{"no token", fmt.Errorf("%w: %w", middleware.ErrNoToken, secret), 401, `{"error":"unauthorized","error_description":"a bearer token is required"}` + "\n"},
		{"malformed", fmt.Errorf("%w: %w", middleware.ErrRequest, secret), 400, `{"error":"invalid_request","error_description":"the request is malformed"}` + "\n"},
		{"invalid", fmt.Errorf("%w: %w", verifier.ErrInvalid, secret), 401, `{"error":"invalid_token","error_description":"the token is not accepted"}` + "\n"},
		{"scope", fmt.Errorf("%w: %w", middleware.ErrScope, secret), 403, `{"error":"insufficient_scope","error_description":"the token lacks a scope that is needed here"}` + "\n"},
		{"forbidden", fmt.Errorf("%w: %w", middleware.ErrForbidden, secret), 403, `{"error":"insufficient_scope","error_description":"the token does not allow this request"}` + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			middleware.Refuse(w, request("GET", "/"), tt.err)
			if w.Code != tt.status || w.Body.String() != tt.body || strings.Contains(answerOf(w), "hush") || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("got %s, want %d %s", answerOf(w), tt.status, tt.body)
			}
			if c := w.Header().Get("WWW-Authenticate"); (tt.status == 503) != (c == "") || c != "" && !challengeSyntax.MatchString(c) {
				t.Errorf("WWW-Authenticate %q", c)
			}
		})
	}
}

// In a handler, Refuse answers as the Require around it does, unless it has options.
func TestRefuseWithinRequire(t *testing.T) {
	for name, opts := range map[string][]middleware.Option{`Bearer realm="outer"`: nil, `Bearer realm="inner"`: {middleware.Realm("inner")}} {
		h := middleware.Require(newVerifier(t, "acme"), middleware.Realm("outer"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "3") // of an answer that the handler meant to give
			middleware.Refuse(w, r, middleware.ErrScope, opts...)
		}))
		w := serve(h, request("GET", "/", bearer(good("acme"))...))
		if c := w.Header().Get("WWW-Authenticate"); w.Code != 403 || !strings.HasPrefix(c, name+",") || w.Header().Get("Content-Length") != "" {
			t.Errorf("got %s, want 403 with %s", answerOf(w), name)
		}
	}
}

// Errors name what the configuration wants, for the operator. No answer does, whatever the
// options are.
func TestAnswersHideTheConfiguration(t *testing.T) {
	const hidden = "hidden.example"
	v := newVerifier(t, "acme")
	options := [][]middleware.Option{nil, {middleware.WithDetail()}, {middleware.WithErrorHandler(middleware.MastraErrors)},
		{middleware.WithResourceMetadata("https://api.example/x"), middleware.WithDetail()}}
	for _, sentinel := range []error{verifier.ErrIssuer, verifier.ErrAudience, verifier.ErrType, verifier.ErrAlgorithm, verifier.ErrTenantMismatch, verifier.ErrUnknownKey,
		verifier.ErrClaim, verifier.ErrUnavailable, verifier.ErrInvalid, middleware.ErrForbidden, middleware.ErrScope, middleware.ErrRequest, middleware.ErrNoToken} {
		wrapped := fmt.Errorf("%w: want %q", sentinel, hidden)
		for _, err := range []error{wrapped, &verifier.Error{Reason: verifier.ReasonIssuer, Tenant: hidden, Claim: hidden, Key: keystore.ID{Tenant: hidden, KID: hidden}, Err: wrapped},
			&verifier.Error{Reason: hidden + "\r\n", Err: wrapped}} {
			for i, opts := range options {
				w := httptest.NewRecorder()
				middleware.Refuse(w, request("GET", "/"), err, opts...)
				if strings.Contains(answerOf(w), hidden) || w.Code < 400 {
					t.Errorf("%v, options %d: %s", err, i, answerOf(w))
				}
			}
		}
	}
	demands := map[string]func(http.Handler) http.Handler{
		"audience": middleware.RequireAudience(hidden),
		"claim":    middleware.RequireClaim("role", hidden),
		"func":     middleware.RequireFunc(func(*verifier.Token) error { return errors.New(hidden) }),
	}
	for name, demand := range demands {
		for i, opts := range options {
			w := serve(middleware.Require(v, opts...)(demand(whoami)), request("GET", "/", bearer(good("acme"))...))
			if strings.Contains(answerOf(w), hidden) || w.Code < 400 {
				t.Errorf("%s, options %d: %s", name, i, answerOf(w))
			}
		}
	}
}

// The same with tokens: the verifier's errors name what the tenant wants, and the answers
// to them are those that every bad token gets.
func TestAnswersHideWhatTheTenantWants(t *testing.T) {
	rules := tenantOf("acme", newStatic(t, "acme"))
	rules.Issuer, rules.Audiences, rules.TenantClaim = "https://hidden.example", []string{"hidden.example/aud"}, "tid"
	rules.Match = map[string][]string{"azp": {"hidden.example/azp"}}
	v, err := verifier.New(verifier.Config{Now: func() time.Time { return time.Unix(now, 0) }, Tenants: []verifier.Tenant{rules}})
	if err != nil {
		t.Fatal(err)
	}
	token := func(changes ...any) string {
		return good("acme", append([]any{"iss", rules.Issuer, "aud", rules.Audiences[0], "tid", "acme", "azp", "hidden.example/azp"}, changes...)...)
	}
	tenant := middleware.TenantFunc(func(*http.Request) (string, error) { return "acme", nil })
	if w := serve(middleware.Require(v, tenant)(whoami), request("GET", "/", bearer(token())...)); w.Code != 200 {
		t.Fatalf("the good token: %s", answerOf(w))
	}
	for claim, value := range map[string]string{"iss": "https://hidden.example/", "aud": "x", "tid": "x", "azp": "x"} {
		r := request("GET", "/", bearer(token(claim, value))...)
		var c capture
		serve(middleware.Require(v, tenant, middleware.WithErrorHandler(c.handle))(whoami), r)
		if text := fmt.Sprintf("%+v", c.err); !strings.Contains(text, "hidden.example") && !strings.Contains(text, `want "acme"`) {
			t.Errorf("%s: the operator does not learn what was wanted: %+v", claim, c.err)
		}
		want := answerOf(serve(middleware.Require(v, tenant)(whoami), request("GET", "/", bearer("x.y.z")...)))
		if got := answerOf(serve(middleware.Require(v, tenant)(whoami), r)); got != want {
			t.Errorf("%s: %s, want %s", claim, got, want)
		}
		for _, opt := range []middleware.Option{middleware.WithDetail(), middleware.WithErrorHandler(middleware.MastraErrors)} {
			if got := answerOf(serve(middleware.Require(v, tenant, opt)(whoami), r)); strings.Contains(got, "hidden") || !strings.HasPrefix(got, "401 ") {
				t.Errorf("%s: %s", claim, got)
			}
		}
	}
}

// HEAD gets the answer of GET without its body, and OPTIONS needs a token as all else.
func TestMethodsThroughRequire(t *testing.T) {
	server := httptest.NewServer(middleware.Require(newVerifier(t, "acme"), middleware.FromHeader("X-Jwt"))(whoami))
	defer server.Close()
	for _, token := range []string{"", badSignature(good("acme")), good("acme")} {
		var first string
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			r := mustRequest(t, method, server.URL, nil)
			r.Header.Set("Origin", "https://x.example")
			r.Header.Set("Access-Control-Request-Method", "GET")
			if token != "" {
				r.Header.Set("X-Jwt", token)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			resp.Header.Del("Date")
			if (len(body) > 0) != (method != "HEAD") {
				t.Errorf("%s: body %q", method, body)
			}
			got := fmt.Sprintf("%d %q", resp.StatusCode, resp.Header)
			if first == "" {
				first = got
			}
			if got != first || (resp.StatusCode == 200) != (token == good("acme")) {
				t.Errorf("%s: %s, want %s", method, got, first)
			}
		}
	}
}
