// Package metrics counts what a service with keyturn does, and writes it as a Prometheus page.
//
// A [Collector] counts verifications and signatures as they happen, in an array of atomic counters,
// and reads everything else when it is scraped: from the verifier, the keyring and the issuers'
// sources that [Collector.Watch] names.
//
//	c := metrics.New(metrics.Config{})
//	v, err := verifier.New(verifier.Config{Tenants: tenants, Observe: c.Observe})
//	...
//	c.Watch(metrics.Watched{Verifier: v, Keyring: keyring, Sources: client.Sources})
//	admin.Handle("GET /metrics", c.Handler())
//
// # What the page says, and to whom
//
// The page has no name of a tenant unless [Config].TenantLimit is set, and never a kid, sub, jti,
// issuer, path, method, address or text of an error: a label whose values a client can choose costs
// memory without bound (GHSA-rcjv-mgp8-qvmr), and a secret in a label is a secret in the monitoring.
// The number of series does not depend on the number of tenants. Serve the page where strangers
// cannot read it all the same.
//
// Every series is there from the start, at zero, because Prometheus cannot see the first increment
// of a series that was missing before (prometheus/prometheus#5355). Dates are given as dates, in
// seconds since 1970, and never as ages: an age is wrong as soon as it is scraped, and it stops
// growing together with the program. docs/monitoring.md explains each family, the dashboard and the
// alerts.
//
// # Logs
//
// [Log] wraps a [slog.Handler]. It bounds the lines about refused requests, which anyone can cause.
package metrics
