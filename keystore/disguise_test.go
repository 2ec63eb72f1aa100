package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/keyturn/keyturn/keystore"
)

// A key of another kind is no secret, in whatever encoding it comes: everyone who has a public key
// could sign with it (RFC 8725, section 2.1). The error says which form it was, and quotes nothing.
func TestKeyInDisguise(t *testing.T) {
	forms := slices.Concat(derForms(t), textForms(t))
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			for name, secret := range disguises(f) {
				if len(secret) < 32 {
					t.Fatalf("%s: only %d bytes", name, len(secret))
				}
				given := bytes.Clone(secret)
				k, err := keystore.NewSecret(acme1, keystore.HS256, given)
				if !bytes.Equal(given, secret) {
					t.Errorf("%s: NewSecret wrote to the caller's slice", name)
				}
				if err == nil || k != nil {
					t.Errorf("%s: taken as a secret", name)
					continue
				}
				if !strings.Contains(err.Error(), "RFC 8725") || !strings.Contains(err.Error(), "use NewPublic") {
					t.Errorf("%s: the error does not say what to do: %v", name, err)
				}
				for at := 0; at+8 <= len(secret); at++ {
					if part := string(secret[at : at+8]); strings.Contains(err.Error(), part) {
						t.Errorf("%s: the error quotes %q", name, part)
					}
				}
			}
		})
	}
}

// A form is one key, written in one way.
type form struct {
	name string
	data []byte
	der  bool // data is DER, not text
}

// disguises returns the encodings that tools and people give to a form.
func disguises(f form) map[string][]byte {
	all := make(map[string][]byte)
	text := f.data
	if f.der {
		all["DER"] = f.data
		all["DER and a line end"] = append(bytes.Clone(f.data), '\n')
		all["base64url"] = []byte(base64.RawURLEncoding.EncodeToString(f.data))
		all["hex"] = []byte(hex.EncodeToString(f.data))
		all["base64 in an indented block"] = wrap([]byte(base64.StdEncoding.EncodeToString(f.data)), 60, "\n\t  ")
		all["HEX with colons"] = bytes.ToUpper(wrap(colons(f.data), 45, "\n"))
		text = []byte(base64.StdEncoding.EncodeToString(f.data))
	}
	all["text"] = text
	all["CRLF"] = bytes.ReplaceAll(wrap(text, 64, "\n"), []byte("\n"), []byte("\r\n"))
	if !f.der {
		all["CRLF"] = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	}
	all["white space"] = slices.Concat([]byte(" \r\n\t"), text, []byte("\n \n"))
	all["byte order mark"] = append([]byte("\ufeff"), text...)
	all["byte order mark and white space"] = append([]byte("\n\ufeff\n "), text...)
	all["quotes"] = slices.Concat([]byte(`"`), text, []byte("\"\n"))
	all["base64 of the text"] = []byte(base64.StdEncoding.EncodeToString(text))
	all["base64 of the text, with lines"] = wrap(all["base64 of the text"], 76, "\r\n")
	all["UTF-16LE"] = inUTF16(binary.LittleEndian, string(text))
	all["UTF-16BE"] = inUTF16(binary.BigEndian, string(text))
	all["UTF-16LE after a byte order mark"] = inUTF16(binary.LittleEndian, "\ufeff"+string(text))
	all["UTF-16BE after a byte order mark"] = inUTF16(binary.BigEndian, "\ufeff"+string(text))
	return all
}

func wrap(text []byte, width int, end string) []byte {
	var b bytes.Buffer
	for line := range slices.Chunk(text, width) {
		b.Write(line)
		b.WriteString(end)
	}
	return b.Bytes()
}

func colons(data []byte) []byte {
	var parts []string
	for _, c := range data {
		parts = append(parts, fmt.Sprintf("%02x", c))
	}
	return []byte(strings.Join(parts, ":"))
}

func inUTF16(order binary.AppendByteOrder, text string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return b
}

