package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/backup"
)

// backUp makes a backup, and returns the name of its file.
func (c *ringCLI) backUp(args ...string) string {
	c.t.Helper()
	name := filepath.Join(c.t.TempDir(), "rings.ktb")
	c.run(append([]string{"keys", "backup", "--out", name}, args...)...).wantCode(c.t, exitYes, "in the backup")
	return name
}

// A shownRestore is the answer of "keys restore --json".
type shownRestore struct {
	Taken    *time.Time `json:"taken_at"`
	Rings    int
	Restored int
	Missed   []missedRing
	Failed   int
	Tenants  []struct {
		Tenant   string
		Taken    *time.Time `json:"taken_at"`
		PutBack  []string   `json:"put_back"`
		Better   []string
		Left     []string
		EndsOnly bool `json:"ends_only"`
		Error    *string
	}
}

func (r result) restored(t *testing.T) (shown shownRestore) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&shown); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("keys restore --json = %s, %v", r.stdout, err)
	}
	return shown
}

// Redis is emptied. The backup brings all rings back, with their revocations; tokens of before are good
// again, and to restore it again changes nothing.
func TestBackupAndRestore(t *testing.T) {
	c := newPatient(t, durable())
	tokens := make(map[string]string)
	for _, tenant := range []string{"acme", "globex", "with space"} {
		c.run("keys", "create", "--tenant", tenant, "--alg", "ES256").wantCode(t, exitYes)
		tokens[tenant] = strings.TrimSpace(c.run("sign", "--tenant", tenant).wantCode(t, exitYes).stdout)
	}
	_, keys := c.list("--tenant", "globex")
	revoked := keys["pending"].KID
	c.run("keys", "revoke", "--tenant", "globex", "--", revoked).wantCode(t, exitYes)
	before := c.contents()
	name := c.backUp()
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	c.do("FLUSHALL")
	c.run("keys", "restore", "--dry-run", name).wantCode(t, exitYes, "would put back 2 keys, one revocation", "3 of 3 rings would be restored")
	if n := c.server.Client().DBSize(t.Context()).Val(); n > 256 { // a log begins where it is asked for
		t.Errorf("a dry run left %d keys", n)
	}
	c.run("keys", "list").wantCode(t, exitYes, "no rings")
	c.run("keys", "restore", name).wantCode(t, exitYes, "acme ", "globex ", "put back 2 keys, one revocation", "3 of 3 rings restored", "revocations after "+stamp(time.Now())[:13])
	for tenant, token := range tokens {
		c.run("verify", "--tenant", tenant, "--alg", "ES256", token).wantCode(t, exitYes)
	}
	_, keys = c.list("--tenant", "globex")
	if keys["revoked"].KID != revoked {
		t.Errorf("keys = %v", keys)
	}
	for key, dump := range before {
		if strings.Contains(key, ":tenants") && c.contents()[key] != dump {
			t.Errorf("%s is not as it was", key)
		}
	}
	after := c.contents()
	shown := c.run("keys", "restore", "--json", name).wantCode(t, exitYes).restored(t)
	if shown.Rings != 3 || shown.Restored != 0 || len(shown.Tenants) != 0 || shown.Taken == nil {
		t.Errorf("restored again: %+v", shown)
	}
	for key, dump := range c.contents() {
		if after[key] != dump && strings.Contains(key, ":ring:") {
			t.Errorf("restored again, %s is another", key)
		}
	}
}

// Of one tenant, to standard output, and without a KEK.
func TestBackupOfOneTenant(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	c.run("keys", "create", "--tenant", "globex").wantCode(t, exitYes)
	r := call{env: map[string]string{envRedis: c.url}}.run(t, "keys", "backup", "--tenant", "globex").wantCode(t, exitYes, "one ring in the backup")
	if all := entriesOf(t, []byte(r.stdout)); len(all) != 1 || all[0].Tenant != "globex" || len(all[0].Ring.Fields) < 5 {
		t.Errorf("the backup has %+v", all)
	}
	c.run("keys", "backup", "--tenant", "nobody").wantCode(t, exitNo, "has no ring")
	name := c.backUp()
	c.do("FLUSHALL")
	c.run("keys", "restore", "--tenant", "acme", name).wantCode(t, exitYes, "1 of one ring restored")
	c.run("keys", "restore", "--tenant", "nobody", name).wantCode(t, exitNo, "the backup has no ring of tenant")
	if r := c.run("keys", "list").wantCode(t, exitYes, "acme"); strings.Contains(r.stdout, "globex") {
		t.Errorf("keys list = %s", r.stdout)
	}
	c.run("keys", "backup", "--json").wantUsage(t, "--json goes with --out")
	c.run("keys", "restore").wantUsage(t, "one FILE is wanted")
	c.run("keys", "restore", "-").wantUsage(t, "read twice")
	c.run("keys", "restore", "/nowhere").wantUsage(t, "FILE: ")
	c.run("keys", "backup", "--out", "/nowhere/x").wantUsage(t, "--out: ")
}

