package middleware_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// A nodeReaders is a Node process with JWK Set readers of other projects.
type nodeReaders struct {
	stdin  io.Writer
	stdout *bufio.Scanner
}

func startReaders(t *testing.T, url string) *nodeReaders {
	t.Helper()
	const folder = "testdata/node"
	_, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat(folder + "/node_modules")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("node or its packages are missing (make setup brings them): %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "readers.mjs", url)
	cmd.Dir, cmd.Stderr = folder, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	return &nodeReaders{stdin, bufio.NewScanner(stdout)}
}

// verify asks a library about a token. A fresh reader has not read the set yet.
func (n *nodeReaders) verify(t *testing.T, lib, token string, fresh bool) (subject, problem string) {
	t.Helper()
	line, err := json.Marshal(map[string]any{"lib": lib, "token": token, "fresh": fresh})
	if err != nil {
		t.Fatal(err)
	}
	n.stdin.Write(append(line, '\n'))
	var got struct{ Subject, Error string }
	if !n.stdout.Scan() || json.Unmarshal(n.stdout.Bytes(), &got) != nil {
		t.Fatalf("node answered %q, %v", n.stdout.Text(), n.stdout.Err())
	}
	return got.Subject, got.Error
}

// oldRing makes an ES256 ring whose pending key was published a minute ago, so that it may
// sign already.
func oldRing(t *testing.T) (*rotation.Keyring, *rotation.Rotator) {
	t.Helper()
	m := miniredis.RunT(t)
	client, err := rediskeys.Open("redis://" + m.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	store, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		t.Fatal(err)
	}
	open := func(now func() time.Time) (*rotation.Keyring, *rotation.Rotator) {
		k, err := rotation.Open(t.Context(), store, rotation.Config{
			KEKs: rotation.InsecurePlaintext(), Tenants: []string{"globex"}, TrustFirstRead: true, Now: now,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close(context.WithoutCancel(t.Context())) })
		r, err := rotation.NewRotator(k)
		if err != nil {
			t.Fatal(err)
		}
		return k, r
	}
	then := time.Now().Add(-time.Minute)
	m.SetTime(then)
	_, r := open(func() time.Time { return then })
	policy := rotation.Policy{Algorithm: keystore.ES256, Freshness: 6 * time.Second, ClockSkew: time.Second, Dwell: time.Second, ReaderStaleness: time.Second}
	if _, err := r.Create(t.Context(), "globex", policy); err != nil {
		t.Fatal(err)
	}
	m.SetTime(time.Time{})
	return open(time.Now)
}

// Readers of other projects, with their defaults, accept tokens across a rotation. So does a
// reader that never asks again, since the next key was in the set before it signed. A reader
// that starts after a revocation refuses the tokens of the revoked key.
func TestJWKSReaders(t *testing.T) {
	skipUnderFIPS(t)
	k, r := oldRing(t)
	signer, err := rotation.NewSigner(k, rotation.SignerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	sign := func() string {
		t.Helper()
		token, err := signer.Sign(t.Context(), "globex", map[string]any{"sub": "bob"})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	var fetches atomic.Int32
	jwks := middleware.JWKS(k, middleware.OneTenant("globex"))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fetches.Add(1)
		jwks.ServeHTTP(w, req)
	}))
	defer srv.Close()
	readers := startReaders(t, srv.URL+"/.well-known/jwks.json")
	libs := []string{"jose", "jwks-rsa", "fast-jwt"}
	accepts := func(lib, token, when string, fresh bool) {
		t.Helper()
		if subject, problem := readers.verify(t, lib, token, fresh); subject != "bob" {
			t.Errorf("%s, %s: %q, %s", lib, when, subject, problem)
		}
	}

	old := sign()
	for _, lib := range libs {
		accepts(lib, old, "at first", false)
	}
	if _, err := r.Rotate(t.Context(), "globex"); err != nil {
		t.Fatal(err)
	}
	turned := sign()
	before := fetches.Load()
	for _, lib := range libs {
		accepts(lib, turned, "after a rotation", false)
		accepts(lib, old, "after a rotation, the old token", false)
		// The other readers keep single keys instead of the set, and ask for each new kid.
		if n := fetches.Load() - before; lib == "jose" && n > 0 {
			t.Errorf("%s fetched %d times more", lib, n)
		}
	}

	status, err := k.Tenant("globex")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Revoke(t.Context(), "globex", status.Ring.Keys[0].KID); err != nil {
		t.Fatal(err)
	}
	for _, lib := range libs {
		accepts(lib, turned, "after a revocation", true)
		if subject, problem := readers.verify(t, lib, old, true); subject != "" || problem == "" {
			t.Errorf("%s accepts a token of a revoked key: %q", lib, subject)
		}
	}
}
