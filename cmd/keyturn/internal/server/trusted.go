package server

import (
	"cmp"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fold"
	"github.com/keyturn/keyturn/middleware"
)

// The headers in which proxies tell of a client, or of the request as it was. Every client can write
// them, so that none reaches the upstream but those that we set. The last name of a pair ends in a
// hyphen: then all names that begin so are meant.
var proxyHeaders = []string{
	"Forwarded", "X-Forwarded", "X-Forwarded-", "X-Real-IP", "X-Original-", "X-Rewrite-", "X-Envoy-",
	"HTTP2-Settings", // of an upgrade to h2c
	"Proxy",          // CGI programs take it for the variable HTTP_PROXY: https://httpoxy.org
}

// defaultIdentityPrefix is that of [middleware.Identity].
const defaultIdentityPrefix = "X-Auth-"

// unwantedHeaders are names of headers, folded. One that ends in a hyphen stands for all names that
// begin like it.
type unwantedHeaders struct {
	folded []string
	except []string // names that stay in exactly this spelling
}

// newUnwanted returns the headers of a client that must not reach the upstream: those of proxies, of
// the identity, and of the token.
func newUnwanted(id middleware.Identity, tokenHeaders []string, forwardToken bool) unwantedHeaders {
	u := unwantedHeaders{}
	for _, name := range slices.Concat(proxyHeaders, []string{cmp.Or(id.Prefix, defaultIdentityPrefix)}, tokenNames(tokenHeaders)) {
		u.folded = append(u.folded, fold.Name(name))
	}
	if forwardToken {
		for _, name := range tokenNames(tokenHeaders) {
			u.except = append(u.except, http.CanonicalHeaderKey(name))
		}
	}
	return u
}

// newCredentials returns the headers that say who the client is.
func newCredentials(tokenHeaders []string) unwantedHeaders {
	u := unwantedHeaders{}
	for _, name := range append(tokenNames(tokenHeaders), authorization, "Cookie") {
		u.folded = append(u.folded, fold.Name(name))
	}
	return u
}

// tokenNames returns the headers that may hold the token.
func tokenNames(tokenHeaders []string) []string {
	if len(tokenHeaders) == 0 {
		return []string{authorization}
	}
	return slices.Clone(tokenHeaders)
}

// remove takes the headers out of h, in any spelling that some program takes for theirs.
func (u *unwantedHeaders) remove(h http.Header) {
	for name := range h {
		if u.has(name) && !slices.Contains(u.except, name) {
			delete(h, name)
		}
	}
}

func (u *unwantedHeaders) has(name string) bool {
	for _, f := range u.folded {
		if (len(name) == len(f) || f[len(f)-1] == '-') && fold.HasPrefix(name, f) {
			return true
		}
	}
	return false
}

// setForwarded sets X-Forwarded-For, -Host and -Proto. It builds on those of the request only if the
// connection comes from a trusted proxy: what the client claims of itself counts nothing (Traefik
// GHSA-6384-m2mw-rf54, Oathkeeper GHSA-vhr5-ggp3-qq85).
func (p *proxy) setForwarded(pr *httputil.ProxyRequest) {
	remote, err := netip.ParseAddrPort(pr.In.RemoteAddr)
	if err != nil || !p.trusts(remote.Addr()) {
		pr.SetXForwarded()
		return
	}
	if hops := p.trustedHops(pr.In.Header["X-Forwarded-For"]); len(hops) > 0 {
		pr.Out.Header.Set("X-Forwarded-For", strings.Join(hops, ", "))
	}
	pr.SetXForwarded() // appends the proxy
	if proto := strings.ToLower(lastOf(pr.In.Header["X-Forwarded-Proto"])); proto == "http" || proto == "https" {
		pr.Out.Header.Set("X-Forwarded-Proto", proto)
	}
	if host := lastOf(pr.In.Header["X-Forwarded-Host"]); isHost(host) {
		pr.Out.Header.Set("X-Forwarded-Host", host)
	}
}

func (p *proxy) trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(p.up.TrustedProxies, func(n netip.Prefix) bool { return n.Contains(a) })
}

// trustedHops returns the part of X-Forwarded-For that trusted proxies have written. Each appends the
// address that it was called from, so it is read from the right: it begins with the first address that
// is no trusted proxy, which is the client, and all before it is the client's own text.
func (p *proxy) trustedHops(values []string) []string {
	list := strings.Split(strings.Join(values, ","), ",")
	from := len(list)
	for from > 0 {
		a, err := netip.ParseAddr(strings.Trim(list[from-1], " \t"))
		if err != nil {
			break
		}
		from--
		list[from] = a.String()
		if !p.trusts(a) {
			break
		}
	}
	return list[from:]
}

// lastOf returns the last element of a header that holds a list: that of the proxy before us.
func lastOf(values []string) string {
	if len(values) == 0 {
		return ""
	}
	last := values[len(values)-1]
	return strings.Trim(last[strings.LastIndexByte(last, ',')+1:], " \t")
}

// isHost reports whether s may be a host with or without a port.
func isHost(s string) bool {
	return s != "" && len(s) <= 300 && !strings.ContainsFunc(s, func(r rune) bool {
		return r > '~' || fold.Byte(byte(r)) == '-' && !strings.ContainsRune("-._:[]", r)
	})
}
