package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

func ringLine(id string) string {
	return "  - {id: " + id + ", kind: ring, issuer: 'https://" + id + ".example', any_audience: true}\n"
}

// Tenants with a ring come and go. A ring that Redis does not have yet holds up no reload. When Redis is
// away, the process is alive all the same, and ready for what it can do.
func TestReloadRings(t *testing.T) {
	t.Parallel()
	redis := miniredis.RunT(t)
	c := newRingCLI(t, redis.Addr())
	tokens := make(map[string]string)
	create := func(id string) {
		t.Helper()
		c.run(append([]string{"keys", "create", "--tenant", id}, quickRing...)...).wantCode(t, exitYes)
		tokens[id] = strings.TrimSpace(c.run("sign", "--tenant", id, "--claim", "sub=ann", "--iss", "https://"+id+".example").wantCode(t, exitYes).stdout)
	}
	create("a")
	create("b")
	head := "rings: {redis: '" + c.url + "', kek_file: kek}\ntenants:\n"
	f := follow(t, configFolder(t, head+ringLine("a"), map[string]string{"kek": c.kek}))
	becomes := func(id string, status int) {
		t.Helper()
		wait(t, func() bool { return f.ask(t, "GET", "/api/x", tokens[id]).status == status })
	}
	becomes("a", http.StatusOK)
	wait(t, func() bool { _, all, _ := f.readiness(t); return all == stateReady })
	f.write("keyturn.yaml", head+ringLine("a")+ringLine("b")+ringLine("late"))
	f.reload("added=2 changed=0 removed=0")
	time.Sleep(1100 * time.Millisecond) // /readyz answers as a second ago
	if status, all, each := f.readiness(t); status != http.StatusOK || all != stateDegraded {
		t.Errorf("a ring that is new takes the server from the others: /readyz = %d %s %v", status, all, each)
	}
	becomes("a", http.StatusOK)
	becomes("b", http.StatusOK)
	create("late")
	becomes("late", http.StatusOK)
	f.write("keyturn.yaml", head+ringLine("b"))
	f.reload("added=0 changed=0 removed=2")
	becomes("b", http.StatusOK)
	becomes("a", http.StatusUnauthorized)
	if a := f.ask(t, "GET", "/a"+jwksPath, ""); a.status != http.StatusNotFound {
		t.Errorf("the JWK Set of a removed tenant: %d %s", a.status, a.body)
	}
	f.write("keyturn.yaml", strings.Replace(head, "rings: {", "rings: {realm: other, ", 1)+ringLine("b"))
	f.reload(`setting=rings.realm`)
	becomes("b", http.StatusOK)

	wait(t, func() bool { _, all, _ := f.readiness(t); return all == stateReady })
	redis.Close()
	for _, report := range []string{"livekit/livekit#4663", "passmower/passmower#265"} {
		t.Run(report, func(t *testing.T) {
			f.t = t
			wait(t, func() bool { _, all, _ := f.readiness(t); return all == stateDegraded })
			for path, want := range map[string]int{"/healthz": http.StatusOK, "/readyz": http.StatusOK} {
				if a := f.ask(t, "GET", path, ""); a.status != want {
					t.Errorf("%s without Redis = %d %s", path, a.status, a.body)
				}
			}
			becomes("b", http.StatusOK)
		})
	}
}

