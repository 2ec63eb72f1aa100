package cache_test

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/cache"
)

// A session is a value that is costly to load, and expires.
type session struct {
	user string
	ends time.Time
}

// The cache saves calls of load, which is costly. Each hit checks the value again: here,
// whether it has expired.
func Example() {
	sessions, err := cache.New[session](cache.Config{Entries: 10_000, Bytes: 1 << 20})
	if err != nil {
		panic(err)
	}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	load := func(text string) session { return session{user: "user of " + text, ends: now.Add(time.Hour)} }

	find := func(text string) string {
		live := func(s *session) bool { return now.Before(s.ends) }
		s, key := sessions.Get(0, text, live)
		if s != nil {
			return "hit: " + s.user
		}
		e := &cache.Entry[session]{Value: load(text)}
		dead := func(s *session) bool { return !now.Before(s.ends) }
		sessions.Add(key, "one group", e, len(e.Value.user)+32, dead)
		return "miss: " + e.Value.user
	}
	fmt.Println(find("a"))
	fmt.Println(find("a"))
	now = now.Add(2 * time.Hour)
	fmt.Println(find("a"))
	fmt.Println(sessions.Stats().Hits, "hit,", sessions.Stats().Misses, "misses,", sessions.Stats().Entries, "entry")
	// Output:
	// miss: user of a
	// hit: user of a
	// miss: user of a
	// 1 hit, 2 misses, 1 entry
}
