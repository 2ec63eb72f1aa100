package ring_test

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

const sec = time.Second

// Two policies that hold every inequality: that of the demo, and the fastest one that tests on a
// real clock use.
var (
	demoPolicy = ring.Policy{Algorithm: keystore.ES256, Every: 30 * sec, Propagation: 15 * sec, Freshness: 6 * sec, ClockSkew: sec, Dwell: 2 * sec,
		SignFor: 12 * sec, ReaderStaleness: 6 * sec, MaxTokenTTL: 120 * sec, Leeway: 30 * sec}
	fastPolicy = ring.Policy{Algorithm: keystore.ES256, Every: 6 * sec, Propagation: 4500 * time.Millisecond, Freshness: 2250 * time.Millisecond,
		ClockSkew: 250 * time.Millisecond, Dwell: sec, SignFor: 3 * sec, ReaderStaleness: sec, MaxTokenTTL: 3 * sec, Leeway: sec}
)

var t0 = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// at returns t0 + s seconds.
func at(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }

// rec returns a record under demoPolicy that is scheduled to sign at t0 + activate seconds.
func rec(kid string, seq int, activate float64) ring.Record {
	return ring.Record{Tenant: "acme", KID: kid, Seq: seq, Algorithm: demoPolicy.Algorithm, Created: at(activate - 20), ActivateAt: at(activate),
		SignUntil: at(activate + 1e6), Origin: ring.Generated, Timing: demoPolicy}
}

// A fact about the record of a kid, at t0 + at seconds.
type fact struct {
	kind ring.FactKind
	kid  string
	at   float64
}

func facts(list ...fact) (f ring.Facts) {
	for _, x := range list {
		f.Add(x.kind, x.kid, at(x.at))
	}
	return f
}

// states renders a ring as kid=state, in order. An asterisk marks the signer.
func states(r ring.Ring) string {
	var b []byte
	for i, k := range r.Keys {
		if i > 0 {
			b = append(b, ' ')
		}
		b = fmt.Appendf(b, "%s=%s", k.KID, k.State)
		if i == r.Signer {
			b = append(b, '*')
		}
	}
	return string(b)
}

// drawRing draws the records that a rotator may have made, and facts about them.
func drawRing(t *rapid.T) ([]ring.Record, ring.Facts) {
	p := rapid.SampledFrom([]ring.Policy{demoPolicy, fastPolicy}).Draw(t, "policy")
	var records []ring.Record
	activate := t0
	for i := range rapid.IntRange(1, 6).Draw(t, "records") {
		records = append(records, ring.Record{Tenant: "acme", KID: fmt.Sprint("k", i+1), Seq: i + 1, Created: activate.Add(-p.Propagation), ActivateAt: activate,
			SignUntil: activate.Add(2*p.Every + p.Propagation), Timing: p})
		activate = activate.Add(p.Every + time.Duration(rapid.Int64Range(0, p.Every.Milliseconds()).Draw(t, "late"))*time.Millisecond)
	}
	return records, drawFacts(t, records, activate.Sub(t0))
}

// drawFacts draws up to six facts about records, at times up to twice span.
func drawFacts(t *rapid.T, records []ring.Record, span time.Duration) (f ring.Facts) {
	for range rapid.IntRange(0, 6).Draw(t, "facts") {
		kid := rapid.SampledFrom(records).Draw(t, "of").KID
		f.Add(rapid.SampledFrom(ring.FactKinds()).Draw(t, "kind"), kid, drawTime(t, span))
	}
	return f
}

// drawTime draws a time from shortly before t0 to twice span after it.
func drawTime(t *rapid.T, span time.Duration) time.Time {
	return t0.Add(time.Duration(rapid.Int64Range(-1000, 2*span.Milliseconds()).Draw(t, "ms")) * time.Millisecond)
}
