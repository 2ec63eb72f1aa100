package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/internal/jwk"
)

// oldSecret is the secret of the programs that existed before the ring.
const oldSecret = "the shared secret of old programs"

// A user brings the secret that old programs sign with. Their tokens, which carry no kid, are good from
// then on, and so is what the ring signs. The rotation is by hand, and is the end of the old programs;
// the receipt says until when their tokens are good.
func TestKeysImport(t *testing.T) {
	t.Parallel()
	anyRedis(t, func(t *testing.T, c *ringCLI) {
		secret := file(t, oldSecret+"\n")
		token := sign(t, "--secret-file", secret, "--claim", "sub=ann", "--ttl", "20h")
		c.run("keys", "import", "--secret-file", secret, "--no-kid", "--longest-token", "20h", "--hold", "--every", "7d").wantCode(t, exitYes,
			`of tenant "default" is imported, and signs now`, `waits until "keyturn keys rotate"`, "must stop before that rotation")
		c.run("verify", "--alg", "HS256", token).wantCode(t, exitYes, "ann")
		ours := strings.TrimSpace(c.run("sign", "--claim", "sub=bob").wantCode(t, exitYes).stdout)
		if _, named := partOf(t, ours, 0)["kid"]; named {
			t.Errorf("the ring names its key in %v", partOf(t, ours, 0))
		}
		c.run("verify", "--alg", "HS256", ours).wantCode(t, exitYes, "bob")
		c.run("keys", "list", "--tenant", "default").wantCode(t, exitYes, `HELD: the key that signs stays until "keyturn keys rotate"`, "imported; its tokens carry no kid; its tokens live up to 20h", `waits until "keyturn keys rotate"`)
		c.run("keys", "list").wantCode(t, exitYes, `HELD until "keyturn keys rotate"`)
		if all := c.run("keys", "list", "--json").wantCode(t, exitYes).stdout; !strings.Contains(all, `"held":true`) {
			t.Errorf("keys list --json says %s", all)
		}
		keys := c.wantStates("signing", "pending")
		if s, p := keys["signing"], keys["pending"]; s.Origin != "legacy" || !s.Held || s.Waits || p.Origin != "generated" || p.Held || !p.Waits || p.ActivatesAt != nil {
			t.Errorf("keys = %+v", keys)
		}
		r := c.run("keys", "import", "--secret-file", secret, "--no-kid", "--longest-token", "20h", "--json").wantCode(t, exitNo, "it has a ring already")
		if !strings.HasPrefix(r.stdout, `{"ok":false,"error":"refused: `) {
			t.Errorf("stdout = %s", r.stdout)
		}
		c.run("keys", "rotate").wantCode(t, exitNo, "it has not been published for long enough")
		if said := c.said.String(); strings.Contains(said, oldSecret) || strings.Contains(said, base64.StdEncoding.EncodeToString([]byte(oldSecret))) {
			t.Error("the secret is in the output")
		}
	})
}

