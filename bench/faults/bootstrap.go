package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A bootstrapResult says how many rings were made again while holders put them back.
type bootstrapResult struct {
	Rings, Restored int
	Again           int           // rings that were made although a holder had them
	Took            time.Duration // until all rings were back
}

func (r *bootstrapResult) broken() error {
	if r.Again > 0 || r.Restored < r.Rings {
		return fmt.Errorf("bootstrap: %+v", *r)
	}
	return nil
}

// A bootstrapBench is a server, with the names of tenants whose rings it has.
type bootstrapBench struct {
	server *redistest.Server
	names  []string
	pace   pace
	ends   []func()
}

// bootstrap empties a server whose rings two instances hold, while a third starts that may make
// rings (AllowBootstrap). What the holders send is delayed by slow.
func bootstrap(ctx context.Context, rings int, p pace, slow time.Duration) (r bootstrapResult, err error) {
	b := &bootstrapBench{pace: p}
	for i := range rings {
		b.names = append(b.names, fmt.Sprint("tenant-", i))
	}
	if b.server, err = redistest.Start(redistest.Options{}); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	holding, err := b.holders(ctx)
	if err != nil {
		return r, err
	}
	holding.set(delay(slow))
	if err := b.server.Do(ctx, "FLUSHALL"); err != nil {
		return r, err
	}
	return b.run(ctx)
}

func (b *bootstrapBench) stop() error {
	for _, end := range slices.Backward(b.ends) {
		end()
	}
	return b.server.Stop()
}

// start starts an instance with all tenants.
func (b *bootstrapBench) start(ctx context.Context, l *link, name string, change func(*rotation.Config)) (*racer, error) {
	cfg := rotation.Config{KEKs: newKEKs(), Tenants: b.names, Instance: name, Poll: b.pace.poll, Deadline: b.pace.deadline}
	change(&cfg)
	m, end, err := startMember(ctx, l.client(address{addrs: []string{primary}}), cfg)
	if err == nil {
		b.ends = append(b.ends, end)
	}
	return m, err
}

func (b *bootstrapBench) link() *link {
	l := newLink(func(string) string { return b.server.Addr() })
	b.ends = append(b.ends, func() { _ = l.stop() }) // the server ends anyway
	return l
}

// holders makes the rings and starts two instances. It returns their network.
func (b *bootstrapBench) holders(ctx context.Context) (*link, error) {
	l := b.link()
	for part := range slices.Chunk(b.names, 256) {
		if err := b.makeRings(ctx, l, part); err != nil {
			return nil, err
		}
	}
	for i := range 2 {
		m, err := b.start(ctx, l, fmt.Sprint("holder-", i), func(c *rotation.Config) { c.TrustFirstRead = true })
		if err != nil {
			return nil, err
		}
		if err := m.awaitFresh(ctx); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// makeRings makes some of the rings with an instance that holds no others, which is quicker.
func (b *bootstrapBench) makeRings(ctx context.Context, l *link, names []string) error {
	m, end, err := startMember(ctx, l.client(address{addrs: []string{primary}}), rotation.Config{KEKs: newKEKs(), Tenants: names,
		Poll: b.pace.poll, Deadline: b.pace.deadline, OneShot: true})
	if err != nil {
		return err
	}
	defer end()
	const atATime = 8
	return atOnce(atATime, func(part int) error {
		for i := part; i < len(names); i += atATime {
			if err := b.pace.makeRing(ctx, m.Rotator, tenantOf(names[i])); err != nil {
				return err
			}
		}
		return nil
	})
}

// run starts the newcomer, and waits until it is in sync.
func (b *bootstrapBench) run(ctx context.Context) (r bootstrapResult, err error) {
	began := time.Now()
	m, err := b.start(ctx, b.link(), "newcomer", func(c *rotation.Config) { c.AllowBootstrap, c.Policy = true, b.pace.Policy })
	if err != nil {
		return r, err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Run(running) // makes rings; returns nil
	}()
	err = m.awaitFresh(ctx)
	stop()
	<-done
	r = bootstrapResult{Rings: len(b.names), Took: time.Since(began)}
	return r, errors.Join(err, r.read(ctx, b.server))
}

// awaitFresh waits until all of many rings are in sync. To ask for that takes a while too.
func (r *racer) awaitFresh(ctx context.Context) error {
	return awaitEvery(ctx, 200*time.Millisecond, 3*patience, "an instance to be in sync", func() bool { return r.keys.Status().Fresh })
}

// read counts the rings that the store has, and those that were made since it was emptied.
func (r *bootstrapResult) read(ctx context.Context, server *redistest.Server) error {
	for i := range rotation.Buckets {
		entries, err := server.Client().XRange(ctx, fmt.Sprintf("kt:{%d}:log", i), "-", "+").Result()
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Values["op"] == string(ring.OpCreate) {
				r.Again++
			}
		}
		n, err := server.Client().SCard(ctx, fmt.Sprintf("kt:{%d}:tenants", i)).Result()
		if err != nil {
			return err
		}
		r.Restored += int(n)
	}
	return nil
}

func (r *bootstrapResult) write(w io.Writer) {
	fmt.Fprintf(w, "## A newcomer that may make rings\n\nTwo instances hold %d rings. Redis is emptied, and at once a third instance starts that may make\n"+
		"rings (AllowBootstrap). **%d** rings were made again. After %s all were back, and the third\ninstance was in sync.\n\n", r.Rings, r.Again, round(r.Took))
}
