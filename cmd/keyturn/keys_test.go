package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

func TestKeysCreate(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run("keys", "create", "--every", "7d").wantCode(t, exitYes, `made a ring for tenant "default"`, "a new key every 7d")
		c.run("keys", "create").wantCode(t, exitNo, "it has a ring already")
		r := c.run("keys", "create", "--json").wantCode(t, exitNo)
		if !strings.HasPrefix(r.stdout, `{"ok":false,"error":"refused: `) || !strings.HasSuffix(r.stdout, `"from":null}`+"\n") {
			t.Errorf("stdout = %s", r.stdout)
		}
		keys := c.wantStates("signing", "pending")
		signing, pending := keys["signing"], keys["pending"]
		if signing.Seq != 1 || pending.Seq != 2 || signing.Alg != "HS256" || signing.KID == pending.KID || len(signing.KID) != 22 {
			t.Errorf("keys = %+v", keys)
		}
		if signing.ActivatesAt == nil || signing.PublishedAt == nil || signing.RetiresAt == nil || signing.DroppedAt == nil ||
			!signing.RetiresAt.Equal(*pending.ActivatesAt) || pending.RetiresAt != nil || pending.DroppedAt != nil || pending.PublishedAt == nil {
			t.Errorf("times = %+v", keys)
		}
		if d := pending.ActivatesAt.Sub(*signing.ActivatesAt); d != 7*24*time.Hour {
			t.Errorf("the next signs after %v", d)
		}
		r = c.run("keys", "create", "--json", "--tenant", "globex", "--alg", "ES256").wantCode(t, exitYes)
		if !strings.HasPrefix(r.stdout, `[{"kid":"`) || strings.Count(r.stdout, `"alg":"ES256"`) != 2 {
			t.Errorf("stdout = %s", r.stdout)
		}
	})
}

// The list fits a terminal of 80 columns.
func TestKeysListText(t *testing.T) {
	c := oldRing(t)
	c.run("keys", "rotate").wantCode(t, exitYes)
	keys := c.wantStates("retired", "signing", "pending")
	c.run("keys", "revoke", "--no-wait", "--", keys["pending"].KID).wantCode(t, exitYes)
	r := c.run("keys", "list", "--tenant", "default").wantCode(t, exitYes, "retired  ", "signing  ", "revoked  ", "verifies for another", "now", "| now")
	for line := range strings.Lines(r.stdout) {
		if line = strings.TrimSuffix(line, "\n"); len(line) > 80 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
}

func TestKeysTimeline(t *testing.T) {
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, n) }
	key := func(state ring.State, begins, activates, retires, dropped, revoked int) shownKey {
		at := func(n int) time.Time {
			if n == 0 {
				return time.Time{}
			}
			return day(n)
		}
		return shownKey{begins: day(begins), Key: ring.Key{
			Record: ring.Record{SignUntil: day(1000)}, State: state,
			ActivatesAt: at(activates), RetiresAt: at(retires), DroppedAt: at(dropped), RevokedAt: at(revoked),
		}}
	}
	keys := []shownKey{
		key(ring.Retired, -12, -10, -2, 2, 0),
		key(ring.Signing, -6, -2, 8, 12, 0),
		key(ring.Pending, -1, 8, 0, 0, 0),
		key(ring.Revoked, -12, -11, -9, 2, -4),
		key(ring.Revoked, -12, 0, 0, 0, -4), // it waited in a held ring, and signed nothing
	}
	l := newLifeline(keys, now)
	for i, want := range []string{
		"^\\.+=+-+\\|-+$", "^ +\\.+=+\\|=+-+$", "^ +\\.+\\|\\.+=+$", "^\\.+=+-+x +\\|$",
		"^\\.+x +\\|$",
	} {
		if got := l.draw(keys[i]); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("key %d: %q, want %s", i, got, want)
		}
	}
	if i := strings.Index(l.header(), "now"); i != l.now-1 {
		t.Errorf("now is marked at %d, want %d", i, l.now-1)
	}
}

