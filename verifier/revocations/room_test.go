package revocations

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// junkField returns the name of a field of an entry that no instance has made.
func junkField(n int) string {
	digest := binary.BigEndian.AppendUint64([]byte("a person"), uint64(n))
	return base64.RawURLEncoding.EncodeToString(digest)
}

// TestRedisFilledGroup: a person removes a revocation with its entry of the log, and fills the group with entries that
// this version cannot open, so that little room is left. Holders remove them, and put the revocation back.
func TestRedisFilledGroup(t *testing.T) {
	redistest.Need(t)
	server := redistest.Run(t, redistest.Options{})
	a := onRedis(t, "redis://"+server.Addr(), "a", func(c *Config) { c.Poll = 200 * time.Millisecond })
	waitFor(t, "a is ready", func() bool { return a.Status().Ready })
	receipt, err := a.RevokeToken(t.Context(), "acme", "1", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	group := groupName(groupOf(receipt.entry.Digest, allGroups))
	bucket := fmt.Sprintf("kt:rv:{%d}:", rotation.BucketOf(group))
	key, field := bucket+"ring:"+group, codec.Field(receipt.entry.Digest)
	noKey, err := codec.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed := noKey.SealEntry(table.Entry{Kind: table.Token, Key: noKey.ID, End: codec.Forever})
	for name, fill := range map[string]struct {
		fields int
		value  string
	}{
		"one value of a newer version":      {1, "kt\x02e" + strings.Repeat("x", 1<<20-126)},
		"values of a newer version":         {3600, "kt\x02e" + strings.Repeat("x", 252)},
		"values under an unknown key":       {16100, string(sealed)},
		"a log that takes no change, alone": {},
	} {
		pipe := server.Client().Pipeline()
		pipe.HDel(t.Context(), key, field)
		if fill.fields == 0 {
			pipe.Do(t.Context(), "XADD", bucket+"log", "18446744073709551615-18446744073709551615", "op", "x")
		}
		for n := range fill.fields {
			pipe.HSet(t.Context(), key, junkField(n), fill.value)
		}
		pipe.SAdd(t.Context(), bucket+"tenants", group)
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		waitFor(t, name+": the group is as it was", func() bool {
			n, err := server.Client().HLen(t.Context(), key).Result()
			return err == nil && n == 1 && server.Client().HExists(t.Context(), key, field).Val()
		})
	}
	if a.Status().Alarms.Forged == 0 {
		t.Errorf("no alarm: %+v", a.Status())
	}
}

// TestUnreadableOfUsualSize: a few entries of a newer version, or under an unknown digest key, stay in the store.
func TestUnreadableOfUsualSize(t *testing.T) {
	keys := codec.Keys{}
	k, err := codec.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	noKey := k.SealEntry(table.Entry{Kind: table.Token, Key: k.ID, End: codec.Forever})
	newer := func(size int) []byte { return append([]byte("kt\x02e"), make([]byte, size-4)...) }
	for name, tt := range map[string]struct {
		fields int
		value  []byte
		junk   bool
	}{
		"no key":                    {1024, noKey, false},
		"newer":                     {1024, newer(maxUnread - 50), false},
		"newer and long":            {1, newer(maxUnread), false},
		"newer and too long":        {1, newer(maxUnread + 1), true},
		"no key, and too many":      {maxGroup/(22+43) + 1, noKey, true},
		"newer, and too many of it": {maxGroup/(22+maxUnread) + 1, newer(maxUnread), true},
	} {
		fields := make(map[string][]byte)
		for n := range tt.fields {
			fields[junkField(n)] = tt.value
		}
		opened := openGroup(keys, fields, 0, 1)
		if junk := len(opened.garbage) == tt.fields; junk != tt.junk || junk == (opened.noKey || opened.newer) {
			t.Errorf("%s: %d of %d are garbage, no key %t, newer %t", name, len(opened.garbage), tt.fields, opened.noKey, opened.newer)
		}
	}
}

// A stubborn store refuses what holders put back.
type stubborn struct {
	rotation.Store
	refuses atomic.Bool // also writes to the group of the digest keys
	refused atomic.Int64
}

func (s *stubborn) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	if s.refuses.Load() && (c.Op == opRestore || c.Op == opKeys) {
		s.refused.Add(1)
		return rotation.Result{Code: rotation.NotMade}, fmt.Errorf("write: %w", rediskeys.ErrTooLarge)
	}
	return s.Store.Write(ctx, c)
}

