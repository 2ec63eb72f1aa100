package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestConfigMetrics(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"admin: {addr: '127.0.0.1:0'}\nmetrics: {tenants: -1}\n", "metrics.tenants: want how many tenants /metrics names, from 0 to 1000"},
		{"admin: {addr: '127.0.0.1:0'}\nmetrics: {tenants: 1001}\n", "from 0 to 1000"},
		{"metrics: {tenant: 1}\n", `line 1: unknown field "tenant"`},
	} {
		path := configFolder(t, tt.file+"tenants:\n"+acmeTenant, map[string]string{"s": testSecret})
		keyturn(t, "serve", "--config", path).wantUsage(t, tt.want)
	}
}

// The page names the tenants that the file wants it to, and counts the requests of all.
func TestServeMetrics(t *testing.T) {
	path := configFolder(t, "admin: {addr: '127.0.0.1:0'}\nmetrics: {tenants: 1}\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret})
	s := startServe(t, nil, "--config", path)
	s.ask(t, "GET", "/api/", "").wantRefused(t)
	r, err := http.Get(s.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	page, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`keyturn_http_requests_total{code="401",face="api"} 1`, `tenant="acme"`, "keyturn_build_info{"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %s:\n%s", want, page)
		}
	}
}
