package rotationtest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A sim draws from a seed what happens in a world.
type sim struct {
	*world
	rng           *rand.Rand
	length        time.Duration
	faultRate     float64 // the probability that a step begins a fault
	pending       []timed
	enabledFaults []faultKind
	serversBusy   bool // a fault of the servers is under way that excludes others
	dumps         []rotationtest.Dump
	copies        map[string][]map[string][]byte // tenant -> old copies of its ring
	backups       map[string][]rotation.Snapshot // tenant -> backups of its ring
	tokens        []int                          // the newest ones, which may be live
	maxInstances  int
	clocks        bool   // clocks may be off by more than ClockSkew
	newKEK        bool   // a new KEK is rolled out
	shreds        bool   // rings are destroyed, and made again
	snapshots     string // the folder in which instances keep snapshots; "" for none
	forcing       bool   // operators force most of their commands, several in a row

	partners      *rand.Rand // see partner; nil if the world has none
	partnerTokens []int
}

// A timed is an action that is due at a moment.
type timed struct {
	at time.Duration
	do func()
}

// simulate runs a simulation and returns its history.
func simulate(t *testing.T, seed uint64) (h *history) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, seed)
		if seed%5 == 0 {
			s.snapshots = t.TempDir()
		}
		s.run()
		h = s.h
	})
	return h
}

func newSim(t *testing.T, seed uint64) *sim {
	rng := rand.New(rand.NewPCG(seed, 1))
	policy := fast
	if rng.IntN(32) == 0 {
		policy.Algorithm, policy.ReaderStaleness = keystore.Ed25519, time.Second
	}
	if rng.IntN(4) == 0 {
		// The shortest that Policy.Validate allows.
		policy.MaxTokenTTL, policy.Leeway = 3*time.Second, 500*time.Millisecond
	}
	if rng.IntN(3) == 0 { // with a longer period a manual change lasts until the history ends
		policy.Every = seconds(rng, 6, 25).Truncate(time.Millisecond)
	}
	s := &sim{rng: rng, length: seconds(rng, 7, 16), maxInstances: 2 + rng.IntN(3), faultRate: 0.04 * rng.Float64() * rng.Float64()}
	tenants := 1
	switch n := rng.IntN(512); {
	case n < 4:
		s.maxInstances, s.length, tenants = 12, seconds(rng, 20, 40), 1+rng.IntN(50)
	case n < 64:
		s.maxInstances, s.length, tenants = 4+rng.IntN(7), seconds(rng, 15, 40), 1+rng.IntN(5)
	case n < 192:
		tenants = 2
	}
	var names []string
	for i := range tenants {
		names = append(names, fmt.Sprintf("t%d", i))
	}
	s.world = newWorld(t, seed, policy, names...)
	s.bootstrap = rng.IntN(8) == 0
	s.holdsAll = !s.bootstrap && rng.IntN(128) == 0
	s.copies, s.backups = make(map[string][]map[string][]byte), make(map[string][]rotation.Snapshot)
	s.clocks = rng.IntN(16) == 0
	s.newKEK = rng.IntN(8) == 0
	s.forcing = rng.IntN(4) == 0
	s.chooseFaults()
	s.shreds = rng.IntN(8) == 0
	s.chooseAdoption(rand.New(rand.NewPCG(seed, 2)))
	if seed%3 == 0 {
		s.partners = rand.New(rand.NewPCG(seed, 3))
	}
	return s
}

// chooseAdoption lets the rings of a quarter of the worlds begin with keys that old programs sign with.
func (s *sim) chooseAdoption(rng *rand.Rand) {
	if rng.IntN(4) > 0 || s.bootstrap {
		return
	}
	s.adopts = &adoption{longest: seconds(rng, 2, 8).Truncate(time.Millisecond)}
	s.h.begins = "an imported key"
	switch rng.IntN(4) {
	case 0, 1:
		s.adopts.Hold, s.h.begins = true, "a held key"
	case 2:
		s.adopts.RotateAt = s.h.start.Add(s.policy.Propagation + 4*s.policy.ClockSkew + seconds(rng, 1, 9))
	}
}

