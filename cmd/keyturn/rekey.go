package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// A rekeyCommand seals rings under another KEK, or looks under which they are.
type rekeyCommand struct {
	*keysCommand
	check, dryRun, rotateAll bool
	fromRealm                *option[string]
}

func newKeysRekey(a *app) *cobra.Command {
	c, cmd := newKeysCommand(a, "rekey --redis URL [--tenant TENANT] [--rotate-all] [--from-realm REALM] [--check | --dry-run]", "Seal rings under the first KEK of the file",
		`rekey seals rings under the first KEK of the file, so that no older KEK is needed to
read them: all rings, and the digest keys of the list of revocations if there is one, or
the ring of --tenant. It goes ring by ring, and skips those that
are done, so it can be repeated. It is refused (exit code 1, with the names) while a
live instance does not have that KEK first. Afterwards it lists the KEKs of each
instance: docs/operations.md, "A new KEK", has the steps of a change of KEKs.

--check changes nothing. It exits with 1 while a field is under another KEK, and lists
those fields by tenant and KEK. It also names the keys that were made under another
KEK: a person who has that one, and a dump of Redis from before the change, has them.
They go with the next rotations. --dry-run is the same, and exits with 0.

--rotate-all, for a KEK that leaked, also rotates each ring until its signing and
pending keys are made under the first KEK. The pending key is known as well, so this
takes two rotations. The second is refused until all instances know the new key: 125
seconds by default, an hour more for public keys. A run does what can be done now, and
exits with 1 while keys are left, with the time from which to repeat it. With --check
it exits with 1 while keys are left. Keys that have retired verify until their last
token has ended, or until "keyturn keys revoke".

--from-realm moves rings to the realm of --realm from another one, '' for none: the same
KEK is another one in another realm. Give all instances the new realm as --other-realm
first, then as --realm with the old one as --other-realm: docs/operations.md, "A new
realm", has the steps. It is refused while a live instance is not in the new realm.
With --force it is done all the same: an instance that does not open the new realm
cannot read the rings any more. It hears of no revocation, and soon stops signing.

`+waitHelp+` Exit code 3 is also that
of a ring that cannot be read.

With --json it prints {"primary","rings","rekeyed","rotated","left","from",
"old_keys_until","fields","revocations","tenants","instances","undone","waited"}: "rings" were looked
at, "rekeyed" of them sealed again, "rotated" of them rotated. --rotate-all has "left"
rings to rotate, the last of them at "from", or null; "old_keys_until" is when the last
retired key that was made under another KEK is dropped. "fields" is
how many fields were under each other KEK. "revocations" is {"digest_keys","sealed"}: how
many digest keys the list has, and how many of them were sealed again. With two realms, the name of a KEK ends in
its realm. "tenants" is an array of {"tenant","rekeyed",
"others","old_keys","promoted","minted","left","from","error"}, without those that have
nothing to say: "others" are the fields under other KEKs, by KEK, "old_keys" the kids of
keys that were made under another one, and "left" those of them that --rotate-all still
has to rotate out. "instances" is an array of {"instance","applied","heard_at","live",
"holds","keks"}.`,
		`  keyturn keys rekey --redis redis://localhost:6379 --kek-file kek --check
  keyturn keys rekey --redis redis://localhost:6379 --kek-file kek
  keyturn keys rekey --redis redis://localhost:6379 --kek-file kek --rotate-all`)
	r := &rekeyCommand{keysCommand: c, fromRealm: &option[string]{kind: "REALM", parse: parseOtherRealm}}
	c.waits.register(cmd)
	cmd.Flags().BoolVar(&r.check, "check", false, "change nothing; exit with 1 while a field is under another KEK")
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "change nothing; say what would be sealed again")
	cmd.Flags().BoolVar(&r.rotateAll, "rotate-all", false, "also rotate out the keys that were made under another KEK")
	cmd.Flags().Var(r.fromRealm, "from-realm", "also open what is sealed in that realm, and seal it in the one of --realm")
	cmd.Flags().BoolVar(&c.force, "force", false, "move rings that a live instance can then not read")
	describeTenant(cmd, "the tenant whose ring it is; all tenants without it", "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return r.answer(r.run(cmd.Context())) }
	return cmd
}

// looks reports whether the command changes nothing.
func (c *rekeyCommand) looks() bool { return c.check || c.dryRun }

