package revocations

import (
	"maps"
	"slices"

	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// This file has what happens when there is no room for an entry of the store. Functions whose names end in
// Locked need heldState.mu.

// A shortage has what is known of the entries of a tenant, or of all, that were not held, since there was
// no room. While there is one, the list cannot tell: nothing is forgotten unseen.
type shortage struct {
	groups map[int]noted // where such entries lie, unless these were read again since; with some of them
	kept   int           // how many entries groups has: at most a share
	until  int64         // when the last of those entries ends
	beyond table.Entry   // the sum of entries that were not noted, which the store may lose unseen; zero without any
}

// noted are entries that are not held, by their digests.
type noted map[table.Digest]table.Entry

// shortages are what the list does not hold.
type shortages struct {
	of    map[uint64]*shortage // by tenant, with more than twice its share
	whole *shortage            // of the whole list; nil without one
}

// partial reports whether something is not held. Then nothing can be compared with other instances.
func (s *shortages) partial() bool { return len(s.of) > 0 || s.whole != nil }

// all returns each shortage.
func (s *shortages) all() (all []*shortage) {
	for _, one := range s.of {
		all = append(all, one)
	}
	if s.whole != nil {
		all = append(all, s.whole)
	}
	return all
}

// roomLocked reports whether there is room for a new entry. Merges from two sides of a split may exceed
// a tenant's share, so twice as many are held. Beyond that the list cannot tell for that tenant, until
// it holds all of its entries.
func (l *List) roomLocked(e table.Entry) bool {
	var s *shortage
	switch {
	case e.Kind == table.Tenant:
		return true
	case l.table.Len() >= 2*l.cfg.MaxEntries:
		if l.short.whole == nil {
			l.short.whole = &shortage{groups: make(map[int]noted)}
		}
		s = l.short.whole
	case l.table.LenOf(e.Tenant) < 2*l.cfg.MaxPerTenant:
		return true
	default:
		if s = l.short.of[e.Tenant]; s == nil {
			s = l.beginShortageLocked(e.Tenant)
		}
	}
	l.noteLocked(s, e)
	s.until = max(s.until, e.End)
	l.alarms.Over++
	return false
}

// noteLocked notes an entry that is not held. The store may lose it before there is room. Of entries for which there
// is no room here either, nothing is known but when the last one ends.
func (l *List) noteLocked(s *shortage, e table.Entry) {
	g := groupOf(e.Digest, len(l.prints))
	of := s.groups[g]
	if of == nil {
		of = make(noted)
		s.groups[g] = of
	}
	switch old, ok := of[e.Digest]; {
	case ok:
		of[e.Digest] = rules.Join(old, e)
	case s.kept < l.cfg.MaxPerTenant:
		of[e.Digest] = e
		s.kept++
	case s.beyond == table.Entry{}:
		s.beyond = e
		l.cfg.Logger.Error("revocations: a tenant, or the list, has so many more than its share that this instance cannot note them: it answers with 503 until the last of those has ended, or the whole tenant is revoked, or it is started again", "noted", s.kept)
	default:
		s.beyond = rules.Sum(s.beyond, e)
	}
}

func (l *List) beginShortageLocked(tenant uint64) *shortage {
	s := &shortage{groups: make(map[int]noted)}
	if l.short.of == nil {
		l.short.of = make(map[uint64]*shortage)
	}
	l.short.of[tenant] = s
	l.setOverLocked()
	l.cfg.Logger.Error("revocations: a tenant has more than twice its share: its tokens are answered with 503 until it has less than its share: revoke the whole tenant", "share", l.cfg.MaxPerTenant)
	return s
}

// setOverLocked makes over what shortages say. Views have the old one.
func (l *List) setOverLocked() {
	l.over = make(map[uint64]bool, len(l.short.of))
	for tenant := range l.short.of {
		l.over[tenant] = true
	}
}

// readForRoom has the groups read again whose entries were not held, where there is room now. Only the
// loop calls it.
func (l *List) readForRoom() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for tenant, s := range l.short.of {
		if rules.HasRoom(l.table.LenOf(tenant), l.cfg.MaxPerTenant) {
			l.readAgainLocked(s)
		}
	}
	if s := l.short.whole; s != nil && rules.HasRoom(l.table.Len(), l.cfg.MaxEntries) {
		l.readAgainLocked(s)
	}
}

func (l *List) readAgainLocked(s *shortage) {
	for g := range s.groups {
		l.byIndex[bucketsOf()[g]].unread[g] = true
	}
}

// beginGroupLocked notes that the group g is learned now: what finds no room is noted once more. It returns
// entries that were noted before. The caller learns them after those of the store, which may have lost them.
func (l *List) beginGroupLocked(g int) (before []table.Entry) {
	for _, s := range l.short.all() {
		before = slices.AppendSeq(before, maps.Values(s.groups[g]))
		s.kept -= len(s.groups[g])
		delete(s.groups, g)
	}
	return before
}

// isShortOf reports whether the group g has entries that are not held.
func (l *List) isShortOf(g int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.short.all(), func(s *shortage) bool {
		_, ok := s.groups[g]
		return ok
	})
}

// endShortagesLocked ends the shortages of which everything is held now, or has ended, or is replaced by the
// revocation of the tenant.
func (l *List) endShortagesLocked() {
	if !l.short.partial() {
		return
	}
	over := func(s *shortage) bool {
		if l.replacedLocked(s.beyond) {
			s.beyond = table.Entry{}
		}
		return rules.ShortageOver(len(s.groups), s.until, s.beyond.End, l.swept)
	}
	before := len(l.short.of)
	maps.DeleteFunc(l.short.of, func(_ uint64, s *shortage) bool { return over(s) })
	if len(l.short.of) < before {
		l.setOverLocked()
		l.cfg.Logger.Info("revocations: a tenant has room again: its tokens are answered")
	}
	if l.short.whole != nil && over(l.short.whole) {
		l.short.whole = nil
	}
	if !l.short.partial() {
		for _, b := range l.all {
			b.past, b.been = nil, nil // they lack the entries that were not held
		}
	}
}
