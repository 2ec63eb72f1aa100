package seal

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestCommitment: one who knows two tenant keys can make bytes that AES-GCM opens under both, to
// two secrets. With the commitment they are a record under one of them at most.
func TestCommitment(t *testing.T) {
	m := mustMaterial(t, keystore.HS256)
	h := header{Record: testRecord("acme", 1, m), tenantKey: "0123456789abcdef"}
	key1, key2 := testKEK(1), testKEK(2)
	open := h.append(nil)
	aad := slices.Concat(open, h.place())
	nonce := []byte("twelve bytes")
	sealed := slices.Concat(nonce, salamander(t, key1, key2, nonce, aad, []byte("sixteen bytes ok")))
	secret1, err1 := gcm(t, key1).Open(nil, nonce, sealed[12:], aad)
	secret2, err2 := gcm(t, key2).Open(nil, nonce, sealed[12:], aad)
	if err1 != nil || err2 != nil || bytes.Equal(secret1, secret2) {
		t.Fatalf("it does not open under both keys: %v, %v", err1, err2)
	}
	for committed, key := range [][]byte{key1, key2} {
		commitment := hmac1(hkdf1(key, "keyturn/1/commit"), aad, sealed)
		blob := slices.Concat(open, sealed, commitment)
		for i, under := range [][]byte{key1, key2} {
			tk := makeTenantKey(h.tenantKey, KEKName{}, [checkSize]byte{}, bytes.Clone(under))
			r, err := OpenRecord(map[string]*TenantKey{tk.ID: tk}, "acme", h.KID, blob)
			if i == committed && (err != nil || !bytes.Equal(r.Private().([]byte), [][]byte{secret1, secret2}[i])) {
				t.Errorf("the key that it commits to opens %v, %v", r, err)
			}
			if i != committed && (!errors.Is(err, ErrTampered) || r != nil) {
				t.Errorf("the other key opens %v, %v", r, err)
			}
		}
	}
}

// salamander returns two blocks of ciphertext and a tag that AES-GCM opens under both keys:
// "invisible salamanders" (Dodis et al., "Fast message franking", CRYPTO 2018). The first block is
// given. In the tag E(J0) + GHASH (NIST SP 800-38D) the second block X counts as X*H^2, so that X
// is the solution of one linear equation.
func salamander(t *testing.T, key1, key2, nonce, aad, first []byte) []byte {
	t.Helper()
	var sum, squares element
	for _, key := range [][]byte{key1, key2} {
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		var h, mask [16]byte
		block.Encrypt(h[:], h[:])
		block.Encrypt(mask[:], slices.Concat(nonce, []byte{0, 0, 0, 1}))
		hash := elementOf(h[:])
		sum = sum.add(elementOf(mask[:])).add(ghash(hash, aad, slices.Concat(first, make([]byte, 16))))
		squares = squares.add(hash.mul(hash))
	}
	x := sum.mul(squares.inverse())
	ciphertext := slices.Concat(first, x.bytes())
	block, err := aes.NewCipher(key1)
	if err != nil {
		t.Fatal(err)
	}
	var h, mask [16]byte
	block.Encrypt(h[:], h[:])
	block.Encrypt(mask[:], slices.Concat(nonce, []byte{0, 0, 0, 1}))
	return slices.Concat(ciphertext, ghash(elementOf(h[:]), aad, ciphertext).add(elementOf(mask[:])).bytes())
}

// An element is one of GF(2^128), as GCM has it.
type element struct{ hi, lo uint64 }

func elementOf(b []byte) element {
	return element{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (a element) bytes() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, a.hi), a.lo)
}

func (a element) add(b element) element { return element{a.hi ^ b.hi, a.lo ^ b.lo} }

// mul is algorithm 1 of NIST SP 800-38D.
func (a element) mul(b element) (z element) {
	for i := range 128 {
		word := a.hi
		if i >= 64 {
			word = a.lo
		}
		if word>>(63-i%64)&1 == 1 {
			z = z.add(b)
		}
		carry := b.lo & 1
		b = element{b.hi >> 1, b.lo>>1 | b.hi<<63}
		if carry == 1 {
			b.hi ^= 0xe1 << 56
		}
	}
	return z
}

// inverse is a to the power of 2^128 - 2.
func (a element) inverse() element {
	z := element{hi: 1 << 63} // one
	for range 127 {
		a = a.mul(a)
		z = z.mul(a)
	}
	return z
}

// ghash hashes the additional data and a ciphertext of whole blocks.
func ghash(h element, aad, ciphertext []byte) (y element) {
	padded := slices.Concat(aad, make([]byte, -len(aad)&15), ciphertext, u64(uint64(8*len(aad))), u64(uint64(8*len(ciphertext))))
	for block := range slices.Chunk(padded, 16) {
		y = y.add(elementOf(block)).mul(h)
	}
	return y
}

