//go:build unix

package proxytest

import (
	"os"
	"testing"
)

// Apache starts Apache httpd. The file has what belongs into sites-available of Debian.
func Apache(t testing.TB, c Config) *Proxy {
	t.Helper()
	user := ""
	if os.Getuid() == 0 {
		user = "User nobody\nGroup nogroup\n" // it refuses root
	}
	return Start(t, c, Program{
		Command: []string{"apache2", "-D", "FOREGROUND", "-d", "{dir}", "-f", "{main}"},
		Main: `LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
` + user + `ServerName localhost
PidFile {dir}/apache2.pid
DefaultRuntimeDir {dir}
Mutex pthread
ErrorLog /dev/stderr
GracefulShutdownTimeout 1
Include {file}
`})
}

// HAProxy starts HAProxy. The file is a whole configuration.
func HAProxy(t testing.TB, c Config) *Proxy {
	t.Helper()
	return Start(t, c, Program{Command: []string{"haproxy", "-db", "-f", "{file}"}})
}
