package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// A scenario is one fault and the Redis that it strikes.
type scenario struct {
	name  string // for -only and for the names of the tests
	title string // for the tables
	start func(o options) (servers, error)

	// byItself says that no keys are rotated by hand but by strike
	byItself bool

	// snapshots says that the instances keep sealed snapshots.
	snapshots bool

	// loses says that the fault may lose committed changes.
	loses bool

	// measures says that revocations are heard at once.
	measures bool

	// pace is that of the fleet; nil: that of the run
	pace func(o options) pace

	// strike lets the fault begin and end once.
	strike func(ctx context.Context, f *fleet, o options) error

	text string // the expectation, and its reason
}

// options say how long and how fast a run is.
type options struct {
	seed   uint64
	tokens int // how many tokens are signed at least
	rate   int // tokens a second
	pace   pace
	guests int  // how many guests there are at once
	short  bool // each duration is the middle of its range
	log    *slog.Logger

	logouts  string // the runs in which users log in and out, by their names, or inAll
	measures bool   // see scenario

	snapshots string // the folder of the instances' snapshots; "": they keep none
}

// inAll says that users log in and out in all runs.
const inAll = "all"

// haveUsers reports whether users log in and out in the run of that name.
func (o options) haveUsers(name string) bool {
	return o.logouts == inAll || slices.Contains(strings.Fields(o.logouts), name)
}

// pick returns a random duration from least to most, at the run's pace. In a short run it returns
// the middle.
func (o options) pick(f *fleet, least, most time.Duration) time.Duration {
	slower := o.pace.poll / fast.poll
	if o.short {
		return slower * (least + most) / 2
	}
	return slower * f.between(least, most)
}

var scenarios = []scenario{
	{name: "none", title: "no fault", measures: true, start: startSingle, strike: strikeNothing, text: textNone},
	{name: "kill", title: "primary killed, a replica without the last mint promoted", loses: true, start: startPair, strike: strikeKill, text: textKill},
	{name: "split", title: "split with min-replicas-max-lag, promoted by hand", loses: true, start: startSplitOf, strike: strikeSplit, byItself: true, pace: splitPaceOf, text: textSplit},
	{name: "kek", title: "KEK replaced, one instance after the other", start: startSingle, strike: strikeKEK, text: textKEK},
	{name: "empty", title: "restart empty, warm peers", loses: true, start: startSingle, strike: strikeEmpty, text: textEmpty},
	{name: "cold", title: "restart empty, a cold joiner first", loses: true, start: startSingle, strike: strikeCold, text: textCold},
	{name: "cut-one", title: "partition of one instance", start: startSingle, strike: partition(1), text: textPartition},
	{name: "cut-half", title: "partition of half", start: startSingle, strike: partition(len(offsets) / 2), text: textHalf},
	{name: "cut-all", title: "partition of all", start: startSingle, strike: partition(len(offsets)), text: textAll},
	{name: "restart", title: "Redis away, and instances restarted from their snapshots", start: startSingle, strike: strikeRestart, snapshots: true, text: textRestart},
	{name: "slow", title: "slow by 50 ms", start: startSingle, strike: slow(50 * time.Millisecond), text: textSlow},
	{name: "too-slow", title: "slow by more than the deadline", start: startSingle, strike: tooSlow, text: textTooSlow},
	{name: "sentinel", title: "Sentinel failover", loses: true, start: startSentinel, strike: strikeSentinel, text: textSentinel},
	{name: "cluster", title: "Cluster: a primary killed, its replica takes over", loses: true, start: startClusterReplica, strike: strikeCluster, text: textCluster},
	{name: "cluster-away", title: "Cluster: a primary away, and back", start: startCluster, strike: strikeClusterAway, text: textClusterAway},
	{name: "deaf", title: "pub/sub lost", measures: true, start: startSingle, strike: strikeDeaf, text: textDeaf},
}

// strikeNothing breaks nothing. It revokes a key, so that the run measures a revocation.
func strikeNothing(ctx context.Context, f *fleet, _ options) error { return f.revoke(ctx) }

// strikeKill kills the primary right after a mint that its replica does not have, and promotes the
// replica. The lost key is younger than Dwell.
func strikeKill(ctx context.Context, f *fleet, o options) error {
	p := f.servers.(*pair)
	if f.intN(2) == 0 { // one instance alone hears of the mint
		deaf := f.random(len(f.instances()) - 1)
		defer isolate(deaf, (*redistest.Proxy).Heal)
		err := f.holdMint(ctx, p, func() { isolate(deaf, (*redistest.Proxy).Blackhole) }, func() { isolate(deaf, (*redistest.Proxy).Heal) })
		if err != nil {
			return err
		}
	} else if err := f.holdMint(ctx, p, func() {}, func() {}); err != nil {
		return err
	}
	p.between.Cut()
	p.primary.Kill()
	f.tally.newLife()
	if err := sleep(ctx, o.pick(f, 0, 2*time.Second)); err != nil {
		return err
	}
	return errors.Join(p.promote(ctx), p.follow(ctx))
}

