package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A listMeter lists what it was told.
type listMeter struct {
	mu  sync.Mutex // guards all
	all []string
}

func (l *listMeter) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf(format, args...))
}

func (l *listMeter) told() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

func (l *listMeter) Request(face string, code int, took time.Duration) {
	l.add("%s %d %v", face, code, took)
}
func (l *listMeter) StreamOpened()                 { l.add("opened") }
func (l *listMeter) StreamEnded(reason string)     { l.add("ended: %s", reason) }
func (l *listMeter) Reloaded(ok bool, _ time.Time) { l.add("reloaded: %v", ok) }
func (l *listMeter) CertificateEnds(at time.Time)  { l.add("ends: %d", at.Unix()) }

// Every answer of a face is counted once, and probes are not.
func TestRoutesAreMetered(t *testing.T) {
	meter := new(listMeter)
	at := time.Unix(1764000000, 0)
	s, err := New(t.Context(), Config{
		Addr: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}, Meter: meter,
		Now: func() time.Time { return at },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, path := range []string{"/api/x", "/healthz", "/readyz", "/nothing"} {
		get(s.routes(), "GET", path)
	}
	if want := []string{"api 401 0s"}; !reflect.DeepEqual(meter.told(), want) {
		t.Errorf("counted %q, want %q", meter.told(), want)
	}
}

// A handler may write its header or not, send informational answers before, or panic: one answer is
// counted, with its code, when its header is written.
func TestMeteredCodes(t *testing.T) {
	for want, h := range map[string]http.HandlerFunc{
		"api 200 1s": func(http.ResponseWriter, *http.Request) {},
		"api 200 1s ": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			io.WriteString(w, "x")
			w.WriteHeader(http.StatusTeapot) // too late
		},
		"api 418 1s": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) },
		"api 500 1s": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		meter, now := new(listMeter), time.Unix(0, 0)
		s := &Server{cfg: Config{Meter: meter, Now: func() time.Time { now = now.Add(time.Second); return now }}}
		func() {
			defer func() { _ = recover() }()
			s.metered(FaceAPI, h).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}()
		if got := meter.told(); len(got) != 1 || got[0] != strings.TrimSpace(want) {
			t.Errorf("counted %q, want %q once", got, want)
		}
	}
}

// An upgrade is counted as 101 when it begins, and http.ResponseController reaches the connection.
func TestMeteredUpgrade(t *testing.T) {
	meter := new(listMeter)
	s := &Server{cfg: Config{Meter: meter, Now: func() time.Time { return time.Unix(0, 0) }}}
	server := httptest.NewServer(s.metered(FaceProxy, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Errorf("SetWriteDeadline: %v", err)
		}
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("Hijack: %v", err)
			return
		}
		c.Close()
	})))
	defer server.Close()
	res, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if want := []string{"proxy 101 0s"}; !reflect.DeepEqual(meter.told(), want) {
		t.Errorf("counted %q, want %q", meter.told(), want)
	}
}
