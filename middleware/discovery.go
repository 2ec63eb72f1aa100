package middleware

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/keyturn/keyturn/internal/jwk"
	"github.com/keyturn/keyturn/keystore"
)

// Discovery returns a handler that publishes where the public keys of a tenant are:
// the metadata that a reader fetches if it knows only an issuer (OpenID Connect
// Discovery 1.0, section 4). It goes with [JWKS], which takes the same src and
// tenant.
//
// issuer returns the "iss" of a tenant's tokens. It must be safe for concurrent use.
// The metadata names that issuer, whatever the host of the request, and readers
// compare it byte for byte with the issuer that they know. So readers must reach the
// two handlers at these URLs:
//
//	Discovery   issuer + "/.well-known/openid-configuration"
//	JWKS        issuer + "/.well-known/jwks.json"
//
// A slash at the end of the issuer is not doubled. An issuer is an https URL without
// query and fragment; http is for a reader's tests on loopback.
//
// The metadata lists the algorithms of the tenant's keys. It names no
// authorization_endpoint, since the issuer may not have one.
//
// Discovery answers like JWKS. It also answers 404 for a tenant without an issuer,
// for which issuer returns "". It panics if src, tenant or issuer is nil.
func Discovery(src PublicKeySource, tenant func(*http.Request) (string, error), issuer func(tenant string) string) http.Handler {
	if src == nil || tenant == nil || issuer == nil {
		panic("middleware: Discovery: nil source, tenant func or issuer func")
	}
	keys := &publicKeys{src: src, tenant: tenant, marshal: func(tenant string, keys []jwk.Public) ([]byte, error) {
		return marshalMetadata(issuer(tenant), keys)
	}}
	return &publisher{keys.document, "application/json"}
}

// metadata holds the members that OpenID Connect requires of every provider, except
// authorization_endpoint.
type metadata struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

func marshalMetadata(issuer string, keys []jwk.Public) ([]byte, error) {
	if issuer == "" {
		return nil, fmt.Errorf("middleware: the tenant has no issuer: %w", keystore.ErrNotFound)
	}
	m := metadata{
		Issuer: issuer, JWKSURI: strings.TrimSuffix(issuer, "/") + "/.well-known/jwks.json",
		ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"},
	}
	for _, k := range keys {
		m.Algorithms = append(m.Algorithms, k.Algorithm)
	}
	slices.Sort(m.Algorithms)
	m.Algorithms = slices.Compact(m.Algorithms)
	return json.Marshal(m)
}
