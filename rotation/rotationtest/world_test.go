package rotationtest_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A world is a simulated cluster with its instances, and the history of what they do. It lives in a
// bubble of testing/synctest.
type world struct {
	t          *testing.T
	h          *history
	cluster    *rotationtest.Cluster
	keks       []string // of instances that join from now on, the primary first
	policy     rotation.Policy
	ctx        context.Context
	stop       context.CancelFunc
	wg         sync.WaitGroup
	baseFaults rotationtest.Faults // the faults of every connection: a little latency
	auditor    *rotationtest.Conn  // reads the primary for the world itself

	instances []*instance // also those that have ended
	tenants   []string
	outages   atomic.Int32 // how many faults now keep all instances from the store
	bootstrap bool
	adopts    *adoption // how the rings begin, or nil
	holdsAll  bool      // instances hold all tenants of the store, not a list

	mu         sync.Mutex
	old        int                      // see oldProgram; guarded by mu, as all below
	storedAt   map[string]time.Duration // kid -> when it was first stored, or republished
	lastLoss   time.Duration
	edits      map[string]time.Duration  // tenant -> when its ring was last edited without a log entry
	unreadable map[string]bool           // digests of rings that cannot be opened
	revoked    map[string]bool           // the kids whose revocation the store has ever had, or the shred of their ring
	minted     map[string]map[string]int // tenant -> kid -> its life
	dead       map[string]int            // tenant -> how many of its lives have ended
}

// An instance is one process of the service, from its start to its end.
type instance struct {
	w       *world
	id      int
	name    string
	conn    *rotationtest.Conn
	offset  atomic.Int64 // nanoseconds that its clock is ahead of true time
	rotates bool
	keks    []string // the names of those with which it starts, the primary first
	realm   string
	realms  []string // others that it opens too
	tenants []string // if not nil, it begins with these tenants, and makes rings where there are none

	snapshot string // the file that it keeps; "" for none

	k     atomic.Pointer[rotation.Keyring]
	s     atomic.Pointer[rotation.Signer]
	r     atomic.Pointer[rotation.Rotator]
	stop  context.CancelFunc
	done  chan struct{}
	ended atomic.Bool

	knew map[string]time.Duration // kid -> since when it is known to know that the key is revoked; guarded by w.mu

	mu        sync.Mutex
	faults    []*fault
	obstacles int           // how many faults keep it from the right primary
	since     time.Duration // since when it has been in reach of the store; negative: it is not
}

// A fault is a change of a connection's faults.
type fault struct {
	change   func(*rotationtest.Faults)
	harmless bool // the instance still counts as in reach, as without nudges
}

func newWorld(t *testing.T, seed uint64, policy rotation.Policy, tenants ...string) *world {
	ctx, stop := context.WithCancel(t.Context())
	w := &world{t: t, policy: policy.WithDefaults(), ctx: ctx, stop: stop, keks: []string{"A"}, tenants: tenants,
		storedAt: make(map[string]time.Duration), edits: make(map[string]time.Duration), unreadable: make(map[string]bool), revoked: make(map[string]bool), minted: make(map[string]map[string]int), dead: make(map[string]int), lastLoss: -time.Hour}
	w.h = &history{seed: seed, policy: w.policy, start: time.Now(), timing: timing{poll, deadline, pollFor, 50 * time.Millisecond}}
	w.baseFaults = rotationtest.Faults{Before: 2 * time.Millisecond} // a delay after the effect too would double the time that the tests take
	w.cluster = rotationtest.NewCluster(rotationtest.ClusterConfig{Seed: seed, Page: 3 + int(seed%5), NoRun: seed%8 == silent || seed%10 == 5, Committed: w.committed})
	w.auditor = w.cluster.Connect("auditor")
	return w
}

func (w *world) now() time.Duration { return time.Since(w.h.start) }

// close ends the world and waits for all its goroutines.
func (w *world) close() {
	for _, i := range w.allInstances() {
		i.close()
	}
	w.stop()
	w.wg.Wait()
}

