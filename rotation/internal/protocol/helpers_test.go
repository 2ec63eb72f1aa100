package protocol

import (
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// round is a policy of round numbers: 2(S + deadline) is 3s.
var round = ring.Policy{Algorithm: keystore.HS256, Every: 100 * time.Second, Propagation: 60 * time.Second, MaxTokenTTL: 20 * time.Second,
	Leeway: 5 * time.Second, ClockSkew: time.Second, Freshness: 10 * time.Second, Dwell: 5 * time.Second, SignFor: 30 * time.Second}

// roundDeadline is the deadline of a call of the store, where policies are round.
const roundDeadline = 500 * time.Millisecond

// sec is a moment of these tests.
func sec(s float64) time.Time { return at(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), s) }

func at(start time.Time, s float64) time.Time {
	return start.Add(time.Duration(s * float64(time.Second)))
}

// key returns a record of the policy round.
func key(kid string, seq int, created, activate float64) ring.Record {
	return ring.Record{Tenant: "acme", KID: kid, Seq: seq, Algorithm: round.Algorithm, Created: sec(created), ActivateAt: sec(activate),
		SignUntil: sec(activate + 1e6), Origin: ring.Generated, Timing: round}
}

// adopted is a key for the algorithm of round, whose tokens live for longer than those of round.
func adopted(hold bool) Adopted {
	return Adopted{KID: "old", NoKID: true, Algorithm: round.Algorithm, Longest: time.Minute, Hold: hold}
}

// held is a ring whose first key, "old", has Hold, and whose second one waits, with more records.
func held(facts []factAt, more ...ring.Record) *Copy {
	old, k2 := key("old", 1, 0, 0), key("k2", 2, 0.001, 100)
	old.Hold, old.NoKID, old.Longest, old.Origin, k2.Waits = true, true, time.Minute, ring.Legacy, true
	return ringOf(facts, append([]ring.Record{old, k2}, more...)...)
}

// waits is key, of one that waits.
func waits(kid string, seq int, created float64) ring.Record {
	k := key(kid, seq, created, created+200)
	k.Waits = true
	return k
}

// A factAt is a fact, with its time in seconds.
type factAt struct {
	kind ring.FactKind
	kid  string
	at   float64
}

// ringOf returns a copy of a ring.
func ringOf(facts []factAt, records ...ring.Record) *Copy {
	var c Copy
	for _, f := range facts {
		c.Facts.Add(f.kind, f.kid, sec(f.at))
	}
	for _, r := range records {
		c.Records = append(c.Records, Record{Record: &r})
	}
	return NewCopy(c)
}

// baseOf is a ring as the store has it at one moment.
func baseOf(c *Copy, now float64) *Base {
	mint := func(ring.Policy) (string, error) { return "minted", nil }
	return &Base{Tenant: "acme", Now: sec(now), Deadline: roundDeadline, Copy: c, MakeKey: mint}
}

// merging returns the input of a merge at a moment whose last good sync was at good; -1 is never.
func merging(held, stored *Copy, now, good float64) MergeInput {
	in := MergeInput{Held: held, Stored: stored, Now: sec(now), LocalNow: sec(now), Good: sec(good), Deadline: roundDeadline}
	if good < 0 {
		in.Good = time.Time{}
	}
	return in
}

// announced is the time at which a merge of in announces a key.
func announced(in MergeInput) time.Time { return in.Now.Add(round.Window(roundDeadline) / 2) }
