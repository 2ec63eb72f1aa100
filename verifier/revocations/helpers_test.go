package revocations

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// few is how many groups the lists of most tests have, so that virtual time is cheap.
const few = 8

// An issuer makes tokens, and verifiers of them that ask a list.
type issuer struct {
	t       testing.TB
	keys    *keystore.Static
	signers map[string]*rotation.Signer
	ids     []string
}

func newIssuer(t testing.TB, tenants ...string) *issuer {
	t.Helper()
	i := &issuer{t: t, signers: make(map[string]*rotation.Signer), ids: tenants}
	var keys []*keystore.Key
	for _, tenant := range tenants {
		secret := make([]byte, 32)
		rand.Read(secret)
		id := keystore.ID{Tenant: tenant, KID: "k-" + tenant}
		key, err := keystore.NewSecret(id, keystore.HS256, secret)
		i.check(err)
		keys = append(keys, key)
		i.signers[tenant], err = rotation.NewStaticSigner(id, keystore.HS256, secret, rotation.SignerConfig{
			Issuer: func(tenant string) string { return "https://" + tenant }, Audience: func(string) []string { return []string{"test"} },
		})
		i.check(err)
	}
	var err error
	i.keys, err = keystore.NewStatic(keys...)
	i.check(err)
	return i
}

func (i *issuer) check(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatal(err)
	}
}

// verifier returns a verifier that asks r.
func (i *issuer) verifier(r verifier.Revocations) *verifier.Verifier {
	i.t.Helper()
	var tenants []verifier.Tenant
	for _, id := range i.ids {
		tenants = append(tenants, verifier.Tenant{ID: id, Keys: i.keys, Algorithms: []keystore.Algorithm{keystore.HS256}, Issuer: "https://" + id, Audiences: []string{"test"}})
	}
	v, err := verifier.New(verifier.Config{Tenants: tenants, Revocations: r})
	i.check(err)
	return v
}

// token returns a token of a tenant that is issued now.
func (i *issuer) token(tenant string, claims map[string]any) string {
	i.t.Helper()
	token, err := i.signers[tenant].Sign(i.t.Context(), tenant, claims)
	i.check(err)
	return token
}

var testKEK = mustKEK(1)

// kekBytes returns the n-th of some keys that are not weak.
func kekBytes(n byte) []byte {
	key := make([]byte, 32)
	for i := range key {
		key[i] = 31*n + 7*byte(i) + 1
	}
	return key
}

func mustKEK(n byte) *rotation.KEKs {
	keks, err := rotation.NewKEKs(kekBytes(n))
	if err != nil {
		panic(err)
	}
	return keks
}

// quiet is a logger that drops everything.
var quiet = slog.New(slog.DiscardHandler)

// virtual runs f in virtual time.
func virtual(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// open opens a list on a store. It is closed when the test ends, unless it is closed before.
func open(t testing.TB, s rotation.Store, name string, options ...func(*Config)) *List {
	t.Helper()
	cfg := Config{KEKs: testKEK, Instance: name, Logger: quiet, groups: few}
	for _, o := range options {
		o(&cfg)
	}
	l, err := OpenStore(t.Context(), s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(context.WithoutCancel(t.Context())) })
	return l
}

// ready waits until lists are ready.
func ready(t testing.TB, lists ...*List) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, l := range lists {
		if err := l.WaitReady(ctx); err != nil {
			t.Fatalf("%s: %v", l.cfg.Instance, err)
		}
	}
}
