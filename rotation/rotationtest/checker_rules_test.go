package rotationtest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A checker that finds nothing may be blind. These tests show each rule a history that breaks it,
// and a history that just keeps it.

const sec = time.Second

// A script writes a history by hand. It has one tenant and two instances.
type script struct{ *history }

func newScript() script {
	h := &history{policy: fast.WithDefaults(), start: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		timing: timing{poll, deadline, pollFor, 50 * time.Millisecond}, instances: []string{"i0", "i1"}}
	sc := script{h}
	sc.commit(0, ring.OpCreate, "one#1", "two#2")
	return sc
}

// commit adds a change: "two#2" is a new record with seq 2, "x:two" a fact (key two is revoked),
// "-two" a removal.
func (h script) commit(at time.Duration, op ring.Op, what ...string) *commit {
	c := &commit{Commit: rotationtest.Commit{Change: rotation.Change{Op: op}, Instance: "i0", Primary: true},
		keys: make(map[string]int), lives: make(map[string]int), facts: make(map[ring.FactKind][]string), longest: make(map[string]time.Duration)}
	for _, w := range what {
		if w == "dead" {
			c.dead, c.ends = 1, []string{"one", "two"}
		} else if kid, seq, ok := strings.Cut(w, "#"); ok {
			c.keys[kid], c.lives[kid] = int(seq[0]-'0'), len(seq)-1 // "#1'" is of the second life
		} else if kid, ok := strings.CutPrefix(w, "-"); ok {
			c.removed = append(c.removed, kid)
		} else {
			c.facts[ring.FactKind(w[0])] = append(c.facts[ring.FactKind(w[0])], w[2:])
		}
	}
	h.events = append(h.events, event{at: at, kind: evCommit, tenant: "t", token: -1, commit: c})
	return c
}

// sign adds a token that an instance signs with a key.
func (h script) sign(at time.Duration, inst int, kid string) int {
	h.tokens = append(h.tokens, token{tenant: "t", kid: kid, signer: inst, at: at, exp: h.start.Add(at + h.policy.MaxTokenTTL)})
	h.events = append(h.events, event{at: at, kind: evSign, inst: inst, tenant: "t", token: len(h.tokens) - 1, result: ok})
	return len(h.tokens) - 1
}

// note adds another event at an instance that is in sync and in reach. The caller may change it.
func (h script) note(at time.Duration, k eventKind, inst, tok int, result outcome) *event {
	h.events = append(h.events, event{at: at, kind: k, inst: inst, tenant: "t", token: tok, result: result, fresh: true, reach: at})
	return &h.events[len(h.events)-1]
}

// audit adds an audit: the instance holds key two in a state, and the store has the fields.
func (h script) audit(at time.Duration, inst int, state ring.State, fields ...string) *event {
	e := h.note(at, evAudit, inst, -1, "")
	e.audit = &audit{keys: []ring.Key{{Record: ring.Record{KID: "two"}, State: state}}, fields: make(map[string]bool),
		sinceLoss: time.Hour, sinceEdit: time.Hour}
	for _, f := range fields {
		e.audit.fields[f] = true
	}
	return e
}

// shredded adds an audit: the instance knows that the ring was destroyed, and the store has the fields.
func (h script) shredded(at time.Duration, inst int, fields ...string) *event {
	e := h.audit(at, inst, ring.Pending, fields...)
	e.audit.keys, e.audit.lives, e.audit.dated = nil, 1, true
	return e
}

// A ruleCase is a history, and the rule that it breaks.
type ruleCase struct {
	name string
	want string // the rule, or "" for none
	play func(h script)
}

func runRuleCases(t *testing.T, cases []ruleCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			h := newScript()
			tt.play(h)
			var broken []string
			for _, v := range check(h.history) {
				name, _, _ := strings.Cut(v.rule, " ")
				broken = append(broken, name)
			}
			if tt.want == "" && len(broken) > 0 || tt.want != "" && !slices.Contains(broken, tt.want) {
				t.Errorf("the rules that are broken: %q, want %q", broken, tt.want)
			}
		})
	}
}