// Tokens of old programs are good until the rotation and their longest life, and not after.
func TestKeysImportUntilRotation(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	at := func(when time.Time) {
		m.SetTime(when)
		c.now = func() time.Time { return when }
	}
	secret, began := file(t, oldSecret), time.Now().Truncate(time.Second)
	token := sign(t, "--secret-file", secret, "--claim", "sub=ann", "--claim-json", fmt.Sprintf("exp=%d", began.Add(400*24*time.Hour).Unix()))
	at(began)
	c.run("keys", "import", "--secret-file", secret, "--no-kid", "--longest-token", "30d", "--hold").wantCode(t, exitYes)
	at(began.Add(100 * 24 * time.Hour)) // a hold has no end
	c.run("verify", "--alg", "HS256", token).wantCode(t, exitYes, "ann")
	r := c.run("keys", "rotate", "--json").wantCode(t, exitYes)
	var receipt struct {
		Until time.Time `json:"tokens_until"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &receipt); err != nil || receipt.Until.Before(began.Add(130*24*time.Hour)) || receipt.Until.After(began.Add(132*24*time.Hour)) {
		t.Fatalf("%s, %v: want 30 days, and a day for instances that are cut off", r.stdout, err)
	}
	at(receipt.Until.Add(-time.Second))
	c.run("verify", "--alg", "HS256", token).wantCode(t, exitYes, "ann")
	at(receipt.Until.Add(time.Second))
	c.run("verify", "--alg", "HS256", "--json", token).wantCode(t, exitNo, `"unknown_key"`)
}

// A rotation on a date says until when the old programs may sign, and their tokens are good.
func TestKeysImportOnDate(t *testing.T) {
	t.Parallel()
	c := newRingCLI(t, redisAddr(t))
	secret := file(t, oldSecret)
	run := func(tenant, date string) result {
		return c.run("keys", "import", "--tenant", tenant, "--secret-file", secret, "--kid", "2026", "--longest-token", "12h", "--rotate-at", date)
	}
	date := time.Now().Add(40 * 24 * time.Hour).UTC().Truncate(time.Second)
	ends := date.Add(12*time.Hour + 30*time.Second)
	run("a", date.Format(time.RFC3339)).wantCode(t, exitYes, "must stop before "+stamp(date), "their tokens end to be accepted at "+stamp(ends))
	r := c.run("keys", "import", "--json", "--tenant", "b", "--secret-file", secret, "--kid", "2026", "--longest-token", "12h", "--rotate-at", fmt.Sprint(date.Unix())).wantCode(t, exitYes)
	var receipt struct {
		Adopted     string
		SignsFrom   time.Time `json:"signs_from"`
		TokensUntil time.Time `json:"tokens_until"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &receipt); err != nil || receipt.Adopted != "2026" || !receipt.SignsFrom.Equal(date) || !receipt.TokensUntil.Equal(ends) {
		t.Errorf("%s, %v", r.stdout, err)
	}
	run("c", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)).wantCode(t, exitNo, "is too soon", "it may be from ", "(in 15 days)")
	r = c.run("keys", "import", "--json", "--tenant", "c", "--secret-file", secret, "--kid", "2026", "--longest-token", "12h", "--rotate-at", fmt.Sprint(time.Now().Add(time.Hour).Unix())).wantCode(t, exitNo)
	var refused struct{ From time.Time }
	if err := json.Unmarshal([]byte(r.stdout), &refused); err != nil || !refused.From.After(time.Now().AddDate(0, 0, 14)) {
		t.Errorf("the earliest date is not told: %s, %v", r.stdout, err)
	}
	run("d", "tomorrow").wantUsage(t, "want a date such as 2026-12-24T03:00:00Z")
}

// The mistakes of a command line, each with what to do.
func TestKeysImportUsage(t *testing.T) {
	t.Parallel()
	c := newRingCLI(t, "127.0.0.1:1")
	secret, brief := file(t, oldSecret), file(t, "short")
	life := []string{"--longest-token", "30d"}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{life, "give the key to import with --secret-file"},
		{append([]string{"--secret-file", secret, "--key-file", secret}, life...), "give the key to import with --secret-file"},
		{append([]string{"--secret-file", secret}, life...), "--no-kid if they carry none"},
		{append([]string{"--secret-file", secret, "--kid", "k", "--no-kid"}, life...), "--kid and --no-kid"},
		{[]string{"--secret-file", secret, "--no-kid"}, "--longest-token is missing"},
		{[]string{"--secret-file", secret, "--no-kid", "--longest-token", "401d"}, "want 1s to 400d"},
		{append([]string{"--secret-file", secret, "--no-kid", "--hold", "--rotate-at", "2030-01-01T00:00:00Z"}, life...), "--hold and --rotate-at"},
		{append([]string{"--secret-file", brief, "--no-kid"}, life...), `"keyturn keys accept --weak"`},
		{append([]string{"--secret-file", secret, "--no-kid", "--key-alg", "HS512"}, life...), `"keyturn keys accept --weak"`},
		{append([]string{"--secret-file", secret, "--no-kid", "--key-alg", "ES256"}, life...), "is none for ES256"},
		{append([]string{"--key-file", secret}, life...), "a shared secret goes after --secret-file"},
		{append([]string{"--secret-file", secret, "--no-kid", "--every", "1m", "--propagation", "1h"}, life...), "--every >= --propagation"},
	} {
		c.run(append([]string{"keys", "import"}, tt.args...)...).wantUsage(t, tt.want)
	}
	if strings.Contains(c.said.String(), oldSecret) {
		t.Error("the secret is in the output")
	}
}

