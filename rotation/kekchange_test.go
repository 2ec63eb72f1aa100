package rotation_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// keksOf returns KEKs, the primary first, each made of one letter and its name.
func keksOf(t *testing.T, names ...string) *rotation.KEKs {
	t.Helper()
	keys := make([][]byte, len(names))
	for i, name := range names {
		keys[i] = []byte(fmt.Sprintf("%-31s!", "key-encryption key "+name))
	}
	keks, err := rotation.NewKEKs(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return keks
}

func with(keks *rotation.KEKs) func(*rotation.Config) {
	return func(c *rotation.Config) { c.KEKs = keks }
}

// setKEKs changes the KEKs of a member that runs.
func setKEKs(t *testing.T, m *member, names ...string) {
	t.Helper()
	if err := m.SetKEKs(keksOf(t, names...)); err != nil {
		t.Fatal(err)
	}
}

// TestKEKChangeHasAnEnd goes through a KEK change step by step: no instance is ever out of sync, and
// in the end nothing needs the old KEK, nor does the old KEK open anything that was minted since
// (finding 1: new keys were under the old tenant key for ever).
func TestKEKChangeHasAnEnd(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := join(t, cluster, "a", trusting, with(keksOf(t, "old")))
		defer a.leave()
		if _, err := a.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		b := join(t, cluster, "b", trusting, with(keksOf(t, "old")))
		defer b.leave()
		defer a.run()()
		wait := func() {
			t.Helper()
			time.Sleep(3 * time.Second)
			for _, m := range []*member{a, b} {
				if s := m.Status(); !s.Fresh || m.signs() != nil {
					t.Fatalf("not in sync: %v", s.Err)
				}
			}
		}
		for _, step := range [][]string{{"old", "new"}, {"new", "old"}} {
			setKEKs(t, a, step...)
			wait()
			if _, _, err := a.rotator.Rekey(t.Context(), "acme"); step[0] == "new" && !errors.Is(err, ring.ErrRefused) {
				t.Errorf("rekey while b has another primary: %v, want refused", err)
			}
			setKEKs(t, b, step...)
			wait()
		}
		before := cluster.Dump()
		report, _, err := a.rotator.Rekey(t.Context(), "acme")
		if err != nil || !report.Changed || len(report.Others) == 0 {
			t.Fatalf("rekey: %+v, %v", report, err)
		}
		report, _, err = a.rotator.Rekey(t.Context(), "acme", rotation.DryRun)
		if err != nil || report.Changed || len(report.Others) > 0 {
			t.Errorf("after it: %+v, %v", report, err)
		}
		wait()
		setKEKs(t, a, "new")
		setKEKs(t, b, "new")
		time.Sleep(3 * fast.Every)
		wait()
		opensNothing(t, cluster, before)
	})
}

// opensNothing checks that a person with the old KEK, a dump of before the KEK change and a dump of
// now opens no key that signs now.
func opensNothing(t *testing.T, cluster *rotationtest.Cluster, before rotationtest.Dump) {
	t.Helper()
	now := cluster.Ring("acme")
	old := rotationtest.NewCluster(rotationtest.ClusterConfig{})
	old.Restore(before)
	for field, value := range old.Ring("acme") { // all tenant keys that the old KEK opens
		if strings.HasPrefix(field, "tk:") {
			now[field] = value
		}
	}
	if kids := rotation.OpenableKIDs(keksOf(t, "old"), "acme", now); len(kids) > 0 {
		t.Errorf("the old KEK opens %q", kids)
	}
}

