package rediskeys_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// connect returns a client that is closed when the test ends.
func connect(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	client, err := rediskeys.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// open returns a store of its own client.
func open(t testing.TB, url string) *rediskeys.Store {
	t.Helper()
	return storeOf(t, connect(t, url), rediskeys.Config{})
}

func storeOf(t testing.TB, client redis.UniversalClient, c rediskeys.Config) *rediskeys.Store {
	t.Helper()
	s, err := rediskeys.New(client, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func flush(t testing.TB, servers ...*redistest.Server) {
	t.Helper()
	for _, s := range servers {
		if err := s.Do(t.Context(), "FLUSHALL"); err != nil {
			t.Fatal(err)
		}
	}
}
