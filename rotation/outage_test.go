package rotation_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/keystoretest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// The table "When Redis is away" of docs/rotation.md, row by row.
func TestWhileTheStoreIsAway(t *testing.T) {
	for _, cut := range []rotationtest.Cut{rotationtest.Refused, rotationtest.BlackHole} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				time.Sleep(4 * time.Second)
				f.conn.SetFaults(rotationtest.Faults{Cut: cut})
				one, two := f.kid(1), f.kid(2)
				good := f.Status().LastGood
				until := func(d time.Duration) { time.Sleep(time.Until(good.Add(d))) }

				until(fast.Freshness - time.Millisecond)
				if s := f.Status(); !s.Fresh || !s.Ready || f.finds("new") != "not found" {
					t.Errorf("up to F: %+v, an unknown kid is %s", s, f.finds("new"))
				}
				until(fast.Freshness + time.Millisecond)
				if s := f.Status(); s.Fresh || !s.Ready || s.Err == nil || f.finds("new") != "unavailable" {
					t.Errorf("beyond F: %+v, an unknown kid is %s", s, f.finds("new"))
				}
				if err := f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "new"}); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrNotFound) {
					t.Errorf("Refresh: %v", err)
				}
				until(fast.SignFor - time.Millisecond)
				token, err := f.signer.Sign(t.Context(), "acme", nil)
				if err != nil || kidOf(t, token) != two {
					t.Errorf("the scheduled switch did not happen: %v, %s", err, f.ring())
				}
				until(fast.SignFor + time.Millisecond)
				if _, err := f.signer.Sign(t.Context(), "acme", nil); !errors.Is(err, rotation.ErrFenced) {
					t.Errorf("beyond SignFor: %v, want ErrFenced", err)
				}
				if s := f.Status(); s.Ready {
					t.Errorf("beyond SignFor: %+v", s)
				}
				until(fast.SignFor + fast.MaxTokenTTL + fast.Leeway - time.Millisecond)
				// The first may have been dropped, for all that is known: 401 would be a guess.
				if f.finds(one) != "unavailable" || f.finds(two) != "found" {
					t.Errorf("known keys are %s and %s", f.finds(one), f.finds(two))
				}
				until(fast.SignFor + fast.MaxTokenTTL + fast.Leeway)
				if got := f.finds(two); got != "unavailable" {
					t.Errorf("when nothing that they signed can live any more the key is %s, want unavailable", got)
				}
				f.conn.SetFaults(rotationtest.Faults{})
				if err := f.WaitReady(t.Context()); err != nil || f.finds(two) != "found" {
					t.Errorf("afterwards: %v, the key is %s", err, f.finds(two))
				}
			})
		})
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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

// Whoever can write the store but has no KEK can delay, and no more.
func TestTheStoreIsTamperedWith(t *testing.T) {
	tests := []struct {
		name   string
		tamper func(f *fleet, fields map[string][]byte)
	}{
		{"a record is deleted", func(f *fleet, fields map[string][]byte) { delete(fields, "k:"+f.kid(2)) }},
		{"all is deleted", func(_ *fleet, fields map[string][]byte) { clear(fields) }},
		{"the tenant key is deleted", func(_ *fleet, fields map[string][]byte) {
			maps.DeleteFunc(fields, func(name string, _ []byte) bool { return strings.HasPrefix(name, "tk:") })
		}},
		{"a revocation is deleted", func(f *fleet, fields map[string][]byte) { delete(fields, "x:"+f.kid(3)) }},
		{"the head is garbled", func(_ *fleet, fields map[string][]byte) { fields["head"] = []byte("-7") }},
		{"the head is deleted", func(_ *fleet, fields map[string][]byte) { delete(fields, "head") }},
		{"publication is put back", func(f *fleet, fields map[string][]byte) { fields["p:"+f.kid(2)] = []byte("1") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				time.Sleep(3 * time.Second)
				if err := f.rotator.SetPolicy(t.Context(), "acme", fast); err != nil {
					t.Fatal(err)
				}
				if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(3))); err != nil {
					t.Fatal(err)
				}
				want := f.ring()
				f.cluster.EditRing("acme", func(fields map[string][]byte) { tt.tamper(f, fields) })
				time.Sleep(fast.Freshness)
				wantRing(t, f.member, want)
				if s := f.Status(); !s.Fresh {
					t.Errorf("after F: %+v", s)
				}
				// Whoever opens it now finds the same.
				fresh := join(t, f.cluster, "fresh", func(c *rotation.Config) { c.OneShot = true })
				defer fresh.leave()
				s, _ := fresh.Tenant("acme")
				if !strings.Contains(fresh.ring(), "3=revoked") || len(s.Ring.Keys) != 3 {
					t.Errorf("the store has %s", fresh.ring())
				}
			})
		})
	}
}

