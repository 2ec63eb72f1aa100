package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/proxytest"
)

// startScript runs an upstream that prints its port.
func startScript(t *testing.T, program, script string) (url string) {
	t.Helper()
	proxytest.Need(t, program)
	cmd := exec.Command(program, script)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%s did not print its port: %v", script, err)
	}
	return "http://127.0.0.1:" + strings.TrimSpace(line)
}

// forgedNames are spellings of headers that some program takes for one of ours. The name is one that
// keyturn sets (Subject), one that it does not (Groups), or one of those in which proxies tell of clients.
func forgedNames() (names []string) {
	for _, words := range [][]string{{"X", "Auth", "Subject"}, {"X", "Auth", "Tenant"}, {"X", "Auth", "Groups"}, {"X", "Auth", "Token", "Id"}, {"X", "Forwarded", "User"}, {"X", "Original", "URL"}, {"X", "Real", "IP"}, {"X", "Rewrite", "URL"}, {"X", "Envoy", "Original", "Path"}} {
		for _, join := range []string{"-", "_", ".", "~", "!", "#", "$", "%", "&", "'", "*", "+", "^", "`", "|"} {
			name := strings.Join(words, join)
			names = append(names, name, strings.ToLower(name), strings.ToUpper(name))
		}
		names = append(names, words[0]+"_"+strings.Join(words[1:], "-"), words[0]+"-"+strings.Join(words[1:], "_"), words[0]+"."+strings.Join(words[1:], "_"))
	}
	return append(names, "X-Auth-", "x_auth_", "Proxy", "PROXY")
}

const forged = "forged-by-the-client"

// Headers that a client forges do not reach an upstream, however they are spelled: oauth2-proxy
// GHSA-vjrc-mh2v-45x6, Caddy GHSA-f59h-q822-g45g, Traefik GHSA-5m6w-wvh7-57vm and GHSA-rf44-j88r-hh8c.
// What the token lacks is not taken from the client either: Caddy GHSA-7r4p-vjf4-gxv4, apache/apisix#13183,
// apache/apisix#11738.
func TestGHSA_vjrc_mh2v_45x6_NoAliasReachesTheUpstream(t *testing.T) {
	for _, upstream := range []struct {
		name, subject string // of the header as the upstream's programs see it
		start         func(t *testing.T) string
	}{
		{"Go", "X-Auth-Subject", startHeaders},
		{"Python", "HTTP_X_AUTH_SUBJECT", func(t *testing.T) string { return startScript(t, "python3", "testdata/echo.py") }},
		{"Node", "x-auth-subject", func(t *testing.T) string { return startScript(t, "node", "testdata/echo.mjs") }},
	} {
		t.Run(upstream.name, func(t *testing.T) {
			p := startProxy(t, upstream.start(t))
			token := "Authorization: Bearer " + testToken(time.Hour, "")
			ask := func(t *testing.T, lines ...string) {
				t.Helper()
				res, body := p.raw(t, "GET / HTTP/1.1", append([]string{token}, lines...)...)
				var got map[string]string
				if err := json.Unmarshal([]byte(body), &got); err != nil || res.StatusCode != http.StatusOK {
					t.Fatalf("answer = %d %s", res.StatusCode, body)
				}
				if strings.Contains(body, forged) || got[upstream.subject] != "ann" {
					t.Errorf("%.200q: the upstream got %s", lines, body)
				}
			}
			var all []string
			for _, name := range forgedNames() {
				all = append(all, name+": "+forged)
			}
			ask(t, all...)
			for _, name := range []string{"X-Auth-Subject", "x_auth_subject", "X.Auth-Subject"} {
				ask(t, name+": "+forged, name+": "+forged) // Envoy GHSA-ghc4-35x6-crw5: never joined with ours
				ask(t, "Connection: close, "+name, name+": "+forged)
				ask(t, "Connection: "+name+", X-Auth-Subject, X-Auth-Tenant, Te, Upgrade, Keep-Alive") // golang/go#50580, ory/oathkeeper#1098, traefik/traefik#11077
				if upstream.name == "Python" {
					continue // WSGI has no trailers
				}
				ask(t, "Transfer-Encoding: chunked", "Trailer: "+name+"\r\n\r\n2\r\nhi\r\n0\r\n"+name+": "+forged+"\r\n\r\n")
				ask(t, "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"+name+": "+forged+"\r\n\r\n")
			}
		})
	}
}

// startHeaders starts an upstream in Go that answers with all headers and trailers, one of a name joined.
func startHeaders(t *testing.T) string {
	return startHandler(t, func(w http.ResponseWriter, r *http.Request) {
		all := map[string]string{}
		for name, values := range r.Header {
			all[name] = strings.Join(values, ",")
		}
		for name, values := range r.Trailer {
			all["trailer "+name] = fmt.Sprint(values)
		}
		json.NewEncoder(w).Encode(all)
	})
}
