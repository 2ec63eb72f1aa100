package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// An exchange is one request and its answer on their way through the proxy. It is the
// [http.ResponseWriter] of both, and follows them by a timer:
//
//   - while the answer goes on, the verifier is asked again about the token, and a verdict against it
//     cuts the exchange. That it cannot tell cuts nothing before the token expires;
//   - if nothing moves in either direction for [Upstream.Idle], the exchange is cut too.
type exchange struct {
	proxy           *proxy
	w               http.ResponseWriter // to the client
	control         *http.ResponseController
	in              *http.Request
	token           *verifier.Token // nil if bare
	bare, preflight bool            // it needs no token, and brings none to the upstream
	target          url.URL         // the path and the query of the request to the upstream
	identity        http.Header
	began           time.Time
	ctx             context.Context // ends when the exchange is cut
	cancel          context.CancelCauseFunc
	writeDeadline   time.Time
	body            *requestBody // of the client; nil if it has none
	status          int          // of the answer; 0 before it
	failure         error        // of the upstream

	moved    atomic.Int64 // counts reads and writes on both sides
	sent     atomic.Bool  // the whole request has been read
	answered atomic.Bool  // the answer has begun

	ticks sync.WaitGroup // of tick

	mu       sync.Mutex // guards what follows
	timer    *time.Timer
	pause    time.Duration // until the next tick
	seen     int64         // of moved, at the last tick
	quiet    time.Duration // since moved has changed
	isStream bool
	conn     net.Conn // of the client, once it is a WebSocket's
	cut      error    // why the exchange was cut; nil if it was not
	bodyErr  error    // of reading the client's body
	ended    bool
}

// Why a stream is cut, beside the verdict of the verifier.
var (
	errIdle     = errors.New("nothing moved")
	errStopping = errors.New("the server is stopping")
)

// run passes the request on, and returns when its answer has ended.
func (x *exchange) run() {
	x.ctx, x.cancel = context.WithCancelCause(context.WithValue(x.in.Context(), exchangeKey{}, x))
	r := x.in.WithContext(x.ctx)
	if r.ContentLength == 0 {
		x.sent.Store(true)
	} else {
		body := r.Body
		if limit := x.proxy.up.MaxBody; limit > 0 {
			body = http.MaxBytesReader(x.w, body, limit)
		}
		x.body = &requestBody{ReadCloser: body, exchange: x}
		r.Body = x.body
		x.control.SetReadDeadline(time.Time{})
		x.control.EnableFullDuplex() // or net/http holds an early answer back until the body ends
	}
	defer x.end()
	x.mu.Lock()
	x.timer = time.AfterFunc(x.nextLocked(), x.tick)
	x.mu.Unlock()
	x.proxy.forward.ServeHTTP(x, r)
}

// nextLocked returns, and notes, how long to wait for the next tick.
func (x *exchange) nextLocked() time.Duration {
	x.pause = x.proxy.up.Idle
	if x.rechecks() {
		x.pause = min(x.pause, x.proxy.up.Recheck)
		if left := x.token.Expires().Sub(x.proxy.now()); left > 0 {
			x.pause = min(x.pause, left)
		}
	}
	return x.pause
}

// rechecks reports whether the exchange ends with its token.
func (x *exchange) rechecks() bool { return x.token != nil && x.proxy.up.Recheck > 0 }

// tick looks after an exchange that goes on.
func (x *exchange) tick() {
	x.mu.Lock()
	if x.ended || x.cut != nil {
		x.mu.Unlock()
		return
	}
	x.ticks.Add(1)
	defer x.ticks.Done()
	idle := x.idleLocked()
	if x.proxy.now().Sub(x.began) >= x.proxy.up.streamAge() {
		x.streamLocked()
	}
	x.mu.Unlock()
	err := x.judge()
	if err == nil && idle {
		err = errIdle
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		x.cutLocked(err)
	} else if !x.ended {
		x.timer.Reset(x.nextLocked())
	}
}

// idleLocked reports whether nothing has moved for too long. While the upstream thinks about a whole
// request, nothing can move, and FirstByte bounds that.
func (x *exchange) idleLocked() bool {
	moved := x.moved.Load()
	if moved != x.seen {
		x.seen, x.quiet = moved, 0
		return false
	}
	x.quiet += x.pause
	limit := x.proxy.up.Idle
	if x.sent.Load() && !x.answered.Load() && x.conn == nil {
		if x.proxy.up.FirstByte < 0 {
			return false
		}
		limit += x.proxy.up.FirstByte
	}
	return x.quiet >= limit
}

