package held

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// A Restore is a ring of a backup that is to be merged into the store.
type Restore struct {
	KEKs   *seal.KEKs
	Tenant string
	Saved  store.Snapshot    // that the backup has
	Stored map[string][]byte // the fields that the store has
	Older  bool              // see [protocol.RestoreInput]

	Now            time.Time // by the store's clock, when Stored was read
	Sent, Received time.Time // before and after that, by this instance's clock
	Deadline       time.Duration
}

// A Restoration is what becomes of a [Restore].
type Restoration struct {
	Have   *Ring              // for the [Sealer] of Change
	Under  seal.KEKName       // for the same
	Change *protocol.Proposal // nil if the store lacks nothing
	Report ring.Restored
}

// Decide opens both rings, and decides about the merge. The error says why nothing may be restored: the
// ring of the backup cannot be opened as a whole, and what cannot be may be a revocation of something
// that can. Or it was read in the future, or the clocks differ. Or a field of the store is under another
// KEK, or of a newer keyturn, and may be a revocation too.
func (r *Restore) Decide() (*Restoration, error) {
	opened, err := seal.OpenRing(r.KEKs, r.Tenant, r.Stored)
	var failed *ring.UnreadableError
	errors.As(err, &failed)
	stored := Open(nil, r.Stored, opened)
	done := &Restoration{Under: stored.UnderKEK(r.KEKs), Report: ring.Restored{Tenant: r.Tenant, Taken: r.Saved.Now}}
	if done.Under == (seal.KEKName{}) {
		done.Under = r.KEKs.Primary()
	}
	saved, err := r.open(done.Under)
	if err != nil {
		return nil, err
	}
	skew := min(stored.ClockSkew(), saved.ClockSkew())
	if err := protocol.CheckClock(r.Now, r.Sent, r.Received, skew); err != nil {
		return nil, err
	}
	if skew != protocol.AnySkew && r.Saved.Now.After(r.Now.Add(2*skew)) {
		return nil, &ring.Error{Text: fmt.Sprintf("the backup says that it read the ring at %v, and for the store it is %v: the clock of one of the two stores is wrong",
			r.Saved.Now, r.Now)}
	}
	unreadable := Unreadable(failed, r.KEKs, r.Stored, saved)
	for _, replaceable := range unreadable {
		if !replaceable {
			return nil, failed
		}
	}
	result := protocol.Restore(protocol.RestoreInput{Taken: r.Saved.Now, Older: r.Older, MergeInput: protocol.MergeInput{
		Held: saved.Copy, Stored: stored.Copy, Unreadable: unreadable, Now: r.Now, LocalNow: r.Received, Deadline: r.Deadline}})
	done.Have, done.Change = Assemble(result.Union, stored, saved), result.Change
	done.note(&result, r.Saved.Fields)
	return done, nil
}

// open opens the ring of the backup, with its tenant keys under the KEK of the store's ring: the backup
// may be of a time before the KEK was changed, and instances have dropped that KEK since.
func (r *Restore) open(under seal.KEKName) (*Ring, error) {
	opened, err := seal.OpenRing(r.KEKs, r.Tenant, r.Saved.Fields)
	if err != nil {
		return nil, &ring.Error{Text: "the ring of the backup", Err: err}
	}
	fields := make(map[string][]byte, len(r.Saved.Fields))
	for field, value := range r.Saved.Fields {
		id, isKey := strings.CutPrefix(field, seal.PrefixKey)
		if tk := opened.TenantKeys[id]; isKey && tk != nil && tk.KEK != under {
			if value, err = seal.RewrapTenantKey(r.KEKs, under, r.Tenant, id, value); err != nil {
				return nil, err
			}
		}
		fields[field] = value
	}
	for _, tk := range opened.TenantKeys {
		if tk.KEK != under {
			again, err := seal.OpenRing(r.KEKs, r.Tenant, fields)
			return Open(nil, fields, again), err
		}
	}
	return Open(nil, fields, opened), nil
}

// note writes the report of a restore. saved are the fields of the backup.
func (d *Restoration) note(result *protocol.RestoreResult, saved map[string][]byte) {
	report := &d.Report
	report.EndsOnly, report.Left = result.EndsOnly, result.Left
	for _, id := range result.Better {
		report.Better = append(report.Better, seal.FactField(id.Kind, id.KID))
	}
	for _, field := range putBack(result.Change) {
		if _, has := saved[field]; has { // a key is announced as well, which no backup had
			report.PutBack = append(report.PutBack, field)
		}
	}
	slices.Sort(report.PutBack)
	slices.Sort(report.Better)
	slices.Sort(report.Left)
}

// putBack returns the fields that p puts back, besides the head. p may be nil.
func putBack(p *protocol.Proposal) (fields []string) {
	if p == nil {
		return nil
	}
	for _, kid := range p.Restore {
		fields = append(fields, seal.PrefixRecord+kid)
	}
	for _, kid := range p.RestoreAccepts {
		fields = append(fields, seal.PrefixAccept+kid)
	}
	for _, id := range p.TenantKeys {
		fields = append(fields, seal.PrefixKey+id)
	}
	for _, f := range p.Facts {
		fields = append(fields, seal.FactField(f.Kind, f.KID))
	}
	return fields
}
