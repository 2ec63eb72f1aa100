package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
)

// A vault is a Redis that speaks TLS alone, and wants a certificate and a password.
type vault struct {
	server *redistest.Server
	ca     *redistest.Authority
	dir    string
	url    string
	kek    string
}

const vaultPassword = "hush / hush"

func newVault(t *testing.T) *vault {
	t.Helper()
	redistest.Need(t)
	ca, err := redistest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	g := &vault{ca: ca, dir: t.TempDir(), kek: newKEK()}
	g.server = redistest.Run(t, redistest.Options{TLS: &redistest.TLS{Authority: ca, Clients: true}})
	g.do(t, "ACL", "SETUSER", "keyturn", "on", ">"+vaultPassword, "+@all", "~*", "&*")
	g.url = "rediss://" + g.server.Addr()
	certPEM, keyPEM, err := ca.Issue(redistest.Certificate{})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"ca.pem": string(ca.PEM), "cert.pem": string(certPEM), "key.pem": string(keyPEM), "password": vaultPassword + "\r\n", "kek": g.kek,
	} {
		g.write(t, name, text)
	}
	return g
}

func (g *vault) do(t *testing.T, args ...any) {
	t.Helper()
	if err := g.server.Do(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

func (g *vault) path(name string) string { return filepath.Join(g.dir, name) }

func (g *vault) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(g.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// flags are those that every command takes.
func (g *vault) flags() []string {
	return []string{"--redis-ca-file", g.path("ca.pem"), "--redis-cert-file", g.path("cert.pem"), "--redis-key-file", g.path("key.pem"),
		"--redis-password-file", g.path("password")}
}

func (g *vault) env() map[string]string {
	return map[string]string{envRedis: g.url, envRedisUser: "keyturn", envKEKFile: g.path("kek")}
}

func (g *vault) run(t *testing.T, args ...string) result {
	t.Helper()
	return call{env: g.env()}.run(t, append(args, g.flags()...)...)
}

// Every command that opens Redis takes the flags for TLS, certificates and passwords.
func TestCommandsOverMutualTLS(t *testing.T) {
	g := newVault(t)
	g.run(t, "keys", "create", "--tenant", "acme", "--no-wait").wantCode(t, exitYes)
	g.run(t, "keys", "list", "--tenant", "acme").wantCode(t, exitYes, "signing")
	g.run(t, "keys", "log").wantCode(t, exitYes, "create")
	token := strings.TrimSpace(g.run(t, "sign", "--tenant", "acme", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	g.run(t, "verify", "--tenant", "acme", "--alg", "HS256", "--json", token).wantCode(t, exitYes, `"ok":true`)
	g.run(t, "doctor", "--tenant", "acme").wantCode(t, exitNo, "clock", "-> ")
	backup := g.path("rings.ktb")
	g.run(t, "keys", "backup", "--out", backup).wantCode(t, exitYes)
	g.run(t, "keys", "restore", "--dry-run", backup).wantCode(t, exitYes)
	s := startServe(t, g.env(), append([]string{"--tenant", "acme"}, g.flags()...)...)
	s.ask(t, "GET", "/api/x", token).wantOK(t, "acme", "ann", "/api/x")

	g.write(t, "password", "wrong-hush")
	r := g.run(t, "keys", "list").wantCode(t, exitCannotTell, "does not accept the user or the password")
	if strings.Contains(r.stderr, "hush") {
		t.Errorf("stderr = %s", r.stderr)
	}
}

// serve takes the same from the file of --config, whose paths are seen from its folder.
func TestServeConfigOverMutualTLS(t *testing.T) {
	g := newVault(t)
	g.run(t, "keys", "create", "--no-wait").wantCode(t, exitYes)
	token := strings.TrimSpace(g.run(t, "sign", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	const tenants = "tenants: [{id: default, kind: ring, any_issuer: true, any_audience: true}]\n"
	g.write(t, "keyturn.yaml", "rings: {redis: 'rediss://keyturn@"+g.server.Addr()+"', kek_file: kek, redis_password_file: password,\n"+
		"  redis_tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem, server_name: localhost, min_version: '1.3'}}\n"+tenants)
	s := startServe(t, nil, "--config", g.path("keyturn.yaml"))
	s.ask(t, "GET", "/api/x", token).wantOK(t, "default", "ann", "/api/x")
	s = startServe(t, map[string]string{envRedisPassword: vaultPassword}, "--config", g.path("keyturn.yaml"))
	if !strings.Contains(s.log.String(), "KEYTURN_REDIS_PASSWORD is used in place of rings.redis_password_file") {
		t.Errorf("the log: %s", s.log)
	}
	for text, says := range map[string]string{
		"redis_tls: {min_version: '1.1'}": `rings.redis_tls.min_version in the file of --config: want "1.2" or "1.3"`,
		"redis_tls: {ca_file: kek}":       "rings.redis_tls.ca_file in the file of --config has no certificate",
		"redis_tls: {skip_verify: true}":  "unknown field",
		"redis_password_file: nowhere":    "rings.redis_password_file in the file of --config",
		"sentinel_password_file: kek":     "redis-sentinel://",
	} {
		g.write(t, "bad.yaml", "rings: {redis: 'rediss://keyturn@h', kek_file: kek, "+text+"}\n"+tenants)
		call{}.run(t, "serve", "--config", g.path("bad.yaml")).wantUsage(t, says)
	}
}

// A fault of TLS is an error that names the flag.
func TestTLSErrorsNameFlags(t *testing.T) {
	t.Parallel()
	g := newVault(t)
	list := func(args ...string) result {
		return call{env: g.env()}.run(t, append([]string{"keys", "list"}, args...)...)
	}
	g.write(t, "wrong.pem", string(g.ca.PEM))
	stranger, err := redistest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, "stranger.pem", string(stranger.PEM))
	with := func(flags ...string) []string { return append(flags, "--redis-password-file", g.path("password")) }
	trust := []string{"--redis-ca-file", g.path("ca.pem")}
	list(with()...).wantCode(t, exitCannotTell, "trust the one that signed it; --redis-ca-file, or rings.redis_tls ca_file")
	list(with("--redis-ca-file", g.path("stranger.pem"))...).wantCode(t, exitCannotTell, "--redis-ca-file")
	list(with(trust...)...).wantCode(t, exitCannotTell, "--redis-cert-file and --redis-key-file")
	r := list(append(g.flags(), "--redis-server-name", "redis.internal")...).wantCode(t, exitCannotTell, "--redis-server-name", "announce host names")
	if strings.Contains(r.stderr, "://") || strings.Contains(r.stderr, "hush") {
		t.Errorf("the error shows the URL: %s", r.stderr)
	}
	list(with(append(trust, "--redis-cert-file", g.path("cert.pem"))...)...).wantUsage(t, "--redis-key-file is missing")
	list(with(append(trust, "--redis-key-file", g.path("key.pem"))...)...).wantUsage(t, "--redis-cert-file is missing")
	list(with(append(trust, "--redis-cert-file", g.path("ca.pem"), "--redis-key-file", g.path("key.pem"))...)...).wantUsage(t, "--redis-cert-file and --redis-key-file")
	list(append(trust, "--redis", "redis://h")...).wantUsage(t, "--redis-ca-file goes with TLS: write rediss")
	list().wantUsage(t, envRedisUser, "--redis-password-file")
	call{}.run(t, append([]string{"verify", "--alg", "HS256", "--secret-file", g.path("kek"), "x"}, trust...)...).wantUsage(t, "--redis-ca-file goes with --redis")
	call{}.run(t, append([]string{"sign", "--secret-file", g.path("kek")}, trust...)...).wantUsage(t, "--redis-ca-file goes with --redis")
	call{}.run(t, append([]string{"serve", "--secret-file", g.path("kek")}, trust...)...).wantUsage(t, "--redis-ca-file goes with --redis")
	call{env: g.env()}.run(t, "keys", "list", "--redis", "rediss://other@h", "--redis-password-file", g.path("password")).wantUsage(t, "the user of Redis is in --redis and in "+envRedisUser)
}

// One line end at the end of a password file goes. What else an editor adds is refused: it would be a
// wrong password that looks right.
func TestPasswordFile(t *testing.T) {
	for name, tt := range map[string]struct{ text, password, says string }{
		"alone":             {"hush", "hush", ""},
		"LF":                {"hush\n", "hush", ""},
		"CRLF":              {"hush\r\n", "hush", ""},
		"spaces":            {" hush hush \n", " hush hush ", ""},
		"UTF-8":             {"gehé\n", "gehé", ""},
		"two line ends":     {"hush\n\n", "", "line end"},
		"two CRLF":          {"hush\r\n\r\n", "", "line end"},
		"CR":                {"hush\r", "", "line end"},
		"two lines":         {"hush\nhush", "", "line end"},
		"a tab":             {"hush\t", "", "control character"},
		"a zero byte":       {"hush\x00", "", "control character"},
		"BOM of UTF-8":      {"\xef\xbb\xbfhush\n", "", "byte order mark"},
		"UTF-16":            {"\xff\xfeh\x00", "", "byte order mark"},
		"UTF-16 big endian": {"\xfe\xff\x00h", "", "byte order mark"},
		"nothing":           {"", "", "is empty"},
		"a line end alone":  {"\n", "", "is empty"},
	} {
		got, err := parsePassword("--redis-password-file", []byte(tt.text))
		if got != tt.password || (err == nil) != (tt.says == "") || err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "hush")) {
			t.Errorf("%s: %q, %v, want %q, %q", name, got, err, tt.password, tt.says)
		}
	}
}

// The files are read at each connection: a new password, and a new certificate, need no restart. A
// file that became unreadable is an error without its text.
func TestLinkFilesAreReadAgain(t *testing.T) {
	g := newVault(t)
	a := &app{env: func(string) (string, bool) { return "", false }, stderr: os.Stderr}
	get, err := a.passwordOf("--redis-password-file", g.path("password"))
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, "password", "other\n")
	if _, password, err := get(t.Context()); password != "other" || err != nil {
		t.Errorf("password %q, %v", password, err)
	}
	g.write(t, "password", "\xef\xbb\xbfother\n")
	if _, _, err := get(t.Context()); err == nil || strings.Contains(err.Error(), "other") {
		t.Errorf("error %v", err)
	}
	if err := os.Remove(g.path("password")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := get(t.Context()); err == nil || !strings.Contains(err.Error(), "--redis-password-file") || strings.Contains(err.Error(), g.dir) {
		t.Errorf("error %v", err)
	}
	c, err := a.redisTLS(&redisLink{certFile: g.path("cert.pem"), keyFile: g.path("key.pem"), name: noLink().name})
	if err != nil {
		t.Fatal(err)
	}
	first, err1 := c.GetClientCertificate(nil)
	certPEM, keyPEM, err2 := g.ca.Issue(redistest.Certificate{})
	g.write(t, "cert.pem", string(certPEM))
	if _, err := c.GetClientCertificate(nil); err1 != nil || err2 != nil || err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("%v, %v, of two halves: %v", err1, err2, err)
	}
	g.write(t, "key.pem", string(keyPEM))
	second, err := c.GetClientCertificate(nil)
	if err != nil || string(second.Certificate[0]) == string(first.Certificate[0]) {
		t.Errorf("the new certificate: %v", err)
	}
}
