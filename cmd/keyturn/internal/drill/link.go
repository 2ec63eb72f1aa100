package drill

import (
	"context"
	"errors"
	"net"
	"sync"
)

// ErrCut is the error of a connection over a link that was cut.
var ErrCut = errors.New("the drill has cut this link")

// A Link carries the connections of one client, and can be cut. It lies above TLS, Sentinel and
// Cluster, so that it fits between an instance and whatever Redis the instance has. It is safe for
// concurrent use.
type Link struct {
	mu    sync.Mutex // guards what follows
	cut   bool
	conns map[*linked]bool
}

// A DialFunc makes a connection.
type DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// Dial returns a DialFunc whose connections the link carries. dial makes them.
func (l *Link) Dial(dial DialFunc) DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if l.IsCut() {
			return nil, ErrCut
		}
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return l.add(c)
	}
}

// IsCut reports whether the link is cut.
func (l *Link) IsCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// add takes a connection that was made. If the link was cut meanwhile, it closes it.
func (l *Link) add(c net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		_ = c.Close()
		return nil, ErrCut
	}
	one := &linked{c, l}
	if l.conns == nil {
		l.conns = make(map[*linked]bool)
	}
	l.conns[one] = true
	return one, nil
}

// Cut ends all connections, and every new one fails until [Link.Heal].
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		_ = c.Conn.Close()
	}
	l.conns = nil
}

// Heal lets connections be made again.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// A linked is a connection over a link.
type linked struct {
	net.Conn
	link *Link
}

// Close closes the connection.
func (c *linked) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}
