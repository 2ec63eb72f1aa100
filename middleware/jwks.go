package middleware

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/jwk"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A PublicKeySource has the public keys of tenants. A Keyring of package rotation is
// one. It must be safe for concurrent use.
type PublicKeySource interface {
	// PublicKeys returns the keys that verify tenant's tokens: the key that signs,
	// those that will sign soon, and those whose last token has not expired. maxAge
	// is how long readers may keep them before they ask again.
	//
	// The error wraps [keystore.ErrNotFound] if tenant publishes no keys. Any other
	// error, such as one that wraps [keystore.ErrUnavailable], means that the source
	// cannot tell now. So does a result without keys and without an error.
	PublicKeys(ctx context.Context, tenant string) (keys []*keystore.Key, maxAge time.Duration, err error)
}

// JWKS returns a handler that publishes the public keys of a tenant as a JWK Set (RFC
// 7517), for services that only verify. Its usual path is /.well-known/jwks.json.
// tenant returns the tenant that a request asks for, like [OneTenant]. It must be
// safe for concurrent use.
//
// Each key has its kid, its alg and the use "sig". The set never has a secret, which
// has no public form, nor a key of another tenant, nor a key without kid, which a
// reader could not tell from the others. Equal keys give equal bytes on every
// instance.
//
//	200 and 304  the set, with an ETag and the time for which readers may keep it
//	204          to OPTIONS
//	404          the tenant is unknown or publishes no keys
//	405          the method is another one
//	503          the source cannot tell now; with Retry-After
//
// Every answer lets scripts of any origin read it (Access-Control-Allow-Origin: *): the
// keys are public, and no cookie or token opens them.
//
// An empty tenant is an unknown one, and so is one for which tenant returns an error
// that wraps [keystore.ErrNotFound] or [verifier.ErrUnknownTenant].
//
// The set is never empty: an empty one would make many readers discard their keys.
// Every other answer has Cache-Control: no-store.
//
// It panics if src or tenant is nil.
func JWKS(src PublicKeySource, tenant func(*http.Request) (string, error)) http.Handler {
	if src == nil || tenant == nil {
		panic("middleware: JWKS: nil source or tenant func")
	}
	keys := &publicKeys{src: src, tenant: tenant, marshal: marshalSet}
	return &publisher{keys.document, "application/jwk-set+json"} // RFC 7517, section 8.5
}

// OneTenant returns a function for [JWKS] that always returns id. It panics if id is
// empty.
func OneTenant(id string) func(*http.Request) (string, error) {
	if id == "" {
		panic("middleware: OneTenant: empty tenant")
	}
	return func(*http.Request) (string, error) { return id, nil }
}

// publicKeys makes a document of a tenant's public keys.
type publicKeys struct {
	src     PublicKeySource
	tenant  func(*http.Request) (string, error)
	marshal func(tenant string, keys []jwk.Public) ([]byte, error)
}

func marshalSet(_ string, keys []jwk.Public) ([]byte, error) { return jwk.MarshalSet(keys...) }

// isUnknown reports whether err says for certain that the tenant has no keys.
func isUnknown(err error) bool {
	return (errors.Is(err, keystore.ErrNotFound) || errors.Is(err, verifier.ErrUnknownTenant)) && !errors.Is(err, keystore.ErrUnavailable)
}

// document returns the document that a request asks for.
func (p *publicKeys) document(r *http.Request) (doc []byte, maxAge time.Duration, err error) {
	tenant, err := p.tenant(r)
	if err != nil {
		return nil, 0, err
	}
	if tenant == "" {
		return nil, 0, verifier.ErrUnknownTenant
	}
	keys, maxAge, err := p.src.PublicKeys(r.Context(), tenant)
	if err != nil {
		return nil, 0, err
	}
	public := publishable(tenant, keys)
	if len(public) == 0 {
		return nil, 0, fmt.Errorf("middleware: no key to publish: %w", keystore.ErrUnavailable)
	}
	doc, err = p.marshal(tenant, public)
	return doc, maxAge, err
}

// publishable returns those of keys that may be published for tenant, in an order
// that does not depend on the source.
func publishable(tenant string, keys []*keystore.Key) []jwk.Public {
	var all []jwk.Public
	for _, k := range keys {
		id := k.ID()
		if pub, ok := k.Public(); ok && id.KID != "" && id.Tenant == tenant {
			all = append(all, jwk.Public{KID: id.KID, Algorithm: string(k.Algorithm()), Key: pub})
		}
	}
	slices.SortFunc(all, func(a, b jwk.Public) int {
		return cmp.Or(cmp.Compare(a.KID, b.KID), cmp.Compare(a.Algorithm, b.Algorithm))
	})
	return all
}