// chooseFaults enables one kind of fault, a few, or all.
func (s *sim) chooseFaults() {
	s.enabledFaults = slices.Clone(faultKinds)
	s.rng.Shuffle(len(s.enabledFaults), func(i, j int) { s.enabledFaults[i], s.enabledFaults[j] = s.enabledFaults[j], s.enabledFaults[i] })
	switch s.rng.IntN(4) {
	case 0:
		s.enabledFaults = s.enabledFaults[:1]
	case 1, 2:
		s.enabledFaults = s.enabledFaults[:2+s.rng.IntN(4)]
	}
}

func (s *sim) run() {
	defer s.close()
	s.begin()
	for s.now() < s.length {
		s.sleep(time.Duration(s.rng.ExpFloat64() * float64(80*time.Millisecond)))
		s.step()
	}
	s.settle()
}

// begin opens the first instance, which creates the rings, and schedules a few more.
func (s *sim) begin() {
	first := s.join()
	if !s.bootstrap {
		first.create()
	}
	for range s.rng.IntN(s.maxInstances) {
		s.after(s.draw(3*time.Second), func() { s.join() })
	}
	if s.newKEK {
		s.rollOut()
	}
	if s.shreds {
		s.scheduleShred(s.length / 2)
	}
}

// scheduleShred schedules that a ring is destroyed within that time, and soon after, perhaps, that
// another instance makes it again.
func (s *sim) scheduleShred(within time.Duration) {
	tenant := pick(s.rng, s.tenants)
	s.after(time.Second+s.draw(within), func() {
		if i := s.randomInstance(); i != nil {
			i.runOp("shred", tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
				return r.Destroy(ctx, tenant)
			})
		}
		for range s.rng.IntN(3) {
			s.after(s.draw(4*time.Second), func() {
				if i := s.randomInstance(); i != nil {
					i.runOp("again", tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
						return r.Create(ctx, tenant, s.policy, rotation.Again)
					})
				}
			})
		}
		if s.rng.IntN(3) == 0 && s.now() < s.length-2*time.Second {
			s.scheduleShred(s.length - s.now() - time.Second)
		}
	})
}

// rollOut schedules the roll-out of a KEK: to all instances as a further one, then to one after the
// other as the primary, and then the rings are moved. The old one stays, for what the store may lose.
func (s *sim) rollOut() {
	begin := time.Second + s.draw(3*time.Second)
	for n, keks := range [][]string{{"A", "B"}, {"B", "A"}} {
		s.after(begin+time.Duration(n)*2*time.Second, func() {
			s.keks = keks
			for _, i := range s.alive() {
				s.after(s.draw(2*time.Second), func() {
					if i.k.Load() != nil {
						i.setKEKs(keks...)
					}
				})
			}
		})
	}
	for range 2 {
		s.after(begin+4*time.Second+s.policy.Freshness+s.draw(4*time.Second), func() {
			i, tenant := s.randomInstance(), pick(s.rng, s.tenants)
			if i == nil {
				return
			}
			i.runOp("rekey", tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
				_, _, err := r.Rekey(ctx, tenant)
				return rotation.Receipt{}, err
			})
		})
	}
}

// settle lets all faults end, gives the instances the time to recover, and audits them.
func (s *sim) settle() {
	for len(s.pending) > 0 {
		s.sleep(s.pending[0].at - s.now())
	}
	s.sleep(s.policy.Freshness + 2*pollFor)
	for range 25 {
		s.sleep(time.Duration(s.rng.ExpFloat64() * float64(30*time.Millisecond)))
		s.signOrVerify()
	}
	for _, i := range s.alive() {
		for _, tenant := range s.tenants {
			i.audit(tenant)
		}
	}
	s.sleep(500 * time.Millisecond) // lets running calls end
}

