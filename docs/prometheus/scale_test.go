package prometheus_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// speed is by what the walk divides every duration of the rules.
const speed = 120

// The ways in which rules.yml writes a duration: for: 2m, [5m], offset 1d, and 3 * 60 for seconds.
var (
	spelled   = regexp.MustCompile(`(for: |\[|offset )([0-9]+)([smhd])`)
	inSeconds = regexp.MustCompile(`\b([0-9]+) \* (60|3600|86400)\b`)
	units     = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
)

// faster returns the rules with every duration divided by speed.
func faster(rules string) string {
	rules = spelled.ReplaceAllStringFunc(rules, func(text string) string {
		m := spelled.FindStringSubmatch(text)
		n, err := strconv.Atoi(m[2])
		if err != nil {
			panic(err)
		}
		return fmt.Sprintf("%s%dms", m[1], (time.Duration(n) * units[m[3]] / speed).Milliseconds())
	})
	return inSeconds.ReplaceAllString(rules, fmt.Sprintf("$1 * $2 / %d", speed))
}

func rules(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The copy that the walk runs differs from the rules in durations alone.
func TestFasterRulesDifferInDurationsAlone(t *testing.T) {
	before, after := rules(t), faster(rules(t))
	mask := func(s string, as ...*regexp.Regexp) string {
		for _, a := range as {
			s = a.ReplaceAllString(s, "DURATION")
		}
		return s
	}
	scaled := []*regexp.Regexp{regexp.MustCompile(`(for: |\[|offset )[0-9]+ms`), regexp.MustCompile(`\b[0-9]+ \* (60|3600|86400) / 120\b`)}
	if a, b := mask(before, spelled, inSeconds), mask(after, scaled...); a != b {
		t.Errorf("the copy differs:\n%s\n%s", a, b)
	}
	if n := len(spelled.FindAllString(before, -1)) + len(inSeconds.FindAllString(before, -1)); n < 20 {
		t.Errorf("only %d durations were found", n)
	}
	for _, want := range []string{"for: 1000ms", "for: 30000ms", "[7500ms]", "offset 720000ms", "> 3 * 60 / 120", "< 14 * 86400 / 120"} {
		if !strings.Contains(after, want) {
			t.Errorf("the copy lacks %s", want)
		}
	}
}
