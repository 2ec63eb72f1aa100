package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/keyturn/keyturn/internal/redistest"
)

// A link is the network of one instance: a proxy before each server that the instance dials.
type link struct {
	resolve func(addr string) string

	mu      sync.Mutex
	fault   fault
	proxies map[string]*redistest.Proxy // by the address of the server
}

// A fault breaks or heals the proxies of a link, such as (*redistest.Proxy).Cut.
type fault func(*redistest.Proxy)

func delay(d time.Duration) fault { return func(p *redistest.Proxy) { p.Delay(d) } }

func newLink(resolve func(string) string) *link {
	return &link{resolve: resolve, fault: (*redistest.Proxy).Heal, proxies: make(map[string]*redistest.Proxy)}
}

func (l *link) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	p, err := l.proxy(l.resolve(addr))
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, network, p.Addr())
}

func (l *link) proxy(addr string) (*redistest.Proxy, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.proxies[addr]; p != nil {
		return p, nil
	}
	p, err := redistest.StartProxy(addr)
	if err != nil {
		return nil, err
	}
	l.fault(p)
	l.proxies[addr] = p
	return p, nil
}

// set applies a fault to all proxies of the link, those to come included.
func (l *link) set(f fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = f
	for _, p := range l.proxies {
		f(p)
	}
}

func (l *link) stop() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, p := range l.proxies {
		errs = append(errs, p.Stop())
	}
	return errors.Join(errs...)
}

// client returns a client with the options of rediskeys.Open, over the link.
func (l *link) client(at address) redis.UniversalClient {
	const call = 3 * time.Second
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: at.addrs, MasterName: at.master, IsClusterMode: at.cluster, Dialer: l.dial,
		ContextTimeoutEnabled: true, DialTimeout: 2 * time.Second, ReadTimeout: call, WriteTimeout: call, PoolTimeout: call,
		DialerRetries: 1, MaxRetries: 2, MaxRetryBackoff: 100 * time.Millisecond, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// A discardLogger replaces the logger of the Redis client, which logs each connection that breaks.
type discardLogger struct{}

func (discardLogger) Printf(context.Context, string, ...any) {}