// The keys of an issuer stay through a reload that leaves where they are read as it is. So an issuer that
// is down at that moment is no reason to refuse a token.
func TestReloadKeepsTheKeysOfAnIssuer(t *testing.T) {
	t.Parallel()
	key := jwkstest.NewKey("one", "ES256")
	issuer := startPlainIssuer(t, key)
	line := func(more string) string {
		return "  - {id: j, kind: jwks, issuer_url: '" + issuer.url + "', allow_loopback: true, algorithms: [ES256], audiences: [api" + more + "]}\n"
	}
	f := follow(t, configFolder(t, "tenants:\n"+line(""), map[string]string{"acme.secret": secretOf("acme")}))
	token := key.Token(liveClaims(fmt.Sprintf(`,"iss":%q,"aud":"api"`, issuer.url)))
	wait(t, func() bool { return f.ask(t, "GET", "/api/x", token).status == http.StatusOK })
	issuer.close()
	f.write("keyturn.yaml", "tenants:\n"+tenantLine("acme", "")+line(", other"))
	f.reload("added=1 changed=1 removed=0")
	f.ask(t, "GET", "/api/x", token).wantOK(t, "j", "ann", "/api/x")
	f.write("keyturn.yaml", "tenants:\n"+tenantLine("acme", ""))
	f.reload("added=0 changed=0 removed=1")
	f.ask(t, "GET", "/api/x", token).wantRefused(t)
}

// certificate writes a certificate for 127.0.0.1 that is its own authority, with its key.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := replace(filepath.Join(dir, name), string(pem.EncodeToMemory(block)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}

// The certificate of the listener, and where it listens, come from the file. A new certificate counts
// without a restart, and a key that does not fit it changes nothing.
func TestReloadCertificate(t *testing.T) {
	t.Parallel()
	path := configFolder(t, "listen: {addr: '127.0.0.1:0', unix: sock, unix_mode: '0600', tls: {cert_file: cert.pem, key_file: key.pem}}\nadmin: {addr: '127.0.0.1:0'}\n"+
		"reload: {every: 0s}\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret})
	dir := filepath.Dir(path)
	first := certificate(t, dir)
	s := startServeTLS(t, path)
	asks := func(roots *x509.CertPool) error {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}, Timeout: 20 * time.Second}
		res, err := c.Get(s.url + "/healthz")
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	if err := asks(first); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	second := certificate(t, dir)
	s.hangUp(reloaded)
	if asks(first) == nil || asks(second) != nil {
		t.Errorf("the new certificate is not in use: %v", asks(second))
	}
	third, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	certificate(t, dir)
	if err := replace(filepath.Join(dir, "key.pem"), string(third), 0o600); err != nil { // that of the one before
		t.Fatal(err)
	}
	s.hangUp(notTaken)
	if err := asks(second); err != nil {
		t.Errorf("after a key that does not fit: %v", err)
	}
	if strings.Contains(s.log.String(), "PRIVATE") {
		t.Error("a key is in the log")
	}
	s.stop()
	if _, err := os.Lstat(filepath.Join(dir, "sock")); err == nil {
		t.Error("the socket is left at the end")
	}
}

// A servedTLS is the built command with a TLS listener, which hangUp has read its files again.
type servedTLS struct {
	*served
	hangUp func(phrase string)
}

func startServeTLS(t *testing.T, path string) *servedTLS {
	t.Helper()
	s := &servedTLS{served: &served{log: new(syncBuffer), out: new(syncBuffer)}}
	cmd := exec.Command(builtBinary(t), "serve", "--config", path, "--drain", "0s")
	cmd.Env, cmd.Stderr, cmd.Stdout = cleanEnv(), s.log, s.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = sync.OnceValue(func() int {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		return cmd.ProcessState.ExitCode()
	})
	t.Cleanup(func() { cmd.Process.Kill(); s.stop() })
	wait(t, func() bool { return strings.Contains(s.out.String(), "Ctrl-C ends it") })
	m := regexp.MustCompile(`(?m)^listening on (https://127\.0\.0\.1:[0-9]+)$`).FindStringSubmatch(s.out.String())
	if m == nil || !strings.Contains(s.out.String(), "listening on the socket ") {
		t.Fatalf("output = %s; log = %s", s.out, s.log)
	}
	s.url = m[1]
	s.hangUp = func(phrase string) {
		t.Helper()
		said := strings.Count(s.log.String(), phrase)
		cmd.Process.Signal(syscall.SIGHUP)
		wait(t, func() bool { return strings.Count(s.log.String(), phrase) > said })
	}
	return s
}
