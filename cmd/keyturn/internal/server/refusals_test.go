package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// A refusalTest is a refusal log with a clock of its own.
type refusalTest struct {
	*refusalLog
	now time.Time
	out strings.Builder
}

func newRefusalTest() *refusalTest {
	r := &refusalTest{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	r.refusalLog = &refusalLog{
		log:  boundedLog(slog.New(slog.NewTextHandler(&r.out, nil))),
		hint: func(*verifier.Error) string { return "" },
		now:  func() time.Time { return r.now },
	}
	return r
}

// refuse refuses a request n times.
func (r *refusalTest) refuse(n int, err error) {
	for range n {
		r.add(httptest.NewRequest("GET", "/api/x", nil), err)
	}
}

// lines returns how many lines of the log hold all phrases.
func (r *refusalTest) lines(phrases ...string) (n int) {
	for line := range strings.Lines(r.out.String()) {
		holds := true
		for _, p := range phrases {
			holds = holds && strings.Contains(line, p)
		}
		if holds {
			n++
		}
	}
	return n
}

var (
	badSignature = &verifier.Error{Reason: verifier.ReasonSignature, Err: verifier.ErrSignature}
	expired      = &verifier.Error{Reason: verifier.ReasonExpired, Err: verifier.ErrExpired}
)

// A flood of refused tokens writes ten lines a second for each reason, and then one with the count.
func TestRefusalsAreBounded(t *testing.T) {
	r := newRefusalTest()
	r.refuse(10, badSignature)
	if n := r.lines("request refused", "reason=signature"); n != 10 || r.lines("suppressed") != 0 {
		t.Errorf("after 10: %d lines: %s", n, &r.out)
	}
	r.refuse(1000, badSignature)
	r.refuse(3, expired)                // the flood of one reason does not hide another
	r.refuse(20, middleware.ErrNoToken) // nor that of those without a token
	for phrase, want := range map[string]int{"reason=signature": 10, "reason=expired": 3, middleware.ErrNoToken.Error(): 10} {
		if n := r.lines("request refused", phrase); n != want {
			t.Errorf("%s: %d lines, want %d", phrase, n, want)
		}
	}
	r.out.Reset()
	r.now = r.now.Add(999 * time.Millisecond)
	r.refuse(5, badSignature)
	if got := r.out.String(); got != "" {
		t.Errorf("within the second: %s", got)
	}
	r.now = r.now.Add(time.Millisecond)
	r.refuse(1, expired)
	if r.lines("level=WARN", "and 1 005 more: request refused", "reason=signature suppressed=1005\n") != 1 || r.lines("reason=no_token suppressed=10\n") != 1 {
		t.Errorf("after the second: %s", &r.out)
	}
	if n := r.lines("request refused", "reason=expired"); n != 1 {
		t.Errorf("after the second, %d lines of another reason: %s", n, &r.out)
	}
	r.out.Reset()
	r.refuse(12, badSignature)
	if n := r.lines("request refused", "reason=signature"); n != 10 || r.lines("suppressed") != 0 {
		t.Errorf("in the next second: %d lines: %s", n, &r.out)
	}
	r.out.Reset()
	r.flush() // as the server ends
	if got := r.out.String(); r.lines("suppressed=2", "reason=signature") != 1 || strings.Count(got, "\n") != 1 {
		t.Errorf("at the end: %s", got)
	}
	r.out.Reset()
	if r.flush(); r.out.Len() != 0 {
		t.Errorf("at the end, twice: %s", &r.out)
	}
}

// A clock that is set back does not silence the log.
func TestRefusalsWhenTheClockIsSetBack(t *testing.T) {
	r := newRefusalTest()
	r.refuse(11, badSignature)
	r.out.Reset()
	r.now = r.now.Add(-time.Hour)
	r.refuse(1, badSignature)
	if r.lines("suppressed=1") != 1 || r.lines(`msg="request refused"`, "reason=signature") != 1 {
		t.Errorf("log = %s", &r.out)
	}
}

// A running server bounds its log, and says at its end what it left out.
func TestServerBoundsItsLog(t *testing.T) {
	var out strings.Builder
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s, err := New(t.Context(), Config{
		Addr: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}, Now: func() time.Time { return at }, Logger: slog.New(slog.NewTextHandler(&out, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	h := s.routes()
	for range 500 {
		req := httptest.NewRequest("GET", "/api/x", nil)
		req.Header.Set("Authorization", "Bearer rubbish")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, req); w.Code != http.StatusUnauthorized {
			t.Fatalf("answer = %d", w.Code)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 10 {
		t.Errorf("%d lines for 500 refused tokens", n)
	}
	s.close()
	if !strings.Contains(out.String(), "suppressed=490") {
		t.Errorf("log = %s", &out)
	}
}
