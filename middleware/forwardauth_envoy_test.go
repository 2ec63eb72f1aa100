package middleware_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// An envoyFilter is what the configuration of ext_authz says of answers.
type envoyFilter struct{ statusOnError int }

// status returns the status that a client of Envoy sees, by that of the answer (ext_authz_http_impl.cc and
// ext_authz.cc): 200 lets the request in, a 5xx is an error, which has the status of status_on_error, or 403
// without that line. Any other status is a refusal, and stays as it is.
func (f envoyFilter) status(answer int) int {
	switch {
	case answer < 500:
		return answer
	case f.statusOnError == 0:
		return http.StatusForbidden
	}
	return f.statusOnError
}

// A client does not repeat a request after a refusal, 403, so an outage must not seem to be one. What we cannot tell is an
// error to Envoy, to which the line status_on_error of our page gives 503. A refusal stays a refusal.
func TestForwardAuth_envoyproxy_6119_StatusOnError(t *testing.T) {
	page, without := envoyFilter{statusOnError: 503}, envoyFilter{}
	unsigned := middleware.Identity{Asserter: assertFails{io.EOF}, AssertTenant: "x"}
	for name, tt := range map[string]struct {
		door           http.Handler
		profile, token string
		page, without  int // what the client sees
	}{
		"the store is down":               {middleware.ForwardAuth(downVerifier(t, keystore.ErrUnavailable), middleware.ForwardAuthConfig{}), "default", good("acme"), 503, 403},
		"the store fails":                 {middleware.ForwardAuth(downVerifier(t, errors.New("hush")), middleware.ForwardAuthConfig{}), "default", good("acme"), 503, 403},
		"an assertion that is not signed": {middleware.ForwardAuth(newVerifier(t, "acme"), middleware.ForwardAuthConfig{Identity: unsigned}), "default", good("acme"), 503, 403},
		"a bad token":                     {newDoor(t), "admin", good("acme") + "x", 401, 401},
		"a bad token, the store is down":  {middleware.ForwardAuth(downVerifier(t, keystore.ErrUnavailable), middleware.ForwardAuthConfig{}), "default", "x.y", 401, 401},
		"another audience":                {newDoor(t), "admin", good("acme"), 403, 403},
		"a good token":                    {newDoor(t), "admin", good("acme", "aud", "admin"), 200, 200},
	} {
		server := httptest.NewServer(tt.door)
		resp := exchange(t, server.Listener.Addr().String(), "GET /ext-authz/"+tt.profile+"/x HTTP/1.1\r\nHost: x\r\ncontent-length: 0\r\nauthorization: Bearer "+tt.token+"\r\n\r\n")
		if got := page.status(resp.StatusCode); got != tt.page {
			t.Errorf("%s: the client sees %d, want %d", name, got, tt.page)
		}
		if got := without.status(resp.StatusCode); got != tt.without {
			t.Errorf("%s, without the line: the client sees %d, want %d", name, got, tt.without)
		}
		if isError := resp.StatusCode >= 500; isError != (resp.Header.Get("Retry-After") != "") {
			t.Errorf("%s: %d with Retry-After %q", name, resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		server.Close()
	}
}

// slowAsserter signs nothing before the context ends.
type slowAsserter struct{}

func (slowAsserter) Sign(ctx context.Context, _ string, _ any) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

// An auth service that does not answer in time seems to refuse: 403, until its status could be chosen. So we
// answer before Envoy gives up, which it does after 200 ms unless its configuration has another time, whatever
// it is that we wait for.
func TestForwardAuth_emissary_1622_AnswersInTime(t *testing.T) {
	const envoysTimeout = 200 * time.Millisecond
	for name, tt := range map[string]struct {
		keys     keystore.KeyStore // nil: that of a good token
		identity middleware.Identity
	}{
		"a key that is not known":         {keys: waitStore{}},
		"an assertion":                    {identity: middleware.Identity{Asserter: slowAsserter{}, AssertTenant: "x"}},
		"a key that is not known, and it": {waitStore{}, middleware.Identity{Asserter: slowAsserter{}, AssertTenant: "x"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			v := newVerifier(t, "acme")
			if tt.keys != nil {
				var err error
				v, err = verifier.New(verifier.Config{Now: func() time.Time { return time.Unix(now, 0) }, Tenants: []verifier.Tenant{tenantOf("acme", tt.keys)}})
				if err != nil {
					t.Fatal(err)
				}
			}
			door := middleware.ForwardAuth(v, middleware.ForwardAuthConfig{Identity: tt.identity})
			began := time.Now()
			w := serve(door, request("GET", "/ext-authz/default/x", bearer(good("acme"))...))
			if took := time.Since(began); took >= envoysTimeout || w.Code != 503 || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: %s after %v, want 503 within %v", name, answerOf(w), took, envoysTimeout)
			}
		})
	}
}
