package metrics_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// The families of the page with their types and labels. Dashboards and alerts of users name them, so
// none may change.
var families = map[string]string{
	"keyturn_verifications_total":                          "counter outcome reason",
	"keyturn_verification_duration_seconds":                "histogram",
	"keyturn_cache_hits_total":                             "counter",
	"keyturn_cache_misses_total":                           "counter",
	"keyturn_cache_evictions_total":                        "counter",
	"keyturn_cache_entries":                                "gauge",
	"keyturn_cache_bytes":                                  "gauge",
	"keyturn_resolve_questions_total":                      "counter answer",
	"keyturn_resolve_tenants":                              "gauge",
	"keyturn_rings":                                        "gauge state",
	"keyturn_ring_oldest_good_sync_timestamp_seconds":      "gauge",
	"keyturn_ring_next_activation_timestamp_seconds":       "gauge",
	"keyturn_ring_keys":                                    "gauge state",
	"keyturn_rings_without_next_key":                       "gauge",
	"keyturn_store_syncs_total":                            "counter result",
	"keyturn_ring_repairs_total":                           "counter",
	"keyturn_ring_resyncs_total":                           "counter",
	"keyturn_ring_refreshes_total":                         "counter",
	"keyturn_ring_alarms_total":                            "counter kind",
	"keyturn_jwks_sources":                                 "gauge state",
	"keyturn_jwks_fetches_total":                           "counter outcome",
	"keyturn_jwks_oldest_fetch_timestamp_seconds":          "gauge",
	"keyturn_signatures_total":                             "counter outcome",
	"keyturn_http_requests_total":                          "counter code face",
	"keyturn_http_request_duration_seconds":                "histogram face",
	"keyturn_streams_open":                                 "gauge",
	"keyturn_streams_ended_total":                          "counter reason",
	"keyturn_config_last_reload_successful":                "gauge",
	"keyturn_config_last_reload_success_timestamp_seconds": "gauge",
	"keyturn_config_reloads_total":                         "counter result",
	"keyturn_tls_certificate_not_after_timestamp_seconds":  "gauge",
	"keyturn_revocation_entries":                           "gauge",
	"keyturn_revocation_ready":                             "gauge",
	"keyturn_revocation_in_doubt":                          "gauge",
	"keyturn_revocation_unreadable_groups":                 "gauge",
	"keyturn_revocation_alarms_total":                      "counter kind",
	"keyturn_revocation_last_sync_timestamp_seconds":       "gauge",
	"keyturn_build_info":                                   "gauge goversion version",
}

// familiesOf returns the families of a page, as in families.
func familiesOf(page string) map[string]string {
	types, labels := make(map[string]string), make(map[string][]string)
	for line := range strings.Lines(page) {
		words := strings.Fields(line)
		if !strings.Contains(line, "keyturn_") {
			continue
		}
		if words[0] == "#" {
			if words[1] == "TYPE" {
				types[words[2]] = words[3]
			}
			continue
		}
		name, rest, _ := strings.Cut(words[0], "{")
		for _, end := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(name, end); types[base] == "histogram" {
				name = base
			}
		}
		for part := range strings.SplitSeq(rest, ",") {
			if label, _, ok := strings.Cut(part, "="); ok && label != "le" {
				labels[name] = append(labels[name], label)
			}
		}
	}
	for name, list := range labels {
		slices.Sort(list)
		types[name] = strings.Join(append([]string{types[name]}, slices.Compact(list)...), " ")
	}
	return types
}

func TestPageHasTheseFamilies(t *testing.T) {
	c := everything(t)
	got := familiesOf(pageOf(t, c))
	for name, want := range families {
		if got[name] != want {
			t.Errorf("%s is a %q, want %q", name, got[name], want)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("families that the table does not have: %v", slices.Sorted(maps.Keys(got)))
	}
}

func TestPromtoolAcceptsThePage(t *testing.T) {
	promtool(t, pageOf(t, everything(t)), "check", "metrics")
}

// Each reason that package verifier has is counted under its own name, and under no other.
func TestEachReasonIsCounted(t *testing.T) {
	all := reasonsOf(t)
	if len(all) < 20 {
		t.Fatalf("only %d reasons were found", len(all))
	}
	for _, reason := range all {
		c := metrics.New(metrics.Config{})
		e := verifier.Event{Outcome: verifier.Refused, Reason: reason}
		if reason == verifier.ReasonUnavailable {
			e.Outcome = verifier.Unavailable
		}
		c.Observe(t.Context(), e)
		want := fmt.Sprintf(`keyturn_verifications_total{outcome=%q,reason=%q}`, e.Outcome, reason)
		for name, v := range scrape(t, c) {
			if counted := v != 0; strings.HasPrefix(name, "keyturn_verifications_total") && counted != (name == want) {
				t.Errorf("%s: %s = %v", reason, name, v)
			}
		}
	}
}

// reasonsOf returns the constants of type Reason of package verifier.
func reasonsOf(t *testing.T) (all []verifier.Reason) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../verifier/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if kind, isName := ast.Expr(nil), false; ok && spec.Type != nil {
			kind = spec.Type
			if id, is := kind.(*ast.Ident); is {
				isName = id.Name == "Reason"
			}
			for i := 0; isName && i < len(spec.Values); i++ {
				text, err := strconv.Unquote(spec.Values[i].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, verifier.Reason(text))
			}
		}
		return true
	})
	return all
}

