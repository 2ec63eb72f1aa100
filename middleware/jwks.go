package middleware

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/jwk"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A PublicKeySource knows the public keys of tenants, such as a Keyring of
// package rotation. It must be safe for concurrent use.
type PublicKeySource interface {
	// PublicKeys returns the keys that verify tenant's tokens: those that sign soon,
	// the one that signs, and those whose last token has not ended; and how long
	// others may keep them before they ask again.
	//
	// The error wraps [keystore.ErrNotFound] if tenant publishes none. Any other,
	// such as one that wraps [keystore.ErrUnavailable], means that it cannot be told
	// now, as no keys without an error do.
	PublicKeys(ctx context.Context, tenant string) (keys []*keystore.Key, maxAge time.Duration, err error)
}

// JWKS returns a handler that publishes the public keys of a tenant as a JWK Set
// (RFC 7517), for verifiers that are to have no other: usually at the path
// /.well-known/jwks.json. tenant says whose keys a request asks for, such as
// [OneTenant]; it must be safe for concurrent use.
//
// Each key is published with its kid, its alg and the use "sig". A secret cannot
// be: a key that has no public form is left out, as are one without kid, which no
// reader could tell from the others, and one of another tenant. Equal keys give
// equal bytes, whichever instance answers.
//
//	200 and 304  the set, which is never empty, with an ETag and how long to keep it
//	404          the tenant is unknown (the empty one is; so is one for which tenant returns
//	             an error that wraps keystore.ErrNotFound or verifier.ErrUnknownTenant),
//	             or publishes nothing
//	405          neither GET nor HEAD
//	503          it cannot be told now, with Retry-After
//
// An empty set would make many readers throw away the keys that they have. What is
// not a set has Cache-Control: no-store.
//
// It panics if src or tenant is nil.
func JWKS(src PublicKeySource, tenant func(*http.Request) (string, error)) http.Handler {
	if src == nil || tenant == nil {
		panic("middleware: JWKS: nil source or tenant func")
	}
	return &publisher{src: src, tenant: tenant, marshal: marshalSet, mediaType: "application/jwk-set+json"} // RFC 7517, section 8.5
}

// OneTenant returns a function for [JWKS] that always says id. It panics if id is
// empty.
func OneTenant(id string) func(*http.Request) (string, error) {
	if id == "" {
		panic("middleware: OneTenant: empty tenant")
	}
	return func(*http.Request) (string, error) { return id, nil }
}

// A publisher makes a document of a tenant's public keys.
type publisher struct {
	src       PublicKeySource
	tenant    func(*http.Request) (string, error)
	marshal   func(tenant string, keys []jwk.Public) ([]byte, error)
	mediaType string
}

func marshalSet(_ string, keys []jwk.Public) ([]byte, error) { return jwk.MarshalSet(keys...) }

// retryKeysAfter is in seconds. A service that has no keys to publish has mostly
// just started.
const retryKeysAfter = "5"

// ServeHTTP implements [http.Handler].
func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		writeJSON(w, http.StatusMethodNotAllowed, `{"error":"method_not_allowed"}`+"\n")
		return
	}
	doc, maxAge, err := p.document(r)
	switch {
	case err == nil:
		p.serve(w, r, doc, maxAge)
	case isUnknown(err):
		writeJSON(w, http.StatusNotFound, `{"error":"not_found","error_description":"there are no public keys here"}`+"\n")
	default:
		h.Set("Retry-After", retryKeysAfter)
		writeJSON(w, http.StatusServiceUnavailable, `{"error":"temporarily_unavailable","error_description":"the keys cannot be told now"}`+"\n")
	}
}

// isUnknown reports whether there certainly is nothing to publish.
func isUnknown(err error) bool {
	return (errors.Is(err, keystore.ErrNotFound) || errors.Is(err, verifier.ErrUnknownTenant)) && !errors.Is(err, keystore.ErrUnavailable)
}

// document returns what a request asks for.
func (p *publisher) document(r *http.Request) (doc []byte, maxAge time.Duration, err error) {
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

// publishable returns tenant's keys in the one order that there is for them.
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

// serve answers with the whole document, or 304. It is too small for ranges, and
// what may follow from the other preconditions (412) helps no reader of keys, so
// that none of these is looked at (RFC 9110, sections 13.2.1 and 14.2).
func (p *publisher) serve(w http.ResponseWriter, r *http.Request, doc []byte, maxAge time.Duration) {
	sum := sha256.Sum256(doc)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	h := w.Header()
	h.Set("Cache-Control", "public, max-age="+strconv.FormatInt(int64(max(0, maxAge)/time.Second), 10))
	h.Set("ETag", tag)
	if holds(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", p.mediaType)
	h.Set("Content-Length", strconv.Itoa(len(doc)))
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(doc)
}

// holds reports whether If-None-Match names tag, by the weak comparison (RFC 9110,
// sections 8.8.3.2 and 13.1.2). A comma in another's tag does no harm: no part of
// one is tag, which has its quotes.
func holds(lines []string, tag string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.Trim(part, " \t")
			if part == "*" || strings.TrimPrefix(part, "W/") == tag {
				return true
			}
		}
	}
	return false
}
