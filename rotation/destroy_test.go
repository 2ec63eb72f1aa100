package rotation_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// fieldsOf returns the names of the fields of acme's ring in the store, sorted.
func fieldsOf(c *rotationtest.Cluster) (names []string) {
	for field := range c.Ring("acme") {
		names = append(names, field)
	}
	slices.Sort(names)
	return names
}

// One change destroys a ring. It needs no rotator, and no field is left but what ends trust.
func TestDestroy(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		one, two := f.kid(1), f.kid(2)
		if _, err := f.rotator.Revoke(t.Context(), "acme", two); err != nil {
			t.Fatal(err)
		}
		look, err := f.rotator.Destroy(t.Context(), "acme", rotation.DryRun)
		if err != nil || !look.CommittedAt.IsZero() || !look.DestroyedAt.IsZero() || look.WorstCase.IsZero() || f.finds(one) != "found" {
			t.Fatalf("a dry run: %+v, %v", look, err)
		}
		receipt, err := f.rotator.Destroy(t.Context(), "acme")
		if err != nil || receipt.CommittedAt.IsZero() || receipt.DestroyedAt.IsZero() || receipt.WorstCase.Before(receipt.CommittedAt.Add(fast.SignFor+fast.MaxTokenTTL)) {
			t.Fatalf("%+v, %v", receipt, err)
		}
		if want := []string{"dead", "head", "x:" + two}; !slices.Equal(fieldsOf(f.cluster), want) {
			t.Errorf("the store has %q, want %q", fieldsOf(f.cluster), want)
		}
		if got := f.finds(one); got != "not found" {
			t.Errorf("the process that destroyed it finds the key: %s", got)
		}
		if acks, err := f.rotator.Await(t.Context(), receipt); err != nil || len(acks) != 1 || !acks[0].Applied || !acks[0].Holds {
			t.Errorf("%+v, %v", acks, err)
		}
		if _, err := f.signer.Sign(t.Context(), "acme", nil); !errors.Is(err, rotation.ErrNoSigner) {
			t.Errorf("it signs: %v", err)
		}
		if _, _, err := f.PublicKeys(t.Context(), "acme"); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("it publishes: %v", err)
		}
		if err := f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: one}); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("Refresh: %v", err)
		}
		if s, _ := f.Tenant("acme"); !s.Ready || !s.Ring.Dead || !s.Ring.DeadAt.Equal(receipt.DestroyedAt) || s.Ring.Lives != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// A ring of which a field cannot be opened is destroyed too, also one whose "dead" was garbled: else a person
// who can write to the store could keep it alive. Garbling that does no more than removing it.
func TestDestroyUnwhole(t *testing.T) {
	for _, field := range []string{"k:rubbish", "head", "gone", "dead"} {
		virtual(t, func(t *testing.T) {
			f := newFleet(t, fast)
			f.leave()
			f.cluster.EditRing("acme", func(fields map[string][]byte) { fields[field] = []byte("rubbish") })
			m := join(t, f.cluster, "m", func(c *rotation.Config) { c.OneShot = true })
			defer m.leave()
			_, err := m.rotator.Destroy(t.Context(), "acme")
			left := slices.DeleteFunc(fieldsOf(f.cluster), func(name string) bool { return name == field && name == "gone" })
			if err != nil || !slices.Equal(left, []string{"dead", "head"}) {
				t.Errorf("%s: %v; the store has %q", field, err, left)
			}
		})
	}
}

