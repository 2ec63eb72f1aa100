package keystore

import (
	"bytes"
	"crypto/ecdh"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"
)

// keyForm returns which form of a key or certificate a secret is, such as "an SSH key", or
// "". A form is found again in base64 or hex, in UTF-16, in quotes, between white space and
// after a byte order mark. keyForm erases what it decodes.
//
// Each form is so particular that random bytes never have it: the likeliest needs a
// chance of 2^-40. So keyForm cannot find a key that looks like random bytes: an Ed25519
// key of 32 bytes, a compressed point of a curve, or the modulus of an RSA key.
func keyForm(secret []byte) string { return formOf(secret, maxLayers) }

// maxLayers is how many encodings keyForm removes: base64 of PEM is common, and the base64
// of DER may have been encoded again.
const maxLayers = 2

func formOf(b []byte, layers int) string {
	if form := binaryForm(b); form != "" {
		return form
	}
	buf := withoutUTF16(b)
	defer clear(buf)
	text := bytes.Trim(buf, "\ufeff \t\r\n\v\f\"'`")
	if form := textForm(text); form != "" || layers == 0 || !utf8.Valid(text) {
		return form
	}
	for _, e := range encodings {
		decoded := e.decode(text)
		form := formOf(decoded, layers-1)
		clear(decoded)
		if form != "" {
			return form + ", in " + e.name
		}
	}
	return ""
}

// withoutUTF16 returns a copy of b in which ASCII is ASCII again if it was UTF-16 or UTF-32.
func withoutUTF16(b []byte) []byte {
	for _, mark := range []string{"\xff\xfe", "\xfe\xff"} {
		b = bytes.TrimPrefix(b, []byte(mark))
	}
	buf := make([]byte, 0, len(b))
	for _, c := range b {
		if c != 0 {
			buf = append(buf, c)
		}
	}
	return buf
}

// textForm returns the form of a key that is text. Other text may stand before a PEM block, as in
// the output of openssl.
func textForm(text []byte) string {
	has := func(part string) bool { return bytes.Contains(text, []byte(part)) }
	begins := func(part string) bool { return bytes.HasPrefix(text, []byte(part)) }
	switch {
	case has("-----BEGIN "):
		return "a key or certificate (PEM)"
	case (begins("{") || begins("[")) && (has(`"kty"`) || has(`\"kty\"`)):
		return "a JWK (JSON)"
	case has("---- BEGIN SSH2 "), begins("PuTTY-User-Key-File-"):
		return "an SSH key"
	case has("<RSAKeyValue>"):
		return "an RSA key (XML)"
	case !has("AAAA"): // base64 of the length of a name, as sshKey wants it
		return ""
	}
	if holdsSSHKey(text) {
		return "an SSH key"
	}
	return ""
}

// holdsSSHKey reports whether a field of the text is an SSH key in base64. In a line of authorized_keys
// or known_hosts, other fields may stand before the key.
func holdsSSHKey(text []byte) bool {
	for field := range bytes.FieldsSeq(text) {
		head := field[:min(len(field), base64.StdEncoding.EncodedLen(maxSSHName))]
		wire, _ := base64.StdEncoding.AppendDecode(nil, head[:len(head)/4*4])
		if sshKey(wire) {
			return true
		}
	}
	return false
}

// maxSSHName is more than the beginning of an SSH key takes, up to the name of its algorithm.
const maxSSHName = 60

// sshKey reports whether b begins as an SSH key in binary form does: with the name of its
// algorithm, and the length of the name in four bytes before it (RFC 4253, section 6.6).
func sshKey(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	n, name := binary.BigEndian.Uint32(b), b[4:]
	if n < 7 || n > maxSSHName || int(n) > len(name) {
		return false
	}
	name = name[:n]
	if bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return false
	}
	return slices.ContainsFunc(sshFamilies, func(family string) bool { return bytes.HasPrefix(name, []byte(family)) })
}

// sshFamilies are how the names of SSH's algorithms begin.
var sshFamilies = []string{"ssh-", "ecdsa-sha2-", "rsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"}

// binaryForm returns the form of a key that is not text.
func binaryForm(b []byte) string {
	switch {
	case sshKey(b), bytes.HasPrefix(b, []byte("openssh-key-v1\x00")):
		return "an SSH key"
	case onCurve(b):
		return "a point of an elliptic curve"
	case len(b) == 0 || b[0] != 0x30: // each of derForms is a SEQUENCE
		return ""
	}
	for _, form := range derForms {
		if form.is(b) {
			return form.name
		}
	}
	return ""
}

