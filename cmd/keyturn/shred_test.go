package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

// shredded reads the answer of "keys shred --json".
func (r result) shredded(t *testing.T) (shown shredJSON) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&shown); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("stdout = %s, %v", r.stdout, err)
	}
	return shown
}

// docs/operations.md, "Offboarding a tenant", while an instance runs.
func TestShredSteps(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create", "--tenant", "acme"}, calm...)...).wantCode(t, exitYes)
		c.run(append([]string{"keys", "create", "--tenant", "globex"}, calm...)...).wantCode(t, exitYes)
		token := strings.TrimSpace(c.run("sign", "--tenant", "acme", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
		kid := kidOfToken(t, token)
		peer := c.peer("peer-1", c.kek, "acme", "globex")
		key, err := peer.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.HS256)
		if err != nil {
			t.Fatal(err)
		}
		shred := []string{"keys", "shred", "--tenant", "acme", "--confirm", "acme"}
		c.run(append(shred, "--dry-run")...).wantCode(t, exitYes, "would be destroyed; nothing was changed", "2 keys", "worst case", "not erased", "drained")
		c.run("verify", "--tenant", "acme", "--alg", "HS256", token).wantCode(t, exitYes)

		c.run(shred...).wantCode(t, exitYes, `the ring of tenant "acme" is destroyed: 2 keys`, "not erased", "1 of 1 instance has applied it", "keys create --again")
		if _, err := peer.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.HS256); !errors.Is(err, keystore.ErrNotFound) || key[0].Usable(time.Now()) {
			t.Errorf("the instance finds the key: %v", err)
		}
		if s, _ := peer.Tenant("acme"); !s.Ready || !peer.Status().Ready {
			t.Errorf("not ready: %v", s.Err)
		}
		c.run("verify", "--tenant", "acme", "--alg", "HS256", "--json", token).wantCode(t, exitNo, `"reason":"unknown_key"`)
		c.run("sign", "--tenant", "acme").wantCode(t, exitNo)
		c.run("keys", "list", "--tenant", "acme").wantCode(t, exitYes, "its ring was destroyed on ")
		if list := c.run("keys", "list", "--tenant", "acme", "--json").wantCode(t, exitYes).stdout; list != "[]\n" {
			t.Errorf("list --json: %s", list)
		}
		c.run("keys", "list", "--json").wantCode(t, exitYes, `"tenant":"acme","state":"destroyed"`, `"tenant":"globex","state":"signing"`)
		c.run("keys", "create", "--tenant", "acme").wantCode(t, exitNo, "its ring was destroyed: another one is made only with --again")
		c.run("keys", "rotate", "--tenant", "acme", "--force").wantCode(t, exitNo, "was destroyed on ")
		old := []string{"keys", "import", "--tenant", "acme", "--secret-file", file(t, "a secret of thirty-two bytes, more"), "--no-kid", "--longest-token", "1h"}
		c.run(old...).wantCode(t, exitNo, "its ring was destroyed: another one is made only with --again")
		if again := c.run(append(shred, "--json")...).wantCode(t, exitYes).shredded(t); again.CommittedAt != nil || again.DestroyedAt == nil {
			t.Errorf("once more: %+v", again)
		}
		c.run("verify", "--tenant", "globex", "--alg", "HS256", token).wantCode(t, exitNo, "unknown_key")
		if s := c.run("sign", "--tenant", "globex"); s.code != exitYes {
			t.Errorf("the neighbour cannot sign: %s", s.stderr)
		}

		c.run(append([]string{"keys", "create", "--tenant", "acme", "--again"}, calm...)...).wantCode(t, exitYes)
		next := strings.TrimSpace(c.run("sign", "--tenant", "acme", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
		c.run("verify", "--tenant", "acme", "--alg", "HS256", next).wantCode(t, exitYes)
		c.run("verify", "--tenant", "acme", "--alg", "HS256", token).wantCode(t, exitNo, "unknown_key")
		wait(t, func() bool {
			_, err := peer.Lookup(keystore.ID{Tenant: "acme", KID: kidOfToken(t, next)}, keystore.HS256)
			return err == nil
		})
		c.run("keys", "create", "--tenant", "acme", "--again").wantCode(t, exitNo, "it has a ring already")
	})
}

