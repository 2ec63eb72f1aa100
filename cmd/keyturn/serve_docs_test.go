package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// keysOf returns the keys of a part of the file of --config, by their paths.
func keysOf(typ reflect.Type, prefix string) (keys []string) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	for f := range typ.Fields() {
		name := f.Tag.Get("yaml")
		if name == "" {
			continue
		}
		key := prefix + name
		keys = append(keys, key)
		of := f.Type
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct && strings.HasSuffix(of.PkgPath(), "keyturn") || of.Kind() == reflect.Struct && of.PkgPath() == "main" {
			keys = append(keys, keysOf(of, key+".")...)
		}
	}
	return keys
}

// docs/serve.md has a row for each key of the file.
func TestServeDocsHaveEveryKey(t *testing.T) {
	page, err := os.ReadFile("../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := keysOf(reflect.TypeFor[configFile](), "")
	for i, key := range keys {
		if i+1 < len(keys) && strings.HasPrefix(keys[i+1], key+".") && key != "tenants" {
			continue // it has keys of its own
		}
		if !strings.Contains(string(page), "\n| `"+key+"` |") {
			t.Errorf("docs/serve.md has no row for %s", key)
		}
	}
	if len(keys) < 70 {
		t.Errorf("only %d keys were found", len(keys))
	}
}

// The example of the page is a file that a server starts with, and the page shows it byte for byte.
func TestServeDocsExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../docs/serve")); err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join(dir, "keyturn.yaml"))
	if err != nil || !strings.Contains(string(page), "```yaml\n"+string(example)+"```\n") {
		t.Errorf("docs/serve.md does not show docs/serve/keyturn.yaml as it is, %v", err)
	}
	certificate(t, dir)
	for from, to := range map[string]string{"cert.pem": "tls.crt", "key.pem": "tls.key"} {
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "acme.secret"), []byte(testSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	keyturn(t, "serve", "--check", "--config", filepath.Join(dir, "keyturn.yaml")).want(t, exitYes, "the configuration is good: 2 tenants\n")
}
