package revocations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// TestClockJump: the clock of an instance jumps forward for a while, and then is set right. What it took
// for ended meanwhile counts again, and so do later revocations.
func TestClockJump(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, c := range map[string]struct{ away, storeToo bool }{
		"store in reach":      {},
		"store away":          {away: true},
		"the store jumps too": {storeToo: true},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
				conn := cluster.Connect("a")
				var skew atomic.Int64
				now := func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) } }
				a, b := open(t, conn, "a", now), open(t, cluster.Connect("b"), "b")
				ready(t, a, b)
				one := revoked(t, issuer, b, "1")
				time.Sleep(10 * time.Second)
				if c.away {
					conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
				}
				if c.storeToo {
					cluster.Advance(year)
				}
				skew.Store(int64(year))
				time.Sleep(10 * time.Second)
				skew.Store(0)
				if c.storeToo {
					cluster.Advance(-year)
				}
				if got := refuses(t, issuer, a, one); got == "accepted" {
					t.Error("the token is accepted when the clock is set right")
				}
				conn.SetFaults(rotationtest.Faults{})
				time.Sleep(20 * time.Second)
				want(t, issuer, one, "refused", a, b)
				two := revoked(t, issuer, b, "2")
				time.Sleep(5 * time.Second)
				want(t, issuer, two, "refused", a, b)
			})
		})
	}
}

// TestOldAckHidesNothing: a person removes a revocation and its entry of the log, while the acknowledgement
// of an instance that crashed before is still there. A newcomer does not believe that one: a live instance
// has read more of the log than there is.
func TestOldAckHidesNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		conn := cluster.Connect("crashed")
		a, crashed := open(t, cluster.Connect("a"), "a"), open(t, conn, "crashed")
		ready(t, a, crashed)
		time.Sleep(30 * time.Second)
		conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		_ = crashed.Close(t.Context())
		time.Sleep(30 * time.Second)
		token := revoked(t, issuer, a, "1")
		time.Sleep(3 * time.Second) // a has acknowledged it
		for _, g := range cluster.Tenants() {
			if g != keysGroup {
				cluster.DeleteRing(g)
				cluster.CutLog(rotation.BucketOf(g), 1)
			}
		}
		c := open(t, cluster.Connect("c"), "c")
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if got := refuses(t, issuer, c, token); got == "accepted" {
				t.Fatalf("the newcomer accepts a revoked token: %+v", c.Status())
			}
		}
		want(t, issuer, token, "refused", a, c)
	})
}

// TestKeyCountsWhenItIsKnown: what is revoked under a digest key that was read a moment ago is refused when
// the call has returned, and not only when the sync that has read the key has ended.
func TestKeyCountsWhenItIsKnown(t *testing.T) {
	l, err := newList(rotationtest.NewCluster(rotationtest.ClusterConfig{}).Connect("a"), Config{KEKs: testKEK, Logger: quiet, groups: few})
	if err != nil {
		t.Fatal(err)
	}
	k, err := codec.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	field, value, err := codec.SealKey(*l.box.Load(), k)
	if err != nil {
		t.Fatal(err)
	}
	l.joinKeys(map[string][]byte{field: value})
	l.holdEarly(l.entryOf(order{kind: table.Token, tenant: "acme", name: "1", exp: time.Now().Add(time.Hour)}, k))
	v := l.view.Load()
	marks := v.marks(names{tenant: "acme", jti: "1"})
	if revoked, err := l.lookUp(v, &marks); err != nil || !revoked {
		t.Errorf("lookUp = %t, %v", revoked, err)
	}
}

