package rotationtest_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A violation is an event of a history that a rule forbids.
type violation struct {
	rule  string
	event int // its index in the history
	text  string
}

// rules are the invariants I1 to I15 of docs/protocol.md, each with its check.
var rules = []struct {
	name  string
	check func(*checker, func(event int, format string, args ...any))
}{
	{"I1 no false reject", (*checker).noFalseReject},
	{"I2 no instance in sync lacks a key that signs", (*checker).knownBeforeItSigns},
	{"I3 revocation", (*checker).revocation},
	{"I4 retention", (*checker).retention},
	{"I5 one signer", (*checker).oneSigner},
	{"I6 one mint for a seq", (*checker).oneMint},
	{"I7 the store lacks no key", (*checker).noOrphan},
	{"I8 a revocation is never forgotten", (*checker).revocationStays},
	{"I9 tenants never mix", (*checker).tenantsApart},
	{"I10 no mint while recovering", (*checker).noMintOnDoubt},
	{"I11 progress", (*checker).progress},
	{"I12 deletion and replay are noticed", (*checker).editsNoticed},
	{"I13 no writer undoes a revocation", (*checker).revocationHolds},
	{"I14 an old KEK opens no new key", (*checker).newKEKCounts},
	{"I15 a ready instance answers", (*checker).readyAnswers},
}

// check applies all rules to a history. It is a pure function of the history.
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

// A checker is a history with the facts that several rules need.
type checker struct {
	*history
	revoked          map[string]time.Duration   // kid -> when its revocation was first stored
	revocationStored map[string]spans           // kid -> while the store had its revocation
	seq              map[string]int             // kid -> its seq
	mayBeUnknown     map[string]bool            // kids that may sign before every instance in sync knows them: an instance may have to ask the store
	republished      map[string][]time.Duration // kid -> when it was republished
	lost             map[string]spans           // kid -> while the store had lost it, and only its holders could restore it
	promotionLost    map[string]spans           // kid -> while the store had lost its promotion
	lossTimes        []time.Duration            // when the store lost data
	storeLosses      []time.Duration            // and those times that were no edit of one ring
	changes          map[string][]time.Duration // tenant -> when its ring was changed other than by a mint or a collection
	edited           map[string][]time.Duration // tenant -> when its ring was edited without a log entry
	lifeOf           map[string]map[string]int  // tenant -> kid -> of which life of the ring it is
	accepted         map[string]*acceptance     // kid of an accepted key -> what the history says of it
	longest          map[string]time.Duration   // kid -> the longest life of its tokens
	promoted         map[string]time.Duration   // kid of one that waits -> when it was first promoted; forever if it was not
}

// spans are the windows of time in which something holds.
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
	c := &checker{history: h, revoked: make(map[string]time.Duration), revocationStored: make(map[string]spans), seq: make(map[string]int),
		mayBeUnknown: make(map[string]bool), promotionLost: make(map[string]spans), lost: make(map[string]spans), changes: make(map[string][]time.Duration),
		republished: make(map[string][]time.Duration), edited: make(map[string][]time.Duration), lifeOf: make(map[string]map[string]int), accepted: make(map[string]*acceptance),
		longest: make(map[string]time.Duration), promoted: make(map[string]time.Duration)}
	for _, e := range h.events {
		switch {
		case e.commit != nil:
			c.noteCommit(e)
		case e.loss != nil:
			c.noteLoss(e)
		}
	}
	return c
}

