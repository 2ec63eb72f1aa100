package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/proxytest"
)

const nginxFile = "../../docs/proxies/nginx.conf"

func TestNginx(t *testing.T) {
	t.Parallel()
	testGate(t, newGate(t, proxytest.Nginx, proxytest.Config{File: nginxFile}))
}

// nginx and its users may leave a line out, or change a default. What the service sees stays right.
func TestNginxWithoutALine(t *testing.T) {
	t.Parallel()
	t.Run("Content-Length", func(t *testing.T) {
		f := newGate(t, proxytest.Nginx, proxytest.Config{File: nginxFile, Edit: func(text string) string {
			return strings.Replace(text, "\t\tproxy_set_header Content-Length \"\";\n", "", 1)
		}})
		seen, _ := f.want(t, "POST /a", acmeToken(""), strings.Repeat("b", 300_000), 200)
		seen.wantIdentity(t, "")
	})
	t.Run("GHSA_vjrc_mh2v_45x6_underscores", func(t *testing.T) {
		f := newGate(t, proxytest.Nginx, proxytest.Config{File: nginxFile, Edit: func(text string) string {
			return strings.Replace(strings.Replace(text, "underscores_in_headers off", "underscores_in_headers on", 1), "ignore_invalid_headers on", "ignore_invalid_headers off", 1)
		}})
		f.want(t, "GET /a", "X_Auth_Subject: eve\r\n"+acmeToken(""), "", 401)
		f.want(t, "GET /a", "X.Auth.Subject: eve\r\n"+acmeToken(""), "", 401)
		seen, _ := f.want(t, "GET /a", "X-Auth-Subject: eve\r\n"+acmeToken(""), "", 200)
		seen.wantIdentity(t, "")
	})
}

// nginx caches by URL, and not by token: an answer for one client would be that of the next one (nginx/nginx#824,
// nginxinc/nginx-ldap-auth#103).
func TestNginx_nginx_824_ldap_auth_103_AnswersAreNotCached(t *testing.T) {
	t.Parallel()
	f := newGate(t, proxytest.Nginx, proxytest.Config{File: nginxFile, Edit: func(text string) string {
		return "proxy_cache_path cache keys_zone=authz:1m;\n" +
			strings.Replace(text, "\t\tproxy_pass_request_body off;\n", "\t\tproxy_pass_request_body off;\n\t\tproxy_cache authz;\n\t\tproxy_cache_valid 200 401 403 60s;\n", 1)
	}})
	for range 2 {
		f.want(t, "GET /a", "", "", 401)
		f.want(t, "GET /a", acmeToken(""), "", 200)
		f.want(t, "GET /orders/1", acmeToken(""), "", 403)
		f.want(t, "GET /orders/1", acmeToken(`,"scope":"orders:write"`), "", 200)
	}
}

// If keyturn is gone, no request gets through.
func TestNginxWithoutKeyturn(t *testing.T) {
	t.Parallel()
	service, seen := newService(t)
	p := proxytest.Nginx(t, proxytest.Config{File: nginxFile, Listen: "127.0.0.1:8080", Replace: map[string]string{"127.0.0.1:4111": "127.0.0.1:1", "127.0.0.1:3000": service}})
	f := &gate{addr: p.Addr, seen: seen}
	_, resp := f.want(t, "GET /a", acmeToken(""), "", http.StatusServiceUnavailable)
	if resp.Header.Get("Retry-After") != "1" {
		t.Errorf("got %v", resp.Header)
	}
}
