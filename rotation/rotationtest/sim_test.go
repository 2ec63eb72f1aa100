package rotationtest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A sim drives a world at random.
type sim struct {
	*world
	rng     *rand.Rand
	length  time.Duration
	trouble float64 // how probable a fault is, of each step
	pending []timed
	kinds   []faultKind
	split   bool // no other change of servers may come between
	dumps   []rotationtest.Dump
	copies  map[string][]map[string][]byte // tenant -> old rings
	tokens  []int                          // that may live
	most    int
	clocks  bool // beyond S
}

// A timed is something that is to happen.
type timed struct {
	at time.Duration
	do func()
}

// simulate runs the history of a seed.
func simulate(t *testing.T, seed uint64) (h *history) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, seed)
		s.run()
		h = s.h
	})
	return h
}

func newSim(t *testing.T, seed uint64) *sim {
	rng := rand.New(rand.NewPCG(seed, 1))
	policy := fast
	if rng.IntN(32) == 0 {
		policy.Algorithm, policy.ReaderStaleness = keystore.Ed25519, 1500*time.Millisecond
	}
	if rng.IntN(4) == 0 {
		// The shortest that is allowed.
		policy.MaxTokenTTL, policy.Leeway = 2*time.Second, 500*time.Millisecond
	}
	if rng.IntN(3) == 0 { // so that a manual change is not overtaken by the next scheduled one
		policy.Every = seconds(rng, 6, 25).Truncate(time.Millisecond)
	}
	s := &sim{rng: rng, length: seconds(rng, 7, 16), most: 2 + rng.IntN(3), trouble: 0.04 * rng.Float64() * rng.Float64()}
	tenants := 1
	switch n := rng.IntN(512); {
	case n < 4:
		s.most, s.length, tenants = 12, seconds(rng, 20, 40), 1+rng.IntN(50)
	case n < 64:
		s.most, s.length, tenants = 4+rng.IntN(7), seconds(rng, 15, 40), 1+rng.IntN(5)
	case n < 192:
		tenants = 2
	}
	var names []string
	for i := range tenants {
		names = append(names, fmt.Sprintf("t%d", i))
	}
	s.world = newWorld(t, seed, policy, names...)
	s.bootstrap = rng.IntN(8) == 0
	s.all = !s.bootstrap && rng.IntN(128) == 0
	s.copies = make(map[string][]map[string][]byte)
	s.clocks = rng.IntN(16) == 0
	s.chooseFaults()
	return s
}

func seconds(rng *rand.Rand, least, most int) time.Duration {
	return time.Duration(least)*time.Second + time.Duration(rng.Int64N(int64(most-least)*int64(time.Second)))
}

// chooseFaults picks one kind of fault, or a few, or all.
func (s *sim) chooseFaults() {
	s.kinds = slices.Clone(faultKinds)
	s.rng.Shuffle(len(s.kinds), func(i, j int) { s.kinds[i], s.kinds[j] = s.kinds[j], s.kinds[i] })
	switch s.rng.IntN(4) {
	case 0:
		s.kinds = s.kinds[:1]
	case 1, 2:
		s.kinds = s.kinds[:2+s.rng.IntN(4)]
	}
}

func (s *sim) run() {
	defer s.close()
	s.begin()
	for s.now() < s.length {
		s.sleep(time.Duration(s.rng.ExpFloat64() * float64(80*time.Millisecond)))
		s.step()
	}
	s.calm()
}

// begin opens the first instance, which makes the rings, and some more.
func (s *sim) begin() {
	first := s.join()
	if !s.bootstrap {
		first.create()
	}
	for range s.rng.IntN(s.most) {
		s.after(s.draw(3*time.Second), func() { s.join() })
	}
}

// calm lets all faults end, and everyone find together again.
func (s *sim) calm() {
	for len(s.pending) > 0 {
		s.sleep(s.pending[0].at - s.now())
	}
	s.sleep(s.policy.Freshness + 2*pollFor)
	for range 25 {
		s.sleep(time.Duration(s.rng.ExpFloat64() * float64(30*time.Millisecond)))
		s.use()
	}
	for _, i := range s.alive() {
		for _, tenant := range s.tenants {
			i.audit(tenant)
		}
	}
	s.sleep(500 * time.Millisecond) // what is under way ends
}

