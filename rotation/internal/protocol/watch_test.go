package protocol

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// TestWatch: a wait for a revocation ends well only once an instance that holds the ring has applied
// it, and each one that was live too.
func TestWatch(t *testing.T) {
	const fresh, gap = 10 * time.Second, 2 * time.Second
	ack := func(instance string, applied, holds bool) ring.Ack {
		return ring.Ack{Instance: instance, At: sec(0), Applied: applied, Holds: holds}
	}
	a, b := ack("a", false, false), ack("b", false, false)
	readA, hasA, hasB := ack("a", true, false), ack("a", true, true), ack("b", true, true)
	type acks = []ring.Ack
	for _, tt := range []struct {
		name   string
		before acks
		told   int
		looks  []acks
		well   time.Duration // how long after the begin it ends well, or -1
		badly  time.Duration // how long after the begin it is said to be unconfirmed, or -1
	}{
		{"a holder has it", acks{a}, 1, []acks{{hasA}}, 0, -1},
		{"and leaves it out later", acks{a}, 1, []acks{{hasA}, {a}}, 0, -1},
		{"one of two has it", acks{a, b}, 1, []acks{{hasA, b}}, -1, -1},
		{"both have it, one after the other", acks{a, b}, 1, []acks{{hasA, b}, {a, hasB}}, 0, -1},
		{"the other one said so before, and is hidden", acks{a, b}, 1, []acks{{hasA}}, -1, -1},
		{"an instance without the ring has read it", acks{a}, 1, []acks{{readA}}, -1, 2*gap + 1},
		{"an instance without the ring, and a holder", nil, 1, []acks{{readA, hasB}}, 0, -1},
		{"all are hidden, and one was there before", acks{a}, 0, []acks{{}}, -1, -1},
		{"all are hidden, and something listens", nil, 1, []acks{{}}, -1, 2*gap + 1},
		{"no sign of an instance", nil, 0, []acks{{}}, gap + 1, -1},
	} {
		w := NewWatch("n", true, tt.before, tt.told)
		for _, live := range tt.looks {
			w.Look(live, sec(0), fresh)
		}
		well, badly := time.Duration(-1), time.Duration(-1)
		for _, waited := range []time.Duration{0, gap, gap + 1, 2 * gap, 2*gap + 1} {
			switch done, err := w.Done(waited, gap); {
			case done && err == nil && well < 0:
				well = waited
			case done && errors.Is(err, ring.ErrUnconfirmed) && badly < 0:
				badly = waited
			}
		}
		if well != tt.well || badly != tt.badly {
			t.Errorf("%s: ends well after %v, and badly after %v; want %v, %v", tt.name, well, badly, tt.well, tt.badly)
		}
		exists := tt.told > 0 || len(tt.before) > 0 // where nothing exists, the end of ctx speaks
		if err := w.Unfinished("acme", nil); (err != nil) != (exists && well < 0) {
			t.Errorf("%s: at the end of the wait: %v", tt.name, err)
		}
	}
}

// TestWatchForgets: an instance that has said nothing for Freshness is not missing. It has ended, or
// is cut off and knows that it is out of sync.
func TestWatchForgets(t *testing.T) {
	const fresh = 10 * time.Second
	w := NewWatch("n", true, []ring.Ack{{Instance: "a", At: sec(0)}}, 0)
	for i, after := range []time.Duration{fresh, fresh + 1} {
		w.Look(nil, sec(0).Add(after), fresh)
		if got, want := len(w.Acks()), 1-i; got != want {
			t.Errorf("%v after its last word, %d count, want %d", after, got, want)
		}
	}
	// It existed all the same, so the wait does not end well.
	if done, err := w.Done(time.Minute, time.Second); !done || err == nil {
		t.Errorf("Done = %v, %v", done, err)
	}
}

// TestWatchOfOtherChanges: nothing else than a revocation needs a holder, and what changed nothing
// needs no wait.
func TestWatchOfOtherChanges(t *testing.T) {
	for _, tt := range []struct {
		nonce   string
		revokes bool
		acks    []ring.Ack
		want    bool
	}{
		{"n", false, nil, true},
		{"n", false, []ring.Ack{{Instance: "a", Applied: true}}, true},
		{"n", false, []ring.Ack{{Instance: "a"}}, false},
		{"", true, []ring.Ack{{Instance: "a"}}, true},
	} {
		w := NewWatch(tt.nonce, tt.revokes, nil, 1)
		w.Look(tt.acks, time.Time{}, time.Hour)
		if done, err := w.Done(0, time.Second); done != tt.want || err != nil {
			t.Errorf("%+v: %v, %v", tt, done, err)
		}
	}
}
