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

// discover asks the issuer where its keys are. Where an OpenID Connect issuer has no metadata (404),
// an OAuth 2.0 one may have it: some authorization servers serve no ID tokens.
func (e *endpoint) discover(ctx context.Context, g *getter, got *outcome) (*url.URL, *Error) {
	urls, where := metadataURLs(e.issuer), "discovery"
	doc, failed := e.metadata(ctx, g, urls[0])
	if failed != nil && failed.Step == StepStatus && failed.Status == http.StatusNotFound {
		where = "discovery: " + urls[0] + " is 404, and " + urls[1]
		doc, failed = e.metadata(ctx, g, urls[1])
	}
	if failed != nil {
		return nil, failed.within(failed.Step, where)
	}
	uri, failed := e.guard.jwksURI(doc, e.issuer)
	if failed != nil && where != "discovery" { // the text of this step says the rest
		failed = failed.within(failed.Step, where)
	}
	if failed != nil {
		return nil, failed
	}
	got.jwksURI, got.discovered = uri, e.c.now()
	return uri, nil
}

// metadata asks for the metadata at one of its places.
func (e *endpoint) metadata(ctx context.Context, g *getter, raw string) ([]byte, *Error) {
	at, failed := e.guard.parseURL(raw)
	if failed != nil {
		return nil, failed
	}
	a, failed := g.share(ctx, at, validator{}, true)
	if failed != nil {
		return nil, failed
	}
	return a.body, nil
}

// metadataURLs returns the places of an issuer's metadata, in the order in which they are asked: that
// of OpenID Connect Discovery 1.0, section 4, after the path, and that of RFC 8414, section 3,
// between the host and the path.
func metadataURLs(issuer string) [2]string {
	issuer = strings.TrimSuffix(issuer, "/")
	from := strings.Index(issuer, "://") + len("://")
	host, path := issuer, ""
	if slash := strings.IndexByte(issuer[from:], '/'); slash >= 0 {
		host, path = issuer[:from+slash], issuer[from+slash:]
	}
	return [...]string{
		issuer + "/.well-known/openid-configuration",
		host + "/.well-known/oauth-authorization-server" + path,
	}
}

// jwksURI returns where the keys of issuer are, according to its metadata. The issuer is compared
// byte for byte: metadata that names another issuer does not count (OpenID Connect Discovery 1.0,
// section 4.3).
func (g guard) jwksURI(doc []byte, issuer string) (*url.URL, *Error) {
	m, failed := readMetadata(doc)
	if failed != nil {
		return nil, failed
	}
	switch {
	case m.issuer == issuer:
	case strings.ContainsAny(m.issuer, "{}"): // Entra's /common and /organizations: {tenantid}
		return nil, failf(StepDiscovery, "the metadata names a template, which no token has as its iss").
			hint("name the issuer of one directory, or give the URL of the keys and each issuer that you expect: docs/providers.md")
	default:
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
