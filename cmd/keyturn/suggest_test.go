package main

import (
	"strings"
	"testing"
)

func TestSuggestions(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		phrase string
	}{
		{[]string{"serve", "--adr", ":4112"}, "unknown flag --adr: did you mean --addr?"},
		{[]string{"serve", "-adr", ":4112"}, "unknown flag: did you mean --addr?"},
		{[]string{"serve", "--allow"}, "did you mean --allow-no-exp?"},
		{[]string{"verify", "--issuer", "i"}, "did you mean --iss?"},
		{[]string{"verify", "--secret-fil", "x"}, "did you mean --secret-file?"},
		{[]string{"verify", "--ALG", "x"}, "unknown flag: did you mean --alg?"},
		{[]string{"verify", "--lewway=5s"}, "did you mean --leeway?"},
		{[]string{"verify", "--secret", testSecret}, "a secret is never given as a flag: --secret-file"},
		{[]string{"sign", "--secret=" + testSecret}, "a secret is never given as a flag: --secret-file"},
		{[]string{"serve", "--secret", testSecret}, "KEYTURN_SECRET or MASTRA_JWT_SECRET"},
		{[]string{"serve", "4112"}, "--addr :4112"},
		{[]string{"serve", ":4112"}, "--addr :4112"},
		{[]string{"sign", "sub=ann"}, "--claim sub=ann"},
		{[]string{"sign", "sub=hush"}, "--claim sub=ann"},
	} {
		r := keyturn(t, tt.args...)
		r.wantUsage(t, tt.phrase)
		if strings.Contains(r.stderr, "hush") || strings.Contains(r.stderr, testSecret) {
			t.Errorf("%q: stderr = %q", tt.args, r.stderr)
		}
	}
	for _, args := range [][]string{
		{"verify", "--redis", "x"}, {"verify", "--issuer-url", "x"}, {"inspect", "--secret", "x"}, {"verify", "-x", "t"},
		{"serve", "70000"}, {"serve", "localhost"}, {"sign", "ann"},
	} {
		r := keyturn(t, args...)
		r.wantUsage(t)
		if strings.Contains(r.stderr, "did you mean") || strings.Contains(r.stderr, "such as --addr") || strings.Contains(r.stderr, "such as --claim") {
			t.Errorf("%q: stderr = %q, want no suggestion", args, r.stderr)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"adr", "addr", 1}, {"addr", "adr", 1}, {"kid", "kit", 1},
		{"aud", "iss", 3}, {"kitten", "sitting", 3},
	} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