// committed adds a change to the history. The cluster calls it.
func (w *world) committed(c rotationtest.Commit) {
	e := &commit{Commit: c, keys: make(map[string]int), lives: make(map[string]int), facts: make(map[ring.FactKind][]string), longest: make(map[string]time.Duration),
		accepts: make(map[string]time.Time), until: make(map[string]time.Time)}
	for _, field := range keysOf(c.Set) {
		kind, kid, ok := strings.Cut(field, ":")
		switch {
		case !ok || len(kind) != 1:
		case kind == "k":
			e.noteRecord(kid, c.Set[field])
		case kind == "v" || kind == "u":
			e.noteAccept(kind, kid, c.Set[field])
		default:
			e.facts[ring.FactKind(kind[0])] = append(e.facts[ring.FactKind(kind[0])], kid)
		}
	}
	for _, field := range c.Delete {
		if kid, ok := strings.CutPrefix(field, "k:"); ok {
			e.removed = append(e.removed, kid)
		}
		if kid, ok := strings.CutPrefix(field, "v:"); ok {
			e.ended = append(e.ended, kid)
		}
	}
	if dead := c.Set["dead"]; dead != nil {
		e.dead = int(binary.BigEndian.Uint32(dead[12:]))
	}
	w.mu.Lock()
	w.noteLives(c.Tenant, e)
	e.unreadable = w.unreadable[c.If]
	for kid := range e.keys {
		_, had := w.storedAt[kid]
		if !had || slices.Contains(e.facts[ring.FactRepublished], kid) { // one that signed goes on at once
			w.storedAt[kid] = w.now()
		}
	}
	for _, kid := range e.facts[ring.FactRevoked] {
		w.revoked[kid] = true
	}
	w.mu.Unlock()
	inst := -1
	for _, i := range w.allInstances() {
		if i.name == c.Instance {
			inst = i.id
			if k := i.k.Load(); k != nil {
				// The instance may have begun to recover after it decided on the change.
				st, _ := k.Tenant(c.Tenant)
				e.doubt = st.InDoubt && i.now().Sub(st.LastGood) > 2*deadline
			}
		}
	}
	if founds(c.Op) {
		e.holder = w.holderOf(c.Tenant, 2*pollFor+w.h.timing.latency, func(k ring.Key) bool { return k.Life >= lifeMade(e) })
	}
	w.h.add(event{kind: evCommit, inst: inst, tenant: c.Tenant, token: -1, commit: e})
}

// noteLives notes of which life the keys of a commit are, and which keys it ends. w.mu is held.
func (w *world) noteLives(tenant string, c *commit) {
	if w.minted[tenant] == nil {
		w.minted[tenant] = make(map[string]int)
	}
	for kid, life := range c.lives {
		w.minted[tenant][kid] = life
	}
	w.dead[tenant] = max(w.dead[tenant], c.dead)
	for _, kid := range w.ended(tenant) {
		if _, set := c.lives[kid]; set || c.dead > 0 {
			c.ends = append(c.ends, kid)
			w.revoked[kid] = true
		}
	}
}

// ended returns the keys of a tenant whose life has ended. w.mu is held.
func (w *world) ended(tenant string) (kids []string) {
	for _, kid := range keysOf(w.minted[tenant]) {
		if w.minted[tenant][kid] < w.dead[tenant] {
			kids = append(kids, kid)
		}
	}
	return kids
}

// lifeMade returns the life of the ring that a commit creates.
func lifeMade(c *commit) (life int) {
	for _, of := range c.lives {
		life = of
	}
	return life
}

// noteRecord notes a record that was set. docs/formats.md has the offsets.
func (c *commit) noteRecord(kid string, blob []byte) {
	c.keys[kid] = int(binary.BigEndian.Uint32(blob[4:]))
	c.lives[kid] = int(binary.BigEndian.Uint32(blob[86:]))
	if blob[33]&4 != 0 {
		c.waits = append(c.waits, kid)
	}
	if longest := binary.BigEndian.Uint64(append(make([]byte, 3), blob[81:86]...)); longest > 0 {
		c.longest[kid] = time.Duration(longest) * time.Millisecond
	}
}

// founds reports whether an op makes a tenant's first ring.
func founds(op ring.Op) bool { return op == ring.OpCreate || op == ring.OpAdopt }

