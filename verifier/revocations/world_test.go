package revocations

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// A world is a fleet of lists on one simulated store, with everything that may happen to them.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	cluster *rotationtest.Cluster
	nodes   []*node
	made    int // nodes
	done    []*revocation
	begin   time.Time
	events  []string
	bad     map[string]string // the first violation of each rule
	counts  map[string]int
	groups  map[string]map[string][]byte // old contents of groups, for a person who puts them back
	dumps   []rotationtest.Dump
	lost    time.Time // when the store lost something last
	split   bool
}

// A node is a list with its connection.
type node struct {
	*List
	conn   *rotationtest.Conn
	opened time.Time
	well   time.Time // since when its connection has no fault and its server is the primary; zero if it has
	ready  bool      // was ready once
	skew   time.Duration
}

// A revocation is one that a caller asked for, whether or not the call returned an error.
type revocation struct {
	names   // of a token that it revokes
	kind    table.Kind
	name    string
	at      time.Time
	ends    time.Time
	ok      bool                    // the call returned without an error
	present map[*node]time.Time     // since when the node's server has it, without a break
	held    map[*node]time.Time     // since when the node holds it
	digests map[uint32]table.Digest // by digest key
	dead    bool                    // no holder and no store has it any more
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 15)), begin: time.Now(), bad: make(map[string]string), counts: make(map[string]int), groups: make(map[string]map[string][]byte)}
	w.cluster = rotationtest.NewCluster(rotationtest.ClusterConfig{Seed: seed, Page: 1 + w.rng.IntN(6), NoRun: w.rng.IntN(4) == 0})
	return w
}

func (w *world) note(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	w.events = append(w.events, fmt.Sprintf("%9.3f %s", time.Since(w.begin).Seconds(), what))
	kind, _, _ := strings.Cut(what, " ")
	w.counts[kind]++
}

func (w *world) violate(rule, format string, args ...any) {
	if _, ok := w.bad[rule]; !ok {
		w.bad[rule] = fmt.Sprintf("%9.3f %s: ", time.Since(w.begin).Seconds(), rule) + fmt.Sprintf(format, args...)
		w.events = append(w.events, w.bad[rule])
	}
}

