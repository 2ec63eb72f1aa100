package revocations

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/verifier"
)

// A Client is a service that may ask an [IntrospectionHandler] or a [RevocationHandler]. It
// authenticates with HTTP Basic (client_secret_basic of OpenID Connect Core 1.0, section 9).
type Client struct {
	// ID is the user of HTTP Basic.
	ID string

	// Secret is its password, of 32 bytes or more.
	Secret []byte

	// Tenants are those whose tokens the client may ask about. Nil means all, and an empty list is refused.
	//
	// Where the iss of a token does not tell its tenant, since tenants share an issuer or have AnyIssuer,
	// the tenants of this list are tried in turn. So it has to be given there.
	Tenants []string
}

// leastSecret is the length of a client's secret, in bytes: as of a secret for HS256. Nothing
// limits how often a client may guess.
const leastSecret = 32

// EndpointConfig configures an [IntrospectionHandler] or a [RevocationHandler].
type EndpointConfig struct {
	// Verifier decides which tokens are good. Its Revocations are the same list.
	Verifier *verifier.Verifier

	// Clients may ask. At least one is required.
	Clients []Client

	// MaxBodyBytes bounds the body of a request. Zero means 64 KiB, and a token may be as long as
	// the Verifier allows.
	MaxBodyBytes int64

	// Logger receives what an operator should know: that it could not tell, or could not write.
	// It never receives a token. Nil means that nothing is logged.
	Logger *slog.Logger
}

const defaultMaxBody = 64 << 10

// An endpoint authenticates clients and reads their forms.
type endpoint struct {
	verifier *verifier.Verifier
	clients  map[string]*client
	form     formReader
	log      *slog.Logger
}

// A client is a Client whose secret is a digest, which has a constant length.
type client struct {
	id      string
	secret  [sha256.Size]byte
	tenants []string
}

func newEndpoint(cfg EndpointConfig) (*endpoint, error) {
	switch {
	case cfg.Verifier == nil:
		return nil, errors.New("revocations: EndpointConfig.Verifier is nil")
	case len(cfg.Clients) == 0:
		return nil, errors.New("revocations: EndpointConfig.Clients is empty: without a client, all requests would be refused")
	case cfg.MaxBodyBytes < 0:
		return nil, fmt.Errorf("revocations: EndpointConfig.MaxBodyBytes is %d, want 0 or more", cfg.MaxBodyBytes)
	}
	e := &endpoint{verifier: cfg.Verifier, clients: make(map[string]*client), form: formReader{cfg.MaxBodyBytes}, log: cfg.Logger}
	if e.form.most == 0 {
		e.form.most = defaultMaxBody
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	for i := range cfg.Clients {
		c := &cfg.Clients[i]
		switch {
		case c.ID == "" || strings.ContainsFunc(c.ID, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }):
			return nil, errors.New("revocations: a Client's ID is empty, or has a character that HTTP Basic does not allow in a user: printable ASCII without a colon")
		case len(c.Secret) < leastSecret:
			return nil, fmt.Errorf("revocations: the Secret of client %q has %d bytes, want at least %d: make one with openssl rand -base64 32", c.ID, len(c.Secret), leastSecret)
		case c.Tenants != nil && len(c.Tenants) == 0:
			return nil, fmt.Errorf("revocations: the Tenants of client %q are an empty list: name one, or leave it nil for all", c.ID)
		case e.clients[c.ID] != nil:
			return nil, fmt.Errorf("revocations: two Clients have the ID %q", c.ID)
		}
		e.clients[c.ID] = &client{c.ID, sha256.Sum256(c.Secret), slices.Clone(c.Tenants)}
	}
	return e, nil
}

// may reports whether the client may ask about a tenant's tokens.
func (c *client) may(tenant string) bool {
	return len(c.tenants) == 0 || slices.Contains(c.tenants, tenant)
}

// verify checks a token that c asks about. Where its iss does not tell its tenant, the token is tried with each tenant
// that c may ask about: a verdict of one of them is that of the token if it says good or revoked, since the signature
// was verified then. Else the one counts from which most hangs, see weight.
func (e *endpoint) verify(ctx context.Context, c *client, token string) (*verifier.Token, error) {
	t, err := e.verifier.Verify(ctx, token)
	if err == nil || reasonOf(err) == verifier.ReasonRevoked {
		return t, err
	}
	if errors.Is(err, verifier.ErrSharedIssuer) && len(c.tenants) > 0 {
		err = verifier.ErrUnknownTenant
	}
	for _, tenant := range c.tenants {
		t, failed := e.verifier.VerifyTenant(ctx, tenant, token)
		if failed == nil || reasonOf(failed) == verifier.ReasonRevoked {
			return t, failed
		}
		if weight(failed) > weight(err) {
			err = failed
		}
	}
	if errors.Is(err, verifier.ErrSharedIssuer) {
		e.log.Error("several tenants may have the issuer of a token: name the Tenants of the client, which are tried then", "client", c.id)
	}
	return nil, err
}

// weight orders the errors of a verifier by what hangs from them: whether the token is good cannot be told now, it may be
// good later, or it never will be.
func weight(err error) int {
	switch {
	case !known(err):
		return 2
	case !dead(err):
		return 1
	}
	return 0
}

