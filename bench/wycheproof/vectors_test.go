package wycheproof

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
)

// A file is one file of vectors.
type file struct {
	name   string
	Groups []group `json:"testGroups"`
}

// A group has the members of the schemas that this package reads.
type group struct {
	SHA      string
	MGFSHA   string `json:"mgfSha"`
	SaltLen  int    `json:"sLen"`
	TagBits  int    `json:"tagSize"`
	DER      hexes  `json:"publicKeyDer"`
	PKCS1    hexes  `json:"publicKeyAsn"`
	KeyPKCS1 hexes  `json:"keyAsn"`

	PublicJWK json.RawMessage `json:"publicKeyJwk"`
	KeyJWK    json.RawMessage
	Public    json.RawMessage // of JWS: a JWK or a JWK Set
	Private   json.RawMessage

	Tests []vector
}

// A vector is one case.
type vector struct {
	ID            int `json:"tcId"`
	Comment       string
	Result        string
	Key, Msg, Tag hexes
	Sig           hexes
	JWS, JWE      json.RawMessage
}

// text returns the JWS or JWE as it would arrive: the compact form, or the text of an object.
func (v vector) text() string {
	doc := v.JWS
	if doc == nil {
		doc = v.JWE
	}
	var compact string
	if json.Unmarshal(doc, &compact) != nil {
		return string(doc)
	}
	return compact
}

type hexes []byte

func (h *hexes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// files returns the files of a schema whose names begin with prefix. To parse all of the module's
// JSON would take most of the time of the tests.
func files(t *testing.T, schema, prefix string) []file {
	t.Helper()
	names, err := fs.Glob(wycheproof.TestVectors, "*.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []file
	for _, name := range names {
		doc, err := fs.ReadFile(wycheproof.TestVectors, name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(name, prefix) || !bytes.Contains(doc, []byte(`"schema": "`+schema+`"`)) {
			continue
		}
		f := file{name: name}
		if err := json.Unmarshal(doc, &f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, f)
	}
	return all
}
