package protocol

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// TestShortHistories explores every history of three steps out of sixteen, from seven beginnings on.
// The steps call only this package and ring, as a model checker would.
func TestShortHistories(t *testing.T) {
	chosen := named(t, "9s pass", "the newest change is lost", "the store is emptied", "a collected record is put back",
		"0 syncs", "1 syncs", "0 mints ahead", "0 rotates by force", "1 rotates by force",
		"0 revokes the signer by force", "0 revokes the last", "0 collects", "1 shreds", "0 creates again", "a shredded record is put back",
		"1 accepts for 100s", "0 revokes an accepted key")
	taken := 0
	var explore func(w world, left int)
	explore = func(w world, left int) {
		for _, s := range chosen {
			if left == 0 || t.Failed() {
				return
			}
			next, ok, err := w.after(s)
			if err != nil {
				t.Error(err)
			}
			if taken++; ok {
				explore(next, left-1)
			}
		}
	}
	for _, begin := range beginnings(t) {
		explore(begin, shortSteps)
	}
	if least := map[int]int{2: 500, 3: 5_000}[shortSteps]; taken < least {
		t.Errorf("only %d steps were possible", taken)
	}
}

// beginnings are the worlds that short histories begin with.
func beginnings(t *testing.T) []world {
	known := follow(t, newWorld(), "0 creates", "1 syncs", "3s pass", "3s pass", "0 syncs", "1 syncs")
	unheard := follow(t, known, "3s pass", "0 syncs", "9s pass", "0 syncs", "0 rotates")
	over := follow(t, unheard, slices.Repeat([]string{"9s pass", "0 syncs"}, 9)...)
	gone := follow(t, over, "0 collects", "1 syncs")
	if len(gone.collected) == 0 {
		t.Fatal("no record was collected")
	}
	accepted := follow(t, known, "0 accepts for 30s", "1 syncs")
	again := follow(t, known, "0 shreds", "0 creates again") // 1 still holds the life before
	held := follow(t, newWorld(), "0 adopts and holds", "1 syncs", "9s pass", "9s pass", "0 syncs", "1 syncs")
	return []world{known, unheard, over, gone, again, held, accepted}
}

// follow returns w after the steps of those names.
func follow(t *testing.T, w world, names ...string) world {
	t.Helper()
	for _, s := range named(t, names...) {
		next, ok, err := w.after(s)
		if err != nil || !ok {
			t.Fatalf("%s: %v, %v", strings.Join(next.path, "; "), ok, err)
		}
		w = next
	}
	return w
}

func named(t *testing.T, names ...string) (chosen []step) {
	t.Helper()
	all := steps(3)
	for _, name := range names {
		i := slices.IndexFunc(all, func(s step) bool { return s.name == name })
		if i < 0 {
			t.Fatalf("there is no step %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen
}

// TestLongHistories follows random histories of three instances. A seed names one of them.
func TestLongHistories(t *testing.T) {
	all := steps(3)
	usual := named(t, "3s pass", "9s pass", "3s pass", "9s pass", "0 syncs", "1 syncs", "2 syncs", "40s pass")
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 0))
		begin := "0 creates"
		if seed%3 == 0 {
			begin = "0 adopts and holds"
		}
		w := follow(t, newWorld(), begin)
		for range 60 {
			from := all
			if rng.IntN(2) == 0 {
				from = usual
			}
			next, ok, err := w.after(from[rng.IntN(len(from))])
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if ok {
				w = next
			}
		}
	}
}

// check holds w, which follows before by one step, to the rules that hold at every moment.
func (w *world) check(before *world) error {
	var errs []error
	for i := range w.instances {
		errs = append(errs, w.remembersRevocations(i, before), w.keepsCollected(i, before), w.keepsAccepted(i, before), w.staysDead(i, before), w.agreesWithView(i), w.keepsWhatItSigns(i), w.waitsForPromotion(i))
		for j := range i {
			errs = append(errs, w.mergesInEitherOrder(i, j))
		}
	}
	return errors.Join(errs...)
}

// remembersRevocations: an instance that knows a revocation never forgets it, and never accepts the
// key again. A restart ends that memory.
func (w *world) remembersRevocations(i int, before *world) error {
	was, is := before.instances[i].held, w.instances[i].held
	if was == nil || is == nil {
		return nil
	}
	for id := range was.Facts.All {
		if id.Kind != ring.FactRevoked {
			continue
		}
		if _, known := is.Facts.At(id.Kind, id.KID); !known {
			return fmt.Errorf("instance %d has forgotten the revocation of %s", i, id.KID)
		}
		accepts := func(k ring.Key) bool { return k.KID == id.KID && k.Verifies() }
		if slices.ContainsFunc(is.Plan.At(w.now).Keys, accepts) {
			return fmt.Errorf("instance %d accepts %s, which is revoked", i, id.KID)
		}
	}
	return nil
}

