package server

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// reloads is a Meter that keeps the outcomes of reloads.
type reloads struct {
	silentMeter
	outcomes []bool
}

func (r *reloads) Reloaded(ok bool, _ time.Time) { r.outcomes = append(r.outcomes, ok) }

// memoryFiles are files in memory: tenants, by name.
type memoryFiles struct {
	t       *testing.T
	tenants string // names, with spaces between them
	loads   int
	writing func() // called after each Load, as by a program that goes on writing
	used    string
}

func (m *memoryFiles) Sum() Sum { return sha256.Sum256([]byte(m.tenants)) }
func (m *memoryFiles) Used()    { m.used = m.tenants }

func (m *memoryFiles) Load() (Loaded, error) {
	m.loads++
	loaded := Loaded{Sum: m.Sum()}
	var err error
	for _, id := range strings.Fields(m.tenants) {
		if id == "half" {
			err = errors.New("it is cut off")
		}
		one := static(m.t, id)
		one.Rules.AnyIssuer, one.Rules.Issuer = false, "https://"+id+".example"
		loaded.Config.Tenants = append(loaded.Config.Tenants, one)
	}
	if m.writing != nil {
		m.writing()
	}
	return loaded, err
}

// reloading runs test with the follower of a server that has the tenant a.
func reloading(t *testing.T, test func(t *testing.T, f *follower, m *memoryFiles, log *strings.Builder)) {
	synctest.Test(t, func(t *testing.T) {
		log, m := new(strings.Builder), &memoryFiles{t: t, tenants: "a"}
		first, err := m.Load()
		if err != nil {
			t.Fatal(err)
		}
		cfg := first.Config
		cfg.Addr, cfg.Logger = "127.0.0.1:0", slog.New(slog.NewTextHandler(log, nil))
		cfg.Meter = new(reloads)
		cfg.Reload = Reload{Files: m, Sum: first.Sum, Signal: make(chan os.Signal)}
		s, err := New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		test(t, newFollower(s), m, log)
		synctest.Wait()
		s.retiring.Wait()
	})
}

func (f *follower) ids() string {
	var ids []string
	for _, t := range f.s.live.Load().cfg.Tenants {
		ids = append(ids, t.Rules.ID)
	}
	return strings.Join(ids, " ")
}

// Files that are being written do not count, good or bad, until a second reading a second later finds
// them as they were. At a signal the server waits for that, and says so if it does not come.
func TestReloadReadsTwice(t *testing.T) {
	reloading(t, func(t *testing.T, f *follower, m *memoryFiles, log *strings.Builder) {
		m.tenants, m.writing = "a b", func() { m.tenants += " c" + fmt.Sprint(m.loads) }
		f.look(t.Context(), false)
		if f.ids() != "a" || log.Len() > 0 {
			t.Errorf("half of the files counted: %s; log: %s", f.ids(), log)
		}
		f.look(t.Context(), true)
		if f.ids() != "a" || !strings.Contains(log.String(), "its files keep changing") {
			t.Errorf("tenants = %s; log: %s", f.ids(), log)
		}
		log.Reset()
		m.tenants, m.writing = "half", func() { m.tenants, m.writing = "a d", nil }
		begin := time.Now()
		f.look(t.Context(), true)
		if took := time.Since(begin); f.ids() != "a d" || m.used != "a d" || took != 2*settleFor || strings.Contains(log.String(), "cut off") {
			t.Errorf("tenants = %s, used = %s after %v; log: %s", f.ids(), m.used, took, log)
		}
	})
}

// An error is logged once, until there is another one, or an operator asks. A good configuration that is
// there again is no reload, but it ends the alert about the bad one.
func TestReloadLogsOnce(t *testing.T) {
	reloading(t, func(t *testing.T, f *follower, m *memoryFiles, log *strings.Builder) {
		for range 3 {
			m.tenants = "a half"
			f.look(t.Context(), false)
		}
		if n := strings.Count(log.String(), "cut off"); n != 1 {
			t.Errorf("the error is logged %d times: %s", n, log)
		}
		f.look(t.Context(), true)
		if n := strings.Count(log.String(), "cut off"); n != 2 {
			t.Errorf("the operator got no answer: %s", log)
		}
		m.tenants = ""
		f.look(t.Context(), false)
		if !strings.Contains(log.String(), "has no tenants") || f.ids() != "a" {
			t.Errorf("zero tenants: %s; log: %s", f.ids(), log)
		}
		log.Reset()
		m.tenants = "a"
		f.look(t.Context(), false)
		f.look(t.Context(), false)
		m.tenants = "a b"
		f.look(t.Context(), false)
		if got, want := f.s.cfg.Meter.(*reloads).outcomes, []bool{false, false, false, false, false, true, true}; !slices.Equal(got, want) {
			t.Errorf("the meter was told %v, want %v", got, want)
		}
		if n := strings.Count(log.String(), "the configuration is as it was"); n != 1 || strings.Count(log.String(), "is reloaded") != 1 {
			t.Errorf("log = %s", log)
		}
	})
}
