package jwks

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks/internal/queue"
)

const (
	// maxWait is how long a caller waits for a fetch, whatever its context says.
	maxWait = 2 * time.Second

	// maxWaiters is how many callers wait for one endpoint, and for all together that are not in
	// use: there are many of these, and anyone can write a token of each.
	maxWaiters = 4096
)

// An endpoint fetches one URL for all sources that name it, and holds the keys of the last good
// answer.
//
// Three locks meet here. An endpoint's mu is taken first; the Client's and a Source's are taken
// under it, and never one under the other. No lock is held while keys are fetched or a file is
// written.
type endpoint struct {
	c      *Client
	key    string // in c.endpoints; see [SourceConfig.key]
	file   string // the part of key that names its file on disk
	tenant string // whose turn a fetch takes
	url    *url.URL
	issuer string // "" if url is that of the set
	kid    string // "", or that of the PEM key at url: see [PEMSource]
	cfg    SourceConfig
	guard  guard

	used atomic.Bool          // a token was verified since verified; see use.go
	view atomic.Pointer[view] // what lookups read; replaced whole

	due       time.Time // when c ticks the endpoint; c.mu guards it and the next two
	dueSetAt  time.Time // when due was decided
	heapIndex int       // in c.agenda, or -1

	mu       sync.Mutex // guards everything below
	m        machine
	sources  map[*Source]bool
	closed   bool
	attempt  *attempt  // the one that is queued or under way
	verified time.Time // when a token was last known to be verified
	lastUse  time.Time // that, or when the source was opened or waited for
	waiters  int
	budget   unknown.Budget // of attempts on demand
	missing  unknown.Memory // kids that the set of this generation lacks
	set      set
	restored []*keystore.Key // of a set from disk, until there is a source
	previous previous
	lastErr  *Error // of the last attempt; nil if it succeeded
	fetches  uint64
	observed observed
	changed  chan struct{} // closed when view is replaced
}

// A view is what a lookup needs to know beside the keys. It is never modified.
type view struct {
	machine
	generation uint64 // of the set
	kids       map[string]bool
	skipped    map[string]error // the answers for kids that the set has, and that do not serve
	why        error            // the answer where nothing can be told; wraps ErrUnavailable
}

// A set is what a good answer held.
type set struct {
	generation uint64 // 0: none yet
	sum        [sha256.Size]byte
	kids       map[string]bool
	keys       []KeyInfo
	skipped    []Skipped
	irregular  []Irregular
	why        map[string]error // of kids that are in the set and do not serve; each a NotFound
}

// A previous is what earlier answers said that the next request makes use of.
type previous struct {
	validator  validator
	ttl        time.Duration
	jwksURI    *url.URL  // by discovery
	discovered time.Time // when
	sum        [sha256.Size]byte
	generation uint64
}

func newEndpoint(c *Client, key, tenant string, u *url.URL, cfg SourceConfig) *endpoint {
	e := &endpoint{
		c: c, key: key, file: key, tenant: tenant, url: u, cfg: cfg, guard: cfg.guard(),
		heapIndex: -1, m: machine{staleIfError: cfg.staleIfError()}, sources: make(map[*Source]bool),
		lastErr: errFirst, changed: make(chan struct{}),
		budget:  unknown.Budget{Burst: demandBurst, Every: demandEvery},
		missing: unknown.Memory{Most: maxMissing, For: missingFor},
	}
	e.publishLocked() // no other goroutine has it yet
	return e
}

// attach adds a source, with the keys that other sources already have. It returns false if the
// endpoint is closed.
func (e *endpoint) attach(s *Source) bool {
	now := e.c.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	s.e = e
	first := len(e.sources) == 0
	for other := range e.sources {
		s.copyFrom(other, e.m.keysEnd())
		break
	}
	e.sources[s] = true
	e.lastUse = now
	if first {
		e.m.next, e.m.since = now, now
		e.installRestoredLocked()
		if e.kid != "" { // a token causes it
			e.startLocked(queue.Urgent, true)
		} else {
			e.startLocked(queue.Scheduled, false)
		}
	} else {
		e.wakeLocked(now)
	}
	return true
}

// detach removes a source. The last one closes the endpoint, and gets the attempt that it must wait
// for, if there is one.
func (e *endpoint) detach(s *Source) *attempt {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sources, s)
	s.withdraw()
	switch {
	case e.closed:
		return e.attempt
	case len(e.sources) > 0:
		return nil
	}
	return e.closeLocked()
}

// close closes the endpoint and all its sources.
func (e *endpoint) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.sources {
		s.withdraw()
	}
	if !e.closed {
		e.closeLocked()
	}
}

func (e *endpoint) closeLocked() *attempt {
	e.closed = true
	e.c.remove(e)
	e.lastErr = errClosed
	e.publishLocked()
	a := e.attempt
	if a == nil {
		return nil
	}
	a.cancel()
	if e.c.dequeue(a.ticket) {
		e.attempt = nil
		a.err = errClosed
		close(a.done)
	}
	return a
}

