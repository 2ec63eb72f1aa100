package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/keyturn/keyturn/metrics"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// Revocations say where the list of revocations is, which counts for all tenants, and who may use it.
type Revocations struct {
	// URL is the Redis that has the list, with its password, and Link says how to connect to it.
	URL  string
	Link rediskeys.Options

	// KEKs seal the keys of the list's digests. Nil means that they lie in Redis in clear.
	KEKs *rotation.KEKs

	// KEKFile is the file that KEKs come from. New KEKs in it replace them while the server runs. It
	// may be nil.
	KEKFile *File

	// Realm names the environment that the list belongs to.
	Realm string

	// MaxStale, StaleOK and MaxTokenTTL are those of [revocations.Config].
	MaxStale    time.Duration
	StaleOK     bool
	MaxTokenTTL time.Duration

	// Poll and Deadline are those of [revocations.Config]. Zero means its defaults.
	Poll, Deadline time.Duration

	// TrustFirstRead says that the Redis is new and nothing else uses it, as in a test.
	TrustFirstRead bool

	// Clients may ask at /introspect or /revoke. A reload replaces them.
	Clients []RevocationClient

	// Logout has the tenants whose OpenID providers send logout tokens to /backchannel-logout, by
	// their IDs. A reload replaces them.
	Logout map[string]Logout
}

// A RevocationClient is a service that authenticates with a secret, and what it may do.
type RevocationClient struct {
	revocations.Client
	Introspect, Revoke bool
}

// A Logout says which logout tokens of a tenant are good: see [revocations.LogoutTenant].
type Logout struct {
	ClientID      string
	Types         []string
	TokensHaveSID bool
}

// The paths of the public listener that belong to revocations, where they are configured.
const (
	pathIntrospect = "/introspect"
	pathRevoke     = "/revoke"
	pathLogout     = "/backchannel-logout"
)

// A revocationList is the list of a server, with its connections.
type revocationList struct {
	list   *revocations.List
	client redis.UniversalClient
	log    *slog.Logger
}

// openRevocations opens the list of cfg, or returns nil if it has none. It does not wait for Redis.
func openRevocations(ctx context.Context, cfg *Config) (*revocationList, error) {
	c := cfg.Revocations
	if c == nil {
		return nil, nil
	}
	logging.Disable() // the Redis client would write to stderr; what matters comes as an error
	client, err := rediskeys.OpenWith(c.URL, c.Link)
	if err != nil {
		return nil, &Error{Part: PartStore, Err: err}
	}
	list, err := revocations.Open(ctx, client, revocations.Config{
		KEKs: c.KEKs, Realm: c.Realm, MaxStale: c.MaxStale, StaleOK: c.StaleOK, MaxTokenTTL: c.MaxTokenTTL, TrustFirstRead: c.TrustFirstRead, Poll: c.Poll, Deadline: c.Deadline,
		Logger: cfg.Logger, Now: cfg.Now,
	})
	if err != nil {
		client.Close()
		return nil, &Error{Part: PartRevocations, Err: err}
	}
	return &revocationList{list, client, cfg.Logger}, nil
}

// setKEKs replaces the KEKs by those of a KEK file.
func (l *revocationList) setKEKs(text []byte) error {
	keks, err := rotation.ParseKEKs(text)
	if err != nil {
		return err
	}
	return l.list.SetKEKs(keks)
}

// close ends what openRevocations has opened.
func (l *revocationList) close() {
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := errors.Join(l.list.Close(ctx), l.client.Close()); err != nil {
		l.log.Warn("the list of revocations was not put away", "err", err)
	}
}

// forVerifier returns what a verifier asks, which is nil without a list.
func (l *revocationList) forVerifier() verifier.Revocations {
	if l == nil {
		return nil
	}
	return l.list
}

