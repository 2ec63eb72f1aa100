package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A database has tenants, and counts the questions.
type database struct {
	mu    sync.Mutex
	rows  map[string]verifier.Tenant
	err   error               // of all answers, if it is not nil
	hook  func(verifier.Hint) // called after a row was read, and before it is returned
	asked []verifier.Hint
}

func newDatabase(t *testing.T, ids ...string) *database {
	db := &database{rows: make(map[string]verifier.Tenant)}
	for _, id := range ids {
		db.rows[id] = tenant(t, id, "https://"+id, nil)
	}
	return db
}

func (db *database) resolve(_ context.Context, h verifier.Hint) (verifier.Tenant, error) {
	row, err := db.read(h)
	if db.hook != nil {
		db.hook(h)
	}
	return row, err
}

func (db *database) read(h verifier.Hint) (verifier.Tenant, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.asked = append(db.asked, h)
	if db.err != nil {
		return verifier.Tenant{}, db.err
	}
	for _, row := range db.rows {
		if row.ID == h.Tenant || h.Issuer != "" && row.Issuer == h.Issuer {
			return row, nil
		}
	}
	return verifier.Tenant{}, fmt.Errorf("no rows: %w", verifier.ErrUnknownTenant)
}

func (db *database) set(id string, row *verifier.Tenant) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if delete(db.rows, id); row != nil {
		db.rows[id] = *row
	}
}

// questions returns how many there were since the last call.
func (db *database) questions() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	n := len(db.asked)
	db.asked = nil
	return n
}

// A site is a verifier with a database, in the time of a synctest bubble.
type site struct {
	t  *testing.T
	db *database
	v  *verifier.Verifier
}

// newSite must be called in a bubble. Its tokens live for an hour.
func newSite(t *testing.T, db *database, edit func(*verifier.Config)) *site {
	t.Helper()
	cfg := verifier.Config{Resolve: db.resolve}
	if edit != nil {
		edit(&cfg)
	}
	v, err := verifier.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &site{t, db, v}
}

func liveToken(signer, issuer string) string {
	return signWith(secretOf(signer), goodHeader, fmt.Sprintf(`{"iss":%q,"exp":%d}`, issuer, time.Now().Add(24*time.Hour).Unix()))
}

// verify verifies a token of that tenant, with and without a hint.
func (s *site) verify(what, id string, want error) {
	s.t.Helper()
	s.hinted(what, id, want)
	s.plain(what, id, want)
}

func (s *site) hinted(what, id string, want error) {
	s.t.Helper()
	tok, err := s.v.VerifyTenant(s.t.Context(), id, liveToken(id, "https://"+id))
	check(s.t, what+", hinted", tok, err, want)
}

func (s *site) plain(what, id string, want error) {
	s.t.Helper()
	tok, err := s.v.Verify(s.t.Context(), liveToken(id, "https://"+id))
	check(s.t, what, tok, err, want)
}

// asked wants that many questions since the last call.
func (s *site) asked(what string, want int) {
	s.t.Helper()
	if n := s.db.questions(); n != want {
		s.t.Errorf("%s: %d questions, want %d", what, n, want)
	}
}

// inBubble runs test with the times of synctest.
func inBubble(t *testing.T, test func(t *testing.T)) { synctest.Test(t, test) }

