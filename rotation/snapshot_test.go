package rotation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// keeping returns a change of a Config that keeps a snapshot in path.
func keeping(path string) func(*rotation.Config) {
	return func(c *rotation.Config) { c.Snapshot = path }
}

// restart opens an instance of f's store whose connection is refused, as it was after a restart.
func (f *fleet) restart(t *testing.T, path string, change ...func(*rotation.Config)) (*member, error) {
	t.Helper()
	m := &member{t: t, conn: f.cluster.Connect("again")}
	m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
	cfg := rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, Instance: "again", Snapshot: path}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if m.Keyring, err = rotation.Open(t.Context(), m.conn, cfg); err != nil {
		return nil, err
	}
	return m, nil
}

// abandon closes an instance that cannot reach the store: its acknowledgements stay there, if it has any.
func (m *member) abandon() { m.Close(context.Background()) }

func snapshotFile(t *testing.T) string { return filepath.Join(t.TempDir(), "snapshot") }

// Redis is away for an hour, and an instance that verifies restarts: it verifies from its snapshot, as
// long as it would have without the restart, signs nothing, and cannot tell about an unknown kid. When
// Redis is back, it is in sync like any other, and signs.
func TestRestartWhileStoreIsAway(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path, log := snapshotFile(t), new(logbook)
		f := newDerivedFleet(t, daily, keeping(path))
		time.Sleep(3 * time.Minute)
		first := f.kid(1)
		f.leave()
		complete := time.Now()
		time.Sleep(time.Hour)
		m, err := f.restart(t, path, logging(log))
		if err != nil {
			t.Fatal(err)
		}
		defer m.leave()
		if err := m.WaitReady(t.Context()); err != nil {
			t.Errorf("an instance that only verifies: %v", err)
		}
		s := m.Status()
		if !s.CanVerify || s.CanSign || s.Ready || s.Fresh || s.Err == nil || m.finds(first) != "found" || m.finds("new") != "unavailable" {
			t.Errorf("%+v; the key is %s, an unknown one %s", s, m.finds(first), m.finds("new"))
		}
		if m.signer, err = rotation.NewSigner(m.Keyring, rotation.SignerConfig{}); err != nil {
			t.Fatal(err)
		}
		if err := m.signs(); !errors.Is(err, rotation.ErrFenced) {
			t.Errorf("it signs: %v", err)
		}
		if r, err := rotation.NewRotator(m.Keyring); err != nil {
			t.Fatal(err)
		} else if _, err := r.Rotate(t.Context(), "acme"); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("it rotates: %v", err)
		}
		time.Sleep(time.Until(complete.Add(time.Hour + 15*time.Minute))) // SignFor and L
		if !m.Status().CanVerify || m.finds(first) != "found" {
			t.Errorf("just before the end: %+v", m.Status())
		}
		time.Sleep(time.Minute)
		if m.Status().CanVerify || m.finds(first) != "unavailable" {
			t.Errorf("after it: %+v, the key is %s", m.Status(), m.finds(first))
		}
		if got := log.with("ERROR this instance does not sign"); len(got) != 1 {
			t.Errorf("it signs nothing, and says: %q", got)
		}
		m.conn.SetFaults(rotationtest.Faults{})
		time.Sleep(2 * time.Minute)
		if s := m.Status(); !s.CanVerify || !s.CanSign || !s.Fresh || m.signs() != nil {
			t.Errorf("when the store is back: %+v, %v", s, m.signs())
		}
	})
}

// A process that is killed loses at most Freshness and a poll of its progress.
func TestSnapshotIsWrittenMeanwhile(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := newDerivedFleet(t, daily, keeping(path))
		time.Sleep(10 * time.Minute)
		killed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		f.leave()
		if after, err := os.ReadFile(path); err != nil || bytes.Equal(killed, after) {
			t.Errorf("Close leaves the old one: %v", err)
		}
		if err := os.WriteFile(path, killed, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := f.restart(t, path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.abandon()
		time.Sleep(time.Until(at.Add(time.Hour + 15*time.Minute + 30*time.Second - 90*time.Second)))
		if !m.Status().CanVerify {
			t.Errorf("it has lost more than 90s: %+v", m.Status())
		}
	})
}

