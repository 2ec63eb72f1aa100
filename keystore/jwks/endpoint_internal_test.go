package jwks

import (
	"net/url"
	"sync"
	"testing"
	"time"
)

// A new set is distributed without the endpoint's lock, while callers wake it.
func TestDistributeBesideCallers(t *testing.T) {
	e := newEndpoint(New(Config{}), "", "acme", new(url.URL), SourceConfig{})
	e.attempt = new(attempt) // which has the set
	got := &outcome{generation: 1, ttl: time.Minute}
	var callers sync.WaitGroup
	callers.Go(func() {
		for range 1000 {
			e.mu.Lock()
			e.m = e.m.sleep()
			e.wakeLocked(epoch)
			e.mu.Unlock()
		}
	})
	for range 1000 {
		e.distribute(got, epoch)
	}
	callers.Wait()
}
