package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

func TestNewPublicRSA(t *testing.T) {
	even := new(big.Int).Add(modulus(2048), big.NewInt(1))
	tests := []struct {
		name string
		pub  crypto.PublicKey
		want string
	}{
		{name: "2048 bits", pub: &rsa.PublicKey{N: modulus(2048), E: 65537}},
		{name: "2047 bits", pub: &rsa.PublicKey{N: modulus(2047), E: 65537}, want: "2047 bits: want at least 2048 (RFC 7518, section 3.3)"},
		{name: "512 bits", pub: &rsa.PublicKey{N: modulus(512), E: 65537}, want: "512 bits"},
		{name: "8192 bits", pub: &rsa.PublicKey{N: modulus(8192), E: 65537}},
		{name: "8193 bits", pub: &rsa.PublicKey{N: modulus(8193), E: 65537}, want: "at most 8192"},
		{name: "16384 bits", pub: &rsa.PublicKey{N: modulus(16384), E: 65537}, want: "at most 8192"},
		{name: "exponent 3", pub: &rsa.PublicKey{N: modulus(2048), E: 3}, want: "exponent 3: want 65537"},
		{name: "exponent 1", pub: &rsa.PublicKey{N: modulus(2048), E: 1}, want: "exponent 1"},
		{name: "exponent 0", pub: &rsa.PublicKey{N: modulus(2048)}, want: "exponent 0"},
		{name: "exponent 65535", pub: &rsa.PublicKey{N: modulus(2048), E: 65535}, want: "exponent 65535"},
		{name: "exponent 65539", pub: &rsa.PublicKey{N: modulus(2048), E: 65539}, want: "exponent 65539"},
		{name: "exponent -65537", pub: &rsa.PublicKey{N: modulus(2048), E: -65537}, want: "exponent -65537"},
		{name: "even modulus", pub: &rsa.PublicKey{N: even, E: 65537}, want: "even"},
		{name: "negative modulus", pub: &rsa.PublicKey{N: new(big.Int).Neg(modulus(2048)), E: 65537}, want: "want at least 2048"},
		{name: "zero modulus", pub: &rsa.PublicKey{N: new(big.Int), E: 65537}, want: "0 bits"},
		{name: "no modulus", pub: &rsa.PublicKey{E: 65537}, want: "without modulus"},
		{name: "nil pointer", pub: (*rsa.PublicKey)(nil), want: "cannot verify"},
		{name: "by value", pub: rsaKey().PublicKey, want: "want *rsa.PublicKey"},
	}
	for _, alg := range []keystore.Algorithm{keystore.RS256, keystore.RS384, keystore.RS512, keystore.PS256, keystore.PS384, keystore.PS512} {
		for _, tt := range tests {
			t.Run(string(alg)+" "+tt.name, func(t *testing.T) {
				k, err := keystore.NewPublic(acme1, alg, tt.pub)
				checkError(t, k, err, tt.want)
				if k != nil && k.Verify([]byte("m"), make([]byte, 256)) {
					t.Error("a signature of zero verifies")
				}
			})
		}
	}
}

func TestNewPublicECDSA(t *testing.T) {
	p256, p384, p521 := &p256Key().PublicKey, &p384Key().PublicKey, &p521Key().PublicKey
	// The coordinates are set one by one to make keys that the standard library
	// would not.
	at := func(c elliptic.Curve, x, y *big.Int) *ecdsa.PublicKey {
		//lint:ignore SA1019 NewPublic must refuse what the fields allow
		return &ecdsa.PublicKey{Curve: c, X: x, Y: y}
	}
	x, y := coordinates(p256)
	plusOne := new(big.Int).Add(y, big.NewInt(1))
	tests := []struct {
		name string
		alg  keystore.Algorithm
		pub  crypto.PublicKey
		want string
	}{
		{name: "ES256 on P-256", alg: keystore.ES256, pub: p256},
		{name: "ES384 on P-384", alg: keystore.ES384, pub: p384},
		{name: "ES512 on P-521", alg: keystore.ES512, pub: p521},
		{name: "ES256 on P-384", alg: keystore.ES256, pub: p384, want: "wants a key on P-256 (RFC 7518, section 3.4)"},
		{name: "ES256 on P-521", alg: keystore.ES256, pub: p521, want: "P-256"},
		{name: "ES256 on P-224", alg: keystore.ES256, pub: &onCurve(elliptic.P224())().PublicKey, want: "P-256"},
		{name: "ES384 on P-256", alg: keystore.ES384, pub: p256, want: "P-384"},
		{name: "ES512 on P-256", alg: keystore.ES512, pub: p256, want: "P-521"},
		{name: "ES512 on P-384", alg: keystore.ES512, pub: p384, want: "P-521"},
		{name: "a curve of its own making", alg: keystore.ES256, pub: at(elliptic.P256().Params(), x, y), want: "P-256"},
		{name: "the same point again", alg: keystore.ES256, pub: at(elliptic.P256(), x, y)},
		{name: "off the curve", alg: keystore.ES256, pub: at(elliptic.P256(), x, plusOne), want: "not a point"},
		{name: "the other curve's point", alg: keystore.ES384, pub: at(elliptic.P384(), x, y), want: "not a point"},
		{name: "infinity", alg: keystore.ES256, pub: at(elliptic.P256(), new(big.Int), new(big.Int)), want: "not a point"},
		{name: "a negative coordinate", alg: keystore.ES256, pub: at(elliptic.P256(), x, new(big.Int).Neg(y)), want: "not a point"},
		{name: "a coordinate above p", alg: keystore.ES256, pub: at(elliptic.P256(), new(big.Int).Add(x, elliptic.P256().Params().P), y), want: "not a point"},
		{name: "no coordinates", alg: keystore.ES256, pub: at(elliptic.P256(), nil, nil), want: "without coordinates"},
		{name: "no x", alg: keystore.ES256, pub: at(elliptic.P256(), nil, y), want: "without coordinates"},
		{name: "no curve", alg: keystore.ES256, pub: at(nil, x, y), want: "P-256"},
		{name: "nil pointer", alg: keystore.ES256, pub: (*ecdsa.PublicKey)(nil), want: "cannot verify"},
		{name: "by value", alg: keystore.ES256, pub: *p256, want: "want *ecdsa.PublicKey"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, err := keystore.NewPublic(acme1, tt.alg, tt.pub)
			checkError(t, k, err, tt.want)
		})
	}
}

