package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// kekLines returns the text of a KEK file, and its KEKs.
func kekLines(t *testing.T, lines ...string) (string, *rotation.KEKs) {
	t.Helper()
	text := strings.Join(lines, "\n") + "\n"
	keks, err := rotation.ParseKEKs([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text, keks
}

// A shownRekey is the answer of "keys rekey --json".
type shownRekey struct {
	Primary        string
	Rings, Rekeyed int
	Rotated, Left  int
	From           *time.Time
	OldUntil       *time.Time `json:"old_keys_until"`
	Fields         map[string]int
	Revocations    struct {
		Keys   int `json:"digest_keys"`
		Sealed int
	}
	Tenants []struct {
		Tenant           string
		Rekeyed          bool
		Others           map[string][]string
		OldKeys          []string `json:"old_keys"`
		Promoted, Minted *string
		Left             []string
		From             *time.Time
		Error            *string
	}
	Instances []struct {
		Instance      string
		Applied, Live bool
		Holds         bool
		HeardAt       string `json:"heard_at"`
		KEKs          []string
	}
	Undone bool
	Waited float64
}

func (r result) rekeyed(t *testing.T) (shown shownRekey) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&shown); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("stdout = %s, %v", r.stdout, err)
	}
	return shown
}

// The four steps of docs/operations.md, "A new KEK", while an instance runs.
func TestRekeySteps(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		first, second := "old:"+c.kek, "new:"+newKEK()
		c.kek, _ = kekLines(t, first)
		tenants := []string{"acme", "globex", "initech"}
		for _, tenant := range tenants {
			c.run(append([]string{"keys", "create", "--tenant", tenant}, calm...)...).wantCode(t, exitYes)
		}
		c.run("keys", "rekey", "--check").wantCode(t, exitYes, "rings: 3 looked at, all under that KEK", "Keep the old KEK in a safe place, and in no instance")
		peer := c.peer("peer-1", c.kek, tenants...)

		// Nothing is sealed under a KEK that a live instance does not have first.
		c.kek, _ = kekLines(t, second, first)
		r := c.run("keys", "rekey", "--check").wantCode(t, exitNo, "rings: 3 looked at, with", "under another KEK than new", `tenant "globex": under KEK old`, ": head tk:", "instance peer-1: KEK old")
		if strings.Contains(r.stdout, "do not need") {
			t.Errorf("stdout = %s", r.stdout)
		}
		c.run("keys", "rekey", "--dry-run").wantCode(t, exitYes, "rings: 3 looked at, with")
		c.run("keys", "rekey").wantCode(t, exitNo, "these instances do not have KEK new", "first: peer-1")
		text, both := kekLines(t, first, second)
		if err := peer.SetKEKs(both); err != nil {
			t.Fatal(err)
		}
		c.awaitKEKs(2)
		c.run("keys", "rekey").wantCode(t, exitNo, "first: peer-1")
		_, both = kekLines(t, second, first)
		if err := peer.SetKEKs(both); err != nil {
			t.Fatal(err)
		}
		c.awaitFirst("new")

		// It can be repeated: what is done is skipped.
		c.run("keys", "rekey", "--tenant", "globex").wantCode(t, exitYes, "rings: 1 sealed again")
		r = c.run("keys", "rekey", "--json").wantCode(t, exitYes)
		shown := r.rekeyed(t)
		if shown.Rings != 3 || shown.Rekeyed != 2 || len(shown.Fields) != 1 || len(shown.Tenants) != 3 || shown.Undone || len(shown.Instances) != 1 ||
			!shown.Instances[0].Applied || !strings.HasPrefix(shown.Instances[0].KEKs[0], "new ") || !strings.HasPrefix(shown.Primary, "new ") {
			t.Errorf("rekey = %s", r.stdout)
		}
		c.run("keys", "rekey", "--check").wantCode(t, exitYes, "rings: 3 looked at, all under that KEK", "keys that were made under another KEK: ",
			"these instances do not need their older KEKs any longer: peer-1", "Keep the old KEK in a safe place, and in no instance")
		c.run("keys", "rekey").wantCode(t, exitYes, "rings: 0 sealed again, 3 done already")

		// The old KEK goes, and the keys made under it go with the rotations.
		_, alone := kekLines(t, second)
		if err := peer.SetKEKs(alone); err != nil {
			t.Errorf("the instance needs the old KEK: %v", err)
		}
		c.kek, _ = kekLines(t, second)
		if old := c.run("keys", "rekey", "--check", "--tenant", "acme", "--json").wantCode(t, exitYes).rekeyed(t).Tenants[0].OldKeys; len(old) != 2 {
			t.Errorf("old keys = %q", old)
		}
		c.run("keys", "rotate", "--force", "--tenant", "acme").wantCode(t, exitYes)
		if old := c.run("keys", "rekey", "--check", "--tenant", "acme", "--json").wantCode(t, exitYes).rekeyed(t).Tenants[0].OldKeys; len(old) != 2 {
			t.Errorf("old keys = %q: the new one is none of them", old)
		}
		c.kek = text
	})
}

