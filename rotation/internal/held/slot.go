package held

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A slot has the key of a record once a lookup has asked for it, and until then its end. Most instances
// look up the keys of few of the tenants that they hold, and a key takes a kilobyte.
//
// Every lookup gets the same key, which is told when it ends: a verifier caches tokens with it. A slot that
// was withdrawn makes no key any more. So a lookup that still has an old copy of the ring gets none that
// would be told nothing.
type slot struct {
	made atomic.Pointer[madeKey] // nil until a lookup has asked for it

	mu        sync.Mutex // guards the making of made, and the fields below
	until     time.Time  // for a key that is made later
	bounded   bool       // until is known
	withdrawn bool
}

// A madeKey is a key, and alone in a list, so that a lookup does not allocate.
type madeKey struct {
	key  *keystore.Key
	only []*keystore.Key
}

// usable reports whether the key is, or would be once it is made: see [keystore.Key.Usable].
func (s *slot) usable(now time.Time) bool {
	if m := s.made.Load(); m != nil {
		return m.key.Usable(now)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.withdrawn && (!s.bounded || keystore.UnixNano(now) < keystore.UnixNano(s.until))
}

// setUntil sets the end of the key: see [keystore.Key.SetUntil].
func (s *slot) setUntil(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until, s.bounded = t, true
	if m := s.made.Load(); m != nil {
		m.key.SetUntil(t)
	}
}

// withdraw ends the key: see [keystore.Key.Withdraw].
func (s *slot) withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withdrawn = true
	if m := s.made.Load(); m != nil {
		m.key.Withdraw()
	}
}

// get returns the key, which open opens if none has asked for it yet. It returns nil if the key was
// withdrawn before that.
func (s *slot) get(open func() (*seal.OpenedRecord, error)) (*madeKey, error) {
	if m := s.made.Load(); m != nil {
		return m, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.made.Load(); m != nil || s.withdrawn {
		return m, nil
	}
	opened, err := open()
	if err != nil {
		return nil, &ring.Error{Kind: keystore.ErrUnavailable, Text: "the key cannot be opened", Err: err}
	}
	if secret, ok := opened.Private().([]byte); ok {
		clear(secret) // the key has what it needs of it
	}
	m := &madeKey{opened.Key, []*keystore.Key{opened.Key}}
	if s.bounded {
		m.key.SetUntil(s.until)
	}
	s.made.Store(m)
	return m, nil
}

// keyOf returns the key of a record, or nil if it was withdrawn before any lookup.
func (c *Ring) keyOf(keks *seal.KEKs, r *Record) (*madeKey, error) {
	if m := r.key.made.Load(); m != nil {
		return m, nil
	}
	return r.key.get(func() (*seal.OpenedRecord, error) { return c.OpenRecord(keks, r) })
}

// Usable reports whether the key of the record verifies tokens at now.
func (r *Record) Usable(now time.Time) bool { return r.key.usable(now) }
