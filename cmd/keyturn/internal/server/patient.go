package server

import (
	"net"
	"sync"
	"syscall"
)

// A patient is a listener whose end loses no connection. The kernel completes connections before they
// are accepted, and resets those that it has when a listener is closed: a request may be on its way on
// them. So Close accepts them first, and Accept returns them before it reports the end.
type patient struct {
	net.Listener
	raw syscall.RawConn // nil if connections cannot be taken from it

	mu   sync.Mutex // guards left
	left []net.Conn // that Close has accepted
}

// mostWaiting bounds the connections that Close accepts: clients that connect as fast as it accepts must not
// keep a server from its end. Linux lets 4096 wait, unless net.core.somaxconn says otherwise.
const mostWaiting = 1 << 14

// patiently returns l as a patient listener.
func patiently(l net.Listener) net.Listener {
	p := &patient{Listener: l}
	if of, ok := l.(syscall.Conn); ok {
		p.raw, _ = of.SyscallConn() // nil with an error
	}
	return p
}

// Accept implements [net.Listener].
func (p *patient) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err == nil {
		return c, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.left) == 0 {
		return nil, err
	}
	c, p.left = p.left[0], p.left[1:]
	return c, nil
}

// Close implements [net.Listener]. A second call ends connections that nothing has accepted meanwhile.
func (p *patient) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.left {
		c.Close()
	}
	p.left = nil
	if p.raw != nil {
		p.left = acceptAll(p.raw, mostWaiting)
	}
	return p.Listener.Close()
}
