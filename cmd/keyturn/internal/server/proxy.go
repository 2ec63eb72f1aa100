package server

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// An Upstream is the service that a [Server] stands in front of. It gets every request that has a good
// token, with the token's identity in headers that no client can set.
type Upstream struct {
	// URL is where the service is: its scheme is http, https or h2c, which is HTTP/2 without TLS, as
	// gRPC needs it. It has a host, and no path.
	URL *url.URL

	// ForwardToken says that the service gets the token too: it verifies it itself.
	ForwardToken bool

	// OwnHost says that the service sees its own name in Host. Otherwise it sees the client's.
	OwnHost bool

	// Public are the requests that need no token.
	Public []PublicRoute

	// PassPreflight says that the service answers the preflight requests of browsers. They have no
	// token. Otherwise they are refused as every request without one.
	PassPreflight bool

	// Publish says that the server answers requests for the public keys of rings, instead of the service.
	Publish bool

	// Recheck is how often a response that goes on is asked about again: it ends when its token does.
	// Zero means 5 s, and negative that a response may outlive its token.
	Recheck time.Duration

	// Dial, FirstByte and Idle are how long the service may take to accept a connection and to begin
	// its answer, and how long a request or a response may stand still. Zero means 2 s, 30 s and
	// 2 min. A negative FirstByte means that there is no limit.
	Dial, FirstByte, Idle time.Duration

	// MaxBody is how many bytes the body of a request may have. Zero means any number.
	MaxBody int64

	// TrustedProxies are those whose X-Forwarded-For, -Proto and -Host are believed.
	TrustedProxies []netip.Prefix
}

// A PublicRoute is a request that needs no token. The client must spell it exactly like this: there is
// no pattern, and no query.
type PublicRoute struct {
	Method string
	Path   string // as it stands in the request line
}

const (
	defaultRecheck   = 5 * time.Second
	defaultDial      = 2 * time.Second
	defaultFirstByte = 30 * time.Second
	defaultIdle      = 2 * time.Minute
)

// streamAge is how old a response is that counts as a stream, whatever it says of itself.
func (u *Upstream) streamAge() time.Duration {
	if u.Recheck < 0 {
		return defaultRecheck
	}
	return u.Recheck
}

// withDefaults returns u with its zero fields filled in.
func (u Upstream) withDefaults() Upstream {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{{&u.Recheck, defaultRecheck}, {&u.Dial, defaultDial}, {&u.FirstByte, defaultFirstByte}, {&u.Idle, defaultIdle}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return u
}

// A proxy passes requests with a good token on to the upstream. It decides on the token alone: what a
// path means is the upstream's to say, so that nothing is decided on a spelling of it.
type proxy struct {
	up           Upstream
	scheme       string // of requests to the upstream
	identity     middleware.Identity
	authenticate func(*http.Request) (*verifier.Token, error)
	admitted     func(*http.Request) error // why the client's certificate is not good now
	refuse       func(http.ResponseWriter, *http.Request, error)
	unwanted     unwantedHeaders // of clients
	credentials  unwantedHeaders // that requests without a token must not bring to the upstream
	forward      httputil.ReverseProxy
	transport    *http.Transport
	streams      streams
	log          refusalLog
	meter        Meter
	now          func() time.Time
}

// newProxy returns the proxy of a generation to its upstream.
func newProxy(s *generation) *proxy {
	options := append(tokenPlaces(s.cfg.TokenHeaders), middleware.WithErrorHandler(s.refuse))
	p := &proxy{
		up: s.cfg.Upstream.withDefaults(), identity: s.identity(), meter: s.cfg.Meter, now: s.cfg.Now,
		log:          refusalLog{log: s.cfg.Logger, now: s.cfg.Now},
		authenticate: middleware.Authenticator(s.verifier, options...),
		admitted:     s.admitted,
		refuse: func(w http.ResponseWriter, r *http.Request, err error) {
			setHeaders(w.Header())
			middleware.Refuse(w, r, err, options...)
		},
	}
	p.scheme = p.up.URL.Scheme
	protocols := new(http.Protocols)
	switch p.scheme {
	case schemeH2C:
		p.scheme = "http"
		protocols.SetUnencryptedHTTP2(true)
	default:
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	}
	p.unwanted = newUnwanted(s.cfg.Identity, s.cfg.TokenHeaders, p.up.ForwardToken)
	p.credentials = newCredentials(s.cfg.TokenHeaders)
	p.transport = &http.Transport{
		DialContext:           (&net.Dialer{Timeout: p.up.Dial}).DialContext,
		TLSHandshakeTimeout:   p.up.Dial,
		ResponseHeaderTimeout: max(p.up.FirstByte, 0),
		MaxIdleConnsPerHost:   maxIdleConns,
		IdleConnTimeout:       idleConnTime,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // what the client did not ask for, it does not get, and the bytes stay as they are
		Protocols:             protocols,
	}
	p.forward = httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      p.transport,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, err error) { w.(*exchange).fail(err) },
		ModifyResponse: watchResponse,
		BufferPool:     new(bufferPool),
		ErrorLog:       log.New(io.Discard, "", 0), // exchange.report logs instead, so often at most
	}
	return p
}

