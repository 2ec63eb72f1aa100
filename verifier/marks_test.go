package verifier_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// A revoker is a list of revocations that a test changes.
type revoker interface {
	verifier.Revocations
	RevokeToken(tenant, jti string, until time.Time) error
	RevokeSubject(tenant, sub string, before time.Time) error
	RevokeTenant(tenant string, before time.Time) error
	RemoveToken(tenant, jti string) bool
	RemoveSubject(tenant, sub string) bool
	RemoveTenant(tenant string) bool
}

// marking is a list that answers Revoked, and a Marker that answers RevokedMarks from digests
// alone. Each entry is under one of several digest keys, which a rekey changes all.
type marking struct {
	*verifier.RevocationList

	mu         sync.RWMutex // held while the list or the entries change; guards all below
	generation uint64
	keys       int
	befores    map[named]int64
	byDigest   map[[16]byte]int64
	marked     int       // calls of Marks
	asked      int       // calls of RevokedMarks
	now        time.Time // of the last one
	err        error
}

// named is what a digest is made of. The place is that in Marks.Digests.
type named struct {
	place        int
	tenant, name string
}

var _ verifier.Marker = (*marking)(nil)

func newMarking(keys int) *marking {
	return &marking{RevocationList: verifier.NewRevocationList(100), keys: keys, befores: map[named]int64{}, byDigest: map[[16]byte]int64{}}
}

func (m *marking) digest(key int, n named) [16]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %d %q %q", m.generation, key, n.place, n.tenant, n.name))
	return [16]byte(sum[:])
}

func (m *marking) put(n named, before int64) {
	m.befores[n] = max(m.befores[n], before)
	m.byDigest[m.digest(len(n.name)%m.keys, n)] = m.befores[n]
}

// rekey makes new digest keys.
func (m *marking) rekey(keys int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation++
	m.keys = keys
	clear(m.byDigest)
	for n, before := range m.befores {
		m.put(n, before)
	}
}

func (m *marking) RevokeToken(tenant, jti string, until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(named{0, tenant, jti}, math.MaxInt64)
	return m.RevocationList.RevokeToken(tenant, jti, until)
}

func (m *marking) RevokeSubject(tenant, sub string, before time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(named{2, tenant, sub}, before.Unix())
	return m.RevocationList.RevokeSubject(tenant, sub, before)
}

func (m *marking) RevokeTenant(tenant string, before time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(named{3, tenant, ""}, before.Unix())
	return m.RevocationList.RevokeTenant(tenant, before)
}

func (m *marking) RemoveToken(tenant, jti string) bool {
	return m.remove(named{0, tenant, jti}, m.RevocationList.RemoveToken(tenant, jti))
}

func (m *marking) RemoveSubject(tenant, sub string) bool {
	return m.remove(named{2, tenant, sub}, m.RevocationList.RemoveSubject(tenant, sub))
}

func (m *marking) RemoveTenant(tenant string) bool {
	return m.remove(named{3, tenant, ""}, m.RevocationList.RemoveTenant(tenant))
}

func (m *marking) remove(n named, had bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.befores, n)
	delete(m.byDigest, m.digest(len(n.name)%m.keys, n))
	return had
}

func (m *marking) Marks(t *verifier.Token) verifier.Marks {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marked++
	var first *verifier.Marks
	for key := m.keys - 1; key >= 0; key-- {
		marks := &verifier.Marks{Generation: m.generation, IssuedAt: math.MinInt64, Next: first}
		if iat := t.IssuedAt(); !iat.IsZero() {
			marks.IssuedAt = iat.Unix()
		}
		for i, name := range []string{t.ID(), t.SessionID(), t.Subject(), ""} {
			if name != "" || i == 3 {
				marks.Digests[i] = m.digest(key, named{i, t.Tenant(), name})
			}
		}
		first = marks
	}
	return *first
}

var errOldMarks = errors.New("marks of an older generation")

func (m *marking) RevokedMarks(marks *verifier.Marks, now time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	m.now = now
	switch {
	case m.err != nil:
		return false, m.err
	case marks.Generation != m.generation:
		return false, errOldMarks
	}
	for ; marks != nil; marks = marks.Next {
		for _, d := range marks.Digests {
			if before, ok := m.byDigest[d]; ok && marks.IssuedAt < before {
				return true, nil
			}
		}
	}
	return false, nil
}

func (m *marking) Revoked(t *verifier.Token) (bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.err != nil {
		return false, m.err
	}
	return m.RevocationList.Revoked(t)
}