func TestKeysRotate(t *testing.T) {
	c := oldRing(t)
	before := c.wantStates("signing", "pending")
	c.run("keys", "rotate").wantCode(t, exitYes, fmt.Sprintf("key %q of tenant \"default\" signs now", before["pending"].KID), "of the key before it are accepted until ")
	after := c.wantStates("retired", "signing", "pending")
	if after["signing"].KID != before["pending"].KID || after["retired"].KID != before["signing"].KID || after["pending"].Seq != 3 {
		t.Errorf("before: %+v\nafter: %+v", before, after)
	}
	r := c.run("keys", "rotate", "--json").wantCode(t, exitNo)
	var refused struct {
		OK    bool
		Error string
		From  time.Time
	}
	if err := json.Unmarshal([]byte(r.stdout), &refused); err != nil || refused.OK || !refused.From.After(time.Now()) {
		t.Errorf("stdout = %s, %v", r.stdout, err)
	}
	if want := refused.From.Format("2006-01-02T15:04:05"); !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "(in 2 minutes)") {
		t.Errorf("stderr = %s, want the time from which it may be, %s", r.stderr, want)
	}
	c.wantStates("retired", "signing", "pending")
}

func TestKeysRotateForced(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run("keys", "create", "--alg", "EdDSA").wantCode(t, exitYes)
		pending := c.wantStates("signing", "pending")["pending"]
		c.run("keys", "rotate").wantCode(t, exitNo, "it may be from ")
		r := c.run("keys", "rotate", "--force", "--json").wantCode(t, exitYes,
			"forced: until ", "an instance that has not heard of the key may reject its tokens", "an older copy of the JWK Set")
		var receipt map[string]any
		if err := json.Unmarshal([]byte(r.stdout), &receipt); err != nil || receipt["promoted"] != pending.KID || receipt["acks"] == nil || receipt["revoked"] != nil {
			t.Errorf("stdout = %s, %v", r.stdout, err)
		}
		if next := c.wantStates("retired", "signing", "pending")["pending"].KID; receipt["minted"] != next {
			t.Errorf("minted %v, pending is %s", receipt["minted"], next)
		}
		c.run("keys", "rotate").wantCode(t, exitNo, "it may be from ")
	})
}

// Until no failover can lose a key that was forced to sign, the key before it signs. Lists say so.
func TestKeysListAfterForce(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run("keys", "create").wantCode(t, exitYes)
		before := c.wantStates("signing", "pending")
		c.run("keys", "rotate", "--force", "--no-wait").wantCode(t, exitYes)
		after := c.wantStates("retired", "signing", "pending")
		if !before["signing"].Signs || before["pending"].Signs || !after["retired"].Signs || after["signing"].Signs || after["pending"].Signs {
			t.Errorf("before: %+v\nafter: %+v", before, after)
		}
		signer := before["signing"].KID
		c.run("keys", "list", "--tenant", "default").wantCode(t, exitYes, "  1  signing  "+signer, "signs in place of the forced key", "  2  forced   ", "until then Redis could lose it")
		c.run("keys", "list").wantCode(t, exitYes, signer, "next rotation in ")
		c.run("keys", "list", "--json").wantCode(t, exitYes, `"signing":"`+signer+`"`)
		c.run("sign", "--claim", "sub=ann").wantCode(t, exitYes)

		c.run("keys", "revoke", "--force", "--no-wait", "--", signer).wantCode(t, exitYes)
		c.run("keys", "list", "--tenant", "default").wantCode(t, exitYes, "NO KEY SIGNS NOW: the forced one does in ")
		c.run("keys", "list").wantCode(t, exitYes, "NO SIGNER", "the forced one does in ")
		c.run("keys", "list", "--json").wantCode(t, exitYes, `"state":"no_signer"`, `"signing":null`)
	})
}

func TestKeysPromote(t *testing.T) {
	t.Parallel()
	c := oldRing(t)
	pending := c.wantStates("signing", "pending")["pending"].KID
	c.run("keys", "promote", "--", pending).wantCode(t, exitYes, "signs now")
	after := c.wantStates("retired", "signing")
	if after["signing"].KID != pending {
		t.Errorf("keys = %+v", after)
	}
	c.run("keys", "promote", "--", pending).wantCode(t, exitNo, "only a pending key can be promoted")
	c.run("keys", "promote", "--json", "nokid").wantCode(t, exitNo, `{"ok":false,"error":"tenant \"default\" has no such key`)
}

// TestKeysRevokePublicKey: the receipt says until when readers of the JWK Set accept the key.
func TestKeysRevokePublicKey(t *testing.T) {
	c := oldRing(t, "--alg", "ES256")
	keys := c.wantStates("signing", "pending")
	c.run("keys", "revoke", "--json", "--force", "--", keys["pending"].KID).wantCode(t, exitYes, `"readers_until":"20`)
	c.run("keys", "revoke", "--force", "--no-wait", "--", keys["signing"].KID).wantCode(t, exitYes, "readers      of the JWK Set accept them until they read it again: until ")
	c.run("keys", "list", "--json", "--tenant", "nobody").wantCode(t, exitNo, `{"ok":false,"error":`)
}

