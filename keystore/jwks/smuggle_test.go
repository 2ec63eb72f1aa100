package jwks_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A host of several tenants may pass on a body where there must be none (after a 204 or 304, or more
// of it than its length says). What one tenant chose must not be read as the answer to another's
// request on the same connection.
func TestAnswerIsNotReadBeforeItsRequest(t *testing.T) {
	evil := jwkstest.Set(jwkstest.NewKey("evil", "ES256"))
	smuggled := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(evil), evil)
	for name, first := range map[string]string{
		"204":               "HTTP/1.1 204 No Content\r\n\r\n",
		"200 with too much": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
		"404 without body":  "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			taken := 0
			for range 100 {
				virtual(t, func(t *testing.T) {
					if smuggle(t, first+smuggled) {
						taken++
					}
				})
			}
			if taken > 0 {
				t.Errorf("in %d of 100 tries a tenant got the keys that another one chose", taken)
			}
		})
	}
}

// smuggle has one tenant's request answered with first, while the request of another waits for a
// connection. It reports whether the other one has the key "evil".
func smuggle(t *testing.T, first string) bool {
	var dials atomic.Int32
	var serving sync.WaitGroup
	good := oneSet()
	client := jwks.New(jwks.Config{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		if dials.Add(1) == 2 { // the connection of the other tenant takes long
			<-ctx.Done()
			return nil, ctx.Err()
		}
		ours, theirs := net.Pipe()
		serving.Go(func() {
			defer theirs.Close()
			r := bufio.NewReader(theirs)
			for {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(good), good)
				if req.URL.Path == "/hostile" {
					time.Sleep(10 * time.Millisecond)
					answer = first
				}
				if _, err := theirs.Write([]byte(answer)); err != nil {
					return
				}
			}
		})
		return ours, nil
	}})
	defer serving.Wait()
	defer client.Close(context.Background())
	if _, err := client.Open("hostile", "http://127.0.0.1/hostile", onLoopback); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	source, err := client.Open("acme", "http://127.0.0.1/keys", onLoopback)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second)
	synctest.Wait()
	return source.HasKey("evil")
}

// The body that some hosts send with a 304 may come late, when the connection has another request. So a
// connection has none after a conditional one, not even after a redirect.
func TestNoRequestAfterConditional(t *testing.T) {
	for _, path := range []string{"/keys", "/old"} {
		virtual(t, func(t *testing.T) {
			h := &lateBodies{good: oneSet(), evil: jwkstest.Set(jwkstest.NewKey("evil", "ES256"))}
			client := jwks.New(jwks.Config{DialContext: h.dial})
			defer h.serving.Wait()
			defer client.Close(context.Background())
			hostile, err := client.Open("hostile", "http://127.0.0.1"+path, jwks.SourceConfig{AllowLoopback: true, AllowRedirects: true})
			if err != nil {
				t.Fatal(err)
			}
			for h.conditional.Load() == 0 {
				time.Sleep(time.Second)
				hostile.NoteUse("hostile")
			}
			source, err := client.Open("acme", "http://127.0.0.1/acme", onLoopback)
			if err != nil {
				t.Fatal(err)
			}
			if err := attempted(source); err != nil || source.HasKey("evil") {
				t.Errorf("%s: %v; a tenant has the keys of another one: %v", path, err, source.HasKey("evil"))
			}
		})
	}
}

// lateBodies is a host that sends a whole answer after a 304, as soon as the next request comes.
type lateBodies struct {
	good, evil  string
	conditional atomic.Int32
	serving     sync.WaitGroup
}

func (h *lateBodies) dial(context.Context, string, string) (net.Conn, error) {
	answer := func(set string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n%s", len(set), set)
	}
	ours, theirs := net.Pipe()
	h.serving.Go(func() {
		defer theirs.Close()
		r, late := bufio.NewReader(theirs), ""
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			fmt.Fprint(theirs, late)
			switch {
			case req.URL.Path == "/old":
				fmt.Fprint(theirs, "HTTP/1.1 302 Found\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n")
			case req.Header.Get("If-None-Match") == "":
				fmt.Fprint(theirs, answer(h.good))
			default:
				h.conditional.Add(1)
				fmt.Fprint(theirs, "HTTP/1.1 304 Not Modified\r\n\r\n")
				late = answer(h.evil)
			}
		}
	})
	return ours, nil
}
