package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// refusalsPerSecond is how many refused requests are logged in a second, for each reason.
const refusalsPerSecond = 10

// A refusalLog tells the operator of refused requests what their clients do not learn. Anyone can
// send those, so that their lines are bounded: after refusalsPerSecond of one reason, one line has
// the count of the others. It comes with the next refusal after that second, or when the server ends.
type refusalLog struct {
	log  *slog.Logger
	hint func(*verifier.Error) string
	now  func() time.Time

	more string // what the line with a count says; empty stands for refusals

	authorization atomic.Bool // a token may be in Authorization

	mu      sync.Mutex                 // guards reasons
	reasons map[string]*refusalsSecond // few: no reason is a client's text
}

// A refusalsSecond counts the refusals of one reason in one second.
type refusalsSecond struct {
	began      time.Time
	logged     int
	suppressed int
}

// over reports whether another second has begun. A clock that was set back begins one too.
func (s *refusalsSecond) over(now time.Time) bool {
	age := now.Sub(s.began)
	return age < 0 || age >= time.Second
}

// add logs a refused request, or counts it.
func (l *refusalLog) add(r *http.Request, err error) {
	logged, ended := l.count(reasonOf(err))
	l.logEnded(ended)
	if logged {
		l.logOne(r, err)
	}
}

// note logs, or counts, something else that ends requests and that anyone can bring about.
func (l *refusalLog) note(level slog.Level, reason, text string, attrs ...any) {
	logged, ended := l.count(reason)
	l.logEnded(ended)
	if logged {
		l.log.Log(context.Background(), level, text, attrs...)
	}
}

// count counts a refusal. It returns whether it is logged, and the counts of the seconds that have
// ended since the last one.
func (l *refusalLog) count(reason string) (logged bool, ended map[string]int) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	ended = l.endLocked(func(s *refusalsSecond) bool { return s.over(now) })
	s, ok := l.reasons[reason]
	if !ok {
		if l.reasons == nil {
			l.reasons = make(map[string]*refusalsSecond)
		}
		s = &refusalsSecond{began: now}
		l.reasons[reason] = s
	}
	if s.logged == refusalsPerSecond {
		s.suppressed++
		return false, ended
	}
	s.logged++
	return true, ended
}

// endLocked forgets the seconds that are over, and returns what was suppressed in them.
func (l *refusalLog) endLocked(over func(*refusalsSecond) bool) map[string]int {
	ended := make(map[string]int)
	for reason, s := range l.reasons {
		if !over(s) {
			continue
		}
		if s.suppressed > 0 {
			ended[reason] = s.suppressed
		}
		delete(l.reasons, reason)
	}
	return ended
}

// flush logs the counts that no later refusal has brought to the log.
func (l *refusalLog) flush() {
	l.mu.Lock()
	ended := l.endLocked(func(*refusalsSecond) bool { return true })
	l.mu.Unlock()
	l.logEnded(ended)
}

func (l *refusalLog) logEnded(ended map[string]int) {
	for _, reason := range slices.Sorted(maps.Keys(ended)) {
		l.log.Warn(cmp.Or(l.more, "more requests refused"), "reason", reason, "suppressed", ended[reason])
	}
}

// logOne logs one refused request. A path may hold a token, so that nothing which the client wrote
// gets into the log, with three exceptions: a method that is a word, and a kid and the name of a
// claim, quoted.
func (l *refusalLog) logOne(r *http.Request, err error) {
	attrs := []any{"remote", r.RemoteAddr, "method", methodOf(r)}
	text := ""
	if bad := (*verifier.Error)(nil); errors.As(err, &bad) {
		attrs = append(attrs, "reason", string(bad.Reason))
		text = l.hint(bad)
	} else if errors.Is(err, middleware.ErrNoToken) && l.authorization.Load() && len(r.Header[authorization]) > 0 {
		text = "there is an Authorization header, but it does not begin with Bearer"
	}
	if text != "" {
		attrs = append(attrs, "hint", text)
	}
	l.log.WarnContext(r.Context(), "request refused", append(attrs, "err", err)...)
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