// A shred names its tenant twice. Everything else is a wrong command line, and destroys nothing.
func TestShredUsage(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create", "--tenant", "acme"}, calm...)...).wantCode(t, exitYes)
		c.run("keys", "shred").wantUsage(t, "--tenant is missing")
		c.run("keys", "shred", "--confirm", "acme").wantUsage(t, "--tenant is missing")
		c.run("keys", "shred", "--tenant", "acme").wantUsage(t, `--confirm is missing: this cannot be undone`, `--confirm "acme"`)
		c.run("keys", "shred", "--tenant", "acme", "--confirm", "Acme").wantUsage(t, `--confirm "Acme" is not --tenant "acme"`)
		c.run("keys", "shred", "--tenant", "acme", "--confirm", "acme", "--wait", "5s", "--no-wait").wantUsage(t, "--wait and --no-wait")
		c.run("keys", "shred", "--tenant", "acme", "--confirm", "acme", "acme").wantUsage(t)
		c.run("sign", "--tenant", "acme").wantCode(t, exitYes)
		c.run("keys", "shred", "--tenant", "nobody", "--confirm", "nobody", "--no-wait").wantCode(t, exitNo, `tenant "nobody" has no ring`)
	})
}

// Accepted keys end with the ring, are counted, and are not waited for.
func TestShredCountsAcceptedKeys(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run("keys", "accept", "--secret-file", file(t, testSecret), "--kid", "old", "--until", tomorrow(), "--no-wait").wantCode(t, exitYes)
		shred := []string{"keys", "shred", "--tenant", "default", "--confirm", "default"}
		if r := c.run(append(shred, "--no-wait", "--dry-run")...).wantCode(t, exitYes, "1 key (1 accepted), and every token", "--after-drain does not wait"); strings.Contains(r.stdout, "drained") {
			t.Errorf("a time until which nothing was signed: %s", r.stdout)
		}
		c.run("keys", "create", "--no-wait").wantCode(t, exitYes)
		c.run(append(shred, "--no-wait", "--dry-run")...).wantCode(t, exitYes, "3 keys (1 accepted)", "drained")
		r := c.run(append(shred, "--no-wait", "--dry-run", "--after-drain")...).wantCode(t, exitYes, "after the wait", "nothing is changed before ", "--after-drain does not wait")
		if strings.Contains(r.stdout, "at once") {
			t.Errorf("it says that tokens end at once: %s", r.stdout)
		}
		if shown := c.run(append(shred, "--no-wait", "--json")...).wantCode(t, exitYes).shredded(t); shown.Keys != 3 {
			t.Errorf("keys = %d, want 3", shown.Keys)
		}
	})
}

// With --after-drain the last token that was signed by then has ended before its key goes. A shred by
// somebody else in the meantime is no error.
func TestShredAfterDrain(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		quick := []string{"--freshness", "6s", "--skew", "10ms", "--dwell", "10ms", "--max-ttl", "6500ms", "--leeway", "20ms"}
		shred := []string{"keys", "shred", "--tenant", "acme", "--confirm", "acme", "--json", "--wait", "20s"}
		c.run(append([]string{"keys", "create", "--tenant", "acme", "--no-wait"}, quick...)...).wantCode(t, exitYes)
		begin := time.Now()
		r := c.run(append(shred, "--after-drain")...).wantCode(t, exitYes, "waiting until ", "nothing is changed before that")
		at, err := time.Parse(time.RFC3339, *r.shredded(t).CommittedAt)
		if err != nil || at.Before(begin.Add(6520*time.Millisecond).Truncate(time.Second)) || time.Since(begin) < 6520*time.Millisecond {
			t.Errorf("destroyed at %v, began at %v, %v", at, begin, err)
		}
		c.run(append([]string{"keys", "create", "--tenant", "acme", "--again", "--no-wait"}, quick...)...).wantCode(t, exitYes)
		other, err := rotation.NewRotator(c.peer("peer-1", c.kek, "acme"))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			time.Sleep(500 * time.Millisecond)
			_, err := other.Destroy(t.Context(), "acme")
			done <- err
		}()
		r = c.run(append(shred, "--after-drain")...).wantCode(t, exitYes)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if shown := r.shredded(t); shown.CommittedAt != nil || shown.DestroyedAt == nil {
			t.Errorf("%+v", shown)
		}
	})
}

// A ring of which a field cannot be opened is destroyed too, and its rubbish goes.
func TestShredOfSpoiltRing(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create", "--tenant", "acme"}, calm...)...).wantCode(t, exitYes)
		client := c.client()
		if err := client.HSet(t.Context(), ringKey("acme"), "k:rubbish", "rubbish").Err(); err != nil {
			t.Fatal(err)
		}
		c.run("keys", "rotate", "--tenant", "acme").wantCode(t, exitCannotTell)
		shown := c.run("keys", "shred", "--tenant", "acme", "--confirm", "acme", "--json", "--wait", "200ms").wantCode(t, exitYes).shredded(t)
		if shown.CommittedAt == nil || shown.DestroyedAt == nil {
			t.Errorf("%+v", shown)
		}
		for field := range c.rings("acme")["acme"] {
			if field != "head" && field != "dead" {
				t.Errorf("Redis still has %q", field)
			}
		}
		c.run("keys", "list", "--tenant", "acme").wantCode(t, exitYes, "its ring was destroyed")
	})
}
