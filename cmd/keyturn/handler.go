package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path"
	"strings"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// maxBodyBytes is how much of a request's body is read, and forgotten.
const maxBodyBytes = 10 << 20

// newHandler returns all that serve answers. The only way to the API leads
// through [middleware.Require].
func newHandler(offered *service, log *slog.Logger) http.Handler {
	refuse := func(w http.ResponseWriter, r *http.Request, err error) {
		logRefusal(log, r, err, offered.hint)
		if r.ContentLength != 0 {
			// Else net/http waits for the body before it answers.
			w.Header().Set("Connection", "close")
		}
		middleware.MastraErrors(w, r, err)
	}
	api := middleware.Require(offered.verifier, middleware.WithErrorHandler(refuse))(http.HandlerFunc(serveAPI))
	var publishers map[string]http.Handler
	if offered.rings != nil {
		publishers = offered.rings.publishers()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		switch {
		case isAPI(r.URL.Path) && !offered.rings.publishAt(r.URL.Path):
			api.ServeHTTP(w, r)
		case r.URL.Path == "/healthz":
			serveHealth(w, r)
		case r.URL.Path == "/readyz":
			serveReady(w, r, offered.ready)
		default:
			for path, publisher := range publishers {
				if strings.HasSuffix(r.URL.Path, path) {
					publisher.ServeHTTP(w, r)
					return
				}
			}
			answer(w, http.StatusNotFound, map[string]string{"error": "Not found"})
		}
	})
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

// logRefusal tells the operator what the client does not learn. Nothing that the
// client wrote gets into the log but a method that is a word, and a kid and the
// name of a claim, quoted: a path may hold a token.
func logRefusal(log *slog.Logger, r *http.Request, err error, hint func(*verifier.Error) string) {
	attrs := []any{"remote", r.RemoteAddr, "method", methodOf(r)}
	text := ""
	if bad := (*verifier.Error)(nil); errors.As(err, &bad) {
		attrs = append(attrs, "reason", string(bad.Reason))
		text = hint(bad)
	} else if errors.Is(err, middleware.ErrNoToken) && len(r.Header["Authorization"]) > 0 {
		text = "there is an Authorization header, but it does not begin with Bearer"
	}
	if text != "" {
		attrs = append(attrs, "hint", text)
	}
	log.WarnContext(r.Context(), "request refused", append(attrs, "err", err)...)
}

// methodOf names the method of a request, if it looks like one: the syntax
// allows a whole token (RFC 9110, section 5.6.2).
func methodOf(r *http.Request) string {
	if m := r.Method; len(m) <= 20 && strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == "" {
		return m
	}
	return "(none known)"
}

// serveAPI is the demo API: it answers any request of a verified caller, and
// calls nobody.
func serveAPI(w http.ResponseWriter, r *http.Request) {
	t, ok := middleware.TokenFrom(r.Context())
	if !ok {
		answer(w, http.StatusInternalServerError, map[string]string{"error": "Authorization error"})
		return
	}
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		answer(w, http.StatusRequestEntityTooLarge, map[string]string{"error": "Request body too large"})
		return
	}
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "Request body cannot be read"})
		return
	}
	answer(w, http.StatusOK, map[string]string{
		"text":    "Your token is good. This is the demo API of keyturn: it asks no model and calls nobody.",
		"tenant":  t.Tenant(),
		"subject": t.Subject(),
		"path":    r.URL.Path,
	})
}

func serveHealth(w http.ResponseWriter, r *http.Request) {
	if onlyRead(w, r) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	}
}

// serveReady says whether tokens can be verified: with nothing to wait for, always.
func serveReady(w http.ResponseWriter, r *http.Request, ready func() (string, map[string]tenantReady)) {
	if !onlyRead(w, r) {
		return
	}
	if ready == nil {
		answer(w, http.StatusOK, map[string]string{"status": stateReady})
		return
	}
	status := http.StatusOK
	all, each := ready()
	if all == stateNotReady {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, struct {
		Status  string                 `json:"status"`
		Tenants map[string]tenantReady `json:"tenants"`
	}{all, each})
}

// onlyRead answers what is neither GET nor HEAD.
func onlyRead(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	answer(w, http.StatusMethodNotAllowed, map[string]string{"error": "Method not allowed"})
	return false
}

func answer(w http.ResponseWriter, status int, object any) {
	body, err := json.Marshal(object) // of strings: cannot fail
	if err != nil {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
