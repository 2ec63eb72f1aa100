package main

import (
	"context"
	"os"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// strikeRestart restarts half of the instances from their snapshots, while no instance reaches Redis.
func strikeRestart(ctx context.Context, f *fleet, o options) error {
	how := []fault{(*redistest.Proxy).Cut, (*redistest.Proxy).Blackhole}[f.intN(2)]
	isolate(f.instances(), how)
	defer func() { f.heal() }()
	if err := sleep(ctx, o.pick(f, 0, 2*time.Second)); err != nil {
		return err
	}
	for i, m := range f.random(len(offsets) / 2) {
		if err := f.restart(ctx, m, how, i%2 == 0); err != nil {
			return err
		}
	}
	return sleep(ctx, o.pick(f, 2*time.Second, 8*time.Second))
}

// heal ends the faults of all instances.
func (f *fleet) heal() {
	for _, m := range f.instances() {
		m.away.Store(false)
	}
	isolate(f.instances(), (*redistest.Proxy).Heal)
}

// restart ends an instance, and starts it again from its snapshot. One that is killed does not write its
// snapshot at its end, so the file of before remains.
func (f *fleet) restart(ctx context.Context, m *instance, how fault, kill bool) error {
	before, err := os.ReadFile(m.snapshot)
	kill = kill && err == nil // it has written one
	if err := f.leave(m); err != nil {
		return err
	}
	if kill {
		if err := os.WriteFile(m.snapshot, before, 0o600); err != nil {
			return err
		}
	}
	next, err := f.startBehind(ctx, m.name, m.offset, how)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.members = append(f.members[:len(f.members):len(f.members)], next)
	f.mu.Unlock()
	f.tally.do(func(c *count) {
		c.Ops.Restarts++
		if kill {
			c.Ops.Killed++
		}
	})
	return nil
}

// checkAwaySigned checks that an instance did not sign that was away before, if it still is.
func (f *fleet) checkAwaySigned(m *instance, away bool, err error) {
	if away && err == nil && m.away.Load() {
		f.tally.wrong(func(o *ops) { o.SignedOfSnapshots++ }, "%s signs before its first sync", m.name)
	}
}
