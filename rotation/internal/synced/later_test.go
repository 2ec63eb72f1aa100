package synced_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

const kekText = "0123456789abcdef0123456789ABCDEF"

// A world is a store with some rings, for keyrings that open them later.
type world struct {
	*testing.T
	cluster *rotationtest.Cluster
	owner   *rotation.Keyring
	rotator *rotation.Rotator
	keks    *seal.KEKs
	log     bytes.Buffer
}

// newWorld makes n rings, and removes the log: entries that end trust would have their rings opened at once.
func newWorld(t *testing.T, n int) *world {
	t.Helper()
	w := &world{T: t, cluster: rotationtest.NewCluster(rotationtest.ClusterConfig{})}
	keks, err := rotation.NewKEKs([]byte(kekText))
	if err == nil {
		w.keks, err = seal.NewKEKs([]byte(kekText))
	}
	if err == nil {
		w.keks, err = w.keks.In("")
	}
	if err == nil {
		w.owner, err = rotation.Open(t.Context(), w.cluster.Connect("owner"), rotation.Config{KEKs: keks, Instance: "owner", TrustFirstRead: true})
	}
	if err == nil {
		w.rotator, err = rotation.NewRotator(w.owner)
	}
	for i := 0; err == nil && i < n; i++ {
		policy := rotation.Policy{Algorithm: keystore.HS256}
		if i == 5 {
			policy.Freshness = 30 * time.Second // the instance polls more often for it
		}
		_, err = w.rotator.Create(t.Context(), tenant(i), policy)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.owner.Close(context.Background()) })
	return w
}

func tenant(i int) string { return fmt.Sprintf("tenant-%03d", i) }

// trim removes all but the newest entry of each log.
func (w *world) trim() {
	for b := range rotation.Buckets {
		w.cluster.Trim(b, 1)
	}
}

// begin opens a keyring, of which all rings but a few are opened later.
func (w *world) begin(change ...func(*synced.Config)) (*synced.Rings, func()) {
	w.Helper()
	cfg := synced.Config{Store: w.cluster.Connect("m"), Instance: "m", OpenAtOnce: 3, Now: time.Now, Logger: slog.New(slog.NewTextHandler(&w.log, nil))}
	for _, f := range change {
		f(&cfg)
	}
	k, finish, err := synced.Begin(w.Context(), w.keks, cfg)
	if err != nil {
		w.Fatal(err)
	}
	return k, finish
}

// kids returns the kids of a ring as the owner knows it.
func (w *world) kids(tenant string) (kids []string) {
	w.Helper()
	s, err := w.owner.Tenant(tenant)
	if err != nil {
		w.Fatal(err)
	}
	for _, k := range s.Ring.Keys {
		kids = append(kids, k.KID)
	}
	return kids
}

// lookup returns the key of a kid.
func (w *world) lookup(k *synced.Rings, tenant, kid string) *keystore.Key {
	w.Helper()
	c := k.Ring(tenant).For(kid)
	if c == nil {
		w.Fatalf("nothing is known of %s", tenant)
	}
	keys, found, err := c.WithKID(w.keks, kid, keystore.HS256, time.Now())
	if found != held.Found || err != nil || len(keys) != 1 {
		w.Fatalf("%s: %v, %v, %v", tenant, keys, found, err)
	}
	return keys[0]
}

func virtual(t *testing.T, n int, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) { f(newWorld(t, n)) })
}

