package verifier

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// A RevocationList is a [Revocations] in memory. It is asked in constant time,
// and hardly costs anything while it is empty. It is safe for concurrent use,
// starts no goroutines and needs no closing.
//
// It forgets tokens some time after their end by [time.Now]: where a verifier has
// another clock, make the list large enough not to have to.
//
// It holds for this process alone: to spread revocations between instances, and
// to bring them back after a restart, is the caller's part.
type RevocationList struct {
	max int
	now func() time.Time

	// How many of each there are, so that a kind that nobody uses costs one load.
	tokenCount, subjectCount, tenantCount atomic.Int64

	mu       sync.RWMutex // guards the maps
	tokens   map[within]time.Time
	subjects map[within]time.Time
	tenants  map[string]time.Time
	earliest time.Time // none of tokens ends before
}

// within names a jti or sub of one tenant.
type within struct{ tenant, name string }

var _ Revocations = (*RevocationList)(nil)

// forGood is when an entry ends that has no end.
var forGood = time.Unix(1<<53, 0)

// NewRevocationList returns a list of at most maxEntries tokens, subjects and
// tenants together; at least one.
func NewRevocationList(maxEntries int) *RevocationList {
	return &RevocationList{
		max:      max(maxEntries, 1),
		now:      time.Now,
		tokens:   make(map[within]time.Time),
		subjects: make(map[within]time.Time),
		tenants:  make(map[string]time.Time),
		earliest: forGood,
	}
}

// errFull is wrapped where there is no room.
var errFull = errors.New("verifier: the revocation list is full")

// RevokeToken revokes the token with this jti. until is the token's exp, after
// which the list may forget it; the zero Time stands for a token without exp,
// which is kept for good.
//
// It is an error if the jti is empty, since no token's is, or if the list is
// full: then revoke the subject or the tenant, or make the list larger.
func (l *RevocationList) RevokeToken(tenant, jti string, until time.Time) error {
	if jti == "" {
		return errors.New("verifier: no jti to revoke: revoke the subject instead")
	}
	if until.IsZero() {
		until = forGood
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.Before(l.earliest) {
		l.earliest = until.Round(0)
	}
	return set(l, l.tokens, within{tenant, jti}, until)
}

// RevokeSubject revokes the tokens of a subject that were issued strictly before
// a time, and those that do not say when. A later time replaces an earlier one,
// and never the reverse. iat is most often in whole seconds, rounded down: give
// before in whole seconds, too, if tokens issued in that second are to stay good.
//
// It is an error if the subject is empty, or the list is full.
func (l *RevocationList) RevokeSubject(tenant, sub string, before time.Time) error {
	if sub == "" {
		return errors.New("verifier: no subject to revoke: revoke the tenant instead")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return set(l, l.subjects, within{tenant, sub}, before)
}

// RevokeTenant is [RevocationList.RevokeSubject] for all tokens of a tenant.
func (l *RevocationList) RevokeTenant(tenant string, before time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return set(l, l.tenants, tenant, before)
}

// Len returns how many tokens, subjects and tenants are on the list, those that
// it may forget included.
func (l *RevocationList) Len() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.lenLocked()
}

// Format implements [fmt.Formatter]: every verb prints how many entries there are,
// and none of them.
func (l *RevocationList) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "revocation list of %d", l.Len())
}

func (l *RevocationList) lenLocked() int { return len(l.tokens) + len(l.subjects) + len(l.tenants) }

// set moves what is in m under key to t, never back. Its caller holds l.mu.
func set[K comparable](l *RevocationList, m map[K]time.Time, key K, t time.Time) error {
	t = t.Round(0) // by the wall clock: a monotonic reading would outlive a step of it
	old, ok := m[key]
	if ok && !t.After(old) {
		return nil
	}
	if !ok && l.lenLocked() >= l.max {
		l.forgetLocked()
		if l.lenLocked() >= l.max {
			return fmt.Errorf("%w: it holds %d entries", errFull, l.max)
		}
	}
	m[key] = t
	l.countLocked()
	return nil
}

// forgetLocked drops the tokens that have ended by themselves, for any tenant's
// leeway. It looks at them all, so it waits until there is one to drop.
func (l *RevocationList) forgetLocked() {
	ended := l.now().Round(0).Add(-maxLeeway)
	if !l.earliest.Before(ended) {
		return
	}
	l.earliest = forGood
	maps.DeleteFunc(l.tokens, func(_ within, until time.Time) bool {
		if until.Before(ended) {
			return true
		}
		if until.Before(l.earliest) {
			l.earliest = until
		}
		return false
	})
	l.countLocked()
}

func (l *RevocationList) countLocked() {
	l.tokenCount.Store(int64(len(l.tokens)))
	l.subjectCount.Store(int64(len(l.subjects)))
	l.tenantCount.Store(int64(len(l.tenants)))
}

// Revoked implements [Revocations]. It never fails.
func (l *RevocationList) Revoked(t *Token) (bool, error) {
	return l.tokenRevoked(t) || l.subjectRevoked(t) || l.tenantRevoked(t), nil
}

func (l *RevocationList) tokenRevoked(t *Token) bool {
	if l.tokenCount.Load() == 0 {
		return false
	}
	jti := t.ID()
	if jti == "" {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, revoked := l.tokens[within{t.Tenant(), jti}]
	return revoked
}

func (l *RevocationList) subjectRevoked(t *Token) bool {
	if l.subjectCount.Load() == 0 {
		return false
	}
	l.mu.RLock()
	before, ok := l.subjects[within{t.Tenant(), t.Subject()}]
	l.mu.RUnlock()
	return ok && issuedBefore(t, before)
}

func (l *RevocationList) tenantRevoked(t *Token) bool {
	if l.tenantCount.Load() == 0 {
		return false
	}
	l.mu.RLock()
	before, ok := l.tenants[t.Tenant()]
	l.mu.RUnlock()
	return ok && issuedBefore(t, before)
}

// issuedBefore reports whether t was issued strictly before a time. A token
// without iat counts as issued before any.
func issuedBefore(t *Token, before time.Time) bool {
	iat := t.IssuedAt()
	return iat.IsZero() || iat.Before(before)
}
