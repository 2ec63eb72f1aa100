package rotation_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
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

// theirSecret returns the n-th secret of a partner.
func theirSecret(n int) []byte { return fmt.Appendf(nil, "the %d. secret that is a partner's", n) }

// theirs returns a partner's key, with a kid, or without one if kid is "".
func theirs(n int, kid string) ring.ForeignKey {
	return ring.ForeignKey{KID: kid, NoKID: kid == "", Algorithm: keystore.HS256, Key: theirSecret(n)}
}

// accept accepts keys for d.
func (m *member) accept(d time.Duration, keys ...ring.ForeignKey) rotation.Receipt {
	m.t.Helper()
	r, err := m.rotator.Accept(m.t.Context(), "acme", keys, time.Now().Add(d))
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// acceptRefused is accept for keys that are refused, with the reason.
func (m *member) acceptRefused(reason string, d time.Duration, keys ...ring.ForeignKey) {
	m.t.Helper()
	_, err := m.rotator.Accept(m.t.Context(), "acme", keys, time.Now().Add(d))
	if refused := wantRefused(m.t, err); !strings.Contains(refused.Reason, reason) {
		m.t.Errorf("refused because %q, want %q", refused.Reason, reason)
	}
}

// accepted lists the accepted keys, each with the seconds that it has left.
func (m *member) accepted() string {
	m.t.Helper()
	s, err := m.Tenant("acme")
	if err != nil {
		return err.Error()
	}
	var list []string
	for _, a := range s.Accepted {
		end := time.Until(a.Until).Round(time.Second).String()
		if !a.RevokedAt.IsZero() {
			end = "revoked"
		}
		list = append(list, a.KID+"="+end)
	}
	return strings.Join(list, " ")
}

// TestAccept: an accepted key verifies at every instance until its date, signs nothing, and is in no
// JWK Set. A later date extends the time; the same one changes nothing.
func TestAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		b := join(t, f.cluster, "b")
		defer f.leave()
		defer b.leave()
		time.Sleep(3 * time.Second)
		r := f.accept(20*time.Second, theirs(1, "theirs"))
		if r.Tenant != "acme" || !slices.Equal(r.Accepted, []string{"theirs"}) || r.CommittedAt.IsZero() {
			t.Errorf("receipt %+v", r)
		}
		if again := f.accept(17*time.Second, theirs(2, "other")); again.CommittedAt.IsZero() {
			t.Errorf("a second key: %+v", again)
		}
		if _, err := f.rotator.Await(t.Context(), r); err != nil {
			t.Error(err)
		}
		for _, m := range []*member{f.member, b} {
			if m.finds("theirs") != "found" || m.accepted() != "other=17s theirs=20s" {
				t.Errorf("%s, accepted %q", m.finds("theirs"), m.accepted())
			}
			wantRing(t, m, "1=signing* 2=pending")
		}
		time.Sleep(10 * time.Second)
		f.acceptRefused("a date is never made earlier: revoke it", 5*time.Second, theirs(1, "theirs"))
		f.accept(20*time.Second, theirs(1, "theirs"))
		if r := f.accept(20*time.Second, theirs(1, "theirs")); !r.CommittedAt.IsZero() || !slices.Equal(r.Accepted, []string{"theirs"}) {
			t.Errorf("the same date again: %+v", r)
		}
		time.Sleep(15 * time.Second)
		if got := b.accepted(); b.finds("theirs") != "found" || b.finds("other") != "not found" || got != "theirs=5s" {
			t.Errorf("theirs is %s, other %s; accepted %q", b.finds("theirs"), b.finds("other"), got)
		}
		time.Sleep(5 * time.Second)
		if b.finds("theirs") != "not found" || b.accepted() != "" {
			t.Errorf("after its end theirs is %s, accepted %q", b.finds("theirs"), b.accepted())
		}
	})
}

