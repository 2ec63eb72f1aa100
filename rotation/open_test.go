package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// One bucket cannot be read when the keyring is opened, as when a server of a Cluster is
// away: the others go on, and it is caught up with.
func TestOpenWithoutOneServer(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		for _, tenant := range []string{"acme", "globex"} {
			create(t, cluster, tenant, fast)
		}
		conn := cluster.Connect("a")
		conn.SetFaults(rotationtest.Faults{LostBuckets: func(b int) bool { return b == rotation.BucketOf("globex") }})
		k, err := rotation.Open(t.Context(), conn, rotation.Config{KEKs: testKEK, Tenants: []string{"acme", "globex"}, Poll: fastPoll,
			Deadline: fastDeadline, TrustFirstRead: true})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close(t.Context())
		one, _ := k.Tenant("acme")
		other, _ := k.Tenant("globex")
		if !one.Ready || other.Ready || other.Err == nil || k.Status().Ready {
			t.Errorf("acme %v, globex %v (%v), all %v", one.Ready, other.Ready, other.Err, k.Status().Ready)
		}
		conn.SetFaults(rotationtest.Faults{})
		if err := k.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Who waits for a ring that nobody has made is told so, once.
func TestMissingRingIsLogged(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var out lockedBuffer
		m := join(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}), "a", func(c *rotation.Config) {
			c.Logger = slog.New(slog.NewTextHandler(&out, nil))
		})
		defer m.leave()
		if err := m.Status().Err; err == nil || !strings.Contains(err.Error(), "in doubt for another 2s") {
			t.Errorf("Status: %v", err)
		}
		time.Sleep(10 * time.Second)
		if n := strings.Count(out.String(), "no ring of the tenant"); n != 1 {
			t.Errorf("said %d times:\n%s", n, out.String())
		}
	})
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		other, _ := rotation.NewKEKs([]byte("another KEK, another KEK, anothe"))
		open := func(change func(*rotation.Config), faults rotationtest.Faults) error {
			conn := f.cluster.Connect("new")
			conn.SetFaults(faults)
			cfg := rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, Instance: "new"}
			change(&cfg)
			k, err := rotation.Open(t.Context(), conn, cfg)
			if k != nil {
				k.Close(t.Context())
			}
			return err
		}
		none := func(*rotation.Config) {}
		for _, tt := range []struct {
			name   string
			change func(*rotation.Config)
			faults rotationtest.Faults
			is     error
			says   string
		}{
			{"nothing", none, rotationtest.Faults{}, nil, ""},
			{"the wrong KEK", func(c *rotation.Config) { c.KEKs = other }, rotationtest.Faults{}, rotation.ErrWrongKEK, "KEK"},
			{"no KEK", func(c *rotation.Config) { c.KEKs = nil }, rotationtest.Faults{}, nil, "Config.KEKs"},
			{"no store", none, rotationtest.Faults{Cut: rotationtest.Refused}, keystore.ErrUnavailable, "refused"},
			{"a store that hangs", none, rotationtest.Faults{Cut: rotationtest.BlackHole}, keystore.ErrUnavailable, ""},
			{"a poll that is too slow", func(c *rotation.Config) { c.Poll = 3 * time.Second }, rotationtest.Faults{}, nil, "Freshness >= 3 (1.2 Poll + Deadline)"},
			{"bootstrap of whom", func(c *rotation.Config) { c.Tenants, c.AllowBootstrap = nil, true }, rotationtest.Faults{}, nil, "Config.Tenants"},
			{"an empty tenant", func(c *rotation.Config) { c.Tenants = []string{""} }, rotationtest.Faults{}, nil, "Config.Tenants"},
		} {
			err := open(tt.change, tt.faults)
			switch {
			case tt.is == nil && tt.says == "" && err != nil:
				t.Errorf("%s: %v", tt.name, err)
			case tt.is != nil && !errors.Is(err, tt.is):
				t.Errorf("%s: %v, want %v", tt.name, err, tt.is)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("%s: %v does not say %q", tt.name, err, tt.says)
			}
		}
	})
}

// A keyring of all tenants answers for all that the store has. One ring that cannot be read does not keep
// it from serving the others.
func TestKeyringOfAllTenantsIsReadyForThoseThatCanBeRead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ruin  func(*rotationtest.Cluster)
		trust bool
		wait  time.Duration // cut off
		says  string
		ready bool
	}{
		{"one ring cannot be opened", func(c *rotationtest.Cluster) {
			c.EditRing("acme", func(fields map[string][]byte) {
				for name := range fields {
					if name != "head" && !strings.HasPrefix(name, "p:") {
						fields[name][8] ^= 1
					}
				}
			})
		}, true, 0, `"acme"`, true},
		{"an empty store, in doubt", func(c *rotationtest.Cluster) { c.Wipe() }, false, 0, "", false},
		{"an empty store, out of reach before doubt ends", func(c *rotationtest.Cluster) { c.Wipe() }, false, 10 * time.Second, "refused", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
				m := join(t, cluster, "a", trusting, of("acme", "globex"))
				for _, tenant := range []string{"acme", "globex"} {
					if _, err := m.rotator.Create(t.Context(), tenant, fast); err != nil {
						t.Fatal(err)
					}
				}
				m.leave()
				tt.ruin(cluster)
				all := join(t, cluster, "all", of(), func(c *rotation.Config) { c.TrustFirstRead = tt.trust })
				defer all.leave()
				if tt.wait > 0 {
					all.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
					time.Sleep(tt.wait)
					all.conn.SetFaults(rotationtest.Faults{})
				}
				if s := all.Status(); s.Ready != tt.ready || s.CanSign != tt.ready || s.Fresh || s.Err == nil || !strings.Contains(s.Err.Error(), tt.says) {
					t.Errorf("ready %v, fresh %v: %v", s.Ready, s.Fresh, s.Err)
				}
			})
		})
	}
}