// TestLookupOpensARing: Open has read all rings, and opened a few. A lookup opens the ring that it needs, without
// the store, and no other. The instance is not in sync for it, also once it was opened, so a key that is missing may
// exist. The key ends with its revocation, which comes after the loop has opened all.
func TestLookupOpensARing(t *testing.T) {
	virtual(t, 20, func(w *world) {
		w.trim()
		conn := w.cluster.Connect("m")
		k, finish := w.begin(func(c *synced.Config) { c.Store = conn })
		if n := k.Unopened(); n != 17 || finish == nil {
			w.Fatalf("%d of 20 rings are not opened", n)
		}
		calls := conn.Calls()
		r := k.AnyUnopened()
		name := r.Tenant
		kid := w.kids(name)[0]
		key := w.lookup(k, name, kid)
		if !key.Usable(time.Now()) || key.Usable(time.Now().Add(365*24*time.Hour)) {
			w.Error("the key has no end, or has ended")
		}
		if k.Unopened() != 16 || r.IsUnopened() || conn.Calls() != calls {
			w.Errorf("%d are not opened, and the store was called %d times", k.Unopened(), conn.Calls()-calls)
		}
		if s := r.SyncStatus(); s.InSync(time.Now(), time.Hour) || !s.Recovering || s.Err == nil || !s.Good.IsZero() {
			w.Errorf("in sync: %+v", s)
		}
		finish()
		if n := k.Unopened(); n != 0 || w.lookup(k, name, kid) != key {
			w.Errorf("%d are not opened, or the key is another one now", n)
		}
		if s := r.SyncStatus(); !s.Recovering || s.Err != nil {
			w.Errorf("after the first sync: %+v", s)
		}
		if _, err := w.rotator.Revoke(w.Context(), name, kid, rotation.Force); err != nil {
			w.Fatal(err)
		}
		if k.SyncAll(w.Context()); key.Usable(time.Now()) {
			w.Error("a key that was looked up before its revocation is usable")
		}
	})
}

// TestOpenedLaterIsTheSame: a lookup opens a ring, or the loop, sooner or later. The instance knows the same of it in
// the end: of plain rings, those with revocations, one that was destroyed, one that was imported, one with a field that cannot
// be opened, one that another KEK seals, and a tenant without a ring.
func TestOpenedLaterIsTheSame(t *testing.T) {
	virtual(t, 24, func(w *world) {
		w.spoil()
		whole, _ := w.begin(func(c *synced.Config) { c.Snapshot = filepath.Join(w.TempDir(), "none") })
		if whole.Unopened() != 0 {
			w.Fatal("with a snapshot rings are opened later")
		}
		whole.SyncAll(w.Context()) // a ring of which a part was known is read again, as the loop does
		for name, before := range map[string]func(k *synced.Rings){
			"by the loop": func(*synced.Rings) {},
			"by lookups": func(k *synced.Rings) {
				for _, r := range k.All() {
					r.Known()
				}
			},
			"by both": func(k *synced.Rings) {
				var wg sync.WaitGroup
				w.Cleanup(wg.Wait)
				for _, r := range k.All() {
					wg.Go(func() { r.Copy(); r.SyncStatus() })
				}
			},
		} {
			w.log.Reset()
			k, finish := w.begin()
			before(k)
			finish()
			w.compare(name, k, whole)
			if n := strings.Count(w.log.String(), "a ring is out of sync"); n != 2 {
				w.Errorf("%s: %d rings are logged as out of sync, want 2\n%s", name, n, w.log.String())
			}
		}
	})
}

// spoil makes rings of all kinds.
func (w *world) spoil() {
	w.Helper()
	_, err1 := w.rotator.Revoke(w.Context(), tenant(1), w.kids(tenant(1))[0], rotation.Force)
	_, err2 := w.rotator.Destroy(w.Context(), tenant(2))
	secret := []byte("a secret that others have made: 32 bytes")
	_, err3 := w.rotator.Accept(w.Context(), tenant(3), []ring.ForeignKey{{KID: "theirs", Algorithm: keystore.HS256, Key: secret}}, time.Now().Add(time.Hour))
	if err := errors.Join(err1, err2, err3); err != nil {
		w.Fatal(err)
	}
	w.cluster.EditRing(tenant(20), func(fields map[string][]byte) {
		for field := range fields {
			if strings.HasPrefix(field, seal.PrefixRecord) {
				fields[field] = []byte("garbled")
				return
			}
		}
	})
	other, err := seal.NewKEKs([]byte("another KEK, and as long as one."))
	if err != nil {
		w.Fatal(err)
	}
	head, err := seal.SealHead(other, other.Primary(), tenant(21), seal.Head{Seq: 2, Count: 1})
	if err != nil {
		w.Fatal(err)
	}
	w.cluster.EditRing(tenant(21), func(fields map[string][]byte) {
		clear(fields)
		fields[seal.FieldHead] = head
	})
	w.cluster.DeleteRing(tenant(22))
	w.trim()
}

