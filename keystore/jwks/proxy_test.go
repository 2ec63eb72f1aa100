package jwks_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A proxy is used if one is given, and then only the proxy is dialled.
func TestProxy(t *testing.T) {
	issuer := jwkstest.New(t)
	key := jwkstest.NewKey("a", "ES256")
	issuer.Publish(key)
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.Host)
		up, err := net.Dial("tcp", issuer.Addr())
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		w.WriteHeader(http.StatusOK)
		down, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer down.Close()
		go io.Copy(up, buf)
		io.Copy(down, up)
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := jwks.New(jwks.Config{TLS: issuer.TLS(), Proxy: at})
	defer client.Close(t.Context())
	s, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if got := asked.Load(); got != "CONNECT "+jwkstest.Host+":443" {
		t.Errorf("the proxy was asked for %q", got)
	}
	if _, err := client.Open("acme", "https://127.0.0.1/", jwks.SourceConfig{}); err == nil {
		t.Error("a proxy made a literal loopback address pass")
	}
}

// A proxy that does not answer holds no more connections than attempts run: each ends with its attempt,
// or soon after.
func TestProxyThatHangs(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var open, dials atomic.Int32
		var serving sync.WaitGroup
		client := jwks.New(jwks.Config{
			Proxy: &url.URL{Scheme: "http", Host: "192.0.2.1:3128"},
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				open.Add(1)
				dials.Add(1)
				serving.Go(func() {
					io.Copy(io.Discard, theirs)
					open.Add(-1)
				})
				return ours, nil
			},
		})
		defer serving.Wait()
		defer client.Close(context.Background())
		for i := range 10 {
			if _, err := client.Open("acme", fmt.Sprintf("https://%d.example/keys", i), jwks.SourceConfig{}); err != nil {
				t.Fatal(err)
			}
		}
		most := int32(0)
		for range 60 {
			time.Sleep(time.Second)
			most = max(most, open.Load())
		}
		if most > 20 || dials.Load() < 20 {
			t.Errorf("%d connections at once for 10 sources, %d in all", most, dials.Load())
		}
	})
}

// The proxy variables of the environment are not read.
func TestProxyVariablesAreIgnored(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://203.0.113.99:3128")
	t.Setenv("ALL_PROXY", "http://203.0.113.99:3128")
	w := newWorld(t, jwkstest.New(t), jwks.Config{})
	w.ready(jwks.SourceConfig{})
	if w.issuer.Dials() != 1 {
		t.Error("the issuer was not dialled")
	}
}
