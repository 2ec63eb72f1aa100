package jwks

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// discoveryTTL is how long an issuer's metadata is used.
const discoveryTTL = 24 * time.Hour

// metadata is what is read of an issuer's metadata (OpenID Connect Discovery 1.0,
// section 3). Names are compared byte for byte, and none may be there twice.
type metadata struct {
	Issuer  string `json:"issuer"`
	JWKSURI string `json:"jwks_uri"`
}

// discover asks the issuer where its keys are.
func (e *endpoint) discover(ctx context.Context, g *getter, got *fetched) (*url.URL, *Error) {
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

// jwksURI returns where the keys of issuer are, by its metadata. The issuer is
// compared byte for byte: another one's metadata is not its (section 4.3).
func (g guard) jwksURI(doc []byte, issuer string) (*url.URL, *Error) {
	var m metadata
	if json.Unmarshal(doc, &m) != nil {
		return nil, failf(StepDiscovery, "the metadata is not a JSON object of strings")
	}
	if m.Issuer != issuer {
		return nil, failf(StepDiscovery, "the metadata is of another issuer: it must be the same byte for byte").
			hint("look for a slash at the end")
	}
	u, failed := g.parseURL(m.JWKSURI)
	if failed != nil {
		return nil, failed.within(StepDiscovery, "jwks_uri")
	}
	return u, nil
}