// compare compares what two instances know of each ring.
func (w *world) compare(name string, got, want *synced.Rings) {
	w.Helper()
	tenants := func(k *synced.Rings) (all []string) {
		for _, r := range k.All() {
			all = append(all, r.Tenant)
		}
		slices.Sort(all)
		return all
	}
	if a, b := tenants(got), tenants(want); !slices.Equal(a, b) {
		w.Fatalf("%s: tenants %q, want %q", name, a, b)
	}
	for _, tenant := range tenants(want) {
		a, b := got.Ring(tenant), want.Ring(tenant)
		if x, y := a.Copy().Plain(), b.Copy().Plain(); !reflect.DeepEqual(x, y) {
			w.Errorf("%s: %s: %+v, want %+v", name, tenant, x, y)
		}
		if x, y := a.Look(), b.Look(); x != y {
			w.Errorf("%s: %s: %+v, want %+v", name, tenant, x, y)
		}
		if x, y := fmt.Sprintf("%+v", a.SyncStatus()), fmt.Sprintf("%+v", b.SyncStatus()); x != y {
			w.Errorf("%s: %s: %s, want %s", name, tenant, x, y)
		}
	}
	if a, b := got.EndsDigests(), want.EndsDigests(); !reflect.DeepEqual(a, b) {
		w.Errorf("%s: it would vouch for something else", name)
	}
	if a, b := got.Outlooks(), want.Outlooks(); a != b {
		w.Errorf("%s: the buckets are\n%s\nwant\n%s", name, a, b)
	}
	if a, b := *got.Times.Load(), *want.Times.Load(); a != b {
		w.Errorf("%s: times %+v, want %+v", name, a, b)
	}
}

// TestRevocationInTheLogOpensARing: the log tells of a revocation that a person has removed from the ring. Such a
// ring is opened before Open returns, so no lookup finds the key.
func TestRevocationInTheLogOpensARing(t *testing.T) {
	virtual(t, 20, func(w *world) {
		name := tenant(19)
		kid := w.kids(name)[0]
		before := w.cluster.Ring(name)
		w.trim()
		if _, err := w.rotator.Revoke(w.Context(), name, kid, rotation.Force); err != nil {
			w.Fatal(err)
		}
		w.cluster.EditRing(name, func(fields map[string][]byte) {
			clear(fields)
			for field, value := range before {
				fields[field] = value
			}
		})
		k, _ := w.begin()
		if k.Ring(name).IsUnopened() || k.Unopened() == 0 || !k.Ring(name).Copy().Revoked(kid) {
			w.Error("the revocation of the log is not known")
		}
	})
}

// TestAcceptedKeysWhileOpening: accepted keys verify from the moment on that Open returns, whether Open has opened
// their ring or a lookup does.
func TestAcceptedKeysWhileOpening(t *testing.T) {
	virtual(t, 20, func(w *world) {
		secret := []byte("a secret that others have made: 32 bytes")
		for i := range 20 {
			if _, err := w.rotator.Accept(w.Context(), tenant(i), []ring.ForeignKey{{KID: "theirs", Algorithm: keystore.HS256, Key: secret}}, time.Now().Add(time.Hour)); err != nil {
				w.Fatal(err)
			}
		}
		w.trim()
		k, _ := w.begin()
		if n := k.Unopened(); n != 17 {
			w.Fatalf("%d of 20 rings are not opened", n)
		}
		for i := range 20 {
			w.lookup(k, tenant(i), "theirs")
		}
	})
}