// While a new KEK is rolled out, half of the fleet has it first. No mint makes a tenant key then,
// whoever mints (flip-flop, 13 j).
func TestNoTenantKeyWhileFleetDisagrees(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := join(t, cluster, "a", trusting, with(keksOf(t, "old", "new")))
		defer a.leave()
		if _, err := a.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		b := join(t, cluster, "b", trusting, with(keksOf(t, "new", "old")))
		defer b.leave()
		stopA, stopB := a.run(), b.run()
		time.Sleep(5 * fast.Every)
		if n := tenantKeys(cluster); n != 1 {
			t.Errorf("%d tenant keys after five periods in which the fleet disagreed, want 1", n)
		}
		setKEKs(t, a, "new", "old")
		time.Sleep(3 * fast.Every)
		if n := tenantKeys(cluster); n != 1 && n != 2 {
			t.Errorf("%d tenant keys after the roll-out, want the new one, and the old one as long as a key is under it", n)
		}
		stopA()
		stopB()
		report, _, err := a.rotator.Rekey(t.Context(), "acme", rotation.DryRun)
		if err != nil || len(report.OldKeys) > 0 {
			t.Errorf("three periods after the roll-out these keys are under the old tenant key: %q, %v", report.OldKeys, err)
		}
	})
}

func tenantKeys(cluster *rotationtest.Cluster) (n int) {
	for field := range cluster.Ring("acme") {
		if strings.HasPrefix(field, "tk:") {
			n++
		}
	}
	return n
}

// V2: the operator's KEK file has the new KEK first, the fleet has the old one alone. The revocation
// is sealed under the KEK of the ring, so that every instance can read it.
func TestRevocationIsSealedForFleet(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := join(t, cluster, "a", trusting, with(keksOf(t, "old")), of("acme", "globex"))
		defer a.leave()
		if _, err := a.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		admin := join(t, cluster, "admin", with(keksOf(t, "new", "old")), of("acme", "globex"), once)
		defer admin.leave()
		one := a.kid(1)
		receipt, err := admin.rotator.Revoke(t.Context(), "acme", one)
		if err != nil {
			t.Fatal(err)
		}
		acks, err := admin.rotator.Await(t.Context(), receipt)
		if err != nil || len(acks) != 1 || !acks[0].Applied || acks[0].Instance != "a" {
			t.Errorf("acks: %+v, %v", acks, err)
		}
		if got := a.finds(one); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
		_, err = admin.rotator.Create(t.Context(), "globex", fast)
		if refused := wantRefused(t, err); refused == nil || !strings.Contains(refused.Reason, "a") {
			t.Errorf("a ring that the fleet cannot open: %v", err)
		}
	})
}

// SetKEKs keeps the last good ones.
func TestSetKEKsRefusesToLoseAKEK(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := join(t, cluster, "a", trusting, with(keksOf(t, "old")))
		defer a.leave()
		if _, err := a.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		if err := a.SetKEKs(keksOf(t, "new")); !errors.Is(err, rotation.ErrWrongKEK) || !strings.Contains(err.Error(), `"acme"`) {
			t.Errorf("a KEK that is still needed was dropped: %v", err)
		}
		if err := a.SetKEKs(nil); err == nil {
			t.Error("no KEKs were taken")
		}
		if _, err := a.rotator.Rotate(t.Context(), "acme", rotation.Force); err != nil {
			t.Errorf("the KEKs were changed all the same: %v", err)
		}
	})
}

// A new KEK that is given to a running instance opens at once what it could not open before.
func TestSetKEKsOpensRings(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := join(t, cluster, "a", trusting, with(keksOf(t, "old")), of("acme", "globex"))
		defer a.leave()
		if _, err := a.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		other := join(t, cluster, "other", with(keksOf(t, "new")), of("globex"), once)
		cluster.ForgeAck(rotation.BucketOf("globex"), "a", nil) // otherwise the ring is not made
		if _, err := other.rotator.Create(t.Context(), "globex", fast); err != nil {
			t.Fatal(err)
		}
		other.leave()
		time.Sleep(time.Second)
		if s, _ := a.Tenant("globex"); !errors.Is(s.Err, rotation.ErrWrongKEK) {
			t.Errorf("a ring under a KEK that it lacks: %v", s.Err)
		}
		setKEKs(t, a, "old", "new")
		synctest.Wait()
		if s, _ := a.Tenant("globex"); !s.Fresh {
			t.Errorf("with the KEK: %v", s.Err)
		}
	})
}

