package jwks_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// noDial is a dialer that must not be called.
func noDial(t *testing.T) func(context.Context, string, string) (net.Conn, error) {
	return func(_ context.Context, _, addr string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(addr); !netip.MustParseAddr(host).IsLoopback() {
			t.Errorf("dialled %s", addr)
		}
		return nil, net.ErrClosed
	}
}

// A recorder stands in for the network. Each lookup returns its next addresses, and it notes the
// addresses that are dialled.
type recorder struct {
	mu     sync.Mutex
	addrs  [][]string
	dialed []string
	issuer *jwkstest.Server // where it connects to; nil: nowhere
}

func (r *recorder) lookup(context.Context, string, string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var addrs []netip.Addr
	for _, a := range r.addrs[0] {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if len(r.addrs) > 1 {
		r.addrs = r.addrs[1:]
	}
	return addrs, nil
}

func (r *recorder) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	r.mu.Lock()
	r.dialed = append(r.dialed, addr)
	r.mu.Unlock()
	if r.issuer == nil {
		return nil, net.ErrClosed
	}
	return r.issuer.DialContext(ctx, network, addr)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.dialed)
}

// allowLoopback and allowCIDR are settings of [addressCases].
var allowLoopback = jwks.SourceConfig{AllowLoopback: true}

func allowCIDR(p string) jwks.SourceConfig {
	return jwks.SourceConfig{AllowCIDR: []netip.Prefix{netip.MustParsePrefix(p)}}
}