// TestReadyRules tests the rule about instances that are ready to verify: I15.
func TestReadyRules(t *testing.T) {
	runRuleCases(t, []ruleCase{
		{"a stale instance that is ready cannot tell", "I15", func(h script) {
			e := h.note(40*sec, evVerify, 1, h.sign(39*sec, 0, "two"), unavailable)
			e.fresh, e.ready = false, true
		}},
		{"an operator has changed the ring since", "", func(h script) {
			h.commit(30*sec, ring.OpPromote, "a:two")
			e := h.note(31*sec, evVerify, 1, h.sign(30500*time.Millisecond, 0, "two"), unavailable)
			e.fresh, e.ready = false, true
		}},
	})
}

// TestVerdictRules tests the rules about verdicts on tokens: I1, I2 and I4.
func TestVerdictRules(t *testing.T) {
	const ms = time.Millisecond
	runRuleCases(t, []ruleCase{
		{"an instance in sync refuses", "I1", func(h script) { h.note(8*sec, evVerify, 1, h.sign(7*sec, 0, "two"), notFound) }},
		{"an instance in sync cannot tell", "I1", func(h script) { h.note(8*sec, evVerify, 1, h.sign(7*sec, 0, "two"), unavailable) }},
		{"a stale instance refuses", "I1", func(h script) { h.note(8*sec, evVerify, 1, h.sign(7*sec, 0, "two"), notFound).fresh = false }},
		{"a stale instance cannot tell", "", func(h script) { h.note(8*sec, evVerify, 1, h.sign(7*sec, 0, "two"), unavailable).fresh = false }},
		{"the first key, and the store is out of reach", "", func(h script) { h.note(2*sec, evVerify, 1, h.sign(1*sec, 0, "one"), unavailable).reach = -1 }},
		{"the first key, and the store is in reach", "I1", func(h script) { h.note(3*sec, evVerify, 1, h.sign(1*sec, 0, "one"), unavailable) }},
		{"the key is revoked", "", func(h script) {
			n := h.sign(7*sec, 0, "two")
			h.commit(7500*ms, ring.OpRevoke, "x:two")
			h.note(8*sec, evVerify, 1, n, notFound)
		}},
		{"a forced key, out of reach", "", func(h script) {
			h.commit(1*sec, ring.OpPromote, "a:two", "f:two")
			h.note(2*sec, evVerify, 1, h.sign(1500*ms, 0, "two"), unavailable).reach = -1
		}},
		{"a key that was stored for longer than Dwell is lost, and no holder is in reach", "", func(h script) {
			n := h.sign(7*sec, 0, "two")
			h.note(7500*ms, evLoss, -1, -1, "").loss = &loss{keys: map[string]time.Duration{"two": 0}}
			h.note(8*sec, evVerify, 1, n, notFound)
		}},
		{"a key that was stored for longer than Dwell is lost, and a holder is in reach", "I1", func(h script) {
			n := h.sign(7*sec, 0, "two")
			h.note(7500*ms, evLoss, -1, -1, "").loss = &loss{keys: map[string]time.Duration{"two": 0}}
			h.note(8*sec, evVerify, 1, n, notFound).holder = "i0"
		}},
		{"a key is lost within Dwell", "I1", func(h script) {
			h.commit(6500*ms, ring.OpMint, "three#3")
			n := h.sign(7*sec, 0, "three")
			h.note(7400*ms, evLoss, -1, -1, "").loss = &loss{keys: map[string]time.Duration{"three": 6500 * ms}}
			h.note(8*sec, evVerify, 1, n, notFound)
		}},
		{"an instance in sync does not know the signing key", "I2", func(h script) { h.note(7*sec, evKnows, 1, h.sign(7*sec, 0, "two"), unavailable) }},
		{"a stale instance does not know it", "", func(h script) { h.note(7*sec, evKnows, 1, h.sign(7*sec, 0, "two"), unavailable).fresh = false }},
		{"its own token, while stale and with a wrong clock", "I4", func(h script) {
			h.beyondS = true
			h.note(8*sec, evVerify, 0, h.sign(7*sec, 0, "two"), unavailable).fresh = false
		}},
	})
}

