package jwks

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestMachineStates(t *testing.T) {
	m := machine{keep: 4 * time.Hour}.succeeded(epoch, 10*time.Minute, 0.5)
	short := machine{}.succeeded(epoch, 10*time.Minute, 0.5)
	disk := machine{keep: 4 * time.Hour}.restored(epoch.Add(-time.Hour), epoch)
	tests := []struct {
		name string
		m    machine
		age  time.Duration
		want State
	}{
		{"never", machine{keep: time.Hour}, 0, Cold},
		{"just now", m, 0, Fresh},
		{"below four fifths", m, 8*time.Minute - 1, Fresh},
		{"four fifths", m, 8 * time.Minute, Aging},
		{"below the TTL", m, 10*time.Minute - 1, Aging},
		{"the TTL", m, 10 * time.Minute, Stale},
		{"below stale-if-error", m, 4*time.Hour - 1, Stale},
		{"stale-if-error", m, 4 * time.Hour, Expired},
		{"not kept, below the TTL", short, 10*time.Minute - 1, Aging},
		{"not kept, the TTL", short, 10 * time.Minute, Expired},
		{"the clock went back", m, -time.Second, Aging},
		{"from disk", disk, 0, Stale},
		{"from disk, below stale-if-error", disk, 3*time.Hour - 1, Stale},
		{"from disk, stale-if-error", disk, 3 * time.Hour, Expired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := epoch.Add(tt.age)
			if got := tt.m.state(now); got != tt.want {
				t.Errorf("state = %v, want %v", got, tt.want)
			}
			if got, want := tt.m.serves(now), tt.want != Cold && tt.want != Expired; got != want {
				t.Errorf("serves = %v, want %v", got, want)
			}
			if got, want := tt.m.inStep(now), tt.want == Fresh || tt.want == Aging; got != want {
				t.Errorf("inStep = %v, want %v", got, want)
			}
			if got, want := now.Before(tt.m.keysEnd()), tt.want != Cold && tt.want != Expired; got != want {
				t.Errorf("keys are usable: %v, want %v", got, want)
			}
		})
	}
}

