package rotation_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// Observe learns how each call of Sign ended: that it must not sign, that no instance does, and that
// the caller asked for what cannot be. A call whose context had ended asked for nothing.
func TestSignIsObserved(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		var seen []rotation.SignEvent
		s := f.newSigner(rotation.SignerConfig{Observe: func(_ context.Context, e rotation.SignEvent) { seen = append(seen, e) }})
		sign := func(tenant string, claims any) { s.Sign(t.Context(), tenant, claims) }
		sign("acme", nil)
		sign("acme", map[string]any{"exp": "tomorrow"})
		sign("unknown", nil)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		s.Sign(ended, "acme", nil)
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(fast.SignFor + fastPoll)
		sign("acme", nil)
		f.conn.SetFaults(rotationtest.Faults{})
		if err := f.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * fast.Every) // no rotator runs, so no key follows
		sign("acme", nil)
		if want := []rotation.SignEvent{
			{Tenant: "acme", Outcome: rotation.Signed}, {Tenant: "acme", Outcome: rotation.SignFailed},
			{Tenant: "unknown", Outcome: rotation.SignFailed}, {Tenant: "acme", Outcome: rotation.SignFenced},
			{Tenant: "acme", Outcome: rotation.SignNoSigner},
		}; !reflect.DeepEqual(seen, want) {
			t.Errorf("observed %v, want %v", seen, want)
		}
	})
}
