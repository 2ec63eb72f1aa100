package compare

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/verifier"
)

// An issuerUnderTest serves a body that can be changed, and counts requests.
type issuerUnderTest struct {
	*httptest.Server
	fetches atomic.Int64

	mu   sync.Mutex
	code int
	body string
	hang chan struct{} // not nil: answers wait for it
}

func newIssuer(t *testing.T, body string) *issuerUnderTest {
	i := &issuerUnderTest{code: http.StatusOK, body: body}
	i.Server = httptest.NewServer(i)
	t.Cleanup(func() {
		i.answer(http.StatusOK, "{}")
		i.CloseClientConnections()
		i.Close()
	})
	return i
}

func (i *issuerUnderTest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.fetches.Add(1)
	i.mu.Lock()
	code, body, hang := i.code, i.body, i.hang
	i.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.WriteHeader(code)
	fmt.Fprint(w, body)
}

// answer changes the answer from now on, and releases the requests that wait.
func (i *issuerUnderTest) answer(code int, body string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.hang != nil {
		close(i.hang)
		i.hang = nil
	}
	i.code, i.body = code, body
}

func (i *issuerUnderTest) hangs() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hang = make(chan struct{})
}

// A reader verifies tokens with the keys of a URL, as its documentation says.
type reader struct {
	verify func(ctx context.Context, token string) error
	expire func() // makes the fetched set old
}

// The readers. Their settings are the defaults, except for the one that makes a set old soon.
var readers = []struct {
	name, module string
	open         func(t *testing.T, url string) reader
}{
	{"keyturn", "", readKeyturn},
	{"go-oidc", "github.com/coreos/go-oidc/v3", readGoOIDC},
	{"keyfunc", "github.com/MicahParks/keyfunc/v3", readKeyfunc},
	{"jwx cache", "github.com/lestrrat-go/jwx/v2", readJWX},
}

