package verifier

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// A RevocationList is a [Revocations] in memory. A look-up takes constant time, and
// next to none while the list is empty. The list is safe for concurrent use,
// starts no goroutines and needs no closing.
//
// Tokens, sessions, subjects and tenants have room of their own, which tenants share: each
// may revoke as many tokens, sessions and subjects as there is room left. So a tenant alone
// takes half of the room, and none can take all of it. [RevocationList.RevokeTenant]
// has room for every tenant, and replaces what the tenant revoked before.
//
// When there is no room, the list forgets revocations whose tokens have all expired, by
// its clock. If the verifier has another clock, give the list the same one.
//
// The list belongs to one process. The caller has to spread revocations to other
// instances, and to restore them after a restart.
type RevocationList struct {
	maxTokenTTL time.Duration
	now         func() time.Time

	seed maphash.Seed

	_       apart
	version atomic.Uintptr             // changes with the ledgers, and is never 0: see Marks.NoteClean
	size    atomic.Int64               // of the ledgers together, so that an empty list costs one load and no lock
	filter  atomic.Pointer[nameFilter] // of all names in the ledgers
	_       apart                      // look-ups write the lock

	mu       sync.RWMutex // guards the ledgers
	tokens   ledger       // by tenant, and jti
	sessions ledger       // by tenant, and sid
	subjects ledger       // by tenant, and sub
	tenants  ledger       // by "", and tenant
}

var _ Revocations = (*RevocationList)(nil)

// apart keeps fields that are written often away from those that others read. It takes two lines of the
// processor's cache, since those are fetched in pairs.
type apart [128]byte

// RevocationListConfig configures a [RevocationList]. Where a kind of revocation has no
// room, each one of that kind is an error.
type RevocationListConfig struct {
	// Tokens, Sessions and Subjects are how many the list holds, for all tenants
	// together. A tenant may hold as many as there is room left: half of the room
	// if it is the only one.
	Tokens, Sessions, Subjects int

	// Tenants is how many tenants can be revoked as a whole. It should be at least
	// the number of tenants, so that [RevocationList.RevokeTenant] never fails.
	Tenants int

	// MaxTokenTTL is the longest that a token may live, from iat to exp. It is
	// required unless only tokens can be revoked, and at most 400 days.
	// The list may forget the revocation of a subject or a
	// tenant so long after its time (and 5m for leeway), since the tokens have
	// expired by then. A token that lives longer may be accepted again.
	MaxTokenTTL time.Duration

	// Now reports the wall clock's time. The default is [time.Now].
	Now func() time.Time
}

// greatestTTL is the greatest MaxTokenTTL.
const greatestTTL = 400 * 24 * time.Hour

func (c RevocationListConfig) validate() error {
	for _, f := range []struct {
		name string
		room int
	}{{"Tokens", c.Tokens}, {"Sessions", c.Sessions}, {"Subjects", c.Subjects}, {"Tenants", c.Tenants}} {
		if f.room < 0 {
			return fmt.Errorf("verifier: RevocationListConfig.%s is %d, want 0 or more", f.name, f.room)
		}
	}
	switch needed := c.Sessions > 0 || c.Subjects > 0 || c.Tenants > 0; {
	case c.Tokens == 0 && !needed:
		return errors.New("verifier: RevocationListConfig has no room: set Tokens, Sessions, Subjects or Tenants")
	case needed && c.MaxTokenTTL <= 0:
		return fmt.Errorf("verifier: RevocationListConfig.MaxTokenTTL is %v: set it to the longest that a token lives, since revocations of sessions, subjects and tenants end with their tokens", c.MaxTokenTTL)
	case c.MaxTokenTTL > greatestTTL || c.MaxTokenTTL < 0:
		return fmt.Errorf("verifier: RevocationListConfig.MaxTokenTTL is %v, want at most 400 days", c.MaxTokenTTL)
	}
	return nil
}

// NewRevocationListWith returns an empty list. It returns an error if a bound of cfg is
// missing or out of range.
func NewRevocationListWith(cfg RevocationListConfig) (*RevocationList, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return newRevocationList(cfg), nil
}

// manyTenants is how many tenants a list of NewRevocationList can revoke as a whole, at
// least: more than most verifiers have.
const manyTenants = 1 << 17

