package providertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// The addresses that names resolve to. public looks public and belongs to no network. private is in
// the range that kubeadm gives to services, for names without a public suffix.
var (
	public  = netip.MustParseAddr("2d00::8")
	private = netip.MustParseAddr("10.96.0.10")
)

// A Network is one in which a provider's hosts have their real names, and are on loopback. Nothing
// leaves the machine.
type Network struct {
	mu    sync.Mutex
	pages map[string]Page // guarded by mu

	names  map[string]bool // the hosts, without ports
	secure *httptest.Server
	plain  *httptest.Server
	roots  *x509.CertPool
	ca     []byte
}

// NewNetwork starts the hosts of p. They end with the test.
func NewNetwork(t testing.TB, p Provider) *Network {
	t.Helper()
	n := &Network{pages: maps.Clone(p.Pages), names: make(map[string]bool), roots: x509.NewCertPool()}
	for page := range p.Pages {
		n.names[must(url.Parse(page)).Hostname()] = true
	}
	n.plain = httptest.NewServer(http.HandlerFunc(n.serve))
	t.Cleanup(n.plain.Close)
	n.secure = httptest.NewUnstartedServer(http.HandlerFunc(n.serve))
	n.secure.TLS = &tls.Config{Certificates: []tls.Certificate{n.certificate()}}
	n.secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	n.secure.StartTLS()
	t.Cleanup(n.secure.Close)
	return n
}

// Publish changes what the hosts serve to the pages of p. Other pages stay.
func (n *Network) Publish(p Provider) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.Copy(n.pages, p.Pages)
}

func (n *Network) page(url string) (Page, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	page, ok := n.pages[url]
	return page, ok
}

// certificate makes one for all hosts, and the authority that readers trust.
func (n *Network) certificate() tls.Certificate {
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "providertest"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for host := range n.names {
		template.DNSNames = append(template.DNSNames, host)
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, k.Public(), k))
	n.roots.AddCert(must(x509.ParseCertificate(der)))
	n.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

func (n *Network) serve(w http.ResponseWriter, r *http.Request) {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	page, ok := n.page(scheme + r.Host + r.URL.RequestURI())
	switch {
	case !ok:
		http.NotFound(w, r)
	case page.Authorization != "" && r.Header.Get("Authorization") != page.Authorization:
		w.WriteHeader(http.StatusUnauthorized)
	case page.Authorization == "" && r.Header.Get("Authorization") != "":
		w.WriteHeader(http.StatusBadRequest) // a credential that this host should not have been sent
	default:
		fmt.Fprint(w, page.Body)
	}
}

// CA returns the authority of all hosts, in PEM.
func (n *Network) CA() []byte { return n.ca }

// TLS returns a configuration for readers, which trusts the hosts.
func (n *Network) TLS() *tls.Config { return &tls.Config{RootCAs: n.roots} }

// LookupNetIP resolves the hosts, and no other name. It has the signature of
// [net.Resolver.LookupNetIP].
func (n *Network) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	switch {
	case !n.names[host]:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	case !strings.Contains(host, ".") || strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".local"):
		return []netip.Addr{private}, nil
	}
	return []netip.Addr{public}, nil
}

// DialContext connects to the hosts on loopback: by TLS if the port is 443.
func (n *Network) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to := n.plain.Listener.Addr().String()
	if strings.HasSuffix(addr, ":443") {
		to = n.secure.Listener.Addr().String()
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to)
}
