package jwks_test

import (
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// What is kept of an answer holds on to nothing else of it: not by its kids and those of keys that are
// skipped, not by what was found wrong, by a validator, or by a URL.
func TestNothingKeepsWholeAnswers(t *testing.T) {
	const sources = 40
	skipped := fmt.Sprintf(`{"kty":"EC","kid":"%s"}`, strings.Repeat("s", 60<<10))
	wrong := fmt.Sprintf(`{"kty":"%s","kid":"wrong"}`, strings.Repeat("w", 60<<10))
	body := fmt.Sprintf(`{"comment":"%s","keys":[%s,%s,%s]}`, strings.Repeat("c", 60<<10), skipped, wrong,
		strings.Trim(strings.TrimPrefix(jwkstest.Set(jwkstest.NewKey("a", "ES256")), `{"keys":[`), "]}")+"}")
	for _, discover := range []bool{false, true} {
		t.Run(fmt.Sprint("by discovery: ", discover), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				client := jwks.New(jwks.Config{DialContext: raw(t, func(conn net.Conn, r *http.Request) {
					body := body
					if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
						body = fmt.Sprintf(`{"comment":"%s","issuer":"http://%s","jwks_uri":"http://%s/keys"}`, strings.Repeat("c", 100<<10), r.Host, r.Host)
					}
					fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nX-Long: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
						strings.Repeat("h", 50<<10), len(body), body)
				})})
				defer client.Close(t.Context())
				before := heap()
				var all []*jwks.Source
				for i := range sources {
					open, url := client.Open, fmt.Sprintf("http://127.1.%d.1", i)
					if discover {
						open = client.Discover
					}
					s, err := open("acme", url, jwks.SourceConfig{AllowLoopback: true})
					if err != nil {
						t.Fatal(err)
					}
					if err := s.WaitReady(t.Context()); err != nil {
						t.Fatal(err)
					}
					all = append(all, s)
				}
				synctest.Wait()
				if more := heap() - before; more > sources*20<<10 {
					t.Errorf("each of %d sources keeps %d bytes", sources, more/sources)
				}
				for _, s := range all {
					if st := s.Status(); len(st.Skipped) != 2 || st.ETag == "" {
						t.Fatalf("%+v", st)
					}
				}
			})
		})
	}
}

// A kid is part of a token's header, which may have any size.
func TestMissingKidKeepsNoHeader(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		before := heap()
		for i := range 4 {
			header := strings.Repeat("h", 4<<20) + fmt.Sprint(i)
			w.wantRefresh(s, header[4<<20:], keystore.ErrNotFound)
		}
		if got := jwks.Missing(s); got != 3 {
			t.Fatalf("%d kids are remembered", got)
		}
		if more := heap() - before; more > 1<<20 {
			t.Errorf("they keep %d bytes", more)
		}
		runtime.KeepAlive(s)
	})
}
