package jwks

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestFreshness(t *testing.T) {
	tests := []struct {
		control, age string
		want         time.Duration
		said         bool
	}{
		{"", "", 10 * time.Minute, false},
		{"public", "", 10 * time.Minute, false},
		{"max-age=600", "", 10 * time.Minute, true},
		{"public, max-age=900, must-revalidate", "", 15 * time.Minute, true},
		{"Max-Age=900", "", 15 * time.Minute, true},
		{`max-age="900"`, "", 15 * time.Minute, true},
		{"max-age=59", "", time.Minute, true},
		{"max-age=61", "", 61 * time.Second, true},
		{"max-age=3599", "", 3599 * time.Second, true},
		{"max-age=3601", "", time.Hour, true},
		{"max-age=0", "", time.Minute, true},
		{"max-age=-1", "", time.Minute, true},
		{"max-age", "", time.Minute, true},
		{"max-age=1e9", "", time.Minute, true},
		{"max-age=315360000", "", time.Hour, true},
		{"max-age=99999999999999999999999", "", time.Hour, true},
		{"max-age=900, max-age=300", "", 5 * time.Minute, true},
		{"no-store", "", time.Minute, true},
		{"no-cache, max-age=900", "", time.Minute, true},
		{"s-maxage=900", "", 10 * time.Minute, false},
		{"max-age=900", "300", 10 * time.Minute, true},
		{"max-age=900", "9999", time.Minute, true},
		{"max-age=900", "-5", 15 * time.Minute, true},
		{"", "300", 10 * time.Minute, false},
	}
	for _, tt := range tests {
		h := http.Header{"Cache-Control": {tt.control}, "Age": {tt.age}}
		if got, said := freshness(h); got != tt.want || said != tt.said {
			t.Errorf("freshness(%q, Age %q) = %v, %v, want %v, %v", tt.control, tt.age, got, said, tt.want, tt.said)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "-5": 0, "soon": 0, "1.5": 0, "30": 30 * time.Second, "600": 10 * time.Minute, "601": 10 * time.Minute,
		"99999999999999999999":            10 * time.Minute,
		"Fri, 02 Jan 2026 03:05:05 GMT":   time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT":   0,
		"Fri, 31 Dec 2999 23:59:59 GMT":   10 * time.Minute,
		"Friday, 02-Jan-26 03:05:05 GMT":  time.Minute,
		"Fri Jan  2 03:05:05 2026":        time.Minute,
		"Fri, 02 Jan 2026 03:05:05 +0500": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, epoch); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", value, got, want)
		}
	}
}

// Whatever an issuer writes, the results are within the bounds.
func FuzzHeaders(f *testing.F) {
	f.Add("max-age=60, public", "5", "30", `"etag"`)
	f.Add("max-age=-1,,=,no-store", "", "Fri, 31 Dec 2999 23:59:59 GMT", "W/\"x\"")
	f.Add("MAX-AGE=\"18446744073709551616\"", "9223372036854775807", "9223372036854775807", "\x00\r\n")
	f.Fuzz(func(t *testing.T, control, age, retry, etag string) {
		h := http.Header{"Cache-Control": {control, control}, "Age": {age}, "Retry-After": {retry}, "Etag": {etag}}
		ttl, said := freshness(h)
		if ttl < minFresh || ttl > maxFresh || !said && ttl != defaultFresh {
			t.Errorf("freshness(%q) = %v, %v", control, ttl, said)
		}
		wait := retryAfter(h, epoch)
		if wait < 0 || wait > maxRetryAfter {
			t.Errorf("retryAfter(%q) = %v", retry, wait)
		}
		m := machine{staleIfError: defaultStaleIfError}.succeeded(epoch, ttl, 0.5)
		if end := m.expiry().Sub(epoch); end != defaultStaleIfError || !m.next.Before(epoch.Add(ttl)) {
			t.Errorf("expiry %v, next %v", end, m.next)
		}
		if next := m.failed(epoch, epoch, wait, 0.5).next.Sub(epoch); next < firstBackoff || next > maxRetryAfter {
			t.Errorf("next after %v", next)
		}
		if got := newValidator(h).etag; got != "" && (got != etag || strings.ContainsAny(got, "\r\n\x00") || len(got) > maxValidator) {
			t.Errorf("the validator of %q is %q", etag, got)
		}
	})
}
