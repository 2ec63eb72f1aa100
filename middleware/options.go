package middleware

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// An Option changes what [Require] and [Optional] do.
type Option func(*guard)

// TenantFromHost makes the host that was asked say whose token it must be: hosts
// maps host names to tenants. Names are compared whole, without regard to case,
// to the port or to a final dot; a host that is not listed is an unknown tenant
// (401). Only the request's own Host counts, never X-Forwarded-Host: behind a
// proxy that replaces it, use [TenantFunc].
//
// It panics if hosts is empty, if a host or tenant in it is, or if a host has a
// port or comes in two spellings.
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

// TenantFromPath makes the path value of that name ([http.Request.PathValue])
// say whose token it must be. Wrap the handler, not the mux: before routing there
// is no path value, and an empty one is an unknown tenant (401).
func TenantFromPath(name string) Option {
	if name == "" {
		panic("middleware: TenantFromPath: empty name")
	}
	return tenantOption(func(r *http.Request) (string, error) { return r.PathValue(name), nil })
}

// TenantFunc makes tenant say whose token it must be. It must be safe for
// concurrent use, and take its answer from what the service itself knows or what
// routing decided: the token is only held against it.
//
// An empty tenant is an unknown one, as is an error that wraps
// [verifier.ErrUnknownTenant] (401). Any other error of the verifier or of this
// package gets its own answer, and everything else means that tenant could not
// find out: [verifier.ErrUnavailable] (503).
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

// WithErrorHandler makes handler write the answer to requests that are refused,
// those of [RequireScope] and [RequireAudience] further in included. [Status]
// says which status goes with the error.
//
// The headers are set before handler is called: WWW-Authenticate or Retry-After,
// Cache-Control and X-Content-Type-Options. The handler writes the status, which
// would otherwise be 200, and a body; it may log err, which never holds the
// token, but should send nothing of it.
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

// FromCookie also takes the token from the cookie of that name. An empty cookie
// is none; two of the name, or a token in another place too, are refused (400).
//
// A browser sends cookies along with requests that other sites make: put
// [http.CrossOriginProtection] around what changes anything.
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

// FromQuery also takes the token from the query parameter of that name, such as
// "access_token" (RFC 6750, section 2.3). Two of the name, or a token in another
// place too, are refused (400). The handler's answer begins with Cache-Control:
// private, no-store.
//
// URLs end up in logs, histories and Referer headers: use it only where a client
// cannot set a header, such as for an EventSource.
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

// Realm sets the realm that challenges name. The default is "api". It panics if
// realm is empty or not printable ASCII.
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

// WithDetail makes the answer to a token that is not good say which rule it
// broke, such as "expired" (see [verifier.Reason]). It still holds nothing of
// the token. The default is to tell all of them the same, so that whoever tries
// tokens learns nothing.
func WithDetail() Option { return func(g *guard) { g.detail = true } }

// hostName returns the name in a Host header: in lower case, without port,
// brackets and final dot. One that is malformed stays what it is.
func hostName(hostport string) string {
	host := (&url.URL{Host: hostport}).Hostname()
	if strings.HasPrefix(hostport, "[") && !strings.Contains(host, ":") {
		return "" // brackets are for IPv6 addresses
	}
	return strings.TrimSuffix(lowerASCII(host), ".")
}

// lowerASCII is strings.ToLower but for letters outside ASCII, some of which
// that maps into it.
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
