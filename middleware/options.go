package middleware

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// An Option changes what [Require], [Optional], [Authenticator] and [Refuse] do.
type Option func(*guard)

// TenantFromHost takes the tenant from the host of the request: hosts maps host names
// to tenants. Whole names are compared, without regard to case, to the port or to a
// final dot. A host that is not in hosts is an unknown tenant (401).
//
// Only the request's own Host counts, never X-Forwarded-Host. Behind a proxy that
// replaces Host, use [TenantFunc].
//
// It panics if hosts is empty or has an empty host or tenant, or if a host has a port
// or comes in two spellings.
func TenantFromHost(hosts map[string]string) Option {
	byHost := make(map[string]string, len(hosts))
	for host, tenant := range hosts {
		name := hostName(host)
		_, twice := byHost[name]
		switch {
		case name == "" || tenant == "":
			panic(fmt.Sprintf("middleware: TenantFromHost: %q: %q: both must be there", host, tenant))
		case (&url.URL{Host: host}).Port() != "" || !isASCII(host):
			panic(fmt.Sprintf("middleware: TenantFromHost: %q: want a host name in ASCII, without a port", host))
		case twice:
			panic(fmt.Sprintf("middleware: TenantFromHost: %q is there in two spellings", host))
		}
		byHost[name] = tenant
	}
	if len(byHost) == 0 {
		panic("middleware: TenantFromHost: no hosts")
	}
	return tenantOption(func(r *http.Request) (string, error) { return byHost[hostName(r.Host)], nil })
}

// TenantFromPath takes the tenant from the path value of this name
// ([http.Request.PathValue]). Wrap the handler, not the mux: before routing there is
// no path value, and an empty tenant is an unknown one (401).
func TenantFromPath(name string) Option {
	if name == "" {
		panic("middleware: TenantFromPath: empty name")
	}
	return tenantOption(func(r *http.Request) (string, error) { return r.PathValue(name), nil })
}

// TenantFunc calls tenant for the tenant of a request. The token must then belong to
// that tenant. So tenant must rely on the service's own knowledge or on routing, and
// never on the token. It must be safe for concurrent use.
//
// An empty tenant is an unknown one, and so is an error that wraps
// [verifier.ErrUnknownTenant] (401). Any other error of the verifier or of this
// package gets its own answer. Every other error means that tenant cannot tell now,
// and becomes [verifier.ErrUnavailable] (503).
func TenantFunc(tenant func(*http.Request) (string, error)) Option {
	if tenant == nil {
		panic("middleware: TenantFunc: nil func")
	}
	return tenantOption(tenant)
}

func tenantOption(tenant func(*http.Request) (string, error)) Option {
	return func(g *guard) {
		if g.tenant != nil {
			panic("middleware: two options say who the tenant is")
		}
		g.tenant = tenant
	}
}

// WithErrorHandler calls handler to answer each refused request, also for
// [RequireScope] and its siblings further in. [Status] returns the status for
// the error.
//
// These headers are set before the call: WWW-Authenticate or Retry-After,
// Cache-Control and X-Content-Type-Options. The handler must write the status, or it
// will be 200, and may write a body. It may log err, which never holds the token,
// but should not send any part of it.
func WithErrorHandler(handler func(w http.ResponseWriter, r *http.Request, err error)) Option {
	if handler == nil {
		panic("middleware: WithErrorHandler: nil func")
	}
	return func(g *guard) {
		if g.handler != nil {
			panic("middleware: WithErrorHandler is given twice")
		}
		g.handler = handler
	}
}

// FromCookie also accepts a token in the cookie of this name. An empty cookie counts
// as missing. Two cookies of the name, or another token elsewhere in the request,
// are refused (400).
//
// Give it a name that begins with __Host-, and set it with Secure and Path=/. Then a browser takes
// it from this host alone, over TLS, and no other subdomain can put a token of its own in its place
// (RFC 6265bis, section 4.1.3.2).
//
// A browser also sends cookies with requests that other sites make. So put
// [http.CrossOriginProtection] around every handler that changes something.
func FromCookie(name string) Option {
	if (&http.Cookie{Name: name}).Valid() != nil {
		panic(fmt.Sprintf("middleware: FromCookie: %q is not a cookie name", name))
	}
	return placeOption("FromCookie", func(r *http.Request) (string, error) { return fromCookies(r.Header["Cookie"], name) })
}

