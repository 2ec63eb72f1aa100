package metrics

import (
	"context"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// Config configures a [Collector]. The zero value of each field is safe.
type Config struct {
	// TenantLimit is how many tenants the page names, in the order of [Watched].Tenants. The others
	// count together as the tenant "other". The default, 0, names no tenant: a customer list is not
	// for everyone who can read the monitoring (BerriAI/litellm#24530).
	TenantLimit int

	// Version is the version of the service, for keyturn_build_info. The default is that of the main
	// module.
	Version string

	// Now reports the wall clock's time. The default is [time.Now].
	Now func() time.Time
}

// Watched is what a [Collector] reads at each scrape. A field that is nil counts as empty.
type Watched struct {
	// Verifier has the cache of verified tokens.
	Verifier *verifier.Verifier

	// Keyring has the rings.
	Keyring *rotation.Keyring

	// Sources returns the sources of the issuers' keys: [jwks.Client.Sources] is one.
	Sources func() []*jwks.Source

	// Revocations returns the state of the list of revocations. ok is false without a list.
	Revocations func() (state RevocationsState, ok bool)

	// Tenants are the names of the tenants, in the order in which Config.TenantLimit counts them.
	Tenants []string
}

// A RevocationsState is what the page shows of a list of revocations that a fleet shares.
type RevocationsState struct {
	Entries        int
	Synced         time.Time // when it was last in sync with the store
	InDoubt, Ready bool

	// Unreadable is how many groups of the list cannot be read in full. The tokens that they revoke are
	// accepted.
	Unreadable int

	// Forged counts values that are not authentic, Restored groups in which this instance put back what
	// the store had lost, Over entries that found no room, and Disputed live instances that held other
	// entries than this one.
	Forged, Restored, Over, Disputed uint64
}

// A Collector counts what a service does. It is a [prometheus.Collector] and safe for concurrent use.
// [New] makes one.
//
// [Collector.Observe] goes into [verifier.Config], [Collector.ObserveSign] into
// [rotation.SignerConfig], and [Collector.ObserveFetch] into [jwks.Config].
type Collector struct {
	cfg      Config
	watched  atomic.Pointer[Watched]
	tenants  atomic.Pointer[tenantCounts] // nil without Config.TenantLimit
	watching sync.Mutex                   // is held by Watch, so that two calls do not mix

	accepted [stripes]counter // the verifications of slotAccepted
	verified [slots]counter   // the others
	duration *histogram       // of verifications that the cache did not answer
	signed   [len(signOutcomes)]counter
	fetched  [len(fetchOutcomes)]atomic.Uint64

	http    [len(faces)]faceCounts
	streams streamCounts
	reloads reloadCounts
}

// New returns a Collector that has counted nothing, with the configuration read now.
func New(cfg Config) *Collector {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Version == "" {
		cfg.Version = "unknown"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
			cfg.Version = info.Main.Version
		}
	}
	c := &Collector{cfg: cfg, duration: newHistogram(verificationBounds)}
	for i := range c.http {
		c.http[i].duration = newHistogram(prometheus.DefBuckets)
	}
	c.reloads.started(cfg.Now())
	c.Watch(Watched{})
	return c
}

// Watch has the page read w from now on, and no longer what an earlier call named. Counts stay.
func (c *Collector) Watch(w Watched) {
	c.watching.Lock()
	defer c.watching.Unlock()
	if c.cfg.TenantLimit > 0 {
		c.tenants.Store(nameTenants(c.tenants.Load(), w.Tenants, c.cfg.TenantLimit))
	}
	c.watched.Store(&w)
}

// Observe counts a verification: it is for [verifier.Config].Observe. It takes about as long as two
// atomic additions, and does not allocate.
func (c *Collector) Observe(_ context.Context, e verifier.Event) {
	if i := slot(&e); i == slotAccepted {
		c.accepted[stripe(e.Duration)].Add(1)
	} else {
		c.verified[i].Add(1)
	}
	if !e.Cached {
		c.duration.observe(e.Duration)
	}
	if t := c.tenants.Load(); t != nil {
		t.observe(&e)
	}
}

// ObserveSign counts a signature: it is for [rotation.SignerConfig].Observe.
func (c *Collector) ObserveSign(_ context.Context, e rotation.SignEvent) {
	for i, outcome := range signOutcomes {
		if e.Outcome == outcome {
			c.signed[i].Add(1)
		}
	}
}

// ObserveFetch counts a fetch of an issuer's keys: it is for [jwks.Config].Observe.
func (c *Collector) ObserveFetch(e jwks.Event) {
	for i, outcome := range fetchOutcomes {
		if e.Outcome == outcome {
			c.fetched[i].Add(1)
		}
	}
}

var (
	signOutcomes  = [...]rotation.SignOutcome{rotation.Signed, rotation.SignFenced, rotation.SignNoSigner, rotation.SignFailed}
	fetchOutcomes = [...]jwks.Outcome{jwks.Changed, jwks.Unchanged, jwks.Failed}
)

// verificationBounds are in seconds. A check takes microseconds, so that the defaults, from 5 ms on,
// would show one bucket (open-telemetry/opentelemetry-go#5821).
var verificationBounds = []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 2.5}

// The bounds of [Collector.Handler].
const (
	scrapesInFlight = 2
	scrapeTimeout   = 5 * time.Second
)

// Handler returns a handler of the page: the metrics of c, of the Go runtime and of the process. It
// answers two scrapes at once, and each for 5 s at most. It asks for no token, and ignores one: a
// Prometheus that sends its own with every scrape is served (istio/istio#49239). So mount it where
// strangers do not reach it.
func (c *Collector) Handler() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: scrapesInFlight, Timeout: scrapeTimeout,
	})
}

// buildInfo returns the labels of keyturn_build_info.
func (c *Collector) buildInfo() (version, goversion string) { return c.cfg.Version, runtime.Version() }
