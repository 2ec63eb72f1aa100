package main

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// TestFlippedBits flips one bit in each byte of a ring. make faults flips all.
func TestFlippedBits(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	r, err := flipBits(t.Context(), 128, false, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if err := r.broken(); err != nil || r.Flipped < 1300 {
		t.Errorf("%d bits were flipped: %v", r.Flipped, err)
	}
}