// TestPartsWhileOpening: of a ring that cannot be opened in whole, a lookup knows as much as an instance that opens
// all rings at once: its policy, which says what a verifier may forgive, and that the tenant exists. Its keys verify
// nothing.
func TestPartsWhileOpening(t *testing.T) {
	virtual(t, 24, func(w *world) {
		w.spoil()
		k, _ := w.begin()
		whole, _ := w.begin(func(c *synced.Config) { c.OpenAtOnce = 100 })
		for _, b := range whole.All() {
			a := k.Ring(b.Tenant)
			p, known := a.Policy()
			want, isKnown := b.Policy()
			if a.Known() != b.Known() || known != isKnown || p != want {
				w.Errorf("%s: known: %v, want %v; policy %+v, want %+v", b.Tenant, a.Known(), b.Known(), p, want)
			}
		}
		c := k.Ring(tenant(20)).For("")
		if c == nil || len(c.Records) != 1 || c.Verifies(c.Records[0].KID, time.Now()) || !k.Ring(tenant(20)).SyncStatus().Complete.IsZero() {
			w.Errorf("of a ring with one record that can be opened: %+v", c.Plain())
		}
	})
}

// TestTrustedForItsFreshness: an instance that trusts its first read, and is paused before it has opened all, takes
// no ring for in sync for longer than the Freshness of that ring.
func TestTrustedForItsFreshness(t *testing.T) {
	virtual(t, 20, func(w *world) {
		name := "short"
		for i := 0; rotation.BucketOf(name) != rotation.Buckets-1; i++ { // the last bucket: it is not opened at once
			name = fmt.Sprint("short-", i)
		}
		if _, err := w.rotator.Create(w.Context(), name, rotation.Policy{Algorithm: keystore.HS256, Freshness: 15 * time.Second}); err != nil {
			w.Fatal(err)
		}
		w.trim()
		k, finish := w.begin(func(c *synced.Config) { c.TrustFirstRead = true })
		r := k.Ring(name)
		if !r.IsUnopened() || k.Times.Load().Fresh <= 15*time.Second {
			w.Fatal("the ring was opened at once")
		}
		time.Sleep(20 * time.Second)
		if r.SyncStatus().InSync(time.Now(), k.Times.Load().Fresh) {
			w.Error("in sync after 20s")
		}
		if finish(); k.Times.Load().Fresh != 15*time.Second {
			w.Errorf("the loop goes by a Freshness of %v", k.Times.Load().Fresh)
		}
	})
}

// TestTrustedRingsSignAtOnce: an instance that trusts its first read is in sync for a ring as soon as that was
// opened, and never for one that cannot be opened.
func TestTrustedRingsSignAtOnce(t *testing.T) {
	virtual(t, 24, func(w *world) {
		w.spoil()
		k, finish := w.begin(func(c *synced.Config) { c.TrustFirstRead = true })
		check := func(when string) {
			for i := range 24 {
				if k.Ring(tenant(i)) == nil {
					continue // the store has none of it
				}
				want := i != 20 && i != 21
				if s := k.Ring(tenant(i)).SyncStatus(); s.InSync(time.Now(), time.Minute) != want {
					w.Errorf("%s: %s: %+v", when, tenant(i), s)
				}
			}
		}
		check("before the loop has opened all")
		finish()
		check("afterwards")
	})
}

