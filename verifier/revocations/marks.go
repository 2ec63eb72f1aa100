package revocations

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

var _ verifier.Marker = (*List)(nil)

// errGeneration makes the verifier make new marks.
var errGeneration = errors.New("revocations: the marks are of other digest keys")

// Marks implements [verifier.Marker]: they are the digests of what t may be revoked by, under each
// digest key.
func (l *List) Marks(t *verifier.Token) verifier.Marks {
	return l.view.Load().marks(namesOf(t))
}

// names are what a token may be revoked by.
type names struct {
	tenant, jti, sid, sub string
	iat                   int64
}

func namesOf(t *verifier.Token) names {
	return names{tenant: t.Tenant(), jti: t.ID(), sid: t.SessionID(), sub: t.Subject(), iat: issuedAt(t)}
}

func (v *view) marks(n names) verifier.Marks {
	marks := verifier.Marks{Generation: v.generation, IssuedAt: n.iat}
	for i, k := range v.keys {
		m := &marks
		if i > 0 {
			m = &verifier.Marks{Generation: v.generation, IssuedAt: n.iat, Next: marks.Next}
			marks.Next = m
		}
		m.Digests = n.digests(k)
	}
	return marks
}

// RevokedMarks implements [verifier.Marker]. It reads memory only, takes no lock and allocates nothing.
func (l *List) RevokedMarks(m *verifier.Marks, now time.Time) (bool, error) {
	v := l.view.Load()
	if m.Generation != v.generation {
		return false, errGeneration
	}
	if err := v.tells(now, l.cfg.MaxStale); err != nil {
		return false, err
	}
	version := l.table.Version() // before the look-up: see verifier.Marks.NoteClean
	if m.CleanAt(version) && len(v.over) == 0 {
		return false, nil
	}
	revoked, err := l.lookUp(v, m)
	if !revoked && err == nil {
		m.NoteClean(version)
	}
	return revoked, err
}

// Revoked implements [verifier.Revocations]. Its error is [ErrNotReady], [ErrStale], [ErrFull],
// [ErrDigestKeys] or [ErrClosed].
func (l *List) Revoked(t *verifier.Token) (bool, error) {
	v := l.view.Load()
	if err := v.tells(l.cfg.Now(), l.cfg.MaxStale); err != nil {
		return false, err
	}
	if l.table.Len() == 0 && len(v.over) == 0 {
		return false, nil
	}
	n := namesOf(t)
	for _, k := range v.keys {
		m := verifier.Marks{Digests: n.digests(k), IssuedAt: n.iat}
		if revoked, err := l.lookUp(v, &m); revoked || err != nil {
			return revoked, err
		}
	}
	return false, nil
}

// tells returns why nothing can be told at now, or nil. It asks both clocks, as rules.Age does, since the list
// itself may have slept with its machine. Every hit calls it.
func (v *view) tells(now time.Time, maxStale time.Duration) error {
	switch {
	case v.err != nil:
		return v.err
	case v.staleAt != math.MaxInt64 && (keystore.UnixNano(now) > v.staleAt || now.Sub(v.synced) > maxStale):
		return ErrStale
	case now.Unix() < v.earliest:
		return ErrNotReady
	}
	return nil
}

// lookUp reports whether a token with these marks is revoked.
func (l *List) lookUp(v *view, m *verifier.Marks) (bool, error) {
	for ; m != nil; m = m.Next {
		if len(v.over) > 0 && v.over[tenantOf(m.Digests[3])] {
			return false, ErrFull
		}
		if l.table.Check(&m.Digests, m.IssuedAt) {
			return true, nil
		}
	}
	return false, nil
}

// digests returns the digests under which a token may be revoked, in the order of verifier.Marks.
func (n *names) digests(k *codec.Key) [4]table.Digest {
	return [4]table.Digest{
		k.Digest(table.Token, n.tenant, n.jti), k.Digest(table.Session, n.tenant, n.sid),
		k.Digest(table.Subject, n.tenant, n.sub), k.Digest(table.Tenant, n.tenant, ""),
	}
}

// issuedAt returns the iat of a token as marks have it. A token without one was issued before every
// revocation.
func issuedAt(t *verifier.Token) int64 {
	if at := t.IssuedAt(); !at.IsZero() {
		return at.Unix()
	}
	return math.MinInt64
}

// tenantOf returns the short name of the tenant with that digest.
func tenantOf(d table.Digest) uint64 { return binary.BigEndian.Uint64(d[:8]) }
