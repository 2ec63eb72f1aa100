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
	return map[string]lostChange{
		"create": {func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Create(ctx, "new", fast)
		}, func(receipt rotation.Receipt) string { return "k:" + receipt.Minted }},
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
