package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/keyturn/keyturn/verifier"
)

// streamsHandler is an upstream with a WebSocket under /ws that echoes, and an event stream under /sse
// that sends one event, and another for each value of more.
func streamsHandler(more <-chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ws" {
			echoMessages(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		fmt.Fprintf(w, "data: hello %s\n\n", r.Header.Get("X-Auth-Subject"))
		control.Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case text, ok := <-more:
				if !ok {
					return
				}
				fmt.Fprintf(w, "data: %s\n\n", text)
				control.Flush()
			}
		}
	}
}

func echoMessages(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, append([]byte(r.Header.Get("X-Auth-Subject")+" "), message...)); err != nil {
			return
		}
	}
}

// dial opens a WebSocket through the proxy.
func (p *proxied) dial(t *testing.T, token string) (*websocket.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(p.url, "http")+"/ws", &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	if err == nil {
		t.Cleanup(func() { c.CloseNow() })
	}
	return c, err
}

// talk sends a message, and wants it back.
func talk(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != "ann "+text {
		t.Fatalf("Read = %q, %v, want %q", got, err, "ann "+text)
	}
}

// awaitEnd returns how long a WebSocket goes on, at most a minute.
func awaitEnd(t *testing.T, c *websocket.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("Read = %v, want the end of the connection", err)
	}
	return time.Since(began)
}

// events opens an event stream through the proxy, and returns its lines and its response.
func (p *proxied) events(t *testing.T, token string) (*http.Response, *bufio.Reader) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/sse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res, bufio.NewReader(res.Body)
}

func wantEvent(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	line, err := r.ReadString('\n')
	empty, _ := r.ReadString('\n')
	if err != nil || line != "data: "+want+"\n" || empty != "\n" {
		t.Fatalf("event = %q, %v, want %q", line, err, want)
	}
}

// until polls until done, for what another goroutine does.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

// quick makes streams be asked about again soon.
func quick(c *Config) { c.Upstream.Recheck = 100 * time.Millisecond }

func TestWebSocket(t *testing.T) {
	p := startProxy(t, startHandler(t, streamsHandler(nil)))
	if c, err := p.dial(t, "a.b.c"); err == nil {
		t.Errorf("a bad token opens %v", c)
	}
	c, err := p.dial(t, testToken(time.Hour, ""))
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, "hi")
	talk(t, c, strings.Repeat("x", 20000))
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("Close = %v", err)
	}
	until(t, "the stream ends", func() bool { return slices.Equal(p.meter.ended(), []string{StreamUpstream}) })
	if !slices.Equal(p.meter.codes, []int{401, 101}) || p.meter.opened != 1 {
		t.Errorf("codes = %d, opened = %d", p.meter.codes, p.meter.opened)
	}
}

// Events reach the client at once.
func TestEventStream(t *testing.T) {
	more := make(chan string)
	p := startProxy(t, startHandler(t, streamsHandler(more)))
	res, r := p.events(t, testToken(time.Hour, ""))
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("answer = %d %v", res.StatusCode, res.Header)
	}
	wantEvent(t, r, "hello ann")
	for _, text := range []string{"one", "two"} {
		more <- text
		wantEvent(t, r, text)
	}
	close(more)
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
		t.Errorf("the end = %q, %v", rest, err)
	}
	until(t, "the stream ends", func() bool { return slices.Equal(p.meter.ended(), []string{StreamUpstream}) })
}

// A stream ends when its token does: Wave-RF/WaveHouse#239, bytebase/bytebase#19238.
func TestStreamEndsWithItsToken(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		ttl          time.Duration
		end          func(t *testing.T, p *proxied)
	}{
		{"tenant suspended", StreamRevoked, time.Hour, func(t *testing.T, p *proxied) {
			if err := p.verifier.Suspend("acme"); err != nil {
				t.Fatal(err)
			}
		}},
		{"tenant removed", StreamRevoked, time.Hour, func(t *testing.T, p *proxied) {
			if err := p.verifier.Remove("acme"); err != nil {
				t.Fatal(err)
			}
		}},
		{"exp", StreamExpired, 5 * time.Second, func(*testing.T, *proxied) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, startHandler(t, streamsHandler(nil)), quick, func(c *Config) { c.Tenants[0].Rules.Leeway = -1 })
			token := testToken(tt.ttl, "")
			c, err := p.dial(t, token)
			if err != nil {
				t.Fatal(err)
			}
			talk(t, c, "hi")
			_, r := p.events(t, token)
			wantEvent(t, r, "hello ann")
			began := time.Now()
			tt.end(t, p)
			if rest, err := io.ReadAll(r); err == nil || len(rest) != 0 {
				t.Errorf("the end of the event stream = %q, %v; want it cut off", rest, err)
			}
			awaitEnd(t, c)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			until(t, "the streams end", func() bool { return slices.Equal(p.meter.ended(), []string{tt.reason, tt.reason}) })
			if log := p.log.String(); !strings.Contains(log, "reason="+tt.reason) || strings.Contains(log, token[:20]) {
				t.Errorf("log = %s", log)
			}
		})
	}
}

