// Package jwkstest is an issuer that misbehaves on demand, for tests of programs that read a JWK
// Set from it.
//
//	issuer := jwkstest.New(t)
//	key := jwkstest.NewKey("2026-11", "ES256")
//	issuer.Publish(key)
//	client := jwks.New(jwks.Config{
//		TLS: issuer.TLS(), LookupNetIP: issuer.LookupNetIP, DialContext: issuer.DialContext,
//	})
//	source, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
//	...
//	issuer.Misbehave(jwkstest.HangBody())
//
// [New] listens on loopback. [NewInMemory] opens no socket, so its readers can be tested in virtual
// time, in a bubble of testing/synctest: make the server and its reader in the bubble.
//
// To its readers each server has a public name and address, so that a test needs no setting that
// production does not have: [Server.LookupNetIP] and [Server.DialContext] stand in for the network.
// Nothing leaves the machine.
package jwkstest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Host is the name of every [Server]. It resolves only by [Server.LookupNetIP].
const Host = "issuer.test"

// address is the address of Host. It looks public and belongs to no network: IANA has given that
// part of the global unicast addresses to no registry. Careful readers refuse the addresses that
// are meant for examples (RFC 5737, RFC 9637).
var address = netip.MustParseAddr("2d00::7")

// A Request is one whose header a [Server] has read.
type Request struct {
	Path   string
	Header http.Header
	Time   time.Time
}

// A Server is an issuer. It serves its JWK Set at [Server.URL], and metadata for discovery. It is
// safe for concurrent use.
type Server struct {
	listener net.Listener
	http     *http.Server
	certs    certificates
	done     chan struct{} // closed by Close, which ends the answers that hang
	serving  sync.WaitGroup

	mu       sync.Mutex // guards everything below
	body     string
	version  int // of body; its ETag
	header   http.Header
	issuer   string
	jwksPath string
	second   string // "" or another path of the set
	fault    Fault
	requests []Request
	dials    int
	open     map[net.Conn]bool
}

// New returns a server on a loopback port, with an empty set. It is closed when the test ends.
func New(t testing.TB) *Server {
	s := Start()
	t.Cleanup(s.Close)
	return s
}

// Start is [New] without a test, such as for an Example. The caller must call
// [Server.Close]. It panics if it cannot listen.
func Start() *Server { return start(must(net.Listen("tcp", "127.0.0.1:0"))) }

// NewInMemory returns a server that only its own DialContext connects to, in memory. It is closed
// when the test ends.
func NewInMemory(t testing.TB) *Server {
	s := start(&pipes{conns: make(chan net.Conn), done: make(chan struct{})})
	t.Cleanup(s.Close)
	return s
}

func start(listener net.Listener) *Server {
	s := &Server{
		listener: listener, certs: newCertificates(), done: make(chan struct{}), body: setOf(),
		header: make(http.Header), issuer: "https://" + Host, jwksPath: "/jwks.json", open: make(map[net.Conn]bool),
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ErrorLog: log.New(io.Discard, "", 0)}
	s.http.SetKeepAlivesEnabled(false) // so that a fault of connections is seen by the next request
	config := &tls.Config{GetCertificate: s.certificate, NextProtos: []string{"http/1.1"}}
	s.serving.Go(func() { _ = s.http.Serve(tls.NewListener(&gate{s.listener, s}, config)) })
	return s
}

// Close ends the server, and cuts the connections that hang.
func (s *Server) Close() {
	s.mu.Lock()
	select {
	case <-s.done:
		s.mu.Unlock()
		return
	default:
	}
	close(s.done)
	for conn := range s.open {
		conn.Close()
	}
	s.mu.Unlock()
	s.http.Close()
	s.listener.Close()
	s.serving.Wait()
}

// URL returns the URL of the set.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "https://" + Host + s.jwksPath
}

// Issuer returns the issuer, for discovery.
func (s *Server) Issuer() string { return "https://" + Host }

// Addr returns the loopback address of a server that [New] made, for readers that connect by
// themselves. The certificate is valid for 127.0.0.1 too.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// TLS returns a configuration for readers, which trusts the server.
func (s *Server) TLS() *tls.Config { return &tls.Config{RootCAs: s.certs.roots} }

// Publish makes the set hold keys and no others.
func (s *Server) Publish(keys ...*Key) { s.PublishBody(Set(keys...)) }

// PublishBody makes body the answer. It need not be a JWK Set.
func (s *Server) PublishBody(body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body = body
	s.version++
}

// SetHeader adds a header to good answers, such as Cache-Control. An empty value removes it.
func (s *Server) SetHeader(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header.Set(name, value)
	if value == "" {
		s.header.Del(name)
	}
}

// ClaimIssuer makes the metadata name another issuer than its own.
func (s *Server) ClaimIssuer(issuer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuer = issuer
}

// MoveSet serves the set at another path, and 404 at the old one.
func (s *Server) MoveSet(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jwksPath = path
}

// AlsoAt serves the set at a second path too.
func (s *Server) AlsoAt(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.second = path
}

