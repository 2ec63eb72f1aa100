package rediskeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
)

// This file has how many rings are read at once: with HGETALL, which costs Redis a third of what it costs to return
// them from a script, and three quarters with the steps before it. A keyring that starts reads a hundred thousand, and waits for Redis.
//
// The script also says whether the server is a primary, and what time it is, and it returns no ring that is too
// large. So rings are watched (WATCH) before another script says that, and MEMORY USAGE how large they are. They are
// read in a transaction after it, which Redis runs only if none of them has changed since. So it is as if the script
// had returned them. That holds for servers of which it is known how they weigh and watch: see weighsWell.

const (
	// plainFrom is from how many rings of a bucket on they are read so: it takes three round trips in place of one.
	plainFrom = 32

	// plainAtOnce is how many rings one transaction reads at most. Each is small.
	plainAtOnce = 128

	// Redis adds up the memory of addedUp fields of a ring, and takes their average for the others. A field takes at
	// least 8 bytes. So a ring that seems to take at most smallRing bytes has fewer fields, and all of them were added
	// up.
	addedUp, smallRing = 2048, 16384
)

// loadPlain reads the rings of tenants, all of one bucket, whose indexes are in part. It returns the indexes of
// those that are left for the script that loads: those that are large, or that cannot be read, and all if one
// has changed meanwhile, or the user may not do this.
func (s *Store) loadPlain(ctx context.Context, tenants []string, part []int, snapshots []rotation.Snapshot) (left []int) {
	if len(part) < plainFrom || s.noPlain.Load() {
		return part
	}
	for some := range slices.Chunk(part, plainAtOnce) {
		loaded, err := s.readPlain(ctx, s.buckets[rotation.BucketOf(tenants[some[0]])], tenants, some)
		if err != nil {
			s.noPlain.Store(s.noPlain.Load() || forbidsPlain(err))
			left = append(left, some...)
			continue
		}
		for n, i := range some {
			if loaded[n].Fields == nil {
				left = append(left, i)
				continue
			}
			snapshots[i] = loaded[n]
		}
	}
	return left
}

// forbidsPlain reports whether the server does not know, or its user may not use, what readPlain needs. Each
// attempt would leave an entry in Redis' ACL LOG, with a denial of MEMORY USAGE for each ring. The words stand
// anywhere in the error: EXEC and scripts say what their user may not do as their reason, and Redis 6 has no code
// for it in scripts.
func forbidsPlain(err error) bool {
	return errors.Is(err, errOtherServer) || errors.As(err, new(redis.Error)) && slices.ContainsFunc(
		[]string{"NOPERM", "can't run this command", "nknown command", "nknown Redis command", "nknown subcommand", "syntax error"},
		func(words string) bool { return strings.Contains(err.Error(), words) })
}

var errOtherServer = errors.New("it is not known that this server weighs rings, and watches them, as readPlain needs it")

// weighsWell reports whether a server of this version does. Before 6.2, SWAPDB changes a watched ring without a word
// (redis/redis issue 8236). From 8.10 on, a hash may have its names from a template, which MEMORY USAGE does not count
// (HIMPORT).
func weighsWell(version string) bool {
	var major, minor int
	_, err := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return err == nil && (major == 6 && minor >= 2 || major == 7 || major == 8 && minor < 10)
}

// readPlain reads some rings of one bucket. Those that are left for the script have no fields, not even an empty map.
func (s *Store) readPlain(ctx context.Context, k bucketKeys, tenants []string, some []int) (loaded []rotation.Snapshot, err error) {
	rings := make([]string, len(some))
	for n, i := range some {
		rings[n] = k.ring(tenants[i])
	}
	err = s.client.Watch(ctx, func(tx *redis.Tx) error {
		now, small, err := s.weigh(ctx, tx, k, rings)
		if err != nil {
			return err
		}
		cmds := make([]*redis.MapStringStringCmd, len(rings))
		_, err = tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, key := range rings {
				if small[i] {
					cmds[i] = pipe.HGetAll(ctx, key)
				}
			}
			return nil
		})
		if forbidsPlain(err) {
			return err
		}
		loaded = make([]rotation.Snapshot, len(rings))
		for i, cmd := range cmds {
			if cmd != nil && cmd.Err() == nil && cmd.Val() != nil { // each has an error of its own
				loaded[i] = rotation.Snapshot{Fields: plainFields(cmd.Val()), Now: now}
			}
		}
		return nil
	}, rings...)
	return loaded, err
}

// weigh asks a primary for the time, and which of the rings take little memory.
func (s *Store) weigh(ctx context.Context, tx *redis.Tx, k bucketKeys, rings []string) (now time.Time, small []bool, err error) {
	c := call{keys: []string{k.log, k.ack}}
	clock, memory := c.command(ctx, "evalsha", s.scripts.clock.sha), make([]*redis.IntCmd, len(rings))
	_, err = tx.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		_ = pipe.Process(ctx, clock) // queues it
		for i, key := range rings {
			memory[i] = pipe.MemoryUsage(ctx, key, addedUp)
		}
		return nil
	})
	small = make([]bool, len(rings))
	for i, cmd := range memory {
		size, err := cmd.Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return now, nil, err
		}
		small[i] = err != nil || size > 0 && size <= smallRing
	}
	now, err = s.timeOf(ctx, tx, c, replyTo(clock, err))
	return now, small, err
}

// timeOf returns the time that the script replied, if it knows the server. It asks again if Redis did not know the
// script.
func (s *Store) timeOf(ctx context.Context, tx *redis.Tx, c call, r reply) (now time.Time, err error) {
	if redis.HasErrorPrefix(r.err, "NOSCRIPT") {
		cmd := c.command(ctx, "eval", s.scripts.clock.text)
		r = replyTo(cmd, tx.Process(ctx, cmd))
	}
	in := replyReader{items: r.value}
	now, version := in.time(), in.text()
	switch {
	case r.err != nil:
		return now, r.err
	case in.bad:
		return now, errUnexpected
	case !weighsWell(version):
		return now, errOtherServer
	}
	return now, nil
}

// plainFields returns fields as a snapshot has them. All values lie in one piece of memory.
func plainFields(texts map[string]string) map[string][]byte {
	size := 0
	for _, value := range texts {
		size += len(value)
	}
	fields, values := make(map[string][]byte, len(texts)), make([]byte, 0, size)
	for name, value := range texts {
		at := len(values)
		values = append(values, value...)
		fields[name] = values[at:len(values):len(values)]
	}
	return fields
}
