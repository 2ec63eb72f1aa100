package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/middleware"
)

func TestTransportRenews(t *testing.T) {
	for _, tt := range []struct {
		name         string
		life, renews time.Duration
	}{
		{"30s before the end", time.Hour, time.Hour - 30*time.Second},
		{"a tenth before the end", time.Minute, 54 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, base := &fakeSource{life: tt.life}, new(fakeBase)
				tr := &middleware.Transport{Base: base, Source: source}
				get(t, tr)
				time.Sleep(tt.renews - time.Second)
				get(t, tr)
				if got := source.calls(); got != 1 {
					t.Errorf("before its time: %d tokens, want 1", got)
				}
				time.Sleep(time.Second)
				get(t, tr)
				if got := source.calls(); got != 2 {
					t.Errorf("at its time: %d tokens, want 2", got)
				}
				if got, want := base.log(), "http://a.example/ t1, http://a.example/ t1, http://a.example/ t2"; got != want {
					t.Errorf("sent %s, want %s", got, want)
				}
			})
		})
	}
}

func TestTransportRenewsByExpiry(t *testing.T) {
	t.Run("never, if the end is not known", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			source := new(fakeSource)
			tr := &middleware.Transport{Base: new(fakeBase), Source: source}
			get(t, tr)
			time.Sleep(1000 * time.Hour)
			get(t, tr)
			if got := source.calls(); got != 1 {
				t.Errorf("%d tokens, want 1", got)
			}
		})
	})
	t.Run("a token that has ended is sent, and not kept", func(t *testing.T) {
		source, base := &fakeSource{life: -time.Second}, new(fakeBase)
		tr := &middleware.Transport{Base: base, Source: source}
		get(t, tr)
		get(t, tr)
		if got, want := base.log(), "http://a.example/ t1, http://a.example/ t2"; got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
	})
	t.Run("a live token is not replaced by one that has ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			base, n := new(fakeBase), 0
			tr := &middleware.Transport{Base: base, Source: middleware.TokenSourceFunc(func(context.Context) (string, time.Time, error) {
				if n++; n == 1 {
					return "live", time.Now().Add(100 * time.Second), nil
				}
				return "dead", time.Now().Add(-time.Hour), nil
			})}
			get(t, tr)
			time.Sleep(95 * time.Second)
			get(t, tr)
			get(t, tr)
			time.Sleep(5 * time.Second)
			get(t, tr)
			if got, want := base.log(), "http://a.example/ live, http://a.example/ live, http://a.example/ live, http://a.example/ dead"; got != want {
				t.Errorf("sent %s, want %s", got, want)
			}
		})
	})
	t.Run("by its own clock", func(t *testing.T) {
		at := time.Now()
		source := &fakeSource{life: time.Hour}
		tr := &middleware.Transport{Base: new(fakeBase), Source: source, Now: func() time.Time { return at }}
		get(t, tr)
		at = at.Add(59*time.Minute + 45*time.Second)
		get(t, tr)
		if got := source.calls(); got != 2 {
			t.Errorf("%d tokens, want 2", got)
		}
	})
}

// While its token lives, a source that fails does no harm, and is not asked for every
// request.
func TestTransportOutlivesItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, base := &fakeSource{life: time.Minute}, new(fakeBase)
		tr := &middleware.Transport{Base: base, Source: source}
		get(t, tr)
		down := errors.New("down")
		source.set(down)
		time.Sleep(55 * time.Second)
		for range 10 {
			get(t, tr)
		}
		if got := source.calls(); got != 2 {
			t.Errorf("%d calls, want 2", got)
		}
		time.Sleep(5 * time.Second) // now the token has expired
		body := &closer{Reader: strings.NewReader("x"), done: func() {}}
		closed := false
		body.done = func() { closed = true }
		if _, err := tr.RoundTrip(mustRequest(t, "POST", "http://a.example/", body)); !errors.Is(err, down) || !closed {
			t.Errorf("RoundTrip = %v, body closed %t, want the source's error and true", err, closed)
		}
		source.set(nil)
		get(t, tr)
		if !strings.HasSuffix(base.log(), " t4") {
			t.Errorf("sent %s, want t4 last", base.log())
		}
	})
}

func TestTransportAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{life: time.Hour, delay: time.Second}
		tr := &middleware.Transport{Base: new(fakeBase), Source: source}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { get(t, tr) })
		}
		wg.Wait()
		if got := source.calls(); got != 1 {
			t.Errorf("%d calls for 50 requests, want 1", got)
		}
		// Requests during the renewal get the old token, which is still live.
		time.Sleep(time.Hour - 20*time.Second)
		wg.Go(func() { get(t, tr) })
		synctest.Wait()
		start := time.Now()
		get(t, tr)
		if d := time.Since(start); d != 0 || source.calls() != 2 {
			t.Errorf("waited %v, %d calls, want 0 and 2", d, source.calls())
		}
		wg.Wait()
	})
}

func TestTransportSharesFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		source := &fakeSource{err: down, delay: time.Second}
		tr := &middleware.Transport{Base: new(fakeBase), Source: source}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := tr.RoundTrip(mustRequest(t, "GET", "http://a.example/", nil)); !errors.Is(err, down) {
					t.Errorf("RoundTrip = %v, want %v", err, down)
				}
			})
		}
		wg.Wait()
		if got := source.calls(); got != 1 {
			t.Errorf("%d calls, want 1", got)
		}
	})
}

// A request that is canceled does not cancel the others.
func TestTransportCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{life: time.Hour, delay: 3 * time.Second}
		tr := &middleware.Transport{Base: new(fakeBase), Source: source}
		send := func(timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			resp, err := tr.RoundTrip(mustRequest(t, "GET", "http://a.example/", nil).WithContext(ctx))
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := send(time.Second); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the one that asks: %v, want DeadlineExceeded", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if err := send(500 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("one that waits: %v, want DeadlineExceeded", err)
			}
		})
		for range 5 {
			wg.Go(func() {
				if err := send(time.Minute); err != nil {
					t.Errorf("another that waits: %v", err)
				}
			})
		}
		wg.Wait()
		if got := source.calls(); got != 2 {
			t.Errorf("%d calls, want 2", got)
		}
	})
}

func TestTransportSourcePanics(t *testing.T) {
	panics := true
	tr := &middleware.Transport{Base: new(fakeBase), Source: middleware.TokenSourceFunc(func(context.Context) (string, time.Time, error) {
		if panics {
			panic("source")
		}
		return "t", time.Time{}, nil
	})}
	func() {
		defer func() {
			if recover() != "source" {
				t.Error("the panic did not reach the caller")
			}
		}()
		get(t, tr)
	}()
	panics = false
	if got := get(t, tr); got != 200 {
		t.Errorf("after a panic: %d", got)
	}
}

func TestTransportRetries401(t *testing.T) {
	// The server accepts t2 and later tokens.
	refuseFirst := func(r *http.Request) (int, error) {
		if r.Header.Get("Authorization") == "Bearer t1" {
			return 401, nil
		}
		return 200, nil
	}
	never := func(*http.Request) (int, error) { return 401, nil }
	plain := func() io.Reader { return strings.NewReader("body") }
	tests := []struct {
		name    string
		source  middleware.TokenSource
		respond func(*http.Request) (int, error)
		body    io.Reader
		status  int
		sent    string
	}{
		{"without body", new(fakeSource), refuseFirst, nil, 200, "http://a.example/ t1, http://a.example/ t2"},
		{"with a body that can be had again", new(fakeSource), refuseFirst, plain(), 200, "http://a.example/ t1 body, http://a.example/ t2 body"},
		{"with a body that cannot", new(fakeSource), refuseFirst, io.MultiReader(plain()), 401, "http://a.example/ t1 body"},
		{"once only", new(fakeSource), never, plain(), 401, "http://a.example/ t1 body, http://a.example/ t2 body"},
		{"not with the same token", middleware.StaticToken("t1"), refuseFirst, nil, 401, "http://a.example/ t1"},
		{"not a 403", new(fakeSource), func(*http.Request) (int, error) { return 403, nil }, nil, 403, "http://a.example/ t1"},
		{"not a 503", new(fakeSource), func(*http.Request) (int, error) { return 503, nil }, nil, 503, "http://a.example/ t1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := &fakeBase{respond: tt.respond}
			tr := &middleware.Transport{Base: base, Source: tt.source}
			req := mustRequest(t, "POST", "http://a.example/", tt.body)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); string(body) != "answer" || err != nil {
				t.Errorf("body %q, %v", body, err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.status || base.log() != tt.sent || base.opened != 0 {
				t.Errorf("got %d after %s, %d bodies left open; want %d after %s", resp.StatusCode, base.log(), base.opened, tt.status, tt.sent)
			}
			if resp.Request != req || len(req.Header) != 0 {
				t.Errorf("the request was changed, or the response names another: %v", resp.Request.Header)
			}
		})
	}
	t.Run("the first answer stays if there is no other token", func(t *testing.T) {
		source := new(fakeSource)
		base := &fakeBase{respond: func(*http.Request) (int, error) { source.set(errors.New("down")); return 401, nil }}
		if got := get(t, &middleware.Transport{Base: base, Source: source}); got != 401 || base.opened != 0 {
			t.Errorf("got %d, %d bodies left open", got, base.opened)
		}
	})
	t.Run("many at once ask once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			source := &fakeSource{delay: time.Second}
			tr := &middleware.Transport{Source: source, Base: &fakeBase{respond: func(r *http.Request) (int, error) {
				time.Sleep(time.Second)
				return refuseFirst(r)
			}}}
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if got := get(t, tr); got != 200 {
						t.Errorf("got %d, want 200", got)
					}
				})
			}
			wg.Wait()
			if got := source.calls(); got != 2 {
				t.Errorf("%d calls, want 2", got)
			}
		})
	})
}

