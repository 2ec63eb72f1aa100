package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/verifier"
)

// A Server serves an API that only good tokens open. [New] opens one, and [Server.Run] closes it.
type Server struct {
	cfg       Config
	demo      *demo // nil without Config.Demo
	tenants   *tenants
	listener  net.Listener
	admin     net.Listener // nil without Config.Admin
	verifier  *verifier.Verifier
	proxy     *proxy                         // nil without Config.Upstream
	purpose   purpose                        // of /readyz without one: to sign, if the server does
	readiness map[purpose]*recent[readiness] // by what for
	refusals  refusalLog
	metrics   *metrics.Collector // nil without Config.Admin
	page      http.Handler       // of metrics
	stopping  atomic.Bool        // Run waits for requests in flight
}

// New opens what cfg names, and listens. It waits up to 10 s for the rings, and for no issuer. Its
// error is an [Error]; then nothing stays open.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	s := &Server{cfg: cfg.withDefaults(), purpose: forVerify, readiness: map[purpose]*recent[readiness]{forVerify: {}, forSign: {}}}
	s.startMetrics()
	s.refusals.log, s.refusals.hint, s.refusals.now = s.cfg.Logger, s.cfg.Hint, s.cfg.Now
	s.refusals.authorization = len(s.cfg.TokenHeaders) == 0 || slices.ContainsFunc(s.cfg.TokenHeaders, isAuthorization)
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
	if s.tenants, err = openTenants(ctx, &s.cfg); err != nil {
		return nil, err
	}
	if err = s.listen(ctx); err != nil {
		return nil, err
	}
	if s.demo != nil {
		if err = s.demo.open(ctx, s.tenants, s.Endpoint(), s.observeSign()); err != nil {
			return nil, err
		}
	}
	s.verifier, err = verifier.New(verifier.Config{Tenants: s.tenants.rules(), MaxTokenBytes: s.cfg.MaxTokenBytes, Now: s.cfg.Now, Observe: s.observe()})
	if err != nil {
		return nil, &Error{Part: PartRules, Err: err}
	}
	s.watchMetrics()
	if s.cfg.Upstream != nil {
		s.proxy = newProxy(s)
	}
	return s, nil
}

// listen opens the listeners.
func (s *Server) listen(ctx context.Context) (err error) {
	if s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Addr); err != nil {
		return &Error{Part: PartListener, Err: err}
	}
	if s.cfg.Admin == "" {
		return nil
	}
	if s.admin, err = new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Admin); err != nil {
		return &Error{Part: PartAdmin, Err: err}
	}
	return nil
}

// An Endpoint is where a server listens.
type Endpoint struct {
	URL  string // by which a program on this machine reaches it
	Open bool   // whether it listens on all addresses of the machine
}

// Endpoint returns where s listens.
func (s *Server) Endpoint() Endpoint { return endpointOf(s.listener.Addr()) }

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

// Run answers requests until ctx ends. Then it waits for those in flight, and closes s. It returns
// an error if the server could not go on before ctx ended.
//
// The admin listener ends last: until then /readyz says there that the server is stopping.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	defer s.startBackground(ctx)()
	defer s.proxy.close()
	public := s.start(s.listener, s.routes())
	admin := s.start(s.admin, s.adminRoutes())
	select {
	case err := <-public.done():
		admin.close()
		return err
	case err := <-admin.done():
		public.close()
		return err
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.cfg.Notify(Draining{Limit: s.cfg.Drain})
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	if !public.shutdown(drain) {
		s.cfg.Logger.Warn("requests in flight were cut off")
	}
	s.proxy.close()
	admin.shutdown(drain)
	s.cfg.Notify(Stopped{})
	return nil
}

// A face is what serves one listener. A nil face serves none, and does not end by itself.
type face struct {
	srv   *http.Server
	ended chan error // receives once why srv serves no longer
}

// start serves l, which may be nil.
func (s *Server) start(l net.Listener, h http.Handler) *face {
	if l == nil {
		return nil
	}
	f := &face{ended: make(chan error, 1), srv: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    s.cfg.MaxTokenBytes*max(len(s.cfg.TokenHeaders), 1) + otherHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
	}}
	if l == s.listener && s.proxy != nil {
		s.proxy.serveBy(f.srv)
	}
	go func() { f.ended <- f.srv.Serve(l) }()
	return f
}

// done returns a channel that receives why f serves no longer.
func (f *face) done() <-chan error {
	if f == nil {
		return nil
	}
	return f.ended
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
	if r := s.tenants.rings; r != nil {
		work = append(work, r.rotate, r.watch)
	}
	if w := s.watcher(); len(w.files) > 0 || w.reload.Signal != nil {
		work = append(work, w.run)
	}
	switch {
	case s.demo != nil:
		work = append(work, s.demo.announceTokens)
	case s.tenants.rings != nil:
		work = append(work, s.completeRules)
	}
	var wg sync.WaitGroup
	for _, f := range work {
		wg.Go(func() { f(ctx) })
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// watcher returns what follows the files of s.
func (s *Server) watcher() *watcher {
	w := &watcher{reload: s.cfg.Reload, log: s.cfg.Logger}
	if r := s.tenants.rings; r != nil && s.cfg.Rings.KEKFile != nil {
		f := s.cfg.Rings.KEKFile
		f.apply = r.setKEKs
		w.files = append(w.files, f)
	}
	return w
}

// completeRules waits until all rings are in sync. Then it gives the verifier the rules again: a
// ring that was missing before could not say how much leeway it allows.
func (s *Server) completeRules(ctx context.Context) {
	if !s.tenants.rings.awaitReady(ctx) {
		return
	}
	if err := s.verifier.Put(s.tenants.rules()...); err != nil {
		s.cfg.Logger.Error("the rules for the rings' tokens do not fit them", "err", err)
	}
	s.cfg.Logger.Info("ready: all rings are in step")
}

// close ends what New has opened, the last first.
func (s *Server) close() {
	s.refusals.flush()
	for _, l := range []net.Listener{s.admin, s.listener} {
		if l != nil {
			l.Close()
		}
	}
	if s.tenants != nil {
		s.tenants.close()
	}
	if s.demo != nil {
		s.demo.close()
	}
}