// What is not this keyring's own is not used, and the reason has a name.
func TestSnapshotsThatAreNotUsed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := newDerivedFleet(t, daily, keeping(path))
		time.Sleep(3 * time.Minute)
		f.leave()
		other, err := rotation.NewKEKs([]byte("another KEK of thirty-two bytes!"))
		if err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(whole)
		changed[len(changed)-1] ^= 1
		for _, tt := range []struct {
			name   string
			file   []byte
			change func(*rotation.Config)
			is     error
			says   string
		}{
			{"another KEK", whole, func(c *rotation.Config) { c.KEKs = other }, rotation.ErrWrongKEK, "sealed under"},
			{"another realm", whole, func(c *rotation.Config) { c.Realm = "staging" }, rotation.ErrWrongRealm, "another realm"},
			{"changed", changed, func(*rotation.Config) {}, rotation.ErrTampered, "changed, cut short or forged"},
			{"no snapshot at all", []byte("something else"), func(*rotation.Config) {}, rotation.ErrMalformed, "not written by keyturn"},
			{"from the future", whole, func(c *rotation.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Minute) } }, nil, "the snapshot is from the future"},
		} {
			if err := os.WriteFile(path, tt.file, 0o600); err != nil {
				t.Fatal(err)
			}
			used, err := f.restart(t, path, tt.change)
			if used != nil {
				used.abandon()
			}
			if err == nil || !errors.Is(err, keystore.ErrUnavailable) || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v", tt.name, err)
			}
			log := new(logbook)
			m, err := f.restart(t, path, tt.change, logging(log), func(c *rotation.Config) { c.StoreMayBeAway = true })
			if err != nil {
				t.Fatal(err)
			}
			if lines := log.with("WARN the snapshot is not used"); len(lines) != 1 || !strings.Contains(lines[0], tt.says) || m.Status().CanVerify {
				t.Errorf("%s: %q, %+v", tt.name, lines, m.Status())
			}
			m.abandon()
			if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, tt.file) {
				t.Errorf("%s: an instance that has read nothing has replaced the file: %v", tt.name, err)
			}
		}
	})
}

// A namedStore has a name, as a store with a prefix has.
type namedStore struct {
	rotation.Store
	name string
}

func (s namedStore) Name() string { return s.name }

func TestSnapshotOfAnotherPrefix(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := newDerivedFleet(t, daily)
		defer f.leave()
		open := func(name string, cut rotationtest.Cut) error {
			conn := f.cluster.Connect("b")
			conn.SetFaults(rotationtest.Faults{Cut: cut})
			k, err := rotation.Open(t.Context(), namedStore{conn, name}, rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, Instance: "b", TrustFirstRead: true, Snapshot: path})
			if err == nil {
				time.Sleep(time.Minute)
				err = k.Close(context.Background())
			}
			return err
		}
		if err := open("kt", 0); err != nil {
			t.Fatal(err)
		}
		if err := open("other", rotationtest.Refused); err == nil || !strings.Contains(err.Error(), `the snapshot is of the store "kt", this one is "other"`) {
			t.Error(err)
		}
	})
}

// An old snapshot is played back: a key that was revoked since is accepted for as long as at an
// instance that was cut off since then, and no longer. With the store in reach it is rejected at once.
func TestOldSnapshotIsAnInstanceThatWasCutOff(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := newDerivedFleet(t, daily, keeping(path))
		time.Sleep(3 * time.Minute)
		first := f.kid(1)
		f.leave()
		old := time.Now()
		b := join(t, f.cluster, "b", derived)
		defer b.leave()
		if _, err := b.rotator.Revoke(t.Context(), "acme", first, rotation.Force); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		m, err := f.restart(t, path)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.finds(first); got != "found" {
			t.Errorf("what an instance that was cut off cannot know: %s", got)
		}
		time.Sleep(time.Until(old.Add(time.Hour + 15*time.Minute + 30*time.Second))) // SignFor, L and leeway
		if got := m.finds(first); got != "unavailable" {
			t.Errorf("the revoked key is %s", got)
		}
		if err := os.WriteFile(path+"2", mustRead(t, path), 0o600); err != nil {
			t.Fatal(err)
		}
		m.abandon()
		c := join(t, f.cluster, "c", keeping(path+"2"), func(c *rotation.Config) { c.Poll, c.Deadline = 0, 0 })
		defer c.leave()
		if _, err := c.Lookup(keystore.ID{Tenant: "acme", KID: first}, keystore.HS256); !errors.Is(err, keystore.ErrRevoked) {
			t.Errorf("in reach: %v", err)
		}
	})
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A snapshot has all of a ring: its keys and what happened to them, and accepted keys.
func TestSnapshotHasAllOfARing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := newDerivedFleet(t, daily, keeping(path))
		accepted := f.accept(day, theirs(1, "theirs")).Accepted
		time.Sleep(3 * time.Minute)
		if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Minute)
		before := tenantOf(t, f.member)
		f.leave()
		m, err := f.restart(t, path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.abandon()
		after := tenantOf(t, m)
		if !reflect.DeepEqual(before.Ring, after.Ring) || !reflect.DeepEqual(before.Accepted, after.Accepted) || !reflect.DeepEqual(before.Published, after.Published) || len(after.Accepted) != 1 {
			t.Errorf("%+v\n%+v", before, after)
		}
		if got := m.finds(accepted[0]); got != "found" || !after.CanVerify {
			t.Errorf("the accepted key is %s, CanVerify %v", got, after.CanVerify)
		}
		time.Sleep(time.Hour + 10*time.Minute) // SignFor, and less than L
		if got := m.finds(accepted[0]); got != "found" || !m.Status().CanVerify {
			t.Errorf("just before its end the accepted key is %s, CanVerify %v", got, m.Status().CanVerify)
		}
		time.Sleep(6 * time.Minute)
		if got := m.finds(accepted[0]); got != "unavailable" || m.Status().CanVerify {
			t.Errorf("after its end the accepted key is %s, CanVerify %v", got, m.Status().CanVerify)
		}
	})
}

