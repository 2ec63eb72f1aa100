package rotation_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// create makes a ring, as a command does.
func create(t *testing.T, cluster *rotationtest.Cluster, tenant string, policy ring.Policy) {
	t.Helper()
	m := join(t, cluster, "command", of(tenant), func(c *rotation.Config) { c.OneShot, c.Poll, c.Deadline = true, 0, 0 })
	defer m.leave()
	if _, err := m.rotator.Create(t.Context(), tenant, policy); err != nil {
		t.Fatal(err)
	}
}

const day = 24 * time.Hour

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

// A faultyStore is a Store one of whose calls can be made to fail, or preceded by
// something.
type faultyStore struct {
	rotation.Store
	write func() // before a write
	wrote func() // after a write
	load  func(tenant string) error
}

func (s *faultyStore) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	if s.write != nil {
		s.write()
	}
	if s.wrote != nil {
		defer s.wrote()
	}
	return s.Store.Write(ctx, c)
}

func (s *faultyStore) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	snapshots := s.Store.Load(ctx, tenants)
	for i, tenant := range tenants {
		if s.load != nil && s.load(tenant) != nil {
			snapshots[i] = rotation.Snapshot{Err: s.load(tenant)}
		}
	}
	return snapshots
}

// openStore opens a keyring "x" of a Store.
func openStore(t *testing.T, s rotation.Store, change ...func(*rotation.Config)) *rotation.Keyring {
	t.Helper()
	cfg := rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, Instance: "x", Poll: fastPoll, Deadline: fastDeadline}
	for _, f := range change {
		f(&cfg)
	}
	k, err := rotation.Open(t.Context(), s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// trusting takes the first read for the truth.
func trusting(c *rotation.Config) { c.TrustFirstRead = true }

// derived is trusting, with times that follow from the policies of the rings.
func derived(c *rotation.Config) { c.TrustFirstRead, c.Poll, c.Deadline = true, 0, 0 }

// of returns a change of a Config to hold tenants; none means all.
func of(tenants ...string) func(*rotation.Config) {
	return func(c *rotation.Config) { c.Tenants = tenants }
}

// newDerivedFleet is newFleet with times that follow from the policy.
func newDerivedFleet(t *testing.T, policy ring.Policy, change ...func(*rotation.Config)) *fleet {
	t.Helper()
	return newDerivedFleetOn(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}), policy, change...)
}

// newDerivedFleetOn is newDerivedFleet on a store.
func newDerivedFleetOn(t *testing.T, c *rotationtest.Cluster, policy ring.Policy, change ...func(*rotation.Config)) *fleet {
	t.Helper()
	f := &fleet{t: t, cluster: c}
	f.member = join(t, f.cluster, "a", append([]func(*rotation.Config){derived}, change...)...)
	if _, err := f.rotator.Create(t.Context(), "acme", policy); err != nil {
		t.Fatal(err)
	}
	return f
}

// signs reports why a member cannot sign for acme, or nil.
func (m *member) signs() error {
	_, err := m.signer.Sign(m.t.Context(), "acme", nil)
	return err
}

// within returns what comes from ends.
func within(t *testing.T, ends <-chan error) error {
	t.Helper()
	select {
	case err := <-ends:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("it does not end with the keyring")
		return nil
	}
}

// A fleet is a store with a ring of acme, and one member that made it.
type fleet struct {
	t       *testing.T
	cluster *rotationtest.Cluster
	*member
	commits []rotationtest.Commit
	mu      sync.Mutex
}

func newFleet(t *testing.T, policy ring.Policy) *fleet {
	t.Helper()
	f := &fleet{t: t}
	f.cluster = rotationtest.NewCluster(rotationtest.ClusterConfig{Committed: func(c rotationtest.Commit) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.commits = append(f.commits, c)
	}})
	f.member = join(t, f.cluster, "a", func(c *rotation.Config) { c.TrustFirstRead = true })
	if _, err := f.rotator.Create(t.Context(), "acme", policy); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) ops() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ops []string
	for _, c := range f.commits {
		ops = append(ops, string(c.Op))
	}
	return strings.Join(ops, " ")
}

// kid returns the kid of the key with that seq.
func (m *member) kid(seq int) string {
	m.t.Helper()
	s, err := m.Tenant("acme")
	if err != nil {
		m.t.Fatal(err)
	}
	for _, k := range s.Ring.Keys {
		if k.Seq == seq {
			return k.KID
		}
	}
	m.t.Fatalf("no key has seq %d: %s", seq, m.ring())
	return ""
}

// finds reports what Lookup says of a key.
func (m *member) finds(kid string) string {
	keys, err := m.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.HS256)
	switch {
	case errors.Is(err, keystore.ErrUnavailable):
		return "unavailable"
	case errors.Is(err, keystore.ErrNotFound):
		return "not found"
	case err != nil || len(keys) != 1:
		return fmt.Sprint(keys, err)
	}
	return "found"
}

func wantRing(t *testing.T, m *member, want string) {
	t.Helper()
	if got := m.ring(); got != want {
		t.Errorf("at %v the ring is %q, want %q", time.Now().Format("04:05.000"), got, want)
	}
}

func wantRefused(t *testing.T, err error) *ring.RefusedError {
	t.Helper()
	var refused *ring.RefusedError
	if !errors.As(err, &refused) || !errors.Is(err, ring.ErrRefused) {
		t.Fatalf("%v, want a RefusedError", err)
	}
	return refused
}

// last returns the last change.
func (f *fleet) last() rotationtest.Commit {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commits[len(f.commits)-1]
}

// bounds renders what the last change demanded of its times: each, after the store's, and
// from when to when it has to lie.
func (f *fleet) bounds() string {
	last := f.last()
	var all []string
	for _, b := range last.Bounds {
		from := b.From.String()
		if b.From < -100*365*24*time.Hour {
			from = "ever"
		}
		all = append(all, fmt.Sprintf("%v(%s..%v)", b.At.Sub(last.Result.Now), from, b.To))
	}
	slices.Sort(all)
	return string(last.Op) + ": " + strings.Join(all, " ")
}
