package jwks

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// maxURL is the longest URL, in bytes.
const maxURL = 2048

// A guard decides where a source may connect to.
type guard struct {
	loopback bool
	http     bool // beyond loopback: to the networks in allowed
	allowed  []netip.Prefix
}

// key names all that g permits.
func (g guard) key() string { return fmt.Sprint(g.loopback, g.http, g.allowed) }

// parseURL reads the URL of a set or an issuer: https, no userinfo, no fragment; or http, if that is
// allowed, or on a loopback host, if loopback is. The error does not quote the URL.
func (g guard) parseURL(raw string) (*url.URL, *Error) {
	u, err := url.Parse(raw)
	switch {
	case len(raw) > maxURL:
		return nil, failf(StepURL, "a URL of %d bytes: at most %d", len(raw), maxURL)
	case err != nil && strings.Contains(raw, "@") || err == nil && u.User != nil:
		return nil, failf(StepURL, "user or password in the URL: they end up in logs")
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return nil, failf(StepURL, "want an absolute https URL, such as https://issuer.example/jwks.json")
	case strings.Contains(raw, "#"):
		return nil, failf(StepURL, "the URL has a fragment, which is never sent")
	case u.Scheme == "https":
	case u.Scheme != "http":
		return nil, failf(StepURL, "scheme %q: want https", u.Scheme)
	case g.http:
	case !g.loopback:
		return nil, failf(StepURL, "scheme http: want https").
			allowedBy(SettingAllowLoopback, "allows http on this machine, for tests")
	case !isLoopback(u.Hostname()):
		return nil, failf(StepURL, "scheme http: allowed on a loopback host only").
			allowedBy(SettingAllowHTTP, "allows it in networks that are allowed by name")
	}
	if refused := g.checkHost(u.Hostname()); refused != nil {
		return nil, refused
	}
	return u, nil
}

// checkHost refuses a host that is an address which the guard refuses, or that a resolver may take
// for one: behind a proxy, this check is the only one. A host that a browser or inet_aton reads as
// a number must be an address in its plain form.
func (g guard) checkHost(host string) *Error {
	if strings.ContainsFunc(host, func(r rune) bool { return r < '!' || r > '~' }) {
		return failf(StepURL, "the host has letters beyond ASCII: want it as it is in DNS, xn--...")
	}
	host = strings.TrimSuffix(host, ".")
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil && addr.Is4In6():
		return failf(StepAddress, "an IPv4 address written as IPv6")
	case err == nil:
		return g.check(addr)
	case strings.Contains(host, ":") || endsInNumber(host):
		return failf(StepAddress, "a host that is a number, but not an address in its plain form")
	case isLocalhost(host) && g.check(netip.AddrFrom4([4]byte{127, 0, 0, 1})) != nil:
		return failf(StepAddress, "localhost is this machine: refused").allowedBy(SettingAllowLoopback, "allows it, for tests")
	}
	return nil
}

