package verifier

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"sync/atomic"
	"time"
)

// A nameFilter is a blocked Bloom filter of the names on a [RevocationList]. It tells a hit that
// nothing of its token is on the list, without a lock. It has no false negatives: a name that was taken
// back stays in it until it is made again.
type nameFilter struct {
	words []atomic.Uint64 // a name sets four bits of one; a power of two of them
	room  int             // how many names it is made for: 16 bits each
	used  int             // names that were added; RevocationList.mu guards it
}

func newNameFilter(room int) *nameFilter {
	room = 1 << bits.Len(uint(max(room, 32)-1))
	return &nameFilter{words: make([]atomic.Uint64, room/4), room: room}
}

func (f *nameFilter) at(h uint64) (word *atomic.Uint64, mask uint64) {
	return &f.words[h>>32&uint64(len(f.words)-1)], 1<<(h&63) | 1<<(h>>6&63) | 1<<(h>>12&63) | 1<<(h>>18&63)
}

func (f *nameFilter) has(h uint64) bool {
	word, mask := f.at(h)
	return word.Load()&mask == mask
}

func (f *nameFilter) add(h uint64) {
	word, mask := f.at(h)
	word.Or(mask)
	f.used++
}

// The kinds of names, in the order of [Marks.Digests].
const (
	ofToken = iota
	ofSession
	ofSubject
	ofTenant
)

// hash returns the hash of a name, which is not 0. The seed is secret: names are chosen by others.
func (l *RevocationList) hash(kind int, tenant, name string) uint64 {
	h := maphash.String(l.seed, tenant)*0x9e3779b97f4a7c15 ^ maphash.String(l.seed, name)
	hi, lo := bits.Mul64(h+uint64(kind), 0xd6e8feb86659fd93)
	return max(hi^lo, 1)
}

// noteLocked adds a name to the filter. A full filter is made again, with room for twice as many names
// as there are.
func (l *RevocationList) noteLocked(kind int, tenant, name string) {
	f := l.filter.Load()
	if f.used >= f.room {
		f = newNameFilter(2 * l.lenLocked())
		for kind, ledger := range []*ledger{&l.tokens, &l.sessions, &l.subjects} {
			for owner, names := range ledger.byOwner {
				for name := range names {
					f.add(l.hash(kind, owner, name))
				}
			}
		}
		for tenant := range l.tenants.byOwner[""] {
			f.add(l.hash(ofTenant, tenant, ""))
		}
		l.filter.Store(f)
	}
	f.add(l.hash(kind, tenant, name))
}

// A listMarker asks a [RevocationList] by marks. The list itself is no [Marker]: a type that embeds it,
// with a Revoked of its own, would be one too, and its Revoked would not be asked.
type listMarker struct{ *RevocationList }

// markerOf returns r as a Marker, or nil.
func markerOf(r Revocations) Marker {
	if l, ok := r.(*RevocationList); ok {
		return listMarker{l}
	}
	m, _ := r.(Marker)
	return m
}

// Marks implements [Marker]: the digests are hashes for the filter.
func (l listMarker) Marks(t *Token) (m Marks) {
	tenant := t.Tenant()
	for kind, name := range [...]string{ofToken: t.ID(), ofSession: t.SessionID(), ofSubject: t.Subject(), ofTenant: ""} {
		if name != "" || kind == ofTenant {
			binary.LittleEndian.PutUint64(m.Digests[kind][:], l.hash(kind, tenant, name))
		}
	}
	return m
}

// RevokedMarks implements [Marker].
func (l listMarker) RevokedMarks(m *Marks, _ time.Time) (bool, error) {
	version := l.version.Load() // before the look at the list: see Marks.NoteClean
	if m.CleanAt(version) {
		return false, nil
	}
	revoked := l.names(m) && l.holds(m.token)
	if !revoked {
		m.NoteClean(version)
	}
	return revoked, nil
}

// names reports whether the filter has a name of the token.
func (l listMarker) names(m *Marks) bool {
	if l.size.Load() == 0 {
		return false
	}
	f := l.filter.Load()
	for i := range m.Digests {
		if h := binary.LittleEndian.Uint64(m.Digests[i][:]); h != 0 && f.has(h) {
			return true
		}
	}
	return false
}