func TestMachineStanding(t *testing.T) {
	good := machine{keep: time.Hour}.succeeded(epoch, time.Minute, 0)
	for _, tt := range []struct {
		name string
		m    machine
		want standing
	}{
		{"new", machine{}, untried},
		{"from disk", machine{keep: time.Hour}.restored(epoch, epoch), untried},
		{"answered", good, proven},
		{"failed", good.failed(epoch, epoch, 0, 0), failing},
		{"failed from the start", machine{}.failed(epoch, epoch, 0, 0), failing},
		{"answered again", good.failed(epoch, epoch, 0, 0).succeeded(epoch, time.Minute, 0), proven},
	} {
		if got := tt.m.standing(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestMachineSchedule(t *testing.T) {
	cold := machine{keep: time.Hour}
	good := cold.succeeded(epoch, 10*time.Minute, 0)
	for _, r := range []float64{0, 0.5, 0.999} {
		next := cold.succeeded(epoch, 10*time.Minute, r).next.Sub(epoch)
		if next < 432*time.Second || next > 528*time.Second {
			t.Errorf("r = %v: refreshed after %v, want 80 %% of the TTL, a tenth more or less", r, next)
		}
	}
	for _, tt := range []struct {
		name string
		m    machine
		most time.Duration
	}{{"cold", cold, 15 * time.Second}, {"once good", good, 5 * time.Minute}} {
		m := tt.m
		for n := range 1000 {
			low, high := m.failed(epoch, epoch, 0, 0), m.failed(epoch, epoch, 0, 0.9999)
			most := min(tt.most, time.Second<<min(n, 20))
			if got := low.next.Sub(epoch); got != time.Second {
				t.Fatalf("%s: attempt %d at the earliest after %v", tt.name, n, got)
			}
			if got := high.next.Sub(epoch); got > most || got < most*9/10 {
				t.Fatalf("%s: attempt %d at the latest after %v, want %v", tt.name, n, got, most)
			}
			m = high
		}
		if m.good != tt.m.good || m.ttl != tt.m.ttl {
			t.Errorf("%s: a failure changed what was good", tt.name)
		}
	}
	unasked := cold
	for range 20 {
		unasked = unasked.failed(epoch, epoch.Add(-minIdle), 0, 0.9999)
	}
	if got := unasked.next.Sub(epoch); got < 4*time.Minute {
		t.Errorf("cold, and nobody asks: at the latest after %v, want 5m", got)
	}
	held := good.failed(epoch, epoch, 10*time.Hour, 0)
	if got := held.next.Sub(epoch); got != 10*time.Minute {
		t.Errorf("Retry-After of 10 h: next after %v, want 10m", got)
	}
	if now := epoch.Add(10*time.Minute - 1); held.due(now) || !held.held(now) || !held.due(now.Add(1)) {
		t.Error("Retry-After is not kept to the moment")
	}
	// What is asked on demand does not delay the schedule, however often it fails.
	demanded := good.failed(epoch, epoch, 0, 0.9999)
	for range 100 {
		if next := demanded.failedOnDemand(epoch, epoch, 0, 0.9999); next.next.After(demanded.next) || next.failures != 1 {
			t.Fatalf("on demand: next %v, %d failures", next.next, next.failures)
		}
	}
	if got := good.failedOnDemand(epoch, epoch, time.Minute, 0).next.Sub(epoch); got != time.Minute {
		t.Errorf("on demand, Retry-After of a minute: next after %v", got)
	}
	for name, m := range map[string]machine{
		"good": good, "failed": good.failed(epoch, epoch, 0, 0.9999), "cold": cold.failed(epoch, epoch, 0, 0.9999),
	} {
		for _, back := range []time.Duration{time.Second, time.Hour, 1000 * time.Hour} {
			if !m.due(epoch.Add(-back)) {
				t.Errorf("%s: not due after the clock went back %v", name, back)
			}
		}
		if m.due(epoch) || m.overslept(m.next.Add(lateBy-1)) || !m.overslept(m.next.Add(lateBy)) {
			t.Errorf("%s: due too early, or suspended too early or too late: %+v", name, m)
		}
	}
}

func TestMachineSleep(t *testing.T) {
	m := machine{keep: 4 * time.Hour}.succeeded(epoch, 20*time.Minute, 0)
	late := epoch.Add(time.Hour)
	if (machine{}).idle(late, epoch) || m.failed(epoch, epoch, 0, 0).idle(late, epoch) {
		t.Error("idle before a good answer, or after a failure")
	}
	if m.idle(epoch.Add(20*time.Minute-1), epoch) || !m.idle(epoch.Add(20*time.Minute), epoch) {
		t.Error("idle: want from the TTL on")
	}
	slept := m.doze(epoch.Add(16 * time.Minute))
	at := slept.slept
	if slept.serves(at) || slept.inStep(at) || slept.keysEnd() != at {
		t.Error("asleep, and it answers")
	}
	if woken := slept.roused(at.Add(time.Minute)); woken.mode != awake || !woken.serves(at) || woken.keysEnd() != m.expiry() {
		t.Errorf("roused within the TTL: %+v", woken)
	}
	woken := slept.roused(late)
	if woken.serves(late) || woken.serves(late.Add(wakeWait-1)) || woken.inStep(late) || !woken.due(late) {
		t.Errorf("roused past the TTL: %+v", woken)
	}
	if again := woken.roused(late.Add(wakeWait)); again.mode != awake || !again.serves(late.Add(wakeWait)) {
		t.Errorf("two seconds later: %+v", again)
	}
	if m.roused(epoch) != m {
		t.Error("rousing what is awake changed it")
	}
}

func TestFreshness(t *testing.T) {
	tests := []struct {
		control, age string
		want         time.Duration
		said         bool
	}{
		{"", "", 10 * time.Minute, false},
		{"public", "", 10 * time.Minute, false},
		{"max-age=600", "", 10 * time.Minute, true},
		{"public, max-age=900, must-revalidate", "", 15 * time.Minute, true},
		{"Max-Age=900", "", 15 * time.Minute, true},
		{`max-age="900"`, "", 15 * time.Minute, true},
		{"max-age=59", "", time.Minute, true},
		{"max-age=61", "", 61 * time.Second, true},
		{"max-age=3599", "", 3599 * time.Second, true},
		{"max-age=3601", "", time.Hour, true},
		{"max-age=0", "", time.Minute, true},
		{"max-age=-1", "", time.Minute, true},
		{"max-age", "", time.Minute, true},
		{"max-age=1e9", "", time.Minute, true},
		{"max-age=315360000", "", time.Hour, true},
		{"max-age=99999999999999999999999", "", time.Hour, true},
		{"max-age=900, max-age=300", "", 5 * time.Minute, true},
		{"no-store", "", time.Minute, true},
		{"no-cache, max-age=900", "", time.Minute, true},
		{"s-maxage=900", "", 10 * time.Minute, false},
		{"max-age=900", "300", 10 * time.Minute, true},
		{"max-age=900", "9999", time.Minute, true},
		{"max-age=900", "-5", 15 * time.Minute, true},
		{"", "300", 10 * time.Minute, false},
	}
	for _, tt := range tests {
		h := http.Header{"Cache-Control": {tt.control}, "Age": {tt.age}}
		if got, said := freshness(h); got != tt.want || said != tt.said {
			t.Errorf("freshness(%q, Age %q) = %v, %v, want %v, %v", tt.control, tt.age, got, said, tt.want, tt.said)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "-5": 0, "soon": 0, "1.5": 0, "30": 30 * time.Second, "600": 10 * time.Minute, "601": 10 * time.Minute,
		"99999999999999999999":            10 * time.Minute,
		"Fri, 02 Jan 2026 03:05:05 GMT":   time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT":   0,
		"Fri, 31 Dec 2999 23:59:59 GMT":   10 * time.Minute,
		"Friday, 02-Jan-26 03:05:05 GMT":  time.Minute,
		"Fri Jan  2 03:05:05 2026":        time.Minute,
		"Fri, 02 Jan 2026 03:05:05 +0500": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, epoch); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", value, got, want)
		}
	}
}

// Whatever an issuer writes, what comes of it is within the bounds.
func FuzzHeaders(f *testing.F) {
	f.Add("max-age=60, public", "5", "30", `"etag"`)
	f.Add("max-age=-1,,=,no-store", "", "Fri, 31 Dec 2999 23:59:59 GMT", "W/\"x\"")
	f.Add("MAX-AGE=\"18446744073709551616\"", "9223372036854775807", "9223372036854775807", "\x00\r\n")
	f.Fuzz(func(t *testing.T, control, age, retry, etag string) {
		h := http.Header{"Cache-Control": {control, control}, "Age": {age}, "Retry-After": {retry}, "Etag": {etag}}
		ttl, said := freshness(h)
		if ttl < minFresh || ttl > maxFresh || !said && ttl != defaultFresh {
			t.Errorf("freshness(%q) = %v, %v", control, ttl, said)
		}
		wait := retryAfter(h, epoch)
		if wait < 0 || wait > maxRetryAfter {
			t.Errorf("retryAfter(%q) = %v", retry, wait)
		}
		m := machine{keep: defaultStaleIfError}.succeeded(epoch, ttl, 0.5)
		if end := m.expiry().Sub(epoch); end != defaultStaleIfError || !m.next.Before(epoch.Add(ttl)) {
			t.Errorf("expiry %v, next %v", end, m.next)
		}
		if next := m.failed(epoch, epoch, wait, 0.5).next.Sub(epoch); next < firstBackoff || next > maxRetryAfter {
			t.Errorf("next after %v", next)
		}
		if got := newValidator(h).etag; got != "" && (got != etag || strings.ContainsAny(got, "\r\n\x00") || len(got) > maxValidator) {
			t.Errorf("the validator of %q is %q", etag, got)
		}
	})
}

// Whatever an issuer's metadata says, the keys are asked for where the guard lets
// them be, and for that issuer only.
func FuzzMetadata(f *testing.F) {
	const issuer = "https://issuer.example"
	for _, doc := range []string{
		`{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"}`,
		`{"issuer":"https://issuer.example/","jwks_uri":"https://issuer.example/keys"}`,
		`{"Issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"}`,
		`{"issuer":"https://issuer.example","issuer":"x","jwks_uri":"https://issuer.example/keys"}`,
		`{"issuer":"https://issuer.example","jwks_uri":"http://127.0.0.1/keys"}`,
		`{"issuer":"https://issuer.example","jwks_uri":7}`, `null`, `[]`, ``,
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		u, failed := guard{}.jwksURI(doc, issuer)
		if (u == nil) == (failed == nil) {
			t.Fatalf("jwksURI = %v, %v", u, failed)
		}
		if u != nil && (u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "") {
			t.Errorf("keys at %q", u)
		}
		if u != nil && !strings.Contains(string(doc), "issuer") {
			t.Errorf("no issuer, and keys at %q", u)
		}
	})
}

func TestQueue(t *testing.T) {
	start := func(q *queue) (all []*ticket) {
		for k := q.next(); k != nil; k = q.next() {
			all = append(all, k)
		}
		return all
	}
	names := func(all []*ticket) (s string) {
		for _, k := range all {
			s += k.tenant + "@" + k.host + " "
		}
		return strings.TrimSpace(s)
	}
	t.Run("two a host", func(t *testing.T) {
		q := new(queue)
		for i := range 5 {
			q.add(&ticket{tenant: fmt.Sprint(i), host: "h", lane: scheduled})
		}
		q.add(&ticket{tenant: "x", host: "other", lane: scheduled})
		running := start(q)
		if got := names(running); got != "0@h 1@h x@other" {
			t.Fatalf("started %s", got)
		}
		q.done(running[2])
		if got := names(start(q)); got != "" {
			t.Fatalf("started %s", got)
		}
		for _, want := range []string{"2@h", "3@h", "4@h"} {
			q.done(running[0])
			next := start(q)
			if names(next) != want {
				t.Fatalf("started %s, want %s", names(next), want)
			}
			running[0] = next[0]
		}
	})
	t.Run("in turns between tenants", func(t *testing.T) {
		q := new(queue)
		for i := range 40 {
			q.add(&ticket{tenant: "big", host: fmt.Sprint(i), lane: scheduled})
		}
		q.add(&ticket{tenant: "small", host: "s", lane: scheduled})
		running := start(q)
		if len(running) != maxFetches || running[1].tenant != "small" {
			t.Errorf("started %s", names(running))
		}
	})
	t.Run("who is waited for goes first", func(t *testing.T) {
		q := new(queue)
		var all []*ticket
		for i := range 20 {
			all = append(all, &ticket{tenant: fmt.Sprint(i), host: fmt.Sprint(i), lane: scheduled})
			q.add(all[i])
		}
		q.hurry(all[19])
		q.hurry(all[19])
		q.cancel(all[0])
		running := start(q)
		if len(running) != maxFetches || running[0] != all[19] || running[1] != all[1] {
			t.Errorf("started %s", names(running))
		}
	})
	t.Run("the schedule has every fourth start", func(t *testing.T) {
		q := new(queue)
		for i := range 100 {
			q.add(&ticket{tenant: fmt.Sprint(i), host: fmt.Sprint(i), lane: urgent})
		}
		for i := range 10 {
			q.add(&ticket{tenant: fmt.Sprint("quiet", i), host: fmt.Sprint("quiet", i), lane: scheduled})
		}
		running := start(q)
		for len(running) < 48 {
			q.done(running[len(running)-maxFetches])
			running = append(running, start(q)...)
		}
		for i, k := range running {
			if got, want := k.lane == scheduled, i%4 == 3 && i < 40; got != want {
				t.Errorf("start %d, of %s: scheduled %v, want %v", i, k.tenant, got, want)
			}
		}
	})
	t.Run("what fails leaves room for what is new, and both for what works", func(t *testing.T) {
		q := new(queue)
		add := func(n int, name string, s standing, l lane) {
			for i := range n {
				q.add(&ticket{tenant: fmt.Sprint(name, i), host: fmt.Sprint(name, i), standing: s, lane: l})
			}
		}
		want := func(running []*ticket, want ...int) {
			t.Helper()
			got := make([]int, standings)
			for _, k := range running {
				got[k.standing]++
			}
			if !slices.Equal(got, want) {
				t.Errorf("%v started, want %v", got, want)
			}
		}
		add(30, "failing", failing, urgent)
		want(start(q), 0, 0, maxFailing)
		add(30, "untried", untried, urgent)
		want(start(q), 0, maxUnproven-maxFailing, 0)
		add(30, "proven", proven, scheduled)
		want(start(q), maxFetches-maxUnproven, 0, 0)

		// And the other way round: new ones may take the places of those that fail.
		q = new(queue)
		add(30, "untried", untried, urgent)
		running := start(q)
		want(running, 0, maxUnproven, 0)
		add(30, "failing", failing, urgent)
		want(start(q), 0, 0, 0)
		for _, k := range running {
			q.done(k)
			want(start(q), 0, 1, 0)
		}
	})
	// Those that wait for others of their standing, or of their host, wait in the same
	// order as all others.
	blocked := map[string]func(i int) *ticket{
		"untried":                   func(i int) *ticket { return &ticket{host: fmt.Sprint(i), standing: untried} },
		"failing":                   func(i int) *ticket { return &ticket{host: fmt.Sprint(i), standing: failing} },
		"a host":                    func(int) *ticket { return &ticket{host: "h"} },
		"a host of failing issuers": func(int) *ticket { return &ticket{host: "h", standing: failing} },
	}
	for name, make := range blocked {
		add := func(q *queue, n, i int, tenant string, l lane) (all []*ticket) {
			for ; n > 0; n-- {
				k := make(i + n)
				k.tenant, k.lane = tenant, l
				q.add(k)
				all = append(all, k)
			}
			return all
		}
		// successors are those that start as one after another is done.
		successors := func(q *queue, running []*ticket, n int) (all []*ticket) {
			for range n {
				q.done(running[0])
				next := start(q)
				running, all = append(running[1:], next...), append(all, next...)
			}
			return all
		}
		t.Run(name+": who is waited for goes first", func(t *testing.T) {
			q := new(queue)
			all := add(q, 40, 0, "big", scheduled)
			running := start(q)
			q.hurry(all[38])
			q.hurry(all[39])
			q.cancel(all[38])
			start(q)
			late := add(q, 1, 100, "small", urgent)[0]
			start(q)
			if got := successors(q, running, 2); !slices.Equal(got, []*ticket{all[39], late}) {
				t.Errorf("started %s", names(got))
			}
		})
		t.Run(name+": in turns between tenants", func(t *testing.T) {
			for l := range lanes {
				q := new(queue)
				add(q, 40, 0, "big", l)
				running := start(q)
				add(q, 3, 100, "small", l)
				small := 0
				for _, k := range successors(q, running, 6) {
					if k.tenant == "small" {
						small++
					}
				}
				if small != 3 {
					t.Errorf("%d of the first six are of the small tenant, want 3", small)
				}
			}
		})
		t.Run(name+": the schedule has every fourth start", func(t *testing.T) {
			q := new(queue)
			add(q, 40, 0, "asked", urgent)
			add(q, 40, 100, "quiet", scheduled)
			running := start(q)
			got := 0
			for _, k := range successors(q, running, 24) {
				if k.lane == scheduled {
					got++
				}
			}
			if got != 6 {
				t.Errorf("%d of 24 are of the schedule, want 6", got)
			}
		})
	}
	t.Run("in turns between tenants, whatever their standing", func(t *testing.T) {
		q := new(queue)
		for i := range 100 {
			q.add(&ticket{tenant: fmt.Sprint(i), host: fmt.Sprint(i)})
		}
		running := start(q)
		for i := range 100 {
			q.add(&ticket{tenant: "broken", host: fmt.Sprint("broken", i), standing: failing})
		}
		broken := 0
		for range 80 {
			q.done(running[0])
			next := start(q)
			if running = append(running[1:], next...); next[0].tenant == "broken" {
				broken++
			}
		}
		if broken > 1 {
			t.Errorf("%d of 80 starts are of one tenant among 85", broken)
		}
	})
	// One that waits for its host, and then for its turn, keeps nobody of that host
	// waiting for the rest of its tenant's.
	t.Run("nobody waits for all of another's at a host that both use", func(t *testing.T) {
		q := new(queue)
		for range 3 {
			q.add(&ticket{tenant: "big", host: "h"})
		}
		q.add(&ticket{tenant: "small", host: "h"})
		running := start(q)
		for i := range 100 {
			q.add(&ticket{tenant: "big", host: fmt.Sprint(i)})
		}
		for n := 1; ; n++ {
			running = append(running, start(q)...)
			if slices.ContainsFunc(running, func(k *ticket) bool { return k.tenant == "small" }) {
				break
			}
			if n == 10 {
				t.Fatalf("not among %s", names(running))
			}
			q.done(running[0])
			running = running[1:]
		}
	})
	// Of ten thousand that wait, each step looks at a few.
	t.Run("a step takes constant time", func(t *testing.T) {
		for name, make := range blocked {
			q, all := new(queue), []*ticket(nil)
			for i := range 10_000 {
				k := make(i)
				k.tenant, k.lane = fmt.Sprint(i%100), scheduled
				q.add(k)
				all = append(all, k)
			}
			running := start(q)
			for _, k := range all {
				q.hurry(k)
				start(q)
			}
			for len(running) > 0 {
				q.done(running[0])
				running = append(running[1:], start(q)...)
			}
			if most := int64(20 * len(all)); q.ticks > most {
				t.Errorf("%s: %d steps for %d flights", name, q.ticks, len(all))
			}
		}
	})
	// Whatever comes and goes, everything starts once, within the bounds, and as soon
	// as they allow.
	t.Run("nothing is lost", func(t *testing.T) {
		for seed := range 50 {
			q, started, want := new(queue), map[*ticket]int{}, 0
			var running, waiting []*ticket
			r := uint32(seed + 1)
			next := func(n uint32) uint32 { r = r*1664525 + 1013904223; return r >> 8 % n }
			for step := range 2000 {
				switch {
				case step < 1000 && next(3) > 0:
					k := &ticket{tenant: fmt.Sprint(next(5)), host: fmt.Sprint(next(12)), standing: standing(next(uint32(standings))), lane: lane(next(2))}
					q.add(k)
					waiting = append(waiting, k)
					want++
				case len(waiting) > 0 && next(5) == 0:
					q.hurry(waiting[next(uint32(len(waiting)))])
				case len(waiting) > 0 && next(9) == 0:
					if q.cancel(waiting[next(uint32(len(waiting)))]) {
						want--
					}
				case len(running) > 0:
					i := int(next(uint32(len(running))))
					q.done(running[i])
					running = append(running[:i], running[i+1:]...)
				}
				for _, k := range start(q) {
					started[k]++
					running = append(running, k)
				}
				hosts, of := map[string]int{}, make([]int, standings)
				for _, k := range running {
					hosts[k.host]++
					of[k.standing]++
					if hosts[k.host] > maxPerHost || of[failing] > maxFailing || of[failing]+of[untried] > maxUnproven || len(running) > maxFetches {
						t.Fatalf("seed %d: over a bound: %s", seed, names(running))
					}
				}
				waiting = slices.DeleteFunc(waiting, func(k *ticket) bool { return !k.waiting })
				for _, k := range waiting {
					if len(running) < maxFetches && hosts[k.host] < maxPerHost && q.admits(k.standing) {
						t.Fatalf("seed %d: %s@%s could run beside %s", seed, k.tenant, k.host, names(running))
					}
				}
			}
			for len(running) > 0 {
				q.done(running[0])
				running = append(running[1:], start(q)...)
				for _, k := range running {
					started[k] = 1
				}
			}
			if len(started) != want || q.running != 0 || len(q.hosts) != 0 || q.unproven != 0 {
				t.Fatalf("seed %d: %d of %d started, %d hosts left", seed, len(started), want, len(q.hosts))
			}
			for k, n := range started {
				if n != 1 {
					t.Fatalf("seed %d: %s started %d times", seed, k.tenant, n)
				}
			}
		}
	})
}

// A new set is spread without the endpoint's lock, while callers wake it.
func TestSpreadBesideCallers(t *testing.T) {
	e := newEndpoint(New(Config{}), "acme", new(url.URL), SourceConfig{})
	e.flight = new(flight) // which has the set
	got := &fetched{generation: 1, ttl: time.Minute}
	var callers sync.WaitGroup
	callers.Go(func() {
		for range 1000 {
			e.mu.Lock()
			e.m = e.m.doze(epoch)
			e.rouseLocked(epoch)
			e.mu.Unlock()
		}
	})
	for range 1000 {
		e.spread(got, epoch)
	}
	callers.Wait()
}
