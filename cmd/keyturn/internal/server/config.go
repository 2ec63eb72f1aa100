// Package server is the HTTP server behind "keyturn serve". A [Config] says whose tokens are good,
// [New] opens what the Config names, and [Server.Run] serves until its context ends.
//
// The package knows no flag and no file, and prints nothing. It logs, it returns an [Error] that
// says which part could not be opened, and it reports an [Event] that an operator should see.
package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
)

// A Config says what a [Server] serves. The command's flags, its file and its demo each make one.
type Config struct {
	// Addr is where the server listens: HOST:PORT, or :PORT for every address of the machine. Empty
	// means on Unix alone.
	Addr string

	// Unix is the path of a socket on which the server listens too. Empty means no socket.
	// UnixMode is the mode of the socket: who can write it can connect.
	Unix     string
	UnixMode fs.FileMode

	// TLS is for Addr. Nil means that it has none.
	TLS *TLS

	// Admin is where the admin listener is: HOST:PORT. It says of each tenant whether it is ready,
	// and why not, to everyone who reaches it. Empty means that there is none.
	Admin string

	// Drain is how long the server goes on at its end, while /readyz says that it is stopping, if its
	// context ends with [ErrTerminated]. Load balancers need that time to send their requests
	// elsewhere. Zero means not at all.
	Drain time.Duration

	// Grace is how long the server waits at its end for requests in flight. Zero means 10 s.
	Grace time.Duration

	// Fixed has the settings that a reload does not change, by name. Their values are compared, and
	// never logged.
	Fixed map[string]string

	// Tenants are those whose tokens open the API.
	Tenants []Tenant

	// Rings says where the rings are. It is nil if no tenant has Ring.
	Rings *Rings

	// Revocations says where the list of revoked tokens is. It may be nil: then only a revoked key, or
	// the end of a tenant, ends a token early.
	Revocations *Revocations

	// Demo makes the server a demo, which needs nothing outside its process. It may be nil.
	Demo *Demo

	// Issuers says how the issuers of tenants with a Source are reached. Its Now and its Logger
	// are replaced by those below.
	Issuers jwks.Config

	// Upstream is the service that the server stands in front of, in place of the demo API. It may
	// be nil. Then everything on Addr is the upstream's, and Admin must be set.
	Upstream *Upstream

	// Identity says in which headers the upstream, or a service behind a proxy that asks at /authz,
	// learns whose request it gets. Its Asserter is made of Assertion, which may be nil.
	Identity  middleware.Identity
	Assertion *Assertion

	// Authz says how the server decides for reverse proxies, at /authz and /ext-authz. Its Identity and
	// its Observe are replaced.
	Authz middleware.ForwardAuthConfig

	// Reload says when the server reads again the files that it follows.
	Reload Reload

	// MaxTokenBytes is the longest token that the API accepts. Zero means [DefaultMaxTokenBytes].
	MaxTokenBytes int

	// TokenHeaders are the headers that may hold the token, as [CheckTokenHeader] takes them. In
	// Authorization it has the scheme Bearer, and in any other it is alone. Empty means
	// Authorization.
	TokenHeaders []string

	// Hint returns advice about a refused token for the log, or "". It may be nil.
	Hint func(*verifier.Error) string

	// Notify receives the events. It is called by several goroutines, and may be nil.
	Notify func(Event)

	// Metrics say how /metrics looks, which the admin listener has. Its Now is replaced by that below.
	Metrics metrics.Config

	// Meter counts requests, streams and reloads. Nil means that /metrics has the counts, if there is
	// an admin listener.
	Meter Meter

	// Logger receives what happens while the server runs. It may be nil: then nothing is logged.
	Logger *slog.Logger

	// Now is the clock. Nil means [time.Now].
	Now func() time.Time
}

// A Tenant is the rules for one tenant's tokens and the source of its keys, which is one of
// Rules.Keys, Source and Ring. Rules.Keys may stand beside a Source.
type Tenant struct {
	// Rules say which tokens are good. If Ring is set and Rules.Algorithms is empty, every key of
	// the ring verifies the algorithm that it was made for.
	Rules verifier.Tenant

	// Source is where an issuer publishes the keys. It may be nil.
	Source *Source

	// Ring says that the keys are those of the tenant's ring.
	Ring bool

	// Sum tells what the tenant was made of apart from anything else, so that a reload leaves a tenant
	// alone that has not changed. Zero stands for a tenant that may have changed.
	Sum Sum
}

// A Source is where an issuer publishes its keys: one of the three URLs is set.
type Source struct {
	IssuerURL string // of the issuer, whose metadata names the JWK Set
	JWKSURL   string // of the JWK Set
	PEMURL    string // of each key, in PEM, with {kid} for its kid
	Config    jwks.SourceConfig

	Proxy   *url.URL       // that it is reached through; nil is that of Config.Issuers
	RootCAs *x509.CertPool // that its certificate is of; nil is those of Config.Issuers
	CAFile  string         // names RootCAs: sources with the same name share them

	HeaderFile string // names Config.Header: two with the same name are the same
}

// ClientConfig returns cfg with what the source has of its own.
func (s *Source) ClientConfig(cfg jwks.Config) jwks.Config {
	if s.Proxy != nil {
		cfg.Proxy = s.Proxy
	}
	if s.RootCAs != nil {
		secure := new(tls.Config)
		if cfg.TLS != nil {
			secure = cfg.TLS.Clone()
		}
		secure.RootCAs = s.RootCAs
		cfg.TLS = secure
	}
	return cfg
}

