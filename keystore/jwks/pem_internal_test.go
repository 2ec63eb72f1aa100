package jwks

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"github.com/keyturn/keyturn/keystore"
)

// Close ends the requests for all kids, even if its ctx has ended, and the kid that a Refresh is about
// to ask for.
func TestPEMCloseLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := New(Config{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		defer client.Close(t.Context())
		p, err := client.OpenPEM("acme", "http://127.0.0.1/{kid}", SourceConfig{AllowLoopback: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, kid := range []string{"a", "b"} {
			go p.Refresh(context.Background(), keystore.ID{Tenant: "acme", KID: kid})
		}
		synctest.Wait()
		late, _, err := p.ask("late")
		if err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Close(ended); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if n := len(client.Sources()); n != 0 {
			t.Errorf("%d kids are asked for after Close", n)
		}
		if _, err := late.open(); err == nil {
			t.Error("a kid was opened after Close")
		}
		synctest.Wait()
		if n := len(client.Sources()); n != 0 {
			t.Errorf("%d kids are asked for after Close", n)
		}
	})
}
