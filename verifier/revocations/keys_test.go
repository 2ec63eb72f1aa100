package revocations

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// withoutKEK opens a list whose digest keys lie in the store in clear.
func withoutKEK(c *Config) { c.KEKs = nil }

// TestInstanceWithAnotherForm: one instance has no KEK where the others have one, or the reverse. It accepts
// nothing, revokes nothing, and makes no digest key, whether or not another runs, until the digest keys are of
// its form.
func TestInstanceWithAnotherForm(t *testing.T) {
	sealed := func(*Config) {}
	for name, tt := range map[string]struct {
		fleet, lone func(*Config)
		alone       bool
	}{
		"no KEK":        {fleet: sealed, lone: withoutKEK},
		"no KEK, alone": {fleet: sealed, lone: withoutKEK, alone: true},
		"a KEK":         {fleet: withoutKEK, lone: sealed},
		"a KEK, alone":  {fleet: withoutKEK, lone: sealed, alone: true},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
				a := open(t, cluster.Connect("a"), "a", tt.fleet)
				ready(t, a)
				token := revoked(t, issuer, a, "1")
				time.Sleep(10 * time.Second)
				if tt.alone {
					_ = a.Close(t.Context())
				}
				before := cluster.Ring(keysGroup)
				group := groupName(groupOf(a.current().First().Digest(table.Token, "acme", "1"), few))
				cluster.EditRing(group, func(fields map[string][]byte) { fields["x"] = []byte("x") }) // a process without a key cannot collect it
				b := open(t, cluster.Connect("b"), "b", tt.lone)
				for range 120 {
					time.Sleep(time.Second)
					if got := refuses(t, issuer, b, token); got != "unknown" {
						t.Fatalf("the token is %s: %+v", got, b.Status())
					}
				}
				name := "k:" + a.Status().KeyNames[0]
				if err := b.Status().Err; !errors.Is(err, ErrDigestKeys) || !strings.Contains(err.Error(), name) {
					t.Errorf("the status says %v, want the field %s", err, name)
				}
				if _, err := b.RevokeToken(t.Context(), "acme", "2", time.Now().Add(time.Hour)); !errors.Is(err, ErrDigestKeys) {
					t.Errorf("RevokeToken: %v", err)
				}
				if after := cluster.Ring(keysGroup); !maps.EqualFunc(before, after, func(a, b []byte) bool { return string(a) == string(b) }) {
					t.Errorf("the digest keys were %d and are %d", len(before), len(after))
				}
				if !tt.alone {
					want(t, issuer, token, "refused", a)
				}
				cluster.DeleteRing(keysGroup) // the running fleet puts its key back, and a lone instance may begin
				time.Sleep(time.Minute)
				if tt.alone {
					want(t, issuer, issuer.token("acme", nil), "accepted", b)
				} else {
					want(t, issuer, token, "refused", a)
				}
			})
		})
	}
}

// TestJunkBesideKeys: a writer removes the digest key and fills the group with values that look like keys, so that
// little room is left. A holder removes them and puts back the key, and an instance that starts has it.
func TestJunkBesideKeys(t *testing.T) {
	for name, junk := range map[string]func(n int) string{
		"of another form":  func(int) string { return "x" },
		"as if sealed":     func(int) string { return "kt\x01B" + strings.Repeat("x", 400) },
		"too long":         func(int) string { return "kt\x01B" + strings.Repeat("x", 600) },
		"of a newer form":  func(n int) string { return "kt\x02" + strings.Repeat("x", 400) },
		"as if in clear":   func(n int) string { return "kt\x01p" + strings.Repeat("x", 32) },
		"as if it was his": func(n int) string { return "kt\x01p" + fmt.Sprintf("%032d", n) },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
				a := open(t, cluster.Connect("a"), "a")
				ready(t, a)
				token := revoked(t, issuer, a, "1")
				time.Sleep(10 * time.Second)
				cluster.EditRing(keysGroup, func(fields map[string][]byte) {
					clear(fields)
					for n := range 2000 {
						fields[fmt.Sprintf("k:%08x", n)] = []byte(junk(n))
					}
				})
				b := open(t, cluster.Connect("b"), "b")
				for range 60 {
					time.Sleep(time.Second)
					if got := refuses(t, issuer, b, token); got == "accepted" {
						t.Fatalf("the newcomer accepts a revoked token: %+v", b.Status())
					}
				}
				want(t, issuer, token, "refused", a, b)
				if n := len(cluster.Ring(keysGroup)); n != 1 {
					t.Errorf("the group of the digest keys has %d fields", n)
				}
			})
		})
	}
}

