package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// page returns the metrics of a server.
func metricsOf(t *testing.T, s *Server) string {
	t.Helper()
	w := get(s.adminRoutes(), "GET", "/metrics")
	if w.Code != http.StatusOK {
		t.Fatalf("/metrics = %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func open(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Addr = "127.0.0.1:0"
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// The page is on the admin listener, counts what the public one answers, and takes no change.
func TestMetricsAreOnTheAdminListener(t *testing.T) {
	s := open(t, Config{Admin: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}})
	for range 3 {
		get(s.routes(), "GET", "/api/x")
	}
	page := metricsOf(t, s)
	for _, want := range []string{
		`keyturn_http_requests_total{code="401",face="api"} 3`, `keyturn_rings{state="ready"} 0`, "go_goroutines", "process_start_time_seconds",
		"keyturn_config_last_reload_successful 1",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if w := get(s.routes(), "GET", "/metrics"); w.Code != http.StatusNotFound {
		t.Errorf("/metrics is on the public listener: %d", w.Code)
	}
	if w := get(s.adminRoutes(), "POST", "/metrics"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics = %d", w.Code)
	}
}

// A server has as many series with 10 000 tenants as with one, and names none of them.
func TestMetricsOf10000Tenants(t *testing.T) {
	s := open(t, Config{Admin: "127.0.0.1:0", Tenants: many(t, 10_000)})
	for i := range 10_000 {
		if _, err := s.verifier.VerifyTenant(t.Context(), fmt.Sprintf("customer-%04d", i), "a.b.c"); err == nil {
			t.Fatal("rubbish is good")
		}
	}
	page, series := metricsOf(t, s), 0
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	if series > 400 || strings.Contains(page, "customer") {
		t.Errorf("%d series, and the name of a tenant: %v", series, strings.Contains(page, "customer"))
	}
	if want := `keyturn_verifications_total{outcome="refused",reason="malformed"} 10000`; !strings.Contains(page, want) {
		t.Errorf("the page lacks %s", want)
	}
}

// The first tenants are named if that is wanted, in the order of the configuration.
func TestMetricsNameTheFirstTenants(t *testing.T) {
	s := open(t, Config{Admin: "127.0.0.1:0", Tenants: many(t, 3), Metrics: metrics.Config{TenantLimit: 2}})
	page := metricsOf(t, s)
	for tenant, named := range map[string]bool{"customer-0000": true, "customer-0001": true, "customer-0002": false, "other": true} {
		if strings.Contains(page, `tenant="`+tenant+`"`) != named {
			t.Errorf("%s is named: %v", tenant, !named)
		}
	}
}

// What a client writes becomes no series: neither its method, nor its user agent, host or path
// (GHSA-rcjv-mgp8-qvmr, and GHSA-8pgv-569h-w5rw for addresses), nor a token in a path
// (mikkelchokolate/Veil#142).
func TestClientsMakeNoSeries(t *testing.T) {
	s := open(t, Config{Admin: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}})
	ask := func(method, path, agent, host, remote string) {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("User-Agent", agent)
		r.Header.Set("Authorization", "Bearer "+agent)
		r.Host, r.RemoteAddr = host, remote
		s.routes().ServeHTTP(httptest.NewRecorder(), r)
	}
	ask("GET", "/api/x", "agent", "host", "192.0.2.1:1")
	before := strings.Count(metricsOf(t, s), "\n")
	for name, change := range map[string]func(string){
		"GHSA_rcjv_mgp8_qvmr": func(x string) {
			ask("M"+x, "/api/x", x, "host", "192.0.2.1:1")
			ask("GET", "/api/x", x, x, "192.0.2.1:1")
		},
		"GHSA_8pgv_569h_w5rw": func(x string) { ask("GET", "/api/x", "agent", "host", "198.51.100.1:"+x) },
		"Veil_142":            func(x string) { ask("GET", "/api/"+x+"?token="+x, "agent", "host", "192.0.2.1:1") },
		"GHSA_mh2q_q3fh_2475": func(x string) { ask("GET", "/api/x", strings.Repeat("k=v,", 2000)+x, "host", "192.0.2.1:1") },
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 300 {
				change(fmt.Sprint("90210", i))
			}
			page := metricsOf(t, s)
			if after := strings.Count(page, "\n"); after != before || strings.Contains(page, "90210") {
				t.Errorf("%d lines, %d before", after, before)
			}
		})
	}
}

// A scrape with a header of 100 000 baggage members costs what any other does: nothing reads them.
func TestGHSA_mh2q_q3fh_2475_BaggageIsNotRead(t *testing.T) {
	s := open(t, Config{Admin: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}})
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Baggage", strings.Repeat("k=v,", 100_000))
	allocations := testing.AllocsPerRun(5, func() { s.adminRoutes().ServeHTTP(httptest.NewRecorder(), r) })
	r.Header.Del("Baggage")
	if plain := testing.AllocsPerRun(5, func() { s.adminRoutes().ServeHTTP(httptest.NewRecorder(), r) }); allocations > 1.5*plain+100 {
		t.Errorf("%v allocations, and %v without baggage", allocations, plain)
	}
}

// A configuration that is mended, new or as it was, ends the alert about the one that could not be used.
func TestReloadsAreMetered(t *testing.T) {
	reloading(t, func(t *testing.T, f *follower, m *memoryFiles, _ *strings.Builder) {
		meter := new(listMeter)
		f.s.cfg.Meter = meter
		for _, tenants := range []string{"a half", "a", "a", "a half", "a b"} {
			m.tenants = tenants
			f.look(t.Context(), false)
		}
		want := []string{"reloaded: false", "reloaded: true", "reloaded: false", "reloaded: true"}
		if got := meter.told(); !slices.Equal(got, want) {
			t.Errorf("counted %q, want %q", got, want)
		}
	})
}

// After a reload the page reads the tenants that there are now.
func TestMetricsFollowAReload(t *testing.T) {
	s := open(t, Config{Admin: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}, Metrics: metrics.Config{TenantLimit: 5}})
	next := s.cfg
	next.Tenants = []Tenant{static(t, "globex")}
	if _, err := s.reload(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if page := metricsOf(t, s); !strings.Contains(page, `tenant="globex"`) || strings.Contains(page, `tenant="acme"`) {
		t.Error("the page has the tenants of before")
	}
}

// The decisions for reverse proxies are a face of their own, and assertions count as signatures.
func TestAuthzIsMetered(t *testing.T) {
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	s := newAuthzServer(t, func(c *Config) {
		c.Admin = "127.0.0.1:0"
		c.Tenants = []Tenant{{Ring: true, Rules: verifier.Tenant{ID: "internal", Audiences: []string{"service", "api"}}}}
		c.Rings = &Rings{KEKs: keks}
		c.Demo = &Demo{Rings: []DemoRing{{Tenant: "internal", User: "ann", Policy: rotation.Policy{Algorithm: keystore.ES256}}}, FreshEvery: time.Hour}
		c.Assertion = &Assertion{Tenant: "internal", Audience: "service"}
	})
	for _, token := range []string{s.DemoTokens()[0].Text, s.DemoTokens()[0].Text, "rubbish"} {
		ask(t, s.routes(), "GET /authz", token)
	}
	page := metricsOf(t, s)
	for _, want := range []string{
		`keyturn_http_requests_total{code="200",face="authz"} 2`, `keyturn_http_requests_total{code="401",face="authz"} 1`,
		`keyturn_signatures_total{outcome="signed"} 3`, `keyturn_rings{state="ready"} 1`, `keyturn_cache_hits_total 1`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}