func TestResolve(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "a", "b"), nil)
		s.plain("first", "a", nil)
		s.asked("first", 1)
		s.verify("again", "a", nil)
		s.verify("again", "a", nil)
		s.asked("again", 0)
		s.hinted("by ID", "b", nil)
		s.verify("by ID", "b", nil)
		s.asked("by ID", 1)
		s.verify("unknown", "x", verifier.ErrUnknownTenant)
		s.asked("an issuer and an ID", 2)
		s.verify("remembered", "x", verifier.ErrUnknownTenant)
		s.asked("remembered", 0)
		row := tenant(t, "x", "https://x", nil)
		s.db.set("x", &row)
		time.Sleep(5 * time.Second)
		s.verify("known by now", "x", nil)
		s.asked("known by now", 1)
		s.db.err = errors.New("connection refused")
		s.verify("failure", "y", verifier.ErrUnavailable)
		s.asked("failure", 2)
		s.verify("failure, remembered", "y", verifier.ErrUnavailable)
		s.asked("failure, remembered", 0)
		s.verify("held ones serve on", "a", nil)
		s.db.err = errors.Join(verifier.ErrUnknownTenant, verifier.ErrUnavailable)
		time.Sleep(time.Second)
		s.verify("both is a failure", "y", verifier.ErrUnavailable)
		s.db.err = fmt.Errorf("nothing: %w", keystore.ErrNotFound)
		time.Sleep(time.Second)
		s.verify("not found", "y", verifier.ErrUnknownTenant)
	})
}

// TestResolveAsksForPlausibleTokensOnly: what can never be good asks nothing.
func TestResolveAsksForPlausibleTokensOnly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "a"), nil)
		exp := fmt.Sprintf(`,"exp":%d}`, time.Now().Add(time.Hour).Unix())
		for name, token := range map[string]string{
			"garbage": "a.b.c",
			"expired": signWith(secretOf("a"), goodHeader, fmt.Sprintf(`{"iss":"https://a","exp":%d}`, time.Now().Add(-5*time.Minute).Unix())),
			"none":    signWith(secretOf("a"), `{"alg":"none"}`, `{"iss":"https://a"`+exp),
			"no iss":  signWith(secretOf("a"), goodHeader, `{"sub":"ann"`+exp),
			"a list":  signWith(secretOf("a"), goodHeader, `{"iss":["https://a"]`+exp),
			"long":    signWith(secretOf("a"), goodHeader, fmt.Sprintf(`{"iss":"https://%0600d"%s`, 1, exp)),
		} {
			if tok, err := s.v.Verify(t.Context(), token); tok != nil || !errors.Is(err, verifier.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
			s.asked(name, 0)
		}
		if _, err := s.v.VerifyTenant(t.Context(), "", liveToken("a", "https://a")); !errors.Is(err, verifier.ErrUnknownTenant) {
			t.Error(err)
		}
		s.asked("no hint", 0)
	})
}

// TestResolveFailures: what Resolve does wrong is never a verdict on the token, and harms nothing else.
func TestResolveFailures(t *testing.T) {
	put := tenant(t, "put", "https://put", nil)
	tests := []struct {
		name    string
		resolve func(context.Context, verifier.Hint) (verifier.Tenant, error)
	}{
		{"panics", func(context.Context, verifier.Hint) (verifier.Tenant, error) { panic("oops") }},
		{"ends its goroutine", func(context.Context, verifier.Hint) (verifier.Tenant, error) { runtime.Goexit(); panic("no") }},
		{"nothing", func(context.Context, verifier.Hint) (verifier.Tenant, error) { return verifier.Tenant{}, nil }},
		{"another tenant", func(context.Context, verifier.Hint) (verifier.Tenant, error) {
			return tenant(t, "b", "https://b", nil), nil
		}},
		{"any issuer", func(_ context.Context, h verifier.Hint) (verifier.Tenant, error) {
			if h.Tenant != "" {
				return verifier.Tenant{}, errors.New("no")
			}
			return tenant(t, "a", "", nil), nil
		}},
		{"bad rules", func(context.Context, verifier.Hint) (verifier.Tenant, error) {
			return tenant(t, "a", "https://a", func(r *verifier.Tenant) { r.Algorithms = nil }), nil
		}},
		{"a store that panics", func(context.Context, verifier.Hint) (verifier.Tenant, error) {
			return tenant(t, "a", "https://a", func(r *verifier.Tenant) { r.Keys = &hooked{r.Keys, func() { panic("oops") }} }), nil
		}},
		{"the issuer of one that was put", func(context.Context, verifier.Hint) (verifier.Tenant, error) {
			return tenant(t, "a", "https://a", func(r *verifier.Tenant) { r.OtherIssuers = []string{"https://put"} }), nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				s := newSite(t, newDatabase(t), func(c *verifier.Config) { c.Resolve, c.Tenants = tt.resolve, []verifier.Tenant{put} })
				s.verify("first", "a", verifier.ErrUnavailable)
				s.verify("again", "a", verifier.ErrUnavailable)
				time.Sleep(time.Second)
				s.verify("later", "a", verifier.ErrUnavailable)
				s.verify("another tenant", "put", nil)
				if got := s.v.ResolveStats(); got.Failed != 4 || got.Found+got.Unknown+got.Refused != 0 || got.Held != 0 {
					t.Errorf("%+v, want 4 that failed", got)
				}
			})
		})
	}
}