// dead reports whether the error of a verifier says that the token is not good, and will not be.
func dead(err error) bool {
	reason := reasonOf(err)
	return known(err) && reason != verifier.ReasonNotYetValid && reason != verifier.ReasonSuspended
}

// known reports whether the error of a verifier says that the token is not good now.
func known(err error) bool {
	return errors.Is(err, verifier.ErrInvalid) && !errors.Is(err, verifier.ErrSharedIssuer)
}

// open authenticates the client and reads the token of its form. If that is not possible it
// answers, and ok is false.
func (e *endpoint) open(w http.ResponseWriter, r *http.Request) (c *client, token string, ok bool) {
	setHeaders(w.Header())
	if !onlyPost(w, r) {
		return nil, "", false
	}
	if c = e.client(r); c == nil {
		w.Header().Set("WWW-Authenticate", `Basic realm="keyturn", charset="UTF-8"`)
		refuse(w, r, http.StatusUnauthorized, "invalid_client", "the client is unknown, or its secret is wrong")
		return nil, "", false
	}
	form, bad := e.form.read(w, r)
	if bad == nil && form.Has("client_secret") {
		bad = badRequest("the client authenticates twice") // RFC 6749, section 2.3
	}
	if bad == nil && form.Get("token") == "" {
		bad = badRequest("the parameter token is missing")
	}
	if bad != nil {
		refuse(w, r, bad.status, "invalid_request", bad.text)
		return nil, "", false
	}
	return c, form.Get("token"), true
}

// client returns the client that r authenticates, or nil.
//
// Before HTTP Basic a client encodes its ID and its secret as in a form (RFC 6749, section 2.3.1).
// Many libraries do, and many do not, so both spellings are taken.
func (e *endpoint) client(r *http.Request) *client {
	id, secret, ok := r.BasicAuth()
	if !ok || len(r.Header["Authorization"]) != 1 {
		return nil
	}
	c := e.clients[id]
	if decoded, err := url.QueryUnescape(id); c == nil && err == nil {
		c = e.clients[decoded]
	}
	known := c != nil
	if !known {
		c = new(client) // for the same work
	}
	good := c.hasSecret(secret)
	if decoded, err := url.QueryUnescape(secret); err == nil {
		good |= c.hasSecret(decoded)
	}
	if good != 1 || !known {
		return nil
	}
	return c
}

// hasSecret returns 1 if secret is that of the client, in a time that does not tell how much of it.
func (c *client) hasSecret(secret string) int {
	sum := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(sum[:], c.secret[:])
}

// A requestError says why a request cannot be read. It holds nothing of the request.
type requestError struct {
	status int
	text   string
}

func badRequest(text string) *requestError { return &requestError{http.StatusBadRequest, text} }

// A formReader reads the form in the body of a request, of at most that many bytes.
type formReader struct{ most int64 }

// read returns the parameters of a form, each of which is there once (RFC 6749, section 3.2). The
// query counts for nothing: tokens in URLs end up in logs.
func (f formReader) read(w http.ResponseWriter, r *http.Request) (url.Values, *requestError) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, badRequest("the body is not of the type application/x-www-form-urlencoded")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, f.most))
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, &requestError{http.StatusRequestEntityTooLarge, "the body is too large"}
	}
	if err != nil {
		return nil, badRequest("the body could not be read")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, badRequest("the body is not a form")
	}
	for _, values := range form {
		if len(values) > 1 {
			return nil, badRequest("a parameter is there twice")
		}
	}
	return form, nil
}

// setHeaders sets the headers of every answer.
func setHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache") // RFC 6749, section 5.1
	h.Set("X-Content-Type-Options", "nosniff")
}

// onlyPost answers a request that is not a POST, and reports whether r is one.
func onlyPost(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodPost {
		return true
	}
	w.Header().Set("Allow", http.MethodPost)
	refuse(w, r, http.StatusMethodNotAllowed, "invalid_request", "want POST")
	return false
}

// retryAfter is in seconds. It is short, because most outages of Redis are short.
const retryAfter = "1"

// unavailable answers that it cannot tell now, or could not write. The client should repeat it.
func unavailable(w http.ResponseWriter, r *http.Request, text string) {
	w.Header().Set("Retry-After", retryAfter)
	refuse(w, r, http.StatusServiceUnavailable, "temporarily_unavailable", text)
}

// refuse answers with an error (RFC 6749, section 5.2). Neither text needs escaping.
func refuse(w http.ResponseWriter, r *http.Request, status int, code, text string) {
	if r.ContentLength != 0 && r.ProtoMajor == 1 && status != http.StatusServiceUnavailable {
		w.Header().Set("Connection", "close") // otherwise net/http waits for the body that was not read
	}
	writeJSON(w, status, []byte(`{"error":"`+code+`","error_description":"`+text+`"}`))
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// reasonOf returns the reason of a verifier's error, for the log.
func reasonOf(err error) verifier.Reason {
	if e := (*verifier.Error)(nil); errors.As(err, &e) {
		return e.Reason
	}
	return verifier.ReasonUnavailable
}
