package redistest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A server with TLS has no other port, and shows the certificate that the test asked for.
func TestServerSpeaksTLSAlone(t *testing.T) {
	Need(t)
	t.Parallel()
	a := authority(t)
	s := Run(t, Options{TLS: &TLS{Authority: a, Clients: true}})
	mine, err := a.KeyPair(Certificate{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		config *tls.Config
		good   bool
	}{
		"plain":               {nil, false},
		"without certificate": {&tls.Config{RootCAs: a.Pool()}, false},
		"of another":          {&tls.Config{RootCAs: authority(t).Pool(), Certificates: []tls.Certificate{mine}}, false},
		"good":                {&tls.Config{RootCAs: a.Pool(), Certificates: []tls.Certificate{mine}}, true},
	} {
		c := redis.NewClient(&redis.Options{Addr: s.Addr(), TLSConfig: tt.config, MaxRetries: -1})
		if err := c.Ping(t.Context()).Err(); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
}

// Sentinels and a Cluster tell a name if the test asks for it, also after a failover.
func TestHostnamesAreTold(t *testing.T) {
	Need(t)
	t.Parallel()
	o := Options{TLS: &TLS{Authority: authority(t), Hostnames: true}}
	three := RunSentinel(t, o)
	if at, err := three.Current(t.Context()); err != nil || !strings.HasPrefix(at, hostname+":") {
		t.Errorf("the Sentinels say %q: %v", at, err)
	}
	three.Primary.Kill()
	if err := three.Failover(); err != nil {
		t.Error(err)
	}
	c := RunCluster(t, o)
	replica, err := c.AddReplica(2)
	if err != nil {
		t.Fatal(err)
	}
	c.Servers[2].Kill()
	_, port, _ := net.SplitHostPort(replica.Addr())
	primary := regexp.MustCompile(`\[\d+ \d+ \[` + hostname + " " + port + " ") // the first server of a range of slots
	err = await("a failover in the Cluster", func(ctx context.Context) (bool, error) {
		slots, err := c.Servers[0].Client().Do(ctx, "CLUSTER", "SLOTS").Slice()
		return primary.MatchString(fmt.Sprint(slots)), err
	})
	if err != nil {
		t.Error(err)
	}
}
