package metrics

import (
	"sync/atomic"
	"unicode/utf8"

	"github.com/keyturn/keyturn/verifier"
)

// otherTenant is the label of the tenants that the page does not name. A tenant of this name is one
// of them.
const otherTenant = "other"

// outcomes are the values of the label outcome.
var outcomes = [...]verifier.Outcome{verifier.Accepted, verifier.Refused, verifier.Unavailable, verifier.Canceled}

// A tenantCount counts the verifications of a tenant by outcome.
type tenantCount [len(outcomes)]atomic.Uint64

// tenantCounts are the counts of the tenants that the page names. The map does not change: a call of
// Watch makes another one.
type tenantCounts struct {
	order  []string // the names, as in Watched.Tenants
	byName map[string]*tenantCount
	other  *tenantCount
}

// nameTenants returns the counts of the first tenants, up to limit, with what before has of them. What
// it has of tenants that are no longer named goes to the others, so that no counter falls.
func nameTenants(before *tenantCounts, tenants []string, limit int) *tenantCounts {
	if before == nil {
		before = &tenantCounts{other: new(tenantCount)}
	}
	t := &tenantCounts{byName: make(map[string]*tenantCount), other: before.other}
	for _, name := range tenants {
		if len(t.order) == limit {
			break
		}
		if t.byName[name] != nil || name == otherTenant || name == "" || !utf8.ValidString(name) {
			continue // Prometheus has no other text in labels (its data model)
		}
		t.order = append(t.order, name)
		if t.byName[name] = before.byName[name]; t.byName[name] == nil {
			t.byName[name] = new(tenantCount)
		}
	}
	for name, count := range before.byName {
		if t.byName[name] != nil {
			continue
		}
		for i := range count {
			t.other[i].Add(count[i].Load())
		}
	}
	return t
}

// observe counts a verification.
func (t *tenantCounts) observe(e *verifier.Event) {
	count := t.byName[e.Tenant]
	if count == nil {
		count = t.other
	}
	for i, outcome := range outcomes {
		if e.Outcome == outcome {
			count[i].Add(1)
			return
		}
	}
}
