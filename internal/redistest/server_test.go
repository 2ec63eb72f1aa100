package redistest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

func TestServerStarts(t *testing.T) {
	redistest.Need(t)
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep %v", keep), func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			s := redistest.Run(t, redistest.Options{Keep: keep})
			set(t, s, "k", "v")
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
			want := map[bool]string{false: "", true: "v"}[keep]
			if got := s.Client().Get(ctx, "k").Val(); got != want {
				t.Errorf("after Restart: %q, want %q", got, want)
			}
			set(t, s, "k", "v")
			if err := s.RestartEmpty(); err != nil {
				t.Fatal(err)
			}
			if got := s.Client().Get(ctx, "k").Val(); got != "" {
				t.Errorf("after RestartEmpty: %q", got)
			}
			s.Kill()
			if err := s.Client().Ping(ctx).Err(); err == nil {
				t.Error("answers after Kill")
			}
		})
	}
}

func TestServerThatCannotStart(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	if _, err := redistest.Start(redistest.Options{Args: []string{"--no-such-option", "1"}}); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("error %v", err)
	}
}

func TestPause(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	s := redistest.Run(t, redistest.Options{})
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Client().Ping(ctx).Err(); err == nil {
		t.Error("answers while paused")
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().Ping(deadline(t)).Err(); err != nil {
		t.Error(err)
	}
}
