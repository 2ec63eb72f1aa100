package middleware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// A TokenSource returns tokens to send. It must be safe for concurrent use.
type TokenSource interface {
	// Token returns a token and the time at which it expires, or the zero Time if
	// the source does not know. A [Transport] keeps the token and calls again when
	// it needs another, so a source does not have to keep anything.
	Token(ctx context.Context) (token string, expires time.Time, err error)
}

// A TokenSourceFunc is a function that is a [TokenSource].
type TokenSourceFunc func(ctx context.Context) (token string, expires time.Time, err error)

// Token calls f.
func (f TokenSourceFunc) Token(ctx context.Context) (string, time.Time, error) { return f(ctx) }

// StaticToken returns a source that always returns token, such as one from the
// environment.
func StaticToken(token string) TokenSource {
	return TokenSourceFunc(func(context.Context) (string, time.Time, error) { return token, time.Time{}, nil })
}

// A Transport is an [http.RoundTripper] that puts a live token on each request. It is
// safe for concurrent use, starts no goroutines and needs no closing. It must not be
// copied after first use.
//
// It asks Source for the next token when a tenth of the token's life is left, or 30
// seconds if that is less. It asks once, however many requests wait. If Source fails,
// it keeps sending the old token until that expires. If the answer to a request is
// 401, it asks for another token. If it gets a different one, and the body can be
// sent again ([http.Request.GetBody]), it repeats the request once.
//
// The token goes to every host that the caller sends a request to, and over http if
// the URL says http. So use one client for each API, and https. A redirect to another
// scheme, host or port never gets the token, and neither does a redirect after that.
// A request that already has an Authorization header is sent unchanged.
type Transport struct {
	// Base sends the requests. The default is [http.DefaultTransport].
	Base http.RoundTripper

	// Source returns the tokens. It is required. It gets the context of the request
	// that waits for the token. Other requests use the token too, so it must not
	// depend on that context.
	Source TokenSource

	// Now reports the time. The default is [time.Now].
	Now func() time.Time

	mu     sync.Mutex // guards held and flight; never held during a call of Source or Base
	held   *heldToken // nil at first; immutable, and replaced as a whole
	flight *flight    // the call of Source that is running, or nil
}

var _ http.RoundTripper = (*Transport)(nil)

// A heldToken has its token in a closure, so that printing a Transport does not
// show it.
type heldToken struct {
	token   func() string
	expires time.Time // zero if it is not known
	renewAt time.Time // zero for never
}

// A flight is one call of Source. Its other fields may be read after done is closed.
type flight struct {
	done      chan struct{}
	got       *heldToken
	err       error
	abandoned bool // it failed because its caller's context ended, so another caller must ask again
}

func (f *flight) result() (string, error) {
	if f.err != nil {
		return "", f.err
	}
	return f.got.token(), nil
}

const (
	maxRenewBefore = 30 * time.Second // the longest time before its end at which a token is renewed
	renewAgain     = 5 * time.Second  // from a failure to the next attempt, while the old token lives
	maxDrain       = 4 << 10          // bytes to read of a discarded answer, so that its connection can be reused
)

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, set := req.Header["Authorization"]; set || ledAway(req) {
		return t.base().RoundTrip(req)
	}
	token, err := t.live(req.Context(), "")
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	resp, err := t.send(req, req.Body, token)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	next, err := t.live(req.Context(), token)
	if err != nil || next == token {
		return resp, nil // the server's answer says more
	}
	body, ok := bodyAgain(req)
	if !ok {
		return resp, nil
	}
	io.CopyN(io.Discard, resp.Body, maxDrain)
	resp.Body.Close()
	return t.send(req, body, next)
}

// CloseIdleConnections closes the idle connections of Base. It is for
// [http.Client.CloseIdleConnections].
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

func (t *Transport) now() time.Time {
	now := t.Now
	if now == nil {
		now = time.Now
	}
	return now()
}

// send sends a copy of req with token. A RoundTripper must not change its request,
// and http.Client would copy the header to the request for a redirect.
func (t *Transport) send(req *http.Request, body io.ReadCloser, token string) (*http.Response, error) {
	withToken := req.Clone(req.Context())
	if withToken.Header == nil {
		withToken.Header = make(http.Header)
	}
	withToken.Header.Set("Authorization", "Bearer "+token)
	withToken.Body = body
	resp, err := t.base().RoundTrip(withToken)
	if resp != nil {
		resp.Request = req // without the token, which a caller might log; ledAway follows it
	}
	return resp, err
}

