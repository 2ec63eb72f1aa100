package jwks

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks/internal/queue"
)

func TestMachineStates(t *testing.T) {
	m := machine{staleIfError: 4 * time.Hour}.succeeded(epoch, 10*time.Minute, 0.5)
	short := machine{}.succeeded(epoch, 10*time.Minute, 0.5)
	disk := machine{staleIfError: 4 * time.Hour}.restored(epoch.Add(-time.Hour), epoch)
	tests := []struct {
		name string
		m    machine
		age  time.Duration
		want State
	}{
		{"never", machine{staleIfError: time.Hour}, 0, Cold},
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
			tt.m.asking = true // the schedule is not late
			if got := tt.m.state(now); got != tt.want {
				t.Errorf("state = %v, want %v", got, tt.want)
			}
			if got, want := tt.m.serves(now), tt.want != Cold && tt.want != Expired; got != want {
				t.Errorf("serves = %v, want %v", got, want)
			}
			if got, want := tt.m.inSync(now), tt.want == Fresh || tt.want == Aging; got != want {
				t.Errorf("inSync = %v, want %v", got, want)
			}
			if got, want := now.Before(tt.m.keysEnd()), tt.want != Cold && tt.want != Expired; got != want {
				t.Errorf("keys are usable: %v, want %v", got, want)
			}
		})
	}
}

func TestMachineHealth(t *testing.T) {
	good := machine{staleIfError: time.Hour}.succeeded(epoch, time.Minute, 0)
	for _, tt := range []struct {
		name string
		m    machine
		want queue.Health
	}{
		{"new", machine{}, queue.Untried},
		{"from disk", machine{staleIfError: time.Hour}.restored(epoch, epoch), queue.Untried},
		{"answered", good, queue.Proven},
		{"failed", good.failed(epoch, epoch, 0, 0), queue.Failing},
		{"failed from the start", machine{}.failed(epoch, epoch, 0, 0), queue.Failing},
		{"answered again", good.failed(epoch, epoch, 0, 0).succeeded(epoch, time.Minute, 0), queue.Proven},
	} {
		if got := tt.m.health(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// answered returns a machine that had a good answer at epoch.
func answered() machine {
	return machine{staleIfError: time.Hour}.succeeded(epoch, 10*time.Minute, 0)
}

func TestMachineRefresh(t *testing.T) {
	for _, r := range []float64{0, 0.5, 0.999} {
		next := machine{}.succeeded(epoch, 10*time.Minute, r).next.Sub(epoch)
		if next < 432*time.Second || next > 528*time.Second {
			t.Errorf("r = %v: refreshed after %v, want 80 %% of the TTL, a tenth more or less", r, next)
		}
	}
}

func TestMachineBackoff(t *testing.T) {
	cold := machine{staleIfError: time.Hour}
	for _, tt := range []struct {
		name string
		m    machine
		most time.Duration
	}{{"cold", cold, 15 * time.Second}, {"once good", answered(), 5 * time.Minute}} {
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
		if m.lastGood != tt.m.lastGood || m.ttl != tt.m.ttl {
			t.Errorf("%s: a failure changed the last good answer", tt.name)
		}
	}
	unused := cold
	for range 20 {
		unused = unused.failed(epoch, epoch.Add(-minIdle), 0, 0.9999)
	}
	if got := unused.next.Sub(epoch); got < 4*time.Minute {
		t.Errorf("cold and unused: at the latest after %v, want 5m", got)
	}
}

func TestMachineRetryAfter(t *testing.T) {
	m := answered().failed(epoch, epoch, 10*time.Hour, 0)
	if got := m.next.Sub(epoch); got != 10*time.Minute {
		t.Errorf("Retry-After of 10 h: next after %v, want 10m", got)
	}
	if now := epoch.Add(10*time.Minute - 1); m.due(now) || !m.holds(now) || !m.due(now.Add(1)) {
		t.Error("Retry-After is not kept to the moment")
	}
	if got := answered().failedOnDemand(epoch, epoch, time.Minute, 0).next.Sub(epoch); got != time.Minute {
		t.Errorf("on demand, Retry-After of a minute: next after %v", got)
	}
}

// Attempts on demand do not delay the schedule, however often they fail.
func TestMachineFailedOnDemand(t *testing.T) {
	m := answered().failed(epoch, epoch, 0, 0.9999)
	for range 100 {
		if next := m.failedOnDemand(epoch, epoch, 0, 0.9999); next.next.After(m.next) || next.failures != 1 {
			t.Fatalf("on demand: next %v, %d failures", next.next, next.failures)
		}
	}
}

func TestMachineWhenClockIsSet(t *testing.T) {
	cold := machine{staleIfError: time.Hour}
	for name, m := range map[string]machine{
		"good": answered(), "failed": answered().failed(epoch, epoch, 0, 0.9999), "cold": cold.failed(epoch, epoch, 0, 0.9999),
	} {
		for _, back := range []time.Duration{time.Second, time.Hour, 1000 * time.Hour} {
			if !m.due(epoch.Add(-back)) {
				t.Errorf("%s: not due after the clock went back %v", name, back)
			}
		}
		asking := m
		asking.asking = true
		late := m.next.Add(lateBy)
		if m.due(epoch) || m.overslept(late.Add(-1)) || !m.overslept(late) || asking.overslept(late) {
			t.Errorf("%s: due too early, or suspended too early or too late: %+v", name, m)
		}
	}
}

func TestMachineSleep(t *testing.T) {
	m := machine{staleIfError: 4 * time.Hour}.succeeded(epoch, 20*time.Minute, 0)
	late := epoch.Add(time.Hour)
	if (machine{}).maySleep(late, epoch) || m.failed(epoch, epoch, 0, 0).maySleep(late, epoch) {
		t.Error("it may sleep before a good answer, or after a failure")
	}
	if m.maySleep(epoch.Add(20*time.Minute-1), epoch) || !m.maySleep(epoch.Add(20*time.Minute), epoch) {
		t.Error("it may sleep: want from the TTL on")
	}
	slept, ttl := m.sleep(), epoch.Add(20*time.Minute)
	if early := ttl.Add(-1); !slept.serves(early) || !slept.inSync(early) || slept.keysEnd() != ttl {
		t.Error("asleep within its TTL, and it does not answer")
	}
	if slept.serves(ttl) || slept.inSync(ttl) {
		t.Error("asleep past its TTL, and it answers")
	}
	if at := epoch.Add(17 * time.Minute); slept.wake(at).mode != awake || slept.wake(at).keysEnd() != m.expiry() || !slept.wake(at).due(at) {
		t.Errorf("woken within its TTL: %+v", slept.wake(at))
	}
	queued := slept.wake(late)
	if after := late.Add(time.Hour); queued.serves(after) || queued.inSync(after) || queued.roused(after) != queued || !queued.due(late) {
		t.Errorf("woken past its TTL, and not asked: %+v", queued)
	}
	woken := queued.started(late)
	if early := late.Add(wakeWait - 1); woken.serves(early) || woken.inSync(early) || woken.roused(early) != woken || woken.keysEnd() != ttl {
		t.Errorf("woken past its TTL, and asked: %+v", woken)
	}
	if at := late.Add(wakeWait); !woken.serves(at) || woken.roused(at).mode != awake || woken.roused(at).keysEnd() != m.expiry() {
		t.Errorf("two seconds later: %+v", woken.roused(at))
	}
	if m.wake(epoch) != m {
		t.Error("a source that was awake changed when it was woken")
	}
}
