package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/jwk"
	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
)

// tomorrow is a date for --until.
func tomorrow() string { return time.Now().AddDate(0, 0, 1).UTC().Format(time.RFC3339) }

// pemOfKey writes a key as a PEM block.
func pemOfKey(t *testing.T, kind string, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if kind == "PRIVATE KEY" {
		der, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// TestKeysAccept: an old secret verifies beside a ring, until its date or its revocation.
func TestKeysAccept(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run("keys", "create").wantCode(t, exitYes)
		secret := file(t, testSecret+"\n")
		old := hs256(testSecret, plainHeader, in(time.Hour, ""))
		verify := []string{"verify", "--tenant", "default", "--alg", "HS256", old}
		c.run(verify...).wantCode(t, exitNo)
		r := c.run("keys", "accept", "--secret-file", secret, "--no-kid", "--until", tomorrow()).wantCode(t, exitYes, "is accepted until", " hours)", "committed")
		kid := strings.Split(r.stdout, `"`)[1]
		c.run(verify...).wantCode(t, exitYes)
		c.run("keys", "accept", "--secret-file", secret, "--no-kid", "--until", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)).
			wantCode(t, exitNo, "a date is never made earlier")

		later := time.Now().AddDate(0, 1, 0).Truncate(time.Second)
		args := []string{"keys", "accept", "--secret-file", secret, "--no-kid", "--json", "--until", later.UTC().Format(time.RFC3339)}
		var receipt struct {
			Tenant      string
			Accepted    []string
			Until       time.Time
			CommittedAt *time.Time `json:"committed_at"`
		}
		r = c.run(args...).wantCode(t, exitYes)
		if err := json.Unmarshal([]byte(r.stdout), &receipt); err != nil || receipt.Tenant != "default" || len(receipt.Accepted) != 1 || receipt.Accepted[0] != kid ||
			!receipt.Until.Equal(later) || receipt.CommittedAt == nil {
			t.Errorf("receipt %s, %v", r.stdout, err)
		}
		if r = c.run(args...).wantCode(t, exitYes); !strings.Contains(r.stdout, `"committed_at":null`) {
			t.Errorf("the same date again: %s", r.stdout)
		}
		states, keys := c.list()
		if got := keys["accepted"]; len(states) != 3 || states[2] != "accepted" || got.KID != kid || got.Alg != "HS256" || !got.NoKID || got.Weak || !got.Until.Equal(later) || got.Instances == nil {
			t.Errorf("%q, accepted %+v, want %q until %v", states, got, kid, later)
		}
		c.run("keys", "list", "--tenant", "default").wantCode(t, exitYes, "accepted keys, which sign nothing", kid, "for tokens without kid")
		c.run("keys", "revoke", "--", kid).wantCode(t, exitYes, "is revoked", "worst case")
		c.run(verify...).wantCode(t, exitNo)
		c.run(args...).wantCode(t, exitNo, "a revoked key is never accepted again")
		c.run("keys", "list", "--tenant", "default").wantCode(t, exitYes, kid, "revoked ")
		if strings.Contains(c.said.String(), testSecret) {
			t.Error("the secret is in the output")
		}
	})
}

// TestKeysAcceptWithoutRing: accepted keys alone are no ring, verify all the same, and a ring is made
// beside them.
func TestKeysAcceptWithoutRing(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		c.run("keys", "accept", "--secret-file", file(t, testSecret), "--kid", "old", "--until", tomorrow()).wantCode(t, exitYes, `key "old" of tenant "default" is accepted`)
		token := hs256(testSecret, `{"alg":"HS256","kid":"old"}`, in(time.Hour, ""))
		c.run("verify", "--alg", "HS256", token).wantCode(t, exitYes)
		c.run("sign", "--claim", "sub=ann").wantCode(t, exitNo)
		for _, args := range [][]string{{"rotate"}, {"policy", "--every", "7d"}, {"policy", "--every", "7d", "--dry-run"}, {"promote", "old"}} {
			r := c.run(append([]string{"keys"}, args...)...).wantCode(t, exitNo, "has no ring", "keyturn keys create")
			if strings.Contains(r.stderr, "rotation:") || strings.Contains(r.stderr, "keystore:") {
				t.Errorf("%q: %s", args, r.stderr)
			}
		}
		c.run("keys", "list", "--tenant", "default").wantCode(t, exitYes, "no ring: nothing is signed for it", "old  HS256")
		c.run("keys", "list").wantCode(t, exitYes, "NO RING", "accepted keys: 1")
		c.wantStates("accepted")
		c.run("keys", "create").wantCode(t, exitYes)
		c.wantStates("signing", "pending", "accepted")
		c.run("verify", "--alg", "HS256", token).wantCode(t, exitYes)
		c.run("keys", "revoke", "old").wantCode(t, exitYes)
		c.wantStates("signing", "pending", "revoked")
	})
}

