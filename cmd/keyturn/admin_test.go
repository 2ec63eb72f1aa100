package main

import (
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const publicReady = `{"status":"ready","ready":1,"degraded":0,"not_ready":0}` + "\n"

// Names of tenants are on the admin listener alone, which is there only if it was asked for. A flag
// beats the file.
func TestServeAdmin(t *testing.T) {
	named := strings.TrimSuffix(publicReady, "}\n") + `,"tenants":{"acme":{"status":"ready"}}}` + "\n"
	files := map[string]string{"s": testSecret}
	in := configFolder(t, "admin: {addr: '127.0.0.1:0'}\ntenants:\n"+acmeTenant, files)
	other := configFolder(t, "admin: {addr: 192.0.2.1:1}\ntenants:\n"+acmeTenant, files) // cannot be listened on
	without := configFolder(t, "tenants:\n"+acmeTenant, files)
	for name, flags := range map[string][]string{
		"file": {"--config", in}, "flag": {"--config", without, "--admin", "127.0.0.1:0"}, "both": {"--config", other, "--admin", "127.0.0.1:0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServeAlone(t, nil, flags...)
			if a := askAt(t, s.admin, "GET", "/readyz", ""); a.status != http.StatusOK || a.body != named {
				t.Errorf("/readyz of the admin listener = %d %s", a.status, a.body)
			}
			if a := s.ask(t, "GET", "/readyz", ""); a.status != http.StatusOK || a.body != publicReady {
				t.Errorf("/readyz = %d %s", a.status, a.body)
			}
			if strings.Contains(s.log.String(), "admin listener") {
				t.Errorf("log = %s", s.log)
			}
			if code := s.stop(); code != exitYes {
				t.Errorf("exit code = %d", code)
			}
			if c, err := net.Dial("tcp", strings.TrimPrefix(s.admin, "http://")); err == nil {
				c.Close()
				t.Error("the admin listener is still there")
			}
		})
	}
	s := startServeAlone(t, nil, "--config", without)
	if a := s.ask(t, "GET", "/readyz", ""); a.body != publicReady || s.admin != "" || strings.Contains(s.out.String(), "admin") {
		t.Errorf("without an admin listener: %s\n%s", a.body, s.out)
	}
}

// In a pod the kubelet asks from another machine, so such an address is taken, with a warning.
func TestServeAdminExposed(t *testing.T) {
	s := startServeAlone(t, map[string]string{envSecret: testSecret}, "--admin", "0.0.0.0:0")
	if !strings.Contains(s.log.String(), "the admin listener names every tenant") || !strings.Contains(s.out.String(), "\nadmin on http://localhost:") {
		t.Errorf("log = %s\noutput = %s", s.log, s.out)
	}
}

func TestServeAdminUsage(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	secret := file(t, testSecret)
	serve := func(flags ...string) result {
		return keyturn(t, append([]string{"serve", "--secret-file", secret}, flags...)...)
	}
	serve("--addr", "127.0.0.1:0", "--admin", l.Addr().String()).wantUsage(t, "--admin: port "+port+" is in use", "choose another, such as 127.0.0.1:")
	serve("--addr", "127.0.0.1:0", "--admin", "9102").wantUsage(t, "--admin: want HOST:PORT", "127.0.0.1:9102")
	serve("--addr", "127.0.0.1:0", "--admin", "").wantUsage(t, "--admin: is empty")
	serve("--addr", "127.0.0.1:0", "--admin", "192.0.2.1:1").wantUsage(t, "--admin: cannot listen there")
	free := closedPort(t)
	serve("--addr", free, "--admin", free).wantUsage(t, "--admin: port ", "is that of --addr: choose another")
	config := configFolder(t, "admin: {addr: '"+l.Addr().String()+"'}\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret})
	keyturn(t, "serve", "--addr", "127.0.0.1:0", "--config", config).wantUsage(t, "admin.addr in the file of --config: port "+port+" is in use")
}

// The real program, with both listeners, ends cleanly at a signal.
func TestServeAdminProcess(t *testing.T) {
	t.Parallel()
	s := &served{log: new(syncBuffer), out: new(syncBuffer)}
	cmd := exec.Command(builtBinary(t), "serve", "--addr", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain", "0s")
	cmd.Env, cmd.Stderr, cmd.Stdout = cleanEnv(envSecret+"="+testSecret), s.log, s.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	wait(t, func() bool { return adminOn.MatchString(s.out.String()) })
	at := adminOn.FindStringSubmatch(s.out.String())[1]
	if a := askAt(t, at, "GET", "/readyz", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"tenants":{"default":{"status":"ready"}}`) {
		t.Errorf("/readyz of the admin listener = %d %s", a.status, a.body)
	}
	begin := time.Now()
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil || time.Since(begin) > 20*time.Second || !strings.HasSuffix(s.out.String(), "\nstopped\n") {
		t.Errorf("serve ended with %v after %v: %s", err, time.Since(begin), s.out)
	}
}