// connect adds an instance whose keyring is not open yet.
func (w *world) connect(name string, offset time.Duration) *instance {
	i := &instance{w: w, name: name, rotates: true, keks: w.keks, knew: make(map[string]time.Duration), done: make(chan struct{})}
	i.offset.Store(int64(offset))
	i.id = w.h.addInstance(name)
	i.conn = w.cluster.Connect(name)
	i.since = w.now()
	i.applyFaults()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.instances = append(w.instances, i)
	return i
}

// open starts an instance in the background. It tries until the keyring can be opened.
func (i *instance) open() {
	ctx, stop := context.WithCancel(i.w.ctx)
	i.stop = stop
	i.w.wg.Go(func() {
		defer close(i.done)
		k := i.tryOpen(ctx)
		if k == nil {
			return
		}
		r, err1 := rotation.NewRotator(k)
		s, err2 := rotation.NewSigner(k, rotation.SignerConfig{TTL: i.w.policy.MaxTokenTTL})
		if err := errors.Join(err1, err2); err != nil {
			panic(err)
		}
		i.r.Store(r)
		i.s.Store(s)
		i.w.h.add(event{kind: evOpen, inst: i.id, token: -1, primary: i.keks[0]})
		i.k.Store(k)
		if i.rotates {
			r.Run(ctx)
		}
		<-ctx.Done()
		k.Close(context.WithoutCancel(ctx))
	})
}

func (i *instance) tryOpen(ctx context.Context) *rotation.Keyring {
	cfg := rotation.Config{KEKs: keksOf(i.keks), Realm: i.realm, OtherRealms: i.realms, Snapshot: i.snapshot, Instance: i.name, Poll: poll, Deadline: deadline, Now: i.now, AllowBootstrap: i.w.bootstrap}
	if i.w.bootstrap {
		cfg.Policy = i.w.policy
	}
	if !i.w.holdsAll {
		cfg.Tenants = i.w.tenants
	}
	if i.tenants != nil {
		cfg.Tenants, cfg.AllowBootstrap, cfg.Policy = i.tenants, true, i.w.policy
	}
	for ctx.Err() == nil {
		k, err := rotation.Open(ctx, i.conn, cfg)
		if err == nil {
			return k
		}
		i.w.h.add(event{kind: evOpen, inst: i.id, token: -1, result: failed, err: err})
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
	return nil
}

// setKEKs replaces the KEKs of an instance, as after its KEK file has changed.
func (i *instance) setKEKs(names ...string) {
	err := i.k.Load().SetKEKs(keksOf(names))
	e := event{kind: evKEKs, inst: i.id, token: -1, note: strings.Join(names, " "), primary: names[0], err: err}
	if err != nil {
		e.result, e.primary = failed, i.keks[0]
	} else {
		i.keks = names
	}
	i.w.h.add(e)
}

// keksOf returns the KEKs of those names.
func keksOf(names []string) *rotation.KEKs {
	var keys [][]byte
	for _, name := range names {
		keys = append(keys, kekBytes(name))
	}
	keks, err := rotation.NewKEKs(keys...)
	if err != nil {
		panic(err)
	}
	return keks
}

// kekBytes are the 32 bytes of the KEK of a name.
func kekBytes(name string) []byte {
	key := sha256.Sum256([]byte(name))
	return key[:]
}

// close ends an instance and waits until it has ended.
func (i *instance) close() {
	if i.ended.Swap(true) {
		return
	}
	i.k.Store(nil)
	if i.stop != nil {
		i.stop()
		<-i.done
	}
	i.conn.Disconnect()
	i.w.h.add(event{kind: evClose, inst: i.id, token: -1})
}

// opened waits until the instance's keyring is open.
func (i *instance) opened() *rotation.Keyring {
	for range 1000 {
		if k := i.k.Load(); k != nil {
			return k
		}
		time.Sleep(10 * time.Millisecond)
	}
	i.w.t.Fatal("an instance cannot be opened")
	return nil
}

// now is the instance's clock.
func (i *instance) now() time.Time { return time.Now().Add(time.Duration(i.offset.Load())) }

// begin begins a fault of the instance's connection; end ends it.
func (i *instance) begin(f *fault) (end func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.faults = append(i.faults, f)
	i.applyFaults()
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		for n, other := range i.faults {
			if other == f {
				i.faults = append(i.faults[:n:n], i.faults[n+1:]...)
				break
			}
		}
		i.applyFaults()
	}
}

