// The command reader verifies the tokens of the command issuer. It needs only the URL of the public
// keys, neither the KEK nor Redis, and cannot sign. It follows every rotation and revocation by
// itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

const tenant, issuer, audience = "globex", "https://globex.example", "api"

func main() {
	keys := flag.String("keys", "http://127.0.0.1:8083/.well-known/jwks.json", "where the issuer publishes its keys, as a `URL`")
	addr := flag.String("addr", ":8084", "the `ADDRESS` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *keys, *addr); err != nil {
		slog.Error("the service ends", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url, addr string) error {
	client := jwks.New(jwks.Config{Logger: slog.Default()})
	defer client.Close(context.WithoutCancel(ctx))
	// AllowLoopback is for this example: an issuer on this machine, without TLS.
	source, err := client.Open(tenant, url, jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		return err
	}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: tenant, Keys: source, Algorithms: []keystore.Algorithm{keystore.ES256}, Issuer: issuer, Audiences: []string{audience},
	}}})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /hello", middleware.Require(v)(http.HandlerFunc(hello)))
	return serve(ctx, addr, mux)
}

func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := middleware.TokenFrom(r.Context())
	fmt.Fprintf(w, "hello %s of %s\n", token.Subject(), token.Tenant())
}

// serve serves until ctx ends, and then waits for the requests in flight.
func serve(ctx context.Context, addr string, handler http.Handler) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return server.Shutdown(drain)
}