func (c *checker) noteCommit(e event) {
	for kid, seq := range e.commit.keys {
		if c.seq[kid] = seq; seq == 1 || e.commit.Op == ring.OpRevoke {
			c.mayBeUnknown[kid] = true
		}
		c.lost[kid] = c.lost[kid].close(e.at + c.timing.w + c.timing.latency)
	}
	for kid, longest := range e.commit.longest {
		c.longest[kid] = longest
	}
	for _, kid := range e.commit.waits {
		if _, ok := c.promoted[kid]; !ok {
			c.promoted[kid] = forever
		}
	}
	for _, kid := range e.commit.facts[ring.FactPromoted] {
		if at, waits := c.promoted[kid]; waits && e.at < at {
			c.promoted[kid] = e.at
		}
	}
	for _, kid := range slices.Concat(e.commit.facts[ring.FactForced], e.commit.facts[ring.FactRepublished]) {
		c.mayBeUnknown[kid] = true
	}
	for _, kid := range e.commit.facts[ring.FactPromoted] {
		c.promotionLost[kid] = c.promotionLost[kid].close(e.at + c.timing.w + c.timing.latency)
	}
	for _, kid := range e.commit.facts[ring.FactRepublished] {
		c.republished[kid] = append(c.republished[kid], e.at)
	}
	for _, kid := range e.commit.facts[ring.FactRevoked] {
		if _, ok := c.revoked[kid]; !ok {
			c.revoked[kid] = e.at
		}
		if e.commit.Primary {
			c.revocationStored[kid] = c.revocationStored[kid].open(e.at)
		}
	}
	c.noteLives(e)
	c.noteAccepts(e)
	if e.commit.Op != ring.OpMint && e.commit.Op != ring.OpCollect && e.commit.Op != ring.OpAccept {
		c.changes[e.tenant] = append(c.changes[e.tenant], e.at)
	}
}

// noteLives notes of which life keys are. The shred of a ring is a revocation of all keys of a life,
// those included that a side of a split mints later.
func (c *checker) noteLives(e event) {
	if c.lifeOf[e.tenant] == nil {
		c.lifeOf[e.tenant] = make(map[string]int)
	}
	for kid, life := range e.commit.lives {
		c.lifeOf[e.tenant][kid] = life
	}
	for _, kid := range e.commit.ends {
		if _, ok := c.revoked[kid]; !ok {
			c.revoked[kid] = e.at
		}
		if e.commit.Primary && e.commit.dead > 0 {
			c.revocationStored[kid] = c.revocationStored[kid].open(e.at)
		}
	}
}

func (c *checker) noteLoss(e event) {
	for kid, came := range e.loss.keys {
		if came < e.at-c.policy.Dwell || c.seq[kid] == 1 { // the first key of a ring signs before Dwell has passed
			c.lost[kid] = c.lost[kid].open(e.at)
		}
	}
	for _, kid := range e.loss.promoted {
		c.promotionLost[kid] = c.promotionLost[kid].open(e.at)
	}
	for _, kid := range e.loss.accepts {
		c.acceptanceOf(kid).stored = c.acceptanceOf(kid).stored.close(e.at)
	}
	for _, kid := range e.loss.revoked {
		c.revocationStored[kid] = c.revocationStored[kid].close(e.at)
	}
	c.lossTimes = append(c.lossTimes, e.at)
	if e.tenant != "" {
		c.edited[e.tenant] = append(c.edited[e.tenant], e.at)
	} else {
		c.storeLosses = append(c.storeLosses, e.at)
	}
}

// falseReject reports whether a verdict rejects a live token of a good key, and no limit of the
// protocol excuses that.
func (c *checker) falseReject(e event) bool {
	t := c.tokens[e.token]
	if t.partner {
		return false // see acceptedVerifies
	}
	if at, is := c.revoked[t.kid]; e.result == ok || e.tenant != t.tenant || is && at <= e.at {
		return false
	}
	if _, lost := c.lost[t.kid].at(e.at); lost && e.holder == "" {
		return false
	}
	return !c.isUnsafe(e.at) && !c.isUnsafe(t.at) && !(e.result == unavailable && c.justEdited(e))
}

