package compare

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
)

// coldTenants is how many tenants start together, all with an issuer of their own on one host.
const coldTenants = 300

// A farHost is 80 ms away and has an issuer at each path. It counts what a start costs it.
type farHost struct {
	*httptest.Server
	mu                    sync.Mutex
	requests, conns, most int // most: connections at once
}

func newFarHost(t *testing.T) *farHost {
	set := jwkstest.Set(hostileGood)
	h := new(farHost)
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.requests++
		h.mu.Unlock()
		time.Sleep(80 * time.Millisecond)
		w.Header().Set("Content-Type", "application/json")
		if path, ok := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration"); ok {
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, h.URL+path, h.URL+path+"/jwks.json")
			return
		}
		fmt.Fprint(w, set)
	}))
	h.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		h.mu.Lock()
		defer h.mu.Unlock()
		switch state {
		case http.StateNew:
			h.conns++
			h.most = max(h.most, h.conns)
		case http.StateClosed:
			h.conns--
		}
	}
	h.Start()
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
	})
	return h
}

// coldReaders open the issuer of one tenant as their documentation says, and return what verifies
// its tokens. They are called for all tenants at once.
var coldReaders = []struct {
	name, module string
	ours         bool
	open         func(t *testing.T, client *jwks.Client, tenant, issuer string) (func(ctx context.Context, token string) error, error)
}{
	{"keyturn, Open", "", true, func(_ *testing.T, c *jwks.Client, tenant, issuer string) (func(context.Context, string) error, error) {
		source, err := c.Open(tenant, issuer+"/jwks.json", jwks.SourceConfig{AllowLoopback: true})
		return verifyCold(tenant, source, err)
	}},
	{"keyturn, Discover", "", true, func(_ *testing.T, c *jwks.Client, tenant, issuer string) (func(context.Context, string) error, error) {
		source, err := c.Discover(tenant, issuer, jwks.SourceConfig{AllowLoopback: true})
		return verifyCold(tenant, source, err)
	}},
	{"go-oidc, NewProvider", "github.com/coreos/go-oidc/v3", false, func(t *testing.T, _ *jwks.Client, _, issuer string) (func(context.Context, string) error, error) {
		provider, err := oidc.NewProvider(t.Context(), issuer)
		if err != nil {
			return nil, err
		}
		v := provider.Verifier(&oidc.Config{SkipClientIDCheck: true, SkipIssuerCheck: true, SupportedSigningAlgs: []string{"ES256"}})
		return func(ctx context.Context, token string) error { _, err := v.Verify(ctx, token); return err }, nil
	}},
	{"keyfunc, NewDefaultCtx", "github.com/MicahParks/keyfunc/v3", false, func(t *testing.T, _ *jwks.Client, _, issuer string) (func(context.Context, string) error, error) {
		keys, err := keyfunc.NewDefaultCtx(t.Context(), []string{issuer + "/jwks.json"})
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, token string) error {
			_, err := jwt.Parse(token, keys.KeyfuncCtx(ctx), jwt.WithValidMethods([]string{"ES256"}))
			return err
		}, nil
	}},
}

func verifyCold(tenant string, source *jwks.Source, err error) (func(context.Context, string) error, error) {
	if err != nil {
		return nil, err
	}
	v, err := verifier.New(verifier.Config{CacheTTL: -1, Tenants: []verifier.Tenant{{
		ID: tenant, Keys: source, Algorithms: []keystore.Algorithm{keystore.ES256}, AnyIssuer: true, AnyAudience: true,
	}}})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, token string) error { _, err := v.Verify(ctx, token); return err }, nil
}

// TestColdStart measures a service that starts with 300 tenants of one host, and a token of each. On a
// busy machine our client may refuse the first tokens too, because none waits for longer than two
// seconds. That it refuses none where the machine is quick is tested in fake time, by keystore/jwks.
func TestColdStart(t *testing.T) {
	var b strings.Builder
	b.WriteString("| 300 tenants, one host | first tokens refused | all read after | requests | connections at once |\n|---|---|---|---|---|\n")
	for _, lib := range coldReaders {
		host := newFarHost(t)
		client := jwks.New(jwks.Config{})
		token := hostileToken(hostileGood)
		var mu sync.Mutex
		var callers sync.WaitGroup
		refused, late, began := 0, 0, time.Now()
		for i := range coldTenants {
			tenant := fmt.Sprint("tenant-", i)
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				verify, err := lib.open(t, client, tenant, host.URL+"/"+tenant)
				if err == nil {
					err = verify(ctx, token)
				}
				never := err
				for tries := 0; lib.ours && never != nil && tries < 10; tries++ { // each waits for two seconds
					never = verify(t.Context(), token)
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					refused++
				}
				if never != nil {
					late++
				}
			})
		}
		callers.Wait()
		took := time.Since(began).Round(100 * time.Millisecond)
		client.Close(t.Context())
		host.mu.Lock()
		fmt.Fprintf(&b, "| %s%s | %d | %v | %d | %d |\n", lib.name, versionOf(lib.module), refused, took, host.requests, host.most)
		if lib.ours && (late > 0 || host.most > 64 || host.requests > 3*coldTenants) {
			t.Errorf("%s: %d tokens refused for twenty seconds, %d connections at once, %d requests", lib.name, late, host.most, host.requests)
		}
		host.mu.Unlock()
	}
	t.Log("\n" + b.String())
	if path := os.Getenv("KEYTURN_JWKS_TABLE"); path != "" {
		if err := writeBetween(path, "<!-- cold table of make jwks-table -->", "<!-- end of the cold table -->", b.String()); err != nil {
			t.Fatal(err)
		}
	}
}
