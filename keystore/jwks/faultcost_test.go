package jwks_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A meter counts what each connection brings to its reader.
type meter struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu               sync.Mutex
	conns, open      int
	most, mostAtOnce int // bytes of one connection, connections
}

func (m *meter) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := m.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns++
	m.open++
	m.mostAtOnce = max(m.mostAtOnce, m.open)
	return &metered{Conn: conn, m: m}, nil
}

type metered struct {
	net.Conn
	m    *meter
	read int
	once sync.Once
}

func (c *metered) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.read += n
	c.m.most = max(c.m.most, c.read)
	return n, err
}

func (c *metered) Close() error {
	c.once.Do(func() {
		c.m.mu.Lock()
		defer c.m.mu.Unlock()
		c.m.open--
	})
	return c.Conn.Close()
}

// Whatever an issuer sends, a fetch takes no more than its body may have, and what
// TLS and the header add, over one connection, which it closes.
func TestFaultsCostFewBytes(t *testing.T) {
	const most = (256 + 64) << 10
	for _, fault := range jwkstest.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				m := &meter{dial: w.issuer.DialContext}
				w.client.Close(t.Context())
				w.client = jwks.New(jwks.Config{TLS: w.issuer.TLS(), LookupNetIP: w.issuer.LookupNetIP, DialContext: m.DialContext})
				s := w.ready(jwks.SourceConfig{})
				w.issuer.Misbehave(fault)
				w.busy(s, w.a, time.Hour)
				time.Sleep(jwks.FetchTimeout)
				synctest.Wait()

				m.mu.Lock()
				defer m.mu.Unlock()
				if fetches := int(s.Status().Fetches); m.conns > fetches {
					t.Errorf("%d connections for %d fetches", m.conns, fetches)
				}
				if m.most > most {
					t.Errorf("a connection brought %d bytes, want at most %d", m.most, most)
				}
				if m.mostAtOnce > 1 {
					t.Errorf("%d connections at once", m.mostAtOnce)
				}
				if !s.Status().NextFetch.IsZero() && m.open != 0 {
					t.Errorf("%d connections are left open", m.open)
				}
			})
		})
	}
}
