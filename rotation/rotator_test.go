package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A fleet is a store with a ring of acme, and one member that made it.
type fleet struct {
	t       *testing.T
	cluster *rotationtest.Cluster
	*member
	commits []rotationtest.Commit
	mu      sync.Mutex
}

func newFleet(t *testing.T, policy ring.Policy) *fleet {
	t.Helper()
	f := &fleet{t: t}
	f.cluster = rotationtest.NewCluster(rotationtest.ClusterConfig{Committed: func(c rotationtest.Commit) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.commits = append(f.commits, c)
	}})
	f.member = join(t, f.cluster, "a", func(c *rotation.Config) { c.TrustFirstRead = true })
	if err := f.rotator.Create(t.Context(), "acme", policy); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) ops() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ops []string
	for _, c := range f.commits {
		ops = append(ops, string(c.Op))
	}
	return strings.Join(ops, " ")
}

// kid returns the kid of the key with that seq.
func (m *member) kid(seq int) string {
	m.t.Helper()
	s, err := m.Tenant("acme")
	if err != nil {
		m.t.Fatal(err)
	}
	for _, k := range s.Ring.Keys {
		if k.Seq == seq {
			return k.KID
		}
	}
	m.t.Fatalf("no key has seq %d: %s", seq, m.ring())
	return ""
}

// finds reports what Lookup says of a key.
func (m *member) finds(kid string) string {
	keys, err := m.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.HS256)
	switch {
	case errors.Is(err, keystore.ErrUnavailable):
		return "unavailable"
	case errors.Is(err, keystore.ErrNotFound):
		return "not found"
	case err != nil || len(keys) != 1:
		return fmt.Sprint(keys, err)
	}
	return "found"
}

func wantRing(t *testing.T, m *member, want string) {
	t.Helper()
	if got := m.ring(); got != want {
		t.Errorf("at %v the ring is %q, want %q", time.Now().Format("04:05.000"), got, want)
	}
}

func wantRefused(t *testing.T, err error) *ring.RefusedError {
	t.Helper()
	var refused *ring.RefusedError
	if !errors.As(err, &refused) || !errors.Is(err, ring.ErrRefused) {
		t.Fatalf("%v, want a RefusedError", err)
	}
	return refused
}

// last returns the last change.
func (f *fleet) last() rotationtest.Commit {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commits[len(f.commits)-1]
}

// bounds renders what the last change demanded of its times: each, after the store's, and
// from when to when it has to lie.
func (f *fleet) bounds() string {
	last := f.last()
	var all []string
	for _, b := range last.Bounds {
		from := b.From.String()
		if b.From < -100*365*24*time.Hour {
			from = "ever"
		}
		all = append(all, fmt.Sprintf("%v(%s..%v)", b.At.Sub(last.Result.Now), from, b.To))
	}
	slices.Sort(all)
	return string(last.Op) + ": " + strings.Join(all, " ")
}

// Every time that is proposed is held to a window around the store's clock, of 1.4s, and
// when a key is to sign to what is not too soon, and not too late.
func TestEveryChangeIsHeldToTheClockOfTheStore(t *testing.T) {
	const announced, happened = "700ms(0s..1.4s)", "0s(-1.4s..0s)"
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		want := func(want string) {
			t.Helper()
			if got := f.bounds(); got != want {
				t.Errorf("%s\nwant %s", got, want)
			}
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		want("create: 0s(-1.4s..1.4s) " + announced + " " + announced)
		time.Sleep(3 * time.Second)
		// P, and T and P and the window after the one before, which is to sign in 3s.
		must(f.rotator.SetPolicy(t.Context(), "acme", fast))
		want("mint: " + announced + " 9s(4.5s..14.9s)")
		must(errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(2))))
		want("promote: " + happened + " " + announced)
		time.Sleep(3 * time.Second)
		must(errorOf(f.rotator.Rotate(t.Context(), "acme")))
		want("rotate: " + happened + " 6s(4.5s..11.9s) " + announced + " " + announced)
		must(errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(4), rotation.Force)))
		want("promote: " + happened + " " + happened + " " + announced)
		must(errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(1))))
		want("revoke: " + happened)
		must(errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(4), rotation.Force)))
		want("revoke: " + happened + " " + announced) // the one that is minted signs in F + S
	})
}

// What is put back was held to that clock before, which may have been ahead; what is news
// with it, as anything new.
func TestAMergeIsHeldToTheClockOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(3 * time.Second)
		if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1)); err != nil {
			t.Fatal(err)
		}
		changed := time.Now()
		f.cluster.Wipe()
		time.Sleep(fastPoll * 6 / 5)
		ago := changed.Sub(f.last().Result.Now)
		news, merged := "700ms(0s..1.4s)", ago.String()+"(ever..1.9s)" // and 2S
		// Three are announced, and the pending one is published anew; the second was
		// promoted, and the first revoked.
		want := []string{news, news, news, news, merged, merged}
		slices.Sort(want)
		if got := f.bounds(); got != "merge: "+strings.Join(want, " ") {
			t.Errorf("%s\nwant %q", got, want)
		}
	})
}

