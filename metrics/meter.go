package metrics

import (
	"sync/atomic"
	"time"
)

// faces are what can answer a request, and reasons why a stream ended: the values of the labels face
// and reason. A face or reason that is not listed counts as the last one.
var (
	faces   = [...]string{"api", "authz", "proxy", "jwks", "revocations", "other"}
	reasons = [...]string{"client", "upstream", "expired", "revoked", "idle", "shutdown", "other"}
)

// codes are the statuses that have a series of their own, and usual is how many of them are there
// from the start. An upstream chooses its statuses, so the others count by their class: "5xx".
var codes = [...]int{
	200, 400, 401, 403, 404, 500, 502, 503, 504,
	101, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 405, 408, 409, 410, 411, 412, 413, 415, 416, 421, 422, 425,
	429, 431, 499, 501, 505,
}

const usual = 9

// classes are the classes of the statuses that codes does not list. The last one is of numbers that
// are no status.
var classes = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx", "other"}

// A faceCounts counts the answers of one face.
type faceCounts struct {
	byCode   [len(codes) + len(classes)]atomic.Uint64
	duration *histogram
}

// codeIndex returns where a status is counted in byCode.
func codeIndex(code int) int {
	for i, c := range codes {
		if c == code {
			return i
		}
	}
	if code < 100 || code > 599 {
		return len(codes) + len(classes) - 1
	}
	return len(codes) + code/100 - 1
}

// index returns the index of s in list, or the last one.
func index(list []string, s string) int {
	for i, one := range list {
		if one == s {
			return i
		}
	}
	return len(list) - 1
}

// Request counts an answer of a face: "api", "authz", "proxy", "jwks" or "revocations". took is how long the client
// waited for it.
func (c *Collector) Request(face string, code int, took time.Duration) {
	f := &c.http[index(faces[:], face)]
	f.byCode[codeIndex(code)].Add(1)
	f.duration.observe(took)
}

// A streamCounts counts streams. Streams that are open are those that began and have not ended.
type streamCounts struct {
	opened atomic.Uint64
	ended  [len(reasons)]atomic.Uint64
}

// open returns how many streams are open. Ends are read first, so it is never less than zero.
func (s *streamCounts) open() uint64 {
	ended := uint64(0)
	for i := range s.ended {
		ended += s.ended[i].Load()
	}
	return s.opened.Load() - ended
}

// StreamOpened counts a stream that began.
func (c *Collector) StreamOpened() { c.streams.opened.Add(1) }

// StreamEnded counts a stream that ended, because of its "client", its "upstream" or a "shutdown", or
// since its token is "expired" or "revoked", or since it stood still: "idle". Call it once for each StreamOpened.
func (c *Collector) StreamEnded(reason string) { c.streams.ended[index(reasons[:], reason)].Add(1) }

// A reloadCounts counts reloads of the configuration. The start counts as the first good one, without
// being counted.
type reloadCounts struct {
	good, bad atomic.Uint64
	failed    atomic.Bool  // the last one
	lastGood  atomic.Int64 // Unix milliseconds
	notAfter  atomic.Int64 // Unix milliseconds; 0: there is no certificate
}

func (r *reloadCounts) started(at time.Time) { r.lastGood.Store(at.UnixMilli()) }

// Reloaded counts a reload of the configuration at which the new one was taken, or the last good one
// stayed.
func (c *Collector) Reloaded(ok bool, at time.Time) {
	c.reloads.failed.Store(!ok)
	if !ok {
		c.reloads.bad.Add(1)
		return
	}
	c.reloads.good.Add(1)
	c.reloads.lastGood.Store(at.UnixMilli())
}

// CertificateEnds tells until when the certificate of the listener is valid.
func (c *Collector) CertificateEnds(at time.Time) { c.reloads.notAfter.Store(at.UnixMilli()) }
