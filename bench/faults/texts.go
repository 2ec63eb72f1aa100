package main

// What is expected of each fault, and why. docs/rotation.md has the words.
const (
	textNone = `Nothing but scheduled rotations, rotations by hand, and revocations of the key that signs. No 503, no
refusal to sign, no repair.`

	textKill = `The primary is killed with SIGKILL within a second (Dwell) of a mint that its replica has not got; in
about half of the strikes one instance alone has heard of that mint. Up to two seconds later the replica is promoted. An instance
that holds the lost key cannot prove its place in the new primary's log: it reads all again, merges the key back (a
repair), and is in doubt for twice a poll; the key has to become known anew before it signs. If
another has minted in its place meanwhile, two keys share a place over two lives of the store, which costs nothing. Who was
without a primary, and then in doubt, for longer than SignFor refuses to sign (ErrFenced).`

	textEmpty = `The server comes back at once, with nothing. The first instance that polls finds its place gone and merges
back all that it holds; the others find that done, and merge what is theirs. All are in doubt for twice a poll, and
nothing is minted meanwhile; they sign on, as SignFor is longer, but for those that cannot reach the server for another second
while it starts (ErrFenced). Pending keys are published anew and slide by Propagation, so
rotations come later than planned.`

	textCold = `As before, but for up to 0.7 s only a newcomer reaches the empty server, and it is allowed to bootstrap. It
is in doubt, so it makes no key; until a holder is back and has merged, it knows no ring: it answers 503 (not 401) and
signs nothing (ErrNoSigner, then ErrFenced until its doubt ends). All 503s here are the newcomer's.`

	textPartition = `For 1 to 10 s one instance reaches nothing: its connections break, or hang. It verifies on with the
keys that it has, and the scheduled switch happens without Redis. After Freshness it is degraded: a kid that it does not know,
which a rotation by hand elsewhere may have brought into use, is 503 and not 401. After SignFor it signs nothing
(ErrFenced). The others do not notice. Once back, it is in doubt for twice a poll if it was away for longer than
Freshness.`

	textHalf = `The same for three of the six.`

	textAll = `The same for all: beyond SignFor nobody signs (ErrFenced), for up to seven seconds and the doubt
afterwards. Nobody can mint or turn a key, so no kid is unknown to anyone, and what was signed stays good to its end without a 503.`

	textSlow = `Every request to Redis takes 50 ms longer for 2 to 9 s. A poll takes a few round trips, all within the
deadline: nothing is to be seen, as no verification waits for Redis.`

	textTooSlow = `Every request takes 600 ms, and the deadline is 450 ms: to the instances that is a partition of all,
but what they have asked for is done, late, and nobody hears of it. A change whose answer was lost is found later in the log.
Beyond SignFor nobody signs (ErrFenced).`

	textSentinel = `The primary is killed, and three Sentinels promote the replica, which had all but the last
milliseconds; the old primary comes back as a replica. It takes them about two seconds, and the clients somewhat longer to
follow. Whoever was out of step for longer than SignFor refuses to sign until it is in step again.`

	textCluster = `A primary of a Cluster of three is killed; its replica takes over after one or two seconds, and the
old primary comes back as the replica. Only the tenants of its slots are out of step meanwhile; for them this is the Sentinel
failover.`

	textClusterAway = `The same without a replica: the tenants of those slots are without a store for 1 to 9 s, as in
a partition of all, and the others go on. The server comes back with what it had (appendfsync always).`

	textDeaf = `The connections on which instances hear of changes hang, without an error. Nothing is lost but time:
a change is known with the next poll, so a revocation takes up to 300 ms here (a poll of 250 ms and its jitter) instead
of a few milliseconds.`
)
