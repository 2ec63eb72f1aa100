package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
	"github.com/keyturn/keyturn/keystore/keystoretest"
)

func TestSourceContract(t *testing.T) {
	keystoretest.Run(t, func(t *testing.T) keystoretest.Subject {
		w := newWorld(t, jwkstest.New(t), jwks.Config{})
		s := w.ready(jwks.SourceConfig{AcceptEmpty: true})
		keys := []*jwkstest.Key{w.a}
		reload := func(t *testing.T) {
			t.Helper()
			w.issuer.Publish(keys...)
			if err := jwks.Reload(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		return keystoretest.Subject{
			Store: s, Tenant: "acme", Reload: reload,
			Add: func(t *testing.T) keystoretest.Signing {
				k := jwkstest.NewKey(fmt.Sprintf("kid-%d", len(keys)), "ES256")
				keys = append(keys, k)
				reload(t)
				return keystoretest.Signing{ID: keystore.ID{Tenant: "acme", KID: k.KID}, Algorithm: keystore.ES256, Sign: k.Sign}
			},
			Remove: func(t *testing.T, id keystore.ID) {
				for i, k := range keys {
					if k.KID == id.KID {
						keys = append(keys[:i:i], keys[i+1:]...)
						break
					}
				}
				reload(t)
			},
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	loopback := jwks.SourceConfig{AllowLoopback: true}
	tests := []struct {
		name, url string
		cfg       jwks.SourceConfig
		want      string // "" is no error
	}{
		{name: "https", url: "https://issuer.example/jwks.json"},
		{name: "a query", url: "https://issuer.example/jwks.json?p=policy"},
		{name: "http", url: "http://issuer.example/jwks.json", want: "want https"},
		{name: "http on loopback, not allowed", url: "http://127.0.0.1:80/jwks.json", want: "want https"},
		{name: "http on loopback, allowed", url: "http://127.0.0.1:80/jwks.json", cfg: loopback},
		{name: "http on localhost, allowed", url: "http://localhost/jwks.json", cfg: loopback},
		{name: "http on ::1, allowed", url: "http://[::1]/jwks.json", cfg: loopback},
		{name: "http elsewhere, loopback allowed", url: "http://issuer.example/", cfg: loopback, want: "loopback host only"},
		{name: "http on what begins like loopback", url: "http://127.0.0.1.issuer.example/", cfg: loopback, want: "loopback host only"},
		{name: "file", url: "file:///etc/passwd", want: "absolute https URL"},
		{name: "another scheme", url: "ftp://issuer.example/x", want: "want https"},
		{name: "no scheme", url: "issuer.example/jwks.json", want: "absolute https URL"},
		{name: "no host", url: "https:///jwks.json", want: "absolute https URL"},
		{name: "opaque", url: "https:issuer.example", want: "absolute https URL"},
		{name: "userinfo", url: "https://user:hunter2@issuer.example/", want: "password"},
		{name: "userinfo with a slash", url: "https://user:hun/ter2@issuer.example/", want: "password"},
		{name: "a port", url: "https://issuer.example:8443/jwks.json"},
		{name: "an at sign in a path", url: "https://issuer.example:8443/realms/@keys/jwks.json"},
		{name: "fragment", url: "https://issuer.example/#x", want: "fragment"},
		{name: "an empty fragment", url: "https://issuer.example/#", want: "fragment"},
		{name: "too long", url: "https://issuer.example/" + strings.Repeat("x", 2048), want: "at most 2048"},
		{name: "loopback", url: "https://127.0.0.1/", want: "refused"},
		{name: "metadata of a cloud", url: "https://169.254.169.254/", want: "refused"},
		{name: "private", url: "https://10.0.0.1/", want: "refused"},
		{name: "IPv6 loopback", url: "https://[::1]/", want: "refused"},
		{name: "mapped", url: "https://[::ffff:8.8.8.8]/", want: "written as IPv6"},
		{name: "fullwidth digits", url: "https://①⑥⑨.254.169.254/", want: "beyond ASCII"},
		{name: "fullwidth digits, escaped", url: "https://%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1/", want: "beyond ASCII"},
		{name: "a host in its own letters", url: "https://bücher.example/", want: "xn--"},
		{name: "a host in the letters of DNS", url: "https://xn--bcher-kva.example/"},
		{name: "a decimal number", url: "https://2852039166/", want: "is a number"},
		{name: "a hexadecimal number", url: "https://0xA9FEA9FE/", want: "is a number"},
		{name: "0x alone", url: "https://127.0x/", want: "is a number"},
		{name: "octal parts", url: "https://0251.0376.0251.0376/", want: "is a number"},
		{name: "two parts", url: "https://127.1/", want: "is a number"},
		{name: "a number at the end", url: "https://issuer.example.1/", want: "is a number"},
		{name: "a number at the end, and a dot", url: "https://127.1./", want: "is a number"},
		{name: "a dot at the end of an address", url: "https://169.254.169.254./", want: "refused"},
		{name: "two dots at the end of an address", url: "https://169.254.169.254../", want: "is a number"},
		{name: "a dot at the end of a name", url: "https://issuer.example./"},
		{name: "a name that begins with a number", url: "https://4.issuer.example/"},
		{name: "a name that is nearly a number", url: "https://issuer.0xg/"},
		{name: "localhost", url: "https://localhost/", want: "refused"},
		{name: "localhost in capitals, and a dot", url: "https://LocalHost./", want: "refused"},
		{name: "below localhost", url: "https://x.localhost/", want: "refused"},
		{name: "localhost, allowed", url: "https://localhost/", cfg: loopback},
		{name: "localhost, allowed by its address", url: "https://localhost/", cfg: jwks.SourceConfig{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}},
		{name: "what ends like localhost", url: "https://notlocalhost/"},
		{name: "a zone", url: "https://[fe80::1%25eth0]/", want: "refused"},
		{name: "a kept time that is too long", url: "https://issuer.example/", cfg: jwks.SourceConfig{StaleIfError: 25 * time.Hour}, want: "at most 24h"},
	}
	client := jwks.New(jwks.Config{DialContext: noDial(t), LookupNetIP: jwkstest.New(t).LookupNetIP})
	defer client.Close(t.Context())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := client.Open("acme", tt.url, tt.cfg)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Open = %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "ter2") {
				t.Errorf("Open = %v, which holds a password", err)
			}
		})
	}
}

func TestOpenRefusesSettings(t *testing.T) {
	client := jwks.New(jwks.Config{})
	defer client.Close(t.Context())
	if _, err := client.Open("", "https://issuer.example/", jwks.SourceConfig{}); err == nil {
		t.Error("Open took an empty tenant")
	}
	if _, err := client.Discover("acme", "https://issuer.example/?x=1", jwks.SourceConfig{}); err == nil {
		t.Error("Discover took an issuer with a query")
	}
	insecure := jwkstest.New(t).TLS()
	insecure.InsecureSkipVerify = true
	if _, err := jwks.New(jwks.Config{TLS: insecure}).Open("acme", "https://issuer.example/", jwks.SourceConfig{}); err == nil {
		t.Error("Open took InsecureSkipVerify")
	}
	if _, err := jwks.New(jwks.Config{OnDemand: -1}).Open("acme", "https://issuer.example/", jwks.SourceConfig{}); err == nil {
		t.Error("Open took a negative OnDemand")
	}
}

func TestCallersLeave(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Misbehave(jwkstest.HangHeader())
		start := time.Now()

		// The leader's context ends: it returns at once, and the fetch goes on.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := s.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "c"})
		wantOnly(t, "Refresh", err, keystore.ErrUnavailable)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("Refresh = %v after %v", err, time.Since(start))
		}
		w.wantRefresh(s, "c", keystore.ErrUnavailable) // joins, and waits two seconds
		if waited := time.Since(start); waited != 2100*time.Millisecond {
			t.Errorf("waited until %v, want 2.1s", waited)
		}
		w.wantFetches(2)
		w.wantKey(s, w.a)

		// A context that has ended costs nothing.
		ended, cancelNow := context.WithCancel(t.Context())
		cancelNow()
		wantOnly(t, "Refresh", s.Refresh(ended, keystore.ID{Tenant: "acme", KID: "d"}), keystore.ErrUnavailable)
		w.wantFetches(2)

		// A leader that was cancelled did not harm the others.
		w.issuer.Behave()
		time.Sleep(jwks.FetchTimeout)
		w.wantRefresh(s, "c", keystore.ErrNotFound)
	})
}