// Anyone can write names. One without a ring is let go of, and one whose ring cannot
// be read is not.
func TestKeyringOfAllTenantsHoldsNoNamesWithoutRing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		stranger := f.cluster.Connect("stranger")
		name := func(tenants ...string) {
			for _, tenant := range tenants {
				junk := rotation.Change{Tenant: tenant, Nonce: tenant, Set: map[string][]byte{"k:x": []byte("junk")}}
				if result, err := stranger.Write(t.Context(), junk); err != nil || result.Code != rotation.Committed {
					t.Fatal(result, err)
				}
			}
		}
		name("ghost-1", "junk")
		f.cluster.DeleteRing("ghost-1")
		all := join(t, f.cluster, "all", trusting, of())
		defer all.leave()
		holds := func(want string) {
			t.Helper()
			if got := fmt.Sprint(all.Keyring); got != "keyring of "+want || all.Serves("ghost-1") {
				t.Errorf("it is a %s, want one of %s", got, want)
			}
		}
		holds("2 tenants") // acme, and what may be a ring
		all.conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
		name("ghost-2", "ghost-3")
		f.cluster.DeleteRing("ghost-2") // the log has the name still
		time.Sleep(2 * fastPoll)
		holds("3 tenants")
		f.cluster.DeleteRing("ghost-3")
		f.cluster.DeleteRing("junk")
		time.Sleep(2 * fast.Freshness)
		holds("one tenant")
	})
}

// Open is the first complete read of something: not of nothing.
func TestOpenNeedsReadOfOneRing(t *testing.T) {
	for _, tt := range []struct {
		name    string
		tenants []string
		opens   bool
	}{
		{"the only ring cannot be read", []string{"acme"}, false},
		{"one of two can", []string{"acme", "globex"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				store := &faultyStore{Store: f.cluster.Connect("x"), load: func(tenant string) error {
					if tenant == "acme" {
						return errors.New("NOPERM")
					}
					return nil
				}}
				k, err := rotation.Open(t.Context(), store, rotation.Config{KEKs: testKEK, Tenants: tt.tenants, Instance: "x"})
				if opens := err == nil; opens != tt.opens || !opens && !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("Open: %v", err)
				}
				if k == nil {
					return
				}
				defer k.Close(t.Context())
				if s := k.Status(); s.Ready {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// Close waits for all that Open has started, whatever the store does; what waits for
// the keyring ends with it.
func TestCloseLeavesNothingRunning(t *testing.T) {
	for _, cut := range []rotationtest.Cut{rotationtest.Connected, rotationtest.Refused, rotationtest.BlackHole} {
		t.Run(fmt.Sprint("cut ", int(cut)), func(t *testing.T) {
			running := goleak.IgnoreCurrent()
			cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
			m := join(t, cluster, "a", derived)
			if _, err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
				t.Fatal(err)
			}
			run, ready := make(chan error, 1), make(chan error, 1)
			go func() { run <- m.rotator.Run(context.Background()) }()
			empty := join(t, cluster, "b", of("globex"))
			go func() { ready <- empty.WaitReady(context.Background()) }()
			m.conn.SetFaults(rotationtest.Faults{Cut: cut})
			if err := m.Close(t.Context()); (err == nil) != (cut == rotationtest.Connected) {
				t.Errorf("Close: %v", err)
			}
			if err := within(t, run); err != nil {
				t.Errorf("Run: %v", err)
			}
			empty.leave()
			if err := within(t, ready); err == nil {
				t.Error("WaitReady of a closed keyring: ready")
			}
			goleak.VerifyNone(t, running)
		})
	}
}

// A poll that Close calls off says nothing of the store, and is not logged as an outage.
func TestClosingIsNoOutage(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var out lockedBuffer
		m := join(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}), "a", func(c *rotation.Config) {
			c.TrustFirstRead, c.Logger = true, slog.New(slog.NewTextHandler(&out, nil))
		})
		if _, err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		time.Sleep(310 * time.Millisecond) // a poll has begun, and has some of its deadline left
		if err := m.Close(t.Context()); err == nil {
			t.Error("Close: the acknowledgements cannot have been removed")
		}
		if strings.Contains(out.String(), "cannot be reached") {
			t.Errorf("logged: %s", out.String())
		}
	})
}

func TestOneShotLeavesNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		before := f.ops()
		once := join(t, f.cluster, "command", func(c *rotation.Config) { c.OneShot = true })
		if _, err := once.signer.Sign(t.Context(), "acme", nil); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		once.leave()
		acks, _, err := f.conn.Acks(t.Context(), rotation.BucketOf("acme"))
		if err != nil || len(acks) != 1 || acks[0].Instance != "a" {
			t.Errorf("acks: %v, %v", acks, err)
		}
		if f.ops() != before {
			t.Errorf("it wrote: %s", f.ops())
		}
	})
}
