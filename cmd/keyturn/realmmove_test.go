package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// client returns a client of the Redis, for what keyturn does not do.
func (c *ringCLI) client() redis.UniversalClient {
	c.t.Helper()
	client, err := rediskeys.Open(c.url)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { client.Close() })
	return client
}

// ringKey is the key of a tenant's ring.
func ringKey(tenant string) string {
	return fmt.Sprintf("kt:{%d}:ring:%s", rotation.BucketOf(tenant), tenant)
}

// rings returns the fields of tenants' rings.
func (c *ringCLI) rings(tenants ...string) map[string]map[string]string {
	c.t.Helper()
	client, rings := c.client(), make(map[string]map[string]string)
	for _, tenant := range tenants {
		fields, err := client.HGetAll(c.t.Context(), ringKey(tenant)).Result()
		if err != nil || len(fields) == 0 {
			c.t.Fatalf("the ring of %s: %v, %v", tenant, fields, err)
		}
		rings[tenant] = fields
	}
	return rings
}

// garbage fills the store with what anyone can write.
func (c *ringCLI) garbage(tenant string) {
	c.t.Helper()
	client, bucket := c.client(), fmt.Sprintf("kt:{%d}:", rotation.BucketOf(tenant))
	for _, err := range []error{
		client.Set(c.t.Context(), "unrelated", "x", 0).Err(),
		client.SAdd(c.t.Context(), bucket+"tenants", "nobody", "\xff", strings.Repeat("x", 300)).Err(),
		client.HSet(c.t.Context(), bucket+"acks", "forged", "rubbish").Err(),
		client.XAdd(c.t.Context(), &redis.XAddArgs{Stream: bucket + "log", Values: []string{"op", "revoke", "tenant", tenant, "mac", "rubbish"}}).Err(),
	} {
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// A movable is three rings in no realm: one has a revoked key, and each has signed a token.
type movable struct {
	tenants []string
	tokens  map[string]string
	dead    string // a token of acme's revoked key
	revoked string // its kid
}

func (c *ringCLI) movable() movable {
	c.t.Helper()
	m := movable{tenants: []string{"acme", "globex", "initech"}, tokens: make(map[string]string)}
	for _, tenant := range m.tenants {
		c.run(append([]string{"keys", "create", "--tenant", tenant}, calm...)...).wantCode(c.t, exitYes)
	}
	_, keys := c.list("--tenant", "acme")
	m.revoked = keys["signing"].KID
	m.dead = strings.TrimSpace(c.run("sign", "--tenant", "acme").wantCode(c.t, exitYes).stdout)
	c.run("keys", "rotate", "--force", "--tenant", "acme").wantCode(c.t, exitYes)
	c.run("keys", "revoke", "--force", "--tenant", "acme", "--no-wait", m.revoked).wantCode(c.t, exitYes)
	for _, tenant := range m.tenants[1:] {
		m.tokens[tenant] = strings.TrimSpace(c.run("sign", "--tenant", tenant).wantCode(c.t, exitYes).stdout)
	}
	c.garbage("globex")
	return m
}

// wantMoved checks that rings open in a realm, and in no other, with everything that they had.
func (m movable) wantMoved(c *ringCLI, realm string) {
	c.t.Helper()
	for tenant, token := range m.tokens {
		c.run("verify", "--tenant", tenant, "--realm", realm, "--alg", "HS256", token).wantCode(c.t, exitYes)
		c.run("verify", "--tenant", tenant, "--alg", "HS256", token).wantCode(c.t, exitCannotTell, "in another realm")
		c.run("keys", "list", "--tenant", tenant, "--realm", "staging").wantCode(c.t, exitCannotTell, "in another realm")
	}
	c.run("verify", "--tenant", "acme", "--realm", realm, "--alg", "HS256", m.dead).wantCode(c.t, exitNo, "revoked")
}

// kidOfToken returns the kid in a token's header.
func kidOfToken(t *testing.T, token string) string {
	t.Helper()
	var header struct{ KID string }
	part, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err == nil {
		err = json.Unmarshal(raw, &header)
	}
	if err != nil || header.KID == "" {
		t.Fatalf("no kid: %v", err)
	}
	return header.KID
}

// The steps of docs/operations.md, "A new realm": rings move while an instance runs.
func TestRealmMoveSteps(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		m := c.movable()
		move := []string{"keys", "rekey", "--realm", "live", "--from-realm", ""}
		peer := c.peer("peer-1", c.kek, m.tenants...)
		before := c.rings(m.tenants...)

		// Nothing is moved while an instance could not read it, or from a realm that it is not in.
		c.run(append(move, "--check")...).wantCode(t, exitNo, `in realm "live" is first here`, "rings: 3 looked at, with", `in realm ""`, "instance peer-1: KEK")
		c.run(append(move, "--dry-run")...).wantCode(t, exitYes, "rings: 3 looked at, with")
		c.run(move...).wantCode(t, exitNo, `in realm "live" first: peer-1; `, "in that realm")
		c.run("keys", "rekey", "--realm", "live", "--from-realm", "wrong").wantCode(t, exitCannotTell, `this process is in "live" and "wrong"`)
		if after := c.rings(m.tenants...); !maps.EqualFunc(before, after, maps.Equal) {
			t.Error("a move that is refused has changed a ring")
		}
		if err := peer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		peer = c.peerIn("live", []string{""}, "peer-2", c.kek, m.tenants...)
		found := func(tenant string) bool {
			keys, err := peer.Lookup(keystore.ID{Tenant: tenant, KID: kidOfToken(t, m.tokens[tenant])}, keystore.HS256)
			return err == nil && len(keys) == 1
		}
		if !found("globex") {
			t.Error("an instance of both realms does not know a key before the move")
		}

		// It can be done ring by ring, and repeated.
		c.run(append(move, "--tenant", "globex")...).wantCode(t, exitYes, "rings: 1 sealed again")
		shown := c.run(append(move, "--json")...).wantCode(t, exitYes).rekeyed(t)
		if shown.Rings != 3 || shown.Rekeyed != 2 || len(shown.Fields) != 1 || len(shown.Instances) != 1 || !shown.Instances[0].Applied || shown.Undone {
			t.Errorf("the move: %+v", shown)
		}
		c.run(move...).wantCode(t, exitYes, "rings: 0 sealed again, 3 done already", "do not need their other KEKs and realms any longer: peer-2", "Dumps of Redis from before are in the old realm")
		c.run("keys", "rekey", "--realm", "live", "--check").wantCode(t, exitYes, "rings: 3 looked at, all under that KEK")
		if !found("globex") || !found("initech") {
			t.Error("an instance has lost a key by the move")
		}
		for tenant, fields := range c.rings(m.tenants...) {
			for field, value := range fields {
				if strings.HasPrefix(field, "k:") && value != before[tenant][field] {
					t.Errorf("%s: the record %s was changed", tenant, field)
				}
			}
			if kept := slices.Sorted(maps.Keys(fields)); !slices.Equal(kept, slices.Sorted(maps.Keys(before[tenant]))) {
				t.Errorf("%s has other fields after the move: %q", tenant, kept)
			}
		}
		m.wantMoved(c, "live")
	})
}