// TestAcceptedKeyIsCollected: once its end is long past for every instance, a rotator removes it, and
// the store has as many fields as before.
func TestAcceptedKeyIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		defer f.run()()
		f.accept(5*time.Second, theirs(1, "theirs"))
		has := func() bool {
			fields := f.conn.Load(t.Context(), []string{"acme"})[0].Fields
			for field := range fields {
				if field == "v:theirs" || strings.HasPrefix(field, "u:") {
					return true
				}
			}
			return false
		}
		time.Sleep(8 * time.Second)
		if !has() {
			t.Error("it is collected before all instances know that it has ended")
		}
		time.Sleep(3 * time.Second)
		if has() || !strings.Contains(f.ops(), "collect") {
			t.Errorf("it is not collected: %s", f.ops())
		}
	})
}

// TestRevokedAccept: it is rejected at once, by every instance, and is never accepted again, under its
// kid or by its material.
func TestRevokedAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		b := join(t, f.cluster, "b")
		defer f.leave()
		defer b.leave()
		time.Sleep(3 * time.Second)
		with, without := f.accept(day, theirs(1, "theirs")), f.accept(day, theirs(2, ""))
		time.Sleep(time.Second)
		for _, kid := range append(with.Accepted, without.Accepted...) {
			r, err := f.rotator.Revoke(t.Context(), "acme", kid)
			// D + SignFor + Leeway + L
			if err != nil || r.Revoked != kid || !r.WorstCase.Equal(r.RevokedAt.Add(8*time.Second)) || !r.ReadersUntil.IsZero() {
				t.Errorf("%v, receipt %+v", err, r)
			}
			if _, err := f.rotator.Await(t.Context(), r); err != nil {
				t.Error(err)
			}
			if _, err := b.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.HS256); !errors.Is(err, keystore.ErrRevoked) {
				t.Errorf("after the revocation: %v", err)
			}
			again, err := f.rotator.Revoke(t.Context(), "acme", kid)
			if err != nil || !again.CommittedAt.IsZero() || !again.RevokedAt.Equal(r.RevokedAt) {
				t.Errorf("revoked again: %v, %+v", err, again)
			}
		}
		if keys, err := b.Lookup(keystore.ID{Tenant: "acme"}, keystore.HS256); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("without kid: %v, %v", keys, err)
		}
		f.acceptRefused("a revoked key is never accepted again", 2*day, theirs(1, "theirs"))
		f.acceptRefused("a revoked key is never accepted again", 2*day, theirs(3, "theirs"))
		f.acceptRefused("a revoked key is never accepted again", 2*day, theirs(2, ""))
		if got := b.accepted(); strings.Count(got, "=revoked") != 2 {
			t.Errorf("accepted %q", got)
		}
	})
}

// TestRevokedSecretStaysRefused: also long after its date, whether or not its tokens had a kid.
func TestRevokedSecretStaysRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		defer f.run()()
		for _, key := range []ring.ForeignKey{theirs(1, "theirs"), theirs(2, "")} {
			r := f.accept(5*time.Second, key)
			if _, err := f.rotator.Revoke(t.Context(), "acme", r.Accepted[0]); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if !strings.Contains(f.ops(), "collect") {
			t.Fatalf("nothing was collected: %s", f.ops())
		}
		f.acceptRefused("a revoked key is never accepted again", time.Hour, theirs(1, "theirs"))
		f.acceptRefused("a revoked key is never accepted again", time.Hour, theirs(2, ""))
	})
}

// TestAcceptDryRun: it says what it would do, and changes nothing.
func TestAcceptDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		before := f.ops()
		r, err := f.rotator.Accept(t.Context(), "acme", []ring.ForeignKey{theirs(1, "theirs")}, time.Now().Add(day), rotation.DryRun)
		if err != nil || !r.CommittedAt.IsZero() || !slices.Equal(r.Accepted, []string{"theirs"}) || f.ops() != before || f.accepted() != "" {
			t.Errorf("%+v, %v; changes %q, accepted %q", r, err, f.ops(), f.accepted())
		}
		_, err = f.rotator.Accept(t.Context(), "acme", []ring.ForeignKey{theirs(1, "theirs")}, time.Now().Add(-day), rotation.DryRun)
		wantRefused(t, err)
	})
}