// NewRevocationList returns a list in which a tenant, if it is the only one, has room for
// maxEntries tokens, as many sessions and subjects, and for one if maxEntries is less.
// The list holds twice as many for all tenants together. No token may live longer than
// 400 days. [NewRevocationListWith] sets each bound.
func NewRevocationList(maxEntries int) *RevocationList {
	room := 2 * min(max(maxEntries, 1), math.MaxInt/2)
	return newRevocationList(RevocationListConfig{
		Tokens: room, Sessions: room, Subjects: room, Tenants: max(maxEntries, manyTenants), MaxTokenTTL: greatestTTL,
	})
}

func newRevocationList(cfg RevocationListConfig) *RevocationList {
	l := &RevocationList{
		maxTokenTTL: cfg.MaxTokenTTL,
		now:         cfg.Now,
		seed:        maphash.MakeSeed(),
		tokens:      newLedger(cfg.Tokens, true),
		sessions:    newLedger(cfg.Sessions, true),
		subjects:    newLedger(cfg.Subjects, true),
		tenants:     newLedger(cfg.Tenants, false),
	}
	l.version.Store(1)
	l.filter.Store(newNameFilter(0))
	if l.now == nil {
		l.now = time.Now
	}
	return l
}

// errFull is the error of a revocation that the list has no room for.
var errFull = errors.New("verifier: the revocation list is full")

