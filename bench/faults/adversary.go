package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
)

// An adversary reads and writes all of a Redis server, like a person with redis-cli. It has no KEK.
// It makes one move after the other, each against one of its tenants, while the fleet rotates and
// revokes keys. Several may work side by side, on tenants of their own.
type adversary struct {
	f       *fleet
	addr    string
	client  *redis.Client
	heard   *heard
	alone   *sync.RWMutex // held for writing by a move against all tenants, else for reading
	tenants []tenant
	hold    time.Duration // how long a move goes on
	old     []*dump       // what the store had earlier
}

// adversaryName is the name of the adversary's connections. It does not kill those.
const adversaryName = "adversary"

// A move is one thing that the adversary does.
type move struct {
	name  string
	title string // for the table
	do    func(ctx context.Context, b *blow) error

	// hides says that the move may remove every trace of a revocation, or keep holders from
	// restoring it. Then the revocation can be expected to be read only F and two polls after its
	// end.
	hides bool

	// whole says that the move affects all tenants.
	whole bool

	// harmless says that the move changes nothing that matters to an instance, so that no instance
	// has to notice it.
	harmless bool
}

// A blow is one use of a move.
type blow struct {
	*adversary
	move    *move
	of      tenant
	other   tenant
	changed atomic.Int64 // changes that an instance has read, or will
	before  map[string]string
	revoked []*revocation

	mu   sync.Mutex // guards undo
	undo []func(context.Context)
}

// later lets f put right, at the end of the blow, what no holder can.
func (b *blow) later(f func(context.Context)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.undo = append(b.undo, f)
}

func newAdversary(f *fleet, s single, heard *heard, alone *sync.RWMutex, against ...tenant) *adversary {
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), ClientName: adversaryName, Protocol: 2, DisableIdentity: true})
	return &adversary{f: f, addr: s.Addr(), client: client, heard: heard, alone: alone, tenants: against, hold: f.pace.Freshness}
}

// repair returns how long after the end of a move everything is back in the store, and has been
// read (I12 of docs/protocol.md).
func (p pace) repair() time.Duration { return p.Freshness + 2*p.onePoll() }

// strike makes a move and waits until the fleet has recovered.
func (a *adversary) strike(ctx context.Context, m *move) error {
	lock, unlock := a.alone.RLock, a.alone.RUnlock
	if m.whole {
		lock, unlock = a.alone.Lock, a.alone.Unlock
	}
	lock()
	defer unlock()
	n := a.f.intN(len(a.tenants))
	b := &blow{adversary: a, move: m, of: a.tenants[n], other: a.tenants[(n+1)%len(a.tenants)]}
	var err error
	if b.before, err = a.client.HGetAll(ctx, ringKey(b.of.name)).Result(); err != nil {
		return err
	}
	a.remember(ctx)
	j := a.f.judge
	j.begin(m.name, b.of.name)
	began, counts := time.Now(), a.f.counts()
	b.hidden(time.Now().Add(time.Hour))
	err = m.do(ctx, b)
	for _, undo := range slices.Backward(b.undo) {
		undo(ctx)
	}
	b.hidden(time.Now().Add(a.f.pace.repair()))
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	if err := b.recover(ctx); err != nil {
		return fmt.Errorf("%s against %s: %w", m.name, b.of.name, err)
	}
	b.checkNoticed(began, counts)
	return nil
}

// hidden tells the judge until when the move may hide revocations.
func (b *blow) hidden(until time.Time) {
	if !b.move.hides {
		return
	}
	for _, t := range tenants {
		if b.move.whole || t == b.of {
			b.f.judge.hide(t.name, until)
		}
	}
}

// recover waits until all instances are in sync, and the store has the revocations that the move
// removed. If that does not happen, it counts that, and puts the ring right. It is patient, because
// a busy machine is slow; the table has the longest time.
func (b *blow) recover(ctx context.Context) error {
	began := time.Now()
	defer func() { b.f.tally.do(func(c *count) { c.Healed = max(c.Healed, time.Since(began)) }) }()
	within, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !b.recovered(ctx) {
		if sleep(within, 10*time.Millisecond) != nil {
			b.f.judge.do(b.move.name, func(w *wrongs) { w.Unrepaired++ })
			return b.help(ctx)
		}
	}
	return nil
}

func (b *blow) recovered(ctx context.Context) bool {
	for _, m := range b.f.instances() {
		if !m.fresh(b.of.name) || !m.fresh(b.other.name) {
			return false
		}
	}
	for _, r := range b.revoked {
		if has, err := b.client.HExists(ctx, ringKey(r.tenant.name), "x:"+r.kid).Result(); err != nil || !has {
			return false
		}
	}
	return true
}