// TestJunkThatMayBeAKey: a few values that look like keys of another KEK, or of none, stay: they may be of
// instances that are configured so, and an instance that is configured wrong must not remove the right keys.
func TestJunkThatMayBeAKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		token := revoked(t, issuer, a, "1")
		plain, err := codec.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		field, value, err := codec.SealKey(codec.PlainBox(), plain)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		cluster.EditRing(keysGroup, func(fields map[string][]byte) { fields[field] = value })
		b := open(t, cluster.Connect("b"), "b")
		time.Sleep(time.Minute)
		want(t, issuer, token, "refused", a, b)
		if len(cluster.Ring(keysGroup)[field]) == 0 {
			t.Error("the key of the other form was removed")
		}
	})
}

// twins returns two digest keys with the same ID.
func twins(t *testing.T) (one, two *codec.Key) {
	t.Helper()
	var keys []*codec.Key
	for _, n := range []int{1581, 80808} {
		secret := sha256.Sum256([]byte(fmt.Sprint("twin ", n)))
		k, err := codec.ParseKey(secret[:])
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	if keys[0].ID != keys[1].ID || keys[0].Same(keys[1]) {
		t.Fatalf("the keys are %v and %v", keys[0], keys[1])
	}
	return keys[0], keys[1]
}

// TestKeyOfTheSameID: without a KEK a writer can look for a digest key whose ID is that of the list's, and puts
// it in its place. The holder puts its own back. An instance that started meanwhile takes that.
func TestKeyOfTheSameID(t *testing.T) {
	real, other := twins(t)
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		put := func(k *codec.Key) {
			field, value, err := codec.SealKey(codec.PlainBox(), k)
			if err != nil {
				t.Fatal(err)
			}
			if !cluster.EditRing(keysGroup, func(fields map[string][]byte) { fields[field] = value }) {
				t.Fatal("there is no group to edit")
			}
		}
		first := open(t, cluster.Connect("first"), "first", withoutKEK)
		ready(t, first)
		time.Sleep(10 * time.Second)
		_ = first.Close(t.Context())
		cluster.EditRing(keysGroup, func(fields map[string][]byte) {
			clear(fields)
			fields["x"] = nil
		})
		put(real)
		a := open(t, cluster.Connect("a"), "a", withoutKEK)
		ready(t, a)
		token := revoked(t, issuer, a, "1")
		time.Sleep(10 * time.Second)
		put(other)
		b := open(t, cluster.Connect("b"), "b", withoutKEK)
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			if got := refuses(t, issuer, b, token); got == "accepted" {
				t.Fatalf("the newcomer accepts a revoked token: %+v", b.Status())
			}
		}
		want(t, issuer, token, "refused", a, b)
		if k := b.current().Find(real.ID); k == nil || !k.Same(real) {
			t.Errorf("the newcomer has the key %v", k)
		}
		if a.Status().Alarms.Forged == 0 {
			t.Errorf("no alarm: %+v", a.Status())
		}
		group := groupName(groupOf(real.Digest(table.Token, "acme", "1"), few))
		if len(cluster.Ring(group)) != 1 {
			t.Error("the revocation is gone from the store")
		}
	})
}

// TestCommandsAfterFlush: a person empties the store again and again, and each time a command is there first. The
// commands wait for the digest key of the instance that runs. So they make none of their own, of which a fifth would
// stop all instances. Where none runs, a command makes one.
func TestCommandsAfterFlush(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme")
		a := open(t, cluster.Connect("a"), "a")
		ready(t, a)
		time.Sleep(10 * time.Second)
		for n := range 6 {
			cluster.Flush()
			name := fmt.Sprint("command", n)
			command := open(t, cluster.Connect(name), name, func(c *Config) { c.Transient, c.Deadline = true, 2*time.Second })
			token := revoked(t, issuer, command, fmt.Sprint(n))
			_ = command.Close(t.Context())
			time.Sleep(10 * time.Second)
			want(t, issuer, token, "refused", a)
		}
		want(t, issuer, issuer.token("acme", nil), "accepted", a)
		if names := a.Status().KeyNames; len(names) != 1 {
			t.Errorf("the digest keys are %v", names)
		}
		_ = a.Close(t.Context())
		cluster.Flush()
		begin := time.Now()
		command := open(t, cluster.Connect("last"), "last", func(c *Config) { c.Transient, c.Deadline = true, 2*time.Second })
		revoked(t, issuer, command, "last")
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("without an instance a command takes %v", took)
		}
	})
}