// bodyAgain returns the body of req for a second attempt.
func bodyAgain(req *http.Request) (body io.ReadCloser, ok bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}

// ledAway reports whether any of the redirects that led to req left the place of the
// caller's request. A redirect that leads back there does not count as safe, since
// the other place chose it.
func ledAway(req *http.Request) bool {
	for req.Response != nil {
		from := req.Response.Request
		if from == nil || !samePlace(from, req) {
			return true
		}
		req = from
	}
	return false
}

func samePlace(a, b *http.Request) bool {
	return a.URL != nil && b.URL != nil && origin(a.URL) == origin(b.URL) && virtualHost(a) == virtualHost(b)
}

type place struct{ scheme, host, port string }

func origin(u *url.URL) place {
	p := place{lowerASCII(u.Scheme), lowerASCII(u.Hostname()), u.Port()}
	if p.port == "" {
		p.port = map[string]string{"http": "80", "https": "443"}[p.scheme]
	}
	return p
}

// virtualHost returns the Host header of r if it differs from the host of its URL.
func virtualHost(r *http.Request) string {
	if r.Host == r.URL.Host {
		return ""
	}
	return r.Host
}

// live returns a token to send. It returns the token refused only if Source returns
// that one again.
func (t *Transport) live(ctx context.Context, refused string) (string, error) {
	for {
		t.mu.Lock()
		now := t.now()
		held := t.held
		usable := held.usable(now, refused)
		f := t.flight
		if usable && (f != nil || !held.due(now)) {
			t.mu.Unlock()
			return held.token(), nil
		}
		lead := f == nil
		if lead {
			f = &flight{done: make(chan struct{})}
			t.flight = f
		}
		t.mu.Unlock()

		if lead {
			t.fetch(ctx, f, now)
			if f.err != nil && usable {
				return held.token(), nil
			}
			return f.result()
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-f.done:
		}
		if !f.abandoned {
			return f.result()
		}
	}
}

// usable reports whether the token lives at now, and is not the refused one.
func (h *heldToken) usable(now time.Time, refused string) bool {
	return h != nil && h.token() != refused && (h.expires.IsZero() || now.Before(h.expires))
}

// due reports whether it is time to ask for the next token.
func (h *heldToken) due(now time.Time) bool {
	return !h.renewAt.IsZero() && !now.Before(h.renewAt)
}

// errEnded is the failure of a Source that returns an expired token while the old one
// is still live. Then the old one stays.
var errEnded = errors.New("middleware: the token source returned a token that has ended")

// fetch calls Source for all the requests that wait for f. Each of the others stops
// waiting when its own context ends. If the caller's context ends, one of the others
// calls Source instead.
func (t *Transport) fetch(ctx context.Context, f *flight, now time.Time) {
	f.err, f.abandoned = errors.New("middleware: the token source panicked"), true
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if f.err == nil && !f.got.usable(now, "") && t.held.usable(now, "") {
			f.err = errEnded
		}
		switch {
		case f.err == nil:
			t.held = f.got
		case !f.abandoned && t.held != nil:
			t.held = &heldToken{t.held.token, t.held.expires, now.Add(renewAgain)}
		}
		t.flight = nil
		close(f.done)
	}()
	f.got, f.err = t.ask(ctx, now)
	f.abandoned = f.err != nil && ctx.Err() != nil
}

func (t *Transport) ask(ctx context.Context, now time.Time) (*heldToken, error) {
	if t.Source == nil {
		return nil, errors.New("middleware: Transport.Source is nil")
	}
	token, expires, err := t.Source.Token(ctx)
	if err != nil {
		return nil, fmt.Errorf("middleware: no token to send: %w", err)
	}
	if !isB64Token(token) {
		return nil, errors.New("middleware: the token source returned what cannot be a bearer token")
	}
	h := &heldToken{token: func() string { return token }, expires: expires}
	if !expires.IsZero() {
		h.renewAt = expires.Add(-min(expires.Sub(now)/10, maxRenewBefore))
	}
	return h, nil
}
