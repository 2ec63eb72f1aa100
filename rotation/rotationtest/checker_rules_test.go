package rotationtest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A checker that finds nothing proves nothing: each rule is shown a history that breaks
// it, and one that just does not.

const sec = time.Second

// a script writes a history by hand: of one tenant, and two instances.
type script struct{ *history }

func newScript() script {
	h := &history{policy: fast.WithDefaults(), start: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		timing: timing{poll, deadline, pollFor, 50 * time.Millisecond}, instances: []string{"i0", "i1"}}
	sc := script{h}
	sc.commit(0, rotation.OpCreate, "one#1", "two#2")
	return sc
}

// commit notes a change: "two#2" is a new record, "x:two" a fact, "-two" a removal.
func (h script) commit(at time.Duration, op rotation.Op, what ...string) *commit {
	c := &commit{Commit: rotationtest.Commit{Change: rotation.Change{Op: op}, Instance: "i0", Primary: true},
		keys: make(map[string]int), facts: make(map[rotation.FactKind][]string)}
	for _, w := range what {
		if kid, seq, ok := strings.Cut(w, "#"); ok {
			c.keys[kid] = int(seq[0] - '0')
		} else if kid, ok := strings.CutPrefix(w, "-"); ok {
			c.gone = append(c.gone, kid)
		} else {
			c.facts[rotation.FactKind(w[0])] = append(c.facts[rotation.FactKind(w[0])], w[2:])
		}
	}
	h.events = append(h.events, event{at: at, kind: evCommit, tenant: "t", token: -1, commit: c})
	return c
}

// sign notes that an instance signs with a key.
func (h script) sign(at time.Duration, inst int, kid string) int {
	h.tokens = append(h.tokens, token{tenant: "t", kid: kid, signer: inst, at: at, exp: h.start.Add(at + h.policy.MaxTokenTTL)})
	h.events = append(h.events, event{at: at, kind: evSign, inst: inst, tenant: "t", token: len(h.tokens) - 1, result: ok})
	return len(h.tokens) - 1
}

// note notes anything else, at a fresh instance in reach, for changes to be made.
func (h script) note(at time.Duration, k kind, inst, tok int, result outcome) *event {
	h.events = append(h.events, event{at: at, kind: k, inst: inst, tenant: "t", token: tok, result: result, fresh: true, reach: at})
	return &h.events[len(h.events)-1]
}

// audit notes what an instance holds of key two, and what the store has.
func (h script) audit(at time.Duration, inst int, state rotation.State, fields ...string) *event {
	e := h.note(at, evAudit, inst, -1, "")
	e.audit = &audit{keys: []rotation.RingKey{{Record: rotation.Record{KID: "two"}, State: state}}, fields: make(map[string]bool),
		sinceLoss: time.Hour, sinceEdit: time.Hour}
	for _, f := range fields {
		e.audit.fields[f] = true
	}
	return e
}