// holdMint waits for a switch and the mint after it, and keeps the mint from the replica. It calls
// begin before the mint. If there was no mint in time, it calls undo and waits for the next switch.
func (f *fleet) holdMint(ctx context.Context, p *pair, begin, undo func()) error {
	for range 10 {
		if err := sleep(ctx, time.Until(f.nextSwitch().Add(-100*time.Millisecond))); err != nil {
			return err
		}
		known := make(map[string]int)
		for _, t := range tenants {
			known[t.name], _ = f.tally.newest(t.name)
		}
		p.between.Blackhole()
		begin()
		for stop := time.Now().Add(f.pace.Dwell * 7 / 10); time.Now().Before(stop); time.Sleep(time.Millisecond) {
			if n := f.unreplicated(ctx, p, known); n > 0 {
				f.tally.do(func(c *count) { c.LostMints += n })
				return nil
			}
		}
		p.between.Heal()
		undo()
	}
	return errors.New("no key was minted")
}

// unreplicated returns how many keys were minted after those in known and are missing on the
// replica.
func (f *fleet) unreplicated(ctx context.Context, p *pair, known map[string]int) (n int) {
	for _, t := range tenants {
		seq, kid := f.tally.newest(t.name)
		if seq <= known[t.name] {
			continue
		}
		if has, err := p.replica.Client().HExists(ctx, ringKey(t.name), "k:"+kid).Result(); err == nil && !has {
			n++
		}
	}
	return n
}

// strikeEmpty restarts the server without its data.
func strikeEmpty(_ context.Context, f *fleet, _ options) error {
	defer f.tally.newLife()
	return f.servers.(single).RestartEmpty()
}

// strikeCold restarts the server without its data, while only a new instance reaches it. That
// instance is allowed to create rings in a store that stays empty.
func strikeCold(ctx context.Context, f *fleet, o options) error {
	holders := f.instances()
	isolate(holders, (*redistest.Proxy).Cut)
	defer isolate(holders, (*redistest.Proxy).Heal)
	if err := strikeEmpty(ctx, f, o); err != nil {
		return err
	}
	newcomer, err := f.join(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, o.pick(f, 100*time.Millisecond, 700*time.Millisecond)); err != nil {
		return err
	}
	isolate(holders, (*redistest.Proxy).Heal)
	if err := f.ready(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, o.pick(f, time.Second, 5*time.Second)); err != nil {
		return err
	}
	return f.leave(newcomer)
}

func isolate(members []*instance, how fault) {
	for _, m := range members {
		m.link.set(how)
		m.nudgeLink.set(how)
	}
}

// partition cuts n instances off: their connections break, or hang.
func partition(n int) func(context.Context, *fleet, options) error {
	return func(ctx context.Context, f *fleet, o options) error {
		how := []fault{(*redistest.Proxy).Cut, (*redistest.Proxy).Blackhole}[f.intN(2)]
		away := f.random(n)
		isolate(away, how)
		defer isolate(away, (*redistest.Proxy).Heal)
		return sleep(ctx, o.pick(f, time.Second, 10*time.Second))
	}
}

// slow delays every request to Redis.
func slow(by time.Duration) func(context.Context, *fleet, options) error {
	return func(ctx context.Context, f *fleet, o options) error {
		isolate(f.instances(), delay(by))
		defer isolate(f.instances(), (*redistest.Proxy).Heal)
		return sleep(ctx, o.pick(f, 2*time.Second, 9*time.Second))
	}
}

// tooSlow delays every request for longer than the deadline.
func tooSlow(ctx context.Context, f *fleet, o options) error {
	return slow(f.pace.deadline*4/3)(ctx, f, o)
}

func strikeSentinel(ctx context.Context, f *fleet, _ options) error {
	s := f.servers.(sentinel)
	s.Primary.Kill()
	f.tally.newLife()
	if err := s.Failover(); err != nil {
		return err
	}
	if err := s.Primary.Restart(); err != nil {
		return err
	}
	// On a busy machine the Sentinels may promote another server once more.
	return await(ctx, "the Sentinels to have a primary and a replica", func() bool {
		addr, err := s.Current(ctx)
		if err == nil && addr != s.Primary.Addr() {
			s.Primary, s.Replica = s.Replica, s.Primary
			f.tally.newLife()
		}
		return err == nil && isPrimary(ctx, s.Primary) && isReplica(ctx, s.Replica)
	})
}