// A ring that is partly in both realms, as after a dump of before, is moved whole. What ended in one
// of them stays ended, and one ring that cannot be read keeps no other from being moved.
func TestRealmMoveOfHalfARing(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		m, client := c.movable(), c.client()
		before := c.rings(m.tenants...)
		if err := client.HSet(t.Context(), ringKey("globex"), "tk:x", "rubbish").Err(); err != nil {
			t.Fatal(err)
		}
		move := []string{"keys", "rekey", "--realm", "live", "--from-realm", ""}
		c.run(move...).wantCode(t, exitCannotTell, "rings: 2 sealed again", `tenant "globex": NOT DONE: `, "malformed")
		if err := client.HDel(t.Context(), ringKey("globex"), "tk:x").Err(); err != nil {
			t.Fatal(err)
		}
		for field, value := range before["acme"] {
			if strings.HasPrefix(field, "tk:") || strings.HasPrefix(field, "a:") {
				if err := client.HSet(t.Context(), ringKey("acme"), field, value).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.run("keys", "list", "--realm", "live", "--tenant", "acme").wantCode(t, exitCannotTell, "in another realm")
		c.run(move...).wantCode(t, exitYes, "rings: 2 sealed again, 1 done already")
		m.wantMoved(c, "live")

		// And back to none.
		c.run("keys", "rekey", "--from-realm", "live").wantCode(t, exitYes, "rings: 3 sealed again")
		c.run("verify", "--tenant", "globex", "--alg", "HS256", m.tokens["globex"]).wantCode(t, exitYes)
	})
}

