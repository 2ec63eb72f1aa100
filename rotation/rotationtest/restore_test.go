package rotationtest_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// backUp makes a backup of all rings.
func (s *sim) backUp() {
	for i, snap := range s.auditor.Load(s.ctx, s.tenants) {
		if tenant := s.tenants[i]; snap.Err == nil && len(snap.Fields) > 0 {
			s.backups[tenant] = append(s.backups[tenant], snap)
		}
	}
}

// restore lets an operator restore a backup of some tenant, through an instance.
func (s *sim) restore() {
	i, tenant := s.randomInstance(), pick(s.rng, s.tenants)
	if i == nil || len(s.backups[tenant]) == 0 {
		return
	}
	i.restore(tenant, pick(s.rng, s.backups[tenant]))
}

// restore restores a backup in the background.
func (i *instance) restore(tenant string, saved rotation.Snapshot) {
	i.runOp("restore", tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
		_, receipt, err := r.Restore(ctx, tenant, saved)
		return receipt, err
	})
}

// backUp returns the ring as a backup has it.
func (l *timeline) backUp() rotation.Snapshot {
	l.t.Helper()
	snap := l.auditor.Load(l.ctx, []string{tenant})[0]
	if snap.Err != nil || len(snap.Fields) == 0 {
		l.t.Fatalf("the backup: %+v", snap)
	}
	return snap
}

// operator opens an instance that rotates nothing, and that no other instance counts on.
func (l *timeline) operator() *instance {
	i := l.connect("operator", 0)
	i.rotates = false
	i.open()
	l.runFor(500 * time.Millisecond)
	return i
}

// restored restores a backup at i, and tries again while i is out of sync.
func (l *timeline) restored(i *instance, saved rotation.Snapshot) (report ring.Restored) {
	l.t.Helper()
	var err error
	for range 40 {
		if report, _, err = i.r.Load().Restore(l.ctx, tenant, saved); err == nil {
			return report
		}
		l.runFor(100 * time.Millisecond)
	}
	l.t.Fatalf("%v: %v", l.now(), err)
	return report
}

// Restore: after a backup a key is promoted, and the one before it revoked. The store is emptied under
// the instances, and the backup is restored at once. They lose nothing: the promoted key signs on, and
// the revoked one does nothing, also where the backup comes first.
func TestTimelineRestore(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("a", "b", "c")
		operator := l.operator()
		saved := l.backUp()
		first, second := l.key(f[0], 1).KID, l.key(f[0], 2).KID
		l.runUntil(4 * time.Second)
		l.rotate(f[0])
		l.runFor(2 * pollFor)
		l.must(f[0].r.Load().Revoke(l.ctx, tenant, first))
		l.runFor(2 * pollFor)
		var back []func()
		for _, i := range f {
			back = append(back, i.cut())
		}
		operator.close()
		l.wipe()
		late := l.operator() // it knows nothing, as the command does
		l.restored(late, saved)
		if !l.has("k:"+first) || l.has("x:"+first) {
			t.Fatal("the backup was not first")
		}
		l.wantSigner(2, f...)
		for _, end := range back {
			end()
		}
		l.runFor(2 * pollFor)
		l.wantSigner(2, f...)
		l.wantState(1, ring.Revoked, append(f, late)...)
		l.runFor(8 * time.Second)
		l.neverSigned(first, 6*time.Second)
		if report := l.restored(late, saved); len(report.PutBack) > 0 || !slices.Contains(report.Better, "x:"+first) {
			t.Errorf("restored again: %+v", report)
		}
		_ = second
	})
}

// Restore, abandoned: a backup was made of a promotion that a failover then lost, with all that knew of
// it. To restore it must not make the pending key sign: no instance has gone by that promotion, and the
// key is not due.
func TestTimelineRestoreAbandoned(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("promoter", "b", "c")
		l.runUntil(4 * time.Second)
		back1, back2 := f[1].cut(), f[2].cut()
		l.rotate(f[0])
		saved := l.backUp()
		if saved.Fields["a:"+l.key(f[0], 2).KID] == nil {
			t.Fatal("the backup has no promotion")
		}
		f[0].close()
		l.failover(500 * time.Millisecond)
		back1()
		back2()
		l.runFor(pollFor)
		l.wantSigner(1, f[1], f[2])
		third := "k:"
		for field := range saved.Fields {
			if len(field) > 2 && field[:2] == "k:" && !l.has(field) {
				third = field
			}
		}
		report := l.restored(f[1], saved)
		if !slices.Contains(report.PutBack, third) || slices.ContainsFunc(report.PutBack, func(field string) bool { return field[:2] == "a:" }) {
			t.Errorf("report = %+v", report)
		}
		l.runFor(2 * pollFor)
		l.wantState(2, ring.Pending, f[1], f[2])
		l.wantSigner(1, f[1], f[2])
		l.runFor(6 * time.Second)
		l.wantSigner(1, f[1], f[2])
	})
}

// Restore, all gone: no instance is left, and the store is empty. The backup brings back the keys that
// tokens were signed with, and what was revoked then stays so.
func TestTimelineRestoreAllGone(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("a", "b")
		l.runUntil(4 * time.Second)
		second := l.key(f[0], 2).KID
		l.must(f[0].r.Load().Revoke(l.ctx, tenant, second))
		l.runFor(2 * pollFor)
		saved := l.backUp()
		for _, i := range f {
			i.close()
		}
		l.wipe()
		late := l.operator()
		l.restored(late, saved)
		l.runFor(5 * time.Second)
		l.wantSigner(1, late)
		l.wantState(2, ring.Revoked, late)
		l.neverSigned(second, 0)
		for _, token := range l.tokens[max(0, len(l.tokens)-20):] {
			late.verify(token)
		}
	})
}
