package revocations

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// refuses reports whether the list refuses a token as revoked. An error other than that is "unknown".
func refuses(t testing.TB, i *issuer, l *List, token string) string {
	t.Helper()
	_, err := i.verifier(l).Verify(t.Context(), token)
	switch {
	case err == nil:
		return "accepted"
	case errors.Is(err, verifier.ErrRevoked):
		return "refused"
	case errors.Is(err, verifier.ErrUnavailable):
		return "unknown"
	}
	return err.Error()
}

// want checks what lists say of a token.
func want(t testing.TB, i *issuer, token, want string, lists ...*List) {
	t.Helper()
	for _, l := range lists {
		if got := refuses(t, i, l, token); got != want {
			t.Errorf("%s: the token is %s, want %s (%+v)", l.cfg.Instance, got, want, l.Status())
		}
	}
}

// revoked revokes a token of acme with a jti, and returns it.
func revoked(t testing.TB, i *issuer, l *List, jti string) (token string) {
	t.Helper()
	token = i.token("acme", map[string]any{"jti": jti})
	if _, err := l.RevokeToken(t.Context(), "acme", jti, time.Now().Add(15*time.Minute)); err != nil {
		t.Fatal(err)
	}
	return token
}

// TestTimelineWipe: the store is emptied, and a newcomer is there first. It answers nothing until a
// holder has put the lost entries back, and makes no digest key of its own.
func TestTimelineWipe(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		token := revoked(t, issuer, a, "1")
		time.Sleep(10 * time.Second)
		cluster.Wipe()
		b := open(t, cluster.Connect("b"), "b")
		time.Sleep(10 * time.Millisecond)
		want(t, issuer, token, "unknown", b)
		ready(t, b)
		want(t, issuer, token, "refused", a, b)
		if keys := b.Status().KeyNames; len(keys) != 1 || keys[0] != a.Status().KeyNames[0] {
			t.Errorf("the digest keys are %v and %v", a.Status().KeyNames, keys)
		}
	})
}

// TestTimelineWriterAfterWipe: the store is emptied, and a command is there first. It waits for the digest
// key of the holder, or the holder puts its own beside the new one: both revocations count everywhere.
func TestTimelineWriterAfterWipe(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		one := revoked(t, issuer, a, "1")
		time.Sleep(10 * time.Second)
		cluster.Wipe()
		command := open(t, cluster.Connect("command"), "command", func(c *Config) { c.Transient = true })
		two := revoked(t, issuer, command, "2")
		b := open(t, cluster.Connect("b"), "b")
		ready(t, b)
		time.Sleep(10 * time.Second)
		want(t, issuer, one, "refused", a, b)
		want(t, issuer, two, "refused", a, b)
	})
}

// TestTimelineSplit: a digest key is made on each of two sides of a split. After the heal both revocations
// count on both sides.
func TestTimelineSplit(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		conn := cluster.Connect("a")
		cluster.Split(0, false, conn)
		a, b := open(t, conn, "a"), open(t, cluster.Connect("b"), "b")
		ready(t, a, b)
		one, two := revoked(t, issuer, a, "1"), revoked(t, issuer, b, "2")
		time.Sleep(time.Second)
		want(t, issuer, two, "accepted", a)
		cluster.Heal()
		time.Sleep(10 * time.Second)
		want(t, issuer, one, "refused", a, b)
		want(t, issuer, two, "refused", a, b)
		if keys := b.Status().KeyNames; len(keys) != 2 {
			t.Errorf("the digest keys are %v, want two", keys)
		}
	})
}

// TestTimelineLeeway: the verifier forgives an expired token its leeway. So long the revocation counts.
// Afterwards it is forgotten by the list and in the store.
func TestTimelineLeeway(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(59 * time.Second))) // so that rounding up adds one second
		token := revoked(t, issuer, a, "1")
		time.Sleep(15*time.Minute + 29*time.Second)
		want(t, issuer, token, "refused", a)
		if a.Len() != 1 {
			t.Errorf("the list holds %d entries", a.Len())
		}
		time.Sleep(10 * time.Minute)
		if a.Len() != 0 {
			t.Errorf("the list holds %d entries after the end", a.Len())
		}
		for _, group := range cluster.Tenants() {
			if group != keysGroup {
				t.Errorf("the store still has the group %s", group)
			}
		}
	})
}

