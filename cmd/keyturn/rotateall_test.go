package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
)

// soon is a policy by which a key may be rotated in as soon as the defaults of the command allow.
var soon = []string{"--freshness", "12s", "--skew", "100ms", "--dwell", "100ms"}

// After a KEK has leaked, two runs rotate every ring until no key that signs or is pending was made
// under it, and a run that finds it done changes nothing.
func TestRotateAll(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	first, second := "old:"+c.kek, "new:"+newKEK()
	c.kek, _ = kekLines(t, first)
	for _, tenant := range []string{"acme", "globex"} {
		c.run(append([]string{"keys", "create", "--tenant", tenant}, soon...)...).wantCode(t, exitYes)
	}
	old := c.kids("acme") + c.kids("globex")
	c.kek, _ = kekLines(t, second, first)
	c.run("keys", "rekey", "--rotate-all", "--check").wantCode(t, exitNo, "under another KEK than new")
	c.run("keys", "rekey", "--rotate-all", "--dry-run").wantCode(t, exitYes, "rings: 2 with a signing or pending key that was made under another KEK", `tenant "acme": to be rotated out: `)
	if now := c.kids("acme") + c.kids("globex"); now != old {
		t.Fatalf("--dry-run changed %s to %s", old, now)
	}

	c.peer("peer-1", c.kek, "acme", "globex")

	// The pending key is known as well, and too young: the command only seals the ring again.
	r := c.run("keys", "rekey", "--rotate-all", "--json").wantCode(t, exitNo, "2 rings with a signing or pending key that was made under another KEK: repeat it from ")
	shown := r.rekeyed(t)
	if shown.Rekeyed != 2 || shown.Left != 2 || shown.From == nil || shown.OldUntil != nil || len(shown.Tenants[0].Left) != 2 {
		t.Fatalf("rekey = %s", r.stdout)
	}
	// The next run makes that key sign, and mints one that the old KEK does not open.
	shown = c.rotateAllAt(*shown.From, exitNo)
	if shown.Rekeyed != 0 || shown.Rotated != 2 || shown.Left != 2 || shown.OldUntil == nil || len(shown.Instances) != 1 || !shown.Instances[0].Applied || shown.Tenants[0].Promoted == nil || shown.Tenants[0].Minted == nil {
		t.Fatalf("rekey = %+v", shown)
	}
	minted := *shown.Tenants[0].Minted
	c.run("keys", "rekey", "--rotate-all", "--tenant", "acme").wantCode(t, exitNo, "one ring with", "not yet, since", "repeat it from ")
	c.run("keys", "rekey", "--rotate-all", "--check").wantCode(t, exitNo, "repeat it without --check")
	shown = c.rotateAllAt(*shown.From, exitYes)
	if shown.Rotated != 2 || shown.Left != 0 || shown.From != nil || *shown.Tenants[0].Promoted != minted || slices.Contains(shown.Tenants[0].OldKeys, minted) || len(shown.Tenants[0].OldKeys) != 2 {
		t.Fatalf("rekey = %+v", shown)
	}

	// It is done, and nothing of it needs the old KEK.
	c.kek, _ = kekLines(t, second)
	before := c.kids("acme") + c.kids("globex")
	c.run("keys", "rekey", "--rotate-all").wantCode(t, exitYes, "rings: 0 rotated, 0 with", "the last retired key that was made under another KEK verifies until ")
	c.run("keys", "rekey", "--rotate-all", "--check").wantCode(t, exitYes)
	if now := c.kids("acme") + c.kids("globex"); now != before {
		t.Errorf("a run that has nothing to do changed %s to %s", before, now)
	}
}

// rotateAllAt repeats the command when it has said that it can go on.
func (c *ringCLI) rotateAllAt(from time.Time, code int) shownRekey {
	c.t.Helper()
	time.Sleep(time.Until(from.Add(10 * time.Millisecond)))
	return c.run("keys", "rekey", "--rotate-all", "--json").wantCode(c.t, code).rekeyed(c.t)
}

// What a run has left, because it was cut off or because one ring cannot be read, the next one does;
// rings that are done stay as they are.
func TestRotateAllResumes(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	then := time.Now().Add(-3 * time.Minute)
	m.SetTime(then)
	c.now = func() time.Time { return then }
	first, second := "old:"+c.kek, "new:"+newKEK()
	c.kek, _ = kekLines(t, first)
	for _, tenant := range []string{"acme", "globex"} {
		c.run("keys", "create", "--tenant", tenant).wantCode(t, exitYes)
	}
	m.SetTime(time.Time{})
	c.now = time.Now
	c.kek, _ = kekLines(t, second, first)
	c.run("keys", "rekey", "--rotate-all", "--tenant", "globex").wantCode(t, exitNo, "rings: 1 rotated, 1 with")
	globex := c.kids("globex")
	acme := fmt.Sprintf("kt:{%d}:ring:acme", rotation.BucketOf("acme"))
	m.HSet(acme, "tk:x", "rubbish")
	c.run("keys", "rekey", "--rotate-all").wantCode(t, exitCannotTell, `tenant "acme": NOT DONE: `, "malformed")
	m.HDel(acme, "tk:x")
	shown := c.run("keys", "rekey", "--rotate-all", "--json").wantCode(t, exitNo).rekeyed(t)
	if shown.Rotated != 1 || shown.Left != 2 || c.kids("globex") != globex {
		t.Errorf("rekey = %+v", shown)
	}
}
