package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/drill"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// drillLooks is how often a drill looks whether something has happened.
const drillLooks = 20 * time.Millisecond

// A drillRun is a drill that has begun.
type drillRun struct {
	*drillCommand
	session *ringSession
	writer  *rotation.Keyring // as a command has one: it makes the changes
	rotator *rotation.Rotator // of writer
	own     *drillInstance    // beside the live instances
	name    string            // of own, and of the changes
	times   drill.Times
	live    map[string]bool // the instances that live, in the canary's bucket
	holds   map[string]bool // those of live that have said that they hold the canary
	made    bool            // the canary's ring
	again   bool            // a drill has destroyed a ring of that name
	removed bool
	lines   []drill.Line

	doing atomic.Pointer[string] // for the progress
	quiet func()                 // ends the progress
}

// begin makes the canary's ring. If it fails, nothing stays.
func (c *drillCommand) begin(ctx context.Context, s *ringSession) (_ *drillRun, err error) {
	polls := 2 * pollGap(max(time.Minute, c.freshness.value)) // until they hold the canary, they poll as seldom as by default
	if c.waits.wait.given {
		polls = c.waits.wait.value
	}
	r := &drillRun{drillCommand: c, session: s, name: drillName(rand.Text()[:8]), live: make(map[string]bool), holds: make(map[string]bool),
		times: drill.Times{Within: c.within.value, Polls: max(polls, c.within.value), Gap: pollGap(c.freshness.value), Freshness: c.freshness.value}}
	r.tellProgress(ctx)
	defer func() {
		if err != nil {
			r.end(ctx)
		}
	}()
	r.say("looking at the tenant, and at the instances")
	for _, step := range []func(context.Context) error{r.openWriter, r.findLive, r.clear} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	if r.own, err = openDrillInstance(ctx, s, c.tenant.value, r.name); err != nil {
		return nil, err
	}
	r.own.listens(ctx)
	r.say("making the canary's ring, and waiting for the instances")
	receipt, err := r.create(ctx)
	r.made = err == nil || !errors.Is(err, rotation.ErrRefused) // after another error it may have been made
	if err != nil {
		return nil, ringError(err)
	}
	r.hear(ctx, "ring made", receipt)
	return r, nil
}

func (r *drillRun) openWriter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	s := r.session
	k, err := rotation.Open(ctx, s.store, rotation.Config{KEKs: s.keks, Tenants: []string{r.tenant.value}, OneShot: true, Instance: r.name,
		Realm: s.realm, OtherRealms: s.otherRealms, Now: r.now})
	if err != nil {
		return openingError(err)
	}
	r.writer = k
	if r.rotator, err = rotation.NewRotator(k); err != nil {
		return ringError(err)
	}
	return nil
}

// create makes the ring.
func (r *drillRun) create(ctx context.Context) (rotation.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	var opts []rotation.Option
	if r.again {
		opts = append(opts, rotation.Again)
	}
	return r.rotator.Create(ctx, r.tenant.value, canaryPolicy(r.freshness.value), opts...)
}

// remove destroys the canary's ring: the instances that hold it would put it back if it were only
// deleted. What stays is that the name had a ring.
func (r *drillRun) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	_, err := r.rotator.Destroy(ctx, r.tenant.value)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil
	}
	return err
}

// liveFor is how old the acknowledgement of a live instance is at most. Its rings may have a longer
// Freshness than the canary.
func (r *drillRun) liveFor() time.Duration { return max(time.Minute, r.freshness.value) }

// findLive notes which instances live in the canary's bucket.
func (r *drillRun) findLive(ctx context.Context) error {
	acks, err := r.acks(ctx, r.tenant.value, rotation.Receipt{})
	if err != nil {
		return ringError(err)
	}
	for _, a := range acks {
		if r.now().Sub(a.At) > r.liveFor() {
			continue
		}
		if strings.HasPrefix(a.Instance, drillPrefix) {
			return exitf(exitNo, "another drill works on tenant %s, or was killed less than a minute ago: wait for it, or name another canary with --tenant", quoteShort(r.tenant.value))
		}
		r.live[a.Instance] = true
	}
	return nil
}

// acks returns the acknowledgements in the bucket of a tenant, for a change.
func (r *drillRun) acks(ctx context.Context, tenant string, receipt rotation.Receipt) ([]rotation.Ack, error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime/2)
	defer cancel()
	receipt.Tenant = tenant
	return r.rotator.Acks(ctx, receipt)
}

// clear refuses a tenant that exists, and removes what a drill that was killed has left.
func (r *drillRun) clear(ctx context.Context) error {
	if status, err := r.writer.Tenant(r.tenant.value); err == nil && status.Ring.Dead {
		return r.destroyedByDrill(ctx)
	}
	status, err := ringOf(r.writer, r.tenant.value)
	if e := (*exitError)(nil); errors.As(err, &e) && e.code == exitNo {
		return nil // no such ring
	}
	switch {
	case err != nil:
		return err
	case !isCanary(status.Ring):
		return exitf(exitNo, "tenant %s has a ring, and no drill made it: name a canary that is no tenant of yours, with --tenant", quoteShort(r.tenant.value))
	}
	r.note("an earlier drill has left its canary %s: it is removed", quoteShort(r.tenant.value))
	if err := r.remove(ctx); err != nil {
		return ringError(err)
	}
	r.again = true
	return nil
}

