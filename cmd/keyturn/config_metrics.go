package main

import "github.com/keyturn/keyturn/metrics"

// A metricsConfig is the part of the file of --config about /metrics.
type metricsConfig struct {
	Tenants int `yaml:"tenants"` // how many tenants are named
}

// maxNamedTenants bounds the series of /metrics: each tenant that is named has four.
const maxNamedTenants = 1000

// checkMetrics refuses metrics that cannot be meant.
func (c *configFile) checkMetrics() error {
	if n := c.Metrics.Tenants; n < 0 || n > maxNamedTenants {
		return usagef("the file of --config: metrics.tenants: want how many tenants /metrics names, from 0 to %d", maxNamedTenants)
	}
	return nil
}

// config returns what the file says.
func (m metricsConfig) config() metrics.Config { return metrics.Config{TenantLimit: m.Tenants} }
