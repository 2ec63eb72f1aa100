package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
)

// An upstreamConfig is the part of the file of --config that names the service behind the server.
type upstreamConfig struct {
	URL          string   `yaml:"url"`
	ForwardToken bool     `yaml:"forward_token"`
	PreserveHost *bool    `yaml:"preserve_host"` // nil: true
	Public       []string `yaml:"public"`
	Preflight    string   `yaml:"preflight"`
	Publish      bool     `yaml:"publish"`
	Streams      string   `yaml:"streams"`
	Recheck      string   `yaml:"recheck"`
	Dial         string   `yaml:"dial"`
	FirstByte    string   `yaml:"first_byte"`
	Idle         string   `yaml:"idle"`
	MaxBody      int64    `yaml:"max_body"`

	parsed server.Upstream
}

// The values of upstream.preflight and upstream.streams. The first of each is the default.
const (
	preflightRefuse = "refuse"
	preflightPass   = "pass"
	streamsToken    = "token"
	streamsRequest  = "request"
)

// maxFirstByte is the longest time that a service may take to begin its answer.
const maxFirstByte = 24 * time.Hour

// newUpstream returns the flag --upstream.
func newUpstream() *option[*url.URL] {
	return &option[*url.URL]{kind: "URL", parse: parseUpstream}
}

// newFirstByte returns the flag --first-byte, as upstream.first_byte.
func newFirstByte() *option[time.Duration] { return newDuration(0, maxFirstByte, 0, "") }

// parseUpstream reads the URL of a service behind the server. Its errors leave out the URL, which may
// hold a password.
func parseUpstream(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("want a URL such as http://127.0.0.1:3000")
	}
	return u, server.CheckUpstreamURL(u)
}

// checkUpstream refuses an upstream or trusted proxies that cannot be meant.
func (c *configFile) checkUpstream() error {
	if c.Upstream == nil {
		if len(c.TrustedProxies) > 0 {
			return usagef("the file of --config: trusted_proxies goes with upstream: only a service behind the server is told of a client's address")
		}
		return nil
	}
	if err := c.Upstream.parse(); err != nil {
		return usagef("the file of --config: upstream.%v", err)
	}
	for _, text := range c.TrustedProxies {
		p, err := parseTrusted(text)
		if err != nil {
			return usagef("the file of --config: trusted_proxies: %v", err)
		}
		c.Upstream.parsed.TrustedProxies = append(c.Upstream.parsed.TrustedProxies, p)
	}
	return nil
}

// parseTrusted reads a network or an address of proxies.
func parseTrusted(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, errors.New("want networks or addresses of your own proxies, such as 10.0.0.0/8 or fd00::/8")
	case p.Bits() == 0:
		// It is the default of others, and how clients came to choose their address: oauth2-proxy
		// GHSA-7x63-xv5r-3p2x.
		return p, errors.New("0.0.0.0/0 and ::/0 trust every client: name the networks of your own proxies")
	case p.Addr().Is4In6():
		return p, errors.New("write a network of IPv4 as such, as in 10.0.0.0/8")
	}
	return p.Masked(), nil
}

// parse reads the fields of u. Its errors begin with the name of one.
func (u *upstreamConfig) parse() (err error) {
	p := &u.parsed
	if u.URL != "" { // --upstream may say it
		if p.URL, err = parseUpstream(u.URL); err != nil {
			return fieldError("url", err)
		}
	}
	p.ForwardToken, p.Publish, p.MaxBody = u.ForwardToken, u.Publish, u.MaxBody
	p.OwnHost = u.PreserveHost != nil && !*u.PreserveHost
	if p.MaxBody < 0 {
		return errors.New("max_body: want a number of bytes, or 0: any number")
	}
	if !slices.Contains([]string{"", preflightRefuse, preflightPass}, u.Preflight) {
		return errors.New("preflight: want refuse or pass")
	}
	p.PassPreflight = u.Preflight == preflightPass
	for _, text := range u.Public {
		route, err := parseRoute(text)
		if err != nil {
			return fieldError("public", err)
		}
		p.Public = append(p.Public, route)
	}
	return u.parseTimes()
}

func fieldError(name string, err error) error { return errors.New(name + ": " + err.Error()) }

