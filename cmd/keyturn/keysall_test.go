package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
)

// A listedRing is a ring in the array of "keys list --json".
type listedRing struct {
	Tenant       string
	State        string
	Alg          *string
	Signing      *string
	NextRotation *string `json:"next_rotation"`
	Keys         int
	Held         bool
	Error        *string
}

func (r result) rings(t *testing.T) (rings []listedRing, byTenant map[string]listedRing) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&rings); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("keys list --json = %s, %v", r.stdout, err)
	}
	byTenant = make(map[string]listedRing)
	for _, one := range rings {
		byTenant[one.Tenant] = one
	}
	return rings, byTenant
}

func tenantsKey(tenant string) string {
	return fmt.Sprintf("kt:{%d}:tenants", rotation.BucketOf(tenant))
}

func TestKeysListAll(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "list").wantCode(t, exitYes, "this Redis has no rings", "keys create", "Redis came back empty")
	if r := c.run("keys", "list", "--json").wantCode(t, exitYes); r.stdout != "[]\n" {
		t.Errorf("without rings --json = %q", r.stdout)
	}
	for tenant, alg := range map[string]string{"globex": "ES256", "acme": "HS256", "with space": "EdDSA"} {
		c.run("keys", "create", "--tenant", tenant, "--alg", alg).wantCode(t, exitYes)
	}
	_, keys := c.list("--tenant", "globex")
	r := c.run("keys", "list").wantCode(t, exitYes, "next rotation in ", keys["signing"].KID)
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "acme ") || !strings.HasPrefix(lines[1], "globex ") || !strings.HasPrefix(lines[2], "with space ") {
		t.Errorf("keys list = %s", r.stdout)
	}
	all, by := c.run("keys", "list", "--json").wantCode(t, exitYes).rings(t)
	g := by["globex"]
	if len(all) != 3 || g.State != stateSigning || *g.Alg != "ES256" || *g.Signing != keys["signing"].KID || *g.NextRotation != *when(*keys["signing"].RetiresAt) || g.Keys != 2 || g.Error != nil {
		t.Errorf("keys list --json = %+v", all)
	}
}

// A ring that cannot be read is one line with the reason, and not the end of the list.
func TestKeysListUnreadable(t *testing.T) {
	c := newPatient(t, durable())
	do := c.do
	for _, tenant := range []string{"a-good", "b-part", "c-kek", "d-type", "e-lost", "f-good"} {
		c.run("keys", "create", "--tenant", tenant).wantCode(t, exitYes)
	}
	_, keys := c.list("--tenant", "b-part")
	do("HSET", ringKey("b-part"), "x:"+keys["pending"].KID, "rubbish")
	do("DEL", ringKey("c-kek"))
	do("HSET", ringKey("c-kek"), "head", "rubbish", "k:one", "rubbish")
	do("DEL", ringKey("d-type"))
	do("SET", ringKey("d-type"), "a string")
	do("DEL", ringKey("e-lost"))
	r := c.run("keys", "list").wantCode(t, exitCannotTell, "UNREADABLE", "INCOMPLETE", "NO RING", "3 rings cannot be read")
	if n := strings.Count(r.stdout, "\n"); n != 6 {
		t.Errorf("keys list has %d lines, want 6:\n%s", n, r.stdout)
	}
	_, by := c.run("keys", "list", "--json").wantCode(t, exitCannotTell).rings(t)
	for tenant, state := range map[string]string{
		"a-good": stateSigning, "b-part": stateIncomplete, "c-kek": stateUnreadable, "d-type": stateUnreadable, "e-lost": stateNoRing, "f-good": stateSigning,
	} {
		if got := by[tenant]; got.State != state || (got.Error != nil) != (state == stateIncomplete || state == stateUnreadable) {
			t.Errorf("%s = %+v, want %s", tenant, got, state)
		}
	}

	// Anyone who can write there chooses the names.
	do("SADD", tenantsKey("a-good"), "\xff\x1b[2J", strings.Repeat("x", 300))
	do("SET", fmt.Sprintf("kt:{%d}:tenants", (rotation.BucketOf("a-good")+1)%rotation.Buckets), "a string")
	r = c.run("keys", "list").wantCode(t, exitCannotTell, "a-good", "the rings in 1 of 256 buckets are not listed")
	if strings.Contains(r.stdout, "\x1b") || strings.Count(r.stdout, "INCOMPLETE") != 1 {
		t.Errorf("keys list = %q", r.stdout)
	}
	_, by = c.run("keys", "list", "--json").wantCode(t, exitCannotTell).rings(t)
	if by["a-good"].State != stateSigning || by["f-good"].State != stateSigning {
		t.Errorf("with odd names: %+v", by)
	}
	do("DEL", fmt.Sprintf("kt:{%d}:tenants", (rotation.BucketOf("a-good")+1)%rotation.Buckets))

	c.kek = newKEK() // that of another service: no ring opens, and each says so
	_, by = c.run("keys", "list", "--json").wantCode(t, exitCannotTell, "wrong KEK").rings(t)
	if len(by) != 6 || by["a-good"].State != stateUnreadable || !strings.Contains(*by["a-good"].Error, "wrong KEK") {
		t.Errorf("under another KEK: %+v", by)
	}
}

