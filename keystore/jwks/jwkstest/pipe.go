package jwkstest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A half is one direction of a connection in memory. Unlike [net.Pipe] it buffers bytes, as a
// socket does, so that both ends can send a last message and close at the same time.
type half struct {
	mu      sync.Mutex // guards everything below
	change  sync.Cond
	buf     []byte
	ended   bool // by the writer: the buffer can still be read
	broken  bool // by the reader: writes fail
	reading deadline
	writing deadline
}

// maxHalf is how many bytes are buffered.
const maxHalf = 64 << 10

func newHalf() *half {
	h := new(half)
	h.change.L = &h.mu
	return h
}

// A deadline wakes waiting readers or writers once it is over.
type deadline struct {
	timer *time.Timer
	over  bool
}

// set is called with h.mu held.
func (h *half) set(d *deadline, at time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.over = false
	if at.IsZero() {
		return
	}
	left := time.Until(at)
	if d.over = left <= 0; !d.over {
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if d.timer == timer {
				d.over = true
				h.change.Broadcast()
			}
		})
		d.timer = timer
	}
	h.change.Broadcast()
}

func (h *half) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.broken:
			return 0, net.ErrClosed
		case h.reading.over:
			return 0, os.ErrDeadlineExceeded
		case len(h.buf) > 0:
			n := copy(b, h.buf)
			h.buf = h.buf[n:]
			h.change.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		h.change.Wait()
	}
}

func (h *half) write(b []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(b) > 0 {
		switch {
		case h.ended:
			return n, net.ErrClosed
		case h.broken:
			return n, io.ErrClosedPipe
		case h.writing.over:
			return n, os.ErrDeadlineExceeded
		case len(h.buf) == maxHalf:
			h.change.Wait()
			continue
		}
		part := min(len(b), maxHalf-len(h.buf))
		h.buf = append(h.buf, b[:part]...)
		b, n = b[part:], n+part
		h.change.Broadcast()
	}
	return n, nil
}

// end sets a field of h, ended or broken, and clears the deadline of that side.
func (h *half) end(flag *bool, d *deadline) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*flag = true
	h.set(d, time.Time{})
	h.change.Broadcast()
}

// A memConn is one end of a connection in memory.
type memConn struct{ in, out *half }

func newPipe() (client, server net.Conn) {
	up, down := newHalf(), newHalf()
	return &memConn{in: down, out: up}, &memConn{in: up, out: down}
}

// Read implements [net.Conn].
func (c *memConn) Read(b []byte) (int, error) { return c.in.read(b) }

// Write implements [net.Conn].
func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b) }

// Close implements [net.Conn].
func (c *memConn) Close() error {
	c.in.end(&c.in.broken, &c.in.reading)
	c.out.end(&c.out.ended, &c.out.writing)
	return nil
}

// LocalAddr implements [net.Conn].
func (c *memConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// RemoteAddr implements [net.Conn].
func (c *memConn) RemoteAddr() net.Addr { return c.LocalAddr() }

// SetDeadline implements [net.Conn].
func (c *memConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements [net.Conn].
func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.set(&c.in.reading, t)
	return nil
}

// SetWriteDeadline implements [net.Conn].
func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.set(&c.out.writing, t)
	return nil
}
