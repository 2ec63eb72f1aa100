package main

import (
	"crypto/rand"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// demoAudience is the aud of the demo's tokens.
const demoAudience = "demo"

// demoPoll and demoDeadline are for a Freshness of 6 s.
const (
	demoPoll     = time.Second
	demoDeadline = 800 * time.Millisecond
)

// demoFreshEvery is shorter than a token of the demo lives, so that a command that works is always
// on the screen.
const demoFreshEvery = 90 * time.Second

// demoPolicy returns a policy by which keys rotate while the user watches.
func demoPolicy(alg keystore.Algorithm) rotation.Policy {
	p := rotation.Policy{
		Algorithm: alg, Every: 30 * time.Second, Propagation: 15 * time.Second, MaxTokenTTL: 2 * time.Minute, Leeway: 30 * time.Second,
		ClockSkew: time.Second, Freshness: 6 * time.Second, Dwell: 2 * time.Second, SignFor: 12 * time.Second,
	}
	if !alg.Symmetric() {
		p.ReaderStaleness = 6 * time.Second
	}
	return p
}

// offerDemo offers the mode without a secret: two tenants with rings of their own, on a Redis in
// this process.
func (s *serveCommand) offerDemo() (*offer, error) {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	keks, err := rotation.NewKEKs(secret)
	if err != nil {
		return nil, err
	}
	o := &offer{server: server.Config{
		Rings: &server.Rings{KEKs: keks, Poll: demoPoll, Deadline: demoDeadline},
		Demo:  &server.Demo{FreshEvery: demoFreshEvery},
		Hint:  demoHint,
	}}
	for _, t := range []struct {
		id, user string
		alg      keystore.Algorithm
	}{
		{"acme", "ann", keystore.HS256}, {"globex", "bob", keystore.ES256},
	} {
		o.server.Tenants = append(o.server.Tenants, server.Tenant{Ring: true, Rules: verifier.Tenant{
			ID: t.id, Algorithms: []keystore.Algorithm{t.alg}, Audiences: []string{demoAudience},
		}})
		o.server.Demo.Rings = append(o.server.Demo.Rings, server.DemoRing{Tenant: t.id, User: t.user, Policy: demoPolicy(t.alg)})
	}
	o.intro = func(srv *server.Server) string { return demoIntro(endpoint(srv.Endpoint()), srv.DemoTokens()) }
	return o, nil
}
