package metrics_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier"
)

// A fleet is an instance that has rings, a rotator and an issuer, and is watched.
type fleet struct {
	c       *metrics.Collector
	conn    *rotationtest.Conn
	keyring *rotation.Keyring
	rotator *rotation.Rotator
	signer  *rotation.Signer
	issuer  *jwkstest.Server
	source  *jwks.Source
	v       *verifier.Verifier
}

// newFleet opens a fleet with the rings of acme and globex.
func newFleet(t *testing.T, cfg metrics.Config) *fleet {
	t.Helper()
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{c: metrics.New(cfg), conn: rotationtest.NewCluster(rotationtest.ClusterConfig{}).Connect("a"), issuer: jwkstest.New(t)}
	f.keyring, err = rotation.Open(t.Context(), f.conn, rotation.Config{KEKs: keks, Tenants: []string{"acme", "globex"}, TrustFirstRead: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.keyring.Close(context.WithoutCancel(t.Context())) })
	if f.rotator, err = rotation.NewRotator(f.keyring); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"acme", "globex"} {
		if _, err := f.rotator.Create(t.Context(), tenant, rotation.Policy{Algorithm: keystore.HS256}); err != nil {
			t.Fatal(err)
		}
	}
	if f.signer, err = rotation.NewSigner(f.keyring, rotation.SignerConfig{Observe: f.c.ObserveSign}); err != nil {
		t.Fatal(err)
	}
	f.issuer.Publish(jwkstest.NewKey("issuers-key", "ES256"))
	client := jwks.New(jwks.Config{TLS: f.issuer.TLS(), LookupNetIP: f.issuer.LookupNetIP, DialContext: f.issuer.DialContext, Observe: f.c.ObserveFetch})
	t.Cleanup(func() { client.Close(context.WithoutCancel(t.Context())) })
	if f.source, err = client.Open("initech", f.issuer.URL(), jwks.SourceConfig{}); err != nil {
		t.Fatal(err)
	}
	if err := f.source.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return scrape(t, f.c)[`keyturn_jwks_fetches_total{outcome="changed"}`] == 1 })
	rules := func(id string, keys keystore.KeyStore, alg keystore.Algorithm) verifier.Tenant {
		return verifier.Tenant{ID: id, Keys: keys, Algorithms: []keystore.Algorithm{alg}, Issuer: "https://" + id + ".example", AnyAudience: true}
	}
	f.v, err = verifier.New(verifier.Config{Observe: f.c.Observe, Tenants: []verifier.Tenant{
		rules("acme", f.keyring, keystore.HS256), rules("globex", f.keyring, keystore.HS256), rules("initech", f.source, keystore.ES256),
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.c.Watch(metrics.Watched{Verifier: f.v, Keyring: f.keyring, Sources: client.Sources, Tenants: []string{"acme", "globex", "initech"}, Revocations: listState})
	return f
}

// everything returns the collector of a fleet that has done each thing once.
func everything(t *testing.T) *metrics.Collector {
	t.Helper()
	f := newFleet(t, metrics.Config{TenantLimit: 0, Version: "v1.2.3"})
	f.verify(t, "acme")
	for range 3 {
		f.verify(t, "acme")
	}
	f.c.Request("api", 200, time.Millisecond)
	f.c.StreamOpened()
	f.c.CertificateEnds(fixed().Add(90 * 24 * time.Hour))
	return f.c
}

// verify signs a token of tenant and verifies it twice.
func (f *fleet) verify(t *testing.T, tenant string) {
	t.Helper()
	token, err := f.signer.Sign(t.Context(), tenant, map[string]any{"iss": "https://" + tenant + ".example"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := f.v.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
}

// wantDates checks that the dates of a page are dates of this century, in seconds.
func wantDates(t *testing.T, all series) {
	t.Helper()
	for name, v := range all {
		if strings.HasSuffix(name, "_timestamp_seconds") && (v < 1.7e9 || v > 4.2e9) {
			t.Errorf("%s = %v", name, v)
		}
	}
}

func TestRingsAndSources(t *testing.T) {
	f := newFleet(t, metrics.Config{})
	f.verify(t, "globex")
	all := scrape(t, f.c)
	all.want(t, series{
		`keyturn_rings{state="ready"}`:                                  2,
		`keyturn_rings{state="degraded"}`:                               0,
		`keyturn_rings{state="not_ready"}`:                              0,
		`keyturn_ring_keys{state="signing"}`:                            2,
		`keyturn_ring_keys{state="pending"}`:                            2,
		`keyturn_ring_keys{state="revoked"}`:                            0,
		`keyturn_ring_keys{state="accepted"}`:                           0,
		`keyturn_rings_without_next_key`:                                0,
		`keyturn_ring_repairs_total`:                                    0,
		`keyturn_store_syncs_total{result="failure"}`:                   0,
		`keyturn_jwks_sources{state="fresh"}`:                           1,
		`keyturn_jwks_sources{state="stale"}`:                           0,
		`keyturn_jwks_fetches_total{outcome="changed"}`:                 1,
		`keyturn_signatures_total{outcome="signed"}`:                    1,
		`keyturn_verifications_total{outcome="accepted",reason="none"}`: 2,
	})
	next, oldest := all["keyturn_ring_next_activation_timestamp_seconds"], all["keyturn_ring_oldest_good_sync_timestamp_seconds"]
	now := float64(time.Now().UnixMilli()) / 1000
	if in := next - now; in < 14*86400 || in > 31*86400 {
		t.Errorf("the next key signs in %v s", in)
	}
	if age := now - oldest; age < 0 || age > 60 {
		t.Errorf("the last sync was %v s ago", age)
	}
	if all[`keyturn_store_syncs_total{result="success"}`] == 0 {
		t.Error("no sync was counted")
	}
}

// A ring whose signing key is held is not in want of a next one; a ring without a key that signs is.
func TestRingsWithoutNextKey(t *testing.T) {
	f := newFleet(t, metrics.Config{})
	for _, tenant := range []string{"acme", "globex"} {
		status, err := f.keyring.Tenant(tenant)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range status.Ring.Keys {
			if k.KID != status.SignsWith {
				if _, err := f.rotator.Revoke(t.Context(), tenant, k.KID, rotation.Force); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	scrape(t, f.c).want(t, series{
		`keyturn_rings_without_next_key`:     2,
		`keyturn_ring_keys{state="revoked"}`: 2,
		`keyturn_ring_keys{state="pending"}`: 0,
	})
}

// A service without rings or issuers has the series all the same, and no date that means nothing.
func TestNothingWatched(t *testing.T) {
	c := metrics.New(metrics.Config{Now: fixed})
	all := scrape(t, c)
	all.want(t, series{
		`keyturn_rings{state="not_ready"}`:                     0,
		`keyturn_jwks_sources{state="cold"}`:                   0,
		`keyturn_cache_entries`:                                0,
		`keyturn_config_last_reload_successful`:                1,
		`keyturn_config_last_reload_success_timestamp_seconds`: 1764000000.5,
	})
	for name := range all {
		if strings.HasSuffix(name, "_timestamp_seconds") && !strings.HasPrefix(name, "keyturn_config_") {
			t.Errorf("%s is there", name)
		}
	}
}

// A source that has had no answer is as old as can be, so that an alert sees it.
func TestColdSource(t *testing.T) {
	issuer := jwkstest.New(t)
	issuer.Misbehave(jwkstest.Body("not a set", "{}"))
	client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext})
	defer client.Close(t.Context())
	if _, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{}); err != nil {
		t.Fatal(err)
	}
	c := metrics.New(metrics.Config{})
	c.Watch(metrics.Watched{Sources: client.Sources})
	scrape(t, c).want(t, series{`keyturn_jwks_sources{state="cold"}`: 1, `keyturn_jwks_oldest_fetch_timestamp_seconds`: 0})
}

// An issuer that publishes each key at a URL of its own counts once for each key that is held.
func TestPEMSource(t *testing.T) {
	issuer := jwkstest.New(t)
	issuer.MoveSet("/one")
	issuer.AlsoAt("/two")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	issuer.PublishBody(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	c := metrics.New(metrics.Config{})
	client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext})
	defer client.Close(t.Context())
	source, err := client.OpenPEM("acme", issuer.Issuer()+"/{kid}", jwks.SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	c.Watch(metrics.Watched{Sources: client.Sources})
	scrape(t, c).want(t, series{`keyturn_jwks_sources{state="fresh"}`: 0, `keyturn_jwks_sources{state="cold"}`: 0})
	for _, kid := range []string{"one", "two"} {
		if err := source.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: kid}); err != nil {
			t.Fatal(err)
		}
	}
	all := scrape(t, c)
	all.want(t, series{`keyturn_jwks_sources{state="fresh"}`: 2})
	if all[`keyturn_jwks_oldest_fetch_timestamp_seconds`] == 0 {
		t.Error("the sources have no date")
	}
}

var listSynced = time.Unix(1_900_000_000, 500e6)

// listState is the state of a list of revocations that is in doubt.
func listState() (metrics.RevocationsState, bool) {
	return metrics.RevocationsState{Entries: 42, Synced: listSynced, InDoubt: true, Unreadable: 3, Forged: 4, Restored: 5, Over: 6, Disputed: 7}, true
}

func TestThePageShowsTheListOfRevocations(t *testing.T) {
	c := metrics.New(metrics.Config{})
	for name := range scrape(t, c) {
		if strings.HasPrefix(name, "keyturn_revocation") {
			t.Errorf("%s is there without a list", name)
		}
	}
	c.Watch(metrics.Watched{Revocations: func() (metrics.RevocationsState, bool) { return metrics.RevocationsState{}, false }})
	if _, ok := scrape(t, c)["keyturn_revocation_ready"]; ok {
		t.Error("a list that is not there has series")
	}
	c.Watch(metrics.Watched{Revocations: listState})
	got := scrape(t, c)
	for name, want := range map[string]float64{
		"keyturn_revocation_entries": 42, "keyturn_revocation_ready": 0, "keyturn_revocation_in_doubt": 1,
		"keyturn_revocation_last_sync_timestamp_seconds": 1_900_000_000.5, "keyturn_revocation_unreadable_groups": 3,
		`keyturn_revocation_alarms_total{kind="forged"}`: 4, `keyturn_revocation_alarms_total{kind="restored"}`: 5,
		`keyturn_revocation_alarms_total{kind="over"}`: 6, `keyturn_revocation_alarms_total{kind="disputed"}`: 7,
	} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
}