// RevokeToken revokes a token that was issued, by its jti. until is its exp: after that,
// and 5m for leeway, the list may forget the revocation. The zero Time stands for a
// token without exp, whose revocation the list never forgets.
//
// It is an error if the jti is empty, since that names no token, or if the tenant has no
// room left: then revoke the subject or the tenant, or make the list larger.
func (l *RevocationList) RevokeToken(tenant, jti string, until time.Time) error {
	if jti == "" {
		return errors.New("verifier: no jti to revoke: revoke the subject instead")
	}
	r := revocation{end: math.MaxInt64}
	if !until.IsZero() {
		r.end = keystore.UnixNano(until.Add(maxLeeway))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	// A token that exists was issued by now, by a clock that may be ahead.
	r.before = roundUp(now.Add(maxLeeway))
	if !l.tokens.put(tenant, jti, r, keystore.UnixNano(now)) {
		return l.full(tenant, &l.tokens, "tokens: revoke the subject or the tenant, or raise RevocationListConfig.Tokens")
	}
	l.noteLocked(ofToken, tenant, jti)
	l.count()
	return nil
}

// RevokeSession revokes all tokens of a session, by their claim sid: also those that are
// issued later. until is when the last of them expires: after that, and 5m for leeway,
// the list may forget the revocation. The zero Time stands for MaxTokenTTL from now.
//
// It is an error if the sid is empty, or the tenant has no room left: then revoke the
// subject or the tenant, or make the list larger.
func (l *RevocationList) RevokeSession(tenant, sid string, until time.Time) error {
	if sid == "" {
		return errors.New("verifier: no session to revoke: revoke the subject instead")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if until.IsZero() {
		until = now.Add(l.maxTokenTTL)
	}
	r := revocation{before: math.MaxInt64, end: keystore.UnixNano(until.Add(maxLeeway))}
	if !l.sessions.put(tenant, sid, r, keystore.UnixNano(now)) {
		return l.full(tenant, &l.sessions, "sessions: revoke the subject or the tenant, or raise RevocationListConfig.Sessions")
	}
	l.noteLocked(ofSession, tenant, sid)
	l.count()
	return nil
}

// RevokeSubject revokes the tokens of a subject whose iat is strictly earlier than
// before, and those without iat. A later time replaces an earlier one, and never
// the reverse.
//
// before is rounded up to a whole second, as most issuers round iat down to one: so every
// token that was issued up to before is revoked. One that is issued later in the same
// second cannot be told apart, and is revoked too.
//
// It is an error if the subject is empty, or the tenant has no room left: then revoke the
// tenant, or make the list larger.
func (l *RevocationList) RevokeSubject(tenant, sub string, before time.Time) error {
	if sub == "" {
		return errors.New("verifier: no subject to revoke: revoke the tenant instead")
	}
	r := l.watermark(before)
	l.mu.Lock()
	defer l.mu.Unlock()
	if whole, ok := l.tenants.find("", tenant); ok && whole.covers(r) {
		return nil
	}
	if !l.subjects.put(tenant, sub, r, keystore.UnixNano(l.now())) {
		return l.full(tenant, &l.subjects, "subjects: revoke the tenant, or raise RevocationListConfig.Subjects")
	}
	l.noteLocked(ofSubject, tenant, sub)
	l.count()
	return nil
}

// RevokeTenant is [RevocationList.RevokeSubject] for all tokens of a tenant. It replaces
// the revocations of the tenant's subjects up to before, and of its tokens that were
// revoked 5m before that or earlier, so that the tenant has room again. Sessions stay
// revoked, as their later tokens are.
//
// It is an error if more tenants are revoked than [RevocationListConfig.Tenants].
func (l *RevocationList) RevokeTenant(tenant string, before time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.tenants.put("", tenant, l.watermark(before), keystore.UnixNano(l.now())) {
		return fmt.Errorf("%w: it holds %d tenants: raise RevocationListConfig.Tenants to the number of your tenants", errFull, l.tenants.size)
	}
	l.noteLocked(ofTenant, tenant, "")
	whole, _ := l.tenants.find("", tenant)
	l.tokens.removeIf(tenant, whole.covers)
	l.subjects.removeIf(tenant, whole.covers)
	l.count()
	return nil
}

// RemoveToken takes back [RevocationList.RevokeToken], and reports whether the token was
// on the list. It does not bring back what a revocation of its subject or tenant revokes.
func (l *RevocationList) RemoveToken(tenant, jti string) bool {
	return l.remove(&l.tokens, tenant, jti)
}

// RemoveSession takes back [RevocationList.RevokeSession], and reports whether the session
// was on the list.
func (l *RevocationList) RemoveSession(tenant, sid string) bool {
	return l.remove(&l.sessions, tenant, sid)
}

// RemoveSubject takes back [RevocationList.RevokeSubject], and reports whether the
// subject was on the list.
func (l *RevocationList) RemoveSubject(tenant, sub string) bool {
	return l.remove(&l.subjects, tenant, sub)
}

// RemoveTenant takes back [RevocationList.RevokeTenant], and reports whether the tenant
// was on the list. The tokens and subjects whose revocations it had replaced are then
// no longer revoked: revoke them again.
func (l *RevocationList) RemoveTenant(tenant string) bool { return l.remove(&l.tenants, "", tenant) }

func (l *RevocationList) remove(from *ledger, owner, name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.count()
	return from.remove(owner, name)
}

// watermark returns the revocation of all tokens issued before a time.
func (l *RevocationList) watermark(before time.Time) revocation {
	second := roundUp(before)
	return revocation{second, keystore.UnixNano(time.Unix(second, 0).Add(l.maxTokenTTL + maxLeeway))}
}

// roundUp returns t in whole seconds since 1970.
func roundUp(t time.Time) int64 {
	if t.Nanosecond() > 0 {
		return t.Unix() + 1
	}
	return t.Unix()
}

func (l *RevocationList) full(tenant string, of *ledger, rest string) error {
	return fmt.Errorf("%w: it holds %d of at most %d, and tenant %q %d %s", errFull, of.size, of.room, tenant, len(of.byOwner[tenant]), rest)
}

// Len returns the number of tokens, sessions, subjects and tenants on the list, including
// those whose tokens have expired and that it has not forgotten yet.
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

func (l *RevocationList) lenLocked() int {
	return l.tokens.size + l.sessions.size + l.subjects.size + l.tenants.size
}

// count makes a change of the ledgers known to look-ups that rely on an earlier one.
func (l *RevocationList) count() {
	l.size.Store(int64(l.lenLocked()))
	if l.version.Add(1) == 0 { // only with words of 32 bits
		l.version.Add(1)
	}
}

// Revoked implements [Revocations]. It never fails.
func (l *RevocationList) Revoked(t *Token) (bool, error) {
	return l.holds(t), nil
}

func (l *RevocationList) holds(t *Token) bool {
	if l.size.Load() == 0 {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.revokedLocked(t, t.Tenant())
}

func (l *RevocationList) revokedLocked(t *Token, tenant string) bool {
	if l.tokens.size > 0 {
		// A token without jti has the name "", which is never on the list.
		if _, ok := l.tokens.find(tenant, t.ID()); ok {
			return true
		}
	}
	if l.sessions.size > 0 {
		if _, ok := l.sessions.find(tenant, t.SessionID()); ok {
			return true
		}
	}
	if l.subjects.size > 0 {
		if r, ok := l.subjects.find(tenant, t.Subject()); ok && issuedBefore(t, r.before) {
			return true
		}
	}
	r, ok := l.tenants.find("", tenant)
	return ok && issuedBefore(t, r.before)
}

// issuedBefore reports whether t was issued strictly before a second. A token without
// iat counts as issued before every time.
func issuedBefore(t *Token, second int64) bool {
	iat := t.IssuedAt()
	return iat.IsZero() || iat.Unix() < second
}
