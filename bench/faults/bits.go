package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

// quick is a pace whose polls are close together, so that holders find a flipped bit soon. No key ends by itself
// meanwhile: holders do not put right the bits of one that has ended.
var quick = pace{
	Policy: rotation.Policy{
		Algorithm: keystore.HS256, Every: time.Hour, Propagation: 2 * time.Second, MaxTokenTTL: 2 * time.Second, Leeway: time.Second,
		ClockSkew: 100 * time.Millisecond, Freshness: time.Second, Dwell: 200 * time.Millisecond, SignFor: 1200 * time.Millisecond,
	},
	poll: 60 * time.Millisecond, deadline: 250 * time.Millisecond,
}

// A bitsResult says which flipped bits two holders have not put right.
type bitsResult struct {
	Rings, Bytes, Flipped int
	Unrepaired            map[string]int // by the kind of the field, such as "x:"
	Longest               time.Duration  // until all bits that were flipped together were right again
}

func (r *bitsResult) left() (n int) {
	for _, one := range r.Unrepaired {
		n += one
	}
	return n
}

func (r *bitsResult) broken() error {
	if r.left() > 0 {
		return fmt.Errorf("bits: of %d flipped bits holders did not put right %v", r.Flipped, r.Unrepaired)
	}
	return nil
}

// A bitsBench has rings with all kinds of fields, and two holders of them.
type bitsBench struct {
	server  *redistest.Server
	tenants []string
	holders []*racer
	ends    []func()
	patient time.Duration       // how long a bit may stay flipped
	want    []map[string]string // the fields of each tenant's ring
}

// newBitsBench makes rings.
func newBitsBench(ctx context.Context, rings int, patient time.Duration) (*bitsBench, error) {
	b := &bitsBench{patient: patient, want: make([]map[string]string, rings)}
	for i := range rings {
		b.tenants = append(b.tenants, fmt.Sprint("tenant-", i))
	}
	var err error
	if b.server, err = redistest.Start(redistest.Options{}); err != nil {
		return nil, err
	}
	for i := 0; i < 2 && err == nil; i++ {
		var r *racer
		var end func()
		if r, end, err = b.holder(ctx, fmt.Sprint("holder-", i), i == 0); err == nil {
			b.holders, b.ends = append(b.holders, r), append(b.ends, end)
		}
	}
	if err == nil {
		err = b.fill(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, b.stop())
	}
	return b, nil
}

func (b *bitsBench) stop() error {
	for _, end := range b.ends {
		end()
	}
	return b.server.Stop()
}

func (b *bitsBench) holder(ctx context.Context, name string, trust bool) (*racer, func(), error) {
	client, err := rediskeys.Open("redis://" + b.server.Addr())
	if err != nil {
		return nil, nil, err
	}
	return startMember(ctx, client, rotation.Config{KEKs: newKEKs(), Tenants: b.tenants, Instance: name,
		Poll: quick.poll, Deadline: quick.deadline, TrustFirstRead: trust})
}

// fill gives every ring all kinds of fields that an instance writes by itself or by a command.
func (b *bitsBench) fill(ctx context.Context) error {
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.holders[0].Run(running) // mints and collects; returns nil
	}()
	err := atOnce(len(b.tenants), func(i int) error { return b.fillRing(ctx, b.tenants[i]) })
	stop()
	<-done
	if err != nil {
		return err
	}
	return await(ctx, "the holders to agree", func() bool { return b.read(ctx) == nil && b.fresh() })
}

// fillRing forces the second key, revokes the third, loses the fourth, and waits until the first is
// collected.
func (b *bitsBench) fillRing(ctx context.Context, tenant string) error {
	r, key := b.holders[0], ringKey(tenant)
	if err := quick.makeRing(ctx, r.Rotator, tenantOf(tenant)); err != nil {
		return err
	}
	steps := []func() bool{
		func() bool { _, err := r.Rotate(ctx, tenant, rotation.Force); return err == nil },
		func() bool {
			s, err := r.keys.Tenant(tenant)
			if err != nil || len(s.Ring.Keys) < 3 {
				return false
			}
			_, err = r.Revoke(ctx, tenant, newestOf(s.Ring).KID)
			return err == nil
		},
		func() bool { _, err := r.SetPolicy(ctx, tenant, quick.Policy); return err == nil },
		func() bool {
			s, err := r.keys.Tenant(tenant)
			if err != nil || !s.Fresh || newestOf(s.Ring).State != ring.Pending {
				return false
			}
			b.server.Client().HDel(ctx, key, "k:"+newestOf(s.Ring).KID)
			return true
		},
		func() bool {
			names := b.server.Client().HKeys(ctx, key).Val()
			return !slices.ContainsFunc([]string{"x:", "a:", "f:", "r:", "w:", "k:", "tk:", "gone", "head"}, func(prefix string) bool {
				return !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, prefix) })
			})
		},
	}
	for i, step := range steps {
		if err := await(ctx, fmt.Sprintf("step %d of the ring of %s", i, tenant), step); err != nil {
			return err
		}
	}
	return nil
}

func tenantOf(name string) tenant { return tenant{name, keystore.HS256} }

func (b *bitsBench) fresh() bool {
	return b.holders[0].keys.Status().Fresh && b.holders[1].keys.Status().Fresh
}

// read reads the rings as they should be.
func (b *bitsBench) read(ctx context.Context) (err error) {
	b.want, err = b.fields(ctx)
	return err
}

