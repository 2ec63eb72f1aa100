package main

import (
	"math"
	"testing"
)

// A limit of the user's counts the ballast too, so that it would be taken from what the server may use.
func TestBallastLeavesAMemoryLimitAlone(t *testing.T) {
	if b := newBallast(64 << 20); b != nil {
		t.Errorf("with GOMEMLIMIT there is a ballast of %d bytes", len(b))
	}
	if b := newBallast(math.MaxInt64); len(b) == 0 {
		t.Error("without a limit there is no ballast")
	}
}
