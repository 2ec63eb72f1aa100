package main

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// TestForcedRotations makes 16 runs, and KEYTURN_FORCED of them if that is set; make faults makes 1000.
func TestForcedRotations(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	runs, benches, slower := 16, 1, time.Duration(3+2*busy())
	if text := os.Getenv("KEYTURN_FORCED"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		runs, benches, slower = n, 3, 8
	}
	r, err := forcedRotations(t.Context(), runs, benches, forcedPace().slower(slower), 1, func(bench int, r forcedResult) { t.Logf("bench %d so far: %+v", bench, r) })
	t.Logf("%+v", r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.broken(); err != nil {
		t.Error(err)
	}
	if r.Runs < runs || r.Forced < runs || r.Signed < 100*runs/forcedRings {
		t.Error("that proves nothing")
	}
}
