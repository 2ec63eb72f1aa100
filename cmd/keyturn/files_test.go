package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A file that other users can write may choose the secret, the keys or the rules. Each file that
// the command reads is refused then, with the command that mends it.
func TestFilesThatOthersCanWrite(t *testing.T) {
	token := hs256(testSecret, plainHeader, in(time.Hour, ""))
	redis := miniredis.RunT(t)
	secret, kek, set := file(t, testSecret), file(t, newKEK()), file(t, jwkstest.Set(jwkstest.NewKey("1", "ES256")))
	config := func(tenant string) string {
		return configFolder(t, "tenants:\n"+tenant, map[string]string{"s": testSecret, "set.json": jwkstest.Set(jwkstest.NewKey("1", "ES256"))})
	}
	plain, filed := config(acmeTenant), config("  - {id: f, kind: jwks, jwks_file: set.json, algorithms: [ES256], any_issuer: true, any_audience: true}\n")
	ring := configFolder(t, "rings: {redis: 'redis://"+redis.Addr()+"', kek_file: kek}\ntenants: [{id: r, kind: ring, issuer: i, any_audience: true}]\n", map[string]string{"kek": newKEK()})
	const nowhere = "127.0.0.1:99999" // so that serve ends in any case
	beside := func(path, name string) string { return strings.TrimSuffix(path, "keyturn.yaml") + name }
	for _, tt := range []struct {
		name, path string // of the file, as the error calls it
		args       []string
	}{
		{"--secret-file", secret, []string{"verify", "--alg", "HS256", "--secret-file", secret, token}},
		{"--secret-file", secret, []string{"sign", "--secret-file", secret}},
		{"--secret-file", secret, []string{"serve", "--addr", nowhere, "--secret-file", secret}},
		{"--kek-file", kek, []string{"keys", "list", "--redis", "redis://" + redis.Addr(), "--kek-file", kek}},
		{"--jwks", set, []string{"verify", "--alg", "ES256", "--jwks", set, token}},
		{"--config", plain, []string{"serve", "--addr", nowhere, "--config", plain}},
		{`secret_file of tenant "acme" in the file of --config`, beside(plain, "s"), []string{"serve", "--addr", nowhere, "--config", plain}},
		{`jwks_file of tenant "f" in the file of --config`, beside(filed, "set.json"), []string{"serve", "--addr", nowhere, "--config", filed}},
		{"rings.kek_file in the file of --config", beside(ring, "kek"), []string{"serve", "--addr", nowhere, "--config", ring}},
	} {
		for _, mode := range []os.FileMode{0o602, 0o622, 0o666} {
			if err := os.Chmod(tt.path, mode); err != nil {
				t.Fatal(err)
			}
			r := keyturn(t, tt.args...)
			r.wantUsage(t, "the file of "+tt.name+" can be changed by every user of this machine (mode 0", "): chmod o-w "+tt.path)
		}
		if err := os.Chmod(tt.path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A file's owner can always change it. So it must be ours, or root's.
func TestFileOwners(t *testing.T) {
	info, err := os.Stat(file(t, testSecret))
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := standingOf(info); !ok || s.uid != os.Geteuid() || s.us != os.Geteuid() || s.mode.Perm() != 0o600 {
		t.Errorf("our own file: %+v, %v", s, ok)
	}
	if os.Geteuid() == 0 { // no other user can give files away
		t.Run("given away", testFilesGivenAway)
	}
}

func testFilesGivenAway(t *testing.T) {
	secret, config := file(t, testSecret), configFolder(t, "tenants:\n"+acmeTenant, map[string]string{"s": testSecret})
	for path, args := range map[string][]string{
		secret: {"sign", "--secret-file", secret}, config: {"serve", "--addr", "127.0.0.1:99999", "--config", config},
	} {
		if err := os.Chown(path, 1234, 0); err != nil {
			t.Fatal(err)
		}
		keyturn(t, args...).wantUsage(t, "belongs to the user with the ID 1234, who can change it: chown 0 "+path)
		if err := os.Chown(path, 0, 1234); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o660); err != nil {
			t.Fatal(err)
		}
		shared := "can be changed by the group with the ID 1234 (mode 0660): chmod g-w " + path
		r := keyturn(t, args...)
		if !strings.Contains(r.stderr, shared) {
			t.Errorf("%q: stderr = %s, want it to say %q", args, r.stderr, shared)
		}
		if refused := r.code == exitUsage && strings.Count(r.stderr, "\n") == 1; refused != (path == secret) {
			t.Errorf("%q: exit code = %d, stderr = %s: only a secret is refused for its group", args, r.code, r.stderr)
		}
	}
}

// The rules of standing, for a process of user 1000, or of root.
func TestStanding(t *testing.T) {
	const pipe = os.ModeNamedPipe
	for _, tt := range []struct {
		what   string
		s      standing
		secret string // how it is mended, and whether it is used all the same
		rules  string
	}{
		{"our own", standing{0o600, 1000, 1000, 1000}, "", ""},
		{"root's", standing{0o644, 0, 0, 1000}, "remark: chmod o-r", ""},
		{"Kubernetes' with fsGroup", standing{0o440, 0, 2000, 1000}, "", ""},
		{"Docker's", standing{0o444, 0, 0, 1000}, "remark: chmod o-r", ""},
		{"systemd's credential, for root", standing{0o400, 0, 0, 0}, "", ""},
		{"of a group of our own", standing{0o660, 1000, 1000, 1000}, "remark: chmod 600", ""},
		{"of another group", standing{0o660, 1000, 2000, 1000}, "chmod g-w", "remark: chmod g-w"},
		{"of another group that only writes", standing{0o620, 1000, 2000, 1000}, "chmod g-w", "remark: chmod g-w"},
		{"root's, of another group", standing{0o664, 0, 0, 1000}, "chmod g-w", "remark: chmod g-w"},
		{"of everyone", standing{0o606, 1000, 1000, 1000}, "chmod o-w", "chmod o-w"},
		{"of everyone who writes", standing{0o602, 0, 0, 0}, "chmod o-w", "chmod o-w"},
		{"another user's", standing{0o400, 1001, 1000, 1000}, "chown 1000", "chown 1000"},
		{"another user's, for root", standing{0o400, 1000, 0, 0}, "chown 0", "chown 0"},
		{"another user's, of everyone", standing{0o666, 1001, 1000, 1000}, "chown 1000", "chown 1000"},
		{"another user's pipe", standing{pipe | 0o600, 1000, 1000, 0}, "", ""},
		{"a pipe that everyone writes", standing{pipe | 0o622, 1000, 1000, 1000}, "chmod o-w", "chmod o-w"},
		{"readable by a group", standing{0o640, 1000, 2000, 1000}, "remark: chmod 600", ""},
	} {
		for use, want := range map[fileUse]string{holdsSecret: tt.secret, holdsRules: tt.rules} {
			_, got := tt.s.refusal(use)
			if got == "" {
				if _, mend := tt.s.remark(use); mend != "" {
					got = "remark: " + mend
				}
			}
			if got != want {
				t.Errorf("a file that is %s, use %d: %q, want %q", tt.what, use, got, want)
			}
		}
	}
}

// A JWK Set may hold secrets. Then it is judged as a secret.
func TestSetWithSecretIsJudgedAsSecret(t *testing.T) {
	token := hs256(testSecret, plainHeader, in(time.Hour, ""))
	secret, public := file(t, secretSet), file(t, jwkstest.Set(jwkstest.NewKey("1", "ES256")))
	for path, noted := range map[string]bool{secret: true, public: false} {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		r := keyturn(t, "verify", "--jwks", path, "--alg", "HS256,ES256", token)
		if strings.Contains(r.stderr, "the file of --jwks is readable by group or others (mode 0644): chmod 600 "+path) != noted {
			t.Errorf("a set with a secret (%v): stderr = %s", noted, r.stderr)
		}
	}
}

// secretSet is a JWK Set with testSecret, which has no kid.
var secretSet = `{"keys":[{"kty":"oct","alg":"HS256","k":"` + base64.RawURLEncoding.EncodeToString([]byte(testSecret)) + `"}]}`

// While it runs, serve says in its log what is wrong with a file.
func TestServeLogsFileRemarks(t *testing.T) {
	path := file(t, testSecret)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	s := startServe(t, nil, "--secret-file", path)
	if want := `level=WARN msg="the file of --secret-file is readable by group or others (mode 0644): chmod 600 `; !strings.Contains(s.log.String(), want) {
		t.Errorf("log = %s, want %s", s.log, want)
	}
}

// What comes through a pipe is no file that others may change.
func TestSecretFromPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	io.WriteString(w, testSecret)
	w.Close()
	got := keyturn(t, "sign", "--secret-file", fmt.Sprintf("/dev/fd/%d", r.Fd()))
	if got.code != exitYes || got.stderr != "" {
		t.Errorf("sign = %+v", got)
	}
}
