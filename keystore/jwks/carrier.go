package jwks

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// A carrier carries the requests of one call of [getter.get], beneath what Config.Wrap returned. It
// sends them to one origin alone. So Wrap, which may change a request, leads to no place that the
// guard did not judge, and sees no header that is secret.
type carrier struct {
	origin string
	header http.Header // of SourceConfig.Header, if it is for that origin
	next   http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (c *carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || originOf(req.URL) != c.origin || req.Host != "" && req.Host != req.URL.Host {
		return nil, failf(StepURL, "Config.Wrap sent a request to another host, port or scheme")
	}
	sent := req
	if len(c.header) > 0 {
		sent = req.Clone(discreet{req.Context(), c.header}) // a RoundTripper must not change the request
		if sent.Header == nil {
			sent.Header = make(http.Header)
		}
		maps.Copy(sent.Header, c.header)
	}
	resp, err := c.next.RoundTrip(sent)
	if resp != nil {
		resp.Request = req // Wrap sees it, and sent has the header
	}
	return resp, err
}

// A discreet context tells an [httptrace.ClientTrace] in it of no header that is secret.
type discreet struct {
	context.Context
	secret http.Header
}

// Value implements [context.Context].
func (d discreet) Value(key any) any {
	value := d.Context.Value(key)
	trace, ok := value.(*httptrace.ClientTrace)
	if !ok || trace.WroteHeaderField == nil {
		return value
	}
	quiet := *trace
	quiet.WroteHeaderField = func(name string, values []string) {
		if d.secret[name] == nil {
			trace.WroteHeaderField(name, values)
		}
	}
	return &quiet
}

// originOf returns the scheme, host and port of u (RFC 6454, section 4).
func originOf(u *url.URL) string { return u.Scheme + "://" + hostOf(u) }

// wrapped returns what carries the requests for u out: next, with the header that the origin of u
// gets, within what Config.Wrap returns.
func (g *getter) wrapped(ctx context.Context, u *url.URL, next http.RoundTripper) (http.RoundTripper, *Error) {
	c := &carrier{origin: originOf(u), next: next}
	if g.header != nil && c.origin == g.headerFor {
		var failed *Error
		if c.header, failed = g.secretHeader(ctx); failed != nil {
			return nil, failed
		}
	}
	if g.wrap == nil {
		return c, nil
	}
	outer := g.wrap(c)
	if outer == nil { // an http.Client would use a transport without guard
		return nil, failf(StepURL, "Config.Wrap returned nil")
	}
	return outer, nil
}

// secretHeader returns what SourceConfig.Header returns, which is asked once an attempt.
func (g *getter) secretHeader(ctx context.Context) (http.Header, *Error) {
	if g.got != nil {
		return g.got, nil
	}
	h, err := g.header(ctx)
	if err != nil {
		failed := failf(StepHeader, "%v", err)
		failed.cause = err
		return nil, failed
	}
	clean := make(http.Header)
	for name, values := range h {
		if failed := checkHeader(name, values); failed != nil {
			return nil, failed
		}
		name = http.CanonicalHeaderKey(name)
		clean[name] = append(clean[name], values...)
	}
	g.got = clean
	return clean, nil
}

// reserved are the headers that the client sets itself, and those that say how a connection is used
// (RFC 9110, sections 7.6.1 and 7.2; RFC 9112, section 6). A source must not be able to have an answer
// decoded otherwise, or compared with another one.
var reserved = []string{
	"Accept-Encoding", "Cache-Control", "Connection", "Content-Length", "Expect", "Host", "If-Match", "If-Modified-Since",
	"If-None-Match", "If-Range", "If-Unmodified-Since", "Keep-Alive", "Range", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// checkHeader refuses a field that would not be sent as it is. The error quotes no value.
func checkHeader(name string, values []string) *Error {
	const marks = "!#$%&'*+-.^_`|~" // RFC 9110, section 5.6.2
	if name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(marks, r))
	}) {
		return failf(StepHeader, "a name that is not one of a header")
	}
	if slices.Contains(reserved, textproto.CanonicalMIMEHeaderKey(name)) || strings.HasPrefix(strings.ToLower(name), "proxy-") {
		return failf(StepHeader, "%s is for the client itself to decide", name)
	}
	for _, value := range values {
		switch {
		case value == "":
			return failf(StepHeader, "%s is empty", name)
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return failf(StepHeader, "%s has a line end or another control character", name).
				hint("trim what was read from a file")
		}
	}
	return nil
}

// headerKey tells a source with a Header from every other one: a func cannot be compared, and an
// answer to one caller may not be for another. saved is the part that names its file on disk, which
// must be the same after a restart.
func (c *Client) headerKey(cfg SourceConfig, tenant string) (saved, unique string) {
	if cfg.Header == nil {
		return "", ""
	}
	return fmt.Sprintf(" header of %q", tenant), fmt.Sprintf(" %d", c.withHeader.Add(1))
}
