package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A fakeConn is one end of a net.Pipe, which counts the timers that it is asked to set.
type fakeConn struct {
	net.Conn
	timers     atomic.Int32
	halfClosed int
	read       func([]byte) (int, error) // nil: of the pipe
}

func (c *fakeConn) Read(b []byte) (int, error) {
	if c.read != nil {
		return c.read(b)
	}
	return c.Conn.Read(b)
}

func (c *fakeConn) SetReadDeadline(t time.Time) error {
	c.timers.Add(1)
	return c.Conn.SetReadDeadline(t)
}

func (c *fakeConn) SetWriteDeadline(t time.Time) error {
	c.timers.Add(1)
	return c.Conn.SetWriteDeadline(t)
}

func (c *fakeConn) CloseWrite() error {
	c.halfClosed++
	return nil
}

// trace runs a script of the seed against one end of a pipe, which wrap may wrap: deadlines are moved, and the peer
// reads and writes, while one goroutine reads and another writes. It returns what their calls returned, and
// when. No two events of a script happen at the same time: the script and Close have the full milliseconds, deadlines end 0.3 ms
// after one, and a call after a timeout begins 0.6 ms after one.
func trace(seed uint64, wrap func(halfCloser) net.Conn) (reads, writes []string) {
	a, peer := net.Pipe()
	c := wrap(&fakeConn{Conn: a})
	begin := time.Now()
	var wg sync.WaitGroup
	calls := func(log *[]string, call func([]byte) (int, error)) {
		for b := make([]byte, 3); ; {
			n, err := call(b)
			*log = append(*log, fmt.Sprint(time.Since(begin), n, errors.Is(err, os.ErrDeadlineExceeded)))
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				time.Sleep(time.Second + 1600*time.Microsecond - time.Since(begin)%time.Millisecond)
			case err != nil:
				return
			}
		}
	}
	wg.Go(func() { calls(&reads, c.Read) })
	wg.Go(func() { calls(&writes, c.Write) })
	peerReads, peerWrites := make(chan int, 80), make(chan int, 80) // one goroutine each: a mutex of the pipe is nothing that synctest waits for
	wg.Go(func() {
		for n := range peerReads {
			peer.Read(make([]byte, n))
		}
	})
	wg.Go(func() {
		for n := range peerWrites {
			peer.Write(make([]byte, n))
		}
	})
	random := rand.New(rand.NewPCG(seed, 0))
	for range 80 {
		time.Sleep(time.Duration(1+random.IntN(3000)) * time.Millisecond)
		at := time.Now().Add(time.Duration(random.IntN(8000))*time.Millisecond + 300*time.Microsecond)
		switch random.IntN(6) {
		case 0:
			at = time.Time{}
		case 1:
			at = time.Unix(1, 0) // as net/http does
		}
		switch random.IntN(5) {
		case 0:
			peerWrites <- 2
		case 1:
			peerReads <- 2
		case 2:
			c.SetReadDeadline(at)
		case 3:
			c.SetWriteDeadline(at)
		case 4:
			c.SetDeadline(at)
		}
	}
	time.Sleep(time.Millisecond) // else the peer's last call and Close happen at the same time
	c.Close()
	peer.Close()
	close(peerReads)
	close(peerWrites)
	wg.Wait()
	return reads, writes
}

// Calls on a timedConn end when they would on the connection itself, and return the same.
func TestTimedConnIsLikeTheConnection(t *testing.T) {
	timeouts := 0
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			wantReads, wantWrites := trace(seed, func(c halfCloser) net.Conn { return c })
			reads, writes := trace(seed, func(c halfCloser) net.Conn { return newTimedConn(c) })
			if !reflect.DeepEqual(reads, wantReads) || !reflect.DeepEqual(writes, wantWrites) {
				t.Errorf("seed %d:\nreads  %v\nwant   %v\nwrites %v\nwant   %v", seed, reads, wantReads, writes, wantWrites)
			}
			timeouts += strings.Count(strings.Join(append(reads, writes...), ","), "true")
		})
		if t.Failed() {
			return
		}
	}
	if timeouts < 1000 {
		t.Errorf("only %d timeouts were compared", timeouts)
	}
}

// The deadlines that net/http sets for requests on one connection change a timer once a minute.
func TestTimedConnSeldomSetsATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, peer := net.Pipe()
		defer peer.Close()
		fake := &fakeConn{Conn: a}
		c := newTimedConn(fake)
		defer c.Close()
		go io.Copy(peer, peer) // an echo
		const requests = 1000
		b := make([]byte, 1)
		for range requests {
			c.SetReadDeadline(time.Now().Add(readTimeout)) // the order of http.Server
			c.SetReadDeadline(time.Now().Add(readTimeout))
			c.SetWriteDeadline(time.Now().Add(writeTimeout))
			c.SetReadDeadline(time.Time{})
			c.SetReadDeadline(time.Unix(1, 0))
			if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("Read after its deadline = %v", err)
			}
			c.SetReadDeadline(time.Time{})
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			c.SetWriteDeadline(time.Time{})
			c.SetReadDeadline(time.Now().Add(60 * time.Second))
			if _, err := c.Read(b); err != nil {
				t.Fatal(err)
			}
			time.Sleep(119 * time.Millisecond) // so all of it takes 119 s
		}
		if n := fake.timers.Load(); n > 6 { // in each direction: the first one, and one a minute
			t.Errorf("%d timers for %d requests", n, requests)
		}
	})
}

