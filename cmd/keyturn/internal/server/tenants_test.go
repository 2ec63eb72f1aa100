package server

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
)

// A ring completes the rules of its tenant, and the order of the tenants decides nothing: the server
// is as ready as the least ready ring that another instance may serve better.
func TestRingTenants(t *testing.T) {
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	ring := Tenant{Ring: true, Rules: verifier.Tenant{ID: "ring", Issuer: "https://auth.example/ring", AnyAudience: true}}
	for _, all := range [][]Tenant{{static(t, "acme"), ring}, {ring, static(t, "acme")}} {
		cfg := Config{Tenants: all, Rings: &Rings{URL: "redis://" + miniredis.RunT(t).Addr(), KEKs: keks}}.withDefaults()
		tenants, err := openTenants(t.Context(), &cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer tenants.close()
		if got := tenants.ready(forVerify); got.Status != stateNotReady || got.Tenants["ring"].Status != stateNotReady || got.Tenants["acme"].Status != stateReady {
			t.Errorf("ready = %v", got)
		}
		for _, rules := range tenants.rules() {
			if rules.ID != "ring" {
				continue
			}
			if rules.Keys == nil || !rules.MixedFamilies || len(rules.Algorithms) != len(keystore.Algorithms()) || rules.Leeway != leeway {
				t.Errorf("rules = %+v", rules)
			}
		}
		if got := tenants.publicIssuer("ring"); got != ring.Rules.Issuer {
			t.Errorf("publicIssuer = %q", got)
		}
		if got := tenants.publicIssuer("acme"); got != "" {
			t.Errorf("publicIssuer of a tenant with any issuer = %q", got)
		}
	}
}

// A ring that cannot be read is not ready, and does not take the server from its other tenants.
// /readyz?tenant=T asks for one, on the admin listener.
func TestReadyPerTenant(t *testing.T) {
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	redis := miniredis.RunT(t)
	ring := func(id string) Tenant {
		return Tenant{Ring: true, Rules: verifier.Tenant{ID: id, Issuer: "https://auth.example/" + id, AnyAudience: true}}
	}
	client, err := rediskeys.Open("redis://" + redis.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	store, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		t.Fatal(err)
	}
	k, err := rotation.Open(t.Context(), store, rotation.Config{KEKs: keks, Tenants: []string{"good", "spoilt"}, OneShot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close(t.Context())
	r, err := rotation.NewRotator(k)
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"good", "spoilt"} {
		if _, err := r.Create(t.Context(), tenant, rotation.Policy{}); err != nil {
			t.Fatal(err)
		}
	}
	k.Close(t.Context()) // it holds the ring, and would put it back
	key := fmt.Sprintf("kt:{%d}:ring:spoilt", rotation.BucketOf("spoilt"))
	fields, _ := redis.HKeys(key)
	for _, field := range fields {
		redis.HSet(key, field, "rubbish")
	}
	s, err := New(t.Context(), Config{Addr: "127.0.0.1:0", Admin: "127.0.0.1:0", Tenants: []Tenant{ring("good"), ring("spoilt"), ring("none")},
		Rings: &Rings{URL: "redis://" + redis.Addr(), KEKs: keks, Poll: 100 * time.Millisecond, Deadline: 500 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	now := s.live.Load().tenants.ready(forVerify)
	for end := time.Now().Add(time.Minute); now.Tenants["good"].Status != stateReady && time.Now().Before(end); now = s.live.Load().tenants.ready(forVerify) {
		time.Sleep(20 * time.Millisecond) // it recovers for two polls
	}
	if now.Status != stateDegraded || now.Ready != 1 || now.Tenants["good"].Status != stateReady || now.Tenants["spoilt"].Status != stateNotReady || now.Tenants["none"].Status != stateNotReady || !now.Tenants["none"].alone {
		t.Errorf("%+v", now)
	}
	for path, want := range map[string]int{"/readyz": 200, "/readyz?tenant=good": 200, "/readyz?tenant=none": 503, "/readyz?tenant=spoilt": 503, "/readyz?tenant=other": 404, "/readyz?tenant=": 404} {
		if w := get(s.adminRoutes(), "GET", path); w.Code != want {
			t.Errorf("%s = %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
	if w := get(s.routes(), "GET", "/readyz?tenant=good"); w.Code != http.StatusNotFound {
		t.Errorf("the public listener names a tenant: %d %s", w.Code, w.Body)
	}
}
