package jwks_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/jwk"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
)

func FuzzParse(f *testing.F) {
	for _, doc := range vectorSets(f) {
		f.Add([]byte(doc))
	}
	for _, doc := range []string{
		`{"keys":[]}`, `{"keys":null}`, `{}`, `null`, `[`, `{"keys":[],"keys":[]}`, `{"keys":[1,null,"x",[],{}]}`,
		`{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0"}`,
		`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAAAAAAAQAB","d":"AQAB"}]}`,
		`{"keys":[{"KTY":"oct","K":"c2VjcmV0c2VjcmV0c2VjcmV0"}]}`,
		`{"keys":[{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0","kid":7}]}`,
	} {
		f.Add([]byte(doc))
	}
	f.Add(set(ecMembers(elliptic.P256()), edMembers(1), edMembers(2), edMembers(3), edMembers(4), edMembers(5)))
	f.Add(set(`"kid":"a",`+edMembers(1), `"kid":"a",`+edMembers(2), octMembers(64), rsaMembers(2048, 1)))

	n, x := base64.StdEncoding.EncodeToString(modulus.Bytes()), strings.TrimPrefix(ecMembers(elliptic.P256()), `"kty":"EC",`)
	for _, members := range []string{
		`"kty":"RSA","n":"` + n + `","e":"AAEAAQ=="`, `"kty":"RSA","n":"AA` + strings.TrimRight(n, "=") + `","e":"AQAB","d":null,"oth":[],"key_ops":[]`,
		`"kty":"RSA","n":"` + modulus.String() + `","e":"AQAB"`, `"kty":"RSA","n":"` + n + `","n":null,"e":"AQAB","d":""`,
		`"kty":"EC","kid":"","use":null,` + x, padded(`"kty":"EC","kid":null,` + x), `"kty":"EC","k":"","d":[],` + x, `"kty":"EC","k":"0",` + x,
	} {
		f.Add([]byte(`{"keys":[{` + members + `}]}`))
		f.Add([]byte("\ufeff{\"keys\":[{\"kid\":\"a\"," + members + "},{\"kid\":\"a\"," + members + "}]}"))
	}

	f.Fuzz(func(t *testing.T, doc []byte) {
		const tenant = "acme"
		public, skipped, err := jwks.Parse(tenant, doc)
		checkParsed(t, doc, public, skipped, err)
		for _, k := range public {
			if k.Algorithm().Symmetric() {
				t.Errorf("Parse returned a secret: %v", k)
			}
			if _, ok := k.Public(); !ok {
				t.Errorf("%v has no public key", k)
			}
		}
		again, skippedAgain, _ := jwks.Parse(tenant, doc)
		if names(again) != names(public) || !reflect.DeepEqual(skippedAgain, skipped) {
			t.Error("the same document gave another answer")
		}
		checkReport(t, doc, public, skipped, err)

		all, skipped, allErr := jwks.ParseWithSecrets(tenant, doc)
		checkParsed(t, doc, all, skipped, allErr)
		// Secrets may only add keys, or an error if they are too many.
		if err != nil && allErr == nil {
			t.Errorf("Parse error = %v, ParseWithSecrets none", err)
		}
		if err == nil && allErr == nil {
			var rest []*keystore.Key
			for _, k := range all {
				if !k.Algorithm().Symmetric() {
					rest = append(rest, k)
				}
			}
			if names(rest) != names(public) {
				t.Errorf("public keys: %s with secrets, %s without", names(rest), names(public))
			}
		}
	})
}

// checkReport checks that Inspect says what Parse does, and that a set whose keys are spelled as we
// write them gives the same keys.
func checkReport(t *testing.T, doc []byte, public []*keystore.Key, skipped []jwks.Skipped, err error) {
	t.Helper()
	r, inspected := jwks.Inspect("acme", doc)
	if !slices.EqualFunc(r.Keys, public, (*keystore.Key).Equal) || !reflect.DeepEqual(r.Skipped, skipped) || (inspected == nil) != (err == nil) {
		t.Errorf("Inspect = %s, %v, %v, and Parse = %s, %v, %v", names(r.Keys), r.Skipped, inspected, names(public), skipped, err)
	}
	for _, odd := range r.Irregular {
		if odd.What == "" {
			t.Errorf("%v is irregular for no reason", odd)
		}
		noSecrets(t, doc, odd.String())
	}
	var written []jwk.Public
	for _, k := range public {
		pub, _ := k.Public()
		written = append(written, jwk.Public{KID: k.ID().KID, Algorithm: string(k.Algorithm()), Key: pub})
	}
	plain, failed := jwk.MarshalSet(written...)
	if failed != nil {
		t.Fatal(failed)
	}
	again, failed := jwks.Inspect("acme", plain)
	if len(public) <= 512 && (failed != nil || !slices.EqualFunc(again.Keys, public, (*keystore.Key).Equal) || len(again.Skipped)+len(again.Irregular) > 0) {
		t.Errorf("written again: %s, %v, %v, %v, want %s", names(again.Keys), again.Skipped, again.Irregular, failed, names(public))
	}
}

// checkParsed checks the rules that hold for every answer.
func checkParsed(t *testing.T, doc []byte, keys []*keystore.Key, skipped []jwks.Skipped, err error) {
	t.Helper()
	if err != nil {
		if keys != nil || skipped != nil {
			t.Error("keys or skipped along with an error")
		}
		noSecrets(t, doc, err.Error())
		return
	}
	for _, k := range keys {
		switch {
		case k.ID().Tenant != "acme":
			t.Errorf("%v is not the tenant's", k)
		case len(k.ID().KID) > 256:
			t.Errorf("a kid of %d bytes", len(k.ID().KID))
		case k.Verify(doc, nil) || k.Verify(nil, make([]byte, 64)):
			t.Errorf("%v verifies nonsense", k)
		}
	}
	last := -1
	for _, s := range skipped {
		if s.Index <= last {
			t.Errorf("skipped is not in order, or has a key twice: %v", skipped)
		}
		last = s.Index
		if s.Reason == "" {
			t.Errorf("key %d was skipped for no reason", s.Index)
		}
		noSecrets(t, doc, s.Reason)
	}
	store, err := keystore.NewStatic(keys...)
	if err != nil {
		t.Fatalf("NewStatic does not take the keys: %v", err)
	}
	for _, k := range keys {
		if found, err := store.Lookup(k.ID(), k.Algorithm()); k.ID().KID != "" && (err != nil || !slices.Contains(found, k)) {
			t.Errorf("Lookup of %v = %v, %v", k, found, err)
		}
	}
}

// noSecrets checks that text quotes no "k" of doc, unless that text is elsewhere in doc too.
func noSecrets(t *testing.T, doc []byte, text string) {
	t.Helper()
	var set struct{ Keys []map[string]any }
	if json.Unmarshal(doc, &set) != nil {
		return
	}
	for _, key := range set.Keys {
		k, ok := key["k"].(string)
		if !ok || len(k) < 16 || strings.Count(string(doc), k) > 1 {
			continue
		}
		raw, _ := base64.RawURLEncoding.DecodeString(k)
		if strings.Contains(text, k) || len(raw) >= 16 && strings.Contains(text, string(raw)) {
			t.Errorf("%q holds a secret", text)
		}
	}
}