// onCurve reports whether b is an uncompressed point (SEC 1, section 2.3.3) of a curve of ES*.
func onCurve(b []byte) bool {
	if len(b) == 0 || b[0] != 4 {
		return false
	}
	for size, curve := range map[int]ecdh.Curve{65: ecdh.P256(), 97: ecdh.P384(), 133: ecdh.P521()} {
		if len(b) < size || !blank(b[size:]) {
			continue
		}
		if _, err := curve.NewPublicKey(b[:size]); err == nil {
			return true
		}
	}
	return false
}

// blank reports whether b holds nothing that counts after a key in binary form.
func blank(b []byte) bool { return len(bytes.Trim(b, " \t\r\n\x00")) == 0 }

// derForms are the structures of keys and certificates in DER, whatever their algorithm.
var derForms = []struct {
	name string
	is   func([]byte) bool
}{
	{"a public key (DER)", der(func(*subjectPublicKeyInfo) bool { return true })},
	{"an RSA public key (DER)", der(func(k *pkcs1Public) bool { return k.N.BitLen() >= minDisguisedBits })},
	{"a certificate (DER)", der(func(s *signed) bool { return s.Content.Tag == asn1.TagSequence && s.Content.IsCompound })},
	{"a private key (DER)", der(func(k *pkcs8) bool { return k.Version == 0 || k.Version == 1 })},
	{"a private key (DER)", der(func(k *pkcs1Private) bool { return k.Version == 0 && k.N.BitLen() >= minDisguisedBits })},
	{"a private key (DER)", der(func(k *sec1) bool { return k.Version == 1 && len(k.Key) >= 20 })},
	{"an encrypted private key (DER)", der(func(*encryptedPKCS8) bool { return true })},
	{"a store of keys (DER)", der(func(s *pkcs7) bool { return s.Type[:len(s.Type)-1].Equal(pkcs7Types) })},
	{"a store of keys (DER)", der(func(s *pkcs12) bool {
		return s.Version == 3 && s.Content.Type[:len(s.Content.Type)-1].Equal(pkcs7Types)
	})},
}

// pkcs7Types is the arc of the content types of PKCS 7 (RFC 5652, section 14).
var pkcs7Types = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7}

// minDisguisedBits is less than any RSA or DSA key has, and more than a random secret of 64 bytes
// can hold.
const minDisguisedBits = 512

// These are the structures, up to the last member that tells one from another. asn1 accepts more
// members at the end.
type (
	subjectPublicKeyInfo struct { // RFC 5280, section 4.1
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	signed struct { // a certificate, a request for one, or a revocation list: RFC 5280, section 4.1
		Content   asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	pkcs1Public  struct{ N, E *big.Int } // RFC 8017, appendix A.1.1
	pkcs1Private struct {                // RFC 8017, appendix A.1.2; one of DSA begins alike
		Version int
		N, E    *big.Int
	}
	pkcs8 struct { // RFC 5958, section 2
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	encryptedPKCS8 struct { // RFC 5958, section 3
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	sec1 struct { // RFC 5915, section 3
		Version int
		Key     []byte
	}
	pkcs7 struct { // RFC 5652, section 3
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}
	pkcs12 struct { // RFC 7292, section 4
		Version int
		Content pkcs7
	}
)

// der returns a function that reports whether a text is a T in DER, which fits. A line end or zero
// bytes may follow it.
func der[T any](fits func(*T) bool) func([]byte) bool {
	return func(b []byte) bool {
		v := new(T)
		rest, err := asn1.Unmarshal(b, v)
		return err == nil && blank(rest) && fits(v)
	}
}

// encodings are the encodings that keyForm removes. Their decode returns a fresh slice, which is
// empty if the text is not of the encoding.
var encodings = []struct {
	name   string
	decode func(text []byte) []byte
}{
	{"hex", fromHex},
	{"base64", fromBase64},
}

func fromHex(text []byte) []byte {
	digits := without(text, ": \t\r\n")
	defer clear(digits)
	decoded, err := hex.AppendDecode(nil, digits)
	if err != nil {
		clear(decoded)
		return nil
	}
	return decoded
}

// fromBase64 decodes base64 of both alphabets, padded or not.
func fromBase64(text []byte) []byte {
	digits := without(text, " \t\r\n=")
	defer clear(digits)
	encoding := base64.RawStdEncoding
	if bytes.ContainsAny(digits, "-_") {
		encoding = base64.RawURLEncoding
	}
	decoded, err := encoding.AppendDecode(nil, digits)
	if err != nil {
		clear(decoded)
		return nil
	}
	return decoded
}

// without returns a copy of text without the characters of cut.
func without(text []byte, cut string) []byte {
	kept := make([]byte, 0, len(text))
	for _, c := range text {
		if strings.IndexByte(cut, c) < 0 {
			kept = append(kept, c)
		}
	}
	return kept
}
