package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// planned is the answer of --dry-run --json.
func (r result) planned(t *testing.T) (p planJSON) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil || strings.Count(r.stdout, "\n") != 1 || !p.DryRun {
		t.Fatalf("%s: %v", r.stdout, err)
	}
	return p
}

// A dry run says what a change would cost, before it is made, and changes nothing.
func TestDryRun(t *testing.T) {
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run("keys", "create", "--alg", "ES256").wantCode(t, exitYes)
		keys := c.wantStates("signing", "pending")
		one, two := keys["signing"].KID, keys["pending"].KID
		before := c.rings("default")
		c.run("keys", "rotate", "--dry-run").wantCode(t, exitNo, "it has not been published for long enough", "it may be from ")
		c.run("keys", "rotate", "--dry-run", "--force").wantCode(t, exitYes, "dry run: nothing is changed\nkey \""+two+"\" of tenant \"default\" would sign",
			"none lives that could hear of it", "signs from ", "may reject its tokens", "minted       one more key", "tokens       of the key that signs now are good", "of the JWK Set know the key that signs from ")
		p := c.run("keys", "promote", "--dry-run", "--force", "--json", "--", two).wantCode(t, exitYes).planned(t)
		if *p.Promoted != two || p.Revoked != nil || p.Forced == nil || p.ForcedUntil == nil || p.ConfirmedAt == nil || p.NoSignerUntil != nil || p.TokensUntil == nil || p.ReadersFrom == nil {
			t.Errorf("promote: %+v", p)
		}
		c.run("keys", "revoke", "--dry-run", "--", one).wantCode(t, exitNo, "it signs, and the next key")
		c.run("keys", "revoke", "--dry-run", "--force", "--", one).wantCode(t, exitYes, "would be revoked", "NO SIGNER", "and would be rejected", "worst case", "of the JWK Set accept them until")
		p = c.run("keys", "revoke", "--dry-run", "--force", "--json", "--", one).wantCode(t, exitYes).planned(t)
		if *p.Revoked != one || p.NoSignerUntil == nil || p.SignsFrom == nil || p.WorstCase == nil || p.ReadersUntil == nil || p.TokensUntil == nil || len(p.Live)+len(p.Unread) > 0 {
			t.Errorf("revoke: %+v", p)
		}
		c.run("keys", "revoke", "--dry-run", "nokid").wantCode(t, exitNo, "has no such key")
		after := c.rings("default")
		if len(after["default"]) != len(before["default"]) {
			t.Errorf("the ring has %d fields, %d before", len(after["default"]), len(before["default"]))
		}
		c.run("keys", "revoke", "--", two).wantCode(t, exitYes)
		c.run("keys", "revoke", "--dry-run", "--", two).wantCode(t, exitYes, "was revoked already")
	})
}

// A dry run names the live instances that have not read the key that would sign.
func TestDryRunNamesWhoHasNotRead(t *testing.T) {
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
		c.peer("good", c.kek, "default")
		c.stuck("stuck")
		c.run("keys", "rotate", "--force", "--wait", "100ms").wantCode(t, exitNotEverywhere) // it mints a key
		p := c.run("keys", "rotate", "--dry-run", "--force", "--json").wantCode(t, exitYes).planned(t)
		if !slices.Equal(p.Live, []string{"good", "stuck"}) || !slices.Equal(p.Unread, []string{"stuck"}) {
			t.Errorf("%+v", p)
		}
		c.run("keys", "rotate", "--dry-run", "--force").wantCode(t, exitYes, "1 of 2 instances that live have NOT read the key yet (stuck)")
	})
}
