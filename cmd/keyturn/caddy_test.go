package main

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/proxytest"
)

const caddyFile = "../../docs/proxies/Caddyfile"

func TestCaddy(t *testing.T) {
	t.Parallel()
	testGate(t, newGate(t, proxytest.Caddy, proxytest.Config{File: caddyFile}))
}

// Without the lines that remove aliases Caddy passes them on, also to keyturn, which refuses the
// request.
func TestCaddy_GHSA_f59h_q822_g45g_WithoutTheLines(t *testing.T) {
	t.Parallel()
	f := newGate(t, proxytest.Caddy, proxytest.Config{File: caddyFile, Edit: func(text string) string {
		return strings.NewReplacer("\trequest_header -*_*\n", "", "\trequest_header -*.*\n", "").Replace(text)
	}})
	for _, alias := range []string{"X_Auth_Subject", "X.Auth.Subject", "X-Auth_Subject", "x_auth_tenant", "X-Auth-Token_Id"} {
		f.want(t, "GET /a", alias+": eve\r\n"+acmeToken(""), "", 401)
	}
	seen, _ := f.want(t, "GET /a", "X-Auth-Subject: eve\r\nX-Auth-Token-Id: eve\r\n"+acmeToken(""), "", 200)
	seen.wantIdentity(t, "")
}

func TestCaddyWithoutKeyturn(t *testing.T) {
	t.Parallel()
	service, seen := newService(t)
	p := proxytest.Caddy(t, proxytest.Config{File: caddyFile, Listen: "127.0.0.1:8080", Replace: map[string]string{"127.0.0.1:4111": "127.0.0.1:1", "127.0.0.1:3000": service}})
	f := &gate{addr: p.Addr, seen: seen}
	f.want(t, "GET /a", acmeToken(""), "", 502)
}
