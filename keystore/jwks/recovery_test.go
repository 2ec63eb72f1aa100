package jwks_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// A service that is not ready gets no tokens, and Status asks nothing of the issuer. So a source
// must not sleep through an outage: it would never notice that the outage is over.
func TestOutageEndsByItself(t *testing.T) {
	parallel(t)
	for _, tt := range []struct {
		name   string
		cold   bool
		quiet  time.Duration // before the outage
		outage time.Duration
		want   jwks.State // at its end
	}{
		{"from the start", true, 0, 5 * time.Hour, jwks.Cold},
		{"longer than stale-if-error", false, 0, 5 * time.Hour, jwks.Expired},
		{"a blip as the night begins", false, 7 * time.Minute, 10 * time.Minute, jwks.Stale},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				if tt.cold {
					w.issuer.Misbehave(jwkstest.Status(503))
				}
				s := w.open(jwks.SourceConfig{})
				synctest.Wait()
				time.Sleep(tt.quiet)
				w.issuer.Misbehave(jwkstest.Status(503))
				time.Sleep(tt.outage)
				synctest.Wait()
				if st := s.Status(); st.State != tt.want || st.Asleep {
					t.Fatalf("after the outage: state %v, asleep %v", st.State, st.Asleep)
				}
				before := len(w.issuer.Requests())
				if most := 50 + int(tt.outage/time.Minute); before > most {
					t.Errorf("%d requests in %v, though it was unused", before, tt.outage)
				}

				w.issuer.Behave()
				time.Sleep(5*time.Minute + jwks.FetchTimeout)
				if st := s.Status(); st.State != jwks.Fresh || st.Failures != 0 {
					t.Errorf("the issuer is well, and %+v", st)
				}
				time.Sleep(24 * time.Hour)
				if got := len(w.issuer.Requests()) - before; !s.Status().Asleep || got > 3 {
					t.Errorf("a day later, unused: asleep %v, %d requests", s.Status().Asleep, got)
				}
			})
		})
	}
}

// The validator of one URL must not be sent to another: an older file there, whose date is before
// it, would be "not modified".
func TestValidatorStaysWhereItWas(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.discover(jwks.SourceConfig{})
		synctest.Wait()
		w.busy(s, w.a, 12*time.Hour)
		w.issuer.MoveSet("/moved") // and still at the old path, so that the metadata is not fetched again at once
		w.issuer.AlsoAt("/jwks.json")
		w.issuer.Misbehave(jwkstest.RedirectFrom("/moved", "/")) // the first answers there are failures
		w.busy(s, w.a, 13*time.Hour)
		well := time.Now()
		w.issuer.Behave()
		w.busy(s, w.a, time.Hour)
		failures, answered := 0, 0
		for _, r := range w.issuer.Requests() {
			if r.Path != "/moved" {
				continue
			}
			if conditional := r.Header.Get("If-None-Match") != ""; conditional != (answered > 0) {
				t.Errorf("after %d failures and %d answers at the new place: If-None-Match %q", failures, answered, r.Header.Get("If-None-Match"))
			}
			if r.Time.Before(well) {
				failures++
			} else {
				answered++
			}
		}
		if failures < 2 || answered < 2 {
			t.Errorf("%d failures and %d answers at the new place", failures, answered)
		}
	})
}