// TestRefusedPutBack: the store refuses what a holder puts back. The holder raises an alarm, says so once a minute,
// and tries again with each poll and no sooner, until it is done. It answers meanwhile.
func TestRefusedPutBack(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		store, log := &stubborn{Store: cluster.Connect("a")}, new(bytes.Buffer)
		a := open(t, store, "a", func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
		ready(t, a)
		token := revoked(t, issuer, a, "1")
		time.Sleep(10 * time.Second)
		group := groupName(groupOf(a.current().First().Digest(table.Token, "acme", "1"), few))
		store.refuses.Store(true)
		cluster.DeleteRing(group)
		cluster.DeleteRing(keysGroup)
		time.Sleep(3*time.Minute + time.Second)
		want(t, issuer, token, "refused", a)
		if n := store.refused.Load(); n < 120 || n > 300 { // two groups, and a poll is 1.6 to 2.4 s
			t.Errorf("it was tried %d times in 3 minutes", n)
		}
		store.refuses.Store(false)
		time.Sleep(5 * time.Second)
		if len(cluster.Ring(group)) != 1 || len(cluster.Ring(keysGroup)) != 1 {
			t.Error("the revocation, or the digest key, was not put back")
		}
		_ = a.Close(t.Context()) // so that it writes no line now
		if n := strings.Count(log.String(), "could not be put back"); n < 3 || n > 4 || a.Status().Alarms.Forged == 0 {
			t.Errorf("%d lines, and the alarms are %+v:\n%s", n, a.Status().Alarms, log)
		}
	})
}

// TestGarbageGoesWhileClocksDiffer: a person pushes the store's clock ahead, so no ended entry is removed. Garbage is,
// since it may leave no room for a revocation.
func TestGarbageGoesWhileClocksDiffer(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		revoked(t, issuer, a, "1")
		time.Sleep(10 * time.Second)
		group := groupName(groupOf(a.current().First().Digest(table.Token, "acme", "1"), few))
		cluster.Advance(time.Hour)
		cluster.EditRing(group, func(fields map[string][]byte) { fields["x"] = []byte("x") })
		time.Sleep(time.Minute)
		if n := len(cluster.Ring(group)); n != 1 || !a.Status().ClockOff {
			t.Errorf("the group has %d fields: %+v", n, a.Status())
		}
		time.Sleep(30 * time.Minute)
		if n := len(cluster.Ring(group)); n != 1 {
			t.Errorf("%d fields: an ended entry was removed while the clocks differ", n)
		}
	})
}

// A small store has room for so many bytes in a group, as rediskeys.Store has: what is deleted by the same change counts.
type small struct {
	*rotationtest.Conn
	reader bool // it writes nothing
}

const roomOfSmall = 1 << 20

func (s *small) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	if size := sizeOf(s.Ring(c.Tenant)) + sizeOf(c.Set); s.reader || len(c.Set) > 0 && size > roomOfSmall {
		return rotation.Result{Code: rotation.NotMade}, fmt.Errorf("write: %w", rediskeys.ErrTooLarge)
	}
	return s.Conn.Write(ctx, c)
}

