package rotationtest_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Rollout: a new KEK is rolled out, instance by instance, first as a further one and then as the
// primary. Meanwhile the keys rotate, by instances with either primary. No tenant key is made before
// all agree, and one afterwards. Then the ring is moved, and the old KEK dropped. No token is
// rejected, and the old KEK opens no new key.
func TestTimelineRollout(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two", "three", "four")
		l.runUntil(4 * time.Second)
		for _, keks := range [][]string{{"A", "B"}, {"B", "A"}} {
			for n, i := range f {
				i.setKEKs(keks...)
				l.runFor(2 * pollFor)
				if n == 1 { // half of the fleet has the new ones
					l.rotate(f[0])
					l.runFor(l.policy.HeardWithin() + pollFor)
					l.rotate(f[3])
					l.runFor(l.policy.HeardWithin())
				}
				agreed := keks[0] == "B" && n == len(f)-1
				if got := l.count("tk:"); got != 1 && !agreed {
					t.Fatalf("%v: %d tenant keys, while instances have different primary KEKs", l.now(), got)
				}
			}
		}
		l.runFor(l.policy.Freshness + pollFor)
		for _, i := range f[:2] {
			l.rotate(i)
			l.runFor(l.policy.HeardWithin() + pollFor)
			if got := l.count("tk:"); got != 2 {
				t.Errorf("%v: %d tenant keys, once all instances agree", l.now(), got)
			}
		}
		report, _, err := f[2].r.Load().Rekey(l.ctx, tenant)
		if err != nil || !report.Changed || len(report.Others) == 0 {
			t.Errorf("Rekey: %+v, %v", report, err)
		}
		if report, _, err = f[3].r.Load().Rekey(l.ctx, tenant, rotation.DryRun); err != nil || len(report.Others) > 0 {
			t.Errorf("after it: %+v, %v", report, err)
		}
		for _, i := range f {
			i.setKEKs("B")
		}
		l.runFor(2 * time.Second)
		l.rotate(f[1])
		l.runFor(2 * time.Second)
		if n := f[1].sign(tenant); n < 0 || len(l.alive()) != len(f) {
			t.Error("the fleet cannot sign any more")
		}
	})
}

// End: an instance is cut off before a KEK is rolled out. It alone knows of a revocation, which a
// failover has lost. The ring moves to the new KEK, and the others drop the old one. When the instance
// comes back it must not write what the others cannot open. Once it has the new KEK it restores the
// revocation.
func TestTimelineEnd(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two", "holder", "revoker")
		one, two, holder, revoker := f[0], f[1], f[2], f[3]
		l.runUntil(4 * time.Second)
		back1, back2 := one.cut(), two.cut()
		l.runFor(100 * time.Millisecond)
		second := l.key(revoker, 2).KID
		l.must(revoker.r.Load().Revoke(l.ctx, tenant, second))
		l.runFor(100 * time.Millisecond)
		l.wantState(2, ring.Revoked, holder)
		back := holder.cut()
		revoker.close()
		l.failover(500 * time.Millisecond)
		back1()
		back2()
		l.runFor(3 * time.Second)
		for _, keks := range [][]string{{"B", "A"}, {"B"}} {
			one.setKEKs(keks...)
			two.setKEKs(keks...)
			l.runFor(l.policy.Freshness + 2*pollFor)
			if len(keks) > 1 {
				if _, _, err := one.r.Load().Rekey(l.ctx, tenant); err != nil {
					t.Fatal(err)
				}
			}
		}
		back()
		l.runFor(2 * time.Second)
		l.wantState(2, ring.Pending, one, two)
		l.inSync(one, two)
		if st, _ := holder.k.Load().Tenant(tenant); !errors.Is(st.Err, rotation.ErrWrongKEK) {
			t.Errorf("the instance with the old KEK: %v", st.Err)
		}
		holder.setKEKs("B", "A")
		l.runFor(2 * time.Second)
		l.wantState(2, ring.Revoked, one, two, holder)
		l.runFor(4 * time.Second)
	})
}