// TestUnreadable: a writer removes the digest key, or changes the version of an entry, while no instance
// runs. The list cannot tell the revoked tokens any more, and an instance that starts says so, until the
// group is removed.
func TestUnreadable(t *testing.T) {
	for name, edit := range map[string]func(c *rotationtest.Cluster, group string){
		"the digest key is gone": func(c *rotationtest.Cluster, _ string) { c.DeleteRing(keysGroup) },
		"a newer version": func(c *rotationtest.Cluster, group string) {
			c.Trim(rotation.BucketOf(group), 0) // a newcomer would learn from the log, and put the entry back
			c.EditRing(group, func(fields map[string][]byte) {
				for _, value := range fields {
					value[2]++
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
				a := open(t, cluster.Connect("a"), "a")
				ready(t, a)
				revoked(t, issuer, a, "1")
				group := groupName(groupOf(a.current().First().Digest(table.Token, "acme", "1"), few))
				time.Sleep(10 * time.Second)
				if n := a.Status().Unreadable; n != 0 {
					t.Errorf("%d groups are unreadable before", n)
				}
				_ = a.Close(t.Context())
				edit(cluster, group)
				b := open(t, cluster.Connect("b"), "b")
				ready(t, b)
				if s := b.Status(); s.Unreadable != 1 || !slices.Equal(s.UnreadableIn, []string{group}) {
					t.Errorf("%d groups are unreadable, want %s: %+v", s.Unreadable, group, s)
				}
				cluster.DeleteRing(group) // a person does, once what matters is revoked again
				time.Sleep(time.Minute)
				if s := b.Status(); s.Unreadable != 0 || len(s.UnreadableIn) > 0 {
					t.Errorf("after the group was removed: %+v", s)
				}
			})
		})
	}
}

// TestWaivedListSaysThatItIsStale: with StaleOK a list serves on without the store, and its status says that
// it does.
func TestWaivedListSaysThatItIsStale(t *testing.T) {
	virtual(t, func(t *testing.T) {
		conn := rotationtest.NewCluster(rotationtest.ClusterConfig{}).Connect("a")
		a := open(t, conn, "a", func(c *Config) { c.StaleOK = true })
		ready(t, a)
		conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(50 * time.Second)
		if s := a.Status(); !s.Ready || s.Err != nil {
			t.Errorf("before MaxStale: %+v", s)
		}
		time.Sleep(20 * time.Second)
		if s := a.Status(); !s.Ready || s.Err != ErrStale {
			t.Errorf("after MaxStale: %+v", s)
		}
		conn.SetFaults(rotationtest.Faults{})
		time.Sleep(10 * time.Second)
		if s := a.Status(); !s.Ready || s.Err != nil {
			t.Errorf("back: %+v", s)
		}
	})
}

// TestStoreClockPushedAhead: a person writes an entry of the log that is dated 2199, so the store's clock is
// ahead for ever. Subjects can be revoked all the same, a wait names who has not applied it, and an old
// acknowledgement does not vouch for a log that was cut.
func TestStoreClockPushedAhead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		conn, crash := cluster.Connect("b"), cluster.Connect("crashed")
		a, b, crashed := open(t, cluster.Connect("a"), "a"), open(t, conn, "b"), open(t, crash, "crashed")
		ready(t, a, b, crashed)
		time.Sleep(30 * time.Second)
		crash.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		_ = crashed.Close(t.Context())
		cluster.Advance(time.Until(time.Date(2199, 12, 31, 0, 0, 0, 0, time.UTC)))
		time.Sleep(20 * time.Second)
		conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		receipt, err := a.RevokeSubject(t.Context(), "acme", "ann", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if applied, err := a.Watch(ctx, receipt); err == nil || len(applied.Missing) != 1 {
			t.Errorf("Watch = %+v, %v: want b to be missing", applied, err)
		}
		for _, g := range cluster.Tenants() {
			if g != keysGroup {
				cluster.DeleteRing(g)
				cluster.CutLog(rotation.BucketOf(g), 1)
			}
		}
		c := open(t, cluster.Connect("c"), "c")
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if revoked, err := says(c, names{tenant: "acme", sub: "ann", iat: time.Now().Unix() - 100}); err == nil && !revoked {
				t.Fatalf("the newcomer accepts a revoked token: %+v", c.Status())
			}
		}
	})
}

