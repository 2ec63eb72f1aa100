package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// demoAudience is the "aud" of the demo's tokens.
const demoAudience = "demo"

// A demoTenant is a tenant whose keys live as long as the process.
type demoTenant struct {
	id, user string
	alg      keystore.Algorithm
	key      *keystore.Key
	signer   *rotation.Signer
}

func (t *demoTenant) issuer() string { return "https://" + t.id + ".example" }

// demo is the mode without a secret: two tenants that trust nobody's tokens but
// their own.
func (s *serveCommand) demo(ctx context.Context) (*service, error) {
	acme, err := s.newSecretTenant("acme", "ann")
	if err != nil {
		return nil, err
	}
	globex, err := s.newECTenant("globex", "bob")
	if err != nil {
		return nil, err
	}
	tenants := []*demoTenant{acme, globex}
	keys, err := newStatic(acme.key, globex.key)
	if err != nil {
		return nil, err
	}
	cfg := verifier.Config{MaxTokenBytes: maxTokenBytes, Now: s.now}
	for _, t := range tenants {
		cfg.Tenants = append(cfg.Tenants, verifier.Tenant{
			ID: t.id, Keys: keys, Algorithms: []keystore.Algorithm{t.alg}, Issuer: t.issuer(),
			Audiences: []string{demoAudience},
		})
	}
	v, err := verifier.New(cfg)
	if err != nil {
		return nil, err
	}
	return &service{verifier: v, hint: demoHint, intro: func(at endpoint) (string, error) {
		return demoIntro(ctx, at, tenants)
	}}, nil
}

// newSecretTenant makes a tenant with a shared secret (HS256).
func (s *serveCommand) newSecretTenant(id, user string) (*demoTenant, error) {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	kid := keystore.ID{Tenant: id, KID: id + "-1"}
	key, err := keystore.NewSecret(kid, keystore.HS256, secret)
	if err != nil {
		return nil, err
	}
	return s.newDemoTenant(user, key, secret)
}

// newECTenant makes a tenant with a key pair (ES256).
func (s *serveCommand) newECTenant(id, user string) (*demoTenant, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	kid := keystore.ID{Tenant: id, KID: id + "-1"}
	key, err := keystore.NewPublic(kid, keystore.ES256, private.Public())
	if err != nil {
		return nil, err
	}
	return s.newDemoTenant(user, key, private)
}

// newDemoTenant makes a tenant that verifies with key, and signs with private.
func (s *serveCommand) newDemoTenant(user string, key *keystore.Key, private any) (*demoTenant, error) {
	t := &demoTenant{id: key.ID().Tenant, user: user, alg: key.Algorithm(), key: key}
	signer, err := rotation.NewStaticSigner(key.ID(), t.alg, private, rotation.SignerConfig{
		Issuer:   func(string) string { return t.issuer() },
		Audience: func(string) []string { return []string{demoAudience} },
		Now:      s.now,
	})
	if err != nil {
		return nil, err
	}
	t.signer = signer
	return t, nil
}

// demoHint is for a user who comes with the token of another run, or one of
// another maker.
func demoHint(bad *verifier.Error) string {
	switch bad.Reason {
	case verifier.ReasonUnknownTenant, verifier.ReasonUnknownKey, verifier.ReasonSignature:
		return "the demo accepts only the tokens that it printed when it started; for tokens of your own, set " + envSecrets
	}
	return ""
}

func demoIntro(ctx context.Context, at endpoint, tenants []*demoTenant) (string, error) {
	var b strings.Builder
	b.WriteString("keyturn serve: a demo with two tenants, whose keys were made just now\n")
	b.WriteString(at.addresses())
	var first string
	for _, t := range tenants {
		token, err := t.signer.Sign(ctx, t.id, map[string]any{"sub": t.user})
		if err != nil {
			return "", err
		}
		if first == "" {
			first = token
		}
		fmt.Fprintf(&b, "\na token of tenant %s (%s), good for 15 minutes:\n%s\n", t.id, t.alg, token)
	}
	fmt.Fprintf(&b, "\ntry it:\n%s\n", at.curl(first))
	fmt.Fprintf(&b, "\nstart again for new tokens; with a secret in %s you make them yourself:\n%s\n", envSecrets, fromClone("serve --help"))
	return b.String(), nil
}