// after schedules f. The simulator's own goroutine runs it, in sleep.
func (s *sim) after(d time.Duration, f func()) {
	s.pending = append(s.pending, timed{s.now() + d, f})
	slices.SortStableFunc(s.pending, func(a, b timed) int { return int(a.at - b.at) })
}

// sleep sleeps for d and runs the actions that become due.
func (s *sim) sleep(d time.Duration) {
	until := s.now() + d + time.Duration(s.rng.IntN(1000))
	for len(s.pending) > 0 && s.pending[0].at <= until {
		next := s.pending[0]
		s.pending = s.pending[1:]
		time.Sleep(next.at - s.now())
		next.do()
	}
	time.Sleep(until - s.now())
}

// join adds an instance whose clock is off by up to half of ClockSkew.
func (s *sim) join() *instance {
	skew := s.policy.ClockSkew
	offset := time.Duration(s.rng.Int64N(int64(skew))) - skew/2
	i := s.connect(fmt.Sprintf("i%d", len(s.allInstances())), offset)
	i.rotates = len(s.alive()) < 8 && s.rng.IntN(4) > 0 || len(s.allInstances()) == 1
	s.giveSnapshot(i)
	i.open()
	return i
}

// joinAgain adds an instance in place of old, which has ended, with its clock and its snapshot.
func (s *sim) joinAgain(old *instance) {
	i := s.connect(fmt.Sprintf("i%d", len(s.allInstances())), time.Duration(old.offset.Load()))
	i.rotates, i.snapshot = old.rotates, old.snapshot
	i.open()
}

// bounce ends an instance that keeps a snapshot, and starts it again, mostly within Freshness. The store
// may lose something between.
func (s *sim) bounce() {
	i := s.randomInstance()
	if i == nil {
		return
	}
	s.h.add(event{kind: evFault, inst: -1, token: -1, note: "restart with a snapshot"})
	s.end(i)
	if !s.serversBusy {
		switch lag := s.draw(s.policy.Dwell); s.rng.IntN(8) {
		case 0, 1:
			s.lose(fmt.Sprintf("failover, %v behind", lag), "", func() { s.cluster.Failover(lag) })
		case 2:
			s.lose("flush", "", s.cluster.Flush)
		}
	}
	s.after(s.draw(s.policy.Freshness*5/4), func() { s.joinAgain(i) })
}

// end ends an instance, perhaps as kill -9 does.
func (s *sim) end(i *instance) {
	if s.rng.IntN(2) == 0 {
		i.kill()
	} else {
		i.close()
	}
}

// giveSnapshot lets i keep a snapshot, if this history is one with snapshots. It begins with any that
// another instance has left, an old one too, or with none.
func (s *sim) giveSnapshot(i *instance) {
	if s.snapshots == "" {
		return
	}
	i.snapshot = filepath.Join(s.snapshots, i.name)
	left, err := filepath.Glob(filepath.Join(s.snapshots, "i*[0-9]"))
	if err != nil {
		panic(err)
	}
	if len(left) == 0 || s.rng.IntN(4) == 0 {
		return
	}
	blob, err := os.ReadFile(pick(s.rng, left))
	if err == nil {
		err = os.WriteFile(i.snapshot, blob, 0o600)
	}
	if err != nil {
		panic(err)
	}
}

// step does one random thing.
func (s *sim) step() {
	if s.partners != nil && s.partners.IntN(12) == 0 {
		s.partner()
	}
	if s.rng.Float64() < s.faultRate {
		s.startFault()
		return
	}
	if s.snapshots != "" && s.rng.IntN(75) == 0 {
		s.bounce()
		return
	}
	switch n := s.rng.IntN(1000); {
	case n < 8:
		s.restart()
	case n < 26 || s.forcing && n < 50:
		s.command()
	case n < 70:
		if i, tenant := s.randomInstance(), pick(s.rng, s.tenants); i != nil {
			i.audit(tenant)
		}
	case n < 78:
		s.backUp()
	case n < 83:
		if f := s.cluster.Ring(s.tenants[0]); len(f) > 0 {
			s.copies[s.tenants[0]] = append(s.copies[s.tenants[0]], f)
		}
	default:
		s.signOrVerify()
	}
}

