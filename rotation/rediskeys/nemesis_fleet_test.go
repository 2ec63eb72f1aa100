package rediskeys_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
)

// The tests of the files nemesis_*_test.go are attacks that an independent harness found on real
// Redis servers. An attacker has the whole of Redis, and no KEK.

// nemesisPolicy is as quick as a policy may be. No key is due while a test runs.
var nemesisPolicy = ring.Policy{
	Algorithm: keystore.HS256, Every: time.Minute, Propagation: 2 * time.Second, MaxTokenTTL: 20 * time.Second, Leeway: time.Second,
	ClockSkew: 100 * time.Millisecond, Freshness: time.Second, Dwell: 200 * time.Millisecond, SignFor: 1200 * time.Millisecond,
}

const (
	nemesisPoll     = 60 * time.Millisecond
	nemesisDeadline = 200 * time.Millisecond
	nemesisTenant   = "acme"
)

// repairTime is how long after the end of an attack everything is back: F and two polls.
const repairTime = time.Second + 2*(nemesisPoll+nemesisPoll/5+nemesisDeadline)

func oldKEK() []byte { return []byte("0123456789abcdef0123456789ABCDEF") }
func newKEK() []byte { return []byte("fedcba9876543210FEDCBA9876543210") }

func keks(t testing.TB, keys ...[]byte) *rotation.KEKs {
	t.Helper()
	ks, err := rotation.NewKEKs(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

// A member is an instance of a fleet on a real Redis.
type member struct {
	name     string
	keys     *rotation.Keyring
	rotator  *rotation.Rotator
	signer   *rotation.Signer
	verifier *verifier.Verifier
}

// nemesisMember starts an instance.
func nemesisMember(t testing.TB, addr, name string, change ...func(*rotation.Config)) *member {
	t.Helper()
	return memberOn(t, open(t, "redis://"+addr), name, change...)
}

// memberOn is nemesisMember on a store.
func memberOn(t testing.TB, s *rediskeys.Store, name string, change ...func(*rotation.Config)) *member {
	t.Helper()
	cfg := rotation.Config{KEKs: keks(t, oldKEK()), Tenants: []string{nemesisTenant}, Instance: name, Poll: nemesisPoll, Deadline: nemesisDeadline}
	for _, f := range change {
		f(&cfg)
	}
	m := &member{name: name}
	var err error
	eventually(t, name+" to open", func() bool {
		m.keys, err = rotation.Open(t.Context(), s, cfg)
		return err == nil || !errors.Is(err, keystore.ErrUnavailable) // a busy machine may need a second try
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.keys.Close(context.Background()) }) // fails if Redis has ended
	m.rotator, err = rotation.NewRotator(m.keys)
	if err == nil {
		m.signer, err = rotation.NewSigner(m.keys, rotation.SignerConfig{Issuer: func(string) string { return "https://acme.example" }})
	}
	if err == nil {
		m.verifier, err = verifier.New(verifier.Config{Tenants: []verifier.Tenant{{ID: nemesisTenant, Keys: m.keys,
			Algorithms: []keystore.Algorithm{keystore.HS256}, Issuer: "https://acme.example", AnyAudience: true, Leeway: time.Second}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// nemesisFleet starts instances on a server, with a ring whose pending key may be promoted.
func nemesisFleet(t testing.TB, addr string, names ...string) []*member {
	t.Helper()
	maker := nemesisMember(t, addr, "maker", func(c *rotation.Config) { c.OneShot = true })
	eventually(t, "a ring", func() bool {
		_, err := maker.rotator.Create(t.Context(), nemesisTenant, nemesisPolicy)
		return err == nil || errors.Is(err, rotation.ErrRefused)
	})
	var fleet []*member
	for _, name := range names {
		fleet = append(fleet, nemesisMember(t, addr, name))
	}
	for _, m := range fleet {
		eventually(t, m.name+" to be in sync", func() bool { return m.inSync(t).Fresh })
	}
	return fleet
}

// eventually waits until done returns true.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) { // waits for another process
		if time.Now().After(end) {
			t.Fatalf("waited for %s", what)
		}
	}
}

func (m *member) inSync(t testing.TB) rotation.TenantStatus {
	t.Helper()
	s, err := m.keys.Tenant(nemesisTenant)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signing returns the kid of the key that signs, and a token of it.
func (m *member) signing(t testing.TB) (kid, token string) {
	t.Helper()
	var err error
	eventually(t, m.name+" to sign", func() bool {
		token, err = m.signer.Sign(t.Context(), nemesisTenant, nil)
		return err == nil
	})
	r := m.inSync(t).Ring
	return r.Keys[r.Signer].KID, token
}

// revoke revokes a key as soon as another one can take over.
func (m *member) revoke(t testing.TB, kid string, opts ...rotation.Option) rotation.Receipt {
	t.Helper()
	var receipt rotation.Receipt
	var err error
	eventually(t, m.name+" to revoke", func() bool {
		receipt, err = m.rotator.Revoke(t.Context(), nemesisTenant, kid, opts...)
		return err == nil
	})
	return receipt
}

// accepts reports whether an instance accepts a token although it says that it is in sync, right
// before and right after, by a sync that was sent after since.
func (m *member) accepts(t testing.TB, token string, since time.Time) bool {
	t.Helper()
	before := m.inSync(t)
	_, err := m.verifier.Verify(t.Context(), token)
	return err == nil && before.Fresh && before.LastGood.After(since) && m.inSync(t).Fresh
}

// refuses reports whether an instance rejects a token.
func (m *member) refuses(t testing.TB, token string) bool {
	t.Helper()
	_, err := m.verifier.Verify(t.Context(), token)
	return errors.Is(err, verifier.ErrInvalid)
}

func nemesisKey(name string) string {
	return fmt.Sprintf("kt:{%d}:%s", rotation.BucketOf(nemesisTenant), name)
}

// hideFields removes fields of the ring as soon as Redis says that it has changed, until stop is
// called. stop returns how many fields were removed.
func hideFields(t testing.TB, server *redistest.Server, fields ...string) (stop func() int64) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Protocol: 2, DisableIdentity: true})
	sub := client.Subscribe(t.Context(), "kt:changed")
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	removed, done := int64(0), make(chan struct{})
	go func() {
		defer close(done)
		for range sub.Channel() {
			removed += client.HDel(context.Background(), nemesisKey("ring:"+nemesisTenant), fields...).Val()
		}
	}()
	return func() int64 {
		_ = sub.Close()
		<-done
		_ = client.Close()
		return removed
	}
}
