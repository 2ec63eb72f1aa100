package rotationtest_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// A violation is an event of a history that a rule forbids.
type violation struct {
	rule  string
	event int // the index
	text  string
}

// rules are the invariants of docs/rotation.md, by name.
var rules = []struct {
	name  string
	check func(*checker, func(event int, format string, args ...any))
}{
	{"I1 no false reject", (*checker).noFalseReject},
	{"I2 no fresh instance lacks a key that signs", (*checker).knownBeforeItSigns},
	{"I3 revocation", (*checker).revocation},
	{"I4 retention", (*checker).retention},
	{"I5 one signer", (*checker).oneSigner},
	{"I6 one mint for a seq", (*checker).oneMint},
	{"I7 no orphan", (*checker).noOrphan},
	{"I8 a revocation is never forgotten", (*checker).revocationStays},
	{"I9 tenants never mix", (*checker).tenantsApart},
	{"I10 no mint on doubt", (*checker).noMintOnDoubt},
	{"I11 progress", (*checker).progress},
	{"I12 deletion and replay are noticed", (*checker).editsNoticed},
}

// check applies all rules to a history. It is a pure function of it.
func check(h *history) []violation {
	c := newChecker(h)
	var all []violation
	for _, r := range rules {
		r.check(c, func(event int, format string, args ...any) {
			all = append(all, violation{r.name, event, fmt.Sprintf(format, args...)})
		})
	}
	slices.SortStableFunc(all, func(a, b violation) int { return a.event - b.event })
	return all
}

// A checker knows of a history what the rules have in common.
type checker struct {
	*history
	revoked  map[string]time.Duration   // kid -> when the store first had its revocation
	known    map[string]spans           // kid -> when the store has had its revocation
	seq      map[string]int             // by kid
	weak     map[string]bool            // kids whose first tokens others may have to ask the store about
	again    map[string][]time.Duration // kid -> when it was published again
	lost     map[string]spans           // kid -> when the store had lost it for good, but for its holders
	demoted  map[string]spans           // kid -> when the store had lost its promotion
	restless []time.Duration            // when the store lost something
	by       map[string][]time.Duration // tenant -> when its ring was changed, other than by a mint
	edited   map[string][]time.Duration // tenant -> when its ring was edited behind everyone's back
}

// spans are times from which and until which something holds.
type spans []window

const forever = time.Duration(1<<63 - 1)

func (s spans) at(t time.Duration) (window, bool) {
	for _, w := range s {
		if w.has(t) {
			return w, true
		}
	}
	return window{}, false
}

func (s spans) open(t time.Duration) spans {
	if n := len(s); n > 0 && s[n-1].to == forever {
		return s
	}
	return append(s, window{t, forever})
}

func (s spans) close(t time.Duration) spans {
	if n := len(s); n > 0 && s[n-1].to == forever {
		s[n-1].to = t
	}
	return s
}

func newChecker(h *history) *checker {
	c := &checker{history: h, revoked: make(map[string]time.Duration), known: make(map[string]spans), seq: make(map[string]int),
		weak: make(map[string]bool), demoted: make(map[string]spans), lost: make(map[string]spans), by: make(map[string][]time.Duration),
		again: make(map[string][]time.Duration), edited: make(map[string][]time.Duration)}
	for _, e := range h.events {
		switch {
		case e.commit != nil:
			c.committed(e)
		case e.loss != nil:
			c.losses(e)
		}
	}
	return c
}

