// Package providertest has provider-shaped issuers: for each set-up of docs/providers.md the
// documents that the provider publishes, under their real URLs, and tokens of its shape, good and
// bad. The shapes are those of the providers' documentation and of public samples. Names, numbers
// and keys are made up.
//
// Tokens are signed by hand here, without the packages under test, so that the two cannot agree on
// the same mistake. [Network] serves the documents on loopback.
package providertest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"
)

// A Provider is the provider of one section of docs/providers.md.
type Provider struct {
	// Name is that of the Go function on the page.
	Name string

	// Pages are the documents by URL.
	Pages map[string]Page

	// Env are the variables that the configuration of the page reads. Files are the files that it
	// reads, by the path on the page.
	Env, Files map[string]string

	// Header is the request header that carries the token, or "" for Authorization.
	Header string

	// Tokens are presented in this order. The first one is good, so that the keys are known when
	// the bad ones come: a token that is refused for its claims fetches no key.
	Tokens []Token
}

// A Page is a document of a provider.
type Page struct {
	Body string

	// Authorization, if it is not "", is what a request must have in that header. Without it the
	// answer is 401.
	Authorization string
}

// A Token is one that a client presents.
type Token struct {
	Name string
	Text string

	// Reason is that of the refusal, as the verifier names it, or "" if the token is good.
	Reason string

	// Tenant and Subject are those of a good token.
	Tenant, Subject string

	// NeedsGo says that only the Go lines of the page refuse the token, because the file of
	// keyturn serve has no such rule. The page says so.
	NeedsGo bool
}

// object is a JSON object.
type object map[string]any

// list is a JSON array.
type list []any

// with returns a copy of o with a member set, or without it if value is nil.
func (o object) with(name string, value any) object {
	o = maps.Clone(o)
	if o[name] = value; value == nil {
		delete(o, name)
	}
	return o
}

func (o object) json() string {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// claims returns o with the times of a token that was issued a minute ago.
func (o object) claims() object {
	now := time.Now()
	return o.with("iat", now.Add(-time.Minute).Unix()).with("exp", now.Add(time.Hour).Unix())
}

// signed returns a compact JWS (RFC 7515, section 7.1).
func signed(header, claims object, k *key) string {
	input := encode(header.json()) + "." + encode(claims.json())
	return input + "." + encode(k.sign(input))
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// good adds a good token of tenant acme.
func (p *Provider) good(name string, header, claims object, k *key) {
	p.goodOf("acme", name, header, claims, k)
}

func (p *Provider) goodOf(tenant, name string, header, claims object, k *key) {
	subject := ""
	if sub, ok := claims["sub"]; ok {
		subject = fmt.Sprint(sub)
	}
	p.Tokens = append(p.Tokens, Token{Name: name, Text: signed(header, claims, k), Tenant: tenant, Subject: subject})
}

// bad adds a token that is refused for a reason.
func (p *Provider) bad(name, reason string, header, claims object, k *key) {
	p.Tokens = append(p.Tokens, Token{Name: name, Text: signed(header, claims, k), Reason: reason})
}

// badInGo adds a token that only the Go lines refuse.
func (p *Provider) badInGo(name, reason string, header, claims object, k *key) {
	p.bad(name, reason, header, claims, k)
	p.Tokens[len(p.Tokens)-1].NeedsGo = true
}

// forged adds the tokens that no set-up may accept. k is the public key that the provider publishes
// for header's kid.
func (p *Provider) forged(header, claims object, k *key) {
	p.bad("expired", "expired", header, claims.with("exp", time.Now().Add(-time.Hour).Unix()), k)
	p.bad("signed by another key", "signature", header, claims, k.stranger)
	p.bad("alg none", "algorithm", header.with("alg", "none"), claims, k)
	p.bad("HS256 under the public key", "algorithm", header.with("alg", "HS256"), claims, &key{secret: k.pem()})
}

// page publishes a document.
func (p *Provider) page(url string, body object) {
	if p.Pages == nil {
		p.Pages = make(map[string]Page)
	}
	p.Pages[url] = Page{Body: body.json()}
}

// discovery publishes metadata for issuer (OpenID Connect Discovery 1.0, section 4).
func (p *Provider) discovery(issuer, set string) {
	p.page(strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", object{
		"issuer": issuer, "jwks_uri": set, "response_types_supported": list{"code"}, "subject_types_supported": list{"public"},
		"id_token_signing_alg_values_supported": list{"RS256"},
	})
}

// set publishes a JWK Set.
func (p *Provider) set(url string, jwks ...object) {
	keys := list{}
	for _, jwk := range jwks {
		keys = append(keys, jwk)
	}
	p.page(url, object{"keys": keys})
}
