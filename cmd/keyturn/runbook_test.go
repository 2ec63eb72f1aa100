package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/keyturn/keyturn/rotation"
)

// docs/operations.md, "A key leaked", with a pending key that is too fresh to take over: published for
// longer than Dwell, but not for ReaderStaleness + Freshness + Dwell + ClockSkew.
func TestRunbookLeakedKey(t *testing.T) {
	c := oldRing(t, "--alg", "ES256")
	before := c.wantStates("signing", "pending")
	leaked, next := before["signing"].KID, before["pending"].KID
	c.run("keys", "revoke", "--", leaked).wantCode(t, exitNo, "it signs, and the next key", "has not been published for long enough to take over")
	c.run("keys", "promote", "--force", "--", next).wantCode(t, exitYes, "signs now", "may reject its tokens")
	c.run("keys", "revoke", "--", leaked).wantCode(t, exitYes, "is revoked")
	c.wantStates("revoked", "signing")
	c.run("sign", "--claim", "sub=ann").wantCode(t, exitYes)
}

// A forced revocation mints a key that signs first. A rotation does not help; promoting the older key
// does.
func TestRunbookNoSigner(t *testing.T) {
	t.Parallel()
	c := oldRing(t, "--alg", "ES256")
	before := c.wantStates("signing", "pending")
	c.run("keys", "revoke", "--force", "--", before["signing"].KID).wantCode(t, exitYes, "NO SIGNER")
	c.run("sign", "--claim", "sub=ann").wantCode(t, exitNo, "no key signs now")
	c.run("keys", "rotate").wantCode(t, exitNo, "it has not been published for long enough")
	c.run("keys", "promote", "--", before["pending"].KID).wantCode(t, exitNo, "another key is pending before it")
	c.run("keys", "promote", "--force", "--", before["pending"].KID).wantCode(t, exitYes, "signs now")
	c.run("sign", "--claim", "sub=ann").wantCode(t, exitYes)
}

// A key that is younger than Dwell does not sign, even with --force. The key before it signs on, and is
// revoked by force alone.
func TestRunbookDwell(t *testing.T) {
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	now := time.Now()
	at := func(d time.Duration) {
		m.SetTime(now.Add(d))
		c.now = func() time.Time { return now.Add(d) }
	}
	signer := func() string {
		t.Helper()
		token := strings.TrimSpace(c.run("sign", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
		return kidOfToken(t, token)
	}
	at(0)
	c.run("keys", "create").wantCode(t, exitYes)
	first := signer()
	c.run("keys", "rotate", "--force").wantCode(t, exitYes, "signs from ", "the key before it signs: a failover could still lose this one")
	at(59 * time.Second)
	if kid := signer(); kid != first {
		t.Errorf("key %s signs, want the one before the forced one", kid)
	}
	c.run("keys", "revoke", "--", first).wantCode(t, exitNo, "it signs in place of the key that was forced to sign", "it may be from ")
	at(61 * time.Second)
	if kid := signer(); kid == first {
		t.Error("the key before the forced one signs")
	}
	c.run("keys", "revoke", "--", first).wantCode(t, exitYes, "is revoked")
	signer()
}

// docs/operations.md, "A ring is the mistake".
func TestRunbookRemoveRing(t *testing.T) {
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	c.run("keys", "create").wantCode(t, exitYes)
	token := strings.TrimSpace(c.run("sign", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	bucket := fmt.Sprintf("kt:{%d}:", rotation.BucketOf("default"))
	if keys := m.Keys(); !strings.Contains(strings.Join(keys, " "), bucket+"ring:default") {
		t.Fatalf("keys = %q", keys)
	}
	m.Del(bucket + "ring:default")
	if _, err := m.SRem(bucket+"tenants", "default"); err != nil {
		t.Fatal(err)
	}
	c.run("keys", "list", "--tenant", "default").wantCode(t, exitNo, "has no ring")
	c.run("keys", "create", "--alg", "ES256").wantCode(t, exitYes)
	c.run("sign", "--claim", "sub=ann").wantCode(t, exitYes)
	c.run("verify", "--alg", "HS256,ES256", token).wantCode(t, exitNo, "unknown_key")
}

// docs/operations.md, "The KEK leaked": after two rotations, and the revocations that the check names, no
// key is left that was made under the old KEK.
func TestRunbookLeakedKEK(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	now := time.Now()
	at := func(d time.Duration) {
		m.SetTime(now.Add(d))
		c.now = func() time.Time { return now.Add(d) }
	}
	at(0)
	first, second := c.kek, newKEK()
	c.run("keys", "create").wantCode(t, exitYes)
	old := strings.TrimSpace(c.run("sign").wantCode(t, exitYes).stdout)
	c.kek, _ = kekLines(t, second, first)
	c.run("keys", "rekey").wantCode(t, exitYes, "rings: 1 sealed again")
	at(130 * time.Second)
	c.run("keys", "rotate").wantCode(t, exitYes)
	c.run("keys", "rotate").wantCode(t, exitNo, "it may be from ")
	at(260 * time.Second)
	c.run("keys", "rotate").wantCode(t, exitYes)
	left := c.run("keys", "rekey", "--check", "--json").wantCode(t, exitYes).rekeyed(t).Tenants[0].OldKeys
	if len(left) != 2 {
		t.Fatalf("old keys = %q", left)
	}
	for _, kid := range left {
		c.run("keys", "revoke", "--", kid).wantCode(t, exitYes, "is revoked")
	}
	if rest := c.run("keys", "rekey", "--check", "--json").wantCode(t, exitYes).rekeyed(t).Tenants; len(rest) > 0 {
		t.Errorf("left: %+v", rest)
	}
	c.kek, _ = kekLines(t, second)
	token := strings.TrimSpace(c.run("sign").wantCode(t, exitYes).stdout)
	c.run("verify", "--alg", "HS256", token).wantCode(t, exitYes)
	c.run("verify", "--alg", "HS256", old).wantCode(t, exitNo, "revoked_key")
}
