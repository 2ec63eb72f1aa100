package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/middleware"
)

// routes returns the handler of the public listener. The socket has localRoutes, also where every path
// of the public listener is the upstream's.
func (s *generation) routes() http.Handler {
	if s.proxy != nil {
		return s.upstreamRoutes()
	}
	return s.localRoutes()
}

// localRoutes returns the handler of requests that the server answers itself. The only way to the API
// leads through [middleware.Require].
func (s *generation) localRoutes() http.Handler {
	options := append(tokenPlaces(s.cfg.TokenHeaders), middleware.WithErrorHandler(s.refuse))
	api := s.metered(FaceAPI, middleware.Require(s.verifier, options...)(http.HandlerFunc(serveAPI)))
	published, authz := newPublisher(s.tenants, s.cfg.Now), s.authz()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isAuthz(r.URL.Path) { // before anything else that the client's path may name behind it
			authz.ServeHTTP(w, r)
			return
		}
		if h := s.revocationHandler(r); h != nil {
			s.serveRevocations(w, r, h)
			return
		}
		setHeaders(w.Header())
		switch {
		case isAPI(r.URL.Path) && !published.owns(r.URL.Path):
			api.ServeHTTP(w, r)
		case r.URL.Path == "/healthz":
			serveHealth(w, r)
		case r.URL.Path == "/readyz":
			s.serveReady(w, r, false)
		default:
			if h := published.handler(r.URL.Path); h != nil {
				s.metered(FaceJWKS, h).ServeHTTP(w, r)
				return
			}
			answer(w, http.StatusNotFound, map[string]string{"error": "Not found"})
		}
	})
}

// upstreamRoutes returns the handler of all requests in front of an upstream. They are the upstream's,
// except those about revocations where they are configured, and public keys if those are published.
func (s *generation) upstreamRoutes() http.Handler {
	published := newPublisher(s.tenants, s.cfg.Now)
	if !s.cfg.Upstream.Publish {
		published = nil
	}
	if published == nil && len(s.revocation) == 0 {
		return s.proxy
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := s.revocationHandler(r); h != nil {
			s.bound(w)
			s.serveRevocations(w, r, h)
			return
		}
		if published == nil {
			s.proxy.ServeHTTP(w, r.WithContext(metrics.WithFace(r.Context(), FaceProxy)))
			return
		}
		if path := r.URL.EscapedPath(); published.owns(path) || published.byPath[path] != nil {
			s.bound(w)
			setHeaders(w.Header())
			s.metered(FaceJWKS, published.handler(path)).ServeHTTP(w, r)
			return
		}
		s.proxy.ServeHTTP(w, r.WithContext(metrics.WithFace(r.Context(), FaceProxy)))
	})
}

// bound limits how long a request may take that is not passed on to the upstream. In front of one the
// server has no limits (see serveBy), and anyone may begin a body here and not end it.
func (s *generation) bound(w http.ResponseWriter) {
	c, now := http.NewResponseController(w), s.cfg.Now()
	_ = c.SetReadDeadline(now.Add(readTimeout)) // if it fails, the connection has ended
	_ = c.SetWriteDeadline(now.Add(writeTimeout))
}

const authorization = "Authorization"

// tokenPlaces returns the options for the headers that may hold the token.
func tokenPlaces(headers []string) (options []middleware.Option) {
	for _, name := range headers {
		if !isAuthorization(name) {
			options = append(options, middleware.FromHeader(name))
		}
	}
	if len(headers) > 0 && !slices.ContainsFunc(headers, isAuthorization) {
		options = append(options, middleware.WithoutAuthorization())
	}
	return options
}

func isAuthorization(name string) bool { return http.CanonicalHeaderKey(name) == authorization }

// CheckTokenHeader returns why a header cannot be one of Config.TokenHeaders, or nil.
func CheckTokenHeader(name string) (err error) {
	if isAuthorization(name) {
		return nil
	}
	// FromHeader panics for a name in a program. Here the name is one of a file.
	defer func() {
		if why := recover(); why != nil {
			err = errors.New(strings.TrimPrefix(fmt.Sprint(why), "middleware: FromHeader: "))
		}
	}()
	middleware.FromHeader(name)
	return nil
}

// adminRoutes returns the handler of the admin listener's requests.
func (s *generation) adminRoutes() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header())
		switch r.URL.Path {
		case "/healthz":
			serveHealth(w, r)
		case "/readyz":
			s.serveReady(w, r, true)
		case "/metrics":
			s.serveMetrics(w, r)
		default:
			answer(w, http.StatusNotFound, map[string]string{"error": "Not found"})
		}
	})
}

// setHeaders sets the headers of every answer.
func setHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}

// isAPI reports whether a path is under /api, in any spelling that some program
// on the way may take for it. Too wide does no harm: such a path wants a token.
func isAPI(p string) bool {
	for _, p := range []string{p, path.Clean("/" + p)} {
		p = strings.ToLower(p)
		if p == "/api" || strings.HasPrefix(p, "/api/") {
			return true
		}
	}
	return false
}

// refuse answers a request whose token is missing or bad, or cannot be judged now.
func (s *generation) refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.refusals.add(r, err)
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// Otherwise net/http waits for the body before it answers.
		w.Header().Set("Connection", "close")
	}
	middleware.MastraErrors(w, r, err)
}

// onlyRead answers requests that are neither GET nor HEAD, and reports whether r is one of those.
func onlyRead(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	answer(w, http.StatusMethodNotAllowed, map[string]string{"error": "Method not allowed"})
	return false
}

// answer writes an object of strings as JSON.
func answer(w http.ResponseWriter, status int, object any) {
	body, err := json.Marshal(object) // cannot fail
	if err != nil {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
