package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/doctor"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// A person ends the doctor before it looks at the list of revocations: it says that it could not, and does
// not fail.
func TestDoctorIsEndedBeforeTheList(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer client.Close()
	l := &look{doctorCommand: &doctorCommand{app: &app{now: time.Now}}, session: &ringSession{store: &store{client: client}}}
	l.list(ctx)
	if len(l.findings) != 1 || l.findings[0].Level != doctor.Unknown {
		t.Errorf("the findings are %+v", l.findings)
	}
}

// A list that cannot tell is never exit code 1 of verify: that says that the token is bad.
func TestVerifyOfAListThatCannotTell(t *testing.T) {
	for _, err := range []error{revocations.ErrFull, revocations.ErrStale, revocations.ErrNotReady, revocations.ErrDigestKeys, revocations.ErrClosed} {
		var e *exitError
		if got := untold(fmt.Errorf("revocations: %w", err)); !errors.As(got, &e) || e.code != exitCannotTell {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	if err := untold(nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}