// TestTimelineReplay: a person puts back an entry that has ended, and an older version of one. The first
// does nothing, and the second is replaced.
func TestTimelineReplay(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		revoked(t, issuer, a, "1")
		group := func() string {
			for _, g := range cluster.Tenants() {
				if g != keysGroup {
					return g
				}
			}
			return ""
		}()
		old := cluster.Ring(group)
		if _, err := a.RevokeToken(t.Context(), "acme", "1", time.Now().Add(50*time.Minute)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		newer := cluster.Ring(group)
		cluster.EditRing(group, func(fields map[string][]byte) { maps.Copy(fields, old) })
		time.Sleep(10 * time.Second)
		for f, v := range cluster.Ring(group) {
			if string(v) != string(newer[f]) {
				t.Error("an older entry was left in the store")
			}
		}
		time.Sleep(58 * time.Minute)
		if a.Len() != 0 {
			t.Fatalf("%d entries", a.Len())
		}
		n := 0
		for ; len(cluster.Ring(group)) == 0; n++ { // until the group is there again
			revoked(t, issuer, a, fmt.Sprint("again", n))
		}
		cluster.EditRing(group, func(fields map[string][]byte) { maps.Copy(fields, newer) })
		time.Sleep(10 * time.Second)
		if a.Len() != n {
			t.Errorf("an entry that has ended came back: %d entries, want %d", a.Len(), n)
		}
	})
}

// TestTimelineStale: a list that is cut off answers until MaxStale, and then cannot tell. With StaleOK it
// serves on.
func TestTimelineStale(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		conn, waivedConn := cluster.Connect("a"), cluster.Connect("w")
		a, waived := open(t, conn, "a"), open(t, waivedConn, "w", func(c *Config) { c.StaleOK = true })
		ready(t, a, waived)
		bad, good := revoked(t, issuer, a, "1"), issuer.token("acme", nil)
		time.Sleep(time.Second)
		for _, c := range []*rotationtest.Conn{conn, waivedConn} {
			c.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		}
		time.Sleep(55 * time.Second)
		want(t, issuer, good, "accepted", a, waived)
		want(t, issuer, bad, "refused", a, waived)
		time.Sleep(6 * time.Second)
		want(t, issuer, good, "unknown", a)
		want(t, issuer, good, "accepted", waived)
		want(t, issuer, bad, "refused", waived)
		if s := a.Status(); s.Ready || !errors.Is(s.Err, ErrStale) || s.Unread == nil {
			t.Errorf("the status is %+v", s)
		}
		for _, c := range []*rotationtest.Conn{conn, waivedConn} {
			c.SetFaults(rotationtest.Faults{})
		}
		time.Sleep(5 * time.Second)
		want(t, issuer, good, "accepted", a)
	})
}

// TestTimelineFailover: a failover loses a revocation. Its holder puts it back, and lists go on.
func TestTimelineFailover(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		conn := cluster.Connect("b")
		a, b := open(t, cluster.Connect("a"), "a"), open(t, conn, "b")
		ready(t, a, b)
		first := revoked(t, issuer, a, "0")
		time.Sleep(20 * time.Second)
		conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
		token := revoked(t, issuer, a, "1")
		time.Sleep(10 * time.Millisecond)
		cluster.Failover(time.Second)
		want(t, issuer, token, "refused", a)
		time.Sleep(6 * time.Second)
		want(t, issuer, token, "refused", a, b)
		want(t, issuer, first, "refused", a, b)
	})
}