// staysDead: an instance that knows how many lives have ended never forgets it, and holds no record of
// one of them.
func (w *world) staysDead(i int, before *world) error {
	was, is := before.instances[i].held, w.instances[i].held
	if was == nil || is == nil {
		return nil
	}
	for _, r := range is.Records {
		if r.Life < was.Facts.Dead || r.Life < is.Facts.Dead {
			return fmt.Errorf("%s of life %d is held by instance %d", r.KID, r.Life, i)
		}
	}
	if is.Facts.Dead < was.Facts.Dead || is.Facts.Dead == was.Facts.Dead && is.Facts.DeadAt.IsZero() && !was.Facts.DeadAt.IsZero() {
		return fmt.Errorf("instance %d has forgotten that %d lives have ended", i, was.Facts.Dead)
	}
	return nil
}

// keepsCollected: a record that an instance knows as collected does not return to it. The exception
// is an instance that was away for longer than SignFor, and reads a store that does not know of the
// collection.
func (w *world) keepsCollected(i int, before *world) error {
	was, is := before.instances[i], w.instances[i].held
	if was.held == nil || is == nil {
		return nil
	}
	for _, r := range is.Records {
		away := was.trust.Good.IsZero() || Age(w.clock(i), was.trust.Good) > r.Timing.SignFor
		knew := was.held.Facts.Collected(r.Record) || slices.Contains(was.gone, r.KID)
		if knew && !(away && before.lostCollection(r)) {
			return fmt.Errorf("%s was collected, and returns to instance %d", r.KID, i)
		}
	}
	return nil
}

// keepsAccepted: an accepted key stays at an instance until its date, which never becomes earlier,
// unless it is revoked or the ring is destroyed, whatever happens to the store and to the records.
func (w *world) keepsAccepted(i int, before *world) error {
	was, is := before.instances[i].held, w.instances[i].held
	if was == nil || is == nil {
		return nil
	}
	for _, a := range was.Accepts {
		then := was.Facts.Accepted(a.AcceptRecord)
		if !w.clock(i).Before(then.Until) || !w.now.Before(then.Until) || a.Life < is.Facts.Dead {
			continue
		}
		if now := is.FindAccept(a.KID); now == nil {
			return fmt.Errorf("instance %d has lost the accepted key %s", i, a.KID)
		} else if until := is.Facts.Accepted(now.AcceptRecord).Until; until.Before(then.Until) {
			return fmt.Errorf("at instance %d the accepted key %s ends at %v, and did at %v", i, a.KID, until, then.Until)
		}
	}
	for _, a := range is.Accepts {
		_, revoked := is.Facts.At(ring.FactRevoked, a.KID)
		if now := is.Facts.Accepted(a.AcceptRecord); revoked && now.Verifies(w.now) {
			return fmt.Errorf("instance %d accepts %s, which is revoked", i, a.KID)
		}
	}
	return nil
}

// lostCollection reports whether the store has lost every collection of r, and what later ones say.
func (w *world) lostCollection(r Record) bool {
	stands := func(c collection) bool { return !c.Created.Before(r.Created) && w.has(c.by) }
	return !slices.ContainsFunc(w.collected, stands)
}

// keepsWhatItSigns: an instance signs with no revoked key and none that is pending, and keeps the key
// until its token has ended. It signs in place of the key that the plan names, or with that one.
func (w *world) keepsWhatItSigns(i int) error {
	me, t := &w.instances[i], w.clock(i)
	if me.held == nil {
		return nil
	}
	k, err := me.held.Signing(t, me.trust.Good, roundDeadline)
	if err != nil {
		return nil
	}
	s, end := me.held.Plan.Signer(t), t.Add(k.Timing.MaxTokenTTL+k.Timing.Leeway)
	switch {
	case !k.RevokedAt.IsZero(), k.ActivatesAt.After(later(t, me.held.Plan.Past)), ring.ByEffect(*k, *s) > 0:
		return fmt.Errorf("instance %d signs with %s, which is revoked, or not yet to sign", i, k.KID)
	case !k.DroppedAt.IsZero() && k.DroppedAt.Before(end):
		return fmt.Errorf("instance %d signs with %s until %v, and drops it at %v", i, k.KID, end, k.DroppedAt)
	}
	return nil
}

// agreesWithView: the plan of a copy and ring.View say the same.
func (w *world) agreesWithView(i int) error {
	c := w.instances[i].held
	if c == nil {
		return nil
	}
	var records []ring.Record
	for _, r := range c.Records {
		records = append(records, *r.Record)
	}
	if view, plan := ring.View(records, c.Facts, w.now), c.Plan.At(w.now); !reflect.DeepEqual(view, plan) {
		return fmt.Errorf("instance %d goes by %+v, and ring.View says %+v", i, plan, view)
	}
	return nil
}

