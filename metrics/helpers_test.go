package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/proxytest"
	"github.com/keyturn/keyturn/metrics"
)

// A series maps each series of a page, as it is written, to its value.
type series map[string]float64

// scrape returns the series of keyturn on c's page.
func scrape(t *testing.T, c *metrics.Collector) series {
	t.Helper()
	all := make(series)
	for line := range strings.Lines(pageOf(t, c)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "keyturn_") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatal(err)
		}
		all[line[:at]] = v
	}
	return all
}

// pageOf returns c's page.
func pageOf(t *testing.T, c *metrics.Collector) string {
	t.Helper()
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("the page is %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// want checks the values of some series.
func (s series) want(t *testing.T, want series) {
	t.Helper()
	for name, v := range want {
		if got, ok := s[name]; !ok || got != v {
			t.Errorf("%s = %v (there: %v), want %v", name, got, ok, v)
		}
	}
}

// eventually waits up to 20 s until ok.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come about within 20 s")
		}
	}
}

// fixed is a clock that stands.
func fixed() time.Time { return time.Unix(1764000000, 500e6) }

// promtool runs promtool with a page as its input, or skips the test if promtool is missing.
func promtool(t *testing.T, input string, args ...string) string {
	t.Helper()
	proxytest.Need(t, "promtool")
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
