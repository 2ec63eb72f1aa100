package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore/jwks"
)

// A reach says how the keys of an issuer are reached: by flags, or by fields of the file of --config.
type reach struct {
	allowLoopback, allowHTTP bool
	allowCIDR                []netip.Prefix
	proxy                    *url.URL                    // nil: none
	caFile, tokenFile        string                      // "": none
	name                     func(setting string) string // what the user calls a setting
	file                     func(setting string) string // the same, of a setting that names a file
}

// The settings of a reach, by the names of their fields in the file.
const (
	allowLoopback   = "allow_loopback"
	allowHTTP       = "allow_http"
	allowCIDR       = "allow_cidr"
	caFile          = "ca_file"
	bearerTokenFile = "bearer_token_file"
)

// source returns the source at one of the URLs. It reads the files, so that a mistake ends the
// command at its start.
func (a *app) source(issuerURL, jwksURL string, r reach, cfg jwks.SourceConfig) (*server.Source, error) {
	if r.allowHTTP && !r.allowLoopback && len(r.allowCIDR) == 0 {
		return nil, fmt.Errorf("%s allows no address by itself: give %s with the network of the issuer, or %s",
			r.name(allowHTTP), r.name(allowCIDR), r.name(allowLoopback))
	}
	cfg.AllowLoopback, cfg.AllowHTTP, cfg.AllowCIDR = r.allowLoopback, r.allowHTTP, r.allowCIDR
	s := &server.Source{IssuerURL: issuerURL, JWKSURL: jwksURL, Proxy: r.proxy}
	if r.caFile != "" {
		f, err := a.readFile(r.file(caFile), r.caFile, "certificates of authorities, as PEM", holdsRules)
		if err != nil {
			return nil, err
		}
		s.RootCAs = x509.NewCertPool()
		if !s.RootCAs.AppendCertsFromPEM(f.text) {
			return nil, usagef("the file of %s has no certificate: want those of authorities, as PEM", r.file(caFile))
		}
		s.CAFile = fmt.Sprintf("%s %x", r.caFile, sha256.Sum256(f.text))
	}
	if r.tokenFile != "" {
		f, err := a.unseen().readFile(r.file(bearerTokenFile), r.tokenFile, "a bearer token for the issuer", holdsSecret)
		if err != nil {
			return nil, err
		}
		a.seen.noteOnce(f) // it is read at each fetch
		s.HeaderFile = r.tokenFile
		first, err := bearerHeader(f.name, f.text)
		if err != nil {
			return nil, usagef("%v", err)
		}
		cfg.Header = f.bearer
		if !f.info.Mode().IsRegular() { // a pipe, which is read once
			cfg.Header = func(context.Context) (http.Header, error) { return first, nil }
		}
	}
	s.Config = cfg
	return s, nil
}

// bearer reads the token again, since the kubelet replaces one before it expires. It waits for no
// writer of a pipe.
func (f *inputFile) bearer(context.Context) (http.Header, error) {
	again, err := openInput(f.path, openRegular)
	if err != nil {
		return nil, fmt.Errorf("cannot read the file of %s: %w", f.name, causeOf(err))
	}
	again.name = f.name
	if err := again.refuse(holdsSecret); err != nil {
		return nil, err
	}
	return bearerHeader(f.name, again.text)
}

// bearerHeader returns the header for the token that a file holds (RFC 6750, section 2.1). The error
// does not repeat it.
func bearerHeader(name string, text []byte) (http.Header, error) {
	token := bytes.TrimSpace(text)
	switch {
	case len(token) == 0:
		return nil, fmt.Errorf("the file of %s is empty: it takes a bearer token for the issuer", name)
	case bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, fmt.Errorf("the file of %s holds more than one token: white space, or letters beyond ASCII", name)
	}
	return http.Header{"Authorization": {"Bearer " + string(token)}}, nil
}

// parseProxy reads the URL of a proxy. Its error does not repeat the URL.
func parseProxy(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("want the http or https URL of a proxy, such as http://proxy.example:3128")
	case u.User != nil:
		return nil, errors.New("has a user or password, which ends up in logs: want a proxy that needs none")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("want a host and a port, with nothing after them")
	}
	return u, nil
}
