package redistest

import (
	"errors"
	"net"
	"sync"
	"time"
)

// A Proxy passes TCP connections on to a server. Its methods make it delay, hold or
// break them. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu      sync.Mutex
	state   state
	changed chan struct{} // closed with each change of state
	stopped bool
	conns   map[net.Conn]bool
}

// A state says what the proxy does to connections. The zero state passes them on.
type state struct {
	delay        time.Duration
	cut          bool
	holdRequests bool
	holdReplies  bool
}

// StartProxy listens on a free loopback port and passes connections on to the address
// target.
func StartProxy(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, target: target, changed: make(chan struct{}), conns: make(map[net.Conn]bool)}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr returns the address that the proxy listens on, host and port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Delay delays what clients send to the server by d. Replies pass at once.
func (p *Proxy) Delay(d time.Duration) { p.set(state{delay: d}) }

// Cut breaks all connections, and each new one as soon as it is accepted.
func (p *Proxy) Cut() { p.set(state{cut: true}) }

// Blackhole holds everything and closes nothing: connections are accepted, and hang.
// As after a network partition, the held data arrives late, after [Proxy.Heal], unless
// Cut comes first.
func (p *Proxy) Blackhole() { p.set(state{holdRequests: true, holdReplies: true}) }

// HoldReplies lets requests pass and holds replies: the server does what it is asked
// to, and the client does not learn of it.
func (p *Proxy) HoldReplies() { p.set(state{holdReplies: true}) }

// Heal lets everything pass again.
func (p *Proxy) Heal() { p.set(state{}) }

func (p *Proxy) set(s state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	close(p.changed)
	p.changed = make(chan struct{})
	if s.cut {
		p.breakAllLocked()
	}
}

func (p *Proxy) breakAllLocked() {
	for c := range p.conns {
		reset(c)
	}
}

// reset closes a connection with a TCP reset, which the other side sees as an error.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// Stop closes the listener and all connections, and waits for the proxy's goroutines.
func (p *Proxy) Stop() error {
	p.mu.Lock()
	p.stopped = true
	p.breakAllLocked()
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	err := p.listener.Close()
	p.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.track(c) {
			p.wg.Go(func() { p.serve(c) })
		} else {
			reset(c)
		}
	}
}

// track registers a connection. It reports false if the connection must be closed.
func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.state.cut {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	reset(c)
}

func (p *Proxy) serve(client net.Conn) {
	defer p.forget(client)
	if !p.pass(time.Time{}, false) {
		return
	}
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		return
	}
	if !p.track(server) {
		reset(server)
		return
	}
	defer p.forget(server)
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, false) })
	both.Go(func() { p.copy(client, server, true) })
	both.Wait()
}

// A piece is the data of one read, and when it was read.
type piece struct {
	data []byte
	at   time.Time
}

// copy passes data from one side to the other. When one side ends it ends the other.
func (p *Proxy) copy(to, from net.Conn, replies bool) {
	pieces := make(chan piece, 1024)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(pieces)
		read(from, pieces)
	})
	open := true
	for one := range pieces {
		if open = open && p.pass(one.at, replies); open {
			_, err := to.Write(one.data)
			open = err == nil
		}
		if !open {
			reset(from) // ends the reader
		}
	}
	reader.Wait()
	p.pass(time.Time{}, replies) // the end of a connection is held too
	_ = to.Close()
}

func read(from net.Conn, pieces chan<- piece) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			pieces <- piece{append([]byte(nil), buffer[:n]...), time.Now()}
		}
		if err != nil {
			return
		}
	}
}

// pass waits until data that was read at a time may be passed on. It reports false if
// the connection must end instead.
func (p *Proxy) pass(at time.Time, replies bool) bool {
	for {
		p.mu.Lock()
		s, changed, stopped := p.state, p.changed, p.stopped
		p.mu.Unlock()
		if stopped || s.cut {
			return false
		}
		var due <-chan time.Time
		switch wait := time.Until(at.Add(s.delay)); {
		case replies && s.holdReplies, !replies && s.holdRequests:
		case replies, wait <= 0:
			return true
		default:
			due = time.After(wait)
		}
		select {
		case <-changed:
		case <-due:
		}
	}
}