// TestRevocationVerdictRules tests the rules about verdicts on tokens of revoked keys: I3 and I13.
func TestRevocationVerdictRules(t *testing.T) {
	const ms = time.Millisecond
	runRuleCases(t, []ruleCase{
		{"revoked, and accepted after a poll", "I3", func(h script) {
			n := h.sign(6*sec, 0, "two")
			h.commit(7*sec, ring.OpRevoke, "x:two")
			h.note(7900*ms, evVerify, 1, n, ok)
		}},
		{"revoked, and accepted within a poll", "", func(h script) {
			n := h.sign(6*sec, 0, "two")
			h.commit(7*sec, ring.OpRevoke, "x:two")
			h.note(7800*ms, evVerify, 1, n, ok)
		}},
		{"revoked, and accepted for too long out of reach", "I3", func(h script) {
			h.commit(7*sec, ring.OpRevoke, "x:two")
			h.note(7*sec+8600*ms, evVerify, 1, h.sign(13*sec, 1, "two"), ok).reach = -1
		}},
		{"imported and revoked, and accepted for as long as its tokens live", "", func(h script) {
			c := h.commit(6*sec, ring.OpAdopt, "old#1")
			c.Life, c.longest["old"] = 1, 8*sec
			h.commit(7*sec, ring.OpRevoke, "x:old")
			h.note(7*sec+13400*ms, evVerify, 1, h.sign(10900*ms, 1, "old"), ok).reach = -1
		}},
		{"imported and revoked, and accepted for longer", "I3", func(h script) {
			c := h.commit(6*sec, ring.OpAdopt, "old#1")
			c.Life, c.longest["old"] = 1, 8*sec
			h.commit(7*sec, ring.OpRevoke, "x:old")
			h.note(7*sec+13600*ms, evVerify, 1, h.sign(10900*ms, 1, "old"), ok).reach = -1
		}},
		{"revoked, and accepted out of reach", "", func(h script) {
			h.commit(7*sec, ring.OpRevoke, "x:two")
			h.note(7*sec+8400*ms, evVerify, 1, h.sign(10900*ms, 1, "two"), ok).reach = -1
		}},
		{"revoked, and another one in reach knows it", "I13", func(h script) {
			h.note(9*sec, evVerify, 1, h.sign(7*sec, 0, "two"), ok).holder = "i0"
		}},
		{"just in reach", "", func(h script) {
			e := h.note(9*sec, evVerify, 1, h.sign(7*sec, 0, "two"), ok)
			e.holder, e.reach = "i0", 1600*ms
		}},
		{"the store has just lost what it had", "", func(h script) {
			n := h.sign(7*sec, 0, "two")
			h.note(7500*ms, evLoss, -1, -1, "").tenant = ""
			h.events[len(h.events)-1].loss = &loss{}
			h.note(9*sec, evVerify, 1, n, ok).holder = "i0"
		}},
		{"a writer has removed it", "I13", func(h script) {
			n := h.sign(7*sec, 0, "two")
			h.note(8900*ms, evLoss, -1, -1, "").loss = &loss{revoked: []string{"two"}}
			h.note(9*sec, evVerify, 1, n, ok).holder = "i0"
		}},
	})
}

// TestShredVerdictRules tests I3 where a ring is destroyed.
func TestShredVerdictRules(t *testing.T) {
	const ms = time.Millisecond
	runRuleCases(t, []ruleCase{
		{"destroyed, and accepted after a poll", "I3", func(h script) {
			n := h.sign(6*sec, 0, "two")
			h.commit(7*sec, ring.OpDestroy, "dead")
			h.note(7900*ms, evVerify, 1, n, ok)
		}},
		{"destroyed, and refused", "", func(h script) {
			n := h.sign(6*sec, 0, "two")
			h.commit(7*sec, ring.OpDestroy, "dead")
			h.note(7900*ms, evVerify, 1, n, notFound)
		}},
	})
}

