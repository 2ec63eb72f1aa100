package rotation_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A logbook keeps the lines of a log, as "LEVEL text key=value ...".
type logbook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logbook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logbook) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logbook) WithGroup(string) slog.Handler            { return l }
func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

// with returns the lines that have text in them.
func (l *logbook) with(text string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// louder returns the lines of that level and of those above.
func (l *logbook) louder() []string { return append(l.with("WARN "), l.with("ERROR ")...) }

// clear forgets all lines.
func (l *logbook) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
}

// logging returns a change of a Config that logs to l.
func logging(l *logbook) func(*rotation.Config) {
	return func(c *rotation.Config) { c.Logger = slog.New(l) }
}

// daily rotates after a day: what ends first while the store is away is what it may know.
var daily = ring.Policy{Every: day, MaxTokenTTL: 15 * time.Minute, SignFor: time.Hour}

// Redis is away for an hour and more: an instance that verifies is ready until its keys have ended,
// and one that signs until SignFor. Both come back, and no instance that verifies leaves readiness on
// the way back into sync.
func TestVerifyingOutlastsSigning(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newDerivedFleet(t, daily)
		defer f.leave()
		time.Sleep(3 * time.Minute)
		if s := f.Status(); !s.CanVerify || !s.CanSign || s.Err != nil {
			t.Fatalf("in sync: %+v", s)
		}
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(30 * time.Second) // a poll has failed
		if s := f.Status(); !s.Fresh || s.Err != nil {
			t.Errorf("as long as it is fresh nothing is wrong: %+v", s)
		}
		tenant := func() rotation.TenantStatus { s, _ := f.Tenant("acme"); return s }
		time.Sleep(time.Hour - time.Minute)
		if s := f.Status(); !s.CanVerify || !s.CanSign || s.Err == nil || !tenant().CanSign {
			t.Errorf("after an hour, less than SignFor: %+v", s)
		}
		time.Sleep(2 * time.Minute)
		if s := f.Status(); !s.CanVerify || s.CanSign || s.Ready || tenant().CanSign || !tenant().CanVerify || f.finds(f.kid(1)) != "found" {
			t.Errorf("beyond SignFor: %+v", s)
		}
		if err := f.Ready("acme"); err != nil {
			t.Errorf("a verifier may use it: %v", err)
		}
		f.conn.SetFaults(rotationtest.Faults{})
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
			if s := f.Status(); !s.CanVerify {
				t.Fatalf("on the way back: %+v", s)
			}
		}
		if s := f.Status(); !s.CanSign || !s.Fresh {
			t.Errorf("back: %+v", s)
		}
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(time.Hour + 16*time.Minute) // SignFor, L and leeway
		if s := f.Status(); s.CanVerify || tenant().CanVerify || f.finds(f.kid(1)) != "unavailable" || f.Ready("acme") == nil {
			t.Errorf("its keys have ended: %+v", s)
		}
		f.conn.SetFaults(rotationtest.Faults{})
	})
}

// The third key of the policy may sign after two periods. An instance that is cut off does not know it,
// so it is not ready, although its own keys would verify for longer.
func TestVerifyingEndsWhereAnUnknownKeyMaySign(t *testing.T) {
	virtual(t, func(t *testing.T) {
		policy := fast
		policy.MaxTokenTTL = 20 * time.Second
		f := newFleet(t, policy)
		defer f.leave()
		defer f.run()()
		m := join(t, f.cluster, "b", trusting)
		defer m.leave()
		time.Sleep(3 * time.Second) // Dwell, so that no failover can lose the second key
		third := func() string { return f.kid(3) }
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		for m.Status().CanVerify {
			time.Sleep(10 * time.Millisecond)
			token, err := f.signer.Sign(t.Context(), "acme", nil)
			if err != nil {
				t.Fatal(err)
			}
			if kid := kidOf(t, token); m.finds(kid) != "found" && m.Status().CanVerify {
				t.Fatalf("%s signs, which it does not know: %s", kid, f.ring())
			}
		}
		if m.finds(m.kid(2)) != "found" || m.finds(third()) != "unavailable" {
			t.Errorf("the second key is %s, and the third %s", m.finds(m.kid(2)), m.finds(third()))
		}
		m.conn.SetFaults(rotationtest.Faults{})
	})
}

// An instance that has never been in sync answers nothing before it knows that the store lost nothing.
func TestNewcomerInDoubtCannotVerify(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		f.leave()
		m := join(t, f.cluster, "b")
		defer m.leave()
		if s := m.Status(); s.CanVerify || s.CanSign {
			t.Errorf("in doubt: %+v", s)
		}
		if err := m.WaitReady(t.Context()); err != nil || !m.Status().CanVerify || !m.Status().CanSign {
			t.Errorf("then: %+v, %v", m.Status(), err)
		}
	})
}

