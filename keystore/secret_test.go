package keystore_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

func TestNewSecret(t *testing.T) {
	der, err := x509.MarshalPKIXPublicKey(ed25519Key().Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	bytesOf := func(n int) []byte { return bytes.Repeat([]byte{0xa5}, n) }
	oneBit := append(make([]byte, 31), 1)

	tests := []struct {
		name   string
		alg    keystore.Algorithm
		secret []byte
		want   string // a part of the error; "" for no error
	}{
		{name: "HS256 with 32 bytes", alg: keystore.HS256, secret: bytesOf(32)},
		{name: "HS256 with 31 bytes", alg: keystore.HS256, secret: bytesOf(31), want: "want at least 32 (RFC 7518, section 3.2)"},
		{name: "HS384 with 48 bytes", alg: keystore.HS384, secret: bytesOf(48)},
		{name: "HS384 with 47 bytes", alg: keystore.HS384, secret: bytesOf(47), want: "want at least 48"},
		{name: "HS512 with 64 bytes", alg: keystore.HS512, secret: bytesOf(64)},
		{name: "HS512 with 63 bytes", alg: keystore.HS512, secret: bytesOf(63), want: "want at least 64"},
		{name: "longer than the block of the hash", alg: keystore.HS256, secret: bytesOf(1000)},
		{name: "empty", alg: keystore.HS256, secret: []byte{}, want: "0 bytes"},
		{name: "nil", alg: keystore.HS512, secret: nil, want: "0 bytes"},
		{name: "all zero", alg: keystore.HS256, secret: make([]byte, 32), want: "all zero"},
		{name: "long and all zero", alg: keystore.HS256, secret: make([]byte, 4096), want: "all zero"},
		{name: "zero but for a bit", alg: keystore.HS256, secret: oneBit},
		{name: "a PEM block", alg: keystore.HS256, secret: public, want: "PEM"},
		{name: "a PEM block after a preamble", alg: keystore.HS256, secret: append([]byte("Certificate:\n    Data:\n"), public...), want: "PEM"},
		{name: "a PEM block after a byte order mark", alg: keystore.HS256, secret: append([]byte("\ufeff"), public...), want: "PEM"},
		{name: "an SSH2 public key", alg: keystore.HS256, secret: []byte("---- BEGIN SSH2 PUBLIC KEY ----\nAAAAB3NzaC1yc2EAAAADAQABAAABAQ"), want: "SSH"},
		{name: "an SSH public key", alg: keystore.HS256, secret: []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGpdG"), want: "SSH"},
		{name: "a JWK", alg: keystore.HS256, secret: []byte(` {"kty":"RSA","n":"sfFa4iDePjMJz48puTQnq","e":"AQAB"}`), want: "JWK"},
		{name: "JSON that is no JWK", alg: keystore.HS256, secret: []byte(`{"secret":"of a kind of its own, long enough"}`)},
		{name: "a PEM block after white space", alg: keystore.HS256, secret: append([]byte(" \r\n\t"), public...), want: "PEM"},
		{name: "dashes that are no PEM block", alg: keystore.HS256, secret: []byte(strings.Repeat("-", 32))},
		{name: "an algorithm with public keys", alg: keystore.ES256, secret: bytesOf(64), want: "use NewPublic"},
		{name: "EdDSA", alg: keystore.EdDSA, secret: bytesOf(32), want: "use NewPublic"},
		{name: "no algorithm", alg: "", secret: bytesOf(64), want: "unknown algorithm"},
		{name: "an unknown algorithm", alg: "HS257", secret: bytesOf(64), want: `unknown algorithm "HS257"`},
		{name: "another case", alg: "hs256", secret: bytesOf(64), want: "unknown algorithm"},
		{name: "none", alg: "none", secret: bytesOf(64), want: "never accepted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, err := keystore.NewSecret(acme1, tt.alg, tt.secret)
			checkError(t, k, err, tt.want)
			if err != nil && len(tt.secret) > 0 && strings.Contains(err.Error(), string(tt.secret)) {
				t.Error("the error quotes the secret")
			}
		})
	}
}

func TestSecretIsCopied(t *testing.T) {
	secret := bytes.Clone(secret64)
	k, err := keystore.NewSecret(acme1, keystore.HS256, secret)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(secret, secret64) {
		t.Error("NewSecret wrote to the caller's slice")
	}
	clear(secret)
	mac := hmac.New(sha256.New, secret64)
	mac.Write([]byte("m"))
	if !k.Verify([]byte("m"), mac.Sum(nil)) {
		t.Error("the key changed with the caller's slice")
	}
	if !k.Equal(secretKey(keystore.HS256, secret64)(t, acme1)) {
		t.Error("the key is not Equal any more")
	}
}

// A key does not keep the plain secret, nor the pads that HMAC makes of it: only what the hash makes
// of these. Its states, which the garbage collector may take at any time, are made of that again.
func TestKeyKeepsNoPlainSecret(t *testing.T) {
	secret := make([]byte, 32)
	rand.Read(secret)
	traces := tracesOf(secret)
	sig := func() []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte("m"))
		return mac.Sum(nil)
	}()
	k, err := keystore.NewSecret(acme1, keystore.HS256, secret)
	if err != nil {
		t.Fatal(err)
	}
	clear(secret)
	for range 3 { // two cycles empty a sync.Pool
		if !k.Verify([]byte("m"), sig) || k.Verify([]byte("n"), sig) {
			t.Error("the key does not verify")
		}
		runtime.GC()
		runtime.GC()
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "heap"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	debug.WriteHeapDump(f.Fd()) // of what is not garbage
	dump, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for name := range traces.in(dump) {
		t.Errorf("the key keeps %s", name)
	}
	runtime.KeepAlive(k)
}

