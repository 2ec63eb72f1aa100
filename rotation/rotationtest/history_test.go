package rotationtest_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A history is all that has happened in one simulated cluster. Times are true ones,
// since its start, unless they are said to be an instance's.
type history struct {
	seed    uint64
	policy  rotation.Policy
	timing  timing
	beyondS bool // some clock was further off than S: only I4 and I10 are promised

	mu        sync.Mutex
	start     time.Time
	tokens    []token
	events    []event
	instances []string
	unsafe    []window // of a split without min-replicas
}

// timing is what the bounds of the rules follow from.
type timing struct {
	poll, deadline time.Duration
	w              time.Duration // poll with jitter, and the call's deadline
	latency        time.Duration // of a pass without faults, at most
}

type window struct{ from, to time.Duration }

func (w window) has(t time.Duration) bool { return w.from <= t && t <= w.to }

// A token that somebody has signed.
type token struct {
	tenant, kid string
	signer      int
	at          time.Duration
	issued, exp time.Time // by the signer's clock
	signed      []byte
	sig         []byte
}

type kind byte

const (
	evSign   kind = iota // inst has signed token, or could not
	evVerify             // inst has judged token
	evKnows              // inst has or has not a key to verify token with, without asking the store
	evCommit             // a server has made a change
	evLoss               // a server has lost, or split
	evFault              // something begins or ends: note says what
	evAudit              // what inst and the store hold of a ring
	evOp                 // an operator's command has ended
	evOpen
	evClose
)

// An outcome is a verdict, or why something failed.
type outcome string

const (
	ok          outcome = "ok"
	notFound    outcome = "not found"
	unavailable outcome = "unavailable"
	badSig      outcome = "bad signature"
	fenced      outcome = "fenced"
	noSigner    outcome = "no signer"
	failed      outcome = "failed"
)

// An event is one thing that has happened. Which fields count depends on the kind.
type event struct {
	at     time.Duration
	kind   kind
	inst   int // -1: none
	tenant string
	token  int // -1: none
	result outcome
	err    error
	note   string

	fresh, doubt bool          // of the ring at inst
	reach        time.Duration // for how long inst has been in reach of the store; negative: it is not
	stored       bool          // evVerify, evKnows, not ok: the server of inst has the key
	holder       string        // likewise: who has it, and has been in reach for long enough to put it back; evSign, not ok: who turns keys

	commit *commit
	audit  *audit
	loss   *loss
}

// A commit is a change as a server has made it.
type commit struct {
	rotationtest.Commit
	keys   map[string]int                 // kids that were set, with their seq
	facts  map[rotation.FactKind][]string // kids, by kind
	gone   []string                       // kids
	doubt  bool                           // of the writer's ring, at the write
	spoilt bool                           // the ring that it was decided on cannot be opened
	holder string                         // of a ring that is being created: who has one, and is in reach
}

// A loss is what the store has lost.
type loss struct {
	keys     map[string]time.Duration // kids, with when they came into the store
	revoked  []string                 // kids whose revocation was lost
	promoted []string                 // kids whose promotion was lost
}

// An audit compares what an instance holds and what the store has.
type audit struct {
	keys                 []rotation.RingKey
	fields               map[string]bool // of the ring in the store
	sinceLoss, sinceEdit time.Duration   // since the store last lost something, the ring was edited
}

func (h *history) add(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.at = time.Since(h.start)
	h.events = append(h.events, e)
}

func (h *history) addToken(t token) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.at = time.Since(h.start)
	h.tokens = append(h.tokens, t)
	return len(h.tokens) - 1
}

func (h *history) addInstance(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.instances = append(h.instances, name)
	return len(h.instances) - 1
}

var kindNames = [...]string{"sign", "verify", "knows", "commit", "loss", "fault", "audit", "op", "open", "close"}

// line prints an event for people.
func (h *history) line(e event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%9.4fs %-6s", e.at.Seconds(), kindNames[e.kind])
	if e.inst >= 0 {
		fmt.Fprintf(&b, " %s", h.instances[e.inst])
	}
	if e.tenant != "" {
		fmt.Fprintf(&b, " %s", e.tenant)
	}
	if e.token >= 0 {
		t := h.tokens[e.token]
		fmt.Fprintf(&b, " token %d of %s (by %s at %.4fs, exp %s)", e.token, short(t.kid), h.instances[t.signer], t.at.Seconds(), t.exp.Format("05.000"))
	}
	if e.result != "" {
		fmt.Fprintf(&b, " %s", e.result)
	}
	if e.result != ok && (e.kind == evVerify || e.kind == evKnows || e.kind == evSign) {
		fmt.Fprintf(&b, " fresh=%v doubt=%v stored=%v reach=%v", e.fresh, e.doubt, e.stored, e.reach)
	}
	if e.commit != nil {
		b.WriteString(e.commit.line())
	}
	if e.loss != nil {
		fmt.Fprintf(&b, " lost keys %v, revocations %v", shorts(keysOf(e.loss.keys)), shorts(e.loss.revoked))
	}
	if e.audit != nil && e.kind == evAudit {
		b.WriteString(e.audit.line())
	}
	if e.note != "" {
		fmt.Fprintf(&b, " %s", e.note)
	}
	if e.err != nil {
		fmt.Fprintf(&b, ": %v", e.err)
	}
	return b.String()
}

func (c *commit) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, " %s by %s, life %d, primary %v:", c.Op, c.Instance, c.Life, c.Primary)
	for _, kid := range keysOf(c.keys) {
		fmt.Fprintf(&b, " +%s#%d", short(kid), c.keys[kid])
	}
	for _, kind := range []rotation.FactKind{'x', 'a', 'f', 'r', 'w'} {
		for _, kid := range c.facts[kind] {
			fmt.Fprintf(&b, " %c:%s", kind, short(kid))
		}
	}
	for _, kid := range c.gone {
		fmt.Fprintf(&b, " -%s", short(kid))
	}
	return b.String()
}

func (a *audit) line() string {
	var b strings.Builder
	b.WriteString(" holds")
	for _, k := range a.keys {
		fmt.Fprintf(&b, " %s#%d:%s(%s)", short(k.KID), k.Seq, k.State, k.ActivatesAt.Format("05.000"))
	}
	b.WriteString("; store has")
	for _, f := range keysOf(a.fields) {
		if len(f) > 2 && f[1] == ':' && f[0] != 'p' && f[0] != 'w' {
			fmt.Fprintf(&b, " %s", f[:min(len(f), 7)])
		}
	}
	fmt.Fprintf(&b, "; lost %v ago, edited %v ago", a.sinceLoss, a.sinceEdit)
	return b.String()
}

func short(kid string) string { return kid[:min(len(kid), 5)] }

func shorts(kids []string) (s []string) {
	for _, kid := range kids {
		s = append(s, short(kid))
	}
	return s
}

func keysOf[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// around returns what of the history a violation is about, in lines.
func (h *history) around(v violation, n int) string {
	var lines []string
	type same struct {
		inst   int
		tenant string
		kind   kind
	}
	last := make(map[same]outcome)
	for i, e := range h.events {
		if i > v.event {
			break
		}
		about := e.tenant == "" || e.tenant == h.events[v.event].tenant
		quiet := (e.kind == evVerify || e.kind == evKnows || e.kind == evSign) && e.result == ok && i != v.event
		key := same{e.inst, e.tenant, e.kind}
		again := last[key] == e.result && e.kind == evSign && i != v.event
		if last[key] = e.result; again && e.result != ok {
			continue
		}
		if about && (!quiet || e.token == h.events[v.event].token && e.kind == evSign) {
			lines = append(lines, h.line(e))
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
