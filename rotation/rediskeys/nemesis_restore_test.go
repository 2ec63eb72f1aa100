package rediskeys_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
)

// backedUp returns the tenant's ring as a backup has it.
func backedUp(t *testing.T, addr string) rotation.Snapshot {
	t.Helper()
	s := open(t, "redis://"+addr).Load(t.Context(), []string{nemesisTenant})[0]
	if s.Err != nil || len(s.Fields) == 0 {
		t.Fatalf("the backup: %+v", s)
	}
	return s
}

// restoreFrom restores a backup as "keyturn keys restore" does.
func restoreFrom(t *testing.T, addr string, saved rotation.Snapshot, opts ...rotation.Option) ring.Restored {
	t.Helper()
	var report ring.Restored
	eventually(t, "the restore", func() bool {
		operator := nemesisMember(t, addr, "operator", func(c *rotation.Config) { c.OneShot = true })
		var err error
		report, _, err = operator.rotator.Restore(t.Context(), nemesisTenant, saved, opts...)
		if err != nil && !errors.Is(err, keystore.ErrUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
	return report
}

// soleHolder starts an instance with a ring that no other one holds.
func soleHolder(t *testing.T, addr string) *member {
	t.Helper()
	m := nemesisMember(t, addr, "a")
	eventually(t, "a ring", func() bool {
		_, err := m.rotator.Create(t.Context(), nemesisTenant, nemesisPolicy)
		return err == nil || errors.Is(err, rotation.ErrRefused)
	})
	return m
}

// A load signs tokens at each member of a fleet and verifies them at all, until it ends.
type load struct {
	t      *testing.T
	fleet  []*member
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards tokens and wrong
	tokens []string
	wrong  []string
}

func startLoad(t *testing.T, fleet []*member) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, fleet: fleet, cancel: cancel}
	for i, m := range fleet {
		l.wg.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				token, err := m.signer.Sign(ctx, nemesisTenant, nil)
				if err == nil {
					l.verify(ctx, l.fleet[(i+1)%len(l.fleet)], token)
				}
				l.mu.Lock()
				if err == nil {
					l.tokens = append(l.tokens, token)
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// verify notes if m rejects a token that it must accept. That it cannot tell is no rejection.
func (l *load) verify(ctx context.Context, m *member, token string) {
	if _, err := m.verifier.Verify(ctx, token); errors.Is(err, verifier.ErrInvalid) {
		l.mu.Lock()
		l.wrong = append(l.wrong, fmt.Sprintf("%s: %v", m.name, err))
		l.mu.Unlock()
	}
}

// end ends the load, and returns its tokens.
func (l *load) end() []string {
	l.cancel()
	l.wg.Wait()
	if len(l.wrong) > 0 {
		l.t.Errorf("%d good tokens were rejected, such as: %s", len(l.wrong), l.wrong[0])
	}
	return l.tokens
}

// Redis is emptied under a fleet, and a backup of before a rotation and a revocation is restored at once.
// Nothing is lost that an instance knows, and nothing comes back that was revoked.
func TestNemesisRestoreIntoEmptiedStore(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	fleet := nemesisFleet(t, server.Addr(), "a", "b", "c", "d", "e", "f")
	first, old := fleet[0].signing(t)
	saved := backedUp(t, server.Addr())
	time.Sleep(nemesisPolicy.Freshness + nemesisPolicy.Dwell + nemesisPolicy.ClockSkew) // until the pending key is known
	fleet[0].revoke(t, first)
	for _, m := range fleet {
		eventually(t, m.name+" to refuse the token", func() bool { return m.refuses(t, old) })
	}
	second, good := fleet[0].signing(t)
	l := startLoad(t, fleet)
	do(t, server, "FLUSHALL")
	if report := restoreFrom(t, server.Addr(), saved); report.EndsOnly {
		t.Errorf("report = %+v", report)
	}
	accepted := 0
	for end := time.Now().Add(2 * repairTime); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, m := range fleet {
			if !m.refuses(t, old) {
				accepted++
			}
		}
	}
	tokens := append(l.end(), good)
	if accepted > 0 {
		t.Errorf("a token of the revoked key was accepted %d times", accepted)
	}
	for _, m := range append(fleet, nemesisMember(t, server.Addr(), "newcomer")) {
		eventually(t, m.name+" to be in sync", func() bool { return m.inSync(t).Fresh })
		for _, token := range tokens {
			if m.refuses(t, token) {
				t.Fatalf("%s rejects a token that was signed under the fleet", m.name)
			}
		}
		if now, _ := m.signing(t); now != second || !m.refuses(t, old) {
			t.Errorf("%s signs with %s, not %s", m.name, now, second)
		}
	}
	after := backedUp(t, server.Addr())
	for _, field := range []string{"k:" + first, "x:" + first, "k:" + second, "a:" + second} {
		if _, has := after.Fields[field]; !has {
			t.Errorf("the store has no %s: %q", field, slices.Sorted(maps.Keys(after.Fields)))
		}
	}
	if again := restoreFrom(t, server.Addr(), saved); len(again.PutBack) > 0 || !slices.Contains(again.Better, "x:"+first) {
		t.Errorf("restored again: %+v", again)
	}
}

// A tenant is destroyed after the backup, and Redis is emptied. The instances know that the tenant is
// destroyed, so the backup does not bring it back.
func TestNemesisRestoreAfterDestroy(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	fleet := nemesisFleet(t, server.Addr(), "a", "b", "c", "d", "e", "f")
	_, token := fleet[0].signing(t)
	saved := backedUp(t, server.Addr())
	eventually(t, "the destruction", func() bool {
		_, err := fleet[0].rotator.Destroy(t.Context(), nemesisTenant)
		return err == nil
	})
	for _, m := range fleet {
		eventually(t, m.name+" to refuse the token", func() bool { return m.refuses(t, token) })
	}
	do(t, server, "FLUSHALL")
	restoreFrom(t, server.Addr(), saved)
	accepted := 0
	for end := time.Now().Add(2 * repairTime); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, m := range fleet {
			if !m.refuses(t, token) {
				accepted++
			}
		}
	}
	if accepted > 0 {
		t.Errorf("a token of the destroyed tenant was accepted %d times", accepted)
	}
	eventually(t, "the destruction to be back", func() bool {
		return server.Client().HExists(t.Context(), nemesisKey("ring:"+nemesisTenant), "dead").Val()
	})
	if again := restoreFrom(t, server.Addr(), saved); len(again.PutBack) > 0 || !slices.Contains(again.Better, "dead") {
		t.Errorf("restored again: %+v", again)
	}
	late := nemesisMember(t, server.Addr(), "late")
	eventually(t, "the newcomer to refuse the token", func() bool { return late.refuses(t, token) })
}

// All instances are gone, and Redis is empty. The backup brings the ring back, tokens of its keys are
// good again, and what was revoked in it stays so.
func TestNemesisRestoreWithoutInstances(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	m := soleHolder(t, server.Addr())
	kid, token := m.signing(t)
	pending := m.inSync(t).Ring.Keys[1].KID
	m.revoke(t, pending)
	saved := backedUp(t, server.Addr())
	if err := m.keys.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	do(t, server, "FLUSHALL")
	if report := restoreFrom(t, server.Addr(), saved, rotation.DryRun); len(report.PutBack) < 5 || server.Client().Exists(t.Context(), nemesisKey("ring:"+nemesisTenant)).Val() != 0 {
		t.Errorf("a dry run: %+v", report)
	}
	// What may be a revocation that this version cannot read stops it.
	do(t, server, "HSET", nemesisKey("ring:"+nemesisTenant), "z:"+kid, "of a later version")
	if _, err := restoreAs(t, server.Addr(), saved, oldKEK()); !errors.Is(err, rotation.ErrNewer) || server.Client().HLen(t.Context(), nemesisKey("ring:"+nemesisTenant)).Val() != 1 {
		t.Errorf("beside a field of a later version: %v", err)
	}
	do(t, server, "DEL", nemesisKey("ring:"+nemesisTenant))
	// A person has garbled what is there, too: the backup replaces it.
	do(t, server, "HSET", nemesisKey("ring:"+nemesisTenant), "k:"+kid, "junk")
	report := restoreFrom(t, server.Addr(), saved)
	for _, field := range []string{"k:" + kid, "k:" + pending, "x:" + pending} {
		if !slices.Contains(report.PutBack, field) {
			t.Errorf("%s was not put back: %+v", field, report)
		}
	}
	late := nemesisMember(t, server.Addr(), "late")
	eventually(t, "the newcomer to be in sync", func() bool { return late.inSync(t).Fresh })
	if _, err := late.verifier.Verify(t.Context(), token); err != nil {
		t.Errorf("a token of before: %v", err)
	}
	if now, _ := late.signing(t); now != kid {
		t.Errorf("%s signs, not %s", now, kid)
	}
	if k := late.inSync(t).Ring.Keys; !slices.ContainsFunc(k, func(k ring.Key) bool { return k.KID == pending && k.State == ring.Revoked }) {
		t.Errorf("the revoked key: %+v", k)
	}
}

// The fleet has changed its KEK since the backup, and dropped the old one. What comes back is sealed
// under the new one, so that it can read it. An operator without the fleet's KEK is refused.
func TestNemesisRestoreAfterKEKChange(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	m := soleHolder(t, server.Addr())
	kid, token := m.signing(t)
	saved := backedUp(t, server.Addr())
	if err := m.keys.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	do(t, server, "FLUSHALL")
	fleet := nemesisMember(t, server.Addr(), "new", func(c *rotation.Config) { c.KEKs = keks(t, newKEK()) })
	eventually(t, "an acknowledgement", func() bool {
		return server.Client().HExists(t.Context(), nemesisKey("ack"), "new").Val()
	})
	if _, err := restoreAs(t, server.Addr(), saved, oldKEK()); !errors.Is(err, rotation.ErrRefused) {
		t.Errorf("under a KEK that the fleet lacks: %v", err)
	}
	if _, err := restoreAs(t, server.Addr(), saved, newKEK()); !errors.Is(err, rotation.ErrWrongKEK) {
		t.Errorf("without the KEK of the backup: %v", err)
	}
	if report, err := restoreAs(t, server.Addr(), saved, newKEK(), oldKEK()); err != nil || !slices.Contains(report.PutBack, "k:"+kid) {
		t.Fatalf("%+v, %v", report, err)
	}
	eventually(t, "the fleet to have it", func() bool {
		_, err := fleet.verifier.Verify(t.Context(), token)
		return err == nil && fleet.inSync(t).Fresh
	})
	if now, _ := fleet.signing(t); now != kid {
		t.Errorf("%s signs, not %s", now, kid)
	}
}

func restoreAs(t *testing.T, addr string, saved rotation.Snapshot, keys ...[]byte) (report ring.Restored, err error) {
	t.Helper()
	operator := nemesisMember(t, addr, "operator", func(c *rotation.Config) { c.OneShot, c.KEKs = true, keks(t, keys...) })
	report, _, err = operator.rotator.Restore(t.Context(), nemesisTenant, saved)
	return report, err
}