func (s *sim) randomInstance() *instance {
	if alive := s.alive(); len(alive) > 0 {
		return pick(s.rng, alive)
	}
	return nil
}

// signOrVerify lets a random instance sign a token, or random instances verify a few.
func (s *sim) signOrVerify() {
	i := s.randomInstance()
	if i == nil {
		return
	}
	if s.rng.IntN(2) == 0 {
		sign := i.sign
		if s.adopts != nil && s.rng.IntN(4) == 0 {
			sign = i.signAsOldProgram
		}
		n := sign(pick(s.rng, s.tenants))
		if n < 0 {
			return
		}
		s.tokens = append(s.tokens, n)
		for _, other := range s.alive() {
			if s.rng.IntN(2) == 0 {
				other.checkKnows(n)
			}
		}
		return
	}
	if len(s.tokens) > 60 {
		s.tokens = slices.Clone(s.tokens[len(s.tokens)-60:])
	}
	for range 3 {
		if i := s.randomInstance(); len(s.tokens) > 0 {
			i.verify(pick(s.rng, s.tokens))
		}
	}
	if len(s.tokens) > 0 && s.rng.IntN(20) == 0 {
		i.verifyAs(pick(s.rng, s.tokens), pick(s.rng, s.tenants))
	}
}

// restart ends an instance, replaces one, or adds one.
func (s *sim) restart() {
	alive := s.alive()
	switch n := s.rng.IntN(3); {
	case n == 0 && len(alive) > 1:
		pick(s.rng, alive).close()
	case n == 1 && len(alive) > 0:
		pick(s.rng, alive).close()
		s.after(s.draw(2*time.Second), func() { s.join() })
	case len(alive) < s.maxInstances:
		s.join()
	}
}

func (s *sim) draw(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d))) }

// command runs a random operator's command.
func (s *sim) command() {
	i := s.randomInstance()
	if i == nil {
		return
	}
	tenant := pick(s.rng, s.tenants)
	st, err := i.k.Load().Tenant(tenant)
	if err != nil || len(st.Ring.Keys) == 0 {
		return
	}
	var opts []rotation.Option
	force := ""
	if s.rng.IntN(5) == 0 || s.forcing && s.rng.IntN(5) > 0 {
		opts, force = append(opts, rotation.Force), " forced"
	}
	keys := st.Ring.Keys
	switch n := s.rng.IntN(10); {
	case n == 8:
		s.restore()
	case n == 9:
		s.replace("replace"+force, tenant, []string{pick(s.rng, keys).KID, keys[0].KID}, 2+s.rng.IntN(4), opts)
	case n < 3:
		i.runOp("rotate"+force, tenant, s.rotations(tenant, opts))
	case n < 6:
		kid := keys[len(keys)-1].KID
		if st.Ring.Signer >= 0 && st.Ring.Signer+1 < len(keys) {
			kid = keys[st.Ring.Signer+1].KID
		}
		if force != "" {
			kid = pick(s.rng, keys).KID
		}
		i.runOp("promote"+force+" "+short(kid), tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Promote(ctx, tenant, kid, opts...)
		})
	case n < 7:
		kid := pick(s.rng, keys).KID
		i.runOp("revoke"+force+" "+short(kid), tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Revoke(ctx, tenant, kid, opts...)
		})
	default:
		i.runOp("set policy", tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.SetPolicy(ctx, tenant, s.policy)
		})
	}
}