// FromHeader also accepts a token in the header of this name, which holds the token alone,
// without a scheme. Gateways send such headers: Cf-Access-Jwt-Assertion,
// X-Goog-Iap-Jwt-Assertion, X-Amzn-Oidc-Data. An empty header counts as missing. Two
// headers of the name, or another token elsewhere in the request, are refused (400). It may
// be given for several names.
//
// Anyone who reaches the service without its gateway can send the header too. That does no
// harm as long as the tenant's keys and audience are those of the gateway's tokens. If the
// request may carry the client's own token in Authorization, beside that of the gateway,
// add [WithoutAuthorization].
//
// It panics if name is not the name of a header, if it has an option of its own (Cookie,
// Authorization), or if proxies do not pass it on (Connection and the headers that RFC
// 9110, section 7.6.1, names with it).
func FromHeader(name string) Option {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r > '~' || !isTokenChar(byte(r)) }) {
		panic(fmt.Sprintf("middleware: FromHeader: %q is not the name of a header", name))
	}
	name = http.CanonicalHeaderKey(name)
	switch name {
	case "Authorization", "Cookie":
		panic(fmt.Sprintf("middleware: FromHeader: %s: it is read without an option, or with FromCookie", name))
	case "Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		panic(fmt.Sprintf("middleware: FromHeader: %s: proxies and net/http do not pass it on to handlers", name))
	}
	return placeOption("FromHeader of "+name, func(r *http.Request) (string, error) { return fromNamed(r.Header[name]) })
}

// FromFunc also accepts the token that find returns, such as one in
// Sec-WebSocket-Protocol. find returns the token alone, without a scheme, or "" if the
// request has none. It must be safe for concurrent use, and must leave the request and its
// body alone. It is called for every request, since another token elsewhere in the request
// is refused (400). So is a text that cannot be a token.
func FromFunc(find func(*http.Request) string) Option {
	if find == nil {
		panic("middleware: FromFunc: nil func")
	}
	return placeOption("FromFunc", func(r *http.Request) (string, error) { return fromFunc(find(r)) })
}

func placeOption(option string, find func(*http.Request) (string, error)) Option {
	return func(g *guard) {
		if slices.ContainsFunc(g.places, func(p tokenPlace) bool { return p.option == option }) {
			panic("middleware: " + option + " is given twice")
		}
		g.places = append(g.places, tokenPlace{option, find})
	}
}

// WithoutAuthorization ignores the Authorization header. The token comes from the places
// that other options name, and [Require] panics if there are none.
//
// It is for services behind a gateway that authenticates with a header of its own (see
// [FromHeader]), and passes the client's Authorization header on. Both hold a token then,
// and they differ.
func WithoutAuthorization() Option { return func(g *guard) { g.noAuthorization = true } }

// FromQuery also accepts a token in the query parameter of this name, such as
// "access_token" (RFC 6750, section 2.3). Two parameters of the name, or another token
// elsewhere in the request, are refused (400). The header Cache-Control of the
// answer is set to "private, no-store" before the handler runs.
//
// URLs end up in logs, histories and Referer headers. Use FromQuery only for clients
// that cannot set a header, such as an EventSource.
func FromQuery(name string) Option {
	if name == "" {
		panic("middleware: FromQuery: empty name")
	}
	return func(g *guard) {
		if g.query != "" {
			panic("middleware: FromQuery is given twice")
		}
		g.query = name
	}
}

// Realm sets the realm in WWW-Authenticate. The default is "api". It panics if realm
// is empty or not printable ASCII.
func Realm(realm string) Option {
	if realm == "" || strings.ContainsFunc(realm, func(r rune) bool { return r < ' ' || r > '~' }) {
		panic(fmt.Sprintf("middleware: Realm: %q: want printable ASCII", realm))
	}
	return func(g *guard) {
		if g.realm != "" {
			panic("middleware: Realm is given twice")
		}
		g.realm = realm
	}
}

// WithResourceMetadata adds the parameter resource_metadata to WWW-Authenticate: the URL
// where clients find which authorization server issues tokens for this API (RFC 9728,
// section 5.1). MCP clients need it. [ResourceMetadata] serves that document, and
// [Resource.MetadataURL] is its URL.
//
// It panics if url is not an absolute https URL in ASCII. For tests and development it may
// be http on a loopback host.
func WithResourceMetadata(url string) Option {
	if problem := checkWebURL(url); problem != "" {
		panic("middleware: WithResourceMetadata: " + problem)
	}
	return func(g *guard) {
		if g.resource != "" {
			panic("middleware: WithResourceMetadata is given twice")
		}
		g.resource = url
	}
}

// WithDetail names the reason in the answer to a bad token, such as "expired" (see
// [verifier.Reason]). The answer still holds no part of the token. By default all bad
// tokens get the same answer, so that an attacker who tries tokens learns nothing.
func WithDetail() Option { return func(g *guard) { g.detail = true } }

// hostName returns the name in a Host header, in lower case and without port,
// brackets and final dot. It does not validate the name.
func hostName(hostport string) string {
	host := (&url.URL{Host: hostport}).Hostname()
	if strings.HasPrefix(hostport, "[") && !strings.Contains(host, ":") {
		return "" // brackets are for IPv6 addresses
	}
	return strings.TrimSuffix(lowerASCII(host), ".")
}

// lowerASCII maps ASCII letters to lower case. strings.ToLower would also map some
// letters outside ASCII to ASCII ones, such as the Kelvin sign to k.
func lowerASCII(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}