// addressCases are addresses that the guard must pass or refuse, at the edges of each range.
var addressCases = []struct {
	addr string
	cfg  jwks.SourceConfig
	pass bool
}{
	{"8.8.8.8", jwks.SourceConfig{}, true},
	{"::ffff:8.8.8.8", jwks.SourceConfig{}, true}, // how resolvers write IPv4
	{"2606:4700::1", jwks.SourceConfig{}, true},
	{"9.255.255.255", jwks.SourceConfig{}, true},
	{"10.0.0.0", jwks.SourceConfig{}, false},
	{"10.255.255.255", jwks.SourceConfig{}, false},
	{"11.0.0.0", jwks.SourceConfig{}, true},
	{"0.0.0.0", jwks.SourceConfig{}, false},
	{"0.1.2.3", jwks.SourceConfig{}, false},
	{"100.63.255.255", jwks.SourceConfig{}, true},
	{"100.64.0.0", jwks.SourceConfig{}, false},
	{"100.127.255.255", jwks.SourceConfig{}, false},
	{"100.128.0.0", jwks.SourceConfig{}, true},
	{"127.0.0.1", jwks.SourceConfig{}, false},
	{"127.255.255.255", jwks.SourceConfig{}, false},
	{"169.253.255.255", jwks.SourceConfig{}, true},
	{"169.254.169.254", jwks.SourceConfig{}, false},
	{"172.15.255.255", jwks.SourceConfig{}, true},
	{"172.16.0.0", jwks.SourceConfig{}, false},
	{"172.31.255.255", jwks.SourceConfig{}, false},
	{"172.32.0.0", jwks.SourceConfig{}, true},
	{"192.0.0.8", jwks.SourceConfig{}, false},
	{"192.0.2.1", jwks.SourceConfig{}, false},
	{"192.0.1.255", jwks.SourceConfig{}, true},
	{"192.31.196.1", jwks.SourceConfig{}, false},
	{"192.52.193.1", jwks.SourceConfig{}, false},
	{"192.175.48.1", jwks.SourceConfig{}, false},
	{"198.51.100.1", jwks.SourceConfig{}, false},
	{"203.0.113.7", jwks.SourceConfig{}, false},
	{"203.0.114.0", jwks.SourceConfig{}, true},
	{"168.63.129.15", jwks.SourceConfig{}, true},
	{"168.63.129.16", jwks.SourceConfig{}, false},
	{"168.63.129.17", jwks.SourceConfig{}, true},
	{"192.168.1.1", jwks.SourceConfig{}, false},
	{"192.169.0.0", jwks.SourceConfig{}, true},
	{"198.18.0.1", jwks.SourceConfig{}, false},
	{"223.255.255.255", jwks.SourceConfig{}, true},
	{"224.0.0.1", jwks.SourceConfig{}, false},
	{"239.1.1.1", jwks.SourceConfig{}, false},
	{"240.0.0.1", jwks.SourceConfig{}, false},
	{"255.255.255.255", jwks.SourceConfig{}, false},
	{"::", jwks.SourceConfig{}, false},
	{"::1", jwks.SourceConfig{}, false},
	{"::ffff:127.0.0.1", jwks.SourceConfig{}, false},
	{"::ffff:169.254.169.254", jwks.SourceConfig{}, false},
	{"::10.0.0.1", jwks.SourceConfig{}, false},
	{"::ffff:0:10.0.0.1", jwks.SourceConfig{}, false},
	{"64:ff9b::a9fe:a9fe", jwks.SourceConfig{}, false},
	{"64:ff9b:1::1", jwks.SourceConfig{}, false},
	{"2001:0:1::1", jwks.SourceConfig{}, false},
	{"2001:1::1", jwks.SourceConfig{}, false},
	{"2001:20::1", jwks.SourceConfig{}, false},
	{"2001:1ff:ffff::1", jwks.SourceConfig{}, false},
	{"2001:200::1", jwks.SourceConfig{}, true},
	{"2620:4f:8000::1", jwks.SourceConfig{}, false},
	{"3fff::1", jwks.SourceConfig{}, false},
	{"3fff:fff:ffff::1", jwks.SourceConfig{}, false},
	{"2002:a9fe:a9fe::1", jwks.SourceConfig{}, false},
	{"2001:db8::1", jwks.SourceConfig{}, false},
	{"fc00::1", jwks.SourceConfig{}, false},
	{"fd12::1", jwks.SourceConfig{}, false},
	{"fe80::1", jwks.SourceConfig{}, false},
	{"fe80::1%eth0", jwks.SourceConfig{}, false},
	{"fec0::1", jwks.SourceConfig{}, false},
	{"ff02::1", jwks.SourceConfig{}, false},
	{"4000::1", jwks.SourceConfig{}, false}, // not assigned

	{"127.0.0.1", allowLoopback, true},
	{"::1", allowLoopback, true},
	{"::ffff:127.0.0.1", allowLoopback, true},
	{"10.0.0.1", allowLoopback, false},
	{"169.254.169.254", allowLoopback, false},
	{"10.1.2.3", allowCIDR("10.1.0.0/16"), true},
	{"10.2.2.3", allowCIDR("10.1.0.0/16"), false},
	{"127.0.0.1", allowCIDR("10.1.0.0/16"), false},
	{"fd12::1", allowCIDR("fd12::/16"), true},
	{"224.0.0.1", allowCIDR("0.0.0.0/0"), false},
	{"0.0.0.0", allowCIDR("0.0.0.0/0"), false},
}