// With streams: request, only the request is asked about.
func TestStreamsOfRequest(t *testing.T) {
	p := startProxy(t, startHandler(t, streamsHandler(nil)), func(c *Config) { c.Upstream.Recheck = -1 })
	c, err := p.dial(t, testToken(time.Hour, ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.verifier.Suspend("acme"); err != nil {
		t.Fatal(err)
	}
	talk(t, c, "hi")
	if _, err := p.dial(t, testToken(time.Hour, "")); err == nil {
		t.Error("a suspended tenant opens a stream")
	}
}

// A client that does not read keeps no stream open.
func TestStreamEndsForAClientThatDoesNotRead(t *testing.T) {
	flood := startHandler(t, func(w http.ResponseWriter, r *http.Request) {
		for text := strings.Repeat("x", 1<<16); r.Context().Err() == nil; {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
		}
	})
	p := startProxy(t, flood, quick)
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", testToken(time.Hour, ""))
	until(t, "the stream begins", func() bool { p.meter.mu.Lock(); defer p.meter.mu.Unlock(); return p.meter.opened == 1 })
	if err := p.verifier.Suspend("acme"); err != nil {
		t.Fatal(err)
	}
	until(t, "the stream ends", func() bool { return slices.Equal(p.meter.ended(), []string{StreamRevoked}) })
}

// A silent stream stays while its token lives, and ends when nothing has moved for Idle.
func TestSilentStream(t *testing.T) {
	more := make(chan string)
	p := startProxy(t, startHandler(t, streamsHandler(more)), quick)
	_, r := p.events(t, testToken(time.Hour, ""))
	wantEvent(t, r, "hello ann")
	c, err := p.dial(t, testToken(time.Hour, ""))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // 15 times Recheck: as 90 s are for the default
	more <- "still here"
	wantEvent(t, r, "still here")
	talk(t, c, "still here")

	idle := startProxy(t, startHandler(t, streamsHandler(nil)), quick, func(c *Config) { c.Upstream.Idle = 500 * time.Millisecond })
	if c, err = idle.dial(t, testToken(time.Hour, "")); err != nil {
		t.Fatal(err)
	}
	_, r = idle.events(t, testToken(time.Hour, ""))
	wantEvent(t, r, "hello ann")
	if _, err := io.ReadAll(r); err == nil {
		t.Error("the event stream is not cut off")
	}
	awaitEnd(t, c)
	until(t, "the streams end", func() bool { return slices.Equal(idle.meter.ended(), []string{StreamIdle, StreamIdle}) })
}

// That the verifier cannot tell cuts nothing before the token expires.
func TestStreamWhileTheVerifierCannotTell(t *testing.T) {
	for _, tt := range []struct {
		name string
		exp  time.Duration // from now
		err  error
		want error
	}{
		{"good", time.Minute, nil, nil},
		{"cannot tell", time.Minute, verifier.ErrUnavailable, nil},
		{"cannot tell of an expired token", -time.Minute, verifier.ErrUnavailable, verifier.ErrExpired},
		{"bad", time.Minute, verifier.ErrRevoked, verifier.ErrRevoked},
		{"not a verdict", time.Minute, errors.New("odd"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startProxy(t, startEcho(t))
			r, err := http.NewRequest(http.MethodGet, "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			token, err := p.verifier.Verify(t.Context(), testToken(time.Minute, ""))
			if err != nil {
				t.Fatal(err)
			}
			own := &proxy{up: p.live.Load().proxy.up, admitted: p.admitted, now: func() time.Time { return token.Expires().Add(-tt.exp) }}
			own.authenticate = func(*http.Request) (*verifier.Token, error) { return token, tt.err }
			x := &exchange{proxy: own, in: r, token: token, ctx: t.Context()}
			if got := x.judge(); !errors.Is(got, tt.want) || (got == nil) != (tt.want == nil) {
				t.Errorf("judge = %v, want %v", got, tt.want)
			}
		})
	}
}

// The end of the server ends WebSockets, which http.Server forgets.
func TestShutdownClosesWebSockets(t *testing.T) {
	p := startProxy(t, startHandler(t, streamsHandler(nil)))
	c, err := p.dial(t, testToken(time.Hour, ""))
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, "hi")
	p.stop()
	awaitEnd(t, c)
	if got := p.meter.ended(); !slices.Equal(got, []string{StreamShutdown}) {
		t.Errorf("ended = %q when Run has returned", got)
	}
}