// How many lives have ended is told by the records where "dead" was garbled: a record is proof that the
// lives before its own have ended. A "dead" under another KEK, or of a newer keyturn, may be authentic and
// say more, so it is overwritten only with force.
func TestDestroyGarbledDead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		if _, err := f.rotator.Destroy(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.rotator.Create(t.Context(), "acme", fast, rotation.Again); err != nil {
			t.Fatal(err)
		}
		f.leave()
		newer := []byte("kt\xffD")
		f.cluster.EditRing("acme", func(fields map[string][]byte) { fields["dead"] = newer })
		m := join(t, f.cluster, "m", func(c *rotation.Config) { c.OneShot = true })
		_, err := m.rotator.Destroy(t.Context(), "acme")
		if !errors.Is(err, ring.ErrRefused) || !strings.Contains(err.Error(), "force") {
			t.Errorf("of a newer keyturn: %v", err)
		}
		if _, err := m.rotator.Destroy(t.Context(), "acme", rotation.Force); err != nil {
			t.Errorf("with force: %v", err)
		}
		m.leave()
		after := join(t, f.cluster, "after", func(c *rotation.Config) { c.OneShot = true })
		defer after.leave()
		if s, _ := after.Tenant("acme"); !s.Ring.Dead || s.Ring.Lives != 2 {
			t.Errorf("it was destroyed twice: %+v", s.Ring)
		}
	})
}

// Another ring of a destroyed name is of the next life, and so is one that is imported.
func TestCreateAgain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		imported := rotation.Imported{NoKID: true, Algorithm: keystore.HS256, Key: []byte("0123456789abcdef0123456789ABCDEF"), Longest: time.Hour}
		for life := 1; life < 4; life++ {
			if _, err := f.rotator.Destroy(t.Context(), "acme"); err != nil {
				t.Fatal(err)
			}
			_, err1 := f.rotator.Create(t.Context(), "acme", fast)
			_, err2 := f.rotator.Adopt(t.Context(), "acme", imported, fast, rotation.AdoptOptions{})
			if !errors.Is(err1, ring.ErrRefused) || !errors.Is(err2, ring.ErrRefused) {
				t.Errorf("life %d: create %v, adopt %v", life, err1, err2)
			}
			var err error
			if life%2 == 1 {
				_, err = f.rotator.Create(t.Context(), "acme", fast, rotation.Again)
			} else {
				_, err = f.rotator.Adopt(t.Context(), "acme", imported, fast, rotation.AdoptOptions{}, rotation.Again)
			}
			s, _ := f.Tenant("acme")
			if err != nil || s.Ring.Lives != life || s.Ring.Dead || len(s.Ring.Keys) != 2 || s.Ring.Keys[0].Life != life || s.Ring.Keys[1].Seq != 2 {
				t.Fatalf("life %d: %+v, %v", life, s.Ring, err)
			}
			if _, err := f.signer.Sign(t.Context(), "acme", nil); err != nil {
				t.Errorf("life %d: %v", life, err)
			}
			time.Sleep(time.Second)
		}
		if _, err := f.rotator.Create(t.Context(), "acme", fast, rotation.Again); !errors.Is(err, ring.ErrRefused) {
			t.Errorf("over a ring: %v", err)
		}
		if _, err := f.rotator.Destroy(t.Context(), "nobody"); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("no such tenant: %v", err)
		}
	})
}

// A token without kid, of a ring that was destroyed, cannot be judged by an instance that is cut off: the
// tenant may have another ring by now, begun with a key whose tokens have no kid. So that is no bad token
// (401) but an outage (503). In sync it is a bad one, until there is such a ring.
func TestDestroyedWithoutKID(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		b := join(t, f.cluster, "b")
		defer b.leave()
		time.Sleep(3 * time.Second)
		if _, err := f.rotator.Destroy(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		look := func() error { _, err := b.Lookup(keystore.ID{Tenant: "acme"}, keystore.HS256); return err }
		if err := look(); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("in sync: %v", err)
		}
		b.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(5 * time.Second)
		imported := rotation.Imported{NoKID: true, Algorithm: keystore.HS256, Key: []byte("0123456789abcdef0123456789ABCDEF"), Longest: time.Hour}
		if _, err := f.rotator.Adopt(t.Context(), "acme", imported, fast, rotation.AdoptOptions{}, rotation.Again); err != nil {
			t.Fatal(err)
		}
		if err := look(); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("cut off: %v", err)
		}
		b.conn.SetFaults(rotationtest.Faults{})
		time.Sleep(5 * time.Second)
		if err := look(); err != nil {
			t.Errorf("with the next ring: %v", err)
		}
	})
}