// An answer that comes after its timeout does not replace a newer one.
func TestOlderAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		w.issuer.Misbehave(jwkstest.Older())
		w.wantRefresh(s, "c", keystore.ErrUnavailable) // asked; the answer comes after 6 s
		time.Sleep(3*time.Second + time.Millisecond)   // the attempt has timed out
		w.issuer.Behave()
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(c)
		if err := s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.wantKey(s, c)
		w.wantLookup(s, "a", keystore.ErrNotFound)
	})
}

func TestConditionalRequests(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.issuer.SetHeader("Cache-Control", "max-age=600")
		w.issuer.SetHeader("Last-Modified", "Fri, 31 Dec 1999 00:00:00 GMT")
		s := w.ready(jwks.SourceConfig{})
		a := w.wantKey(s, w.a)
		w.busy(s, w.a, 5*time.Hour) // longer than stale-if-error: a 304 is a good answer
		if !inSync(s) {
			t.Errorf("after five hours of 304: %+v", s.Status())
		}
		if w.wantKey(s, w.a) != a {
			t.Error("a 304 cost the key its pointer")
		}
		for i, r := range w.issuer.Requests() {
			if got := r.Header.Get("If-None-Match") + " " + r.Header.Get("If-Modified-Since"); i > 0 && got != `"1" Fri, 31 Dec 1999 00:00:00 GMT` {
				t.Fatalf("request %d had validators %q", i, got)
			}
		}
		if st := s.Status(); st.TTL != 10*time.Minute || st.ETag != `"1"` {
			t.Errorf("Status = %+v", st)
		}
	})
}

