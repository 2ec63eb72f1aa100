package verifier_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// An epoch is a span of time in which a row, or the database, was in one state.
type epoch struct {
	from time.Time
	is   verifier.Reason // the verdict that it leads to; "" is a good token
}

// history is the states of one row, in their order.
type history []epoch

// was reports whether it was in that state at some moment since then.
func (h history) was(is verifier.Reason, since time.Time) bool {
	for i, e := range h {
		if e.is == is && (i == len(h)-1 || !h[i+1].from.Before(since)) {
			return true
		}
	}
	return false
}

// A resolveWorld is a verifier with Resolve, and what its database and its callers have done.
type resolveWorld struct {
	*site
	r       *rand.Rand
	ids     []string
	rows    map[string]history
	outage  history
	removed map[string]time.Time
	put     map[string]verifier.Reason
	tokens  map[string]string
	seen    map[verifier.Reason]int
}

const resolveTTL = 20 * time.Second

func newResolveWorld(t *testing.T, seed uint64) *resolveWorld {
	w := &resolveWorld{r: rand.New(rand.NewPCG(seed, 3)), ids: []string{"a", "b", "c", "d", "e"}, rows: make(map[string]history),
		outage: history{{time.Now(), ""}}, removed: make(map[string]time.Time), put: make(map[string]verifier.Reason), seen: make(map[verifier.Reason]int), tokens: make(map[string]string)}
	w.site = newSite(t, newDatabase(t), func(c *verifier.Config) { c.ResolveTTL, c.MaxResolved = resolveTTL, 3 })
	for _, id := range w.ids {
		w.rows[id] = history{{time.Now(), verifier.ReasonUnknownTenant}}
		w.tokens[id] = liveToken(id, "https://"+id)
	}
	return w
}

// row returns a tenant whose tokens get that verdict.
func (w *resolveWorld) row(id string, is verifier.Reason) verifier.Tenant {
	return tenant(w.t, id, "https://"+id, func(r *verifier.Tenant) {
		if r.Suspended = is == verifier.ReasonSuspended; is == verifier.ReasonMissingClaim {
			r.Required = []string{"role"}
		}
	})
}

// step does something at random: to the row of id, to the database, or to the verifier.
func (w *resolveWorld) step(id string) {
	states := []verifier.Reason{"", "", verifier.ReasonSuspended, verifier.ReasonMissingClaim, verifier.ReasonUnknownTenant}
	is := states[w.r.IntN(len(states))]
	switch w.r.IntN(12) {
	case 0, 1:
		if row := w.row(id, is); is == verifier.ReasonUnknownTenant {
			w.db.set(id, nil)
		} else {
			w.db.set(id, &row)
		}
		w.rows[id] = append(w.rows[id], epoch{time.Now(), is})
	case 2:
		is = ""
		if w.db.err = nil; w.r.IntN(3) == 0 {
			w.db.err, is = errors.New("connection refused"), verifier.ReasonUnavailable
		}
		w.outage = append(w.outage, epoch{time.Now(), is})
	case 3:
		w.v.Remove(id) // an error if it is not held
		delete(w.put, id)
		w.removed[id] = time.Now()
	case 4:
		if is != verifier.ReasonUnknownTenant {
			w.put[id] = is
			if err := w.v.Put(w.row(id, is)); err != nil {
				w.t.Error(err)
			}
		}
	case 5:
		list := []verifier.Tenant{w.row(id, "")}
		if _, errs := w.v.Sync(list); errs != nil {
			w.t.Error(errs)
		}
		clear(w.put)
		w.put[id] = ""
		for _, other := range w.ids {
			w.removed[other] = time.Now()
		}
	case 6, 7:
		time.Sleep(time.Duration(w.r.Int64N(int64(resolveTTL))))
	default:
		time.Sleep(time.Duration(w.r.Int64N(int64(time.Second))))
	}
}

// verify verifies a token of id, and checks that the verdict has a reason in the past that still counts.
func (w *resolveWorld) verify(id string) {
	w.t.Helper()
	token, hinted := w.tokens[id], w.r.IntN(2) == 0
	var err error
	if hinted {
		_, err = w.v.VerifyTenant(w.t.Context(), id, token)
	} else {
		_, err = w.v.Verify(w.t.Context(), token)
	}
	var got verifier.Reason
	if e := (*verifier.Error)(nil); errors.As(err, &e) {
		got = e.Reason
	}
	w.seen[got]++
	if is, put := w.put[id]; put {
		if got != is {
			w.t.Errorf("%s was put: %q (%v), want %q", id, got, err, is)
		}
		return
	}
	now := time.Now()
	ok := false
	switch got {
	case verifier.ReasonUnavailable:
		ok = w.outage.was(got, now.Add(-time.Second))
	case verifier.ReasonUnknownTenant:
		ok = w.rows[id].was(got, now.Add(-5*time.Second))
	default:
		since := now.Add(-resolveTTL)
		if w.removed[id].After(since) {
			since = w.removed[id]
		}
		ok = w.rows[id].was(got, since)
	}
	if !ok {
		w.t.Errorf("%s at %v, hinted %v: %q (%v), and its row was %v, removed at %v, outages %v", id, now, hinted, got, err, w.rows[id], w.removed[id], w.outage)
	}
}

// TestResolveModel: whatever happens to the rows, the database and the tenants, in any order, no verdict
// comes from what no longer counts: a row that changed longer ago than the TTL, one that was there before
// a removal, a tenant that was put.
func TestResolveModel(t *testing.T) {
	seen := make(map[verifier.Reason]int)
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newResolveWorld(t, seed)
				for range 300 {
					w.step(w.ids[w.r.IntN(len(w.ids))])
					w.verify(w.ids[w.r.IntN(len(w.ids))])
					w.verify(w.ids[w.r.IntN(len(w.ids))])
					if t.Failed() {
						return
					}
				}
				for reason, n := range w.seen {
					seen[reason] += n
				}
			})
		})
	}
	for _, reason := range []verifier.Reason{"", verifier.ReasonUnknownTenant, verifier.ReasonUnavailable, verifier.ReasonSuspended, verifier.ReasonMissingClaim} {
		if seen[reason] < 500 {
			t.Errorf("%d verdicts were %q: the test proves little", seen[reason], reason)
		}
	}
	t.Log(seen)
}
