package seal

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestNothingLeaks prints every type and error of the package with every verb and as JSON, and
// looks for the secrets in it.
func TestNothingLeaks(t *testing.T) {
	keks := mustKEKs(t, 1)
	elsewhere := mustIn(t, keks, "staging")
	s := newSealedRing(t, keks, "acme")
	hs, es := mustMaterial(t, keystore.HS256), mustMaterial(t, keystore.ES256)
	for i, m := range []*Material{hs, es} {
		s.add(t, testRecord("acme", i+3, m), m)
	}
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	wiped, err := OpenTenantKey(keks, "acme", s.key.ID, s.fields[PrefixKey+s.key.ID])
	if err != nil {
		t.Fatal(err)
	}
	wiped.Wipe()
	foreign, err := NewForeignKey(ring.ForeignKey{KID: "theirs", Algorithm: keystore.HS256, Key: hs.secret()})
	if err != nil {
		t.Fatal(err)
	}
	s.addAccept(t, testAccept("acme", "theirs", keystore.HS256), hs.secret())
	ack, entry, bucketErrs := bucketValues(t, keks, elsewhere)
	errs := append(ringErrors(t, keks, s, hs), bucketErrs...)

	var out strings.Builder
	values := []any{keks, *keks, keks.list[0], *keks.list[0], elsewhere, *elsewhere.list[0], keks.Names(), s.key, *s.key, wiped, *wiped, opened, *opened,
		opened.Records, opened.Records[0], opened.Records[0].Private, hs, *es, ack, entry, opened.Accepts, foreign, *foreign, s.heldOf(keks, s.fields), errs}
	for _, err := range errs {
		values = append(values, err)
	}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if doc, err := json.Marshal(v); err == nil {
			out.Write(doc)
		}
	}
	printed := strings.ToLower(out.String())
	for name, b := range secretsOf(t, keks, elsewhere, s, hs, es) {
		for _, half := range [][]byte{b[len(b)-16:], b[len(b)-32 : len(b)-16]} {
			for _, text := range []string{string(half), hex.EncodeToString(half), strings.Trim(fmt.Sprint(half), "[]"),
				strings.Trim(fmt.Sprintf("%#v", half), "[]byte{}"), base64.StdEncoding.EncodeToString(half)[:20], base64.RawURLEncoding.EncodeToString(half)[:20]} {
				if strings.Contains(printed, strings.ToLower(text)) {
					t.Errorf("the %s is printed: %q", name, text)
				}
			}
		}
	}
}

// secretsOf returns the secrets of the ring by name, and those that are derived from them.
func secretsOf(t *testing.T, keks, elsewhere *KEKs, s *sealedRing, hs, es *Material) map[string][]byte {
	t.Helper()
	blob := s.fields[PrefixKey+s.key.ID]
	sealed, n, err := readSealedKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	sealed.tenant, sealed.id = "acme", s.key.ID
	box, err := keks.list[0].box()
	if err != nil {
		t.Fatal(err)
	}
	tenantKey, err := box.open(blob[:n], sealed.place(), blob[n:])
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.ParsePKCS8PrivateKey(es.secret())
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := private.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{"KEK": testKEK(1), "tenant key": tenantKey, "secret": hs.secret(), "private key": scalar,
		"commitment key of a tenant key": hkdf1(tenantKey, "keyturn/1/commit")}
	for _, use := range []string{useWrap, useFacts, useHead, useAcks, useLog, useSnapshot} {
		secrets[use], secrets[use+" in a realm"] = keks.list[0].derive(use), elsewhere.list[0].derive(use)
	}
	return secrets
}

// ringErrors returns errors about the fields of a ring, KEKs and material.
func ringErrors(t *testing.T, keks *KEKs, s *sealedRing, hs *Material) []error {
	t.Helper()
	garbled := maps.Clone(s.fields)
	for field, value := range garbled {
		garbled[field] = append(bytes.Clone(value[:len(value)-1]), value[len(value)-1]^1)
	}
	_, err1 := OpenRing(keks, "acme", garbled)
	_, err2 := OpenRing(mustKEKs(t, 2), "acme", s.fields)
	_, err3 := newMaterialOf(keystore.ES256, hs.secret())
	_, err4 := ParseKEKs([]byte(base64.StdEncoding.EncodeToString(testKEK(1)) + "x"))
	_, err5 := ParseKEKs([]byte(base64.StdEncoding.EncodeToString(testKEK(1)) + ":" + base64.StdEncoding.EncodeToString(testKEK(1))))
	_, err6 := NewForeignKey(ring.ForeignKey{KID: "theirs", Algorithm: keystore.HS512, Key: hs.secret()})
	_, err7 := NewForeignKey(ring.ForeignKey{KID: "theirs", Algorithm: keystore.ES256, Key: hs.secret()})
	_, err8 := SealAccept(s.key, testAccept("acme", "theirs", keystore.HS512), hs.secret())
	return []error{err1, err2, err3, err4, err5, err6, err7, err8}
}

// bucketValues returns an acknowledgement and an entry of the log, and errors about them and about
// a realm.
func bucketValues(t *testing.T, keks, elsewhere *KEKs) (Ack, Entry, []error) {
	t.Helper()
	sealed, err := SealAck(keks, testAck())
	if err != nil {
		t.Fatal(err)
	}
	mac := mustEntry(t, keks)
	ack, err1 := OpenAck(keks, "pod-1", 7, sealed)
	entry, err2 := OpenEntry(keks, testEntry(), mac)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	_, err1 = OpenAck(elsewhere, "pod-1", 7, sealed)
	_, err2 = OpenEntry(keks, testEntry(), flip(mac, len(mac)-1, 1))
	_, err3 := SealFact(keks, elsewhere.Primary(), "acme", ring.FactRevoked, "k", sealedAt)
	return ack, entry, []error{err1, err2, err3}
}