// Prometheus cannot see the first increment of a series that was not there before, so every series
// that a normal service has is there from the start.
func TestPrometheus_5355_SeriesBeginAtZero(t *testing.T) {
	c := metrics.New(metrics.Config{})
	before := scrape(t, c)
	for _, e := range events {
		c.Observe(t.Context(), e)
	}
	for _, outcome := range []rotation.SignOutcome{rotation.Signed, rotation.SignFenced, rotation.SignNoSigner, rotation.SignFailed} {
		c.ObserveSign(t.Context(), rotation.SignEvent{Tenant: "acme", Outcome: outcome})
	}
	for _, outcome := range []jwks.Outcome{jwks.Changed, jwks.Unchanged, jwks.Failed, ""} {
		c.ObserveFetch(jwks.Event{Outcome: outcome})
	}
	for _, code := range []int{200, 400, 401, 403, 404, 500, 502, 503, 504} {
		c.Request("proxy", code, time.Millisecond)
	}
	c.StreamOpened()
	c.StreamEnded("revoked")
	c.Reloaded(true, fixed())
	c.Reloaded(false, fixed())
	after := scrape(t, c)
	for name, v := range after {
		if was, ok := before[name]; !ok {
			t.Errorf("%s was not there from the start", name)
		} else if strings.Contains(name, "_total") && was != 0 {
			t.Errorf("%s began at %v", name, was)
		} else if strings.HasPrefix(name, "keyturn_http_requests_total{") && strings.Contains(name, "proxy") && v != 1 {
			t.Errorf("%s = %v, want 1", name, v)
		}
	}
	after.want(t, series{
		`keyturn_verifications_total{outcome="accepted",reason="none"}`:         2,
		`keyturn_verifications_total{outcome="refused",reason="missing_claim"}`: 1,
		`keyturn_verification_duration_seconds_count`:                           2, // a hit is not timed
		`keyturn_signatures_total{outcome="fenced"}`:                            1,
		`keyturn_jwks_fetches_total{outcome="failed"}`:                          1,
		`keyturn_streams_ended_total{reason="revoked"}`:                         1,
		`keyturn_config_reloads_total{result="failure"}`:                        1,
	})
}

// Ages go wrong in storage, and stand still when the program does. Dates do not.
func TestSynapse_9540_DatesAndNoAges(t *testing.T) {
	dates := 0
	for name := range families {
		if strings.Contains(name, "_age_") || strings.HasSuffix(name, "_age") || strings.Contains(name, "_since_") {
			t.Errorf("%s is an age", name)
		}
		if strings.HasSuffix(name, "_timestamp_seconds") {
			dates++
		}
	}
	if dates != 6 {
		t.Errorf("%d families are dates, want 6", dates)
	}
	wantDates(t, scrape(t, everything(t)))
}

// Checks take microseconds: each bound up to 100 µs tells one from another.
func TestOpenTelemetryGo_5821_BucketsFitMicroseconds(t *testing.T) {
	c := metrics.New(metrics.Config{})
	for _, took := range []time.Duration{-time.Second, 900 * time.Nanosecond, 3 * time.Microsecond, 40 * time.Microsecond, time.Minute} {
		c.Observe(t.Context(), verifier.Event{Outcome: verifier.Accepted, Duration: took})
	}
	scrape(t, c).want(t, series{
		`keyturn_verification_duration_seconds_bucket{le="1e-06"}`:   2,
		`keyturn_verification_duration_seconds_bucket{le="2.5e-06"}`: 2,
		`keyturn_verification_duration_seconds_bucket{le="5e-06"}`:   3,
		`keyturn_verification_duration_seconds_bucket{le="2.5e-05"}`: 3,
		`keyturn_verification_duration_seconds_bucket{le="5e-05"}`:   4,
		`keyturn_verification_duration_seconds_bucket{le="2.5"}`:     4,
		`keyturn_verification_duration_seconds_bucket{le="+Inf"}`:    5,
		`keyturn_verification_duration_seconds_sum`:                  60.0000439,
	})
}

func TestObserveAllocatesNothing(t *testing.T) {
	c := metrics.New(metrics.Config{TenantLimit: 1})
	c.Watch(metrics.Watched{Tenants: []string{"acme", "globex"}})
	for name, e := range events {
		if n := testing.AllocsPerRun(100, func() { c.Observe(t.Context(), e) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Prometheus may be told to send a token with every scrape, and does. It opens nothing here, and
// refuses nothing.
func TestIstio_49239_BearerIsIgnored(t *testing.T) {
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Authorization", "Bearer prometheus-own-token")
	r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	w := httptest.NewRecorder()
	everything(t).Handler().ServeHTTP(w, r)
	if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, "# EOF") || strings.Contains(body, "prometheus-own-token") {
		t.Errorf("%d %s", w.Code, body)
	}
	if kind := w.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") {
		t.Errorf("the page is %q", kind)
	}
}

// OpenMetrics writes le="1" as le="1.0", so a query that names a bound breaks when the format does.
// Ours name none.
func TestSpicedb_1768_NoQueryNamesABound(t *testing.T) {
	for _, expr := range shippedQueries(t) {
		if strings.Contains(expr, "le=") || strings.Contains(expr, "le!=") {
			t.Errorf("%s names a bound of a histogram", expr)
		}
	}
}

// Two scrapes are answered at once, and a third one is not: it would cost as much again.
func TestScrapesAreBounded(t *testing.T) {
	c := metrics.New(metrics.Config{})
	entered, leave := make(chan bool), make(chan bool)
	c.Watch(metrics.Watched{Sources: func() []*jwks.Source { entered <- true; <-leave; return nil }})
	h, ended := c.Handler(), make(chan int)
	for range 2 {
		go func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			ended <- w.Code
		}()
		<-entered
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("the third scrape got %d", w.Code)
	}
	close(leave)
	for range 2 {
		if code := <-ended; code != http.StatusOK {
			t.Errorf("a scrape got %d", code)
		}
	}
}
