package revocations

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// bare returns a list that is ready, without a loop, and a digest key.
func bare(t *testing.T) (*List, *codec.Key) {
	t.Helper()
	l, err := newList(rotationtest.NewCluster(rotationtest.ClusterConfig{}).Connect("a"), Config{KEKs: testKEK, Logger: quiet, groups: few})
	if err != nil {
		t.Fatal(err)
	}
	k, err := codec.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	l.view.Store(&view{generation: 1, keys: codec.Keys{k}, staleAt: math.MaxInt64})
	return l, k
}

// wantMarks wants the verdict on marks, and asks twice: the second answer may rely on the first one.
func wantMarks(t *testing.T, what string, l *List, m *verifier.Marks, now time.Time, want bool, wantErr error) {
	t.Helper()
	for range 2 {
		if revoked, err := l.RevokedMarks(m, now); revoked != want || !errors.Is(err, wantErr) {
			t.Errorf("%s: RevokedMarks = %t, %v, want %t, %v", what, revoked, err, want, wantErr)
		}
	}
}

// TestRevokedAfterClean: marks that were clean are revoked by every entry that comes, and by one that moves
// forward. An entry that is dropped brings no earlier answer back.
func TestRevokedAfterClean(t *testing.T) {
	l, k := bare(t)
	now := time.Now()
	n := names{tenant: "acme", jti: "1", sid: "s", sub: "ann", iat: now.Unix()}
	for i, kind := range []table.Kind{table.Token, table.Session, table.Subject, table.Tenant} {
		m := l.view.Load().marks(n)
		e := table.Entry{Digest: m.Digests[i], Tenant: k.TenantID("acme"), Kind: kind, Key: k.ID, Before: n.iat, End: n.iat + 1000}
		wantMarks(t, "an empty list", l, &m, now, false, nil)
		l.table.Put(e)
		isThere := kind == table.Token || kind == table.Session
		wantMarks(t, fmt.Sprint("an entry of kind ", kind), l, &m, now, isThere, nil)
		e.Before++
		l.table.Put(e)
		wantMarks(t, fmt.Sprint("an entry that moved forward, of kind ", kind), l, &m, now, true, nil)
		l.table.Drop(func(table.Entry) bool { return true })
		wantMarks(t, "a list that is empty again", l, &m, now, false, nil)
		l.table.Put(e)
		wantMarks(t, fmt.Sprint("an entry that is back, of kind ", kind), l, &m, now, true, nil)
		l.table.Drop(func(table.Entry) bool { return true })
	}
}

// TestCleanIsNoAnswerLater: that marks were clean answers nothing once the list cannot tell: it is stale, its
// tenant is over its share, or the digest keys have changed.
func TestCleanIsNoAnswerLater(t *testing.T) {
	l, k := bare(t)
	now := time.Now()
	first := *l.view.Load()
	n := names{tenant: "acme", jti: "1", iat: now.Unix()}
	for what, tt := range map[string]struct {
		change func(v *view)
		want   error
	}{
		"stale":          {func(v *view) { v.staleAt = now.UnixNano() - 1 }, ErrStale},
		"not ready":      {func(v *view) { v.err = ErrNotReady }, ErrNotReady},
		"a clock behind": {func(v *view) { v.earliest = now.Unix() + 1 }, ErrNotReady},
		"over its share": {func(v *view) { v.over = map[uint64]bool{k.TenantID("acme"): true} }, ErrFull},
		"other keys":     {func(v *view) { v.generation++ }, errGeneration},
	} {
		l.view.Store(&first)
		m := first.marks(n)
		wantMarks(t, what+": before", l, &m, now, false, nil)
		next := first
		tt.change(&next)
		l.view.Store(&next)
		wantMarks(t, what, l, &m, now, false, tt.want)
	}
}

// TestCleanMissesNothing: an entry that comes while marks are looked up is seen by the next look-up, since a
// note counts for the version before the look-up. The digests that follow its own make each look-up long.
func TestCleanMissesNothing(t *testing.T) {
	l, k := bare(t)
	now := time.Now()
	for i := range 300 {
		m := verifier.Marks{Generation: 1, Digests: [4]table.Digest{k.Digest(table.Token, "acme", fmt.Sprint(i))}}
		for range 200 {
			m.Next = &verifier.Marks{Next: m.Next}
		}
		var put atomic.Bool
		asked, done := make(chan bool, 1), make(chan bool)
		go func() {
			defer close(done)
			for !put.Load() {
				m.NoteClean(0) // so that each call looks up
				if _, err := l.RevokedMarks(&m, now); err != nil {
					t.Error(err)
				}
				select {
				case asked <- true:
				default:
				}
			}
		}()
		<-asked
		l.table.Put(table.Entry{Digest: m.Digests[0], Tenant: 1, Kind: table.Token, Key: k.ID, End: 1})
		put.Store(true)
		<-done
		if revoked, err := l.RevokedMarks(&m, now); err != nil || !revoked {
			t.Fatalf("entry %d: RevokedMarks = %t, %v, after the entry was put", i, revoked, err)
		}
	}
}

// TestMarksAreOfOneList: marks that one list has found clean are none of another one, such as after a program
// has opened its list again and asks that by the same [verifier.Marker]. Both count their versions and keys.
func TestMarksAreOfOneList(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		if _, err := a.RevokeToken(t.Context(), "acme", "1", time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		m := a.view.Load().marks(names{tenant: "acme", jti: "2"})
		if revoked, err := a.RevokedMarks(&m, time.Now()); revoked || err != nil {
			t.Fatalf("the first list: %t, %v", revoked, err)
		}
		time.Sleep(20 * time.Minute) // the first entry ends
		if _, err := a.RevokeToken(t.Context(), "acme", "2", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		b := open(t, cluster.Connect("b"), "b")
		ready(t, b)
		if revoked, err := b.RevokedMarks(&m, time.Now()); err == nil && !revoked {
			t.Error("the second list accepts a token that it has revoked")
		}
	})
}
