// The command tenants is a service whose tenants come, change and go while it runs. It reads them from
// a file, every second, and brings the verifier to what the file says:
//
//	[{"id": "acme", "issuer": "https://acme.example", "audience": "api", "secret_file": "acme.secret"},
//	 {"id": "globex", "issuer": "https://globex.example", "audience": "api", "secret_file": "globex.secret", "suspended": true}]
//
//	(umask 077; openssl rand -base64 32 > acme.secret; openssl rand -base64 32 > globex.secret)
//	go run ./docs/examples/tenants -tenants tenants.json -addr :8085
//	curl -H "Authorization: Bearer $(keyturn sign --secret-file acme.secret --tenant acme --iss https://acme.example --aud api --claim sub=ann)" localhost:8085/hello
//
// Then edit the file: add a tenant, suspend one, take one out. Replace the file by renaming another
// one to its name, so that no half of it is ever read.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func main() {
	file := flag.String("tenants", "tenants.json", "the `FILE` of the tenants")
	addr := flag.String("addr", ":8085", "the `ADDRESS` to listen on")
	every := flag.Duration("every", time.Second, "how often to read the file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *file, *every, *addr); err != nil {
		slog.Error("the service ends", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file string, every time.Duration, addr string) error {
	v, err := verifier.New(verifier.Config{})
	if err != nil {
		return err
	}
	t := &tenants{file: file, v: v, stores: make(map[string]*keystore.Static), secrets: make(map[string][]byte)}
	if err := t.sync(); err != nil {
		return err // the first time, it is better to stop than to serve no tenant
	}
	var running sync.WaitGroup
	defer running.Wait()
	syncing, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() { t.follow(syncing, every) })

	mux := http.NewServeMux()
	mux.Handle("GET /hello", middleware.Require(v)(http.HandlerFunc(hello)))
	return serve(ctx, addr, mux)
}

// tenants brings a verifier to what a file says.
type tenants struct {
	file    string
	v       *verifier.Verifier
	stores  map[string]*keystore.Static // by tenant. A row keeps its store, so that it counts as unchanged
	secrets map[string][]byte           // that the stores have
}

// follow syncs until ctx ends. A file that cannot be read changes nothing.
func (t *tenants) follow(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := t.sync(); err != nil {
			slog.Error("the tenants stay as they are", "error", err)
		}
	}
}

// sync reads the file, and hands all its rows to the verifier at once.
func (t *tenants) sync() error {
	rows, err := read(t.file)
	if err != nil {
		return err
	}
	list := make([]verifier.Tenant, len(rows))
	for i, row := range rows {
		list[i] = verifier.Tenant{ID: row.ID, Algorithms: []keystore.Algorithm{keystore.HS256},
			Issuer: row.Issuer, Audiences: []string{row.Audience}, Suspended: row.Suspended}
		if keys, err := t.keys(row); err != nil {
			slog.Error("no keys", "tenant", row.ID, "error", err)
		} else {
			list[i].Keys = keys // without it, Sync reports the row, and keeps the old tenant
		}
	}
	changed, errs := t.v.Sync(list)
	for id, err := range errs {
		slog.Error("Sync refused", "tenant", id, "error", err)
	}
	if changed > 0 {
		slog.Info("tenants changed", "changed", changed, "rows", len(rows))
	}
	return nil
}

type row struct {
	ID         string `json:"id"`
	Issuer     string `json:"issuer"`
	Audience   string `json:"audience"`
	SecretFile string `json:"secret_file"` // beside the file of the tenants
	Suspended  bool   `json:"suspended"`
}

func read(file string) (rows []row, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields() // a field that is spelled wrong, such as suspended, must not be ignored
	return rows, d.Decode(&rows)
}

// keys returns the store of a tenant, and gives it another key where the secret has changed.
func (t *tenants) keys(r row) (*keystore.Static, error) {
	secret, err := os.ReadFile(filepath.Join(filepath.Dir(t.file), r.SecretFile))
	if err != nil {
		return nil, err
	}
	secret = bytes.TrimSuffix(secret, []byte("\n"))
	if s := t.stores[r.ID]; s != nil && bytes.Equal(t.secrets[r.ID], secret) {
		return s, nil
	}
	key, err := keystore.NewSecret(keystore.ID{Tenant: r.ID}, keystore.HS256, secret)
	if err != nil {
		return nil, err
	}
	if t.stores[r.ID] == nil {
		if t.stores[r.ID], err = keystore.NewStatic(); err != nil {
			return nil, err
		}
	}
	if err := t.stores[r.ID].Replace(key); err != nil {
		return nil, err
	}
	t.secrets[r.ID] = secret
	return t.stores[r.ID], nil
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
