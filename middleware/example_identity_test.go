package middleware_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"

	"github.com/keyturn/keyturn/middleware"
)

// A reverse proxy lets only good tokens through, and tells the service behind it whose they are.
// Nothing that the client sends can take the place of that.
func ExampleIdentity() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s of %s, token %q, aliases %q", r.Header["X-Auth-Subject"], r.Header["X-Auth-Tenant"], r.Header["Authorization"], r.Header["X_auth_subject"])
	}))
	defer service.Close()
	target := must(url.Parse(service.URL))
	v, token := exampleVerifier()

	var identity middleware.Identity
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
		r.Out.URL.RawQuery = r.In.URL.RawQuery // ReverseProxy drops parameters that hold a semicolon
		r.Out.Header.Del("Authorization")      // the service needs no token
		identity.Strip(r.Out.Trailer)
	}}
	door := httptest.NewServer(middleware.Require(v)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, _ := middleware.TokenFrom(r.Context())
		r = r.Clone(r.Context())
		if err := identity.Set(r.Context(), r.Header, t); err != nil { // it strips, too
			middleware.Refuse(w, r, err)
			return
		}
		proxy.ServeHTTP(w, r)
	})))
	defer door.Close()

	r := must(http.NewRequest("GET", door.URL+"/orders", nil))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("X_Auth_Subject", "eve")
	r.Header.Set("X-Auth-Subject", "eve")
	r.Header.Set("Connection", "X-Auth-Subject")
	resp := must(http.DefaultClient.Do(r))
	defer resp.Body.Close()
	fmt.Println(string(must(io.ReadAll(resp.Body))))
	// Output: [ann] of [acme], token [], aliases []
}