// justEdited reports whether a ring was edited so recently that an instance may not have noticed.
// An instance that starts then, and for which another one vouches, takes the edited ring as the
// truth, and gets only the lost fields back.
func (c *checker) justEdited(e event) bool {
	return slices.ContainsFunc(c.edited[e.tenant], func(at time.Duration) bool {
		return at <= e.at && e.at <= at+2*c.policy.Freshness
	})
}

// noFalseReject (I1): an unexpired token of an unrevoked key verifies on every instance in sync,
// and no instance says that its key does not exist. If the key signed before it had been published
// for long enough, or had to be republished, an instance that cannot reach the store may answer
// unavailable.
func (c *checker) noFalseReject(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind != evVerify || c.beyondS || !c.falseReject(e) {
			continue
		}
		kid := c.tokens[e.token].kid
		switch {
		case e.result != unavailable:
			report(n, "a live token of the good key %s: %s", short(kid), e.result)
		case e.fresh && !c.mayBeUnknown[kid]:
			report(n, "a live token of the good key %s: %s, at an instance in sync", short(kid), e.result)
		case e.fresh && e.reach > 2*time.Second:
			report(n, "a live token of key %s, first, forced or republished: %s, at an instance in sync and in reach of the store", short(kid), e.result)
		}
	}
	c.acceptedVerifies(report)
}

// readyAnswers (I15): an instance that is ready to verify answers every live token of a good key. It may
// ask the store for a key that signed before all could know it. One that is cut off does not know what
// operators have changed since.
func (c *checker) readyAnswers(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind != evVerify || c.beyondS || !e.ready || e.fresh || e.result != unavailable || !c.falseReject(e) {
			continue
		}
		kid, p := c.tokens[e.token].kid, c.policy
		since := e.at - p.SignFor - p.MaxTokenTTL - p.Leeway - p.Dwell - 2*c.timing.w
		changes := c.changes[e.tenant]
		byHand := slices.ContainsFunc(changes[min(1, len(changes)):], func(at time.Duration) bool { return at > since && at <= e.at }) // the first one created it
		if !c.mayBeUnknown[kid] && !byHand {
			report(n, "a live token of the good key %s: %s, at an instance that is ready to verify", short(kid), e.result)
		}
	}
}

// knownBeforeItSigns (I2): every instance in sync has the key that another instance signs with.
func (c *checker) knownBeforeItSigns(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind == evKnows && !c.beyondS && e.fresh && c.falseReject(e) && !c.mayBeUnknown[c.tokens[e.token].kid] {
			report(n, "an instance in sync does not have key %s, which signs", short(c.tokens[e.token].kid))
		}
	}
}

// revocation (I3): an instance that reaches the store rejects a revoked key within one poll. Any
// other instance rejects it Dwell + SignFor + MaxTokenTTL + Leeway after its revocation, unless the
// store lost the revocation. For an imported key, the longest life of its tokens takes the place of
// MaxTokenTTL.
func (c *checker) revocation(report func(int, string, ...any)) {
	c.acceptedEnds(report)
	soon := c.timing.w + 2*c.timing.latency
	for n, e := range c.events {
		if e.kind != evVerify || e.result != ok {
			continue
		}
		kid := c.tokens[e.token].kid
		late := c.policy.Dwell + c.policy.SignFor + cmp.Or(c.longest[kid], c.policy.MaxTokenTTL) + c.policy.Leeway + 2*c.policy.ClockSkew
		known, there := c.revocationStored[kid].at(e.at)
		switch {
		case !there:
		case e.at-known.from > soon && e.reach > soon && !c.beyondS:
			report(n, "key %s was revoked at %v, the instance is in reach", short(kid), known.from)
		case e.at-known.from > late && len(c.revocationStored[kid]) == 1 && !c.isUnsafe(e.at): // not in a split: an instance in sync with the losing side does not hear of it
			report(n, "key %s was revoked at %v, longer than D + SignFor + L + leeway ago", short(kid), known.from)
		}
	}
}