func (c *rekeyCommand) run(ctx context.Context) error {
	if c.check && c.dryRun {
		return usagef("--check and --dry-run: give one of them")
	}
	if c.force && !c.fromRealm.given {
		return usagef("--force goes with --from-realm: a change of KEKs needs none")
	}
	if err := c.waits.check(); err != nil {
		return err
	}
	if c.fromRealm.given {
		c.ring.otherRealms.values = append(c.ring.otherRealms.values, c.fromRealm.value)
		if err := checkRealms("--from-realm", c.ring.realm.value, c.ring.otherRealms.values); err != nil {
			return err
		}
	}
	s, err := c.connect(&c.ring)
	if err != nil {
		return err
	}
	defer s.store.close()
	buckets, err := c.tenantsOf(ctx, s)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	r := &rekeying{rekeyCommand: c, session: s, instances: make(map[string]ackSeen), fields: make(map[string]int)}
	r.rekeyAll(ctx, buckets)
	r.rekeyRevocations(ctx)
	slices.SortFunc(r.tenants, func(a, b rekeyedRing) int { return strings.Compare(a.Tenant, b.Tenant) })
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

// tenantsOf returns the tenants whose rings are meant, by bucket.
func (c *rekeyCommand) tenantsOf(ctx context.Context, s *ringSession) ([][]string, error) {
	if c.tenant.given {
		return [][]string{{c.tenant.value}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	indexes := make([]int, rotation.Buckets)
	for i := range indexes {
		indexes[i] = i
	}
	all, err := s.store.Tenants(ctx, indexes)
	if err != nil {
		return nil, ringError(&rotation.Error{Kind: keystore.ErrUnavailable, Err: err})
	}
	for _, tenants := range all {
		slices.Sort(tenants)
	}
	return slices.DeleteFunc(all, func(tenants []string) bool { return len(tenants) == 0 }), nil
}

// A rekeying is one run of the command over rings.
type rekeying struct {
	*rekeyCommand
	session *ringSession

	primary   string
	rings     int            // that were looked at
	rekeyed   int            // that were sealed again
	fields    map[string]int // under each other KEK, before
	tenants   []rekeyedRing  // those that have something to say
	instances map[string]ackSeen
	rotated   rotatedRings

	revocations revocations.Rekeyed // their digest keys

	forced bool // it was said what that costs

	looked atomic.Int64 // names that were looked at, for the progress

	stopped error // why the rest was not looked at, or nil
	failed  error // of a ring that cannot be read, or nil
	seen    watched
}

// A rekeyedRing is what is said about one ring.
type rekeyedRing struct {
	ring.Rekeyed
	rotatedRing
	err error
}

// rekeyAll works on the rings of all buckets, until it is refused or ctx ends.
func (r *rekeying) rekeyAll(ctx context.Context, buckets [][]string) {
	stop := r.tellRekeying(ctx, buckets)
	defer stop()
	for _, tenants := range buckets {
		if r.ended(ctx) {
			return
		}
		r.rekeyBucket(ctx, tenants)
	}
}

// rekeyRevocations seals the digest keys of the list of revocations again, if there is one. A user of
// Redis who may not read it, such as one from before there were lists, has none.
func (r *rekeying) rekeyRevocations(ctx context.Context) {
	if r.tenant.given || r.ended(ctx) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ringTime)
	defer cancel()
	report, err := revocations.Rekey(ctx, r.session.store.client, revocations.Config{
		KEKs: r.session.keks, Realm: r.session.realm, OtherRealms: r.session.otherRealms, Deadline: 5 * time.Second,
	}, r.looks())
	switch {
	case errors.Is(err, rediskeys.ErrNoPermission):
		r.note("the list of revocations was not looked at: this user of Redis may not read it")
	case err != nil && r.failed == nil:
		r.failed = ringError(&rotation.Error{Kind: keystore.ErrUnavailable, Err: err})
	}
	r.revocations = report
	for kek, keys := range report.Others {
		r.fields[kek] += len(keys)
	}
}

// ended reports whether no other ring is to be looked at.
func (r *rekeying) ended(ctx context.Context) bool {
	if r.stopped == nil && ctx.Err() != nil {
		r.stopped = exitf(exitCannotTell, "interrupted: repeat it for the other rings")
	}
	return r.stopped != nil
}

// rekeyBucket works on the rings of one bucket, and waits until the live instances have applied the
// last change in it. They apply them in order.
//
// Each change has its keyring read the news, which costs a look at each of its rings. So a bucket with
// hundreds of rings is worked on in parts.
func (r *rekeying) rekeyBucket(ctx context.Context, tenants []string) {
	var changed []string
	w := &watcher{keysCommand: r.keysCommand, receipt: rotation.Receipt{Tenant: tenants[0]}, timing: rotation.Policy{}, quiet: true}
	for some := range slices.Chunk(tenants, readAtOnce) {
		if r.ended(ctx) {
			break
		}
		k, rotator := r.openPart(ctx, some)
		if k == nil {
			continue
		}
		defer k.Close(context.WithoutCancel(ctx)) // not sooner: w may watch a change of it
		if w.rotator == nil {
			w.rotator = rotator
		}
		for _, tenant := range some {
			if r.ended(ctx) {
				break
			}
			if receipt, ok := r.rekeyRing(ctx, k, rotator, tenant); ok {
				changed, w.receipt, w.rotator = append(changed, tenant), receipt, rotator
			}
			r.looked.Add(1)
		}
		if t := timingOf(k, some); t.Freshness > w.timing.Freshness {
			w.timing = t
		}
	}
	if w.rotator == nil {
		return
	}
	w.limit = max(0, r.waits.limit(w.timing)-r.seen.waited)
	r.watchBucket(ctx, w)
	for some := range slices.Chunk(changed, readAtOnce) {
		r.again(ctx, some)
	}
}

// openPart opens rings of one bucket. If that fails, it says so for each, and returns nil.
func (r *rekeying) openPart(ctx context.Context, tenants []string) (*rotation.Keyring, *rotation.Rotator) {
	settling := settleNot // a ring that the store has lost is sealed again later
	if r.rotateAll && !r.looks() {
		settling = settleBucket
	}
	k, err := r.settled(ctx, r.session, settling, tenants...)
	if err != nil {
		for _, tenant := range tenants {
			r.fail(tenant, err)
		}
		return nil, nil
	}
	rotator, err := rotation.NewRotator(k)
	if err != nil {
		r.stopped = ringError(err)
		k.Close(context.WithoutCancel(ctx))
		return nil, nil
	}
	return k, rotator
}

// again seals those rings once more that the store has lost meanwhile. A holder does not do that: what
// is under an older KEK is true as well. It reads the rings afresh, since the keyring from before
// holds what the store lacks, and does not decide then.
func (r *rekeying) again(ctx context.Context, changed []string) {
	if len(changed) == 0 || r.waits.noWait {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ringTime)
	defer cancel()
	k, err := r.session.open(ctx, changed...)
	if err != nil {
		r.fail(changed[0], err)
		return
	}
	defer k.Close(ctx)
	rotator, err := rotation.NewRotator(k)
	if err != nil {
		r.fail(changed[0], err)
		return
	}
	for _, tenant := range changed {
		report, _, err := r.seal(ctx, rotator, tenant)
		r.seen.undone = r.seen.undone || report.Changed
		if err != nil {
			r.fail(tenant, err)
		}
	}
}

// timingOf returns the policy of the ring with the longest Freshness.
func timingOf(k *rotation.Keyring, tenants []string) (longest rotation.Policy) {
	longest = rotation.Policy{}.WithDefaults()
	first := true
	for _, tenant := range tenants {
		status, err := k.Tenant(tenant)
		if err != nil || len(status.Ring.Keys) == 0 {
			continue
		}
		if timing := newestTiming(status.Ring); first || timing.Freshness > longest.Freshness {
			longest, first = timing, false
		}
	}
	return longest
}

// rekeyRing works on one ring, and reports whether it has changed it, with the receipt of the last
// change.
func (r *rekeying) rekeyRing(ctx context.Context, k *rotation.Keyring, rotator *rotation.Rotator, tenant string) (last rotation.Receipt, changed bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ringTime)
	defer cancel()
	var opts []rotation.Option
	if r.looks() {
		opts = append(opts, rotation.DryRun)
	}
	report, last, err := r.seal(ctx, rotator, tenant, opts...)
	if missing := (*ring.MissingError)(nil); errors.As(err, &missing) && !r.tenant.given {
		return last, false // anyone can write a tenant's name
	}
	if report.Primary != "" {
		r.primary = report.Primary
	}
	if err != nil {
		if errors.Is(err, rotation.ErrRefused) {
			r.stopped = ringError(err) // the next ring would be refused too
		}
		if missing := (*ring.MissingError)(nil); errors.As(err, &missing) {
			err = noRing(tenant)
		}
		r.fail(tenant, err)
		return last, false
	}
	r.rings++
	for kek, fields := range report.Others {
		r.fields[kek] += len(fields)
	}
	if report.Changed {
		r.rekeyed++
	}
	one := rekeyedRing{Rekeyed: report}
	if r.rotateAll {
		one.err = r.rotateRing(ctx, k, rotator, &one)
	}
	if one.Changed || len(one.Others)+len(one.OldKeys) > 0 || one.err != nil {
		r.tenants = append(r.tenants, one)
	}
	if !one.receipt.CommittedAt.IsZero() {
		return one.receipt, true
	}
	return last, one.Changed
}

// seal seals a ring again. With --force it also seals a ring that it would refuse, and prints the cost.
func (r *rekeying) seal(ctx context.Context, rotator *rotation.Rotator, tenant string, opts ...rotation.Option) (ring.Rekeyed, rotation.Receipt, error) {
	report, receipt, err := rotator.Rekey(ctx, tenant, opts...)
	refused := (*rotation.RefusedError)(nil)
	if !r.force || !errors.As(err, &refused) {
		return report, receipt, err
	}
	if !r.forced {
		r.note("forced, although %s. An instance that cannot read the rings in this realm verifies with what it holds, hears of no revocation, and stops signing when SignFor is over: restart it in this realm", printable(refused.Reason, false))
	}
	r.forced = true
	return rotator.Rekey(ctx, tenant, append(opts, rotation.Force)...)
}

// fail notes that a ring could not be read or sealed again.
func (r *rekeying) fail(tenant string, err error) {
	if e := (*exitError)(nil); !errors.As(err, &e) {
		err = ringError(err)
	}
	if r.failed == nil {
		r.failed = err
	}
	r.tenants = append(r.tenants, rekeyedRing{Rekeyed: ring.Rekeyed{Tenant: tenant}, err: err})
}

// watchBucket waits for the last change in a bucket, and notes the instances of the bucket.
func (r *rekeying) watchBucket(ctx context.Context, w *watcher) {
	seen, changed := watched{}, !w.receipt.CommittedAt.IsZero()
	if changed && !r.waits.noWait {
		seen = w.watch(ctx)
	} else {
		w.look(context.WithoutCancel(ctx), &seen, nil)
	}
	r.seen.undone = r.seen.undone || seen.undone
	r.seen.waited += seen.waited
	r.seen.cut = r.seen.cut || seen.cut
	if r.seen.err == nil {
		r.seen.err = seen.err
	}
	for _, a := range seen.acks {
		if !changed || r.waits.noWait {
			a.Applied = true // there was nothing to apply, or to wait for
		}
		before, known := r.instances[a.Instance]
		if known {
			a.Applied, a.live = a.Applied && before.Applied, a.live || before.live
		}
		if known && before.At.After(a.At) {
			a.At, a.KEKs = before.At, before.KEKs
		}
		r.instances[a.Instance] = a
	}
}

// outcome returns the exit code and its text.
func (r *rekeying) outcome() error {
	r.seen.acks = r.roster()
	switch {
	case r.stopped != nil:
		return r.stopped
	case r.failed != nil:
		return r.failed
	case r.check && len(r.fields) > 0:
		return exitf(exitNo, "%s under another KEK than %s: run keys rekey without --check", countFields(r.fields), r.primary)
	}
	var err error
	if !r.looks() && !r.waits.noWait && r.rekeyed+r.rotated.rings > 0 {
		err = (&watcher{keysCommand: r.keysCommand, limit: r.seen.waited}).outcome(&r.seen)
	}
	return r.rotationsLeft(err)
}

func (r *rekeying) roster() []ackSeen {
	return slices.SortedFunc(maps.Values(r.instances), func(a, b ackSeen) int {
		return strings.Compare(a.Instance, b.Instance)
	})
}

// tellRekeying shows on stderr how far the command is.
func (r *rekeying) tellRekeying(ctx context.Context, buckets [][]string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	total := 0
	for _, tenants := range buckets {
		total += len(tenants)
	}
	ended := make(chan struct{})
	p := &progress{out: r.stderr, terminal: isTerminal(r.stderr)}
	go func() {
		defer close(ended)
		p.run(ctx, func() string {
			return fmt.Sprintf("%d of %s; Ctrl-C ends it, and a repeated command goes on", r.looked.Load(), countRings(total))
		})
	}()
	return func() { cancel(); <-ended }
}