// waitsForPromotion: a key that waits takes effect only once it was promoted, and never behind a
// date: by the clock of a hundred years from now it does not sign either. A key with Hold signs until
// another key takes effect.
func (w *world) waitsForPromotion(i int) error {
	c := w.instances[i].held
	if c == nil {
		return nil
	}
	for _, now := range []time.Time{w.now, w.now.AddDate(100, 0, 0)} {
		r := c.Plan.At(now)
		for n, k := range r.Keys {
			_, promoted := c.Facts.At(ring.FactPromoted, k.KID)
			switch {
			case k.Waits && !promoted && (k.State != ring.Pending && k.State != ring.Revoked || !k.ActivatesAt.IsZero()):
				return fmt.Errorf("instance %d: %s waits, and is %s from %v on", i, k.KID, k.State, k.ActivatesAt)
			case k.Hold && r.Signer != n && k.RevokedAt.IsZero() && k.RetiresAt.IsZero():
				return fmt.Errorf("instance %d: %s has Hold, no key follows it, and it is %s", i, k.KID, k.State)
			}
		}
	}
	return nil
}

// mergesInEitherOrder: two holders that merge in either order come to the same records, revocations
// and collections. If both may sign with every key that they hold, they come to the same schedule
// too, and if they hold the same, to the same facts. Otherwise the order matters: an instance that
// was away publishes active keys again, unless one that was in sync has restored them before.
func (w *world) mergesInEitherOrder(i, j int) error {
	if w.instances[i].held == nil || w.instances[j].held == nil {
		return nil
	}
	one, err := w.merged(i, j)
	if err != nil {
		return err
	}
	other, err := w.merged(j, i)
	if err != nil {
		return err
	}
	if w.disagree(i, j) || w.disagree(j, i) {
		return nil
	}
	schedule := w.maySignWithAll(i) && w.maySignWithAll(j)
	if a, b := w.summary(one, schedule), w.summary(other, schedule); a != b {
		return fmt.Errorf("instances %d and %d come to\n%s, and in the other order to\n%s", i, j, a, b)
	}
	if schedule && same(w.instances[i].held, w.instances[j].held) == nil {
		return same(one, other)
	}
	return nil
}

// merged returns the store after i and j have synced in turns, twice each. Then both have the same
// records and facts as the store. Once each is not enough: j may write back that a key was published
// again, and i then asserts that it has signed with it.
func (w *world) merged(i, j int) (*Copy, error) {
	f := w.fork()
	for _, n := range []int{i, j, i, j} {
		if err := f.sync(n, plainMerge); err != nil {
			return nil, err
		}
	}
	for _, n := range []int{i, j} {
		if err := same(f.instances[n].held, f.top().c); err != nil {
			return nil, fmt.Errorf("%d and %d have synced twice, and %d and the store differ: %w", i, j, n, err)
		}
	}
	settled := f.changes
	for _, n := range []int{i, j} {
		if err := f.sync(n, plainMerge); err != nil || f.changes != settled {
			return nil, fmt.Errorf("%d and %d have synced twice, and %d has something to write: %v", i, j, n, err)
		}
	}
	return f.top().c, nil
}

// disagree reports whether i knows a record as collected that j holds, or has dropped it. If i was
// away, it accepts a collected record from a store that has it, and asserts the collection in a store
// that lacks it. If it is in sync, it does the same with a record that it has dropped.
func (w *world) disagree(i, j int) bool {
	held := w.instances[i].held
	ended := func(r Record) bool {
		return held.Facts.Collected(r.Record) || held.PlanOf(r.Record).Dropped(w.clock(i))
	}
	return slices.ContainsFunc(w.instances[j].held.Records, ended)
}

// maySignWithAll reports whether instance i was in sync within SignFor, and later than Dwell after
// each of its records was created.
func (w *world) maySignWithAll(i int) bool {
	me := &w.instances[i]
	return !me.trust.Good.IsZero() && !slices.ContainsFunc(me.held.Records, func(r Record) bool {
		return Age(w.clock(i), me.trust.Good) > r.Timing.SignFor || !me.trust.Good.After(r.Created.Add(r.Timing.Dwell))
	})
}

// summary writes the records, revocations and collections of c, or also its schedule.
func (w *world) summary(c *Copy, schedule bool) string {
	s := fmt.Sprintf("%d lives ended, collected until %v", c.Facts.Dead, c.Facts.CollectedUntil)
	for _, a := range c.Accepts {
		s += fmt.Sprintf("\naccepted %+v %x", c.Facts.Accepted(a.AcceptRecord), a.Sum[:2])
	}
	for _, k := range c.Plan.At(w.now).Keys {
		_, revoked := c.Facts.At(ring.FactRevoked, k.KID)
		if !schedule {
			k = ring.Key{Record: k.Record}
		}
		s += fmt.Sprintf("\n%s revoked %v %s: %v, %v, %v", k.KID, revoked, k.State, k.ActivatesAt, k.RetiresAt, k.DroppedAt)
	}
	if !schedule { // then it has no order either
		lines := strings.Split(s, "\n")
		slices.Sort(lines)
		s = strings.Join(lines, "\n")
	}
	return s
}
