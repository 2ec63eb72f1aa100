package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// A logged is an entry in the array of "keys log --json".
type logged struct {
	At     *time.Time
	Tenant *string
	Op     string
	KID    *string
	Seq    int
	Actor  *string
	Check  string
	Error  *string
	Bucket int
	ID     string
}

// log runs "keys log --json", and returns its entries without those of the store itself.
func (c *ringCLI) log(code int, flags ...string) (all []logged) {
	c.t.Helper()
	r := c.run(append([]string{"keys", "log", "--json"}, flags...)...).wantCode(c.t, code)
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil || strings.Count(r.stdout, "\n") != 1 {
		c.t.Fatalf("keys log --json = %s, %v", r.stdout, err)
	}
	return slices.DeleteFunc(all, func(e logged) bool { return e.Op == "begin" && e.Check == checkUnsealed })
}

func logKey(tenant string) string { return fmt.Sprintf("kt:{%d}:log", rotation.BucketOf(tenant)) }

// forge adds an entry to the log of a tenant's bucket, as a person who can write to Redis may.
func (p *patient) forge(tenant, id string, fields ...any) {
	p.t.Helper()
	p.do(append([]any{"XADD", logKey(tenant), id}, fields...)...)
}

// All changes of all tenants are one list, the newest last, whatever bucket they are in.
func TestKeysLog(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "log").wantCode(t, exitYes, "the log has no such changes")
	if r := c.run("keys", "log", "--json").wantCode(t, exitYes); r.stdout != "[]\n" {
		t.Errorf("without rings --json = %q", r.stdout)
	}
	var want []string
	for i, tenant := range []string{"globex", "acme", "with space", "acme"} {
		args, op := []string{"keys", "create", "--no-wait", "--tenant", tenant}, "create"
		if i == 3 {
			args, op = []string{"keys", "rotate", "--force", "--no-wait", "--tenant", tenant}, "rotate"
		}
		c.run(args...).wantCode(t, exitYes)
		want = append(want, tenant+" "+op+" "+checkAuthentic)
	}
	var got []string
	all := c.log(exitYes)
	for i, e := range all {
		if e.KID == nil || e.Actor == nil || e.At == nil || e.Error != nil || e.Bucket != rotation.BucketOf(*e.Tenant) || time.Since(*e.At) > time.Minute {
			t.Fatalf("entry %+v", e)
		}
		if i > 0 && e.At.Before(*all[i-1].At) {
			t.Error("the newest entry is not last")
		}
		got = append(got, *e.Tenant+" "+e.Op+" "+e.Check)
	}
	if !slices.Equal(got, want) {
		t.Errorf("keys log --json = %q, want %q", got, want)
	}
	r := c.run("keys", "log", "--tenant", "acme").wantCode(t, exitYes, "create", "rotate", "by ", *all[1].KID)
	if strings.Contains(r.stdout, "globex") || strings.Contains(r.stdout, "AUTHENTIC") || strings.Contains(r.stdout, "checked") {
		t.Errorf("keys log --tenant acme = %s", r.stdout)
	}
	c.run("keys", "log", "--tenant", "nobody").wantCode(t, exitYes, "the log has no such changes")
}

// A log that cannot be read is not said to have no changes.
func TestKeysLogWithoutRedis(t *testing.T) {
	c := newRingCLI(t, closedPort(t))
	if r := c.run("keys", "log").wantCode(t, exitCannotTell, "THIS IS NOT THE WHOLE LOG"); r.stdout != "" {
		t.Errorf("stdout = %q", r.stdout)
	}
}

