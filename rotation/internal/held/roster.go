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

// A Roster is the acknowledgements of one bucket at one moment.
type Roster struct {
	Views []protocol.AckView
	Ended []protocol.AckView // what instances have left that have ended: see [seal.Ended]
	names map[string]string  // of the KEKs, for people
}

// OpenAcks returns the roster of a bucket. It leaves out the acknowledgements that are not
// authentic, and calls forged for each: anyone who can write to the store can write one. One under a
// KEK that this instance lacks may be an instance's own word, so it stays, as Unreadable.
func OpenAcks(keks *seal.KEKs, bucket int, raw []store.RawAck, forged func(instance string, err error)) Roster {
	all := Roster{names: make(map[string]string)}
	for _, r := range raw {
		a, err := seal.OpenAck(keks, r.Instance, bucket, r.Sealed)
		switch {
		case err == nil:
			view := protocol.AckView{Instance: r.Instance, At: a.At, GoodSince: a.GoodSince, ReadTo: a.PlaceID, Nonce: a.PlaceNonce, Run: a.Run, Ends: a.Ends, Verifies: a.Verifies}
			for _, applied := range a.Applied {
				view.Applied = append(view.Applied, protocol.Entry{Nonce: applied.Nonce, Holds: applied.Holds})
			}
			for _, name := range a.KEKs {
				view.KEKs = append(view.KEKs, KEK(name))
				all.names[KEK(name)] = keks.Describe(name)
			}
			if r.Parted() {
				all.Ended = append(all.Ended, view)
				continue
			}
			all.Views = append(all.Views, view)
		case r.Parted() && (errors.Is(err, seal.ErrWrongKEK) || errors.Is(err, seal.ErrNewer)):
			// It is of no instance, and tells this one nothing.
		case errors.Is(err, seal.ErrWrongKEK), errors.Is(err, seal.ErrNewer):
			all.Views = append(all.Views, protocol.AckView{Instance: r.Instance, At: r.At(), Unreadable: true})
		default:
			forged(r.Instance, err)
		}
	}
	return all
}

// Live returns the roster of the instances that were there within fresh before now, the store's
// time.
func (all Roster) Live(now time.Time, fresh time.Duration) Roster {
	all.Views = protocol.Live(all.Views, now, fresh)
	return all
}

// Acks returns the roster as a user sees it, for the change with that nonce.
func (all Roster) Acks(nonce string) []ring.Ack {
	acks := make([]ring.Ack, len(all.Views))
	for i, v := range all.Views {
		acks[i] = ring.Ack{Instance: v.Instance, At: v.At, GoodSince: v.GoodSince, ReadTo: v.ReadTo, Verifies: v.Verifies}
		if n := slices.IndexFunc(v.Applied, func(e protocol.Entry) bool { return e.Nonce == nonce }); nonce != "" && n >= 0 {
			acks[i].Applied, acks[i].Holds = true, v.Applied[n].Holds
		}
		for _, kek := range v.KEKs {
			acks[i].KEKs = append(acks[i].KEKs, all.names[kek])
		}
	}
	return acks
}

// NotFirst returns the instances whose primary KEK is not the one of that name.
func (all Roster) NotFirst(primary string) (instances []string) {
	for _, a := range all.Views {
		if !protocol.AgreeOn(primary, []protocol.AckView{a}) {
			instances = append(instances, a.Instance)
		}
	}
	return instances
}

// NotFirstReason says why a ring is not sealed again while these instances have another primary KEK
// than that of keks.
func NotFirstReason(keks *seal.KEKs, instances []string) string {
	also := ""
	if keks.SeveralRealms() {
		also = " in that realm"
	}
	return fmt.Sprintf("these instances do not have KEK %v first: %s; make it the first line of their KEKs%s, and wait a minute for those that have ended, or see docs/operations.md if you know no such instance",
		keks.Describe(keks.Primary()), strings.Join(instances, ", "), also)
}

// SealAck returns the sealed acknowledgement of an instance that has applied those changes.
func SealAck(keks *seal.KEKs, a seal.Ack, applied []protocol.Entry) ([]byte, error) {
	for _, e := range applied {
		a.Applied = append(a.Applied, seal.Applied{Nonce: e.Nonce, Holds: e.Holds})
	}
	a.GoodSince, a.At = protocol.WholeMillis(a.GoodSince), protocol.WholeMillis(a.At)
	return seal.SealAck(keks, a)
}