// TestAcceptWithoutKID: keys whose tokens have no kid are found again by their material. Four of them
// are tried for a token, and no more are accepted.
func TestAcceptWithoutKID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(3 * time.Second)
		var kids []string
		for n := range 4 {
			kids = append(kids, f.accept(time.Duration(10+n)*time.Minute, theirs(n, "")).Accepted...)
		}
		f.acceptRefused("5 keys may have signed a token without kid", day, theirs(5, ""))
		if again := f.accept(time.Hour, theirs(1, "")); !slices.Equal(again.Accepted, kids[1:2]) || again.CommittedAt.IsZero() {
			t.Errorf("the second again: %+v, want %q", again, kids[1])
		}
		keys, err := f.Lookup(keystore.ID{Tenant: "acme"}, keystore.HS256)
		var order []string
		for _, k := range keys {
			order = append(order, k.ID().KID)
		}
		if want := []string{kids[1], kids[3], kids[2], kids[0]}; err != nil || !slices.Equal(order, want) {
			t.Errorf("without kid %q, %v, want %q", order, err, want)
		}
		f.accept(day, theirs(6, "with a kid"))
		if _, err := f.rotator.Revoke(t.Context(), "acme", kids[0]); err != nil {
			t.Fatal(err)
		}
		f.accept(day, theirs(5, ""))
	})
}

// TestAcceptOfOtherKinds: public keys and weak secrets.
func TestAcceptOfOtherKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(3 * time.Second)
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		weak := ring.ForeignKey{KID: "weak", Algorithm: keystore.HS256, Key: theirSecret(1)[:16], Weak: true}
		f.accept(day, ring.ForeignKey{KID: "public", Algorithm: keystore.ES256, Key: &private.PublicKey}, weak)
		keys, err := f.Lookup(keystore.ID{Tenant: "acme", KID: "public"}, keystore.ES256)
		if err != nil || len(keys) != 1 {
			t.Errorf("a public key: %v, %v", keys, err)
		}
		if _, err := f.Lookup(keystore.ID{Tenant: "acme", KID: "public"}, keystore.HS256); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("for another algorithm: %v", err)
		}
		if public, _, err := f.PublicKeys(t.Context(), "acme"); len(public) > 0 || !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("it is published: %v, %v", public, err)
		}
		if f.finds("weak") != "found" {
			t.Error("a weak secret is " + f.finds("weak"))
		}
		f.acceptRefused("a weak secret is accepted for at most 90 days", 91*day, weak)
		time.Sleep(2 * time.Second)
		f.acceptRefused("a weak secret is accepted for at most 90 days", 90*day, weak)
		f.accept(90*day-time.Minute, weak)
		f.acceptRefused("at most 400 days", 401*day, theirs(1, "theirs"))
		f.acceptRefused("is past", 0, theirs(1, "theirs"))
		for _, bad := range []ring.ForeignKey{{KID: "short", Algorithm: keystore.HS256, Key: theirSecret(1)[:31]}, {KID: "private", Algorithm: keystore.ES256, Key: private}} {
			if _, err := f.rotator.Accept(t.Context(), "acme", []ring.ForeignKey{bad}, time.Now().Add(day)); err == nil || !strings.Contains(err.Error(), "key 1 of 1 cannot be accepted") {
				t.Errorf("%s: %v", bad.KID, err)
			}
		}
	})
}

// TestAcceptKIDOfAnother: a kid that another key has is refused.
func TestAcceptKIDOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(3 * time.Second)
		f.acceptRefused("another key has that kid", day, theirs(1, f.kid(1)))
		f.acceptRefused("another key has that kid", day, theirs(1, "twice"), theirs(2, "twice"))
		f.accept(day, theirs(1, "theirs"))
		f.acceptRefused("another key has that kid", day, theirs(2, "theirs"))
		if strings.Contains(f.accepted(), "twice") {
			t.Errorf("accepted %q", f.accepted())
		}
	})
}