// TestResolveIsAskedOnce: tokens that come together ask one question.
func TestResolveIsAskedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		db := newDatabase(t, "a")
		db.hook = func(verifier.Hint) { time.Sleep(time.Second) }
		s := newSite(t, db, nil)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { s.plain("together", "a", nil) })
			all.Go(func() { s.plain("together, unknown", "x", verifier.ErrUnknownTenant) })
		}
		all.Wait()
		s.asked("together", 2)
	})
}

// TestResolveIsSlow: callers wait until their context or ResolveTimeout ends, even if Resolve ignores it,
// and the number of such questions is bounded.
func TestResolveIsSlow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		db := newDatabase(t, "a")
		stuck := make(chan struct{})
		db.hook = func(verifier.Hint) { <-stuck }
		s := newSite(t, db, nil)
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := s.v.Verify(ctx, liveToken("a", "https://a"))
		if !errors.Is(err, verifier.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		s.plain("the timeout", "a", verifier.ErrUnavailable)
		if time.Since(begun) != 2*time.Second {
			t.Errorf("%v, want the timeout of 2s", time.Since(begun))
		}
		s.plain("no more waiting", "a", verifier.ErrUnavailable)
		for i := range 200 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			s.v.VerifyTenant(ctx, fmt.Sprint("t", i), liveToken("a", "https://a"))
			cancel()
		}
		s.asked("stuck", 64)
		if time.Since(begun) > 5*time.Second {
			t.Errorf("%v", time.Since(begun))
		}
		close(stuck)
		synctest.Wait()
		s.plain("the late answer", "a", nil)
		s.asked("the late answer", 0)
	})
}

