package jwks

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Bounds on one attempt.
const (
	fetchTimeout = 5 * time.Second // discovery, redirects and body included
	rawExtra     = 1 << 20         // bytes on the connection, beyond those of the body
	maxHeader    = 64 << 10        // bytes
	maxRedirects = 2

	// The body must bring at least that many bytes a second, from a second after the header on.
	minRate     = 1 << 10
	gracePeriod = time.Second
)

// An answer is a response that may be of use.
type answer struct {
	header   http.Header
	body     []byte
	modified bool // false: 304, to a conditional request
	asked    time.Time
}

// A getter asks for documents, over connections that its guard permits.
type getter struct {
	pool      *pool
	guard     guard
	redirects bool
	maxBody   int // bytes, after decoding
	accept    string
	now       func() time.Time
	answers   *answers
	queued    time.Time                                 // when the attempt was
	wrap      func(http.RoundTripper) http.RoundTripper // of Config.Wrap, or nil

	header    func(context.Context) (http.Header, error) // of SourceConfig.Header, or nil
	headerFor string                                     // the origin that gets it
	got       http.Header                                // what it returned in this attempt
}

// get asks for one document. onDemand asks past caches (RFC 9111, section 5.2.1.4). Otherwise v
// makes the request conditional.
func (g *getter) get(ctx context.Context, u *url.URL, v validator, onDemand bool) (*answer, *Error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	asked := g.now()
	r := &request{ctx: ctx, raw: g.maxRaw(), next: g.pool.transport(g.guard, u.Scheme == "http")}
	r.step.Store(StepConnect)
	carrier, failed := g.wrapped(ctx, u, r)
	if failed != nil {
		return nil, failed
	}
	client := &http.Client{Transport: carrier, CheckRedirect: g.checkRedirect}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, failf(StepURL, "no request can be made of it")
	}
	req.Header.Set("User-Agent", "keyturn")
	req.Header.Set("Accept", cmp.Or(g.accept, "application/jwk-set+json, application/json;q=0.9"))
	conditional := false
	if onDemand {
		req.Header.Set("Cache-Control", "no-cache")
	} else {
		conditional = v.set(req.Header)
		r.last = conditional
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, r.failure(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified && conditional {
		return &answer{header: resp.Header, asked: asked}, nil
	}
	if failed := checkStatus(resp, g.now()); failed != nil {
		return nil, failed
	}
	body, failed := g.readBody(ctx, cancel, resp.Body)
	if failed != nil {
		return nil, failed
	}
	return &answer{header: resp.Header, body: body, modified: true, asked: asked}, nil
}

// checkStatus refuses every status but 200.
func checkStatus(resp *http.Response, now time.Time) *Error {
	failed := failf(StepStatus, "status %d", resp.StatusCode)
	switch status := resp.StatusCode; {
	case status == http.StatusOK:
		return nil
	case status == http.StatusNotModified:
		failed.Detail = "status 304, though nothing was held to compare with"
	case status >= 300 && status < 400:
		failed = failf(StepRedirect, "status %d: redirects are not followed", status).hint("give the URL that it points to")
	}
	failed.Status = resp.StatusCode
	failed.wait = retryAfter(resp.Header, now)
	return failed
}

// tlsWords says why a handshake failed. It quotes nothing of the certificate.
func tlsWords(err error) string {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired, or is not valid yet"
	case errors.As(err, new(x509.HostnameError)):
		return "the certificate is for another host"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "the certificate is signed by an unknown authority"
	case errors.As(err, &invalid):
		return "the certificate is not valid"
	case errors.Is(err, context.DeadlineExceeded):
		return "no handshake in time"
	}
	return "the handshake failed"
}

// checkRedirect decides whether a redirect is followed.
func (g *getter) checkRedirect(req *http.Request, via []*http.Request) error {
	if !g.redirects {
		return http.ErrUseLastResponse
	}
	first := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return failf(StepRedirect, "more than %d redirects", maxRedirects)
	case req.URL.Scheme != first.Scheme || hostOf(req.URL) != hostOf(first):
		return failf(StepRedirect, "a redirect to another host or scheme")
	}
	if _, failed := g.guard.parseURL(req.URL.String()); failed != nil {
		return failed.within(StepRedirect, "a redirect to a URL that is refused")
	}
	return nil
}

// failure says why a request got no answer.
func (r *request) failure(err error) *Error {
	step, _ := r.step.Load().(Step)
	words := "the connection broke off, or the answer is not HTTP"
	if errors.Is(err, context.DeadlineExceeded) {
		words = "no answer in time"
	}
	return asError(err, step, words)
}

var errSlow = failf(StepBody, "less than %d bytes a second", minRate)

// maxRaw is how many bytes are read on a connection: they may decode to nothing.
func (g *getter) maxRaw() int { return g.maxBody + rawExtra }

// readBody reads at most maxBody bytes, if they come fast enough.
func (g *getter) readBody(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader) ([]byte, *Error) {
	watch := &pacedReader{r: body, now: g.now, start: g.now()}
	watch.timer = time.AfterFunc(gracePeriod, func() { cancel(errSlow) })
	defer watch.timer.Stop()
	all, err := io.ReadAll(io.LimitReader(watch, int64(g.maxBody)+1))
	switch cause := context.Cause(ctx); {
	case cause != nil: // even if the whole body came just before
		return nil, asError(cause, StepBody, "no whole answer in time")
	case err != nil:
		return nil, asError(err, StepBody, "broken off, or not decodable")
	case len(all) > g.maxBody:
		return nil, failf(StepBody, "more than %d bytes", g.maxBody).allowedBy(SettingMaxBytes, "raises the limit")
	}
	return all, nil
}

// A pacedReader gives its timer more time for each byte that it reads.
type pacedReader struct {
	r     io.Reader
	timer *time.Timer
	now   func() time.Time
	start time.Time
	read  int
}

// Read lets the timer run out once the average rate, without the first second, is below [minRate].
func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.read += n
	left := gracePeriod + time.Duration(p.read)*time.Second/minRate - p.now().Sub(p.start)
	if p.timer.Stop() {
		p.timer.Reset(left)
	}
	return n, err
}