func TestAddressGuard(t *testing.T) {
	for _, tt := range addressCases {
		virtual(t, func(t *testing.T) {
			r := &recorder{addrs: [][]string{{tt.addr}}}
			client := jwks.New(jwks.Config{LookupNetIP: r.lookup, DialContext: r.dial})
			defer client.Close(t.Context())
			s, err := client.Open("acme", "https://issuer.example/jwks.json", tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := len(r.all()) > 0; got != tt.pass {
				t.Errorf("%s with %+v: dialled %v, want %v", tt.addr, tt.cfg, r.all(), tt.pass)
			}
			e := new(jwks.Error)
			if want := map[bool]jwks.Step{true: jwks.StepConnect, false: jwks.StepAddress}[tt.pass]; !errors.As(s.Status().LastError, &e) || e.Step != want {
				t.Errorf("%s: %v, want step %q", tt.addr, s.Status().LastError, want)
			}
		})
	}
}

// A name may resolve to a public address once and to a private one the next time. Each time is
// judged.
func TestDNSRebinding(t *testing.T) {
	virtual(t, func(t *testing.T) {
		issuer := jwkstest.NewInMemory(t)
		key := jwkstest.NewKey("a", "ES256")
		issuer.Publish(key)
		r := &recorder{issuer: issuer, addrs: [][]string{{"2d00::7"}, {"169.254.169.254"}, {"127.0.0.1", "10.0.0.1"}}}
		client := jwks.New(jwks.Config{TLS: issuer.TLS(), LookupNetIP: r.lookup, DialContext: r.dial})
		defer client.Close(t.Context())
		s, err := client.Open("acme", issuer.URL(), jwks.SourceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 120 {
			time.Sleep(time.Minute)
			if _, err := get(s, "a"); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.all(); !slices.Equal(got, []string{"[2d00::7]:443"}) {
			t.Errorf("dialled %v", got)
		}
		wantOnly(t, "Refresh", s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "new"}), keystore.ErrUnavailable)
	})
}

// Of several addresses, the refused ones are skipped.
func TestAddressesInTurn(t *testing.T) {
	virtual(t, func(t *testing.T) {
		r := &recorder{addrs: [][]string{{"10.0.0.1", "8.8.8.8", "::1", "8.8.4.4"}}}
		client := jwks.New(jwks.Config{LookupNetIP: r.lookup, DialContext: r.dial})
		defer client.Close(t.Context())
		if _, err := client.Open("acme", "https://issuer.example/", jwks.SourceConfig{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := r.all(); !slices.Equal(got, []string{"8.8.8.8:443", "8.8.4.4:443"}) {
			t.Errorf("dialled %v", got)
		}
	})
}

// http is for this machine only, whatever the name resolves to and AllowCIDR allows.
func TestPlainHTTPStaysOnLoopback(t *testing.T) {
	virtual(t, func(t *testing.T) {
		r := &recorder{addrs: [][]string{{"8.8.8.8", "10.0.0.1"}}}
		client := jwks.New(jwks.Config{LookupNetIP: r.lookup, DialContext: r.dial})
		defer client.Close(t.Context())
		cfg := jwks.SourceConfig{AllowLoopback: true, AllowCIDR: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		if _, err := client.Open("acme", "http://localhost/jwks.json", cfg); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := r.all(); got != nil {
			t.Errorf("dialled %v", got)
		}
	})
}

func TestRedirects(t *testing.T) {
	const onHost = "https://" + jwkstest.Host
	tests := []struct {
		name    string
		to      string
		allowed bool
		pass    bool
	}{
		{"not allowed", onHost + "/keys", false, false},
		{"same host", onHost + "/keys", true, true},
		{"relative", "/keys", true, true},
		{"another host", "https://other.test/keys", true, false},
		{"another port", onHost + ":8443/keys", true, false},
		{"to http", "http://" + jwkstest.Host + "/keys", true, false},
		{"to a cloud's metadata", "http://169.254.169.254/latest/meta-data/", true, false},
		{"userinfo", "https://user:pw@" + jwkstest.Host + "/keys", true, false},
		{"to itself", onHost + "/jwks.json", true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.issuer.Misbehave(jwkstest.RedirectFrom("/jwks.json", tt.to))
				s := w.open(jwks.SourceConfig{AllowRedirects: tt.allowed})
				w.issuer.AlsoAt("/keys")
				synctest.Wait()
				if got := s.HasKey("a"); got != tt.pass {
					t.Errorf("has the keys: %v, want %v (%v)", got, tt.pass, s.Status().LastError)
				}
				e := new(jwks.Error)
				if !tt.pass && (!errors.As(s.Status().LastError, &e) || e.Step != jwks.StepRedirect) {
					t.Errorf("%v, want step redirect", s.Status().LastError)
				}
				w.wantFetches(3)
			})
		})
	}
}
