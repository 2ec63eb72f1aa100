package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
)

// newKEK returns the text of a KEK.
func newKEK() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// A ringCLI runs the command against one Redis, and keeps all that it printed.
type ringCLI struct {
	t    *testing.T
	url  string
	kek  string
	now  func() time.Time
	said *strings.Builder
}

func newRingCLI(t *testing.T, addr string) *ringCLI {
	c := &ringCLI{t: t, url: "redis://" + addr, kek: newKEK(), now: time.Now, said: new(strings.Builder)}
	t.Cleanup(func() {
		if strings.Contains(c.said.String(), c.kek) {
			t.Error("the KEK is in the output")
		}
	})
	return c
}

// run runs the command with --redis.
func (c *ringCLI) run(args ...string) result {
	c.t.Helper()
	var stdout, stderr bytes.Buffer
	env := map[string]string{envKEK: c.kek}
	w := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: c.now}
	w.env = func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	at := 1 // after the name of the command
	if args[0] == "keys" {
		at = 2
	}
	code := w.run(c.t.Context(), slices.Insert(slices.Clone(args), at, "--redis", c.url))
	r := result{code, stdout.String(), stderr.String()}
	c.said.WriteString(r.stdout + r.stderr)
	return r
}

func (r result) wantCode(t *testing.T, code int, phrases ...string) result {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code = %d, want %d; stdout: %s; stderr: %s", r.code, code, r.stdout, r.stderr)
	}
	for _, p := range phrases {
		if !strings.Contains(r.stdout+r.stderr, p) {
			t.Errorf("it does not say %q; stdout: %s; stderr: %s", p, r.stdout, r.stderr)
		}
	}
	return r
}

// list returns the keys of "keys list --json", by state.
func (c *ringCLI) list(flags ...string) (states []string, byState map[string]listed) {
	c.t.Helper()
	r := c.run(append([]string{"keys", "list", "--json"}, flags...)...).wantCode(c.t, exitYes)
	var keys []listed
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&keys); err != nil || strings.Count(r.stdout, "\n") != 1 {
		c.t.Fatalf("keys list --json = %s, %v", r.stdout, err)
	}
	byState = make(map[string]listed)
	for _, k := range keys {
		states = append(states, k.State)
		byState[k.State] = k
	}
	return states, byState
}

type listed struct {
	KID, Alg, State string
	Seq             int
	ActivatesAt     *time.Time `json:"activates_at"`
	RetiresAt       *time.Time `json:"retires_at"`
	DroppedAt       *time.Time `json:"dropped_at"`
	PublishedAt     *time.Time `json:"published_at"`
}

func (c *ringCLI) wantStates(states ...string) map[string]listed {
	c.t.Helper()
	got, keys := c.list()
	if !slices.Equal(got, states) {
		c.t.Errorf("states = %q, want %q", got, states)
	}
	return keys
}

// eachRedis runs a test on the one in memory and on a real one.
func eachRedis(t *testing.T, test func(t *testing.T, c *ringCLI)) {
	t.Run("miniredis", func(t *testing.T) { test(t, newRingCLI(t, miniredis.RunT(t).Addr())) })
	t.Run("Redis", func(t *testing.T) {
		redistest.Need(t)
		test(t, newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr()))
	})
}

// oldRing makes a ring a minute ago, so that the pending key may sign already.
func oldRing(t *testing.T, flags ...string) *ringCLI {
	t.Helper()
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	then := time.Now().Add(-2 * time.Minute)
	m.SetTime(then)
	c.now = func() time.Time { return then }
	c.run(append([]string{"keys", "create"}, flags...)...).wantCode(t, exitYes)
	m.SetTime(time.Time{})
	c.now = time.Now
	return c
}

