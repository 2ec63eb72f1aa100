package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
)

// A listenConfig says where the server listens, in the file of --config.
type listenConfig struct {
	Addr     string     `yaml:"addr"`
	Unix     string     `yaml:"unix"`
	UnixMode string     `yaml:"unix_mode"`
	TLS      *listenTLS `yaml:"tls"`

	mode fs.FileMode
}

type listenTLS struct {
	CertFile     string   `yaml:"cert_file"`
	KeyFile      string   `yaml:"key_file"`
	ClientCAFile string   `yaml:"client_ca_file"`
	ClientNames  []string `yaml:"client_names"`
}

// defaultUnixMode lets the group of the service ask, such as that of the proxy in front.
const defaultUnixMode = 0o660

// check refuses contradictions. l may be nil.
func (l *listenConfig) check() error {
	switch {
	case l == nil:
		return nil
	case l.Addr == "" && l.Unix == "":
		return errors.New("addr is missing: where to listen, such as :4111; or unix, the path of a socket")
	case l.UnixMode != "" && l.Unix == "":
		return errors.New("unix_mode goes with unix")
	case l.TLS != nil && l.Addr == "":
		return errors.New("tls goes with addr: a socket is guarded by its mode")
	}
	l.mode = defaultUnixMode
	if l.UnixMode != "" {
		mode, err := strconv.ParseUint(l.UnixMode, 8, 32)
		if err != nil || mode > 0o777 || mode&0o600 != 0o600 {
			return errors.New(`unix_mode: want the mode of a file that its owner can read and write, such as "0660"`)
		}
		l.mode = fs.FileMode(mode)
	}
	return l.TLS.check()
}

// check refuses contradictions. t may be nil.
func (t *listenTLS) check() error {
	switch {
	case t == nil:
		return nil
	case t.CertFile == "" || t.KeyFile == "":
		return errors.New("tls: want cert_file and key_file")
	case len(t.ClientNames) > 0 && t.ClientCAFile == "":
		return errors.New("tls.client_names goes with client_ca_file: without it clients have no certificates")
	case t.ClientNames != nil && len(t.ClientNames) == 0, slices.Contains(t.ClientNames, ""):
		return errors.New("tls.client_names: want the URIs or DNS names of clients' certificates; leave it out to take each that client_ca_file vouches for")
	}
	return nil
}

// resolve makes relative paths relative to folder. l may be nil.
func (l *listenConfig) resolve(folder string) {
	if l == nil {
		return
	}
	resolveAll(folder, &l.Unix)
	if l.TLS != nil {
		resolveAll(folder, &l.TLS.CertFile, &l.TLS.KeyFile, &l.TLS.ClientCAFile)
	}
}

// setListen tells the server where to listen. A flag beats the file.
func (s *serveCommand) setListen(o *offer) error {
	cfg := &o.server
	var l listenConfig
	if o.file != nil && o.file.Listen != nil {
		l = *o.file.Listen
	}
	cfg.Addr = l.Addr
	if s.addr.given || l.Addr == "" && l.Unix == "" {
		cfg.Addr = s.addr.value
	}
	cfg.Unix, cfg.UnixMode = l.Unix, l.mode
	if s.admin.given {
		cfg.Admin = s.admin.value
	}
	if l.TLS == nil {
		return nil
	}
	secure, err := s.listenTLS(l.TLS)
	cfg.TLS = secure
	return err
}

// listenTLS reads the certificates of a listener.
func (s *serveCommand) listenTLS(t *listenTLS) (*server.TLS, error) {
	const in = " in the file of --config"
	cert, err := s.readFile("listen.tls.cert_file"+in, t.CertFile, "the server's certificate, as PEM", holdsRules)
	if err != nil {
		return nil, err
	}
	key, err := s.readFile("listen.tls.key_file"+in, t.KeyFile, "the private key of the server's certificate, as PEM", holdsSecret)
	if err != nil {
		return nil, err
	}
	defer clear(key.text)
	secure := &server.TLS{ClientNames: t.ClientNames}
	if secure.Certificate, err = tls.X509KeyPair(cert.text, key.text); err != nil {
		return nil, usagef("the file of --config: listen.tls: cert_file and key_file: %v", err)
	}
	if t.ClientCAFile == "" {
		return secure, nil
	}
	ca, err := s.readFile("listen.tls.client_ca_file"+in, t.ClientCAFile, "certificates of authorities, as PEM", holdsRules)
	if err != nil {
		return nil, err
	}
	if secure.ClientCAs = x509.NewCertPool(); !secure.ClientCAs.AppendCertsFromPEM(ca.text) {
		return nil, usagef("the file of listen.tls.client_ca_file%s has no certificate: want those of authorities, as PEM", in)
	}
	return secure, nil
}

// defaultDrain is how long a service goes on at SIGTERM, if something asks its /readyz.
const defaultDrain = 5 * time.Second

func newDrain() *option[time.Duration] { return newDuration(0, 10*time.Minute, defaultDrain, "") }

// setDrain says how long the server goes on at SIGTERM. Without an admin listener no load balancer
// learns that it will end, and it ends at once.
func (s *serveCommand) setDrain(o *offer) {
	cfg := &o.server
	switch {
	case s.drain.given:
		cfg.Drain = s.drain.value
	case o.file != nil && o.file.drain != nil:
		cfg.Drain = *o.file.drain
	case cfg.Admin != "":
		cfg.Drain = defaultDrain
	}
}
