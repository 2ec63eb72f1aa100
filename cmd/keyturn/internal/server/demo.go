package server

import (
	"context"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

// A demo is what a running server adds by [Config.Demo].
type demo struct {
	cfg    *Demo
	notify func(Event)
	redis  *miniredis.Miniredis
	at     Endpoint
	signer *rotation.Signer
	first  []DemoToken // one for each ring, from the start
}

// startDemo starts a Redis in this process, on a loopback port, and sets cfg.Rings.URL to it.
func startDemo(cfg *Config) (*demo, error) {
	d := &demo{cfg: cfg.Demo, notify: cfg.Notify, redis: miniredis.NewMiniRedis()}
	if err := d.redis.Start(); err != nil {
		return nil, &Error{Part: PartRedis, Err: err}
	}
	rings := *cfg.Rings
	rings.URL = "redis://" + d.redis.Addr()
	cfg.Rings = &rings
	return d, nil
}

// open makes the rings, and a token with each. The issuers are named by the URL under which the
// server is reached.
func (d *demo) open(ctx context.Context, t *tenants, at Endpoint, observe func(context.Context, rotation.SignEvent)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	audiences := make(map[string][]string)
	d.at = at
	for i := range t.all {
		rules := &t.all[i].Rules
		rules.Issuer = d.issuer(rules.ID)
		audiences[rules.ID] = rules.Audiences
	}
	d.signer, err = rotation.NewSigner(t.rings.keyring, rotation.SignerConfig{
		Issuer: d.issuer, Audience: func(tenant string) []string { return audiences[tenant] },
		Observe: observe,
	})
	if err != nil {
		return &Error{Part: PartRings, Err: err}
	}
	for i := range d.cfg.Rings {
		ring := &d.cfg.Rings[i]
		if _, err := t.rings.rotator.Create(ctx, ring.Tenant, ring.Policy); err != nil {
			return &Error{Part: PartRings, Tenant: ring.Tenant, Err: err}
		}
		token, err := d.token(ctx, ring)
		if err != nil {
			return &Error{Part: PartRings, Tenant: ring.Tenant, Err: err}
		}
		d.first = append(d.first, token)
	}
	return nil
}

// close ends the demo's Redis.
func (d *demo) close() { d.redis.Close() }

// A DemoToken is a token that opens the API of a demo.
type DemoToken struct {
	Tenant, Issuer string
	Algorithm      keystore.Algorithm
	Text           string // the token
}

// issuer returns the URL by which a program on this machine finds a tenant's keys.
func (d *demo) issuer(tenant string) string { return d.at.URL + "/" + tenant }

// DemoTokens returns the tokens that a demo has made at its start, one for each of its rings.
func (s *Server) DemoTokens() []DemoToken {
	if s.demo == nil {
		return nil
	}
	return s.demo.first
}

func (d *demo) token(ctx context.Context, ring *DemoRing) (DemoToken, error) {
	text, err := d.signer.Sign(ctx, ring.Tenant, map[string]any{"sub": ring.User})
	return DemoToken{Tenant: ring.Tenant, Issuer: d.issuer(ring.Tenant), Algorithm: ring.Policy.Algorithm, Text: text}, err
}

// announceTokens reports a fresh token of the first ring now and then, until ctx ends.
func (d *demo) announceTokens(ctx context.Context) {
	tick := time.NewTicker(d.cfg.FreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if token, err := d.token(ctx, &d.cfg.Rings[0]); err == nil {
			d.notify(FreshToken{DemoToken: token, At: d.at})
		}
	}
}