// replace makes the steps of a replacement of leaked keys that can be made now, and goes on some time
// later, up to so many times, each time at another instance.
func (s *sim) replace(what, tenant string, kids []string, times int, opts []rotation.Option) {
	if i := s.randomInstance(); i != nil {
		i.runOp(what, tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			for {
				next, receipt, err := r.Replace(ctx, tenant, kids, opts...)
				if err != nil || next.Next == "" {
					return receipt, err
				}
			}
		})
	}
	if times > 1 {
		s.after(s.draw(3*time.Second), func() { s.replace(what, tenant, kids, times-1, opts) })
	}
}

// rotations rotates once, or if operators force their commands, up to three times in a row.
func (s *sim) rotations(tenant string, opts []rotation.Option) func(context.Context, *rotation.Rotator) (rotation.Receipt, error) {
	times := 1
	if s.forcing {
		times += s.rng.IntN(3)
	}
	return func(ctx context.Context, r *rotation.Rotator) (receipt rotation.Receipt, err error) {
		for range times {
			if receipt, err = r.Rotate(ctx, tenant, opts...); err != nil {
				break
			}
		}
		return receipt, err
	}
}

// A faultKind is a kind of fault. begin begins it and returns a function that ends it, or nil if it
// lasts only a moment. It reports false if the fault cannot happen now.
type faultKind struct {
	name  string
	begin func(s *sim) (end func(), did bool)
}

// startFault begins a random fault and schedules its end.
func (s *sim) startFault() {
	f := pick(s.rng, s.enabledFaults)
	end, did := f.begin(s)
	if !did {
		return
	}
	s.h.add(event{kind: evFault, inst: -1, token: -1, note: f.name})
	if end == nil {
		return
	}
	d := s.draw(time.Second)
	switch s.rng.IntN(3) {
	case 1:
		d = s.draw(4 * time.Second)
	case 2:
		d = s.draw(12 * time.Second)
	}
	s.after(d, func() {
		end()
		s.h.add(event{kind: evFault, inst: -1, token: -1, note: f.name + " ends"})
	})
}

// randomInstances returns one instance, half of them, or all of them.
func (s *sim) randomInstances() []*instance {
	alive := slices.Clone(s.alive())
	s.rng.Shuffle(len(alive), func(i, j int) { alive[i], alive[j] = alive[j], alive[i] })
	switch s.rng.IntN(3) {
	case 0:
		return alive[:min(1, len(alive))]
	case 1:
		return alive[:(len(alive)+1)/2]
	}
	return alive
}

// onSome makes a fault of the connections of some instances.
func onSome(harmless bool, make func(s *sim) func(*rotationtest.Faults)) func(*sim) (func(), bool) {
	return func(s *sim) (func(), bool) {
		f := &fault{change: make(s), harmless: harmless}
		var ends []func()
		note := ""
		for _, i := range s.randomInstances() {
			ends = append(ends, i.begin(f))
			note += " " + i.name
		}
		s.h.add(event{kind: evFault, inst: -1, token: -1, note: "on" + note})
		return func() {
			for _, end := range ends {
				end()
			}
		}, len(ends) > 0
	}
}

// onServers makes a fault of the servers. It does not happen while serversBusy is set.
func onServers(do func(s *sim)) func(*sim) (func(), bool) {
	return func(s *sim) (func(), bool) {
		if s.serversBusy {
			return nil, false
		}
		do(s)
		return nil, true
	}
}

