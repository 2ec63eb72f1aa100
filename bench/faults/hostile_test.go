package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// TestAdversary lets an adversary make some of its moves.
func TestAdversary(t *testing.T) {
	redistest.Need(t)
	o := testOptions()
	o.pace = hostilePace(6 * time.Second)
	all, long := moves, 15*time.Second
	if only := os.Getenv("MOVES"); only != "" {
		all = nil
		for _, m := range moves {
			for _, n := range strings.Split(only, ",") {
				if m.name == n {
					all = append(all, m)
				}
			}
		}
	}
	if d, err := time.ParseDuration(os.Getenv("LONG")); err == nil {
		long = d
	}
	r, err := underAttack(t.Context(), o, all, long)
	if err != nil {
		t.Error(err)
	}
	r.write(testWriter{t})
	for _, n := range r.Notes {
		t.Log(n)
	}
	if err := r.broken(); err != nil {
		t.Error(err)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) { w.t.Log(string(b)); return len(b), nil }
