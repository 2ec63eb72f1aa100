package rediskeys

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// The timeouts of a client: for a connection, and for each answer. A context ends a call earlier, and
// never later. They only end calls that would otherwise hang forever; a keyring's own deadlines are
// shorter, unless its Config says otherwise.
const (
	dialTimeout = 2 * time.Second
	callTimeout = 3 * time.Second
)

// A connection with credentials from a function is replaced after about lifetime. AWS ends a
// connection 12 h after its IAM token was accepted (docs of ElastiCache, and redis/jedis pull request
// 3224). The jitter keeps the connections of one process, and the processes of one fleet, from
// being replaced all at once.
const (
	lifetime       = 11 * time.Hour
	lifetimeJitter = 30 * time.Minute
)

// A CredentialsFunc returns the user and the password of a new connection. It must end when ctx does,
// which may be in a second. An empty user stands for that of the URL. The function is called for each
// connection, from several goroutines at once, so it reads a file again or signs a new token each
// time. A token that it kept may have expired (aws-samples/elasticache-iam-auth-demo-app issue 19).
//
// If it fails, the call that needed the connection fails with [ErrCredentials], and a keyring is out of
// sync until it succeeds. Its error appears in the errors of this package, so it must not hold the
// password.
type CredentialsFunc = func(ctx context.Context) (user, password string, err error)

// Options are what a URL cannot say. The zero Options add nothing.
type Options struct {
	// TLS configures the TLS of a rediss URL: the authorities to trust, and the certificate to
	// show. Nil means the system's authorities. TLS is 1.2 or later. Servers are always verified:
	// InsecureSkipVerify is an error.
	//
	// ServerName, if set, is the name that the certificate of every server and of every Sentinel
	// must have. Otherwise each must have the name by which it is connected to.
	TLS *tls.Config

	// Credentials returns the user and the password for Redis. The URL must have no password then.
	Credentials CredentialsFunc

	// SentinelCredentials returns the user and the password for the Sentinels. Without a user it is that
	// of the URL's sentinel_username, if it has one. The URL must have no password of theirs then.
	SentinelCredentials CredentialsFunc

	// Dial makes the connections, over which TLS is spoken then. Nil means a [net.Dialer].
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// validate refuses options that contradict the URL, or that are unsafe.
func (o *Options) validate(a *address) error {
	switch {
	case o.TLS != nil && !a.tls:
		return errors.New("there are options for TLS, and the URL is of no TLS: write rediss in place of redis")
	case o.TLS != nil && o.TLS.InsecureSkipVerify:
		return errors.New("Options.TLS has InsecureSkipVerify: anyone on the way could read and write the rings; name the authority in RootCAs")
	case o.TLS != nil && o.TLS.MinVersion != 0 && o.TLS.MinVersion < tls.VersionTLS12:
		return errors.New("Options.TLS.MinVersion is older than TLS 1.2")
	case o.Credentials != nil && a.password != "":
		return errors.New("the password is in the URL and in the options: give one")
	case o.SentinelCredentials != nil && a.kind != kindSentinel:
		return errors.New("there are credentials for Sentinels, and the URL names none: want redis-sentinel://")
	case o.SentinelCredentials != nil && a.sentinelPassword != "":
		return errors.New("the password of the Sentinels is in the URL and in the options: give one")
	}
	return nil
}

// OpenWith is [Open] with options. The TLS of o must not be changed afterwards.
func OpenWith(rawURL string, o Options) (redis.UniversalClient, error) {
	a, err := parseURL(rawURL)
	if err == nil {
		err = o.validate(&a)
	}
	if err != nil {
		return nil, &Error{Call: "the URL of Redis", Err: err}
	}
	d := newDialer(&a, &o)
	u := &redis.UniversalOptions{
		Addrs: a.hosts, Username: a.user, Password: a.password, DB: a.db,
		MasterName: a.master, SentinelUsername: a.sentinelUser, SentinelPassword: a.sentinelPassword,
		IsClusterMode: a.kind == kindCluster,

		ContextTimeoutEnabled: true,
		DialTimeout:           dialTimeout,
		ReadTimeout:           callTimeout,
		WriteTimeout:          callTimeout,
		PoolTimeout:           callTimeout,
		DialerRetries:         1, // the client repeats the whole call
		MaxRetries:            2,
		MaxRetryBackoff:       100 * time.Millisecond,

		// The handshake is HELLO and nothing else. A user with few rights may not send CLIENT
		// SETINFO (redis/jedis issue 3438), and would fill the ACL LOG with it.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},

		Dialer:    d.dial,
		TLSConfig: d.tls, // not used by the client, because it has a Dialer, but seen in its options
	}
	if o.Credentials != nil {
		u.CredentialsProviderContext = withUser(a.user, o.Credentials)
		u.ConnMaxLifetime, u.ConnMaxLifetimeJitter = lifetime, lifetimeJitter
	}
	if o.SentinelCredentials != nil {
		u.SentinelUsername = "" // or the client would log in with it, and with no password
		u.OnConnect = greetSentinel(withUser(a.sentinelUser, o.SentinelCredentials))
	}
	return redis.NewUniversalClient(u), nil
}

// withUser returns get with its errors marked, and with user where it names none. It refuses an empty
// password, with which the client would not authenticate at all: it would be the default user.
func withUser(user string, get CredentialsFunc) CredentialsFunc {
	return func(ctx context.Context) (string, string, error) {
		name, password, err := get(ctx)
		if err == nil && password == "" {
			err = errors.New("the password is empty")
		}
		if err != nil {
			return "", "", &credentialsError{err}
		}
		if name == "" {
			name = user
		}
		return name, password, nil
	}
}

// A credentialsError is the error of a [CredentialsFunc].
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }

// Unwrap returns a list, as that of handshakeError.
func (e *credentialsError) Unwrap() []error { return []error{e.err} }

// greetSentinel authenticates the connections to Sentinels. The client takes a function for the
// credentials of servers alone. It calls what this returns for each connection of both kinds; only
// those to the primary have no address of their own, because a Sentinel says it.
func greetSentinel(get CredentialsFunc) func(context.Context, *redis.Conn) error {
	const primary = "Redis<FailoverClient "
	return func(ctx context.Context, c *redis.Conn) error {
		if strings.HasPrefix(c.String(), primary) {
			return nil
		}
		user, password, err := get(ctx)
		switch {
		case err != nil:
			return err
		case user == "":
			return c.Auth(ctx, password).Err()
		}
		return c.AuthACL(ctx, user, password).Err()
	}
}