// Whose clock was set? The store's: as long as a peer's acknowledgement shows it, all verify, and
// nothing is decided. This instance's, because its machine was paused: it is not ready.
func TestClocksThatJump(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour, time.Minute} {
		t.Run("the store's, by "+jump.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				log := new(logbook)
				f := newDerivedFleet(t, daily, logging(log))
				defer f.leave()
				peer := join(t, f.cluster, "b", derived)
				defer peer.leave()
				time.Sleep(3 * time.Minute)
				f.cluster.Advance(jump)
				time.Sleep(5 * time.Minute)
				s, tenant := f.Status(), tenantOf(t, f.member)
				if !s.CanVerify || s.CanSign || s.Ready || s.Err == nil || !tenant.CanVerify || f.finds(f.kid(1)) != "found" {
					t.Errorf("the store's clock: %+v", s)
				}
				if lines := log.with("the store's clock was set"); len(lines) != 1 {
					t.Errorf("%q", lines)
				}
			})
		})
		t.Run("its own, by "+jump.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				var offset atomic.Int64
				log := new(logbook)
				f := newDerivedFleet(t, daily, logging(log), func(c *rotation.Config) {
					c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
				})
				defer f.leave()
				peer := join(t, f.cluster, "b", derived)
				defer peer.leave()
				time.Sleep(3 * time.Minute)
				offset.Store(int64(jump))
				for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Second) {
					if s := f.Status(); s.CanVerify && time.Until(end) < 5*time.Minute-40*time.Second {
						t.Fatalf("its own clock: %+v", s)
					}
				}
				if !peer.Status().CanVerify {
					t.Errorf("the peer: %+v", peer.Status())
				}
				offset.Store(0)
				time.Sleep(2 * time.Minute)
				if s := f.Status(); !s.CanVerify || !s.CanSign {
					t.Errorf("right again: %+v", s)
				}
				if off, on := log.with("ERROR this clock and the store's differ"), log.with("INFO this clock and the store's agree again"); len(off) != 1 || len(on) != 1 {
					t.Errorf("%q, %q", off, on)
				}
			})
		})
	}
}

// An instance alone cannot tell whose clock was set.
func TestAloneNoClockIsRight(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newDerivedFleet(t, daily)
		defer f.leave()
		time.Sleep(3 * time.Minute)
		f.cluster.Advance(time.Hour)
		time.Sleep(time.Minute)
		if s := f.Status(); s.CanVerify {
			t.Errorf("%+v", s)
		}
	})
}

func tenantOf(t *testing.T, m *member) rotation.TenantStatus {
	t.Helper()
	s, err := m.Tenant("acme")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Redis is away for longer than SignFor: the log of an instance that signs has one line when that
// begins, one that says since when it does not sign, and one for the end of each.
func TestOutageInTheLog(t *testing.T) {
	virtual(t, func(t *testing.T) {
		log := new(logbook)
		f := newDerivedFleet(t, daily, logging(log))
		defer f.leave()
		time.Sleep(3 * time.Minute)
		log.clear()
		began := time.Now()
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(2 * time.Hour)
		want := []string{"WARN the store cannot be reached", "ERROR this instance does not sign: its last sync with the store is too old since="}
		if got := log.louder(); len(got) != 2 || !strings.HasPrefix(got[0], want[0]) || !strings.HasPrefix(got[1], want[1]) {
			t.Fatalf("while it is away: %q", got)
		}
		_, since, _ := strings.Cut(log.louder()[1], "since=")
		since, _, _ = strings.Cut(since, " ")
		if at, err := time.Parse(time.RFC3339, since); err != nil || at.Before(began.Add(time.Hour-time.Minute)) || at.After(began.Add(time.Hour)) {
			t.Errorf("since %s, %v; SignFor after the last sync is just before %v", since, err, began.Add(time.Hour))
		}
		f.conn.SetFaults(rotationtest.Faults{})
		time.Sleep(5 * time.Minute)
		if got := log.louder(); len(got) != 2 {
			t.Errorf("when it is back: %q", got)
		}
		for _, text := range []string{"INFO the store is reached again after=", "INFO in sync with the store", "INFO this instance may sign again"} {
			if len(log.with(text)) != 1 {
				t.Errorf("%q: %q", text, log.with("INFO "))
			}
		}
	})
}

// An instance without a signer does not stop to sign. And where some servers of several are away, that
// is one outage, however many syncs reach the others meanwhile.
func TestOutageIsOneLine(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newDerivedFleet(t, daily)
		defer f.leave()
		other := join(t, f.cluster, "globex", derived, of("globex"))
		defer other.leave()
		if _, err := other.rotator.Create(t.Context(), "globex", daily); err != nil {
			t.Fatal(err)
		}
		log := new(logbook)
		conn := f.cluster.Connect("reader")
		k, err := rotation.Open(t.Context(), conn, rotation.Config{KEKs: testKEK, Tenants: []string{"acme", "globex"}, Instance: "reader", Logger: slog.New(log)})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close(context.Background())
		time.Sleep(3 * time.Minute)
		log.clear()
		conn.SetFaults(rotationtest.Faults{LostBuckets: func(bucket int) bool { return bucket != rotation.BucketOf("acme") }})
		for range 3 {
			time.Sleep(5 * time.Minute)
			if _, err := f.rotator.SetPolicy(t.Context(), "acme", daily); err != nil { // that nudges the reader
				t.Fatal(err)
			}
		}
		if got := log.louder(); len(got) != 1 || len(log.with("reached again")) != 0 {
			t.Errorf("a part is away: %q", got)
		}
		conn.SetFaults(rotationtest.Faults{})
		time.Sleep(2 * time.Minute)
		log.clear()
		conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(90 * time.Minute) // SignFor, L and leeway are 76 minutes
		if got := log.louder(); len(got) != 1 {
			t.Errorf("it has no signer: %q", got)
		}
		conn.SetFaults(rotationtest.Faults{})
		time.Sleep(2 * time.Minute)
	})
}