// A key file has a private key in PEM or as a JWK. Its kid is that of the JWK, or the thumbprint.
func TestKeysImportKeyFile(t *testing.T) {
	t.Parallel()
	c := newRingCLI(t, redisAddr(t))
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	thumbprint, err := jwk.Thumbprint(ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ec.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct{ text, kid, alg string }{
		{pkcs8(t, ec), thumbprint, "ES256"},
		{"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + pemOf("EC PRIVATE KEY", sec1), thumbprint, "ES256"},
		{pkcs8(t, ed), "", "EdDSA"},
		{fmt.Sprintf(`{"kty":"EC","crv":"P-256","d":%q,"kid":"mine","alg":"ES256"}`, b64(d)), "mine", "ES256"},
		{fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","d":%q}`, b64(ed.Seed())), "", "EdDSA"},
		{fmt.Sprintf(`{"kty":"oct","k":%q,"kid":"s","alg":"HS256"}`, b64([]byte(oldSecret))), "s", "HS256"},
	} {
		tenant := fmt.Sprint("t", i)
		c.run("keys", "import", "--tenant", tenant, "--key-file", file(t, tt.text), "--longest-token", "12h").wantCode(t, exitYes)
		_, keys := c.list("--tenant", tenant)
		if s := keys["signing"]; s.Alg != tt.alg || tt.kid != "" && s.KID != tt.kid || s.Origin != "imported" || keys["pending"].Alg != tt.alg {
			t.Errorf("%d: %+v", i, keys)
		}
		token := strings.TrimSpace(c.run("sign", "--tenant", tenant, "--claim", "sub=ann").wantCode(t, exitYes).stdout)
		c.run("verify", "--tenant", tenant, "--alg", tt.alg, token).wantCode(t, exitYes, "ann")
	}
	if said := c.said.String(); strings.Contains(said, b64(d)) || strings.Contains(said, b64(ed.Seed())) {
		t.Error("a private key is in the output")
	}
}

// A file that holds no key that can sign is refused, and its text is not shown.
func TestKeyFileIsRefused(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	n, secret := b64(key.N.Bytes()), b64(key.D.Bytes())
	for text, want := range map[string]string{
		pemOf("PUBLIC KEY", public):                                                        "keyturn keys accept",
		fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, n):                                  "keyturn keys accept",
		fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB","d":%q}`, n, secret):                   "without its primes",
		fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB","d":%q,"p":"Aw","q":"BQ"}`, n, secret): "do not make a private key",
		fmt.Sprintf(`{"keys":[{"kty":"RSA","d":%q}]}`, secret):                             "is a JWK Set",
		fmt.Sprintf(`{"kty":"RSA","d":%q`, secret):                                         "is no JWK that can be read",
		`{"kty":"EC","crv":"P-256","d":"AAAA","x":"AAAA"}`:                                 "do not make a private key",
		`{"kty":"OKP","crv":"X25519","d":"AAAA"}`:                                          "does not know",
		pemOf("ENCRYPTED PRIVATE KEY", []byte("x")):                                        "openssl pkey",
		pemOf("OPENSSH PRIVATE KEY", []byte("x")):                                          "PKCS #8",
		pemOf("PRIVATE KEY", []byte("x")):                                                  "cannot be read",
		"plain":                                                                            "neither PEM nor a JWK",
	} {
		k, err := readPrivateKey([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("%.60q: %v, %v, want %q", text, k != nil, err, want)
		}
	}
	jwk := fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB","d":%q,"p":%q,"q":%q,"alg":"PS256","x5c":[]}`, n, secret, b64(key.Primes[0].Bytes()), b64(key.Primes[1].Bytes()))
	k, err := readPrivateKey([]byte(jwk))
	if err != nil || k.algorithm != "PS256" || !key.Equal(k.material().(crypto.PrivateKey)) {
		t.Errorf("%v, %v", k, err)
	}
	if text := fmt.Sprintf("%v %+v %#v", k, k, k); strings.Contains(text, key.D.String()) {
		t.Error("a key is printed with its material")
	}
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(t *testing.T, key crypto.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("PRIVATE KEY", der)
}
