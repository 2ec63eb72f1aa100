package synced

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/internal/snapshot"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// A saver keeps the snapshot. Its fields but wake belong to Open, then to keepSnapshot, then to Close.
type saver struct {
	closing sync.Mutex // guards the others, and the buckets of Rings.part, against a second Close at once

	loaded bool          // there was a snapshot, and it was used
	wake   chan struct{} // holds an element while there may be something to save

	newest time.Time     // the newest Complete that was saved
	at     time.Time     // when the last one was saved
	took   time.Duration // how long that took
	bytes  int           // how many it has
	said   bool          // that it cannot be written
}

// loadSnapshot gives the rings what the snapshot has of them. The error says why it is not used. An
// instance that starts with it is one that was cut off since: it verifies within what it can still know,
// and signs nothing. If the store then proves its place in time, that was a pause. Only Open calls it.
func (k *Rings) loadSnapshot() error {
	if k.cfg.Snapshot == "" {
		return nil
	}
	blob, err := snapshot.Read(k.cfg.Snapshot)
	if err != nil || blob == nil {
		return err
	}
	keks := k.KEKs.Load()
	s, err := seal.OpenSnapshot(keks, k.cfg.StoreName, blob)
	if err != nil {
		return err
	}
	rings, unread := make(map[string]*held.Ring), make(map[int]bool)
	now, skew := k.cfg.Now(), protocol.AnySkew
	for _, one := range s.Rings {
		if !k.HoldsAll() && k.Ring(one.Tenant) == nil {
			continue
		}
		r, err := held.FromFields(keks, one.Tenant, one.Fields)
		if err != nil { // it may have moved to another KEK since
			unread[store.BucketOf(one.Tenant)] = true
			k.cfg.Logger.Warn("a ring of the snapshot is not used", "tenant", one.Tenant, "error", err)
			continue
		}
		rings[one.Tenant], skew = r, min(skew, r.ClockSkew())
	}
	if skew == protocol.AnySkew { // accepted keys alone have no policy, and their dates may be a year ahead
		skew = ring.Policy{}.WithDefaults().ClockSkew
	}
	if newest := s.Newest(); newest.After(now.Add(skew)) {
		return &ring.Error{Text: fmt.Sprintf("the snapshot is from the future: it says %v, and this clock %v; one of the two clocks was wrong", newest, now.UTC())}
	}
	s.Buckets = slices.DeleteFunc(s.Buckets, func(b seal.SnapshotBucket) bool { return unread[b.Index] }) // a ring of it is missing
	k.restore(s, rings)
	return nil
}

// restore installs the rings of a snapshot.
func (k *Rings) restore(s *seal.Snapshot, rings map[string]*held.Ring) {
	state := func(complete, good time.Time) protocol.SyncState {
		return protocol.SyncState{Complete: complete, Restored: complete, Knew: good, Recovering: true}
	}
	for _, one := range s.Rings {
		c := rings[one.Tenant]
		if c == nil || one.Complete.IsZero() {
			continue
		}
		r := k.addTenant(one.Tenant)
		status := &Status{SyncState: state(one.Complete, one.Good)}
		r.own.Store(status)
		if c.HasKeys() || !c.Facts.Equal(ring.Facts{}) {
			k.set(r, c, nil)
		}
	}
	for _, b := range s.Buckets {
		if b.Index >= len(k.byIndex) || b.Complete.IsZero() {
			continue
		}
		if synced := k.byIndex[b.Index].Load(); synced != nil {
			synced.state, synced.place = state(b.Complete, b.Good), store.Place{ID: b.PlaceID, Nonce: b.PlaceNonce}
			synced.Status.Store(&Status{SyncState: synced.state})
		}
	}
	k.retime()
	k.saver.loaded, k.saver.newest = true, s.At
	k.cfg.Logger.Info("began with the snapshot", "of", s.At.Format(time.RFC3339), "rings", len(rings))
}

// wakeSaver tells keepSnapshot that a poll is over. It never waits.
func (k *Rings) wakeSaver() {
	select {
	case k.saver.wake <- struct{}{}:
	default:
	}
}

const (
	// saveShare bounds the time that saving takes: a hundredth of all.
	saveShare = 100
	// saveRate bounds the bytes per second that saving writes: a disk has other work.
	saveRate = 1 << 20
)

// again returns how long after the last saving the next one may begin: half of Freshness, so that a
// process that is killed has the other half to start again, or longer if that costs much.
func (s *saver) again(fresh time.Duration) time.Duration {
	return max(fresh/2, saveShare*s.took, time.Duration(s.bytes)*time.Second/saveRate)
}

// keepSnapshot writes the snapshot after a poll, until ctx ends. It does so even if no ring has changed:
// its times are the evidence that a restart was short.
func (k *Rings) keepSnapshot(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.saver.wake:
		}
		s := &k.saver
		if now := k.cfg.Now(); !s.at.IsZero() && protocol.Age(now, s.at) < s.again(k.Times.Load().Fresh) {
			continue
		}
		err := k.save()
		if err != nil && !s.said {
			k.cfg.Logger.Warn("the snapshot cannot be written", "error", err)
		}
		s.said = err != nil
	}
}

// save writes the snapshot, unless no bucket was read since the last one. An instance that could not
// read the store leaves what another one has written, or it itself before.
func (k *Rings) save() error {
	if k.cfg.Snapshot == "" {
		return nil
	}
	begin := k.cfg.Now()
	s, newest, err := k.snapshot(begin)
	if err != nil || !newest.After(k.saver.newest) {
		return err
	}
	blob, err := seal.SealSnapshot(k.KEKs.Load(), k.cfg.StoreName, s)
	if err != nil {
		return err
	}
	if err := snapshot.Write(k.cfg.Snapshot, blob); err != nil {
		return err
	}
	k.saver.newest, k.saver.at, k.saver.took, k.saver.bytes = newest, begin, protocol.Age(k.cfg.Now(), begin), len(blob)
	return nil
}

// snapshot returns the rings that are held now, and when the last complete read of them was sent. It
// leaves out a bucket or ring that has never been in sync, since a key may be missing from it.
func (k *Rings) snapshot(now time.Time) (s *seal.Snapshot, newest time.Time, err error) {
	s = &seal.Snapshot{At: protocol.WholeMillis(now)}
	for i := range k.byIndex {
		b := k.byIndex[i].Load()
		if b == nil {
			continue
		}
		if status := b.Status.Load(); !status.Knew.IsZero() {
			s.Buckets = append(s.Buckets, seal.SnapshotBucket{Index: b.index, Complete: protocol.WholeMillis(status.Complete), Good: protocol.WholeMillis(status.Knew),
				PlaceID: status.Place.ID, PlaceNonce: status.Place.Nonce})
			newest = later(newest, status.Complete)
		}
	}
	keks, rings := k.KEKs.Load(), k.All()
	slices.SortFunc(rings, func(a, b *Ring) int { return strings.Compare(a.Tenant, b.Tenant) })
	for _, r := range rings {
		status, c := r.SyncStatus(), r.Copy() // in this order: see Ring
		if c == nil || status.Knew.IsZero() {
			continue
		}
		one := seal.SnapshotRing{Tenant: r.Tenant, Complete: protocol.WholeMillis(status.Complete), Good: protocol.WholeMillis(status.Knew)}
		if one.Fields, err = c.Fields(keks, r.Tenant); err != nil {
			return nil, time.Time{}, err
		}
		s.Rings = append(s.Rings, one)
	}
	return s, newest, nil
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
