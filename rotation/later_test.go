package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A pausedStore holds back the second load of one tenant.
type pausedStore struct {
	rotation.Store
	tenant string
	loads  int
	resume chan struct{}
}

func (s *pausedStore) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	for _, tenant := range tenants {
		if tenant == s.tenant {
			if s.loads++; s.loads == 2 {
				<-s.resume
			}
		}
	}
	return s.Store.Load(ctx, tenants)
}

// makeMany makes n rings, of which one lies in the last bucket and cannot be opened. The log names none.
func makeMany(t *testing.T, cluster *rotationtest.Cluster, n int) (tenants []string, spoilt string) {
	t.Helper()
	m := join(t, cluster, "maker", of("first"), func(c *rotation.Config) { c.OneShot, c.Poll, c.Deadline = true, 0, 0 })
	defer m.leave()
	for i := 0; len(tenants) < n; i++ {
		name := fmt.Sprint("tenant-", i)
		switch last := rotation.BucketOf(name) == rotation.Buckets-1; {
		case last && spoilt == "":
			spoilt = name
		case last:
			continue
		}
		tenants = append(tenants, name)
		if err := m.Add(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, err := m.rotator.Create(t.Context(), name, ring.Policy{Algorithm: keystore.HS256}); err != nil {
			t.Fatal(err)
		}
		m.Remove(name)
	}
	cluster.EditRing(spoilt, func(fields map[string][]byte) {
		for field := range fields {
			fields[field] = []byte("rubbish")
		}
	})
	for b := range rotation.Buckets {
		cluster.Trim(b, 1)
	}
	return tenants, spoilt
}

// TestOpenOfManyReturnsEarly: Open of 700 rings returns when they were read. Until the loop has opened them, the
// instance is not ready, and says why and how many rings it holds. The tokens of each ring are verified, and a
// missing key may exist. One that trusts its first read signs, and knows which keys are missing. WaitReady waits
// for the loop.
func TestOpenOfManyReturnsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		tenants, spoilt := makeMany(t, cluster, 700)
		for _, trust := range []bool{false, true} {
			store := &pausedStore{Store: cluster.Connect("m"), tenant: spoilt, resume: make(chan struct{})}
			k, err := rotation.Open(t.Context(), store, rotation.Config{KEKs: testKEK, Instance: "m", TrustFirstRead: trust})
			if err != nil {
				t.Fatal(err)
			}
			signer, err := rotation.NewSigner(k, rotation.SignerConfig{})
			if err != nil {
				t.Fatal(err)
			}
			s := k.Status() // the spoilt ring counts as soon as the loop has reported it
			if s.Ready || s.Fresh || s.CanVerify || s.CanSign || s.Tenants < len(tenants)-1 || !errors.Is(s.Err, keystore.ErrUnavailable) || !strings.Contains(s.Err.Error(), "being opened") {
				t.Errorf("trusting: %v: %+v", trust, s)
			}
			for i := 0; i < len(tenants); i += 97 {
				checkOpening(t, k, signer, tenants[i], tenants[i] == spoilt, trust)
			}
			checkOpening(t, k, signer, spoilt, true, trust)
			close(store.resume)
			if err := k.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s := k.Status(); !s.Ready || !s.CanVerify || s.Fresh || s.Tenants != len(tenants) || !strings.Contains(s.Err.Error(), spoilt) {
				t.Errorf("trusting: %v: at last %+v", trust, s)
			}
			if err := k.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// checkOpening checks what a keyring does for one tenant while rings are opened.
func checkOpening(t *testing.T, k *rotation.Keyring, signer *rotation.Signer, tenant string, spoilt, trust bool) {
	t.Helper()
	_, err := k.Lookup(keystore.ID{Tenant: tenant, KID: "missing"}, keystore.HS256)
	if errors.Is(err, keystore.ErrNotFound) != (trust && !spoilt) || errors.Is(err, keystore.ErrUnavailable) == (trust && !spoilt) {
		t.Errorf("%s: a missing key: %v", tenant, err)
	}
	s, err := k.Tenant(tenant)
	if err != nil || s.Ready != (trust && !spoilt) {
		t.Fatalf("%s: %+v, %v", tenant, s, err)
	}
	if !spoilt {
		keys, err := k.Lookup(keystore.ID{Tenant: tenant, KID: s.Ring.Keys[0].KID}, keystore.HS256)
		if err != nil || !keys[0].Usable(time.Now()) {
			t.Errorf("%s: %v, %v", tenant, keys, err)
		}
	}
	_, err = signer.Sign(t.Context(), tenant, map[string]any{"sub": "s"})
	if signs := trust && !spoilt; signs != (err == nil) || !signs && !errors.Is(err, rotation.ErrFenced) && !errors.Is(err, rotation.ErrNoSigner) {
		t.Errorf("%s: signing: %v", tenant, err)
	}
}

// A readsStore counts the rings that are read.
type readsStore struct {
	*rotationtest.Conn
	loads, late atomic.Int64
}

func (s *readsStore) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	s.loads.Add(int64(len(tenants)))
	return s.Conn.Load(ctx, tenants)
}

func (s *readsStore) LoadFields(ctx context.Context, tenants []string) []rotation.Snapshot {
	s.late.Add(int64(len(tenants)))
	return s.Conn.LoadFields(ctx, tenants)
}

// wantReads checks which rings Open has read, and that polls read none of them again but the spoilt one.
func (s *readsStore) wantReads(t *testing.T, tenants int64) {
	t.Helper()
	late, loads := s.late.Load(), s.loads.Load()
	if late < 400 || late+loads > tenants+10 {
		t.Errorf("%d rings were read without digest, and %d with one", late, loads)
	}
	time.Sleep(rereads)
	if again := s.loads.Load() - loads; again > int64(rereads/(2*time.Second)) || s.late.Load() > late {
		t.Errorf("%d rings are read again by the polls of %v", again, rereads)
	}
}

const rereads = 3 * time.Minute // in which polls compare all digests

// TestDigestsOfManyAreRight: a ring that was opened after Open has the digest that the store has. So the polls that
// compare all digests find no ring to read again, and find the one that changes without an entry in the log.
func TestDigestsOfManyAreRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		tenants, spoilt := makeMany(t, cluster, 700)
		s := &readsStore{Conn: cluster.Connect("m")}
		k, err := rotation.Open(t.Context(), s, rotation.Config{KEKs: testKEK, Instance: "m"})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close(t.Context())
		if err := k.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.wantReads(t, int64(len(tenants)))
		lost := tenants[slices.IndexFunc(tenants, func(name string) bool { return name != spoilt })]
		cluster.EditRing(lost, func(fields map[string][]byte) { clear(fields) })
		time.Sleep(rereads)
		if k.Status().Counts.Repairs == 0 {
			t.Error("a ring that was lost without an entry in the log is not put back")
		}
	})
}
