package rotation

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Config says how an instance keeps its copy of the rings. Only KEKs is required. Most services set
// Tenants and Logger too, and leave the rest.
type Config struct {
	// KEKs open and seal the rings. Required: see [ParseKEKs].
	KEKs *KEKs

	// Realm names the environment, such as "production", in at most 64 bytes. What was sealed in one
	// realm does not open in another, even under the same KEK: then the error is ErrWrongRealm. All
	// instances and commands that share a store must have the same. It is not stored. Default "".
	Realm string

	// OtherRealms are opened too while rings move to another realm; "" is one. Give each instance the
	// new one here first, then as Realm with the old one here, and then call [Rotator.Rekey].
	OtherRealms []string

	// Tenants are those whose rings are held. An empty list means every tenant that the store has,
	// also those that are added later. A ring that cannot be read does not keep the others from being
	// ready. [Keyring.Add] and [Keyring.Remove] change a list while the keyring is in use.
	Tenants []string

	// Instance names this process in the store, in at most 256 bytes. [Rotator.Acks] reports by it which instances have
	// heard of a change. Two processes must not have the same. The default is the host's name, the
	// process's number and a random part.
	Instance string

	// Poll is how long after one sync the next begins, give or take a fifth. The default follows
	// from the policies of the rings: a quarter of the shortest Freshness, at most 3s. All
	// instances should have the same, because each one waits for two of its own polls to give the
	// others time.
	Poll time.Duration

	// Deadline is how long one call of the store may take. The default is a thirtieth of the
	// shortest Freshness, at most 1s. Freshness must be at least three times as long as 1.2 Poll
	// and Deadline together. A ring with a shorter Freshness counts as out of sync.
	//
	// A store may wait for less: the client of rediskeys.Open does not wait longer than 3s for an answer,
	// but asks again until Deadline.
	Deadline time.Duration

	// TrustFirstRead skips recovering after the start: the first complete read counts as complete.
	// Without it other instances first get the time to restore keys that the store may have lost.
	// Set it only for a store that this process has just started.
	TrustFirstRead bool

	// StoreMayBeAway lets [Open] succeed although nothing of the store can be read. Until it can be,
	// each ring is unavailable. Without it Open fails, so that a wrong address is found at once.
	StoreMayBeAway bool

	// Snapshot names a file in which the keyring keeps what it holds, sealed under the primary KEK, with
	// mode 0600. It is replaced every half of Freshness, or less often if it is large, and by
	// [Keyring.Close]. A process that starts while the store cannot be reached verifies from it, for as
	// long as an instance that was cut off since would. One that starts again within Freshness, and finds
	// in the store what it had read, is in sync at once. It never signs from the file. A file of another KEK, realm or store, or from the future, is not used, and
	// the log says why. Each process needs a file of its own. The default "" keeps none.
	Snapshot string

	// OneShot is for a command that ends soon. It trusts its first read, as with TrustFirstRead,
	// and leaves no acknowledgement. It restores nothing, and does not listen for changes.
	OneShot bool

	// AllowBootstrap lets [Rotator.Run] make the first ring of each of Tenants, with Policy, once
	// the store has no ring of the tenant, and none of its rings has changed for the longer of two
	// polls and Freshness + Dwell + ClockSkew. In a store whose rings change more often, it makes
	// none. Otherwise only [Rotator.Create] makes rings.
	AllowBootstrap bool

	// Policy is for the rings that AllowBootstrap makes, and ignored without it. Zero fields take
	// their defaults.
	Policy ring.Policy

	// Verifies are the algorithms that this process's verifiers list for tenants whose rings are
	// held. A change to another algorithm is refused while a live instance does not list it. An empty
	// list means all. If the tenants have none in common, it is [ring.NoAlgorithm] alone.
	Verifies []keystore.Algorithm

	// Logger receives what no caller is told: rings that cannot be read, repairs, recovering,
	// rotations that failed. It never receives a secret. The default discards it.
	Logger *slog.Logger

	// Now reports the wall clock's time. It must be safe for concurrent use. The default is
	// [time.Now].
	Now func() time.Time
}

// withDefaults returns c with its defaults, or the first thing that is wrong with it.
func (c Config) withDefaults() (Config, error) {
	if err := c.validate(); err != nil {
		return c, err
	}
	if c.AllowBootstrap {
		c.Policy = c.Policy.WithDefaults()
	}
	if c.Instance == "" {
		host, _ := os.Hostname() // for people; the random part makes it unique
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

// validate returns the first thing that is wrong with c, or nil.
func (c Config) validate() error {
	switch {
	case c.KEKs == nil:
		return &ring.Error{Text: "Config.KEKs is missing: the rings are sealed with them; see ParseKEKs"}
	case c.OneShot && (c.StoreMayBeAway || c.Snapshot != ""):
		return &ring.Error{Text: "Config.OneShot excludes Config.StoreMayBeAway and Config.Snapshot: a command reads the store"}
	case c.Poll < 0 || c.Deadline < 0:
		return &ring.Error{Text: "Config.Poll and Config.Deadline must not be negative"}
	case c.AllowBootstrap && len(c.Tenants) == 0:
		return &ring.Error{Text: "Config.AllowBootstrap needs Config.Tenants: whose rings are to be made"}
	}
	if len(c.Instance) > ring.MaxTenantBytes || !utf8.ValidString(c.Instance) {
		return &ring.Error{Text: fmt.Sprintf("Config.Instance has %d bytes: want at most %d, in UTF-8", len(c.Instance), ring.MaxTenantBytes)}
	}
	for _, tenant := range c.Tenants {
		if !synced.IsTenant(tenant) {
			return &ring.Error{Text: fmt.Sprintf("Config.Tenants has a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
		}
	}
	for _, alg := range c.Verifies {
		if !alg.Known() && !(alg == ring.NoAlgorithm && len(c.Verifies) == 1) {
			return &ring.Error{Text: fmt.Sprintf("Config.Verifies has %q: want some of %v", string(alg), keystore.Algorithms())}
		}
	}
	if c.AllowBootstrap {
		return c.Policy.Validate()
	}
	return nil
}