// Any byte of what is authenticated: the keys of the member that holds them go on,
// nobody takes what was changed, and what can be put back is.
func TestEveryByteIsAuthenticated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		time.Sleep(3500 * time.Millisecond)
		if err := errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(2))); err != nil {
			t.Error(err)
		}
		f.leave()
		original := f.cluster.Ring("acme")
		for _, name := range slices.Sorted(maps.Keys(original)) {
			if name == "head" || strings.HasPrefix(name, "p:") {
				continue
			}
			for i := range original[name] {
				f.cluster.EditRing("acme", func(fields map[string][]byte) {
					clear(fields)
					for n, v := range original {
						fields[n] = bytes.Clone(v)
					}
					fields[name][i] ^= 1 << (i % 8)
				})
				k, err := rotation.Open(t.Context(), f.cluster.Connect("x"), rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, Instance: "x", OneShot: true})
				if err != nil {
					continue // the wrong KEK, by name
				}
				s, _ := k.Tenant("acme")
				if s.Fresh || s.Err == nil {
					t.Errorf("byte %d of %s: nothing is noticed: %+v", i, name, s)
				}
				k.Close(t.Context())
			}
		}
	})
}

func TestARingOfAnotherTenantIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		both := func(c *rotation.Config) { c.TrustFirstRead, c.Tenants = true, []string{"acme", "globex"} }
		m := join(t, cluster, "a", both)
		for _, tenant := range []string{"acme", "globex"} {
			if err := m.rotator.Create(t.Context(), tenant, fast); err != nil {
				t.Fatal(err)
			}
		}
		globex, _ := m.Tenant("globex")
		defer m.leave()
		stolen := cluster.Ring("globex")
		cluster.EditRing("acme", func(fields map[string][]byte) { maps.Copy(fields, stolen) })
		time.Sleep(fast.Freshness)
		if got := m.finds(globex.Ring.Keys[0].KID); got == "found" {
			t.Error("acme verifies a key of globex")
		}
		s, _ := m.Tenant("acme")
		if s.Fresh || !errors.Is(s.Err, rotation.ErrTampered) || s.Ring.Signer < 0 {
			t.Errorf("%+v", s)
		}
		if other, _ := m.Tenant("globex"); !other.Fresh {
			t.Errorf("globex suffers: %+v", other)
		}
	})
}

func TestAnOldRingIsReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		old := f.cluster.Ring("acme")
		time.Sleep(4 * time.Second)
		one := f.kid(1)
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", one)); err != nil {
			t.Fatal(err)
		}
		f.cluster.EditRing("acme", func(fields map[string][]byte) {
			clear(fields)
			maps.Copy(fields, old)
		})
		time.Sleep(fast.Freshness)
		if got := f.finds(one); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
		later := join(t, f.cluster, "later", func(c *rotation.Config) { c.OneShot = true })
		defer later.leave()
		if got := later.finds(one); got != "not found" {
			t.Errorf("for a newcomer the revoked key is %s: the revocation was not put back", got)
		}
	})
}

// Freshness moves to when a sync was asked for: what is written while the reply is under
// way is not in it.
func TestFreshnessIsThatOfTheRequest(t *testing.T) {
	const slow = fastDeadline - time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(time.Second)
		f.conn.SetFaults(rotationtest.Faults{After: slow})
		for n := f.conn.Calls(); f.conn.Calls() == n; {
			time.Sleep(time.Millisecond)
		}
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused}) // from the next call on
		defer f.conn.SetFaults(rotationtest.Faults{})
		asked := time.Now()
		time.Sleep(slow)
		s, _ := f.Tenant("acme")
		if before := asked.Sub(s.LastGood); before < 0 || before > time.Millisecond {
			t.Errorf("the last good sync was %v ago, asked for %v ago", time.Since(s.LastGood), time.Since(asked))
		}
		for _, tt := range []struct {
			after        time.Duration
			fresh, signs bool
		}{{fast.Freshness, true, true}, {fast.Freshness + 1, false, true}, {fast.SignFor, false, true}, {fast.SignFor + 1, false, false}} {
			time.Sleep(time.Until(s.LastGood.Add(tt.after)))
			now, _ := f.Tenant("acme")
			if err := f.signs(); now.Fresh != tt.fresh || (err == nil) != tt.signs || !tt.signs && !errors.Is(err, rotation.ErrFenced) {
				t.Errorf("%v later: fresh %v; Sign: %v", tt.after, now.Fresh, err)
			}
		}
	})
}

func TestUnknownKidsCostLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(10 * time.Second)
		before := f.conn.Calls()
		var wg sync.WaitGroup
		for i := range 10_000 {
			wg.Go(func() {
				err := f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: fmt.Sprint("unknown-", i%5000)})
				if !errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("%v", err)
				}
			})
			if i%100 == 99 {
				time.Sleep(40 * time.Millisecond) // 4 s in all
			}
		}
		wg.Wait()
		polls := 4 * 5 // at most
		if calls := f.conn.Calls() - before; calls > polls+3+5 {
			t.Errorf("%d calls for 10 000 unknown kids in 4 s, want at most 3 and one a second beside the polls", calls)
		}
		for _, kid := range []string{strings.Repeat("k", 1<<20), "{}", "\x00", ""} {
			if err := f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: kid}); !errors.Is(err, keystore.ErrNotFound) {
				t.Errorf("%.10q: %v", kid, err)
			}
		}
	})
}

// Once the budget is spent nobody asks for a kid, and what that means depends on whether
// this instance can tell.
func TestAnUnknownKidBeyondTheBudget(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*rotation.Config)
		want   error
	}{{"in step", trusting, keystore.ErrNotFound}, {"in doubt", func(*rotation.Config) {}, keystore.ErrUnavailable}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				f.leave()
				m := join(t, f.cluster, "b", tt.change)
				defer m.leave()
				for n := range 10 {
					err := m.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: fmt.Sprint("unknown-", n)})
					if !errors.Is(err, tt.want) || errors.Is(err, keystore.ErrNotFound) != (tt.want == keystore.ErrNotFound) {
						t.Errorf("%d: %v, want %v", n, err, tt.want)
					}
				}
				if n := m.Status().Counts.Refreshes; n != 3 {
					t.Errorf("%d of 10 were asked for, want 3", n)
				}
			})
		})
	}
}

// That a kid was not there says nothing of another life of the store.
func TestAnUnknownKidIsAskedForAgainAfterALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		ask := func(want uint64) {
			t.Helper()
			f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "unknown"})
			if n := f.Status().Counts.Refreshes; n != want {
				t.Errorf("it was asked for %d times, want %d", n, want)
			}
		}
		time.Sleep(time.Second)
		ask(1)
		ask(1)
		time.Sleep(2 * fastPoll)
		ask(1)
		f.cluster.Wipe()
		time.Sleep(2 * fastPoll)
		ask(2)
		ask(2)
	})
}

func TestAnUnknownKidIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		other := join(t, f.cluster, "b", func(c *rotation.Config) { c.TrustFirstRead = true })
		defer other.leave()
		other.conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
		time.Sleep(4 * time.Second)
		receipt, err := f.rotator.Rotate(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		if got := other.finds(receipt.Minted); got != "not found" {
			t.Fatalf("before it is asked for: %s", got)
		}
		if err := other.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: receipt.Minted}); err != nil || other.finds(receipt.Minted) != "found" {
			t.Errorf("%v, then %s", err, other.finds(receipt.Minted))
		}
	})
}

func TestRefreshWaitsNoLongerThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := ring.Policy{}.WithDefaults()
		f := newFleet(t, slow)
		long := join(t, f.cluster, "b", func(c *rotation.Config) { c.TrustFirstRead, c.Poll, c.Deadline = true, 0, 0 })
		defer f.leave()
		long.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		began := time.Now()
		if err := long.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "x"}); !errors.Is(err, keystore.ErrUnavailable) {
			t.Error(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began = time.Now()
		if err := long.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "y"}); !errors.Is(err, keystore.ErrUnavailable) {
			t.Error(err)
		}
		if took := time.Since(began); took > 10*time.Millisecond {
			t.Errorf("it took %v beyond its context", took)
		}
		long.conn.SetFaults(rotationtest.Faults{})
		long.leave()
	})
}

