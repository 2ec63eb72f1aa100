package middleware_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/middleware"
)

func TestResourceMetadata(t *testing.T) {
	r := middleware.Resource{
		URL: "https://api.example/mcp", AuthorizationServers: []string{"https://login.example/acme", "http://127.0.0.1:4111/globex"},
		Scopes: []string{"orders:read", "orders:write"}, Name: "Orders of “Acme” <b>", Documentation: "https://docs.example/orders?v=1",
	}
	h := middleware.ResourceMetadata(r)
	w := askSet(t, h, "GET")
	const want = `{"resource":"https://api.example/mcp","authorization_servers":["https://login.example/acme","http://127.0.0.1:4111/globex"],` +
		`"scopes_supported":["orders:read","orders:write"],"bearer_methods_supported":["header"],"resource_name":"Orders of “Acme” <b>",` +
		`"resource_documentation":"https://docs.example/orders?v=1"}`
	if w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("%d %s, want %s", w.Code, w.Body, want)
	}
	if got := w.Header(); got.Get("Content-Type") != "application/json" || got.Get("Cache-Control") != "public, max-age=3600" || got.Get("ETag") == "" {
		t.Errorf("header = %v", got)
	}
	if w := askSet(t, h, "GET", "If-None-Match", w.Header().Get("ETag")); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("If-None-Match: %d", w.Code)
	}
	if w := askSet(t, h, "HEAD"); w.Code != http.StatusOK || w.Body.Len() > 0 || w.Header().Get("Content-Length") != fmt.Sprint(len(want)) {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
	r.AuthorizationServers[0] = "https://evil.example"
	if w := askSet(t, h, "GET"); w.Body.String() != want {
		t.Errorf("the document follows the caller's slice: %s", w.Body)
	}
	small := middleware.Resource{URL: "https://api.example", AuthorizationServers: []string{"https://login.example"}}
	const wantSmall = `{"resource":"https://api.example","authorization_servers":["https://login.example"],"bearer_methods_supported":["header"]}`
	if w := askSet(t, middleware.ResourceMetadata(small), "GET"); w.Body.String() != wantSmall {
		t.Errorf("%s, want %s", w.Body, wantSmall)
	}
}

// The well-known part stands between host and path (RFC 9728, section 3.1).
func TestMetadataURL(t *testing.T) {
	const known = "/.well-known/oauth-protected-resource"
	for url, want := range map[string]string{
		"https://api.example":         "https://api.example" + known,
		"https://api.example/":        "https://api.example" + known,
		"https://api.example:8443/":   "https://api.example:8443" + known,
		"https://api.example/mcp":     "https://api.example" + known + "/mcp",
		"https://api.example/a/b/":    "https://api.example" + known + "/a/b/",
		"https://api.example/a%2Fb":   "https://api.example" + known + "/a%2Fb",
		"https://api.example//":       "https://api.example" + known + "//",
		"http://localhost:8080/mcp":   "http://localhost:8080" + known + "/mcp",
		"http://[::1]:8080":           "http://[::1]:8080" + known,
		"https://[2001:db8::1]/x~y.z": "https://[2001:db8::1]" + known + "/x~y.z",
	} {
		got := middleware.Resource{URL: url}.MetadataURL()
		if got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
		middleware.WithResourceMetadata(got) // accepts it
	}
}

func TestResourcePanics(t *testing.T) {
	good := func(change func(*middleware.Resource)) func() {
		r := middleware.Resource{URL: "https://api.example", AuthorizationServers: []string{"https://login.example"}}
		change(&r)
		return func() { middleware.ResourceMetadata(r) }
	}
	good(func(*middleware.Resource) {})()
	builds := map[string]func(){
		"no URL":    func() { middleware.Resource{}.MetadataURL() },
		"no server": good(func(r *middleware.Resource) { r.AuthorizationServers = nil }),
		"server twice": good(func(r *middleware.Resource) {
			r.AuthorizationServers = []string{"https://a.example", "https://a.example"}
		}),
		"name not UTF-8":   good(func(r *middleware.Resource) { r.Name = "\xff" }),
		"name in lines":    good(func(r *middleware.Resource) { r.Name = "a\nb" }),
		"scope with space": good(func(r *middleware.Resource) { r.Scopes = []string{"a", "b c"} }),
		"empty scope":      good(func(r *middleware.Resource) { r.Scopes = []string{""} }),
		"documentation":    good(func(r *middleware.Resource) { r.Documentation = "javascript:alert(1)" }),
	}
	for _, url := range []string{"", "api.example", "/x", "http://api.example", "http://127.0.0.1.evil.example", "https://a:b@api.example", "https://api.example?x", "https://api.example/#",
		"https://api.example/ x", "https://api.example/\"", "https://api.example/\r\n", "https://bücher.example", "https://", "HTTPS://api.example", "https:api.example", "ftp://api.example", "https://api.example/%zz"} {
		builds["URL "+url] = good(func(r *middleware.Resource) { r.URL = url })
		builds["URL of the metadata of "+url] = func() { middleware.Resource{URL: url}.MetadataURL() }
		builds["server "+url] = good(func(r *middleware.Resource) { r.AuthorizationServers = append(r.AuthorizationServers, url) })
	}
	panicsWhenBuilt(t, builds)
}

// A panic ends in a log, so it leaves out a URL that is refused.
func TestResourcePanicsWithoutThePassword(t *testing.T) {
	const url = "https://user:hun/ter2@api.example"
	good := middleware.Resource{URL: "https://api.example", AuthorizationServers: []string{"https://login.example"}}
	server, page, own := good, good, good
	server.AuthorizationServers = append(server.AuthorizationServers[:1:1], url)
	page.Documentation, own.URL = url, url
	for name, build := range map[string]func(){
		"the option": func() { middleware.WithResourceMetadata(url) }, "the URL of the metadata": func() { own.MetadataURL() },
		"the resource": func() { middleware.ResourceMetadata(own) }, "a server": func() { middleware.ResourceMetadata(server) },
		"the page": func() { middleware.ResourceMetadata(page) },
	} {
		func() {
			defer func() {
				if text, ok := recover().(string); !ok || strings.Contains(text, "user:") || strings.Contains(text, "ter2") {
					t.Errorf("%s: the panic is %q", name, text)
				}
			}()
			build()
		}()
	}
}

// Every challenge leads to the metadata. An answer that has none stays without.
func TestChallengesNameTheMetadata(t *testing.T) {
	const url = "https://api.example/.well-known/oauth-protected-resource/mcp"
	syntax := regexp.MustCompile(`^Bearer realm="api"(, error="[a-z_]+", error_description="[^"\\]+"(, scope="x")?)?, resource_metadata="` + regexp.QuoteMeta(url) + `"$`)
	h := middleware.Require(newVerifier(t, "acme"), middleware.WithResourceMetadata(url))(middleware.RequireScope("x")(whoami))
	for _, tt := range []struct {
		headers []string
		status  int
	}{{nil, 401}, {bearer("x"), 401}, {bearer("x y"), 400}, {bearer(good("acme")), 403}} {
		w := serve(h, request("GET", "/", tt.headers...))
		if c := w.Header().Get("WWW-Authenticate"); w.Code != tt.status || !syntax.MatchString(c) || strings.Contains(c, "scope=") != (tt.status == 403) {
			t.Errorf("%.20q: %d %s", tt.headers, w.Code, c)
		}
	}
	if w := serve(h, request("GET", "/", bearer(good("acme", "scope", "x"))...)); w.Code != 200 || w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("good: %s", answerOf(w))
	}
}
