package metrics_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/verifier"
)

// Whatever an upstream answers, and whatever a face is called, the number of series is bounded.
func TestRequestsHaveBoundedSeries(t *testing.T) {
	c := metrics.New(metrics.Config{})
	for code := -1; code < 1100; code++ {
		for _, face := range []string{"api", "authz", "proxy", "jwks", "console"} {
			c.Request(face, code, time.Millisecond)
		}
	}
	all := scrape(t, c)
	all.want(t, series{
		`keyturn_http_requests_total{code="200",face="api"}`:      1,
		`keyturn_http_requests_total{code="101",face="proxy"}`:    1,
		`keyturn_http_requests_total{code="4xx",face="authz"}`:    100 - 19,
		`keyturn_http_requests_total{code="5xx",face="jwks"}`:     100 - 6,
		`keyturn_http_requests_total{code="other",face="api"}`:    101 + 500,
		`keyturn_http_requests_total{code="200",face="other"}`:    1,
		`keyturn_http_request_duration_seconds_count{face="api"}`: 1101,
	})
	if len(all) > 400 {
		t.Errorf("%d series", len(all))
	}
}

func TestStreams(t *testing.T) {
	c := metrics.New(metrics.Config{})
	for range 5 {
		c.StreamOpened()
	}
	for _, reason := range []string{"client", "expired", "boredom"} {
		c.StreamEnded(reason)
	}
	scrape(t, c).want(t, series{
		`keyturn_streams_open`:                          2,
		`keyturn_streams_ended_total{reason="client"}`:  1,
		`keyturn_streams_ended_total{reason="expired"}`: 1,
		`keyturn_streams_ended_total{reason="revoked"}`: 0,
		`keyturn_streams_ended_total{reason="other"}`:   1,
	})
}

// A failed reload keeps the time of the last good one.
func TestReloads(t *testing.T) {
	c := metrics.New(metrics.Config{Now: fixed})
	c.Reloaded(true, fixed().Add(time.Minute))
	c.Reloaded(false, fixed().Add(time.Hour))
	c.CertificateEnds(fixed().Add(24 * time.Hour))
	scrape(t, c).want(t, series{
		`keyturn_config_last_reload_successful`:                0,
		`keyturn_config_last_reload_success_timestamp_seconds`: 1764000060.5,
		`keyturn_config_reloads_total{result="success"}`:       1,
		`keyturn_config_reloads_total{result="failure"}`:       1,
		`keyturn_tls_certificate_not_after_timestamp_seconds`:  1764086400.5,
	})
	c.Reloaded(true, fixed().Add(2*time.Hour))
	scrape(t, c).want(t, series{`keyturn_config_last_reload_successful`: 1})
}

// Names of tenants are a list of customers: the page has none of them unless it is asked to.
func TestLitellm_24530_NoTenantIsNamed(t *testing.T) {
	c := metrics.New(metrics.Config{})
	c.Watch(metrics.Watched{Tenants: []string{"customer-1"}})
	c.Observe(t.Context(), verifier.Event{Tenant: "customer-1", Outcome: verifier.Accepted})
	if page := pageOf(t, c); strings.Contains(page, "customer-1") || strings.Contains(page, "tenant=") {
		t.Error(page)
	}
}

// TenantLimit names the first tenants. The rest are one, and none is lost when the list changes.
func TestTenantLimit(t *testing.T) {
	c := metrics.New(metrics.Config{TenantLimit: 2})
	see := func(tenants ...string) {
		for _, tenant := range tenants {
			c.Observe(t.Context(), verifier.Event{Tenant: tenant, Outcome: verifier.Accepted, Cached: true})
		}
	}
	of := func(tenant string) string {
		return fmt.Sprintf(`keyturn_tenant_verifications_total{outcome="accepted",tenant=%q}`, tenant)
	}
	c.Watch(metrics.Watched{Tenants: []string{"other", "\xff", "a", "b", "c"}})
	see("a", "a", "b", "c", "other", "\xff", "")
	scrape(t, c).want(t, series{of("a"): 2, of("b"): 1, of("other"): 4})
	c.Watch(metrics.Watched{Tenants: []string{"c", "a"}})
	see("a", "b", "c")
	all := scrape(t, c)
	all.want(t, series{of("a"): 3, of("c"): 1, of("other"): 6})
	if _, there := all[of("b")]; there {
		t.Error("b is named, and no longer among the first")
	}
}

// The SDK of OpenTelemetry drops what exceeds 2000 sets of labels, and says nothing. Here each event of
// 10 000 tenants is counted, in as many series as one tenant has, and in few.
func TestGofr_3566_NothingOverflows(t *testing.T) {
	c := metrics.New(metrics.Config{TenantLimit: 5})
	tenants := make([]string, 10_000)
	for i := range tenants {
		tenants[i] = fmt.Sprintf("tenant-%05d", i)
	}
	c.Watch(metrics.Watched{Tenants: tenants})
	for _, i := range rand.Perm(len(tenants)) {
		c.Observe(t.Context(), verifier.Event{Tenant: tenants[i], Outcome: verifier.Refused, Reason: verifier.ReasonExpired})
	}
	all := scrape(t, c)
	all.want(t, series{
		`keyturn_verifications_total{outcome="refused",reason="expired"}`:             10_000,
		`keyturn_tenant_verifications_total{outcome="refused",tenant="tenant-00004"}`: 1,
		`keyturn_tenant_verifications_total{outcome="refused",tenant="other"}`:        9_995,
	})
	if len(all) > 400 {
		t.Errorf("%d series", len(all))
	}
}
