package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of [Log].
const (
	linesPerSecond = 10   // of one message and reason
	maxReasons     = 1000 // reasons, or reasons and tenants, that are told apart in one second
)

// The keys of the attributes that [Log] reads and writes.
const (
	keyReason     = "reason"
	keyTenant     = "tenant"
	keySuppressed = "suppressed"
	keyFace       = "keyturn.face"
)

// Log returns a handler that passes records on to h, with these changes:
//
//   - Of the records with the same message and the same attributes "reason" and, if there is one,
//     "tenant", ten in a second pass. Then one has the count of the others: "and 3 812 more: request refused". It comes with the next record
//     after that second, or with [LogHandler.Flush]. Anyone can send bad tokens, and a log that they
//     can fill is an outage. Records without a reason are not bounded.
//   - A record whose context is of [WithFace] has the attribute keyturn.face.
//   - Text that looks like a token is replaced by "(token)", and what looks like a private key, a
//     password in a URL or a parameter such as client_secret by "(secret)". Text with control characters
//     is quoted. Both in messages and attributes, so a client cannot forge a line, whatever h does.
//
// Log has no clock: the times are those of the records.
func Log(h slog.Handler) *LogHandler {
	return &LogHandler{next: h, state: &logState{root: h, seconds: make(map[bounded]*second)}}
}

// A LogHandler is a [slog.Handler]. [Log] makes one. It is safe for concurrent use.
type LogHandler struct {
	next  slog.Handler
	state *logState // shared by the handlers that WithAttrs and WithGroup return
}

// A logState counts the records of the present second.
type logState struct {
	root    slog.Handler // for the lines with counts, which belong to no logger's attributes
	counted atomic.Bool  // something was suppressed and not told yet

	mu      sync.Mutex // guards seconds
	seconds map[bounded]*second
}

// bounded names records that are bounded together. Its texts are not clean.
type bounded struct{ message, reason, tenant string }

// A second counts bounded records in one second.
type second struct {
	began              time.Time
	level              slog.Level
	passed, suppressed int
}

// over reports whether another second has begun. A clock that was set back begins one too.
func (s *second) over(now time.Time) bool {
	age := now.Sub(s.began)
	return age < 0 || age >= time.Second
}

// Enabled implements [slog.Handler].
func (l *LogHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return l.next.Enabled(ctx, level)
}

// WithAttrs implements [slog.Handler].
func (l *LogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = cleanAttr(a)
	}
	return &LogHandler{next: l.next.WithAttrs(clean), state: l.state}
}

// WithGroup implements [slog.Handler].
func (l *LogHandler) WithGroup(name string) slog.Handler {
	return &LogHandler{next: l.next.WithGroup(cleanText(name)), state: l.state}
}

// Handle implements [slog.Handler]. Only a record that passes is cleaned: a flood of bad requests costs
// little more than a look into a map for each.
func (l *LogHandler) Handle(ctx context.Context, r slog.Record) error {
	key, bound := boundsOf(r)
	var failed error
	if bound || l.state.counted.Load() {
		pass, ended := l.state.count(key, bound, r.Level, r.Time)
		failed = l.state.tell(ctx, ended, r.Time)
		if !pass {
			return failed
		}
	}
	clean := slog.NewRecord(r.Time, r.Level, cleanText(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(cleanAttr(a))
		return true
	})
	if face, ok := ctx.Value(faceKey{}).(string); ok {
		clean.AddAttrs(slog.String(keyFace, face))
	}
	return errors.Join(failed, l.next.Handle(ctx, clean))
}

// boundsOf returns by what a record is bounded, and whether it is. The texts are not clean.
func boundsOf(r slog.Record) (key bounded, bound bool) {
	key.message = r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != keyReason && a.Key != keyTenant {
			return true
		}
		v := a.Value.Resolve()
		switch {
		case v.Kind() != slog.KindString:
		case a.Key == keyReason:
			key.reason, bound = v.String(), true
		default:
			key.tenant = v.String()
		}
		return true
	})
	return key, bound
}

// Flush logs the counts that no later record has brought to the log: call it before the program ends.
func (l *LogHandler) Flush(ctx context.Context) error {
	l.state.mu.Lock()
	ended := l.state.endLocked(func(*second) bool { return true })
	l.state.mu.Unlock()
	return l.state.tell(ctx, ended, time.Now())
}

// count counts a record, if it is bounded. It returns whether it passes, and the counts of the seconds
// that have ended since the last one.
func (s *logState) count(key bounded, bound bool, level slog.Level, now time.Time) (pass bool, ended []suppressed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended = s.endLocked(func(one *second) bool { return one.over(now) })
	if !bound {
		return true, ended
	}
	if s.seconds[key] == nil {
		if len(s.seconds) >= maxReasons {
			key.reason, key.tenant = "other", ""
		}
		if s.seconds[key] == nil {
			s.seconds[key] = &second{began: now, level: level}
		}
	}
	one := s.seconds[key]
	if one.passed == linesPerSecond {
		one.suppressed++
		s.counted.Store(true)
		return false, ended
	}
	one.passed++
	return true, ended
}

// suppressed says how many records of one second did not pass.
type suppressed struct {
	bounded
	level slog.Level
	n     int
}

// endLocked forgets the seconds that are over, and returns the counts of suppressed records.
func (s *logState) endLocked(over func(*second) bool) (ended []suppressed) {
	waiting := false
	for key, one := range s.seconds {
		if !over(one) {
			waiting = waiting || one.suppressed > 0
			continue
		}
		if one.suppressed > 0 {
			ended = append(ended, suppressed{key, one.level, one.suppressed})
		}
		delete(s.seconds, key)
	}
	s.counted.Store(waiting)
	slices.SortFunc(ended, func(a, b suppressed) int {
		return cmp.Or(cmp.Compare(a.message, b.message), cmp.Compare(a.reason, b.reason), cmp.Compare(a.tenant, b.tenant))
	})
	return ended
}

// tell logs the counts of suppressed records.
func (s *logState) tell(ctx context.Context, ended []suppressed, now time.Time) (failed error) {
	for _, e := range ended {
		if !s.root.Enabled(ctx, e.level) {
			continue
		}
		r := slog.NewRecord(now, e.level, fmt.Sprintf("and %s more: %s", grouped(e.n), cleanText(e.message)), 0)
		if e.tenant != "" {
			r.AddAttrs(slog.String(keyTenant, cleanText(e.tenant)))
		}
		r.AddAttrs(slog.String(keyReason, cleanText(e.reason)), slog.Int(keySuppressed, e.n))
		failed = errors.Join(failed, s.root.Handle(ctx, r))
	}
	return failed
}

// grouped returns n with a space between thousands.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

type faceKey struct{}

// WithFace returns a context whose records say which part of a server they are about, such as "api".
func WithFace(ctx context.Context, face string) context.Context {
	return context.WithValue(ctx, faceKey{}, face)
}