// TestSpareEntriesLeaveRoom: entries that are written besides others take half of the room at most, that of a tenant and
// that of all. Who logs in and out all day does not keep others from logging out.
func TestSpareEntriesLeaveRoom(t *testing.T) {
	virtual(t, func(t *testing.T) {
		for _, most := range []struct{ perTenant, all int }{{4, 100}, {100, 4}} {
			a := open(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}).Connect("a"), "a", func(c *Config) { c.MaxPerTenant, c.MaxEntries = most.perTenant, most.all })
			ready(t, a)
			for i := range 4 {
				sid := fmt.Sprint("s", i)
				if _, err := a.revokeSpare(t.Context(), "acme", sid, time.Time{}); errors.Is(err, ErrFull) != (i >= 2) {
					t.Errorf("%+v: spare entry %d: %v", most, i, err)
				}
			}
			for i, full := range []bool{false, false, true} {
				if _, err := a.RevokeSubject(t.Context(), "acme", fmt.Sprint("ann", i), time.Now()); errors.Is(err, ErrFull) != full {
					t.Errorf("%+v: subject %d: %v", most, i, err)
				}
			}
			a.Close(t.Context())
		}
	})
}

// TestTimelineShare: two sides of a split fill a tenant's share each. Both are held after the heal. Beyond
// twice the share nothing is forgotten unseen: that tenant's tokens are unknown, and other tenants' are not.
func TestTimelineShare(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme", "globex")
		share := func(n int) func(*Config) { return func(c *Config) { c.MaxPerTenant = n } }
		conn := cluster.Connect("a")
		a, b := open(t, conn, "a", share(2)), open(t, cluster.Connect("b"), "b", share(2))
		ready(t, a, b)
		time.Sleep(10 * time.Second)
		cluster.Split(0, false, conn)
		tokens := []string{revoked(t, issuer, a, "1"), revoked(t, issuer, a, "2"), revoked(t, issuer, b, "3"), revoked(t, issuer, b, "4")}
		for _, l := range []*List{a, b} {
			if _, err := l.RevokeToken(t.Context(), "acme", "5", time.Now().Add(time.Hour)); !errors.Is(err, ErrFull) {
				t.Errorf("over the share: %v", err)
			}
		}
		cluster.Heal()
		time.Sleep(10 * time.Second)
		for _, token := range tokens {
			want(t, issuer, token, "refused", a, b)
		}
		command := open(t, cluster.Connect("command"), "command", share(100), func(c *Config) { c.Transient = true })
		revoked(t, issuer, command, "5")
		time.Sleep(time.Second)
		want(t, issuer, issuer.token("acme", nil), "unknown", a, b)
		want(t, issuer, issuer.token("globex", nil), "accepted", a, b)
		time.Sleep(6 * time.Minute) // so long the revocation of a tenant leaves those of its tokens alone
		want(t, issuer, issuer.token("acme", nil), "unknown", a, b)
		if _, err := a.RevokeTenant(t.Context(), "acme", time.Now()); err != nil {
			t.Errorf("the tenant as a whole: %v", err)
		}
		time.Sleep(10 * time.Second)
		want(t, issuer, issuer.token("acme", nil), "accepted", a, b)
		for _, token := range tokens {
			want(t, issuer, token, "refused", a, b)
		}
	})
}

// TestTimelineLosingSide: a split leaves a list with an old primary, which has lost its replicas and so takes
// no write (min-replicas-to-write). A revocation on the other side is not heard there, so the list may answer
// until MaxStale and not longer. By reads alone it would not learn that its primary is an old one.
func TestTimelineLosingSide(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		conn := cluster.Connect("a")
		a, b := open(t, conn, "a"), open(t, cluster.Connect("b"), "b")
		ready(t, a, b)
		time.Sleep(10 * time.Second)
		cluster.Split(0, true, conn)
		split := time.Now()
		token := revoked(t, issuer, b, "1")
		want(t, issuer, token, "refused", b)
		for refuses(t, issuer, a, token) == "accepted" {
			if time.Since(split) > defaultMaxStale+time.Second {
				t.Fatalf("%v after the split the losing side still accepts it: %+v", time.Since(split), a.Status())
			}
			time.Sleep(100 * time.Millisecond)
		}
		want(t, issuer, token, "unknown", a)
		want(t, issuer, issuer.token("acme", nil), "unknown", a)
		if _, err := a.RevokeToken(t.Context(), "acme", "2", time.Now().Add(time.Hour)); err == nil {
			t.Error("a revocation was committed on the losing side")
		}
		cluster.Heal()
		time.Sleep(10 * time.Second)
		want(t, issuer, token, "refused", a, b)
		want(t, issuer, issuer.token("acme", nil), "accepted", a, b)
	})
}