// awaitKEKs waits until the instance has said that it has so many KEKs.
func (c *ringCLI) awaitKEKs(n int) {
	c.t.Helper()
	c.awaitInstance(func(keks []string) bool { return len(keks) == n })
}

// awaitFirst waits until the instance has said that its first KEK is that of the id.
func (c *ringCLI) awaitFirst(id string) {
	c.t.Helper()
	c.awaitInstance(func(keks []string) bool { return len(keks) > 0 && strings.HasPrefix(keks[0], id+" ") })
}

func (c *ringCLI) awaitInstance(ok func(keks []string) bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		shown := c.run("keys", "rekey", "--dry-run", "--json").rekeyed(c.t)
		if len(shown.Instances) == 1 && ok(shown.Instances[0].KEKs) {
			return
		}
	}
	c.t.Fatal("the instance does not say so")
}

// One ring that cannot be read does not keep the others from being sealed again.
func TestRekeyUnreadable(t *testing.T) {
	t.Parallel()
	c := newRingCLI(t, redisAddr(t))
	client := c.client()
	first, second := "old:"+c.kek, "new:"+newKEK()
	c.kek, _ = kekLines(t, first)
	for _, tenant := range []string{"acme", "globex"} {
		c.run("keys", "create", "--tenant", tenant).wantCode(t, exitYes)
	}
	names := fmt.Sprintf("kt:{%d}:tenants", rotation.BucketOf("acme"))
	if err := errors.Join(client.HSet(t.Context(), ringKey("acme"), "tk:x", "rubbish").Err(),
		client.SAdd(t.Context(), names, "stranger", "\xff", strings.Repeat("x", 300)).Err()); err != nil { // anyone can write names
		t.Fatal(err)
	}
	c.kek, _ = kekLines(t, second, first)
	r := c.run("keys", "rekey", "--json").wantCode(t, exitCannotTell, "malformed")
	if shown := r.rekeyed(t); shown.Rings != 1 || shown.Rekeyed != 1 || len(shown.Tenants) != 2 {
		t.Errorf("rekey = %s", r.stdout)
	}
	c.run("keys", "rekey").wantCode(t, exitCannotTell, `tenant "acme": NOT DONE: `)
	c.run("keys", "rekey", "--tenant", "stranger").wantCode(t, exitNo, `tenant "stranger" has no ring`)
	if err := client.HDel(t.Context(), ringKey("acme"), "tk:x").Err(); err != nil {
		t.Fatal(err)
	}
	c.run("keys", "rekey").wantCode(t, exitYes, "rings: 1 sealed again, 1 done already")
	c.run("keys", "rekey", "--check", "--dry-run").wantUsage(t, "--check and --dry-run: give one of them")
	c.url = "redis://127.0.0.1:1"
	c.run("keys", "rekey").wantCode(t, exitCannotTell, "Redis cannot be reached")
}

