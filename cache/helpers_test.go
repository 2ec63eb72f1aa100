package cache_test

import (
	"testing"

	"github.com/keyturn/keyturn/cache"
)

func newCache(tb testing.TB, entries int, bytes int64) *cache.Cache[string] {
	tb.Helper()
	c, err := cache.New[string](cache.Config{Entries: entries, Bytes: bytes})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func entry(value string) *cache.Entry[string] { return &cache.Entry[string]{Value: value} }

func always(*string) bool { return true }

// get reports whether the cache has text, and checks that the value is the one that put
// added.
func get(tb testing.TB, c *cache.Cache[string], text string) bool {
	v, _ := c.Get(0, text, always)
	if v != nil && *v != "value of "+text {
		tb.Errorf("the value for %q is %q", text, *v)
	}
	return v != nil
}

func put(c *cache.Cache[string], group, text string, size int) {
	_, k := c.Get(0, text, func(*string) bool { return false })
	c.Add(k, group, entry("value of "+text), size, nil)
}
