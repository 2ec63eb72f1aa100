package main

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

func TestConfigReloadUsage(t *testing.T) {
	for every, good := range map[string]bool{"10s": true, "0s": true, "1s": true, "24h": true, "999ms": false, "25h": false, "-1s": false, "often": false} {
		path := configFolder(t, "reload: {every: "+every+"}\ntenants:\n"+acmeTenant, map[string]string{"s": testSecret})
		r := keyturn(t, "serve", "--addr", "127.0.0.1:99999", "--config", path)
		want := "reload.every: want a duration from 1s to 24h, such as 10s, or 0s: only at SIGHUP"
		if good {
			want = "--addr: cannot listen there"
		}
		r.wantUsage(t, want)
	}
	path := configFolder(t, "reload:\n  evry: 1s\ntenants:\n"+acmeTenant, nil)
	keyturn(t, "serve", "--config", path).wantUsage(t, `line 2: unknown field "evry"`)
}

// hangUp starts the real program with an output of its own, and sends it SIGHUP.
func hangUp(t *testing.T, env string, flags ...string) (s *served, ended chan error) {
	t.Helper()
	s = &served{log: new(syncBuffer), out: new(syncBuffer)}
	cmd := exec.Command(builtBinary(t), append([]string{"serve", "--addr", "127.0.0.1:0"}, flags...)...)
	cmd.Env, cmd.Stderr, cmd.Stdout = cleanEnv(env), s.log, s.out
	// Under nohup the tests ignore SIGHUP, and so would the program. It does not inherit one that is caught.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	wait(t, func() bool { return strings.Contains(s.out.String(), "Ctrl-C ends it") })
	s.url = listening.FindStringSubmatch(s.out.String())[1]
	cmd.Process.Signal(syscall.SIGHUP)
	return s, ended
}

// SIGHUP is how an operator has a service reload. It does not end one that has nothing new to read.
// The demo, and a server with a secret, run in a terminal, and end with it.
func TestServeHangUp(t *testing.T) {
	s, ended := hangUp(t, "X=", "--config", configFolder(t, "tenants:\n"+acmeTenant, map[string]string{"s": testSecret}))
	wait(t, func() bool { return strings.Contains(s.log.String(), "the configuration is as it was") })
	s.ask(t, "GET", "/api/", "").wantRefused(t)
	if len(ended) > 0 {
		t.Error("SIGHUP ended the service")
	}
	_, ended = hangUp(t, envSecret+"="+testSecret)
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("SIGHUP did not end a server in a terminal")
	}
}

// New KEKs in the file are used at SIGHUP, without a restart. A file that cannot be used changes
// nothing, and is no reason to end.
func TestServeReloadsKEKs(t *testing.T) {
	c := newRingCLI(t, redisAddr(t))
	old, next := c.kek, newKEK()
	c.run("keys", "create", "--freshness", "6s", "--skew", "500ms", "--dwell", "1s").wantCode(t, exitYes)
	path := configFolder(t, "rings: {redis: '"+c.url+"', kek_file: kek}\nreload: {every: 0s}\ntenants: [{id: default, kind: ring, issuer: i, any_audience: true}]\n", map[string]string{"kek": old})
	kek := filepath.Join(filepath.Dir(path), "kek")
	s := startServe(t, nil, "--config", path)
	wait(t, func() bool { return strings.Contains(s.log.String(), "ready: all rings are in step") })
	for _, step := range []struct {
		make func() error
		says string
	}{
		{func() error { return nil }, "a file is as it was"},
		{func() error { return replace(kek, "rubbish", 0o600) }, "line 1"},
		{func() error { return replace(kek, next+"\n"+old+"\n", 0o666) }, "can be changed by every user of this machine"},
		{func() error { return replace(kek, next+"\n", 0o600) }, "the new KEKs lack"},
		{func() error { return replace(kek, next+"\n"+old+"\n", 0o600) }, "a file is reloaded"},
		{func() error { return errors.Join(os.Remove(kek), syscall.Mkfifo(kek, 0o600)) }, "is no regular file any more"}, // and it waits for no writer
	} {
		if err := errors.Join(step.make(), syscall.Kill(os.Getpid(), syscall.SIGHUP)); err != nil {
			t.Fatal(err)
		}
		wait(t, func() bool { return strings.Contains(s.log.String(), step.says) })
	}

	// The others learn that the server has the new KEK: only then can the ring be sealed under it.
	wait(t, func() bool { return rekey(t, c.url, next+"\n"+old) == nil })
	time.Sleep(time.Second) // another poll
	if status, all, _ := s.readiness(t); status != http.StatusOK || all != stateReady {
		t.Errorf("with the ring under the new KEK, /readyz = %d %s; log: %s", status, all, s.log)
	}
	if code := s.stop(); code != exitYes {
		t.Errorf("exit code = %d", code)
	}
	for _, secret := range []string{old, next, "rubbish"} {
		if strings.Contains(s.log.String()+s.out.String(), secret) {
			t.Errorf("a KEK, or a part of the file, is in the log: %s", s.log)
		}
	}
}

// rekey seals the ring of the default tenant under the first of keks.
func rekey(t *testing.T, url, keks string) error {
	t.Helper()
	parsed, err := rotation.ParseKEKs([]byte(keks))
	if err != nil {
		t.Fatal(err)
	}
	store, err := openStore(url, rediskeys.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.close()
	k, err := rotation.Open(t.Context(), store, rotation.Config{KEKs: parsed, Tenants: []string{defaultTenant}, OneShot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close(t.Context())
	rotator, err := rotation.NewRotator(k)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = rotator.Rekey(t.Context(), defaultTenant)
	return err
}

// replace puts a file in the place of another one, as a whole.
func replace(path, text string, mode os.FileMode) error {
	next := path + ".next"
	return errors.Join(os.WriteFile(next, []byte(text), mode), os.Chmod(next, mode), os.Rename(next, path))
}

// New KEKs of the list of revocations are used without a restart too, unless they do not open its digest keys.
func TestServeReloadsKEKsOfTheList(t *testing.T) {
	old, next := newKEK(), newKEK()
	path := configFolder(t, "revocations: {redis: 'redis://"+redisAddr(t)+"', kek_file: kek}\nreload: {every: 0s}\ntenants: [{id: default, kind: static, secret_file: secret, issuer: i, any_audience: true}]\n",
		map[string]string{"kek": old, "secret": testSecret})
	kek := filepath.Join(filepath.Dir(path), "kek")
	s := startServe(t, nil, "--config", path)
	// The list must have read its digest key: before that it cannot know which KEKs open it.
	wait(t, func() bool { return strings.Contains(s.log.String(), "revocations: the list is ready") })
	for _, step := range []struct{ text, says string }{
		{next + "\n", "the new KEKs do not open the digest key"}, {next + "\n" + old + "\n", "revocations: the KEKs were replaced"},
	} {
		if err := errors.Join(replace(kek, step.text, 0o600), syscall.Kill(os.Getpid(), syscall.SIGHUP)); err != nil {
			t.Fatal(err)
		}
		wait(t, func() bool { return strings.Contains(s.log.String(), step.says) })
	}
	if code := s.stop(); code != exitYes {
		t.Errorf("exit code = %d", code)
	}
}
