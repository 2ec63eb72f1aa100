package ring

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/keyturn/keyturn/keystore"
)

// A Policy times the keys of a ring. A zero field takes the default that its comment gives: see
// [Policy.WithDefaults]. Every duration is in whole milliseconds, at most [MaxDuration].
//
// The indented lines are inequalities that [Policy.Validate] checks. docs/rotation.md says what
// happens if one does not hold.
//
// Every record carries the policy that it was minted under. The policy of a ring is that of its
// newest record, so a new policy takes effect with the next key.
type Policy struct {
	// Every is how long one key signs. The default is 30 days.
	//
	//	Every >= Propagation
	Every time.Duration

	// MaxTokenTTL is the longest life of a token, at least 1s. The default is 15m.
	//
	//	MaxTokenTTL + Leeway >= Freshness + Dwell + ClockSkew
	//	2 + ceil((MaxTokenTTL + Leeway + 2 ClockSkew) / Every) <= MaxPublished, for asymmetric keys
	MaxTokenTTL time.Duration

	// Algorithm is what keys sign with. The default is HS256.
	Algorithm keystore.Algorithm

	// Advanced. The fields from here on rarely need a value of their own.
	//
	// Propagation is how long, at least, a key is published before it signs. A partition must last
	// longer than that before two instances can disagree on a scheduled key. The default is half of
	// Every, at most 15 days.
	//
	//	Propagation >= Freshness + Dwell + ClockSkew
	//	Propagation >= SignFor + Dwell + ClockSkew
	//	Propagation >= ReaderStaleness + Freshness + Dwell + ClockSkew
	Propagation time.Duration

	// Leeway is the most that verifiers forgive. A key verifies for that much longer, and no
	// tenant's own leeway may be more. The default is 30s.
	//
	//	Leeway >= 2 ClockSkew
	Leeway time.Duration

	// ClockSkew is the most that an instance's clock and the store's clock differ. The default is a
	// sixteenth of Propagation, at most 5s. It takes part in the inequalities of Propagation,
	// Leeway and MaxTokenTTL.
	ClockSkew time.Duration

	// Freshness is the greatest age of the last sync of an instance that counts as in sync, at
	// least [MinFreshness]. The default is three eighths of Propagation or half of MaxTokenTTL +
	// Leeway, whichever is less, at most 60s. It takes part in the inequalities of Propagation,
	// MaxTokenTTL and SignFor.
	Freshness time.Duration

	// Dwell is how long the store may still lose an acknowledged write, for example in a failover.
	// So a sync only proves what the store had Dwell before it: an old primary may acknowledge for
	// that long. It must be longer than Redis' min-replicas-max-lag and the replication lag
	// together. The default is an eighth of Propagation or a third of MaxTokenTTL + Leeway,
	// whichever is less, at most 60s. It takes part in the inequalities of Propagation and
	// MaxTokenTTL.
	Dwell time.Duration

	// SignFor is how long an instance signs after its last sync. The default is Propagation less
	// Dwell and ClockSkew, at most 24h.
	//
	//	SignFor >= Freshness
	SignFor time.Duration

	// ReaderStaleness is the greatest age of a JWK Set from which others read the ring's public
	// keys. The default for asymmetric keys is 1h, or less if Propagation leaves less. For HS* it
	// must be 0, because secrets are never published. It takes part in the third inequality of
	// Propagation.
	ReaderStaleness time.Duration
}

// MaxPublished is how many public keys a ring publishes at most. Readers of a JWK Set bound its
// size.
const MaxPublished = 10

// MaxDuration is the longest duration in a policy: ten years of 365 days. It keeps every sum of
// durations and times far from overflow.
const MaxDuration = 10 * 365 * 24 * time.Hour

// MinFreshness is the least Freshness. It leaves time for a poll and its deadline on a network.
const MinFreshness = time.Second

// WithDefaults returns p with its zero fields filled in.
//
// The shares of Propagation are chosen so that its inequalities hold for any Every of ten seconds
// or more: 3/8 for Freshness, 1/8 for Dwell and 1/16 for ClockSkew leave 13/16 for SignFor and 7/16
// for ReaderStaleness. Half of a token's life for Freshness and a third for Dwell leave a sixth for
// ClockSkew.
func (p Policy) WithDefaults() Policy {
	if p.Algorithm == "" {
		p.Algorithm = keystore.HS256
	}
	setDefault(&p.Every, 30*24*time.Hour)
	setDefault(&p.Propagation, min(15*24*time.Hour, p.Every/2))
	setDefault(&p.MaxTokenTTL, 15*time.Minute)
	setDefault(&p.Leeway, 30*time.Second)
	life := p.MaxTokenTTL + p.Leeway
	setDefault(&p.Dwell, min(time.Minute, p.Propagation/8, life/3))
	setDefault(&p.ClockSkew, min(5*time.Second, p.Propagation/16))
	setDefault(&p.Freshness, min(time.Minute, 3*p.Propagation/8, life/2))
	setDefault(&p.SignFor, min(24*time.Hour, p.Propagation-p.Dwell-p.ClockSkew))
	if !p.Algorithm.Symmetric() {
		setDefault(&p.ReaderStaleness, min(time.Hour, p.Propagation-p.HeardWithin()))
	}
	return p
}