func TestECDSASignatureForm(t *testing.T) {
	msg := []byte("m")
	for _, s := range signers() {
		if s.alg[:2] != "ES" {
			continue
		}
		t.Run(string(s.alg), func(t *testing.T) {
			k, sig := s.key(t, acme1), s.sign(msg)
			pub, _ := k.Public()
			size := len(sig) / 2
			n := pub.(*ecdsa.PublicKey).Curve.Params().N
			half := func(v *big.Int) []byte { return v.FillBytes(make([]byte, size)) }
			r, sv := sig[:size], sig[size:]
			der, err := signer509(s.alg).Sign(rand.Reader, sum(hashOf(s.alg), msg), hashOf(s.alg))
			if err != nil {
				t.Fatal(err)
			}
			deny := func(name string, bad []byte) {
				t.Helper()
				if k.Verify(msg, bad) {
					t.Errorf("Verify with %s = true", name)
				}
			}
			zero := make([]byte, size)
			deny("r = s = 0", slices.Concat(zero, zero)) // CVE-2022-21449
			deny("r = 0", slices.Concat(zero, sv))
			deny("s = 0", slices.Concat(r, zero))
			deny("r = n", slices.Concat(half(n), sv))
			deny("s = n", slices.Concat(r, half(n)))
			deny("r = s = n", slices.Concat(half(n), half(n)))
			if above := new(big.Int).Add(new(big.Int).SetBytes(sv), n); above.BitLen() <= 8*size {
				deny("s + n", slices.Concat(r, half(above)))
			}
			deny("a byte too few", sig[1:])
			deny("a zero byte before it", slices.Concat([]byte{0}, sig))
			deny("a zero byte before each half", slices.Concat([]byte{0}, r, []byte{0}, sv))
			deny("r alone", r)
			deny("its halves swapped", slices.Concat(sv, r))
			deny("its DER form", der)
			if !k.Verify(msg, sig) {
				t.Error("Verify of the signature itself = false")
			}
		})
	}
}

// RFC 7518, section 3.5: the salt is as long as the hash.
func TestPSSSaltLength(t *testing.T) {
	msg := []byte("m")
	for _, alg := range []keystore.Algorithm{keystore.PS256, keystore.PS384, keystore.PS512} {
		k, h := publicKey(alg, &rsaKey().PublicKey)(t, acme1), hashOf(alg)
		longest := rsaKey().Size() - h.Size() - 2
		for _, salt := range []int{h.Size() - 1, h.Size(), h.Size() + 1, longest, 20} {
			var sig []byte
			sign := func() error {
				sig = signWith(rsaKey(), h, msg, &rsa.PSSOptions{SaltLength: salt, Hash: h})
				return nil
			}
			if salt > h.Size() {
				outsideFIPS(t, sign)
			} else if err := sign(); err != nil {
				t.Fatal(err)
			}
			if got, want := k.Verify(msg, sig), salt == h.Size(); got != want {
				t.Errorf("%s with a salt of %d bytes: Verify = %v, want %v", alg, salt, got, want)
			}
		}
	}
}