// That a key was made to sign by force is in the ring, for who asks why its tokens were
// refused.
func TestAForcedPromotionIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		forced := func() bool { return f.cluster.Ring("acme")["f:"+f.kid(2)] != nil }
		if _, err := f.rotator.Rotate(t.Context(), "acme", rotation.Force); err != nil || !forced() {
			t.Errorf("Rotate by force: recorded %v, %v", forced(), err)
		}
	})
	for _, opts := range [][]rotation.Option{{rotation.Force}, nil} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, fast)
			defer f.leave()
			time.Sleep(3 * time.Second) // it need not be forced any more
			_, err := f.rotator.Promote(t.Context(), "acme", f.kid(2), opts...)
			if forced := f.cluster.Ring("acme")["f:"+f.kid(2)] != nil; err != nil || forced != (opts != nil) {
				t.Errorf("Promote by force %v: recorded %v, %v", opts != nil, forced, err)
			}
		})
	}
}

func TestCreateIsRefusedIfThereIsARing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		before := f.ring()
		wantRefused(t, f.rotator.Create(t.Context(), "acme", fast))
		wantRing(t, f.member, before)
		if err := f.rotator.Create(t.Context(), "globex", fast); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("Create of a tenant that is not held: %v", err)
		}
	})
}

func TestTwoQuickRotationsDoNotDefeatPropagation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		refused := wantRefused(t, errorOf(f.rotator.Rotate(t.Context(), "acme")))
		if wait := time.Until(refused.From); wait < fast.Freshness+fast.ClockSkew || wait > fast.Freshness+fast.ClockSkew+2*(fast.ClockSkew+fastDeadline) {
			t.Errorf("it may be in %v, want F + S and a little", wait)
		}
		wantRing(t, f.member, "1=signing* 2=pending")
		time.Sleep(time.Until(refused.From))
		receipt, err := f.rotator.Rotate(t.Context(), "acme")
		if err != nil || receipt.Promoted != f.kid(2) || receipt.Minted != f.kid(3) || receipt.CommittedAt.IsZero() {
			t.Fatalf("%+v, %v", receipt, err)
		}
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
		wantRefused(t, errorOf(f.rotator.Rotate(t.Context(), "acme")))
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
	})
}

func TestForcedRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		receipt, err := f.rotator.Rotate(t.Context(), "acme", rotation.Force)
		if err != nil || receipt.Promoted != f.kid(2) || receipt.Minted != f.kid(3) {
			t.Fatalf("%+v, %v", receipt, err)
		}
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
		// The key is not signed with before a good sync later than its minting and the
		// dwell has confirmed it: this instance made it, and nobody else may have it.
		if _, err := f.signer.Sign(t.Context(), "acme", nil); !errors.Is(err, rotation.ErrFenced) {
			t.Errorf("%v, want ErrFenced", err)
		}
		time.Sleep(fast.Dwell + 2*fastPoll)
		if _, err := f.signer.Sign(t.Context(), "acme", nil); err != nil {
			t.Error(err)
		}
	})
}

func TestPromote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(3500 * time.Millisecond)
		if err := f.rotator.SetPolicy(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		wantRing(t, f.member, "1=signing* 2=pending 3=pending")
		wantRefused(t, errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(3))))
		wantRefused(t, errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(1))))
		if err := errorOf(f.rotator.Promote(t.Context(), "acme", "no-such")); !errors.Is(err, keystore.ErrNotFound) {
			t.Error(err)
		}
		if err := errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(2))); err != nil {
			t.Fatal(err)
		}
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
		if err := errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(3), rotation.Force)); err != nil {
			t.Fatal(err)
		}
		wantRing(t, f.member, "1=retired 2=retired 3=signing*")
	})
}

