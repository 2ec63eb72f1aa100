package jwks_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
)

// However many requests there are, a connection is not kept for ever: an issuer that moves is followed
// to its new address, and its name is judged again.
func TestConnectionIsOfTheLastMinutes(t *testing.T) {
	virtual(t, func(t *testing.T) {
		set := oneSet()
		f := &far{latency: 10 * time.Millisecond, answer: func(*http.Request) string { return set }}
		defer f.serving.Wait()
		client := jwks.New(jwks.Config{DialContext: f.dial})
		defer client.Close(context.Background())
		source, err := client.Open("acme", "http://127.0.0.1/keys", onLoopback)
		if err != nil {
			t.Fatal(err)
		}
		for range 600 {
			if err := jwks.Reload(t.Context(), source); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if dials, open, _ := f.load(); dials < 5 || dials > 20 || open > 2 {
			t.Errorf("%d connections in ten minutes of requests, want one in one or two minutes; %d are open", dials, open)
		}
	})
}