// Misbehave gives every connection and answer that fault, from now on.
func (s *Server) Misbehave(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Behave ends a fault. Connections that hang stay as they are.
func (s *Server) Behave() { s.Misbehave(Fault{}) }

// Requests returns the requests so far. A connection without a request does not count: see
// [Server.Dials].
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Dials returns how many connections were asked of DialContext.
func (s *Server) Dials() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}

// LookupNetIP resolves [Host], and no other name. It has the signature of
// [net.Resolver.LookupNetIP].
func (s *Server) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	if f := s.current(); host != Host || f.dns {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{address}, ctx.Err()
}

// DialContext connects to the server. It ignores the address.
func (s *Server) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	s.mu.Lock()
	s.dials++
	refused := s.fault.refused
	s.mu.Unlock()
	if refused {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	if p, ok := s.listener.(*pipes); ok {
		return p.dial(ctx)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
}

func (s *Server) current() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, Request{Path: r.URL.RequestURI(), Header: r.Header.Clone(), Time: time.Now()})
	a := answer{
		body: s.body, etag: fmt.Sprintf(`"%d"`, s.version), header: s.header.Clone(),
		found: r.URL.Path == s.jwksPath || r.URL.Path == s.second, server: s,
	}
	if r.URL.Path == "/.well-known/openid-configuration" {
		a.found, a.etag = true, ""
		a.body = fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, s.issuer, "https://"+Host+s.jwksPath)
	}
	fault := s.fault
	s.mu.Unlock()
	if fault.answer != nil {
		fault.answer(w, r, &a)
		return
	}
	a.good(w, r)
}

// An answer is the good answer of the server at this moment.
type answer struct {
	body, etag string
	header     http.Header
	found      bool
	server     *Server
}

// good sends the good answer.
func (a *answer) good(w http.ResponseWriter, r *http.Request) {
	if !a.found {
		http.NotFound(w, r)
		return
	}
	for name := range a.header {
		w.Header().Set(name, a.header.Get(name))
	}
	if a.etag != "" {
		w.Header().Set("ETag", a.etag)
		if r.Header.Get("If-None-Match") == a.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	io.WriteString(w, a.body)
}

// hang waits for the client to leave, or for the end of the server.
func (a *answer) hang(r *http.Request) { a.sleep(r, 1000*time.Hour) }

// sleep waits for d. If the client leaves meanwhile, sleep aborts the handler. If the handler
// returned instead, a client that leaves slowly would still get an answer, such as an empty one
// with status 200.
func (a *answer) sleep(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	case <-a.server.done:
		panic(http.ErrAbortHandler)
	}
}

// A gate holds connections before TLS, while the fault is [Mute].
type gate struct {
	net.Listener
	s *Server
}

// Accept implements [net.Listener].
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil || !g.s.current().mute {
			return conn, err
		}
		g.s.hold(conn)
	}
}

// hold keeps a connection open until the server is closed, which may have happened already.
func (s *Server) hold(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done:
		conn.Close()
	default:
		s.open[conn] = true
	}
}

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	client, server := newPipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements [net.Listener].
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// Addr implements [net.Listener].
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// A certificate names a certificate that a server can show.
type certificate int

const (
	goodCert certificate = iota
	expiredCert
	otherHostCert
	unknownCert
)

type certificates struct {
	roots *x509.CertPool
	of    [4]tls.Certificate
}

// Certificates are valid for any time that a clock of tests may show, virtual clocks included.
var (
	longAgo   = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	longAhead = time.Date(2190, 1, 1, 0, 0, 0, 0, time.UTC)
)

func newCertificates() (c certificates) {
	ca, caKey := newCertificate(nil, nil, "test authority", longAhead)
	other, otherKey := newCertificate(nil, nil, "another authority", longAhead)
	c.roots = x509.NewCertPool()
	c.roots.AddCert(ca)
	leaf := func(parent *x509.Certificate, parentKey *ecdsa.PrivateKey, host string, until time.Time) tls.Certificate {
		cert, key := newCertificate(parent, parentKey, host, until)
		return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	}
	c.of[goodCert] = leaf(ca, caKey, Host, longAhead)
	c.of[expiredCert] = leaf(ca, caKey, Host, longAgo.AddDate(1, 0, 0))
	c.of[otherHostCert] = leaf(ca, caKey, "other.test", longAhead)
	c.of[unknownCert] = leaf(other, otherKey, Host, longAhead)
	return c
}

// newCertificate makes a certificate that parent signs, or an authority if parent is nil.
func newCertificate(parent *x509.Certificate, parentKey *ecdsa.PrivateKey, name string, until time.Time) (*x509.Certificate, *ecdsa.PrivateKey) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: longAgo, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if parent == nil {
		parent, parentKey = tmpl, key
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage, tmpl.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	} else {
		tmpl.DNSNames = []string{name}
		if name == Host {
			tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), parentKey))
	return must(x509.ParseCertificate(der)), key
}

func (s *Server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return &s.certs.of[s.current().cert], nil
}