// TestResolveBudget: 10 000 unknown names in a second cost what ResolvePerSecond says, and tenants that
// are held do not notice.
func TestResolveBudget(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "a", "b"), func(c *verifier.Config) { c.MaxResolved = 2 })
		s.plain("a", "a", nil)
		s.plain("b", "b", nil)
		s.db.questions()
		known, cannotTell := 0, 0
		for second := range 3 {
			for i := range 10_000 {
				name := fmt.Sprintf("x%d-%d", second, i)
				_, err := s.v.Verify(t.Context(), liveToken(name, "https://"+name))
				switch {
				case errors.Is(err, verifier.ErrUnknownTenant):
					known++
				case errors.Is(err, verifier.ErrUnavailable):
					cannotTell++
				}
				if time.Sleep(100 * time.Microsecond); i%1000 == 0 {
					s.verify("in use", "a", nil)
					s.verify("in use", "b", nil)
				}
			}
		}
		if n := s.db.questions(); n != known || n < 300 || n > 400 || known+cannotTell != 30_000 {
			t.Errorf("%d questions, %d verdicts, %d of 30 000 cannot be told", n, known, cannotTell)
		}
		want := verifier.ResolveStats{Found: 2, Unknown: uint64(known), Refused: uint64(cannotTell), Held: 2}
		if got := s.v.ResolveStats(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// TestResolveTTL: a tenant that is gone from the database ends within the TTL, cached tokens included,
// and one that stays is asked for at half of it, and keeps its cached tokens then.
func TestResolveTTL(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "a", "b"), func(c *verifier.Config) { c.ResolveTTL, c.CacheTTL = time.Minute, time.Hour })
		stays, goes := liveToken("a", "https://a"), liveToken("b", "https://b")
		verify := func(token string) error { _, err := s.v.Verify(t.Context(), token); return err }
		for range 600 {
			if err := errors.Join(verify(stays), verify(goes)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := s.db.questions(); n < 38 || n > 42 {
			t.Errorf("%d questions in ten minutes about two tenants with a TTL of one", n)
		}
		if hits := s.v.CacheStats().Hits; hits < 1100 {
			t.Errorf("%d hits of 1200 tokens", hits)
		}
		s.db.set("b", nil)
		gone := time.Now()
		for verify(goes) == nil {
			time.Sleep(time.Second)
		}
		if d := time.Since(gone); d > time.Minute || !errors.Is(verify(goes), verifier.ErrUnknownTenant) {
			t.Errorf("gone after %v: %v", d, verify(goes))
		}
		narrow := s.db.rows["a"]
		narrow.Required = []string{"role"}
		s.db.set("a", &narrow)
		time.Sleep(time.Minute)
		if err := verify(stays); !errors.Is(err, verifier.ErrMissingClaim) {
			t.Errorf("its row has changed: %v", err)
		}
	})
}

// TestResolveOutage: while the database does not answer, held tenants serve until the TTL, and then the
// verifier cannot tell. It asks seldom meanwhile.
func TestResolveOutage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "a"), func(c *verifier.Config) { c.ResolveTTL = 4 * time.Minute })
		s.plain("before", "a", nil)
		s.db.err = errors.New("connection refused")
		token, begun := liveToken("a", "https://a"), time.Now()
		var err error
		for err == nil {
			time.Sleep(100 * time.Millisecond)
			_, err = s.v.Verify(t.Context(), token)
		}
		if d := time.Since(begun); d != 4*time.Minute || !errors.Is(err, verifier.ErrUnavailable) {
			t.Errorf("%v after %v", err, d)
		}
		if n := s.db.questions(); n > 15 {
			t.Errorf("%d questions", n)
		}
		s.db.err = nil
		time.Sleep(time.Second)
		s.plain("after", "a", nil)
	})
}

// TestResolveClockSetBack: a lease does not last longer because the clock was set back.
func TestResolveClockSetBack(t *testing.T) {
	now := time.Unix(nowUnix, 0)
	db := newDatabase(t, "a")
	v, err := verifier.New(verifier.Config{Resolve: db.resolve, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	token := tokenOf("a", `"iss":"https://a"`)
	tok, err := v.Verify(t.Context(), token)
	check(t, "before", tok, err, nil)
	now = now.Add(-time.Hour)
	db.set("a", nil)
	if _, err := v.Verify(t.Context(), token); err == nil {
		t.Error("the lease lasts")
	}
	now = now.Add(time.Second) // the budget counts as spent when the clock is set back
	tok, err = v.Verify(t.Context(), token)
	check(t, "set back", tok, err, verifier.ErrUnknownTenant)
}

// TestResolveRemoved: an answer that was under way when the tenant was removed does not bring it back.
func TestResolveRemoved(t *testing.T) {
	for name, remove := range map[string]func(v *verifier.Verifier) error{
		"Remove": func(v *verifier.Verifier) error { return v.Remove("a") },
		"Change": func(v *verifier.Verifier) error { return v.Change(nil, []string{"a"}) },
		"Sync": func(v *verifier.Verifier) error {
			_, errs := v.Sync([]verifier.Tenant{tenant(t, "z", "https://z", nil)})
			return errs["z"]
		},
		"put and removed": func(v *verifier.Verifier) error {
			return errors.Join(v.Put(tenant(t, "a", "https://a", nil)), v.Remove("a"))
		},
	} {
		for _, held := range []bool{false, true} {
			t.Run(fmt.Sprint(name, "/held=", held), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					s := newSite(t, newDatabase(t, "a"), nil)
					if held {
						s.plain("before", "a", nil)
						time.Sleep(3 * time.Minute) // due
					}
					removed := false
					s.db.hook = func(verifier.Hint) {
						if !removed {
							removed = true
							s.db.set("a", nil)
							if err := remove(s.v); err != nil && (held || name != "Remove" && name != "Change") {
								t.Error(err)
							}
						}
					}
					s.verify("removed", "a", verifier.ErrUnknownTenant)
					if !removed {
						t.Error("nothing was removed")
					}
				})
			})
		}
	}
}