// addObstacles changes how many faults keep the instance from the right primary.
func (i *instance) addObstacles(by int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.obstacles += by
	i.applyFaults()
}

// outage changes how many faults keep all instances from the store, those to come included.
func (w *world) outage(by int32) {
	w.outages.Add(by)
	for _, i := range w.allInstances() {
		i.addObstacles(0)
	}
}

func (i *instance) applyFaults() {
	f, bad := i.w.baseFaults, i.obstacles > 0 || i.w.outages.Load() > 0
	for _, fault := range i.faults {
		fault.change(&f)
		bad = bad || !fault.harmless
	}
	i.conn.SetFaults(f)
	switch {
	case bad:
		i.since = -1
	case i.since < 0:
		i.since = i.w.now()
	}
}

// reach returns for how long the instance has been in reach of the store; negative: it is not.
func (i *instance) reach() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.since < 0 {
		return -1
	}
	return i.w.now() - i.since
}

func (w *world) allInstances() []*instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.instances[:len(w.instances):len(w.instances)]
}

// holder returns an instance that holds a key (or any key of the ring, if kid is empty) and has
// been in reach of the store for some time. It returns "" if there is no such instance.
func (w *world) holder(tenant, kid string, reach time.Duration) string {
	return w.holderOf(tenant, reach, func(k ring.Key) bool { return kid == "" || k.KID == kid })
}

// holderOf is holder for the keys that which chooses.
func (w *world) holderOf(tenant string, reach time.Duration, which func(ring.Key) bool) string {
	for _, i := range w.alive() {
		k := i.k.Load()
		if k == nil || i.reach() < reach {
			continue
		}
		st, _ := k.Tenant(tenant)
		for _, key := range st.Ring.Keys {
			if which(key) && key.Verifies() {
				return i.name
			}
		}
	}
	return ""
}

// rotator returns an instance that rotates keys and has been in reach of the store for some time,
// or "".
func (w *world) rotator(reach time.Duration) string {
	for _, i := range w.alive() {
		if i.rotates && i.reach() >= reach {
			return i.name
		}
	}
	return ""
}

// alive returns the instances whose keyring is open.
func (w *world) alive() []*instance {
	var alive []*instance
	for _, i := range w.allInstances() {
		if i.k.Load() != nil {
			alive = append(alive, i)
		}
	}
	return alive
}

// status sets the fields of e that say how the instance stands.
func (i *instance) status(e *event) {
	if k := i.k.Load(); k != nil {
		st, _ := k.Tenant(e.tenant)
		e.fresh, e.doubt, e.ready = st.Fresh, st.InDoubt, st.CanVerify
	}
	e.reach = i.reach()
}

// sign signs a token and returns its index in the history, or -1 if the instance cannot sign.
func (i *instance) sign(tenant string) int {
	s := i.s.Load()
	e := event{kind: evSign, inst: i.id, tenant: tenant, token: -1, result: ok}
	now := i.now()
	text, err := s.Sign(i.w.ctx, tenant, nil)
	if err != nil {
		e.err, e.result = err, failed
		switch {
		case errors.Is(err, rotation.ErrFenced):
			e.result = fenced
		case errors.Is(err, rotation.ErrNoSigner):
			e.result = noSigner
		}
		i.status(&e)
		if st, err := i.k.Load().Tenant(tenant); err == nil {
			e.audit = &audit{keys: st.Ring.Keys, lives: st.Ring.Lives, dated: !st.Ring.DeadAt.IsZero()}
		}
		e.holder = i.w.rotator(2 * i.w.policy.Propagation)
		i.w.h.add(e)
		return -1
	}
	t := parse(text)
	if t.kid == "" {
		st, _ := i.k.Load().Tenant(tenant)
		t = i.named(t, st.Ring.Keys)
	}
	t.tenant, t.signer, t.issued = tenant, i.id, now
	e.token = i.w.h.addToken(t)
	i.w.h.add(e)
	return e.token
}

// live reports whether a token has not expired by the instance's clock.
func (i *instance) live(t token) bool { return i.now().Before(t.exp.Add(i.w.policy.Leeway)) }

