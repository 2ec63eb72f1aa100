package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

const replaceLong = `replace is for a key that leaked. It makes another key sign as soon as that costs no
login, waits until all live instances sign with it, and then revokes the leaked key.
Each step is told by the ring alone: mint a key if none is pending, wait until all
instances know it (125 seconds by default, an hour more for public keys), make it sign,
wait for the instances, revoke. So an interrupted command can be repeated, and goes on
where it ended; one that is done has nothing to do. A KID that begins with a dash goes
after "--". The tokens of the leaked key end with its revocation, good ones too.

--now waits for nothing: the pending key signs at once, and the leaked one is revoked.
Instances and readers that do not know the new key may reject its tokens. If it was
minted less than --dwell ago, no instance can sign until then. --dry-run changes nothing,
and says what both ways cost.

--all-tenants replaces, in all rings, the keys that were made before --before: by
default before now, so give the date that it prints when you repeat it. It makes --rate
changes a second. --no-wait does what can be done now, and exits with 1 while keys are
left, with the time from which to repeat it.

` + waitHelp + ` It is also the exit
code if a live instance still signs with a leaked key after --wait: then that key is not
revoked yet.

With --json it prints {"before","rings","replaced","left","from","tenants","instances",
"undone","waited"}: of "rings", "replaced" have no leaked key any more, and "left" have
one; "from" is when the next step of one of them may be made, or null. "tenants" is an
array of {"tenant","revoked","promoted","minted","left","from","no_signer_until",
"worst_case","readers_until","error"}: "revoked" and "left" are arrays of kids, the
others are as in the receipt of "keyturn keys revoke". With --dry-run it prints
{"dry_run","before","rings","tenants"}: "tenants" is an array of {"tenant","left","next",
"safe","now","live","error"}, where "next" is the first step, "live" are the instances, and
"safe" and "now" are {"signs_from","revoked_at","no_signer_until","worst_case",
"readers_until","error"}: what is foreseen without and with --now.`

// A replaceCommand replaces leaked keys.
type replaceCommand struct {
	*keysCommand
	now, all bool
	before   *option[time.Time]
	rate     *option[float64]
	kids     []string // that leaked; none with --all-tenants
}

func newKeysReplace(a *app) *cobra.Command {
	c, cmd := newKeysCommand(a, "replace --redis URL (--tenant TENANT KID | --all-tenants) [--now] [--dry-run]", "Replace a key that leaked, without refusing a login",
		replaceLong, `  keyturn keys replace --redis redis://localhost:6379 --tenant acme --kek-file kek --dry-run KID
  keyturn keys replace --redis redis://localhost:6379 --tenant acme --kek-file kek KID
  keyturn keys replace --redis redis://localhost:6379 --kek-file kek --all-tenants --before 2026-11-29T08:00:00Z --rate 20`)
	r := &replaceCommand{keysCommand: c, rate: newRate()}
	r.before = &option[time.Time]{kind: "DATE", shown: "now", parse: func(s string) (time.Time, error) { return parseSince(s, a.now()) }}
	c.waits.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&r.now, "now", false, "wait for nothing: revoke at once, whatever that costs")
	f.BoolVar(&c.dryRun, "dry-run", false, "change nothing; say what it would cost, with and without --now")
	f.BoolVar(&r.all, "all-tenants", false, "replace the keys of all rings that were made before --before")
	f.Var(r.before, "before", "with --all-tenants: when the keys were made that leaked, at the latest")
	f.Var(r.rate, "rate", "with --all-tenants: how many changes a second")
	cmd.Args = func(cmd *cobra.Command, args []string) error { return r.args(cmd, args) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.kids = args
		return r.answer(r.run(cmd.Context()))
	}
	return cmd
}

// newRate returns a flag for a number of changes a second.
func newRate() *option[float64] {
	const least, most, standard = 0.01, 10_000, 100
	return &option[float64]{kind: "N", value: standard, shown: "100", parse: func(s string) (float64, error) {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("want a number from %v to %v", least, most)
		}
		return n, nil
	}}
}

