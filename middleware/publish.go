package middleware

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A publisher serves a public document, which needs no token.
type publisher struct {
	document  func(*http.Request) (doc []byte, maxAge time.Duration, err error)
	mediaType string
}

// retryKeysAfter is in seconds. In most cases a service without keys to publish has
// just started.
const retryKeysAfter = "5"

// ServeHTTP implements [http.Handler].
func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		preflight(h)
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		h.Set("Allow", publisherMethods)
		writeJSON(w, http.StatusMethodNotAllowed, `{"error":"method_not_allowed"}`+"\n")
		return
	}
	doc, maxAge, err := p.document(r)
	switch {
	case err == nil:
		p.serve(w, r, doc, maxAge)
	case isUnknown(err):
		writeJSON(w, http.StatusNotFound, `{"error":"not_found","error_description":"there are no public keys here"}`+"\n")
	default:
		h.Set("Retry-After", retryKeysAfter)
		writeJSON(w, http.StatusServiceUnavailable, `{"error":"temporarily_unavailable","error_description":"the keys cannot be told now"}`+"\n")
	}
}

const publisherMethods = "GET, HEAD, OPTIONS"

// preflight sets the headers that let a script of another origin send any header with GET
// or HEAD. Browsers ask for it before they send one that is not on their list: MCP clients
// send MCP-Protocol-Version, tracers traceparent. It says the same for every tenant,
// whether or not there is one.
func preflight(h http.Header) {
	h.Set("Allow", publisherMethods)
	h.Set("Access-Control-Allow-Methods", "GET, HEAD")
	h.Set("Access-Control-Allow-Headers", "*")
	h.Set("Access-Control-Max-Age", "86400")
}

// serve answers with the whole document, or 304. It ignores ranges, since the
// document is small, and the other preconditions, since their 412 would help no
// reader of keys (RFC 9110, sections 13.2.1 and 14.2, allow both).
func (p *publisher) serve(w http.ResponseWriter, r *http.Request, doc []byte, maxAge time.Duration) {
	sum := sha256.Sum256(doc)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	h := w.Header()
	h.Set("Cache-Control", "public, max-age="+strconv.FormatInt(int64(max(0, maxAge)/time.Second), 10))
	h.Set("ETag", tag)
	if holds(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", p.mediaType)
	h.Set("Content-Length", strconv.Itoa(len(doc)))
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(doc)
}

// holds reports whether If-None-Match names tag, by the weak comparison (RFC 9110,
// sections 8.8.3.2 and 13.1.2). Another tag may have a comma in it. That does no
// harm: a part of such a tag does not equal tag, whose quotes count.
func holds(lines []string, tag string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.Trim(part, " \t")
			if part == "*" || strings.TrimPrefix(part, "W/") == tag {
				return true
			}
		}
	}
	return false
}
