package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// A testCA is an authority with its certificate.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T, name string) *testCA {
	t.Helper()
	ca := &testCA{key: newECKey(t)}
	ca.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca.cert, ca.cert, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return ca
}

func newECKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue returns a certificate for a name, which is a URI if it has a scheme.
func (ca *testCA) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key := newECKey(t)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	switch u, err := url.Parse(name); {
	case net.ParseIP(name) != nil:
		cert.IPAddresses = []net.IP{net.ParseIP(name)}
	case err == nil && u.Scheme != "":
		cert.URIs = []*url.URL{u}
	default:
		cert.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (ca *testCA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// running starts a server with cfg, and ends it with the test.
func running(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Addr, cfg.Tenants = "127.0.0.1:0", []Tenant{static(t, "acme")}
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

// client returns a client with a certificate, which resumes sessions if it can.
func (ca *testCA) client(cert *tls.Certificate, h2 bool) *http.Client {
	cfg := &tls.Config{RootCAs: ca.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: h2}, Timeout: 20 * time.Second}
}

// asks asks /healthz, and returns the status, or 0 if no connection was made, and whether the session was
// resumed.
func asks(t *testing.T, c *http.Client, s *Server) (status int, resumed bool) {
	t.Helper()
	res, err := c.Get(s.Endpoint().URL + "/healthz")
	if err != nil {
		return 0, false
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Error(err)
	}
	return res.StatusCode, res.TLS.DidResume
}

// reconfigure reloads with another TLS.
func reconfigure(t *testing.T, s *Server, secure *TLS) {
	t.Helper()
	if _, err := s.reload(t.Context(), Config{Tenants: []Tenant{static(t, "acme")}, TLS: secure}); err != nil {
		t.Fatal(err)
	}
}

// A client whose authority is taken out does not come back: not by resuming its session, and not on a
// connection that it kept open.
func TestTLSClientOutlivesItsAuthority(t *testing.T) {
	ca, next := newCA(t, "ca"), newCA(t, "next")
	cert, serves := ca.issue(t, "gw.example"), ca.issue(t, "127.0.0.1")
	for _, report := range []string{"CVE-2025-68121", "golang/go#77217"} {
		for _, h2 := range []bool{false, true} {
			t.Run(report, func(t *testing.T) {
				s := running(t, Config{TLS: &TLS{Certificate: serves, ClientCAs: ca.pool()}})
				kept, resumes := ca.client(&cert, h2), ca.client(&cert, h2)
				for _, c := range []*http.Client{kept, resumes} {
					if status, _ := asks(t, c, s); status != http.StatusOK {
						t.Fatalf("status = %d", status)
					}
				}
				resumes.CloseIdleConnections()
				if status, resumed := asks(t, resumes, s); status != http.StatusOK || resumed {
					t.Errorf("with client certificates a session was resumed: %d %v", status, resumed)
				}
				reconfigure(t, s, &TLS{Certificate: serves, ClientCAs: ca.pool(), ClientNames: []string{"gw.example"}})
				if status, _ := asks(t, kept, s); status != http.StatusOK {
					t.Errorf("a client that is still admitted: %d", status)
				}
				reconfigure(t, s, &TLS{Certificate: serves, ClientCAs: next.pool()})
				if status, _ := asks(t, kept, s); status != http.StatusForbidden {
					t.Errorf("on a connection from before: %d, want 403", status)
				}
				resumes.CloseIdleConnections()
				for _, c := range []*http.Client{kept, resumes} {
					if status, _ := asks(t, c, s); status != 0 {
						t.Errorf("on a new connection: %d, want a failed handshake", status)
					}
				}
			})
		}
	}
}

// Names of clients are compared as a whole: no wildcard, no suffix, no common name.
func TestTLSClientNames(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	s := running(t, Config{TLS: &TLS{
		Certificate: ca.issue(t, "127.0.0.1"), ClientCAs: ca.pool(), ClientNames: []string{"spiffe://x/gw", "gw.example"},
	}})
	for name, want := range map[string]int{
		"spiffe://x/gw": 200, "gw.example": 200, "spiffe://x/gw2": 0, "spiffe://x/": 0, "a.gw.example": 0, "*.example": 0, "GW.example": 0, "10.0.0.1": 0,
	} {
		cert := ca.issue(t, name)
		if status, _ := asks(t, ca.client(&cert, false), s); status != want {
			t.Errorf("%s: %d, want %d", name, status, want)
		}
	}
	stranger := other.issue(t, "gw.example")
	if status, _ := asks(t, ca.client(&stranger, false), s); status != 0 {
		t.Errorf("a certificate of another authority: %d", status)
	}
	if status, _ := asks(t, ca.client(nil, false), s); status != 0 {
		t.Errorf("no certificate: %d", status)
	}
}

// A certificate is replaced while the server runs, and connections from before go on. TLS 1.1 is refused.
func TestTLSCertificateIsReplaced(t *testing.T) {
	ca, next := newCA(t, "ca"), newCA(t, "next")
	s := running(t, Config{TLS: &TLS{Certificate: ca.issue(t, "127.0.0.1")}})
	old, late := ca.client(nil, true), next.client(nil, true)
	if status, _ := asks(t, old, s); status != http.StatusOK {
		t.Errorf("status = %d", status)
	}
	old.CloseIdleConnections()
	if status, resumed := asks(t, old, s); status != http.StatusOK || !resumed {
		t.Errorf("without client certificates a session is resumed: %d %v", status, resumed)
	}
	if status, _ := asks(t, late, s); status != 0 {
		t.Errorf("before the reload: %d", status)
	}
	reconfigure(t, s, &TLS{Certificate: next.issue(t, "127.0.0.1")})
	if status, _ := asks(t, late, s); status != http.StatusOK {
		t.Errorf("after the reload: %d", status)
	}
	if status, _ := asks(t, old, s); status != http.StatusOK {
		t.Errorf("a connection from before: %d", status)
	}
	reconfigure(t, s, nil) // needs a restart
	if status, _ := asks(t, late, s); status != http.StatusOK {
		t.Errorf("without tls in the file: %d", status)
	}
	c, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{RootCAs: next.pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err == nil {
		c.Close()
		t.Error("TLS 1.1 was accepted")
	}
	if ends := s.live.Load().cfg.TLS.ends(); ends.Before(time.Now()) || ends.After(time.Now().Add(2*time.Hour)) {
		t.Errorf("the certificate ends at %v", ends)
	}
}
