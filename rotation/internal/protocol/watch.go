package protocol

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A Watch is what a process has seen of the instances since it made a change. It is not safe for
// concurrent use.
type Watch struct {
	nonce     string              // of the change; "" if there was nothing to change
	revokes   bool                // a key, or all of a ring
	exists    bool                // there are instances, or something else listens
	confirmed bool                // an instance that holds the ring has said that it has applied the change
	seen      map[string]ring.Ack // of the instances that were live, until they would no longer be
}

// NewWatch begins to watch the change with that nonce. revokes says that it revokes a key, or destroys a ring. before has
// the instances that were live before the change, and told is how many listeners the store told of it.
func NewWatch(nonce string, revokes bool, before []ring.Ack, told int) *Watch {
	w := &Watch{nonce: nonce, revokes: revokes, exists: told > 0, seen: make(map[string]ring.Ack)}
	w.add(before)
	return w
}

// Look notes the live instances. An instance that was seen before stays, as long as it would be live
// by what it said last: a person who can write to the store can remove its acknowledgement.
func (w *Watch) Look(live []ring.Ack, now time.Time, fresh time.Duration) {
	w.add(live)
	maps.DeleteFunc(w.seen, func(_ string, a ring.Ack) bool { return now.Sub(a.At) > fresh })
}

// add notes acknowledgements. One has room for few changes, so what an instance has once applied it may
// leave out later.
func (w *Watch) add(acks []ring.Ack) {
	for _, a := range acks {
		old := w.seen[a.Instance]
		a.Applied, a.Holds = a.Applied || old.Applied, a.Holds || old.Holds
		w.seen[a.Instance] = a
		w.exists, w.confirmed = true, w.confirmed || a.Applied && a.Holds
	}
}

// Acks returns the last acknowledgements of the instances that count as live, sorted.
func (w *Watch) Acks() []ring.Ack {
	return slices.SortedFunc(maps.Values(w.seen), func(a, b ring.Ack) int { return strings.Compare(a.Instance, b.Instance) })
}

// missing returns the instances that count as live and have not applied the change, sorted.
func (w *Watch) missing() (instances []string) {
	if w.nonce == "" {
		return nil
	}
	for _, a := range w.Acks() {
		if !a.Applied {
			instances = append(instances, a.Instance)
		}
	}
	return instances
}

// Done reports whether the watch is over, for so long after its begin. gap is the longest time between
// two polls. The error says that a revocation is not confirmed.
//
// A revocation that no holder has read can be removed for ever, by a person who removes all
// acknowledgements too. So where there are instances, one that holds the ring has to confirm it: each
// acknowledges within two polls. Where there are none, it is watched for a poll.
func (w *Watch) Done(waited, gap time.Duration) (bool, error) {
	switch {
	case len(w.missing()) > 0:
		return false, nil
	case w.nonce == "" || !w.revokes || w.confirmed:
		return true, nil
	case w.exists:
		return waited > 2*gap, ring.ErrUnconfirmed
	}
	return waited > gap, nil
}

// Unfinished returns why the change of tenant is not known to be applied everywhere, or nil. cause is
// why the watch has ended.
func (w *Watch) Unfinished(tenant string, cause error) error {
	missing := w.missing()
	switch {
	case len(missing) > 0:
		return &ring.Error{Text: fmt.Sprintf("tenant %q: the change is made, but these instances have not applied it yet: %s", tenant, strings.Join(missing, ", ")), Err: cause}
	case w.nonce != "" && w.revokes && w.exists && !w.confirmed:
		return &ring.Error{Kind: ring.ErrUnconfirmed, Text: fmt.Sprintf("tenant %q", tenant), Err: cause}
	}
	return nil
}