// TestKeysAcceptDryRun: it says what it would do, and changes nothing. What would be refused is.
func TestKeysAcceptDryRun(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		until := tomorrow()
		accept := func(more ...string) result {
			return c.run(append([]string{"keys", "accept", "--secret-file", file(t, testSecret), "--until", until, "--no-wait"}, more...)...)
		}
		accept("--kid", "old", "--dry-run").wantCode(t, exitYes, `key "old" of tenant "default" WOULD BE accepted until `, "nothing was changed")
		accept("--no-kid", "--dry-run").wantCode(t, exitYes, `a key without kid of tenant "default" WOULD BE accepted until `)
		c.run("keys", "list", "--tenant", "default").wantCode(t, exitNo, "has no ring")
		c.run("keys", "create").wantCode(t, exitYes)
		r := accept("--kid", "old", "--dry-run", "--json").wantCode(t, exitYes)
		var plan struct {
			DryRun   bool `json:"dry_run"`
			Tenant   string
			Accepted []string
			Until    time.Time
			Live     []string
		}
		if err := json.Unmarshal([]byte(r.stdout), &plan); err != nil || !plan.DryRun || plan.Tenant != "default" || len(plan.Accepted) != 1 || plan.Accepted[0] != "old" || plan.Until.Format(time.RFC3339) != until || plan.Live == nil {
			t.Errorf("%s, %v", r.stdout, err)
		}
		c.wantStates("signing", "pending")
		accept("--kid", "old").wantCode(t, exitYes, "committed")
		accept("--kid", "old", "--dry-run").wantCode(t, exitYes, "is accepted until then already")
		c.run("keys", "revoke", "--", "old").wantCode(t, exitYes)
		accept("--kid", "old", "--dry-run").wantCode(t, exitNo, "a revoked key is never accepted again")
	})
}

// TestKeysAcceptPublic: public keys of each form, under the kid that the user expects.
func TestKeysAcceptPublic(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		es, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ed, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		thumbprint, err := jwk.Thumbprint(&es.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		set, err := jwk.MarshalSet(jwk.Public{KID: "one", Algorithm: "ES256", Key: &es.PublicKey}, jwk.Public{KID: "two", Algorithm: "EdDSA", Key: ed})
		if err != nil {
			t.Fatal(err)
		}
		one := strings.TrimSuffix(strings.TrimPrefix(strings.Split(string(set), "},{")[0], `{"keys":[`), "]}") + "}"
		public := file(t, pemOfKey(t, "PUBLIC KEY", &es.PublicKey))
		c.run("keys", "accept", "--key-file", public, "--until", tomorrow()).wantCode(t, exitYes, thumbprint)
		c.run("keys", "accept", "--key-file", public, "--kid", "partner", "--until", tomorrow()).wantCode(t, exitYes, `"partner"`)
		c.run("keys", "accept", "--key-file", file(t, one), "--until", tomorrow()).wantCode(t, exitYes, `key "one"`)
		c.run("keys", "accept", "--jwks-file", file(t, string(set)), "--until", tomorrow()).wantCode(t, exitYes, `key "one"`, `key "two"`)
		c.run("keys", "accept", "--key-file", file(t, pemOfKey(t, "PUBLIC KEY", ed)), "--kid", "partner", "--until", tomorrow()).wantCode(t, exitNo, "another key has that kid")
		states, _ := c.list()
		if len(states) != 4 {
			t.Errorf("%q", states)
		}
		c.run("keys", "accept", "--key-file", file(t, pemOfKey(t, "PRIVATE KEY", es)), "--until", tomorrow()).wantCode(t, exitUsage, "holds a private key", "openssl pkey")
		c.run("keys", "accept", "--jwks-file", file(t, string(set)), "--kid", "k", "--until", tomorrow()).wantCode(t, exitUsage, "--kid is for one")
		c.run("keys", "accept", "--key-file", public, "--alg", "RS256", "--until", tomorrow()).wantCode(t, exitUsage, "cannot verify RS256")
	})
}