// Operator: a command has a new KEK first, and the fleet has the old one alone. Its revocation is
// sealed under the KEK of the ring, so every instance applies it. A command that lacks the ring's KEK
// cannot begin.
func TestTimelineOperator(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two")
		l.runUntil(4 * time.Second)
		first := l.key(f[0], 1).KID
		token := l.tokens[len(l.tokens)-1]
		for _, tt := range []struct {
			name string
			keks []string
		}{{"a stranger", []string{"B"}}, {"an operator", []string{"B", "A"}}} {
			k, err := rotation.Open(l.ctx, l.cluster.Connect(tt.name), rotation.Config{KEKs: keksOf(tt.keks), Tenants: []string{tenant}, OneShot: true, Deadline: deadline, Poll: poll, Instance: tt.name})
			if tt.name == "a stranger" {
				if !errors.Is(err, rotation.ErrWrongKEK) {
					t.Errorf("%s: %v", tt.name, err)
				}
				continue
			}
			r, err2 := rotation.NewRotator(k)
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			receipt, err := r.Revoke(l.ctx, tenant, first)
			if acks, err2 := r.Await(l.ctx, receipt); err != nil || err2 != nil || len(acks) != 2 {
				t.Errorf("%s: %v, %v; %d instances have applied it", tt.name, err, err2, len(acks))
			}
			k.Close(l.ctx)
		}
		l.rejects(token, f...)
		l.runFor(4 * time.Second)
		l.wantSigner(2, f...)
	})
}

// Realm: someone who can write the production store puts the ring of the same tenant from staging
// there, which has the same KEK. Nothing of it is merged, the error says what it is, and what it
// replaced is restored.
func TestTimelineRealm(t *testing.T) {
	staging := strange(t, "staging")
	for name, replace := range map[string]bool{"beside it": false, "in its place": true} {
		t.Run(name, func(t *testing.T) {
			runTimeline(t, seldom(), func(l *timeline) {
				f := l.fleet("one", "two")
				l.runUntil(4 * time.Second)
				mine := l.cluster.Ring(tenant)
				before := len(l.audit(f[0]))
				l.edit(tenant, "edit: the ring of staging", func(fields map[string][]byte) {
					if replace {
						clear(fields)
					}
					for field, value := range staging {
						fields[field] = value
					}
				})
				l.runFor(l.policy.Freshness)
				for _, i := range f {
					st, _ := i.k.Load().Tenant(tenant)
					if !errors.Is(st.Err, rotation.ErrWrongRealm) || len(l.audit(i)) != before {
						t.Errorf("%s has %d keys: %v", i.name, len(l.audit(i)), st.Err)
					}
				}
				for field := range mine {
					if strings.HasPrefix(field, "k:") && !l.has(field) {
						t.Errorf("the store lacks %s", field)
					}
				}
				l.edit(tenant, "edit: staging's fields are removed", func(fields map[string][]byte) {
					for field := range staging {
						delete(fields, field)
					}
				})
				l.runFor(3 * time.Second)
				l.inSync(f...)
				l.wantSigner(1, f...)
			})
		})
	}
}

// Move: a ring moves to another realm under the same KEK. The instances are replaced one by one, first
// by those that open the new realm too, and then by those that are in it. Meanwhile keys rotate, by
// instances of either realm. No token is rejected, and no tenant key is made.
func TestTimelineMove(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two", "three")
		l.runUntil(4 * time.Second)
		replace := func(realm string, others ...string) {
			for n, old := range f {
				i := l.connect(old.name+"'", 0)
				i.rotates, i.realm, i.realms = old.rotates, realm, others
				i.open()
				i.opened()
				l.runFor(3 * pollFor)
				old.close()
				if f[n] = i; n == 1 { // two of three are new
					l.rotate(i)
					l.runFor(l.policy.HeardWithin() + pollFor)
					l.rotate(f[2])
				}
				l.runFor(l.policy.HeardWithin())
				l.inSync(f...)
			}
		}
		replace("", "live")
		replace("live", "")
		report, _, err := f[2].r.Load().Rekey(l.ctx, tenant)
		if err != nil || !report.Changed || len(report.Others) == 0 {
			t.Errorf("Rekey: %+v, %v", report, err)
		}
		replace("live")
		if n := l.count("tk:"); n != 1 || f[1].sign(tenant) < 0 {
			t.Errorf("%d tenant keys after the move, want 1, and a signer", n)
		}
	})
}

// audit returns the keys that i holds.
func (l *timeline) audit(i *instance) []ring.Key {
	st, _ := i.k.Load().Tenant(tenant)
	return st.Ring.Keys
}

// strange returns the fields of a ring of the same tenant and under the same KEK, in another realm.
func strange(t *testing.T, realm string) (fields map[string][]byte) {
	t.Helper()
	runTimeline(t, seldom(), func(l *timeline) {
		i := l.connect("one", 0)
		i.realm = realm
		i.open()
		i.create()
		l.runUntil(2 * time.Second)
		fields = l.cluster.Ring(tenant)
	})
	return fields
}

// count returns how many fields of the ring in the store begin with a prefix.
func (l *timeline) count(prefix string) (n int) {
	for field := range l.cluster.Ring(tenant) {
		if strings.HasPrefix(field, prefix) {
			n++
		}
	}
	return n
}