const (
	schemeH2C = "h2c"

	// maxIdleConns bounds the connections to the upstream that wait for a request.
	maxIdleConns = 512

	// idleConnTime is how long they wait. It is shorter than the keep-alive of gunicorn (2 s), Node and
	// uvicorn (5 s): else a POST could meet the end of its connection, and must not be repeated.
	idleConnTime = 1500 * time.Millisecond
)

// serveBy prepares srv for requests to the upstream. The exchange bounds their time, not the server: a
// stream may go on for hours.
func (p *proxy) serveBy(srv *http.Server) {
	srv.ReadTimeout, srv.WriteTimeout = 0, 0
	if p.up.URL.Scheme == schemeH2C {
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetHTTP2(true)
		srv.Protocols.SetUnencryptedHTTP2(true) // for gRPC clients; there is no upgrade to it
	}
}

// close ends the streams that no shutdown of the HTTP server ends, and the connections to the upstream.
func (p *proxy) close() {
	if p == nil {
		return
	}
	p.streams.close()
	p.log.flush()
	p.transport.CloseIdleConnections()
}

// ServeHTTP passes r on, or refuses it.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{proxy: p, w: w, control: http.NewResponseController(w), in: r, began: p.now()}
	x.extend()
	if r.ContentLength != 0 {
		x.limitRest() // until the request is passed on
	}
	switch {
	case r.Method == http.MethodConnect:
		x.answer(http.StatusMethodNotAllowed, "method_not_allowed", "this proxy opens no tunnels")
		return
	case !x.setTarget():
		x.answer(http.StatusBadRequest, "invalid_request", "the path of this request cannot be passed on as it is")
		return
	case p.isPublic(r):
		x.bare = true
	case p.up.PassPreflight && isPreflight(r):
		x.bare, x.preflight = true, true
	default:
		if err := x.admit(); err != nil {
			x.limitAnswer()
			x.count(middleware.Status(err))
			p.refuse(w, r, err)
			return
		}
	}
	x.run()
}

// admit verifies the token of x and makes the headers that tell its identity.
func (x *exchange) admit() (err error) {
	if x.token, err = x.proxy.authenticate(x.in); err != nil {
		return err
	}
	x.identity = make(http.Header, 8)
	return x.proxy.identity.Set(x.in.Context(), x.identity, x.token)
}

// setTarget sets the path that the upstream gets: byte for byte that of the request line. It reports
// false for those that cannot be sent so. [http.Transport] would take //a for a host. And HTTP/2 lets a
// path hold a space, which ends the path in HTTP/1.1 (RFC 9112, section 3): after "/a HTTP/1.0" the
// upstream may take a body for the next request, with the identity that its sender likes.
func (x *exchange) setTarget() bool {
	if strings.ContainsFunc(x.in.RequestURI, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return false
	}
	raw, _, _ := strings.Cut(x.in.RequestURI, "?")
	if i := strings.Index(raw, "://"); i > 0 && !strings.HasPrefix(raw, "/") { // the absolute form
		_, raw, _ = strings.Cut(raw[i+len("://"):], "/")
		raw = "/" + raw
	}
	u := &x.target
	u.Path, u.RawPath, u.RawQuery, u.ForceQuery = x.in.URL.Path, raw, x.in.URL.RawQuery, x.in.URL.ForceQuery
	if u.EscapedPath() == raw {
		return true
	}
	// A character is not as RFC 3986 wants it, such as |, and package url would encode the whole path
	// again: then %2F becomes a slash.
	u.Opaque = raw
	return strings.HasPrefix(raw, "/") && !strings.HasPrefix(raw, "//")
}

// isPublic reports whether r is one of the requests that need no token.
func (p *proxy) isPublic(r *http.Request) bool {
	return slices.ContainsFunc(p.up.Public, func(route PublicRoute) bool {
		return r.Method == route.Method && r.RequestURI == route.Path
	})
}

// isPreflight reports whether r is a CORS preflight request.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Origin"]) == 1 && len(r.Header["Access-Control-Request-Method"]) == 1
}

