package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/cache"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// family returns the description of a family of series.
func family(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyturn_"+name, help, labels, nil)
}

// The families, in the order of the table of docs/monitoring.md.
var (
	verifications     = family("verifications_total", "Verifications of tokens, by how they ended.", "outcome", "reason")
	verifyDuration    = family("verification_duration_seconds", "Duration of the verifications that the cache did not answer.")
	perTenant         = family("tenant_verifications_total", "Verifications by tenant: the first tenants by name, the rest as other.", "tenant", "outcome")
	cacheHits         = family("cache_hits_total", "Tokens that were found in the cache of verified tokens.")
	cacheMisses       = family("cache_misses_total", "Tokens that were not in the cache of verified tokens.")
	cacheEvictions    = family("cache_evictions_total", "Tokens that left the cache for others, or because they were dead.")
	cacheEntries      = family("cache_entries", "Tokens in the cache.")
	cacheBytes        = family("cache_bytes", "Memory of the tokens in the cache.")
	resolveQuestions  = family("resolve_questions_total", "Questions to Config.Resolve by their answer; refused: tokens for which it was not asked.", "answer")
	resolveHeld       = family("resolve_tenants", "Tenants of Config.Resolve that are held, except suspended ones.")
	ringStates        = family("rings", "Rings by whether this instance can verify their tokens.", "state")
	oldestSync        = family("ring_oldest_good_sync_timestamp_seconds", "When the ring that is behind the most was last in sync with the store; 0 if one never was.")
	nextActivation    = family("ring_next_activation_timestamp_seconds", "When the next key of any ring begins to sign.")
	ringKeys          = family("ring_keys", "Keys of all rings by state.", "state")
	withoutNext       = family("rings_without_next_key", "Rings without a key that is to sign next, except those that are held.")
	storeSyncs        = family("store_syncs_total", "Reads of the store.", "result")
	ringRepairs       = family("ring_repairs_total", "Rings in which something was restored that the store had lost.")
	ringResyncs       = family("ring_resyncs_total", "Times that a place in the log of the store could not be proved.")
	ringRefreshes     = family("ring_refreshes_total", "Reads of the store that unknown kids caused.")
	ringAlarms        = family("ring_alarms_total", "Signs that the store lost what it had acknowledged, or that a person writes to it.", "kind")
	jwksSources       = family("jwks_sources", "Sources of issuers' keys by state.", "state")
	jwksFetches       = family("jwks_fetches_total", "Fetches of issuers' keys.", "outcome")
	oldestFetch       = family("jwks_oldest_fetch_timestamp_seconds", "When the source that is behind the most was last fetched, of those that are awake; 0 if one never was.")
	signatures        = family("signatures_total", "Tokens that this instance was asked to sign, by how that ended.", "outcome")
	requests          = family("http_requests_total", "Answers to requests, by what answered.", "face", "code")
	requestDuration   = family("http_request_duration_seconds", "Time until the header of the answer was written.", "face")
	streamsOpen       = family("streams_open", "Streams that are open: WebSockets, event streams and long answers.")
	streamsEnded      = family("streams_ended_total", "Streams that ended, by why.", "reason")
	reloadOK          = family("config_last_reload_successful", "Whether the last reload of the configuration was taken.")
	reloadTime        = family("config_last_reload_success_timestamp_seconds", "When a configuration was last taken.")
	reloadCount       = family("config_reloads_total", "Reloads of the configuration.", "result")
	notAfter          = family("tls_certificate_not_after_timestamp_seconds", "When the certificate of the listener ends.")
	revocationEntries = family("revocation_entries", "Entries of the list of revocations that this instance holds.")
	revocationSync    = family("revocation_last_sync_timestamp_seconds", "When the list of revocations was last in sync with the store; 0 if it never was.")
	revocationDoubt   = family("revocation_in_doubt", "Whether the store may have lost revocations, and other instances get the time to put them back.")
	revocationReady   = family("revocation_ready", "Whether the list of revocations can tell; if not, every token is 503.")
	revocationUnread  = family("revocation_unreadable_groups", "Groups of the list of revocations that cannot be read in full; the tokens that they revoke are accepted.")
	revocationAlarms  = family("revocation_alarms_total", "Signs that the store lost revocations, that a person writes to it, or that a tenant has too many.", "kind")
	buildInfo         = family("build_info", "The version of the program, as labels.", "version", "goversion")
)

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		verifications, verifyDuration, perTenant, cacheHits, cacheMisses, cacheEvictions, cacheEntries, cacheBytes, resolveQuestions, resolveHeld,
		ringStates, oldestSync, nextActivation, ringKeys, withoutNext, storeSyncs, ringRepairs, ringResyncs, ringRefreshes, ringAlarms,
		jwksSources, jwksFetches, oldestFetch, signatures, requests, requestDuration, streamsOpen, streamsEnded,
		reloadOK, reloadTime, reloadCount, notAfter, revocationEntries, revocationSync, revocationDoubt, revocationReady, revocationUnread, revocationAlarms, buildInfo,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	p := page(ch)
	w := c.watched.Load()
	c.collectVerifications(p)
	collectCache(p, w)
	collectResolve(p, w)
	collectRings(p, w, c.cfg.Now())
	c.collectSources(p, w)
	for i, outcome := range signOutcomes {
		p.count(signatures, c.signed[i].Load(), string(outcome))
	}
	c.collectRequests(p)
	c.collectStreams(p)
	c.collectConfig(p)
	collectRevocations(p, w)
}