// OpenEntry returns the facts of an entry of the log that end trust. The error wraps one of the
// errors of package seal; then the entry is a hint that a ring changed, and no more.
func OpenEntry(keks *seal.KEKs, e store.LogEntry) (ends ring.Facts, err error) {
	opened, err := seal.OpenEntry(keks, seal.Entry{Op: e.Op, Tenant: e.Tenant, KID: e.KID, Seq: e.Seq, Actor: e.Actor, Nonce: e.Nonce}, e.MAC)
	if err != nil {
		return ring.Facts{}, err
	}
	for _, f := range opened.Ends {
		if f.Kind == ring.FactDestroyed {
			ends.Kill(f.Life, f.At)
		} else {
			ends.Add(f.Kind, f.KID, f.At)
		}
	}
	return ends, nil
}

// Rekeyed returns under which KEKs the ring of tenant is, and the names of those KEKs. fields are
// those that the store has of it.
func (c *Ring) Rekeyed(tenant string, keks *seal.KEKs, fields map[string][]byte) (report ring.Rekeyed, under []string) {
	primary := keks.Primary()
	report = ring.Rekeyed{Tenant: tenant, Primary: keks.Describe(primary), Others: make(map[string][]string)}
	for field, name := range seal.UnderKEKs(fields) {
		if other := keks.Describe(name); KEK(name) != KEK(primary) {
			report.Others[other] = append(report.Others[other], field)
		}
		under = append(under, KEK(name))
	}
	for _, fields := range report.Others {
		slices.Sort(fields)
	}
	for _, r := range c.All() {
		if c.BornOf(r) != Origin(primary) && !c.Revoked(r.KID) {
			report.OldKeys = append(report.OldKeys, r.KID)
		}
	}
	// The secret of an accepted key signs whatever its owner wants. A public key is not secret.
	for _, a := range c.AllAccepted() {
		if a.Algorithm.Symmetric() && c.bornOf(a.Accept.TenantKey) != Origin(primary) && !c.Revoked(a.KID) {
			report.OldKeys = append(report.OldKeys, a.KID)
		}
	}
	slices.Sort(under)
	return report, slices.Compact(under)
}

// UnderKEKs returns the names of the KEKs that fields of a ring are under, each once, sorted.
func UnderKEKs(fields map[string][]byte) (under []string) {
	for _, name := range seal.UnderKEKs(fields) {
		under = append(under, KEK(name))
	}
	slices.Sort(under)
	return slices.Compact(under)
}

// UnderKEK returns the KEK for a change to a ring of which not every field can be opened: that of the
// tenant key of the newest record, if both can be opened, or else of some tenant key that can be, the
// primary first. If there is none, it returns no name.
func (c *Ring) UnderKEK(keks *seal.KEKs) (name seal.KEKName) {
	newest := c.Plain().NewestKeyID()
	for _, tk := range c.tenantKeys {
		under, _, err := seal.ReadTenantKeyNames(tk.blob)
		switch {
		case err != nil:
		case tk.id == newest:
			return under
		case name == seal.KEKName{} || KEK(under) == KEK(keks.Primary()):
			name = under
		}
	}
	return name
}

// CheckKeeps returns an error if keks lack the KEK of a tenant key of the ring, so that its keys could
// not sign any longer, or that of a fact, so that the ring could not be read. c may be nil.
func (c *Ring) CheckKeeps(tenant string, keks *seal.KEKs) error {
	if c == nil {
		return nil
	}
	needs := slices.Clone(c.under)
	for _, tk := range c.tenantKeys {
		if name, _, err := seal.ReadTenantKeyNames(tk.blob); err == nil {
			needs = append(needs, name)
		}
	}
	for _, name := range needs {
		if !keks.Has(name) {
			return &ring.Error{Kind: seal.ErrWrongKEK, Text: fmt.Sprintf("the new KEKs lack %v, which the ring of tenant %q needs: keep it until keyturn keys rekey is done", name, tenant)}
		}
	}
	return nil
}
