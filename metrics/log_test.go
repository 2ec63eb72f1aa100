package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/metrics"
)

// A logTest is a bounded log with a clock of its own.
type logTest struct {
	*metrics.LogHandler
	out strings.Builder
	now time.Time
}

func newLogTest() *logTest {
	l := &logTest{now: fixed()}
	l.LogHandler = metrics.Log(slog.NewTextHandler(&l.out, nil))
	return l
}

// log logs a record n times.
func (l *logTest) log(t *testing.T, n int, message string, attrs ...any) {
	t.Helper()
	for range n {
		r := slog.NewRecord(l.now, slog.LevelWarn, message, 0)
		r.Add(attrs...)
		if err := l.Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// taken returns the lines since the last call, without their times.
func (l *logTest) taken() (lines []string) {
	for line := range strings.Lines(l.out.String()) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		lines = append(lines, rest)
	}
	l.out.Reset()
	return lines
}

func TestLogBoundsEachReason(t *testing.T) {
	l := newLogTest()
	l.log(t, 3822, "request refused", "reason", "signature")
	l.log(t, 3, "request refused", "reason", "expired")
	l.log(t, 30, "key rotated")
	if n := len(l.taken()); n != 10+3+30 {
		t.Errorf("%d lines passed, want 43", n)
	}
	l.now = l.now.Add(999 * time.Millisecond)
	l.log(t, 1, "request refused", "reason", "signature")
	if got := l.taken(); len(got) != 0 {
		t.Errorf("within the second: %q", got)
	}
	l.now = l.now.Add(time.Millisecond)
	l.log(t, 1, "key rotated") // any record brings the count
	if got := strings.Join(l.taken(), "\n"); got != `level=WARN msg="and 3 813 more: request refused" reason=signature suppressed=3813`+"\n"+`level=WARN msg="key rotated"` {
		t.Errorf("after the second: %s", got)
	}
	l.log(t, 11, "request refused", "reason", "signature")
	l.taken()
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := l.taken(); len(got) != 1 || !strings.Contains(got[0], "and 1 more") {
		t.Errorf("at the end: %q", got)
	}
	if err := l.Flush(t.Context()); err != nil || len(l.taken()) != 0 {
		t.Errorf("at the end, twice: %v", err)
	}
}

// Lines about one tenant do not hide lines about another.
func TestLogBoundsEachTenant(t *testing.T) {
	l := newLogTest()
	for i := range 100 {
		l.log(t, 11, "not ready", "tenant", fmt.Sprint("t", i), "reason", "out of step")
	}
	if n := len(l.taken()); n != 1000 {
		t.Errorf("%d lines passed, want 1000", n)
	}
	l.now = l.now.Add(time.Second)
	l.log(t, 1, "in step again")
	if got := l.taken(); len(got) != 101 || got[0] != `level=WARN msg="and 1 more: not ready" tenant=t0 reason="out of step" suppressed=1` {
		t.Errorf("%d lines, the first is %s", len(got), got[0])
	}
}

// A clock that is set back does not silence the log.
func TestLogWhenTheClockIsSetBack(t *testing.T) {
	l := newLogTest()
	l.log(t, 12, "request refused", "reason", "expired")
	l.taken()
	l.now = l.now.Add(-time.Hour)
	l.log(t, 1, "request refused", "reason", "expired")
	if got := l.taken(); len(got) != 2 || !strings.Contains(got[0], "suppressed=2") {
		t.Errorf("%q", got)
	}
}

// A program that puts a client's text into a reason does not cost memory without bound, nor the log.
func TestLogReasonsAreBounded(t *testing.T) {
	l := newLogTest()
	for i := range 5000 {
		l.log(t, 1, "request refused", "reason", fmt.Sprint(i))
	}
	if n := len(l.taken()); n != 1000+10 {
		t.Errorf("%d lines passed", n)
	}
}

// The count is no part of the logger whose record brings it.
func TestLogWithAttrs(t *testing.T) {
	l := newLogTest()
	log := slog.New(l)
	for range 11 {
		log.With("tenant", "acme").WithGroup("g").WarnContext(metrics.WithFace(t.Context(), "authz"), "request refused", "reason", "expired")
	}
	if got := l.taken()[0]; got != `level=WARN msg="request refused" tenant=acme g.reason=expired g.keyturn.face=authz` {
		t.Errorf("%s", got)
	}
	if err := l.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := l.taken(); len(got) != 1 || strings.Contains(got[0], "acme") {
		t.Errorf("%q", got)
	}
}

// No token gets into the log, and no line of a client's, even if a handler below would not quote.
func TestLogIsClean(t *testing.T) {
	const token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlLW9mLWFubg"
	l := newLogTest()
	l.log(t, 1, "proxy error: GET /x?token="+token+" failed", "err", errors.New("header Authorization: bearer "+token),
		"line", "a\nlevel=ERROR msg=forged", "plain", "José", "group", slog.GroupValue(slog.String("in", token)),
		"any", struct{ Cookie string }{token}, "bearer", "Bearer opaque-token-1234", "number", 7)
	got := strings.Join(l.taken(), "\n")
	for _, secret := range []string{"eyJ", "c2lnbmF0", "opaque-token"} {
		if strings.Contains(got, secret) {
			t.Errorf("%s is in the log: %s", secret, got)
		}
	}
	for _, want := range []string{"/x?token=(token) failed", "plain=José", "number=7", `a\\nlevel=ERROR`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in the log: %s", want, got)
		}
	}
}