// start adds a node.
func (w *world) start() {
	w.made++
	n := &node{conn: w.cluster.Connect(fmt.Sprintf("n%d", w.made)), opened: time.Now(), well: time.Now(), skew: time.Duration(w.rng.IntN(1800)-900) * time.Millisecond}
	n.conn.SetFaults(w.usual())
	l, err := OpenStore(w.t.Context(), n.conn, Config{
		KEKs: testKEK, Instance: fmt.Sprintf("n%d", w.made), groups: few, Now: func() time.Time { return time.Now().Add(n.skew) }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	n.List = l
	w.nodes = append(w.nodes, n)
	w.note("start n%d", w.made)
}

// usual are the faults of a connection that works.
func (w *world) usual() rotationtest.Faults {
	return rotationtest.Faults{Before: time.Millisecond, Spread: time.Duration(1+w.rng.IntN(40)) * time.Millisecond, LoseNudge: 0.3, DoubleNudge: 0.1, DelayNudge: 50 * time.Millisecond}
}

// stop removes a node. One that crashes leaves its acknowledgements.
func (w *world) stop(i int, crash bool) {
	n := w.nodes[i]
	w.nodes = slices.Delete(w.nodes, i, i+1)
	w.note("stop %s, crash %t", n.cfg.Instance, crash)
	if crash {
		n.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
	}
	_ = n.Close(w.t.Context())
	n.conn.Disconnect()
}

func (w *world) stopAll() {
	for len(w.nodes) > 0 {
		w.stop(0, false)
	}
}

// revoke asks a node to revoke something.
func (w *world) revoke(l *List, who string) {
	w.made++
	r := &revocation{kind: table.Kind(1 + w.rng.IntN(3)), name: fmt.Sprintf("x%d", w.made), at: time.Now(), present: make(map[*node]time.Time), held: make(map[*node]time.Time), digests: make(map[uint32]table.Digest)}
	r.names = names{tenant: []string{"acme", "globex"}[w.rng.IntN(2)], jti: fmt.Sprintf("j%d", w.made), sub: "s" + r.name, sid: "d" + r.name, iat: time.Now().Unix() - 5}
	if w.rng.IntN(20) == 0 {
		r.kind, r.tenant = table.Tenant, fmt.Sprintf("tenant%d", w.made)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Second)
	defer cancel()
	exp, receipt, err := time.Now().Add(time.Duration(30+w.rng.IntN(600))*time.Second), Receipt{}, error(nil)
	r.ends = exp
	switch r.kind {
	case table.Token:
		r.name = r.jti
		receipt, err = l.RevokeToken(ctx, r.tenant, r.jti, exp)
	case table.Session:
		r.name = r.sid
		receipt, err = l.RevokeSession(ctx, r.tenant, r.sid, exp)
	case table.Subject:
		r.name = r.sub
		receipt, err = l.RevokeSubject(ctx, r.tenant, r.sub, time.Now())
	case table.Tenant:
		r.name = ""
		receipt, err = l.RevokeTenant(ctx, r.tenant, time.Now())
	}
	_ = receipt
	r.at, r.ok = time.Now(), err == nil
	w.done = append(w.done, r)
	w.note("revoke %s %s by %s: %v", kindOf(r.kind), r.name, who, err)
}

// command revokes something with a process of its own.
func (w *world) command() {
	conn := w.cluster.Connect("command")
	l, err := OpenStore(w.t.Context(), conn, Config{KEKs: testKEK, Instance: "command", groups: few, Transient: true, Logger: quiet})
	if err != nil {
		w.t.Fatal(err)
	}
	w.revoke(l, "a command")
	_ = l.Close(w.t.Context())
	conn.Disconnect()
}

// digest returns the digest of the revocation. It is made once for each key: there are many checks.
func (r *revocation) digest(k *codec.Key) table.Digest {
	d, ok := r.digests[k.ID]
	if !ok {
		d = k.Digest(r.kind, r.tenant, r.name)
		r.digests[k.ID] = d
	}
	return d
}

// heldBy reports whether a list holds the revocation, in its table.
func (r *revocation) heldBy(l *List) bool {
	for _, k := range l.current() {
		if e, ok := l.table.Get(r.digest(k)); ok && (e.Kind <= table.Session || e.Before > r.iat) {
			return true
		}
	}
	return false
}

// storedAt reports whether the server of a node's connection has the revocation. A node that knows the
// digest keys tells.
func (r *revocation) storedAt(n *node) bool {
	keys := n.current()
	for _, k := range keys {
		d := r.digest(k)
		value, ok := n.conn.Ring(groupName(groupOf(d, few)))[codec.Field(d)]
		if !ok {
			continue
		}
		if e, _, err := codec.OpenEntry(keys, codec.Field(d), value); err == nil && (e.Kind <= table.Session || e.Before > r.iat) {
			return true
		}
	}
	return false
}

// says returns what a list says of the token of the revocation.
func (r *revocation) saidBy(l *List) (revoked bool, err error) {
	v := l.view.Load()
	m := &verifier.Marks{Generation: v.generation, IssuedAt: r.iat}
	for i, k := range v.keys {
		if i > 0 {
			m = &verifier.Marks{Generation: v.generation, IssuedAt: r.iat, Next: m}
		}
		m.Digests[r.kind-1] = r.digest(k)
	}
	return l.RevokedMarks(m, l.cfg.Now())
}

// says returns what a list says of a token.
func says(l *List, n names) (revoked bool, err error) {
	m := l.view.Load().marks(n)
	return l.RevokedMarks(&m, l.cfg.Now())
}