// Tenants that name the same URL share the fetch, but never a key.
func TestTenantsShareFetch(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		acme, globex := w.ready(jwks.SourceConfig{}), w.openFor("globex", jwks.SourceConfig{})
		own, err := globex.Lookup(keystore.ID{Tenant: "globex", KID: "a"}, keystore.ES256)
		if err != nil || own[0] == w.wantKey(acme, w.a) {
			t.Fatalf("Lookup = %v, %v: want a key of its own", own, err)
		}
		for _, other := range []string{"acme", "", "globex "} {
			_, err := globex.Lookup(keystore.ID{Tenant: other, KID: "a"}, keystore.ES256)
			wantOnly(t, "Lookup of another tenant", err, keystore.ErrNotFound)
		}
		w.wantFetches(1)
		c := jwkstest.NewKey("c", "ES256")
		w.issuer.Publish(w.a, c)
		if err := acme.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}); err != nil {
			t.Fatal(err)
		}
		if !globex.HasKey("c") {
			t.Error("what one learned, the other did not")
		}
		w.wantFetches(2)

		// Another guard is another fetch.
		w.openFor("initech", jwks.SourceConfig{AllowLoopback: true})
		synctest.Wait()
		if got := len(w.issuer.Requests()); got != 3 {
			t.Errorf("%d requests, want 3", got)
		}

		if err := acme.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantLookup(acme, "a", keystore.ErrUnavailable)
		if _, err := globex.Lookup(keystore.ID{Tenant: "globex", KID: "a"}, keystore.ES256); err != nil {
			t.Errorf("one tenant's Close ended another's keys: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		a := w.wantKey(s, w.a)
		w.issuer.Misbehave(jwkstest.HangHeader())
		waits := make(chan error, 1)
		go func() { waits <- s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "c"}) }()
		synctest.Wait()
		start := time.Now()
		for range 2 {
			if err := s.Close(t.Context()); err != nil {
				t.Errorf("Close = %v", err)
			}
		}
		wantOnly(t, "Refresh during Close", <-waits, keystore.ErrUnavailable)
		if time.Since(start) != 0 {
			t.Errorf("Close took %v", time.Since(start))
		}
		w.wantLookup(s, "a", keystore.ErrUnavailable)
		w.wantLookup(s, "unknown", keystore.ErrUnavailable)
		w.wantRefresh(s, "a", keystore.ErrUnavailable)
		wantOnly(t, "WaitReady", s.WaitReady(t.Context()), keystore.ErrUnavailable)
		if s.HasKey("a") || a.Usable(time.Now()) {
			t.Error("a closed source's keys go on")
		}
		if jwks.Scheduled(w.client) != 0 {
			t.Error("a closed source is scheduled")
		}
		w.issuer.Behave()
		again := w.ready(jwks.SourceConfig{})
		w.wantKey(again, w.a)
		if err := w.client.Close(t.Context()); err != nil {
			t.Error(err)
		}
		w.wantLookup(again, "a", keystore.ErrUnavailable)
		if _, err := w.client.Open("acme", w.issuer.URL(), jwks.SourceConfig{}); err == nil {
			t.Error("Open after Close")
		}
	})
}

func TestCloseLeaksNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	issuer := jwkstest.New(t)
	defer issuer.Close()
	w := newWorld(t, issuer, jwks.Config{})
	for _, fault := range []jwkstest.Fault{{}, jwkstest.Mute(), jwkstest.HangHeader(), jwkstest.HangBody(), jwkstest.Drip()} {
		issuer.Misbehave(fault)
		before := issuer.Dials()
		s := w.openFor(fault.Name+"tenant", jwks.SourceConfig{StaleIfError: time.Duration(len(fault.Name)+1) * time.Minute})
		for issuer.Dials() == before {
			runtime.Gosched()
		}
		if fault.Name == "" {
			continue
		}
		go func() { _ = s.WaitReady(context.Background()) }()
	}
	if err := w.client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The secret parts of a URL are in no error, log or Status.
func TestSecretsDoNotLeak(t *testing.T) {
	for _, fault := range jwkstest.Faults() {
		if fault.Usable {
			continue
		}
		t.Run(fault.Name, func(t *testing.T) {
			parallel(t)
			bubble(t, func(t *testing.T, w *world) {
				w.issuer.Misbehave(fault)
				s, err := w.client.Open("acme", w.issuer.URL()+"?code=hunter2", jwks.SourceConfig{AllowRedirects: true})
				if err != nil {
					t.Fatal(err)
				}
				_, lookup := get(s, "a")
				texts := []string{s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "a"}).Error(), lookup.Error()}
				time.Sleep(time.Minute)
				texts = append(texts, fmt.Sprintf("%+v %v", s.Status(), s.Status().LastError))
				w.client.Close(t.Context())
				for _, text := range append(texts, w.log.String()) {
					if strings.Contains(text, "hunter2") {
						t.Errorf("%q holds the query", text)
					}
				}
			})
		})
	}
}
