package seal

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// The names of the fields of a ring, as docs/formats.md has them. The name of a field for a key, or
// for a fact about one, is a prefix and the id or kid.
const (
	FieldHead = "head" // the newest seq, and how many changes were made
	FieldDead = "dead" // the fact FactDestroyed
	FieldGone = "gone" // the fact FactCollected

	PrefixRecord   = "k:"
	PrefixAccept   = "v:" // an accepted key
	PrefixKey      = "tk:"
	PrefixPublish  = "p:" // when a record was published; not authenticated
	prefixOptional = "_"  // a field that a newer keyturn may add and an older one may ignore
)

// FactField returns the name of the field that holds a fact. kid is empty for a fact about a whole
// ring.
func FactField(kind ring.FactKind, kid string) string {
	switch kind {
	case ring.FactDestroyed:
		return FieldDead
	case ring.FactCollected:
		return FieldGone
	}
	return string(rune(kind)) + ":" + kid
}

// A Publication says when the store published a record. It is not authenticated, so it may only
// delay a change.
type Publication struct {
	KID string
	At  time.Time
}

// Publications returns the publications among the fields of a ring, sorted by kid. It ignores
// values that are not dates.
func Publications(fields map[string][]byte) []Publication {
	var all []Publication
	for field, value := range fields {
		kid, ok := strings.CutPrefix(field, PrefixPublish)
		if !ok {
			continue
		}
		ms, err := strconv.ParseInt(string(value), 10, 64)
		if err == nil && ms > 0 && ms < maxDate.UnixMilli() {
			all = append(all, Publication{kid, time.UnixMilli(ms).UTC()})
		}
	}
	slices.SortFunc(all, func(a, b Publication) int { return strings.Compare(a.KID, b.KID) })
	return all
}
