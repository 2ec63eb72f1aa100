package middleware

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// An Option changes what [Require] and [Optional] do.
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
// [RequireScope] and [RequireAudience] further in. [Status] returns the status for
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
// as missing. Two cookies of the name, or a second token elsewhere in the request,
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
	return func(g *guard) {
		if g.cookie != "" {
			panic("middleware: FromCookie is given twice")
		}
		g.cookie = name
	}
}

// FromQuery also accepts a token in the query parameter of this name, such as
// "access_token" (RFC 6750, section 2.3). Two parameters of the name, or a second
// token elsewhere in the request, are refused (400). The header Cache-Control of the
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
