package jwks_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A diskTest is a folder that holds the set of a process that has ended.
type diskTest struct {
	dir, file string
	saved     []byte // the content of file
	cfg       jwks.SourceConfig
}

// saveSet runs a process that saves its set.
func saveSet(t *testing.T, cfg jwks.SourceConfig) *diskTest {
	t.Helper()
	d := &diskTest{dir: filepath.Join(t.TempDir(), "sets"), cfg: cfg}
	d.restart(t, 0, false, func(t *testing.T, w *world, s *jwks.Source) {
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		d.file = filepath.Join(d.dir, jwks.File(s))
	})
	var err error
	if d.saved, err = os.ReadFile(d.file); err != nil {
		t.Fatal(err)
	}
	return d
}

// restart runs another process, some time after the first.
func (d *diskTest) restart(t *testing.T, after time.Duration, outage bool, test func(t *testing.T, w *world, s *jwks.Source)) {
	t.Helper()
	virtual(t, func(t *testing.T) {
		t.Helper()
		time.Sleep(after)
		w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Dir: d.dir})
		if outage {
			w.issuer.Misbehave(jwkstest.Status(500))
		}
		test(t, w, w.open(d.cfg))
	})
}

func TestSetIsSaved(t *testing.T) {
	d := saveSet(t, jwks.SourceConfig{})
	info, err := os.Stat(d.file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v: want mode 0600", info, err)
	}
	if info, _ := os.Stat(d.dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v", info.Mode())
	}
	entries, _ := os.ReadDir(d.dir)
	if len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
}

func TestSavedSetComesBackStale(t *testing.T) {
	d := saveSet(t, jwks.SourceConfig{})
	d.restart(t, time.Hour, true, func(t *testing.T, w *world, s *jwks.Source) {
		if st := s.Status(); st.State != jwks.Stale || st.Age != time.Hour {
			t.Errorf("state %v, age %v", st.State, st.Age)
		}
		if _, err := get(s, "a"); err != nil {
			t.Fatal(err)
		}
		w.wantLookup(s, "unknown", keystore.ErrUnavailable)
		if err := s.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := w.issuer.Requests()[0].Header.Get("If-None-Match"); got != "" {
			t.Errorf("the first request was conditional: %q", got)
		}
		for s.Status().State == jwks.Stale {
			if _, err := get(s, "a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
		}
		if age := s.Status().Age; age != 4*time.Hour {
			t.Errorf("expired after %v", age)
		}
		// The issuer decides again once it answers.
		w.issuer.Behave()
		time.Sleep(6 * time.Minute)
		w.wantKey(s, w.a)
	})
}

func TestSavedSetThatIsNotUsed(t *testing.T) {
	d := saveSet(t, jwks.SourceConfig{})
	saved := string(d.saved)
	for _, tt := range []struct {
		name    string
		after   time.Duration
		mode    os.FileMode
		content string
	}{
		{"too old", 4 * time.Hour, 0o600, saved},
		{"of the future", 0, 0o600, strings.Replace(saved, `"2000-`, `"2001-`, 1)},
		{"others may write it", time.Hour, 0o622, saved},
		{"torn", time.Hour, 0o600, saved[:len(saved)/2]},
		{"of another source", time.Hour, 0o600, strings.Replace(saved, `"source":"`, `"source":"0`, 1)},
		{"empty", time.Hour, 0o600, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := errors.Join(os.WriteFile(d.file, []byte(tt.content), 0o600), os.Chmod(d.file, tt.mode)); err != nil {
				t.Fatal(err)
			}
			d.restart(t, tt.after, true, func(t *testing.T, w *world, s *jwks.Source) {
				w.wantState(s, jwks.Cold)
				w.wantLookup(s, "a", keystore.ErrUnavailable)
				if !strings.Contains(w.log.String(), "not used") {
					t.Error("it is not in the log")
				}
			})
		})
	}
	t.Run("a link", func(t *testing.T) {
		if err := errors.Join(os.Remove(d.file), os.WriteFile(d.file+"2", d.saved, 0o600), os.Symlink(d.file+"2", d.file)); err != nil {
			t.Fatal(err)
		}
		d.restart(t, time.Hour, true, func(t *testing.T, w *world, s *jwks.Source) { w.wantState(s, jwks.Cold) })
	})
}

// A source is not given what another one saved whose settings let in more, or other things.
func TestSavedSetIsForSameSettings(t *testing.T) {
	for _, tt := range []struct {
		name         string
		saves, reads jwks.SourceConfig
		want         jwks.State
	}{
		{name: "the same", saves: allowing("10.0.0.0/8", "fd00::/8"), reads: allowing("fd00::/8", "10.9.9.9/8"), want: jwks.Stale},
		{name: "other networks", saves: allowing("10.0.0.0/8"), reads: allowing("10.0.0.0/9")},
		{name: "loopback", saves: jwks.SourceConfig{AllowLoopback: true}},
		{name: "redirects", saves: jwks.SourceConfig{AllowRedirects: true}},
		{name: "empty sets", saves: jwks.SourceConfig{AcceptEmpty: true}},
		{name: "a longer outage", saves: jwks.SourceConfig{StaleIfError: 5 * time.Hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := saveSet(t, tt.saves)
			d.cfg = tt.reads
			d.restart(t, time.Hour, true, func(t *testing.T, w *world, s *jwks.Source) { w.wantState(s, tt.want) })
		})
	}
}

func allowing(networks ...string) (cfg jwks.SourceConfig) {
	for _, n := range networks {
		cfg.AllowCIDR = append(cfg.AllowCIDR, netip.MustParsePrefix(n))
	}
	return cfg
}

// Files that can never be used again are removed: of sources that are gone, of other settings, and of
// versions that named them otherwise. Other files stay.
func TestOldSavedSetsAreRemoved(t *testing.T) {
	d := saveSet(t, jwks.SourceConfig{})
	name := filepath.Base(d.file)
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of every bubble
	young := strings.Repeat("1", 64) + ".jwks"
	files := map[string]bool{ // whether it stays
		strings.Repeat("0", 64) + ".jwks": false, name + ".123.tmp": false,
		"notes.jwks": true, name + ".bak": true, young: true,
	}
	for file := range files {
		path, at := filepath.Join(d.dir, file), start.Add(-24*time.Hour)
		if file == young {
			at = at.Add(2 * time.Hour)
		}
		if err := errors.Join(os.WriteFile(path, d.saved, 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	d.restart(t, time.Hour, false, func(t *testing.T, w *world, s *jwks.Source) {
		synctest.Wait()
		w.wantState(s, jwks.Fresh)
	})
	files[name] = true
	for file, stays := range files {
		if _, err := os.Stat(filepath.Join(d.dir, file)); (err == nil) != stays {
			t.Errorf("%s: %v, want that it stays: %v", file, err, stays)
		}
	}
}

// If the folder cannot be written, only the file is missing: keys are served.
func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	virtual(t, func(t *testing.T) {
		w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Dir: filepath.Join(file, "x")})
		s := w.ready(jwks.SourceConfig{})
		w.busy(s, w.a, time.Hour)
	})
}