func TestNewPublicEd25519(t *testing.T) {
	good := ed25519Key().Public().(ed25519.PublicKey)
	var x25519 *ecdh.PrivateKey
	outsideFIPS(t, func() (err error) {
		x25519, err = ecdh.X25519().GenerateKey(rand.Reader)
		return err
	})
	tests := []struct {
		name string
		pub  crypto.PublicKey
		want string
	}{
		{name: "32 bytes", pub: good},
		{name: "31 bytes", pub: good[:31], want: "31 bytes"},
		{name: "33 bytes", pub: append(slices.Clone(good), 0), want: "33 bytes"},
		{name: "57 bytes, as Ed448", pub: ed25519.PublicKey(make([]byte, 57)), want: "57 bytes"},
		{name: "empty", pub: ed25519.PublicKey{}, want: "0 bytes"},
		{name: "nil", pub: ed25519.PublicKey(nil), want: "0 bytes"},
		{name: "a slice of bytes", pub: []byte(good), want: "want ed25519.PublicKey"},
		{name: "a pointer", pub: &good, want: "want ed25519.PublicKey"},
		{name: "X25519", pub: x25519.PublicKey(), want: "want ed25519.PublicKey"},
	}
	for _, alg := range []keystore.Algorithm{keystore.EdDSA, keystore.Ed25519} {
		for _, tt := range tests {
			t.Run(string(alg)+" "+tt.name, func(t *testing.T) {
				k, err := keystore.NewPublic(acme1, alg, tt.pub)
				checkError(t, k, err, tt.want)
			})
		}
	}
}

// Every encoding of the eight points of small order is refused, including those that are
// not reduced and those with a meaningless sign. For each of them, this test makes a
// signature without any private key, and the standard library accepts it.
func TestEd25519SmallOrder(t *testing.T) {
	ys := []string{
		"0000000000000000000000000000000000000000000000000000000000000000", // 0
		"0100000000000000000000000000000000000000000000000000000000000000", // 1
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p - 1
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p + 1
	}
	forged := 0
	for _, y := range ys {
		for _, sign := range []byte{0, 0x80} {
			pub, err := hex.DecodeString(y)
			if err != nil {
				t.Fatal(err)
			}
			pub[31] |= sign
			for _, alg := range []keystore.Algorithm{keystore.EdDSA, keystore.Ed25519} {
				k, err := keystore.NewPublic(acme1, alg, ed25519.PublicKey(pub))
				checkError(t, k, err, "small order")
			}
			if forge(pub) {
				forged++
			} else {
				t.Logf("%x: the standard library does not take it for a point", pub)
			}
		}
	}
	if want := 2 * len(ys); forged != want {
		t.Errorf("forged signatures for %d of %d encodings: if the standard library refuses some by now, say so here", forged, want)
	}
	if forge(ed25519Key().Public().(ed25519.PublicKey)) {
		t.Error("forged a signature of a proper key")
	}
}

func TestEd25519SignatureForm(t *testing.T) {
	msg := []byte("m")
	k := publicKey(keystore.EdDSA, ed25519Key().Public())(t, acme1)
	sig := ed25519.Sign(ed25519Key(), msg)

	// s + L is the same scalar (RFC 8032, section 5.1.7, wants s < L).
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	le := bytes.Clone(sig[32:])
	slices.Reverse(le)
	s := new(big.Int).SetBytes(le)
	s.Add(s, order)
	s.FillBytes(le)
	slices.Reverse(le)
	if k.Verify(msg, slices.Concat(sig[:32], le)) {
		t.Error("Verify with s + L = true")
	}
	if !k.Verify(msg, sig) {
		t.Error("Verify with s = false")
	}
}

func TestNewPublicTakesOnlyPublicKeys(t *testing.T) {
	for _, alg := range append(keystore.Algorithms(), "none", "", "ES256K") {
		for _, key := range []any{
			nil, rsaKey(), p256Key(), p384Key(), p521Key(), ed25519Key(), (*rsa.PrivateKey)(nil),
			[]byte(secret64), string(secret64), 42, crypto.SHA256,
		} {
			if k, err := keystore.NewPublic(acme1, alg, key); err == nil || k != nil {
				t.Errorf("NewPublic(%q, %T) = %v, want an error", alg, key, k)
			}
		}
	}
	for _, tt := range []struct {
		alg  keystore.Algorithm
		pub  crypto.PublicKey
		want string
	}{
		{keystore.RS256, rsaKey(), "is a private key: pass its Public()"},
		{keystore.ES256, p256Key(), "is a private key: pass its Public()"},
		{keystore.EdDSA, ed25519Key(), "is a private key: pass its Public()"},
		{keystore.RS256, &p256Key().PublicKey, "cannot verify RS256"},
		{keystore.ES256, &rsaKey().PublicKey, "cannot verify ES256"},
		{keystore.EdDSA, &rsaKey().PublicKey, "cannot verify EdDSA"},
		{keystore.HS256, &rsaKey().PublicKey, "use NewSecret"},
		{keystore.HS256, ed25519Key().Public(), "use NewSecret"},
		{"none", &rsaKey().PublicKey, "never accepted"},
		{"", &rsaKey().PublicKey, "unknown algorithm"},
		{"RSA-OAEP", &rsaKey().PublicKey, `unknown algorithm "RSA-OAEP"`},
	} {
		k, err := keystore.NewPublic(acme1, tt.alg, tt.pub)
		checkError(t, k, err, tt.want)
	}
}