// TestKeysRevoke checks every field of the receipt.
func TestKeysRevoke(t *testing.T) {
	t.Parallel()
	c := oldRing(t)
	before := c.wantStates("signing", "pending")
	r := c.run("keys", "revoke", "--json", "--wait", "1s", "--", before["signing"].KID).wantCode(t, exitYes)
	var receipt struct {
		Tenant, Revoked, Promoted string
		Minted                    *string
		CommittedAt               time.Time  `json:"committed_at"`
		RevokedAt                 time.Time  `json:"revoked_at"`
		SignsFrom                 *time.Time `json:"signs_from"`
		ConfirmedAt               *time.Time `json:"confirmed_at"`
		NoSignerUntil             *time.Time `json:"no_signer_until"`
		TokensUntil               *time.Time `json:"tokens_until"`
		WorstCase                 time.Time  `json:"worst_case"`
		Acks                      []any
		Undone                    bool
		Waited                    float64
	}
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&receipt); err != nil {
		t.Fatalf("%s: %v", r.stdout, err)
	}
	if receipt.Tenant != "default" || receipt.Revoked != before["signing"].KID || receipt.Promoted != before["pending"].KID || receipt.Minted != nil ||
		receipt.NoSignerUntil != nil || time.Since(receipt.CommittedAt) > time.Minute || receipt.RevokedAt.IsZero() || receipt.Acks == nil || len(receipt.Acks) > 0 {
		t.Errorf("receipt = %s", r.stdout)
	}
	if d := receipt.WorstCase.Sub(receipt.CommittedAt); d < 24*time.Hour || d > 25*time.Hour {
		t.Errorf("the worst case is %v away, want D + SignFor + L + leeway", d)
	}
	keys := c.wantStates("revoked", "signing")
	c.run("keys", "revoke", "--", before["signing"].KID).wantCode(t, exitYes, "it was revoked already")

	// The key that signs now has no successor.
	signing := keys["signing"].KID
	c.run("keys", "revoke", "--", signing).wantCode(t, exitNo, "no key is pending that could take over", "force it")
	r = c.run("keys", "revoke", "--force", "--wait", "1s", "--", signing).wantCode(t, exitYes, "NO SIGNER", "minted", "worst case", "none was seen")
	c.run("keys", "list", "--tenant", "default").wantCode(t, exitYes, "NO KEY SIGNS NOW: the next one does in 2 minutes")
	c.run("sign", "--claim", "sub=ann").wantCode(t, exitNo, "no key signs now")
}

// The receipt names the instances that hold the ring, and the command waits for them.
func TestKeysRevokeRoster(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
		s, err := openStore(c.url, rediskeys.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		keks, err := rotation.ParseKEKs([]byte(c.kek))
		if err != nil {
			t.Fatal(err)
		}
		k, err := rotation.Open(t.Context(), s, rotation.Config{
			KEKs: keks, Tenants: []string{"default"}, Instance: "peer-1", TrustFirstRead: true, Poll: 100 * time.Millisecond, StoreMayBeAway: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close(context.WithoutCancel(t.Context()))
		wait(t, func() bool { return k.Status().Counts.Syncs > 2 })
		pending := c.wantStates("signing", "pending")["pending"].KID
		r := c.run("keys", "revoke", "--json", "--wait", "60s", "--", pending).wantCode(t, exitYes)
		if !strings.Contains(r.stdout, `"acks":[{"instance":"peer-1","applied":true,"heard_at":"`) {
			t.Errorf("stdout = %s; stderr = %s", r.stdout, r.stderr)
		}
		c.run("keys", "revoke", "--no-wait", "--", pending).wantCode(t, exitYes)
	})
}

// A command does not acknowledge changes as an instance would.
func TestKeysLeaveNoAck(t *testing.T) {
	c := oldRing(t)
	token := strings.TrimSpace(c.run("sign", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	c.run("verify", "--alg", "HS256", token).wantCode(t, exitYes)
	r := c.run("keys", "revoke", "--", c.wantStates("signing", "pending")["pending"].KID)
	r.wantCode(t, exitYes, "none was seen", "note: no instance was seen, so none has confirmed the revocation")
}