// A page takes the series of one scrape.
type page chan<- prometheus.Metric

func (p page) count(d *prometheus.Desc, n uint64, labels ...string) {
	p <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (p page) gauge(d *prometheus.Desc, v float64, labels ...string) {
	p <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// time writes a date in seconds since 1970, or 0 for the zero time.
func (p page) time(d *prometheus.Desc, at time.Time) {
	if at.IsZero() {
		p.gauge(d, 0)
		return
	}
	p.milliseconds(d, at.UnixMilli())
}

func (p page) milliseconds(d *prometheus.Desc, at int64) { p.gauge(d, float64(at)/1000) }

func (p page) histogram(d *prometheus.Desc, h *histogram, labels ...string) {
	count, sum, upTo := h.read()
	p <- prometheus.MustNewConstHistogram(d, count, sum, upTo, labels...)
}

// states writes how many there are of each state, also of those that have none.
func (p page) states(d *prometheus.Desc, states []string, of map[string]int) {
	for _, state := range states {
		p.gauge(d, float64(of[state]), state)
	}
}

func (c *Collector) collectVerifications(p page) {
	for i := range c.verified {
		n := c.verified[i].Load()
		if i == slotAccepted {
			for j := range c.accepted {
				n += c.accepted[j].Load()
			}
		}
		outcome, reason := labelsOf(i)
		p.count(verifications, n, outcome, reason)
	}
	p.histogram(verifyDuration, c.duration)
	t := c.tenants.Load()
	if t == nil {
		return
	}
	write := func(tenant string, n *tenantCount) {
		for i, outcome := range outcomes {
			p.count(perTenant, n[i].Load(), tenant, string(outcome))
		}
	}
	for _, name := range t.order {
		write(name, t.byName[name])
	}
	write(otherTenant, t.other)
}

func collectCache(p page, w *Watched) {
	var s cache.Stats
	if w.Verifier != nil {
		s = w.Verifier.CacheStats()
	}
	p.count(cacheHits, s.Hits)
	p.count(cacheMisses, s.Misses)
	p.count(cacheEvictions, s.Evictions)
	p.gauge(cacheEntries, float64(s.Entries))
	p.gauge(cacheBytes, float64(s.Bytes))
}

func collectResolve(p page, w *Watched) {
	var s verifier.ResolveStats
	if w.Verifier != nil {
		s = w.Verifier.ResolveStats()
	}
	p.count(resolveQuestions, s.Found, "found")
	p.count(resolveQuestions, s.Unknown, "unknown")
	p.count(resolveQuestions, s.Failed, "failed")
	p.count(resolveQuestions, s.Refused, "refused")
	p.gauge(resolveHeld, float64(s.Held))
}

func (c *Collector) collectRequests(p page) {
	for i, face := range faces {
		f := &c.http[i]
		used := false
		for j := range f.byCode {
			n := f.byCode[j].Load()
			used = used || n > 0
			if n == 0 && (j >= usual || face == "other") {
				continue
			}
			code := ""
			if j < len(codes) {
				code = strconv.Itoa(codes[j])
			} else {
				code = classes[j-len(codes)]
			}
			p.count(requests, n, face, code)
		}
		if used || face != "other" {
			p.histogram(requestDuration, f.duration, face)
		}
	}
}

func (c *Collector) collectStreams(p page) {
	p.gauge(streamsOpen, float64(c.streams.open()))
	for i, reason := range reasons {
		p.count(streamsEnded, c.streams.ended[i].Load(), reason)
	}
}

func (c *Collector) collectConfig(p page) {
	r := &c.reloads
	ok := 1.0
	if r.failed.Load() {
		ok = 0
	}
	p.gauge(reloadOK, ok)
	p.milliseconds(reloadTime, r.lastGood.Load())
	p.count(reloadCount, r.good.Load(), success)
	p.count(reloadCount, r.bad.Load(), failure)
	if ends := r.notAfter.Load(); ends != 0 {
		p.milliseconds(notAfter, ends)
	}
	version, goversion := c.buildInfo()
	p.gauge(buildInfo, 1, version, goversion)
}

// The values of the label result.
const (
	success = "success"
	failure = "failure"
)

// counts writes what a keyring has counted.
func (p page) counts(n rotation.Counts) {
	p.count(storeSyncs, n.Syncs-min(n.Failures, n.Syncs), success)
	p.count(storeSyncs, n.Failures, failure)
	p.count(ringRepairs, n.Repairs)
	p.count(ringResyncs, n.Resyncs)
	p.count(ringRefreshes, n.Refreshes)
	p.count(ringAlarms, n.Undone, "undone")
	p.count(ringAlarms, n.Older, "older")
	p.count(ringAlarms, n.Forged, "forged")
}

// collectRevocations writes nothing where no list is asked.
func collectRevocations(p page, w *Watched) {
	if w.Revocations == nil {
		return
	}
	state, ok := w.Revocations()
	if !ok {
		return
	}
	flag := map[bool]float64{true: 1}
	p.gauge(revocationEntries, float64(state.Entries))
	p.time(revocationSync, state.Synced)
	p.gauge(revocationDoubt, flag[state.InDoubt])
	p.gauge(revocationReady, flag[state.Ready])
	p.gauge(revocationUnread, float64(state.Unreadable))
	p.count(revocationAlarms, state.Forged, "forged")
	p.count(revocationAlarms, state.Restored, "restored")
	p.count(revocationAlarms, state.Over, "over")
	p.count(revocationAlarms, state.Disputed, "disputed")
}