// judge asks the verifier again, and returns its verdict against the token. It finds the token where it
// was found before: the headers of the client's request are as they were. A certificate of the client that
// a reload has taken out ends the exchange too.
func (x *exchange) judge() error {
	if !x.rechecks() {
		return nil
	}
	if err := x.proxy.admitted(x.in); err != nil {
		return fmt.Errorf("%w: %w", middleware.ErrForbidden, err)
	}
	t, err := x.proxy.authenticate(x.in.WithContext(x.ctx))
	switch {
	case err == nil && t.Tenant() != x.token.Tenant():
		return verifier.ErrInvalid // its issuer is another tenant's now
	case err != nil && x.ctx.Err() == nil && middleware.Status(err) != http.StatusServiceUnavailable:
		return err
	}
	if end := x.token.Expires(); err != nil && !end.IsZero() && !x.proxy.now().Before(end) {
		return verifier.ErrExpired
	}
	return nil
}

// cutLocked ends the exchange on both sides. [httputil.ReverseProxy] closes the connection to the
// upstream when the context ends. The deadlines wake who waits for the client.
func (x *exchange) cutLocked(err error) {
	if x.ended || x.cut != nil {
		return
	}
	x.cut = err
	x.cancel(err)
	past := time.Unix(1, 0)
	if x.conn != nil {
		x.conn.SetDeadline(past)
		return
	}
	x.control.SetReadDeadline(past)
	if x.answered.Load() {
		x.control.SetWriteDeadline(past)
	}
}

// end releases what the exchange has, and reports how it ended.
func (x *exchange) end() {
	x.mu.Lock()
	x.ended = true
	x.timer.Stop()
	x.mu.Unlock()
	x.cancel(nil)
	x.ticks.Wait()
	if x.body != nil && x.conn == nil && x.in.ProtoMajor == 1 {
		x.endBody()
	}
	x.proxy.streams.remove(x)
	x.report()
}

// streamLocked notes that the answer is a stream.
func (x *exchange) streamLocked() {
	if !x.isStream {
		x.isStream = true
		x.proxy.meter.StreamOpened()
	}
}

// state returns why the exchange was cut, and what reading the client's body failed with.
func (x *exchange) state() (cut, bodyErr error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cut, x.bodyErr
}

// Header implements [http.ResponseWriter].
func (x *exchange) Header() http.Header { return x.w.Header() }

// WriteHeader implements [http.ResponseWriter].
func (x *exchange) WriteHeader(status int) {
	if status >= 200 {
		if _, typed := x.w.Header()["Content-Type"]; !typed {
			x.w.Header()["Content-Type"] = nil // net/http would guess one (golang/go#31595)
		}
		if x.in.ProtoMajor == 1 && !x.sent.Load() {
			// Else what comes of the body later may be taken for another request.
			x.w.Header().Set("Connection", "close")
		}
		x.count(status)
		x.answered.Store(true)
	}
	x.w.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (x *exchange) Write(b []byte) (int, error) {
	if err := x.extend(); err != nil {
		return 0, err
	}
	n, err := x.w.Write(b)
	x.moved.Add(1)
	return n, err
}

// FlushError is what [http.ResponseController] calls.
func (x *exchange) FlushError() error {
	if err := x.extend(); err != nil {
		return err
	}
	return x.control.Flush()
}

// extend moves the deadline of writes to the client, unless the exchange is cut. A sixteenth of it may
// be missing, so that not every write has to move it.
func (x *exchange) extend() error {
	idle := x.proxy.up.Idle
	end := x.proxy.now().Add(idle)
	if end.Sub(x.writeDeadline) < idle/16 {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cut != nil {
		return x.cut
	}
	x.writeDeadline = end
	return x.control.SetWriteDeadline(end)
}

// Hijack implements [http.Hijacker], for WebSockets.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := x.control.Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.conn = conn
	x.count(http.StatusSwitchingProtocols)
	x.streamLocked()
	if !x.proxy.streams.add(x) {
		x.cutLocked(errStopping)
	} else if x.cut != nil {
		conn.SetDeadline(time.Unix(1, 0)) // the cut came before
	}
	return &clientConn{conn, x}, rw, nil
}

// A clientConn is the connection of a WebSocket's client.
type clientConn struct {
	net.Conn
	exchange *exchange
}

func (c *clientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.exchange.moved.Add(1)
	return n, err
}

func (c *clientConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.exchange.moved.Add(1)
	return n, err
}

// CloseWrite tells the client that the upstream sends nothing more.
func (c *clientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// A requestBody is the body of a client's request.
type requestBody struct {
	io.ReadCloser
	exchange *exchange

	mu     sync.Mutex // held by a read, guards closed
	closed bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, io.ErrClosedPipe
	}
	n, err := b.ReadCloser.Read(p)
	x := b.exchange
	x.moved.Add(1)
	if err == io.EOF {
		x.sent.Store(true)
	} else if err != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.bodyErr = err
	}
	return n, err
}