// args refuses flags and arguments that contradict each other.
func (c *replaceCommand) args(cmd *cobra.Command, args []string) error {
	switch {
	case c.all && len(args) > 0:
		return usagef("--all-tenants goes without a KID: it replaces all keys that were made before --before")
	case c.all && c.tenant.given:
		return usagef("--tenant and --all-tenants: give one of them")
	case c.all:
		return nil
	case c.before.given || c.rate.given:
		return usagef("--before and --rate go with --all-tenants")
	}
	return wantKID(cmd, args)
}

func (c *replaceCommand) run(ctx context.Context) error {
	if err := c.waits.check(); err != nil {
		return err
	}
	s, err := c.connect(&c.ring)
	if err != nil {
		return err
	}
	defer s.store.close()
	tenants := [][]string{{c.tenant.value}}
	if c.all {
		if tenants, err = (&rekeyCommand{keysCommand: c.keysCommand}).tenantsOf(ctx, s); err != nil {
			return err
		}
		if !c.before.given {
			c.before.value = c.app.now().Truncate(time.Millisecond)
		}
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	r := &replacing{replaceCommand: c, session: s, instances: make(map[string]ackSeen)}
	for _, bucket := range tenants {
		var rings []*replacedRing
		for _, tenant := range bucket {
			rings = append(rings, &replacedRing{tenant: tenant, kids: c.kids})
		}
		r.buckets = append(r.buckets, rings)
	}
	if c.dryRun {
		return r.foresee(ctx)
	}
	stopTelling := r.tell(ctx)
	r.replaceAll(ctx)
	stopTelling()
	c.printed = true
	text := r.text()
	if c.json {
		text = r.object()
	}
	if err := c.print(text); err != nil {
		return err
	}
	return r.outcome()
}

// A replacedRing is a ring whose leaked keys are replaced.
type replacedRing struct {
	tenant string
	kids   []string // that leaked; with --all-tenants they are read from the ring
	known  bool     // kids are those of the ring
	none   bool     // there is no ring

	left     []string         // of kids, that are not revoked
	revoked  []string         // by this command
	last     rotation.Receipt // of the last change
	promoted string
	minted   string
	silent   time.Time // until when no key signs
	worst    time.Time // until when an instance that is cut off accepts one of them
	readers  time.Time // until when readers of the JWK Set do
	from     time.Time // when the next step may be made
	unheard  []string  // live instances that do not sign with the new key yet
	done     bool
	err      error
}

// A replacing is one run of the command.
type replacing struct {
	*replaceCommand
	session   *ringSession
	buckets   [][]*replacedRing
	instances map[string]ackSeen
	seen      watched
	changed   time.Time // when the last change was made, for the rate

	mu    sync.Mutex // guards what follows, for the progress
	ready int        // rings that are done
	until time.Time  // for which the command waits, or zero
}

// replaceAll replaces the leaked keys of all rings. Where a step has to wait, it goes on with other
// rings.
func (r *replacing) replaceAll(ctx context.Context) {
	for ctx.Err() == nil {
		var next time.Time
		for _, rings := range r.buckets {
			r.replaceBucket(ctx, rings)
			for _, one := range rings {
				if !one.done && (next.IsZero() || one.from.Before(next)) {
					next = one.from
				}
			}
		}
		if next.IsZero() || r.waits.noWait {
			return
		}
		r.waitUntil(ctx, next)
	}
}

// waitUntil waits for a moment by the store's clock, or until ctx ends.
func (r *replacing) waitUntil(ctx context.Context, at time.Time) {
	r.mu.Lock()
	r.until = at
	r.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(max(10*time.Millisecond, at.Sub(r.app.now()))):
	}
	r.mu.Lock()
	r.until = time.Time{}
	r.mu.Unlock()
}

// replaceBucket makes all steps in the rings of a bucket that can be made now.
func (r *replacing) replaceBucket(ctx context.Context, rings []*replacedRing) {
	rings = slices.DeleteFunc(slices.Clone(rings), func(one *replacedRing) bool { return one.done || one.from.After(r.app.now()) })
	if len(rings) == 0 {
		return
	}
	var tenants []string
	for _, one := range rings {
		tenants = append(tenants, one.tenant)
	}
	settling := settleBucket
	if r.replaceCommand.now {
		settling = settleNot
	}
	k, err := r.settled(ctx, r.session, settling, tenants...)
	if err != nil {
		for _, one := range rings {
			r.end(one, err)
		}
		return
	}
	defer k.Close(context.WithoutCancel(ctx))
	rotator, err := rotation.NewRotator(k)
	if err != nil {
		r.end(rings[0], ringError(err))
		return
	}
	b := &replacedBucket{replacing: r, keyring: k, rotator: rotator, limit: r.waits.limit(timingOf(k, tenants))}
	b.steps(ctx, rings)
	b.watch(ctx, rings, timingOf(k, tenants))
}