// TestResolveAndPut: a tenant that was put counts more than what Resolve says.
func TestResolveAndPut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "a", "b"), nil)
		narrow := tenant(t, "a", "https://a", func(r *verifier.Tenant) { r.Required = []string{"role"} })
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		s.plain("resolved", "a", nil)
		must(s.v.Put(narrow))
		s.verify("put", "a", verifier.ErrMissingClaim)
		s.db.questions()
		time.Sleep(10 * time.Minute)
		s.verify("it has no end", "a", verifier.ErrMissingClaim)
		s.asked("it has no end", 0)
		must(s.v.Remove("a"))
		s.verify("removed, and still in the database", "a", nil)
		s.plain("resolved", "b", nil)
		must(s.v.Put(tenant(t, "c", "https://b", nil)))
		tok, err := s.v.Verify(t.Context(), liveToken("c", "https://b"))
		check(t, "the issuer of one that was put", tok, err, nil)
		s.hinted("whose issuer was put", "b", verifier.ErrUnavailable)
		s.db.hook = func(verifier.Hint) { s.db.hook = nil; must(s.v.Put(tenant(t, "d", "https://d", nil))) }
		s.hinted("put while it was asked for", "d", nil)
		for _, id := range []string{"e", "f"} { // f is held by the time
			row := tenant(t, id, "https://"+id, nil)
			s.db.set(id, &row)
		}
		s.plain("resolved", "f", nil)
		time.Sleep(3 * time.Minute)
		for _, id := range []string{"e", "f"} {
			s.db.hook = func(verifier.Hint) {
				s.db.hook = nil
				must(s.v.Put(tenant(t, id, "https://"+id, func(r *verifier.Tenant) { r.Required = []string{"role"} })))
			}
			s.plain("put otherwise while it was asked for", id, verifier.ErrMissingClaim)
			s.hinted("put otherwise", id, verifier.ErrMissingClaim)
		}
		_, errs := s.v.Sync([]verifier.Tenant{tenant(t, "d", "https://d", nil)})
		must(errs["d"])
		s.db.questions()
		s.verify("not listed", "a", nil)
		s.asked("not listed", 1)
	})
}

// TestResolveSuspended: a suspension outlasts the TTL and all newcomers.
func TestResolveSuspended(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "a", "b", "c", "d"), func(c *verifier.Config) { c.MaxResolved = 2 })
		s.plain("before", "a", nil)
		if err := s.v.Suspend("a"); err != nil {
			t.Error(err)
		}
		for _, id := range []string{"b", "c", "d"} {
			s.plain("another", id, nil)
			time.Sleep(10 * time.Minute)
		}
		s.verify("suspended", "a", verifier.ErrSuspended)
		if err := s.v.Resume("a"); err != nil {
			t.Error(err)
		}
		s.verify("resumed", "a", nil)
		row := tenant(t, "e", "https://e", func(r *verifier.Tenant) { r.Suspended = true })
		s.db.set("e", &row)
		s.verify("a suspended row", "e", verifier.ErrSuspended)
	})
}