// fields reads all rings, in the order of tenants.
func (b *bitsBench) fields(ctx context.Context) ([]map[string]string, error) {
	pipe := b.server.Client().Pipeline()
	cmds := make([]*redis.MapStringStringCmd, len(b.tenants))
	for i, tenant := range b.tenants {
		cmds[i] = pipe.HGetAll(ctx, ringKey(tenant))
	}
	_, err := pipe.Exec(ctx)
	rings := make([]map[string]string, len(cmds))
	for i, cmd := range cmds {
		rings[i] = cmd.Val()
	}
	return rings, err
}

// A bit is one bit of a field of a ring.
type bit struct {
	field string
	at    int
	mask  byte
}

// kind returns the kind of the bit's field, such as "x:".
func (b bit) kind() string {
	if i := strings.IndexByte(b.field, ':'); i >= 0 {
		return b.field[:i+1]
	}
	return b.field
}

// bitsOf returns bits of a ring: all, or one of each byte. Those of rings that were made alike are
// in the same order.
func (b *bitsBench) bitsOf(i int, all bool, rng *rand.Rand) (bits []bit) {
	seq := make(map[string]int)
	if s, err := b.holders[0].keys.Tenant(b.tenants[i]); err == nil {
		for _, k := range s.Ring.Keys {
			seq[k.KID] = k.Seq
		}
	}
	names := slices.DeleteFunc(slices.Collect(maps.Keys(b.want[i])), func(name string) bool { return strings.HasPrefix(name, "p:") }) // not authenticated
	order := func(name string) string {
		kind := bit{field: name}.kind()
		return fmt.Sprintf("%s %03d", kind, seq[strings.TrimPrefix(name, kind)])
	}
	slices.SortFunc(names, func(x, y string) int { return strings.Compare(order(x), order(y)) })
	for _, name := range names {
		for at := range len(b.want[i][name]) {
			one := rng.IntN(8)
			for n := range 8 {
				if all || n == one {
					bits = append(bits, bit{name, at, 1 << n})
				}
			}
		}
	}
	return bits
}

// measure flips bits: all of a ring, or one of each byte. It flips one bit of each of the rings at
// once, so that they are many together.
func (b *bitsBench) measure(ctx context.Context, all bool, rng *rand.Rand) (r bitsResult, err error) {
	r = bitsResult{Rings: len(b.tenants), Unrepaired: make(map[string]int)}
	lists := make([][]bit, len(b.tenants))
	most := 0
	for i := range lists {
		lists[i] = b.bitsOf(i, all, rng)
		most = max(most, len(lists[i]))
	}
	for _, value := range b.want[0] {
		r.Bytes += len(value)
	}
	for from := 0; from < most; from += len(lists) {
		flipped := make([]*bit, len(lists))
		for i := range lists {
			if n := from + i; n < len(lists[i]) {
				flipped[i] = &lists[i][n]
				r.Flipped++
			}
		}
		if err := b.round(ctx, flipped, &r); err != nil {
			return r, err
		}
	}
	return r, nil
}

// round flips one bit in each ring, and waits until the holders have put all of them right.
func (b *bitsBench) round(ctx context.Context, flipped []*bit, r *bitsResult) error {
	wrong := make([]string, len(flipped))
	pipe := b.server.Client().Pipeline()
	for i, one := range flipped {
		if one != nil {
			value := []byte(b.want[i][one.field])
			value[one.at] ^= one.mask
			wrong[i] = string(value)
			pipe.HSet(ctx, ringKey(b.tenants[i]), one.field, value)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	began := time.Now()
	for {
		now, err := b.fields(ctx)
		if err != nil {
			return err
		}
		var left []int
		for i, one := range flipped {
			if one != nil && !b.right(i, now[i], one.field, wrong[i]) {
				left = append(left, i)
			}
		}
		if len(left) == 0 && b.fresh() {
			r.Longest = max(r.Longest, time.Since(began))
			b.want = now // a head that was written again has another count
			return nil
		}
		if time.Since(began) > b.patient {
			return b.giveUp(ctx, flipped, left, r)
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// right reports whether a ring is as it should be. A repair may write the head, and say that a
// record is published again.
func (b *bitsBench) right(i int, now map[string]string, field, wrong string) bool {
	for name, value := range b.want[i] {
		switch (bit{field: name}).kind() {
		case "head", "r:", "w:", "p:":
		default:
			if now[name] != value {
				return false
			}
		}
	}
	return now[field] != wrong
}

// giveUp puts right what the holders have not.
func (b *bitsBench) giveUp(ctx context.Context, flipped []*bit, left []int, r *bitsResult) error {
	for _, i := range left {
		r.Unrepaired[flipped[i].kind()]++
		for name, value := range b.want[i] {
			if err := b.server.Client().HSet(ctx, ringKey(b.tenants[i]), name, value).Err(); err != nil {
				return err
			}
		}
	}
	if err := await(ctx, "the holders to be in sync", b.fresh); err != nil {
		return err
	}
	return b.read(ctx)
}

// flipBits lets two holders put right flipped bits: all of a ring, or one of each byte.
func flipBits(ctx context.Context, rings int, all bool, patient time.Duration) (r bitsResult, err error) {
	b, err := newBitsBench(ctx, rings, patient)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	return b.measure(ctx, all, rand.New(rand.NewPCG(1, 2)))
}

func (r *bitsResult) write(w io.Writer) {
	fmt.Fprintf(w, "## Flipped bits\n\nTwo instances hold %d rings with all kinds of fields, each of %d bytes. Every bit of a ring is flipped,\n"+
		"one in each ring at once: %d in all. (`p:`, when a key was published, has no seal and is left out.) The\n"+
		"holders did not put **%d** right. The longest time until all that were flipped together were right was\n%s; F and two polls are %s.\n\n",
		r.Rings, r.Bytes, r.Flipped, r.left(), round(r.Longest), round(quick.repair()))
}
