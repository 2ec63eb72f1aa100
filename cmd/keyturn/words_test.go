package main

import (
	"testing"
	"time"
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
