package main

// What serve answers with, spelled here as clients do.
const (
	jwksPath      = "/.well-known/jwks.json"
	discoveryPath = "/.well-known/openid-configuration"
	stateReady    = "ready"
	stateDegraded = "degraded"
	stateNotReady = "not ready"
)

// A tenantReady is what /readyz answers about a tenant.
type tenantReady struct{ Status, Reason string }
