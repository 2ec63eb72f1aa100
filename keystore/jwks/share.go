package jwks

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"sync"
	"time"
)

// maxShared bounds the answers that are kept for attempts that still wait, in bytes. entrySize is what
// each of them takes beside its own bytes, about.
const (
	maxShared = 16 << 20
	entrySize = 1 << 10
)

// answers are documents that several attempts ask for at about the same time: many issuers may name
// one jwks_uri, and sources with different settings one issuer. An attempt takes the answer to
// another one's request if that was sent after the attempt was queued. So the answer is as new as
// its own would be. They are kept while attempts are queued or under way.
type answers struct {
	mu   sync.Mutex // guards the fields below
	all  map[string]*asked
	size int // the sum of the sizes of all
}

// An asked is a request that was sent for one attempt, and its answer.
type asked struct {
	began  time.Time
	done   chan struct{} // closed when the rest is set
	answer *answer
	failed *Error
	void   bool // the attempt ended before the answer came, which tells others nothing
	size   int  // in bytes; 0: there is no answer yet. mu of the answers guards it
}

// get returns the answer to a request that began since then: that of another attempt, or else that of
// ask.
func (s *answers) get(ctx context.Context, key string, since time.Time, now func() time.Time, ask func() (*answer, *Error)) (*answer, *Error) {
	for {
		s.mu.Lock()
		one := s.all[key]
		own := one == nil || one.began.Before(since)
		if own {
			one = &asked{began: now(), done: make(chan struct{})}
			s.replaceLocked(key, one)
		}
		s.mu.Unlock()
		if own {
			one.answer, one.failed = ask()
			s.settle(key, one, ctx.Err() != nil)
			return one.answer, one.failed
		}
		select {
		case <-one.done:
		case <-ctx.Done():
			return nil, asError(ctx.Err(), StepResponse, "no answer in time")
		}
		if !one.void {
			return one.answer, one.failed
		}
	}
}

// settle hands an answer to the attempts that wait for it. If too much is kept then, all that came
// before is forgotten: the oldest may be of attempts that ended long ago, since there may be no moment
// without any.
func (s *answers) settle(key string, one *asked, void bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.void = void
	close(one.done)
	if s.all[key] != one {
		return
	}
	if void {
		delete(s.all, key)
		return
	}
	one.size = len(key) + entrySize + one.answer.size()
	s.size += one.size
	if s.size <= maxShared {
		return
	}
	maps.DeleteFunc(s.all, func(_ string, other *asked) bool { return other != one && other.size > 0 })
	s.size = one.size
	if s.size > maxShared {
		s.replaceLocked(key, nil)
	}
}

// replaceLocked puts one in the place of what is kept under key; nil leaves it empty.
func (s *answers) replaceLocked(key string, one *asked) {
	if old := s.all[key]; old != nil {
		s.size -= old.size
	}
	if one == nil {
		delete(s.all, key)
		return
	}
	if s.all == nil {
		s.all = make(map[string]*asked)
	}
	s.all[key] = one
}

// size returns how many bytes a keeps in memory, of those that its issuer chooses.
func (a *answer) size() int {
	if a == nil {
		return 0
	}
	n := len(a.body)
	for name, values := range a.header {
		n += len(name)
		for _, value := range values {
			n += len(value)
		}
	}
	return n
}

// clear forgets all answers. No attempt is left that could take one.
func (s *answers) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.all)
	s.size = 0
}

// share is [getter.get], or the answer of another attempt that asked for the same, the same way. A
// source with a Header asks for itself: an answer to one caller may not be for another.
func (g *getter) share(ctx context.Context, u *url.URL, v validator, onDemand bool) (*answer, *Error) {
	if g.header != nil {
		return g.get(ctx, u, v, onDemand)
	}
	key := fmt.Sprintf("%q %s %v %d %q %v %s", u, g.guard.key(), g.redirects, g.maxBody, v, onDemand, g.accept)
	return g.answers.get(ctx, key, g.queued, g.now, func() (*answer, *Error) { return g.get(ctx, u, v, onDemand) })
}