// retention (I4): an instance verifies the tokens that it signed until they expire, even if its
// clock is wrong.
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
			continue // the token had expired; the instance's clock was set back
		}
		if t.signer == e.inst && !c.isUnsafe(e.at) && !c.isUnsafe(t.at) {
			report(n, "its own live token: %s", e.result)
		}
	}
}

// oneSigner (I5): after a scheduled switch the key before signs for ClockSkew at most, because
// clocks may differ by that much. After a promotion, a revocation, a merge or a loss it may sign
// for Dwell + SignFor: an instance that was cut off, or that an old primary keeps in sync, does not
// know of the change. A key that waits signs only once it was promoted.
func (c *checker) oneSigner(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind == evSign && e.result == ok && e.at < c.promoted[c.tokens[e.token].kid] {
			report(n, "key %s waits for a promotion, and signs", short(c.tokens[e.token].kid))
		}
	}
	if c.beyondS {
		return
	}
	first := make(map[string]map[string]time.Duration) // tenant, kid -> when it first signed
	for n, e := range c.events {
		if e.commit != nil {
			for _, kid := range e.commit.facts[ring.FactRepublished] {
				delete(first[e.tenant], kid) // it takes effect a second time
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
		switch {
		case had:
		case c.slid(kid, e.at): // not yet: this instance has not heard that it was republished
			continue
		default:
			first[e.tenant][kid] = e.at
			continue
		}
		for other, at := range first[e.tenant] {
			if at <= mine || c.seq[other] <= c.seq[kid] || e.at-at <= c.policy.ClockSkew || c.startedByMistake(other, at, e.at) {
				continue
			}
			since, disturbed := c.disturbed(e.tenant, e.at)
			allowed := c.policy.Dwell + c.policy.SignFor + c.policy.ClockSkew + c.timing.w + c.timing.latency
			if !disturbed || e.at > max(since, at)+allowed {
				report(n, "key %s signs, and %s, which came after it, has been signing since %v", short(kid), short(other), at)
			}
		}
	}
}

// startedByMistake reports whether a key that began to sign should not sign at t. There are three
// ways. It was revoked just before it took effect, and a clock was ahead. It was republished, and
// the instance that signs with it had not heard of that. Or the store lost it, or its promotion.
func (c *checker) startedByMistake(kid string, began, t time.Duration) bool {
	if at, is := c.revoked[kid]; is && at <= t && at-began <= c.policy.ClockSkew {
		return true
	}
	slid := func(at time.Duration) bool { return at <= t && began < at+c.policy.Propagation }
	_, lost := c.lost[kid].at(t)
	_, demoted := c.promotionLost[kid].at(t)
	return lost || demoted || slices.ContainsFunc(c.republished[kid], slid)
}

// slid reports whether a key was republished less than Propagation before t.
func (c *checker) slid(kid string, t time.Duration) bool {
	return slices.ContainsFunc(c.republished[kid], func(at time.Duration) bool { return at <= t && t < at+c.policy.Propagation })
}

// disturbed returns when, before t, the tenant's ring was last changed other than by a mint, or the
// store last lost data. The creation of the ring does not count.
func (c *checker) disturbed(tenant string, t time.Duration) (last time.Duration, any bool) {
	for _, times := range [][]time.Duration{c.changes[tenant], c.lossTimes} {
		for i, at := range times {
			create := i == 0 && len(times) > 0 && &times[0] == &c.changes[tenant][0]
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

// oneMint (I6): in one life of the store, a seq is minted once.
func (c *checker) oneMint(report func(int, string, ...any)) {
	type place struct {
		tenant  string
		seq     int
		life    int
		primary bool
		edits   int // edits of the ring before: each begins another life of the store
		ring    int // the life of the ring
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
			p := place{e.tenant, seq, e.commit.Life, e.commit.Primary, edits[e.tenant], e.commit.lives[kid]}
			if other, ok := minted[p]; ok {
				report(n, "seq %d is minted a second time: %s, after %s", seq, short(kid), short(other))
			}
			minted[p] = kid
		}
	}
}

// mints reports whether a change adds new keys.
func mints(c *commit) bool { return c.Op != ring.OpMerge && len(c.keys) > 0 }

// repaired reports whether an audit was made long enough after the last fault that the store should
// have everything back. An instance that lacks the KEK of the ring restores nothing.
func (c *checker) repaired(e event) bool {
	return e.kind == evAudit && !errors.Is(e.err, rotation.ErrWrongKEK) && e.reach > c.timing.repairedIn() && e.audit.sinceLoss > c.timing.repairedIn() && !c.beyondS
}

// noOrphan (I7): two polls after a fault has ended, the store has every key that an instance holds.
func (c *checker) noOrphan(report func(int, string, ...any)) {
	shredded := make(map[string]time.Duration) // tenant -> when every instance has heard that its ring was destroyed
	for n, e := range c.events {
		if e.commit != nil && e.commit.dead > 0 {
			shredded[e.tenant] = e.at + c.timing.repairedIn()
		}
		// An instance holds the keys of a shredded ring until its next poll.
		if !c.repaired(e) || e.audit.sinceEdit != time.Hour || e.at < shredded[e.tenant] {
			continue
		}
		for _, k := range e.audit.keys {
			if k.Verifies() && !e.audit.fields["k:"+k.KID] {
				report(n, "the store lacks key %s, which an instance holds", short(k.KID))
			}
		}
		c.acceptedStored(n, e, report)
	}
	c.noneReturns(report)
}

// noneReturns (I7): no instance writes back a key of a life that has ended, while the store says so, or
// once it has known so itself.
func (c *checker) noneReturns(report func(int, string, ...any)) {
	stored := make(map[string]int) // tenant -> how many lives have ended, as the store has it
	type copy struct {
		inst   int
		tenant string
	}
	knows := make(map[copy]int)
	for n, e := range c.events {
		switch {
		case e.loss != nil && e.tenant == "":
			for _, tenant := range e.loss.dead {
				stored[tenant] = 0
			}
		case e.loss != nil:
			stored[e.tenant] = 0 // an edit may have removed it
		case e.kind == evAudit:
			knows[copy{e.inst, e.tenant}] = max(knows[copy{e.inst, e.tenant}], e.audit.lives)
		case e.commit != nil:
			least := knows[copy{e.inst, e.tenant}]
			if e.commit.Primary {
				least = max(least, stored[e.tenant], e.commit.dead)
				stored[e.tenant] = max(stored[e.tenant], e.commit.dead)
			}
			for kid, life := range e.commit.lives {
				if life < least {
					report(n, "key %s of life %d is written, and %d lives of the ring have ended", short(kid), life, least)
				}
			}
		}
	}
}

// revocationStays (I8): while an instance lives that knows of a revocation or a shred, the store has it,
// and that instance does not accept the key again.
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
		for kid, life := range c.lifeOf[e.tenant] {
			knows[fact{e.inst, kid}] = knows[fact{e.inst, kid}] || life < e.audit.lives
		}
		if c.repaired(e) && e.audit.sinceEdit == time.Hour && e.audit.dated && !e.audit.fields["dead"] {
			report(n, "the store lacks that %d lives of the ring have ended, which an instance knows", e.audit.lives)
		}
		for _, kid := range e.audit.revoked() {
			knows[fact{e.inst, kid}] = true
			if c.repaired(e) && e.audit.sinceEdit == time.Hour && !e.audit.fields["x:"+kid] {
				report(n, "the store lacks the revocation of key %s, which an instance knows", short(kid))
			}
		}
	}
}

// tenantsApart (I9): no tenant accepts another tenant's token. The key of a kid is not even found.
func (c *checker) tenantsApart(report func(int, string, ...any)) {
	for n, e := range c.events {
		if e.kind != evVerify {
			continue
		}
		if t := c.tokens[e.token]; e.tenant != t.tenant && (e.result == ok || e.result == badSig && !t.noKID) {
			report(n, "a token of tenant %s finds a key", t.tenant)
		}
	}
}

// noMintOnDoubt (I10): no instance mints while it is recovering, or where a field of the ring
// cannot be opened. And none creates a ring if an instance in reach holds one.
func (c *checker) noMintOnDoubt(report func(int, string, ...any)) {
	for n, e := range c.events {
		switch {
		case e.commit == nil || !mints(e.commit) && e.commit.Op != ring.OpAccept:
		case e.commit.unreadable:
			report(n, "minted where a field cannot be opened")
		case founds(e.commit.Op) && e.commit.holder != "" && !c.isUnsafe(e.at):
			report(n, "a ring is created, although %s has one and is in reach", e.commit.holder)
		case !founds(e.commit.Op) && e.commit.doubt:
			report(n, "minted while recovering")
		}
	}
}

// progress (I11): an instance in sync can sign. There are two exceptions: while the ring waits
// after a forced revocation, and until a merge or revocation is confirmed. A rotation or promotion, even
// by force, is none: the key before signs until the promoted one is old enough.
func (c *checker) progress(report func(int, string, ...any)) {
	p := c.policy
	waits := make(map[string]time.Duration)    // tenant -> until when the ring may have no signer
	unsure := make(map[string]time.Duration)   // tenant -> until when a revocation may be unconfirmed, or a restored key too new to sign
	forced := make(map[string][]time.Duration) // tenant -> when a key was forced to sign
	for n, e := range c.events {
		if e.commit != nil && founds(e.commit.Op) {
			waits[e.tenant] = e.at + p.ClockSkew + c.timing.deadline // the first key takes effect by the store's clock
		}
		if e.commit != nil && e.commit.Op == ring.OpRevoke && mints(e.commit) {
			waits[e.tenant] = e.at + p.HeardWithin() + p.ReaderStaleness + 3*(p.ClockSkew+c.timing.deadline)
		}
		if e.commit != nil && e.commit.Op == ring.OpMerge && len(e.commit.facts[ring.FactRevoked]) > 0 { // the revoked key may be the signing one here, although it was not where it was revoked
			waits[e.tenant] = max(waits[e.tenant], e.at+p.HeardWithin()+p.ReaderStaleness+3*(p.ClockSkew+c.timing.deadline))
		}
		if e.commit != nil && len(e.commit.facts[ring.FactRepublished]) > 0 &&
			(e.at <= waits[e.tenant] || len(e.commit.facts[ring.FactRevoked]) > 0) { // the key that should sign next was lost with the revocation
			waits[e.tenant] = e.at + p.Propagation + 3*(p.ClockSkew+c.timing.deadline)
		}
		if e.commit != nil && !slices.Contains([]ring.Op{ring.OpMint, ring.OpCollect, ring.OpRotate, ring.OpPromote, ring.OpAccept}, e.commit.Op) {
			unsure[e.tenant] = e.at + p.Freshness + p.Dwell + 2*(p.ClockSkew+c.timing.deadline) + p.ClockSkew + c.timing.latency
		}
		if e.commit != nil && len(e.commit.facts[ring.FactForced]) > 0 {
			forced[e.tenant] = append(forced[e.tenant], e.at)
		}
		if e.kind != evSign || e.result == ok || !e.fresh || c.beyondS {
			continue
		}
		switch {
		case e.at <= waits[e.tenant]:
		case e.result == fenced && e.at <= unsure[e.tenant]:
		case e.result == fenced && e.reach < c.timing.w+c.timing.latency && slices.ContainsFunc(forced[e.tenant], func(at time.Duration) bool { return c.cutOffInPlace(at, e.at) }):
		case e.result == noSigner && (c.expired(e) || c.forgotten(e) || len(e.audit.keys) == 0 && e.audit.lives > 0): // or the ring was destroyed
		default:
			report(n, "an instance in sync cannot sign: %v", e.err)
		}
	}
}

// cutOffInPlace reports whether an instance that is cut off, or has not polled since, and signed in
// place of a key that was forced to sign at a moment, may have stopped that although it is in sync at t. That is so where the
// policy has a SignFor below Freshness + Dwell + ClockSkew: the last good sync has not confirmed the forced key.
func (c *checker) cutOffInPlace(forced, t time.Duration) bool {
	p, slack := c.policy, 2*c.policy.ClockSkew+c.timing.latency
	return t >= forced+p.SignFor-slack && t <= forced+p.Freshness+p.Dwell+slack
}

// expired reports whether the last key of a ring has reached its SignUntil, and no instance could
// rotate the keys: those that rotate could not reach the store, or the ring had been edited. A key
// with Hold has no such end.
func (c *checker) expired(e event) bool {
	end := false
	for _, k := range e.audit.keys {
		if k.State == ring.Retired {
			end = !k.Hold && !c.start.Add(e.at+c.policy.ClockSkew).Before(k.SignUntil)
		}
	}
	spoilt := slices.ContainsFunc(c.edited[e.tenant], func(at time.Duration) bool { return at <= e.at })
	return end && (spoilt || e.holder == "")
}

// forgotten reports whether the ring was edited, and all keys that are left take effect later: the
// instances that held the other keys have ended.
func (c *checker) forgotten(e event) bool {
	effective := func(k ring.Key) bool { return !k.ActivatesAt.After(c.start.Add(e.at)) }
	return len(c.edited[e.tenant]) > 0 && c.edited[e.tenant][0] <= e.at && !slices.ContainsFunc(e.audit.keys, effective)
}

// editsNoticed (I12): if a writer without the KEK deletes a field of a ring, or puts an old one in
// its place, the store has the field back within Freshness and two polls.
func (c *checker) editsNoticed(report func(int, string, ...any)) {
	for n, e := range c.events {
		if !c.repaired(e) || e.audit.sinceEdit == time.Hour || e.audit.sinceEdit <= c.policy.Freshness+c.timing.repairedIn() {
			continue
		}
		if e.reach <= c.policy.Freshness+c.timing.repairedIn() {
			continue
		}
		for _, k := range e.audit.keys {
			if k.Verifies() && !e.audit.fields["k:"+k.KID] {
				report(n, "the ring was edited %v ago, and the store still lacks key %s", e.audit.sinceEdit, short(k.KID))
			}
		}
		for _, kid := range e.audit.revoked() {
			if !e.audit.fields["x:"+kid] {
				report(n, "the ring was edited %v ago, and the store still lacks the revocation of key %s", e.audit.sinceEdit, short(kid))
			}
		}
		c.acceptedStored(n, e, report)
		if e.audit.dated && !e.audit.fields["dead"] {
			report(n, "the ring was edited %v ago, and the store still lacks that it was destroyed", e.audit.sinceEdit)
		}
	}
}

// revocationHolds (I13): while an instance in reach of the store knows that a key is revoked, no
// other instance in reach accepts the key for longer than two polls, whatever is removed from the
// ring. Only the loss of what the store has acknowledged excuses it, until the first one has restored
// the revocation.
func (c *checker) revocationHolds(report func(int, string, ...any)) {
	for n, e := range c.events {
		lost := func(at time.Duration) bool { return at <= e.at && e.at <= at+c.timing.repairedIn() }
		if e.kind != evVerify || e.result != ok || e.holder == "" || c.beyondS || c.isUnsafe(e.at) || slices.ContainsFunc(c.storeLosses, lost) {
			continue
		}
		if kid := c.tokens[e.token].kid; e.reach > c.timing.repairedIn() {
			report(n, "key %s is accepted, and %s has known for long that it is revoked", short(kid), e.holder)
		}
	}
}
