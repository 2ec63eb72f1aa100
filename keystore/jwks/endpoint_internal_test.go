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

// However an issuer spells its host, its fetches count for one limit.
func TestHostOf(t *testing.T) {
	for raw, want := range map[string]string{
		"https://issuer.example/a":       "issuer.example:443",
		"https://ISSUER.example:443/b":   "issuer.example:443",
		"https://issuer.example./c":      "issuer.example:443",
		"https://issuer.example:8443/d":  "issuer.example:8443",
		"http://127.0.0.1/e":             "127.0.0.1:80",
		"https://[2606:4700::1111]:443/": "[2606:4700::1111]:443",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := hostOf(u); got != want {
			t.Errorf("hostOf(%s) = %s, want %s", raw, got, want)
		}
	}
}
