package jwks_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A world is an issuer with two keys, and a client that reads them.
type world struct {
	t      *testing.T
	issuer *jwkstest.Server
	client *jwks.Client
	a, b   *jwkstest.Key
	log    *locked
}

// bubble runs test in virtual time, with an issuer in memory.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	virtual(t, func(t *testing.T) {
		t.Helper()
		test(t, newWorld(t, jwkstest.NewInMemory(t), jwks.Config{}))
	})
}

func newWorld(t *testing.T, issuer *jwkstest.Server, cfg jwks.Config) *world {
	w := &world{
		t: t, issuer: issuer, log: new(locked),
		a: jwkstest.NewKey("a", "ES256"), b: jwkstest.NewKey("b", "ES256"),
	}
	issuer.Publish(w.a, w.b)
	cfg.TLS, cfg.LookupNetIP, cfg.DialContext = issuer.TLS(), issuer.LookupNetIP, issuer.DialContext
	cfg.Logger = slog.New(slog.NewTextHandler(w.log, nil))
	w.client = jwks.New(cfg)
	t.Cleanup(func() {
		if err := w.client.Close(context.Background()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return w
}

// locked is a buffer for several goroutines.
type locked struct {
	mu sync.Mutex
	w  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.String()
}

func (w *world) open(cfg jwks.SourceConfig) *jwks.Source { return w.openFor("acme", cfg) }

func (w *world) openFor(tenant string, cfg jwks.SourceConfig) *jwks.Source {
	w.t.Helper()
	s, err := w.client.Open(tenant, w.issuer.URL(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// ready opens a source and waits for its first set.
func (w *world) ready(cfg jwks.SourceConfig) *jwks.Source {
	w.t.Helper()
	s := w.open(cfg)
	if err := s.WaitReady(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// get returns what Lookup of a kid finds, and tells the source that a token of that key was
// verified.
func get(s *jwks.Source, kid string) (*keystore.Key, error) {
	keys, err := s.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.ES256)
	if err != nil {
		return nil, err
	}
	s.NoteUse("acme")
	return keys[0], nil
}

func (w *world) wantKey(s *jwks.Source, key *jwkstest.Key) *keystore.Key {
	w.t.Helper()
	msg := []byte("a message")
	return w.wantSigner(s, key, msg, key.Sign(msg))
}

// wantSigner is wantKey for a message that key has signed.
func (w *world) wantSigner(s *jwks.Source, key *jwkstest.Key, msg, sig []byte) *keystore.Key {
	w.t.Helper()
	k, err := get(s, key.KID)
	if err != nil {
		w.t.Fatalf("Lookup(%s) = %v, want the key (state %v)", key.KID, err, s.Status().State)
	}
	if !k.Verify(msg, sig) {
		w.t.Fatalf("Lookup(%s) returned a key that does not verify", key.KID)
	}
	if !k.Usable(time.Now()) {
		w.t.Fatalf("Lookup(%s) returned a key that is not usable", key.KID)
	}
	return k
}

func (w *world) wantLookup(s *jwks.Source, kid string, want error) {
	w.t.Helper()
	_, err := get(s, kid)
	wantOnly(w.t, "Lookup("+kid+")", err, want)
}

func (w *world) wantRefresh(s *jwks.Source, kid string, want error) {
	w.t.Helper()
	wantOnly(w.t, "Refresh("+kid+")", s.Refresh(w.t.Context(), keystore.ID{Tenant: "acme", KID: kid}), want)
}

// wantOnly checks that an error wraps one verdict, and not the other one.
func wantOnly(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s = %v, want %v", what, err, want)
	}
	for _, other := range []error{keystore.ErrNotFound, keystore.ErrUnavailable} {
		if other != want && errors.Is(err, other) {
			t.Fatalf("%s = %v, which is %v too", what, err, other)
		}
	}
}

func (w *world) wantState(s *jwks.Source, want jwks.State) {
	w.t.Helper()
	if got := s.Status().State; got != want {
		w.t.Fatalf("state %v, want %v", got, want)
	}
}

// wantFetches checks how many requests for the set there were.
func (w *world) wantFetches(most int) {
	w.t.Helper()
	if got := len(w.issuer.Requests()); got > most {
		w.t.Fatalf("%d requests, want at most %d", got, most)
	}
}

// busy lets d pass while callers ask a source for key all the time.
func (w *world) busy(s *jwks.Source, key *jwkstest.Key, d time.Duration) {
	w.t.Helper()
	msg := []byte("a message")
	sig := key.Sign(msg)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(30 * time.Second) {
		w.wantSigner(s, key, msg, sig)
	}
	synctest.Wait()
}

func (w *world) discover(cfg jwks.SourceConfig) *jwks.Source {
	w.t.Helper()
	s, err := w.client.Discover("acme", w.issuer.Issuer(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// paths returns the paths of all requests, in order.
func (w *world) paths() (all []string) {
	for _, r := range w.issuer.Requests() {
		all = append(all, r.Path)
	}
	return all
}

// crowd is any number of issuers on http, without a server: each connection
// answers one request by itself.
type crowd struct {
	mu            sync.Mutex
	running, most int
	times         []time.Time
	body          string
}

// stats returns when each request came, and how many there were at once.
func (c *crowd) stats() (times []time.Time, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.times), c.most
}

func (c *crowd) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		if _, err := http.ReadRequest(bufio.NewReader(server)); err != nil {
			return
		}
		c.mu.Lock()
		c.times = append(c.times, time.Now())
		c.running++
		c.most = max(c.most, c.running)
		c.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
		c.mu.Lock()
		c.running--
		c.mu.Unlock()
		fmt.Fprintf(server, "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(c.body), c.body)
	}()
	return client, nil
}

// A network is in memory. Each address answers with the set of that address.
type network struct {
	set    func(addr string, r *http.Request) string
	maxAge int // in seconds; 0 means 60

	answering sync.WaitGroup

	mu    sync.Mutex
	times map[string][]time.Time // of requests, by address
}

func (n *network) dial(_ context.Context, _, addr string) (net.Conn, error) {
	client, server := net.Pipe()
	n.answering.Go(func() {
		defer server.Close()
		r, err := http.ReadRequest(bufio.NewReader(server))
		if err != nil {
			return
		}
		n.mu.Lock()
		if n.times == nil {
			n.times = make(map[string][]time.Time)
		}
		n.times[addr] = append(n.times[addr], time.Now())
		n.mu.Unlock()
		body := n.set(addr, r)
		fmt.Fprintf(server, "HTTP/1.1 200 OK\r\nCache-Control: max-age=%d\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", cmp.Or(n.maxAge, 60), len(body), body)
	})
	return client, nil
}

// requests returns the times of an address's requests.
func (n *network) requests(addr string) []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.times[addr])
}

// total returns how many requests there were.
func (n *network) total() (all int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, times := range n.times {
		all += len(times)
	}
	return all
}

// open returns a source of the set that host has, and waits for the first answer.
func (n *network) open(t *testing.T, client *jwks.Client, tenant, host string) *jwks.Source {
	t.Helper()
	s, err := client.Open(tenant, "http://"+host+"/jwks.json", jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// The numbers here are those of docs/jwks.md, written out: a test that took them from
// the code would follow whatever they become.

func stepOf(err error) jwks.Step {
	e := new(jwks.Error)
	if !errors.As(err, &e) {
		return ""
	}
	return e.Step
}

// attempted waits until the first attempt has ended, and returns its error.
func attempted(s *jwks.Source) error {
	for s.Status().NextFetch.IsZero() {
		time.Sleep(time.Millisecond)
	}
	return s.Status().LastError
}

// raw dials an issuer in memory that speaks http as answer says, one request for each
// connection.
func raw(t *testing.T, answer func(conn net.Conn, r *http.Request)) func(context.Context, string, string) (net.Conn, error) {
	var answering sync.WaitGroup
	t.Cleanup(answering.Wait)
	return func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		answering.Go(func() {
			defer server.Close()
			if r, err := http.ReadRequest(bufio.NewReader(server)); err == nil {
				answer(server, r)
			}
		})
		return client, nil
	}
}

// openRaw opens a source of such an issuer.
func openRaw(t *testing.T, answer func(conn net.Conn, r *http.Request)) *jwks.Source {
	t.Helper()
	client := jwks.New(jwks.Config{DialContext: raw(t, answer)})
	t.Cleanup(func() { client.Close(context.Background()) })
	s, err := client.Open("acme", "http://127.0.0.1/jwks.json", jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var b64 = base64.RawURLEncoding.EncodeToString

// rsaMembers returns n and e of an RSA key of that many bits. Its modulus is not a product of two
// primes, since no test signs with it.
func rsaMembers(bits uint, seed int64) string {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	n.Add(n, big.NewInt(2*seed+1))
	return `"kty":"RSA","n":"` + b64(n.Bytes()) + `","e":"AQAB"`
}

func ecMembers(c elliptic.Curve) string {
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		panic(err)
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	size := (len(point) - 1) / 2
	return `"kty":"EC","crv":"` + c.Params().Name + `","x":"` + b64(point[1:1+size]) + `","y":"` + b64(point[1+size:]) + `"`
}

// edMembers returns a key that is the same for the same seed.
func edMembers(seed byte) string {
	key := ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
	return `"kty":"OKP","crv":"Ed25519","x":"` + b64(key.Public().(ed25519.PublicKey)) + `"`
}

func octMembers(size int) string {
	return `"kty":"oct","k":"` + b64([]byte(strings.Repeat("s", size))) + `"`
}

// set returns a JWK Set of keys, each given by its members.
func set(keys ...string) []byte {
	for i := range keys {
		keys[i] = "{" + keys[i] + "}"
	}
	return []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`)
}

// names returns kid and alg of each key, in order.
func names(keys []*keystore.Key) string {
	var all []string
	for _, k := range keys {
		all = append(all, k.ID().KID+":"+string(k.Algorithm()))
	}
	return strings.Join(all, " ")
}

// vectorSets returns the sets of the project's token vectors by the ID of their
// first case.
func vectorSets(tb testing.TB) map[string]json.RawMessage {
	doc, err := os.ReadFile("testdata/sets.json")
	if err != nil {
		tb.Fatal(err)
	}
	var sets map[string]json.RawMessage
	if err := json.Unmarshal(doc, &sets); err != nil {
		tb.Fatal(err)
	}
	return sets
}
