package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
)

// An awayBench verifies tokens of known keys while Redis answers, and while it hangs.
type awayBench struct {
	server    *redistest.Server
	link      *link
	client    redis.UniversalClient
	keys      *rotation.Keyring
	verifiers [2]*verifier.Verifier // without a cache, and with one
	tokens    []string
}

const awayTenant = "acme"

// newAwayBench opens a keyring that polls so often that, while Redis hangs, one of its calls hangs
// most of the time.
func newAwayBench(ctx context.Context) (*awayBench, error) {
	b := new(awayBench)
	var err error
	if b.server, err = redistest.Start(redistest.Options{}); err != nil {
		return nil, err
	}
	b.link = newLink(func(string) string { return b.server.Addr() })
	b.client = b.link.client(address{addrs: []string{primary}})
	if err := b.fill(ctx); err != nil {
		return nil, errors.Join(err, b.stop())
	}
	return b, nil
}

func (b *awayBench) fill(ctx context.Context) error {
	store, err := rediskeys.New(b.client, rediskeys.Config{})
	if err != nil {
		return err
	}
	b.keys, err = rotation.Open(ctx, store, rotation.Config{KEKs: newKEKs(), Tenants: []string{awayTenant}, TrustFirstRead: true,
		Poll: 50 * time.Millisecond, Deadline: 400 * time.Millisecond})
	if err != nil {
		return err
	}
	r, err1 := rotation.NewRotator(b.keys)
	s, err2 := rotation.NewSigner(b.keys, rotation.SignerConfig{Issuer: issuer})
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if _, err := r.Create(ctx, awayTenant, rotation.Policy{}); err != nil {
		return err
	}
	for range 256 {
		token, err := s.Sign(ctx, awayTenant, nil)
		if err != nil {
			return err
		}
		b.tokens = append(b.tokens, token)
	}
	for i, ttl := range []time.Duration{-1, 0} {
		b.verifiers[i], err = verifier.New(verifier.Config{CacheTTL: ttl, Tenants: []verifier.Tenant{{ID: awayTenant, Keys: b.keys,
			Algorithms: []keystore.Algorithm{keystore.HS256}, Issuer: issuer(awayTenant), AnyAudience: true}}})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *awayBench) stop() error {
	if b.keys != nil {
		_ = b.keys.Close(context.Background()) // the error does not matter: Redis may be unreachable
	}
	return errors.Join(b.client.Close(), b.link.stop(), b.server.Stop())
}

// measureTurn verifies tokens for d, and appends how long each took. If away is set, Redis hangs
// meanwhile.
func (b *awayBench) measureTurn(ctx context.Context, v *verifier.Verifier, d time.Duration, away bool, took []time.Duration) ([]time.Duration, error) {
	how := fault((*redistest.Proxy).Heal)
	if away {
		how = (*redistest.Proxy).Blackhole
	}
	b.link.set(how)
	if err := sleep(ctx, 60*time.Millisecond); err != nil { // waits until a poll has begun
		return took, err
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		for _, token := range b.tokens {
			began := time.Now()
			if _, err := v.Verify(ctx, token); err != nil {
				return took, err
			}
			took = append(took, time.Since(began))
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return took, err
		}
	}
	return took, nil
}

// An awayResult compares the times to verify with Redis up and with Redis hanging.
type awayResult struct {
	Cached   bool
	Up, Away quantiles
	Failures uint64 // polls that failed
}

type quantiles struct {
	n        int
	p50, p99 time.Duration
}

func quantilesOf(all []time.Duration) quantiles {
	if len(all) == 0 {
		return quantiles{}
	}
	slices.Sort(all)
	return quantiles{n: len(all), p50: all[len(all)/2], p99: all[len(all)*99/100]}
}

// measure verifies with Redis up and with Redis hanging, in turns, as long as again returns true.
func (b *awayBench) measure(ctx context.Context, cached bool, again func() bool) (awayResult, error) {
	r := awayResult{Cached: cached}
	v := b.verifiers[0]
	if cached {
		v = b.verifiers[1]
	}
	var took [2][]time.Duration
	var err error
	before := b.keys.Status().Counts.Failures
	for again() {
		for i := range took {
			if took[i], err = b.measureTurn(ctx, v, 500*time.Millisecond, i == 1, took[i]); err != nil {
				return r, err
			}
		}
	}
	b.link.set((*redistest.Proxy).Heal)
	r.Up, r.Away = quantilesOf(took[0]), quantilesOf(took[1])
	r.Failures = b.keys.Status().Counts.Failures - before
	return r, nil
}

// p99Ratio returns the 99th percentile while Redis hangs, divided by that with Redis up.
func (r awayResult) p99Ratio() float64 { return float64(r.Away.p99) / float64(max(1, r.Up.p99)) }

// measureAway measures verifiers without a cache and with one.
func measureAway(ctx context.Context, turns int) (results []awayResult, err error) {
	b, err := newAwayBench(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	for _, cached := range []bool{false, true} {
		left := turns
		r, err := b.measure(ctx, cached, func() bool { left--; return left >= 0 })
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}
