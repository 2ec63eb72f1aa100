package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

// A policyTime is one duration of a policy: a flag, and a field of rings.policy in the file of
// --config.
type policyTime struct {
	name, field  string // the flag's name, and that of the field of [rotation.Policy]
	shown, usage string // the default and the meaning, as the help shows them
	of           func(*rotation.Policy) *time.Duration
}

func policyTimes() []policyTime {
	return []policyTime{
		{"every", "Every", "30d", "how long one key signs", func(p *rotation.Policy) *time.Duration { return &p.Every }},
		{"propagation", "Propagation", "half of --every, at most 15d", "how long before it signs a key is published",
			func(p *rotation.Policy) *time.Duration { return &p.Propagation }},
		{"max-ttl", "MaxTokenTTL", "15m", "the longest that a token may live",
			func(p *rotation.Policy) *time.Duration { return &p.MaxTokenTTL }},
		{"leeway", "Leeway", "30s", "the most leeway of any verifier", func(p *rotation.Policy) *time.Duration { return &p.Leeway }},
		{"skew", "ClockSkew", "1/16 of --propagation, at most 5s", "how far a clock may differ from Redis'",
			func(p *rotation.Policy) *time.Duration { return &p.ClockSkew }},
		{"freshness", "Freshness", "at most 60s, less for short times", "how old what an instance knows may be",
			func(p *rotation.Policy) *time.Duration { return &p.Freshness }},
		{"dwell", "Dwell", "at most 60s, less for short times", "how long a failover may lose a write",
			func(p *rotation.Policy) *time.Duration { return &p.Dwell }},
		{"sign-for", "SignFor", "what --propagation leaves, at most 24h", "how long to sign without Redis",
			func(p *rotation.Policy) *time.Duration { return &p.SignFor }},
		{"reader-staleness", "ReaderStaleness", "at most 1h; none for HS*", "how old a JWK Set of it may be",
			func(p *rotation.Policy) *time.Duration { return &p.ReaderStaleness }},
	}
}

// policyFlags are the flags for the policy of a new ring.
type policyFlags struct {
	alg   *option[keystore.Algorithm]
	times []*option[time.Duration] // in the order of policyTimes
}

func newPolicyFlags() policyFlags {
	p := policyFlags{alg: &option[keystore.Algorithm]{value: keystore.HS256, kind: "ALG", shown: "HS256", parse: parseAlgorithm}}
	for _, t := range policyTimes() {
		p.times = append(p.times, &option[time.Duration]{kind: "DURATION", shown: t.shown, parse: parseLong})
	}
	return p
}

func (p *policyFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(p.alg, "alg", "what its keys sign with: "+string(keystore.HS256)+", ES256, EdDSA and the like")
	for i, t := range policyTimes() {
		f.Var(p.times[i], t.name, t.usage)
	}
}

// given returns the name of a flag that was given, or "".
func (p *policyFlags) given() string {
	if p.alg.given {
		return "alg"
	}
	for i, t := range policyTimes() {
		if p.times[i].given {
			return t.name
		}
	}
	return ""
}

// policy returns the policy that the flags name, if it can be kept.
func (p *policyFlags) policy() (rotation.Policy, error) {
	policy := rotation.Policy{Algorithm: p.alg.value}
	for i, t := range policyTimes() {
		*t.of(&policy) = p.times[i].value
	}
	return policy, checkPolicy(policy)
}

// filePolicy returns the policy of rings.policy in the file of --config, whose fields are called as
// the flags are.
func filePolicy(fields map[string]yaml.Node) (rotation.Policy, error) {
	policy := rotation.Policy{Algorithm: keystore.HS256}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field := fields[name]
		if err := setPolicyField(&policy, name, field.Value); err != nil {
			return policy, usagef("the file of --config: line %d: rings.policy: %v", field.Line, err)
		}
	}
	return policy, nil
}

func setPolicyField(policy *rotation.Policy, name, text string) (err error) {
	if name == "alg" {
		if policy.Algorithm, err = parseAlgorithm(text); err != nil {
			return fmt.Errorf("alg: %w", err)
		}
		return nil
	}
	for _, t := range policyTimes() {
		if t.name != name {
			continue
		}
		if *t.of(policy), err = parseLong(text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	return fmt.Errorf("unknown field %s: want the names of the flags of serve, such as every", quoteShort(name))
}

// checkPolicy returns why a policy cannot be kept.
func checkPolicy(policy rotation.Policy) error {
	if err := policy.Validate(); err != nil {
		return usagef("%s", errorText(err))
	}
	return nil
}

// policyFlagOf returns the flag for a field of [rotation.Policy].
func policyFlagOf(field string) string {
	for _, t := range policyTimes() {
		if t.field == field {
			return "--" + t.name
		}
	}
	return "--alg"
}

// parseLong reads a duration, which may be in days.
func parseLong(s string) (time.Duration, error) {
	wanted := errors.New("want a duration such as 30d, 12h or 90s")
	d, err := time.ParseDuration(s)
	if text, inDays := strings.CutSuffix(s, "d"); inDays {
		const day = 24 * time.Hour
		var n uint64
		n, err = strconv.ParseUint(text, 10, 32)
		if n > math.MaxInt64/uint64(day) {
			return 0, wanted
		}
		d = time.Duration(n) * day
	}
	switch {
	case err != nil:
		return 0, wanted
	case d < time.Millisecond:
		return 0, fmt.Errorf("want at least %v", time.Millisecond)
	}
	return d, nil
}
