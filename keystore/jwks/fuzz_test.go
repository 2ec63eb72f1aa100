package jwks_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

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