func TestTransportLeavesAuthorizationAlone(t *testing.T) {
	for _, value := range []string{"Basic eDp5", ""} {
		base := &fakeBase{respond: func(r *http.Request) (int, error) {
			if got := r.Header["Authorization"]; len(got) != 1 || got[0] != value {
				t.Errorf("Authorization %q, want %q", got, value)
			}
			return 401, nil
		}}
		source := new(fakeSource)
		r := mustRequest(t, "GET", "http://a.example/", nil)
		r.Header.Set("Authorization", value)
		if resp, err := (&middleware.Transport{Base: base, Source: source}).RoundTrip(r); err != nil || resp.StatusCode != 401 {
			t.Errorf("RoundTrip = %v, %v", resp, err)
		}
		if source.calls() != 0 || len(base.sent) != 1 {
			t.Errorf("%d tokens, %d requests, want 0 and 1", source.calls(), len(base.sent))
		}
	}
}

func TestTransportRedirects(t *testing.T) {
	tests := []struct {
		name string
		hops []string // the first is the caller's request
		host string   // the caller's Host header
		sent string
	}{
		{"to the same place", []string{"https://a.example/1", "https://a.example/2", "/3"}, "",
			"https://a.example/1 t1, https://a.example/2 t1, https://a.example/3 t1"},
		{"the same place in another spelling", []string{"https://a.example/1", "https://A.example:443/2"}, "",
			"https://a.example/1 t1, https://A.example:443/2 t1"},
		{"to another host", []string{"https://a.example/1", "https://b.example/2"}, "", "https://a.example/1 t1, https://b.example/2"},
		{"to a host under it", []string{"https://a.example/1", "https://x.a.example/2"}, "", "https://a.example/1 t1, https://x.a.example/2"},
		{"to another port", []string{"https://a.example/1", "https://a.example:8443/2"}, "", "https://a.example/1 t1, https://a.example:8443/2"},
		{"down to http", []string{"https://a.example/1", "http://a.example/2"}, "", "https://a.example/1 t1, http://a.example/2"},
		{"down to http at the same port", []string{"https://a.example/1", "http://a.example:443/2"}, "", "https://a.example/1 t1, http://a.example:443/2"},
		{"away and further", []string{"https://a.example/1", "https://b.example/2", "https://b.example/3"}, "",
			"https://a.example/1 t1, https://b.example/2, https://b.example/3"},
		{"away and back", []string{"https://a.example/1", "https://b.example/2", "https://a.example/3"}, "",
			"https://a.example/1 t1, https://b.example/2, https://a.example/3"},
		{"to another virtual host", []string{"https://10.0.0.1/1", "https://10.0.0.1/2"}, "a.example",
			"https://10.0.0.1/1 t1, https://10.0.0.1/2"},
		{"to the same virtual host", []string{"https://10.0.0.1/1", "/2"}, "a.example",
			"https://10.0.0.1/1 t1, https://10.0.0.1/2 t1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := new(redirector)
			base.hops = tt.hops[1:]
			client := &http.Client{Transport: &middleware.Transport{Base: base, Source: middleware.StaticToken("t1")}}
			r := mustRequest(t, "GET", tt.hops[0], nil)
			if tt.host != "" {
				r.Host = tt.host
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := strings.Join(base.sent, ", "); got != tt.sent {
				t.Errorf("sent %s, want %s", got, tt.sent)
			}
		})
	}
}