// end notes that nothing more is done to a ring, and why, unless it is done.
func (r *replacing) end(one *replacedRing, err error) {
	if e := (*exitError)(nil); err != nil && !errors.As(err, &e) {
		err = ringError(err)
	}
	one.done, one.err = true, err
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready++
}

// A replacedBucket is the rings of a bucket while steps are made.
type replacedBucket struct {
	*replacing
	keyring *rotation.Keyring
	rotator *rotation.Rotator
	limit   time.Duration // for which live instances are waited for
}

// steps makes the steps of the rings until each is done or has to wait. Instances that still sign with
// a leaked key are waited for, in all rings at once.
func (b *replacedBucket) steps(ctx context.Context, rings []*replacedRing) {
	for begin := time.Now(); ctx.Err() == nil; {
		made, unheard := false, false
		for _, one := range rings {
			for ctx.Err() == nil && !one.done && !one.from.After(b.app.now()) {
				stepped := b.step(ctx, one)
				made, unheard = made || stepped, unheard || len(one.unheard) > 0
				if !stepped {
					break
				}
			}
		}
		switch {
		case made:
			begin = time.Now()
		case !unheard:
			return
		case time.Since(begin) > b.limit || b.waits.noWait:
			b.giveUp(rings)
			return
		default:
			b.waitUntil(ctx, b.app.now().Add(100*time.Millisecond))
		}
	}
}

// giveUp ends the rings in which a live instance still signs with a leaked key.
func (b *replacedBucket) giveUp(rings []*replacedRing) {
	for _, one := range rings {
		if !one.done && len(one.unheard) > 0 {
			b.end(one, exitf(exitNotEverywhere, "tenant %s: another key signs, but %s had not applied that within %v: %s; the leaked key is not revoked yet, so repeat the command, or give --now",
				quoteShort(one.tenant), instances(len(one.unheard)), b.limit.Round(time.Millisecond), strings.Join(one.unheard, ", ")))
		}
	}
}

// step makes the next step of a ring, and reports whether it was one.
func (b *replacedBucket) step(ctx context.Context, one *replacedRing) bool {
	working, cancel := context.WithTimeout(context.WithoutCancel(ctx), ringTime)
	defer cancel()
	if err := b.read(one); err != nil || one.none {
		b.end(one, err)
		return false
	}
	var opts []rotation.Option
	if b.replaceCommand.now {
		opts = append(opts, rotation.Force)
	}
	next, _, err := b.rotator.Replace(working, one.tenant, one.kids, append(opts, rotation.DryRun)...)
	one.left, one.from, one.unheard = next.Left, next.From, nil
	switch {
	case err != nil:
		b.end(one, b.replaceError(one, err))
		return false
	case len(next.Left) == 0:
		b.end(one, nil)
		return false
	case next.Next == "":
		return false
	}
	if next.Next == ring.OpRevoke && !b.replaceCommand.now {
		if one.unheard, err = b.signing(working, one, next.KID); err != nil || len(one.unheard) > 0 {
			if err != nil {
				b.end(one, err)
			}
			return false
		}
	}
	b.pace(ctx)
	_, receipt, err := b.rotator.Replace(working, one.tenant, one.kids, opts...)
	if err != nil {
		b.end(one, b.replaceError(one, err))
		return false
	}
	one.note(receipt)
	return true
}

// replaceError returns the error of a step in words.
func (b *replacedBucket) replaceError(one *replacedRing, err error) error {
	missing := (*ring.MissingError)(nil)
	switch {
	case errors.As(err, &missing) && missing.KID != "":
		return noSuchKey(one.tenant)
	case errors.As(err, &missing):
		return noRing(one.tenant)
	}
	return ringError(err)
}