// TestKeysAcceptUsage: mistakes in the command line are exit code 2, and nothing is asked of Redis.
func TestKeysAcceptUsage(t *testing.T) {
	c := newRingCLI(t, "127.0.0.1:1")
	secret, short := file(t, testSecret), file(t, testSecret[:20])
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--until", tomorrow()}, "one of --secret-file, --key-file and --jwks-file"},
		{[]string{"--secret-file", secret, "--key-file", secret, "--kid", "k", "--until", tomorrow()}, "one of --secret-file"},
		{[]string{"--secret-file", secret, "--kid", "k"}, "--until is missing"},
		{[]string{"--secret-file", secret, "--until", tomorrow()}, "needs --kid, the kid in the tokens of the secret, or --no-kid"},
		{[]string{"--secret-file", secret, "--kid", "k", "--no-kid", "--until", tomorrow()}, "--kid and --no-kid: give one of them"},
		{[]string{"--secret-file", secret, "--kid", "k", "--until", "tomorrow"}, "want a date in RFC 3339, such as"},
		{[]string{"--secret-file", secret, "--kid", "k", "--until", tomorrow(), "--alg", "ES256"}, "is not an HMAC algorithm"},
		{[]string{"--secret-file", short, "--kid", "k", "--until", tomorrow()}, "--weak accepts a secret from 16 bytes on, for at most 90 days"},
		{[]string{"--secret-file", file(t, testSecret[:15]), "--weak", "--kid", "k", "--until", tomorrow()}, "want at least 16"},
		{[]string{"--key-file", secret, "--weak", "--until", tomorrow()}, "--weak is for a secret"},
		{[]string{"--key-file", secret, "--until", tomorrow()}, "holds neither a PEM block nor a JWK"},
		{[]string{"--jwks-file", file(t, `{"keys":[]}`), "--until", tomorrow()}, "no public key of it is usable"},
		{[]string{"--secret-file", secret, "--kid", strings.Repeat("k", keystore.MaxKIDBytes+1), "--until", tomorrow()}, "--kid has 257 bytes"},
		{[]string{"--secret-file", secret, "--kid", "k", "--until", tomorrow(), "KID"}, "an argument that is no flag"},
	} {
		r := c.run(append([]string{"keys", "accept"}, tt.args...)...).wantCode(t, exitUsage, tt.want)
		if strings.Contains(r.stderr, testSecret[:16]) {
			t.Errorf("the secret is in the output: %s", r.stderr)
		}
	}
	c.run("keys", "accept", "--secret-file", secret, "--kid", "k", "--until", tomorrow()).wantCode(t, exitCannotTell)
}

// TestKeysAcceptDates: dates in both forms, and those that are refused.
func TestKeysAcceptDates(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		accept := func(kid, until string, more ...string) result {
			return c.run(append([]string{"keys", "accept", "--secret-file", file(t, testSecret[:20]), "--weak", "--kid", kid, "--until", until}, more...)...)
		}
		accept("past", "1700000000").wantCode(t, exitNo, "is past")
		accept("late", time.Now().AddDate(0, 0, 401).UTC().Format(time.RFC3339)).wantCode(t, exitNo, "at most 400 days")
		r := accept("weak", time.Now().AddDate(0, 0, 91).UTC().Format(time.RFC3339), "--json").wantCode(t, exitNo, "a weak secret is accepted for at most 90 days")
		if !strings.HasPrefix(r.stdout, `{"ok":false,"error":"refused: `) {
			t.Errorf("stdout = %s", r.stdout)
		}
		accept("weak", time.Now().AddDate(0, 0, 89).UTC().Format(time.RFC3339)).wantCode(t, exitYes)
		_, keys := c.list()
		if !keys["accepted"].Weak {
			t.Errorf("%+v", keys)
		}
		c.run("keys", "list", "--tenant", "default").wantCode(t, exitYes, "HS256, WEAK")
	})
}

// TestServeAccepts: a server that runs takes an accepted key within a poll, and the command waits for
// it.
func TestServeAccepts(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	redis := redistest.Run(t, redistest.Options{})
	c := newRingCLI(t, redis.Addr())
	c.run("keys", "create", "--freshness", "6s", "--skew", "500ms", "--dwell", "1s").wantCode(t, exitYes)
	s := startServe(t, map[string]string{envKEK: c.kek}, "--redis", c.url)
	wait(t, func() bool { return strings.Contains(s.log.String(), "ready: all rings are in step") })
	old := hs256(testSecret, plainHeader, in(time.Hour, ""))
	s.ask(t, "GET", "/api/x", old).wantRefused(t)
	accept := []string{"keys", "accept", "--secret-file", file(t, testSecret), "--no-kid", "--json", "--until", tomorrow()}
	r := c.run(accept...).wantCode(t, exitYes)
	if strings.Count(r.stdout, `"applied":true`) != 1 {
		t.Errorf("receipt %s", r.stdout)
	}
	if a := s.ask(t, "GET", "/api/x", old); a.status == http.StatusUnauthorized || a.status == http.StatusServiceUnavailable {
		t.Errorf("a token of the accepted key: %d %s", a.status, a.body)
	}
	wait(t, func() bool { _, keys := c.list(); return len(keys["accepted"].Instances) == 1 })
	_, keys := c.list()
	c.run("keys", "revoke", "--wait", "10s", "--", keys["accepted"].KID).wantCode(t, exitYes)
	s.ask(t, "GET", "/api/x", old).wantRefused(t)
}