// derForms returns keys and certificates in DER, among them some that package x509 cannot read.
func derForms(t *testing.T) []form {
	t.Helper()
	var all []form
	add := func(name string, der []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(name, err)
		}
		all = append(all, form{name, der, true})
	}
	for name, key := range map[string]crypto.Signer{
		"RSA": rsaKey(), "P-256": p256Key(), "P-384": p384Key(), "P-521": p521Key(), "Ed25519": ed25519Key(),
	} {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		add("SubjectPublicKeyInfo of "+name, der, err)
		der, err = x509.MarshalPKCS8PrivateKey(key)
		add("PKCS 8 of "+name, der, err)
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: noon.Add(time.Hour)}
		der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		add("certificate of "+name, der, err)
		der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		add("certificate request of "+name, der, err)
		if ec, ok := key.(*ecdsa.PrivateKey); ok {
			der, err = x509.MarshalECPrivateKey(ec)
			add("SEC 1 of "+name, der, err)
			point, err := ec.PublicKey.Bytes()
			add("point of "+name, point, err)
		}
	}
	add("PKCS 1 public", x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey), nil)
	add("PKCS 1 private", x509.MarshalPKCS1PrivateKey(rsaKey()), nil)

	type algorithm struct {
		ID     asn1.ObjectIdentifier
		Params asn1.RawValue `asn1:"optional"`
	}
	bits := asn1.BitString{Bytes: bytes.Repeat([]byte{7}, 57), BitLength: 57 * 8}
	der, err := asn1.Marshal(struct {
		A algorithm
		K asn1.BitString
	}{algorithm{ID: asn1.ObjectIdentifier{1, 3, 101, 113}}, bits})
	add("SubjectPublicKeyInfo of Ed448", der, err)
	der, err = asn1.Marshal(struct {
		A algorithm
		K []byte
	}{algorithm{ID: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}}, bits.Bytes})
	add("encrypted PKCS 8", der, err)
	type content struct {
		Type asn1.ObjectIdentifier
		Data []byte `asn1:"explicit,tag:0"`
	}
	data := content{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}, bits.Bytes}
	der, err = asn1.Marshal(data)
	add("PKCS 7", der, err)
	der, err = asn1.Marshal(struct {
		Version int
		Content content
	}{3, data})
	add("PKCS 12", der, err)
	return all
}

