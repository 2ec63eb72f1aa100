package compare

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// oldRing makes an ES256 ring whose pending key was published a minute ago, so that it may sign
// already.
func oldRing(t *testing.T) (*rotation.Keyring, *rotation.Rotator) {
	t.Helper()
	cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
	open := func(instance string, now func() time.Time) (*rotation.Keyring, *rotation.Rotator) {
		k, err := rotation.Open(t.Context(), cluster.Connect(instance), rotation.Config{
			KEKs: rotation.InsecurePlaintext(), Tenants: []string{tenant}, TrustFirstRead: true, Now: now,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close(context.WithoutCancel(t.Context())) })
		r, err := rotation.NewRotator(k)
		if err != nil {
			t.Fatal(err)
		}
		return k, r
	}
	cluster.Advance(-time.Minute)
	_, r := open("a minute ago", func() time.Time { return time.Now().Add(-time.Minute) })
	policy := rotation.Policy{Algorithm: keystore.ES256, Freshness: 6 * time.Second, ClockSkew: time.Second, Dwell: time.Second, ReaderStaleness: time.Second}
	if _, err := r.Create(t.Context(), tenant, policy); err != nil {
		t.Fatal(err)
	}
	cluster.Advance(time.Minute)
	return open("now", time.Now)
}

// A publishedRing is a ring behind our handlers, which count the requests for its keys.
type publishedRing struct {
	*rotation.Keyring
	*rotation.Rotator
	*rotation.Signer
	issuer, jwks string // URLs
	fetches      atomic.Int64
}

func publishRing(t *testing.T) *publishedRing {
	t.Helper()
	p := new(publishedRing)
	p.Keyring, p.Rotator = oldRing(t)
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	p.issuer = srv.URL + "/" + tenant
	p.jwks = p.issuer + "/.well-known/jwks.json"
	issuerOf := func(string) string { return p.issuer }
	keys := middleware.JWKS(p.Keyring, middleware.OneTenant(tenant))
	mux.HandleFunc("/"+tenant+"/.well-known/jwks.json", func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		keys.ServeHTTP(w, r)
	})
	mux.Handle("/"+tenant+"/.well-known/openid-configuration", middleware.Discovery(p.Keyring, middleware.OneTenant(tenant), issuerOf))
	var err error
	p.Signer, err = rotation.NewSigner(p.Keyring, rotation.SignerConfig{Issuer: issuerOf, Audience: func(string) []string { return []string{audience} }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *publishedRing) sign(t *testing.T) string {
	t.Helper()
	token, err := p.Sign(t.Context(), tenant, map[string]any{"sub": "ann"})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// discoverGoOIDC opens go-oidc's verifier with the issuer alone.
func discoverGoOIDC(t *testing.T, jwksURL string) reader {
	provider, err := oidc.NewProvider(t.Context(), strings.TrimSuffix(jwksURL, "/.well-known/jwks.json"))
	if err != nil {
		t.Fatal(err)
	}
	v := provider.Verifier(&oidc.Config{ClientID: audience})
	return reader{verify: func(ctx context.Context, token string) error { _, err := v.Verify(ctx, token); return err }}
}

// defaultKeyfunc opens keyfunc with its defaults: it fetches again after an hour, or for an unknown
// kid.
func defaultKeyfunc(t *testing.T, url string) reader {
	keys, err := keyfunc.NewDefaultCtx(t.Context(), []string{url})
	if err != nil {
		t.Fatal(err)
	}
	return reader{verify: func(ctx context.Context, token string) error {
		_, err := jwt.Parse(token, keys.KeyfuncCtx(ctx), jwt.WithValidMethods([]string{"ES256"}), jwt.WithAudience(audience))
		return err
	}}
}

// Readers by other makers go on across a rotation of our ring without fetching again, because the
// next key was in the set before it signed. They also go on across a revocation of a key that no
// longer signs. A reader that starts after it refuses the tokens of the revoked key. See also
// middleware's TestJWKSReaders.
func TestReadersOfOurRing(t *testing.T) {
	openers := []struct {
		name string
		open func(t *testing.T, url string) reader
	}{{"go-oidc", readGoOIDC}, {"go-oidc by discovery", discoverGoOIDC}, {"keyfunc", defaultKeyfunc}, {"keyturn", readKeyturn}}
	for _, o := range openers {
		t.Run(o.name, func(t *testing.T) {
			ring := publishRing(t)
			running := o.open(t, ring.jwks)
			accepts := func(r reader, token, when string) {
				t.Helper()
				if err := r.verify(t.Context(), token); err != nil {
					t.Errorf("%s: %v", when, err)
				}
			}
			old := ring.sign(t)
			accepts(running, old, "at first")
			if _, err := ring.Rotate(t.Context(), tenant); err != nil {
				t.Fatal(err)
			}
			before := ring.fetches.Load()
			turned := ring.sign(t)
			accepts(running, turned, "after a rotation")
			accepts(running, old, "after a rotation, the old token")
			if n := ring.fetches.Load() - before; n != 0 {
				t.Errorf("the rotation cost %d fetches", n)
			}

			status, err := ring.Tenant(tenant)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ring.Revoke(t.Context(), tenant, status.Ring.Keys[0].KID); err != nil {
				t.Fatal(err)
			}
			accepts(running, turned, "after a revocation")
			anew := o.open(t, ring.jwks)
			accepts(anew, turned, "after a revocation, started anew")
			if anew.verify(t.Context(), old) == nil {
				t.Error("it accepts a token of a revoked key")
			}
		})
	}
}
