package jwks

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadMetadata(t *testing.T) {
	const good = `"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"`
	for doc, want := range map[string]string{
		`{` + good + `}`:                            "",
		"\ufeff{" + good + "}":                      "",
		" \n{" + good + "}\n":                       "",
		`{"scopes":[],"scopes":[],` + good + `}`:    "",
		`{` + good + `,"a":{"b":1,"b":2},"a":null}`: "",
		"{" + good + ",\"op_policy\":\"\xff\"}":     "",
		`{` + good + `,"note":"\ud800"}`:            "",
		`{"Issuer":"x","ISSUER":7,` + good + `}`:    "",
		`{"\u0069ssuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"}`: "",

		`{` + good + `,"issuer":"https://issuer.example"}`:   `"issuer" twice`,
		`{"issuer":null,` + good + `}`:                       `"issuer" twice`,
		`{` + good + `,"jwks\u005furi":"https://x.example"}`: `"jwks_uri" twice`,
		`{"issuer":7,"jwks_uri":"https://x.example"}`:        `"issuer" that is not a string`,
		`{"issuer":["https://issuer.example"]}`:              `"issuer" that is not a string`,
		`{"jwks_uri":{}}`:                                    `"jwks_uri" that is not a string`,
		"{\"issuer\":\"https://issuer.example\xff\"}":        `"issuer" that is not a string`,
		`{"issuer":"https://issuer.example\ud800"}`:          `"issuer" that is not a string`,
		`{` + good + `,}`:                                    "not a JSON object",
		`{` + good + `}x`:                                    "not a JSON object",
		`{` + good + `} {}`:                                  "not a JSON object",
		`{` + good:                                           "not a JSON object",
		`[{` + good + `}]`:                                   "not a JSON object",
		`null`:                                               "not a JSON object",
		``:                                                   "it is empty",
		`<html>`:                                             "HTML",
		"\ufeff\ufeff{" + good + "}":                         "not a JSON object",
		`{"x":` + strings.Repeat("[", 100_000) + `}`:         "not a JSON object",
	} {
		m, failed := readMetadata([]byte(doc))
		if want == "" && (failed != nil || m != metadata{"https://issuer.example", "https://issuer.example/keys"}) {
			t.Errorf("%.200q: %v, %v", doc, m, failed)
		}
		if want != "" && (failed == nil || failed.Step != StepDiscovery || !strings.Contains(failed.Error(), want)) {
			t.Errorf("%.200q: %v, %v, want an error with %q", doc, m, failed, want)
		}
	}
	// What is missing is empty, and then the issuer or the URL is refused.
	if m, failed := readMetadata([]byte(`{"issuer":null}`)); failed != nil || m != (metadata{}) {
		t.Errorf("null: %v, %v", m, failed)
	}
}

// Real metadata is read as a decoder reads it that compares names byte for byte.
func TestRealMetadata(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "real", "oidc", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("no documents in ../shared/real/oidc")
		}
		t.Skip("no documents in ../shared/real/oidc")
	}
	read := 0
	for _, path := range paths {
		doc, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]any
		err = json.Unmarshal(bytes.TrimPrefix(doc, []byte("\ufeff")), &all)
		issuer, isText1 := all["issuer"].(string)
		uri, isText2 := all["jwks_uri"].(string)
		wantOK := err == nil && (isText1 || all["issuer"] == nil) && (isText2 || all["jwks_uri"] == nil)
		m, failed := readMetadata(doc)
		if wantOK != (failed == nil) || failed == nil && (m != metadata{issuer, uri}) {
			t.Errorf("%s: %v, %v, want %q, %q: %v", path, m, failed, issuer, uri, wantOK)
		}
		if failed != nil {
			continue
		}
		read++
		// The issuer that the metadata names is the only one that it is taken for.
		g := guard{}
		_, asItself := g.jwksURI(doc, issuer)
		if want := (asItself == nil || asItself.Step == StepDiscovery && strings.HasPrefix(asItself.Detail, "jwks_uri: ")); issuer != "" && !want {
			t.Errorf("%s as itself: %v", path, asItself)
		}
		if _, asOther := g.jwksURI(doc, issuer+"/"); asOther == nil || !errors.As(error(asOther), new(*Error)) || !strings.Contains(asOther.Detail, "another issuer") && !(strings.Contains(issuer, "{") && strings.Contains(asOther.Detail, "a template")) {
			t.Errorf("%s as another: %v", path, asOther)
		}
	}
	if read < 40 {
		t.Errorf("%d documents were read", read)
	}
}