func entriesOf(t *testing.T, file []byte) (all []backup.Entry) {
	t.Helper()
	in, err := backup.NewReader(bytes.NewReader(file))
	for err == nil {
		var e backup.Entry
		if e, err = in.Next(); err == nil {
			all = append(all, e)
		}
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	return all
}

// Nothing of a damaged file is restored, although its first part is whole.
func TestRestoreOfDamagedFile(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	whole, err := os.ReadFile(c.backUp())
	if err != nil {
		t.Fatal(err)
	}
	c.do("FLUSHALL")
	for what, text := range map[string]string{
		"truncated": string(whole[:len(whole)-60]), "no end": string(whole[:len(whole)-1]), "empty": "", "text": "this is no backup at all",
		"changed": strings.Replace(string(whole), "k:", "x:", 1), "longer": string(whole) + "x",
	} {
		c.run("keys", "restore", file(t, text)).wantCode(t, exitNo, "the file is damaged", "nothing is restored")
		if n := c.server.Client().DBSize(t.Context()).Val(); n != 0 {
			t.Errorf("%s: Redis has %d keys", what, n)
		}
	}
	newer := bytes.Clone(whole)
	newer[2]++
	c.run("keys", "restore", file(t, string(newer))).wantCode(t, exitNo, "newer keyturn")
}

// A ring that cannot be read is missing in the backup, which says so, as does the restore.
func TestBackupWithUnreadableRing(t *testing.T) {
	c := newPatient(t, durable())
	for _, tenant := range []string{"acme", "globex"} {
		c.run("keys", "create", "--tenant", tenant).wantCode(t, exitYes)
	}
	c.do("DEL", ringKey("acme"))
	c.do("SET", ringKey("acme"), "a string")
	name := filepath.Join(t.TempDir(), "rings.ktb")
	r := c.run("keys", "backup", "--json", "--out", name).wantCode(t, exitCannotTell, `"rings":1,"missed":[{"tenant":"acme"`, "lacks one ring")
	if !strings.Contains(r.stderr, "did not write") {
		t.Errorf("stderr = %s", r.stderr)
	}
	c.do("FLUSHALL")
	c.run("keys", "restore", name).wantCode(t, exitYes, "the backup lacks its ring", "1 of one ring restored")
	c.do("FLUSHALL")
	if shown := c.run("keys", "restore", "--json", name).wantCode(t, exitYes).restored(t); len(shown.Missed) != 1 || shown.Restored != 1 {
		t.Errorf("%+v", shown)
	}
}

// While Redis is away there is no file, not even a part of one.
func TestBackupWithoutRedis(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	good := c.backUp()
	c.server.Kill()
	name := filepath.Join(t.TempDir(), "rings.ktb")
	c.run("keys", "backup", "--out", name).wantCode(t, exitCannotTell, "there is no whole backup")
	if all, err := os.ReadDir(filepath.Dir(name)); err != nil || len(all) != 0 {
		t.Errorf("the folder has %v, %v", all, err)
	}
	c.run("keys", "restore", good).wantCode(t, exitCannotTell, "could not be restored")
}

// What cannot be opened is not restored: with another KEK, or where a field was changed.
func TestRestoreNeedsKEK(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	name := c.backUp()
	c.do("FLUSHALL")
	kek := c.kek
	c.kek = newKEK()
	c.run("keys", "restore", name).wantCode(t, exitCannotTell, "FAILED", "wrong KEK")
	c.kek = kek
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	all := entriesOf(t, whole)
	for field, value := range all[0].Ring.Fields {
		if strings.HasPrefix(field, "k:") {
			value[len(value)-1] ^= 1
			break
		}
	}
	c.run("keys", "restore", writeEntries(t, all)).wantCode(t, exitCannotTell, "FAILED", "0 of one ring restored")
	c.run("keys", "list").wantCode(t, exitYes, "no rings")
}

func writeEntries(t *testing.T, all []backup.Entry) (name string) {
	t.Helper()
	var b bytes.Buffer
	w, err := backup.NewWriter(&b, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file(t, b.String())
}

// Of a backup of more than 30 days only what ends trust is put back, and the exit code says that keys
// were left out.
func TestRestoreOfOldBackup(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme", "--every", "60d").wantCode(t, exitYes)
	_, keys := c.list("--tenant", "acme")
	c.run("keys", "revoke", "--tenant", "acme", "--", keys["pending"].KID).wantCode(t, exitYes)
	whole, err := os.ReadFile(c.backUp())
	if err != nil {
		t.Fatal(err)
	}
	all := entriesOf(t, whole)
	all[0].Ring.Now = all[0].Ring.Now.Add(-31 * 24 * time.Hour)
	name := writeEntries(t, all)
	c.do("FLUSHALL")
	c.run("keys", "restore", name).wantCode(t, exitNo, "put back one revocation", "left out 2 keys", "the backup is 31 days old", "--older")
	c.run("keys", "list", "--tenant", "acme").wantCode(t, exitNo, "has no ring")
	c.run("keys", "restore", "--older", name).wantCode(t, exitYes, "put back 2 keys")
	if _, states := c.list("--tenant", "acme"); states["signing"].KID != keys["signing"].KID {
		t.Errorf("keys = %v", states)
	}
	all[0].Ring.Now = time.Now().Add(time.Hour)
	c.run("keys", "restore", writeEntries(t, all)).wantCode(t, exitCannotTell, "the clock of one of the two stores is wrong")
}

// A name that the log and the set of tenants have, and that has no ring, is no part of a backup; nor
// does a hundred of rings need more than a call for each bucket.
func TestBackupManyRings(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	ring := c.server.Client().HGetAll(t.Context(), ringKey("acme")).Val()
	want := []string{"acme"}
	for i := range 300 {
		tenant := fmt.Sprintf("t%d", i)
		c.do("SADD", tenantsKey(tenant), tenant, "ghost")
		c.do(append([]any{"HSET", ringKey(tenant)}, flat(ring)...)...)
		want = append(want, tenant)
	}
	whole, err := os.ReadFile(c.backUp())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entriesOf(t, whole) {
		got = append(got, e.Tenant)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d rings, want %d", len(got), len(want))
	}
}

func flat(fields map[string]string) (args []any) {
	for name, value := range fields {
		args = append(args, name, value)
	}
	return args
}

// A tenant that was destroyed after the backup stays so, also in an emptied Redis if a later backup says
// so, and where a new ring was made under its name.
func TestRestoreAfterShred(t *testing.T) {
	c := newPatient(t, durable())
	for _, tenant := range []string{"acme", "globex"} {
		c.run("keys", "create", "--tenant", tenant).wantCode(t, exitYes)
	}
	_, old := c.list("--tenant", "acme")
	before := c.backUp()
	c.run("keys", "shred", "--tenant", "acme", "--confirm", "acme", "--wait", "200ms").wantCode(t, exitYes)
	after := c.backUp()
	isDead := func(when string) {
		t.Helper()
		c.run("keys", "create", "--tenant", "acme").wantCode(t, exitNo, "destroyed")
		if _, rings := c.run("keys", "list", "--json").wantCode(t, exitYes).rings(t); rings["acme"].State != stateDestroyed || rings["acme"].Keys != 0 {
			t.Errorf("%s: %+v", when, rings["acme"])
		}
	}
	c.run("keys", "restore", before).wantCode(t, exitYes, "it stays destroyed", "0 of 2 rings restored")
	isDead("restored from before")
	c.do("FLUSHALL")
	c.run("keys", "restore", after).wantCode(t, exitYes, "put back that it was destroyed", "2 of 2 rings restored")
	isDead("restored from after")
	c.run("keys", "restore", before).wantCode(t, exitYes, "it stays destroyed")
	c.run("keys", "create", "--tenant", "acme", "--again").wantCode(t, exitYes)
	_, made := c.list("--tenant", "acme")
	c.run("keys", "restore", before).wantCode(t, exitYes)
	c.run("keys", "restore", after).wantCode(t, exitYes)
	states, now := c.list("--tenant", "acme")
	if len(states) != 2 || now["signing"].KID != made["signing"].KID || now["signing"].KID == old["signing"].KID {
		t.Errorf("the new ring: %v, %+v", states, now)
	}
}

// An accepted key of another issuer comes back with its date, and ends as before.
func TestRestoreOfAcceptedKey(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	secret := file(t, testSecret)
	until := stamp(time.Now().Add(48 * time.Hour))
	c.run("keys", "accept", "--tenant", "acme", "--secret-file", secret, "--kid", "partner", "--until", until, "--no-wait").wantCode(t, exitYes)
	token := hs256(testSecret, `{"alg":"HS256","typ":"JWT","kid":"partner"}`, in(3600e9, `,"sub":"ann"`))
	verify := []string{"verify", "--tenant", "acme", "--alg", "HS256", token}
	c.run(verify...).wantCode(t, exitYes)
	name := c.backUp()
	c.do("FLUSHALL")
	c.run("keys", "restore", name).wantCode(t, exitYes, "put back 2 keys, one accepted key")
	c.run(verify...).wantCode(t, exitYes)
	c.run("keys", "revoke", "--tenant", "acme", "--", "partner").wantCode(t, exitYes)
	c.run("keys", "restore", name).wantCode(t, exitYes, `"partner" stays revoked`, "0 of one ring restored")
	c.run(verify...).wantCode(t, exitNo)
}