// rollBack writes a ring back as it is now, as soon as it has changed.
func (c *ringCLI) rollBack(tenant string) (done func()) {
	c.t.Helper()
	client, err := rediskeys.Open(c.url)
	if err != nil {
		c.t.Fatal(err)
	}
	key := fmt.Sprintf("kt:{%d}:ring:%s", rotation.BucketOf(tenant), tenant)
	before, err := client.HGetAll(c.t.Context(), key).Result()
	if err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer client.Close()
		for range 3000 {
			now, err := client.HGet(c.t.Context(), key, "head").Result()
			if err != nil || now != before["head"] {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if err := client.Del(c.t.Context(), key).Err(); err != nil {
			c.t.Error(err)
		}
		if err := client.HSet(c.t.Context(), key, before).Err(); err != nil {
			c.t.Error(err)
		}
	}()
	return func() { <-ended }
}

// If Redis loses a rekey while the command watches, the command puts it back and says so.
func TestRekeyUndone(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		first, second := "old:"+c.kek, "new:"+newKEK()
		c.kek, _ = kekLines(t, first)
		c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
		c.kek, _ = kekLines(t, second, first)
		c.stuck("stuck")
		done := c.rollBack("default")
		c.run("keys", "rekey", "--wait", "1s").wantCode(t, exitCannotTell, "Redis lost the change after it was made, and it was put back")
		done()
		c.run("keys", "rekey", "--check").wantCode(t, exitYes)
	})
}

// A name that no tenant can have keeps the command from no other tenant of its bucket.
func TestRekeyDespiteOddNames(t *testing.T) {
	c := newRingCLI(t, redisAddr(t))
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	if err := c.client().SAdd(t.Context(), fmt.Sprintf("kt:{%d}:tenants", rotation.BucketOf("acme")), "\xff", strings.Repeat("x", 300)).Err(); err != nil {
		t.Fatal(err)
	}
	c.kek = newKEK() + "\n" + c.kek
	c.run("keys", "rekey").wantCode(t, exitYes, "1 sealed again")
}

// The digest keys of the list of revocations are sealed again too, and the list forgets nothing.
func TestRekeyRevocations(t *testing.T) {
	t.Parallel()
	c := newRingCLI(t, redisAddr(t))
	first, second := "old:"+c.kek, "new:"+newKEK()
	old, keks := kekLines(t, first)
	c.kek = old
	c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
	open := func(keks *rotation.KEKs) *revocations.List {
		client, err := rediskeys.Open(c.url)
		if err != nil {
			t.Fatal(err)
		}
		l, err := revocations.Open(t.Context(), client, revocations.Config{KEKs: keks, Transient: true, TrustFirstRead: true, Deadline: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(context.WithoutCancel(t.Context())); client.Close() })
		return l
	}
	if _, err := open(keks).RevokeSubject(t.Context(), "acme", "ann", time.Now()); err != nil {
		t.Fatal(err)
	}
	c.kek, _ = kekLines(t, second, first)
	c.run("keys", "rekey", "--check").wantCode(t, exitNo, "revocations: 1 digest keys looked at, 1 of them under another KEK")
	if shown := c.run("keys", "rekey", "--json").wantCode(t, exitYes).rekeyed(t); shown.Revocations.Keys != 1 || shown.Revocations.Sealed != 1 {
		t.Errorf("revocations = %+v", shown.Revocations)
	}
	c.run("keys", "rekey", "--check").wantCode(t, exitYes, "revocations: 1 digest keys looked at, 0 of them under another KEK")
	c.run("keys", "rekey").wantCode(t, exitYes, "revocations: 0 digest keys sealed again, 1 done already")
	_, keks = kekLines(t, second)
	l := open(keks)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.WaitReady(ctx); err != nil || l.Len() != 1 {
		t.Errorf("with the new KEK alone: %d revocations, %v", l.Len(), err)
	}
}