// TestForgedTenantReplacesNothing: without a KEK a person can forge entries. One that calls itself the
// revocation of a tenant, and revokes nothing since no tenant has its digest, must not have holders
// forget what they hold.
func TestForgedTenantReplacesNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		plain := func(c *Config) { c.KEKs = nil }
		a, b := open(t, cluster.Connect("a"), "a", plain), open(t, cluster.Connect("b"), "b", plain)
		ready(t, a, b)
		token := revoked(t, issuer, a, "1")
		time.Sleep(10 * time.Second)
		k := a.current().First()
		group := groupName(groupOf(k.Digest(table.Token, "acme", "1"), few))
		forged := table.Entry{Tenant: k.TenantID("acme"), Kind: table.Tenant, Key: k.ID, Before: codec.Forever, End: codec.Forever}
		for forged.Digest[2] = 1; groupName(groupOf(forged.Digest, few)) != group; forged.Digest[1]++ {
		}
		cluster.EditRing(group, func(fields map[string][]byte) { fields[codec.Field(forged.Digest)] = k.SealEntry(forged) })
		time.Sleep(time.Minute)
		if a.Len() != 2 || b.Len() != 2 {
			t.Errorf("the lists hold %d and %d entries, want 2", a.Len(), b.Len())
		}
		want(t, issuer, token, "refused", a, b)
	})
}

// TestForeignDigestKey: a writer adds a digest key of another service. What is revoked under it cannot be
// read, so the list accepts nothing and names the field, until a person removes it.
func TestForeignDigestKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		other := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		foreign := open(t, other.Connect("b"), "b", func(c *Config) { c.KEKs = mustKEK(3) })
		ready(t, foreign)
		revoked(t, issuer, foreign, "9")
		name := foreign.Status().KeyNames[0]
		cluster.EditRing(keysGroup, func(fields map[string][]byte) {
			for field, value := range other.Ring(keysGroup) {
				fields[field] = value
			}
		})
		good := issuer.token("acme", map[string]any{"jti": "2"})
		time.Sleep(10 * time.Second)
		want(t, issuer, good, "unknown", a)
		if err := a.Status().Err; !errors.Is(err, ErrDigestKeys) || !strings.Contains(err.Error(), name) {
			t.Errorf("the status says %v", err)
		}
		cluster.EditRing(keysGroup, func(fields map[string][]byte) { delete(fields, "k:"+name) })
		time.Sleep(10 * time.Second)
		want(t, issuer, good, "accepted", a)
	})
}

// TestUndone: a writer deletes a revocation, its entry of the log and the digest key, or one of them, before an
// instance has heard of it. Watch writes it again and says so. It takes no replaced revocation for a lost one.
func TestUndone(t *testing.T) {
	remove := func(c *rotationtest.Cluster, group string) { c.DeleteRing(group) }
	for name, tt := range map[string]struct {
		undo     func(c *rotationtest.Cluster, group string)
		instance bool
		want     error
	}{
		"in peace":                {undo: func(*rotationtest.Cluster, string) {}, instance: true},
		"in peace, alone":         {undo: func(*rotationtest.Cluster, string) {}},
		"the entry":               {undo: remove, instance: true, want: ErrUndone},
		"the entry, alone":        {undo: remove, want: ErrUndone},
		"the digest key, alone":   {undo: func(c *rotationtest.Cluster, _ string) { c.DeleteRing(keysGroup) }, want: ErrUndone},
		"everything, alone":       {undo: func(c *rotationtest.Cluster, _ string) { c.Flush() }, want: ErrUndone},
		"the entry and its trace": {undo: func(c *rotationtest.Cluster, g string) { c.DeleteRing(g); c.CutLog(rotation.BucketOf(g), 1) }, instance: true, want: ErrUndone},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
				holders := 0
				if tt.instance {
					holders = 1
					a := open(t, cluster.Connect("a"), "a")
					ready(t, a)
					time.Sleep(30 * time.Second)
				}
				command := open(t, cluster.Connect("command"), "command", func(c *Config) { c.Transient = true })
				receipt, err := command.RevokeToken(t.Context(), "acme", "1", time.Now().Add(15*time.Minute))
				if err != nil {
					t.Fatal(err)
				}
				tt.undo(cluster, groupName(groupOf(receipt.entry.Digest, few)))
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if applied, err := command.Watch(ctx, receipt); !errors.Is(err, tt.want) || applied.Holders != holders || len(applied.Missing) > 0 {
					t.Errorf("Watch = %+v, %v, want %v", applied, err, tt.want)
				}
				b := open(t, cluster.Connect("b"), "b")
				ready(t, b)
				want(t, issuer, issuer.token("acme", map[string]any{"jti": "1"}), "refused", b)
			})
		})
	}
}

