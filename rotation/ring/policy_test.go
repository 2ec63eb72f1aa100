package ring_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

func TestPolicyDefaults(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   ring.Policy
		want ring.Policy
	}{
		{name: "none given", want: ring.Policy{Algorithm: keystore.HS256, Every: 720 * time.Hour, Propagation: 360 * time.Hour, Freshness: time.Minute, ClockSkew: 5 * sec,
			Dwell: time.Minute, SignFor: 24 * time.Hour, MaxTokenTTL: 15 * time.Minute, Leeway: 30 * sec}},
		{name: "asymmetric", in: ring.Policy{Algorithm: keystore.ES256}, want: ring.Policy{Algorithm: keystore.ES256, Every: 720 * time.Hour, Propagation: 360 * time.Hour,
			Freshness: time.Minute, ClockSkew: 5 * sec, Dwell: time.Minute, SignFor: 24 * time.Hour, ReaderStaleness: time.Hour, MaxTokenTTL: 15 * time.Minute, Leeway: 30 * sec}},
		{name: "a day", in: ring.Policy{Every: 24 * time.Hour}, want: ring.Policy{Algorithm: keystore.HS256, Every: 24 * time.Hour, Propagation: 12 * time.Hour, Freshness: time.Minute,
			ClockSkew: 5 * sec, Dwell: time.Minute, SignFor: 12*time.Hour - 65*sec, MaxTokenTTL: 15 * time.Minute, Leeway: 30 * sec}},
		{name: "tokens of a minute", in: ring.Policy{MaxTokenTTL: time.Minute}, want: ring.Policy{Algorithm: keystore.HS256, Every: 720 * time.Hour, Propagation: 360 * time.Hour, Freshness: 45 * sec,
			ClockSkew: 5 * sec, Dwell: 30 * sec, SignFor: 24 * time.Hour, MaxTokenTTL: time.Minute, Leeway: 30 * sec}},
		{name: "of the demo", in: demoPolicy, want: demoPolicy},
		{name: "of the fast tests", in: fastPolicy, want: fastPolicy},
	} {
		if got := tt.in.WithDefaults(); got != tt.want {
			t.Errorf("%s: %+v\nwant %+v", tt.name, got, tt.want)
		}
		if err := tt.in.Validate(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestDefaultsHold: a policy with only Every, from ten seconds to thirty days, and MaxTokenTTL is
// valid. For Every below ten minutes an asymmetric ring needs a MaxTokenTTL shorter than the default.
func TestDefaultsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.Int64Range(10_000, 30*24*3600*1000).Draw(t, "every")) * time.Millisecond
		p := ring.Policy{Algorithm: rapid.SampledFrom([]keystore.Algorithm{keystore.HS256, keystore.ES256, keystore.RS256}).Draw(t, "alg"),
			Every: every}
		if every < 10*time.Minute || rapid.Bool().Draw(t, "short") {
			p.MaxTokenTTL = time.Duration(rapid.Int64Range(1, min(3600, int64(every/sec))).Draw(t, "ttl")) * sec
		}
		if err := p.Validate(); err != nil {
			t.Fatalf("Every %v: %v: %+v", p.Every, err, p.WithDefaults())
		}
	})
}