// A later change to the key that was passed in, or to the one that Public returns, has no
// effect.
func TestPublicKeysAreCopies(t *testing.T) {
	spoil := func(pub crypto.PublicKey) {
		switch pub := pub.(type) {
		case *rsa.PublicKey:
			pub.E = 3
			pub.N.SetInt64(15)
		case *ecdsa.PublicKey:
			//lint:ignore SA1019 a caller can do this
			pub.X.SetInt64(1)
			//lint:ignore SA1019 and this
			pub.Y = nil
			pub.Curve = nil
		case ed25519.PublicKey:
			clear(pub)
		}
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("m")
	r, s, err := ecdsa.Sign(rand.Reader, ec, sum(crypto.SHA256, msg))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		alg keystore.Algorithm
		pub crypto.PublicKey
		sig []byte
	}{
		{keystore.RS256, &rsa.PublicKey{N: new(big.Int).Set(rsaKey().N), E: rsaKey().E}, signWith(rsaKey(), crypto.SHA256, msg, crypto.SHA256)},
		{keystore.PS256, &rsa.PublicKey{N: new(big.Int).Set(rsaKey().N), E: rsaKey().E}, signWith(rsaKey(), crypto.SHA256, msg, &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256})},
		{keystore.ES256, &ec.PublicKey, slices.Concat(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32)))},
		{keystore.EdDSA, slices.Clone(ed25519Key().Public().(ed25519.PublicKey)), ed25519.Sign(ed25519Key(), msg)},
	}
	for _, tt := range tests {
		t.Run(string(tt.alg), func(t *testing.T) {
			k, before := publicKey(tt.alg, tt.pub)(t, acme1), publicKey(tt.alg, tt.pub)(t, acme1)
			spoil(tt.pub)
			handed, ok := k.Public()
			if !ok {
				t.Fatal("Public = false")
			}
			spoil(handed)
			if !k.Verify(msg, tt.sig) {
				t.Error("the key changed with a copy of it")
			}
			if !k.Equal(before) {
				t.Error("the key is not Equal to itself any more")
			}
			again, _ := k.Public()
			if same, ok := again.(interface{ Equal(crypto.PublicKey) bool }); !ok || same.Equal(handed) {
				t.Error("Public returns what the caller has spoilt")
			}
		})
	}
}

// A key whose primes come from a generator with the fault of ROCA (CVE-2017-15361) can be factored.
// The modulus is Project Wycheproof's. Its neighbours and random moduli are not of that kind.
func TestROCA(t *testing.T) {
	der, err := base64.RawURLEncoding.DecodeString("AanFpofbj7KjD4Lf-N2hVMKR7yewSyXhhbirIMTGpfYEhZ_lnt5UoK98DnKIgArX" +
		"GTu3MaW_HhFw16HGaTDUHqPrId7fe4r11CqRw09yBFuW79V8sYIwHdzCaWflUI6auImYbVfoN9_nD5n8N8SY9DwXw7mwZM9wREPX" +
		"oDPgOoIWl6q_MPsp7n0zs3Z5ZaiQWOOzl1S9OhwAfSiiOwz6efnXEaxuTEtPd7BjSx7NaFka8Dx9U7YqXy2RFj1O9PjyaDGuRh7Y" +
		"XsX3iMUSP_wSyHQg_c_qHRtKUsNSGCT7OZg0hzm2KphtjnayKJvC64vAbROBR4Ubg6Bxg9IQVZ-QYyE")
	if err != nil {
		t.Fatal(err)
	}
	weak := new(big.Int).SetBytes(der)
	check := func(n *big.Int, want string) {
		t.Helper()
		k, err := keystore.NewPublic(acme1, keystore.RS256, &rsa.PublicKey{N: n, E: 65537})
		checkError(t, k, err, want)
	}
	check(weak, "CVE-2017-15361")
	for i := int64(2); i < 200; i += 2 {
		check(new(big.Int).Add(weak, big.NewInt(i)), "")
		check(new(big.Int).Sub(weak, big.NewInt(i)), "")
	}
	random := mathrand.NewChaCha8([32]byte{})
	for range 1000 {
		n := make([]byte, 256)
		random.Read(n)
		n[0], n[255] = n[0]|0x80, n[255]|1
		check(new(big.Int).SetBytes(n), "")
	}
}