func (c *checker) committed(e event) {
	for kid, seq := range e.commit.keys {
		if c.seq[kid] = seq; seq == 1 || e.commit.Op == rotation.OpRevoke {
			c.weak[kid] = true
		}
		c.lost[kid] = c.lost[kid].close(e.at + c.timing.w + c.timing.latency)
	}
	for _, kid := range slices.Concat(e.commit.facts[rotation.FactForced], e.commit.facts[rotation.FactRepublished]) {
		c.weak[kid] = true
	}
	for _, kid := range e.commit.facts[rotation.FactPromoted] {
		c.demoted[kid] = c.demoted[kid].close(e.at + c.timing.w + c.timing.latency)
	}
	for _, kid := range e.commit.facts[rotation.FactRepublished] {
		c.again[kid] = append(c.again[kid], e.at)
	}
	for _, kid := range e.commit.facts[rotation.FactRevoked] {
		if _, ok := c.revoked[kid]; !ok {
			c.revoked[kid] = e.at
		}
		if e.commit.Primary {
			c.known[kid] = c.known[kid].open(e.at)
		}
	}
	if e.commit.Op != rotation.OpMint && e.commit.Op != rotation.OpCollect {
		c.by[e.tenant] = append(c.by[e.tenant], e.at)
	}
}

func (c *checker) losses(e event) {
	for kid, came := range e.loss.keys {
		if came < e.at-c.policy.Dwell || c.seq[kid] == 1 { // the first signs before it is confirmed
			c.lost[kid] = c.lost[kid].open(e.at)
		}
	}
	for _, kid := range e.loss.promoted {
		c.demoted[kid] = c.demoted[kid].open(e.at)
	}
	for _, kid := range e.loss.revoked {
		c.known[kid] = c.known[kid].close(e.at)
	}
	c.restless = append(c.restless, e.at)
	if e.tenant != "" {
		c.edited[e.tenant] = append(c.edited[e.tenant], e.at)
	}
}

// bad reports whether a verdict on a live token is a false reject that the limits of
// the protocol do not excuse.
func (c *checker) bad(e event) bool {
	t := c.tokens[e.token]
	if at, is := c.revoked[t.kid]; e.result == ok || e.tenant != t.tenant || is && at <= e.at {
		return false
	}
	if _, lost := c.lost[t.kid].at(e.at); lost && e.holder == "" {
		return false
	}
	return !c.isUnsafe(e.at) && !c.isUnsafe(t.at) && !(e.result == unavailable && c.justEdited(e))
}

// justEdited reports whether somebody has edited a ring that may not be noticed yet: who
// is vouched for when it comes takes it for what the others have, but for what is missing.
func (c *checker) justEdited(e event) bool {
	return slices.ContainsFunc(c.edited[e.tenant], func(at time.Duration) bool {
		return at <= e.at && e.at <= at+2*c.policy.Freshness
	})
}

// noFalseReject: an unexpired token of an unrevoked key verifies on every fresh
// instance, and none says that there is no such key. Of a key that was never
// published before it signed, or had to be published again, an instance that cannot
// ask the store may say that it cannot tell.
func (c *checker) noFalseReject(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind != evVerify || c.beyondS || !c.bad(e) {
			continue
		}
		kid := c.tokens[e.token].kid
		switch {
		case e.result != unavailable:
			report(n, "a live token of the good key %s: %s", short(kid), e.result)
		case e.fresh && !c.weak[kid]:
			report(n, "a live token of the good key %s: %s, at a fresh instance", short(kid), e.result)
		case e.fresh && e.reach > 2*time.Second:
			report(n, "a live token of key %s, first, forced or re-published: %s, at a fresh instance in reach of the store", short(kid), e.result)
		}
	}
}

// knownBeforeItSigns: when somebody signs, every fresh instance has the key.
func (c *checker) knownBeforeItSigns(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind == evKnows && !c.beyondS && e.fresh && c.bad(e) && !c.weak[c.tokens[e.token].kid] {
			report(n, "a fresh instance does not have key %s, which signs", short(c.tokens[e.token].kid))
		}
	}
}

// revocation: within one poll of a reachable instance, and never later than SignFor
// + L + leeway, unless the store has lost it again.
func (c *checker) revocation(report func(int, string, ...any)) {
	soon := c.timing.w + 2*c.timing.latency
	late := c.policy.SignFor + c.policy.MaxTokenTTL + c.policy.Leeway + 2*c.policy.ClockSkew
	for n, e := range c.events {
		if e.kind != evVerify || e.result != ok {
			continue
		}
		kid := c.tokens[e.token].kid
		known, there := c.known[kid].at(e.at)
		switch {
		case !there:
		case e.at-known.from > soon && e.reach > soon && !c.beyondS:
			report(n, "key %s was revoked at %v, the instance is in reach", short(kid), known.from)
		case e.at-known.from > late && len(c.known[kid]) == 1 && !c.isUnsafe(e.at): // who is in step with the losing side of a split hears of nothing
			report(n, "key %s was revoked at %v, longer than SignFor + L + leeway ago", short(kid), known.from)
		}
	}
}

