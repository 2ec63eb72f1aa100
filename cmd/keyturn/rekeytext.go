package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A rekeyJSON is what "keys rekey --json" prints.
type rekeyJSON struct {
	Primary   *string           `json:"primary"`
	Rings     int               `json:"rings"`
	Rekeyed   int               `json:"rekeyed"`
	Rotated   int               `json:"rotated"`
	Left      int               `json:"left"` // rings that --rotate-all has to rotate
	From      *string           `json:"from"` // when the last of them can be rotated
	OldUntil  *string           `json:"old_keys_until"`
	Fields    map[string]int    `json:"fields"` // by KEK
	Revoked   rekeyedListJSON   `json:"revocations"`
	Tenants   []rekeyedRingJSON `json:"tenants"`
	Instances []ackJSON         `json:"instances"`
	Undone    bool              `json:"undone"`
	Waited    float64           `json:"waited"` // in seconds
}

// A rekeyedListJSON is the list of revocations of a [rekeyJSON].
type rekeyedListJSON struct {
	Keys   int `json:"digest_keys"`
	Sealed int `json:"sealed"`
}

// A rekeyedRingJSON is one ring of a [rekeyJSON].
type rekeyedRingJSON struct {
	Tenant   string              `json:"tenant"`
	Rekeyed  bool                `json:"rekeyed"`
	Others   map[string][]string `json:"others"`
	OldKeys  []string            `json:"old_keys"`
	Promoted *string             `json:"promoted"`
	Minted   *string             `json:"minted"`
	Left     []string            `json:"left"`
	From     *string             `json:"from"`
	Error    *string             `json:"error"`
}

// object is for programs.
func (r *rekeying) object() string {
	o := rekeyJSON{
		Primary: orNull(r.primary), Rings: r.rings, Rekeyed: r.rekeyed, Fields: r.fields,
		Rotated: r.rotated.rings, Left: r.rotated.left, From: when(r.rotated.from), OldUntil: when(r.rotated.until), Tenants: []rekeyedRingJSON{}, Revoked: rekeyedListJSON{r.revocations.Keys, r.revocations.Sealed},
		Instances: acksJSON(r.roster()), Undone: r.seen.undone, Waited: r.seen.waited.Round(time.Millisecond).Seconds(),
	}
	for _, one := range r.tenants {
		shown := rekeyedRingJSON{Tenant: one.Tenant, Rekeyed: one.Changed, Others: one.Others, OldKeys: append([]string{}, one.OldKeys...),
			Promoted: orNull(one.receipt.Promoted), Minted: orNull(one.receipt.Minted), Left: append([]string{}, one.left...), From: when(one.from)}
		if shown.Others == nil {
			shown.Others = map[string][]string{}
		}
		if one.err != nil {
			shown.Error = orNull(one.err.Error())
		}
		o.Tenants = append(o.Tenants, shown)
	}
	return toJSON(o)
}

// text is for people.
func (r *rekeying) text() string {
	var b strings.Builder
	if r.primary != "" {
		fmt.Fprintf(&b, "KEK %s is first here\n", printable(r.primary, false))
	}
	switch {
	case r.looks() && len(r.fields) == 0:
		fmt.Fprintf(&b, "rings: %d looked at, all under that KEK\n", r.rings)
	case r.looks():
		fmt.Fprintf(&b, "rings: %d looked at, with %s under another KEK\n", r.rings, countFields(r.fields))
	default:
		fmt.Fprintf(&b, "rings: %d sealed again, %d done already\n", r.rekeyed, r.rings-r.rekeyed)
	}
	b.WriteString(r.revocationsText())
	b.WriteString(r.rotatedText())
	for _, kek := range slices.Sorted(maps.Keys(r.fields)) {
		fmt.Fprintf(&b, "  %d under KEK %s%s\n", r.fields[kek], printable(kek, false), map[bool]string{false: " before"}[r.looks()])
	}
	for _, one := range r.tenants {
		b.WriteString(one.text(r.looks()))
	}
	b.WriteString(r.instancesText())
	return b.String()
}

// revocationsText says how the digest keys of the list of revocations are sealed, if there is one.
func (r *rekeying) revocationsText() string {
	old := 0
	for _, keys := range r.revocations.Others {
		old += len(keys)
	}
	switch keys := r.revocations.Keys; {
	case keys == 0:
		return ""
	case r.looks():
		return fmt.Sprintf("revocations: %d digest keys looked at, %d of them under another KEK\n", keys, old)
	default:
		return fmt.Sprintf("revocations: %d digest keys sealed again, %d done already\n", r.revocations.Sealed, keys-r.revocations.Sealed)
	}
}

// text says what there is to say about a ring. The fields are listed if it was only looked at.
func (one *rekeyedRing) text(looks bool) string {
	var b strings.Builder
	tenant := quoteShort(one.Tenant)
	if one.err != nil {
		fmt.Fprintf(&b, "tenant %s: NOT DONE: %s\n", tenant, one.err)
	}
	if looks {
		for _, kek := range slices.Sorted(maps.Keys(one.Others)) {
			fields := one.Others[kek]
			const most = 5
			more := ""
			if len(fields) > most {
				fields, more = fields[:most], fmt.Sprintf(" and %d more", len(fields)-most)
			}
			fmt.Fprintf(&b, "tenant %s: under KEK %s: %s%s\n", tenant, printable(kek, false), printable(strings.Join(fields, " "), false), more)
		}
	}
	b.WriteString(one.rotatedRing.text(tenant))
	if len(one.OldKeys) > 0 {
		fmt.Fprintf(&b, "tenant %s: keys that were made under another KEK: %s\n", tenant, printable(strings.Join(one.OldKeys, " "), false))
	}
	return b.String()
}

// instancesText says which KEKs the instances have, and which of them need no older one.
func (r *rekeying) instancesText() string {
	var b strings.Builder
	var ready []string
	for _, a := range r.roster() {
		name := printable(a.Instance, false)
		switch {
		case !a.live:
			fmt.Fprintf(&b, "instance %s: last heard of %s\n", name, since(a.At, r.now()))
			continue
		case len(a.KEKs) == 0:
			fmt.Fprintf(&b, "instance %s: its first KEK is not one of this command's\n", name)
			continue
		}
		fmt.Fprintf(&b, "instance %s: KEK %s first", name, printable(a.KEKs[0], false))
		if len(a.KEKs) > 1 {
			b.WriteString("; then " + printable(strings.Join(a.KEKs[1:], ", "), false))
			if a.KEKs[0] == r.primary && a.Applied {
				ready = append(ready, name)
			}
		}
		b.WriteString("\n")
	}
	whole := !r.tenant.given && r.stopped == nil && r.failed == nil && !r.seen.undone && (len(r.fields) == 0 || !r.looks())
	needs := "these instances do not need their older KEKs"
	if r.fromRealm.given {
		needs = "these instances do not need their other KEKs and realms"
	}
	if whole && len(ready) > 0 {
		fmt.Fprintf(&b, "%s any longer: %s\n", needs, strings.Join(ready, ", "))
	}
	switch {
	case whole && r.fromRealm.given:
		b.WriteString("Dumps of Redis from before are in the old realm: after a restore from one, repeat this command.\n")
	case whole:
		b.WriteString("Keep the old KEK in a safe place, and in no instance, for as long as you keep dumps of Redis from before.\n")
	}
	return b.String()
}

func countFields(byKEK map[string]int) string {
	n := 0
	for _, count := range byKEK {
		n += count
	}
	if n == 1 {
		return "1 field"
	}
	return fmt.Sprintf("%d fields", n)
}