// destroyedByDrill refuses the name of a tenant that was destroyed, unless the log proves that a drill
// did it.
func (r *drillRun) destroyedByDrill(ctx context.Context) error {
	actor, err := r.lastActor(ctx, ring.OpDestroy, time.Time{})
	switch {
	case err != nil:
		return ringError(&rotation.Error{Kind: keystore.ErrUnavailable, Err: err})
	case !strings.HasPrefix(actor, drillPrefix):
		return exitf(exitNo, "tenant %s had a ring that was destroyed, and the log does not say that a drill did it: name another canary with --tenant", quoteShort(r.tenant.value))
	}
	r.again = true
	return nil
}

// lastActor returns who made the last change of that kind to the canary's ring, by its log, or "".
func (r *drillRun) lastActor(ctx context.Context, op ring.Op, since time.Time) (actor string, err error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	check, err := r.session.keks.EntryCheck(r.session.realm, r.session.otherRealms...)
	if err != nil {
		return "", err
	}
	m := newLogMerge(r.session.store, since, rotation.BucketOf(r.tenant.value))
	for e, ok := m.next(ctx); ok; e, ok = m.next(ctx) {
		if e.Tenant == r.tenant.value && e.Op == op && check(e.LogEntry) == nil {
			actor = e.Actor
		}
	}
	return actor, m.why
}

// end removes the canary, also after Ctrl-C, and closes what the drill has opened. The drill's own
// instance goes first: it would put the ring back.
func (r *drillRun) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*ringTime)
	defer cancel()
	r.say("removing the canary")
	if r.own != nil {
		r.own.close(ctx)
	}
	if r.made {
		err := r.remove(ctx)
		r.removed = err == nil
		line := drill.JudgeCheck(drill.Check{Step: "canary removed", Happened: err == nil, Found: "its ring is gone", Missing: "it is still there", Cut: err != nil})
		if err != nil {
			do := "run the drill again: it removes what is left. " + errorText(err)
			line.Do = &do
		}
		r.lines = append(r.lines, line)
	}
	if r.writer != nil {
		r.writer.Close(ctx)
	}
	r.quiet()
}

// say notes what the drill does now, for the progress.
func (r *drillRun) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.doing.Store(&text)
}

// tellProgress says on a terminal what the drill does, until quiet is called.
func (r *drillRun) tellProgress(ctx context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &progress{out: r.stderr, terminal: isTerminal(r.stderr)}
	r.say("connecting")
	var wg sync.WaitGroup
	wg.Go(func() {
		p.run(ctx, func() string { return "drill " + r.kind + ": " + *r.doing.Load() })
	})
	r.quiet = func() { cancel(); wg.Wait() }
}

// A probe is something that has to happen after a change. hear asks test until it says yes.
type probe struct {
	drill.Check
	test func() bool
}

// hear watches a change until every live instance has said that it applied it and every probe has
// happened, or their time is over, and notes what it saw.
func (r *drillRun) hear(ctx context.Context, step string, receipt rotation.Receipt, probes ...*probe) {
	begin, heard := time.Now(), r.awaited()
	for {
		took := time.Since(begin)
		if acks, err := r.acks(ctx, r.tenant.value, receipt); err == nil {
			r.noteHeard(heard, acks, took)
		}
		done := ask(probes, begin)
		for _, h := range heard {
			done = done && h.Applied
		}
		if done || time.Since(begin) > r.times.Polls || !pause(ctx, drillLooks) {
			break
		}
	}
	change := drill.Change{Step: step, Waited: time.Since(begin), Listeners: r.listeners(ctx)}
	for _, name := range slices.Sorted(maps.Keys(heard)) {
		change.Heard = append(change.Heard, *heard[name])
	}
	r.lines = append(r.lines, r.times.JudgeChange(change)...)
	r.judge(ctx, probes)
}

// awaited returns the instances that have to hear of a change.
func (r *drillRun) awaited() map[string]*drill.Heard {
	heard := map[string]*drill.Heard{r.name: {Instance: r.name, Own: true}}
	if r.own.link.IsCut() {
		delete(heard, r.name)
	}
	for name := range r.live {
		heard[name] = &drill.Heard{Instance: name}
	}
	return heard
}

// ask asks the probes that have not happened yet, and reports whether all have.
func ask(probes []*probe, begin time.Time) bool {
	done := true
	for _, p := range probes {
		if !p.Happened {
			p.Happened, p.Took = p.test(), time.Since(begin)
		}
		done = done && p.Happened
	}
	return done
}

// judge notes what came of the probes.
func (r *drillRun) judge(ctx context.Context, probes []*probe) {
	for _, p := range probes {
		p.Cut = ctx.Err() != nil
		r.lines = append(r.lines, drill.JudgeCheck(p.Check))
	}
}

