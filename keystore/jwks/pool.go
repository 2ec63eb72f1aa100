package jwks

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// keepIdle is how long a connection is kept without a request: long enough for the next of many
// tenants at one host, and for the keys after the metadata. Sources that are fetched once in minutes
// hold no sockets.
const keepIdle = 2 * time.Second

// keepMost is for how long connections are kept however many requests there are. Then a name is
// resolved and judged again: an issuer may have moved.
const keepMost = time.Minute

// A pool keeps connections between requests. A connection that one guard permitted serves only
// sources with the same guard.
type pool struct {
	c *Client

	mu  sync.Mutex // guards all
	all map[string]*pooled
}

// A pooled is the transport of one guard and scheme.
type pooled struct {
	*http.Transport
	made, used time.Time
}

// transport returns the transport for requests of sources with a guard, over http or https.
func (p *pool) transport(g guard, plain bool) *http.Transport {
	key, now := fmt.Sprint(g.key(), plain), p.c.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.all[key]
	if one == nil {
		for other, o := range p.all { // settings that no source has any longer
			if now.Sub(o.used).Abs() > time.Hour {
				o.CloseIdleConnections()
				delete(p.all, other)
			}
		}
	}
	if one != nil && now.Sub(one.made).Abs() >= keepMost {
		one.CloseIdleConnections()
		p.all[key+" before"] = one // requests may still run, and closeIdle is for what they leave
		one = nil
	}
	if one == nil {
		one = &pooled{Transport: p.newTransport(g, plain), made: now}
		p.all[key] = one
	}
	one.used = now
	return one.Transport
}

// closeIdle closes the connections that no request uses.
func (p *pool) closeIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.all {
		one.CloseIdleConnections()
	}
}

// newTransport returns a transport over HTTP/1.1. What it does for a request ends with that request.
func (p *pool) newTransport(g guard, plain bool) *http.Transport {
	c := p.c
	d := dialer{guard: g, plain: plain, lookup: c.cfg.LookupNetIP, dial: c.cfg.DialContext, spawn: c.spawn}
	if d.lookup == nil {
		d.lookup = net.DefaultResolver.LookupNetIP
	}
	t := &http.Transport{
		MaxIdleConns:           cmp.Or(c.cfg.Fetches, defaultFetches),
		MaxIdleConnsPerHost:    cmp.Or(c.cfg.PerHost, defaultPerHost),
		IdleConnTimeout:        keepIdle,
		MaxResponseHeaderBytes: maxHeader,
		TLSClientConfig:        c.tlsConfig(),
		TLSHandshakeTimeout:    fetchTimeout,
	}
	t.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		return p.connect(ctx, &d, addr, nil)
	}
	switch {
	case plain: // within our own network, which the proxy is not for
	case c.cfg.Proxy != nil:
		d.direct = hostPort(c.cfg.Proxy)
		t.Proxy = http.ProxyURL(c.cfg.Proxy)
	default:
		t.DialTLSContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
			return p.connect(ctx, &d, addr, t.TLSClientConfig)
		}
	}
	return t
}

// connect connects for the request that ctx is of, and shakes hands if secure is not nil. Close
// waits for it, and for the end of the connection.
func (p *pool) connect(ctx context.Context, d *dialer, addr string, secure *tls.Config) (net.Conn, error) {
	r := ctx.Value(requestKey{}).(*request)
	if !p.c.hold() {
		return nil, errClosed
	}
	// The ctx of a transport's dial outlives the request; that of the request does not.
	conn, err := d.connect(r.ctx, addr)
	if err != nil {
		p.c.conns.Done()
		return nil, err
	}
	capped := &cappedConn{Conn: conn, closed: sync.OnceFunc(p.c.conns.Done)}
	capped.left.Store(rawExtra)
	// A proxy may hang, and a transport gives it a minute, whatever the request's own time.
	capped.unclaimed = time.AfterFunc(fetchTimeout, func() { capped.end() })
	if secure == nil {
		r.step.CompareAndSwap(StepConnect, StepResponse)
		return capped, nil
	}
	r.step.CompareAndSwap(StepConnect, StepTLS)
	return handshake(r.ctx, capped, addr, secure)
}

