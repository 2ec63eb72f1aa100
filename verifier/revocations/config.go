package revocations

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
)

// A Config configures a [List]. The zero Config is ready to use, without a KEK.
type Config struct {
	// Prefix begins the names of all keys in Redis, as that of a keyring does. The keys of the list
	// begin with it and ":rv:". The default is "kt".
	Prefix string

	// KEKs seal the digest keys, so that only their holders can add, change or read revocations. Nil
	// means that the digest keys lie in the store in clear: a reader of the store can test guesses of
	// a subject then, and a writer can forge revocations, or remove them where no instance runs.
	// All instances must have the same. [List.SetKEKs] replaces them.
	KEKs *rotation.KEKs

	// Realm is the realm of the KEKs: see [rotation.Config]. Digest keys of OtherRealms are opened
	// too, while the list moves from one of them.
	Realm       string
	OtherRealms []string

	// Instance names this process in acknowledgements. No two may share a name. The default is made
	// of the host's name and random text.
	Instance string

	// MaxEntries is how many revocations the list takes, for all tenants together. The default is
	// 1 048 576, which take up to 64 MB. MaxPerTenant is the share of one tenant, by default half of
	// that. Beyond it a revocation is refused with [ErrFull], except for [List.RevokeTenant].
	//
	// Two sides of a split may exceed both together. The list holds up to twice as many, and beyond
	// that it cannot tell whether a token of that tenant is revoked, until the tenant has less than its
	// share again: entries end, or the whole tenant is revoked.
	MaxEntries, MaxPerTenant int

	// MaxTokenTTL is the longest that a token lives, from iat to exp. The revocation of a subject or
	// a tenant ends so long after its time (and 5m for leeway). The default, and the greatest, is
	// 400 days. All instances must have the same: the one that revokes decides when the revocation ends.
	MaxTokenTTL time.Duration

	// MaxStale is how old the last sync with the store may be. After it [List.Revoked] is an error, and
	// the verifier's answer [verifier.ErrUnavailable], HTTP 503. The default is 60s, the least 10s.
	MaxStale time.Duration

	// StaleOK waives MaxStale: the last known list serves on. It accepts tokens that were revoked since.
	// Before the first sync after a start the list still cannot tell.
	StaleOK bool

	// ClockSkew is the most that this clock and the store's differ. The default is 1s.
	ClockSkew time.Duration

	// Poll is how often the list asks the store for changes, also without a nudge. Deadline bounds each
	// call of the store, in which a client of rediskeys.Open waits at most 3s for each answer. The
	// defaults are 2s and 500ms. All instances must have the same.
	Poll, Deadline time.Duration

	// Transient says that this process is a command: it leaves no acknowledgement, and puts nothing
	// back. Nothing waits for it.
	Transient bool

	// TrustFirstRead says that this process has just made the store, so that the first read is known to
	// be complete. It is for tests and demos.
	TrustFirstRead bool

	// Logger gets a line when something begins or ends, and never a subject, a jti or a session. The
	// default is [slog.Default].
	Logger *slog.Logger

	// Now reports the wall clock's time. The default is [time.Now].
	Now func() time.Time

	groups int // how many groups there are; 0 means all. A simulation of many lists has fewer.
}

const (
	defaultPrefix     = "kt"
	defaultMaxEntries = 1 << 20
	maxMaxEntries     = 1 << 25 // so that twice as many fit into the table
	maxTokenTTL       = 400 * 24 * time.Hour
	defaultMaxStale   = time.Minute
	minMaxStale       = 10 * time.Second
	defaultSkew       = time.Second
	maxSkew           = time.Minute
	defaultPoll       = 2 * time.Second
	defaultDeadline   = 500 * time.Millisecond
	maxInstance       = 256 // bytes

	// logLength is how many changes the log of a bucket keeps. An instance that is further behind
	// reads the bucket again, which has 4000 entries of a million.
	logLength = 512
)

// withDefaults returns c with its defaults, or why it cannot be used.
func (c Config) withDefaults() (Config, error) {
	c.Prefix = cmp.Or(c.Prefix, defaultPrefix)
	c.MaxEntries = cmp.Or(c.MaxEntries, defaultMaxEntries)
	c.MaxPerTenant = cmp.Or(c.MaxPerTenant, max(1, c.MaxEntries/2))
	c.MaxTokenTTL = cmp.Or(c.MaxTokenTTL, maxTokenTTL)
	c.MaxStale = cmp.Or(c.MaxStale, defaultMaxStale)
	c.ClockSkew = cmp.Or(c.ClockSkew, defaultSkew)
	c.Poll, c.Deadline = cmp.Or(c.Poll, defaultPoll), cmp.Or(c.Deadline, defaultDeadline)
	c.groups = cmp.Or(c.groups, allGroups)
	if c.Instance == "" {
		host, _ := os.Hostname()
		c.Instance = fmt.Sprintf("%.64s-%d-%s", host, os.Getpid(), rand.Text()[:8])
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, c.validate()
}

func (c *Config) validate() error {
	switch {
	case c.MaxEntries < 1 || c.MaxEntries > maxMaxEntries:
		return fmt.Errorf("revocations: Config.MaxEntries is %d, want 1 to %d", c.MaxEntries, maxMaxEntries)
	case c.MaxPerTenant < 1 || c.MaxPerTenant > math.MaxInt32:
		return fmt.Errorf("revocations: Config.MaxPerTenant is %d, want 1 or more", c.MaxPerTenant)
	case c.MaxTokenTTL < 0 || c.MaxTokenTTL > maxTokenTTL:
		return fmt.Errorf("revocations: Config.MaxTokenTTL is %v, want at most 400 days", c.MaxTokenTTL)
	case c.ClockSkew < 0 || c.ClockSkew > maxSkew:
		return fmt.Errorf("revocations: Config.ClockSkew is %v, want at most %v", c.ClockSkew, maxSkew)
	case c.Poll < 0 || c.Deadline < 0:
		return errors.New("revocations: Config.Poll or Config.Deadline is negative")
	case c.MaxStale < minMaxStale || c.MaxStale < 3*c.gap():
		return fmt.Errorf("revocations: Config.MaxStale is %v, want at least %v and three times 1.2 Poll + Deadline, which is %v", c.MaxStale, minMaxStale, 3*c.gap())
	case len(c.Instance) > maxInstance || !utf8.ValidString(c.Instance):
		return fmt.Errorf("revocations: Config.Instance has %d bytes, want at most %d, in UTF-8", len(c.Instance), maxInstance)
	}
	return nil
}

// gap is the longest time between the starts of two polls: W of docs/protocol.md. The fifth is the
// jitter.
func (c *Config) gap() time.Duration { return c.Poll + c.Poll/5 + c.Deadline }

// box returns what seals the digest keys.
func (c *Config) box() (codec.Box, error) {
	if c.KEKs == nil {
		if c.Realm != "" {
			return codec.Box{}, errors.New("revocations: Config.Realm is set without Config.KEKs: a realm is a part of the keys that are derived from a KEK")
		}
		return codec.PlainBox(), nil
	}
	seal, open, err := c.KEKs.SecretBox(purpose, c.Realm, c.OtherRealms...)
	if err != nil {
		return codec.Box{}, fmt.Errorf("revocations: Config.KEKs: %w", err)
	}
	return codec.Box{Seal: seal, Open: open}, nil
}

// purpose tells the digest keys apart from other secrets under a KEK.
const purpose = "revocations"
