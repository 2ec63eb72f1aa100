package jwks

import (
	"context"

	"github.com/keyturn/keyturn/keystore"
)

// A PEMSource is the [keystore.Refresher] of one tenant's keys that are published one by one.
type PEMSource struct{ tenant string }

// OpenPEM returns a source of keys that are published one by one, each a PEM public key at the URL
// that urlTemplate gives when {kid} is replaced.
func (c *Client) OpenPEM(tenant, urlTemplate string, cfg SourceConfig) (*PEMSource, error) {
	return nil, failf(StepURL, "not yet")
}

// Lookup implements [keystore.KeyStore].
func (p *PEMSource) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	return nil, keystore.ErrUnavailable
}

// Refresh implements [keystore.Refresher].
func (p *PEMSource) Refresh(ctx context.Context, id keystore.ID) error {
	return keystore.ErrUnavailable
}

// NoteUse implements [keystore.UseNoter].
func (p *PEMSource) NoteUse(tenant string) {}

// Ready returns nil if the source can answer for tenant.
func (p *PEMSource) Ready(tenant string) error { return keystore.ErrUnavailable }

// Close ends the source.
func (p *PEMSource) Close(ctx context.Context) error { return nil }
