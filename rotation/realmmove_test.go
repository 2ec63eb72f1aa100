package rotation_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// inRealm is a member's realm, and others that it opens too.
func inRealm(realm string, others ...string) func(*rotation.Config) {
	return func(c *rotation.Config) { c.Realm, c.OtherRealms = realm, others }
}

// TestRealmMoveHasNoGap moves a ring from no realm to a realm while two instances run. Each is
// restarted in turn, none is out of sync afterwards, and every key that verified does. In the end
// nothing opens in the old realm.
func TestRealmMoveHasNoGap(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		members := map[string]*member{"a": join(t, cluster, "a", trusting), "b": nil}
		if _, err := members["a"].rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		members["b"] = join(t, cluster, "b", trusting)
		defer func() { members["a"].leave(); members["b"].leave() }()
		first, second := members["a"].kid(1), members["a"].kid(2)
		if _, err := members["a"].rotator.Revoke(t.Context(), "acme", second); err != nil {
			t.Fatal(err)
		}
		restart := func(name string, in func(*rotation.Config)) *member {
			t.Helper()
			members[name].leave()
			members[name] = join(t, cluster, name, trusting, in)
			time.Sleep(time.Second)
			for _, m := range members {
				_, revoked := m.Lookup(keystore.ID{Tenant: "acme", KID: second}, fast.Algorithm)
				s := m.Status()
				if s.Counts.Forged+s.Counts.Undone+s.Counts.Older > 0 {
					t.Errorf("with %s restarted, an alarm was raised: %+v", name, s.Counts)
				}
				if !s.Fresh || m.signs() != nil || m.finds(first) != "found" || !errors.Is(revoked, keystore.ErrRevoked) {
					t.Fatalf("with %s restarted: %v, %v, %s, %v", name, s.Err, m.signs(), m.finds(first), revoked)
				}
			}
			return members[name]
		}
		restart("a", inRealm("", "live"))
		restart("b", inRealm("", "live"))
		a := restart("a", inRealm("live", ""))
		before := cluster.Ring("acme")
		if _, _, err := a.rotator.Rekey(t.Context(), "acme"); !errors.Is(err, ring.ErrRefused) || !strings.Contains(err.Error(), `in realm "live" first: b; `) {
			t.Errorf("a move while b is in the old realm: %v, want refused", err)
		}
		restart("b", inRealm("live", ""))
		report, _, err := a.rotator.Rekey(t.Context(), "acme")
		if err != nil || !report.Changed || len(report.Others) != 1 || len(report.OldKeys) > 0 {
			t.Fatalf("move: %+v, %v", report, err)
		}
		for field, value := range cluster.Ring("acme") { // records are bound through their tenant key
			if same := string(value) == string(before[field]); same != strings.HasPrefix(field, "k:") && !strings.HasPrefix(field, "p:") {
				t.Errorf("%s is the same: %v", field, same)
			}
		}
		if report, _, err := a.rotator.Rekey(t.Context(), "acme"); err != nil || report.Changed || len(report.Others) > 0 {
			t.Errorf("moved again: %+v, %v", report, err)
		}
		restart("a", inRealm("live"))
		restart("b", inRealm("live"))
		if err := openIn(t, cluster, ""); !errors.Is(err, rotation.ErrWrongRealm) {
			t.Errorf("in the old realm: %v", err)
		}
	})
}

// openIn opens a keyring in a realm, and returns the error.
func openIn(t *testing.T, cluster *rotationtest.Cluster, realm string, others ...string) error {
	t.Helper()
	k, err := rotation.Open(t.Context(), cluster.Connect("other"), rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, OneShot: true, Realm: realm, OtherRealms: others})
	if err == nil {
		err = errors.Join(k.Close(t.Context()))
	}
	return err
}