// TestInequalities: each inequality holds at its bound. One step below, the error names it.
func TestInequalities(t *testing.T) {
	base := ring.Policy{Algorithm: keystore.ES256, Every: 1000 * sec, Propagation: 500 * sec, Freshness: 60 * sec, ClockSkew: 5 * sec, Dwell: 20 * sec,
		SignFor: 100 * sec, ReaderStaleness: 200 * sec, MaxTokenTTL: 900 * sec, Leeway: 30 * sec}
	if err := base.Validate(); err != nil {
		t.Fatal(err)
	}
	const step = time.Millisecond
	for _, tt := range []struct {
		name    string
		atBound func(*ring.Policy)
		below   func(*ring.Policy)
	}{
		{"Propagation >= Freshness + Dwell + ClockSkew", func(p *ring.Policy) {
			p.ReaderStaleness, p.Dwell, p.SignFor, p.Freshness = 0, step, 60*sec, 60*sec
			p.Algorithm = keystore.HS256
			p.Propagation = 65*sec + step
		}, func(p *ring.Policy) { p.Propagation -= step }},
		{"Propagation >= SignFor + Dwell + ClockSkew", func(p *ring.Policy) { p.SignFor = 475 * sec }, func(p *ring.Policy) { p.SignFor += step }},
		{"Propagation >= ReaderStaleness + Freshness + Dwell + ClockSkew", func(p *ring.Policy) { p.ReaderStaleness = 415 * sec }, func(p *ring.Policy) { p.ReaderStaleness += step }},
		{"SignFor >= Freshness", func(p *ring.Policy) { p.SignFor = 60 * sec }, func(p *ring.Policy) { p.SignFor -= step }},
		{"Leeway >= 2 ClockSkew", func(p *ring.Policy) { p.Leeway = 10 * sec }, func(p *ring.Policy) { p.Leeway -= step }},
		{"Every >= Propagation", func(p *ring.Policy) { p.Every, p.MaxTokenTTL = 500*sec, 400*sec }, func(p *ring.Policy) { p.Every -= step }},
		{"MaxTokenTTL + Leeway >= Freshness + Dwell + ClockSkew", func(p *ring.Policy) { p.MaxTokenTTL = 55 * sec }, func(p *ring.Policy) { p.MaxTokenTTL -= step }},
		{"2 + ceil(", func(p *ring.Policy) { p.MaxTokenTTL = 8*1000*sec - 40*sec }, func(p *ring.Policy) { p.MaxTokenTTL += step }},
	} {
		p := base
		tt.atBound(&p)
		if err := p.Validate(); err != nil {
			t.Errorf("%s, at its bound: %v", tt.name, err)
		}
		tt.below(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tt.name) {
			t.Errorf("%s, below its bound: %v", tt.name, err)
		}
	}
}

func TestPolicyRefuses(t *testing.T) {
	for _, tt := range []struct {
		want string
		edit func(*ring.Policy)
	}{
		{`"none"`, func(p *ring.Policy) { p.Algorithm = "none" }},
		{"Every is -1s", func(p *ring.Policy) { p.Every = -sec }},
		{"Leeway is -1ns", func(p *ring.Policy) { p.Leeway = -1 }},
		{"whole milliseconds", func(p *ring.Policy) { p.Every += time.Microsecond }},
		{"at most", func(p *ring.Policy) { p.Every = 1 << 62 }},
		{"MaxTokenTTL is 10ms", func(p *ring.Policy) { p.MaxTokenTTL = 10 * time.Millisecond }},
		{"never published", func(p *ring.Policy) { p.Algorithm = keystore.HS256 }},
	} {
		p := demoPolicy
		tt.edit(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want an error with %q", err, tt.want)
		}
	}
}

// TestPolicyErrorParts: a caller gets the parts of an error, and can rename the fields in its text.
func TestPolicyErrorParts(t *testing.T) {
	flag := func(field string) string { return "--" + strings.ToLower(field) }
	for _, tt := range []struct {
		edit func(*ring.Policy)
		want ring.PolicyError
		text string
	}{
		{func(p *ring.Policy) { p.Every = -sec },
			ring.PolicyError{Field: "Every", Left: -sec, Right: time.Millisecond, Reason: "is -1s, want at least 1ms"},
			"--every is -1s, want at least 1ms"},
		{func(p *ring.Policy) { p.SignFor = sec },
			ring.PolicyError{Inequality: "SignFor >= Freshness", Left: sec, Right: 6 * sec, Reason: "1s is less than 6s"},
			"the policy does not hold --signfor >= --freshness: 1s is less than 6s"},
		{func(p *ring.Policy) { p.MaxTokenTTL = time.Hour },
			ring.PolicyError{Inequality: "2 + ceil((MaxTokenTTL + Leeway + 2 ClockSkew) / Every) <= 10", Reason: "it would publish 124 keys at once"},
			"the policy does not hold 2 + ceil((--maxtokenttl + --leeway + 2 --clockskew) / --every) <= 10: it would publish 124 keys at once"},
	} {
		p := demoPolicy
		tt.edit(&p)
		e := new(ring.PolicyError)
		if err := p.Validate(); !errors.As(err, &e) {
			t.Errorf("%v, want a PolicyError", err)
			continue
		}
		if *e != tt.want {
			t.Errorf("%+v\nwant %+v", *e, tt.want)
		}
		if got := e.Text(flag); got != tt.text {
			t.Errorf("Text = %q\nwant %q", got, tt.text)
		}
	}
}
