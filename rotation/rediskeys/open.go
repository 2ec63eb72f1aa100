package rediskeys

import (
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Open returns a client for a URL:
//
//	redis://user:password@host:6379/0
//	redis-sentinel://user:password@host:26379,host:26379/mastername/0
//	redis-cluster://user:password@host:6379,host:6379
//	unix://user:password@/run/redis.sock?db=0
//
// The schemes rediss, rediss-sentinel and rediss-cluster do the same over TLS 1.2 or
// later, with the system's certificate authorities; [OpenWith] takes others. User, password, port and database
// number are optional. Percent-encode special characters in user, password and
// mastername. User and password are for Redis. If the Sentinels have a password of
// their own, add the parameters sentinel_username and sentinel_password.
//
// Open does not connect. A call of the client ends with its context. The client waits at
// most 3 s for each answer, and may ask again then. So a context with a longer time allows
// repetitions, and no slower answer: that needs a client of your own with a longer ReadTimeout,
// which [New] takes too. Errors never show the URL, nor any part that may be a password. The
// caller closes the client.
func Open(rawURL string) (redis.UniversalClient, error) {
	return OpenWith(rawURL, Options{})
}

const (
	kindServer   = ""
	kindSentinel = "sentinel"
	kindCluster  = "cluster"
	kindUnix     = "unix" // a socket of this machine
)

// An address is a parsed URL.
type address struct {
	kind                           string
	tls                            bool
	user, password                 string
	hosts                          []string
	master                         string
	db                             int
	sentinelUser, sentinelPassword string
}

// encodings says how to write the characters that end a password too early, and the percent sign.
const encodings = ": / is %2F, ? %3F, # %23, @ %40, : %3A, % %25, a space %20"

var (
	errScheme   = errors.New("want redis://, redis-sentinel:// or redis-cluster://, or rediss for TLS, or unix:///PATH")
	errEncoding = errors.New("percent-encode special characters in user, password and names" + encodings)
)

// parseURL parses the URL without [url.Parse], which accepts only one host and quotes
// the password in its errors.
func parseURL(raw string) (address, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return address{}, errScheme
	}
	var a address
	if strings.EqualFold(scheme, kindUnix) {
		return a, a.readSocket(rest)
	}
	base, kind, _ := strings.Cut(strings.ToLower(scheme), "-")
	a.kind, a.tls = kind, base == "rediss"
	if base != "redis" && base != "rediss" || !slices.Contains([]string{kindServer, kindSentinel, kindCluster}, kind) || strings.HasSuffix(scheme, "-") {
		return address{}, errScheme
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if strings.Contains(path+query, "@") { // a password with a slash or a question mark in it
		return address{}, errEncoding
	}
	err := errors.Join(a.readAuthority(authority), a.readPath(path), a.readQuery(query))
	return a, err
}

// readSocket reads what follows unix://.
func (a *address) readSocket(rest string) error {
	a.kind = kindUnix
	rest, query, _ := strings.Cut(rest, "?")
	user, path, ok := strings.Cut(rest, "/")
	path, err := url.PathUnescape("/" + path)
	switch {
	case strings.Contains(query, "@") || strings.Contains(user, "@") != strings.HasSuffix(user, "@") || err != nil:
		return errEncoding
	case !ok || path == "/" || user != "" && !strings.HasSuffix(user, "@"):
		return errors.New("the path of a socket begins with a slash: unix:///run/redis.sock")
	}
	a.hosts = []string{path}
	return errors.Join(a.readUser(strings.TrimSuffix(user, "@")), a.readQuery(query))
}

// readUser reads a user and a password, with a colon between them.
func (a *address) readUser(text string) error {
	user, password, _ := strings.Cut(text, ":")
	var err1, err2 error
	a.user, err1 = url.PathUnescape(user)
	a.password, err2 = url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return errEncoding
	}
	return nil
}

func (a *address) readAuthority(authority string) error {
	hosts := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		hosts = authority[i+1:]
		if err := a.readUser(authority[:i]); err != nil {
			return err
		}
	}
	port := "6379"
	if a.kind == kindSentinel {
		port = "26379"
	}
	for host := range strings.SplitSeq(hosts, ",") {
		addr, err := hostPort(host, port)
		if err != nil {
			return err
		}
		a.hosts = append(a.hosts, addr)
	}
	if a.kind == kindServer && len(a.hosts) > 1 {
		return errors.New("there are several hosts: want redis-sentinel:// or redis-cluster://")
	}
	return nil
}

// hostPort adds the default port if text has none. Its errors do not quote text, which
// may be part of a password that has a slash or an @ in it.
func hostPort(text, port string) (string, error) {
	host := text
	if h, p, err := net.SplitHostPort(text); err == nil {
		host, port = h, p
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	bad := strings.ContainsAny(host, "[]@/ ") || strings.Contains(host, ":") && net.ParseIP(host) == nil
	if err != nil || n == 0 || host == "" || bad {
		return "", errors.New("a host is not host:port; percent-encode special characters in a password" + encodings)
	}
	return net.JoinHostPort(host, port), nil
}

func (a *address) readPath(path string) error {
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	if a.kind == kindSentinel {
		master, err := url.PathUnescape(parts[0])
		if err != nil || master == "" {
			return errors.New("the name that the Sentinels know the primary by is missing: redis-sentinel://host:port/mastername")
		}
		a.master, parts = master, parts[1:]
	}
	switch {
	case len(parts) == 0 || len(parts) == 1 && parts[0] == "":
		return nil
	case len(parts) > 1:
		return errors.New("the path has too many parts")
	case a.kind == kindCluster && parts[0] != "0":
		return errors.New("a Cluster has database 0 alone")
	}
	return a.readDB(parts[0])
}

func (a *address) readDB(text string) error {
	db, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return errors.New("the number of the database is not a number")
	}
	a.db = int(db)
	return nil
}

func (a *address) readQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errEncoding
	}
	for name, all := range values {
		switch {
		case a.kind == kindSentinel && name == "sentinel_username" && len(all) == 1:
			a.sentinelUser = all[0]
		case a.kind == kindSentinel && name == "sentinel_password" && len(all) == 1:
			a.sentinelPassword = all[0]
		case a.kind == kindUnix && name == "db" && len(all) == 1:
			if err := a.readDB(all[0]); err != nil {
				return err
			}
		default:
			return errors.New("unknown parameter: there are sentinel_username and sentinel_password, of redis-sentinel://, and db, of unix://")
		}
	}
	return nil
}