func TestRules(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name string
		want string // the rule, or "" for none
		play func(h script)
	}{
		{"a fresh instance refuses", "I1", func(h script) { h.note(8*sec, evVerify, 1, h.sign(7*sec, 0, "two"), notFound) }},
		{"a fresh instance cannot tell", "I1", func(h script) { h.note(8*sec, evVerify, 1, h.sign(7*sec, 0, "two"), unavailable) }},
		{"a stale instance refuses", "I1", func(h script) { h.note(8*sec, evVerify, 1, h.sign(7*sec, 0, "two"), notFound).fresh = false }},
		{"a stale instance cannot tell", "", func(h script) { h.note(8*sec, evVerify, 1, h.sign(7*sec, 0, "two"), unavailable).fresh = false }},
		{"the first key, and the store is out of reach", "", func(h script) { h.note(2*sec, evVerify, 1, h.sign(1*sec, 0, "one"), unavailable).reach = -1 }},
		{"the first key, and the store is in reach", "I1", func(h script) { h.note(3*sec, evVerify, 1, h.sign(1*sec, 0, "one"), unavailable) }},
		{"the key is revoked", "", func(h script) {
			n := h.sign(7*sec, 0, "two")
			h.commit(7500*ms, rotation.OpRevoke, "x:two")
			h.note(8*sec, evVerify, 1, n, notFound)
		}},
		{"a forced key, out of reach", "", func(h script) {
			h.commit(1*sec, rotation.OpPromote, "a:two", "f:two")
			h.note(2*sec, evVerify, 1, h.sign(1500*ms, 0, "two"), unavailable).reach = -1
		}},
		{"a key that the store has lost beyond D, and no holder is in reach", "", func(h script) {
			n := h.sign(7*sec, 0, "two")
			h.note(7500*ms, evLoss, -1, -1, "").loss = &loss{keys: map[string]time.Duration{"two": 0}}
			h.note(8*sec, evVerify, 1, n, notFound)
		}},
		{"a key that the store has lost beyond D, and a holder is in reach", "I1", func(h script) {
			n := h.sign(7*sec, 0, "two")
			h.note(7500*ms, evLoss, -1, -1, "").loss = &loss{keys: map[string]time.Duration{"two": 0}}
			h.note(8*sec, evVerify, 1, n, notFound).holder = "i0"
		}},
		{"a key that the store has lost within D", "I1", func(h script) {
			h.commit(6500*ms, rotation.OpMint, "three#3")
			n := h.sign(7*sec, 0, "three")
			h.note(7400*ms, evLoss, -1, -1, "").loss = &loss{keys: map[string]time.Duration{"three": 6500 * ms}}
			h.note(8*sec, evVerify, 1, n, notFound)
		}},
		{"a fresh instance does not know the signing key", "I2", func(h script) { h.note(7*sec, evKnows, 1, h.sign(7*sec, 0, "two"), unavailable) }},
		{"a stale one does not", "", func(h script) { h.note(7*sec, evKnows, 1, h.sign(7*sec, 0, "two"), unavailable).fresh = false }},
		{"revoked, and accepted after a poll", "I3", func(h script) {
			n := h.sign(6*sec, 0, "two")
			h.commit(7*sec, rotation.OpRevoke, "x:two")
			h.note(7900*ms, evVerify, 1, n, ok)
		}},
		{"revoked, and accepted within a poll", "", func(h script) {
			n := h.sign(6*sec, 0, "two")
			h.commit(7*sec, rotation.OpRevoke, "x:two")
			h.note(7800*ms, evVerify, 1, n, ok)
		}},
		{"revoked, and accepted for too long out of reach", "I3", func(h script) {
			h.commit(7*sec, rotation.OpRevoke, "x:two")
			h.note(7*sec+7600*ms, evVerify, 1, h.sign(13*sec, 1, "two"), ok).reach = -1
		}},
		{"revoked, and accepted out of reach", "", func(h script) {
			h.commit(7*sec, rotation.OpRevoke, "x:two")
			h.note(7*sec+7400*ms, evVerify, 1, h.sign(9900*ms, 1, "two"), ok).reach = -1
		}},
		{"its own token, while stale and beyond S", "I4", func(h script) {
			h.beyondS = true
			h.note(8*sec, evVerify, 0, h.sign(7*sec, 0, "two"), unavailable).fresh = false
		}},
		{"two signers for longer than S", "I5", func(h script) {
			h.sign(5*sec, 1, "one")
			h.sign(6*sec, 0, "two")
			h.sign(6*sec+251*ms, 1, "one")
		}},
		{"two signers for S", "", func(h script) {
			h.sign(5*sec, 1, "one")
			h.sign(6*sec, 0, "two")
			h.sign(6*sec+250*ms, 1, "one")
		}},
		{"two signers for SignFor after a promotion", "", func(h script) {
			h.sign(2*sec, 1, "one")
			h.commit(3*sec, rotation.OpPromote, "a:two")
			h.sign(3*sec, 0, "two")
			h.sign(6*sec, 1, "one")
		}},
		{"two signers for longer after a promotion", "I5", func(h script) {
			h.sign(2*sec, 1, "one")
			h.commit(3*sec, rotation.OpPromote, "a:two")
			h.sign(3*sec, 0, "two")
			h.sign(7100*ms, 1, "one")
		}},
		{"a seq twice", "I6", func(h script) {
			h.commit(6*sec, rotation.OpMint, "three#3")
			h.commit(7*sec, rotation.OpMint, "other#3")
		}},
		{"a seq twice, in two lives", "", func(h script) {
			h.commit(6*sec, rotation.OpMint, "three#3")
			h.commit(7*sec, rotation.OpMint, "other#3").Life = 1
		}},
		{"a seq twice, by a merge", "", func(h script) {
			h.commit(6*sec, rotation.OpMint, "three#3")
			h.commit(7*sec, rotation.OpMerge, "other#3")
		}},
		{"an orphan", "I7", func(h script) { h.audit(9*sec, 1, rotation.Pending, "k:one") }},
		{"an orphan just after a loss", "", func(h script) { h.audit(9*sec, 1, rotation.Pending, "k:one").audit.sinceLoss = sec }},
		{"an orphan out of reach", "", func(h script) { h.audit(9*sec, 1, rotation.Pending, "k:one").reach = sec }},
		{"a dropped key", "", func(h script) { h.audit(9*sec, 1, rotation.Dropped, "k:one") }},
		{"a revocation that the store lacks", "I8", func(h script) { h.audit(9*sec, 1, rotation.Revoked, "k:two") }},
		{"a revocation that the store has", "", func(h script) { h.audit(9*sec, 1, rotation.Revoked, "x:two") }},
		{"a revocation that is forgotten", "I8", func(h script) {
			h.audit(6*sec, 1, rotation.Revoked, "x:two")
			h.note(6100*ms, evVerify, 1, h.sign(6*sec, 0, "two"), ok)
		}},
		{"another tenant accepts", "I9", func(h script) { h.note(7*sec, evVerify, 1, h.sign(6*sec, 0, "two"), ok).tenant = "other" }},
		{"another tenant refuses", "", func(h script) { h.note(7*sec, evVerify, 1, h.sign(6*sec, 0, "two"), notFound).tenant = "other" }},
		{"a mint in doubt", "I10", func(h script) { h.commit(6*sec, rotation.OpMint, "three#3").doubt = true }},
		{"a mint beside what cannot be opened", "I10", func(h script) { h.commit(6*sec, rotation.OpMint, "three#3").spoilt = true }},
		{"a merge over what cannot be opened", "", func(h script) { h.commit(6*sec, rotation.OpMerge, "three#3").spoilt = true }},
		{"a merge in doubt", "", func(h script) { h.commit(6*sec, rotation.OpMerge, "three#3").doubt = true }},
		{"a ring made beside one that is held", "I10", func(h script) {
			c := h.commit(6*sec, rotation.OpCreate, "new#1")
			c.Life, c.holder = 1, "i1"
		}},
		{"a fresh instance cannot sign", "I11", func(h script) { h.note(6*sec, evSign, 1, -1, noSigner).audit = &audit{} }},
		{"a stale one cannot", "", func(h script) { h.note(6*sec, evSign, 1, -1, fenced).fresh = false }},
		{"a forced revocation waits", "", func(h script) {
			h.commit(5*sec, rotation.OpRevoke, "x:one", "three#3")
			h.note(7*sec, evSign, 1, -1, noSigner).audit = &audit{}
		}},
		{"a forced revocation waits for too long", "I11", func(h script) {
			h.commit(1*sec, rotation.OpRevoke, "x:one", "three#3")
			h.note(6*sec, evSign, 1, -1, noSigner).audit = &audit{}
		}},
		{"a deleted ring stays deleted", "I12", func(h script) { h.audit(9*sec, 1, rotation.Pending).audit.sinceEdit = 4 * sec }},
		{"a ring was deleted just now", "", func(h script) { h.audit(9*sec, 1, rotation.Pending).audit.sinceEdit = 3 * sec }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newScript()
			tt.play(h)
			var got []string
			for _, v := range check(h.history) {
				name, _, _ := strings.Cut(v.rule, " ")
				got = append(got, name)
			}
			if tt.want == "" && len(got) > 0 || tt.want != "" && !slices.Contains(got, tt.want) {
				t.Errorf("the rules that are broken: %q, want %q", got, tt.want)
			}
		})
	}
}
