package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A lostChange is a change that the store loses, and the field of the ring that shows it.
type lostChange struct {
	make  func(context.Context, *rotation.Rotator) (rotation.Receipt, error)
	shown func(rotation.Receipt) string
}

func lostChanges() map[string]lostChange {
	secret := []byte("the secret of a program from before")
	kid := func(name string) func(rotation.Receipt) string {
		return func(rotation.Receipt) string { return name }
	}
	minted := func(receipt rotation.Receipt) string { return "k:" + receipt.Minted }
	return map[string]lostChange{
		"create": {func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Create(ctx, "new", fast)
		}, minted},
		"policy": {func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.SetPolicy(ctx, "acme", fast)
		}, minted},
		"adopt": {func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Adopt(ctx, "new", rotation.Imported{KID: "old", Algorithm: keystore.HS256, Key: secret, Longest: time.Hour}, fast, rotation.AdoptOptions{})
		}, kid("k:old")},
		"accept": {func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Accept(ctx, "acme", []ring.ForeignKey{{KID: "partner", Algorithm: keystore.HS256, Key: secret}}, time.Now().Add(time.Hour))
		}, kid("v:partner")},
	}
}

// TestChangeThatTheStoreLosesAtOnce: the store loses a change right after it has made it, before any instance has read
// it: the process that made it alone knows it. That process puts it back, and Await says so.
func TestChangeThatTheStoreLosesAtOnce(t *testing.T) {
	for what, change := range lostChanges() {
		for _, all := range []bool{false, true} {
			for _, oneShot := range []bool{false, true} {
				t.Run(fmt.Sprint(what, ", all tenants: ", all, ", a command: ", oneShot), func(t *testing.T) {
					virtual(t, func(t *testing.T) { loseAtOnce(t, change, all, oneShot) })
				})
			}
		}
	}
}

func loseAtOnce(t *testing.T, change lostChange, all, oneShot bool) {
	f := newFleet(t, fast)
	defer f.leave()
	time.Sleep(5 * time.Second)
	store := &faultyStore{Store: f.cluster.Connect("w")}
	k := openStore(t, store, func(c *rotation.Config) {
		if c.OneShot = oneShot; oneShot {
			c.Poll, c.Deadline = 0, 0
		}
		if c.Tenants = []string{"acme", "new"}; all {
			c.Tenants = nil
		}
	})
	defer k.Close(t.Context())
	time.Sleep(5 * time.Second)
	r, err := rotation.NewRotator(k)
	if err != nil {
		t.Fatal(err)
	}
	dump := f.cluster.Dump()
	store.wrote = func() {
		store.wrote = nil
		f.cluster.Restore(dump)
	}
	receipt, err := change.make(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := r.Await(waiting, receipt); !errors.Is(err, ring.ErrUndone) {
		t.Errorf("Await: %v", err)
	}
	if field := change.shown(receipt); len(f.cluster.Ring(receipt.Tenant)[field]) == 0 {
		t.Errorf("the store lacks %s", field)
	}
}

// TestNewRingOfARemovedName: a ring is destroyed, or one of its keys is revoked, and a person removes the ring from
// the store. The log still tells of it. A new ring of that name is another one: it lives, and its imported key serves,
// also if the process that makes it has not read the log, or reads both in one reply.
func TestNewRingOfARemovedName(t *testing.T) {
	for what, end := range map[string]func(*fleet) error{
		"destroyed": func(f *fleet) error { return errorOf(f.rotator.Destroy(context.Background(), "acme")) },
		"revoked": func(f *fleet) error {
			return errorOf(f.rotator.Revoke(context.Background(), "acme", f.kid(1), rotation.Force))
		},
	} {
		for _, oneShot := range []bool{false, true} {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprint(what, ", a command: ", oneShot, ", late: ", late), func(t *testing.T) {
					virtual(t, func(t *testing.T) { makeAgain(t, end, oneShot, late) })
				})
			}
		}
	}
}

func makeAgain(t *testing.T, end func(*fleet) error, oneShot, late bool) {
	f := newFleet(t, fast)
	time.Sleep(5 * time.Second)
	one := f.kid(1)
	open := func() *member {
		return join(t, f.cluster, "new", trusting, of(), func(c *rotation.Config) {
			if c.OneShot = oneShot; oneShot {
				c.Poll, c.Deadline = 0, 0
			}
		})
	}
	f.conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
	var m *member
	before := f.cluster.Ring("acme")
	if late { // it has not heard yet of what comes now
		f.cluster.DeleteRing("acme")
		m = open()
		m.conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
		f.cluster.Connect("x").Write(t.Context(), rotation.Change{Tenant: "acme", Set: before, Op: "list", Nonce: "n"})
	}
	if err := end(f); err != nil {
		t.Fatal(err)
	}
	f.leave()
	f.cluster.DeleteRing("acme")
	if m == nil {
		m = open()
	}
	defer m.leave()
	adopted := rotation.Imported{KID: one, Algorithm: keystore.HS256, Key: []byte("the secret of a program from before"), Longest: time.Hour}
	if _, err := m.rotator.Adopt(t.Context(), "acme", adopted, fast, rotation.AdoptOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	if s, err := m.Tenant("acme"); err != nil || len(s.Ring.Keys) < 2 || s.Ring.Dead || s.Ring.Keys[0].KID != one {
		t.Errorf("%+v, %v", s.Ring, err)
	}
	if got := m.finds(one); got != "found" {
		t.Errorf("the imported key: %s", got)
	}
}