func readKeyturn(t *testing.T, url string) reader {
	var later atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	client := jwks.New(jwks.Config{Now: now})
	t.Cleanup(func() { client.Close(context.Background()) })
	source, err := client.Open(tenant, url, jwks.SourceConfig{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifier.New(verifier.Config{CacheTTL: -1, Now: now, Tenants: []verifier.Tenant{{
		ID: tenant, Keys: source, Algorithms: []keystore.Algorithm{keystore.ES256}, AnyIssuer: true, AnyAudience: true,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return reader{
		verify: func(ctx context.Context, token string) error { _, err := v.Verify(ctx, token); return err },
		expire: func() { later.Store(int64(70 * time.Minute)) },
	}
}

func readGoOIDC(t *testing.T, url string) reader {
	set := oidc.NewRemoteKeySet(t.Context(), url)
	return reader{
		verify: func(ctx context.Context, token string) error { _, err := set.VerifySignature(ctx, token); return err },
		expire: func() {}, // it asks only for kids that it does not know
	}
}

func readKeyfunc(t *testing.T, url string) reader {
	quiet := func(string) func(context.Context, error) { return func(context.Context, error) {} }
	keys, err := keyfunc.NewDefaultOverrideCtx(t.Context(), []string{url}, keyfunc.Override{RefreshInterval: time.Second, RefreshErrorHandlerFunc: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return reader{
		verify: func(ctx context.Context, token string) error {
			_, err := jwt.Parse(token, keys.KeyfuncCtx(ctx), jwt.WithValidMethods([]string{"ES256"}))
			return err
		},
		expire: func() { time.Sleep(1200 * time.Millisecond) },
	}
}

func readJWX(t *testing.T, url string) reader {
	cache := jwk.NewCache(t.Context(), jwk.WithRefreshWindow(time.Second))
	if err := cache.Register(url, jwk.WithRefreshInterval(time.Second)); err != nil {
		t.Fatal(err)
	}
	return reader{
		verify: func(ctx context.Context, token string) error {
			set, err := cache.Get(ctx, url)
			if err != nil {
				return err
			}
			_, err = jws.Verify([]byte(token), jws.WithKeySet(set))
			return err
		},
		expire: func() { time.Sleep(2200 * time.Millisecond) },
	}
}

// An observation is the behaviour of one reader in one scenario.
type observation struct {
	fetches     int64 // after it was warm
	good, other string
	longest     time.Duration
}

func (o observation) String() string {
	return fmt.Sprintf("%d / %s / %s / %s", o.fetches, o.good, o.other, bracket(o.longest))
}

// bracket rounds a wait so far that a noisy machine does not change it.
func bracket(d time.Duration) string {
	for _, limit := range []time.Duration{100 * time.Millisecond, time.Second, 1900 * time.Millisecond} {
		if d < limit {
			return "< " + limit.String()
		}
	}
	return "2s, the caller's limit"
}

// A trial is one reader in one scenario.
type trial struct {
	reader
	issuer *issuerUnderTest
	*observation
}

// errNoAnswer says that a caller's context did not help.
var errNoAnswer = errors.New("no answer")

// ask verifies a token, for two seconds at most.
func (r *trial) ask(token string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- r.verify(ctx, token) }()
	var err error
	select {
	case err = <-done:
	case <-time.After(2100 * time.Millisecond): // its context ended long ago
		err = errNoAnswer
	}
	r.longest = max(r.longest, time.Since(began))
	switch {
	case err == errNoAnswer:
		return "no answer"
	case err == nil:
		return "yes"
	case errors.Is(err, verifier.ErrUnavailable):
		return "cannot tell"
	case errors.Is(err, verifier.ErrInvalid):
		return "no"
	}
	return "error" // that says no more
}

// askUnknown verifies n tokens, each with a different kid that was never published.
func (r *trial) askUnknown(n int) {
	for i := range n {
		k := *hostileOther
		k.KID = fmt.Sprint("unknown-", i)
		r.other = r.ask(hostileToken(&k))
		if r.longest > time.Second {
			break // each of them waits: that says it
		}
	}
}

var (
	hostileGood  = jwkstest.NewKey("good", "ES256")
	hostileTwin  = jwkstest.NewKey("good", "ES256")
	hostileNew   = jwkstest.NewKey("new", "ES256")
	hostileOther = jwkstest.NewKey("unknown", "ES256")
)

func hostileToken(k *jwkstest.Key) string {
	return k.Token(map[string]any{"exp": expires, "sub": "ann"})
}

// A scenario is what a hostile issuer does. other is a token of a key that was never published, unless the
// scenario says otherwise.
type scenario struct {
	name string
	body string
	run  func(r *trial)
	ours observation // at most so many fetches, and these verdicts
}

// more returns how many fetches our client may make beyond those of a scenario if that takes so long, as
// on a busy machine: one every ten seconds for unknown kids, and one a second of the schedule if the
// issuer fails.
func (s scenario) more(took time.Duration) int64 {
	every := 10 * time.Second
	if s.ours.other == "cannot tell" {
		every = time.Second
	}
	return int64(took / every)
}

// scenarios are the hostile ones.
var scenarios = []scenario{
	{"2 000 unknown kids", "", func(r *trial) {
		r.askUnknown(2000)
		r.good = r.ask(hostileToken(hostileGood))
	}, observation{fetches: 4, good: "yes", other: "no"}},
	{"answers 500, to 100 unknown kids", "", func(r *trial) {
		r.issuer.answer(http.StatusInternalServerError, "")
		r.askUnknown(100)
		r.good = r.ask(hostileToken(hostileGood))
	}, observation{fetches: 5, good: "yes", other: "cannot tell"}}, // three, and the scheduled ones meanwhile
	{"hangs, when the set is old", "", func(r *trial) {
		r.issuer.hangs()
		r.expire()
		if r.good = r.ask(hostileToken(hostileGood)); r.good == "cannot tell" || r.good == "no answer" {
			r.good = r.ask(hostileToken(hostileGood)) // on a busy machine the fetch may begin late in a caller's two seconds
		}
		if r.other = r.ask(hostileToken(hostileOther)); r.other == "no answer" {
			r.other = r.ask(hostileToken(hostileOther)) // for the same reason
		}
	}, observation{fetches: 2, good: "yes", other: "cannot tell"}},
	{"answers `{}`", "", func(r *trial) {
		r.issuer.answer(http.StatusOK, "{}")
		r.expire()
		r.other, r.good = r.ask(hostileToken(hostileOther)), r.ask(hostileToken(hostileGood))
	}, observation{fetches: 3, good: "yes", other: "cannot tell"}},
	{"one bad key before the good one", `{"keys":[{"kty":"RSA","kid":"bad","n":"!","e":"AQAB"},` + hostileGood.JWK() + `]}`, func(r *trial) {
		r.good, r.other = r.ask(hostileToken(hostileGood)), r.ask(hostileToken(hostileOther))
	}, observation{fetches: 2, good: "yes", other: "no"}},
	{"two keys of one kid (other: of the second)", `{"keys":[` + hostileGood.JWK() + "," + hostileTwin.JWK() + "," + hostileNew.JWK() + `]}`, func(r *trial) {
		r.good, r.other = r.ask(hostileToken(hostileGood)), r.ask(hostileToken(hostileTwin))
	}, observation{fetches: 2, good: "yes", other: "yes"}}, // both are the issuer's
	{"another key, at once (other: of that one)", "", func(r *trial) {
		r.issuer.answer(http.StatusOK, jwkstest.Set(hostileNew))
		r.other, r.good = r.ask(hostileToken(hostileNew)), r.ask(hostileToken(hostileGood))
	}, observation{fetches: 2, good: "no", other: "yes"}},
}

// TestHostileIssuers holds our client to its promises, and records how the others behave.
func TestHostileIssuers(t *testing.T) {
	table := make(map[string]map[string]observation)
	for _, s := range scenarios {
		table[s.name] = make(map[string]observation)
		for _, lib := range readers {
			body := s.body
			if body == "" {
				body = jwkstest.Set(hostileGood)
			}
			issuer := newIssuer(t, body)
			r := &trial{reader: lib.open(t, issuer.URL), issuer: issuer, observation: new(observation)}
			for range 5 { // a busy machine may not answer in time
				if r.ask(hostileToken(hostileGood)) == "yes" {
					break
				}
			}
			warm, began := issuer.fetches.Load(), time.Now()
			r.longest = 0
			s.run(r)
			r.fetches = issuer.fetches.Load() - warm
			most := s.ours.fetches + s.more(time.Since(began))
			table[s.name][lib.name] = *r.observation
			if lib.name == "keyturn" && (r.fetches > most || r.good != s.ours.good || r.other != s.ours.other) {
				t.Errorf("%s: %v, want at most %v, and %d fetches", s.name, r.observation, s.ours, most)
			}
		}
	}
	text := hostileTable(table)
	t.Log("\n" + text)
	if path := os.Getenv("KEYTURN_JWKS_TABLE"); path != "" {
		if err := writeBetween(path, "<!-- table of make jwks-table -->", "<!-- end of the table -->", text); err != nil {
			t.Fatal(err)
		}
	}
}

func hostileTable(table map[string]map[string]observation) string {
	var b strings.Builder
	b.WriteString("| the issuer |")
	for _, lib := range readers {
		fmt.Fprintf(&b, " %s%s |", lib.name, versionOf(lib.module))
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(readers)) + "\n")
	for _, s := range scenarios {
		fmt.Fprintf(&b, "| %s |", s.name)
		for _, lib := range readers {
			fmt.Fprintf(&b, " %v |", table[s.name][lib.name])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// versionOf returns the version of a module that this one requires, with a space before it.
func versionOf(module string) string {
	if module == "" {
		return ""
	}
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		return ""
	}
	return " " + strings.TrimSpace(string(version))
}

func writeBetween(path, from, to, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no %s ... %s", path, from, to)
	}
	return os.WriteFile(path, []byte(before+from+"\n"+text+to+after), 0o644)
}
