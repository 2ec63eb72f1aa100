package main

// The expectation of each fault, and its reason. docs/glossary.md defines the words.
const (
	textNone = `The fleet only rotates keys, by schedule and by hand, and revokes signing keys. No 503, no refusal
to sign, no repair.`

	textKill = `The primary is killed with SIGKILL within a second (Dwell) of a mint that its replica does not
have. In about half of the strikes, one instance alone has heard of that mint. The replica is
promoted up to two seconds later. An instance that holds the lost key cannot prove its place in the
new primary's log. It reads everything again, restores the key (a repair), and is recovering for
two polls. The restored key waits for Propagation again before it signs. If another instance has
minted in its place meanwhile, two keys share a place over two lives of the store. That costs
nothing. An instance that had no primary and then recovered for longer than SignFor refuses to sign
(ErrFenced).`

	textEmpty = `The server comes back at once, without any data. The first instance that polls finds its place gone
and restores everything it holds. The others find that done, and restore the rest. All instances
are recovering for two polls, and none mints meanwhile. They go on signing, because SignFor is
longer. Only those that cannot reach the server for another second while it starts refuse to sign
(ErrFenced). Pending keys are published again and wait for Propagation again, so rotations come
later than planned.`

	textCold = `The server comes back at once, without any data, but at first only a new instance reaches it, for
up to 0.7 s. That instance is allowed to bootstrap. It is recovering, so it makes no key. Until a
holder is back and has restored the rings, it knows none: it answers 503 (not 401) and signs
nothing (ErrNoSigner, then ErrFenced until it has recovered). All 503s of this fault are from the
new instance.`

	textPartition = `For 1 to 10 s one instance reaches nothing: its connections break, or hang. It goes on verifying
with the keys that it has, and the scheduled switch happens without Redis. After Freshness it is
degraded: for a kid that it does not know it answers 503 and not 401, because a rotation by hand
elsewhere may have brought that key into use. After SignFor it signs nothing (ErrFenced). The
others do not notice. Once it is back, it is recovering for two polls if it was cut off for longer
than Freshness.`

	textHalf = `As for one instance, but three of the six are cut off.`

	textAll = `As for one instance, but all six are cut off. Beyond SignFor no instance signs (ErrFenced), for up
to seven seconds and the recovery afterwards. No instance can mint or rotate a key, so every
instance knows every kid. The tokens that were signed verify until they expire, without a 503.`

	textRestart = `For 2 to 10 s no instance reaches Redis. Meanwhile half of them end and start again, each from its
sealed snapshot. Half of those end without writing it, so theirs is up to Freshness old. A restarted
instance answers as one that was cut off when its snapshot was written: it accepts the live tokens of
the keys in it, says 503 and not 401 of all other keys, and signs nothing before it has read the store
(ErrFenced).`

	textSlow = `Every request to Redis takes 50 ms longer for 2 to 9 s. A poll takes a few round trips, all within
the deadline. The fault has no effect, because no verification waits for Redis.`

	textTooSlow = `Every request takes 600 ms, and the deadline is 450 ms. For the instances that is a partition of
all. But Redis still does what they have asked for, late, and they get no answer. If the answer to
a change was lost, the instances find the change later in the log. Beyond SignFor no instance signs
(ErrFenced).`

	textSentinel = `The primary is killed, and three Sentinels promote its replica, which lacks at most the last
milliseconds. The old primary comes back as a replica. The Sentinels take about two seconds, and
the clients somewhat longer to follow. An instance that was out of sync for longer than SignFor
refuses to sign until it is in sync again.`

	textCluster = `One primary of a Cluster of three is killed. Its replica takes over after one or two seconds, and
the old primary comes back as the replica. Meanwhile only the tenants of its slots are out of sync.
For them this is the same as the Sentinel failover.`

	textClusterAway = `One primary of a Cluster of three is killed, and has no replica. The tenants of its slots are
without a store for 1 to 9 s, as in a partition of all. The other tenants do not notice. The server
comes back with all its data (appendfsync always).`

	textSplit = `A primary takes writes only while a replica follows (min-replicas-to-write 1), but it finds out that
the replica does not only after min-replicas-max-lag: 10 s, the default of Redis. The replica is cut
off and promoted by hand, and four of the six instances follow it. For 11 s more the other two are in
sync with the old primary, and know nothing of what the winning side does. It rotates keys as often
as it may. No token is rejected on either side, because Dwell is longer than the lag: a key signs,
and its predecessor is dropped, only once no instance can be in sync without knowing it. After the
lag and SignFor the losing side signs nothing (ErrFenced). Dwell is 12.5 s here, and so Propagation
15.75 s.`

	textKEK = `Each instance in turn gets the new KEK as its second, then as its first. Then all rings are sealed
again (Rekey), and each instance in turn drops the old KEK. No token is rejected, and no instance
answers 503 or refuses to sign. Afterwards an attacker has the old KEK, and dumps of Redis from
before the change and from after it. It opens keys of before the change, and none that was minted
after the rekey; each one would count as a false reject of this table.`

	textDeaf = `The connections on which instances hear of changes hang, without an error. This costs only time: an
instance finds a change with its next poll. So a revocation takes up to 300 ms here (a poll of 250
ms and its jitter) instead of a few milliseconds.`
)
