package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
)

// moves are what the adversary can do. An adversary makes them in random order.
var moves = []*move{
	{name: "hide", title: "removes `x:` at each nudge", do: hide("^x:", false)},
	{name: "hide-promotion", title: "removes `x:` and `a:` of the next key at each nudge", do: hide("^[xaw]:", false)},
	{name: "hide-all", title: "removes `x:`, `a:` and the log entries at each nudge", do: hide("^[xaw]:", true), hides: true},
	{name: "hide-deaf", title: "the same, and kills the connections on which instances hear of changes", do: hideDeaf, hides: true},
	{name: "hide-acks", title: "removes all acks without end, and once the wait is over `x:`, `a:` and the log entries", do: hideAcks, hides: true},
	{name: "newcomer", title: "removes `x:` and `a:` at each nudge, while an instance starts", do: newcomer},
	{name: "acks", title: "forges acks of all instances, and removes `x:` and `a:`", do: forgeAcks},
	{name: "replay", title: "puts back the ring of before the revocation, at each nudge", do: replay},
	{name: "replay-old", title: "puts back a ring of minutes ago", do: replayOld},
	{name: "replay-bucket", title: "puts back a whole bucket of before the revocation", do: replayBucket, hides: true},
	{name: "kill", title: "kills all connections in a loop, and removes `x:` and `a:`", do: kill},
	{name: "swap", title: "swaps fields and rings of two tenants", do: swap},
	{name: "trim", title: "trims or deletes the log", do: trim},
	{name: "rewrite", title: "rewrites the log without the revocation, and removes `x:` and `a:`", do: rewriteLog, hides: true},
	{name: "copy", title: "appends copies of log entries", do: copyEntries, harmless: true},
	{name: "forge", title: "appends log entries that it has changed", do: forgeEntries},
	{name: "time", title: "moves the store's clock by a log entry of the far future", do: moveTime, hides: true},
	{name: "junk", title: "writes junk fields, tenants and acks", do: junk},
	{name: "type", title: "makes a key of the bucket one of another type", do: wrongType, hides: true},
	{name: "flip", title: "flips bits", do: flip},
	{name: "delete", title: "deletes fields", do: deleteFields},
	{name: "delete-bucket", title: "deletes keys of the bucket", do: deleteKeys, hides: true},
	{name: "flush", title: "deletes everything", do: flush, hides: true, whole: true},
	{name: "flood", title: "publishes nudges without end", do: flood, harmless: true},
}

func ackKey(tenant string) string { return bucketKey(tenant, "ack") }
func bucketKey(tenant, name string) string {
	return fmt.Sprintf("kt:{%d}:%s", rotation.BucketOf(tenant), name)
}

// keysOfBucket returns the names of all keys of a tenant's bucket.
func keysOfBucket(tenant string) []string {
	return []string{ringKey(tenant), logKey(tenant), ackKey(tenant), bucketKey(tenant, "tenants")}
}

// hideScript removes the fields of KEYS[1] whose name matches ARGV[1] and that are not among ARGV[4]
// and following. If ARGV[2] is 1 it also removes the entries of the log KEYS[2] after ARGV[3].
var hideScript = redis.NewScript(`
local kept, gone = {}, 0
for i = 4, #ARGV do kept[ARGV[i]] = true end
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.find(name, ARGV[1]) and not kept[name] then gone = gone + redis.call('HDEL', KEYS[1], name) end
end
if ARGV[2] == '1' then
  for _, e in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[3], '+')) do redis.call('XDEL', KEYS[2], e[1]) end
end
return gone`)

// hiding removes new fields of the ring, and new entries of the log if entries is set, at each nudge
// until stop is called.
func (b *blow) hiding(ctx context.Context, pattern string, entries bool) (stop func(), err error) {
	keys := []string{ringKey(b.of.name), logKey(b.of.name)}
	last, err := b.lastID(ctx)
	if err != nil {
		return nil, err
	}
	args := []any{pattern, "0", last}
	if entries {
		args[1] = "1"
	}
	for name := range b.before {
		args = append(args, name)
	}
	once := func() {
		if n, err := hideScript.Run(ctx, b.client, keys, args...).Int64(); err == nil {
			b.changed.Add(n)
		}
	}
	return b.onNudge(ctx, b.of, once)
}