// An error that no deadline caused ends a call, even if it calls itself a timeout. A connection that cannot
// set timers does not wait without them.
func TestTimedConnErrors(t *testing.T) {
	a, peer := net.Pipe()
	defer peer.Close()
	calls := 0
	fake := &fakeConn{Conn: a, read: func(b []byte) (int, error) {
		if calls++; calls > 3 {
			return 0, io.EOF
		}
		return 0, &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
	}}
	c := newTimedConn(fake)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) || calls != 1 {
		t.Errorf("Read = %v after %d calls", err, calls)
	}
	fake.read = func(b []byte) (int, error) { return 1, os.ErrDeadlineExceeded }
	if n, err := c.Read(make([]byte, 1)); n != 1 || err == nil {
		t.Errorf("Read = %d, %v: want the byte that came with the error", n, err)
	}
	fake.read = nil
	if err := c.CloseWrite(); err != nil || fake.halfClosed != 1 {
		t.Errorf("CloseWrite = %v, %d times", err, fake.halfClosed)
	}
	c.Close()
	if err := c.SetDeadline(time.Unix(1, 0)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("SetDeadline = %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Read of a closed connection = %v", err)
	}
	if _, err := c.Write(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write to a closed connection = %v", err)
	}
}

// A pipeListener has one end of each pipe.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.conns) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A client that holds a connection up is cut off when its time is over, not before and not later. The requests
// before, on the same connection, move its deadlines.
func TestSlowClientsAreCutOff(t *testing.T) {
	const request = "GET /authz HTTP/1.1\r\nHost: a\r\n"
	for name, tt := range map[string]struct {
		sent    string        // in the last request, of which some is missing
		drips   string        // is sent after it, a byte a second
		noReads bool          // the client does not read the answer
		after   time.Duration // the end of the connection
	}{
		"nothing":     {after: 60 * time.Second},
		"half a line": {sent: "GET /au", after: readTimeout},
		"slow line":   {sent: "GET /au", drips: strings.Repeat("u", 99), after: readTimeout},
		"slow header": {sent: request + "X: ", drips: strings.Repeat("u", 99), after: readTimeout},
		"slow body":   {sent: request + "Content-Length: 99\r\n\r\n", drips: strings.Repeat("u", 98), after: readTimeout},
		"no body":     {sent: request + "Content-Length: 9\r\n\r\n", after: readTimeout},
		"stuck":       {sent: request + "\r\n", noReads: true, after: writeTimeout},
	} {
		for _, before := range []int{0, 1, 7} {
			synctest.Test(t, func(t *testing.T) {
				conn, stop := servedPipe()
				defer stop()
				defer conn.Close()
				r := bufio.NewReader(conn)
				for i := range before {
					if i > 0 {
						time.Sleep(17 * time.Second)
					}
					io.WriteString(conn, request+"\r\n")
					res, err := http.ReadResponse(r, nil)
					if err != nil {
						t.Fatal(err)
					}
					io.Copy(io.Discard, res.Body)
				}
				io.WriteString(conn, tt.sent)
				begin := time.Now()
				ended := make(chan time.Duration, 1)
				go func() {
					if !tt.noReads {
						io.Copy(io.Discard, r)
						ended <- time.Since(begin)
						return
					}
					time.Sleep(tt.after + time.Second)
					synctest.Wait()
					n, _ := io.Copy(io.Discard, r)
					ended <- time.Duration(n) // 0 of the answer
				}()
				for i := range len(tt.drips) {
					time.Sleep(time.Second)
					if _, err := io.WriteString(conn, tt.drips[i:i+1]); err != nil {
						break
					}
				}
				want := tt.after
				if tt.noReads {
					want = 0
				} else if before == 0 && tt.sent == "" {
					want = readTimeout // for the first byte of the first request
				}
				if got := <-ended; got != want {
					t.Errorf("%s after %d requests: the connection ended after %v, want %v", name, before, got, want)
				}
			})
		}
	}
}

// servedPipe returns the client's end of a connection to a server, whose handler reads the body and then answers.
func servedPipe() (client net.Conn, stop func()) {
	s := &Server{cfg: Config{}.withDefaults()}
	s.live.Store(&generation{Server: s})
	l := &pipeListener{conns: make(chan net.Conn, 1)}
	f := s.start(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, strings.Repeat("x", 100))
	}))
	server, client := net.Pipe()
	l.conns <- &fakeConn{Conn: server}
	return client, f.close
}

// Ending a Read by a deadline in the past, as net/http does after each request, loses no byte on TCP.
func TestTimedConnOnTCP(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := timedListener{inner}
	defer l.Close()
	const size = 2000
	go func() {
		client, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer client.Close()
		for i := range size {
			client.Write([]byte{byte(i)})
		}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(*timedConn); !ok {
		t.Fatalf("Accept returned %T", c)
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 7)
	for got := 0; got < size; {
		done := make(chan struct{})
		go func() {
			defer close(done)
			n, err := c.Read(b)
			for i := range n {
				if b[i] != byte(got+i) {
					t.Errorf("byte %d is %d", got+i, b[i])
				}
			}
			if got += n; n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read = %v", err)
				got = size
			}
		}()
		c.SetReadDeadline(time.Unix(1, 0))
		<-done
		c.SetReadDeadline(time.Now().Add(time.Minute))
	}
}