// The store is emptied while all instances are down: one that starts with its snapshot puts the ring
// back, as an instance would that was cut off meanwhile.
func TestSnapshotRestoresEmptiedStore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := newDerivedFleet(t, daily, keeping(path))
		time.Sleep(3 * time.Minute)
		before, token := f.ring(), ""
		var err error
		if token, err = f.signer.Sign(t.Context(), "acme", nil); err != nil {
			t.Fatal(err)
		}
		f.leave()
		f.cluster.Wipe()
		m := join(t, f.cluster, "a", keeping(path), func(c *rotation.Config) { c.Poll, c.Deadline = 0, 0 })
		defer m.leave()
		if err := m.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if m.ring() != before || m.finds(kidOf(t, token)) != "found" || m.signs() != nil || len(f.cluster.Ring("acme")) == 0 {
			t.Errorf("the ring is %q, want %q; %v", m.ring(), before, m.signs())
		}
	})
}

// The file has nothing of a ring in the open: no KEK, no key, no name of a tenant and no kid.
func TestSnapshotLeaksNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := newDerivedFleet(t, daily, keeping(path))
		time.Sleep(3 * time.Minute)
		kid := f.kid(1)
		f.leave()
		blob := mustRead(t, path)
		for _, secret := range []string{"0123456789abcdef", "acme", kid, "head", "p:" + kid} {
			if bytes.Contains(blob, []byte(secret)) {
				t.Errorf("%q is in it", secret)
			}
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	})
}

// A command keeps nothing.
func TestSnapshotAndOneShot(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		_, err := rotation.Open(t.Context(), cluster.Connect("a"), rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, OneShot: true, Snapshot: "s"})
		if err == nil || !strings.Contains(err.Error(), "OneShot excludes") {
			t.Error(err)
		}
	})
}

// TestSnapshotOfForgedPublications: a person who can write to the store, and has no KEK, adds times of publication to
// a ring. Nothing else in a ring is not authentic. Each has a name that no snapshot has room for, or there are more than
// it has room for. The snapshot is written all the same, and the next start has the keys.
func TestSnapshotOfForgedPublications(t *testing.T) {
	forge := func(name string, n int) map[string][]byte {
		fields := make(map[string][]byte)
		for i := range n {
			fields[fmt.Sprintf("p:%s%x", name, i)] = []byte("1764421380000")
		}
		return fields
	}
	for name, forged := range map[string]map[string][]byte{
		"long": forge(strings.Repeat("x", 3<<10), 1), "no text": forge("\xff", 1), "many": forge("", 66_000),
	} {
		virtual(t, func(t *testing.T) {
			path := snapshotFile(t)
			f := newDerivedFleet(t, daily, keeping(path))
			f.cluster.EditRing("acme", func(fields map[string][]byte) { maps.Copy(fields, forged) })
			time.Sleep(3 * time.Minute)
			first := f.kid(1)
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Minute)
			f.leave()
			m, err := f.restart(t, path)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			defer m.abandon()
			if found := m.finds(first); found != "found" {
				t.Errorf("%s: the key is %s", name, found)
			}
		})
	}
}

// TestCloseTwiceAtOnce: two goroutines may close one keyring, as a handler of signals and a deferred call do. The snapshot
// is whole afterwards.
func TestCloseTwiceAtOnce(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := newDerivedFleet(t, daily, keeping(path))
		time.Sleep(3 * time.Minute)
		first := f.kid(1)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { f.Close(context.Background()) })
		}
		wg.Wait()
		m, err := f.restart(t, path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.abandon()
		if found := m.finds(first); found != "found" {
			t.Errorf("the key is %s", found)
		}
	})
}
