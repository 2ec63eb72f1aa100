package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// A hostileResult is what a fleet did while an adversary could write to its Redis.
type hostileResult struct {
	Took  time.Duration
	Count count             // of the fleet as a whole
	Rows  map[string]wrongs // by move
	Notes []string
}

// hostilePace is that of the fleet under attack: its tokens live longer, so that a token of a
// revoked key would be accepted for longer.
func hostilePace(life time.Duration) pace {
	p := fast
	p.MaxTokenTTL = life
	return p
}

// underAttack lets an adversary make all of some moves again and again, for a while.
func underAttack(ctx context.Context, o options, all []*move, long time.Duration) (r hostileResult, err error) {
	began := time.Now()
	ear := newEar(o.log.Handler())
	o.log = slog.New(ear)
	server, err := startSingle(o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	f, err := newFleet(ctx, server, o, "adversary")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	f.judge = newJudge()
	var alone sync.RWMutex
	sides := []*adversary{newAdversary(f, server.(single), ear.heard, &alone, tenants[0], tenants[1], tenants[4]),
		newAdversary(f, server.(single), ear.heard, &alone, tenants[2], tenants[3])}
	counts := f.counts()
	quiet := f.begin(ctx, false, 0)
	watching, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		jobs := []func(context.Context){sides[0].probe, sides[0].askAcks}
		done <- atOnce(len(jobs), func(i int) error { jobs[i](watching); return nil })
	}()
	err = atOnce(len(sides), func(i int) error {
		defer sides[i].client.Close()
		return sides[i].strikes(ctx, all, long)
	})
	quiet()
	stop()
	<-done
	r.Count, r.Notes = f.tally.result()
	now := f.counts()
	r.Count.Repairs, r.Count.Resyncs = now.Repairs-counts.Repairs, now.Resyncs-counts.Resyncs
	var said []string
	r.Rows, said = f.judge.result()
	r.Notes = append(said, r.Notes...)
	r.Took = time.Since(began)
	return r, err
}

// strikes makes all moves once, in random order, and then again, until the time is over.
func (a *adversary) strikes(ctx context.Context, all []*move, long time.Duration) error {
	all = slices.Clone(all)
	for end := time.Now().Add(long); ; {
		a.f.mu.Lock()
		a.f.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		a.f.mu.Unlock()
		for _, m := range all {
			if time.Now().After(end) {
				return nil
			}
			if err := a.strike(ctx, m); err != nil {
				return err
			}
			a.f.tally.do(func(c *count) { c.Strikes++ })
		}
	}
}

// sum returns the sum of all moves.
func (r *hostileResult) sum() (s wrongs) {
	for _, w := range r.Rows {
		s.Blows += w.Blows
		s.Changed += w.Changed
		s.Revoked += w.Revoked
		s.Late += w.Late
		s.Lied += w.Lied
		s.Forgotten += w.Forgotten
		s.Refused += w.Refused
		s.NeverHeld += w.NeverHeld
		s.Unnoticed += w.Unnoticed
		s.Unrepaired += w.Unrepaired
		s.Longest = max(s.Longest, w.Longest)
	}
	return s
}

// broken returns an error if a promise was broken.
func (r *hostileResult) broken() error {
	if s := r.sum(); s.bad() > 0 {
		return fmt.Errorf("adversary: %+v", s)
	}
	return nil
}

const hostileText = `## An adversary that writes Redis

For %s an adversary has full access to the Redis of six instances, by raw commands, and no KEK. It
sees every command (MONITOR), and acts before the instances can read a change. Meanwhile the
instances sign and verify (%d tokens, %d verifications), rotate by schedule and by hand, and revoke
signing keys. A token lives for %v here. With each move one tenant's signing key is revoked, before
the move or during it. Tokens of revoked keys are verified at every instance all the time, until they
expire.

*Changed*: moves that changed what an instance read. *Late*: tokens of a revoked key, accepted by an
instance that says that it is in sync, right before and right after, and whose last good sync was
sent after the revocation was committed. If the move can remove every trace of a revocation, or stop
its repair, that counts from F and two polls after the end of the move. *False receipts*: tokens of a
revoked key, accepted by an instance after Rotator.Acks said that it had applied the revocation.
*Forgotten*: tokens of a revoked key, accepted by an instance, in sync or not, after it had shown the
key as revoked. *False rejects*: good tokens rejected (401) by an instance, in sync or not, that had
once opened their key. *Unnoticed*: moves that changed what an instance read, of which no log line, no
count and no status told. *Helped*: moves after which the fleet did not recover by itself. *Not held*:
good tokens that were rejected by an instance in sync that had never had their key: the adversary
removed it before. That is no promise. *Accepted for*: the longest time after a revocation at which an
instance that says that it is in sync accepted a token of the key. An instance whose connections are
killed is in sync for F after its last poll.

| the adversary | moves | changed | revocations | late | false receipts | forgotten | false rejects | unnoticed | helped | not held | accepted for |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
`

func (r *hostileResult) write(w io.Writer) {
	c := &r.Count
	fmt.Fprintf(w, hostileText, r.Took.Round(time.Second), c.Signed, c.Verified, hostileLife)
	for _, m := range moves {
		if row, ok := r.Rows[m.name]; ok {
			row.write(w, m.title)
		}
	}
	all := r.sum()
	all.write(w, "all")
	fmt.Fprintf(w, "\nThe longest time from the end of a move until all instances were in sync, and the revocations were back\nin the store, was %s. F and two polls are %s.\n\n",
		round(c.Healed), round(fast.repair()))
}

func (w *wrongs) write(to io.Writer, title string) {
	fmt.Fprintf(to, "| %s | %d | %d | %d | %s | %s | %s | %s | %s | %s | %d | %s |\n", title, w.Blows, w.Changed, w.Revoked, zero(w.Late), zero(w.Lied),
		zero(w.Forgotten), zero(w.Refused), zero(w.Unnoticed), zero(w.Unrepaired), w.NeverHeld, round(w.Longest))
}

// hostileLife is the life of a token in a whole run.
const hostileLife = 12 * time.Second