// rewrite makes the request to the upstream. It is called after [httputil.ReverseProxy] has removed the
// headers that Connection lists, so that a client cannot name the identity there (golang/go#50580).
func (p *proxy) rewrite(pr *httputil.ProxyRequest) {
	x := pr.In.Context().Value(exchangeKey{}).(*exchange)
	out := pr.Out
	target := x.target
	target.Scheme, target.Host = p.scheme, p.up.URL.Host
	out.URL = &target
	if p.up.OwnHost {
		out.Host = ""
	}
	out.Trailer = nil
	p.unwanted.remove(out.Header)
	if x.bare || !wantsWebSocket(pr.In) {
		// Every other protocol could carry requests past us: see golang/go#80416 for h2c.
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	}
	p.setForwarded(pr)
	for name, values := range x.identity {
		out.Header[name] = values
	}
	if x.bare {
		p.credentials.remove(out.Header)
	}
	if x.preflight {
		out.Body, out.ContentLength, out.TransferEncoding = nil, 0, nil
	}
}

// wantsWebSocket reports whether r asks for a WebSocket as RFC 6455, section 4.1, says.
func wantsWebSocket(r *http.Request) bool {
	upgrade := r.Header["Upgrade"]
	return r.ProtoMajor == 1 && r.Method == http.MethodGet && r.ContentLength == 0 && len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket")
}

// answerError answers as package middleware does.
func answerError(w http.ResponseWriter, status int, code, description string) {
	setHeaders(w.Header())
	answer(w, status, map[string]string{"error": code, "error_description": description})
}

// fail answers a request that err has ended before the upstream's answer, unless the client is gone.
func (x *exchange) fail(err error) {
	cut, bodyErr := x.state()
	x.failure = err
	if x.status != 0 {
		return // too late for another answer
	}
	x.limitAnswer()
	if x.in.ProtoMajor == 1 && !x.sent.Load() {
		x.w.Header().Set("Connection", "close") // net/http would wait for the rest of the body
	}
	tooLarge := (*http.MaxBytesError)(nil)
	switch {
	case cut != nil && cut != errIdle:
		x.count(middleware.Status(cut))
		x.proxy.refuse(x.w, x.in, cut)
	case errors.As(bodyErr, &tooLarge):
		x.answer(http.StatusRequestEntityTooLarge, "content_too_large", "the body of this request is too large")
	case cut == errIdle && !x.sent.Load():
		x.answer(http.StatusRequestTimeout, "timeout", "the body of this request did not arrive in time")
	case cut == errIdle, isTimeout(err) && bodyErr == nil:
		x.answer(http.StatusGatewayTimeout, "gateway_timeout", "the service behind this proxy did not answer in time")
	case x.in.Context().Err() != nil, bodyErr != nil:
		x.answer(statusClientGone, "client_gone", "the client is gone")
	default:
		x.answer(http.StatusBadGateway, "bad_gateway", "the service behind this proxy cannot be reached")
	}
}

func isTimeout(err error) bool {
	e := net.Error(nil)
	return errors.As(err, &e) && e.Timeout()
}

// answer answers with an error of the proxy's own.
func (x *exchange) answer(status int, code, description string) {
	x.limitAnswer()
	x.count(status)
	answerError(x.w, status, code, description)
}

// answerTime is how long a client may take to let an answer of the proxy's own through. It needs no token
// for that, and HTTP/2 lets it hold back the answers of 250 requests on each connection, and their memory.
const answerTime = 5 * time.Second

// limitAnswer bounds how long the answer may take. A deadline from before may be over.
func (x *exchange) limitAnswer() { x.control.SetWriteDeadline(x.proxy.now().Add(answerTime)) }

// statusClientGone is what the log and the metrics say of a request whose client has gone: nginx made
// the number up, and no client sees it.
const statusClientGone = 499

var errClientGone = errors.New("the client is gone")

// A bufferPool lends the buffers that responses are copied with.
type bufferPool struct{ pool sync.Pool }

const bufferBytes = 32 << 10

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[bufferBytes]byte); ok {
		return b[:]
	}
	return new([bufferBytes]byte)[:]
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[bufferBytes]byte)(b)) }

type exchangeKey struct{}

// CheckUpstreamURL returns why u cannot be [Upstream.URL], or nil.
func CheckUpstreamURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != schemeH2C:
		return errors.New("want a URL that begins with http://, https:// or h2c://, such as http://127.0.0.1:3000")
	case u.User != nil:
		return errors.New("want a URL without a user or a password")
	case u.Hostname() == "":
		return errors.New("want a URL with a host, such as http://127.0.0.1:3000")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return errors.New("want a URL without a path, query or fragment: the upstream gets the path of the client")
	}
	return nil
}
