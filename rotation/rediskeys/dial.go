package rediskeys

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
)

// A dialer makes the connections of a client. The client's own would ignore the context's deadline
// during the handshake of TLS, and would not tell its errors apart.
type dialer struct {
	dialRaw func(ctx context.Context, network, addr string) (net.Conn, error)
	tls     *tls.Config // nil for none
}

func newDialer(a *address, o *Options) *dialer {
	d := &dialer{dialRaw: o.Dial}
	if d.dialRaw == nil {
		d.dialRaw = new(net.Dialer).DialContext
	}
	if !a.tls {
		return d
	}
	d.tls = new(tls.Config)
	if o.TLS != nil {
		d.tls = o.TLS.Clone()
	}
	d.tls.MinVersion = max(d.tls.MinVersion, tls.VersionTLS12)
	return d
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := d.dialRaw(ctx, network, addr)
	if err != nil {
		return c, err
	}
	if d.tls == nil {
		if tcp, ok := c.(*net.TCPConn); ok {
			return &plainConn{TCPConn: tcp}, nil
		}
		return c, nil
	}
	config := d.tls
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		config = config.Clone()
		config.ServerName = host
	}
	secure := tls.Client(c, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, &handshakeError{err}
	}
	return &newConn{Conn: secure}, nil
}

// A handshakeError is the error of a connection that TLS did not come about on.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string {
	if ne := net.Error(nil); errors.As(e.err, &ne) && ne.Timeout() || errors.Is(e.err, context.DeadlineExceeded) {
		return "no answer to the handshake of TLS, as from a port without TLS: " + e.err.Error()
	}
	return e.err.Error()
}

// Unwrap returns a list, because go-redis strips what [errors.Unwrap] can.
func (e *handshakeError) Unwrap() []error { return []error{e.err} }

// A newConn is a TLS connection that notes whether anything was read from it. With TLS 1.3 the
// handshake of a client ends before the server has looked at its certificate, so the refusal of a
// client comes with the first read.
type newConn struct {
	*tls.Conn
	heard atomic.Bool
}

// Read implements [net.Conn].
func (c *newConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, c.explain(err)
}

// Write implements [net.Conn]. If the server has hung up already, it has said why before: that is
// read in place of the error of the write.
func (c *newConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil && !c.heard.Load() && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		if _, said := c.Conn.Read(make([]byte, 1)); said != nil {
			err = said
		}
	}
	return n, c.explain(err)
}

// explain returns err as one of the handshake if it is an alert that came before anything else.
func (c *newConn) explain(err error) error {
	if c.heard.Load() || alertOf(err) == "" {
		return err
	}
	return &handshakeError{err}
}

// A plainConn is a connection without TLS that notes whether anything was read from it. It is a
// *net.TCPConn, because the client peeks into the sockets of idle connections.
type plainConn struct {
	*net.TCPConn
	heard atomic.Bool
}

// Read implements [net.Conn].
func (c *plainConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	switch {
	case n > 0:
		c.heard.Store(true)
	case !c.heard.Load() && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		err = fmt.Errorf("it hung up before it said anything, as a port for TLS does: if it is one, use rediss: %w", err)
	}
	return n, err
}

// The alerts with which a server refuses a client's certificate, or that it has none (RFC 8446,
// section 6.2).
var clientAlerts = []tls.AlertError{
	42,  // bad_certificate
	43,  // unsupported_certificate
	44,  // certificate_revoked
	45,  // certificate_expired
	46,  // certificate_unknown
	48,  // unknown_ca
	49,  // access_denied
	116, // certificate_required
}

// alertOf returns the text of an alert that the server sent, or "". Package tls gives them a type of
// its own, but the texts of [tls.AlertError].
func alertOf(err error) string {
	op := (*net.OpError)(nil)
	if !errors.As(err, &op) || op.Op != "remote error" {
		return ""
	}
	return op.Err.Error()
}

// refusesClient reports whether an alert is about the client's certificate.
func refusesClient(alert string) bool {
	return slices.ContainsFunc(clientAlerts, func(a tls.AlertError) bool { return a.Error() == alert })
}

// kindOfHandshake returns this package's error for one of TLS, or nil.
func kindOfHandshake(err error) error {
	var failed *handshakeError
	if !errors.As(err, &failed) {
		return nil
	}
	invalid, ne := x509.CertificateInvalidError{}, net.Error(nil)
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return ErrAuthority
	case errors.As(err, new(x509.HostnameError)):
		return ErrServerName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return ErrCertificateDates
	case refusesClient(alertOf(err)):
		return ErrClientCertificate
	case errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return ErrTimeout
	}
	return ErrTLS
}