// textForms returns keys and certificates as text.
func textForms(t *testing.T) []form {
	t.Helper()
	var all []form
	add := func(name, text string) { all = append(all, form{name, []byte(text), false}) }
	for _, f := range derForms(t) {
		block := string(pem.EncodeToMemory(&pem.Block{Type: "SOME KEY", Bytes: f.data}))
		add("PEM of "+f.name, block)
	}
	block := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: derForms(t)[0].data}))
	add("PEM after text", "Issuer: CN = ann\n        Version: 3\n"+block)
	add("PEM after text in Latin-1", "f\xfcr ann\n"+block)
	add("PEM on one line", strings.ReplaceAll(block, "\n", `\n`))
	quoted, err := json.Marshal(map[string]string{"a": block})
	if err != nil {
		t.Fatal(err)
	}
	add("PEM in JSON", string(quoted))

	wire := func(fields ...string) string {
		var b []byte
		for _, f := range fields {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	raw := string(ed25519Key().Public().(ed25519.PublicKey))
	for _, name := range []string{
		"ssh-ed25519", "ssh-rsa", "ssh-dss", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com",
		"sk-ecdsa-sha2-nistp256@openssh.com", "ssh-ed25519-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com",
	} {
		add(name, name+" "+wire(name, raw)+" ann@example.com")
		add(name+" without its name", wire(name, raw))
	}
	add("authorized_keys", `command="true",no-pty ssh-ed25519 `+wire("ssh-ed25519", raw)+" ann")
	add("known_hosts", "git.example.com ssh-ed25519 "+wire("ssh-ed25519", raw))
	add("SSH2", "---- BEGIN SSH2 PUBLIC KEY ----\nComment: \"ann\"\n"+wire("ssh-rsa", raw)+"\n---- END SSH2 PUBLIC KEY ----")
	add("SSH2 private", "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: \"ann\"\nP2/56wAAAgI=\n---- END SSH2 ENCRYPTED PRIVATE KEY ----")
	add("PuTTY", "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: ann\nPublic-Lines: 2\n")
	add("OpenSSH without its frame", base64.StdEncoding.EncodeToString([]byte("openssh-key-v1\x00\x00\x00\x00\x04none\x00\x00\x00\x04none")))
	add("PGP", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZ\n-----END PGP PUBLIC KEY BLOCK-----")
	add("XML", "<RSAKeyValue><Modulus>sfFa4iDePjMJz48puTQnq</Modulus><Exponent>AQAB</Exponent></RSAKeyValue>")
	jwk := `{"kty":"RSA","n":"sfFa4iDePjMJz48puTQnq","e":"AQAB"}`
	add("JWK", jwk)
	add("JWK with white space", "{\n  \"kty\" : \"RSA\",\n  \"n\" : \"sfFa4iDePjMJz48puTQnq\"\n}\n")
	add("JWK of a secret", `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}`)
	add("JWK Set", `{"keys":[`+jwk+`]}`)
	add("JWKs in an array", `[`+jwk+`]`)
	add("JWK in a JSON string", `"{\"kty\":\"RSA\",\"n\":\"sfFa4iDePjMJz48puTQnq\",\"e\":\"AQAB\"}"`)
	return all
}

// Random secrets are never taken for a key, as they are and in the encodings that people keep them
// in. One of 20 begins as DER of its whole length does, which happens to one of 2^16 by accident.
// None of those is taken either, so the accident is rarer than one of 2^31 secrets. (The word Million
// in its name has it run without the race detector too: see the Makefile.)
func TestMillionSecretsAreNoKeys(t *testing.T) {
	n := 1_000_000
	if raceEnabled {
		n = 20_000
	}
	random := mathrand.NewChaCha8([32]byte{1})
	buf, text := make([]byte, 64), make([]byte, 128)
	for i := range n {
		secret := buf[:32+i%33]
		random.Read(secret)
		switch i % 20 {
		case 0:
			secret[0], secret[1] = 0x30, byte(len(secret)-2)
		case 1:
			base64.StdEncoding.Encode(text, secret)
			secret = text[:base64.StdEncoding.EncodedLen(len(secret))]
		case 2:
			base64.RawURLEncoding.Encode(text, secret)
			secret = text[:base64.RawURLEncoding.EncodedLen(len(secret))]
		case 3:
			secret = text[:hex.Encode(text, secret)]
		}
		if _, err := keystore.NewSecret(acme1, keystore.HS256, secret); err != nil {
			t.Fatalf("round %d: %x: %v", i, secret, err)
		}
	}
}

// These look a little like a key, but are none that has a public half.
func TestSecretThatIsNoKey(t *testing.T) {
	der := derForms(t)[0].data
	point, err := p256Key().PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{
		"AAAAB3NzaC1ra" + strings.Repeat("A", 40),
		base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00\x08password of an application")),
		strings.Repeat("AAAA", 16),
		strings.Repeat("3031", 16),
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		"c9a5c1f0-6a3e-4b0e-9a53-2f2f5f0a7d11",
		"ssh-keys-are-not-secrets-but-this-passphrase-is",
		"ecdsa-sha2-in-a-passphrase of several words",
		"correct horse battery staple, BEGIN with a passphrase",
		`{"secret":"of a kind of its own, long enough"}`,
		`["an array", "of texts that are long enough"]`,
		`say "kty" to a friend, and enter the hall`,
		strings.Repeat("-", 40),
		strings.Repeat("\x30\x00", 20),
		"\x30\x1e" + strings.Repeat("\x02\x01\x01", 10),
		"\x04" + strings.Repeat("\x11", 64),
		strings.Repeat("\x00", 31) + "\x01",
		"\xff\xfe\x01" + strings.Repeat("\x00", 40),
		string(der) + "and a tail", string(der[1:]), string(der[:len(der)-1]),
		string(point) + "and a tail", string(point[1:]), string(point[:len(point)-1]),
	} {
		if _, err := keystore.NewSecret(acme1, keystore.HS256, []byte(secret)); err != nil {
			t.Errorf("%q: %v", secret, err)
		}
	}
}

// NewSecret reads any bytes without a panic, and does not write to them. A line end makes no secret
// of a key.
func FuzzNewSecret(f *testing.F) {
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="))
	f.Add([]byte("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="))
	f.Add([]byte("\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00" + strings.Repeat("\x19", 32)))
	f.Add([]byte("AAAAC3NzaC1lZDI1NTE5AAAAIGpdGAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	f.Add([]byte(`{"kty":"RSA","n":"sfFa4iDePjMJz48puTQnq","e":"AQAB"}`))
	f.Add([]byte("\x04" + strings.Repeat("\x11", 64)))
	f.Fuzz(func(t *testing.T, secret []byte) {
		given := bytes.Clone(secret)
		_, err := keystore.NewSecret(acme1, keystore.HS256, given)
		if !bytes.Equal(given, secret) {
			t.Error("NewSecret wrote to the caller's slice")
		}
		if err == nil || !strings.Contains(err.Error(), "RFC 8725") {
			return
		}
		if _, err := keystore.NewSecret(acme1, keystore.HS256, append(given, '\n')); err == nil {
			t.Error("a secret after a line end")
		}
	})
}