// retention: whoever signs a token, verifies it until it expires, whatever its clock
// says.
func (c *checker) retention(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind != evVerify || e.result == ok {
			continue
		}
		t := c.tokens[e.token]
		if at, is := c.revoked[t.kid]; is && at <= e.at || e.tenant != t.tenant {
			continue
		}
		if c.beyondS && !c.start.Add(e.at).Before(t.exp.Add(c.policy.Leeway)) {
			continue // its clock was set back: the token had expired
		}
		if t.signer == e.inst && !c.isUnsafe(e.at) && !c.isUnsafe(t.at) {
			report(n, "its own live token: %s", e.result)
		}
	}
}

// oneSigner: once a key signs, its predecessor signs for S at most, which is what the
// clocks may differ. If there was a promotion, a revocation, a merge or a loss, it is
// SignFor after the last of them.
func (c *checker) oneSigner(report func(int, string, ...any)) {
	if c.beyondS {
		return
	}
	first := make(map[string]map[string]time.Duration) // tenant, kid -> when it first signed
	for n, e := range c.events {
		if e.commit != nil {
			for _, kid := range e.commit.facts[rotation.FactRepublished] {
				delete(first[e.tenant], kid) // it takes effect anew
			}
		}
		if e.kind != evSign || e.result != ok || c.isUnsafe(e.at) {
			continue
		}
		kid := c.tokens[e.token].kid
		if first[e.tenant] == nil {
			first[e.tenant] = make(map[string]time.Duration)
		}
		mine, had := first[e.tenant][kid]
		if !had {
			first[e.tenant][kid] = e.at
			continue
		}
		for other, at := range first[e.tenant] {
			if at <= mine || c.seq[other] <= c.seq[kid] || e.at-at <= c.policy.ClockSkew || c.neverMeant(other, at, e.at) {
				continue
			}
			since, disturbed := c.disturbed(e.tenant, e.at)
			allowed := c.policy.SignFor + c.policy.ClockSkew + c.timing.w + c.timing.latency
			if !disturbed || e.at > max(since, at)+allowed {
				report(n, "key %s signs, and %s, which came after it, has been signing since %v", short(kid), short(other), at)
			}
		}
	}
}

// neverMeant reports whether a key that began to sign is not meant to at t: it was revoked
// just before it took effect, and a clock was ahead; or it was published again, and who
// began with it had not heard of that; or the store has lost it, or that it was promoted.
func (c *checker) neverMeant(kid string, began, t time.Duration) bool {
	if at, is := c.revoked[kid]; is && at <= t && at-began <= c.policy.ClockSkew {
		return true
	}
	slid := func(at time.Duration) bool { return at <= t && began < at+c.policy.Propagation }
	_, lost := c.lost[kid].at(t)
	_, demoted := c.demoted[kid].at(t)
	return lost || demoted || slices.ContainsFunc(c.again[kid], slid)
}

// disturbed returns when a tenant's ring was last changed other than by a mint, or
// the store lost something, before t.
func (c *checker) disturbed(tenant string, t time.Duration) (last time.Duration, any bool) {
	for _, times := range [][]time.Duration{c.by[tenant], c.restless} {
		for i, at := range times {
			create := i == 0 && len(times) > 0 && &times[0] == &c.by[tenant][0]
			if at <= t && !create {
				last, any = max(last, at), true
			}
		}
	}
	return last, any
}

func (c *checker) isUnsafe(t time.Duration) bool {
	return slices.ContainsFunc(c.unsafe, func(w window) bool { return w.has(t) })
}

