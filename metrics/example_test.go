package metrics_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/verifier"
)

// A service counts its verifications, and serves the page where strangers do not reach it.
func Example() {
	key, err := keystore.NewSecret(keystore.ID{Tenant: "acme"}, keystore.HS256, []byte("0123456789abcdef0123456789ABCDEF"))
	must(err)
	keys, err := keystore.NewStatic(key)
	must(err)

	c := metrics.New(metrics.Config{})
	v, err := verifier.New(verifier.Config{Observe: c.Observe, Tenants: []verifier.Tenant{{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256}, Issuer: "https://acme.example", AnyAudience: true,
	}}})
	must(err)
	c.Watch(metrics.Watched{Verifier: v})
	admin := http.NewServeMux()
	admin.Handle("GET /metrics", c.Handler()) // on a listener of its own

	_, err = v.VerifyTenant(context.Background(), "acme", "no.good.token")
	fmt.Println(err)
	w := httptest.NewRecorder()
	admin.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "keyturn_verifications_total") && !strings.HasSuffix(line, " 0\n") {
			fmt.Print(line)
		}
	}
	// Output:
	// verifier: malformed token: a part is not base64url without padding
	// keyturn_verifications_total{outcome="refused",reason="malformed"} 1
}

// A client that sends bad tokens does not fill the log.
func ExampleLog() {
	h := metrics.Log(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	log := slog.New(h)
	for range 3822 {
		log.Warn("request refused", "reason", "expired")
	}
	must(h.Flush(context.Background())) // before the program ends
	// Output:
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="request refused" reason=expired
	// level=WARN msg="and 3 812 more: request refused" reason=expired suppressed=3812
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
