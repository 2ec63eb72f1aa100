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

// pingAfter is how long Listen hears nothing before it sends a PING. If the server
// stays silent for as long again, the connection is taken to be broken.
const pingAfter = 10 * time.Second

// Listen implements [rotation.Store]. It returns the context's error, or the error
// of the connection; it does not reconnect. A message that names no bucket is
// ignored: other clients may publish on the channel too.
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
		err = receive(ctx, sub, changed)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.askForSlots(ctx, err)
	return explain("listen", err)
}

// receive calls changed for each message until the connection fails.
func receive(ctx context.Context, sub *redis.PubSub, changed func(bucket int)) error {
	pinged := false
	for {
		message, err := sub.ReceiveTimeout(ctx, pingAfter)
		switch ne := net.Error(nil); {
		case err == nil:
			pinged = false
		case ctx.Err() == nil && !pinged && errors.As(err, &ne) && ne.Timeout():
			pinged = true
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
