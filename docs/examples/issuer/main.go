// The command issuer is the only service that signs. It has the KEK, rotates the keys of an ES256
// ring, and publishes their public halves. The command reader verifies its tokens, and has neither
// the KEK nor Redis. The tenant is another one than that of the command fleet, whose ring has HS256
// keys.
//
//	(umask 077; openssl rand -base64 32 > kek)
//	keyturn keys create --redis redis://localhost:6379 --tenant globex --kek-file kek --alg ES256
//	go run ./docs/examples/issuer -redis redis://localhost:6379 -kek kek -addr 127.0.0.1:8083
//	go run ./docs/examples/reader -keys http://127.0.0.1:8083/.well-known/jwks.json -addr :8084
//	curl -H "Authorization: Bearer $(curl -s -X POST localhost:8083/login)" localhost:8084/hello
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

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

const tenant, issuer, audience = "globex", "https://globex.example", "api"

func main() {
	redisURL := flag.String("redis", "redis://localhost:6379", "where the rings are, as a `URL`")
	kek := flag.String("kek", "kek", "the `FILE` of the key-encryption key")
	addr := flag.String("addr", "127.0.0.1:8083", "the `ADDRESS` to listen on")
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

	signer, err := rotation.NewSigner(keys, rotation.SignerConfig{
		Issuer:   func(string) string { return issuer },
		Audience: func(string) []string { return []string{audience} },
	})
	if err != nil {
		return err
	}
	if err := keys.WaitReady(ctx); err != nil {
		return err
	}
	// A ring with HMAC keys has nothing to publish: a verifier that knows the secret can sign.
	if _, _, err := keys.PublicKeys(ctx, tenant); err != nil {
		return fmt.Errorf("the issuer needs a ring with public keys, as keyturn keys create --alg ES256 makes for a tenant that has none: %w", err)
	}
	return serve(ctx, addr, routes(keys, signer))
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

func routes(keys *rotation.Keyring, signer *rotation.Signer) http.Handler {
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
	mux.Handle("/.well-known/jwks.json", middleware.JWKS(keys, middleware.OneTenant(tenant)))
	return mux
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
