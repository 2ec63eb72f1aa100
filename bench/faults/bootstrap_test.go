package main

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// TestBootstrapBesideHolders empties a server with 2000 rings; make faults one with 20 000.
func TestBootstrapBesideHolders(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	n, p, slow := 2000, fast, 5*time.Millisecond
	if v, err := strconv.Atoi(os.Getenv("RINGS")); err == nil {
		n, p, slow = v, fast.slower(8), 0
	}
	if v, err := strconv.Atoi(os.Getenv("SLOW")); err == nil {
		slow = time.Duration(v) * time.Millisecond
	}
	r, err := bootstrap(t.Context(), n, p, slow)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if err := r.broken(); err != nil {
		t.Error(err)
	}
}
