package rotationtest_test

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A history is everything that happened in one simulated cluster. Times are true time since the
// start of the history, unless a comment says that they are by an instance's clock.
type history struct {
	seed    uint64
	policy  rotation.Policy
	timing  timing
	begins  string // how the rings begin, if with keys that exist
	beyondS bool   // a clock was off by more than ClockSkew: only I4 and I10 are promised

	mu        sync.Mutex
	start     time.Time
	tokens    []token
	events    []event
	instances []string
	unsafe    []window // when two stores took writes: a split without min-replicas, a wrong database
}

// timing has the durations from which the rules compute their bounds.
type timing struct {
	poll, deadline time.Duration
	w              time.Duration // one poll: the interval with its jitter, and the call's deadline
	latency        time.Duration // the longest that a sync without faults takes
}

// repairedIn is how long after a fault has ended the store has everything back that an instance
// holds.
func (t timing) repairedIn() time.Duration { return 2*t.w + 2*t.latency }

type window struct{ from, to time.Duration }

func (w window) has(t time.Duration) bool { return w.from <= t && t <= w.to }

// A token that an instance signed.
type token struct {
	tenant, kid string
	noKID       bool // it has none: kid is that of the record
	partner     bool // it is of an accepted key: no instance signed it
	signer      int
	at          time.Duration
	issued, exp time.Time // by the signer's clock
	signed      []byte
	sig         []byte
}

type eventKind byte

const (
	evSign   eventKind = iota // inst signed token, or could not
	evVerify                  // inst verified token
	evKnows                   // whether inst has the key of token without asking the store
	evCommit                  // a server committed a change
	evLoss                    // a server lost data, or split
	evFault                   // a fault begins or ends; note names it
	evAudit                   // the copies of a ring in inst and in the store
	evOp                      // an operator's command ended
	evOpen
	evClose
	evKEKs // inst has other KEKs from now on
)

// An outcome is a verdict on a token, or the reason why something failed.
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

// An event is one thing that happened. Its kind says which fields are set.
type event struct {
	at     time.Duration
	kind   eventKind
	inst   int // -1: none
	tenant string
	token  int // -1: none
	result outcome
	err    error
	note   string

	ready        bool          // whether the ring at inst can verify
	fresh, doubt bool          // whether the ring at inst is in sync, and whether it is recovering
	reach        time.Duration // for how long inst has been able to reach the store; negative: it cannot
	stored       bool          // if evVerify or evKnows failed: whether the server of inst has the key
	holder       string        // if evVerify or evKnows failed: an instance that could have restored the key; if evSign failed: one that rotates keys; if evVerify accepted a revoked key: one that knows better

	primary string // if evOpen or evKEKs: the primary KEK of inst

	commit *commit
	audit  *audit
	loss   *loss
}

// A commit is a change that a server committed.
type commit struct {
	rotationtest.Commit
	keys       map[string]int             // the kids that were set, and their seq
	lives      map[string]int             // and their life
	dead       int                        // how many lives of the ring have ended, if the commit says so
	ends       []string                   // and which kids that ends
	facts      map[ring.FactKind][]string // the kids that have a new fact of each kind
	accepts    map[string]time.Time       // the kids of accepted keys that were set, and until when by their records
	until      map[string]time.Time       // and until when by later dates
	removed    []string                   // kids
	ended      []string                   // kids of accepted keys that were removed
	longest    map[string]time.Duration   // kid -> the longest life of its tokens, if that is not the policy's
	waits      []string                   // the kids that wait for a promotion
	doubt      bool                       // the writer was recovering
	unreadable bool                       // the ring that the change was decided on could not be opened
	holder     string                     // if a ring was created: an instance in reach that already had one
}

// A loss is the data that the store lost.
type loss struct {
	keys     map[string]time.Duration // the kids, and when each was stored
	revoked  []string                 // the kids whose revocation was lost
	promoted []string                 // the kids whose promotion was lost
	accepts  []string                 // the kids of accepted keys that were lost, or their date
	dead     []string                 // the tenants of which it was lost that their ring was destroyed
}

// An audit shows what an instance holds of a ring and what the store has of it.
type audit struct {
	keys                 []ring.Key
	accepted             []ring.Accepted
	lives                int             // of the ring that have ended, as far as the instance knows
	dated                bool            // it knows when the last one ended
	fields               map[string]bool // the fields of the ring in the store
	sinceLoss, sinceEdit time.Duration   // since the store last lost data, and since the ring was last edited
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

var kindNames = [...]string{"sign", "verify", "knows", "commit", "loss", "fault", "audit", "op", "open", "close", "keks"}

// line prints an event for a reader.
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
		t, by := h.tokens[e.token], "a partner"
		if !t.partner {
			by = h.instances[t.signer]
		}
		fmt.Fprintf(&b, " token %d of %s (by %s at %.4fs, exp %s)", e.token, short(t.kid), by, t.at.Seconds(), t.exp.Format("05.000"))
	}
	if e.result != "" {
		fmt.Fprintf(&b, " %s", e.result)
	}
	if e.result != ok && (e.kind == evVerify || e.kind == evKnows || e.kind == evSign) {
		fmt.Fprintf(&b, " ready=%v fresh=%v doubt=%v stored=%v reach=%v", e.ready, e.fresh, e.doubt, e.stored, e.reach)
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
	for _, kind := range []ring.FactKind{'x', 'a', 'f', 'r', 'w'} {
		for _, kid := range c.facts[kind] {
			fmt.Fprintf(&b, " %c:%s", kind, short(kid))
		}
	}
	if c.dead > 0 {
		fmt.Fprintf(&b, " %d lives ended", c.dead)
	}
	for _, kid := range c.removed {
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

// around returns the last n events that led to a violation: those of its tenant, without
// successes and repetitions.
func (h *history) around(v violation, n int) string {
	var lines []string
	type same struct {
		inst   int
		tenant string
		kind   eventKind
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
