package seal

import (
	"bytes"
	"crypto/ecdsa"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestAcceptHeaderHasEveryField fails if AcceptRecord gets a field that is not sealed.
func TestAcceptHeaderHasEveryField(t *testing.T) {
	base := acceptHeader{AcceptRecord: testAccept("acme", "theirs", keystore.HS256), tenantKey: "0123456789abcdef"}
	authenticated := func(h acceptHeader) []byte { return append(h.append(nil), h.place()...) }
	for i := range reflect.TypeFor[ring.AcceptRecord]().NumField() {
		h := base
		name, field := reflect.TypeFor[ring.AcceptRecord]().Field(i).Name, reflect.ValueOf(&h.AcceptRecord).Elem().Field(i)
		switch f := field.Interface().(type) {
		case string:
			field.SetString("other")
		case int:
			field.SetInt(12)
		case bool:
			field.SetBool(true)
		case time.Time:
			field.Set(reflect.ValueOf(f.Add(time.Millisecond)))
		case keystore.Algorithm:
			field.SetString(string(keystore.HS512))
		default:
			t.Fatalf("%s is a %T, which this test does not know", name, f)
		}
		if bytes.Equal(authenticated(h), authenticated(base)) {
			t.Errorf("%s is not authenticated", name)
		}
		encoded := h.append(nil)
		back, n, err := readAcceptHeader(encoded)
		back.Tenant, back.KID = h.Tenant, h.KID // they are told by the place
		if err != nil || n != len(encoded) || back.AcceptRecord != h.AcceptRecord {
			t.Errorf("%s: read back as %+v, %v", name, back.AcceptRecord, err)
		}
	}
}

// TestSealAcceptRefuses: an accepted key that could not be opened is not sealed.
func TestSealAcceptRefuses(t *testing.T) {
	s := newSealedRing(t, mustKEKs(t, 1), "acme")
	es := mustMaterial(t, keystore.ES256)
	pub, secret := publicOf(t, es), bytes.Repeat([]byte("s"), 32)
	for want, change := range map[string]func(*ring.AcceptRecord) any{
		"a tenant of 0 bytes":          func(a *ring.AcceptRecord) any { a.Tenant = ""; return secret },
		"a kid of 257 bytes":           func(a *ring.AcceptRecord) any { a.KID = strings.Repeat("k", 257); return secret },
		"the unknown algorithm":        func(a *ring.AcceptRecord) any { a.Algorithm = "none"; return secret },
		"of life -1":                   func(a *ring.AcceptRecord) any { a.Life = -1; return secret },
		"ends before it begins":        func(a *ring.AcceptRecord) any { a.Until = a.Created; return secret },
		"whole milliseconds from 1970": func(a *ring.AcceptRecord) any { a.Until = a.Until.Add(1); return secret },
		"only a secret can be weak":    func(a *ring.AcceptRecord) any { a.Weak, a.Algorithm = true, keystore.ES256; return pub },
		"want at least 32":             func(*ring.AcceptRecord) any { return secret[:31] },
		"want at least 16":             func(a *ring.AcceptRecord) any { a.Weak = true; return secret[:15] },
		"no key for ES256":             func(a *ring.AcceptRecord) any { a.Algorithm = keystore.ES256; return secret },
		"no key for HS256":             func(*ring.AcceptRecord) any { return pub },
		"wants a key on P-384":         func(a *ring.AcceptRecord) any { a.Algorithm = keystore.ES384; return pub },
		"unusable *ecdsa.PublicKey":    func(a *ring.AcceptRecord) any { a.Algorithm = keystore.ES256; return new(ecdsa.PublicKey) },
		"unusable string":              func(*ring.AcceptRecord) any { return "text" },
		"a key of 8193 bytes":          func(*ring.AcceptRecord) any { return bytes.Repeat([]byte("s"), 8193) },
		"must never serve as a secret": func(*ring.AcceptRecord) any { return es.public },
	} {
		a := testAccept("acme", "theirs", keystore.HS256)
		key := change(&a)
		if blob, err := SealAccept(s.key, a, key); err == nil || blob != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%x, %v, want %q in the error", blob, err, want)
		}
	}
}

