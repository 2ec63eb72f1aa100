package middleware_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// Each store that may be unable to answer says so. One without Ready would count as ready.
var _ = []interface{ Ready(tenant string) error }{(*jwks.Source)(nil), (*rotation.Keyring)(nil)}

// A readyStore says what it was told to. It counts how often it was asked.
type readyStore struct {
	downStore
	err   error
	asked int
}

func (s *readyStore) Ready(tenant string) error {
	s.asked++
	if s.err != nil {
		return fmt.Errorf("keys of %q: %w", tenant, s.err)
	}
	return nil
}

func tenantsOf(stores ...keystore.KeyStore) func() []verifier.Tenant {
	var list []verifier.Tenant
	for i, s := range stores {
		list = append(list, verifier.Tenant{ID: fmt.Sprintf("customer-%d", i), Keys: s})
	}
	return func() []verifier.Tenant { return list }
}

func TestReady(t *testing.T) {
	up, down := &readyStore{}, &readyStore{err: fmt.Errorf("%w: \"hush\"\r\n\xff", keystore.ErrUnavailable)}
	for _, tt := range []struct {
		name          string
		tenants       func() []verifier.Tenant
		status        int
		counts, named string
	}{
		{"all", tenantsOf(up, up), 200, `{"status":"ready","ready":2,"degraded":0,"not_ready":0}`,
			`{"status":"ready","ready":2,"degraded":0,"not_ready":0,"tenants":{"customer-0":{"status":"ready"},"customer-1":{"status":"ready"}}}`},
		{"some", tenantsOf(down, up), 200, `{"status":"degraded","ready":1,"degraded":0,"not_ready":1}`,
			`{"status":"degraded","ready":1,"degraded":0,"not_ready":1,"tenants":{"customer-0":{"status":"not ready","reason":"keys of \"customer-0\": ` +
				keystore.ErrUnavailable.Error() + `: \"hush\"\r\n` + "\ufffd" + `"},"customer-1":{"status":"ready"}}}`},
		{"none", tenantsOf(down), 503, `{"status":"not ready","ready":0,"degraded":0,"not_ready":1}`,
			`{"status":"not ready","ready":0,"degraded":0,"not_ready":1,"tenants":{"customer-0":{"status":"not ready","reason":"keys of \"customer-0\": ` +
				keystore.ErrUnavailable.Error() + `: \"hush\"\r\n` + "\ufffd" + `"}}}`},
		{"a store that cannot say", tenantsOf(downStore{errors.New("x")}), 200, `{"status":"ready","ready":1,"degraded":0,"not_ready":0}`,
			`{"status":"ready","ready":1,"degraded":0,"not_ready":0,"tenants":{"customer-0":{"status":"ready"}}}`},
		{"no store", tenantsOf(nil), 503, `{"status":"not ready","ready":0,"degraded":0,"not_ready":1}`,
			`{"status":"not ready","ready":0,"degraded":0,"not_ready":1,"tenants":{"customer-0":{"status":"not ready","reason":"there is no key store"}}}`},
		{"no tenants", tenantsOf(), 503, `{"status":"not ready","ready":0,"degraded":0,"not_ready":0}`, `{"status":"not ready","ready":0,"degraded":0,"not_ready":0}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for named, want := range map[bool]string{false: tt.counts, true: tt.named} {
				w := serve(middleware.Ready(middleware.Readiness{Tenants: tt.tenants, Named: named}), request("GET", "/readyz"))
				if w.Code != tt.status || w.Body.String() != want+"\n" {
					t.Errorf("named %t: %d %s, want %d %s", named, w.Code, w.Body, tt.status, want)
				}
				if h := w.Header(); h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "application/json" || h.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("headers %v", h)
				}
			}
		})
	}
}

// A stranger learns how many tenants there are, and no name.
func TestReadyNamesNobodyUnasked(t *testing.T) {
	down := &readyStore{err: errors.New("hush")}
	h := middleware.Ready(middleware.Readiness{Tenants: tenantsOf(down, &readyStore{})})
	for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "get"} {
		w := serve(h, request(method, "/readyz?named=true", "Named", "true"))
		if strings.Contains(answerOf(w), "customer") || strings.Contains(answerOf(w), "hush") {
			t.Errorf("%s: %s", method, answerOf(w))
		}
		if refused := w.Code == http.StatusMethodNotAllowed && w.Header().Get("Allow") == "GET, HEAD"; refused == (method == "GET" || method == "HEAD") {
			t.Errorf("%s: %s", method, answerOf(w))
		}
	}
}

// However many ask, each store is asked once a second.
func TestReadyAsksOnceASecond(t *testing.T) {
	start := time.Unix(now, 0)
	at := start
	var mu sync.Mutex // guards at
	store := &readyStore{}
	h := middleware.Ready(middleware.Readiness{Tenants: tenantsOf(store), Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return at
	}})
	for _, tt := range []struct {
		after time.Duration
		asked int
	}{{0, 1}, {999 * time.Millisecond, 1}, {time.Second, 2}, {1900 * time.Millisecond, 2}, {-time.Hour, 3}} {
		mu.Lock()
		at = start.Add(tt.after)
		mu.Unlock()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { serve(h, request("GET", "/readyz")) })
		}
		wg.Wait()
		if store.asked != tt.asked {
			t.Errorf("after %v: asked %d times, want %d", tt.after, store.asked, tt.asked)
		}
	}
	store.err = keystore.ErrUnavailable
	at = start.Add(time.Hour)
	if w := serve(h, request("GET", "/readyz")); w.Code != http.StatusServiceUnavailable {
		t.Errorf("after the store has failed: %d", w.Code)
	}
}
