// Package rediskeys stores the rings of package rotation in Redis: on one server, behind
// Sentinel, or in a Cluster. It is a [rotation.Store] made of compare-and-set scripts and an
// append-only log per bucket, in which every reader proves its position.
//
// [Open] makes a client from a URL, and [OpenWith] one with TLS of its own or with a password that
// changes. [New] makes a [Store] from a client. [rotation.Open] makes a
// keyring from the store; the keyring is the store's only caller.
//
// # What Redis holds
//
// The tenants are spread over 256 buckets by a hash of their names. Each bucket has these keys,
// where kt is [Config.Prefix]:
//
//	kt:{<bucket>}:ring:<tenant>  hash    the ring of one tenant
//	kt:{<bucket>}:tenants        set     the tenants of the bucket that have a ring
//	kt:{<bucket>}:log            stream  one entry for each change
//	kt:{<bucket>}:ack            hash    for each instance, the position it has applied
//
// The fields of a ring are its sealed records (k:<kid>), the facts about them (x:<kid> revoked,
// a:<kid> promoted, and so on), its wrapped tenant keys (tk:<id>) and a few helper fields. The
// store does not open or check any of them. No key has a time to live. The braces put all keys of a
// bucket into one slot of a Cluster, so that one script may use them all. docs/formats.md defines
// every key, field and value.
//
// # How a write stays atomic
//
// A change carries the digest of the ring that it was decided on. One script compares that digest
// with the ring's current one, checks the bounds of the change against Redis' clock, appends the
// log entry, and writes the fields. If the digest differs it changes nothing and answers
// [rotation.Conflict]. So of many instances that race on one ring, exactly one commits.
//
// # How sync proves a position
//
// A place is the ID of a log entry and its nonce, 128 random bits. An instance sends the place up
// to which it has applied the log:
//
//	log in Redis                                   instance sends   reply
//	1-0 a    2-0 b    3-0 c    4-0 d               2-0 b            ok: the tenants of 3-0 and 4-0
//	1-0 a    2-0 x    3-0 y    (after a failover)  2-0 b            resync: read the whole bucket
//	1-0 e    (emptied, a log that began again)     2-0 b            resync
//
// If the log still has that entry with that nonce, the instance and the log agree on everything
// before it, and only the entries after it are new. Otherwise Redis lost or replaced part of
// its log, and the instance reads the bucket from the start. A counter could not tell these cases
// apart: after a failover the same ID may name another change.
//
// If the place was proved, the script stores the instance's acknowledgement, which is sealed: Redis can
// read when it was made, and no more. An acknowledgement is a write, so a primary that was cut off and
// refuses writes also fails the sync.
//
// # What Redis refuses was not made
//
// The log entry is the first write of a change. Redis checks before the first write of a script, and
// at no later one, whether it is full (OOM), can save (MISCONF), is a replica (READONLY) and has
// replicas in reach (NOREPLICAS). The script itself checks before it whether the user may make all of
// the change (NOPERM). So after these errors nothing was written, and [Store.Write] says
// [rotation.NotMade].
//
// # What Redis has to be
//
// Redis 6.0 or later, better 7.0, with maxmemory-policy noeviction: a Redis that may evict loses keys.
// A user of its ACL needs the commands eval, evalsha, info, time, hgetall, hset, hdel, sadd, srem,
// sismember, smembers, del, xadd, xrange, xrevrange, publish, subscribe, ping, watch, unwatch, multi,
// exec, memory|usage, and cluster|slots and asking in a Cluster; and the keys and channels that begin
// with [Config.Prefix] and a colon. Without those from watch to memory|usage it works too, and reads many
// rings more slowly, as it does on Redis 6.0 and from 8.10 on. [Config.ACL] returns all of them as ACL SETUSER takes them.
//
// Redis may lose an acknowledged write when a replica takes over. Set min-replicas-to-write 1: then
// a primary that was cut off refuses writes, and instances that reach only this primary learn that
// they are stale.
//
// Redis 6 differs in two points. It does not apply min-replicas-to-write to the commands of scripts
// (redis/redis issue 9993), so the scripts do, and they know only whether there is a good replica: there
// min-replicas-to-write 2 means 1. And its scripts cannot ask what a user may do. So a user that may
// add to the log, but not change a ring, leaves log entries without an effect: give it all commands.
//
// # Primaries only
//
// A replica answers with old data. Each script first asks its server for its role (INFO replication)
// and refuses to go on on a replica, even on one that accepts writes (replica-read-only no). So an old
// connection to a demoted primary, or a wrong URL, gives an error and never old data. A user that may
// not ask gets [ErrNoPermission] from every method. A server that does not know INFO in scripts, such
// as miniredis, is asked with a write that changes nothing.
//
// # Logging
//
// The Redis client has its own logger, one for the whole process. It writes to standard error, not
// to [rotation.Config.Logger]; replace it with [redis.SetLogger]. Everything that matters is also
// in the errors of this package. Its lines hold what Redis answers, which may repeat the password to a
// command that Redis does not know.
package rediskeys