var faultKinds = []faultKind{
	{"black hole", onSome(false, func(*sim) func(*rotationtest.Faults) {
		return func(f *rotationtest.Faults) { f.Cut = rotationtest.BlackHole }
	})},
	{"refused", onSome(false, func(*sim) func(*rotationtest.Faults) {
		return func(f *rotationtest.Faults) { f.Cut = rotationtest.Refused }
	})},
	{"reads without writes", onSome(false, func(*sim) func(*rotationtest.Faults) {
		return func(f *rotationtest.Faults) { f.ReadOnly = true }
	})},
	{"slow", onSome(false, func(s *sim) func(*rotationtest.Faults) {
		d := s.draw(deadline * 3 / 2)
		return func(f *rotationtest.Faults) { f.Before, f.After, f.Spread = f.Before+d/2, f.After+d/2, deadline/2 }
	})},
	{"around the deadline", onSome(false, func(s *sim) func(*rotationtest.Faults) {
		before := s.draw(2) * deadline
		return func(f *rotationtest.Faults) {
			f.Before, f.After, f.Spread = before, deadline-before-10*time.Millisecond, 20*time.Millisecond
		}
	})},
	{"lost replies", onSome(false, func(s *sim) func(*rotationtest.Faults) {
		p := s.rng.Float64()
		return func(f *rotationtest.Faults) { f.LoseReply = p }
	})},
	{"lost requests", onSome(false, func(s *sim) func(*rotationtest.Faults) {
		p := s.rng.Float64()
		return func(f *rotationtest.Faults) { f.LoseRequest = p }
	})},
	{"half of the servers away", onSome(false, func(s *sim) func(*rotationtest.Faults) {
		odd := s.rng.IntN(2)
		return func(f *rotationtest.Faults) { f.LostBuckets = func(b int) bool { return b%2 == odd } }
	})},
	{"bad nudges", onSome(true, func(s *sim) func(*rotationtest.Faults) {
		return func(f *rotationtest.Faults) {
			f.LoseNudge, f.DoubleNudge, f.DelayNudge = 0.5, 0.5, time.Second
		}
	})},
	{"forged nudges", func(s *sim) (func(), bool) {
		for _, i := range s.randomInstances() {
			for range s.rng.IntN(5) {
				i.conn.Forge(rotation.BucketOf(pick(s.rng, s.tenants)))
			}
		}
		return nil, true
	}},
	{"wrong database", func(s *sim) (func(), bool) {
		if s.serversBusy {
			return nil, false
		}
		some := s.randomInstances()
		if len(some) == 0 {
			return nil, false
		}
		s.serversBusy = true
		for _, i := range some {
			i.addObstacles(1)
			i.conn.SelectDatabase(1)
		}
		s.h.unsafe = append(s.h.unsafe, window{s.now(), forever}) // two stores take writes
		return func() {
			s.serversBusy = false
			for _, i := range some {
				i.conn.SelectDatabase(0)
				i.addObstacles(-1)
			}
			s.h.unsafe[len(s.h.unsafe)-1].to = s.now() + s.policy.Freshness + 4*pollFor
		}, true
	}},
	{"failover within D", onServers(func(s *sim) {
		lag := s.draw(s.policy.Dwell)
		s.lose(fmt.Sprintf("failover, %v behind", lag), "", func() { s.cluster.Failover(lag) })
	})},
	{"failover beyond D", onServers(func(s *sim) {
		lag := s.policy.Dwell + s.draw(15*time.Second)
		s.lose(fmt.Sprintf("failover, %v behind", lag), "", func() { s.cluster.Failover(lag) })
	})},
	{"wipe", onServers(func(s *sim) {
		s.lose("wipe", "", s.cluster.Wipe)
		if s.rng.IntN(2) == 0 {
			s.after(s.draw(2*time.Second), s.restore)
		}
	})},
	{"flush", onServers(func(s *sim) { s.lose("flush", "", s.cluster.Flush) })},
	{"failover and failback", onServers(func(s *sim) {
		lag := s.draw(s.policy.Dwell)
		s.lose(fmt.Sprintf("failover, %v behind", lag), "", func() { s.cluster.Failover(lag) })
		s.after(s.draw(time.Second), func() { s.lose("failback", "", func() { s.cluster.Failover(0) }) })
	})},
	{"whole fleet restarts", (*sim).restartFleet},
	{"dump", onServers(func(s *sim) {
		s.dumps = append(s.dumps, s.cluster.Dump())
		if len(s.dumps) > 1 {
			d := pick(s.rng, s.dumps)
			s.lose("restart with an older dump", "", func() { s.cluster.Restore(d) })
		}
	})},
	{"split with min-replicas", func(s *sim) (func(), bool) { return s.startSplit(true) }},
	{"split without min-replicas", func(s *sim) (func(), bool) { return s.startSplit(false) }},
	{"split with min-replicas, noticed late", (*sim).startLateSplit},
	{"no writes for anyone", func(s *sim) (func(), bool) {
		if s.serversBusy {
			return nil, false
		}
		s.serversBusy = true
		s.outage(1)
		s.cluster.SetReadOnly(true)
		return func() {
			s.serversBusy = false
			s.cluster.SetReadOnly(false)
			s.outage(-1)
		}, true
	}},
	{"ring deleted", onServers(func(s *sim) { s.edit(pick(s.rng, s.tenants), "edit: delete", func(f map[string][]byte) { clear(f) }) })},
	{"ring edited", onServers((*sim).tamper)},
	{"ring replaced by an old copy", onServers(func(s *sim) {
		tenant := s.tenants[0]
		if len(s.copies[tenant]) == 0 {
			return
		}
		old := pick(s.rng, s.copies[tenant])
		s.edit(tenant, "edit: replay", func(f map[string][]byte) {
			clear(f)
			for name, value := range old {
				f[name] = value
			}
		})
	})},
	{"old field put back", onServers(func(s *sim) {
		tenant := s.tenants[0]
		if len(s.copies[tenant]) == 0 {
			return
		}
		old := pick(s.rng, s.copies[tenant])
		field := pick(s.rng, keysOf(old))
		s.edit(tenant, "edit: put back "+field[:min(7, len(field))], func(f map[string][]byte) { f[field] = old[field] })
	})},
	{"revocations removed at each nudge", func(s *sim) (func(), bool) {
		return s.writer(pick(s.rng, s.tenants), endsTrust), true
	}},
	{"wrong type", func(s *sim) (func(), bool) {
		if s.serversBusy {
			return nil, false
		}
		tenant := pick(s.rng, s.tenants)
		s.serversBusy = true
		s.outage(1)
		s.cluster.SetWrongType(tenant, true)
		return func() {
			s.serversBusy = false
			s.cluster.SetWrongType(tenant, false)
			s.outage(-1)
		}, true
	}},
	{"log trimmed", onServers(func(s *sim) {
		s.cluster.Trim(rotation.BucketOf(pick(s.rng, s.tenants)), s.rng.IntN(3))
	})},
	{"store's clock within S", onServers(func(s *sim) {
		d := s.draw(s.policy.ClockSkew/2) - s.policy.ClockSkew/4
		s.cluster.Advance(s.h.start.Add(s.now() + d).Sub(s.cluster.Now()))
	})},
	{"clock beyond S", func(s *sim) (func(), bool) {
		i := s.randomInstance()
		if i == nil || !s.clocks {
			return nil, false
		}
		s.h.beyondS = true
		d := pick(s.rng, []time.Duration{10 * s.policy.ClockSkew, -10 * s.policy.ClockSkew, -time.Hour, time.Hour, s.policy.Every})
		old := i.offset.Swap(int64(d))
		return func() { i.offset.Store(old) }, true
	}},
	{"store's clock beyond S", func(s *sim) (func(), bool) {
		if s.serversBusy || !s.clocks {
			return nil, false
		}
		s.h.beyondS = true
		d := pick(s.rng, []time.Duration{10 * s.policy.ClockSkew, -10 * s.policy.ClockSkew, s.policy.Every})
		s.cluster.Advance(d)
		return func() { s.cluster.Advance(-d) }, true
	}},
}

