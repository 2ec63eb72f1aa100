package protocol

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

func TestCollect(t *testing.T) {
	const x, a, w = ring.FactRevoked, ring.FactPromoted, ring.FactAnnounced
	three := []ring.Record{key("k1", 1, -100, 0), key("k2", 2, -99, 100), key("k3", 3, 100, 200)}
	// The third was made to sign before the second.
	passed := []ring.Record{three[0], three[1], key("k3", 3, 40, 200)}
	// The second was created before the first, as by another lineage.
	crossed := []ring.Record{key("k1", 1, 10, 0), key("k2", 2, 5, 100), key("k3", 3, 100, 200)}
	for _, tt := range []struct {
		name    string
		records []ring.Record
		facts   []factAt
		revived []string
		now     float64
		want    string  // kids
		gone    float64 // the last that is gone was created then; 0 for none
	}{
		// The first is kept until 125, for L and leeway, and F + D + S is 16s. After an announcement it is kept for SignFor + D + S, 36s, more.
		{"F + D + S after it was dropped, and not before", three, nil, nil, 140.999, "", 0},
		{"then", three, nil, nil, 141, "k1", -100},
		{"all that are over", three, nil, nil, 241, "k1 k2", -99},
		{"the last never is", three, nil, nil, 1e6, "k1 k2", -99},
		{"kept for longer, since it was announced", three, []factAt{{w, "k1", 200}}, nil, 276.999, "", 0},
		{"a prefix of the order alone", three, []factAt{{w, "k1", 200}}, nil, 250, "", 0},
		{"so also if the next was created before", crossed, []factAt{{w, "k1", 200}}, nil, 250, "", 0},
		{"and then both", three, []factAt{{w, "k1", 200}}, nil, 277, "k1 k2", -99},

		{"promoted past another: no sooner than that", passed, []factAt{{a, "k3", 50}}, nil, 1e6, "k1", -100},
		{"revoked before it signed: it goes when it would have, and the rest stays", three, []factAt{{x, "k2", 50}, {w, "k1", 400}}, nil, 300, "k2", 0},
		{"but not before", three, []factAt{{x, "k2", 50}, {w, "k1", 400}}, nil, 240.999, "", 0},
		{"revoked while it signed: as any other", three, []factAt{{x, "k1", 50}}, nil, 141, "k1", -100},

		{"what was collected and put back, at once", three, nil, []string{"old"}, 0, "old", 0},
		{"and beside others", three, nil, []string{"old"}, 141, "old k1", -100},
	} {
		h := ringOf(tt.facts, tt.records...)
		h.Revived = tt.revived
		p := baseOf(h, tt.now).Collect()
		if p == nil {
			p = &Proposal{}
		}
		if got := strings.Join(p.Remove, " "); got != tt.want {
			t.Errorf("%s: collected %q, want %q", tt.name, got, tt.want)
			continue
		}
		var gone []string
		for _, f := range p.Facts {
			gone = append(gone, fmt.Sprintf("%c%s from %v to %v: %v", f.Kind, f.KID, f.From, f.To, f.At))
		}
		var want []string
		if tt.gone != 0 {
			want = append(want, fmt.Sprintf("%c from %v to %v: %v", ring.FactCollected, -unbounded, time.Duration(0), sec(tt.gone)))
		}
		if !slices.Equal(gone, want) {
			t.Errorf("%s: the facts are %q, want %q", tt.name, gone, want)
		}
	}
}

// A key that was passed over is revoked while it is pending, and one that passed it is
// over. To collect that would make the revoked one gone, too, and with it the reason not to
// sign before its revocation is confirmed.
func TestRevocationStaysUntilConfirmed(t *testing.T) {
	facts := []factAt{{ring.FactPromoted, "k3", 50}, {ring.FactAnnounced, "k3", 50}, {ring.FactPromoted, "k4", 100}, {ring.FactAnnounced, "k4", 100}, {ring.FactRevoked, "k2", 240}}
	records := []ring.Record{key("k1", 1, -100, 0), key("k2", 2, -99, 250), key("k3", 3, 20, 350), key("k4", 4, 55, 450), key("k5", 5, 150, 550)}
	h := ringOf(facts, records...)
	if p := baseOf(h, 241).Collect(); p != nil {
		for _, f := range p.Facts {
			h.Facts.Collect(0, f.At)
		}
		h.replan()
	}
	if r, err := h.Signing(sec(255), sec(245), roundDeadline); err == nil {
		t.Errorf("it signs with %s; %d keys have left the order", r.KID, len(h.Plan.NeverActive))
	}
}

// A person who can write to the store can put a hundred thousand fields into a destroyed ring. They are
// removed in changes of bounded size, and all of them in the end.
func TestCollectIsBounded(t *testing.T) {
	const many = 2500
	c := *deadRing(1, 40, nil)
	for i := range many {
		name := strconv.Itoa(i)
		c.Revived, c.RevivedAccepts = append(c.Revived, "k"+name), append(c.RevivedAccepts, "v"+name)
		c.TenantKeys = append(c.TenantKeys, TenantKey{ID: name})
	}
	changes := 0
	for p := baseOf(NewCopy(c), 50).Collect(); p != nil; p = baseOf(NewCopy(c), 50).Collect() {
		if n := len(p.Remove) + len(p.RemoveAccepts) + len(p.RemoveKeys); n > 3*maxRevived {
			t.Fatalf("one change removes %d parts", n)
		}
		gone := func(from, removed []string) []string {
			return slices.DeleteFunc(from, func(name string) bool { return slices.Contains(removed, name) })
		}
		c.Revived, c.RevivedAccepts = gone(c.Revived, p.Remove), gone(c.RevivedAccepts, p.RemoveAccepts)
		c.TenantKeys = slices.DeleteFunc(c.TenantKeys, func(tk TenantKey) bool { return slices.Contains(p.RemoveKeys, tk.ID) })
		changes++
	}
	if changes < 2 || len(c.Revived)+len(c.RevivedAccepts)+len(c.TenantKeys) != 0 {
		t.Errorf("after %d changes %d records, %d accepted keys and %d tenant keys are left", changes, len(c.Revived), len(c.RevivedAccepts), len(c.TenantKeys))
	}
}