// A server of a Cluster that is away hides its own tenants alone.
func TestKeysListCluster(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	cluster := redistest.RunCluster(t, redistest.Options{})
	c := newRingCLI(t, "")
	c.url = "redis-cluster://" + strings.Join(cluster.Addrs(), ",")
	there, gone := "", ""
	for i := 0; there == "" || gone == ""; i++ {
		tenant := fmt.Sprint("tenant-", i)
		switch owner, err := cluster.Owner(t.Context(), ringKey(tenant)); {
		case err != nil:
			t.Fatal(err)
		case owner == 1:
			gone = tenant
		default:
			there = tenant
		}
	}
	for _, tenant := range []string{there, gone} {
		c.run("keys", "create", "--tenant", tenant).wantCode(t, exitYes)
	}
	cluster.Servers[1].Kill()
	r := c.run("keys", "list").wantCode(t, exitCannotTell, "buckets are not listed", there)
	if strings.Contains(r.stdout, gone) {
		t.Errorf("keys list = %s", r.stdout)
	}
}

// Many rings are printed as they are read.
func TestKeysListMany(t *testing.T) {
	c := newPatient(t, durable())
	pipe := c.server.Client().Pipeline()
	for i := range sortedRings + 1 {
		tenant := fmt.Sprint("tenant-", i)
		pipe.SAdd(t.Context(), tenantsKey(tenant), tenant)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := c.run("keys", "list").wantCode(t, exitYes)
	if n := strings.Count(r.stdout, "NO RING"); n != sortedRings+1 {
		t.Errorf("%d lines, want %d", n, sortedRings+1)
	}
	all, _ := c.run("keys", "list", "--json").wantCode(t, exitYes).rings(t)
	if len(all) != sortedRings+1 {
		t.Errorf("%d rings, want %d", len(all), sortedRings+1)
	}
}

// A name that no tenant can have keeps no command from the other tenants of its bucket.
func TestOddNamesHideNone(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	c.do("SADD", tenantsKey("acme"), "\xff")
	c.run("keys", "list").wantCode(t, exitYes, "acme ")
	c.run("doctor").wantCode(t, exitYes, `tenant "acme": it opens`, "rings        one ring looked at")
	c.kek = newKEK() + "\n" + c.kek
	c.run("keys", "rekey").wantCode(t, exitYes, "1 sealed again")
}

// A keyring does not open if none of its rings does. Each ring of the bucket has its own reason all the
// same.
func TestKeysListReasons(t *testing.T) {
	c := newPatient(t, durable())
	one, other := "tenant", ""
	for i := 0; other == ""; i++ {
		if name := fmt.Sprint("tenant-", i); rotation.BucketOf(name) == rotation.BucketOf(one) {
			other = name
		}
	}
	c.do("SADD", tenantsKey(one), one, other)
	c.do("SET", ringKey(one), "a string")
	c.do("SET", ringKey(other), "a string")
	_, by := c.run("keys", "list", "--json").wantCode(t, exitCannotTell).rings(t)
	if a, b := by[one].Error, by[other].Error; a == nil || b == nil || !strings.Contains(*a, `"tenant"`) || !strings.Contains(*b, other) {
		t.Errorf("keys list --json = %+v", by)
	}
}
