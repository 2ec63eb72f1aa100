package jwks_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// events notes what Config.Observe is told, each in a line.
type events struct {
	mu    sync.Mutex
	lines []string
	last  jwks.Event // the last of a fetch
}

func (o *events) observe(e jwks.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	line := fmt.Sprintf("%s %v>%v", e.Tenant, e.Was, e.State)
	if e.Asleep {
		line += " asleep"
	}
	if e.Outcome != "" {
		o.last = e
		line += fmt.Sprintf(" %s %s +%v -%v exposed %d", e.Outcome, e.Step, e.Added, e.Removed, len(e.Exposed))
	}
	o.lines = append(o.lines, line)
}

// take returns the lines since the last call.
func (o *events) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() { o.lines = nil }()
	return o.lines
}

func wantLines(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestObserve(t *testing.T) {
	virtual(t, func(t *testing.T) {
		o := new(events)
		w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Observe: o.observe})
		w.issuer.SetHeader("Cache-Control", "max-age=600")
		s := w.ready(jwks.SourceConfig{StaleIfError: 20 * time.Minute})
		synctest.Wait()
		wantLines(t, "the first set", o.take(), "acme cold>fresh changed  +[{a ES256} {b ES256}] -[] exposed 0", "acme cold>fresh")
		if o.last.URL != w.issuer.URL() || o.last.Err != nil || o.last.OnDemand {
			t.Errorf("%+v", o.last)
		}

		c := jwkstest.NewKey("c", "ES256")
		w.issuer.PublishBody(strings.Replace(jwkstest.Set(w.a, c), `{"keys":[`, `{"keys":[{"kty":"EC","crv":"P-256","d":"AA"},`, 1))
		w.wantRefresh(s, "c", nil)
		synctest.Wait()
		wantLines(t, "another set", o.take(), "acme fresh>fresh changed  +[{c ES256}] -[{b ES256}] exposed 1")
		if !o.last.OnDemand {
			t.Error("a fetch on demand is not called one")
		}

		w.issuer.Misbehave(jwkstest.HangHeader())
		start := time.Now()
		for _, state := range []jwks.State{jwks.Aging, jwks.Stale, jwks.Expired} {
			var lines []string
			for len(lines) == 0 && time.Since(start) < time.Hour {
				s.NoteUse("acme")
				time.Sleep(time.Second)
				lines = slices.DeleteFunc(o.take(), func(l string) bool { return strings.Contains(l, "failed") })
			}
			after := map[jwks.State]time.Duration{jwks.Aging: 8 * time.Minute, jwks.Stale: 10 * time.Minute, jwks.Expired: 20 * time.Minute}[state]
			if since := time.Since(start); since < after-time.Minute || since > after+6*time.Second {
				t.Errorf("%v after %v", state, since)
			}
			wantLines(t, "in time", lines, fmt.Sprintf("acme %v>%v", state-1, state))
		}
		if o.last.Step != jwks.StepResponse || o.last.Duration != 5*time.Second || stepOf(o.last.Err) != jwks.StepResponse {
			t.Errorf("%+v", o.last)
		}
	})
}

func TestObserveSleep(t *testing.T) {
	virtual(t, func(t *testing.T) {
		o := new(events)
		w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Observe: o.observe})
		w.ready(jwks.SourceConfig{})
		synctest.Wait()
		o.take()
		time.Sleep(time.Hour)
		lines := o.take()
		if got := strings.Join(lines, "\n"); !strings.Contains(got, " asleep") {
			t.Errorf("it sleeps: %s", got)
		}
	})
}

// Close delivers the last events and waits for Observe, which may look at a Source.
func TestObserveAndClose(t *testing.T) {
	virtual(t, func(t *testing.T) {
		told, client := 0, (*jwks.Client)(nil)
		s := &site{answer: bodyAnswer(oneSet())}
		client, _ = s.client(t, jwks.Config{Observe: func(jwks.Event) {
			for _, source := range client.Sources() {
				source.Status()
			}
			time.Sleep(time.Second)
			told++
		}})
		if _, err := client.Open("acme", "http://127.0.0.1/keys", onLoopback); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := client.Close(context.Background()); err != nil || told != 2 {
			t.Errorf("Close = %v after %d events, want 2", err, told)
		}
	})
}

// The rule of Status is that of the source, in every state.
func TestStatusReady(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.open(jwks.SourceConfig{})
		seen := make(map[string]bool)
		check := func() {
			st := s.Status()
			seen[fmt.Sprint(st.State, st.Asleep)] = true
			if ready := s.Ready("acme") == nil; ready != st.Ready() {
				t.Errorf("%v, asleep %v: Status.Ready is %v, Source.Ready %v", st.State, st.Asleep, st.Ready(), ready)
			}
		}
		check()
		for range 400 {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			check()
		}
		w.issuer.Misbehave(jwkstest.Status(500))
		s.NoteUse("acme")
		for range 1000 {
			time.Sleep(30 * time.Second)
			synctest.Wait()
			check()
		}
		w.issuer.Behave()
		time.Sleep(10 * time.Hour) // it sleeps
		w.issuer.Misbehave(jwkstest.HangHeader())
		check()
		s.NoteUse("acme")
		for range 10 { // it is woken, and answers when the fetch has ended
			synctest.Wait()
			check()
			time.Sleep(500 * time.Millisecond)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		check()
		for _, want := range []string{"expired true", "cold false", "fresh false", "stale true", "stale false", "expired false"} {
			if !seen[want] {
				t.Errorf("never %s: %v", want, seen)
			}
		}
	})
}

func TestSourcesAreListed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.openFor("b", jwks.SourceConfig{})
		w.openFor("a", jwks.SourceConfig{})
		w.openFor("b", jwks.SourceConfig{AcceptEmpty: true})
		tenants := ""
		for _, s := range w.client.Sources() {
			tenants += s.Tenant()
		}
		if tenants != "abb" {
			t.Errorf("sources of %q, want abb", tenants)
		}
		if err := b.Close(t.Context()); err != nil || len(w.client.Sources()) != 2 {
			t.Errorf("%v, %d sources after Close, want 2", err, len(w.client.Sources()))
		}
	})
}
