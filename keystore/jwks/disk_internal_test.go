package jwks

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"testing"
)

// A Client that trusts others does not read what another Client saved.
func TestFileNameHasClientsTrust(t *testing.T) {
	nameOf := func(cfg Config) string {
		return newEndpoint(New(cfg), "key", "acme", new(url.URL), SourceConfig{}).fileName()
	}
	proxy := func(raw string) Config {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return Config{Proxy: u}
	}
	seen := map[string]string{}
	for name, cfg := range map[string]Config{
		"nothing": {}, "authorities": {TLS: &tls.Config{RootCAs: x509.NewCertPool()}},
		"proxy": proxy("http://proxy.example"), "another proxy": proxy("http://other.example"),
		"another port": proxy("http://proxy.example:3128"), "https": proxy("https://proxy.example:80"),
	} {
		if before, twice := seen[nameOf(cfg)]; twice {
			t.Errorf("%s and %s share a file", before, name)
		}
		seen[nameOf(cfg)] = name
	}
	if nameOf(proxy("http://proxy.example")) != nameOf(proxy("http://user:password@proxy.example:80/")) {
		t.Error("a proxy's password is in the name")
	}
}