// TestTimelineReady: a list that is alone is ready as soon as others had time to put back what the store may have
// lost, and no sooner.
func TestTimelineReady(t *testing.T) {
	for i := range 20 {
		virtual(t, func(t *testing.T) {
			begin := time.Now()
			a := open(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}).Connect("a"), fmt.Sprint("a", i))
			ready(t, a)
			if took, least := time.Since(begin), 2*a.cfg.gap(); took < least || took > least+100*time.Millisecond {
				t.Errorf("%s is ready after %v, want %v", a.cfg.Instance, took, least)
			}
		})
	}
}

// TestTimelineNoRoom: a command writes more than a list takes, for one tenant or for all. The list cannot tell,
// and needs no restart to tell again: either what it had no room for ends, or there is room for it, and it
// is read. A token whose revocation found no room is never accepted meanwhile.
func TestTimelineNoRoom(t *testing.T) {
	const early, late = 10 * time.Minute, 50 * time.Minute
	for name, tt := range map[string]struct {
		perTenant, all int
		held, last     time.Duration // how long the four tokens live whose revocations find room, and the others
		tells          time.Duration // by then the list can tell again
	}{
		"the tenant's revocations end":          {2, 100, early, late, early + 8*time.Minute},
		"what found no room ends":               {2, 100, late, early, early + 10*time.Minute},
		"there are too many, and they end":      {100, 2, early, late, early + 8*time.Minute},
		"there are too many, and the last ends": {100, 2, late, early, early + 10*time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
				a := open(t, cluster.Connect("a"), "a", func(c *Config) { c.MaxPerTenant, c.MaxEntries = tt.perTenant, tt.all })
				ready(t, a)
				command := open(t, cluster.Connect("command"), "command", func(c *Config) { c.Transient = true })
				begin := time.Now()
				for i := range 6 {
					exp := begin.Add(tt.held)
					if i >= 4 {
						exp = begin.Add(tt.last)
					}
					if _, err := command.RevokeToken(t.Context(), "acme", fmt.Sprint(i), exp); err != nil {
						t.Fatal(err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(5 * time.Second)
				if _, err := says(a, names{tenant: "acme", jti: "good"}); !errors.Is(err, ErrFull) {
					t.Fatalf("without room: %v", err)
				}
				for time.Since(begin) < tt.tells {
					time.Sleep(time.Second)
					if revoked, err := says(a, names{tenant: "acme", jti: "5"}); err == nil && !revoked && time.Since(begin) < tt.last {
						t.Fatalf("after %v the last token is accepted", time.Since(begin))
					}
				}
				if revoked, err := says(a, names{tenant: "acme", jti: "good"}); err != nil || revoked {
					t.Errorf("after %v a good token: %t, %v: %+v", tt.tells, revoked, err, a.Status())
				}
				if revoked, err := says(a, names{tenant: "acme", jti: "5"}); err != nil || revoked != (tt.last > tt.tells) {
					t.Errorf("after %v the last token: %t, %v", tt.tells, revoked, err)
				}
			})
		})
	}
}

