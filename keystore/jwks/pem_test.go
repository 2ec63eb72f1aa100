package jwks_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
)

func bodyAnswer(body string) func(string, *http.Request) (int, string, string) {
	return func(string, *http.Request) (int, string, string) { return 200, "", body }
}

// A pemSite publishes keys one by one, as AWS does for its load balancers.
type pemSite struct {
	site
	keys   sync.Map     // path to PEM
	status atomic.Int32 // of every answer, if not 0
	source *jwks.PEMSource
	client *jwks.Client
	log    *locked
}

func pemOf(pub any) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func newEC() string {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return pemOf(&k.PublicKey)
}

func newPEMSite(t *testing.T, cfg jwks.Config) *pemSite {
	s := new(pemSite)
	s.answer = func(_ string, r *http.Request) (int, string, string) {
		body, ok := s.keys.Load(r.URL.Path)
		switch {
		case s.status.Load() != 0:
			return int(s.status.Load()), "", ""
		case !ok:
			return 404, "", ""
		}
		return 200, "", body.(string)
	}
	s.client, s.log = s.site.client(t, cfg)
	var err error
	if s.source, err = s.client.OpenPEM("acme", "http://127.0.0.1/{kid}", onLoopback); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *pemSite) lookup(kid string) error {
	_, err := s.source.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.ES256)
	return err
}

// ask does what a verifier does for a token: Lookup, Refresh, Lookup.
func (s *pemSite) ask(t *testing.T, kid string) error {
	if s.lookup(kid) == nil {
		return nil
	}
	if err := s.source.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: kid}); err != nil {
		return err
	}
	return s.lookup(kid)
}

func TestPEMKeys(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newPEMSite(t, jwks.Config{})
		s.keys.Store("/a-1", newEC())
		wantOnly(t, "not asked", s.lookup("a-1"), keystore.ErrUnavailable)
		if err := s.source.Ready("acme"); err != nil {
			t.Errorf("before the first token: %v", err)
		}
		if err := s.ask(t, "a-1"); err != nil {
			t.Fatal(err)
		}
		if got := s.seen[0].Header; got.Get("Cache-Control") != "no-cache" || !strings.Contains(got.Get("Accept"), "*/*") {
			t.Errorf("header %v", got)
		}
		wantOnly(t, "missing", s.ask(t, "b"), keystore.ErrNotFound)
		wantOnly(t, "missing, remembered", s.lookup("b"), keystore.ErrNotFound)
		wantOnly(t, "missing, asked again", s.ask(t, "b"), keystore.ErrNotFound)
		if n := len(s.requests()); n != 2 {
			t.Errorf("%d requests, want 2: %q", n, s.requests())
		}
		time.Sleep(10 * time.Second)
		s.keys.Store("/b", newEC())
		if err := s.ask(t, "b"); err != nil {
			t.Errorf("ten seconds later: %v", err)
		}
		s.status.Store(500)
		time.Sleep(10 * time.Second)
		wantOnly(t, "an issuer that fails", s.ask(t, "c"), keystore.ErrUnavailable)
		wantOnly(t, "it is not remembered as missing", s.lookup("c"), keystore.ErrUnavailable)
		if n := len(s.client.Sources()); n != 2 {
			t.Errorf("%d kids are held, want 2", n)
		}
		n := len(s.requests())
		time.Sleep(time.Minute) // a kid without a key is not asked for by itself
		if len(s.requests()) != n {
			t.Errorf("requests by themselves: %q", s.requests()[n:])
		}
	})
}

func TestPEMKidsThatCannotBeOne(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newPEMSite(t, jwks.Config{})
		for _, kid := range []string{"", "..", "a/b", "a%2fb", "a?b", "a#b", "a b", "ä", "a\n", strings.Repeat("a", 65), "{kid}"} {
			wantOnly(t, "Lookup", s.lookup(kid), keystore.ErrNotFound)
			wantOnly(t, "Refresh", s.source.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: kid}), keystore.ErrNotFound)
		}
		wantOnly(t, "another tenant", s.source.Refresh(t.Context(), keystore.ID{Tenant: "globex", KID: "a"}), keystore.ErrNotFound)
		if len(s.requests()) > 0 {
			t.Errorf("requests %q", s.requests())
		}
	})
}

func TestPEMTemplates(t *testing.T) {
	client := jwks.New(jwks.Config{})
	defer client.Close(t.Context())
	for template, good := range map[string]bool{
		"https://keys.example/{kid}": true, "https://keys.example/k?kid={kid}": true, "https://keys.example/{kid}.pem": true,
		"https://keys.example/": false, "https://{kid}.example/": false, "https://keys.example/{kid}/{kid}": false,
		"http://keys.example/{kid}": false, "https://keys.example:1{kid}/": false, "https://10.0.0.1/{kid}": false,
	} {
		s, err := client.OpenPEM("acme", template, jwks.SourceConfig{})
		if (err == nil) != good || (s == nil) == good {
			t.Errorf("%s: %v", template, err)
		}
	}
}

