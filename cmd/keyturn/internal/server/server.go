package server

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/verifier"
)

// A Server serves an API that only good tokens open. [New] opens one, and [Server.Run] closes it.
type Server struct {
	cfg      Config       // of the start; that of now is in live
	demo     *demo        // nil without Config.Demo
	listener net.Listener // nil with Config.Unix alone
	unix     net.Listener // nil without Config.Unix
	admin    net.Listener // nil without Config.Admin
	verifier *verifier.Verifier
	purpose  purpose // of /readyz without one: to sign, if the server does
	refusals refusalLog
	metrics  *metrics.Collector // nil without Config.Admin
	page     http.Handler       // of metrics
	stopping atomic.Bool        // Run will end

	live       atomic.Pointer[generation]
	revoked    *revocationList // nil without Config.Revocations
	replaced   chan struct{}   // receives after rings were added to live
	retiring   sync.WaitGroup  // of the sources that a reload has replaced
	mu         sync.Mutex      // held while live and the verifier's tenants change; guards incomplete
	proxies    []*proxy        // that may have streams; guarded by mu
	incomplete []string        // tenants whose rings have not said yet how much leeway they allow
}

// New opens what cfg names, and listens. It waits up to 10 s for the rings, and for no issuer. Its
// error is an [Error]; then nothing stays open.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	if err := checkAuthz(&cfg); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg.withDefaults(), purpose: forVerify, replaced: make(chan struct{}, 1)}
	s.startMetrics()
	s.refusals.log, s.refusals.hint, s.refusals.now = s.cfg.Logger, s.cfg.Hint, s.cfg.Now
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.cfg.Demo != nil {
		s.purpose = forSign
		if s.demo, err = startDemo(&s.cfg); err != nil {
			return nil, err
		}
	}
	first, err := openTenants(ctx, &s.cfg)
	if err != nil {
		return nil, err
	}
	s.live.Store(s.generation(s.cfg, first))
	if err = s.listen(ctx); err != nil {
		return nil, err
	}
	if s.demo != nil {
		if err = s.demo.open(ctx, first, s.Endpoint(), s.observeSign()); err != nil {
			return nil, err
		}
	}
	if err = s.newVerifier(ctx, first); err != nil {
		return nil, err
	}
	s.incomplete = first.ringIDs()
	s.install(s.live.Load())
	return s, nil
}

// newVerifier opens the list of revocations, and makes the verifier that asks it.
func (s *Server) newVerifier(ctx context.Context, first *tenants) (err error) {
	if s.revoked, err = openRevocations(ctx, &s.cfg); err != nil {
		return err
	}
	s.verifier, err = verifier.New(verifier.Config{
		Tenants: first.rules(), MaxTokenBytes: s.cfg.MaxTokenBytes, Now: s.cfg.Now, Observe: s.observe(), Revocations: s.revoked.forVerifier(),
	})
	if err != nil {
		return &Error{Part: PartRules, Err: err}
	}
	return s.live.Load().addRevocations()
}

// An Endpoint is where a server listens.
type Endpoint struct {
	URL  string // by which a program on this machine reaches it; empty without a TCP listener
	Open bool   // whether it listens on all addresses of the machine
}

// Endpoint returns where s listens.
func (s *Server) Endpoint() Endpoint {
	if s.listener == nil {
		return Endpoint{}
	}
	at := endpointOf(s.listener.Addr())
	if s.cfg.TLS != nil {
		at.URL = "https" + strings.TrimPrefix(at.URL, "http")
	}
	return at
}

// Admin returns where the admin listener of s is, and whether other machines may reach it. ok is
// false if there is none.
func (s *Server) Admin() (at Endpoint, exposed, ok bool) {
	if s.admin == nil {
		return Endpoint{}, false, false
	}
	tcp, isTCP := s.admin.Addr().(*net.TCPAddr)
	return endpointOf(s.admin.Addr()), !isTCP || !tcp.IP.IsLoopback(), true
}

func endpointOf(a net.Addr) Endpoint {
	host, port, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err == nil && ip.IsUnspecified() {
		return Endpoint{"http://localhost:" + port, true}
	}
	return Endpoint{"http://" + a.String(), false}
}

// otherHeaderBytes has room for the headers that a proxy sends beside the token.
const otherHeaderBytes = 24 << 10

// ErrTerminated is the cause of a context that ends a Server whose place others are about to take: it
// goes on for Config.Drain. After any other cause an operator waits for its end.
var ErrTerminated = errors.New("terminated")

