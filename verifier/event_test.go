package verifier_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

func TestObserve(t *testing.T) {
	var seen []verifier.Event
	now := time.Unix(nowUnix, 0)
	v, err := verifier.New(verifier.Config{
		Tenants: []verifier.Tenant{acme(t)},
		Now:     func() time.Time { now = now.Add(time.Millisecond); return now },
		Observe: func(_ context.Context, e verifier.Event) { seen = append(seen, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{sign(goodHeader, goodPayload), sign(goodHeader, with(`"exp":1`)), "x"} {
		v.Verify(t.Context(), token)
	}
	v.VerifyTenant(t.Context(), "nobody", sign(goodHeader, goodPayload))
	want := []verifier.Event{
		{Tenant: "acme", Outcome: verifier.Accepted, Duration: time.Millisecond},
		{Tenant: "acme", Outcome: verifier.Refused, Reason: verifier.ReasonExpired, Duration: time.Millisecond},
		{Outcome: verifier.Refused, Reason: verifier.ReasonMalformed, Duration: time.Millisecond},
		{Outcome: verifier.Refused, Reason: verifier.ReasonUnknownTenant, Duration: time.Millisecond},
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("observed %+v\nwant     %+v", seen, want)
	}
}
