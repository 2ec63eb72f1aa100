package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A followed is a running server whose configuration is read again at a signal of the test's own. A
// content settles within settleFor.
type followed struct {
	*served
	t    *testing.T
	path string // of keyturn.yaml
	hups chan os.Signal
}

const followSettle = 2 * time.Millisecond

// follow starts serve with a configuration.
func follow(t *testing.T, path string) *followed {
	t.Helper()
	return followWith(t, path, func(cmd *serveCommand) error { return cmd.configFile.Set(path) })
}

// followWith starts serve with what set sets.
func followWith(t *testing.T, path string, set func(*serveCommand) error) *followed {
	t.Helper()
	f := &followed{served: &served{log: new(syncBuffer), out: new(syncBuffer)}, t: t, path: path, hups: make(chan os.Signal)}
	stdout, w := io.Pipe()
	cmd := newServeCommand(&app{env: func(string) (string, bool) { return "", false }, stdout: w, stderr: f.log, now: time.Now})
	for _, err := range []error{set(cmd), cmd.addr.Set("127.0.0.1:0"), cmd.admin.Set("127.0.0.1:0")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	o, err := cmd.offer()
	if err != nil {
		t.Fatal(err)
	}
	cmd.followConfig(o)
	o.reloads, o.server.Reload.Signal, o.server.Reload.Settle = false, f.hups, followSettle
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- cmd.serve(ctx, o); w.Close() }()
	f.stop = sync.OnceValue(func() int {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve = %v", err)
		}
		return 0
	})
	t.Cleanup(func() { f.stop() })
	f.url = waitURL(t, stdout, f.out)
	wait(t, func() bool { return adminOn.MatchString(f.out.String()) })
	f.admin = adminOn.FindStringSubmatch(f.out.String())[1]
	return f
}

// reload has the files read again, and waits for a line of the log that says phrase.
func (f *followed) reload(phrase string) {
	f.t.Helper()
	said := strings.Count(f.log.String(), phrase)
	f.hups <- os.Interrupt // any signal
	for end := time.Now().Add(time.Minute); strings.Count(f.log.String(), phrase) == said; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("the log does not say %q: %s", phrase, f.log)
		}
	}
}

