package server

import (
	"net/http"
	"time"

	"github.com/keyturn/keyturn/metrics"
)

// A Meter counts what a server does. Its methods are called while requests wait, so they must be
// fast, and safe for concurrent use. None gets text that a client wrote.
type Meter interface {
	// Request counts an answer of a face, which is one of those below. took is the time until its
	// header was written. So a stream, which may last for hours, counts when it begins.
	Request(face string, code int, took time.Duration)

	// StreamOpened counts a stream that began: an upgraded connection, an event stream or any other
	// answer that is asked for again while it lasts.
	StreamOpened()

	// StreamEnded counts a stream that ended, for one of the reasons below.
	StreamEnded(reason string)

	// Reloaded counts a reload of the configuration, at which the new one was taken, or the last
	// good one stayed.
	Reloaded(ok bool, at time.Time)

	// CertificateEnds tells when the certificate of the listener ends. A later call replaces it.
	CertificateEnds(at time.Time)
}

// The faces of a server: what answered a request.
const (
	FaceAPI   = "api"
	FaceAuthz = "authz"
	FaceProxy = "proxy"
	FaceJWKS  = "jwks" // and the metadata that leads there

	FaceRevocations = "revocations" // introspection, revocation and logout tokens
)

// The reasons for which a stream ended.
const (
	StreamClient   = "client"
	StreamUpstream = "upstream"
	StreamExpired  = "expired"
	StreamRevoked  = "revoked" // its token, key or tenant is no longer good
	StreamShutdown = "shutdown"
	StreamIdle     = "idle" // nothing moved
)

// A silentMeter counts nothing.
type silentMeter struct{}

func (silentMeter) Request(string, int, time.Duration) {}
func (silentMeter) StreamOpened()                      {}
func (silentMeter) StreamEnded(string)                 {}
func (silentMeter) Reloaded(bool, time.Time)           {}
func (silentMeter) CertificateEnds(time.Time)          {}

// metered returns h, whose answers are counted as those of a face.
func (s *Server) metered(face string, h http.Handler) http.Handler {
	return s.counted(face, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(metrics.WithFace(r.Context(), face)))
	}))
}

// counted is metered for a handler that tells its log of the face.
func (s *Server) counted(face string, h http.Handler) http.Handler {
	if s.cfg.Meter == (silentMeter{}) {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := &meteredWriter{ResponseWriter: w, meter: s.cfg.Meter, face: face, now: s.cfg.Now, began: s.cfg.Now()}
		returned := false
		defer func() {
			if returned {
				m.count(http.StatusOK) // net/http's own, for a handler that wrote nothing
			} else {
				m.count(http.StatusInternalServerError) // it panicked: net/http closes the connection
			}
		}()
		h.ServeHTTP(m, r)
		returned = true
	})
}

// A meteredWriter counts an answer when its header is written. [http.ResponseController] finds the
// ResponseWriter in it, for deadlines, flushes and upgrades.
type meteredWriter struct {
	http.ResponseWriter
	meter   Meter
	face    string
	now     func() time.Time
	began   time.Time
	counted bool
}

func (m *meteredWriter) count(code int) {
	if !m.counted {
		m.counted = true
		m.meter.Request(m.face, code, m.now().Sub(m.began))
	}
}

// WriteHeader implements [http.ResponseWriter]. An informational answer is not the answer, but an
// upgrade is (RFC 9110, section 15.2).
func (m *meteredWriter) WriteHeader(code int) {
	if code >= 200 || code == http.StatusSwitchingProtocols {
		m.count(code)
	}
	m.ResponseWriter.WriteHeader(code)
}

// Write implements [http.ResponseWriter].
func (m *meteredWriter) Write(b []byte) (int, error) {
	m.count(http.StatusOK)
	return m.ResponseWriter.Write(b)
}

// Unwrap returns the ResponseWriter, for [http.ResponseController].
func (m *meteredWriter) Unwrap() http.ResponseWriter { return m.ResponseWriter }