func TestPEMDocuments(t *testing.T) {
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	ec224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	ec384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	der, _ := x509.MarshalPKCS8PrivateKey(ec384)
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	const certificate, parameters = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"
	for name, tt := range map[string]struct{ doc, want string }{
		"P-256":       {newEC(), "[{k ES256}]"},
		"P-384":       {pemOf(&ec384.PublicKey), "[{k ES384}]"},
		"Ed25519":     {pemOf(ed), "[{k EdDSA} {k Ed25519}]"},
		"RSA":         {"\ufeff" + pemOf(&rsaKey.PublicKey) + "\n", "[{k RS256} {k RS384} {k RS512} {k PS256} {k PS384} {k PS512}]"},
		"P-224":       {pemOf(&ec224.PublicKey), "no signature algorithm known here"},
		"two keys":    {newEC() + newEC(), "more than one public key"},
		"private":     {private, "ALARM: holds a private key"},
		"certificate": {certificate, "not of a PUBLIC KEY"},
		"both":        {newEC() + private, "ALARM: holds a private key"},
		"chain":       {certificate + certificate + private, "ALARM: holds a private key"},
		"openssl":     {parameters + strings.ReplaceAll(private, "PRIVATE", "EC PRIVATE"), "ALARM: holds a private key"}, // ecparam -genkey
		"noise":       {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"},
		"a JWK Set":   {oneSet(), "not a public key in PEM"},
		"HTML":        {"<html>", "it looks like HTML"},
		"empty":       {"", "it is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s := newPEMSite(t, jwks.Config{})
				s.keys.Store("/k", tt.doc)
				err := s.source.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "k"})
				if alarm := strings.Contains(s.log.String(), "level=ERROR msg=\"jwks: a private key or secret is published\""); alarm != strings.HasPrefix(tt.want, "ALARM") {
					t.Errorf("the log: %s", s.log)
				}
				if err != nil {
					if !strings.Contains(err.Error(), tt.want) || stepOf(err) != jwks.StepSet || !errors.Is(err, keystore.ErrUnavailable) {
						t.Errorf("%v, want %s", err, tt.want)
					}
					return
				}
				if got := fmt.Sprint(s.client.Sources()[0].Status().Keys); got != tt.want {
					t.Errorf("keys %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// The error of a set without a key that serves counts the keys, and one of them is no plural.
func TestRefusedSetCountsItsKeys(t *testing.T) {
	virtual(t, func(t *testing.T) {
		const key = `{"kty":"EC","kid":"a","alg":"ES256","crv":"P-1"}`
		for set, want := range map[string]string{key: "its only key does not serve: ", key + "," + key: "none of its 2 keys serves: "} {
			s := &site{answer: bodyAnswer(`{"keys":[` + set + `]}`)}
			client, _ := s.client(t, jwks.Config{})
			source, err := client.Open("acme", "http://127.0.0.1/keys", onLoopback)
			if err != nil {
				t.Fatal(err)
			}
			if err := attempted(source); stepOf(err) != jwks.StepSet || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %s", err, want)
			}
		}
	})
}

// A set that holds nothing but a private key is refused, and is an alarm as any other with one is.
func TestRefusedSetIsAnAlarm(t *testing.T) {
	virtual(t, func(t *testing.T) {
		secret := `{"kty":"oct","kid":"` + strings.Repeat("a", 9999) + `","alg":"HS256","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}`
		s := &site{answer: bodyAnswer(`{"keys":[` + secret + strings.Repeat(","+secret, 50) + `]}`)}
		client, log := s.client(t, jwks.Config{Observe: func(e jwks.Event) {
			if e.Outcome == jwks.Failed && (len(e.Exposed) != 51 || len(e.Exposed[0].KID) != keystore.MaxKIDBytes) {
				t.Errorf("%d keys are exposed, kids of %d bytes", len(e.Exposed), len(e.Exposed[0].KID))
			}
		}})
		source, err := client.Open("acme", "http://127.0.0.1/keys", onLoopback)
		if err != nil {
			t.Fatal(err)
		}
		if err := attempted(source); stepOf(err) != jwks.StepSet || !strings.Contains(err.Error(), "ALARM") {
			t.Errorf("error %v", err)
		}
		if n := strings.Count(log.String(), "level=ERROR msg=\"jwks: a private key or secret is published\""); n != 16 {
			t.Errorf("%d alarms in the log: %s", n, log)
		}
	})
}

// Whatever kids strangers send, they cause three requests and one more every ten seconds, and a key
// in use stays.
func TestPEMFlood(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newPEMSite(t, jwks.Config{})
		s.keys.Store("/good", newEC())
		if err := s.ask(t, "good"); err != nil {
			t.Fatal(err)
		}
		before := s.client.Sources()[0]
		start := time.Now()
		real := 0 // kids of others that the issuer has: half of the strangers'
		for i := 0; time.Since(start) < 30*time.Minute; i++ {
			kid := fmt.Sprintf("kid-%d", i)
			if i%2 == 0 {
				s.keys.Store("/"+kid, newEC())
			}
			if err := s.ask(t, kid); err == nil {
				real++
			}
			if i%600 == 0 { // tokens of it are verified every five minutes
				if err := s.lookup("good"); err != nil {
					t.Fatalf("after %v: %v", time.Since(start), err)
				}
				s.source.NoteUse("acme")
			}
			time.Sleep(500 * time.Millisecond)
		}
		firsts := make(map[string]bool)
		for _, r := range s.requests() {
			firsts[r] = true
		}
		if most := 3 + 30*6 + 1; len(firsts) > most || len(firsts) < most/2 {
			t.Errorf("%d kids were asked for, want at most %d", len(firsts), most)
		}
		if real < 64 || len(s.client.Sources()) != 64 {
			t.Errorf("%d of the strangers' kids have keys; %d kids are held, want 64", real, len(s.client.Sources()))
		}
		if !slices.Contains(s.client.Sources(), before) {
			t.Error("the key in use was displaced")
		}
	})
}

// A held key follows the rules of sets: it is fetched again while it is used, stays for four hours
// while the issuer fails, and is withdrawn when it is gone.
func TestPEMKeyFollowsItsIssuer(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newPEMSite(t, jwks.Config{})
		s.keys.Store("/a", newEC())
		if err := s.ask(t, "a"); err != nil {
			t.Fatal(err)
		}
		use := func(d time.Duration) (err error) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(30 * time.Second) {
				err = s.lookup("a")
				s.source.NoteUse("acme")
			}
			return err
		}
		if err := use(time.Hour); err != nil || len(s.requests()) < 6 {
			t.Fatalf("%v, %d requests in an hour, want one in about eight minutes", err, len(s.requests()))
		}
		s.status.Store(503)
		if err := use(3*time.Hour + 50*time.Minute); err != nil {
			t.Errorf("during an outage: %v", err)
		}
		wantOnly(t, "after four hours", use(15*time.Minute), keystore.ErrUnavailable)
		wantOnly(t, "ready", s.source.Ready("acme"), keystore.ErrUnavailable)
		s.status.Store(0)
		if err := use(10 * time.Minute); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		s.keys.Delete("/a")
		if err := use(15 * time.Minute); err == nil {
			t.Error("gone: the key still serves")
		}
		wantOnly(t, "gone", s.ask(t, "a"), keystore.ErrNotFound)
	})
}

func TestPEMKeyOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	key := newEC()
	run := func(status int, want error) {
		virtual(t, func(t *testing.T) {
			s := newPEMSite(t, jwks.Config{Dir: dir})
			s.keys.Store("/a", key)
			s.status.Store(int32(status))
			if err := s.ask(t, "a"); status != 404 && !errors.Is(err, want) { // 404: by then it may have been removed
				t.Errorf("status %d: %v, want %v", status, err, want)
			}
			synctest.Wait()
		})
	}
	run(0, nil)
	run(500, nil) // from disk
	run(404, nil)
	run(500, keystore.ErrUnavailable) // it was removed
}

// Callers with one kid share its request, and each learns how it ended.
func TestPEMCallersShareRequest(t *testing.T) {
	for _, status := range []int{0, 404, 500} {
		virtual(t, func(t *testing.T) {
			s := newPEMSite(t, jwks.Config{})
			s.keys.Store("/a", newEC())
			s.status.Store(int32(status))
			want := map[int]error{404: keystore.ErrNotFound, 500: keystore.ErrUnavailable}[status]
			var callers sync.WaitGroup
			for range 20 {
				callers.Go(func() {
					if err := s.source.Refresh(context.Background(), keystore.ID{Tenant: "acme", KID: "a"}); !errors.Is(err, want) {
						t.Errorf("status %d: %v, want %v", status, err, want)
					}
				})
			}
			callers.Wait()
			// A caller that found the request just before its end may ask once more, if there is no key.
			if n, most := len(s.requests()), map[int]int{0: 1, 404: 2, 500: 3}[status]; n < 1 || n > most {
				t.Errorf("status %d: %d requests", status, n)
			}
			if err := s.source.Close(t.Context()); err != nil {
				t.Error(err)
			}
			wantOnly(t, "closed", s.ask(t, "a"), keystore.ErrUnavailable)
		})
	}
}
