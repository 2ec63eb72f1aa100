package verifier_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// flood verifies tokens of made-up issuers, 10 000 a second, and returns how many got a verdict. Every tenth of
// a second it calls also.
func (s *site) flood(name string, d time.Duration, also func()) (verdicts int) {
	for i := range int(d / (100 * time.Microsecond)) {
		issuer := fmt.Sprintf("%s-%d", name, i)
		if _, err := s.v.Verify(s.t.Context(), liveToken(issuer, "https://"+issuer)); errors.Is(err, verifier.ErrUnknownTenant) {
			verdicts++
		}
		if time.Sleep(100 * time.Microsecond); i%1000 == 0 && also != nil {
			also()
		}
	}
	return verdicts
}

// Under a flood of made-up issuers, a tenant that was in use, and had to make room, is looked up at its first
// token. One that was never in use is not, and neither is one that was deleted once this was noticed.
func TestResolveKeepsQuestionsForProvedTenants(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "a", "b", "c", "gone"), func(c *verifier.Config) { c.MaxResolved = 1 })
		for _, id := range []string{"a", "gone", "b"} { // each makes room for the next
			s.plain("before", id, nil)
			time.Sleep(time.Second)
		}
		s.db.set("gone", nil)
		s.plain("it was deleted", "gone", verifier.ErrUnknownTenant)
		time.Sleep(5 * time.Second)                 // after that the answer is no longer remembered
		s.flood("first", 100*time.Millisecond, nil) // what the common part had saved is used up
		turn := 0
		got := s.flood("second", time.Second, func() {
			s.plain("it was in use", []string{"a", "b"}[turn%2], nil)
			turn++
			s.plain("it was never in use", "c", verifier.ErrUnavailable)
			s.plain("it is gone", "gone", verifier.ErrUnavailable)
		})
		if got < 100-10-1 || got > 100-10+1 {
			t.Errorf("%d of 10 000 made-up issuers were looked up, want 90: all of the budget except 10", got)
		}
	})
}

// The questions of made-up issuers that a slow database has to answer leave room for those of proved tenants.
func TestResolveKeepsRoomForProvedTenants(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		db := newDatabase(t, "a", "b")
		s := newSite(t, db, func(c *verifier.Config) { c.MaxResolved, c.ResolvePerSecond = 1, 10_000 })
		s.plain("before", "a", nil)
		s.plain("it makes room", "b", nil)
		stuck := make(chan struct{})
		db.hook = func(h verifier.Hint) {
			if h.Issuer != "https://a" {
				<-stuck
			}
		}
		for i := range 200 {
			name := fmt.Sprint("x", i)
			go s.v.Verify(t.Context(), liveToken(name, "https://"+name))
		}
		time.Sleep(time.Millisecond)
		s.plain("while the others wait", "a", nil)
		if n := s.db.questions(); n != 2+48+1 {
			t.Errorf("%d questions, want those of two tenants, 48 made-up issuers, and one more", n)
		}
		close(stuck)
	})
}