// noteHeard notes which instances say that they applied a change.
func (r *drillRun) noteHeard(heard map[string]*drill.Heard, acks []rotation.Ack, took time.Duration) {
	for _, a := range acks {
		h := heard[a.Instance]
		if h == nil && r.now().Sub(a.At) <= r.times.Polls && a.Instance != r.name {
			h = &drill.Heard{Instance: a.Instance} // it has just started
			heard[a.Instance] = h
			r.live[a.Instance] = true
		}
		if h == nil || h.Applied {
			continue
		}
		h.Applied, h.Holds, h.Took, h.Unread = a.Applied, a.Holds, took, len(a.KEKs) == 0
		if h.Applied && h.Holds && !h.Own {
			r.holds[a.Instance] = true
		}
	}
}

// listeners returns how many clients hear a message of pub/sub, or -1.
func (r *drillRun) listeners(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, ringTime/4)
	defer cancel()
	n, err := r.session.store.nudge(ctx, rotation.BucketOf(r.tenant.value))
	if err != nil {
		return -1
	}
	return n
}

// pause waits, and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// whenAllowed makes a change as soon as it is not refused: a key has to be published for a while before
// it signs.
func (r *drillRun) whenAllowed(ctx context.Context, what string, do ringChange) (rotation.Receipt, error) {
	policy := canaryPolicy(r.freshness.value)
	last := time.Now().Add(2 * policy.HeardWithin())
	for {
		calling, cancel := context.WithTimeout(ctx, ringTime)
		receipt, err := do(calling, r.rotator)
		cancel()
		refused := (*rotation.RefusedError)(nil)
		if !errors.As(err, &refused) || refused.From.IsZero() || time.Now().After(last) {
			return receipt, err
		}
		left := refused.From.Sub(r.now())
		r.say("%s in %v: the next key has to be known everywhere first", what, max(0, left).Round(time.Second))
		if !pause(ctx, min(time.Second, max(50*time.Millisecond, left))) {
			return rotation.Receipt{}, ctx.Err()
		}
	}
}

// fail notes that the drill could not go on.
func (r *drillRun) fail(ctx context.Context, step string, err error) {
	check := drill.Check{Step: step, Missing: printable(errorText(err), false), Cut: true}
	line := drill.JudgeCheck(check)
	line.Found = check.Missing
	if ctx.Err() != nil {
		line.Found = "interrupted"
	}
	r.lines = append(r.lines, line)
}

// fleet says which live instances do not take part.
func (r *drillRun) fleet(ctx context.Context) {
	r.say("looking for instances that do not hold the canary")
	var others []string
	lives, unread := elsewhere(ctx, r.liveIn)
	for name := range lives {
		if !r.live[name] && name != r.name {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	r.lines = append(r.lines, drill.JudgeFleet(slices.Sorted(maps.Keys(r.holds)), others, unread, r.kind == drillRotate || r.kind == drillRevoke)...)
}

// liveIn returns the live instances of a tenant's bucket.
func (r *drillRun) liveIn(ctx context.Context, tenant string) (names []string, err error) {
	acks, err := r.acks(ctx, tenant, rotation.Receipt{})
	for _, a := range acks {
		if r.now().Sub(a.At) <= r.liveFor() {
			names = append(names, a.Instance)
		}
	}
	return names, err
}

// elsewhere returns the live instances of all buckets, and how many buckets could not be read. An instance
// whose tenants are listed is not in that of the canary, unless a tenant of its own is. So each bucket
// counts, and one whose read was late is read again.
func elsewhere(ctx context.Context, liveIn func(ctx context.Context, tenant string) ([]string, error)) (all map[string]bool, unread int) {
	var mu sync.Mutex // guards all and unread
	all = make(map[string]bool)
	tenants := tenantOfEachBucket()
	const atOnce, tries = 16, 5
	var wg sync.WaitGroup
	for first := range atOnce {
		wg.Go(func() {
			for i := first; i < rotation.Buckets; i += atOnce {
				names, err := liveIn(ctx, tenants[i])
				for again := 1; err != nil && again < tries && pause(ctx, 200*time.Millisecond); again++ {
					names, err = liveIn(ctx, tenants[i])
				}
				mu.Lock()
				if err != nil {
					unread++
				}
				for _, name := range names {
					all[name] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all, unread
}

// tenantOfEachBucket returns a name that a tenant of each bucket could have.
func tenantOfEachBucket() (names [rotation.Buckets]string) {
	for i, left := 0, rotation.Buckets; left > 0; i++ {
		name := fmt.Sprint(i)
		if b := rotation.BucketOf(name); names[b] == "" {
			names[b] = name
			left--
		}
	}
	return names
}

// kids returns the kid that signs, and that of the pending key, as the drill's own instance has
// them.
func (r *drillRun) kids() (signing, pending string) {
	status, err := r.own.keyring.Tenant(r.tenant.value)
	if err != nil {
		return "", ""
	}
	for _, k := range status.Ring.Keys {
		switch k.State {
		case ring.Signing:
			signing = k.KID
		case ring.Pending:
			pending = k.KID
		}
	}
	return signing, pending
}
