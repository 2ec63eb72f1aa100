package jwks_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A scheduled fetch may be answered by a cache that does not have the newest key yet. That must not
// make its tokens bad.
func TestKidMissingFromCache(t *testing.T) {
	a, c := jwkstest.NewKey("a", "ES256"), jwkstest.NewKey("c", "ES256")
	for _, tt := range []struct {
		name string
		test func(t *testing.T, s *jwks.Source) (requests int)
	}{
		{"is asked for past it, once for all", func(t *testing.T, s *jwks.Source) int {
			var callers sync.WaitGroup
			for range 100 {
				callers.Go(func() {
					if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
						t.Errorf("Refresh = %v", err)
					}
				})
			}
			callers.Wait()
			return 2
		}},
		{"is not remembered as missing", func(t *testing.T, s *jwks.Source) int {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
			defer cancel() // 10 ms after the cache has answered
			wantOnly(t, "Refresh", s.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "c"}), keystore.ErrUnavailable)
			if got := jwks.Missing(s); got != 0 {
				t.Errorf("%d kids are remembered", got)
			}
			return 2
		}},
		{"is refused if the issuer lacks it, too", func(t *testing.T, s *jwks.Source) int {
			for range 10 {
				err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "unknown"})
				wantOnly(t, "Refresh", err, keystore.ErrNotFound)
			}
			return 2
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				network := &network{set: func(_ string, r *http.Request) string {
					time.Sleep(100 * time.Millisecond)
					if r.Header.Get("Cache-Control") == "no-cache" {
						return jwkstest.Set(a, c)
					}
					return jwkstest.Set(a) // from a cache
				}}
				defer network.answering.Wait()
				client := jwks.New(jwks.Config{DialContext: network.dial})
				defer client.Close(t.Context())
				s := network.open(t, client, "acme", "127.9.0.1")
				time.Sleep(time.Until(s.Status().NextFetch) + 50*time.Millisecond)
				if !s.Status().NextFetch.IsZero() {
					t.Fatal("no fetch is under way")
				}
				want := tt.test(t, s)
				time.Sleep(time.Second)
				if got := len(network.requests("127.9.0.1:80")) - 1; got != want {
					t.Errorf("%d requests, want %d", got, want)
				}
			})
		})
	}
}