// revocationHandlers returns what answers at the paths of revocations, as rulesOf has the rules of a
// tenant. list may be nil, for a check.
func revocationHandlers(cfg *Config, list *revocations.List, v *verifier.Verifier, rulesOf func(*Tenant) verifier.Tenant) (map[string]http.Handler, error) {
	c := cfg.Revocations
	if c == nil {
		return nil, nil
	}
	all := make(map[string]http.Handler)
	for path, may := range map[string]func(*RevocationClient) bool{
		pathIntrospect: func(c *RevocationClient) bool { return c.Introspect },
		pathRevoke:     func(c *RevocationClient) bool { return c.Revoke },
	} {
		e := revocations.EndpointConfig{Verifier: v, Logger: cfg.Logger, MaxBodyBytes: int64(cfg.MaxTokenBytes) + otherFormBytes}
		for i := range c.Clients {
			if may(&c.Clients[i]) {
				e.Clients = append(e.Clients, c.Clients[i].Client)
			}
		}
		if len(e.Clients) == 0 {
			continue
		}
		h, err := revocations.IntrospectionHandler(e)
		if path == pathRevoke && err == nil && list != nil {
			h, err = revocations.RevocationHandler(list, e)
		}
		if err != nil {
			return nil, &Error{Part: PartRevocations, Err: err}
		}
		all[path] = h
	}
	h, err := logoutHandler(cfg, list, rulesOf)
	if err != nil {
		return nil, &Error{Part: PartRevocations, Err: err}
	}
	if h != nil {
		all[pathLogout] = h
	}
	return all, nil
}

// otherFormBytes has room for what a form has beside the token.
const otherFormBytes = 4 << 10

// logoutHandler returns the handler of logout tokens, or nil if none of their tenants is there now.
func logoutHandler(cfg *Config, list *revocations.List, rulesOf func(*Tenant) verifier.Tenant) (http.Handler, error) {
	l := revocations.LogoutConfig{Logger: cfg.Logger, Now: cfg.Now}
	for i := range cfg.Tenants {
		t := &cfg.Tenants[i]
		if o, ok := cfg.Revocations.Logout[t.Rules.ID]; ok {
			l.Tenants = append(l.Tenants, revocations.LogoutTenant{
				Rules: rulesOf(t), ClientID: o.ClientID, Types: o.Types, TokensHaveSID: o.TokensHaveSID,
			})
		}
	}
	switch {
	case len(l.Tenants) == 0:
		return nil, nil
	case list == nil:
		return nil, l.Validate()
	}
	return revocations.LogoutHandler(list, l)
}

// revocationHandler returns the handler of a request about revocations, or nil. A path counts in exactly
// one spelling: in every other one it is that of another handler.
func (s *generation) revocationHandler(r *http.Request) http.Handler {
	if len(s.revocation) == 0 {
		return nil
	}
	return s.revocation[r.URL.EscapedPath()]
}

// serveRevocations has the handler answer.
func (s *generation) serveRevocations(w http.ResponseWriter, r *http.Request, h http.Handler) {
	setHeaders(w.Header())
	s.metered(FaceRevocations, h).ServeHTTP(w, r)
}

// A revocationsReady is what /readyz says of the list. The reason is for the admin listener alone.
type revocationsReady struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

// ready returns whether the list can tell which tokens are revoked. It is nil without a list.
func (l *revocationList) ready() *revocationsReady {
	if l == nil {
		return nil
	}
	return readyOfList(l.list.Status())
}

// readyOfList returns what a status of the list means.
func readyOfList(status revocations.Status) *revocationsReady {
	one := &revocationsReady{Status: stateReady}
	switch {
	case status.Ready && status.Err == nil && !status.InDoubt && status.Unreadable == 0:
		return one
	case status.Ready:
		one.Status = stateDegraded
	default:
		one.Status = stateNotReady
	}
	switch {
	case IsSealError(status.Err), len(status.KeyNames) == 0 && status.Alarms.Forged > 0, status.Ready && status.Unreadable > 0: // such as without the KEK of the others
		one.Reason = "what Redis holds of the revocations cannot be opened"
	case status.InDoubt:
		one.Reason = reasonInDoubt
	case status.Synced.IsZero():
		one.Reason = "the revocations were not read yet"
	default:
		one.Reason = reasonAway
	}
	return one
}

// state returns what /metrics shows of the list. ok is false without one.
func (l *revocationList) state() (state metrics.RevocationsState, ok bool) {
	if l == nil {
		return state, false
	}
	status := l.list.Status()
	a := status.Alarms
	return metrics.RevocationsState{
		Entries: status.Entries, Synced: status.Synced, InDoubt: status.InDoubt, Ready: status.Ready, Unreadable: status.Unreadable,
		Forged: a.Forged, Restored: a.Restored, Over: a.Over, Disputed: a.Disputed,
	}, true
}
