package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// A refusalLog tells the operator of refused requests what their clients do not learn. Anyone can
// send those, so that their lines are bounded: the handler of log is that of [metrics.Log].
type refusalLog struct {
	log  *slog.Logger
	hint func(*verifier.Error) string
	now  func() time.Time

	authorization atomic.Bool // a token may be in Authorization
}

// boundedLog returns log with its lines bounded.
func boundedLog(log *slog.Logger) *slog.Logger {
	if _, done := log.Handler().(*metrics.LogHandler); done {
		return log
	}
	return slog.New(metrics.Log(log.Handler()))
}

// note logs that a request was refused or ended, or counts it. Its time is that of the server's clock.
func (l *refusalLog) note(r *http.Request, level slog.Level, reason, text string, attrs ...any) {
	h := l.log.Handler()
	if !h.Enabled(r.Context(), level) {
		return
	}
	line := slog.NewRecord(l.now(), level, text, 0)
	line.Add("remote", r.RemoteAddr, "method", methodOf(r), "reason", reason)
	line.Add(attrs...)
	_ = h.Handle(r.Context(), line) // as a slog.Logger ignores it
}

// flush logs the counts that no later line has brought to the log.
func (l *refusalLog) flush() {
	if h, bounded := l.log.Handler().(*metrics.LogHandler); bounded {
		_ = h.Flush(context.Background()) // as a slog.Logger ignores it
	}
}

// add logs a refused request, or counts it. A path may hold a token, so that nothing which the client
// wrote gets into the log, with three exceptions: a method that is a word, and a kid and the name of a
// claim, quoted.
func (l *refusalLog) add(r *http.Request, err error) {
	var attrs []any
	text := ""
	if bad := (*verifier.Error)(nil); errors.As(err, &bad) {
		text = l.hint(bad)
	} else if errors.Is(err, middleware.ErrNoToken) && l.authorization.Load() && len(r.Header[authorization]) > 0 {
		text = "there is an Authorization header, but it does not begin with Bearer"
	}
	if text != "" {
		attrs = append(attrs, "hint", text)
	}
	l.note(r, slog.LevelWarn, reasonOf(err), "request refused", append(attrs, "err", err)...)
}

// reasonOf returns by which reason a refusal is counted: the verifier's own, or one of a few.
func reasonOf(err error) string {
	bad := (*verifier.Error)(nil)
	switch {
	case errors.As(err, &bad):
		return string(bad.Reason)
	case errors.Is(err, middleware.ErrNoToken):
		return "no_token"
	case errors.Is(err, middleware.ErrRequest):
		return "bad_request"
	case errors.Is(err, middleware.ErrScope):
		return "insufficient_scope"
	case errors.Is(err, middleware.ErrForbidden):
		return "forbidden"
	case errors.Is(err, middleware.ErrTooLarge):
		return "identity_too_large"
	case errors.Is(err, middleware.ErrNoProfile):
		return "no_profile"
	}
	return "other"
}

// methodOf returns the method of a request if it looks like one: the syntax allows a whole token
// (RFC 9110, section 5.6.2).
func methodOf(r *http.Request) string {
	if m := r.Method; len(m) <= 20 && strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == "" {
		return m
	}
	return "(none known)"
}