// TestForeignKeySame: an accepted key is found again by its material, whatever its kid is, how its
// algorithm is named and how long it lives.
func TestForeignKeySame(t *testing.T) {
	s := newSealedRing(t, mustKEKs(t, 1), "acme")
	ed := publicOf(t, mustMaterial(t, keystore.Ed25519))
	secret, short := bytes.Repeat([]byte("s"), 32), bytes.Repeat([]byte("s"), 16)
	open := func(a ring.AcceptRecord, key any) (*keystore.Key, time.Time) {
		s.addAccept(t, a, key)
		opened, err := OpenAccept(map[string]*TenantKey{s.key.ID: s.key}, "acme", a.KID, s.fields[PrefixAccept+a.KID])
		if err != nil {
			t.Fatal(err)
		}
		if a.Weak {
			return opened.Key, a.Created
		}
		return opened.Key, time.Time{}
	}
	weak, weakShort := testAccept("acme", "weak", keystore.HS256), testAccept("acme", "short", keystore.HS256)
	weak.Weak, weakShort.Weak = true, true
	strongKey, never := open(testAccept("acme", "strong", keystore.HS256), secret)
	weakKey, since := open(weak, secret)
	shortKey, _ := open(weakShort, short)
	edKey, _ := open(testAccept("acme", "ed", keystore.EdDSA), ed)
	for _, tt := range []struct {
		name  string
		mine  ring.ForeignKey
		key   *keystore.Key
		since time.Time
		want  bool
	}{
		{"the same secret", ring.ForeignKey{NoKID: true, Algorithm: keystore.HS256, Key: secret}, strongKey, never, true},
		{"the same secret, weak now", ring.ForeignKey{NoKID: true, Weak: true, Algorithm: keystore.HS256, Key: secret}, strongKey, never, true},
		{"the same secret, weak then", ring.ForeignKey{KID: "k", Algorithm: keystore.HS256, Key: secret}, weakKey, since, true},
		{"the same short secret", ring.ForeignKey{KID: "k", Weak: true, Algorithm: keystore.HS256, Key: short}, shortKey, since, true},
		{"another secret", ring.ForeignKey{KID: "k", Weak: true, Algorithm: keystore.HS256, Key: short}, weakKey, since, false},
		{"another algorithm", ring.ForeignKey{KID: "k", Weak: true, Algorithm: keystore.HS384, Key: secret}, weakKey, since, false},
		{"another kind", ring.ForeignKey{KID: "k", Algorithm: keystore.HS256, Key: secret}, edKey, never, false},
		{"the other name of the algorithm", ring.ForeignKey{KID: "k", Algorithm: keystore.Ed25519, Key: ed}, edKey, never, true},
	} {
		f, err := NewForeignKey(tt.mine)
		if err != nil || f.Same(tt.key, tt.since) != tt.want {
			t.Errorf("%s: not %v (%v)", tt.name, tt.want, err)
		}
	}
}

// TestNewForeignKey refuses what cannot be accepted, and copies a secret.
func TestNewForeignKey(t *testing.T) {
	secret := bytes.Repeat([]byte("s"), 32)
	for want, k := range map[string]ring.ForeignKey{
		"has a KID or NoKID":       {Algorithm: keystore.HS256, Key: secret},
		"and not both":             {KID: "k", NoKID: true, Algorithm: keystore.HS256, Key: secret},
		"a kid of 257 bytes":       {KID: strings.Repeat("k", 257), Algorithm: keystore.HS256, Key: secret},
		"is a private key":         {KID: "k", Algorithm: keystore.RS256, Key: testRSA()},
		"is no key to verify with": {KID: "k", Algorithm: keystore.HS256, Key: "text"},
		"<nil> is no key":          {KID: "k", Algorithm: keystore.HS256},
		"want at least 64":         {KID: "k", Algorithm: keystore.HS512, Key: secret},
	} {
		if f, err := NewForeignKey(k); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v, want %q in the error", f, err, want)
		}
	}
	f, err := NewForeignKey(ring.ForeignKey{NoKID: true, Algorithm: keystore.HS256, Key: secret})
	if err != nil || len(f.KID) != 22 || f.Cost() != 1 {
		t.Fatalf("%v, a random kid %q, cost %d", err, f.KID, f.Cost())
	}
	g, _ := NewForeignKey(ring.ForeignKey{NoKID: true, Algorithm: keystore.HS256, Key: secret})
	if g.KID == f.KID {
		t.Error("the kid of a key without kid is not random")
	}
	key, err := keystore.NewSecret(keystore.ID{}, keystore.HS256, secret)
	if clear(secret); err != nil || !f.Same(key, time.Time{}) {
		t.Error("the caller's memory is the key's")
	}
	slow, err := NewForeignKey(ring.ForeignKey{KID: "k", Algorithm: keystore.ES384, Key: publicOf(t, mustMaterial(t, keystore.ES384))})
	if err != nil || slow.Cost() != 4 {
		t.Errorf("%v, ES384 costs %d", err, slow.Cost())
	}
}