// Another realm under the same KEK is another world, and is told by its name.
func TestRealms(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		realm := func(name string) func(*rotation.Config) {
			return func(c *rotation.Config) { c.Realm = name }
		}
		prod := join(t, cluster, "prod", trusting, realm("production"))
		defer prod.leave()
		if _, err := prod.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		_, err := rotation.Open(t.Context(), cluster.Connect("staging"), rotation.Config{KEKs: testKEK, Realm: "staging", Tenants: []string{"acme"}})
		if !errors.Is(err, rotation.ErrWrongRealm) || !errors.Is(err, rotation.ErrWrongKEK) {
			t.Errorf("a ring of another realm: %v", err)
		}
		if _, err := rotation.Open(t.Context(), cluster.Connect("x"), rotation.Config{KEKs: testKEK, Realm: strings.Repeat("r", 65)}); err == nil {
			t.Error("a realm of 65 bytes was taken")
		}
		// Fields of staging, written into production, are no news and no absence.
		staging := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		create := join(t, staging, "s", trusting, realm("staging"))
		if _, err := create.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		create.leave()
		cluster.EditRing("acme", func(fields map[string][]byte) {
			for field, value := range staging.Ring("acme") {
				fields[field] = value
			}
		})
		time.Sleep(fast.Freshness)
		if got := prod.finds(prod.kid(1)); got != "found" {
			t.Errorf("the key of production is %s", got)
		}
		if s, _ := prod.Tenant("acme"); !errors.Is(s.Err, rotation.ErrWrongRealm) {
			t.Errorf("the strange fields are not told: %v", s.Err)
		}
	})
}

// A person who has the old KEK, and a dump from then, has the secrets that were accepted under it too, and
// can sign with them. A public key is not secret, and a revoked secret signs nothing.
func TestRekeyReportsAcceptedSecrets(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting, with(keksOf(t, "old")))
		defer m.leave()
		if _, err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		m.accept(day, theirs(1, "secret"), theirs(2, "revoked"), ring.ForeignKey{KID: "public", Algorithm: keystore.ES256, Key: private.Public()})
		if _, err := m.rotator.Revoke(t.Context(), "acme", "revoked"); err != nil {
			t.Fatal(err)
		}
		setKEKs(t, m, "new", "old")
		time.Sleep(time.Second)
		report, _, err := m.rotator.Rekey(t.Context(), "acme")
		if err != nil || !report.Changed || len(report.OldKeys) != 3 || !slices.Contains(report.OldKeys, "secret") {
			t.Errorf("%v: old keys %q, want the two of the ring and the secret", err, report.OldKeys)
		}
	})
}

// A ring that was destroyed after keys of it were collected can be sealed again: else the old KEK could
// never go.
func TestRekeyOfADestroyedRing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting, with(keksOf(t, "old")))
		defer m.leave()
		if _, err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		stop := m.run()
		for end := time.Now().Add(2 * day); !slices.Contains(fieldsOf(cluster), "gone"); time.Sleep(time.Minute) {
			if time.Now().After(end) {
				t.Fatalf("no key was collected: %q", fieldsOf(cluster))
			}
		}
		stop()
		if _, err := m.rotator.Destroy(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		setKEKs(t, m, "new", "old")
		time.Sleep(time.Second)
		_, receipt, err := m.rotator.Rekey(t.Context(), "acme")
		if err == nil {
			_, err = m.rotator.Await(t.Context(), receipt)
		}
		if err != nil {
			t.Fatal(err)
		}
		if report, _, err := m.rotator.Rekey(t.Context(), "acme", rotation.DryRun); err != nil || len(report.Others) > 0 {
			t.Errorf("%v: under other KEKs are %q", err, report.Others)
		}
		time.Sleep(time.Minute)
		setKEKs(t, m, "new")
		if s, err := m.Tenant("acme"); err != nil || !s.Ring.Dead || s.Ring.Lives != 1 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
