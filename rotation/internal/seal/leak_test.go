package seal

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

// TestNothingLeaks prints every type and error of the package with every verb and as JSON, and
// looks for the secrets in it.
func TestNothingLeaks(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	hs, es := mustMaterial(t, keystore.HS256), mustMaterial(t, keystore.ES256)
	for i, m := range []*Material{hs, es} {
		s.add(t, testRecord("acme", i+3, m), m)
	}
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	blob := s.fields[PrefixKey+s.key.ID]
	sealed, n, err := readSealedKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	sealed.tenant, sealed.id = "acme", s.key.ID
	box, err := newBox(keks.list[0].derive(useWrap))
	if err != nil {
		t.Fatal(err)
	}
	tenantKey, err := box.open(blob[:n], sealed.place(), blob[n:])
	if err != nil {
		t.Fatal(err)
	}

	garbled := maps.Clone(s.fields)
	for field, value := range garbled {
		garbled[field] = append(bytes.Clone(value[:len(value)-1]), value[len(value)-1]^1)
	}
	_, errGarbled := OpenRing(keks, "acme", garbled)
	_, errOther := OpenRing(mustKEKs(t, 2), "acme", s.fields)
	_, errMaterial := newMaterialOf(keystore.ES256, hs.secret())
	errs := []error{errGarbled, errOther, errMaterial}

	private, err := x509.ParsePKCS8PrivateKey(es.secret())
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := private.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{"KEK": testKEK(1), "tenant key": tenantKey, "secret": hs.secret(), "private key": scalar}
	var out strings.Builder
	for _, v := range []any{keks, *keks, keks.list[0], *keks.list[0], s.key, *s.key, opened, *opened, opened.Records, opened.Records[0], hs, *es, errs,
		errGarbled, errOther, errMaterial, opened.Records[0].Private} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if doc, err := json.Marshal(v); err == nil {
			out.Write(doc)
		}
	}
	printed := strings.ToLower(out.String())
	for name, b := range secrets {
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
