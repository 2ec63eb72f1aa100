package ring

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/keyturn/keyturn/keystore"
)

// A Policy says how the keys of a ring are timed. A zero field takes the default
// that its comment gives, which follows from Every; see [Policy.WithDefaults].
//
// Every record carries the policy that it was minted under, and the policy of a
// ring is that of its newest record: changing it means minting the next key
// under another one.
type Policy struct {
	// Every is how long one key signs. The default is 30 days.
	Every time.Duration

	// MaxTokenTTL is the longest that a token may live. The default is 15m.
	MaxTokenTTL time.Duration

	// Algorithm is what keys sign with. The default is HS256.
	Algorithm keystore.Algorithm

	// Advanced: the defaults of the fields below follow from those above.

	// Propagation is how long a key is published before it signs. It is also how
	// long a partition may last before two instances disagree on a scheduled key.
	// The default is half of Every, at most 15 days.
	Propagation time.Duration

	// Leeway is the most that verifiers forgive. A key is kept for that much
	// longer, and no tenant's own leeway may be more. The default is 30s.
	Leeway time.Duration

	// ClockSkew is the most that an instance's clock and the store's differ. The
	// default is a sixteenth of Propagation, at most 5s.
	ClockSkew time.Duration

	// Freshness is how old an instance's last good sync may be while the instance
	// counts as in sync, at least 1s. The default is three eighths of
	// Propagation, at most 60s.
	Freshness time.Duration

	// Dwell is how long an acknowledged write may still be lost, as at a failover.
	// The default is an eighth of Propagation, at most 60s.
	Dwell time.Duration

	// SignFor is how long an instance signs after its last good sync. The default
	// is Propagation less Dwell and ClockSkew, at most 24h.
	SignFor time.Duration

	// ReaderStaleness is how old a JWK Set may be that others read the ring's
	// public keys from. The default is 1h for asymmetric keys, less if
	// Propagation leaves less, and 0 for HS*, whose secrets are never published.
	ReaderStaleness time.Duration
}

// MaxPublished is how many public keys a ring may publish at once.
const MaxPublished = 10

// WithDefaults returns p with its zero fields filled in.
func (p Policy) WithDefaults() Policy {
	if p.Algorithm == "" {
		p.Algorithm = keystore.HS256
	}
	fill(&p.Every, 30*24*time.Hour)
	fill(&p.Propagation, min(15*24*time.Hour, p.Every/2))
	fill(&p.Dwell, min(time.Minute, p.Propagation/8))
	fill(&p.ClockSkew, min(5*time.Second, p.Propagation/16))
	fill(&p.Freshness, min(time.Minute, 3*p.Propagation/8))
	fill(&p.SignFor, min(24*time.Hour, p.Propagation-p.Dwell-p.ClockSkew))
	if !p.Algorithm.Symmetric() {
		fill(&p.ReaderStaleness, min(time.Hour, p.Propagation-p.Freshness-p.ClockSkew))
	}
	fill(&p.MaxTokenTTL, 15*time.Minute)
	fill(&p.Leeway, 30*time.Second)
	return p
}

func fill(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to.Truncate(time.Millisecond)
	}
}

// Validate reports whether the policy, with its defaults filled in, keeps the
// promises of the protocol. The error is a [*PolicyError], which names the inequality that does
// not hold, with both sides. docs/rotation.md says what each is for.
func (p Policy) Validate() error {
	p = p.WithDefaults()
	if !p.Algorithm.Known() {
		return &PolicyError{Field: "Algorithm", Reason: fmt.Sprintf("is %q: want one of %v", string(p.Algorithm), keystore.Algorithms())}
	}
	for _, f := range p.fields() {
		switch {
		case f.value < f.least:
			return &PolicyError{Field: f.name, Left: f.value, Right: f.least, Reason: fmt.Sprintf("is %v, want at least %v", f.value, f.least)}
		case f.value > MaxDuration:
			return &PolicyError{Field: f.name, Left: f.value, Right: MaxDuration, Reason: fmt.Sprintf("is %v, want at most %v", f.value, MaxDuration)}
		case f.value%time.Millisecond != 0:
			return &PolicyError{Field: f.name, Left: f.value, Right: time.Millisecond, Reason: fmt.Sprintf("is %v, want whole milliseconds", f.value)}
		}
	}
	if p.Algorithm.Symmetric() && p.ReaderStaleness != 0 {
		return &PolicyError{Field: "ReaderStaleness", Left: p.ReaderStaleness,
			Reason: fmt.Sprintf("is %v, want 0: secrets of %s are never published", p.ReaderStaleness, p.Algorithm)}
	}
	for _, i := range p.inequalities() {
		if i.left < i.right {
			return &PolicyError{Inequality: i.text, Left: i.left, Right: i.right, Reason: fmt.Sprintf("%v is less than %v", i.left, i.right)}
		}
	}
	if !p.Algorithm.Symmetric() {
		if n := p.published(); n > MaxPublished {
			return &PolicyError{Inequality: fmt.Sprintf("2 + ceil((MaxTokenTTL + Leeway + 2 ClockSkew) / Every) <= %d", MaxPublished),
				Reason: fmt.Sprintf("it would publish %d keys at once", n)}
		}
	}
	return nil
}