// TestBox: what a box seals opens with the same key, header and place alone.
func TestBox(t *testing.T) {
	one, err1 := newBox(testKEK(1))
	two, err2 := newBox(testKEK(2))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	header := append(make([]byte, 0, 100), "header"...) // an append to it must not write into the caller's memory
	sealed := sealed(t, one, header, []byte("place"), []byte("secret"))
	if string(sealed[:6]) != "header" || len(sealed) != len(header)+len("secret")+boxOverhead {
		t.Fatalf("sealed %x", sealed)
	}
	for _, tt := range []struct {
		box                   *box
		header, place, sealed []byte
		want                  string
	}{
		{one, sealed[:6], []byte("place"), sealed[6:], "secret"},
		{two, sealed[:6], []byte("place"), sealed[6:], ""},
		{one, []byte("Header"), []byte("place"), sealed[6:], ""},
		{one, sealed[:6], []byte("other"), sealed[6:], ""},
		{one, sealed[:6], nil, sealed[6:], ""},
		{one, sealed[:6], []byte("place"), sealed[6 : len(sealed)-macSize], ""},
		{one, sealed[:6], []byte("place"), nil, ""},
	} {
		got, err := tt.box.open(tt.header, tt.place, tt.sealed)
		if string(got) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("open(%q, %q) = %q, %v, want %q", tt.header, tt.place, got, err, tt.want)
		}
	}
}

// TestTenantKeyNames: a tenant key remembers the KEK that it was made under, through any rewrap,
// and both names can be read without a KEK.
func TestTenantKeyNames(t *testing.T) {
	first, both, second := mustKEKs(t, 1), mustKEKs(t, 2, 1), mustKEKs(t, 2)
	tk, blob, err := NewTenantKey(first, "acme")
	if err != nil {
		t.Fatal(err)
	}
	m := mustMaterial(t, keystore.HS256)
	record := mustSeal(t, tk, testRecord("acme", 1, m), m)
	want := func(keks *KEKs, blob []byte, wrapped KEKName) {
		t.Helper()
		name, born, err := ReadTenantKeyNames(blob)
		if err != nil || name != wrapped || born != first.Primary().Check {
			t.Errorf("wrapped by %v, born under %x, %v", name, born, err)
		}
		got, err := OpenTenantKey(keks, "acme", tk.ID, blob)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != tk.ID || got.KEK != wrapped || got.Born != first.Primary().Check {
			t.Errorf("opened as %+v", got)
		}
		if _, err := OpenRecord(map[string]*TenantKey{got.ID: got}, "acme", m.KID, record); err != nil {
			t.Errorf("its record: %v", err)
		}
	}
	want(first, blob, first.Primary())
	rewrapped, err := RewrapTenantKey(both, both.Primary(), "acme", tk.ID, blob)
	if err != nil {
		t.Fatal(err)
	}
	want(second, rewrapped, second.Primary())
	back, err := RewrapTenantKey(both, first.Primary(), "acme", tk.ID, rewrapped)
	if err != nil {
		t.Fatal(err)
	}
	want(first, back, first.Primary())
	for _, bad := range [][]byte{nil, []byte("rubbish"), []byte("kt\x02K"), blob[:len(blob)-1]} {
		name, born, err := ReadTenantKeyNames(bad)
		if err == nil || name != (KEKName{}) || born != [checkSize]byte{} {
			t.Errorf("names of %x: %v, %x, %v", bad, name, born, err)
		}
	}
}

// TestWipe: a tenant key that was wiped is gone from memory, and seals nothing.
func TestWipe(t *testing.T) {
	keks := mustKEKs(t, 1)
	key := testKEK(3)
	tk := makeTenantKey("0123456789abcdef", keks.Primary(), keks.Primary().Check, key)
	tk.Wipe()
	tk.Wipe()
	if !bytes.Equal(key, make([]byte, len(key))) {
		t.Error("the key is still in memory")
	}
	m := mustMaterial(t, keystore.HS256)
	if blob, err := SealRecord(tk, testRecord("acme", 1, m), m); err == nil || blob != nil {
		t.Error("it seals")
	}
	if blob, err := tk.wrap(keks.list[0], "acme"); err == nil || blob != nil {
		t.Error("it is wrapped")
	}
}

// TestClears: the decrypted bytes of a private key do not stay in memory once it is parsed. A
// secret of HS* is what the record returns, so it stays.
func TestClears(t *testing.T) {
	for _, alg := range []keystore.Algorithm{keystore.ES256, keystore.HS256} {
		m := mustMaterial(t, alg)
		h := header{Record: testRecord("acme", 1, m), public: m.public}
		secret := bytes.Clone(m.secret())
		r, err := openSecret(h, secret)
		if err != nil {
			t.Fatal(err)
		}
		if cleared := bytes.Equal(secret, make([]byte, len(secret))); cleared == alg.Symmetric() {
			t.Errorf("%s: cleared is %v", alg, cleared)
		}
		if sig, err := signWith(&r, []byte("x")); err != nil || !r.Key.Verify([]byte("x"), sig) {
			t.Errorf("%s: it does not verify what it signs: %v", alg, err)
		}
		h.KID, h.Origin = "another", ring.Generated
		if _, err := openSecret(h, secret); err == nil || !bytes.Equal(secret, make([]byte, len(secret))) {
			t.Errorf("%s: a refused key stays in memory: %v", alg, err)
		}
	}
}

// sealed is [box.seal], which fails only after a tenant key was wiped.
func sealed(t *testing.T, b *box, header, place, plaintext []byte) []byte {
	t.Helper()
	all, err := b.seal(header, place, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return all
}