// TestTimelineBeyondNotes: a command writes eight revocations for a tenant whose share is two. A list holds four and
// notes two. The store loses the two others, and later there is room. The list does not know what they were, so it
// cannot tell for the tenant until they have ended, or the whole tenant is revoked.
func TestTimelineBeyondNotes(t *testing.T) {
	const early, late = 10 * time.Minute, 50 * time.Minute
	for name, tt := range map[string]struct {
		perTenant, all int
		revokeAt       time.Duration // when the whole tenant is revoked, or zero
		tells          time.Duration // by then the list can tell again
	}{
		"a tenant's end":         {perTenant: 2, all: 100, tells: late + 10*time.Minute},
		"the tenant is revoked":  {perTenant: 2, all: 100, revokeAt: 15 * time.Minute, tells: 16 * time.Minute},
		"there are too many":     {perTenant: 2, all: 2, tells: late + 10*time.Minute},
		"too many of one tenant": {perTenant: 2, all: 2, revokeAt: 15 * time.Minute, tells: 16 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
				a := open(t, cluster.Connect("a"), "a", func(c *Config) { c.MaxPerTenant, c.MaxEntries = tt.perTenant, tt.all })
				ready(t, a)
				command := open(t, cluster.Connect("command"), "command", func(c *Config) { c.Transient = true })
				begin := time.Now()
				for i := range 8 {
					exp := begin.Add(early)
					if i >= 6 {
						exp = begin.Add(late)
					}
					if _, err := command.RevokeToken(t.Context(), "acme", fmt.Sprint(i), exp); err != nil {
						t.Fatal(err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(5 * time.Second)
				for _, jti := range []string{"6", "7"} {
					d := a.current().First().Digest(table.Token, "acme", jti)
					cluster.EditRing(groupName(groupOf(d, few)), func(fields map[string][]byte) { delete(fields, codec.Field(d)) })
				}
				for time.Since(begin) < tt.tells {
					if time.Sleep(time.Second); tt.revokeAt > 0 && time.Since(begin) > tt.revokeAt {
						if _, err := command.RevokeTenant(t.Context(), "acme", time.Now()); err != nil {
							t.Fatal(err)
						}
						tt.revokeAt = 0
					}
					lost := names{tenant: "acme", jti: "7", iat: begin.Unix()}
					if revoked, err := says(a, lost); err == nil && !revoked && time.Since(begin) < late {
						t.Fatalf("after %v the last token is accepted: %+v", time.Since(begin), a.Status())
					}
				}
				if revoked, err := says(a, names{tenant: "acme", jti: "good", iat: time.Now().Unix()}); err != nil || revoked {
					t.Errorf("after %v a good token: %t, %v: %+v", tt.tells, revoked, err, a.Status())
				}
			})
		})
	}
}

// TestTimelineKEK: the digest keys are sealed under a new KEK. No revocation is forgotten: not by an
// instance that runs with the old one alone, and not by one that starts with the new one alone. One that
// starts with the old one cannot tell.
func TestTimelineKEK(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		with := func(keks *rotation.KEKs) func(*Config) { return func(c *Config) { c.KEKs = keks } }
		both, err := rotation.NewKEKs(kekBytes(2), kekBytes(1))
		if err != nil {
			t.Fatal(err)
		}
		old := open(t, cluster.Connect("old"), "old")
		ready(t, old)
		token := revoked(t, issuer, old, "1")
		command, err := newList(cluster.Connect("command"), Config{KEKs: both, Transient: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			look           bool
			others, sealed int
		}{{true, 1, 0}, {false, 1, 1}, {true, 0, 0}} {
			report, err := command.rekey(t.Context(), step.look)
			if err != nil || report.Keys != 1 || len(report.Others) != step.others || report.Sealed != step.sealed {
				t.Errorf("%+v: %+v, %v", step, report, err)
			}
		}
		time.Sleep(10 * time.Second)
		newer := open(t, cluster.Connect("new"), "new", with(mustKEK(2)))
		ready(t, newer)
		time.Sleep(time.Second)
		want(t, issuer, token, "refused", old, newer)
		late := open(t, cluster.Connect("late"), "late")
		time.Sleep(20 * time.Second)
		want(t, issuer, token, "unknown", late)
		if s := late.Status(); !errors.Is(s.Err, ErrDigestKeys) || !errors.Is(s.Err, rotation.ErrWrongKEK) {
			t.Errorf("the status of one with the old KEK is %+v", s)
		}
		if err := late.SetKEKs(both); err != nil { // its KEK file has changed
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		want(t, issuer, token, "refused", late)
	})
}

// TestSetKEKs: the KEKs of a running list are replaced. It seals under the new one what the store loses, and
// takes no KEKs with which it could not be opened again.
func TestSetKEKs(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		both, err := rotation.NewKEKs(kekBytes(2), kekBytes(1))
		if err != nil {
			t.Fatal(err)
		}
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		token := revoked(t, issuer, a, "1")
		if err := a.SetKEKs(mustKEK(2)); err == nil || !errors.Is(err, rotation.ErrWrongKEK) {
			t.Errorf("KEKs that do not open the digest key: %v", err)
		}
		for _, keks := range []*rotation.KEKs{both, testKEK, both} {
			if err := a.SetKEKs(keks); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second) // the writes of a under the old KEK have arrived
		cluster.Wipe()               // a puts the digest key back, under the new KEK
		time.Sleep(10 * time.Second)
		if err := a.SetKEKs(mustKEK(2)); err != nil {
			t.Errorf("after the digest key was sealed again: %v", err)
		}
		b := open(t, cluster.Connect("b"), "b", func(c *Config) { c.KEKs = mustKEK(2) })
		ready(t, b)
		want(t, issuer, token, "refused", a, b)
		plain := open(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}).Connect("p"), "p", func(c *Config) { c.KEKs = nil })
		if plain.SetKEKs(testKEK) == nil || a.SetKEKs(nil) == nil {
			t.Error("a list changes between one with KEKs and one without")
		}
	})
}