func strikeCluster(ctx context.Context, f *fleet, _ options) error {
	c := f.servers.(*cluster)
	c.master.Kill()
	f.tally.newLife()
	if err := await(ctx, "the replica to take over", func() bool { return isPrimary(ctx, c.replica) }); err != nil {
		return err
	}
	c.master, c.replica = c.replica, c.master
	if err := c.replica.Restart(); err != nil {
		return err
	}
	return await(ctx, "the old primary to be a replica", func() bool { return isReplica(ctx, c.replica) })
}

func strikeClusterAway(ctx context.Context, f *fleet, o options) error {
	c := f.servers.(*cluster)
	c.master.Kill()
	if err := sleep(ctx, o.pick(f, time.Second, 9*time.Second)); err != nil {
		return err
	}
	return c.master.Restart()
}

// strikeDeaf revokes a key while no instance hears of changes.
func strikeDeaf(ctx context.Context, f *fleet, _ options) error {
	all := f.instances()
	for _, m := range all {
		m.nudgeLink.set((*redistest.Proxy).Blackhole)
	}
	return f.revoke(ctx)
}

// run runs a scenario. The fault strikes again and again until enough tokens are signed. Then run
// waits until the last token has expired.
func (s *scenario) run(ctx context.Context, o options) (c count, said []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if s.pace != nil {
		o.pace = s.pace(o)
	}
	all, err := s.start(o)
	if err != nil {
		return c, nil, err
	}
	defer func() { err = errors.Join(err, all.Stop()) }()
	if s.snapshots {
		if o.snapshots, err = os.MkdirTemp("", "keyturn-faults-"); err != nil {
			return c, nil, err
		}
		defer os.RemoveAll(o.snapshots)
	}
	o.measures = s.measures
	f, err := newFleet(ctx, all, o, s.name)
	if err != nil {
		return c, nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	before := f.counts()
	quiet := f.begin(ctx, s.byItself, o.guests)
	err = s.strikes(ctx, f, o)
	quiet()
	if err == nil {
		err = errors.Join(f.agree(ctx), f.checkBuried(ctx, patience/4))
	}
	if err == nil && f.logouts != nil {
		err = f.logouts.after(ctx)
	}
	c, said = f.tally.result()
	if f.logouts != nil {
		c.Logouts = f.logouts.result()
	}
	counts := f.counts()
	c.Repairs, c.Resyncs = counts.Repairs-before.Repairs, counts.Resyncs-before.Resyncs
	return c, said, err
}

// begin starts the traffic, the watch on mints and what operators do. end stops them and waits for the
// last verification. If byItself is set, operators do nothing. Else so many guests come and go at once.
func (f *fleet) begin(ctx context.Context, byItself bool, guests int) (end func()) {
	traffic, cancel := context.WithCancel(ctx)
	done, left := make(chan error, 1), make(chan error, 1)
	jobs := []func(context.Context){f.traffic, f.watch, f.operate, f.keepBackups, f.guestTraffic, f.watchDead}
	if byItself {
		jobs, guests = jobs[:2], 0
	}
	if f.logouts != nil {
		jobs = append(jobs, f.logouts.traffic, f.logouts.probe)
	}
	go func() { done <- atOnce(len(jobs), func(i int) error { jobs[i](traffic); return nil }) }()
	hosting, close := context.WithCancel(traffic)
	go func() { left <- atOnce(guests, func(int) error { f.host(hosting, traffic); return nil }) }()
	return func() {
		close()
		<-left
		cancel()
		<-done
		f.pending.Wait()
	}
}

// hide says that for a while the store may lack revocations, if the fault may lose them.
func (s *scenario) hide(f *fleet, long time.Duration) {
	if s.loses && f.logouts != nil {
		f.logouts.hide(time.Now().Add(long))
	}
}

// strikes lets the fault strike until enough tokens are signed.
func (s *scenario) strikes(ctx context.Context, f *fleet, o options) error {
	for {
		if err := sleep(ctx, o.pick(f, 200*time.Millisecond, 8*time.Second)); err != nil {
			return err
		}
		s.hide(f, time.Hour)
		if err := s.strike(ctx, f, o); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		ended := time.Now()
		if err := f.ready(ctx); err != nil {
			return fmt.Errorf("%s: after the fault: %w", s.name, err)
		}
		s.hide(f, 2*f.pace.listGap())
		enough := false
		f.tally.do(func(c *count) {
			c.Strikes++
			c.Healed = max(c.Healed, time.Since(ended))
			enough = c.Signed >= o.tokens
		})
		if enough {
			return sleep(ctx, time.Second)
		}
	}
}