// A forced move leaves an instance of the old realm behind: it keeps what it has, merges nothing, and
// hears of no revocation.
func TestForcedRealmMove(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		old := join(t, cluster, "old", trusting)
		defer old.leave()
		if _, err := old.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		m := join(t, cluster, "new", trusting, inRealm("live", ""))
		defer m.leave()
		if report, _, err := m.rotator.Rekey(t.Context(), "acme", rotation.Force); err != nil || !report.Changed {
			t.Fatalf("a forced move: %+v, %v", report, err)
		}
		moved := cluster.Ring("acme")
		time.Sleep(5 * time.Second) // longer than SignFor
		s, _ := old.Tenant("acme")
		if !errors.Is(s.Err, rotation.ErrWrongRealm) || old.finds(m.kid(1)) != "found" || old.signs() == nil {
			t.Errorf("the old instance: %v, %s, %v", s.Err, old.finds(m.kid(1)), old.signs())
		}
		if m.signs() != nil || m.finds(m.kid(1)) != "found" {
			t.Errorf("the new instance: %v", m.signs())
		}
		for _, one := range []*member{old, m} { // what is left of the other realm is no forgery
			if c := one.Status().Counts; c.Forged+c.Undone+c.Older > 0 {
				t.Errorf("an alarm was raised: %+v", c)
			}
		}
		for field, value := range cluster.Ring("acme") {
			if string(value) != string(moved[field]) {
				t.Errorf("%s was written after the move", field)
			}
		}
	})
}

// A ring that moves to another realm keeps its tenant key: the KEK is the same, and a new tenant key
// would protect nothing.
func TestMovedRingKeepsItsTenantKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		create(t, cluster, "acme", fast)
		m := join(t, cluster, "a", trusting, inRealm("live", ""))
		defer m.leave()
		if _, _, err := m.rotator.Rekey(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		defer m.run()()
		time.Sleep(2 * fast.Every)
		if n := tenantKeys(cluster); n != 1 || m.signs() != nil {
			t.Errorf("%d tenant keys two rotations after the move, want 1: %v", n, m.signs())
		}
	})
}

// A ring without a record still has facts, such as a revocation, and nothing may be left of it that
// needs the old realm. The instances are asked here too.
func TestMoveOfARingWithoutRecords(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		create(t, cluster, "acme", fast)
		cluster.EditRing("acme", func(fields map[string][]byte) {
			for field := range fields {
				if strings.HasPrefix(field, "k:") {
					delete(fields, field)
				}
			}
		})
		old := join(t, cluster, "old", trusting)
		time.Sleep(time.Second)
		m := join(t, cluster, "new", trusting, inRealm("live", ""))
		defer m.leave()
		if _, _, err := m.rotator.Rekey(t.Context(), "acme"); !errors.Is(err, ring.ErrRefused) || !strings.Contains(err.Error(), "first: old; ") {
			t.Errorf("a move while an instance is in the old realm: %v, want refused", err)
		}
		old.leave()
		report, _, err := m.rotator.Rekey(t.Context(), "acme", rotation.DryRun)
		if err != nil || report.Changed || len(report.Others) != 1 {
			t.Errorf("a look: %+v, %v", report, err)
		}
		if report, _, err := m.rotator.Rekey(t.Context(), "acme"); err != nil || !report.Changed {
			t.Errorf("a move: %+v, %v", report, err)
		}
		if report, _, err := m.rotator.Rekey(t.Context(), "acme", rotation.DryRun); err != nil || len(report.Others) > 0 {
			t.Errorf("after it: %+v, %v", report, err)
		}
		if _, _, err := m.rotator.Rekey(t.Context(), "nobody"); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("of a tenant without a ring: %v", err)
		}
	})
}

// KEKs that go back to an older one are a change of KEKs too: no ring is sealed under a KEK that a
// live instance lacks, even if its tenant key was made under that KEK long ago.
func TestRekeyBackToTheFirstKEK(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := join(t, cluster, "a", trusting, with(keksOf(t, "first")))
		defer a.leave()
		if _, err := a.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		setKEKs(t, a, "second", "first")
		time.Sleep(time.Second)
		if _, _, err := a.rotator.Rekey(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		b := join(t, cluster, "b", trusting, with(keksOf(t, "second")))
		defer b.leave()
		setKEKs(t, a, "first", "second")
		time.Sleep(time.Second)
		if _, _, err := a.rotator.Rekey(t.Context(), "acme"); !errors.Is(err, ring.ErrRefused) || !strings.Contains(err.Error(), "first: b; ") {
			t.Errorf("back to the first KEK, which b lacks: %v, want refused", err)
		}
	})
}
