package redistest_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func set(t *testing.T, s *redistest.Server, key, value string) {
	t.Helper()
	if err := s.Do(deadline(t), "SET", key, value); err != nil {
		t.Fatal(err)
	}
}
