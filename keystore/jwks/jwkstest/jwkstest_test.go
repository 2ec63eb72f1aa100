package jwkstest_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// client returns an HTTP client that trusts and reaches a server.
func client(s *jwkstest.Server) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: s.TLS(), DialContext: s.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// get returns the answer of a server, if it comes within a few seconds.
func get(t *testing.T, s *jwkstest.Server, url string) (status int, body string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(s).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 2<<20))
	return resp.StatusCode, string(b), err
}

func TestGoodAnswers(t *testing.T) {
	for name, open := range map[string]func(testing.TB) *jwkstest.Server{"sockets": jwkstest.New, "in memory": jwkstest.NewInMemory} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.Publish(jwkstest.NewKey("a", "ES256"), jwkstest.NewKey("b", "EdDSA"), jwkstest.NewKey("c", "RS256"))
			s.SetHeader("Cache-Control", "max-age=60")
			status, body, err := get(t, s, s.URL())
			var set struct{ Keys []map[string]string }
			if err != nil || status != 200 || json.Unmarshal([]byte(body), &set) != nil || len(set.Keys) != 3 || set.Keys[1]["kid"] != "b" {
				t.Fatalf("the set: %d, %q, %v", status, body, err)
			}
			if status, body, _ := get(t, s, s.Issuer()+"/.well-known/openid-configuration"); status != 200 || !strings.Contains(body, `"issuer":"https://issuer.test"`) {
				t.Errorf("the metadata: %d, %q", status, body)
			}
			if status, _, _ := get(t, s, s.Issuer()+"/elsewhere"); status != 404 {
				t.Errorf("elsewhere: %d", status)
			}
			if got := s.Requests(); len(got) != 3 || got[0].Path != "/jwks.json" || s.Dials() != 3 {
				t.Errorf("requests %v, %d dials", got, s.Dials())
			}
		})
	}
}

// Every fault is a fault: the answer is bad, or it is usable.
func TestFaultsAreFaults(t *testing.T) {
	names := map[string]bool{}
	for _, fault := range jwkstest.Faults() {
		if names[fault.Name] {
			t.Errorf("two faults are called %q", fault)
		}
		names[fault.Name] = true
		t.Run(fault.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := jwkstest.NewInMemory(t)
				s.Publish(jwkstest.NewKey("a", "ES256"), jwkstest.NewKey("b", "ES256"))
				_, good, err := get(t, s, s.URL())
				if err != nil {
					t.Fatal(err)
				}
				s.Misbehave(fault)
				_, lookupErr := s.LookupNetIP(t.Context(), "ip", jwkstest.Host)
				usable := 0
				for range 2 {
					status, body, err := get(t, s, s.URL())
					var set struct{ Keys []any }
					if err == nil && status == 200 && lookupErr == nil && json.Unmarshal([]byte(body), &set) == nil && strings.Contains(body, `"kid":"a"`) && len(body) < 256<<10 {
						usable++
					} else if body == good && err == nil && lookupErr == nil {
						t.Errorf("the answer is good: %d, %q", status, body)
					}
				}
				if fault.Usable != (usable > 0) && fault.Name != "duplicate members" && fault.Name != "depth 10k" && fault.Name != "10k keys" {
					t.Errorf("usable %d times of 2, and Usable is %v", usable, fault.Usable)
				}
				s.Behave()
				if _, body, err := get(t, s, s.URL()); body != good || err != nil {
					t.Errorf("after Behave: %q, %v", body, err)
				}
			})
		})
	}
}

// Close ends connections that hang, so that a test that forgot one does not hang too.
func TestCloseEndsWhatHangs(t *testing.T) {
	for _, fault := range []jwkstest.Fault{jwkstest.Mute(), jwkstest.HangHeader(), jwkstest.HangBody(), jwkstest.Drip()} {
		s := jwkstest.New(t)
		s.Misbehave(fault)
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			secure := tls.Client(conn, &tls.Config{RootCAs: s.TLS().RootCAs, ServerName: jwkstest.Host})
			_, err := io.WriteString(secure, "GET /jwks.json HTTP/1.1\r\nHost: issuer.test\r\n\r\n")
			if err == nil {
				_, err = io.ReadAll(secure)
			}
			got <- err
		}()
		s.Close()
		<-got
		conn.Close()
	}
}