// setDefault sets a zero d, in the whole milliseconds that a record can hold.
func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to.Truncate(time.Millisecond)
	}
}

// Validate returns nil if the policy, with its defaults filled in, holds every bound and inequality
// of its fields. The error is a [*PolicyError] about the first that does not hold. docs/rotation.md
// says what each is for.
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
		if n := p.Published(); n > MaxPublished {
			return &PolicyError{Inequality: fmt.Sprintf("2 + ceil((MaxTokenTTL + Leeway + 2 ClockSkew) / Every) <= %d", MaxPublished),
				Reason: fmt.Sprintf("it would publish %d keys at once", n)}
		}
	}
	return nil
}

// A field is a duration of a policy, with its lower bound.
type field struct {
	name         string
	value, least time.Duration
}

// fields returns the durations of p, in the order in which Validate checks them.
func (p Policy) fields() []field {
	const ms = time.Millisecond
	return []field{
		{"Every", p.Every, ms}, {"Propagation", p.Propagation, ms}, {"MaxTokenTTL", p.MaxTokenTTL, time.Second},
		{"Leeway", p.Leeway, 0}, {"ClockSkew", p.ClockSkew, ms}, {"Freshness", p.Freshness, MinFreshness}, {"Dwell", p.Dwell, ms},
		{"SignFor", p.SignFor, ms}, {"ReaderStaleness", p.ReaderStaleness, 0},
	}
}

// An inequality is left >= right, in durations.
type inequality struct {
	text        string // with the names of the fields
	left, right time.Duration
}

// inequalities returns what the guarantees of docs/protocol.md rest on. An instance or a reader
// knows a key once it has it in memory.
func (p Policy) inequalities() []inequality {
	return []inequality{
		// An instance in sync knows a key before it signs.
		{"Propagation >= Freshness + Dwell + ClockSkew", p.Propagation, p.HeardWithin()},
		// If a failover lost a key, a cut-off instance that does not know it has stopped signing
		// before the restored key takes effect.
		{"Propagation >= SignFor + Dwell + ClockSkew", p.Propagation, p.SignFor + p.Dwell + p.ClockSkew},
		// A reader of the JWK Set knows a key before it signs.
		{"Propagation >= ReaderStaleness + Freshness + Dwell + ClockSkew", p.Propagation, p.ReaderStaleness + p.HeardWithin()},
		// An instance in sync can sign.
		{"SignFor >= Freshness", p.SignFor, p.Freshness},
		// Clocks that are off in opposite directions do not put iat in the future.
		{"Leeway >= 2 ClockSkew", p.Leeway, 2 * p.ClockSkew},
		// A key is not published before its predecessor signs.
		{"Every >= Propagation", p.Every, p.Propagation},
		// A pending key is revoked, so its predecessor goes on signing. An instance in sync learns
		// of that before it has dropped the predecessor.
		{"MaxTokenTTL + Leeway >= Freshness + Dwell + ClockSkew", p.MaxTokenTTL + p.Leeway, p.HeardWithin()},
	}
}

// Published returns how many public keys a ring of that policy publishes at most, without changes by
// hand: the signing key, the next one, and those whose tokens may still be alive. It is 0 for HS*.
// Every field must be set.
func (p Policy) Published() int {
	if p.Algorithm.Symmetric() {
		return 0
	}
	live := p.MaxTokenTTL + p.Leeway + 2*p.ClockSkew
	return 2 + int((live+p.Every-1)/p.Every)
}

// Window returns how far the time of a proposed fact may be from the store's clock when the
// proposal arrives: 2 (ClockSkew + deadline). deadline is that of the call.
func (p *Policy) Window(deadline time.Duration) time.Duration { return 2 * (p.ClockSkew + deadline) }

// HeardWithin returns how long after a change every instance in sync has heard of it: Freshness +
// Dwell + ClockSkew. The last sync of such an instance is at most Freshness old. But it may have
// been answered by an old primary, which goes on for up to Dwell after another one took its place.
func (p *Policy) HeardWithin() time.Duration { return p.Freshness + p.Dwell + p.ClockSkew }

// A PolicyError reports a [Policy] that cannot be used: either the value of one Field is out of
// bounds, or an Inequality between several fields does not hold.
type PolicyError struct {
	Field      string // the name of a field of Policy, or "" if an inequality does not hold
	Inequality string // with names of fields of Policy, or ""

	// Left and Right are the two sides of Inequality, or the value of Field and the bound that it
	// breaks. Both are zero if the error is not about durations.
	Left, Right time.Duration

	Reason string // in words, without names of fields
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

// Text returns the error with each field of [Policy] renamed by name. A command can so name its
// flags instead.
func (e *PolicyError) Text(name func(field string) string) string {
	if e.Field != "" {
		return name(e.Field) + " " + e.Reason
	}
	// Inequality is a formula: every run of letters in it that names a field is replaced.
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