// TestTimelineKeysRemoved: a person removes the digest key while a holder is away, and a command comes
// before the holder does. It waits, since acknowledgements are there, and makes no second key.
func TestTimelineKeysRemoved(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		conn := cluster.Connect("a")
		a := open(t, conn, "a")
		ready(t, a)
		token := revoked(t, issuer, a, "1")
		time.Sleep(5 * time.Second)
		conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		cluster.EditRing(keysGroup, func(fields map[string][]byte) { clear(fields) })
		command := open(t, cluster.Connect("command"), "command", func(c *Config) { c.Transient = true })
		time.AfterFunc(2*time.Second, func() { conn.SetFaults(rotationtest.Faults{}) })
		second := revoked(t, issuer, command, "2")
		b := open(t, cluster.Connect("b"), "b")
		ready(t, b)
		time.Sleep(5 * time.Second)
		want(t, issuer, token, "refused", a, b)
		want(t, issuer, second, "refused", a, b)
		if keys := b.Status().KeyNames; len(keys) != 1 {
			t.Errorf("the digest keys are %v", keys)
		}
	})
}

// TestTimelineClockAhead: an instance whose clock is an hour ahead does not forget a revocation early, and
// does not remove it from the store.
func TestTimelineClockAhead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		ahead := func(d time.Duration) func(*Config) {
			return func(c *Config) { c.Now = func() time.Time { return time.Now().Add(d) } }
		}
		a, b := open(t, cluster.Connect("a"), "a", ahead(time.Hour)), open(t, cluster.Connect("b"), "b")
		ready(t, a, b)
		token := revoked(t, issuer, b, "1")
		time.Sleep(10 * time.Minute)
		want(t, issuer, token, "refused", a, b)
		if !a.Status().ClockOff || b.Status().ClockOff {
			t.Errorf("the clocks: %t and %t", a.Status().ClockOff, b.Status().ClockOff)
		}
		c := open(t, cluster.Connect("c"), "c")
		ready(t, c)
		want(t, issuer, token, "refused", c)
		cluster.Advance(time.Hour) // now the store's clock is ahead
		time.Sleep(5 * time.Minute)
		d := open(t, cluster.Connect("d"), "d")
		ready(t, d)
		want(t, issuer, token, "refused", b, d)
	})
}

// TestFuture: a time of the future is refused by the store's clock, whatever the caller's says.
func TestFuture(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := open(t, cluster.Connect("a"), "a", func(c *Config) { c.Now = func() time.Time { return time.Now().Add(24 * time.Hour) } })
		ready(t, a)
		for after, fine := range map[time.Duration]bool{2 * time.Second: true, 5 * time.Second: false, 24 * time.Hour: false} {
			if _, err := a.RevokeSubject(t.Context(), "acme", "ann", time.Now().Add(after)); fine != (err == nil) || !fine && !errors.Is(err, ErrFuture) {
				t.Errorf("%v ahead: %v", after, err)
			}
		}
	})
}

