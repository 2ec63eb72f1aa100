package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
)

// swap gives each of two tenants the other's ring, or some of its fields.
func swap(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	one, two := ringKey(b.of.name), ringKey(b.other.name)
	mine, err := b.client.HGetAll(ctx, one).Result()
	if err != nil {
		return err
	}
	its, err := b.client.HGetAll(ctx, two).Result()
	if err != nil {
		return err
	}
	whole := rand.IntN(2) == 0
	pipe := b.client.TxPipeline()
	if whole {
		pipe.Del(ctx, one, two)
	}
	for name, value := range mine {
		if whole || rand.IntN(3) == 0 {
			pipe.HSet(ctx, two, name, value)
		}
	}
	for name, value := range its {
		if whole || rand.IntN(3) == 0 {
			pipe.HSet(ctx, one, name, value)
		}
	}
	b.changed.Add(1)
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	b.later(func(ctx context.Context) { // no holder knows what the other tenant's fields are
		b.client.HDel(ctx, two, missing(mine, its)...)
		b.client.HDel(ctx, one, missing(its, mine)...)
	})
	return b.wait(ctx)
}

// missing returns the names of a that b does not have, and at least one name.
func missing(a, b map[string]string) []string {
	names := []string{"_"}
	for name := range a {
		if _, ok := b[name]; !ok {
			names = append(names, name)
		}
	}
	return names
}

// trim removes the log, or all of it but one entry.
func trim(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	key := logKey(b.of.name)
	for range 3 {
		switch rand.IntN(3) {
		case 0:
			b.client.Del(ctx, key)
		case 1:
			b.client.XTrimMaxLen(ctx, key, 0)
		default:
			b.client.XTrimMaxLen(ctx, key, 1)
		}
		if err := sleep(ctx, b.hold/3); err != nil {
			return err
		}
	}
	return nil
}

// rewriteLog writes the log again without its newest entries, with the same IDs, and removes their
// facts.
func rewriteLog(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	key := logKey(b.of.name)
	entries, err := b.client.XRange(ctx, key, "-", "+").Result()
	if err != nil {
		return err
	}
	pipe := b.client.TxPipeline()
	pipe.Del(ctx, key)
	for _, e := range entries[:max(0, len(entries)-2)] {
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: e.ID, Values: e.Values})
	}
	names, _ := b.client.HKeys(ctx, ringKey(b.of.name)).Result()
	for _, name := range names {
		if _, old := b.before[name]; !old && strings.ContainsAny(name[:1], "xaw") {
			pipe.HDel(ctx, ringKey(b.of.name), name)
			b.changed.Add(1)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	return b.wait(ctx)
}

// copyEntries appends copies of entries of both tenants' logs.
func copyEntries(ctx context.Context, b *blow) error {
	return b.appendEntries(ctx, func(map[string]any) {})
}

// forgeEntries appends entries of both tenants' logs with a change in one field.
func forgeEntries(ctx context.Context, b *blow) error {
	return b.appendEntries(ctx, func(entry map[string]any) {
		switch rand.IntN(4) {
		case 0:
			entry["kid"] = "forged"
		case 1:
			entry["tenant"] = b.of.name
			entry["nonce"] = "forged"
		case 2:
			entry["op"] = "revoke"
			entry["mac"] = randomBytes(200)
		default:
			if mac := []byte(fmt.Sprint(entry["mac"])); len(mac) > 0 {
				mac[rand.IntN(len(mac))] ^= 1
				entry["mac"] = mac
			}
		}
	})
}

// appendEntries appends entries of both tenants' logs to that of one, each changed by change.
func (b *blow) appendEntries(ctx context.Context, change func(entry map[string]any)) error {
	b.revoke(ctx)
	var entries []redis.XMessage
	for _, t := range []tenant{b.of, b.other} {
		some, err := b.client.XRevRangeN(ctx, logKey(t.name), "+", "-", 50).Result()
		if err != nil {
			return err
		}
		entries = append(entries, some...)
	}
	for range 20 {
		e := maps.Clone(entries[rand.IntN(len(entries))].Values)
		change(e)
		b.client.XAdd(ctx, &redis.XAddArgs{Stream: logKey(b.of.name), ID: "*", Values: e})
		b.client.Publish(ctx, "kt:changed", rotation.BucketOf(b.of.name))
		b.changed.Add(1)
		if err := sleep(ctx, b.hold/20); err != nil {
			return err
		}
	}
	return nil
}

// moveTime appends an entry of the far future, and removes a revocation of just before. Later it
// removes that entry and all that came after it.
func moveTime(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	key := logKey(b.of.name)
	ahead := []time.Duration{2 * time.Second, time.Minute, time.Hour, 24 * 365 * time.Hour}[rand.IntN(4)]
	far := fmt.Sprintf("%d-0", time.Now().Add(ahead).UnixMilli())
	b.later(func(ctx context.Context) {
		late, _ := b.client.XRange(ctx, key, far, "+").Result()
		for _, e := range late {
			b.client.XDel(ctx, key, e.ID)
		}
		last, err := b.lastID(ctx)
		if err != nil || last == "0-0" || b.client.Do(ctx, "XSETID", key, last).Err() != nil {
			b.client.Del(ctx, key)
		}
	})
	err := b.client.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: far, Values: []any{
		"op", "list", "tenant", b.of.name, "kid", "", "seq", "0", "actor", "x", "nonce", "x"}}).Err()
	if err != nil {
		return err
	}
	b.changed.Add(1)
	for _, r := range b.revoked {
		b.client.HDel(ctx, ringKey(b.of.name), "x:"+r.kid)
	}
	return b.wait(ctx)
}

