package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A TLS makes a server speak nothing but TLS, also with its replicas, Sentinels and its Cluster.
type TLS struct {
	// Authority signs the server's certificate, and the certificates that it wants from clients.
	Authority *Authority

	// Certificate is what the server shows.
	Certificate Certificate

	// Clients makes the server refuse clients without a certificate of the authority.
	Clients bool

	// Hostnames makes Sentinels and a Cluster tell clients the name localhost, and no IP address.
	Hostnames bool
}

// hostname is the name that servers tell clients with [TLS.Hostnames].
const hostname = "localhost"

// named reports whether servers tell clients their name.
func (o *Options) named() bool { return o.TLS != nil && o.TLS.Hostnames }

// An Authority signs certificates for a test.
type Authority struct {
	// PEM is the certificate of the authority.
	PEM []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// A Certificate says what a certificate holds. The zero Certificate is of 127.0.0.1 and localhost, and
// is good today.
type Certificate struct {
	Names   []string // host names and IP addresses
	Expired bool
}

// NewAuthority returns a new authority that no one trusts yet.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redistest " + rand.Text()},
		NotBefore: aged(-day), NotAfter: aged(day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert: cert, key: key}, err
}

const day = 24 * time.Hour

// aged returns the time that is d from now.
func aged(d time.Duration) time.Time { return time.Now().Add(d) }

// Pool returns a pool with the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Issue returns a certificate and its key, both in PEM. It serves servers and clients.
func (a *Authority) Issue(c Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "redistest"},
		NotBefore: aged(-day), NotAfter: aged(day), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if c.Expired {
		template.NotAfter = aged(-time.Hour)
	}
	names := c.Names
	if len(names) == 0 {
		names = []string{"127.0.0.1", "localhost"}
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// KeyPair is [Authority.Issue] for [tls.Config].
func (a *Authority) KeyPair(c Certificate) (tls.Certificate, error) {
	certPEM, keyPEM, err := a.Issue(c)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// serve writes the files of a server into its folder, and returns the options that name them. It
// returns too how the server's own client connects: it takes every certificate, so that a test may use
// one that other clients refuse.
func (t *TLS) serve(dir string, port int) (args []string, client *tls.Config, err error) {
	certPEM, keyPEM, err := t.Authority.Issue(t.Certificate)
	if err != nil {
		return nil, nil, err
	}
	own, err := t.Authority.KeyPair(Certificate{})
	if err != nil {
		return nil, nil, err
	}
	files := map[string][]byte{"--tls-cert-file": certPEM, "--tls-key-file": keyPEM, "--tls-ca-cert-file": t.Authority.PEM}
	for option, text := range files {
		path := filepath.Join(dir, strings.TrimPrefix(option, "--")+".pem")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, nil, err
		}
		args = append(args, option, path)
	}
	clients := "no"
	if t.Clients {
		clients = "yes"
	}
	args = append(args, "--port", "0", "--tls-port", fmt.Sprint(port), "--tls-replication", "yes", "--tls-auth-clients", clients)
	return args, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{own}}, nil
}