// after makes f happen in a while. It happens in the driver's goroutine.
func (s *sim) after(d time.Duration, f func()) {
	s.pending = append(s.pending, timed{s.now() + d, f})
	slices.SortStableFunc(s.pending, func(a, b timed) int { return int(a.at - b.at) })
}

// sleep sleeps, and does what is due.
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

// join adds an instance.
func (s *sim) join() *instance {
	skew := s.policy.ClockSkew
	offset := time.Duration(s.rng.Int64N(int64(skew))) - skew/2
	i := s.connect(fmt.Sprintf("i%d", len(s.everyone())), offset)
	i.rotates = len(s.alive()) < 8 && s.rng.IntN(4) > 0 || len(s.everyone()) == 1
	i.open()
	return i
}

// step does one thing.
func (s *sim) step() {
	if s.rng.Float64() < s.trouble {
		s.fail()
		return
	}
	switch n := s.rng.IntN(1000); {
	case n < 8:
		s.restart()
	case n < 26:
		s.command()
	case n < 70:
		if i, tenant := s.someone(), pick(s.rng, s.tenants); i != nil {
			i.audit(tenant)
		}
	case n < 75:
		if f := s.cluster.Ring(s.tenants[0]); len(f) > 0 {
			s.copies[s.tenants[0]] = append(s.copies[s.tenants[0]], f)
		}
	default:
		s.use()
	}
}

func (s *sim) someone() *instance {
	if alive := s.alive(); len(alive) > 0 {
		return pick(s.rng, alive)
	}
	return nil
}

// use signs or verifies.
func (s *sim) use() {
	i := s.someone()
	if i == nil {
		return
	}
	if s.rng.IntN(2) == 0 {
		n := i.sign(pick(s.rng, s.tenants))
		if n < 0 {
			return
		}
		s.tokens = append(s.tokens, n)
		for _, other := range s.alive() {
			if s.rng.IntN(2) == 0 {
				other.knows(n)
			}
		}
		return
	}
	if len(s.tokens) > 60 {
		s.tokens = slices.Clone(s.tokens[len(s.tokens)-60:])
	}
	for range 3 {
		if i := s.someone(); len(s.tokens) > 0 {
			i.verify(pick(s.rng, s.tokens))
		}
	}
	if len(s.tokens) > 0 && s.rng.IntN(20) == 0 {
		i.confuse(pick(s.rng, s.tokens), pick(s.rng, s.tenants))
	}
}

// restart ends an instance, or replaces it, or adds one.
func (s *sim) restart() {
	alive := s.alive()
	switch n := s.rng.IntN(3); {
	case n == 0 && len(alive) > 1:
		pick(s.rng, alive).close()
	case n == 1 && len(alive) > 0:
		pick(s.rng, alive).close()
		s.after(s.draw(2*time.Second), func() { s.join() })
	case len(alive) < s.most:
		s.join()
	}
}

func (s *sim) draw(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d))) }

// command has an operator do something.
func (s *sim) command() {
	i := s.someone()
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
	if s.rng.IntN(5) == 0 {
		opts, force = append(opts, rotation.Force), " forced"
	}
	keys := st.Ring.Keys
	switch n := s.rng.IntN(8); {
	case n < 3:
		i.op("rotate"+force, tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Rotate(ctx, tenant, opts...)
		})
	case n < 6:
		kid := keys[len(keys)-1].KID
		if st.Ring.Signer >= 0 && st.Ring.Signer+1 < len(keys) {
			kid = keys[st.Ring.Signer+1].KID
		}
		if force != "" {
			kid = pick(s.rng, keys).KID
		}
		i.op("promote"+force+" "+short(kid), tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Promote(ctx, tenant, kid, opts...)
		})
	case n < 7:
		kid := pick(s.rng, keys).KID
		i.op("revoke"+force+" "+short(kid), tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Revoke(ctx, tenant, kid, opts...)
		})
	default:
		i.op("set policy", tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return rotation.Receipt{}, r.SetPolicy(ctx, tenant, s.policy)
		})
	}
}

// A faultKind is something that can happen. begin returns how it ends, or nil if it
// does so by itself, and whether it could happen at all.
type faultKind struct {
	name  string
	begin func(s *sim) (end func(), did bool)
}