// oneMint: in one life of the store a seq is minted once.
func (c *checker) oneMint(report func(int, string, ...any)) {
	type place struct {
		tenant  string
		seq     int
		life    int
		primary bool
		edits   int // of the ring, behind everyone's back: each begins a life of its own
	}
	minted := make(map[place]string)
	edits := make(map[string]int)
	for n, e := range c.events {
		if e.loss != nil && e.tenant != "" {
			edits[e.tenant]++
		}
		if e.commit == nil || !mints(e.commit) {
			continue
		}
		for kid, seq := range e.commit.keys {
			p := place{e.tenant, seq, e.commit.Life, e.commit.Primary, edits[e.tenant]}
			if other, ok := minted[p]; ok {
				report(n, "seq %d is minted a second time: %s, after %s", seq, short(kid), short(other))
			}
			minted[p] = kid
		}
	}
}

// mints reports whether a change has new keys in it.
func mints(c *commit) bool { return c.Op != rotation.OpMerge && len(c.keys) > 0 }

// repairedIn is how long after healing everything that is held is in the store.
func (c *checker) repairedIn() time.Duration { return 2*c.timing.w + 2*c.timing.latency }

// repaired reports whether an audit is of a ring that ought to be in order.
func (c *checker) repaired(e event) bool {
	return e.kind == evAudit && e.reach > c.repairedIn() && e.audit.sinceLoss > c.repairedIn() && !c.beyondS
}

// noOrphan: within two polls of healing the store has what a holder has.
func (c *checker) noOrphan(report func(int, string, ...any)) {
	for n, e := range c.events {
		if !c.repaired(e) || e.audit.sinceEdit != time.Hour {
			continue
		}
		for _, k := range e.audit.keys {
			if k.Verifies() && !e.audit.fields["k:"+k.KID] {
				report(n, "the store lacks key %s, which is held", short(k.KID))
			}
		}
	}
}

// revocationStays: while somebody lives who knows of it, a revocation is in the
// store, and who has known it never accepts the key again.
func (c *checker) revocationStays(report func(int, string, ...any)) {
	type fact struct {
		inst int
		kid  string
	}
	knows := make(map[fact]bool)
	for n, e := range c.events {
		if e.kind == evVerify && e.result == ok && knows[fact{e.inst, c.tokens[e.token].kid}] {
			report(n, "the instance knew that key %s was revoked, and accepts it", short(c.tokens[e.token].kid))
		}
		if e.kind != evAudit {
			continue
		}
		for _, k := range e.audit.keys {
			if k.State != rotation.Revoked {
				continue
			}
			knows[fact{e.inst, k.KID}] = true
			if c.repaired(e) && e.audit.sinceEdit == time.Hour && !e.audit.fields["x:"+k.KID] {
				report(n, "the store lacks the revocation of key %s, which is known", short(k.KID))
			}
		}
	}
}

// tenantsApart: no tenant accepts another's token.
func (c *checker) tenantsApart(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind == evVerify && e.tenant != c.tokens[e.token].tenant && (e.result == ok || e.result == badSig) {
			report(n, "a token of tenant %s finds a key", c.tokens[e.token].tenant)
		}
	}
}

// noMintOnDoubt: nobody makes a key while in doubt, nor a ring of which somebody in
// reach holds one.
func (c *checker) noMintOnDoubt(report func(int, string, ...any)) {
	for n, e := range c.events {
		switch {
		case e.commit == nil || !mints(e.commit):
		case e.commit.spoilt:
			report(n, "minted where a key or a fact cannot be opened")
		case e.commit.Op == rotation.OpCreate && e.commit.holder != "" && !c.isUnsafe(e.at):
			report(n, "a ring is created, and %s has one, and is in reach", e.commit.holder)
		case e.commit.Op != rotation.OpCreate && e.commit.doubt:
			report(n, "minted in doubt")
		}
	}
}