// Run answers requests until ctx ends, and for Config.Drain if its cause is [ErrTerminated]. Then it
// waits for those in flight, and closes s. It returns an error if the server could not go on before
// ctx ended.
//
// The admin listener ends last: until then /readyz says there that the server is stopping.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	defer s.startBackground(ctx)()
	defer s.closeProxies()
	public, local, admin := s.start(s.listener, s.routes()), s.start(s.unix, s.localRoutes()), s.start(s.admin, s.adminRoutes())
	drained, err := s.serve(ctx, public, local, admin)
	if err != nil {
		for _, f := range []*face{public, local, admin} {
			f.close()
		}
		return err
	}
	s.cfg.Notify(Draining{Limit: s.cfg.Grace})
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, f := range []*face{public, local} {
		wg.Go(func() {
			if drained {
				f.leave(lingerFor)
			}
			if !f.shutdown(grace) {
				s.cfg.Logger.Warn("requests in flight were cut off")
			}
		})
	}
	wg.Wait()
	s.closeProxies()
	admin.shutdown(grace)
	s.cfg.Notify(Stopped{})
	return nil
}

// serve waits until ctx has ended and the drain, if there is one, is over. Its error says why a face has
// ended before.
func (s *Server) serve(ctx context.Context, faces ...*face) (drained bool, err error) {
	ended := make(chan error, len(faces))
	for _, f := range faces {
		if f != nil {
			go func() { <-f.ended; ended <- f.err }()
		}
	}
	select {
	case err := <-ended:
		return false, err
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	drain := s.live.Load().cfg.Drain
	if drain <= 0 || !errors.Is(context.Cause(ctx), ErrTerminated) {
		return false, nil
	}
	s.cfg.Notify(Stopping{For: drain})
	select {
	case err := <-ended:
		return false, err
	case <-time.After(drain):
	}
	return true, nil
}

// lingerFor is how long connections that are open after the drain are served, while new ones are refused.
// A proxy that does not ask /readyz learns from a refused connection that the server is gone. Then it
// leaves the connections alone that it has kept open, and one that is closed meets no request.
const lingerFor = time.Second

// readTimeout bounds how long a request may take to arrive, where there is no upstream. The bodies that are
// read are forms.
const readTimeout = 5 * time.Second

// writeTimeout bounds how long an answer may take, there.
const writeTimeout = time.Minute

// A face is what serves one listener. A nil face serves none, and does not end by itself.
type face struct {
	srv   *http.Server
	l     net.Listener
	open  atomic.Int64  // connections
	ended chan struct{} // closed when srv serves no longer
	err   error         // why; to be read after ended
}

// start serves l, which may be nil.
func (s *Server) start(l net.Listener, h http.Handler) *face {
	if l == nil {
		return nil
	}
	f := &face{l: l, ended: make(chan struct{}), srv: &http.Server{
		Handler:                      s.leaving(h),
		DisableGeneralOptionsHandler: true, // net/http would answer "OPTIONS *" with 200, which lets a proxy's client in
		ReadHeaderTimeout:            readTimeout,
		ReadTimeout:                  readTimeout, // with two different times net/http sets a timer more for each request
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  60 * time.Second,
		MaxHeaderBytes:               s.cfg.MaxTokenBytes*max(len(s.cfg.TokenHeaders), 1) + otherHeaderBytes,
		ErrorLog:                     log.New(connectionLog{s.cfg.Logger}, "", 0),
	}}
	f.srv.ConnState = f.count
	secure := l == s.listener && s.cfg.TLS != nil
	if secure {
		f.srv.TLSConfig, f.srv.ConnContext, f.srv.Handler = s.tlsConfig(), s.withAdmission, s.onlyAdmitted(f.srv.Handler)
	}
	if p := s.live.Load().proxy; l == s.listener && p != nil {
		p.serveBy(f.srv) // its streams set deadlines of their own
	} else {
		l = timedListener{l}
	}
	go func() {
		defer close(f.ended)
		if secure {
			f.err = f.srv.ServeTLS(l, "", "")
		} else {
			f.err = f.srv.Serve(l)
		}
	}()
	return f
}

// A connectionLog takes what [http.Server] says of connections, such as handshakes of TLS that fail. Anyone
// can cause that, so that its lines have a reason, by which [metrics.Log] bounds them.
type connectionLog struct{ log *slog.Logger }

// Write implements [io.Writer].
func (l connectionLog) Write(text []byte) (int, error) {
	l.log.Warn("connection failed", "reason", "connection", "err", strings.TrimSuffix(string(text), "\n"))
	return len(text), nil
}

// leaving returns h with an answer that ends its connection while the server is stopping. So a load
// balancer that keeps connections open moves to another server before this one closes them, which
// may cross a request on the way.
func (s *Server) leaving(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.stopping.Load() && r.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// count counts the connections, for [http.Server.ConnState].
func (f *face) count(_ net.Conn, now http.ConnState) {
	switch now {
	case http.StateNew:
		f.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		f.open.Add(-1)
	}
}

// leave takes no new connections, and serves the open ones for a while, or until the last one ends.
func (f *face) leave(d time.Duration) {
	if f == nil {
		return
	}
	f.l.Close()
	<-f.ended
	for end := time.Now().Add(d); f.open.Load() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

// shutdown takes no new connections, and waits for requests in flight until ctx ends. It reports
// whether all of them were answered: the others are cut off.
func (f *face) shutdown(ctx context.Context) bool {
	if f == nil {
		return true
	}
	if f.srv.Shutdown(ctx) != nil {
		f.close()
		return false
	}
	<-f.ended
	return true
}

// close cuts off all requests.
func (f *face) close() {
	if f != nil {
		f.srv.Close()
		<-f.ended
	}
}

// startBackground starts the work beside the requests. It goes on while requests in flight end, so
// it does not end with ctx but when stop is called, which waits for it.
func (s *Server) startBackground(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var work []func(context.Context)
	rings := s.live.Load().tenants.rings
	if rings != nil {
		work = append(work, rings.rotate, rings.watch)
	}
	if w := s.watcher(); len(w.files) > 0 || w.config != nil || w.reload.Signal != nil {
		work = append(work, w.run)
	}
	switch {
	case s.demo != nil:
		work = append(work, s.demo.announceTokens)
	case rings != nil:
		work = append(work, s.completeRules)
	}
	var wg sync.WaitGroup
	for _, f := range work {
		wg.Go(func() { f(ctx) })
	}
	return func() {
		cancel()
		wg.Wait()
		s.retiring.Wait()
	}
}

// watcher returns what follows the files of s.
func (s *Server) watcher() *watcher {
	w := &watcher{reload: s.cfg.Reload, log: s.cfg.Logger}
	if r := s.live.Load().tenants.rings; r != nil && s.cfg.Rings.KEKFile != nil {
		f := s.cfg.Rings.KEKFile
		f.apply = r.setKEKs
		w.files = append(w.files, f)
	}
	if s.revoked != nil && s.cfg.Revocations.KEKFile != nil {
		f := s.cfg.Revocations.KEKFile
		f.apply = s.revoked.setKEKs
		w.files = append(w.files, f)
	}
	if s.cfg.Reload.Files != nil {
		w.config = newFollower(s)
	}
	return w
}

// completeRules waits until all rings are ready. Then it gives the verifier their rules again: a
// ring that was missing before could not say how much leeway it allows. It does so again after a
// reload that adds rings.
func (s *Server) completeRules(ctx context.Context) {
	for s.live.Load().tenants.rings.awaitReady(ctx) {
		if err := s.putIncomplete(); err != nil {
			s.cfg.Logger.Error("the rules for the rings' tokens do not fit them", "err", err)
		}
		rings := s.live.Load().tenants.rings
		if status := rings.keyring.Status(); !status.Fresh { // such as after a start from a snapshot
			s.cfg.Logger.Info("ready to verify, and not all rings are in step with Redis yet", "err", status.Err)
			if !rings.awaitFresh(ctx) {
				return
			}
		}
		s.cfg.Logger.Info("ready: all rings are in step")
		select {
		case <-ctx.Done():
			return
		case <-s.replaced:
		}
	}
}

// putIncomplete gives the verifier again the rules of the tenants whose rings are known now.
func (s *Server) putIncomplete() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.live.Load().tenants
	var rules []verifier.Tenant
	for _, id := range s.incomplete {
		if t := now.byID[id]; t != nil && t.Ring {
			rules = append(rules, now.rulesOf(t))
		}
	}
	s.incomplete = nil
	return s.verifier.Put(rules...)
}

// close ends what New has opened, the last first.
func (s *Server) close() {
	s.refusals.flush()
	for _, l := range []net.Listener{s.admin, s.unix, s.listener} {
		if l != nil {
			l.Close()
		}
	}
	s.revoked.close()
	if g := s.live.Load(); g != nil {
		g.tenants.close()
	}
	if s.demo != nil {
		s.demo.close()
	}
}