// TestResolveRivals: the issuer of a held tenant moves to another one only if its own row has let go of it.
func TestResolveRivals(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "a"), nil)
		s.plain("a", "a", nil)
		rival := tenant(t, "b", "https://a", nil)
		s.db.rows["b"] = rival
		of := func(what, id string, want error) {
			t.Helper()
			tok, err := s.v.VerifyTenant(t.Context(), id, liveToken(id, "https://a"))
			check(t, what, tok, err, want)
		}
		s.db.questions()
		of("both rows have it", "b", verifier.ErrUnavailable)
		s.asked("both rows have it", 2)
		s.verify("the one that is held", "a", nil)
		moved := tenant(t, "a", "https://elsewhere", nil)
		s.db.set("a", &moved)
		time.Sleep(time.Second)
		of("the issuer has moved", "b", nil)
		of("the issuer has moved", "a", verifier.ErrIssuer)
		s.db.set("b", nil)
		if err := s.v.Suspend("b"); err != nil {
			t.Error(err)
		}
		back := tenant(t, "a", "https://a", nil)
		s.db.set("a", &back)
		time.Sleep(5 * time.Minute)
		of("from a suspended one", "a", verifier.ErrUnavailable)
		of("suspended", "b", verifier.ErrSuspended)
		if err := s.v.Remove("b"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		of("from one that is gone", "a", nil)
	})
}

// TestResolveEvicts: the tenant that was used the longest ago makes room.
func TestResolveEvicts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ids := []string{"a", "b", "c", "d"}
		s := newSite(t, newDatabase(t, ids...), func(c *verifier.Config) { c.MaxResolved = 3 })
		use := func(id string, questions int) {
			t.Helper()
			time.Sleep(time.Millisecond)
			s.plain(id, id, nil)
			s.asked(id, questions)
		}
		use("a", 1)
		use("b", 1)
		use("c", 1)
		use("a", 0)
		use("c", 0)
		use("d", 1) // b makes room
		use("a", 0)
		use("c", 0)
		use("b", 1) // d makes room
		use("a", 0)
		use("c", 0)
		use("d", 1)
	})
}

// TestResolveNamesEvictNothing: strangers name tenants that exist, with tokens that are not good. Those
// in use stay.
func TestResolveNamesEvictNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		db := newDatabase(t)
		for i := range 500 {
			row := tenant(t, fmt.Sprint("t", i), fmt.Sprint("https://t", i), nil)
			db.set(row.ID, &row)
		}
		s := newSite(t, db, func(c *verifier.Config) { c.MaxResolved = 24; c.ResolveTTL = time.Hour })
		const inUse = 20
		for i := range inUse {
			s.plain("in use", fmt.Sprint("t", i), nil)
		}
		s.db.questions()
		r := rand.New(rand.NewPCG(1, 1))
		for range 2000 {
			forged := fmt.Sprint("t", inUse+r.IntN(500-inUse))
			if _, err := s.v.Verify(t.Context(), liveToken("x", "https://"+forged)); !errors.Is(err, verifier.ErrSignature) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.db.questions()
		for i := range inUse {
			s.plain("in use", fmt.Sprint("t", i), nil)
		}
		s.asked("tenants in use", 0)
	})
}

type slowLookup struct{ keystore.KeyStore }

func (s slowLookup) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	time.Sleep(time.Second)
	return s.KeyStore.Lookup(id, alg)
}