// progress: a fresh instance has a signer, but while a forced revocation waits, and
// until the key that was promoted has been confirmed.
func (c *checker) progress(report func(int, string, ...any)) {
	p := c.policy
	waits := make(map[string]time.Duration)  // tenant -> until when there may be no signer
	unsure := make(map[string]time.Duration) // until when the signer may be unconfirmed
	for n, e := range c.events {
		if e.commit != nil && e.commit.Op == rotation.OpCreate {
			waits[e.tenant] = e.at + p.ClockSkew + c.timing.deadline // it takes effect by the store's clock
		}
		if e.commit != nil && e.commit.Op == rotation.OpRevoke && mints(e.commit) {
			waits[e.tenant] = e.at + p.Freshness + p.ReaderStaleness + 3*(p.ClockSkew+c.timing.deadline)
		}
		if e.commit != nil && e.commit.Op == rotation.OpMerge && len(e.commit.facts[rotation.FactRevoked]) > 0 { // it may sign here, which there it did not
			waits[e.tenant] = max(waits[e.tenant], e.at+p.Freshness+p.ReaderStaleness+3*(p.ClockSkew+c.timing.deadline))
		}
		if e.commit != nil && len(e.commit.facts[rotation.FactRepublished]) > 0 &&
			(e.at <= waits[e.tenant] || len(e.commit.facts[rotation.FactRevoked]) > 0) { // what is to take over was lost with it
			waits[e.tenant] = e.at + p.Propagation + 3*(p.ClockSkew+c.timing.deadline)
		}
		if e.commit != nil && e.commit.Op != rotation.OpMint && e.commit.Op != rotation.OpCollect {
			unsure[e.tenant] = e.at + p.Freshness + p.Dwell + 2*(p.ClockSkew+c.timing.deadline) + p.ClockSkew + c.timing.latency
		}
		if e.kind != evSign || e.result == ok || !e.fresh || c.beyondS {
			continue
		}
		switch {
		case e.at <= waits[e.tenant]:
		case e.result == fenced && e.at <= unsure[e.tenant]:
		case e.result == noSigner && (c.expired(e) || c.forgotten(e)):
		default:
			report(n, "a fresh instance cannot sign: %v", e.err)
		}
	}
}

// expired reports whether the last key of a ring has come to its end, and nobody could
// have turned the keys: who does was not in reach, or somebody had spoilt the ring.
func (c *checker) expired(e event) bool {
	end := false
	for _, k := range e.audit.keys {
		if k.State == rotation.Retired {
			end = !c.start.Add(e.at + c.policy.ClockSkew).Before(k.SignUntil)
		}
	}
	spoilt := slices.ContainsFunc(c.edited[e.tenant], func(at time.Duration) bool { return at <= e.at })
	return end && (spoilt || e.holder == "")
}

// forgotten reports whether all that is left of a ring that was edited takes effect later:
// who held the rest is gone.
func (c *checker) forgotten(e event) bool {
	effective := func(k rotation.RingKey) bool { return !k.ActivatesAt.After(c.start.Add(e.at)) }
	return len(c.edited[e.tenant]) > 0 && c.edited[e.tenant][0] <= e.at && !slices.ContainsFunc(e.audit.keys, effective)
}

// editsNoticed: what somebody without the KEK has deleted, or replaced by what there
// once was, is back within F and two polls.
func (c *checker) editsNoticed(report func(int, string, ...any)) {
	for n, e := range c.events {
		if !c.repaired(e) || e.audit.sinceEdit == time.Hour || e.audit.sinceEdit <= c.policy.Freshness+c.repairedIn() {
			continue
		}
		if e.reach <= c.policy.Freshness+c.repairedIn() {
			continue
		}
		for _, k := range e.audit.keys {
			if k.Verifies() && !e.audit.fields["k:"+k.KID] {
				report(n, "the ring was edited %v ago, and the store still lacks key %s", e.audit.sinceEdit, short(k.KID))
			}
			if k.State == rotation.Revoked && !e.audit.fields["x:"+k.KID] {
				report(n, "the ring was edited %v ago, and the store still lacks the revocation of key %s", e.audit.sinceEdit, short(k.KID))
			}
		}
	}
}
