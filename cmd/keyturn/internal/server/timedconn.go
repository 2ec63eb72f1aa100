package server

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// A timedListener returns each connection as a timedConn.
type timedListener struct{ net.Listener }

// Accept implements [net.Listener].
func (l timedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if h, ok := c.(halfCloser); ok {
		return newTimedConn(h), err
	}
	return c, err
}

// A halfCloser is a connection of TCP or of a Unix socket. [http.Server] calls CloseWrite so that a client
// reads the answer before the connection ends.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// A timedConn is a connection whose deadlines seldom change a timer of the runtime. [http.Server] sets eight
// deadlines for each request, and with its timeouts most of them change a timer. They are a twentieth of the
// work for a request. A timedConn notes a deadline, and sets a timer only if a call that waits has none, or
// has a later one.
//
// A user sees no difference, by two rules:
//
//   - While a call waits, its timer is set to its deadline or to an earlier time. So it ends in time.
//   - A call that its timer ends before its deadline goes on. So it does not end too early.
//
// As with other connections, its methods may be called at the same time.
type timedConn struct {
	halfCloser
	reads, writes timedCalls
}

func newTimedConn(c halfCloser) *timedConn {
	opened := time.Now()
	return &timedConn{c, timedCalls{opened: opened, set: c.SetReadDeadline}, timedCalls{opened: opened, set: c.SetWriteDeadline}}
}

// Read implements [net.Conn].
func (c *timedConn) Read(b []byte) (int, error) {
	if err := c.reads.begin(); err != nil {
		return 0, err
	}
	defer c.reads.end()
	for {
		n, err := c.halfCloser.Read(b)
		if n > 0 || err == nil || !c.reads.goesOn(err) {
			return n, err
		}
	}
}

// Write implements [net.Conn].
func (c *timedConn) Write(b []byte) (int, error) {
	if err := c.writes.begin(); err != nil {
		return 0, err
	}
	defer c.writes.end()
	for done := 0; ; {
		n, err := c.halfCloser.Write(b[done:])
		if done += n; err == nil || !c.writes.goesOn(err) {
			return done, err
		}
	}
}

// Close implements [net.Conn].
func (c *timedConn) Close() error {
	c.reads.close()
	c.writes.close()
	return c.halfCloser.Close()
}

// SetDeadline implements [net.Conn].
func (c *timedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (c *timedConn) SetReadDeadline(t time.Time) error { return c.reads.setDeadline(t) }

// SetWriteDeadline implements [net.Conn].
func (c *timedConn) SetWriteDeadline(t time.Time) error { return c.writes.setDeadline(t) }

// timedCalls are the calls of one direction of a timedConn.
type timedCalls struct {
	opened time.Time               // no deadline before it is in the future
	set    func(t time.Time) error // sets the timer

	mu       sync.Mutex // guards the fields below; held while set is called, and not while a call waits
	deadline time.Time  // of the user; zero: none
	timer    time.Time  // when the runtime ends calls; zero: never
	waiting  int        // calls that have begun and not ended
	closed   bool       // the connection answers by itself
}

// setDeadline sets the deadline of all calls, including those that wait. The timer can stay as it is while
// no call waits.
func (c *timedCalls) setDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	switch {
	case c.closed:
		return c.set(t) // the error
	case c.waiting == 0:
		return nil
	}
	return c.arm()
}

// begin returns why a call cannot begin, or nil.
func (c *timedCalls) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
	case c.hasPassed(c.deadline): // net/http sets 1970 to end its own Read, which often has not begun yet
		return os.ErrDeadlineExceeded
	default:
		if err := c.arm(); err != nil {
			return err
		}
	}
	c.waiting++
	return nil
}

// hasPassed reports whether t is in the past at any time of the connection.
func (c *timedCalls) hasPassed(t time.Time) bool { return !t.IsZero() && t.Before(c.opened) }

// arm has the timer end calls at the deadline or before it. c.mu is held.
func (c *timedCalls) arm() error {
	if c.timer.IsZero() && c.deadline.IsZero() {
		return nil
	}
	isLater := c.deadline.IsZero() || !c.deadline.Before(c.timer)
	if !c.timer.IsZero() && isLater && !c.hasPassed(c.timer) {
		return nil // if a call still waits then, it goes on
	}
	return c.reset()
}

// reset sets the timer to the deadline. c.mu is held.
func (c *timedCalls) reset() error {
	if err := c.set(c.deadline); err != nil {
		return err
	}
	c.timer = c.deadline
	return nil
}

// goesOn reports whether a call goes on that has ended with err: the timer has ended it, and its deadline
// is in the future. An error with another cause may be a timeout too, such as ETIMEDOUT of TCP.
func (c *timedCalls) goesOn(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		return false
	}
	return c.reset() == nil
}

func (c *timedCalls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting--
}

func (c *timedCalls) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}
