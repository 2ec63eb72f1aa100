package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// A judge compares what the instances do with the revocations that it knows. It is safe for
// concurrent use.
type judge struct {
	mu      sync.Mutex
	revoked map[string]*revocation // by kid
	seen    map[sight]time.Time    // since when an instance has done something
	hidden  map[string]time.Time   // by tenant: until when nothing can be said about when a revocation is read
	trouble map[string]time.Time   // by tenant: when an instance last said that it is not in sync
	moves   map[string]string      // by tenant: the adversary's move now
	rows    map[string]*wrongs     // by move
	noted   map[string]bool        // what has a note
	notes   []string               // at most 40
}

// wrongs are the counts of one move. All but the first three must be zero.
type wrongs struct {
	Blows, Changed int // how often the move was made, and how often it changed what an instance read
	Revoked        int // revocations meanwhile
	Late           int // tokens of a revoked key accepted by an instance in sync that had read the revocation, or should have
	Lied           int // tokens of a revoked key accepted by an instance that had acknowledged the revocation, and waits that ended well where none had
	Forgotten      int // tokens of a revoked key accepted by an instance that knew
	Refused        int // good tokens rejected by an instance that had opened their key
	NeverHeld      int // good tokens rejected by an instance in sync that never had their key; not a promise
	Unnoticed      int // moves that changed what an instance read, without a log line, a count or a status
	Unrepaired     int // moves after which the fleet needed help

	// Longest is the longest time after a revocation at which an instance in sync accepted a token of
	// the key.
	Longest time.Duration
}

// bad returns the sum of the counts that must be zero.
func (w *wrongs) bad() int {
	return w.Late + w.Lied + w.Forgotten + w.Refused + w.Unnoticed + w.Unrepaired
}

// A revocation is one that has been committed.
type revocation struct {
	tenant  tenant
	kid     string
	receipt rotation.Receipt
	move    string    // during which it was committed
	at      time.Time // when Revoke had returned
	tokens  []token   // of the revoked key
}

// A sight is something that an instance has done with a key.
type sight struct {
	what     what
	instance string
	kid      string
}

type what int

const (
	held    what = iota // it had the key
	knows               // it showed the key as revoked
	applied             // its acknowledgement says that it has applied the revocation
)

func newJudge() *judge {
	return &judge{revoked: make(map[string]*revocation), seen: make(map[sight]time.Time), hidden: make(map[string]time.Time),
		moves: make(map[string]string), trouble: make(map[string]time.Time), noted: make(map[string]bool), rows: make(map[string]*wrongs)}
}

// do calls f with the counts of a move.
func (j *judge) do(move string, f func(w *wrongs)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(j.rowLocked(move))
}

func (j *judge) rowLocked(move string) *wrongs {
	if j.rows[move] == nil {
		j.rows[move] = new(wrongs)
	}
	return j.rows[move]
}

// begin makes move the current one against a tenant.
func (j *judge) begin(move, tenant string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.moves[tenant] = move
	j.rowLocked(move).Blows++
}

// hide says that until then a tenant's revocations may be missing from the store, with every trace.
func (j *judge) hide(tenant string, until time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hidden[tenant] = until
}

func (j *judge) add(r *revocation) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.revoked[r.kid] == nil {
		r.move = j.moves[r.tenant.name]
		j.revoked[r.kid] = r
		j.rowLocked(r.move).Revoked++
	}
}

// revocations returns those whose tokens have not expired.
func (j *judge) revocations() []*revocation {
	j.mu.Lock()
	defer j.mu.Unlock()
	var live []*revocation
	for _, r := range j.revoked {
		if time.Now().Before(r.tokens[0].end()) {
			live = append(live, r)
		}
	}
	return live
}

// see notes that an instance has done something with a key.
func (j *judge) see(w what, m *instance, kid string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := sight{w, m.name, kid}
	if j.seen[s].IsZero() {
		j.seen[s] = time.Now()
	}
}

