package redistest

import (
	"errors"
	"net"
	"sync"
	"time"
)

// A Proxy passes TCP connections on to a server, until it is told otherwise. It
// is safe for concurrent use.
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

// A state is what is wrong.
type state struct {
	delay        time.Duration
	cut          bool
	holdRequests bool
	holdReplies  bool
}

// StartProxy listens on a free loopback port, and passes what comes on to the
// address target.
func StartProxy(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, target: target, changed: make(chan struct{}), conns: make(map[net.Conn]bool)}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr returns the address that it listens on, host and port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Delay holds back what is sent to the server by d; its answers pass at once.
func (p *Proxy) Delay(d time.Duration) { p.set(state{delay: d}) }

// Cut breaks all connections, and each new one at once.
func (p *Proxy) Cut() { p.set(state{cut: true}) }

// Blackhole lets nothing pass and closes nothing: connections are accepted, and
// hang. As in a network that was split, what was sent arrives after [Proxy.Heal],
// late, unless Cut comes before.
func (p *Proxy) Blackhole() { p.set(state{holdRequests: true, holdReplies: true}) }

// HoldReplies lets requests pass and no answer: what is asked is done, and nobody
// hears of it.
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

// reset closes a connection in a way that the other side sees as an error.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// Stop closes everything, and returns when all has ended.
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

// track reports whether a connection may be.
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

// A piece is what was read at once.
type piece struct {
	data []byte
	at   time.Time
}

// copy passes on what comes from one side until that ends, then ends the other.
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

// pass waits until what was read at a time may be passed on, and reports whether
// it may at all.
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
