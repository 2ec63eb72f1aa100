package rediskeys_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

func TestStoreOnMiniredis(t *testing.T) {
	rotationtest.TestStore(t, func(t *testing.T) rotation.Store {
		// It takes seconds for a read of all buckets on a busy machine with the race detector, and [rediskeys.Open]
		// waits for three.
		client := redis.NewClient(&redis.Options{Addr: mini(t).Addr(), ReadTimeout: time.Minute, ContextTimeoutEnabled: true, DisableIdentity: true, Protocol: 2})
		t.Cleanup(func() { client.Close() })
		return storeOf(t, client, rediskeys.Config{})
	})
}

func TestStoreOnRedis(t *testing.T) {
	redistest.Need(t)
	s := redistest.Run(t, redistest.Options{})
	rotationtest.TestStore(t, func(t *testing.T) rotation.Store {
		flush(t, s)
		return open(t, "redis://"+s.Addr())
	})
}