func TestAClockThatIsOff(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, -2500 * time.Millisecond, -200 * time.Millisecond, 200 * time.Millisecond, 2500 * time.Millisecond, time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				m := join(t, f.cluster, "b", func(c *rotation.Config) {
					c.TrustFirstRead = true
					c.Now = func() time.Time { return time.Now().Add(off) }
				})
				defer m.leave()
				time.Sleep(time.Second)
				s := m.Status()
				_, err := m.signer.Sign(t.Context(), "acme", nil)
				if within := off.Abs() < fast.ClockSkew; within != s.Ready || within != (err == nil) {
					t.Errorf("ready %v (%v), Sign: %v", s.Ready, s.Err, err)
				}
			})
		})
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", func(c *rotation.Config) {
			c.TrustFirstRead, c.Logger = true, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		defer m.run()()
		if err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		var said []string
		for range 20 {
			time.Sleep(time.Second)
			token, err := m.signer.Sign(t.Context(), "acme", map[string]any{"sub": "a-secret-subject"})
			said = append(said, token[max(0, len(token)-20):])
			if err != nil {
				t.Fatal(err)
			}
		}
		cluster.EditRing("acme", func(fields map[string][]byte) {
			for name, value := range fields {
				if strings.HasPrefix(name, "k:") {
					value[len(value)-1] ^= 1
				}
			}
		})
		time.Sleep(fast.Freshness)
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(fast.SignFor)
		said = append(said, fmt.Sprintf("%v %+v", m.Status().Err, m.Keyring), "a-secret-subject", "0123456789abcdef0123456789ABCDEF")
		m.conn.SetFaults(rotationtest.Faults{})
		m.leave()
		for _, secret := range said[:len(said)-3] {
			if strings.Contains(out.String(), secret) {
				t.Error("a token is logged")
			}
		}
		for _, name := range []string{"merged back", "cannot be reached"} {
			if !strings.Contains(out.String(), name) {
				t.Errorf("the log does not say %q:\n%s", name, out.String())
			}
		}
		kek := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789ABCDEF"))
		for _, text := range []string{out.String(), said[len(said)-3]} {
			if strings.Contains(text, "a-secret-subject") || strings.Contains(text, "0123456789abcdef") || strings.Contains(text, kek) {
				t.Error("a secret is logged, or printed")
			}
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The contract of every KeyStore.
func TestKeyringKeepsTheContract(t *testing.T) {
	keystoretest.Run(t, func(t *testing.T) keystoretest.Subject {
		m := newFleet(t, ring.Policy{}).member
		t.Cleanup(m.leave)
		return keystoretest.Subject{
			Store: m.Keyring, Tenant: "acme",
			Add: func(t *testing.T) keystoretest.Signing {
				id, sign, err := m.rotator.AddKey(t.Context(), "acme")
				if err != nil {
					t.Fatal(err)
				}
				return keystoretest.Signing{ID: id, Algorithm: keystore.HS256, Sign: sign}
			},
			Reload: func(t *testing.T) {
				if err := m.Reload(t.Context(), "acme"); err != nil {
					t.Fatal(err)
				}
			},
			Remove: func(t *testing.T, id keystore.ID) {
				if err := errorOf(m.rotator.Revoke(t.Context(), "acme", id.KID)); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// Keys that have retired, or were dropped or collected, do not come back as keys that are
// to sign, nor at all once they are gone, whoever puts back first what a store has lost that
// was emptied while everybody was cut off.
func TestARetiredKeyDoesNotReturn(t *testing.T) {
	for away := 4 * time.Second; away < 16*time.Second; away += time.Second {
		t.Run(away.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				stop := f.run()
				two := join(t, f.cluster, "b", func(c *rotation.Config) { c.TrustFirstRead = true })
				first := f.kid(1)
				time.Sleep(10500 * time.Millisecond)
				before, _ := f.Tenant("acme")
				if before.Ring.Keys[0].State != ring.Dropped {
					t.Fatalf("the first is not dropped: %s", f.ring())
				}
				time.Sleep(2500 * time.Millisecond)
				retired := map[string]ring.State{first: "collected"}
				for before, _ := f.Tenant("acme"); len(before.Ring.Keys) > 0; before.Ring.Keys = before.Ring.Keys[1:] {
					if k := before.Ring.Keys[0]; k.KID == first || k.State == ring.Retired || k.State == ring.Dropped {
						retired[k.KID] = k.State
					}
				}
				if retired[first] != "collected" {
					t.Fatalf("the first is not collected: %s", f.ring())
				}
				f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
				two.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
				time.Sleep(away)
				held, _ := f.Tenant("acme")
				f.cluster.Wipe()
				f.conn.SetFaults(rotationtest.Faults{})
				two.conn.SetFaults(rotationtest.Faults{})
				time.Sleep(time.Second) // it is put back, and they are in doubt: nothing is collected
				for _, k := range held.Ring.Keys {
					if there := f.cluster.Ring("acme")["k:"+k.KID] != nil; there != (k.State != ring.Dropped) {
						t.Errorf("key %d was %s, and is put back: %v", k.Seq, k.State, there)
					}
				}
				time.Sleep(2 * time.Second)
				for _, m := range []*member{f.member, two} {
					after, _ := m.Tenant("acme")
					for _, k := range after.Ring.Keys {
						if was, is := retired[k.KID]; is && (k.State == ring.Pending || k.State == ring.Signing || was == "collected") {
							t.Errorf("key %d was %s, and is %s: %s", k.Seq, was, k.State, m.ring())
						}
					}
				}
				stop()
				two.leave()
				f.leave()
			})
		})
	}
}