// read notes which keys of a ring leaked, if that is told by their age. A tenant without a ring is left
// out: it has only accepted keys, or someone wrote its name, which anyone can.
func (b *replacedBucket) read(one *replacedRing) error {
	status, err := ringOf(b.keyring, one.tenant)
	if e := (*exitError)(nil); b.all && errors.As(err, &e) && e.code == exitNo {
		one.none = true
		return nil
	}
	if err != nil || !b.all || one.known {
		return err
	}
	if len(status.Ring.Keys) == 0 { // accepted keys alone: nothing is signed with them here
		one.none = true
		return nil
	}
	for _, k := range status.Ring.Keys {
		if k.Created.Before(b.before.value) && k.State != ring.Revoked && k.State != ring.Dropped {
			one.kids = append(one.kids, k.KID)
		}
	}
	one.known = true
	return nil
}

// signing returns the live instances that may still sign with a key that is to be revoked: they have
// not read the log up to the moment at which another one was made to sign. At a scheduled switch they
// go by the clock, and the log has no entry of it.
func (b *replacedBucket) signing(ctx context.Context, one *replacedRing, kid string) ([]string, error) {
	status, err := ringOf(b.keyring, one.tenant)
	if err != nil {
		return nil, err
	}
	for i, k := range status.Ring.Keys {
		next := status.Ring.Keys[min(i+1, len(status.Ring.Keys)-1)]
		if k.KID != kid || k.State != ring.Retired || !next.ActivatesAt.Before(next.ActivateAt) {
			continue
		}
		live, err := b.liveIn(ctx, b.rotator, one.tenant, newestTiming(status.Ring))
		return unreadBy(live, k.RetiresAt), err
	}
	return nil, nil
}

// pace waits until the next change may be made, by the rate.
func (r *replacing) pace(ctx context.Context) {
	if r.all {
		gap := time.Duration(float64(time.Second) / r.rate.value)
		select {
		case <-ctx.Done():
		case <-time.After(gap - time.Since(r.changed)):
		}
	}
	r.changed = time.Now()
}

// note adds a change to the report about a ring.
func (one *replacedRing) note(receipt rotation.Receipt) {
	if receipt.CommittedAt.IsZero() {
		return // another process has made the step
	}
	one.last = receipt
	if receipt.Revoked != "" {
		one.revoked = append(one.revoked, receipt.Revoked)
	}
	if receipt.Promoted != "" {
		one.promoted = receipt.Promoted
	}
	if receipt.Minted != "" {
		one.minted = receipt.Minted
	}
	one.silent, one.worst, one.readers = later(one.silent, receipt.NoSignerUntil), later(one.worst, receipt.WorstCase), later(one.readers, receipt.ReadersUntil)
}

// watch waits until the live instances have applied the last change in the bucket: they apply changes in
// order.
func (b *replacedBucket) watch(ctx context.Context, rings []*replacedRing, timing rotation.Policy) {
	w := &watcher{keysCommand: b.keysCommand, rotator: b.rotator, receipt: rotation.Receipt{Tenant: rings[0].tenant}, timing: timing, limit: b.limit, quiet: true}
	for _, one := range rings {
		if one.last.CommittedAt.After(w.receipt.CommittedAt) {
			w.receipt = one.last
		}
	}
	seen, changed := watched{}, !w.receipt.CommittedAt.IsZero() && !b.waits.noWait
	if changed {
		seen = w.watch(ctx)
	} else {
		w.look(context.WithoutCancel(ctx), &seen, nil)
	}
	b.seen.undone, b.seen.alone = b.seen.undone || seen.undone, b.seen.alone || seen.alone
	b.seen.waited, b.seen.cut = b.seen.waited+seen.waited, b.seen.cut || seen.cut
	if b.seen.err == nil {
		b.seen.err = seen.err
	}
	for _, a := range seen.acks {
		a.Applied = a.Applied || !changed
		if before, known := b.instances[a.Instance]; known {
			a.Applied, a.live, a.At = a.Applied && before.Applied, a.live || before.live, later(a.At, before.At)
		}
		b.instances[a.Instance] = a
	}
}