// A forced move says what it costs, and leaves the instance behind.
func TestRealmMoveForced(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		m := c.movable()
		peer := c.peer("left-behind", c.kek, m.tenants...)
		r := c.run("keys", "rekey", "--realm", "live", "--from-realm", "", "--force", "--no-wait").wantCode(t, exitYes, "rings: 3 sealed again", "first: left-behind; ", "hears of no revocation")
		if n := strings.Count(r.stderr, "hears of no revocation"); n != 1 {
			t.Errorf("the cost is said %d times: %s", n, r.stderr)
		}
		moved := c.rings(m.tenants...)
		wait(t, func() bool { s, _ := peer.Tenant("globex"); return s.Err != nil })
		time.Sleep(300 * time.Millisecond) // three of its polls
		if after := c.rings(m.tenants...); !maps.EqualFunc(moved, after, maps.Equal) {
			t.Error("an instance of the old realm has written to a ring")
		}
		if _, err := peer.Lookup(keystore.ID{Tenant: "globex", KID: kidOfToken(t, m.tokens["globex"])}, keystore.HS256); err != nil {
			t.Errorf("it does not verify with what it holds: %v", err)
		}
		if err := peer.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		m.wantMoved(c, "live")
	})
}

func TestRealmMoveUsage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--from-realm: the realm \"live\" is given twice": {"keys", "rekey", "--redis", "redis://x", "--realm", "live", "--from-realm", "live"},
		"--from-realm: the realm \"\" is given twice":     {"keys", "rekey", "--redis", "redis://x", "--from-realm", ""},
		"--other-realm: the realm \"a\" is given twice":   {"keys", "list", "--redis", "redis://x", "--other-realm", "a", "--other-realm", "a"},
		"--force goes with --from-realm":                  {"keys", "rekey", "--redis", "redis://x", "--force"},
		"--other-realm goes with --redis":                 {"sign", "--other-realm", "x", "--secret-file", "s"},
		"--from-realm: has 65 bytes: want at most 64":     {"keys", "rekey", "--from-realm", strings.Repeat("x", 65)},
	} {
		keyturn(t, args...).wantUsage(t, want)
	}
	for realms, want := range map[string]string{
		"other_realms: [" + strings.Repeat("x", 65) + "]": "rings.other_realms: one has 65 bytes: want at most 64",
		"realm: a, other_realms: [a]":                     `rings.other_realms: the realm "a" is given twice`,
		"other_realms: ['']":                              `rings.other_realms: the realm "" is given twice`,
	} {
		config := "rings: {redis: 'redis://127.0.0.1:1', kek_file: kek, " + realms + "}\ntenants:\n  - {id: default, kind: ring, any_issuer: true, any_audience: true}\n"
		keyturn(t, "serve", "--config", configFolder(t, config, map[string]string{"kek": newKEK()})).wantUsage(t, want)
	}
}