// lookup verifies a token as a verifier does, without asking the store about an unknown kid.
func (i *instance) lookup(k *rotation.Keyring, tenant string, t token, now time.Time) (outcome, error) {
	keys, err := k.Lookup(t.id(tenant), i.w.algorithmOf(t))
	if err != nil {
		return outcomeOf(err), err
	}
	for _, key := range keys {
		if key.ID().Tenant == tenant && key.Usable(now) && key.Verify(t.signed, t.sig) {
			return ok, nil
		}
	}
	return badSig, nil
}

// algorithmOf returns the algorithm of a token: that of the policy, or that of the old programs.
func (w *world) algorithmOf(t token) keystore.Algorithm {
	if t.noKID || t.partner {
		return keystore.HS256
	}
	return w.policy.Algorithm
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return ok
	case errors.Is(err, keystore.ErrUnavailable):
		return unavailable
	case errors.Is(err, keystore.ErrNotFound):
		return notFound
	}
	return failed
}

// verify verifies a live token as a verifier does, and adds the verdict to the history. If the kid
// is unknown it asks the store, in the background.
func (i *instance) verify(n int) {
	k := i.k.Load()
	t := i.w.h.tokens[n]
	if k == nil || !i.live(t) {
		return
	}
	e := event{kind: evVerify, inst: i.id, tenant: t.tenant, token: n}
	now := i.now()
	if e.result, e.err = i.lookup(k, t.tenant, t, now); e.result == ok || e.result == badSig {
		if e.reach = i.reach(); i.w.isRevoked(t.kid) {
			e.holder = i.w.knower(t.tenant, t.kid, i.w.h.timing.repairedIn())
		}
		i.w.h.add(e)
		return
	}
	i.status(&e)
	i.w.wg.Go(func() {
		news := k.Refresh(i.w.ctx, t.id(t.tenant))
		if i.ended.Load() || i.w.ctx.Err() != nil {
			return
		}
		after := e
		i.status(&after)
		e.fresh, e.doubt, e.reach = e.fresh && after.fresh, e.doubt || after.doubt, after.reach
		e.ready = e.ready && after.ready
		e.result, e.err = i.lookup(k, t.tenant, t, now)
		if e.result != ok && e.result != badSig && news != nil && outcomeOf(news) != notFound {
			e.result, e.err = unavailable, news
		}
		if e.result != ok {
			i.stored(&e, t)
			if st, err := k.Tenant(t.tenant); err == nil {
				for _, key := range st.Ring.Keys {
					e.note += fmt.Sprintf(" %s#%d:%s(%s..%s)", short(key.KID), key.Seq, key.State, key.ActivatesAt.Format("05.000"), key.DroppedAt.Format("05.000"))
				}
			}
		}
		i.w.h.add(e)
	})
}

// isRevoked reports whether the store has ever had a revocation of a key.
func (w *world) isRevoked(kid string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.revoked[kid]
}

// stored sets the fields of e that say who else has the key of t.
func (i *instance) stored(e *event, t token) {
	e.stored = i.conn.Ring(t.tenant)["k:"+t.kid] != nil
	e.holder = i.w.holder(t.tenant, t.kid, pollFor+i.w.h.timing.latency)
}

// checkKnows adds to the history whether i can verify a token without asking the store.
func (i *instance) checkKnows(n int) {
	k := i.k.Load()
	t := i.w.h.tokens[n]
	if k == nil || !i.live(t) {
		return
	}
	e := event{kind: evKnows, inst: i.id, tenant: t.tenant, token: n}
	if e.result, e.err = i.lookup(k, t.tenant, t, i.now()); e.result != ok {
		i.status(&e)
		i.stored(&e, t)
	}
	i.w.h.add(e)
}

// verifyAs verifies a token for another tenant.
func (i *instance) verifyAs(n int, tenant string) {
	k := i.k.Load()
	t := i.w.h.tokens[n]
	if k == nil || tenant == t.tenant {
		return
	}
	e := event{kind: evVerify, inst: i.id, tenant: tenant, token: n}
	e.result, e.err = i.lookup(k, tenant, t, i.now())
	i.w.h.add(e)
}