// TestTenantReplaces: the revocation of a whole tenant replaces those of its subjects and of tokens that
// were revoked long enough before, in memory and in the store, and makes room. A session stays.
func TestTenantReplaces(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a, b := open(t, cluster.Connect("a"), "a"), open(t, cluster.Connect("b"), "b")
		ready(t, a, b)
		tokens := []string{revoked(t, issuer, a, "1"), issuer.token("acme", map[string]any{"sub": "ann"})}
		if _, err := a.RevokeSubject(t.Context(), "acme", "ann", time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := a.RevokeSession(t.Context(), "acme", "s", time.Time{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		if _, err := b.RevokeTenant(t.Context(), "acme", time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		for _, l := range []*List{a, b} {
			if l.Len() != 2 {
				t.Errorf("%s holds %d entries, want the tenant and the session", l.cfg.Instance, l.Len())
			}
		}
		for _, token := range tokens {
			want(t, issuer, token, "refused", a, b)
		}
		want(t, issuer, issuer.token("acme", map[string]any{"sid": "s"}), "refused", a, b)
		want(t, issuer, issuer.token("acme", nil), "accepted", a, b)
		fields := 0
		for _, g := range cluster.Tenants() {
			if g != keysGroup {
				fields += len(cluster.Ring(g))
			}
		}
		if fields != 2 {
			t.Errorf("the store has %d entries", fields)
		}
	})
}

// TestTimelineLateKey: an instance starts while the digest key is missing in the store, and cannot read the
// entries. When a holder has put the key back, it reads them.
func TestTimelineLateKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		conn := cluster.Connect("a")
		a := open(t, conn, "a")
		ready(t, a)
		token := revoked(t, issuer, a, "1")
		time.Sleep(5 * time.Second)
		conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		cluster.EditRing(keysGroup, func(fields map[string][]byte) { clear(fields) })
		b := open(t, cluster.Connect("b"), "b")
		time.Sleep(2 * time.Second)
		want(t, issuer, token, "unknown", b)
		conn.SetFaults(rotationtest.Faults{})
		ready(t, b)
		want(t, issuer, token, "refused", b)
	})
}

// TestTimelineLogAlone: a person removes a revocation before another instance has read it. The log tells it.
func TestTimelineLogAlone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		conn := cluster.Connect("a")
		a, b := open(t, conn, "a"), open(t, cluster.Connect("b"), "b")
		ready(t, a, b)
		token := revoked(t, issuer, a, "1")
		conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		for _, g := range cluster.Tenants() {
			if g != keysGroup {
				cluster.DeleteRing(g)
			}
		}
		time.Sleep(100 * time.Millisecond)
		want(t, issuer, token, "refused", a, b)
	})
}

// TestTimelineHidden: a person removes a revocation from the group and from the log, before anyone has read it
// and even its writer has read it back. The writer holds it, and puts it back for all.
func TestTimelineHidden(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a, b := open(t, cluster.Connect("a"), "a"), open(t, cluster.Connect("b"), "b")
		ready(t, a, b)
		time.Sleep(time.Second)
		token := revoked(t, issuer, a, "1")
		for _, g := range cluster.Tenants() {
			if g != keysGroup {
				cluster.DeleteRing(g)
				cluster.Trim(rotation.BucketOf(g), 0)
			}
		}
		time.Sleep(2 * gap)
		c := open(t, cluster.Connect("c"), "c")
		ready(t, c)
		want(t, issuer, token, "refused", a, b, c)
	})
}

// A deaf is a store whose writes are lost, and have no answer.
type deaf struct {
	rotation.Store
	lost atomic.Bool
}

func (d *deaf) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	if d.lost.Load() {
		return rotation.Result{}, context.DeadlineExceeded
	}
	return d.Store.Write(ctx, c)
}

// TestTimelineUnknownOutcome: a write has no answer, and was lost. The caller gets an error. The list refuses all
// the same, and soon everyone does.
func TestTimelineUnknownOutcome(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		store := &deaf{Store: cluster.Connect("a")}
		a, b := open(t, store, "a"), open(t, cluster.Connect("b"), "b")
		ready(t, a, b)
		for n := range 40 { // so that a has read every group, and its digest stays the same
			revoked(t, issuer, a, fmt.Sprint("other", n))
		}
		time.Sleep(10 * time.Second)
		token := issuer.token("acme", map[string]any{"jti": "1"})
		store.lost.Store(true)
		if _, err := a.RevokeToken(t.Context(), "acme", "1", time.Now().Add(time.Hour)); err == nil {
			t.Fatal("the write had an answer")
		}
		want(t, issuer, token, "refused", a)
		store.lost.Store(false)
		time.Sleep(2 * gap)
		want(t, issuer, token, "refused", a, b)
	})
}