// TestReplacedIsNotUndone: the whole tenant is revoked while a revocation of it is watched, and the entry goes.
func TestReplacedIsNotUndone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		command := open(t, cluster.Connect("command"), "command", func(c *Config) { c.Transient = true })
		receipt, err := command.RevokeSubject(t.Context(), "acme", "ann", time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.RevokeTenant(t.Context(), "acme", time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if cluster.Ring(groupName(groupOf(receipt.entry.Digest, few)))[codec.Field(receipt.entry.Digest)] != nil {
			t.Fatal("the entry is still there")
		}
		if _, err := command.Watch(t.Context(), receipt); err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
}

// TestInstances: those that ask the list are named before a revocation, and one that is cut off is told apart.
func TestInstances(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		conn := cluster.Connect("b")
		a, b, c := open(t, cluster.Connect("a"), "a"), open(t, conn, "b"), open(t, cluster.Connect("c"), "c")
		ready(t, a, b, c)
		time.Sleep(10 * time.Second)
		conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		_ = c.Close(t.Context())
		time.Sleep(20 * time.Second)
		command := open(t, cluster.Connect("command"), "command", func(c *Config) { c.Transient = true })
		time.Sleep(time.Second)
		all, err := command.Instances(t.Context())
		if err != nil || len(all) != 2 || all[0].Name != "a" || !all[0].Live || !all[0].InSync || all[1].Name != "b" || all[1].Live {
			t.Errorf("Instances = %+v, %v: want a live and b silent", all, err)
		}
	})
}

// A breakable store is a connection whose groups another program can replace, and that can discard them, as
// rediskeys.Store does.
type breakable struct {
	*rotationtest.Conn
	cluster *rotationtest.Cluster
	wrong   map[string]bool
}

func (b *breakable) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	all := b.Conn.Load(ctx, tenants)
	for i, s := range all {
		if s.Err != nil && strings.Contains(s.Err.Error(), "WRONGTYPE") {
			all[i].Err = fmt.Errorf("%w: %w", rediskeys.ErrWrongType, s.Err)
		}
	}
	return all
}

func (b *breakable) Discard(_ context.Context, tenant string) (bool, error) {
	if !b.wrong[tenant] {
		return false, nil
	}
	b.cluster.SetWrongType(tenant, false)
	b.cluster.DeleteRing(tenant)
	delete(b.wrong, tenant)
	return true, nil
}

// TestGroupOfAWrongType: another program replaces a group, or that of the digest keys. An instance that holds
// what was there removes the key and puts that back, so no list grows stale. One that starts does not: it
// cannot tell, until a holder or a person has mended it.
func TestGroupOfAWrongType(t *testing.T) {
	for name, tt := range map[string]struct{ keys, holder bool }{
		"a group":                        {holder: true},
		"the digest keys":                {keys: true, holder: true},
		"a group, and none holds it":     {},
		"the digest keys, and no holder": {keys: true},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
				wrong := make(map[string]bool)
				connect := func(name string) *breakable { return &breakable{cluster.Connect(name), cluster, wrong} }
				a := open(t, connect("a"), "a")
				ready(t, a)
				token := revoked(t, issuer, a, "1")
				group := groupName(groupOf(a.current().First().Digest(table.Token, "acme", "1"), few))
				if tt.keys {
					group = keysGroup
				}
				time.Sleep(10 * time.Second)
				if !tt.holder {
					_ = a.Close(t.Context())
				}
				cluster.SetWrongType(group, true)
				wrong[group] = true
				b := open(t, connect("b"), "b")
				time.Sleep(90 * time.Second)
				if !tt.holder {
					want(t, issuer, token, "unknown", b)
					if !wrong[group] {
						t.Error("an instance that holds nothing has removed the group")
					}
					return
				}
				want(t, issuer, token, "refused", a, b)
				want(t, issuer, issuer.token("acme", nil), "accepted", a, b)
				if n := len(cluster.Ring(group)); n == 0 || a.Status().Alarms.Forged == 0 {
					t.Errorf("the group has %d fields: %+v", n, a.Status())
				}
			})
		})
	}
}