// help puts back what the ring had before the move.
func (b *blow) help(ctx context.Context) error {
	var why string
	for _, m := range b.f.instances() {
		for _, t := range []tenant{b.of, b.other} {
			if s, err := m.keys.Tenant(t.name); err != nil || !s.Fresh {
				why = fmt.Sprintf("%s, %s: %v", m.name, t.name, errors.Join(err, s.Err))
			}
		}
	}
	b.f.judge.note("%s against %s: not repaired: %s", b.move.name, b.of.name, why)
	pipe := b.client.TxPipeline()
	for name, value := range b.before {
		pipe.HSet(ctx, ringKey(b.of.name), name, value)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	return await(ctx, "a ring to be put right", func() bool { return b.recovered(ctx) })
}

// checkNoticed counts a move that changed what an instance read. It also counts it if no instance
// logged anything about the tenant, none was out of sync, and none counted an alarm.
func (b *blow) checkNoticed(began time.Time, before rotation.Counts) {
	j := b.f.judge
	if b.changed.Load() == 0 || b.move.harmless {
		return
	}
	now := b.f.counts()
	alarms := now.Undone + now.Older + now.Forged - before.Undone - before.Older - before.Forged
	noticed := alarms > 0 || len(b.heard.since(began, b.of.name)) > 0 || j.troubled(b.of.name, began)
	j.do(b.move.name, func(w *wrongs) {
		w.Changed++
		if !noticed {
			w.Unnoticed++
		}
	})
	if !noticed {
		j.note("%s against %s: nothing was noticed of %d changes", b.move.name, b.of.name, b.changed.Load())
	}
}

// revoke lets an instance revoke the tenant's signing key. It gives up if that takes too long:
// the move may keep the instance from it.
func (b *blow) revoke(ctx context.Context, opts ...rotation.Option) {
	b.revokeBy(ctx, b.f.random(1)[0], opts...)
}

// revokeBy is revoke by that instance.
func (b *blow) revokeBy(ctx context.Context, by *instance, opts ...rotation.Option) {
	within, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	t, receipt, err := b.f.revokeSigning(within, b.of, by, opts...)
	if err != nil {
		return
	}
	r := &revocation{tenant: b.of, kid: t.kid, receipt: receipt, at: time.Now(), tokens: []token{t, t}}
	r.tokens[1].cached = 1
	b.f.judge.add(r)
	b.revoked = append(b.revoked, r)
}

// probe verifies the tokens of revoked keys at all instances, again and again, until ctx ends.
func (a *adversary) probe(ctx context.Context) {
	for sleep(ctx, 25*time.Millisecond) == nil {
		for _, r := range a.f.judge.revocations() {
			for _, m := range a.f.instances() {
				for _, t := range r.tokens {
					a.f.verify(m, t)
				}
			}
		}
	}
}

// askAcks asks which instances have applied the revocations, until ctx ends.
func (a *adversary) askAcks(ctx context.Context) {
	for sleep(ctx, 40*time.Millisecond) == nil {
		for _, r := range a.f.judge.revocations() {
			if time.Since(r.at) < 2*a.f.pace.repair() {
				a.askAck(ctx, r)
			}
		}
	}
}

func (a *adversary) askAck(ctx context.Context, r *revocation) {
	acks, err := a.f.random(1)[0].rotator.Acks(ctx, r.receipt)
	if err != nil {
		return // the adversary may have broken the connection
	}
	for _, ack := range acks {
		for _, m := range a.f.instances() {
			if m.name == ack.Instance && ack.Applied {
				a.f.judge.see(applied, m, r.kid)
			}
		}
	}
}

// onNudge calls f after each change of the tenant's bucket, as soon as the server tells, until ctx
// ends. The server tells before the instances can have read the change.
func (a *adversary) onNudge(ctx context.Context, of tenant, f func()) (stop func(), err error) {
	c, err := net.Dial("tcp", a.addr)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "CLIENT SETNAME %s\r\nMONITOR\r\n", adversaryName); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer context.AfterFunc(ctx, func() { c.Close() })()
		message := fmt.Sprintf(`"%d"`, rotation.BucketOf(of.name))
		for lines := bufio.NewScanner(c); ctx.Err() == nil && lines.Scan(); {
			line := lines.Text()
			if strings.Contains(line, `"PUBLISH"`) && strings.HasSuffix(line, message) {
				f()
			}
		}
	}()
	return func() { cancel(); <-done }, nil
}