// same reports whether two sources read the same keys in the same way. Neither may be nil.
func (s *Source) same(o *Source) bool { return s.identity() == o.identity() }

// identity names everything that decides which keys a source reads.
func (s *Source) identity() string {
	cfg := s.Config
	cfg.Header = nil // HeaderFile names it
	return fmt.Sprintf("%q %q %q %+v %q %s", s.IssuerURL, s.JWKSURL, s.PEMURL, cfg, s.HeaderFile, s.client())
}

// client names the client that the source can share with others.
func (s *Source) client() string {
	proxy := ""
	if s.Proxy != nil {
		proxy = s.Proxy.String()
	}
	return fmt.Sprintf("%q %q", proxy, s.CAFile)
}

// Rings say where the rings are, and how the server treats them.
type Rings struct {
	// URL is the Redis that has the rings, with its password. A demo has its own.
	URL string

	// Link says how to connect to it, beside the URL.
	Link rediskeys.Options

	// KEKs open the rings.
	KEKs *rotation.KEKs

	// Realm names the environment that the rings belong to, and OtherRealms those that are opened
	// too: see [rotation.Config].
	Realm       string
	OtherRealms []string

	// KEKFile is the file that KEKs come from. New KEKs in it replace them while the server runs. It
	// may be nil.
	KEKFile *File

	// Bootstrap is the policy of the rings that the server makes for tenants without one. If it
	// is nil, the server waits until another program has made them.
	Bootstrap *rotation.Policy

	// Poll and Deadline are how often the store is read, and how long one call may take. Zero
	// means as the policies of the rings say.
	Poll, Deadline time.Duration

	// Snapshot is the file to keep the rings in: see [rotation.Config]. Empty means none.
	Snapshot string

	// MayBeAway says that the server starts although Redis does not answer. The tenants without a
	// ring are served, and the others when it does.
	MayBeAway bool

	// Hint is advice for the log while a tenant has no ring.
	Hint string
}

// A Demo is what a server adds that tries itself out: a Redis that lives and ends with it, new
// rings, and tokens. Each tenant's issuer is the URL of the server with the tenant's ID after it.
type Demo struct {
	Rings      []DemoRing
	FreshEvery time.Duration // between two events with a fresh token of the first ring
}

// A DemoRing is the ring of a demo's tenant.
type DemoRing struct {
	Tenant string
	User   string // the sub of its tokens
	Policy rotation.Policy
}

const defaultGrace = 10 * time.Second

// DefaultMaxTokenBytes is the longest token that is accepted by default: that of package verifier.
const DefaultMaxTokenBytes = 16 << 10

// withDefaults returns c with its zero fields filled in, and with tenants of its own.
func (c Config) withDefaults() Config {
	c.Tenants = slices.Clone(c.Tenants)
	if c.MaxTokenBytes == 0 {
		c.MaxTokenBytes = DefaultMaxTokenBytes
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Reload.Every == 0 {
		c.Reload.Every = defaultReload
	}
	if c.Reload.Settle == 0 {
		c.Reload.Settle = settleFor
	}
	if c.Hint == nil {
		c.Hint = func(*verifier.Error) string { return "" }
	}
	if c.Notify == nil {
		c.Notify = func(Event) {}
	}
	if c.Meter == nil {
		c.Meter = silentMeter{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Issuers.Now, c.Issuers.Logger = c.Now, c.Logger
	return c
}

// A Part is a part of a server that [New] opens.
type Part string

// The parts, in the order in which New opens them.
const (
	PartSource   Part = "source"   // of an Error.Tenant: its URL cannot be used
	PartRedis    Part = "redis"    // the demo's own
	PartStore    Part = "store"    // the Redis of the rings: its URL cannot be used
	PartRings    Part = "rings"    // they cannot be read or made
	PartListener Part = "listener" // Config.Addr cannot be listened on
	PartUnix     Part = "unix"     // Config.Unix cannot be listened on
	PartAdmin    Part = "admin"    // Config.Admin cannot be listened on
	PartRules    Part = "rules"    // the rules of the tenants contradict each other
	PartAuthz    Part = "authz"    // Config.Identity, Assertion or Authz cannot be used

	PartRevocations Part = "revocations" // Config.Revocations cannot be used
)

// An Error says which part of a server could not be opened.
type Error struct {
	Part   Part
	Tenant string // whose part it is, if it is one tenant's
	Err    error
}

// Error implements the error interface.
func (e *Error) Error() string {
	if e.Tenant != "" {
		return fmt.Sprintf("server: %s of tenant %q: %v", e.Part, e.Tenant, e.Err)
	}
	return fmt.Sprintf("server: %s: %v", e.Part, e.Err)
}

// Unwrap returns e.Err, for [errors.Is] and [errors.As].
func (e *Error) Unwrap() error { return e.Err }

// An Event is something that an operator at a terminal should see: a [FreshToken], [Stopping],
// [Draining] or [Stopped].
type Event interface{ event() }

// A FreshToken is a token of a demo that replaces one which expires soon.
type FreshToken struct {
	DemoToken
	At Endpoint // of the server
}

// Stopping reports that the server goes on for a while, and tells load balancers that it will end.
type Stopping struct{ For time.Duration }

// Draining reports that the server takes no new connections, and waits for requests in flight.
type Draining struct{ Limit time.Duration }

// Stopped reports that the server has answered its last request.
type Stopped struct{}

func (FreshToken) event() {}
func (Stopping) event()   {}
func (Draining) event()   {}
func (Stopped) event()    {}
