package seal

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Publication is a "p:" field: not authenticated.
type Publication struct {
	KID string
	At  time.Time
}

// Publications returns when the store says that each kid was published, by kid.
func Publications(fields map[string][]byte) []Publication {
	var all []Publication
	for field, value := range fields {
		kid, ok := strings.CutPrefix(field, PrefixPublish)
		ms, err := strconv.ParseInt(string(value), 10, 64)
		if ok && err == nil && ms > 0 && ms < maxDate.UnixMilli() {
			all = append(all, Publication{kid, time.UnixMilli(ms).UTC()})
		}
	}
	slices.SortFunc(all, func(a, b Publication) int { return strings.Compare(a.KID, b.KID) })
	return all
}
