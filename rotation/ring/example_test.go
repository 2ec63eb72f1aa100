package ring_test

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// The key of January signs until the one of February takes effect, and verifies until its last
// token has expired. A promotion makes the key of February sign early.
func ExampleView() {
	january := time.Date(2030, time.January, 1, 0, 0, 0, 0, time.UTC)
	february := january.AddDate(0, 1, 0)
	march := february.AddDate(0, 1, 0)

	policy := ring.Policy{Every: 30 * 24 * time.Hour, MaxTokenTTL: 15 * time.Minute}.WithDefaults()
	records := []ring.Record{
		{Tenant: "acme", KID: "jan", Seq: 1, Created: january, ActivateAt: january, SignUntil: march, Timing: policy},
		{Tenant: "acme", KID: "feb", Seq: 2, Created: january.Add(time.Hour), ActivateAt: february, SignUntil: march, Timing: policy},
	}
	show := func(facts ring.Facts, now time.Time) {
		fmt.Print(now.Format("Jan 2, 15:04"), ":")
		for _, key := range ring.View(records, facts, now).Keys {
			fmt.Printf("  %s is %s, verifies: %t", key.KID, key.State, key.Verifies())
		}
		fmt.Println()
	}

	var none ring.Facts
	show(none, january)
	show(none, february)
	show(none, february.Add(policy.MaxTokenTTL+policy.Leeway))

	var promoted ring.Facts
	promoted.Add(ring.FactPromoted, "feb", january.AddDate(0, 0, 20))
	show(promoted, january.AddDate(0, 0, 20))

	// Output:
	// Jan 1, 00:00:  jan is signing, verifies: true  feb is pending, verifies: true
	// Feb 1, 00:00:  jan is retired, verifies: true  feb is signing, verifies: true
	// Feb 1, 00:15:  jan is dropped, verifies: false  feb is signing, verifies: true
	// Jan 21, 00:00:  jan is retired, verifies: true  feb is signing, verifies: true
}

// Two copies of a ring's facts become equal in whatever order they hear of each other.
func ExampleFacts_Join() {
	noon := time.Date(2030, time.January, 1, 12, 0, 0, 0, time.UTC)
	var here, there ring.Facts
	here.Add(ring.FactPromoted, "feb", noon)
	there.Add(ring.FactPromoted, "feb", noon.Add(time.Minute))
	there.Add(ring.FactRevoked, "jan", noon.Add(time.Hour))

	joined := here.Join(there)
	for id, at := range joined.All {
		fmt.Printf("%c %s %s\n", id.Kind, id.KID, at.Format(time.TimeOnly))
	}
	fmt.Println(joined.Equal(there.Join(here)), joined.Join(here).Equal(joined))

	// Output:
	// a feb 12:00:00
	// x jan 13:00:00
	// true true
}
