package jwks

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// discoveryTTL is how long an issuer's metadata is used.
const discoveryTTL = 24 * time.Hour

// locate returns where the keys are, and whether the issuer was asked for that in this attempt. If
// its metadata is old and cannot be fetched again, the keys are asked for where they were.
func (e *endpoint) locate(ctx context.Context, g *getter, prev previous, got *outcome) (from *url.URL, asked bool, failed *Error) {
	switch {
	case prev.jwksURI == nil:
		from, failed = e.discover(ctx, g, got)
		return from, true, failed
	case e.c.now().Sub(prev.discovered).Abs() < discoveryTTL:
		return prev.jwksURI, false, nil
	}
	half, cancel := context.WithTimeout(ctx, fetchTimeout/2) // the rest is for the keys
	defer cancel()
	from, failed = e.discover(half, g, got)
	if failed == nil || failed.Step == StepDiscovery { // the issuer has answered
		return from, true, failed
	}
	e.c.logger.Warn("jwks: old metadata could not be refreshed", "tenant", e.tenant, "url", display(e.url), "error", failed.Error())
	return prev.jwksURI, true, nil
}

// discover asks the issuer where its keys are.
func (e *endpoint) discover(ctx context.Context, g *getter, got *outcome) (*url.URL, *Error) {
	at, failed := e.guard.parseURL(strings.TrimSuffix(e.issuer, "/") + "/.well-known/openid-configuration")
	if failed != nil {
		return nil, failed
	}
	a, failed := g.get(ctx, at, validator{}, true)
	if failed != nil {
		return nil, failed.within(failed.Step, "discovery")
	}
	uri, failed := e.guard.jwksURI(a.body, e.issuer)
	if failed != nil {
		return nil, failed
	}
	got.jwksURI, got.discovered = uri, e.c.now()
	return uri, nil
}

// jwksURI returns where the keys of issuer are, according to its metadata. The issuer is compared
// byte for byte: metadata that names another issuer does not count (OpenID Connect Discovery 1.0,
// section 4.3).
func (g guard) jwksURI(doc []byte, issuer string) (*url.URL, *Error) {
	m, failed := readMetadata(doc)
	if failed != nil {
		return nil, failed
	}
	if m.issuer != issuer {
		return nil, failf(StepDiscovery, "the metadata is of another issuer: it must be the same byte for byte").
			hint("look for a slash at the end")
	}
	u, failed := g.parseURL(m.jwksURI)
	if failed != nil {
		return nil, failed.within(StepDiscovery, "jwks_uri")
	}
	return u, nil
}

// isGone reports whether the keys are no longer at their URL.
func isGone(failed *Error) bool {
	return failed != nil && (failed.Status == http.StatusNotFound || failed.Status == http.StatusGone)
}
