// The command fleet is a service with HMAC keys that may run any number of times. Each instance has
// the KEK, signs, verifies, and rotates the keys. With HMAC, an instance that can verify can also
// sign: see the commands issuer and reader for services that must only verify.
//
//	(umask 077; openssl rand -base64 32 > kek)
//	keyturn keys create --redis redis://localhost:6379 --tenant acme --kek-file kek
//	go run ./docs/examples/fleet -redis redis://localhost:6379 -kek kek -addr :8081
//	go run ./docs/examples/fleet -redis redis://localhost:6379 -kek kek -addr :8082
//	curl -H "Authorization: Bearer $(curl -s -X POST localhost:8081/login)" localhost:8082/hello
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
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
)

const tenant, issuer, audience = "acme", "https://acme.example", "api"

func main() {
	redisURL := flag.String("redis", "redis://localhost:6379", "where the rings are, as a `URL`")
	kek := flag.String("kek", "kek", "the `FILE` of the key-encryption key")
	addr := flag.String("addr", ":8081", "the `ADDRESS` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *redisURL, *kek, *addr); err != nil {
		slog.Error("the service ends", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, redisURL, kekFile, addr string) error {
	client, err := rediskeys.Open(redisURL)
	if err != nil {
		return err
	}
	defer client.Close()
	keys, err := open(ctx, client, kekFile)
	if err != nil {
		return err
	}
	defer keys.Close(context.WithoutCancel(ctx))
	rotator, err := rotation.NewRotator(keys)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	rotating, stopRotating := context.WithCancel(ctx)
	defer stopRotating()
	running.Go(func() {
		if err := rotator.Run(rotating); err != nil {
			slog.Error("the keys are no longer rotated", "error", err)
		}
	})

	handler, err := routes(keys)
	if err != nil {
		return err
	}
	// The first instance waits until peers could have restored what the store lost. Another instance is
	// ready at once if a ready peer vouches for the store.
	if err := keys.WaitReady(ctx); err != nil {
		return err
	}
	return serve(ctx, addr, handler)
}

func open(ctx context.Context, client redis.UniversalClient, kekFile string) (*rotation.Keyring, error) {
	text, err := os.ReadFile(kekFile)
	if err != nil {
		return nil, err
	}
	keks, err := rotation.ParseKEKs(text)
	if err != nil {
		return nil, err
	}
	store, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		return nil, err
	}
	return rotation.Open(ctx, store, rotation.Config{KEKs: keks, Tenants: []string{tenant}, Logger: slog.Default()})
}

func routes(keys *rotation.Keyring) (http.Handler, error) {
	signer, err := rotation.NewSigner(keys, rotation.SignerConfig{
		Issuer:   func(string) string { return issuer },
		Audience: func(string) []string { return []string{audience} },
	})
	if err != nil {
		return nil, err
	}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: tenant, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256}, Issuer: issuer, Audiences: []string{audience},
	}}})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		token, err := signer.Sign(r.Context(), tenant, map[string]any{"sub": "ann"}) // after you have checked who asks
		if err != nil {
			slog.Error("cannot sign", "error", err)
			http.Error(w, "cannot sign now", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, token)
	})
	mux.Handle("GET /hello", middleware.Require(v)(http.HandlerFunc(hello)))
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s := keys.Status(); !s.Ready {
			http.Error(w, fmt.Sprint(s.Err), http.StatusServiceUnavailable)
		}
	})
	return mux, nil
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