// TestSignerRules tests the rules about signers and mints: I5 and I6.
func TestSignerRules(t *testing.T) {
	const ms = time.Millisecond
	runRuleCases(t, []ruleCase{
		{"two signers for longer than ClockSkew", "I5", func(h script) {
			h.sign(5*sec, 1, "one")
			h.sign(6*sec, 0, "two")
			h.sign(6*sec+251*ms, 1, "one")
		}},
		{"two signers for ClockSkew", "", func(h script) {
			h.sign(5*sec, 1, "one")
			h.sign(6*sec, 0, "two")
			h.sign(6*sec+250*ms, 1, "one")
		}},
		{"two signers for SignFor and Dwell after a promotion", "", func(h script) {
			h.sign(2*sec, 1, "one")
			h.commit(3*sec, ring.OpPromote, "a:two")
			h.sign(3*sec, 0, "two")
			h.sign(7*sec, 1, "one")
		}},
		{"two signers for longer after a promotion", "I5", func(h script) {
			h.sign(2*sec, 1, "one")
			h.commit(3*sec, ring.OpPromote, "a:two")
			h.sign(3*sec, 0, "two")
			h.sign(8100*ms, 1, "one")
		}},
		{"a key that waits signs", "I5", func(h script) {
			h.commit(5*sec, ring.OpMint, "three#3").waits = []string{"three"}
			h.sign(8*sec, 0, "three")
		}},
		{"a key that waited signs", "", func(h script) {
			h.commit(5*sec, ring.OpMint, "three#3").waits = []string{"three"}
			h.commit(7*sec, ring.OpPromote, "a:three")
			h.sign(8*sec, 0, "three")
		}},
		{"a seq twice", "I6", func(h script) {
			h.commit(6*sec, ring.OpMint, "three#3")
			h.commit(7*sec, ring.OpMint, "other#3")
		}},
		{"a seq twice, in two lives of the ring", "", func(h script) { h.commit(6*sec, ring.OpCreate, "new#1'", "next#2'") }},
		{"a seq twice, in two lives", "", func(h script) {
			h.commit(6*sec, ring.OpMint, "three#3")
			h.commit(7*sec, ring.OpMint, "other#3").Life = 1
		}},
		{"a seq twice, by a merge", "", func(h script) {
			h.commit(6*sec, ring.OpMint, "three#3")
			h.commit(7*sec, ring.OpMerge, "other#3")
		}},
	})
}

// TestStoreRules tests the rules about the store and the tenants: I7 to I10.
func TestStoreRules(t *testing.T) {
	const ms = time.Millisecond
	runRuleCases(t, []ruleCase{
		{"the store lacks a key", "I7", func(h script) { h.audit(9*sec, 1, ring.Pending, "k:one") }},
		{"the store lacks a key just after a loss", "", func(h script) { h.audit(9*sec, 1, ring.Pending, "k:one").audit.sinceLoss = sec }},
		{"the store lacks a key, out of reach", "", func(h script) { h.audit(9*sec, 1, ring.Pending, "k:one").reach = sec }},
		{"a dropped key", "", func(h script) { h.audit(9*sec, 1, ring.Dropped, "k:one") }},
		{"a revocation that the store lacks", "I8", func(h script) { h.audit(9*sec, 1, ring.Revoked, "k:two") }},
		{"a revocation that the store has", "", func(h script) { h.audit(9*sec, 1, ring.Revoked, "x:two") }},
		{"an instance forgets a revocation", "I8", func(h script) {
			h.audit(6*sec, 1, ring.Revoked, "x:two")
			h.note(6100*ms, evVerify, 1, h.sign(6*sec, 0, "two"), ok)
		}},
		{"another tenant accepts", "I9", func(h script) { h.note(7*sec, evVerify, 1, h.sign(6*sec, 0, "two"), ok).tenant = "other" }},
		{"another tenant has a key for tokens without a kid", "", func(h script) {
			n := h.sign(6*sec, 0, "two")
			h.tokens[n].noKID = true
			h.note(7*sec, evVerify, 1, n, badSig).tenant = "other"
		}},
		{"another tenant accepts one without a kid", "I9", func(h script) {
			n := h.sign(6*sec, 0, "two")
			h.tokens[n].noKID = true
			h.note(7*sec, evVerify, 1, n, ok).tenant = "other"
		}},
		{"another tenant refuses", "", func(h script) { h.note(7*sec, evVerify, 1, h.sign(6*sec, 0, "two"), notFound).tenant = "other" }},
		{"destroyed, and the store lacks it", "I8", func(h script) { h.shredded(9*sec, 1) }},
		{"destroyed, and the store has it", "", func(h script) { h.shredded(9*sec, 1, "dead") }},
		{"destroyed, and the store lost it just now", "", func(h script) { h.shredded(9*sec, 1).audit.sinceLoss = sec }},
		{"destroyed, and the instance does not know when", "", func(h script) { h.shredded(9*sec, 1).audit.dated = false }},
		{"an instance forgets that the ring was destroyed", "I8", func(h script) {
			h.shredded(6*sec, 1, "dead")
			h.note(6100*ms, evVerify, 1, h.sign(6*sec, 0, "two"), ok)
		}},
		{"a key of a life that has ended is written back", "I7", func(h script) {
			h.commit(6*sec, ring.OpDestroy, "dead")
			h.commit(7*sec, ring.OpMerge, "two#2")
		}},
		{"a key of the next life is written", "", func(h script) {
			h.commit(6*sec, ring.OpDestroy, "dead")
			h.commit(7*sec, ring.OpCreate, "new#1'", "next#2'")
		}},
		{"who knows of the shred writes a key back, after a loss", "I7", func(h script) {
			h.commit(6*sec, ring.OpDestroy, "dead")
			h.shredded(6500*ms, 0, "dead")
			h.events = append(h.events, event{at: 7 * sec, kind: evLoss, inst: -1, loss: &loss{dead: []string{"t"}, revoked: []string{"one", "two"}}})
			h.commit(8*sec, ring.OpMerge, "two#2")
		}},
		{"one that does not know of it writes a key back, after a loss", "", func(h script) {
			h.commit(6*sec, ring.OpDestroy, "dead")
			h.events = append(h.events, event{at: 7 * sec, kind: evLoss, inst: -1, loss: &loss{dead: []string{"t"}, revoked: []string{"one", "two"}}})
			h.commit(8*sec, ring.OpMerge, "two#2")
		}},
		{"a mint while recovering", "I10", func(h script) { h.commit(6*sec, ring.OpMint, "three#3").doubt = true }},
		{"a mint beside a field that cannot be opened", "I10", func(h script) { h.commit(6*sec, ring.OpMint, "three#3").unreadable = true }},
		{"a merge over a field that cannot be opened", "", func(h script) { h.commit(6*sec, ring.OpMerge, "three#3").unreadable = true }},
		{"a merge while recovering", "", func(h script) { h.commit(6*sec, ring.OpMerge, "three#3").doubt = true }},
		{"a key is imported although an instance holds a ring", "I10", func(h script) {
			c := h.commit(6*sec, ring.OpAdopt, "new#1")
			c.Life, c.holder = 1, "i1"
		}},
		{"a ring is created although an instance holds one", "I10", func(h script) {
			c := h.commit(6*sec, ring.OpCreate, "new#1")
			c.Life, c.holder = 1, "i1"
		}},
	})
}

