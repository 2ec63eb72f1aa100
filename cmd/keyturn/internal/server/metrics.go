package server

import (
	"context"
	"net/http"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// startMetrics prepares what /metrics shows, before anything is opened that it counts. Without an admin
// listener the page cannot be read, and nothing is counted. The log is bounded in any case.
func (s *Server) startMetrics() {
	s.cfg.Logger = boundedLog(s.cfg.Logger)
	s.cfg.Issuers.Logger = s.cfg.Logger
	if s.cfg.Admin == "" {
		return
	}
	cfg := s.cfg.Metrics
	cfg.Now = s.cfg.Now
	s.metrics = metrics.New(cfg)
	s.page = s.metrics.Handler()
	s.cfg.Issuers.Observe = s.metrics.ObserveFetch
	if s.cfg.Meter == (silentMeter{}) {
		s.cfg.Meter = s.metrics
	}
}

// observe returns what the verifier tells of each verification, or nil.
func (s *Server) observe() func(context.Context, verifier.Event) {
	if s.metrics == nil {
		return nil
	}
	return s.metrics.Observe
}

// observeSign returns what a signer tells of each signature, or nil.
func (s *Server) observeSign() func(context.Context, rotation.SignEvent) {
	if s.metrics == nil {
		return nil
	}
	return s.metrics.ObserveSign
}

// watchMetrics has the page read the tenants of g.
func (s *Server) watchMetrics(g *generation) {
	if s.metrics == nil {
		return
	}
	w := metrics.Watched{Verifier: s.verifier, Sources: g.tenants.allSources, Revocations: s.revoked.state}
	if g.tenants.rings != nil {
		w.Keyring = g.tenants.rings.keyring
	}
	for i := range g.tenants.all {
		w.Tenants = append(w.Tenants, g.tenants.all[i].Rules.ID)
	}
	s.metrics.Watch(w)
}

// allSources returns the sources of all clients.
func (t *tenants) allSources() (all []*jwks.Source) {
	for _, client := range t.clients {
		all = append(all, client.Sources()...)
	}
	return all
}

// serveMetrics serves the metrics, without asking for a token: see [metrics.Collector.Handler].
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if onlyRead(w, r) {
		s.page.ServeHTTP(w, r)
	}
}