func handshake(ctx context.Context, conn net.Conn, addr string, config *tls.Config) (net.Conn, error) {
	config = config.Clone()
	config.ServerName, _, _ = net.SplitHostPort(addr)
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, asError(err, StepTLS, tlsWords(err))
	}
	return secure, nil
}

// A request is one document that is asked for, with its redirects.
type request struct {
	ctx  context.Context
	next *http.Transport
	step atomic.Value // the current Step
	raw  int          // bytes that it may read on a connection
	last bool         // the last one on its connection: some hosts send a body with a 304
}

// requestKey is the key of a *request in the context of its dials.
type requestKey struct{}

// RoundTrip implements [http.RoundTripper]. It notes the steps, and limits what each connection
// brings. It refuses an answer that was there before its request: it is what the host, or a proxy before
// it, sent beyond the end of another answer, and may be what the issuer of another tenant chose. An
// [http.Transport] drops such bytes only if it has the time to see them.
func (r *request) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.WithValue(req.Context(), requestKey{}, r))
	context.AfterFunc(r.ctx, cancel) // Config.Wrap may have given req a context that does not end
	var conn atomic.Pointer[cappedConn]
	var early atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { r.step.Store(StepConnect) },
		GotConn: func(info httptrace.GotConnInfo) {
			r.step.Store(StepResponse)
			if capped := cappedIn(info.Conn); capped != nil {
				capped.unclaimed.Stop()
				capped.left.Store(int64(r.raw))
				conn.Store(capped)
			}
		},
		GotFirstResponseByte: func() {
			if capped := conn.Load(); capped != nil && capped.left.Load() == int64(r.raw) {
				early.Store(true)
			}
		},
	}))
	req.Close = req.Close || r.last // after a redirect, too
	resp, err := r.next.RoundTrip(req)
	if err == nil && early.Load() {
		resp.Body.Close()
		conn.Load().Close()
		return nil, errEarly
	}
	return resp, err
}

// cappedIn returns the cappedConn in the connection of a transport, beneath TLS.
func cappedIn(conn net.Conn) *cappedConn {
	for {
		switch inner := conn.(type) {
		case *tls.Conn:
			conn = inner.NetConn()
		case *cappedConn:
			return inner
		default:
			return nil
		}
	}
}

var (
	errRaw   = failf(StepBody, "more bytes on the connection than a set may have, with 1 MiB for the rest")
	errEarly = failf(StepResponse, "an answer from before the request: the host sent more bytes than its last answer has")
)

// A cappedConn brings so many more bytes, and then an error.
type cappedConn struct {
	net.Conn
	left      atomic.Int64 // a request sets it; what is read before the first is the handshake
	unclaimed *time.Timer  // closes it, until a request has it
	closed    func()
}

// Read implements [net.Conn].
func (c *cappedConn) Read(b []byte) (int, error) {
	left := c.left.Load()
	if left <= 0 {
		return 0, errRaw
	}
	n, err := c.Conn.Read(b[:min(int64(len(b)), left)])
	c.left.Add(-int64(n))
	return n, err
}

// Close implements [net.Conn].
func (c *cappedConn) Close() error {
	c.unclaimed.Stop()
	return c.end()
}

func (c *cappedConn) end() error {
	defer c.closed()
	return c.Conn.Close()
}

// tlsConfig returns the configuration of all connections.
func (c *Client) tlsConfig() *tls.Config {
	config := new(tls.Config)
	if c.cfg.TLS != nil {
		config = c.cfg.TLS.Clone()
	}
	config.ServerName = "" // that of each host
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.NextProtos = []string{"http/1.1"}
	if config.Time == nil {
		config.Time = c.clock
	}
	return config
}

// hold has Close wait for a connection, or for a goroutine on the way to one, until c.conns.Done. It
// returns false if the Client was closed.
func (c *Client) hold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.conns.Add(1)
	}
	return !c.closed
}

// spawn runs f on a goroutine that Close waits for. It returns false if the Client was closed.
func (c *Client) spawn(f func()) bool {
	if !c.hold() {
		return false
	}
	go func() {
		defer c.conns.Done()
		f()
	}()
	return true
}

// hostPort returns u's host and port, in the form that is dialled.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