// TestAcceptWithoutRing: accepted keys alone are no ring. They verify, sign nothing, and a ring can be
// made beside them, but not by AllowBootstrap. What is left of them once they are collected is no ring
// either.
func TestAcceptWithoutRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting, func(c *rotation.Config) { c.AllowBootstrap, c.Policy = true, fast })
		defer m.leave()
		m.accept(30*time.Second, theirs(1, "theirs"))
		stop := m.run()
		time.Sleep(20 * time.Second)
		if m.finds("theirs") != "found" || m.finds("other") != "not found" || m.ring() != "" {
			t.Errorf("theirs is %s, another %s, the ring %q", m.finds("theirs"), m.finds("other"), m.ring())
		}
		if s, err := m.Tenant("acme"); s.Ready || !errors.Is(m.signs(), rotation.ErrNoSigner) {
			t.Errorf("ready %v, %v; it signs: %v", s.Ready, err, m.signs())
		}
		if _, err := m.rotator.Rotate(t.Context(), "acme"); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("rotated: %v", err)
		}
		r, err := m.rotator.Revoke(t.Context(), "acme", "theirs")
		if err != nil || r.WorstCase.IsZero() {
			t.Errorf("%v, receipt %+v", err, r)
		}
		time.Sleep(5 * time.Minute)
		fields := m.conn.Load(t.Context(), []string{"acme"})[0].Fields
		if len(fields) != 2 || fields["x:theirs"] == nil || fields["head"] == nil {
			t.Errorf("%d fields are left, without the revocation %v", len(fields), fields["x:theirs"] == nil)
		}
		stop()
		m.accept(time.Hour, theirs(1, "another"))
		if _, err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		if wantRing(t, m, "1=signing* 2=pending"); m.finds("another") != "found" {
			t.Error("the accepted key has gone with the making of the ring")
		}
		if _, err := m.rotator.Create(t.Context(), "acme", fast); !errors.Is(err, ring.ErrRefused) {
			t.Errorf("a second ring: %v", err)
		}
	})
}

// TestAcceptKeepsKeyCached: a verifier caches tokens with their key, so the key stays the same through
// syncs and with a later date.
func TestAcceptKeepsKeyCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(3 * time.Second)
		f.accept(20*time.Second, theirs(1, "theirs"))
		id := keystore.ID{Tenant: "acme", KID: "theirs"}
		before, err := f.Lookup(id, keystore.HS256)
		if err != nil {
			t.Fatal(err)
		}
		f.accept(time.Minute, theirs(1, "theirs"))
		time.Sleep(30 * time.Second)
		if after, err := f.Lookup(id, keystore.HS256); err != nil || after[0] != before[0] {
			t.Errorf("another key, or none: %v", err)
		}
	})
}

// TestWeakSecretIsRemarkedOn: each start of an instance warns of the weak secrets that are accepted.
func TestWeakSecretIsRemarkedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(3 * time.Second)
		f.accept(day, theirs(1, "strong"), ring.ForeignKey{KID: "weak", Algorithm: keystore.HS256, Key: theirSecret(2)[:16], Weak: true})
		for oneShot, want := range map[bool]int{false: 1, true: 0} {
			var log bytes.Buffer
			b := join(t, f.cluster, "b", func(c *rotation.Config) {
				c.Logger, c.OneShot = slog.New(slog.NewTextHandler(&log, nil)), oneShot
			})
			if got := log.String(); strings.Count(got, "level=WARN msg=\"a weak secret is accepted") != want || strings.Contains(got, "strong") || strings.Count(got, "kid=weak") != want {
				t.Errorf("with OneShot %v: %s", oneShot, got)
			}
			b.leave()
		}
	})
}

// TestAcceptLeaksNothing: the secret is in no error and in no receipt.
func TestAcceptLeaksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(3 * time.Second)
		r := f.accept(day, theirs(1, "theirs"))
		_, err := f.rotator.Accept(t.Context(), "acme", []ring.ForeignKey{{KID: "k", Algorithm: keystore.HS512, Key: theirSecret(1)}}, time.Now().Add(day))
		s, _ := f.Tenant("acme")
		for _, v := range []any{r, err, s.Accepted} {
			if printed := fmt.Appendf(nil, "%v %+v %#v", v, v, v); bytes.Contains(printed, theirSecret(1)[:16]) {
				t.Errorf("%T has the secret", v)
			}
		}
	})
}
