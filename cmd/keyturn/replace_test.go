package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// brief is the policy of rings whose keys are known everywhere after 12.6 seconds.
var brief = []string{"--freshness", "12s", "--skew", "100ms", "--dwell", "500ms"}

// replaced is the answer of "keys replace --json".
func (r result) replaced(t *testing.T) (shown replaceJSON) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&shown); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("%s: %v", r.stdout, err)
	}
	return shown
}

// A leaked key is replaced as soon as all instances know the next one, while every instance can sign. The
// command can be interrupted and repeated.
func TestKeysReplace(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create"}, brief...)...).wantCode(t, exitYes)
		keys := c.wantStates("signing", "pending")
		leaked, next := keys["signing"].KID, keys["pending"].KID
		c.peer("peer", c.kek, "default")
		r := c.run("keys", "replace", "--no-wait", "--json", "--", leaked)
		shown := r.wantCode(t, exitNo, "repeat the command from ").replaced(t)
		if shown.Left != 1 || shown.From == nil || !slices.Equal(shown.Tenants[0].Left, []string{leaked}) || shown.Tenants[0].Promoted != nil {
			t.Errorf("before the next key is known: %s", r.stdout)
		}
		c.run("keys", "replace", "--dry-run", "--", leaked).wantCode(t, exitYes, "dry run: nothing is changed", "1 instance would have to hear of it",
			"without --now:", "signer       at every moment", "with --now:")
		c.wantStates("signing", "pending")
		r = c.run("keys", "replace", "--json", "--wait", "60s", "--", leaked)
		shown = r.wantCode(t, exitYes).replaced(t)
		one := shown.Tenants[0]
		if shown.Replaced != 1 || shown.Left != 0 || *one.Promoted != next || one.NoSignerUntil != nil || one.WorstCase == nil || !slices.Equal(one.Revoked, []string{leaked}) ||
			len(shown.Instances) != 1 || !shown.Instances[0].Applied {
			t.Errorf("%s", r.stdout)
		}
		c.wantStates("revoked", "signing", "pending")
		c.run("keys", "replace", "--", leaked).wantCode(t, exitYes, "nothing to do: it was revoked already")
		c.run("keys", "replace", "nokid").wantCode(t, exitNo, "has no such key")
	})
}

// With --now nothing is waited for, and the receipt says until when no key signs: the pending key does not
// within Dwell of its making.
func TestKeysReplaceNow(t *testing.T) {
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create", "--dwell", "1m"}, calm[:4]...)...).wantCode(t, exitYes)
		leaked := c.wantStates("signing", "pending")["signing"].KID
		c.peer("peer", c.kek, "default")
		c.run("keys", "replace", "--dry-run", "--", leaked).wantCode(t, exitYes, "signer       at every moment", "with --now:", "NO SIGNER")
		c.run("keys", "replace", "--now", "--wait", "60s", "--", leaked).wantCode(t, exitYes, "revoked: "+leaked, "NO SIGNER until ", "1 of 1 instance has applied it")
		c.wantStates("revoked", "signing", "pending")
	})
}

// A live instance that has not heard of the new key may still sign with the leaked one: then that one is
// not revoked yet, and the exit code is 4.
func TestKeysReplaceWaitsForInstances(t *testing.T) {
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
		keys := c.wantStates("signing", "pending")
		c.peer("good", c.kek, "default")
		c.stuck("stuck")
		c.run("keys", "promote", "--force", "--no-wait", "--", keys["pending"].KID).wantCode(t, exitYes)
		time.Sleep(1100 * time.Millisecond) // Dwell: until then the leaked key signs on
		leaked := keys["signing"].KID
		c.run("keys", "replace", "--wait", "300ms", "--", leaked).wantCode(t, exitNotEverywhere, "1 instance had not applied that within 300ms: stuck", "is not revoked yet", "NOT revoked yet: "+leaked)
		c.run("keys", "replace", "--now", "--wait", "300ms", "--", leaked).wantCode(t, exitNotEverywhere, "the change is made, but 1 instance had not applied it")
	})
}

// A key that has retired by the schedule is revoked at once: instances switch by the clock, and no entry
// of the log tells of it.
func TestKeysReplaceRetired(t *testing.T) {
	t.Parallel()
	c := oldRing(t, "--every", "100s")
	keys := c.wantStates("retired", "signing")
	c.peer("peer", c.kek, "default")
	c.run("keys", "replace", "--wait", "1s", "--", keys["retired"].KID).wantCode(t, exitYes, "revoked: "+keys["retired"].KID)
}

// --all-tenants replaces all keys that were made before a date, and no others when it is repeated.
func TestKeysReplaceAll(t *testing.T) {
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		tenants := []string{"acme", "globex", "initech"}
		for _, tenant := range tenants {
			c.run(append([]string{"keys", "create", "--tenant", tenant}, calm...)...).wantCode(t, exitYes)
		}
		c.run("keys", "accept", "--tenant", "partner", "--secret-file", file(t, testSecret), "--kid", "old", "--until", tomorrow()).wantCode(t, exitYes) // it has no ring
		before := time.Now().UTC().Format(time.RFC3339Nano)
		c.run("keys", "replace", "--all-tenants", "--before", before, "--dry-run").wantCode(t, exitYes, "3 rings with keys that were made before", "without --now:", "with --now:")
		all := []string{"keys", "replace", "--all-tenants", "--before", before, "--now", "--no-wait", "--rate", "1000", "--json"}
		r := c.run(all...)
		shown := r.wantCode(t, exitYes).replaced(t)
		if shown.Rings != 3 || shown.Replaced != 3 || len(shown.Tenants) != 3 || len(shown.Tenants[0].Revoked) != 2 || shown.Before == nil {
			t.Errorf("%s", r.stdout)
		}
		for _, tenant := range tenants {
			states, _ := c.list("--tenant", tenant)
			if slices.Contains(states, "retired") || !slices.Contains(states, "signing") || !slices.Contains(states, "pending") {
				t.Errorf("%s: %q", tenant, states)
			}
		}
		for _, one := range c.run(all...).wantCode(t, exitYes).replaced(t).Tenants {
			if len(one.Revoked) > 0 || one.Promoted != nil || one.Minted != nil {
				t.Errorf("done again: %+v", one)
			}
		}
		c.run("keys", "replace", "--all-tenants", "kid").wantUsage(t, "goes without a KID")
		c.run("keys", "replace", "--all-tenants", "--tenant", "acme").wantUsage(t, "give one of them")
		c.run("keys", "replace", "--rate", "5", "kid").wantUsage(t, "go with --all-tenants")
	})
}