// audit adds an audit of a ring to the history, if i is in reach of the store.
func (i *instance) audit(tenant string) {
	k := i.k.Load()
	if k == nil || i.reach() < 0 {
		return
	}
	st, err := k.Tenant(tenant)
	if err != nil {
		return
	}
	i.noteRevoked(tenant, st)
	e := event{kind: evAudit, inst: i.id, tenant: tenant, token: -1, fresh: st.Fresh, doubt: st.InDoubt, err: st.Err, reach: i.reach()}
	e.audit = &audit{keys: st.Ring.Keys, accepted: st.Accepted, lives: st.Ring.Lives, dated: !st.Ring.DeadAt.IsZero(), fields: make(map[string]bool), sinceEdit: time.Hour}
	for field := range i.w.cluster.Ring(tenant) {
		e.audit.fields[field] = true
	}
	i.w.mu.Lock()
	e.audit.sinceLoss = i.w.now() - i.w.lastLoss
	if at, ok := i.w.edits[tenant]; ok {
		e.audit.sinceEdit = i.w.now() - at
	}
	i.w.mu.Unlock()
	i.w.h.add(e)
}

// lose runs f, which makes the store lose data or split, and adds the lost fields to the history.
// tenant is the tenant whose ring f edits, or "" if f concerns the whole store.
func (w *world) lose(note, tenant string, f func()) {
	before := w.holdings(w.alive()...)
	f()
	if tenant == "" { // a dump may hold a ring of the wrong type
		for _, tenant := range w.tenants {
			w.cluster.SetWrongType(tenant, false)
		}
	}
	after := w.holdings()
	l := &loss{keys: make(map[string]time.Duration)}
	w.mu.Lock()
	for _, field := range keysOf(before) {
		if kid, ok := strings.CutPrefix(field, "k:"); ok && !after[field] {
			l.keys[kid] = w.storedAt[kid]
		}
		if kid, ok := strings.CutPrefix(field, "x:"); ok && !after[field] {
			l.revoked = append(l.revoked, kid)
		}
		if kid, ok := strings.CutPrefix(field, "a:"); ok && !after[field] {
			l.promoted = append(l.promoted, kid)
		}
		if kind, kid, _ := strings.Cut(field, ":"); (kind == "v" || kind == "u") && !after[field] {
			l.accepts = append(l.accepts, kid)
		}
		var life int
		var of string
		if n, _ := fmt.Sscanf(field, "life %d of %s", &life, &of); n == 2 && !after[field] {
			l.dead = append(l.dead, of)
			for _, kid := range w.ended(of) {
				if w.minted[of][kid] == life {
					l.revoked = append(l.revoked, kid)
				}
			}
		}
	}
	if tenant == "" {
		w.lastLoss = w.now()
	}
	w.mu.Unlock()
	w.h.add(event{kind: evLoss, inst: -1, tenant: tenant, token: -1, note: note, loss: l})
}

// holdings returns the fields of all rings on the primary and on the servers of some instances.
func (w *world) holdings(of ...*instance) map[string]bool {
	all := make(map[string]bool)
	for _, tenant := range w.tenants {
		rings := []map[string][]byte{w.cluster.Ring(tenant)}
		for _, i := range of {
			rings = append(rings, i.conn.Ring(tenant))
		}
		for _, ring := range rings {
			for field := range ring {
				all[field] = true
			}
			for life := range livesEnded(ring) { // a store that loses the last of several shreds has the field still
				all[fmt.Sprintf("life %d of %s", life, tenant)] = true
			}
		}
	}
	return all
}

// livesEnded returns how many lives of a ring have ended, by the bytes in clear of its field.
func livesEnded(ring map[string][]byte) int {
	if dead := ring["dead"]; len(dead) >= 16 {
		return int(min(binary.BigEndian.Uint32(dead[12:]), 1000))
	}
	return 0
}

// edit changes a ring without a log entry.
func (w *world) edit(tenant, note string, change func(fields map[string][]byte)) {
	w.mu.Lock()
	w.edits[tenant] = w.now()
	w.mu.Unlock()
	w.lose(note, tenant, func() { w.cluster.EditRing(tenant, change) })
}