// A redirect of unknown origin may come from any host, and gets no token.
func TestTransportUnknownRedirect(t *testing.T) {
	base := new(fakeBase)
	r := mustRequest(t, "GET", "http://a.example/", nil)
	r.Response = new(http.Response)
	if _, err := (&middleware.Transport{Base: base, Source: middleware.StaticToken("t1")}).RoundTrip(r); err != nil || base.log() != "http://a.example/" {
		t.Errorf("RoundTrip = %v, sent %s", err, base.log())
	}
}

// A Transport and a Require work together over a real connection.
func TestTransportMeetsRequire(t *testing.T) {
	v := newVerifier(t, "acme")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "got %q", r.Header["Authorization"])
	}))
	defer elsewhere.Close()
	mux := http.NewServeMux()
	mux.Handle("/echo", middleware.Require(v)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		token, _ := middleware.TokenFrom(r.Context())
		fmt.Fprintf(w, "%s: %s", token.Subject(), body)
	})))
	mux.Handle("/moved", http.RedirectHandler("/echo", http.StatusTemporaryRedirect))
	mux.Handle("/away", http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	server := httptest.NewServer(mux)
	defer server.Close()

	tokens := []string{badSignature(good("acme")), good("acme")}
	source := middleware.TokenSourceFunc(func(context.Context) (string, time.Time, error) {
		token := tokens[0]
		if len(tokens) > 1 {
			tokens = tokens[1:]
		}
		return token, time.Time{}, nil
	})
	client := &http.Client{Transport: &middleware.Transport{Source: source}}
	defer client.CloseIdleConnections()
	for path, want := range map[string]string{"/echo": "ann: hello", "/moved": "ann: hello", "/away": "got []"} {
		resp, err := client.Post(server.URL+path, "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != want {
			t.Errorf("%s: %d %s, want %s", path, resp.StatusCode, body, want)
		}
		if got := resp.Request.Header["Authorization"]; got != nil {
			t.Errorf("%s: the response's request shows the token", path)
		}
	}
}

func TestTransportRefusesToSend(t *testing.T) {
	for name, tr := range map[string]*middleware.Transport{
		"no source":          {Base: new(fakeBase)},
		"empty token":        {Base: new(fakeBase), Source: middleware.StaticToken("")},
		"token with newline": {Base: new(fakeBase), Source: middleware.StaticToken("secret\r\nX: y")},
	} {
		closed := false
		body := &closer{Reader: strings.NewReader(""), done: func() { closed = true }}
		_, err := tr.RoundTrip(mustRequest(t, "POST", "http://a.example/", body))
		if err == nil || strings.Contains(err.Error(), "secret") || !closed || tr.Base.(*fakeBase).sent != nil {
			t.Errorf("%s: error %v, body closed %t", name, err, closed)
		}
	}
}

func TestTransportDoesNotPrintTokens(t *testing.T) {
	tr := &middleware.Transport{Base: new(fakeBase), Source: middleware.StaticToken("secret-token")}
	get(t, tr)
	tr.Base = nil // the fake records the token
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		if text := fmt.Sprintf(format, tr); strings.Contains(text, "secret-token") {
			t.Errorf("%s prints %s", format, text)
		}
	}
}

func TestTransportWithoutHeader(t *testing.T) {
	base := new(fakeBase)
	r := mustRequest(t, "GET", "http://a.example/", nil)
	r.Header = nil
	if _, err := (&middleware.Transport{Base: base, Source: middleware.StaticToken("t1")}).RoundTrip(r); err != nil || base.log() != "http://a.example/ t1" || r.Header != nil {
		t.Errorf("RoundTrip = %v, sent %s", err, base.log())
	}
}