func (b *blow) lastID(ctx context.Context) (string, error) {
	entries, err := b.client.XRevRangeN(ctx, logKey(b.of.name), "+", "-", 1).Result()
	if err != nil || len(entries) == 0 {
		return "0-0", err
	}
	return entries[0].ID, nil
}

// wait waits while the move goes on.
func (b *blow) wait(ctx context.Context) error {
	return sleep(ctx, b.f.between(b.hold, b.hold*3/2))
}

// hide lets an instance revoke a key and removes that.
func hide(pattern string, entries bool) func(context.Context, *blow) error {
	return func(ctx context.Context, b *blow) error {
		stop, err := b.hiding(ctx, pattern, entries)
		if err != nil {
			return err
		}
		defer stop()
		b.revoke(ctx)
		return b.wait(ctx)
	}
}

// hideDeaf is hide with the log entries, while no instance hears of a change: then the adversary is
// always quicker than the next poll.
func hideDeaf(ctx context.Context, b *blow) error {
	deaf, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(deaf, 5*time.Millisecond) == nil {
			_ = b.client.ClientKillByFilter(deaf, "TYPE", "pubsub").Err() // there may be none
		}
	}()
	err := hide("^[xaw]:", true)(ctx, b)
	stop()
	<-done
	return err
}

// hideAcks removes all acknowledgements without end, while a command revokes a key and waits until
// that is applied. Nothing says that an instance has, so the wait must not end well. Then it is hide,
// with the log entries.
func hideAcks(ctx context.Context, b *blow) error {
	hiding, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(hiding, time.Millisecond) == nil {
			if n, err := b.client.Del(hiding, ackKey(b.of.name)).Result(); err == nil {
				b.changed.Add(n)
			}
		}
	}()
	err := b.f.command(ctx, func(r *rotation.Rotator) error {
		b.revokeBy(ctx, &instance{name: "command", signer: b.f.random(1)[0].signer, rotator: r})
		for _, revoked := range b.revoked {
			b.await(ctx, r, revoked)
		}
		return nil
	})
	if err == nil {
		err = hide("^[xaw]:", true)(ctx, b)
	}
	cancel()
	<-done
	return err
}

// await waits as a command does that revokes a key. It counts a lie if that ends well although no
// instance has said that it applied the revocation.
func (b *blow) await(ctx context.Context, r *rotation.Rotator, revoked *revocation) {
	ctx, cancel := context.WithTimeout(ctx, 3*b.f.pace.onePoll())
	defer cancel()
	acks, err := r.Await(ctx, revoked.receipt)
	if err == nil && !slices.ContainsFunc(acks, func(a rotation.Ack) bool { return a.Applied }) {
		b.f.judge.do(b.move.name, func(w *wrongs) { w.Lied++ })
		b.f.judge.note("%s against %s: the wait for the revocation of %s ended well, and no instance had applied it", b.move.name, b.of.name, revoked.kid)
	}
}

// newcomer is hide, while another instance starts.
func newcomer(ctx context.Context, b *blow) error {
	stop, err := b.hiding(ctx, "^[xaw]:", false)
	if err != nil {
		return err
	}
	defer stop()
	b.revoke(ctx)
	m, err := b.f.join(ctx)
	if err != nil {
		return err
	}
	if err := b.wait(ctx); err != nil {
		return err
	}
	return b.f.leave(m)
}

// forgeAcks writes acknowledgements in the name of each instance, without end.
func forgeAcks(ctx context.Context, b *blow) error {
	stop, err := b.hiding(ctx, "^[xaw]:", false)
	if err != nil {
		return err
	}
	defer stop()
	key := ackKey(b.of.name)
	old, err1 := b.client.HGetAll(ctx, key).Result()
	elsewhere, err2 := b.client.HGetAll(ctx, ackKey(b.other.name)).Result()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	forging, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(forging, 2*time.Millisecond) == nil {
			now, _ := b.client.HGetAll(forging, key).Result()
			for _, m := range b.f.instances() {
				if b.client.HSet(forging, key, m.name, forgedAck(m.name, old, now, elsewhere)).Err() == nil {
					b.changed.Add(1)
				}
			}
		}
	}()
	b.revoke(ctx)
	err = b.wait(ctx)
	cancel()
	<-done
	return err
}

