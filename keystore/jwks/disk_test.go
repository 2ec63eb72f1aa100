package jwks_test

import (
	"errors"
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
}

// saveSet runs a process that saves its set.
func saveSet(t *testing.T) *diskTest {
	t.Helper()
	d := &diskTest{dir: filepath.Join(t.TempDir(), "sets")}
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
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		time.Sleep(after)
		w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Dir: d.dir})
		if outage {
			w.issuer.Misbehave(jwkstest.Status(500))
		}
		test(t, w, w.open(jwks.SourceConfig{}))
	})
}

func TestSetIsSaved(t *testing.T) {
	d := saveSet(t)
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
	d := saveSet(t)
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
	d := saveSet(t)
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

// If the folder cannot be written, only the file is missing: keys are served.
func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Dir: filepath.Join(file, "x")})
		s := w.ready(jwks.SourceConfig{})
		w.busy(s, w.a, time.Hour)
	})
}
