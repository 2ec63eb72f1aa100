package rediskeys_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

func authority(t *testing.T) *redistest.Authority {
	t.Helper()
	a, err := redistest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// shows returns a configuration that trusts an authority, and shows a certificate of another one, or
// of the same.
func shows(t *testing.T, trusted, signer *redistest.Authority, c redistest.Certificate) *tls.Config {
	t.Helper()
	pair, err := signer.KeyPair(c)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: trusted.Pool(), Certificates: []tls.Certificate{pair}}
}

func clientWith(t testing.TB, url string, o rediskeys.Options) redis.UniversalClient {
	t.Helper()
	client, err := rediskeys.OpenWith(url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func openWith(t testing.TB, url string, o rediskeys.Options) *rediskeys.Store {
	t.Helper()
	return storeOf(t, clientWith(t, url, o), rediskeys.Config{})
}

func port(s *redistest.Server) string {
	_, port, _ := net.SplitHostPort(s.Addr())
	return port
}

// Each way in which TLS fails has an error of its own, which says what to do, and not the URL.
func TestTLSErrors(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ca, stranger := authority(t), authority(t)
	run := func(c redistest.TLS) *redistest.Server {
		c.Authority = ca
		return redistest.Run(t, redistest.Options{TLS: &c})
	}
	good := run(redistest.TLS{})
	elsewhere := run(redistest.TLS{Certificate: redistest.Certificate{Names: []string{"redis.internal"}}})
	expired := run(redistest.TLS{Certificate: redistest.Certificate{Expired: true}})
	mutual := run(redistest.TLS{Clients: true})
	trust := &tls.Config{RootCAs: ca.Pool()}
	for name, tt := range map[string]struct {
		server *redistest.Server
		scheme string
		config *tls.Config
		want   error
	}{
		"TLS alone":                         {good, "rediss", trust, nil},
		"the system's authorities":          {good, "rediss", nil, rediskeys.ErrAuthority},
		"another authority":                 {good, "rediss", &tls.Config{RootCAs: stranger.Pool()}, rediskeys.ErrAuthority},
		"no authority":                      {good, "rediss", &tls.Config{RootCAs: x509.NewCertPool()}, rediskeys.ErrAuthority},
		"another name":                      {elsewhere, "rediss", trust, rediskeys.ErrServerName},
		"the name that it has":              {elsewhere, "rediss", &tls.Config{RootCAs: ca.Pool(), ServerName: "redis.internal"}, nil},
		"a name that it has not":            {good, "rediss", &tls.Config{RootCAs: ca.Pool(), ServerName: "redis.internal"}, rediskeys.ErrServerName},
		"expired":                           {expired, "rediss", trust, rediskeys.ErrCertificateDates},
		"no certificate of ours":            {mutual, "rediss", trust, rediskeys.ErrClientCertificate},
		"no certificate of ours in TLS 1.2": {mutual, "rediss", &tls.Config{RootCAs: ca.Pool(), MaxVersion: tls.VersionTLS12}, rediskeys.ErrTLS},
		"ours of another authority":         {mutual, "rediss", shows(t, ca, stranger, redistest.Certificate{}), rediskeys.ErrClientCertificate},
		"ours is expired":                   {mutual, "rediss", shows(t, ca, ca, redistest.Certificate{Expired: true}), rediskeys.ErrClientCertificate},
		"both have certificates":            {mutual, "rediss", shows(t, ca, ca, redistest.Certificate{}), nil},
		"both in TLS 1.2":                   {mutual, "rediss", &tls.Config{RootCAs: ca.Pool(), MaxVersion: tls.VersionTLS12, Certificates: shows(t, ca, ca, redistest.Certificate{}).Certificates}, nil},
		"no TLS to a port with TLS":         {good, "redis", nil, rediskeys.ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			const secret = "s3cr3t"
			s := openWith(t, tt.scheme+"://"+tt.server.Addr(), rediskeys.Options{TLS: tt.config})
			if tt.want == nil {
				begin(t, s)
				return
			}
			s = openWith(t, tt.scheme+"://me:"+secret+"@"+tt.server.Addr(), rediskeys.Options{TLS: tt.config})
			for name, call := range calls(deadline(t, 20*time.Second), s, rotation.Place{}) {
				err := call()
				wantErr(t, name, err, tt.want)
				if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "://")) {
					t.Errorf("%s: the error shows the URL: %v", name, err)
				}
			}
		})
	}
}

// A port without TLS waits for the rest of a command, or says that it lacks TLS. Either error names
// TLS.
func TestTLSToPlainPort(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	plain, _ := running(t)
	err := openWith(t, "rediss://"+plain.Addr(), rediskeys.Options{}).Load(t.Context(), []string{tenant})[0].Err
	if !errors.Is(err, rediskeys.ErrTimeout) && !errors.Is(err, rediskeys.ErrTLS) || !strings.Contains(err.Error(), "TLS") {
		t.Error(err)
	}
}

// A change that TLS kept from being sent was not made, and Write says so.
func TestTLSFailureIsNotMade(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ca := authority(t)
	server := redistest.Run(t, redistest.Options{TLS: &redistest.TLS{Authority: ca, Clients: true}})
	for _, config := range []*tls.Config{nil, {RootCAs: ca.Pool()}} {
		s := openWith(t, "rediss://"+server.Addr(), rediskeys.Options{TLS: config})
		if r, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, Nonce: "n", Set: map[string][]byte{"f": nil}}); err == nil || r.Code != rotation.NotMade {
			t.Errorf("Write = %d, %v", r.Code, err)
		}
	}
}

// The whole store works over mutual TLS, and over a socket.
func TestStoreOverTLS(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ca := authority(t)
	server := redistest.Run(t, redistest.Options{TLS: &redistest.TLS{Authority: ca, Clients: true}})
	config := shows(t, ca, ca, redistest.Certificate{})
	rotationtest.TestStore(t, func(t *testing.T) rotation.Store {
		flush(t, server)
		return openWith(t, "rediss://localhost:"+port(server), rediskeys.Options{TLS: config})
	})
}