// writer begins to remove fields from a ring at each nudge, before any instance can read them, as a
// person can who writes to the store and has no KEK.
func (w *world) writer(tenant string, remove func(field string) bool) (stop func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	conn, nudged := w.cluster.Connect("writer"), make(chan struct{}, 1)
	w.wg.Go(func() {
		conn.Listen(ctx, func(bucket int) {
			select {
			case nudged <- struct{}{}:
			default:
			}
		})
	})
	w.wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				conn.Disconnect()
				return
			case <-nudged:
				w.remove(tenant, remove)
			}
		}
	})
	return cancel
}

// endsTrust reports whether a field ends the trust in a key, or makes another key sign in its place.
func endsTrust(field string) bool {
	return strings.HasPrefix(field, "x:") || strings.HasPrefix(field, "a:")
}

// remove removes fields of a ring, if it has them.
func (w *world) remove(tenant string, which func(field string) bool) {
	if !slices.ContainsFunc(keysOf(w.cluster.Ring(tenant)), which) {
		return
	}
	w.edit(tenant, "edit: remove at a nudge", func(fields map[string][]byte) {
		maps.DeleteFunc(fields, func(field string, _ []byte) bool { return which(field) })
	})
}

// noteRevoked notes what i knows of the revocations of a ring.
func (i *instance) noteRevoked(tenant string, st rotation.TenantStatus) {
	i.w.mu.Lock()
	defer i.w.mu.Unlock()
	for _, k := range st.Ring.Keys {
		if _, noted := i.knew[k.KID]; k.State == ring.Revoked && !noted {
			i.knew[k.KID] = i.w.now()
		}
	}
	for _, a := range st.Accepted {
		if _, noted := i.knew[a.KID]; !a.RevokedAt.IsZero() && !noted {
			i.knew[a.KID] = i.w.now()
		}
	}
	for kid, life := range i.w.minted[tenant] {
		if _, noted := i.knew[kid]; life < st.Ring.Lives && !noted {
			i.knew[kid] = i.w.now()
		}
	}
}

// knower returns an instance that has known for some time that a key is revoked, and has been in
// reach of the store for as long, or "".
func (w *world) knower(tenant, kid string, since time.Duration) string {
	for _, i := range w.alive() {
		k := i.k.Load()
		if k == nil || i.reach() < since {
			continue
		}
		st, _ := k.Tenant(tenant)
		i.noteRevoked(tenant, st)
		w.mu.Lock()
		at, knows := i.knew[kid]
		w.mu.Unlock()
		if knows && w.now()-at >= since {
			return i.name
		}
	}
	return ""
}

// corrupt flips a bit of a field, so that the field cannot be opened.
func (w *world) corrupt(tenant, field string, bit int) {
	w.edit(tenant, "edit: spoil "+field[:min(7, len(field))], func(fields map[string][]byte) {
		if value := fields[field]; len(value) > 0 {
			value[bit/8%len(value)] ^= 1 << (bit % 8)
		}
	})
	if strings.HasPrefix(field, "p:") {
		return // it is not authenticated, so the ring can still be opened
	}
	if now := w.auditor.Load(w.ctx, []string{tenant})[0]; now.Err == nil && now.Digest != "" {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.unreadable[now.Digest] = true
	}
}

// create creates the rings of all tenants at i.
func (i *instance) create() {
	i.opened()
	for _, tenant := range i.w.tenants {
		var err error
		if i.w.adopts != nil {
			_, err = i.adopt(i.w.ctx, tenant, *i.w.adopts)
		} else {
			_, err = i.r.Load().Create(i.w.ctx, tenant, i.w.policy)
		}
		if err != nil {
			i.w.t.Errorf("create %s: %v", tenant, err)
		}
	}
}

// runOp runs an operator's command in the background and adds its result to the history.
func (i *instance) runOp(what, tenant string, f func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error)) {
	r := i.r.Load()
	if r == nil {
		return
	}
	i.w.wg.Go(func() {
		ctx, cancel := context.WithTimeout(i.w.ctx, 2*time.Second)
		defer cancel()
		receipt, err := f(ctx, r)
		e := event{kind: evOp, inst: i.id, tenant: tenant, token: -1, note: what, result: ok, err: err}
		if err != nil {
			e.result = failed
		}
		if !receipt.NoSignerUntil.IsZero() {
			e.note += " leaves no signer"
		}
		i.w.h.add(e)
	})
}