// A PolicyError says what is wrong with a [Policy]: the value of one Field, or an Inequality
// between several.
type PolicyError struct {
	Field      string // of Policy, or "" if an inequality does not hold
	Inequality string // between fields of Policy, or ""

	// Left and Right are the two sides of Inequality, or the value of Field and the bound that it
	// breaks. Both are zero where the error is not about durations.
	Left, Right time.Duration

	Reason string // in words, without the name of a field
}

// Error names the fields as they are in [Policy].
func (e *PolicyError) Error() string {
	return "rotation: " + e.Text(func(field string) string {
		if e.Field != "" {
			return "Policy." + field
		}
		return field
	})
}

// Text says what is wrong, and names each field of [Policy] as name does: a program may call
// them by its flags.
func (e *PolicyError) Text(name func(field string) string) string {
	if e.Field != "" {
		return name(e.Field) + " " + e.Reason
	}
	text, word := "", ""
	for _, r := range e.Inequality + " " {
		if unicode.IsLetter(r) {
			word += string(r)
			continue
		}
		if slices.ContainsFunc(Policy{}.fields(), func(f field) bool { return f.name == word }) {
			word = name(word)
		}
		text, word = text+word+string(r), ""
	}
	return fmt.Sprintf("the policy does not hold %s: %s", strings.TrimSpace(text), e.Reason)
}

// MaxDuration is the longest duration in a policy. It keeps every sum of durations and times far from overflow.
const MaxDuration = 10 * 365 * 24 * time.Hour

type field struct {
	name         string
	value, least time.Duration
}

func (p Policy) fields() []field {
	const ms = time.Millisecond
	return []field{
		{"Every", p.Every, ms}, {"Propagation", p.Propagation, ms}, {"MaxTokenTTL", p.MaxTokenTTL, time.Second},
		{"Leeway", p.Leeway, 0}, {"ClockSkew", p.ClockSkew, ms}, {"Freshness", p.Freshness, MinFreshness}, {"Dwell", p.Dwell, ms},
		{"SignFor", p.SignFor, ms}, {"ReaderStaleness", p.ReaderStaleness, 0},
	}
}

type inequality struct {
	text        string
	left, right time.Duration
}

// MinFreshness is the least Freshness: the least that leaves a poll and its deadline room on a network.
const MinFreshness = time.Second

// inequalities are what the proof of the protocol rests on.
func (p Policy) inequalities() []inequality {
	return []inequality{
		{"Propagation >= Freshness + ClockSkew", p.Propagation, p.Freshness + p.ClockSkew},
		{"Propagation >= SignFor + Dwell + ClockSkew", p.Propagation, p.SignFor + p.Dwell + p.ClockSkew},
		{"Propagation >= ReaderStaleness + Freshness + ClockSkew", p.Propagation, p.ReaderStaleness + p.Freshness + p.ClockSkew},
		{"SignFor >= Freshness", p.SignFor, p.Freshness},
		{"Leeway >= 2 ClockSkew", p.Leeway, 2 * p.ClockSkew},
		{"Every >= Propagation", p.Every, p.Propagation},
		{"MaxTokenTTL + Leeway >= Freshness + ClockSkew", p.MaxTokenTTL + p.Leeway, p.Freshness + p.ClockSkew},
	}
}

// published is how many keys an asymmetric ring publishes at most: the signing key,
// the next one, and those whose tokens may still be alive.
func (p Policy) published() int {
	live := p.MaxTokenTTL + p.Leeway + 2*p.ClockSkew
	return 2 + int((live+p.Every-1)/p.Every)
}

// Window is how far the time of a proposed fact may be from the store's when it arrives:
// twice ClockSkew and the deadline of the call together.
func (p *Policy) Window(deadline time.Duration) time.Duration { return 2 * (p.ClockSkew + deadline) }
