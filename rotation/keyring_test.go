package rotation_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// fast is the policy of the tests: a key signs for six seconds.
var fast = ring.Policy{
	Algorithm: keystore.HS256, Every: 6 * time.Second, Propagation: 4500 * time.Millisecond, MaxTokenTTL: 3 * time.Second, Leeway: time.Second,
	ClockSkew: 250 * time.Millisecond, Freshness: 2250 * time.Millisecond, Dwell: time.Second, SignFor: 3 * time.Second,
}

const (
	fastPoll     = 250 * time.Millisecond
	fastDeadline = 450 * time.Millisecond
)

var testKEK = func() *rotation.KEKs {
	keks, err := rotation.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		panic(err)
	}
	return keks
}()

// A member is one instance of a fleet under test.
type member struct {
	t *testing.T
	*rotation.Keyring
	conn    *rotationtest.Conn
	rotator *rotation.Rotator
	signer  *rotation.Signer
}

func join(t *testing.T, c *rotationtest.Cluster, name string, change ...func(*rotation.Config)) *member {
	t.Helper()
	m := &member{t: t, conn: c.Connect(name)}
	cfg := rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, Instance: name, Poll: fastPoll, Deadline: fastDeadline}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if m.Keyring, err = rotation.Open(t.Context(), m.conn, cfg); err != nil {
		t.Fatal(err)
	}
	if m.rotator, err = rotation.NewRotator(m.Keyring); err != nil {
		t.Fatal(err)
	}
	if m.signer, err = rotation.NewSigner(m.Keyring, rotation.SignerConfig{}); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *member) leave() {
	m.t.Helper()
	if err := m.Close(context.Background()); err != nil {
		m.t.Error(err)
	}
}

// run lets the member turn keys until the returned function is called.
func (m *member) run() (stop func()) {
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan error)
	go func() { done <- m.rotator.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Error(err)
		}
	}
}

func (m *member) ring() string {
	s, err := m.Tenant("acme")
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for i, k := range s.Ring.Keys {
		mark := ""
		if i == s.Ring.Signer {
			mark = "*"
		}
		fmt.Fprintf(&b, "%d=%s%s ", k.Seq, k.State, mark)
	}
	return strings.TrimSpace(b.String())
}

func TestAFleetTurnsItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		first := join(t, cluster, "a", func(c *rotation.Config) { c.TrustFirstRead = true })
		defer first.leave()
		if err := first.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		if got := first.ring(); got != "1=signing* 2=pending" {
			t.Fatalf("after Create: %s", got)
		}
		if _, err := first.signer.Sign(t.Context(), "acme", nil); err != nil {
			t.Fatal(err)
		}
		second := join(t, cluster, "b")
		if _, err := second.signer.Sign(t.Context(), "acme", nil); !errors.Is(err, rotation.ErrFenced) {
			t.Errorf("a member in doubt signs: %v", err)
		}
		if err := second.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		third := join(t, cluster, "c")
		if s := third.Status(); !s.Ready || !s.Fresh {
			t.Errorf("a member that others vouch for: %+v", s)
		}
		others := []*member{second, third}
		for _, m := range others {
			defer m.leave()
			defer m.run()()
		}
		fleet := append(others, first)
		signed := make(map[string]bool)
		for range 400 {
			time.Sleep(100 * time.Millisecond)
			for _, m := range fleet {
				token, err := m.signer.Sign(t.Context(), "acme", nil)
				if err != nil {
					t.Fatalf("%v: %v (%s)", time.Now(), err, m.ring())
				}
				kid := kidOf(t, token)
				signed[kid] = true
				for _, v := range fleet {
					keys, err := v.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.HS256)
					if err != nil || !keys[0].Verify([]byte(token[:strings.LastIndexByte(token, '.')]), sigOf(t, token)) {
						t.Fatalf("%v: %v", time.Now(), err)
					}
				}
			}
		}
		if len(signed) < 6 {
			t.Errorf("%d keys have signed in 40 s, want one every 6 s", len(signed))
		}
		s, _ := first.Tenant("acme")
		if n := len(s.Ring.Keys); n > 5 {
			t.Errorf("%d keys are left: nothing collects them", n)
		}
	})
}

func kidOf(t *testing.T, token string) string {
	t.Helper()
	header, _, _ := strings.Cut(token, ".")
	var h struct {
		KID string `json:"kid"`
	}
	unmarshal(t, decode(t, header), &h)
	return h.KID
}

func sigOf(t *testing.T, token string) []byte {
	t.Helper()
	return decode(t, token[strings.LastIndexByte(token, '.')+1:])
}

func decode(t *testing.T, part string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unmarshal(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}