// forgedAck returns an acknowledgement that an instance has not made: an old one, another
// instance's, that of another bucket, its own with a later date, random bytes, or a text.
func forgedAck(name string, old, now, elsewhere map[string]string) any {
	const header, dated = "kt\x01A", 4 + 8 // a sealed acknowledgement begins with these and its date, in milliseconds
	ms := time.Now().UnixMilli()
	later := func(ack string) any {
		if len(ack) < dated {
			return ack
		}
		return string(binary.BigEndian.AppendUint64([]byte(header), uint64(ms))) + ack[dated:]
	}
	switch rand.IntN(7) {
	case 0:
		return randomBytes(1 + rand.IntN(300))
	case 1:
		return old[name]
	case 2:
		return later(old[name])
	case 3:
		return later(elsewhere[name])
	case 4:
		for other, ack := range now {
			if other != name {
				return ack
			}
		}
	case 5:
		return later(string(randomBytes(200)))
	}
	return fmt.Sprintf("99999999999999-0 x %d %d", ms-60_000, ms)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// A dump has the keys of a tenant's bucket, as DUMP returns them.
type dump struct {
	tenant string
	keys   map[string]string
}

func (a *adversary) dump(ctx context.Context, tenant string) (*dump, error) {
	d := &dump{tenant, make(map[string]string)}
	for _, key := range keysOfBucket(tenant) {
		text, err := a.client.Dump(ctx, key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, err
		}
		d.keys[key] = text
	}
	return d, nil
}

// restore puts back keys of a dump.
func (a *adversary) restore(ctx context.Context, d *dump, keys ...string) error {
	pipe := a.client.TxPipeline()
	for _, key := range keys {
		if d.keys[key] == "" {
			pipe.Del(ctx, key)
			continue
		}
		pipe.RestoreReplace(ctx, key, 0, d.keys[key])
	}
	_, err := pipe.Exec(ctx)
	return err
}

// remember keeps a dump of a tenant, among the last twenty.
func (a *adversary) remember(ctx context.Context) {
	if d, err := a.dump(ctx, tenants[a.f.intN(len(tenants))].name); err == nil {
		a.old = append(a.old, d)
		a.old = slices.Clone(a.old[max(0, len(a.old)-20):])
	}
}

// replay puts back the ring of before a revocation, at each nudge.
func replay(ctx context.Context, b *blow) error {
	d, err := b.dump(ctx, b.of.name)
	if err != nil {
		return err
	}
	stop, err := b.onNudge(ctx, b.of, func() {
		if b.restore(ctx, d, ringKey(b.of.name)) == nil {
			b.changed.Add(1)
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	b.revoke(ctx)
	return b.wait(ctx)
}

// replayOld puts back a ring of some moves ago.
func replayOld(ctx context.Context, b *blow) error {
	b.revoke(ctx)
	for _, d := range b.old {
		if d.tenant == b.of.name {
			b.changed.Add(1)
			if err := b.restore(ctx, d, ringKey(b.of.name)); err != nil {
				return err
			}
			break
		}
	}
	return b.wait(ctx)
}

// replayBucket puts back all keys of the bucket.
func replayBucket(ctx context.Context, b *blow) error {
	d, err := b.dump(ctx, b.of.name)
	if err != nil {
		return err
	}
	b.revoke(ctx)
	b.changed.Add(1)
	if err := b.restore(ctx, d, keysOfBucket(b.of.name)...); err != nil {
		return err
	}
	return b.wait(ctx)
}

// kill closes the connections of all others, again and again.
func kill(ctx context.Context, b *blow) error {
	stop, err := b.hiding(ctx, "^[xaw]:", false)
	if err != nil {
		return err
	}
	defer stop()
	b.revoke(ctx)
	for end := time.Now().Add(b.hold); time.Now().Before(end); {
		if err := b.killOthers(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, time.Duration(rand.IntN(20))*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// killOthers cuts all connections but those of the adversary.
func (b *blow) killOthers(ctx context.Context) error {
	list, err := b.client.ClientList(ctx).Result()
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		id, rest, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
		if !strings.Contains(rest, "name="+adversaryName+" ") {
			_ = b.client.ClientKillByFilter(ctx, "ID", id).Err() // it may be gone already
			b.changed.Add(1)
		}
	}
	return nil
}