// TestResolveNewcomersTogether: newcomers that come at the same time do not evict each other before their
// tokens are judged, although all the room is taken.
func TestResolveNewcomersTogether(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		db := newDatabase(t)
		for i := range 200 {
			row := tenant(t, fmt.Sprint("t", i), fmt.Sprint("https://t", i), nil)
			db.set(row.ID, &row)
		}
		s := newSite(t, db, func(c *verifier.Config) { c.MaxResolved = 64 })
		for i := range 100 {
			s.plain("before", fmt.Sprint("t", i), nil)
		}
		time.Sleep(time.Second) // the budget
		s.db.questions()
		for _, questions := range []int{8, 0} {
			var all sync.WaitGroup
			for i := range 8 {
				row := db.rows[fmt.Sprint("t", 100+i)]
				row.Keys = slowLookup{row.Keys} // none is judged before all are held
				db.set(row.ID, &row)
				all.Go(func() { s.plain("together", row.ID, nil) })
			}
			all.Wait()
			s.asked("together", questions)
		}
	})
}

// TestResolvedTenantsAreNeverAlone: another issuer is asked for, although one tenant is held.
func TestResolvedTenantsAreNeverAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newSite(t, newDatabase(t, "b"), func(c *verifier.Config) { c.Tenants = []verifier.Tenant{tenant(t, "a", "https://a", nil)} })
		s.plain("held", "a", nil)
		s.plain("resolved", "b", nil)
		s.plain("unknown", "c", verifier.ErrUnknownTenant)
	})
}

func TestResolveConfig(t *testing.T) {
	resolve := newDatabase(t).resolve
	for _, cfg := range []verifier.Config{
		{MaxResolved: 1}, {ResolvePerSecond: 1}, {ResolveTTL: 1}, {ResolveTimeout: 1},
		{Resolve: resolve, MaxResolved: -1}, {Resolve: resolve, ResolvePerSecond: -1}, {Resolve: resolve, ResolveTTL: -1}, {Resolve: resolve, ResolveTimeout: -1},
	} {
		if _, err := verifier.New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// TestRemovedTenantsAreRefused removes tenants while others verify: once Remove has returned, no call
// accepts their tokens, whether the tenant was put or resolved.
func TestRemovedTenantsAreRefused(t *testing.T) {
	const rounds = 300
	for _, resolved := range []bool{false, true} {
		t.Run(fmt.Sprint("resolved=", resolved), func(t *testing.T) {
			db := newDatabase(t)
			cfg := verifier.Config{Tenants: []verifier.Tenant{tenant(t, "stays", "https://stays", nil), tenant(t, "too", "https://too", nil)}}
			if resolved {
				cfg.Resolve, cfg.ResolvePerSecond = db.resolve, 1_000_000
			}
			v, err := verifier.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for g := range 4 {
				all.Go(func() {
					for i := range rounds {
						id := fmt.Sprintf("t%d-%d", g, i)
						row := tenant(t, id, "https://"+id, nil)
						if db.set(id, &row); !resolved {
							if err := v.Put(row); err != nil {
								t.Error(err)
							}
						}
						comeAndGo(t, v, db, id)
					}
				})
			}
			all.Wait()
		})
	}
}

// comeAndGo verifies tokens of the tenant while it is removed.
func comeAndGo(t *testing.T, v *verifier.Verifier, db *database, id string) {
	token := liveToken(id, "https://"+id)
	var callers sync.WaitGroup
	for range 2 {
		callers.Go(func() {
			for range 3 {
				v.Verify(t.Context(), token)
				v.VerifyTenant(t.Context(), id, token)
			}
		})
	}
	runtime.Gosched()
	db.set(id, nil)
	v.Remove(id) // an error if it is not held
	for range 3 {
		_, err := v.Verify(t.Context(), token)
		_, hinted := v.VerifyTenant(t.Context(), id, token)
		for _, err := range []error{err, hinted} {
			if !errors.Is(err, verifier.ErrUnknownTenant) && !errors.Is(err, verifier.ErrUnavailable) {
				t.Errorf("%s was removed: %v", id, err)
			}
		}
	}
	callers.Wait()
	if _, err := v.Verify(t.Context(), token); err == nil {
		t.Errorf("%s came back", id)
	}
}