// What a person without the KEK wrote, copied or moved is not authentic, and harms no terminal.
func TestKeysLogForged(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	real := c.server.Client().XRevRangeN(t.Context(), logKey("acme"), "+", "-", 1).Val()[0]
	var copied []any
	for _, name := range []string{"op", "tenant", "kid", "seq", "actor", "nonce", "mac"} {
		copied = append(copied, name, real.Values[name])
	}
	c.forge("acme", "*", "op", "revoke", "tenant", "acme", "kid", "stolen", "seq", "1", "actor", "\x1b[2Jroot", "nonce", "n1", "mac", "")
	c.forge("acme", "*", "op", "revoke", "tenant", "acme", "kid", strings.Repeat("k", 3000), "seq", "NaN", "actor", "a\nb", "nonce", "n2", "mac", "kt\x01L")
	c.forge("acme", "*", copied...)
	changed := slices.Clone(copied)
	changed[9] = "another actor"
	c.forge("acme", "*", changed...)
	c.forge("acme", "*", "hello", "world")
	c.forge("acme", "9000000000000-1", "op", "rotate", "tenant", "acme")
	c.forge("globex", "9000000000001-1", copied...)
	all := c.log(exitNo)
	var got []string
	for _, e := range all {
		why := ""
		if e.Error != nil {
			why = *e.Error
		}
		got = append(got, e.Check+": "+why)
		if (e.At == nil) != strings.HasPrefix(e.ID, "9") {
			t.Errorf("the date of %s is %v", e.ID, e.At)
		}
	}
	want := []string{checkAuthentic + ": ", "malformed", "longer than any that keyturn writes: kid", "a copy of an earlier entry", "changed, moved or forged", "names no tenant", "malformed", "the tenant is not of bucket 142"}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d: %q", len(got), len(want), got)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) || strings.HasPrefix(got[i], checkNotAuthentic) != (i > 0) {
			t.Errorf("entry %d: %q, want %q", i, got[i], want[i])
		}
	}
	r := c.run("keys", "log").wantCode(t, exitNo, "NOT AUTHENTIC", `by "\x1b[2Jroot"`, `by "a\nb"`, "after 2199", "7 entries are not authentic", "2 entries have a date after 2199", "Someone writes to Redis")
	if strings.ContainsAny(r.stdout, "\x1b") || len(r.stdout) > 4000 {
		t.Errorf("keys log = %q", r.stdout)
	}
	if lines := strings.Count(r.stdout, "\n"); lines > 11 {
		t.Errorf("%d lines:\n%s", lines, r.stdout)
	}
}

// Without the KEK that sealed an entry nothing is said of it, and the log is shown all the same.
func TestKeysLogNotChecked(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	c.forge("acme", "*", "op", "list", "tenant", "acme", "kid", "", "seq", "0", "actor", "x", "nonce", "n", "mac", "")
	if r := keyturn(t, "keys", "log", "--redis", c.url).wantCode(t, exitYes, "not checked: no KEK is given", "1 entry was not checked"); strings.Contains(r.stdout, "NOT AUTHENTIC") {
		t.Errorf("keys log without KEK = %s", r.stdout)
	}
	own := c.kek
	c.kek = newKEK()
	all := c.log(exitYes)
	if len(all) != 2 || all[0].Check != checkNot || !strings.Contains(*all[0].Error, "wrong KEK") || all[1].Check != checkUnsealed {
		t.Errorf("with another KEK: %+v", all)
	}
	c.kek = own
	if all := c.log(exitYes, "--realm", "elsewhere"); all[0].Check != checkNot {
		t.Errorf("in another realm: %+v", all)
	}
	if all := c.log(exitYes, "--realm", "elsewhere", "--other-realm", ""); all[0].Check != checkAuthentic {
		t.Errorf("with the other realm: %+v", all)
	}
}

// A log that is longer than a page is read to its end, and --since leaves out what is older.
func TestKeysLogPages(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	const n = 2*logPage + 1
	begin := time.Now().Add(time.Hour).UnixMilli()
	for i := range n {
		c.forge("acme", fmt.Sprintf("%d-%d", begin+int64(i/2), 1+i%2), "op", "revoke", "tenant", "acme", "kid", fmt.Sprint(i), "nonce", "x", "mac", strings.Repeat("m", 1000))
	}
	all := c.log(exitNo, "--tenant", "acme")
	if len(all) != n+1 {
		t.Fatalf("%d entries, want %d", len(all), n+1)
	}
	for i, e := range all[1:] {
		if *e.KID != fmt.Sprint(i) {
			t.Fatalf("entry %d is of kid %s", i, *e.KID)
		}
	}
	last := time.UnixMilli(begin + n/2).UTC()
	if all := c.log(exitNo, "--since", last.Format(time.RFC3339Nano)); len(all) != 1 {
		t.Errorf("since the last one there are %d entries", len(all))
	}
	if all := c.log(exitYes, "--since", fmt.Sprint(last.Unix()+1)); len(all) != 0 {
		t.Errorf("after the last one there are %d entries", len(all))
	}
	if all := c.log(exitNo, "--since", "1h"); len(all) != n+1 {
		t.Errorf("in the last hour there are %d entries, want %d", len(all), n+1)
	}
	for _, bad := range []string{"", "soon", "-1h", "0s", "99999999999999"} {
		c.run("keys", "log", "--since", bad).wantUsage(t, "--since")
	}
}

// A bucket whose log cannot be read does not hide the others.
func TestKeysLogUnreadable(t *testing.T) {
	c := newPatient(t, durable())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	c.do("SET", logKey("globex"), "a string")
	if all := c.log(exitCannotTell); len(all) != 1 || *all[0].Tenant != "acme" {
		t.Errorf("keys log = %+v", all)
	}
	c.run("keys", "log").wantCode(t, exitCannotTell, "THIS IS NOT THE WHOLE LOG", "1 of 256 buckets")
	c.server.Kill()
	c.run("keys", "log").wantCode(t, exitCannotTell, "256 of 256 buckets", "cannot be reached")
}
