package rotation_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/keystoretest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

func TestFleetRotatesItsKeys(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		first := join(t, cluster, "a", func(c *rotation.Config) { c.TrustFirstRead = true })
		defer first.leave()
		if _, err := first.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		if got := first.ring(); got != "1=signing* 2=pending" {
			t.Fatalf("after Create: %s", got)
		}
		if _, err := first.signer.Sign(t.Context(), "acme", nil); err != nil {
			t.Fatal(err)
		}
		second := join(t, cluster, "b")
		if _, err := second.signer.Sign(t.Context(), "acme", nil); !errors.Is(err, rotation.ErrFenced) {
			t.Errorf("a member in doubt signs: %v", err)
		}
		if err := second.Ready("acme"); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("a member in doubt is ready: %v", err)
		}
		if err := second.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		third := join(t, cluster, "c")
		if s := third.Status(); !s.Ready || !s.Fresh {
			t.Errorf("a member that others vouch for: %+v", s)
		}
		if err := errors.Join(second.Ready("acme"), third.Ready("acme")); err != nil {
			t.Errorf("they are ready: %v", err)
		}
		if err := third.Ready("globex"); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("a tenant that it does not hold: %v", err)
		}
		others := []*member{second, third}
		for _, m := range others {
			defer m.leave()
			defer m.run()()
		}
		fleet := append(others, first)
		signed := make(map[string]bool)
		for range 400 {
			time.Sleep(100 * time.Millisecond)
			for _, m := range fleet {
				token, err := m.signer.Sign(t.Context(), "acme", nil)
				if err != nil {
					t.Fatalf("%v: %v (%s)", time.Now(), err, m.ring())
				}
				kid := kidOf(t, token)
				signed[kid] = true
				for _, v := range fleet {
					keys, err := v.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.HS256)
					if err != nil || !keys[0].Verify([]byte(token[:strings.LastIndexByte(token, '.')]), sigOf(t, token)) {
						t.Fatalf("%v: %v", time.Now(), err)
					}
				}
			}
		}
		if len(signed) < 6 {
			t.Errorf("%d keys have signed in 40 s, want one every 6 s", len(signed))
		}
		s, _ := first.Tenant("acme")
		if n := len(s.Ring.Keys); n > 5 {
			t.Errorf("%d keys are left: nothing collects them", n)
		}
	})
}

// The contract of every KeyStore.
func TestKeyringKeepsContract(t *testing.T) {
	keystoretest.Run(t, func(t *testing.T) keystoretest.Subject {
		m := newFleet(t, ring.Policy{}).member
		t.Cleanup(m.leave)
		return keystoretest.Subject{
			Store: m.Keyring, Tenant: "acme",
			Add: func(t *testing.T) keystoretest.Signing {
				id, sign, err := m.rotator.AddKey(t.Context(), "acme")
				if err != nil {
					t.Fatal(err)
				}
				return keystoretest.Signing{ID: id, Algorithm: keystore.HS256, Sign: sign}
			},
			Reload: func(t *testing.T) {
				if err := m.Reload(t.Context(), "acme"); err != nil {
					t.Fatal(err)
				}
			},
			Remove: func(t *testing.T, id keystore.ID) {
				if err := errorOf(m.rotator.Revoke(t.Context(), "acme", id.KID)); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}