// restartFleet ends all instances, some of them as kill -9 does, and starts as many. Between, the store
// may start again and lose its last writes, or fail over and back, or be emptied.
func (s *sim) restartFleet() (func(), bool) {
	alive := s.alive()
	if s.serversBusy || len(alive) == 0 {
		return nil, false
	}
	for _, i := range alive {
		s.end(i)
	}
	switch lag := s.draw(s.policy.Dwell); s.rng.IntN(8) {
	case 0, 1:
		s.lose(fmt.Sprintf("restart, %v behind", lag), "", func() { s.cluster.Failover(lag) })
	case 2:
		s.lose(fmt.Sprintf("failover and failback, %v behind", lag), "", func() { s.cluster.Failover(lag); s.cluster.Failover(0) })
	case 3:
		s.lose("flush", "", s.cluster.Flush)
	}
	within := time.Duration(s.rng.IntN(4))*time.Second + 1
	for _, i := range alive {
		s.after(s.draw(within), func() {
			if s.snapshots != "" && s.rng.IntN(2) == 0 {
				s.joinAgain(i)
			} else {
				s.join()
			}
		})
	}
	return nil, true
}

// startSplit promotes a replica and leaves some instances with the old primary.
func (s *sim) startSplit(minReplicas bool) (func(), bool) {
	some := s.randomInstances()
	if s.serversBusy || len(some) == 0 {
		return nil, false
	}
	s.serversBusy = true
	lag := s.draw(s.policy.Dwell)
	var conns []*rotationtest.Conn
	note := ""
	for _, i := range some {
		conns = append(conns, i.conn)
		note += " " + i.name
		i.addObstacles(1)
	}
	s.lose(fmt.Sprintf("split, %v behind, min-replicas %v; with the old primary:%s", lag, minReplicas, note), "",
		func() { s.cluster.Split(lag, minReplicas, conns...) })
	if !minReplicas {
		s.h.unsafe = append(s.h.unsafe, window{s.now(), forever})
	}
	return func() {
		s.serversBusy = false
		s.lose("heal", "", s.cluster.Heal)
		for _, i := range some {
			i.addObstacles(-1)
		}
		if n := len(s.h.unsafe); !minReplicas {
			s.h.unsafe[n-1].to = s.now() + s.policy.Freshness + 4*pollFor
		}
	}, true
}