// Every instance logs that a key rotated or was revoked, whoever did it.
func TestEveryInstanceLogsTheKeys(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		log := new(logbook)
		m := join(t, f.cluster, "b", trusting, logging(log))
		defer m.leave()
		defer f.run()()
		first, second := f.kid(1), f.kid(2)
		if lines := log.with("a key"); len(lines) > 0 {
			t.Errorf("what it finds is no news: %q", lines)
		}
		time.Sleep(8 * time.Second)
		if lines := log.with("INFO a key rotated"); len(lines) != 1 || !strings.Contains(lines[0], "tenant=acme signs="+second+" before="+first) {
			t.Errorf("%q", lines)
		}
		if _, err := f.rotator.Revoke(t.Context(), "acme", first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if lines := log.with("INFO a key was revoked"); len(lines) != 1 || !strings.Contains(lines[0], "tenant=acme kid="+first) {
			t.Errorf("%q", lines)
		}
		if _, err := f.rotator.Revoke(t.Context(), "acme", second, rotation.Force); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := len(log.with("a key was revoked")); got != 2 {
			t.Errorf("%d revocations", got)
		}
	})
}

// Every instance logs that a ring was destroyed, once: its log is what a person has when Redis and its own
// log are lost.
func TestEveryInstanceLogsADestroyedRing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		log := new(logbook)
		m := join(t, f.cluster, "b", trusting, logging(log))
		defer m.leave()
		time.Sleep(8 * time.Second)
		if _, err := f.rotator.Destroy(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if lines := log.with("INFO a ring was destroyed"); len(lines) != 1 || !strings.Contains(lines[0], "tenant=acme at=") {
			t.Errorf("%q", lines)
		}
		late := new(logbook)
		n := join(t, f.cluster, "c", trusting, logging(late))
		defer n.leave()
		time.Sleep(8 * time.Second)
		if lines := late.with("a ring was destroyed"); len(lines) > 0 {
			t.Errorf("what it finds is no news: %q", lines)
		}
	})
}

// A key that was forced to sign does so once no failover can lose it. The line is written then, not before.
func TestEveryInstanceLogsAForcedKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		log := new(logbook)
		m := join(t, f.cluster, "b", trusting, logging(log))
		defer m.leave()
		time.Sleep(200 * time.Millisecond)
		first, second := f.kid(1), f.kid(2)
		receipt, err := f.rotator.Promote(t.Context(), "acme", second, rotation.Force)
		if err != nil || receipt.ConfirmedAt.IsZero() {
			t.Fatalf("%+v, %v", receipt, err)
		}
		time.Sleep(time.Until(receipt.ConfirmedAt) - time.Millisecond)
		if lines := log.with("a key rotated"); len(lines) > 0 {
			t.Errorf("before any instance signs with it: %q", lines)
		}
		time.Sleep(2 * (fastPoll + fastPoll/5 + fastDeadline))
		if lines := log.with("INFO a key rotated"); len(lines) != 1 || !strings.Contains(lines[0], "signs="+second+" before="+first) {
			t.Errorf("%q", lines)
		}
	})
}
