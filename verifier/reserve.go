package verifier

import (
	"hash/maphash"
	"time"
)

// A flood of made-up names may use up ResolvePerSecond. So a part of it, and of the open questions, is
// kept for names that a good token has proved before: those of tenants that made room for others. Where
// no such tenant is known, nothing is kept.

// keptShare is the part of ResolvePerSecond and of maxAsking that made-up names cannot use.
const keptShare = 4

// maxProved bounds how many names are remembered in each half of the memory, whatever MaxResolved is. Both
// take some 10 MB then.
const maxProved = 1 << 18

// A questionBudget allows rate questions at once, and rate more in each second. It decides from its
// arguments alone. The part that is kept is filled with every fourth question that comes back. What it has
// no room for goes to the common part, so that names that nothing is known of get all of the budget while
// the others ask for nothing, and three quarters of it at least. A new one is full. The caller locks it.
type questionBudget struct {
	rate         int
	common, kept int       // questions left
	filled       time.Time // up to when
	turn         int       // of keptShare: since the last question that came back for kept
}

// take takes one question at now, and reports whether there was one. If the clock was set back by more than a
// second, the budget counts as empty and fills up from now on.
func (b *questionBudget) take(proved bool, now time.Time) bool {
	b.fill(now)
	switch {
	case proved && b.kept > 0:
		b.kept--
	case b.common > 0:
		b.common--
	default:
		return false
	}
	return true
}

func (b *questionBudget) fill(now time.Time) {
	passed := now.Sub(b.filled)
	switch {
	case passed < -time.Second:
		b.common, b.kept, b.filled = 0, 0, now
		return
	case passed > 2*keptShare*time.Second: // enough for both parts
		passed, b.filled = 2*keptShare*time.Second, now.Add(-2*keptShare*time.Second)
	}
	every := max(time.Second/time.Duration(b.rate), 1)
	n := int(passed / every)
	if n <= 0 {
		return
	}
	b.filled = b.filled.Add(time.Duration(n) * every)
	most := b.rate / keptShare
	forKept := min((b.turn+n)/keptShare, most-b.kept)
	b.turn = (b.turn + n) % keptShare
	b.kept += forKept
	b.common = min(b.common+n-forKept, b.rate-most)
}

// A provedNames remembers at least the newest most names, and at most twice as many. It keeps a keyed digest
// of 64 bits of each, so it holds no name, and a stranger cannot choose one that counts as another. The caller
// locks it.
type provedNames struct {
	seed       maphash.Seed
	most       int
	young, old map[uint64]struct{}
}

func (p *provedNames) add(h Hint) {
	if p.young == nil || len(p.young) >= p.most {
		p.young, p.old = make(map[uint64]struct{}), p.young
	}
	p.young[maphash.Comparable(p.seed, h)] = struct{}{}
}

// empty reports whether nothing has to be kept for any name.
func (p *provedNames) empty() bool { return len(p.young)+len(p.old) == 0 }

func (p *provedNames) has(h Hint) bool {
	digest := maphash.Comparable(p.seed, h)
	_, young := p.young[digest]
	_, old := p.old[digest]
	return young || old
}

func (p *provedNames) drop(h Hint) {
	digest := maphash.Comparable(p.seed, h)
	delete(p.young, digest)
	delete(p.old, digest)
}