// parseTimes reads the durations.
func (u *upstreamConfig) parseTimes() error {
	for _, f := range []struct {
		name        string
		text        string
		value       *time.Duration
		least, most time.Duration
	}{
		{"recheck", u.Recheck, &u.parsed.Recheck, 100 * time.Millisecond, time.Minute},
		{"dial", u.Dial, &u.parsed.Dial, 10 * time.Millisecond, time.Minute},
		{"first_byte", u.FirstByte, &u.parsed.FirstByte, 0, maxFirstByte},
		{"idle", u.Idle, &u.parsed.Idle, time.Second, 24 * time.Hour},
	} {
		if f.text == "" {
			continue
		}
		d := newDuration(f.least, f.most, 0, "")
		if err := d.Set(f.text); err != nil {
			return fieldError(f.name, err)
		}
		*f.value = d.value
	}
	if u.FirstByte != "" && u.parsed.FirstByte == 0 {
		u.parsed.FirstByte = -1 // no limit; 0 stands for the default
	}
	switch u.Streams {
	case "", streamsToken:
	case streamsRequest:
		if u.Recheck != "" {
			return errors.New("recheck is for streams: token")
		}
		u.parsed.Recheck = -1
	default:
		return errors.New("streams: want token or request")
	}
	return nil
}

// parseRoute reads an element of public, such as "GET /robots.txt".
func parseRoute(text string) (server.PublicRoute, error) {
	bad := errors.New(`want a method and a path as it stands in the request line, such as "GET /robots.txt"; there are no patterns, and no query`)
	method, path, ok := strings.Cut(text, " ")
	if !ok || method == "" || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" || method == http.MethodConnect {
		return server.PublicRoute{}, bad
	}
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " ?#*") || strings.ContainsFunc(path, notPrintable) {
		return server.PublicRoute{}, bad
	}
	if u, err := url.ParseRequestURI(path); err != nil || u.EscapedPath() != path {
		return server.PublicRoute{}, bad
	}
	return server.PublicRoute{Method: method, Path: path}, nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

// addUpstream adds the service behind the server to an offer, if there is one.
func (s *serveCommand) addUpstream(o *offer) error {
	var up *server.Upstream
	if o.file != nil && o.file.Upstream != nil {
		up = &o.file.Upstream.parsed
	}
	if s.upstream.given { // it beats the file
		if up == nil {
			up = new(server.Upstream)
		}
		up.URL = s.upstream.value
	}
	switch {
	case up == nil && (s.firstByte.given || s.forwardToken):
		return usagef("--first-byte and --forward-token go with --upstream: they are about the service behind the server")
	case up == nil:
		return nil
	case up.URL == nil:
		return usagef("the file of --config: upstream.url is missing: where the service is, such as http://127.0.0.1:3000; or give --upstream")
	case o.server.Demo != nil:
		return usagef("--upstream goes with --config, --redis or a secret in %s: the demo has an API of its own", envSecrets)
	case o.server.Admin == "":
		return usagef("--admin ADDR: probes and metrics need a place, such as --admin 127.0.0.1:9102: every path of --addr is the upstream's")
	}
	if s.firstByte.given { // this and the next beat the file, too
		if up.FirstByte = s.firstByte.value; up.FirstByte == 0 {
			up.FirstByte = -1
		}
	}
	up.ForwardToken = up.ForwardToken || s.forwardToken
	o.server.Upstream = up
	o.intro = func(srv *server.Server) string { return upstreamIntro(endpoint(srv.Endpoint()), up) }
	return nil
}

// upstreamIntro says what a server in front of a service does.
func upstreamIntro(at endpoint, up *server.Upstream) string {
	var b strings.Builder
	fmt.Fprintf(&b, "keyturn serve: requests with a good token go to %s\n", up.URL)
	b.WriteString(at.listening())
	if len(up.Public) == 0 {
		fmt.Fprintf(&b, "  every path wants a token\n")
	} else {
		fmt.Fprintf(&b, "  every path wants a token, with %s\n", countOf(len(up.Public), "exception"))
	}
	b.WriteString("\ntry it, with the token in place of <your-jwt>:\n")
	fmt.Fprintf(&b, "curl -i %s/ -H \"Authorization: Bearer <your-jwt>\"\n", at.URL)
	return b.String()
}
