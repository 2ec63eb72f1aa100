package jwks_test

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
)

// A trace must not be a way to the header either: of the request in the answer, and of the fields as
// they are written.
func TestTraceSeesNoHeader(t *testing.T) {
	virtual(t, func(t *testing.T) {
		set, written, inAnswer := oneSet(), "", ""
		s := &site{answer: func(string, *http.Request) (int, string, string) { return 200, "", set }}
		client, _ := s.client(t, jwks.Config{Wrap: func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
					WroteHeaderField: func(name string, values []string) { written += name + ": " + strings.Join(values, ",") + "\n" },
				}))
				resp, err := next.RoundTrip(r)
				if err == nil {
					inAnswer = resp.Request.Header.Get("Authorization")
				}
				return resp, err
			})
		}})
		source, err := client.Open("acme", "http://127.0.0.1/keys", withHeader(bearing))
		if err != nil {
			t.Fatal(err)
		}
		if err := attempted(source); err != nil || s.seen[0].Header.Get("Authorization") != bearer {
			t.Fatalf("%v, the issuer got %v", err, s.seen[0].Header)
		}
		if inAnswer != "" {
			t.Errorf("the request in the answer has %q", inAnswer)
		}
		if strings.Contains(written, bearer) || !strings.Contains(written, "User-Agent: keyturn") {
			t.Errorf("the trace sees %s", written)
		}
	})
}

// What Wrap makes of a request and its context cannot make a fetch hang, nor the process end.
func TestWrapThatBreaksRequest(t *testing.T) {
	for name, broken := range map[string]func(r *http.Request) *http.Request{
		"a context that never ends": func(r *http.Request) *http.Request { return r.WithContext(context.WithoutCancel(r.Context())) },
		"no URL":                    func(*http.Request) *http.Request { return &http.Request{Method: "GET"} },
		"no header":                 func(r *http.Request) *http.Request { return &http.Request{Method: "GET", URL: r.URL} },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				answered := make(chan struct{})
				s := &site{answer: func(string, *http.Request) (int, string, string) { <-answered; return 500, "", "" }}
				client, _ := s.client(t, jwks.Config{Wrap: func(next http.RoundTripper) http.RoundTripper {
					return roundTrip(func(r *http.Request) (*http.Response, error) { return next.RoundTrip(broken(r)) })
				}})
				source, err := client.Open("acme", "http://127.0.0.1/keys", withHeader(bearing))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(jwks.FetchTimeout + time.Second)
				hangs := source.Status().Failures == 0
				close(answered)
				if hangs {
					t.Error("the fetch has not ended in time")
				}
			})
		})
	}
}
