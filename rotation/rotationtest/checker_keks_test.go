package rotationtest_test

import (
	"maps"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/seal"
)

// newKEKCounts (I14): once all instances have another primary KEK, a person who has an older one, and
// all that the store has ever had, cannot open a key that is minted from then on. Instances count for
// Freshness after they have ended.
func (c *checker) newKEKCounts(report func(int, string, ...any)) {
	primary, all := make(map[int]string), ""
	since, names := time.Duration(0), make(map[string]bool) // since when all instances have that primary
	for n, e := range c.events {
		switch {
		case e.primary != "":
			primary[e.inst], names[e.primary] = e.primary, true
		case e.kind == evClose:
			delete(primary, e.inst)
		}
		if now := same(primary); now != all {
			all, since = now, e.at
		}
		settled := e.at > since+c.policy.Freshness+c.timing.w+c.timing.latency
		if e.commit == nil || !mints(e.commit) || all == "" || len(names) < 2 || !settled || c.beyondS {
			continue
		}
		for kid := range e.commit.keys {
			for old := range names {
				if old != all && c.opens(old, e.tenant, kid, e.commit.Set["k:"+kid]) {
					report(n, "key %s is minted, and KEK %s opens it; all instances have had %s first since %v", short(kid), old, all, since)
				}
			}
		}
	}
}

// same returns the value that all keys of m have, or "" if they differ.
func same(m map[int]string) (value string) {
	for _, v := range m {
		if value != "" && v != value {
			return ""
		}
		value = v
	}
	return value
}

// opens reports whether a record can be opened with one KEK and any tenant key that the store has had.
func (c *checker) opens(kek, tenant, kid string, record []byte) bool {
	keks, err := seal.NewKEKs(kekBytes(kek))
	if err != nil {
		panic(err)
	}
	for _, e := range c.events {
		if e.commit == nil || e.tenant != tenant {
			continue
		}
		for field, blob := range maps.All(e.commit.Set) {
			id, is := strings.CutPrefix(field, "tk:")
			if !is {
				continue
			}
			tk, err := seal.OpenTenantKey(keks, tenant, id, blob)
			if err != nil {
				continue
			}
			if _, err := seal.OpenRecord(map[string]*seal.TenantKey{id: tk}, tenant, kid, record); err == nil {
				return true
			}
		}
	}
	return false
}
