// Package verifiertest makes tokens for the tests of services that embed a
// verifier: an issuer with a key of its own, a verifier that trusts it, and a
// clock that moves only when the test says so.
package verifiertest

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// What an [Issuer]'s tokens say, and its verifier asks for.
const (
	Tenant   = "test"
	URL      = "https://issuer.test" // the "iss"
	Audience = "test"                // the "aud"
)

// start is an hour that has nothing special about it.
var start = time.Date(2030, 5, 17, 10, 30, 0, 0, time.UTC)

// An Issuer makes tokens that its [Issuer.Verifier] accepts. It is safe for
// concurrent use.
type Issuer struct {
	tb       testing.TB
	signer   *rotation.Signer
	verifier *verifier.Verifier

	mu  sync.Mutex
	now time.Time
}

// New returns an issuer with a fresh HS256 key. Its clock stands at a moment in
// 2030 until [Issuer.Advance].
func New(tb testing.TB) *Issuer {
	tb.Helper()
	secret := make([]byte, 32)
	rand.Read(secret)
	id := keystore.ID{Tenant: Tenant, KID: "test"}
	i := &Issuer{tb: tb, now: start}

	key, err := keystore.NewSecret(id, keystore.HS256, secret)
	i.check(err)
	keys, err := keystore.NewStatic(key)
	i.check(err)
	i.verifier, err = verifier.New(verifier.Config{
		Now: i.Now,
		Tenants: []verifier.Tenant{{
			ID: Tenant, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
			Issuer: URL, Audiences: []string{Audience}, Leeway: -1,
		}},
	})
	i.check(err)
	i.signer, err = rotation.NewStaticSigner(id, keystore.HS256, secret, rotation.SignerConfig{
		Issuer:   func(string) string { return URL },
		Audience: func(string) []string { return []string{Audience} },
		Now:      i.Now,
	})
	i.check(err)
	return i
}

func (i *Issuer) check(err error) {
	i.tb.Helper()
	if err != nil {
		i.tb.Fatalf("verifiertest: %v", err)
	}
}

// Verifier returns the verifier that accepts the issuer's tokens, for 15 minutes
// by the issuer's clock and without leeway.
func (i *Issuer) Verifier() *verifier.Verifier { return i.verifier }

// Token returns a signed token with claims: a struct or a map, or nil. iss, aud,
// iat, exp and jti are set where the claims do not: to make a bad token, set one
// of them wrong. The test fails if claims cannot be encoded.
func (i *Issuer) Token(claims any) string {
	i.tb.Helper()
	token, err := i.signer.Sign(context.Background(), Tenant, claims)
	i.check(err)
	return token
}

// Advance moves the issuer's clock, which is its verifier's too: forward, or
// back for a negative d.
func (i *Issuer) Advance(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.now = i.now.Add(d)
}

// Now returns the issuer's time.
func (i *Issuer) Now() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now
}
