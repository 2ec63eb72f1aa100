package server

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A watchTest is a watcher of one file in memory, in a bubble of its own.
type watchTest struct {
	mu      sync.Mutex // guards the fields below; the test has it, except in after
	content string
	err     error // of reading
	refuse  error // of applying
	applied []string
	log     strings.Builder
	signal  chan os.Signal
}

// watched runs test with a watcher of a file that holds "old".
func watched(t *testing.T, every time.Duration, test func(*testing.T, *watchTest)) {
	synctest.Test(t, func(t *testing.T) {
		w := &watchTest{content: "old", signal: make(chan os.Signal, 1)}
		f := NewFile("the file", []byte("old"), func() ([]byte, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return []byte(w.content), w.err
		})
		f.apply = func(content []byte) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.refuse == nil {
				w.applied = append(w.applied, string(content))
			}
			return w.refuse
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			(&watcher{files: []*File{f}, reload: Reload{Every: every, Settle: settleFor, Signal: w.signal}, log: slog.New(slog.NewTextHandler(&w.log, nil))}).run(ctx)
		}()
		w.mu.Lock()
		test(t, w)
		w.mu.Unlock()
		cancel()
		<-ended
	})
}

// after lets time pass, and everything happen that is due.
func (w *watchTest) after(d time.Duration) {
	w.mu.Unlock()
	defer w.mu.Lock()
	time.Sleep(d)
	synctest.Wait()
}

func (w *watchTest) want(t *testing.T, applied ...string) {
	t.Helper()
	if !slices.Equal(w.applied, applied) {
		t.Errorf("applied = %q, want %q; log: %s", w.applied, applied, &w.log)
	}
}

func (w *watchTest) wantLines(t *testing.T, n int, phrase string) {
	t.Helper()
	if got := strings.Count(w.log.String(), phrase); got != n {
		t.Errorf("the log says %d times %q, want %d: %s", got, phrase, n, &w.log)
	}
}

func TestWatchAppliesNewContentOnce(t *testing.T) {
	watched(t, 10*time.Second, func(t *testing.T, w *watchTest) {
		w.after(time.Minute)
		w.want(t)
		w.content = "new"
		w.after(9 * time.Second)
		w.want(t)
		w.after(2 * time.Second) // the poll, and a second for it to settle
		w.want(t, "new")
		w.after(time.Minute)
		w.want(t, "new")
		w.content = "old"
		w.after(11 * time.Second)
		w.want(t, "new", "old")
		w.wantLines(t, 2, "a file is reloaded")
		w.wantLines(t, 2, "level=")
	})
}

// A file that is written step by step counts when it is whole.
func TestWatchWaitsForTheWholeFile(t *testing.T) {
	watched(t, 10*time.Second, func(t *testing.T, w *watchTest) {
		w.after(9900 * time.Millisecond)
		for _, part := range []string{"n", "ne", "new", "new c", "new co", "new con"} {
			w.content = part
			w.after(300 * time.Millisecond)
		}
		w.want(t)
		w.content = "new content"
		w.after(20 * time.Second)
		w.want(t, "new content")
		w.content = "" // truncated, and then the same again
		w.after(10 * time.Second)
		w.content = "new content"
		w.after(20 * time.Second)
		w.want(t, "new content")
		w.wantLines(t, 1, "it is empty")
	})
}

// What was in use stays in use. Each error is logged once, until there is another one or none.
func TestWatchKeepsTheLastGood(t *testing.T) {
	watched(t, 10*time.Second, func(t *testing.T, w *watchTest) {
		w.err = fs.ErrNotExist
		w.after(time.Minute)
		w.wantLines(t, 1, "level=WARN")
		w.wantLines(t, 1, `msg="a file is not reloaded: the last good version stays in use" file="the file" err="file does not exist"`)
		w.err = fs.ErrPermission
		w.after(time.Minute)
		w.wantLines(t, 2, "level=WARN")
		w.err = nil
		w.after(time.Minute)
		w.wantLines(t, 1, "a file is as it was")
		w.content, w.refuse = "bad", errors.New("line 1 is no key")
		w.after(time.Minute)
		w.wantLines(t, 3, "level=WARN")
		w.wantLines(t, 1, "line 1 is no key")
		w.want(t)
		w.refuse = nil // what it lacked has come
		w.after(10 * time.Second)
		w.want(t, "bad")
		w.err = fs.ErrNotExist
		w.after(time.Minute)
		w.wantLines(t, 2, "file does not exist")
		w.want(t, "bad")
	})
}

// A signal has the file read at once, and the operator gets an answer each time.
func TestWatchAtSignal(t *testing.T) {
	watched(t, -1, func(t *testing.T, w *watchTest) {
		w.content = "new"
		w.after(time.Hour)
		w.want(t) // a signal, and nothing else
		w.signal <- syscall.SIGHUP
		w.after(settleFor)
		w.want(t, "new")
		w.signal <- syscall.SIGHUP
		w.after(settleFor)
		w.wantLines(t, 1, "a file is as it was")
		w.err = fs.ErrNotExist
		for range 2 {
			w.signal <- syscall.SIGHUP
			w.after(settleFor)
		}
		w.wantLines(t, 2, "file does not exist")
	})
}

// The end does not wait for a content to settle.
func TestWatchEndsAtOnce(t *testing.T) {
	watched(t, 10*time.Second, func(t *testing.T, w *watchTest) {
		w.content = "new"
		w.after(10*time.Second + settleFor/2)
		begin := time.Now()
		t.Cleanup(func() {
			if d := time.Since(begin); d != 0 {
				t.Errorf("the end took %v", d)
			}
			w.want(t)
		})
	})
}

// Kubernetes changes a mounted file by a link: keyturn.yaml leads to ..data/keyturn.yaml, and ..data
// to a folder that is replaced as a whole.
func TestWatchFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	mount := func(version, content string) {
		t.Helper()
		next := filepath.Join(dir, "..data_tmp")
		if err := errors.Join(
			os.Mkdir(filepath.Join(dir, version), 0o700),
			os.WriteFile(filepath.Join(dir, version, "kek"), []byte(content), 0o600),
			os.Symlink(version, next),
			os.Rename(next, filepath.Join(dir, "..data")),
		); err != nil {
			t.Fatal(err)
		}
	}
	mount("..1", "old")
	path := filepath.Join(dir, "kek")
	if err := os.Symlink("..data/kek", path); err != nil {
		t.Fatal(err)
	}
	var got []string
	f := NewFile("kek", []byte("old"), func() ([]byte, error) { return os.ReadFile(path) })
	f.apply = func(content []byte) error { got = append(got, string(content)); return nil }
	looks := func(want ...outcome) {
		t.Helper()
		for _, want := range want {
			if o, err := f.look(); o != want || err != nil {
				t.Errorf("look = %v, %v, want %v", o, err, want)
			}
		}
	}
	looks(unchanged)
	mount("..2", "new")
	looks(unsettled, applied, unchanged)
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	mount("..3", "newer")
	looks(unsettled)
	mount("..4", "newest")
	looks(unsettled, applied, unchanged)
	if want := []string{"new", "newest"}; !slices.Equal(got, want) {
		t.Errorf("applied = %q, want %q", got, want)
	}
}