// TestHolderMakesRoom: a group lacks a revocation and has no room for it. The instance that removes ended entries and garbage
// cannot write, so the one that puts the revocation back removes the garbage.
func TestHolderMakesRoom(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		reader := &small{Conn: cluster.Connect("a"), reader: true}
		a, b := open(t, reader, "a"), open(t, &small{Conn: cluster.Connect("b")}, "b")
		ready(t, a, b)
		revoked(t, issuer, b, "1")
		time.Sleep(10 * time.Second)
		k := b.current().First()
		group, field := groupName(groupOf(k.Digest(table.Token, "acme", "1"), few)), codec.Field(k.Digest(table.Token, "acme", "1"))
		cluster.EditRing(group, func(fields map[string][]byte) {
			delete(fields, field)
			for n := range 16 {
				fields[junkField(n)] = []byte("kt\x02e" + strings.Repeat("x", 65500))
			}
		})
		time.Sleep(time.Minute)
		if fields := cluster.Ring(group); len(fields) != 1 || fields[field] == nil {
			t.Errorf("the group has %d fields: %+v", len(fields), b.Status())
		}
	})
}

// A padder fills a group again with each write, as a person does who writes to the store all the while.
type padder struct {
	*rotationtest.Conn
	cluster *rotationtest.Cluster
	at      string // the group; "" for none
	n       int
}

func (p *padder) Write(ctx context.Context, c rotation.Change) (rotation.Result, error) {
	result, err := p.Conn.Write(ctx, c)
	p.pad()
	return result, err
}

func (p *padder) pad() {
	if p.at == "" {
		return
	}
	p.n++
	p.cluster.EditRing(p.at, func(fields map[string][]byte) {
		for n := range 6 {
			fields[junkField(n)] = fmt.Appendf(nil, "kt\x02e%d%s", p.n, strings.Repeat("x", 65500))
		}
	})
}

// TestRevocationInAPaddedGroup: a group is filled again each time that a revocation makes room in it. Nothing is written
// then, and that is an error.
func TestRevocationInAPaddedGroup(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		p := &padder{Conn: cluster.Connect("a"), cluster: cluster}
		l := open(t, p, "a")
		ready(t, l)
		if _, err := l.RevokeToken(t.Context(), "acme", "1", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		p.at = groupName(groupOf(l.current().First().Digest(table.Token, "acme", "1"), few))
		p.pad()
		if receipt, err := l.RevokeToken(t.Context(), "acme", "1", time.Now().Add(2*time.Hour)); !errors.Is(err, errBusy) {
			t.Errorf("%+v, %v, want %v", receipt, err, errBusy)
		}
	})
}

// TestRevocationMakesRoom: a person fills a group of which no instance holds anything, so none looks at it. A revocation
// in that group finds room all the same: of an instance, and of a command.
func TestRevocationMakesRoom(t *testing.T) {
	for _, transient := range []bool{false, true} {
		virtual(t, func(t *testing.T) {
			cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
			first := open(t, &small{Conn: cluster.Connect("first")}, "first")
			ready(t, first)
			time.Sleep(10 * time.Second)
			l := open(t, &small{Conn: cluster.Connect("l")}, "l", func(c *Config) { c.Transient = transient })
			ready(t, l)
			k := l.current().First()
			digest := func(jti string) table.Digest { return k.Digest(table.Token, "acme", jti) }
			other := 0
			for ; groupOf(digest(fmt.Sprint(other)), few) != groupOf(digest("1"), few) || other == 1; other++ {
			}
			if _, err := first.RevokeToken(t.Context(), "acme", fmt.Sprint(other), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err) // makes the group
			}
			cluster.EditRing(groupName(groupOf(digest("1"), few)), func(fields map[string][]byte) {
				for n := range 16 {
					fields[junkField(n)] = []byte("kt\x02e" + strings.Repeat("x", 65500))
				}
			})
			if _, err := l.RevokeToken(t.Context(), "acme", "1", time.Now().Add(time.Hour)); err != nil {
				t.Errorf("Transient %t: %v", transient, err)
			}
			if n := len(cluster.Ring(groupName(groupOf(digest("1"), few)))); n != 2 {
				t.Errorf("Transient %t: the group has %d fields", transient, n)
			}
		})
	}
}