// startLateSplit promotes a replica and leaves some instances with the old primary, which takes writes
// for a while. Both the lag of the replica and that while are within Dwell. Where rings are made by
// themselves, both sides may make one: see the limits in docs/rotation.md.
func (s *sim) startLateSplit() (func(), bool) {
	some := s.randomInstances()
	if s.serversBusy || s.bootstrap || len(some) == 0 {
		return nil, false
	}
	s.serversBusy = true
	late := s.draw(s.policy.Dwell)
	var conns []*rotationtest.Conn
	note := ""
	for _, i := range some {
		conns = append(conns, i.conn)
		note += " " + i.name
		i.addObstacles(1)
	}
	s.lose(fmt.Sprintf("split, old primary writes for %v:%s", late, note), "", func() { s.cluster.Split(s.draw(s.policy.Dwell-late), false, conns...) })
	old, over := conns[0], false
	s.after(late, func() {
		if !over {
			s.lose("the old primary notices", "", func() { s.cluster.SetReadOnlyAt(old, true) })
		}
	})
	return func() {
		over, s.serversBusy = true, false
		s.lose("heal", "", s.cluster.Heal)
		for _, i := range some {
			i.addObstacles(-1)
		}
	}, true
}

// tamper removes a field of a ring, or corrupts it.
func (s *sim) tamper() {
	tenant := pick(s.rng, s.tenants)
	field := ""
	if names := keysOf(s.cluster.Ring(tenant)); len(names) > 0 {
		field = pick(s.rng, names)
	} else {
		return
	}
	spoil, at := s.rng.IntN(2) == 0, s.rng.IntN(1<<16)
	if spoil {
		s.corrupt(tenant, field, at)
		return
	}
	s.edit(tenant, "edit: remove "+field[:min(7, len(field))], func(f map[string][]byte) { delete(f, field) })
}