// storeLocked makes the set of an outcome the one that is held.
func (e *endpoint) storeLocked(got *outcome) {
	for s := range e.sources { // those that were attached after distribute
		if s.currentGeneration() != got.generation {
			s.install(got.keys, got.generation, e.m.keysEnd())
		}
	}
	e.set = newSet(got)
	e.previous.sum, e.previous.generation = got.sum, got.generation
	e.alarm(e.set.skipped)
	e.warnLocked()
}

// alarm tells of the first 16 private keys and secrets of a set, which may be one that is refused.
func (e *endpoint) alarm(skipped []Skipped) {
	told := 0
	for _, s := range skipped {
		if s.Exposed && told < maxListed {
			told++
			e.c.logger.Error("jwks: a private key or secret is published", "tenant", e.tenant, "url", display(e.url), "key", s.String())
		}
	}
}

// warnLocked tells of the keys of a new set that do not serve, and of those that other readers may
// refuse, in one line.
func (e *endpoint) warnLocked() {
	if len(e.set.skipped)+len(e.set.irregular) > 0 {
		e.c.logger.Warn("jwks: keys of a set are skipped or irregular", "tenant", e.tenant, "url", display(e.url),
			"skipped", listed(e.set.skipped), "irregular", listed(e.set.irregular))
	}
}

// maxListed is how many keys of a set the log names.
const maxListed = 16

// listed joins what a log line says of keys: of the first 16, and how many more there are.
func listed[T fmt.Stringer](all []T) string {
	var texts []string
	for _, one := range all[:min(len(all), maxListed)] {
		texts = append(texts, one.String())
	}
	if len(all) > maxListed {
		texts = append(texts, fmt.Sprintf("and %d more", len(all)-maxListed))
	}
	return strings.Join(texts, " | ")
}

// installRestoredLocked gives the first source the keys that were read from disk.
func (e *endpoint) installRestoredLocked() {
	if e.restored == nil {
		return
	}
	for s := range e.sources {
		s.install(e.restored, e.set.generation, e.m.keysEnd())
	}
	e.restored = nil
	e.warnLocked()
}

// isEmpty reports whether the endpoint has no keys, and does not ask for them. One of a [PEMSource]
// is not asked again by itself: its kid may be one that a stranger made up.
func (e *endpoint) isEmpty() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.emptyLocked()
}

func (e *endpoint) emptyLocked() bool { return e.attempt == nil && len(e.set.keys) == 0 }

func (e *endpoint) hasKeys() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.set.keys) > 0
}

func (e *endpoint) isAsking() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.attempt != nil
}

func (e *endpoint) endKeysLocked() {
	end := e.m.keysEnd()
	for s := range e.sources {
		s.endKeys(end)
	}
}

// publishLocked shows lookups the current state.
func (e *endpoint) publishLocked() {
	var why error = keystore.ErrUnavailable
	if e.lastErr != nil {
		why = unavailable(e.lastErr)
	}
	e.view.Store(&view{machine: e.m, generation: e.set.generation, kids: e.set.kids, skipped: e.set.why, why: why})
	e.observeStateLocked(e.c.now())
	close(e.changed)
	e.changed = make(chan struct{})
}

// newSet keeps what [Status] tells of a set.
func newSet(got *outcome) set {
	s := set{
		generation: got.generation, sum: got.sum, kids: make(map[string]bool),
		skipped: got.skipped, irregular: got.irregular, why: make(map[string]error),
	}
	for _, k := range got.keys {
		s.kids[k.ID().KID] = true
		s.keys = append(s.keys, KeyInfo{k.ID().KID, k.Algorithm()})
	}
	for i, skip := range s.skipped {
		// A clone does not keep the rest of a long kid in memory.
		s.skipped[i].KID = strings.Clone(skip.KID[:min(len(skip.KID), keystore.MaxKIDBytes)])
		s.explain(skip)
	}
	return s
}

// explain notes why a kid of the set does not serve. A kid that is too long for a token needs no
// reason, and neither does one of which another key serves, unless both share an algorithm. Keys
// without kid need one where they are too many for a token without kid.
func (s *set) explain(skip Skipped) {
	kid := skip.KID
	if kid == "" && skip.conflict && s.why[""] == nil {
		s.why[""] = keystore.NotFound("keys without kid are in the set, but were skipped: " + skip.Reason)
	}
	if kid == "" || len(kid) > keystore.MaxKIDBytes || s.why[kid] != nil || s.kids[kid] && !skip.conflict {
		return
	}
	s.why[strings.Clone(kid)] = keystore.NotFound(fmt.Sprintf("kid %s is in the set, but was skipped: %s", quote(kid), skip.Reason))
}

// notFound returns the answer for a kid that a set lacks, or that does not serve.
func notFound(skipped map[string]error, kid string) error {
	if why := skipped[kid]; why != nil {
		return why
	}
	return keystore.ErrNotFound
}