// TestProgressRules tests the rules about progress and edits: I11 and I12.
func TestProgressRules(t *testing.T) {
	runRuleCases(t, []ruleCase{
		{"an instance in sync cannot sign", "I11", func(h script) { h.note(6*sec, evSign, 1, -1, noSigner).audit = &audit{} }},
		{"the ring was destroyed", "", func(h script) { h.note(6*sec, evSign, 1, -1, noSigner).audit = &audit{lives: 1} }},
		{"a key with Hold ends by its date", "I11", func(h script) {
			e := h.note(30*sec, evSign, 1, -1, noSigner)
			e.audit = &audit{keys: []ring.Key{{Record: ring.Record{KID: "one", Hold: true, SignUntil: h.start.Add(9 * sec)}, State: ring.Retired}}}
		}},
		{"another key ends by its date, and none rotates", "", func(h script) {
			e := h.note(30*sec, evSign, 1, -1, noSigner)
			e.audit = &audit{keys: []ring.Key{{Record: ring.Record{KID: "one", SignUntil: h.start.Add(9 * sec)}, State: ring.Retired}}}
		}},
		{"a stale instance cannot sign", "", func(h script) { h.note(6*sec, evSign, 1, -1, fenced).fresh = false }},
		{"a forced revocation waits", "", func(h script) {
			h.commit(5*sec, ring.OpRevoke, "x:one", "three#3")
			h.note(7*sec, evSign, 1, -1, noSigner).audit = &audit{}
		}},
		{"a forced revocation waits for too long", "I11", func(h script) {
			h.commit(1*sec, ring.OpRevoke, "x:one", "three#3")
			h.note(7*sec, evSign, 1, -1, noSigner).audit = &audit{}
		}},
		{"a deleted ring stays deleted", "I12", func(h script) { h.audit(9*sec, 1, ring.Pending).audit.sinceEdit = 4 * sec }},
		{"a ring was deleted just now", "", func(h script) { h.audit(9*sec, 1, ring.Pending).audit.sinceEdit = 3 * sec }},
	})
}
