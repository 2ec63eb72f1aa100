package jwks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	// connectTimeout bounds the name's resolution and the connection together.
	connectTimeout = 2 * time.Second

	// maxAddresses is how many addresses of a name are tried.
	maxAddresses = 16

	// attemptDelay is how long an address has for itself, at most, before the next one is tried
	// beside it (RFC 8305, section 5).
	attemptDelay = 250 * time.Millisecond
)

// A dialer connects to the addresses that the guard permits. Attempts to connect overlap (RFC 8305),
// so that addresses which do not answer delay those that do by a fraction of a second.
type dialer struct {
	guard  guard
	plain  bool   // http: loopback, and what the guard allows by name
	direct string // host:port of the proxy, which the operator chose
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a net.Dialer
	spawn  func(f func()) bool                                               // runs f on a goroutine that an owner waits for; false: no longer
}

// connect resolves host:port and connects to the first address that the guard permits and that
// answers. The guard judges the address that is dialled, since a name may resolve to another one
// each time (DNS rebinding).
func (d *dialer) connect(ctx context.Context, hostport string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, failf(StepURL, "no host and port")
	}
	addrs, failed := d.resolve(ctx, host)
	if failed != nil {
		return nil, failed
	}
	judge := d.judge
	if hostport == d.direct {
		judge = func(netip.Addr) *Error { return nil }
	}
	if addrs, failed = permitted(addrs, judge); failed != nil {
		return nil, failed
	}
	if len(addrs) == 0 {
		return nil, failf(StepDNS, "%s has no address", host)
	}
	r := race{addrs: interleaved(addrs), results: make(chan dialed), spawn: d.spawn}
	r.dial = func(ctx context.Context, addr netip.Addr) (net.Conn, error) {
		return d.dialOne(ctx, net.JoinHostPort(addr.String(), port), judge)
	}
	return r.run(ctx)
}

func (d *dialer) resolve(ctx context.Context, host string) ([]netip.Addr, *Error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	addrs, err := d.lookup(ctx, "ip", host)
	if err != nil {
		words := "cannot be resolved now"
		if dns := new(net.DNSError); errors.As(err, &dns) && dns.IsNotFound {
			words = "no such host"
		} else if ctx.Err() != nil {
			words = "no answer of the resolver in time"
		}
		return nil, asError(err, StepDNS, host+": "+words)
	}
	return addrs, nil
}

// judge refuses an address that must not be dialled.
func (d *dialer) judge(addr netip.Addr) *Error {
	refused := d.guard.check(addr)
	if refused == nil && d.plain {
		refused = d.guard.checkPlain(addr)
	}
	return refused
}

// permitted returns the addresses that pass, or why the last one does not if none passes. An IPv4
// address that is written as IPv6, as some resolvers do, becomes IPv4.
func permitted(addrs []netip.Addr, judge func(netip.Addr) *Error) (passed []netip.Addr, failed *Error) {
	for _, addr := range addrs {
		addr = addr.Unmap()
		if refused := judge(addr); refused != nil {
			failed = refused
		} else {
			passed = append(passed, addr)
		}
	}
	if passed != nil {
		failed = nil
	}
	return passed, failed
}

// interleaved returns at most [maxAddresses] addresses, each once: the families in turns, that of
// the resolver's first choice first (RFC 8305, section 4). So many dead addresses of one family do
// not hide the other.
func interleaved(addrs []netip.Addr) []netip.Addr {
	var families [2][]netip.Addr // the first choice's, the other
	seen := make(map[netip.Addr]bool)
	for _, addr := range addrs {
		if seen[addr] {
			continue
		}
		seen[addr] = true
		i := 0
		if addr.Is4() != addrs[0].Is4() {
			i = 1
		}
		families[i] = append(families[i], addr)
	}
	var mixed []netip.Addr
	for i := range max(len(families[0]), len(families[1])) {
		for _, family := range families {
			if i < len(family) {
				mixed = append(mixed, family[i])
			}
		}
	}
	return mixed[:min(len(mixed), maxAddresses)]
}

// dialOne dials one address. A [net.Dialer] asks the judge once more when the socket is about to
// connect, so that no slip between here and there reaches a refused address.
func (d *dialer) dialOne(ctx context.Context, hostport string, judge func(netip.Addr) *Error) (net.Conn, error) {
	if d.dial != nil {
		return d.dial(ctx, "tcp", hostport)
	}
	judged := net.Dialer{ControlContext: func(_ context.Context, _, to string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(to)
		if err != nil {
			return failf(StepAddress, "an address that cannot be read: refused")
		}
		if refused := judge(at.Addr()); refused != nil {
			return refused
		}
		return nil
	}}
	return judged.DialContext(ctx, "tcp", hostport)
}

// A race is of attempts to connect, of which the first that succeeds wins.
type race struct {
	addrs   []netip.Addr
	dial    func(ctx context.Context, addr netip.Addr) (net.Conn, error)
	spawn   func(f func()) bool
	results chan dialed // unbuffered: what nobody takes any longer is closed by its attempt

	started, running int
}

// dialed is the end of one attempt.
type dialed struct {
	conn net.Conn
	addr netip.Addr
	err  error
}

// run starts an attempt for each address, the next one as soon as one has failed or delay has
// passed, and returns the first connection. The other attempts are cancelled. They close what they
// still bring, and their owner waits for them.
func (r *race) run(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// With many addresses, each of them still has its turn in time.
	delay := min(attemptDelay, connectTimeout/time.Duration(len(r.addrs)+1))
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		// No timer of zero does this: in tests in virtual time, with the race detector, timers that are due
		// when several goroutines select crash the runtime of Go 1.26.
		if r.started < len(r.addrs) {
			if !r.start(ctx, r.addrs[r.started]) {
				return nil, errClosed
			}
			timer.Reset(delay)
		}
		select {
		case <-timer.C:
		case end := <-r.results:
			if end.err == nil {
				return end.conn, nil
			}
			if r.running--; r.running == 0 && r.started == len(r.addrs) {
				return nil, r.failed(end.addr, end.err)
			}
		case <-ctx.Done():
			return nil, r.failed(r.addrs[max(r.started-1, 0)], ctx.Err())
		}
	}
}

// failed says why there is no connection, in the words of the last attempt.
func (r *race) failed(addr netip.Addr, err error) *Error {
	others := ""
	if r.started > 1 {
		others = fmt.Sprintf(", nor to %d more", r.started-1)
	}
	return asError(err, StepConnect, "no connection to "+addr.String()+others+": "+dialWords(err))
}

func (r *race) start(ctx context.Context, addr netip.Addr) bool {
	r.started++
	r.running++
	return r.spawn(func() {
		conn, err := r.dial(ctx, addr)
		select {
		case r.results <- dialed{conn, addr, err}:
		case <-ctx.Done(): // another one has won, or time is up
			if err == nil {
				conn.Close()
			}
		}
	})
}

// dialWords says why a connection failed.
func dialWords(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "unreachable"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return "failed"
}
