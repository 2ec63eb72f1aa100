package server

import (
	"context"
	"errors"
	"net"
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

const testSecret = "0123456789abcdef0123456789ABCDEF"

// static returns a tenant with a shared secret, whose tokens may have any issuer and audience.
func static(t *testing.T, id string) Tenant {
	t.Helper()
	key, err := keystore.NewSecret(keystore.ID{Tenant: id}, keystore.HS256, []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := keystore.NewStatic(key)
	if err != nil {
		t.Fatal(err)
	}
	return Tenant{Rules: verifier.Tenant{
		ID: id, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256}, AnyIssuer: true, AnyAudience: true,
	}}
}

// New says which part it could not open, and leaves nothing open.
func TestNewErrors(t *testing.T) {
	running := goleak.IgnoreCurrent()
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	acme, ring := static(t, "acme"), Tenant{Ring: true, Rules: verifier.Tenant{ID: "acme", AnyIssuer: true, AnyAudience: true}}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for want, cfg := range map[Part]Config{
		PartSource:   {Tenants: []Tenant{{Rules: verifier.Tenant{ID: "acme"}, Source: &Source{JWKSURL: "http://issuer.example"}}}},
		PartStore:    {Tenants: []Tenant{ring}, Rings: &Rings{URL: "http://redis.example", KEKs: keks}},
		PartRings:    {Tenants: []Tenant{ring}, Rings: &Rings{URL: "redis://127.0.0.1:1"}},
		PartListener: {Tenants: []Tenant{acme}, Addr: "nowhere"},
		PartAdmin:    {Tenants: []Tenant{acme}, Addr: "127.0.0.1:0", Admin: taken.Addr().String()},
		PartRules:    {Tenants: []Tenant{acme, static(t, "globex")}, Addr: "127.0.0.1:0"},
	} {
		s, err := New(t.Context(), cfg)
		if e := new(Error); s != nil || !errors.As(err, &e) || e.Part != want {
			t.Errorf("New = %v, %v, want an error of part %s", s, err, want)
		}
	}
	goleak.VerifyNone(t, running)
}

// The end of the context ends the server, which says so in two events.
func TestRunEvents(t *testing.T) {
	var events []Event
	s, err := New(t.Context(), Config{
		Addr: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}, Grace: time.Minute,
		Notify: func(e Event) { events = append(events, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run = %v", err)
	}
	if want := []Event{Draining{Limit: time.Minute}, Stopped{}}; !reflect.DeepEqual(events, want) {
		t.Errorf("events = %v, want %v", events, want)
	}
	if c, err := net.Dial("tcp", s.listener.Addr().String()); err == nil {
		c.Close()
		t.Error("the server still listens")
	}
}

// A server that is terminated goes on for Config.Drain before it takes no new connections.
func TestRunDrains(t *testing.T) {
	events := make(chan Event, 3)
	const drain = 100 * time.Millisecond
	s, err := New(t.Context(), Config{
		Addr: "127.0.0.1:0", Tenants: []Tenant{static(t, "acme")}, Drain: drain, Grace: time.Minute, Notify: func(e Event) { events <- e },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrTerminated)
	begin := time.Now()
	if err := s.Run(ctx); err != nil || time.Since(begin) < drain {
		t.Errorf("Run = %v after %v", err, time.Since(begin))
	}
	for _, want := range []Event{Stopping{For: drain}, Draining{Limit: time.Minute}, Stopped{}} {
		if got := <-events; got != want {
			t.Errorf("event = %v, want %v", got, want)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for ip, want := range map[string]Endpoint{
		"0.0.0.0":   {"http://localhost:4111", true},
		"::":        {"http://localhost:4111", true},
		"127.0.0.1": {"http://127.0.0.1:4111", false},
		"::1":       {"http://[::1]:4111", false},
	} {
		if got := endpointOf(&net.TCPAddr{IP: net.ParseIP(ip), Port: 4111}); got != want {
			t.Errorf("endpointOf(%s) = %v, want %v", ip, got, want)
		}
	}
}
