package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// An ear hears what instances log, so that a run can tell whether they noticed something.
type ear struct {
	next  slog.Handler
	heard *heard
	about string // the tenant of the logger, or ""
}

// heard are the lines that instances logged. It is safe for concurrent use.
type heard struct {
	mu    sync.Mutex
	lines []logLine
}

// A logLine is a line that says that something is wrong, or that it was put right.
type logLine struct {
	at     time.Time
	tenant string // that it names, or ""
	text   string
}

func newEar(next slog.Handler) ear { return ear{next: next, heard: new(heard)} }

// telling are the lines below WARN that say that something was wrong.
var telling = []string{"merged back into the store"}

// Enabled implements [slog.Handler].
func (ear) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (e ear) Handle(ctx context.Context, r slog.Record) error {
	line := logLine{at: time.Now(), tenant: e.about, text: r.Message}
	tells := r.Level >= slog.LevelWarn
	for _, t := range telling {
		tells = tells || strings.HasPrefix(r.Message, t)
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "tenant" {
			line.tenant = a.Value.String()
		}
		line.text += " " + a.String()
		return true
	})
	if tells {
		e.heard.mu.Lock()
		e.heard.lines = append(e.heard.lines, line)
		e.heard.mu.Unlock()
	}
	if !e.next.Enabled(ctx, r.Level) {
		return nil
	}
	return e.next.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (e ear) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "tenant" {
			e.about = a.Value.String()
		}
	}
	e.next = e.next.WithAttrs(attrs)
	return e
}

// WithGroup implements [slog.Handler].
func (e ear) WithGroup(name string) slog.Handler {
	e.next = e.next.WithGroup(name)
	return e
}

// since returns the lines since a time that name the tenant.
func (h *heard) since(at time.Time, tenant string) (lines []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.lines) - 1; i >= 0 && h.lines[i].at.After(at); i-- {
		if l := &h.lines[i]; l.tenant == tenant {
			lines = append(lines, l.text)
		}
	}
	return lines
}
