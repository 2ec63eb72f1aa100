package rotation_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// TestWhileStoreIsAway follows the table "When Redis is away" of docs/rotation.md, row by row.
func TestWhileStoreIsAway(t *testing.T) {
	for _, cut := range []rotationtest.Cut{rotationtest.Refused, rotationtest.BlackHole} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				time.Sleep(4 * time.Second)
				f.conn.SetFaults(rotationtest.Faults{Cut: cut})
				one, two := f.kid(1), f.kid(2)
				good := f.Status().LastGood
				until := func(d time.Duration) { time.Sleep(time.Until(good.Add(d))) }

				until(fast.Freshness - time.Millisecond)
				if s := f.Status(); !s.Fresh || !s.Ready || f.finds("new") != "not found" {
					t.Errorf("up to F: %+v, an unknown kid is %s", s, f.finds("new"))
				}
				until(fast.Freshness + time.Millisecond)
				if s := f.Status(); s.Fresh || !s.Ready || s.Err == nil || f.finds("new") != "unavailable" {
					t.Errorf("beyond F: %+v, an unknown kid is %s", s, f.finds("new"))
				}
				if err := f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "new"}); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrNotFound) {
					t.Errorf("Refresh: %v", err)
				}
				until(fast.SignFor - time.Millisecond)
				token, err := f.signer.Sign(t.Context(), "acme", nil)
				if err != nil || kidOf(t, token) != two {
					t.Errorf("the scheduled switch did not happen: %v, %s", err, f.ring())
				}
				until(fast.SignFor + time.Millisecond)
				if _, err := f.signer.Sign(t.Context(), "acme", nil); !errors.Is(err, rotation.ErrFenced) {
					t.Errorf("beyond SignFor: %v, want ErrFenced", err)
				}
				if s := f.Status(); s.Ready {
					t.Errorf("beyond SignFor: %+v", s)
				}
				until(fast.SignFor + fast.MaxTokenTTL + fast.Leeway - time.Millisecond)
				// The first may have been dropped, for all that is known: 401 would be a guess.
				if f.finds(one) != "unavailable" || f.finds(two) != "found" {
					t.Errorf("known keys are %s and %s", f.finds(one), f.finds(two))
				}
				until(fast.SignFor + fast.MaxTokenTTL + fast.Leeway)
				if got := f.finds(two); got != "unavailable" {
					t.Errorf("when nothing that they signed can live any more the key is %s, want unavailable", got)
				}
				f.conn.SetFaults(rotationtest.Faults{})
				if err := f.WaitReady(t.Context()); err != nil || f.finds(two) != "found" {
					t.Errorf("afterwards: %v, the key is %s", err, f.finds(two))
				}
			})
		})
	}
}

// What is not known to be absent is unavailable, whoever is asked and however.
func TestUnknownIsUnavailable(t *testing.T) {
	ask := map[string]func(*member, string) error{
		"Lookup": func(m *member, kid string) error {
			_, err := m.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.HS256)
			return err
		},
		"Refresh": func(m *member, kid string) error {
			return m.Refresh(m.t.Context(), keystore.ID{Tenant: "acme", KID: kid})
		},
	}
	want := func(t *testing.T, m *member, want error) {
		t.Helper()
		for how, ask := range ask {
			for _, kid := range []string{"", "nobody"} {
				err := ask(m, kid)
				if !errors.Is(err, want) || errors.Is(err, keystore.ErrNotFound) != (want == keystore.ErrNotFound) {
					t.Errorf("%s of kid %q: %v, want %v", how, kid, err, want)
				}
			}
		}
	}
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting)
		defer m.leave()
		want(t, m, keystore.ErrUnavailable) // there is no ring
		if _, err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		want(t, m, keystore.ErrNotFound)
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(time.Minute)
		want(t, m, keystore.ErrUnavailable)
		m.conn.SetFaults(rotationtest.Faults{})
	})
}

// Whoever may have missed something changes nothing before it has caught up.
func TestInstanceOutOfSyncChangesNoRing(t *testing.T) {
	for _, tt := range []struct {
		name string
		away func(f *fleet, store *faultyStore, conn *rotationtest.Conn) *rotation.Keyring
	}{
		{"cut off for longer than SignFor", func(f *fleet, store *faultyStore, conn *rotationtest.Conn) *rotation.Keyring {
			k := openStore(f.t, store, trusting)
			conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
			time.Sleep(fast.SignFor + time.Second)
			conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
			return k
		}},
		{"the ring could not be read at the start", func(f *fleet, store *faultyStore, _ *rotationtest.Conn) *rotation.Keyring {
			store.load = func(tenant string) error {
				if tenant == "acme" {
					return errors.New("NOPERM")
				}
				return nil
			}
			k := openStore(f.t, store, of("acme", "globex"))
			store.load = nil
			return k
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				time.Sleep(4 * time.Second)
				conn := f.cluster.Connect("x")
				f.leave() // nobody is left to vouch
				f.cluster.Failover(0)
				k := tt.away(f, &faultyStore{Store: conn}, conn)
				defer k.Close(t.Context())
				r, err := rotation.NewRotator(k)
				if err != nil {
					t.Fatal(err)
				}
				receipt, err := r.Rotate(t.Context(), "acme")
				if s, _ := k.Tenant("acme"); !errors.Is(err, keystore.ErrUnavailable) || !s.InDoubt {
					t.Errorf("it has promoted %q, minted %q: %v (in doubt: %v)", receipt.Promoted, receipt.Minted, err, s.InDoubt)
				}
			})
		})
	}
}
