//go:build unix

package server

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The socket has its mode from the start, whatever the umask, and goes with the server.
func TestUnixSocket(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
		path := filepath.Join(t.TempDir(), "s")
		t.Run(mode.String(), func(t *testing.T) {
			running(t, Config{Unix: path, UnixMode: mode})
			info, err := os.Lstat(path)
			if err != nil || info.Mode() != fs.ModeSocket|mode {
				t.Fatalf("socket = %v, %v", info.Mode(), err)
			}
			dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}
			res, err := (&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}).Get("http://localhost/healthz")
			if err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("over the socket: %v, %v", res, err)
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".kt*")); len(left) > 0 || err != nil {
				t.Errorf("%q is left, %v", left, err)
			}
		})
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left at the end: %v", err)
		}
	}
}

// A socket that a killed server has left is replaced, and nothing else is: not a socket in use, not a
// file, and not what a link leads to.
func TestUnixSocketThatIsThere(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: at("stale"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	used, err := net.Listen("unix", at("used"))
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	if err := errors.Join(os.WriteFile(at("file"), []byte("precious"), 0o600), os.Symlink("file", at("link")), os.Symlink("used", at("linked")),
		os.Symlink("stale2", at("dangling")), os.Mkdir(at("folder"), 0o700), syscall.Mkfifo(at("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"used": syscall.EADDRINUSE, "file": errors.ErrUnsupported, "link": errors.ErrUnsupported, "linked": errors.ErrUnsupported,
		"dangling": errors.ErrUnsupported, "folder": errors.ErrUnsupported, "pipe": errors.ErrUnsupported, "missing/s": fs.ErrNotExist} {
		before, _ := os.Lstat(at(name))
		l, err := listenUnix(t.Context(), at(name), 0o600)
		if err == nil {
			l.Close()
			t.Errorf("%s: it listens", name)
		} else if want != errors.ErrUnsupported && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if after, _ := os.Lstat(at(name)); before != nil && !os.SameFile(before, after) {
			t.Errorf("%s was replaced", name)
		}
	}
	l, err := listenUnix(t.Context(), at("stale"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(t.Context(), at("stale"), 0o600); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second server: %v", err)
	}
	// Another program has taken the name meanwhile: it is no longer ours to remove.
	if err := errors.Join(os.Remove(at("stale")), os.WriteFile(at("stale"), nil, 0o600), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(at("stale")); err != nil {
		t.Errorf("the end removed another program's file: %v", err)
	}
}
