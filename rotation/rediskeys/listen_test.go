package rediskeys_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

func TestListenIgnoresForgeries(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard, ended := make(chan int, 100), make(chan error, 1)
	go func() { ended <- s.Listen(ctx, func(b int) { heard <- b }) }()
	for server.Client().Publish(t.Context(), "kt:changed", "0").Val() == 0 { // waits for another process
		time.Sleep(time.Millisecond)
	}
	for _, forged := range []string{"", "-1", "256", "1.0", "01", "+1", " 1", "1e1", "x", "99999999999999999999", strings.Repeat("1", 1<<20), "255", "7"} {
		do(t, server, "PUBLISH", "kt:changed", forged)
	}
	set(t, s, tenant, "f", "1")
	for _, want := range []int{0, 255, 7, bucket} {
		if got := <-heard; got != want {
			t.Errorf("heard %d, want %d", got, want)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestListenEndsWithServer(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	ended, heard := make(chan error, 1), make(chan int, 100)
	go func() { ended <- s.Listen(deadline(t, 10*time.Second), func(b int) { heard <- b }) }()
	for server.Client().Publish(t.Context(), "kt:changed", "0").Val() == 0 { // waits for another process
		time.Sleep(time.Millisecond)
	}
	<-heard
	server.Kill()
	wantErr(t, "Listen", <-ended, rediskeys.ErrUnreachable)
	wantErr(t, "Listen", s.Listen(deadline(t, 10*time.Second), func(int) {}), rediskeys.ErrUnreachable)
}
