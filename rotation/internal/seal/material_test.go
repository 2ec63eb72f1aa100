package seal

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

// TestNewMaterial: secrets are as long as the hash, never the same twice, and no kid looks like a
// flag.
func TestNewMaterial(t *testing.T) {
	for alg, size := range map[keystore.Algorithm]int{keystore.HS256: 32, keystore.HS384: 48, keystore.HS512: 64} {
		a, b := mustMaterial(t, alg), mustMaterial(t, alg)
		if len(a.secret()) != size || len(a.KID) != 22 || a.public != nil {
			t.Errorf("%s: %d bytes, kid %q, public part %x", alg, len(a.secret()), a.KID, a.public)
		}
		if a.KID == b.KID || bytes.Equal(a.secret(), b.secret()) {
			t.Errorf("%s: the same twice", alg)
		}
	}
	for range 300 {
		if m := mustMaterial(t, keystore.HS256); m.KID[0] == '-' {
			t.Errorf("the kid %q looks like a flag", m.KID)
		}
	}
	for _, alg := range []keystore.Algorithm{"", "none", "HS257"} {
		if m, err := NewMaterial(alg); err == nil || m != nil {
			t.Errorf("NewMaterial(%q) = %v, %v", alg, m, err)
		}
	}
}

// TestNewRSAMaterial: new RSA keys have 3072 bits.
func TestNewRSAMaterial(t *testing.T) {
	m := mustMaterial(t, keystore.PS256)
	r := testRecord("acme", 1, m)
	tk, _, _ := NewTenantKey(mustKEKs(t, 1), "acme")
	opened, err := OpenRecord(map[string]*TenantKey{tk.ID: tk}, "acme", m.KID, mustSeal(t, tk, r, m))
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := opened.Key.Public()
	if bits := pub.(*rsa.PublicKey).N.BitLen(); bits != 3072 {
		t.Errorf("an RSA key of %d bits", bits)
	}
}

// remote is a private key that cannot be read, as in an HSM.
type remote struct{ crypto.Signer }

// TestNewMaterialOfRefuses: a key that is too weak, or does not fit its algorithm, makes no
// material.
func TestNewMaterialOfRefuses(t *testing.T) {
	short, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for name, tt := range map[string]struct {
		alg keystore.Algorithm
		key any
	}{
		"a short secret":       {keystore.HS256, make([]byte, 31)},
		"a zero secret":        {keystore.HS256, make([]byte, 32)},
		"nothing":              {keystore.HS256, nil},
		"another curve":        {keystore.ES256, short},
		"a key in an HSM":      {keystore.ES384, remote{short}},
		"a secret for ES256":   {keystore.ES256, testKEK(1)},
		"a key of no type":     {keystore.RS256, "key"},
		"an empty Ed25519 key": {keystore.EdDSA, ed25519.PrivateKey{}},
	} {
		if m, err := newMaterialOf(tt.alg, tt.key); err == nil || m != nil {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}