// traces are what a secret leaves in memory, by name, with all bits inverted. So they do not find
// themselves.
type traces map[string][]byte

// tracesOf returns the secret and what the two pads of HMAC make of it (RFC 2104, section 2).
func tracesOf(secret []byte) traces {
	all := make(traces)
	for name, pad := range map[string]byte{"the secret": 0, "its inner pad": 0x36, "its outer pad": 0x5c} {
		for _, c := range secret {
			all[name] = append(all[name], ^(c ^ pad))
		}
	}
	return all
}

// in returns the names of the traces that memory has.
func (all traces) in(memory []byte) map[string]bool {
	found := make(map[string]bool)
	for name, inverted := range all {
		for at := 0; at+len(inverted) <= len(memory); at++ {
			next := bytes.IndexByte(memory[at:len(memory)-len(inverted)+1], ^inverted[0])
			if next < 0 {
				break
			}
			at += next
			same := 0
			for same < len(inverted) && memory[at+same] == ^inverted[same] {
				same++
			}
			if same == len(inverted) {
				found[name] = true
				break
			}
		}
	}
	return found
}

func TestSecretHasNoPublicForm(t *testing.T) {
	if pub, ok := hs256(t, "acme", "1", "a").Public(); ok || pub != nil {
		t.Errorf("Public of a secret = %T, %v", pub, ok)
	}
}

// A public key, in every form that an attacker can get it in, does not serve as an HS*
// secret.
func TestPublicKeyIsNoSecret(t *testing.T) {
	der, err := x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	k := publicKey(keystore.RS256, &rsaKey().PublicKey)(t, acme1)
	for _, secret := range [][]byte{
		der, x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey), rsaKey().N.Bytes(),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	} {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte("m"))
		if k.Verify([]byte("m"), mac.Sum(nil)) {
			t.Error("an RSA key verifies an HMAC")
		}
	}
	for _, alg := range []keystore.Algorithm{keystore.HS256, keystore.HS384, keystore.HS512} {
		for _, pub := range []any{&rsaKey().PublicKey, &p256Key().PublicKey, ed25519Key().Public(), []byte(ed25519Key().Public().(ed25519.PublicKey)), secret64} {
			if _, err := keystore.NewPublic(acme1, alg, pub); err == nil {
				t.Errorf("NewPublic(%s, %T) = nil error", alg, pub)
			}
		}
	}
}

func TestHMACAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties sync.Pools at random")
	}
	k := secretKey(keystore.HS256, secret64)(t, acme1)
	store, err := keystore.NewStatic(k)
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("header.payload")
	mac := hmac.New(sha256.New, secret64)
	mac.Write(msg)
	sig := mac.Sum(nil)
	ok := true
	if n := testing.AllocsPerRun(1000, func() { ok = ok && k.Verify(msg, sig) && !k.Verify(msg, sig[1:]) }); n != 0 || !ok {
		t.Errorf("Verify = %v with %v allocations, want none", ok, n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		keys, err := store.Lookup(acme1, keystore.HS256)
		ok = ok && err == nil && len(keys) == 1
		_, err = store.Lookup(keystore.ID{Tenant: "acme", KID: "no such"}, keystore.HS256)
		ok = ok && err == keystore.ErrNotFound
	}); n != 0 || !ok {
		t.Errorf("Lookup = %v with %v allocations, want none", ok, n)
	}
}