// TestGroupWithoutRoomIsNotDiscarded: a list holds a part of a group, since the tenant has more than twice its
// share, and another program makes the group unreadable, such as too large. To remove it would lose the rest, and
// the list would take the tenant for one with room.
func TestGroupWithoutRoomIsNotDiscarded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, wrong := rotationtest.NewCluster(rotationtest.ClusterConfig{}), make(map[string]bool)
		a := open(t, &breakable{cluster.Connect("a"), cluster, wrong}, "a", func(c *Config) { c.MaxPerTenant = 2 })
		ready(t, a)
		command := open(t, cluster.Connect("command"), "command", func(c *Config) { c.Transient = true })
		if _, err := command.RevokeToken(t.Context(), "globex", "1", time.Now().Add(time.Hour)); err != nil { // makes the digest key
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		groupOfToken := func(jti string) string {
			return groupName(groupOf(a.current().First().Digest(table.Token, "acme", jti), few))
		}
		var jtis []string // all of one group, which a holds a part of
		group := groupOfToken("0")
		for i := 0; len(jtis) < 6; i++ {
			if jti := fmt.Sprint(i); groupOfToken(jti) == group {
				jtis = append(jtis, jti)
			}
		}
		for _, jti := range jtis {
			if _, err := command.RevokeToken(t.Context(), "acme", jti, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		cluster.SetWrongType(group, true)
		wrong[group] = true
		for range 60 {
			time.Sleep(time.Second)
			if revoked, err := says(a, names{tenant: "acme", jti: jtis[5]}); err == nil && !revoked {
				t.Fatal("the revoked token is accepted")
			}
		}
		if !wrong[group] {
			t.Error("an instance that holds a part has removed the group")
		}
	})
}

// TestKeyThatCannotBeOpenedIsNotDiscarded: an instance that cannot open one of the digest keys does not
// remove their group: another one may need the key.
func TestKeyThatCannotBeOpenedIsNotDiscarded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, wrong := rotationtest.NewCluster(rotationtest.ClusterConfig{}), make(map[string]bool)
		a := open(t, &breakable{cluster.Connect("a"), cluster, wrong}, "a")
		ready(t, a)
		if _, err := a.RevokeToken(t.Context(), "acme", "1", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		k, err := codec.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		cfg := a.cfg
		cfg.KEKs = mustKEK(9)
		box, err := cfg.box()
		if err != nil {
			t.Fatal(err)
		}
		field, value, err := codec.SealKey(box, k)
		if err != nil {
			t.Fatal(err)
		}
		cluster.EditRing(keysGroup, func(fields map[string][]byte) { fields[field] = value })
		time.Sleep(10 * time.Second)
		if err := a.Status().Err; !errors.Is(err, ErrDigestKeys) {
			t.Fatalf("the status is %v", err)
		}
		cluster.SetWrongType(keysGroup, true)
		wrong[keysGroup] = true
		time.Sleep(time.Minute)
		if !wrong[keysGroup] {
			t.Error("an instance that lacks a digest key has removed their group")
		}
	})
}

// TestLostWithoutRoom: the store loses entries for which a list had no room, and keeps others of their group. The list
// cannot tell for the tenant until it holds them.
func TestLostWithoutRoom(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := open(t, cluster.Connect("a"), "a", func(c *Config) { c.MaxPerTenant = 2 })
		ready(t, a)
		command := open(t, cluster.Connect("command"), "command", func(c *Config) { c.Transient = true })
		revoke := func(jti string) {
			if _, err := command.RevokeToken(t.Context(), "acme", jti, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		revoke("0")
		time.Sleep(5 * time.Second)
		digest := func(jti string) table.Digest { return a.current().First().Digest(table.Token, "acme", jti) }
		fifth, last := "", "0"
		for i, n := 1, 1; n < 6; i++ { // six tokens in one group
			if jti := fmt.Sprint(i); groupOf(digest(jti), few) == groupOf(digest("0"), few) {
				revoke(jti)
				fifth, last = last, jti
				n++
			}
		}
		time.Sleep(5 * time.Second)
		cluster.EditRing(groupName(groupOf(digest("0"), few)), func(fields map[string][]byte) {
			delete(fields, codec.Field(digest(fifth)))
			delete(fields, codec.Field(digest(last)))
		})
		for range 600 {
			time.Sleep(time.Second)
			if revoked, err := says(a, names{tenant: "acme", jti: last}); err == nil && !revoked {
				t.Fatalf("the revoked token is accepted: %+v", a.Status())
			}
		}
	})
}