// junk writes what no instance writes.
func junk(ctx context.Context, b *blow) error {
	ring := ringKey(b.of.name)
	for i := range 1000 {
		b.client.HSet(ctx, ackKey(b.of.name), fmt.Sprint("junk-", i), randomBytes(40))
		b.client.SAdd(ctx, bucketKey(b.of.name, "tenants"), fmt.Sprint("junk-", i))
	}
	fields := []string{"zz", "k:junk", "x:junk", "a:junk", "tk:0123456789abcdef", "gone", "k:", "d:", ":"}
	rand.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	fields = fields[:2]
	for _, name := range fields {
		b.changed.Add(1)
		if err := b.client.HSet(ctx, ring, name, randomBytes(60)).Err(); err != nil {
			return err
		}
	}
	b.later(func(ctx context.Context) { b.client.HDel(ctx, ring, fields...) })
	b.revoke(ctx, rotation.Force) // the rest of the ring cannot be known, so it asks for that
	return b.wait(ctx)
}

// wrongType replaces a key of the bucket by a text.
func wrongType(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	all := keysOfBucket(b.of.name)
	key := all[rand.IntN(len(all))]
	b.changed.Add(1)
	b.client.Del(ctx, key)
	if err := b.client.Set(ctx, key, "junk", 0).Err(); err != nil {
		return err
	}
	b.later(func(ctx context.Context) { b.client.Del(ctx, key) })
	return b.wait(ctx)
}

// flip flips one bit in each of three fields.
func flip(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	ring := ringKey(b.of.name)
	fields, err := b.client.HGetAll(ctx, ring).Result()
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(fields))
	names = slices.DeleteFunc(names, func(name string) bool { return fields[name] == "" || strings.HasPrefix(name, "p:") })
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:min(3, len(names))] {
		value := []byte(fields[name])
		value[rand.IntN(len(value))] ^= 1 << rand.IntN(8)
		if err := b.client.HSet(ctx, ring, name, value).Err(); err != nil {
			return err
		}
		b.changed.Add(1)
	}
	return b.wait(ctx)
}

// deleteFields deletes some fields of the ring.
func deleteFields(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	names, err := b.client.HKeys(ctx, ringKey(b.of.name)).Result()
	if err != nil {
		return err
	}
	for _, name := range names {
		if rand.IntN(2) == 0 && !strings.HasPrefix(name, "p:") {
			b.changed.Add(b.client.HDel(ctx, ringKey(b.of.name), name).Val())
		}
	}
	return b.wait(ctx)
}

// deleteKeys deletes some keys of the bucket.
func deleteKeys(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	for _, key := range keysOfBucket(b.of.name) {
		if rand.IntN(2) == 0 && key != ackKey(b.of.name) {
			b.changed.Add(b.client.Del(ctx, key).Val())
		}
	}
	return b.wait(ctx)
}

// flush deletes all that the server has.
func flush(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	b.changed.Add(1)
	if err := b.client.FlushAll(ctx).Err(); err != nil {
		return err
	}
	return b.wait(ctx)
}

// flood publishes nudges, and texts that are none.
func flood(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	for end := time.Now().Add(b.hold); time.Now().Before(end) && ctx.Err() == nil; {
		pipe := b.client.Pipeline()
		for range 100 {
			text := strconv.Itoa(rand.IntN(300) - 20)
			if rand.IntN(10) == 0 {
				text = string(randomBytes(20))
			}
			pipe.Publish(ctx, "kt:changed", text)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