func TestKeysCreate(t *testing.T) {
	eachRedis(t, func(t *testing.T, c *ringCLI) {
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

// What a terminal of 80 columns shows.
func TestKeysListText(t *testing.T) {
	c := oldRing(t)
	c.run("keys", "rotate").wantCode(t, exitYes)
	keys := c.wantStates("retired", "signing", "pending")
	c.run("keys", "revoke", "--no-wait", "--", keys["pending"].KID).wantCode(t, exitYes)
	r := c.run("keys", "list").wantCode(t, exitYes, "retired  ", "signing  ", "revoked  ", "verifies for another", "now", "| now")
	for line := range strings.Lines(r.stdout) {
		if line = strings.TrimSuffix(line, "\n"); len(line) > 80 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
}

func TestKeysTimeline(t *testing.T) {
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, n) }
	key := func(state rotation.State, begins, activates, retires, dropped, revoked int) shownKey {
		at := func(n int) time.Time {
			if n == 0 {
				return time.Time{}
			}
			return day(n)
		}
		return shownKey{begins: day(begins), RingKey: rotation.RingKey{
			Record: rotation.Record{SignUntil: day(1000)}, State: state,
			ActivatesAt: at(activates), RetiresAt: at(retires), DroppedAt: at(dropped), RevokedAt: at(revoked),
		}}
	}
	keys := []shownKey{
		key(rotation.Retired, -12, -10, -2, 2, 0),
		key(rotation.Signing, -6, -2, 8, 12, 0),
		key(rotation.Pending, -1, 8, 0, 0, 0),
		key(rotation.Revoked, -12, -11, -9, 2, -4),
	}
	l := newLifeline(keys, now)
	for i, want := range []string{
		"^\\.+=+-+\\|-+$", "^ +\\.+=+\\|=+-+$", "^ +\\.+\\|\\.+=+$", "^\\.+=+-+x +\\|$",
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
	c.run("keys", "rotate").wantCode(t, exitYes, fmt.Sprintf("key %q of tenant \"default\" signs now", before["pending"].KID))
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
	if want := refused.From.Format("2006-01-02T15:04:05"); !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "(in 1 minute)") {
		t.Errorf("stderr = %s, want the time from which it may be, %s", r.stderr, want)
	}
	c.wantStates("retired", "signing", "pending")
}

func TestKeysRotateForced(t *testing.T) {
	eachRedis(t, func(t *testing.T, c *ringCLI) {
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

func TestKeysPromote(t *testing.T) {
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

// TestKeysRevokeOfAPublicKey: who reads the JWK Set does not hear of it.
func TestKeysRevokeOfAPublicKey(t *testing.T) {
	c := oldRing(t, "--alg", "ES256")
	keys := c.wantStates("signing", "pending")
	c.run("keys", "revoke", "--json", "--force", "--", keys["pending"].KID).wantCode(t, exitYes, `"readers_until":"20`)
	c.run("keys", "revoke", "--force", "--no-wait", "--", keys["signing"].KID).wantCode(t, exitYes, "readers      of the JWK Set accept them until they read it again: until ")
	c.run("keys", "list", "--json", "--tenant", "nobody").wantCode(t, exitNo, `{"ok":false,"error":`)
}

// TestKeysRevoke has the shape of the receipt.
func TestKeysRevoke(t *testing.T) {
	c := oldRing(t)
	before := c.wantStates("signing", "pending")
	r := c.run("keys", "revoke", "--json", "--", before["signing"].KID).wantCode(t, exitYes)
	var receipt struct {
		Tenant, Revoked, Promoted string
		Minted                    *string
		CommittedAt               time.Time  `json:"committed_at"`
		RevokedAt                 time.Time  `json:"revoked_at"`
		SignsFrom                 *time.Time `json:"signs_from"`
		NoSignerUntil             *time.Time `json:"no_signer_until"`
		WorstCase                 time.Time  `json:"worst_case"`
		Acks                      []any
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
		t.Errorf("the worst case is %v away, want SignFor + L + leeway", d)
	}
	keys := c.wantStates("revoked", "signing")
	c.run("keys", "revoke", "--", before["signing"].KID).wantCode(t, exitYes, "it was revoked already")

	// The one that signs now has no successor.
	signing := keys["signing"].KID
	c.run("keys", "revoke", "--", signing).wantCode(t, exitNo, "no key is pending that could take over", "force it")
	r = c.run("keys", "revoke", "--force", "--", signing).wantCode(t, exitYes, "NO SIGNER", "minted", "worst case", "none holds this ring now")
	c.run("keys", "list").wantCode(t, exitYes, "NO KEY SIGNS NOW: the next one does in 1 minute")
	c.run("sign", "--claim", "sub=ann").wantCode(t, exitNo, "no key signs now")
}

// Who holds the ring is named, and waited for.
func TestKeysRevokeRoster(t *testing.T) {
	eachRedis(t, func(t *testing.T, c *ringCLI) {
		c.run("keys", "create", "--freshness", "6s", "--skew", "1s").wantCode(t, exitYes)
		s, err := openStore(c.url)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		keks, err := rotation.ParseKEKs([]byte(c.kek))
		if err != nil {
			t.Fatal(err)
		}
		k, err := rotation.Open(t.Context(), s, rotation.Config{
			KEKs: keks, Tenants: []string{"default"}, Instance: "peer-1", TrustFirstRead: true, Poll: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close(context.WithoutCancel(t.Context()))
		wait(t, func() bool { return k.Status().Counts.Syncs > 2 })
		pending := c.wantStates("signing", "pending")["pending"].KID
		r := c.run("keys", "revoke", "--json", "--", pending).wantCode(t, exitYes)
		if !strings.Contains(r.stdout, `"acks":[{"instance":"peer-1","applied":true,"heard_at":"`) {
			t.Errorf("stdout = %s; stderr = %s", r.stdout, r.stderr)
		}
		c.run("keys", "revoke", "--no-wait", "--", pending).wantCode(t, exitYes)
	})
}

// A one-shot command leaves no trace of itself.
func TestKeysLeaveNoAck(t *testing.T) {
	c := oldRing(t)
	token := strings.TrimSpace(c.run("sign", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	c.run("verify", "--alg", "HS256", token).wantCode(t, exitYes)
	r := c.run("keys", "revoke", "--", c.wantStates("signing", "pending")["pending"].KID)
	r.wantCode(t, exitYes, "none holds this ring now")
}

func TestSignVerifyRing(t *testing.T) {
	eachRedis(t, func(t *testing.T, c *ringCLI) {
		for _, alg := range []string{"HS256", "ES256", "EdDSA"} {
			c.run("keys", "create", "--tenant", alg, "--alg", alg, "--max-ttl", "10m").wantCode(t, exitYes)
			_, keys := c.list("--tenant", alg)
			r := c.run("sign", "--tenant", alg, "--claim", "sub=ann", "--iss", "i", "--aud", "a").wantCode(t, exitYes)
			token := strings.TrimSuffix(r.stdout, "\n")
			if strings.Count(token, ".") != 2 || r.stderr != "" {
				t.Errorf("sign = %q, %q", r.stdout, r.stderr)
			}
			v := c.run("verify", "--tenant", alg, "--alg", alg, "--iss", "i", "--aud", "a", "--json", token).wantCode(t, exitYes)
			var got struct {
				OK          bool
				Tenant, KID string
				Claims      struct{ Iat, Exp int64 }
			}
			if json.Unmarshal([]byte(v.stdout), &got) != nil || !got.OK || got.Tenant != alg || got.KID != keys["signing"].KID || got.Claims.Exp-got.Claims.Iat != 600 {
				t.Errorf("verify = %s", v.stdout)
			}
			c.run("sign", "--tenant", alg, "--ttl", "10m1s").wantCode(t, exitNo, "MaxTokenTTL", "--ttl")
			c.run("sign", "--tenant", alg, "--claim", "exp=1").wantCode(t, exitUsage)
			// Another tenant's ring, or a ring that has turned its back on the key.
			c.run("keys", "revoke", "--tenant", alg, "--force", "--no-wait", "--", keys["signing"].KID).wantCode(t, exitYes)
			c.run("verify", "--tenant", alg, "--alg", alg, "--json", token).wantCode(t, exitNo, `"reason":"unknown_key"`)
		}
		c.run("keys", "create").wantCode(t, exitYes)
		_, keys := c.list()
		unknown := hs256(testSecret, `{"alg":"HS256","kid":"nobody"}`, in(time.Hour, ""))
		c.run("verify", "--alg", "HS256", "--json", unknown).wantCode(t, exitNo, `"reason":"unknown_key"`)
		forged := hs256(testSecret, `{"alg":"HS256","kid":"`+keys["signing"].KID+`"}`, in(time.Hour, ""))
		c.run("verify", "--alg", "HS256", "--json", forged).wantCode(t, exitNo, `"reason":"signature"`)
		c.run("verify", "--alg", "ES256", "--json", forged).wantCode(t, exitNo, `"reason":"algorithm"`)
		c.run("verify", "--alg", "HS256", "--leeway", "1m", forged).wantCode(t, exitUsage, "leeway")
	})
}

func TestRingExitCodes(t *testing.T) {
	c := oldRing(t)
	token := strings.TrimSpace(c.run("sign").wantCode(t, exitYes).stdout)

	// 1: there is none. A verifier cannot tell, since Redis may have lost it.
	c.run("keys", "list", "--tenant", "nobody").wantCode(t, exitNo, `tenant "nobody" has no ring`)
	c.run("keys", "rotate", "--tenant", "nobody").wantCode(t, exitNo, `tenant "nobody" has no ring`)
	c.run("sign", "--tenant", "nobody").wantCode(t, exitNo, `tenant "nobody" has no ring`)
	c.run("verify", "--alg", "HS256", "--tenant", "nobody", "--json", token).wantCode(t, exitCannotTell, `"reason":"unavailable"`, "no ring")

	// 3: the wrong KEK, by name, and nothing is changed.
	right := c.kek
	c.kek = newKEK()
	for _, args := range [][]string{
		{"keys", "list"}, {"keys", "create"}, {"keys", "rotate", "--force"}, {"keys", "revoke", "x"}, {"sign"}, {"verify", "--alg", "HS256", token},
	} {
		r := c.run(args...).wantCode(t, exitCannotTell, "wrong KEK", "--kek-file or KEYTURN_KEK")
		if strings.Contains(r.stderr, c.kek) || strings.Contains(r.stderr, right) {
			t.Error("a KEK is printed")
		}
	}
	c.kek = right
	c.wantStates("signing", "pending")

	// 3: nobody there.
	c.url = "redis://127.0.0.1:1"
	c.run("keys", "create").wantCode(t, exitCannotTell, "keyturn: Redis cannot be reached: check its address and that it runs (dial tcp 127.0.0.1:1: ")
	c.run("verify", "--alg", "HS256", "--json", token).wantCode(t, exitCannotTell, `{"ok":false,"reason":"unavailable",`)
}

// A Redis that takes connections and says nothing does not hold the command up.
func TestRingHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := newRingCLI(t, l.Addr().String())
	for _, args := range [][]string{{"keys", "list"}, {"verify", "--alg", "HS256", "x.y.z"}, {"serve", "--addr", "127.0.0.1:0"}} {
		begin := time.Now()
		c.run(args...).wantCode(t, exitCannotTell, "did not answer in time")
		if d := time.Since(begin); d > ringTime {
			t.Errorf("%q took %v", args, d)
		}
	}
}

func TestRingUsage(t *testing.T) {
	kek := file(t, newKEK())
	url := "redis://127.0.0.1:1"
	keyturn(t, "keys").wantUsage(t, "create, list, rotate, promote or revoke")
	keyturn(t, "keys", "lst").wantUsage(t, `did you mean "list"?`)
	keyturn(t, "keys", "list").wantUsage(t, "--redis is missing")
	keyturn(t, "keys", "list", "--redis", url).wantUsage(t, "no KEK", "--kek-file", envKEK)
	keyturn(t, "keys", "list", "--redis", url, "--kek-file", file(t, testSecret)).wantUsage(t, "--kek-file", "line 1", "32 bytes")
	call{env: map[string]string{envKEK: testSecret}}.run(t, "keys", "list", "--redis", url).wantUsage(t, "KEYTURN_KEK", "32 bytes")
	keyturn(t, "keys", "list", "--redis", "http://hush", "--kek-file", kek).wantUsage(t, "want redis://")
	keyturn(t, "keys", "list", "--redis", url, "--kek-file", kek, "kid").wantUsage(t, "only promote and revoke take a KID")
	keyturn(t, "keys", "revoke", "--redis", url, "--kek-file", kek).wantUsage(t, "give a KID")
	keyturn(t, "keys", "revoke", "--redis", url, hs256(testSecret, plainHeader, `{"sub":"hush"}`)).wantUsage(t, "looks like a token")
	keyturn(t, "keys", "revoke", "--redis", url, "-Abc").wantUsage(t, "as does a KID")
	keyturn(t, "keys", "list", "--redis", url, "--tenant", strings.Repeat("x", 257)).wantUsage(t, "--tenant: has 257 bytes")
	keyturn(t, "keys", "create", "--redis", url, "--kek-file", kek, "--every", "soon").wantUsage(t, "--every: want a duration such as 30d")
	keyturn(t, "keys", "create", "--redis", url, "--kek-file", kek, "--skew", "20s").wantUsage(t, "--leeway >= 2 --skew", "30s is less than 40s")
	keyturn(t, "keys", "create", "--redis", url, "--kek-file", kek, "--alg", "none").wantUsage(t, "not an algorithm")
	keyturn(t, "sign", "--redis", url, "--kid", "x").wantUsage(t, "--kid goes with a secret")
	keyturn(t, "sign", "--kek-file", kek).wantUsage(t, "--kek-file goes with --redis")
	keyturn(t, "verify", "--alg", "HS256", "--redis", url, "--jwks", kek, "t").wantUsage(t, "give one of them")
	keyturn(t, "verify", "--alg", "HS256", "--kek-file", kek, "t").wantUsage(t, "--kek-file goes with --redis")
	keyturn(t, "serve", "--tenant", "acme").wantUsage(t, "--tenant goes with --redis")
	keyturn(t, "serve", "--every", "7d").wantUsage(t, "--every goes with --redis")
	keyturn(t, "serve", "--redis", url, "--kek-file", kek, "--every", "7d").wantUsage(t, "--bootstrap")
	keyturn(t, "serve", "--redis", url, "--tenant", "a", "--tenant", "a").wantUsage(t, "given twice")
	keyturn(t, "serve", "--redis", url, "--tenant", "a", "--tenant", "b", "--iss", "x").wantUsage(t, "{tenant}")
	keyturn(t, "serve", "--redis", url, "--allow-no-exp").wantUsage(t, "--allow-no-exp goes with a secret")
}

// The password of Redis need not be where others can read it.
func TestRedisPassword(t *testing.T) {
	for url, want := range map[string]string{
		"redis://h:1/2":             "redis://:p%2F%40w@h:1/2",
		"redis://ann@h":             "redis://ann:p%2F%40w@h",
		"redis-cluster://a,b?x=y":   "redis-cluster://:p%2F%40w@a,b?x=y",
		"redis-sentinel://u@a,b/n/": "redis-sentinel://u:p%2F%40w@a,b/n/",
		"nonsense":                  "nonsense",
	} {
		if got, err := withPassword(url, "p/@w"); err != nil || got != want {
			t.Errorf("withPassword(%s) = %s, %v, want %s", url, got, err, want)
		}
	}
	m := miniredis.RunT(t)
	m.RequireAuth("hush/@:hush")
	env := map[string]string{envKEK: newKEK(), envRedisPassword: "hush/@:hush"}
	call{env: env}.run(t, "keys", "create", "--redis", "redis://"+m.Addr()).wantCode(t, exitYes)
	call{env: env}.run(t, "keys", "list", "--redis", "redis://u:p@"+m.Addr()).wantUsage(t, "give one")
	env[envRedisPassword] = "wrong-hush"
	r := call{env: env}.run(t, "keys", "list", "--redis", "redis://"+m.Addr()).wantCode(t, exitCannotTell, "does not accept the user or the password")
	if strings.Contains(r.stderr, "hush") {
		t.Errorf("stderr = %s", r.stderr)
	}
}

// The whole of it with the real command and a real Redis: a rotation once it may be, the second refused.
func TestRingProcess(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	s := redistest.Run(t, redistest.Options{})
	kek := newKEK()
	keyturn := func(stdin string, args ...string) result {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), builtBinary(t), args...)
		cmd.Env = append(os.Environ(), envKEK+"="+kek)
		cmd.Stdin = strings.NewReader(stdin)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Run()
		return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	}
	at := []string{"--redis", "redis://" + s.Addr(), "--tenant", "acme"}
	with := func(args ...string) []string { return append(args, at...) }
	keyturn("", with("keys", "create", "--freshness", "3s", "--skew", "200ms", "--dwell", "1s")...).wantCode(t, exitYes)
	old := keyturn("", with("sign", "--claim", "sub=ann")...).wantCode(t, exitYes).stdout
	r := keyturn("", with("keys", "rotate")...).wantCode(t, exitNo, "it may be from ")
	for end := time.Now().Add(20 * time.Second); r.code == exitNo && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		r = keyturn("", with("keys", "rotate")...)
	}
	r.wantCode(t, exitYes, "signs now")
	keyturn("", with("keys", "rotate")...).wantCode(t, exitNo, "it may be from ")
	turned := keyturn("", with("sign", "--claim", "sub=ann")...).wantCode(t, exitYes).stdout
	for _, token := range []string{old, turned} {
		keyturn(token, append(with("verify", "--alg", "HS256", "--json"), "-")...).wantCode(t, exitYes, `{"ok":true,"tenant":"acme"`)
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	keyturn(turned, append(with("verify", "--alg", "HS256", "--json"), "-")...).wantCode(t, exitCannotTell, `"reason":"unavailable"`)
	if d := time.Since(begin); d > ringTime {
		t.Errorf("with a Redis that hangs: %v", d)
	}
}

// A part of a ring that cannot be opened may be a revocation: what is left is not an answer.
func TestKeysOfARingThatIsGarbled(t *testing.T) {
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	c.run("keys", "create").wantCode(t, exitYes)
	keys := c.wantStates("signing", "pending")
	ring := fmt.Sprintf("kt:{%d}:ring:default", rotation.BucketOf("default"))
	m.HSet(ring, "x:"+keys["pending"].KID, "rubbish")
	c.run("keys", "list").wantCode(t, exitCannotTell, "NOT THE WHOLE RING", "pending  ")
	c.run("keys", "list", "--json").wantCode(t, exitCannotTell, "NOT THE WHOLE RING")
	c.run("sign").wantCode(t, exitCannotTell, "malformed")
	c.run("keys", "rotate", "--force").wantCode(t, exitCannotTell, "malformed")
	m.HDel(ring, "x:"+keys["pending"].KID)
	c.run("sign").wantCode(t, exitYes)
}