// fail lets something happen, for a while.
func (s *sim) fail() {
	f := pick(s.rng, s.kinds)
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

// some returns one instance, half of them, or all.
func (s *sim) some() []*instance {
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

// onSome is a fault of the connections of some instances.
func onSome(harmless bool, make func(s *sim) func(*rotationtest.Faults)) func(*sim) (func(), bool) {
	return func(s *sim) (func(), bool) {
		f := &fault{change: make(s), harmless: harmless}
		var ends []func()
		note := ""
		for _, i := range s.some() {
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

// onServers is a fault of the servers, which does not happen in a split.
func onServers(do func(s *sim)) func(*sim) (func(), bool) {
	return func(s *sim) (func(), bool) {
		if s.split {
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
		for _, i := range s.some() {
			for range s.rng.IntN(5) {
				i.conn.Forge(rotation.BucketOf(pick(s.rng, s.tenants)))
			}
		}
		return nil, true
	}},
	{"wrong database", func(s *sim) (func(), bool) {
		if s.split {
			return nil, false
		}
		some := s.some()
		if len(some) == 0 {
			return nil, false
		}
		s.split = true
		for _, i := range some {
			i.leave(1)
			i.conn.SelectDatabase(1)
		}
		s.h.unsafe = append(s.h.unsafe, window{s.now(), forever}) // two stores that take writes
		return func() {
			s.split = false
			for _, i := range some {
				i.conn.SelectDatabase(0)
				i.leave(-1)
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
	{"wipe", onServers(func(s *sim) { s.lose("wipe", "", s.cluster.Wipe) })},
	{"dump", onServers(func(s *sim) {
		s.dumps = append(s.dumps, s.cluster.Dump())
		if len(s.dumps) > 1 {
			d := pick(s.rng, s.dumps)
			s.lose("restart with an older dump", "", func() { s.cluster.Restore(d) })
		}
	})},
	{"split with min-replicas", func(s *sim) (func(), bool) { return s.splits(true) }},
	{"split without min-replicas", func(s *sim) (func(), bool) { return s.splits(false) }},
	{"no writes for anyone", func(s *sim) (func(), bool) {
		if s.split {
			return nil, false
		}
		s.split = true
		s.outage(1)
		s.cluster.SetReadOnly(true)
		return func() {
			s.split = false
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
	{"wrong type", func(s *sim) (func(), bool) {
		if s.split {
			return nil, false
		}
		tenant := pick(s.rng, s.tenants)
		s.split = true
		s.outage(1)
		s.cluster.SetWrongType(tenant, true)
		return func() {
			s.split = false
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
		i := s.someone()
		if i == nil || !s.clocks {
			return nil, false
		}
		s.h.beyondS = true
		d := pick(s.rng, []time.Duration{10 * s.policy.ClockSkew, -10 * s.policy.ClockSkew, -time.Hour, time.Hour, s.policy.Every})
		old := i.offset.Swap(int64(d))
		return func() { i.offset.Store(old) }, true
	}},
	{"store's clock beyond S", func(s *sim) (func(), bool) {
		if s.split || !s.clocks {
			return nil, false
		}
		s.h.beyondS = true
		d := pick(s.rng, []time.Duration{10 * s.policy.ClockSkew, -10 * s.policy.ClockSkew, s.policy.Every})
		s.cluster.Advance(d)
		return func() { s.cluster.Advance(-d) }, true
	}},
}

// splits leaves some with the old primary.
func (s *sim) splits(minReplicas bool) (func(), bool) {
	some := s.some()
	if s.split || len(some) == 0 {
		return nil, false
	}
	s.split = true
	lag := s.draw(s.policy.Dwell)
	var conns []*rotationtest.Conn
	note := ""
	for _, i := range some {
		conns = append(conns, i.conn)
		note += " " + i.name
		i.leave(1)
	}
	s.lose(fmt.Sprintf("split, %v behind, min-replicas %v; with the old primary:%s", lag, minReplicas, note), "",
		func() { s.cluster.Split(lag, minReplicas, conns...) })
	if !minReplicas {
		s.h.unsafe = append(s.h.unsafe, window{s.now(), forever})
	}
	return func() {
		s.split = false
		s.lose("heal", "", s.cluster.Heal)
		for _, i := range some {
			i.leave(-1)
		}
		if n := len(s.h.unsafe); !minReplicas {
			s.h.unsafe[n-1].to = s.now() + s.policy.Freshness + 4*pollFor
		}
	}, true
}

// tamper takes a field out of a ring, or spoils one.
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
		s.spoil(tenant, field, at)
		return
	}
	s.edit(tenant, "edit: remove "+field[:min(7, len(field))], func(f map[string][]byte) { delete(f, field) })
}