// TestCloseWhileOpening: Close does not wait until all rings were opened, and those that were not stay of use.
func TestCloseWhileOpening(t *testing.T) {
	virtual(t, 20, func(w *world) {
		w.trim()
		ctx, cancel := context.WithCancel(w.Context())
		cfg := synced.Config{Store: w.cluster.Connect("m"), Instance: "m", OpenAtOnce: 3, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
		k, finish, err := synced.Begin(ctx, w.keks, cfg)
		if err != nil {
			w.Fatal(err)
		}
		cancel()
		if finish(); k.Unopened() != 17 {
			w.Errorf("%d are not opened", k.Unopened())
		}
		if s := k.Ring(tenant(19)).SyncStatus(); !s.Recovering || s.InSync(time.Now(), time.Hour) {
			w.Errorf("it claims to be in sync: %+v", s)
		}
		w.lookup(k, tenant(19), w.kids(tenant(19))[0])
	})
}

// TestManyOpenRings: goroutines look up keys of all rings, and remove some tenants, while the loop opens the rings. All
// lookups get the same key. Those of removed tenants end at once, and those that are revoked afterwards with the next
// sync.
func TestManyOpenRings(t *testing.T) {
	virtual(t, 60, func(w *world) {
		w.trim()
		kids, tenants := make([]string, 60), make([]string, 60)
		for i := range kids {
			kids[i], tenants[i] = w.kids(tenant(i))[0], tenant(i)
		}
		k, finish := w.begin(func(c *synced.Config) { c.Tenants = tenants })
		var keys [8][60]*keystore.Key // that each goroutine got
		var wg sync.WaitGroup
		for g := range keys {
			wg.Go(func() {
				for n := range kids {
					i := (n*7 + g*11) % 60
					r := k.Ring(tenant(i))
					if r == nil {
						continue // it was removed
					}
					r.SyncStatus()
					if found, _, _ := r.For(kids[i]).WithKID(w.keks, kids[i], keystore.HS256, time.Now()); len(found) == 1 {
						keys[g][i] = found[0]
					}
					if i%10 == g {
						k.Remove([]string{tenant(i)})
					}
					k.Standing(time.Now())
				}
			})
		}
		wg.Go(finish)
		wg.Wait()
		w.checkKeys(k, kids, func(g, i int) *keystore.Key { return keys[g][i] })
	})
}

// checkKeys checks the keys that TestManyOpenRings has got.
func (w *world) checkKeys(k *synced.Rings, kids []string, key func(g, i int) *keystore.Key) {
	w.Helper()
	removed := func(i int) bool { return i%10 < 8 }
	for i, kid := range kids {
		if !removed(i) {
			if _, err := w.rotator.Revoke(w.Context(), tenant(i), kid, rotation.Force); err != nil {
				w.Fatal(err)
			}
		}
		for g := range 8 {
			switch got := key(g, i); {
			case removed(i) && got != nil && got.Usable(time.Now()):
				w.Errorf("%s was removed, and its key is usable", tenant(i))
			case !removed(i) && got != w.lookup(k, tenant(i), kid):
				w.Errorf("%s: a lookup has got another key", tenant(i))
			}
		}
	}
	k.SyncAll(w.Context())
	for i := range kids {
		for g := range 8 {
			if got := key(g, i); got != nil && got.Usable(time.Now()) {
				w.Errorf("%s: a key is usable that was revoked", tenant(i))
			}
		}
	}
}

// TestOpenKeepsFewBytes: Open keeps only so many bytes of rings that are opened later, whatever a person adds to
// rings. It opens all others as it reads them, and knows the same of them.
func TestOpenKeepsFewBytes(t *testing.T) {
	virtual(t, 20, func(w *world) {
		w.trim()
		large := func(i int) bool { return i%4 == 0 }
		for i := range 20 {
			if large(i) {
				w.cluster.EditRing(tenant(i), func(fields map[string][]byte) { fields["x"] = make([]byte, 20000) })
			}
		}
		few, finish := w.begin(func(c *synced.Config) { c.MaxUnopened = 1 })
		if n := few.Unopened(); n != 1 {
			w.Errorf("%d rings are opened later, want 1", n)
		}
		finish()
		all, finish := w.begin()
		finish()
		w.compare("with few bytes", few, all)
		for i := range 20 {
			if s := few.Ring(tenant(i)).SyncStatus(); s.Bad != large(i) || !few.Ring(tenant(i)).Known() {
				w.Errorf("%s: %+v", tenant(i), s)
			}
		}
	})
}

// TestNoneCanBeOpened: if not even one of the first rings can be opened, Open looks at all, and says why.
func TestNoneCanBeOpened(t *testing.T) {
	virtual(t, 20, func(w *world) {
		w.trim()
		other, err := seal.NewKEKs([]byte("another KEK, and as long as one."))
		if err != nil {
			w.Fatal(err)
		}
		cfg := synced.Config{Store: w.cluster.Connect("m"), Instance: "m", OpenAtOnce: 3, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
		if _, _, err := synced.Begin(w.Context(), other, cfg); !errors.Is(err, seal.ErrWrongKEK) {
			w.Errorf("Open: %v", err)
		}
		for i := range 19 {
			w.cluster.EditRing(tenant(i), func(fields map[string][]byte) {
				for field := range fields {
					fields[field] = []byte("garbled")
				}
			})
		}
		k, finish := w.begin()
		if finish != nil {
			finish()
		}
		w.lookup(k, tenant(19), w.kids(tenant(19))[0])
	})
}
