package rediskeys

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
)

// silence is after how much of it Listen asks whether the server is still there,
// and, after as much again, takes it that it is not.
const silence = 10 * time.Second

// Listen implements [rotation.Store]. It returns the context's error, or what is
// wrong with the connection: it does not connect again by itself. What is
// published by others and names no bucket is ignored.
func (s *Store) Listen(ctx context.Context, changed func(bucket int)) error {
	sub := s.client.Subscribe(ctx) // connects with the first channel
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = sub.Close() // ends a read
	})
	defer func() {
		if !stop() {
			<-closed
		}
		_ = sub.Close()
	}()
	err := sub.Subscribe(ctx, s.channel)
	if err == nil {
		err = hear(ctx, sub, changed)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return explain("listen", err)
}

func hear(ctx context.Context, sub *redis.PubSub, changed func(bucket int)) error {
	asked := false
	for {
		message, err := sub.ReceiveTimeout(ctx, silence)
		switch ne := net.Error(nil); {
		case err == nil:
			asked = false
		case ctx.Err() == nil && !asked && errors.As(err, &ne) && ne.Timeout():
			asked = true
			if err := sub.Ping(ctx); err != nil {
				return err
			}
		default:
			return err
		}
		if m, ok := message.(*redis.Message); ok {
			if bucket, ok := parseBucket(m.Payload); ok {
				changed(bucket)
			}
		}
	}
}

func parseBucket(text string) (int, bool) {
	b, err := strconv.Atoi(text)
	return b, err == nil && b >= 0 && b < rotation.Buckets && strconv.Itoa(b) == text
}