func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		one, two := f.kid(1), f.kid(2)
		refused := wantRefused(t, errorOf(f.rotator.Revoke(t.Context(), "acme", one)))
		if refused.From.IsZero() {
			t.Error("the refusal does not say from when on it may be")
		}
		time.Sleep(time.Until(refused.From))
		receipt, err := f.rotator.Revoke(t.Context(), "acme", one)
		if err != nil || receipt.Revoked != one || receipt.Promoted != two || !receipt.NoSignerUntil.IsZero() || receipt.RevokedAt.IsZero() {
			t.Fatalf("%+v, %v", receipt, err)
		}
		if want := receipt.CommittedAt.Add(fast.SignFor + fast.MaxTokenTTL + fast.Leeway); !receipt.WorstCase.Equal(want) {
			t.Errorf("worst case %v, want %v", receipt.WorstCase, want)
		}
		wantRing(t, f.member, "1=revoked 2=signing*")
		if got := f.finds(one); got != "not found" {
			t.Errorf("the revoked key is %s", got)
		}
		again, err := f.rotator.Revoke(t.Context(), "acme", one)
		if err != nil || !again.RevokedAt.Equal(receipt.RevokedAt) || !again.CommittedAt.IsZero() {
			t.Errorf("again: %+v, %v", again, err)
		}
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", "no-such")); !errors.Is(err, keystore.ErrNotFound) {
			t.Error(err)
		}
		if _, err := f.signer.Sign(t.Context(), "acme", nil); err != nil {
			t.Errorf("the key that took over: %v", err)
		}
	})
}

func TestForcedRevocationLeavesNobodySigning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		receipt, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1), rotation.Force)
		if err != nil || receipt.Promoted != "" || receipt.Minted == "" || receipt.NoSignerUntil.IsZero() {
			t.Fatalf("%+v, %v", receipt, err)
		}
		wantRing(t, f.member, "1=revoked 3=pending 2=pending")
		if _, err := f.signer.Sign(t.Context(), "acme", nil); !errors.Is(err, rotation.ErrNoSigner) {
			t.Errorf("%v, want ErrNoSigner", err)
		}
		time.Sleep(time.Until(receipt.NoSignerUntil) + fastPoll)
		token, err := f.signer.Sign(t.Context(), "acme", nil)
		if err != nil || kidOf(t, token) != receipt.Minted {
			t.Errorf("then: %v", err)
		}
	})
}

func TestRevokeAPendingKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(2))); err != nil {
			t.Fatal(err)
		}
		wantRing(t, f.member, "1=signing* 2=revoked")
		defer f.run()()
		time.Sleep(4 * time.Second)
		wantRing(t, f.member, "1=signing* 3=pending 2=revoked")
	})
}

func TestARevocationArrivesWithTheNudgeAndWithoutItWithThePoll(t *testing.T) {
	for _, lose := range []float64{0, 1} {
		t.Run(fmt.Sprintf("nudges lost %v", lose), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				other := join(t, f.cluster, "b", func(c *rotation.Config) { c.TrustFirstRead = true })
				defer other.leave()
				other.conn.SetFaults(rotationtest.Faults{LoseNudge: lose, Before: time.Millisecond, After: time.Millisecond})
				keys, err := other.Lookup(keystore.ID{Tenant: "acme", KID: f.kid(1)}, keystore.HS256)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(3333 * time.Millisecond)
				revoked := time.Now()
				if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(1))); err != nil {
					t.Fatal(err)
				}
				for keys[0].Usable(time.Now()) && time.Since(revoked) < time.Minute {
					time.Sleep(time.Millisecond)
				}
				limit := 100 * time.Millisecond
				if lose > 0 {
					limit = fastPoll*6/5 + fastDeadline
				}
				if took := time.Since(revoked); took > limit {
					t.Errorf("the key of a cached token ended %v after, want %v", took, limit)
				}
			})
		})
	}
}

func TestRotatorsRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		members := make([]*member, 8)
		for i := range members {
			members[i] = join(t, f.cluster, fmt.Sprint("m", i), func(c *rotation.Config) { c.TrustFirstRead = true })
			defer members[i].leave()
			members[i].conn.SetFaults(rotationtest.Faults{Before: time.Millisecond, Spread: 5 * time.Millisecond})
		}
		time.Sleep(6500 * time.Millisecond) // the second signs, none is pending
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for _, m := range members {
			for range 8 {
				wg.Go(func() { m.rotator.Run(ctx) })
			}
		}
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		if got := f.ops(); got != "create mint" {
			t.Errorf("64 rotators did: %s", got)
		}
	})
}

func TestManualRotationsRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(4 * time.Second)
		var wg sync.WaitGroup
		var done atomic.Int32
		for range 8 {
			wg.Go(func() {
				switch err := errorOf(f.rotator.Rotate(t.Context(), "acme")); {
				case err == nil:
					done.Add(1)
				case !errors.Is(err, ring.ErrRefused):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if done.Load() != 1 {
			t.Errorf("%d of 8 rotations at once were done, want 1", done.Load())
		}
		wantRing(t, f.member, "1=retired 2=signing* 3=pending")
	})
}

func TestSetPolicyTakesEffectWithTheNextKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		es := fast
		es.Algorithm, es.ReaderStaleness = keystore.ES256, time.Second
		wantRefused(t, f.rotator.SetPolicy(t.Context(), "acme", es)) // F + S after the last mint
		time.Sleep(3 * time.Second)
		if err := f.rotator.SetPolicy(t.Context(), "acme", es); err != nil {
			t.Fatal(err)
		}
		bad := es
		bad.Propagation = 10 * time.Second
		if err := f.rotator.SetPolicy(t.Context(), "acme", bad); err == nil || !strings.Contains(err.Error(), "Every >= Propagation") {
			t.Errorf("%v", err)
		}
		s, _ := f.Tenant("acme")
		last := s.Ring.Keys[2]
		if last.Algorithm != keystore.ES256 || last.State != ring.Pending || last.ActivatesAt.Sub(s.Ring.Keys[1].ActivatesAt) != fast.Every {
			t.Errorf("%+v", last)
		}
	})
}

func TestBootstrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		allow := func(c *rotation.Config) { c.AllowBootstrap, c.Policy = true, fast }
		a, b := join(t, cluster, "a", allow), join(t, cluster, "b", allow)
		defer a.leave()
		defer b.leave()
		defer a.run()()
		defer b.run()()
		if err := a.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); waited < fast.Freshness+fast.ClockSkew {
			t.Errorf("the first ring was made after %v: whoever holds what the store has lost had no time", waited)
		}
		wantRing(t, a, "1=signing* 2=pending")
		time.Sleep(time.Second)
		if a.kid(1) != b.kid(1) {
			t.Error("two first rings")
		}
	})
}

func TestNothingIsMadeWithoutLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a")
		defer m.leave()
		defer m.run()()
		time.Sleep(time.Minute)
		if rings := cluster.Tenants(); len(rings) > 0 {
			t.Errorf("rings of %v", rings)
		}
		if got := m.finds("any"); got != "unavailable" {
			t.Errorf("an empty ring: %s, want unavailable", got)
		}
	})
}

func TestAOneShotLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		before := f.ops()
		once := join(t, f.cluster, "command", func(c *rotation.Config) { c.OneShot = true })
		if _, err := once.signer.Sign(t.Context(), "acme", nil); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		once.leave()
		acks, err := f.conn.Acks(t.Context(), rotation.BucketOf("acme"), rotation.Place{})
		if err != nil || len(acks) != 1 || acks[0].Instance != "a" {
			t.Errorf("acks: %v, %v", acks, err)
		}
		if f.ops() != before {
			t.Errorf("it wrote: %s", f.ops())
		}
	})
}

func TestAcksTellWhoHasHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		near := join(t, f.cluster, "near", func(c *rotation.Config) { c.TrustFirstRead = true })
		defer near.leave()
		far := join(t, f.cluster, "far", func(c *rotation.Config) { c.TrustFirstRead = true })
		time.Sleep(time.Second)
		far.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		time.Sleep(3 * time.Second)
		receipt, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		acks, err := f.rotator.Acks(t.Context(), receipt)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]bool)
		for _, a := range acks {
			got[a.Instance] = a.Applied
		}
		if want := map[string]bool{"a": true, "near": true, "far": false}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
		far.conn.SetFaults(rotationtest.Faults{})
		far.leave()
	})
}

func errorOf(_ rotation.Receipt, err error) error { return err }

// Undecryptable is not absent: error, wrong type or wrong KEK never lead to a key.
func TestNoKeyIsMintedWhereOneCannotBeOpened(t *testing.T) {
	other, err := rotation.NewKEKs([]byte("another KEK, another KEK, anothe"))
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(c *rotationtest.Cluster){
		"another KEK":  func(*rotationtest.Cluster) {},
		"a wrong type": func(c *rotationtest.Cluster) { c.SetWrongType("acme", true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				f.leave()
				spoil(f.cluster)
				m := join(t, f.cluster, "stranger", func(c *rotation.Config) {
					c.KEKs, c.Tenants, c.AllowBootstrap, c.Policy, c.TrustFirstRead = other, []string{"acme", "globex"}, true, fast, true
				})
				defer m.leave()
				defer m.run()()
				time.Sleep(time.Minute)
				f.mu.Lock()
				defer f.mu.Unlock()
				for _, c := range f.commits {
					if c.Tenant == "acme" && c.Instance == "stranger" {
						t.Errorf("it made a %s of acme", c.Op)
					}
				}
				if s, _ := m.Tenant("globex"); s.Ring.Signer < 0 || !s.Fresh {
					t.Errorf("the tenant beside it: %+v", s)
				}
				if s, _ := m.Tenant("acme"); s.Fresh || s.Err == nil {
					t.Errorf("acme: %+v", s)
				}
			})
		})
	}
}
