package jwks

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxSeconds is longer than any useful value of a header, and fits a [time.Duration].
const maxSeconds = 1 << 31

// freshness returns for how long an answer is fresh, clamped, and whether it says so (RFC 9111,
// section 4.2). That is its max-age, less the time that it has spent in caches. Of several the
// shortest counts. A max-age that makes no sense is 0 (RFC 9111, section 4.2.1), and so is that of
// an answer that must not be stored.
func freshness(h http.Header) (ttl time.Duration, said bool) {
	seconds := int64(maxSeconds)
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.Trim(directive, " \t"), "=")
		switch strings.ToLower(name) {
		case "max-age":
			seconds, said = min(seconds, deltaSeconds(value)), true
		case "no-store", "no-cache":
			seconds, said = 0, true
		}
	}
	if !said {
		return defaultFresh, false
	}
	for _, age := range h.Values("Age") {
		seconds -= deltaSeconds(strings.Trim(age, " \t"))
	}
	return min(max(time.Duration(seconds)*time.Second, minFresh), maxFresh), true
}

// deltaSeconds reads a number of seconds (RFC 9111, section 1.2.2), quoted or not. A number that is
// too large is cut, and other text is 0.
func deltaSeconds(s string) int64 {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > maxSeconds {
		return maxSeconds
	}
	return n
}

// retryAfter returns for how long the issuer wants no request: seconds or a date (RFC 9110, section
// 10.2.3), at most [maxRetryAfter]. It is 0 if the answer does not say.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	wait := time.Duration(deltaSeconds(value)) * time.Second
	if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// maxValidator is the longest ETag or Last-Modified that is sent back, in bytes.
const maxValidator = 256

// A validator names the answer that is held, in a conditional request (RFC 9110, section 13.1). The
// zero validator makes a request unconditional.
type validator struct {
	etag     string
	modified string
}

// newValidator reads ETag and Last-Modified. A value that could not be sent back is dropped.
func newValidator(h http.Header) validator {
	return validator{plain(h.Get("ETag")), plain(h.Get("Last-Modified"))}
}

func plain(value string) string {
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	if len(value) > maxValidator {
		return ""
	}
	return value
}

// set makes a request conditional, and reports whether it did.
func (v validator) set(h http.Header) bool {
	if v.etag != "" {
		h.Set("If-None-Match", v.etag)
	}
	if v.modified != "" {
		h.Set("If-Modified-Since", v.modified)
	}
	return v != validator{}
}
