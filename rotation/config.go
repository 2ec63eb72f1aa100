package rotation

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/rotation/ring"
)

// Config says how an instance keeps its copy of the rings.
type Config struct {
	// KEKs open the records in the store. Required: see [ParseKEKs].
	KEKs *KEKs

	// Tenants are the tenants whose rings are held. None means all tenants that the
	// store has, and will have. Then every writer of the store can name a tenant
	// whose ring cannot be read, so that the keyring is not ready.
	Tenants []string

	// Instance names this process in its acknowledgements: see [Rotator.Acks]. The
	// default is the host's name, the process's number and random letters. No two
	// processes may have the same.
	Instance string

	// Poll is how long after one sync the next begins, give or take a fifth. The
	// default follows from the policies of the rings: a quarter of the shortest
	// Freshness, at most 15s. All instances should have the same.
	Poll time.Duration

	// Deadline is how long a call of the store may take. The default is a
	// thirtieth of the shortest Freshness, at most 2s. Freshness must be at
	// least three times as long as 1.2 Poll and Deadline together.
	Deadline time.Duration

	// TrustFirstRead trusts the first complete read, instead of giving other
	// instances time to restore what the store may have lost. It is for a store that
	// this process has just started.
	TrustFirstRead bool

	// OneShot is for a command that ends soon: it trusts its first read, leaves no
	// acknowledgement, and repairs nothing.
	OneShot bool

	// AllowBootstrap lets [Rotator.Run] make the first ring of each of Tenants, with
	// Policy, once the store has been unchanged for long enough. Else only
	// [Rotator.Create] makes rings.
	AllowBootstrap bool

	// Policy is the policy of the rings that AllowBootstrap makes, and is ignored
	// otherwise. Zero fields take their defaults.
	Policy ring.Policy

	// Logger logs events that no caller is told: rings that cannot be read, repairs,
	// recovery. The default discards them. No secret is logged.
	Logger *slog.Logger

	// Now reports the wall clock's time. The default is [time.Now].
	Now func() time.Time
}

const (
	maxPoll          = 15 * time.Second
	maxDeadline      = 2 * time.Second
	defaultFreshness = time.Minute // before any ring is known

	// loadAtOnce is how many rings one call loads, so that it ends before its deadline.
	loadAtOnce = 256
	// syncRounds bounds how often a sync goes on where the last reply ended.
	syncRounds = 16
	// nudgeGap is the shortest time between two syncs for nudges, so that forged
	// nudges cost little.
	nudgeGap = 20 * time.Millisecond
	// digestSlices is in how many polls every ring is compared: those of one Freshness.
	digestSlices = 3
)

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.KEKs == nil:
		return c, &ring.Error{Text: "Config.KEKs is missing: the rings are sealed with them; see ParseKEKs"}
	case c.Poll < 0 || c.Deadline < 0:
		return c, &ring.Error{Text: "Config.Poll and Config.Deadline must not be negative"}
	case c.AllowBootstrap && len(c.Tenants) == 0:
		return c, &ring.Error{Text: "Config.AllowBootstrap needs Config.Tenants: whose rings are to be made"}
	}
	for _, tenant := range c.Tenants {
		if !isTenant(tenant) {
			return c, &ring.Error{Text: fmt.Sprintf("Config.Tenants has a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
		}
	}
	if c.AllowBootstrap {
		if err := c.Policy.Validate(); err != nil {
			return c, err
		}
		c.Policy = c.Policy.WithDefaults()
	}
	if c.Instance == "" {
		host, _ := os.Hostname()
		c.Instance = fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:8])
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.TrustFirstRead = c.TrustFirstRead || c.OneShot
	return c, nil
}

// isTenant reports whether a tenant may have that name.
func isTenant(name string) bool {
	return name != "" && len(name) <= ring.MaxTenantBytes && utf8.ValidString(name)
}