// TestCacheAndMarks: the verdicts by marks, with a cache, are those of Revoked, without one.
func TestCacheAndMarks(t *testing.T) {
	for keys := 1; keys <= 4; keys++ {
		m := newMarking(keys)
		testCacheAndRevocations(t, m)
		if m.marked == 0 || m.asked < 2*m.marked {
			t.Errorf("%d digest keys: Marks was called %d times, and RevokedMarks %d times", keys, m.marked, m.asked)
		}
	}
}

// TestSoakLinearizableMarks is [TestSoakLinearizable] for a Marker whose digest keys change.
func TestSoakLinearizableMarks(t *testing.T) {
	testLinearizable(t, newMarking(1), linearCalls())
}

// TestMarksOfAnOlderGeneration: a change of the digest keys costs each cached token one full
// check, which keeps new marks.
func TestMarksOfAnOlderGeneration(t *testing.T) {
	m := newMarking(1)
	w := newTwinWith(t, m, acme(t))
	token := sign(goodHeader, with(`"jti":"7","sid":"s"`))
	w.hit("at first", token)
	for keys := range 3 {
		m.rekey(1 + keys)
		before, marked := w.on.CacheStats(), m.marked
		w.verifyN("new digest keys", token, nil, 2)
		if now := w.on.CacheStats(); now.Hits != before.Hits+1 || now.Misses != before.Misses+1 || now.Entries != 1 {
			t.Errorf("%d digest keys: from %+v to %+v, want one hit and one miss", 1+keys, before, now)
		}
		if m.marked != marked+1 {
			t.Errorf("%d digest keys: %d calls of Marks, want 1", 1+keys, m.marked-marked)
		}
	}
	if err := m.RevokeToken("acme", "7", time.Time{}); err != nil {
		t.Fatal(err)
	}
	w.verify("revoked under new keys", token, verifier.ErrRevoked)
	m.err = errOdd
	w.verify("the Marker cannot tell", token, verifier.ErrUnavailable)
	m.err = nil
	w.verify("revoked", token, verifier.ErrRevoked)
}

// TestMarkerGetsTheClock: RevokedMarks gets the time by which the verifier judges, on a hit, on a
// miss, and after a wait.
func TestMarkerGetsTheClock(t *testing.T) {
	m := newMarking(1)
	now := time.Unix(nowUnix, 0)
	rules := acme(t)
	k := key(t, "acme", "1", secret)
	rules.Keys = &waiting{store: static(t, k), during: func(int) { now = now.Add(7 * time.Second) }}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{rules}, Now: func() time.Time { return now }, Revocations: m})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{nowUnix + 7, nowUnix + 8} {
		if _, err := v.Verify(t.Context(), sign(goodHeader, goodPayload)); err != nil || m.now.Unix() != want {
			t.Errorf("RevokedMarks was asked at %d, want %d; %v", m.now.Unix(), want, err)
		}
		now = now.Add(time.Second)
	}
	if s := v.CacheStats(); s.Hits != 1 {
		t.Errorf("%+v, want one hit", s)
	}
}

// TestMarksAllocateNothing counts the allocations of a hit with a Marker.
func TestMarksAllocateNothing(t *testing.T) {
	m := newMarking(1)
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Now: at(nowUnix), Revocations: m})
	if err != nil {
		t.Fatal(err)
	}
	token, ctx := sign(goodHeader, with(`"jti":"7"`)), t.Context()
	v.Verify(ctx, token)
	if n := testing.AllocsPerRun(1000, func() {
		if tok, err := v.Verify(ctx, token); err != nil || !tok.Cached() {
			t.Error(err)
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
	if m.asked < 1000 {
		t.Errorf("RevokedMarks was asked %d times", m.asked)
	}
}

func TestSessionID(t *testing.T) {
	for _, tt := range []struct{ claims, want string }{
		{goodPayload, ""},
		{with(`"sid":"08a5019c-17e1"`), "08a5019c-17e1"},
		{with(`"sid":"a\u00e4\/b"`), "aä/b"},
		{with(`"sid":""`), ""},
		{with(`"sid":7`), ""},
		{with(`"sid":null`), ""},
		{with(`"sid":["x"]`), ""},
		{with(`"sid":{"sid":"x"}`), ""},
		{with(`"x":{"sid":"x"}`), ""},
		{with(`"SID":"x"`), ""},
	} {
		if got := verified(t, tt.claims).SessionID(); got != tt.want {
			t.Errorf("%s: SessionID = %q, want %q", tt.claims, got, tt.want)
		}
	}
}
