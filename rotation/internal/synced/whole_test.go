package synced

import (
	"errors"
	"testing"
	"time"
)

// A bucket has a place for the snapshot only if its rings have everything up to there.
func TestWhole(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Bucket)
		want bool
	}{
		{"in sync", func(*Bucket) {}, true},
		{"recovering", func(b *Bucket) { b.state.Recovering = true }, false},
		{"the clocks differ", func(b *Bucket) { b.err = errors.New("off") }, false},
		{"a ring has to be read", func(b *Bucket) { b.rings[1].dirty = true; b.touch(b.rings[1]) }, false},
		{"news waits for a ring", func(b *Bucket) { b.rings[1].news = new(news); b.touch(b.rings[1]) }, false},
	} {
		b := &Bucket{rings: []*Ring{{}, {}}}
		if tt.edit(b); b.whole() != tt.want {
			t.Errorf("%s: %v", tt.name, !tt.want)
		}
	}
}

// Saving takes at most a hundredth of the time, and a MiB a second.
func TestHowOftenASnapshotIsSaved(t *testing.T) {
	for _, tt := range []struct {
		bytes      int
		took, want time.Duration
	}{
		{1 << 20, 100 * time.Millisecond, 30 * time.Second},
		{1 << 20, time.Second, 100 * time.Second},
		{200 << 20, time.Second, 200 * time.Second},
	} {
		if got := (&saver{bytes: tt.bytes, took: tt.took}).again(time.Minute); got != tt.want {
			t.Errorf("%d bytes in %v: again after %v, want %v", tt.bytes, tt.took, got, tt.want)
		}
	}
}
