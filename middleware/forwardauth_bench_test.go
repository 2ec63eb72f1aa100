package middleware_test

import (
	"net/http"
	"testing"

	"github.com/keyturn/keyturn/middleware"
)

// A discard is a ResponseWriter that keeps its headers alone.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// A decision for a cached token makes a context, and the values and list of its headers. These are few
// pieces, since nginx waits for each decision: see make edge.
func TestForwardAuthAllocatesLittle(t *testing.T) {
	door := middleware.ForwardAuth(newVerifier(t, "acme"), middleware.ForwardAuthConfig{})
	r := request("GET", "/authz", bearer(good("acme", "scope", "orders:read orders:write", "jti", "7"))...)
	w := &discard{make(http.Header)}
	if n := testing.AllocsPerRun(100, func() { door.ServeHTTP(w, r) }); n > 4 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// One decision for a token that is in the cache, without what net/http does around it.
func BenchmarkForwardAuth(b *testing.B) {
	door := middleware.ForwardAuth(newVerifier(b, "acme"), middleware.ForwardAuthConfig{})
	r := request("GET", "/authz", append(bearer(good("acme", "scope", "orders:read orders:write", "jti", "7")), "User-Agent", "x", "Accept", "*/*", "Host", "x")...)
	w := &discard{make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		door.ServeHTTP(w, r)
	}
}
