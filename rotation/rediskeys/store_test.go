package rediskeys_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

func TestStoreOnMiniredis(t *testing.T) {
	rotationtest.TestStore(t, func(t *testing.T) rotation.Store {
		return open(t, "redis://"+mini(t).Addr())
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