// endsInNumber reports whether some programs take a host for an IPv4 address (WHATWG URL, section
// 3.5): 2130706433, 0x7f.1, 127.0.0.01.
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(strings.ToLower(last), "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

// isLocalhost reports whether a name means this machine, whatever a resolver says (RFC 6761,
// section 6.3).
func isLocalhost(host string) bool {
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// isLoopback reports whether host is this machine.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return isLocalhost(host) || err == nil && addr.IsLoopback()
}

// display returns u without the parts that may be secret.
func display(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return shown.String()
}

// hostOf returns the name by which the fetches of a host are counted, however the URL spells it: an
// issuer chooses its jwks_uri.
func hostOf(u *url.URL) string {
	host, port, _ := net.SplitHostPort(hostPort(u))
	return net.JoinHostPort(strings.ToLower(strings.TrimSuffix(host, ".")), port)
}

// refused are the addresses that no public issuer has, from the IANA registries of special-purpose
// addresses and from clouds. Behind them are our own networks, or nothing.
var refused = func() (all []netip.Prefix) {
	for _, p := range []string{
		"0.0.0.0/8",         // this network (RFC 791, section 3.2)
		"10.0.0.0/8",        // private (RFC 1918)
		"100.64.0.0/10",     // shared by a carrier's NAT (RFC 6598)
		"127.0.0.0/8",       // loopback (RFC 1122, section 3.2.1.3)
		"168.63.129.16/32",  // the host of a virtual machine in Azure, which looks like a public address (learn.microsoft.com has a page about it)
		"169.254.0.0/16",    // link-local, a cloud's metadata among them (RFC 3927)
		"172.16.0.0/12",     // private (RFC 1918)
		"192.0.0.0/24",      // protocol assignments (RFC 6890)
		"192.0.2.0/24",      // documentation (RFC 5737)
		"192.31.196.0/24",   // AS112: the nearest server for names of private addresses (RFC 7535)
		"192.52.193.0/24",   // AMT: the nearest relay of multicast (RFC 7450)
		"192.88.99.0/24",    // 6to4 relays (RFC 7526)
		"192.168.0.0/16",    // private (RFC 1918)
		"192.175.48.0/24",   // AS112, by delegation (RFC 7534)
		"198.18.0.0/15",     // benchmarks of networks (RFC 2544)
		"198.51.100.0/24",   // documentation (RFC 5737)
		"203.0.113.0/24",    // documentation (RFC 5737)
		"224.0.0.0/4",       // multicast (RFC 5771)
		"240.0.0.0/4",       // reserved, broadcast among them (RFC 1112)
		"2001::/23",         // protocol assignments (RFC 2928); Teredo, an IPv4 address within, among them (RFC 4380)
		"2001:db8::/32",     // documentation (RFC 3849)
		"2002::/16",         // 6to4: an IPv4 address within (RFC 3056)
		"2620:4f:8000::/48", // AS112, by delegation (RFC 7534)
		"3fff::/20",         // documentation (RFC 9637)
		"64:ff9b::/96",      // NAT64: an IPv4 address within (RFC 6052)
		"64:ff9b:1::/48",    // NAT64, local (RFC 8215)
		"fc00::/7",          // unique local (RFC 4193)
		"fe80::/10",         // link-local (RFC 4291)
		"fec0::/10",         // site-local, deprecated (RFC 3879)
		"ff00::/8",          // multicast (RFC 4291)
		"::/96",             // unspecified, loopback, IPv4-compatible (RFC 4291)
		"::ffff:0:0:0/96",   // IPv4-translated (RFC 2765)
	} {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}()

// global is all of IPv6 that is unicast and assigned (RFC 4291, section 2.4).
var global = netip.MustParsePrefix("2000::/3")

// check refuses an address, unless it is public or allowed by name. An IPv4 address that is written
// as IPv6 is judged as IPv4.
func (g guard) check(addr netip.Addr) *Error {
	addr = addr.Unmap().WithZone("")
	switch {
	case !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast():
		return failf(StepAddress, "address %v: refused", addr)
	case addr.IsLoopback() && g.loopback:
		return nil
	case slices.ContainsFunc(g.allowed, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return nil
	case slices.ContainsFunc(refused, func(p netip.Prefix) bool { return p.Contains(addr) }),
		addr.Is6() && !global.Contains(addr):
		return failf(StepAddress, "address %v is not a public one: refused", addr).allowedBy(SettingAllowCIDR, "allows it by name")
	}
	return nil
}

// checkPlain refuses an address for http, unless it is loopback, or http is allowed and the address is
// in a network that is allowed by name. Public addresses are asked over https only: http is for
// networks in which the operator trusts whatever is on the way.
func (g guard) checkPlain(addr netip.Addr) *Error {
	addr = addr.Unmap().WithZone("")
	switch {
	case addr.IsLoopback():
		return nil
	case !g.http:
		return failf(StepAddress, "address %v: http is for loopback only", addr).
			allowedBy(SettingAllowHTTP, "allows it in networks that are allowed by name")
	case !slices.ContainsFunc(g.allowed, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return failf(StepAddress, "address %v: http is for addresses that are allowed by name", addr).
			allowedBy(SettingAllowCIDR, "does that")
	}
	return nil
}
