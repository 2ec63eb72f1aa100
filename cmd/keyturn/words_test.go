package main

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
)

func TestSince(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		seconds int64
		want    string
	}{
		{0, "now"}, {1, "in 1 second"}, {-1, "1 second ago"}, {59, "in 59 seconds"},
		{60, "in 1 minute"}, {119, "in 1 minute"}, {14 * 60, "in 14 minutes"}, {-3599, "59 minutes ago"},
		{-3600, "1 hour ago"}, {3 * 3600, "in 3 hours"}, {48*3600 - 1, "in 47 hours"},
		{48 * 3600, "in 2 days"}, {-729 * 86400, "729 days ago"}, {730 * 86400, "in 2 years"},
		{1<<53 - 1 - 1_800_000_000, "in 285616357 years"},
	} {
		if got := since(time.Unix(now.Unix()+tt.seconds, 0), now); got != tt.want {
			t.Errorf("since(%d s) = %q, want %q", tt.seconds, got, tt.want)
		}
	}
}

// One of a kind is no plural.
func TestOneOfAKind(t *testing.T) {
	one, two := []tenantConfig{{ID: "acme"}}, []tenantConfig{{ID: "acme"}, {ID: "globex"}}
	signature := func(n int) string { return (&inspection{signature: n}).text(time.Now()) }
	for _, tt := range []struct{ text, want string }{
		{fileIntro(endpoint{}, &configFile{Tenants: one}), "tokens of one tenant open the API\n"},
		{fileIntro(endpoint{}, &configFile{Tenants: two}), "tokens of 2 tenants open the API\n"},
		{upstreamIntro(endpoint{}, &server.Upstream{Public: make([]server.PublicRoute, 1)}), "with 1 exception\n"},
		{upstreamIntro(endpoint{}, &server.Upstream{Public: make([]server.PublicRoute, 2)}), "with 2 exceptions\n"},
		{appliedBy(0, 1), "0 of 1 instance has applied it"},
		{appliedBy(1, 2), "1 of 2 instances have applied it"},
		{signature(1), "  1 byte, not checked\n"},
		{signature(64), "  64 bytes, not checked\n"},
	} {
		if !strings.Contains(tt.text, tt.want) {
			t.Errorf("%q does not say %q", tt.text, tt.want)
		}
	}
}
