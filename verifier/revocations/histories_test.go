package revocations

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// The bounds that the histories check. gap is W of docs/protocol.md with the defaults, 2.9 s.
const (
	gap = 2900 * time.Millisecond

	// hears is how long after a server has a revocation a list that reaches that server refuses. A poll
	// finds it in the log within one gap. An edit by hand that removed the entry from the log as well is
	// found with the next digest.
	hears = 2*gap + time.Second

	// repairs is how long after a loss a holder that reaches the server has put the lost entries back.
	repairs = 4 * gap
)

// TestHistories simulates histories of fleets and checks these rules on each:
//
//	accepts   a list that is ready refuses what its server has for longer than hears
//	forgets   a server has what a list holds that has reached it for longer than repairs
//	newcomer  a list that becomes ready refuses what a live holder has held all the while
//	stale     a list is not ready MaxStale after its last contact with the store
//	good      a token without a revocation is not refused
//
// KEYTURN_HISTORIES is their number and KEYTURN_SEED the first seed. KEYTURN_TRACE=1 prints all events of
// a history that breaks a rule.
func TestHistories(t *testing.T) {
	n, first := number(t, "KEYTURN_HISTORIES", 150), number(t, "KEYTURN_SEED", 1)
	counts := make(map[string]int)
	for seed := first; seed < first+n && !t.Failed(); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				w.run()
				for k, v := range w.counts {
					counts[k] += v
				}
				for _, rule := range slices.Sorted(maps.Keys(w.bad)) {
					t.Errorf("seed %d: %s", seed, w.bad[rule])
				}
				if t.Failed() && os.Getenv("KEYTURN_TRACE") != "" {
					fmt.Println(strings.Join(w.events, "\n"))
				}
			})
		})
	}
	t.Log(counts)
	for name := range happenings() {
		if n >= 150 && counts[name] == 0 {
			t.Errorf("in %d histories this never happened: %s", n, name)
		}
	}
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// run runs a history of some two minutes.
func (w *world) run() {
	for range 1 + w.rng.IntN(3) {
		w.start()
	}
	w.sleep(time.Duration(w.rng.IntN(12000)) * time.Millisecond)
	all := happenings()
	names := slices.Sorted(maps.Keys(all))
	for range 25 + w.rng.IntN(20) {
		if w.rng.IntN(2) == 0 {
			w.anyRevoke()
		} else {
			all[names[w.rng.IntN(len(names))]](w)
		}
		pause := 4 * time.Second
		if w.rng.IntN(5) == 0 {
			pause = 25 * time.Second
		}
		w.sleep(time.Duration(w.rng.Int64N(int64(pause))))
	}
	w.mend()
	w.sleep(20 * time.Second)
	w.stopAll()
}

// sleep lets time pass, and checks the rules every half a second.
func (w *world) sleep(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(500 * time.Millisecond)
		w.check()
	}
}

func (w *world) anyRevoke() {
	if len(w.nodes) == 0 || w.rng.IntN(6) == 0 {
		w.command()
		return
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	w.revoke(n.List, n.cfg.Instance)
}

// loss notes that the store may have lost something.
func (w *world) loss(format string, args ...any) {
	w.note(format, args...)
	w.lost = time.Now()
}

// mend ends all faults.
func (w *world) mend() {
	w.cluster.Heal()
	w.split = false
	w.loss("mend")
	for _, n := range w.nodes {
		if n.well.IsZero() {
			n.conn.SetFaults(w.usual())
			n.well = time.Now()
		}
	}
}

// happenings are what may happen, by name.
func happenings() map[string]func(w *world) {
	all := map[string]func(w *world){
		"start": func(w *world) {
			if len(w.nodes) < 5 {
				w.start()
			}
		},
		"stop": func(w *world) {
			if len(w.nodes) > 1 {
				w.stop(w.rng.IntN(len(w.nodes)), w.rng.IntN(2) == 0)
			}
		},
		"restart": func(w *world) {
			w.note("restart")
			for range w.nodes {
				w.stop(0, w.rng.IntN(2) == 0)
				w.start()
			}
		},
		"failover": func(w *world) {
			lag := time.Duration(w.rng.IntN(3000)) * time.Millisecond
			w.cluster.Failover(lag)
			w.loss("failover %v", lag)
		},
		"split": func(w *world) {
			if w.split || len(w.nodes) == 0 {
				return
			}
			w.split = true
			n := w.nodes[w.rng.IntN(len(w.nodes))]
			w.cluster.Split(time.Duration(w.rng.IntN(2000))*time.Millisecond, w.rng.IntN(2) == 0, n.conn)
			w.loss("split %s", n.cfg.Instance)
			n.well = time.Time{}
		},
		"cut": func(w *world) {
			if len(w.nodes) > 0 {
				n := w.nodes[w.rng.IntN(len(w.nodes))]
				n.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Cut(1 + w.rng.IntN(2))})
				n.well = time.Time{}
				w.note("cut %s", n.cfg.Instance)
			}
		},
		"mend":  (*world).mend,
		"wipe":  func(w *world) { w.cluster.Wipe(); w.loss("wipe") },
		"flush": func(w *world) { w.cluster.Flush(); w.loss("flush") },
		"dump": func(w *world) {
			w.dumps = append(w.dumps, w.cluster.Dump())
			w.note("dump")
		},
		"restore": func(w *world) {
			if len(w.dumps) > 0 {
				w.cluster.Restore(w.dumps[w.rng.IntN(len(w.dumps))])
				w.loss("restore")
			}
		},
	}
	maps.Copy(all, attacks())
	return all
}