// restTime is how long a client may take to send a body that is not passed on. net/http reads up to 256
// KiB of it, so that the client can read the answer before the connection ends.
const restTime = 2 * time.Second

// limitRest bounds how long the rest of the body may take.
func (x *exchange) limitRest() { x.control.SetReadDeadline(x.proxy.now().Add(restTime)) }

// endBody ends the reads of the body. The upstream may have answered before it had the whole of it, and
// then [http.Transport] may still wait for the client. net/http would end such a read, but clear the
// deadline, and wait for the rest of the body without one.
func (x *exchange) endBody() {
	if !x.sent.Load() {
		x.control.Flush() // the answer does not wait for that
		x.limitRest()
	}
	x.body.mu.Lock()
	defer x.body.mu.Unlock()
	x.body.closed = true
}

const eventStream = "text/event-stream"

// watchResponse prepares an exchange for the answer of the upstream. It is a ModifyResponse of
// [httputil.ReverseProxy].
func watchResponse(res *http.Response) error {
	x := res.Request.Context().Value(exchangeKey{}).(*exchange)
	if res.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	if media := res.Header.Get("Content-Type"); len(media) >= len(eventStream) && strings.EqualFold(media[:len(eventStream)], eventStream) {
		x.mu.Lock()
		x.streamLocked()
		x.mu.Unlock()
	}
	res.Body = &responseBody{res.Body, x}
	return nil
}

// A responseBody is the body of an upstream's answer.
type responseBody struct {
	io.ReadCloser
	exchange *exchange
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.exchange.moved.Add(1)
	if err != nil && err != io.EOF {
		b.exchange.failure = err
	}
	return n, err
}

// outcome returns how the exchange ended, and the error if it was not as the upstream meant it.
func (x *exchange) outcome() (reason string, err error) {
	cut, _ := x.state()
	switch {
	case cut == errIdle:
		return StreamIdle, cut
	case cut == errStopping:
		return StreamShutdown, cut
	case errors.Is(cut, verifier.ErrExpired):
		return StreamExpired, cut
	case cut != nil:
		return StreamRevoked, cut
	case x.status == statusClientGone, x.in.Context().Err() != nil && x.conn == nil:
		return StreamClient, errClientGone
	}
	return StreamUpstream, x.failure
}

// report tells the log and the metrics how the exchange ended.
func (x *exchange) report() {
	p := x.proxy
	reason, err := x.outcome()
	if x.isStream {
		p.meter.StreamEnded(reason)
	}
	if err == nil {
		return
	}
	level := slog.LevelInfo
	if reason == StreamUpstream {
		level = slog.LevelWarn
	}
	attrs := []any{"status", x.status, "seconds", p.now().Sub(x.began).Seconds()}
	if x.token != nil {
		attrs = append(attrs, "tenant", x.token.Tenant())
	}
	p.log.note(x.in, level, reason, "request to the upstream ended early", append(attrs, "err", err)...)
}

// count counts the answer, once its header is written.
func (x *exchange) count(status int) {
	x.status = status
	x.proxy.meter.Request(FaceProxy, status, x.proxy.now().Sub(x.began))
}

// streams are the WebSockets that are open: [http.Server] does not know them any more.
type streams struct {
	mu     sync.Mutex // guards what follows
	open   map[*exchange]struct{}
	closed bool
	wg     sync.WaitGroup // of open
}

// none reports whether no WebSocket is open.
func (s *streams) none() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open) == 0
}

// add notes a WebSocket. It reports false once the proxy closes.
func (s *streams) add(x *exchange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.open == nil {
		s.open = make(map[*exchange]struct{})
	}
	s.open[x] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *streams) remove(x *exchange) {
	if x.conn == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[x]; ok {
		delete(s.open, x)
		s.wg.Done()
	}
}

// close cuts all WebSockets, and waits until their connections are closed.
func (s *streams) close() {
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, x := range all {
		x.mu.Lock()
		x.cutLocked(errStopping)
		x.mu.Unlock()
	}
	s.wg.Wait()
}
