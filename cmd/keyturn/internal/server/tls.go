package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// A TLS says how the public listener speaks TLS. A reload replaces it, for connections to come.
type TLS struct {
	// Certificate is the server's, with its private key and the chain.
	Certificate tls.Certificate

	// ClientCAs are the authorities of the clients' certificates. If it is not nil, a client without
	// a good one is refused.
	ClientCAs *x509.CertPool

	// ClientNames are the URIs and DNS names of clients that may connect: a client's certificate has
	// one of them among its subject alternative names, byte for byte. Empty means every client that
	// ClientCAs vouches for.
	ClientNames []string
}

// errClientName says that a client's certificate is good, and its names are not listed.
var errClientName = errors.New("the client's certificate has none of the names that are listed")

// config returns a new [tls.Config], which no later generation shares.
//
// With client certificates it has no session tickets. A session that is resumed is not judged by the
// authorities of now, but by those of its first handshake: so a client that they no longer vouch for
// would come back (CVE-2025-68121, golang/go#77217).
func (t *TLS) config() *tls.Config {
	c := &tls.Config{
		Certificates: []tls.Certificate{t.Certificate},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if t.ClientCAs == nil {
		return c
	}
	c.ClientAuth, c.ClientCAs, c.SessionTicketsDisabled = tls.RequireAndVerifyClientCert, t.ClientCAs, true
	c.VerifyConnection = func(s tls.ConnectionState) error { return t.checkName(s.PeerCertificates) }
	return c
}

// ends returns when the first certificate of the chain ends: clients refuse the chain from then on.
func (t *TLS) ends() (first time.Time) {
	for _, der := range t.Certificate.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil && (first.IsZero() || c.NotAfter.Before(first)) {
			first = c.NotAfter
		}
	}
	return first
}

// checkName returns why a client's verified certificate is not one of ClientNames.
func (t *TLS) checkName(chain []*x509.Certificate) error {
	if len(t.ClientNames) == 0 {
		return nil
	}
	if len(chain) > 0 {
		for _, uri := range chain[0].URIs {
			if slices.Contains(t.ClientNames, uri.String()) {
				return nil
			}
		}
		if slices.ContainsFunc(chain[0].DNSNames, func(name string) bool { return slices.Contains(t.ClientNames, name) }) {
			return nil
		}
	}
	return errClientName
}

// admits returns why a client that has connected under another generation could not connect now.
func (t *TLS) admits(s *tls.ConnectionState, now time.Time) error {
	if t.ClientCAs == nil {
		return nil
	}
	if s == nil || len(s.PeerCertificates) == 0 {
		return errors.New("the client has no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: t.ClientCAs, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	return t.checkName(s.PeerCertificates)
}

// tlsConfig returns the config of the listener, which asks the generation of now at each handshake.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.live.Load().tls, nil },
	}
}

// An admission says which generation has admitted the client of a connection last.
type admission struct{ generation atomic.Uint64 }

type admissionKey struct{}

// withAdmission is for [http.Server.ConnContext]. The handshake comes after it, so it may be under a
// later generation: then the client is judged once more.
func (s *Server) withAdmission(ctx context.Context, _ net.Conn) context.Context {
	a := new(admission)
	a.generation.Store(s.live.Load().number)
	return context.WithValue(ctx, admissionKey{}, a)
}

// onlyAdmitted returns h for the TLS listener. A connection can outlive the generation that it began
// under by hours. A request on it whose client could not connect now is refused, and ends it.
func (s *Server) onlyAdmitted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.admitted(r); err != nil {
			s.cfg.Logger.Warn("a client is no longer admitted", "reason", "client_certificate", "client", r.RemoteAddr, "err", err)
			setHeaders(w.Header())
			w.Header().Set("Connection", "close") // ends an HTTP/2 connection too
			answer(w, http.StatusForbidden, map[string]string{"error": "Client certificate refused"})
			return
		}
		h.ServeHTTP(w, r)
	})
}

// admitted returns why the client of a request could not connect now, or nil.
func (s *Server) admitted(r *http.Request) error {
	g := s.live.Load()
	a, ok := r.Context().Value(admissionKey{}).(*admission)
	if g.cfg.TLS == nil || ok && a.generation.Load() == g.number {
		return nil
	}
	err := g.cfg.TLS.admits(r.TLS, s.cfg.Now())
	if err == nil && ok {
		a.generation.Store(g.number)
	}
	return err
}