// attacks are what a person does who can write to the store, and has no KEK.
func attacks() map[string]func(w *world) {
	edit := func(w *world, what string, f func(fields map[string][]byte)) {
		groups := w.cluster.Tenants()
		if len(groups) == 0 {
			return
		}
		g := groups[w.rng.IntN(len(groups))]
		if w.cluster.EditRing(g, f) {
			w.loss("%s %s", what, g)
		}
	}
	return map[string]func(w *world){
		"remember": func(w *world) {
			for _, g := range w.cluster.Tenants() {
				w.groups[g] = w.cluster.Ring(g)
			}
			w.note("remember")
		},
		"replay": func(w *world) {
			for _, g := range slices.Sorted(maps.Keys(w.groups)) {
				w.cluster.EditRing(g, func(fields map[string][]byte) { maps.Copy(fields, w.groups[g]) })
			}
			w.loss("replay")
		},
		"remove": func(w *world) { edit(w, "remove", func(fields map[string][]byte) { clear(fields) }) },
		"garble": func(w *world) {
			edit(w, "garble", func(fields map[string][]byte) {
				for _, f := range slices.Sorted(maps.Keys(fields)) {
					fields[f] = append(slices.Clone(fields[f]), 'x')
				}
				fields["x"] = []byte("x")
			})
		},
		"trim": func(w *world) {
			for i := range rotation.Buckets {
				w.cluster.Trim(i, 1)
			}
			w.note("trim")
		},
		"unack": func(w *world) {
			for _, n := range w.nodes {
				for _, b := range n.all {
					w.cluster.ForgeAck(b.index, n.cfg.Instance, nil)
				}
			}
			w.note("unack")
		},
	}
}

// check checks all rules now.
func (w *world) check() {
	for _, r := range w.done {
		if !r.dead && time.Now().Before(r.ends) {
			w.checkRevocation(r)
		}
	}
	for _, n := range w.nodes {
		if n.Status().Ready {
			n.ready = true
			w.counts["ready"]++
			if n.well.IsZero() && time.Since(n.lastContact()) > n.cfg.MaxStale+2*time.Second+gap {
				w.violate("stale", "%s is ready, and had no contact since %v", n.cfg.Instance, n.lastContact())
			}
		}
		good := names{tenant: "acme", jti: "good", sub: "good", sid: "good", iat: time.Now().Unix() + 10}
		if revoked, _ := says(n.List, good); revoked {
			w.violate("good", "%s refuses a good token", n.cfg.Instance)
		}
	}
}

// lastContact returns when the node's last complete sync was sent, by the test's clock.
func (n *node) lastContact() time.Time { return n.Status().Synced.Add(-n.skew) }

func (w *world) checkRevocation(r *revocation) {
	alive := false
	var holders []*node
	for _, n := range w.nodes {
		stored := r.storedAt(n)
		if _, since := r.present[n]; !stored {
			delete(r.present, n)
		} else if !since {
			r.present[n] = time.Now()
		}
		if r.heldBy(n.List) {
			if holders = append(holders, n); r.held[n].IsZero() {
				r.held[n] = time.Now()
			}
			stored = true
		}
		alive = alive || stored
	}
	if !alive && r.ok && len(w.nodes) > 0 && slices.ContainsFunc(w.nodes, func(n *node) bool { return len(n.current()) > 0 }) {
		r.dead = true // no holder lived when the store lost it
		w.note("dead %s", r.name)
		return
	}
	for _, n := range w.nodes {
		w.checkNode(r, n, holders)
	}
}

func (w *world) checkNode(r *revocation, n *node, holders []*node) {
	well := func(n *node, d time.Duration) bool { return !n.well.IsZero() && time.Since(n.well) > d }
	revoked, err := r.saidBy(n.List)
	at, present := r.present[n]
	if holds := r.heldBy(n.List); holds && well(n, repairs) && time.Since(w.lost) > repairs && !present {
		w.violate("forgets", "%s holds %s %s, and the store has not got it", n.cfg.Instance, kindOf(r.kind), r.name)
	}
	if err != nil || revoked {
		return
	}
	if present && time.Since(at) > hears && well(n, hears) {
		w.violate("accepts", "%s accepts a token by %s %s, which the store has since %v", n.cfg.Instance, kindOf(r.kind), r.name, at.Sub(w.begin))
	}
	for _, h := range holders {
		if h != n && r.held[h].Before(n.opened) && well(h, time.Since(n.opened)+2*gap) && !n.well.After(n.opened) && well(n, 0) {
			w.violate("newcomer", "%s accepts a token by %s %s, which %s has held all the while", n.cfg.Instance, kindOf(r.kind), r.name, h.cfg.Instance)
		}
	}
}
