package verifier

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// A RevocationList is a [Revocations] in memory. A look-up takes constant time, and
// next to none while the list is empty. The list is safe for concurrent use,
// starts no goroutines and needs no closing.
//
// When the list is full, it drops tokens that have expired by [time.Now]. If the
// verifier has another clock, make the list large enough that this never happens.
//
// The list belongs to one process. The caller has to spread revocations to other
// instances, and to restore them after a restart.
type RevocationList struct {
	max int
	now func() time.Time

	// The sizes of the maps, so that an empty map costs one load and no lock.
	tokenCount, subjectCount, tenantCount atomic.Int64

	mu       sync.RWMutex // guards the maps
	tokens   map[within]time.Time
	subjects map[within]time.Time
	tenants  map[string]time.Time
	earliest time.Time // not later than the end of any of the tokens
}

// within names a jti or sub of one tenant.
type within struct{ tenant, name string }

var _ Revocations = (*RevocationList)(nil)

// farFuture is the end of a token without exp.
var farFuture = time.Unix(1<<53, 0)

// NewRevocationList returns a list with room for maxEntries tokens, subjects and
// tenants together, and for one if maxEntries is less than that.
func NewRevocationList(maxEntries int) *RevocationList {
	return &RevocationList{
		max:      max(maxEntries, 1),
		now:      time.Now,
		tokens:   make(map[within]time.Time),
		subjects: make(map[within]time.Time),
		tenants:  make(map[string]time.Time),
		earliest: farFuture,
	}
}

// errFull is the error of a revocation that the list has no room for.
var errFull = errors.New("verifier: the revocation list is full")

// RevokeToken revokes the token with this jti. until is the token's exp, after
// which the list may drop the revocation. The zero Time stands for a token without
// exp, whose revocation the list never drops.
//
// It is an error if the jti is empty, since that names no token, or if the list is
// full: then revoke the subject or the tenant, or make the list larger.
func (l *RevocationList) RevokeToken(tenant, jti string, until time.Time) error {
	if jti == "" {
		return errors.New("verifier: no jti to revoke: revoke the subject instead")
	}
	if until.IsZero() {
		until = farFuture
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.Before(l.earliest) {
		l.earliest = until.Round(0)
	}
	return set(l, l.tokens, within{tenant, jti}, until)
}

// RevokeSubject revokes the tokens of a subject whose iat is strictly earlier than
// before, and those without iat. A later time replaces an earlier one, and never
// the reverse.
//
// Most issuers round iat down to a whole second. Round before down as well if
// tokens that are issued in the same second should stay good.
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

// RevokeTenant is [RevocationList.RevokeSubject] for all tokens of a tenant. It is an
// error if the list is full.
func (l *RevocationList) RevokeTenant(tenant string, before time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return set(l, l.tenants, tenant, before)
}

// Len returns the number of tokens, subjects and tenants on the list, including
// expired tokens that it has not dropped yet.
func (l *RevocationList) Len() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.lenLocked()
}

// Format implements [fmt.Formatter]: every verb prints the number of entries, and
// none of the entries.
func (l *RevocationList) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "revocation list of %d", l.Len())
}

func (l *RevocationList) lenLocked() int { return len(l.tokens) + len(l.subjects) + len(l.tenants) }

// set sets m[key] to t if t is later than the present value. Its caller holds l.mu.
func set[K comparable](l *RevocationList, m map[K]time.Time, key K, t time.Time) error {
	t = t.Round(0) // without the monotonic reading, which would ignore a step of the wall clock
	old, ok := m[key]
	if ok && !t.After(old) {
		return nil
	}
	if !ok && l.lenLocked() >= l.max {
		l.dropExpiredLocked()
		if l.lenLocked() >= l.max {
			return fmt.Errorf("%w: it holds %d entries", errFull, l.max)
		}
	}
	m[key] = t
	l.countLocked()
	return nil
}

// dropExpiredLocked drops the tokens that no verifier accepts any longer, whatever
// its leeway. It scans all tokens, so it returns at once while none has expired.
func (l *RevocationList) dropExpiredLocked() {
	ended := l.now().Round(0).Add(-maxLeeway)
	if !l.earliest.Before(ended) {
		return
	}
	l.earliest = farFuture
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

// issuedBefore reports whether t was issued strictly before a time. A token without
// iat counts as issued before every time.
func issuedBefore(t *Token, before time.Time) bool {
	iat := t.IssuedAt()
	return iat.IsZero() || iat.Before(before)
}
