package protocol

import (
	"testing"
	"time"
)

func TestSyncState(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w := Limits{Fresh: 6 * time.Second, Recover: 4 * time.Second}
	type sync struct {
		at              float64
		resync, trusted bool
		doubt           bool    // afterwards
		good            float64 // afterwards; -1 for never
	}
	for _, tt := range []struct {
		name  string
		syncs []sync
	}{
		{"a cold start recovers for 2W", []sync{{0, true, false, true, -1}, {2, false, false, true, -1}, {3.9, false, false, true, -1}, {4, false, false, false, 4}, {5, false, false, false, 5}}},
		{"this process has made the store", []sync{{0, true, true, false, 0}, {2, false, false, false, 2}}},
		{"a place that is gone", []sync{{0, true, true, false, 0}, {2, true, false, true, 0}, {4, false, false, true, 0}, {6, false, false, false, 6}}},
		{"a peer's word does not help against that", []sync{{0, true, true, false, 0}, {2, true, true, true, 0}}},
		{"gone again, recovering: from the beginning", []sync{{0, true, false, true, -1}, {3, true, false, true, -1}, {6, false, false, true, -1}, {7, false, false, false, 7}}},
		{"away for F", []sync{{0, true, true, false, 0}, {6, false, false, false, 6}}},
		{"away for longer", []sync{{0, true, true, false, 0}, {6.1, false, false, true, 0}, {10, false, false, true, 0}, {10.1, false, false, false, 10.1}}},
		{"syncs while recovering keep it from beginning again", []sync{{0, true, false, true, -1}, {3, false, false, true, -1}, {9, false, false, false, 9}}},
	} {
		var got SyncState
		for i, s := range tt.syncs {
			got = got.After(SyncReading{Sent: at(start, s.at), Resync: s.resync, Trusted: s.trusted}, w)
			good := at(start, s.good)
			if s.good < 0 {
				good = time.Time{}
			}
			if got.Recovering != s.doubt || !got.Good.Equal(good) {
				t.Errorf("%s: after sync %d: doubt %v, good %v, want %v, %v", tt.name, i, got.Recovering, got.Good, s.doubt, good)
			}
		}
	}
}

// A merge anywhere extends recovering, and begins none.
func TestMergesExtendRecovering(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w := Limits{Fresh: 6 * time.Second, Recover: 4 * time.Second}
	var s SyncState
	for _, sync := range []struct {
		at      float64
		merging bool
		want    bool // recovering afterwards
	}{{0, false, true}, {3, true, true}, {6.9, true, true}, {10.8, false, true}, {10.9, false, false}, {11, true, false}} {
		if s = s.After(SyncReading{Sent: at(start, sync.at), Merging: sync.merging}, w); s.Recovering != sync.want {
			t.Errorf("after %vs: recovering %v", sync.at, s.Recovering)
		}
	}
}

func TestVouchedReadIsNotCertainOfAbsence(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w := Limits{Fresh: 6 * time.Second, Recover: 4 * time.Second}
	if got := (SyncState{}).After(SyncReading{Sent: start, Resync: true, Vouched: true}, w); got.Recovering || !got.Good.Equal(start) || !got.Certain.Equal(start.Add(w.Fresh)) {
		t.Errorf("vouched: %+v", got)
	}
	if got := (SyncState{}).After(SyncReading{Sent: start, Resync: true, Trusted: true}, w); got.Recovering || !got.Certain.IsZero() {
		t.Errorf("trusted: %+v", got)
	}
}

func TestAgeTakesClockThatSaysMore(t *testing.T) {
	then := time.Now()
	if got := Age(then.Add(time.Hour), then); got != time.Hour {
		t.Errorf("both clocks: %v", got)
	}
	// The wall clock was set back; then the monotonic one stood still.
	if got := Age(then.Add(time.Minute), then.Add(time.Hour).Add(-time.Hour)); got != time.Minute {
		t.Errorf("%v", got)
	}
	if got := Age(then.Round(0).Add(time.Hour), then); got != time.Hour {
		t.Errorf("the wall clock alone: %v", got)
	}
}

// An instance that began with a snapshot has not read the store: its first read needs a peer's word, or
// the place of the snapshot. Without both it recovers, however recent the snapshot is. And it signs
// nothing before.
func TestSnapshotIsNoSync(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	l := Limits{Fresh: 6 * time.Second, Recover: 4 * time.Second}
	begin := SyncState{Complete: start, Restored: start, Knew: start, Recovering: true}
	for _, vouched := range []bool{false, true} {
		s := begin.After(SyncReading{Sent: at(start, 1), Now: at(start, 1), Resync: true, Vouched: vouched}, l)
		if s.Recovering == vouched || s.First() || s.Good.IsZero() == vouched {
			t.Errorf("vouched %v: %+v", vouched, s)
		}
		if want := (map[bool]time.Time{false: start, true: at(start, 1)})[vouched]; !s.Knew.Equal(want) {
			t.Errorf("vouched %v: it knew at %v, want %v", vouched, s.Knew, want)
		}
		s = s.After(SyncReading{Sent: at(start, 5)}, l)
		if s.Recovering || !s.Good.Equal(at(start, 5)) || !s.Knew.Equal(s.Good) {
			t.Errorf("vouched %v, 4s later: %+v", vouched, s)
		}
	}
}

// A restart is a pause if the snapshot was in sync, the store proves its place, and by both clocks it is
// no older than Freshness. A key that is missing then may still exist, for Freshness.
func TestRestartIsAPause(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	l := Limits{Fresh: 6 * time.Second, Recover: 4 * time.Second}
	synced := SyncState{Complete: start, Restored: start, Knew: start, Recovering: true}
	stale := synced
	stale.Knew = at(start, -1)
	for _, tt := range []struct {
		name      string
		begin     SyncState
		sent, now float64
		resync    bool
		doubt     bool
	}{
		{"at once", synced, 0, 0, false, false},
		{"just within Freshness", synced, 6, 6, false, false},
		{"too late", synced, 6.001, 6.001, false, true},
		{"too late by the store's clock alone: ours was set back", synced, 1, 6.001, false, true},
		{"too late by our clock alone", synced, 6.001, 1, false, true},
		{"the place is gone", synced, 1, 1, true, true},
		{"it was recovering when the snapshot was written", stale, 1, 1, false, true},
		{"no snapshot", SyncState{}, 1, 1, false, true},
	} {
		s := tt.begin.After(SyncReading{Sent: at(start, tt.sent), Now: at(start, tt.now), Resync: tt.resync}, l)
		if s.Recovering != tt.doubt || s.Good.IsZero() != tt.doubt || !s.Complete.Equal(at(start, tt.sent)) {
			t.Errorf("%s: %+v", tt.name, s)
		}
		if !tt.doubt && !s.Certain.Equal(s.Good.Add(l.Fresh)) {
			t.Errorf("%s: certain from %v on", tt.name, s.Certain)
		}
	}
}
