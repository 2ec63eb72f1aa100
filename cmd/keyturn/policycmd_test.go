package main

import (
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

// A policy changes what is given, and keeps the rest; what followed from others follows again.
func TestPolicyOverOldOne(t *testing.T) {
	old := rotation.Policy{Every: 7 * 24 * time.Hour, MaxTokenTTL: time.Hour, Leeway: 10 * time.Second, Dwell: 20 * time.Second}.WithDefaults()
	for _, tt := range []struct {
		name string
		set  func(p *policyFlags, flag func(name, value string))
		want rotation.Policy
	}{
		{"the algorithm", func(p *policyFlags, _ func(string, string)) { p.alg.Set("ES256") },
			rotation.Policy{Algorithm: keystore.ES256, Every: old.Every, MaxTokenTTL: old.MaxTokenTTL, Leeway: old.Leeway, Dwell: old.Dwell}},
		{"the period", func(_ *policyFlags, flag func(string, string)) { flag("every", "1h") },
			rotation.Policy{Every: time.Hour, MaxTokenTTL: old.MaxTokenTTL, Leeway: old.Leeway, Dwell: old.Dwell}},
		{"what others follow from", func(_ *policyFlags, flag func(string, string)) { flag("propagation", "1h"); flag("dwell", "5s") },
			rotation.Policy{Every: old.Every, Propagation: time.Hour, MaxTokenTTL: old.MaxTokenTTL, Leeway: old.Leeway, Dwell: 5 * time.Second}},
	} {
		p := newPolicyFlags()
		tt.set(&p, func(name, value string) {
			for i, f := range policyTimes() {
				if f.name == name {
					if err := p.times[i].Set(value); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
		if got := p.over(old).WithDefaults(); got != tt.want.WithDefaults() {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want.WithDefaults())
		}
	}
}

// keys policy gives the next key another policy. A dry run changes nothing.
func TestKeysPolicy(t *testing.T) {
	t.Parallel()
	c := oldRing(t)
	c.run("keys", "policy").wantUsage(t, "say what to change")
	c.run("keys", "policy", "--every", "1h", "--propagation", "2h").wantUsage(t, "--every >= --propagation")
	c.run("keys", "policy", "--dry-run", "--alg", "ES256").wantCode(t, exitYes, "WOULD HAVE another policy", "nothing was changed", "ES256; a new key every 30d")
	c.wantStates("signing", "pending")
	if r := c.run("keys", "policy", "--dry-run", "--alg", "ES256", "--json").wantCode(t, exitYes); !strings.Contains(r.stdout, `"committed_at":null`) {
		t.Errorf("stdout = %s", r.stdout)
	}
	c.run("keys", "policy", "--alg", "ES256", "--max-ttl", "10m").wantCode(t, exitYes, "has another policy, from its next key on", "ES256; a new key every 30d", "tokens live up to 10m")
	states, _ := c.list()
	if len(states) != 3 {
		t.Errorf("states = %q", states)
	}
	c.run("keys", "policy", "--alg", "HS256").wantCode(t, exitNo, "the last key was minted less than")
	c.run("keys", "policy", "--tenant", "globex", "--alg", "HS256").wantCode(t, exitNo)
}

// On a held ring a policy replaces the key that waits.
func TestKeysPolicyOfHeldRing(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	then := time.Now().Add(-3 * time.Minute)
	m.SetTime(then)
	c.now = func() time.Time { return then }
	c.run("keys", "import", "--secret-file", file(t, oldSecret), "--no-kid", "--longest-token", "30d", "--hold").wantCode(t, exitYes)
	m.SetTime(time.Time{})
	c.now = time.Now
	first := c.wantStates("signing", "pending")
	c.run("keys", "policy", "--alg", "ES256").wantCode(t, exitYes, `"`+first["pending"].KID+`", which waited and has signed nothing`, `waits until "keyturn keys rotate"`)
	keys := c.wantStates("signing", "pending", "revoked")
	if p := keys["pending"]; p.Alg != "ES256" || !p.Waits || keys["revoked"].KID != first["pending"].KID || keys["signing"].KID != first["signing"].KID {
		t.Errorf("keys = %+v", keys)
	}
}
