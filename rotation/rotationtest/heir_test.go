package rotationtest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Heir: the signing key is revoked by force, and a key is minted that is to sign next. That key is
// revoked before it signs. That leaves the tenant without a signer for longer, so it is refused as it
// would be for the signing key. By force the next one is minted at once, and the receipt says when it
// signs.
func TestTimelineHeir(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("revoker", "other")
		revoker := f[0].r.Load()
		first := l.key(f[0], 1).KID
		l.must(revoker.Revoke(l.ctx, tenant, l.key(f[0], 2).KID))
		l.must(revoker.Revoke(l.ctx, tenant, first, rotation.Force))
		heir := l.key(f[0], 3).KID
		l.runFor(300 * time.Millisecond)
		if _, err := revoker.Revoke(l.ctx, tenant, heir); !errors.Is(err, rotation.ErrRefused) {
			t.Errorf("Revoke of the next key: %v, want ErrRefused", err)
		}
		l.wantState(3, ring.Pending, f...)
		began := l.now()
		receipt, err := revoker.Revoke(l.ctx, tenant, heir, rotation.Force)
		if err != nil {
			t.Fatal(err)
		}
		wait := receipt.NoSignerUntil.Sub(l.h.start.Add(began))
		if known := l.policy.HeardWithin(); receipt.Minted == "" || wait < known || wait > known+100*time.Millisecond {
			t.Errorf("%+v: a key signs in %v, want %v", receipt, wait, known)
		}
		l.runFor(wait + pollFor)
		l.wantSigner(4, f...)
		l.runFor(6 * time.Second)
		l.neverSigned(heir, 0)
		l.neverSigned(first, began)
	})
}
