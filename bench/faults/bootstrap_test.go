package main

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// TestBootstrapBesideHolders empties a server with 2000 rings; make faults one with 20 000.
func TestBootstrapBesideHolders(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	r, err := bootstrap(t.Context(), 2000, fast.slower(2), 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if err := r.broken(); err != nil {
		t.Error(err)
	}
}
