// Package verifiertest makes tokens for the tests of services that embed a verifier. It has an issuer
// with a key of its own, a verifier that trusts it, and a clock that moves only when the test moves it.
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

// The values in an [Issuer]'s tokens, which its verifier requires.
const (
	Tenant   = "test"
	URL      = "https://issuer.test" // the "iss"
	Audience = "test"                // the "aud"
)

// start is an arbitrary time, far from the machine's clock.
var start = time.Date(2030, 5, 17, 10, 30, 0, 0, time.UTC)

// An Issuer makes tokens that its [Issuer.Verifier] accepts. It is safe for
// concurrent use.
type Issuer struct {
	tb       testing.TB
	signer   *rotation.Signer
	verifier *verifier.Verifier

	mu  sync.Mutex // guards now
	now time.Time
}

// New returns an issuer with a new HS256 key. Its clock stands still at a moment in 2030 until
// [Issuer.Advance].
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

// check ends the test if err is not nil.
func (i *Issuer) check(err error) {
	i.tb.Helper()
	if err != nil {
		i.tb.Fatalf("verifiertest: %v", err)
	}
}

// Verifier returns the verifier that accepts the issuer's tokens, by the issuer's clock and without
// leeway. A token without an exp of its own lives for 15 minutes.
func (i *Issuer) Verifier() *verifier.Verifier { return i.verifier }

// Token returns a signed token with claims: a struct, a map or nil. It adds iss, aud, iat, exp and jti
// if they are missing. To make a bad token, give one of them a wrong value. The test fails if claims
// cannot be encoded.
func (i *Issuer) Token(claims any) string {
	i.tb.Helper()
	token, err := i.signer.Sign(context.Background(), Tenant, claims)
	i.check(err)
	return token
}

// Advance moves the clock of the issuer and its verifier forward by d, or back if d is negative.
func (i *Issuer) Advance(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.now = i.now.Add(d)
}

// Now returns the time of the issuer's clock. Give it to the service under test.
func (i *Issuer) Now() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now
}