// write replaces a file beside keyturn.yaml.
func (f *followed) write(name, text string) {
	f.t.Helper()
	if err := replace(filepath.Join(filepath.Dir(f.path), name), text, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// remove removes a file beside keyturn.yaml.
func (f *followed) remove(name string) {
	f.t.Helper()
	if err := os.Remove(filepath.Join(filepath.Dir(f.path), name)); err != nil {
		f.t.Fatal(err)
	}
}

// wantGood checks the answer to a token of issuer https://ID.example, made with secret.
func (f *followed) wantGood(good bool, id, secret string) {
	f.t.Helper()
	a := f.ask(f.t, "GET", "/api/x", tokenOf(id, secret))
	if good && a.status != http.StatusOK || !good && a.status != http.StatusUnauthorized {
		f.t.Errorf("a token of %s: %d %s, want good = %v; log: %s", id, a.status, a.body, good, f.log)
	}
}

// tokenOf returns a token of issuer https://ID.example for the audience api.
func tokenOf(id, secret string) string {
	return hs256(secret, plainHeader, in(time.Hour, `,"sub":"ann","aud":"api","iss":"https://`+id+`.example"`))
}

// secretOf returns a secret for a tenant.
func secretOf(id string) string { return (id + strings.Repeat("-0123456789", 4))[:40] }

func tenantLine(id, more string) string {
	return "  - {id: " + id + ", kind: static, secret_file: " + id + ".secret, issuer: 'https://" + id + ".example', audiences: [api]" + more + "}\n"
}

const (
	reloaded  = "the configuration is reloaded"
	notTaken  = "the configuration is not reloaded: the last good version stays in use"
	keptOne   = "a file is not reloaded: the last good version stays in use"
	asItWas   = "the configuration is as it was"
	readyAcme = `{"status":"ready","ready":1,"degraded":0,"not_ready":0,"tenants":{"acme":{"status":"ready"}}}` + "\n"
)

// Everything that the file says of tenants changes without a restart.
func TestReloadChangesTenants(t *testing.T) {
	t.Parallel()
	f := follow(t, configFolder(t, "tenants:\n"+tenantLine("acme", ""), map[string]string{"acme.secret": secretOf("acme"), "b.secret": secretOf("b")}))
	f.wantGood(true, "acme", secretOf("acme"))
	f.reload(asItWas)
	f.write("keyturn.yaml", "tenants:\n"+tenantLine("acme", "")+tenantLine("b", ""))
	f.reload("added=1 changed=0 removed=0")
	f.wantGood(true, "acme", secretOf("acme"))
	f.wantGood(true, "b", secretOf("b"))
	f.write("b.secret", secretOf("another"))
	f.reload("added=0 changed=1 removed=0")
	f.wantGood(false, "b", secretOf("b"))
	f.wantGood(true, "b", secretOf("another"))
	f.write("keyturn.yaml", "tenants:\n"+tenantLine("b", ", required: [email]"))
	f.reload("added=0 changed=1 removed=1")
	f.wantGood(false, "acme", secretOf("acme"))
	f.wantGood(false, "b", secretOf("another"))
	if a := askAt(t, f.admin, "GET", "/readyz", ""); !strings.Contains(a.body, `"tenants":{"b":{"status":"ready"}}`) {
		t.Errorf("/readyz = %s", a.body)
	}
	f.write("keyturn.yaml", "from_header: [X-Token]\ntenants:\n"+tenantLine("b", ""))
	f.reload(reloaded)
	f.wantGood(false, "b", secretOf("another"))
	if a := askWith(t, f.url, "GET", "/api/x", "X-Token: "+tokenOf("b", secretOf("another"))+"\r\n"); a.status != http.StatusOK {
		t.Errorf("a token in X-Token: %d %s", a.status, a.body)
	}
}

// An issuer can move to another tenant, and a tenant get another name, in one step.
func TestReloadMovesAnIssuer(t *testing.T) {
	t.Parallel()
	line := tenantLine("acme", "")
	f := follow(t, configFolder(t, "tenants:\n"+line, map[string]string{"acme.secret": secretOf("acme")}))
	f.write("keyturn.yaml", "tenants:\n"+strings.Replace(line, "id: acme", "id: acme2", 1))
	f.reload("added=1 changed=0 removed=1")
	f.ask(t, "GET", "/api/x", tokenOf("acme", secretOf("acme"))).wantOK(t, "acme2", "ann", "/api/x")
}

// What cannot be used changes nothing: no tenant, and not what /readyz says. Each reason is logged once.
func TestReloadKeepsTheLastGood(t *testing.T) {
	t.Parallel()
	const good = "tenants:\n"
	f := follow(t, configFolder(t, good+tenantLine("acme", ""), map[string]string{"acme.secret": secretOf("acme")}))
	for _, tt := range []struct {
		name, file, text string
		says             string
	}{
		{"kubernetes/kubernetes#123525 a file that is no YAML", "keyturn.yaml", "tenants: [", "this is not YAML"},
		{"an empty file", "keyturn.yaml", "", "is empty"},
		{"no tenants", "keyturn.yaml", "tenants: []\n", "has no tenants"},
		{"only comments", "keyturn.yaml", "# soon\n", "is empty"},
		{"an unknown key", "keyturn.yaml", good + tenantLine("acme", "") + "tenant_dir: x\n", `line 3: unknown field`},
		{"a second tenant that is not whole", "keyturn.yaml", good + tenantLine("acme", "") + "  - {id: b, kind: static}\n", "line 3"},
		{"two tenants with one issuer", "keyturn.yaml", good + tenantLine("acme", "") + strings.Replace(tenantLine("acme", ""), "id: acme", "id: b", 1), "has the same issuer"},
		{"an empty secret", "acme.secret", "", "secret_file"},
		{"a short secret", "acme.secret", "hush", "at least 32"},
		{"a ring, and none at the start", "keyturn.yaml", "rings: {redis: 'redis://127.0.0.1:1', kek_file: acme.secret}\n" + good + tenantLine("acme", "") +
			"  - {id: r, kind: ring, issuer: i, audiences: [api]}\n", "restart needed"},
		{"an http issuer", "keyturn.yaml", good + tenantLine("acme", "") + "  - {id: j, kind: jwks, jwks_url: 'http://login.example/k', issuer: j, algorithms: [RS256], audiences: [api]}\n", "jwks_url"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.t = t
			f.write(tt.file, tt.text)
			f.reload(notTaken)
			lines := strings.Split(strings.TrimSpace(f.log.String()), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(last, strings.ReplaceAll(tt.says, `"`, `\"`)) || strings.Contains(last, "hush") {
				t.Errorf("the log says %s", last)
			}
			f.wantGood(true, "acme", secretOf("acme"))
			if a := askAt(t, f.admin, "GET", "/readyz", ""); a.body != readyAcme {
				t.Errorf("/readyz = %s", a.body)
			}
			f.write("keyturn.yaml", good+tenantLine("acme", ""))
			f.write("acme.secret", secretOf("acme"))
			f.reload(asItWas)
		})
	}
	f.t = t
	f.remove("acme.secret")
	f.reload(notTaken)
	f.wantGood(true, "acme", secretOf("acme"))
	f.remove("keyturn.yaml")
	f.reload(notTaken)
	f.wantGood(true, "acme", secretOf("acme"))
}

// The file of --secret-file is followed as one of --config is.
func TestReloadSecretFile(t *testing.T) {
	t.Parallel()
	path := file(t, secretOf("old")+"\n")
	f := followWith(t, path, func(cmd *serveCommand) error { return cmd.secretFile.Set(path) })
	f.wantGood(true, "a", secretOf("old"))
	put := func(text string) {
		t.Helper()
		if err := replace(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("short")
	f.reload(notTaken)
	f.wantGood(true, "a", secretOf("old"))
	put(secretOf("new") + "\n")
	f.reload(reloaded)
	f.wantGood(true, "a", secretOf("new"))
	f.wantGood(false, "a", secretOf("old"))
}

// A folder that had tenants and is empty looks like a volume that is not mounted. Its tenants stay, also
// beside others, until the file no longer names the folder.
func TestReloadEmptiedTenantsDir(t *testing.T) {
	t.Parallel()
	one := func(id string) string {
		return strings.TrimSpace(strings.TrimPrefix(tenantLine(id, ""), "  - ")) + "\n"
	}
	listed := "tenants:\n" + tenantLine("a", "")
	path := configFolder(t, "tenants_dir: t.d\n"+listed, map[string]string{"a.secret": secretOf("a"),
		"t.d/.b.secret": secretOf("b"), "t.d/b.yaml": strings.Replace(one("b"), "b.secret", ".b.secret", 1),
		"t.d/.c.secret": secretOf("c"), "t.d/c.yaml": strings.Replace(one("c"), "c.secret", ".c.secret", 1)})
	f := follow(t, path)
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(filepath.Dir(path), "t.d", name)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(good map[string]bool) {
		t.Helper()
		for id, is := range good {
			f.wantGood(is, id, secretOf(id))
		}
	}
	want(map[string]bool{"a": true, "b": true, "c": true})
	remove("b.yaml")
	f.reload(reloaded)
	want(map[string]bool{"a": true, "b": false, "c": true})
	remove("c.yaml")
	f.reload(notTaken)
	want(map[string]bool{"a": true, "b": false, "c": true})
	if !strings.Contains(f.log.String(), "is it not mounted?") || !strings.Contains(f.log.String(), "take tenants_dir out of the file") {
		t.Errorf("log = %s", f.log)
	}
	if err := replace(path, listed, 0o600); err != nil {
		t.Fatal(err)
	}
	f.reload(reloaded)
	want(map[string]bool{"a": true, "b": false, "c": false})
}

// A broken file in tenants_dir keeps the last good of its own tenant, and no other waits for it.
func TestReloadTenantsDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one := func(id, more string) string {
		return strings.TrimSpace(strings.TrimPrefix(tenantLine(id, more), "  - ")) + "\n"
	}
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put("keyturn.yaml", "tenants_dir: t.d\n")
	for _, id := range []string{"a", "b", "c"} {
		put("t.d/."+id+".secret", secretOf(id))
		put("t.d/"+id+".yaml", strings.Replace(one(id, ""), id+".secret", "."+id+".secret", 1))
	}
	for _, skipped := range []string{"t.d/a.yaml~", "t.d/.a.yaml.swp", "t.d/#a.yaml#", "t.d/..data", "t.d/lost+found/x"} {
		put(skipped, "rubbish")
	}
	f := follow(t, filepath.Join(dir, "keyturn.yaml"))
	want := func(good map[string]bool) {
		t.Helper()
		for id, is := range good {
			f.wantGood(is, id, secretOf(id))
		}
	}
	want(map[string]bool{"a": true, "b": true, "c": true, "d": false})
	bYAML := strings.Replace(one("b", ""), "b.secret", ".b.secret", 1)

	put("t.d/b.yaml", "{id: b, kin")
	put("t.d/.d.secret", secretOf("d"))
	put("t.d/d.yaml", strings.Replace(one("d", ""), "d.secret", ".d.secret", 1))
	f.reload(reloaded)
	want(map[string]bool{"a": true, "b": true, "c": true, "d": true})
	if !strings.Contains(f.log.String(), keptOne+`" file=b.yaml`) {
		t.Errorf("log = %s", f.log)
	}
	if err := os.Remove(filepath.Join(dir, "t.d/.c.secret")); err != nil { // a secret that is gone
		t.Fatal(err)
	}
	put("t.d/e.yaml", "") // a new file, written half
	put("t.d/z.yaml", bYAML)
	f.reload(reloaded)
	want(map[string]bool{"a": true, "b": true, "c": true, "d": true})
	for _, name := range []string{"c.yaml", "e.yaml", "z.yaml"} {
		if !strings.Contains(f.log.String(), keptOne+`" file=`+name) {
			t.Errorf("log of %s = %s", name, f.log)
		}
	}
	if strings.Count(f.log.String(), keptOne+`" file=b.yaml`) != 1 {
		t.Errorf("b.yaml is not logged once: %s", f.log)
	}
	for _, name := range []string{"a.yaml", "b.yaml", "c.yaml", "e.yaml"} {
		if err := os.Remove(filepath.Join(dir, "t.d", name)); err != nil {
			t.Fatal(err)
		}
	}
	f.reload(reloaded) // z.yaml has the tenant b now
	want(map[string]bool{"a": false, "b": true, "c": false, "d": true})
	for _, name := range []string{"d.yaml", "z.yaml"} {
		if err := os.Remove(filepath.Join(dir, "t.d", name)); err != nil {
			t.Fatal(err)
		}
	}
	f.reload(notTaken) // an empty folder
	want(map[string]bool{"b": true, "d": true})
}

// At the start there is no last good, and a server without one of its tenants would call good tokens
// bad. Names of files are seen from the folder of the tenant's file.
func TestTenantsDirAtTheStart(t *testing.T) {
	folder := func(files map[string]string) string {
		path := configFolder(t, "tenants_dir: t.d\n", nil)
		for name, text := range files {
			name = filepath.Join(filepath.Dir(path), name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	const acme = "{id: acme, kind: static, secret_file: ../s, issuer: i, any_audience: true}\n"
	for _, tt := range []struct {
		files  map[string]string
		phrase string
	}{
		{nil, "tenants_dir: cannot read that folder"},
		{map[string]string{"t.d/.x": ""}, "tenants_dir has no file of one"},
		{map[string]string{"t.d/a.yaml": ""}, `the file "a.yaml" of tenants_dir: it is empty`},
		{map[string]string{"t.d/a.yaml": "tenants: []"}, `unknown field "tenants"`},
		{map[string]string{"t.d/a.yaml": "---\n" + acme + "---\n" + acme}, "more than one document"},
		{map[string]string{"t.d/a.yaml": acme}, `secret_file of tenant "acme" in the file "a.yaml" of tenants_dir`},
		{map[string]string{"s": secretOf("a"), "t.d/a.yaml": acme, "t.d/b.yaml": acme}, `the file "b.yaml" of tenants_dir: line 1`},
		{map[string]string{"s": secretOf("a"), "t.d/a.yaml": strings.Replace(acme, "issuer: i", "any_issuer: true", 1)}, "any_issuer is for a tenant that is alone"},
	} {
		keyturn(t, "serve", "--check", "--config", folder(tt.files)).wantUsage(t, tt.phrase)
	}
	keyturn(t, "serve", "--check", "--config", folder(map[string]string{"s": secretOf("a"), "t.d/a.yaml": acme})).want(t, exitYes, "the configuration is good: one tenant\n")
}

// Settings that are read at the start alone are named, once, and the rest is applied.
func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	f := follow(t, configFolder(t, "tenants:\n"+tenantLine("acme", ""), map[string]string{"acme.secret": secretOf("acme"), "b.secret": secretOf("b")}))
	f.write("keyturn.yaml", "listen: {addr: ':1', unix: sock}\nmax_token_bytes: 9000\ntenants:\n"+tenantLine("acme", "")+tenantLine("b", ""))
	f.reload(`restart needed: this setting is read at the start alone" setting=max_token_bytes`)
	f.wantGood(true, "b", secretOf("b"))
	f.write("keyturn.yaml", "listen: {addr: ':1', unix: sock}\nmax_token_bytes: 9000\ntenants:\n"+tenantLine("acme", ""))
	f.reload(reloaded)
	f.reload(asItWas)
	for setting, n := range map[string]int{"listen.unix ": 0, "listen.unix\n": 1, "max_token_bytes": 1, "listen.addr": 0 /* --addr beats it */} {
		if got := strings.Count(f.log.String(), "setting="+setting); got != n {
			t.Errorf("%q is named %d times, want %d: %s", setting, got, n, f.log)
		}
	}
}

// A configMap is a folder as Kubernetes mounts it: the names lead through ..data, which leads to a
// folder that is replaced as a whole.
type configMap struct {
	t       testing.TB
	dir     string
	version int
}

func newConfigMap(t testing.TB, files map[string]string) *configMap {
	t.Helper()
	m := &configMap{t: t, dir: t.TempDir()}
	m.swap(files)
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(m.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// swap replaces all files at once, and removes the folder of the version before.
func (m *configMap) swap(files map[string]string) {
	m.t.Helper()
	old := filepath.Join(m.dir, fmt.Sprintf("..v%d", m.version))
	m.version++
	name := fmt.Sprintf("..v%d", m.version)
	next := filepath.Join(m.dir, "..data_tmp")
	err := os.Mkdir(filepath.Join(m.dir, name), 0o700)
	for file, text := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(m.dir, name, file), []byte(text), 0o600))
	}
	err = errors.Join(err, os.Symlink(name, next), os.Rename(next, filepath.Join(m.dir, "..data")), os.RemoveAll(old))
	if err != nil {
		m.t.Fatal(err)
	}
}

// The reports of programs that missed a new ConfigMap, or read half of one.
func TestReloadOfConfigMaps(t *testing.T) {
	t.Parallel()
	files := func(id, secret string) map[string]string {
		return map[string]string{"keyturn.yaml": "tenants:\n" + tenantLine(id, ""), "acme.secret": secret, "b.secret": secret}
	}
	m := newConfigMap(t, files("acme", secretOf("acme")))
	f := follow(t, filepath.Join(m.dir, "keyturn.yaml"))
	for _, report := range []string{"spf13/viper#284", "kubernetes/kubernetes#112677"} {
		t.Run(report, func(t *testing.T) { // no file of the mount changes but a link
			f.t = t
			secret := secretOf(report)
			m.swap(files("acme", secret))
			f.reload(reloaded)
			f.wantGood(true, "acme", secret)
		})
	}
	t.Run("kubernetes/kubernetes#93686", func(t *testing.T) { // the files of two versions, read as one
		f.t = t
		m.swap(files("b", secretOf("b")))
		f.reload(reloaded)
		f.wantGood(true, "b", secretOf("b"))
		f.wantGood(false, "b", secretOf("kubernetes/kubernetes#112677"))
	})
}

// 200 swaps while tokens are verified: none of a tenant that is in all versions is refused.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	const swaps = 200
	version := func(i int) map[string]string {
		moved := fmt.Sprintf("moved%d", i%3) // the issuer moves from tenant to tenant
		return map[string]string{
			"keyturn.yaml": "tenants:\n" + tenantLine("acme", fmt.Sprintf(", other_issuers: [v%d]", i)) +
				strings.ReplaceAll(tenantLine("moved", ""), "id: moved", "id: "+moved) + tenantLine(fmt.Sprintf("t%d", i%2), ""),
			"acme.secret": secretOf("acme"), "moved.secret": secretOf("moved"), "t0.secret": secretOf("t0"), "t1.secret": secretOf("t1"),
		}
	}
	m := newConfigMap(t, version(0))
	f := follow(t, filepath.Join(m.dir, "keyturn.yaml"))
	stop, refused, asked := make(chan struct{}), new(atomic.Int64), new(atomic.Int64)
	var load sync.WaitGroup
	for i := range 4 {
		load.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := []string{"acme", "moved"}[(i+n)%2]
				req, _ := http.NewRequest("GET", f.url+"/api/x", nil)
				token := hs256(secretOf(id), plainHeader, in(time.Hour, fmt.Sprintf(`,"jti":"%d-%d","aud":"api","iss":"https://%s.example"`, i, n%7, id)))
				req.Header.Set("Authorization", "Bearer "+token)
				res, err := http.DefaultClient.Do(req)
				if err != nil || res.StatusCode != http.StatusOK {
					refused.Add(1)
				}
				if err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				asked.Add(1)
			}
		})
	}
	for i := 1; i <= swaps; i++ {
		m.swap(version(i))
		if i%2 == 0 { // the others come while the one before is read
			f.reload(reloaded)
		}
	}
	for asked.Load() < 1000 {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	load.Wait()
	if n := refused.Load(); n > 0 {
		t.Errorf("%d of %d verifications failed; log: %s", n, asked.Load(), f.log)
	}
	f.wantGood(true, "t0", secretOf("t0"))
	f.wantGood(false, "t1", secretOf("t1"))
	t.Logf("%d verifications, %d swaps, %d reloads", asked.Load(), swaps, strings.Count(f.log.String(), reloaded))
}
