package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

// policyFlags are the policy of a ring that is to be made.
type policyFlags struct {
	alg   *option[keystore.Algorithm]
	times []timeFlag
}

// A timeFlag is one duration of a policy.
type timeFlag struct {
	name, field string // the flag's, and in package rotation's errors
	value       *option[time.Duration]
	usage       string
	of          func(*rotation.Policy) *time.Duration
}

func newPolicyFlags() policyFlags {
	p := policyFlags{alg: &option[keystore.Algorithm]{value: keystore.HS256, kind: "ALG", shown: "HS256", parse: parseAlgorithm}}
	add := func(name, field, standard, usage string, of func(*rotation.Policy) *time.Duration) {
		value := &option[time.Duration]{kind: "DURATION", shown: standard, parse: parseLong}
		p.times = append(p.times, timeFlag{name, field, value, usage, of})
	}
	add("every", "Every", "30d", "how long one key signs", func(p *rotation.Policy) *time.Duration { return &p.Every })
	add("propagation", "Propagation", "half of --every, at most 15d", "how long before it signs a key is published",
		func(p *rotation.Policy) *time.Duration { return &p.Propagation })
	add("max-ttl", "MaxTokenTTL", "15m", "the longest that a token may live",
		func(p *rotation.Policy) *time.Duration { return &p.MaxTokenTTL })
	add("leeway", "Leeway", "30s", "the most leeway of any verifier", func(p *rotation.Policy) *time.Duration { return &p.Leeway })
	add("skew", "ClockSkew", "1/16 of --propagation, at most 5s", "how far a clock may differ from Redis'",
		func(p *rotation.Policy) *time.Duration { return &p.ClockSkew })
	add("freshness", "Freshness", "3/8 of --propagation, at most 60s", "how old what an instance knows may be",
		func(p *rotation.Policy) *time.Duration { return &p.Freshness })
	add("dwell", "Dwell", "1/8 of --propagation, at most 60s", "how long a failover may lose a write",
		func(p *rotation.Policy) *time.Duration { return &p.Dwell })
	add("sign-for", "SignFor", "what --propagation leaves, at most 24h", "how long to sign without Redis",
		func(p *rotation.Policy) *time.Duration { return &p.SignFor })
	add("reader-staleness", "ReaderStaleness", "at most 1h; none for HS*", "how old a JWK Set of it may be",
		func(p *rotation.Policy) *time.Duration { return &p.ReaderStaleness })
	return p
}

func (p *policyFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(p.alg, "alg", "what its keys sign with: "+string(keystore.HS256)+", ES256, EdDSA and the like")
	for _, t := range p.times {
		f.Var(t.value, t.name, t.usage)
	}
}

// set gives the flag of that name a value.
func (p *policyFlags) set(name, value string) error {
	if name == "alg" {
		if err := p.alg.Set(value); err != nil {
			return fmt.Errorf("alg: %w", err)
		}
		return nil
	}
	for _, t := range p.times {
		if t.name == name {
			if err := t.value.Set(value); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("unknown field %s: want the names of the flags of serve, such as every", quoteShort(name))
}

// given names a flag that was given, or "".
func (p *policyFlags) given() string {
	if p.alg.given {
		return "alg"
	}
	for _, t := range p.times {
		if t.value.given {
			return t.name
		}
	}
	return ""
}

// policy returns what the flags say, if it keeps its promises.
func (p *policyFlags) policy() (rotation.Policy, error) {
	policy := rotation.Policy{Algorithm: p.alg.value}
	var names []string
	for _, t := range p.times {
		*t.of(&policy) = t.value.value
		names = append(names, "Policy."+t.field, "--"+t.name, t.field, "--"+t.name)
	}
	if err := policy.Validate(); err != nil {
		return policy, usagef("%s", strings.NewReplacer(names...).Replace(plain(err)))
	}
	return policy, nil
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