// troubled reports whether an instance has said since then that it is not in sync.
func (j *judge) troubled(tenant string, since time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.trouble[tenant].After(since)
}

// watch notes whether an instance is in sync, which keys it has, and which of them it shows as
// revoked.
func (j *judge) watch(m *instance, tenant string, s rotation.TenantStatus) {
	if !s.Fresh || s.Err != nil {
		j.mu.Lock()
		j.trouble[tenant] = time.Now()
		j.mu.Unlock()
	}
	for i := range s.Ring.Keys {
		k := &s.Ring.Keys[i]
		j.see(held, m, k.KID)
		if !k.RevokedAt.IsZero() {
			j.see(knows, m, k.KID)
		}
	}
}

// A verdict is what an instance said about a token.
type verdict struct {
	by    *instance
	token token
	began time.Time // by true time, as all of its times
	good  time.Time // when the last good sync before that was sent
	fresh bool      // the instance was in sync, before and after
	err   error
}

// hear judges a verdict about a token that has not expired.
func (j *judge) hear(v verdict) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r := j.revoked[v.token.kid]; r != nil {
		j.hearRevokedLocked(v, r)
	}
}

// hearRevokedLocked judges a verdict about a token of a revoked key.
func (j *judge) hearRevokedLocked(v verdict, r *revocation) {
	if v.err != nil {
		return
	}
	since := func(w what) time.Time { return j.seen[sight{w, v.by.name, r.kid}] }
	after := func(t time.Time) bool { return !t.IsZero() && v.began.After(t) }
	row, by := j.rowLocked(r.move), fmt.Sprintf("%s: %s, fresh %v, accepts a token of key %s of %s", r.move, v.by.name, v.fresh, r.kid, r.tenant.name)
	if v.fresh && after(r.at) {
		row.Longest = max(row.Longest, v.began.Sub(r.at))
	}
	switch visible := later(r.at, j.hidden[r.tenant.name]); {
	case after(since(applied)):
		row.Lied++
		j.noteOnceLocked("lied"+v.by.name+r.kid, "%s, %v after its ack said that it has applied the revocation", by, v.began.Sub(since(applied)))
	case after(since(knows)):
		row.Forgotten++
		j.noteOnceLocked("forgot"+v.by.name+r.kid, "%s, %v after it showed the key as revoked", by, v.began.Sub(since(knows)))
	case v.fresh && v.good.After(visible):
		row.Late++
		j.noteOnceLocked("late"+v.by.name+r.kid, "%s, %v after the revocation, in a sync that was sent %v after it could be read", by, v.began.Sub(r.at),
			v.good.Sub(visible))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reject judges the rejection of a good token.
func (j *judge) reject(v verdict) {
	if !errors.Is(v.err, verifier.ErrInvalid) {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	row := j.rowLocked(j.moves[v.token.tenant.name])
	switch has := j.seen[sight{held, v.by.name, v.token.kid}]; {
	case !has.IsZero():
		row.Refused++
		j.noteOnceLocked("refused"+v.by.name+v.token.kid, "%s: %s rejects, fresh %v, a token of %s that %s signed %v ago with key %s, which it had: %v", j.moves[v.token.tenant.name], v.by.name, v.fresh, v.token.tenant.name,
			v.token.by, time.Since(v.token.signed), v.token.kid, v.err)
	case v.fresh:
		row.NeverHeld++
	}
}

func (j *judge) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.noteLocked(format, args...)
}

func (j *judge) noteLocked(format string, args ...any) {
	if len(j.notes) < 40 {
		j.notes = append(j.notes, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// noteOnceLocked notes the first of several breaches of the same kind.
func (j *judge) noteOnceLocked(kind, format string, args ...any) {
	if !j.noted[kind] {
		j.noted[kind] = true
		j.noteLocked(format, args...)
	}
}

// result returns the counts of each move, and the notes.
func (j *judge) result() (map[string]wrongs, []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	rows := make(map[string]wrongs)
	for move, w := range maps.All(j.rows) {
		rows[move] = *w
	}
	return rows, slices.Clone(j.notes)
}
