package rotation_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A dry run says what a change would cost, or why it is refused, and changes nothing.
func TestDryRun(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(200 * time.Millisecond)
		one, two := f.kid(1), f.kid(2)
		before, ops := f.cluster.Ring("acme"), f.ops()
		wantRefused(t, errorOf(f.rotator.Rotate(t.Context(), "acme", rotation.DryRun)))
		for name, change := range map[string]func(...rotation.Option) (rotation.Receipt, error){
			"rotate": func(o ...rotation.Option) (rotation.Receipt, error) {
				return f.rotator.Rotate(t.Context(), "acme", o...)
			},
			"promote": func(o ...rotation.Option) (rotation.Receipt, error) {
				return f.rotator.Promote(t.Context(), "acme", two, o...)
			},
			"revoke": func(o ...rotation.Option) (rotation.Receipt, error) {
				return f.rotator.Revoke(t.Context(), "acme", one, o...)
			},
		} {
			r, err := change(rotation.Force, rotation.DryRun)
			if err != nil || r.Minted != "" || !r.CommittedAt.IsZero() || r.Place != (rotation.Place{}) || r.TokensUntil.IsZero() {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			if revokes := name == "revoke"; (r.Revoked == one) != revokes || (r.Promoted == two) == revokes || r.NoSignerUntil.IsZero() == revokes || r.ConfirmedAt.IsZero() != revokes {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if !maps.EqualFunc(before, f.cluster.Ring("acme"), func(a, b []byte) bool { return string(a) == string(b) }) || f.ops() != ops {
			t.Errorf("the ring has changed: %s, before %s", f.ops(), ops)
		}
		if got := f.finds(one); got != "found" {
			t.Errorf("the key that would be revoked is %s", got)
		}
	})
}

// A leaked key is replaced step by step, each by another process. A step that was made is not made
// again, and at the end nothing is left.
func TestReplace(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(200 * time.Millisecond)
		leaked := []string{f.kid(1)}
		foreseen, _, err := f.rotator.Replace(t.Context(), "acme", leaked, rotation.DryRun, rotation.Force)
		if err != nil || foreseen.Next != ring.OpRotate || foreseen.NoSignerUntil.IsZero() {
			t.Errorf("without waiting: %+v, %v", foreseen, err)
		}
		var made []ring.Op
		for range 20 {
			next, receipt, err := f.rotator.Replace(t.Context(), "acme", leaked)
			if err != nil {
				t.Fatal(err)
			}
			if !next.NoSignerUntil.IsZero() {
				t.Errorf("it foresees a time without a signer: %+v", next)
			}
			if len(next.Left) == 0 {
				break
			}
			if next.Next == "" {
				time.Sleep(time.Until(next.From) + time.Millisecond)
			} else if made = append(made, next.Next); receipt.CommittedAt.IsZero() {
				t.Errorf("%+v: %+v", next, receipt)
			}
			if err := f.signs(); err != nil {
				t.Error(err)
			}
		}
		if len(made) != 2 || made[0] != ring.OpRotate || made[1] != ring.OpRevoke {
			t.Errorf("the steps were %q", made)
		}
		if got := f.finds(leaked[0]); got != "not found" {
			t.Errorf("the leaked key is %s", got)
		}
		missing := new(ring.MissingError)
		if _, _, err := f.rotator.Replace(t.Context(), "acme", []string{"unknown"}); !errors.As(err, &missing) {
			t.Errorf("a key that does not exist: %v", err)
		}
	})
}
