package rediskeys_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
)

// A subscriber removes the revocation at each nudge, and the promotion of the next key. The log
// names both. So every instance learns of the revocation with its next sync, also one that starts
// meanwhile, and none signs with the revoked key.
func TestNemesisRevocationRemovedAtEachNudge(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	fleet := nemesisFleet(t, server.Addr(), "a", "b", "c")
	kid, token := fleet[0].signing(t)
	next := fleet[0].inSync(t).Ring.Keys[1].KID
	stop := hideFields(t, server, "x:"+kid, "a:"+next, "w:"+kid, "w:"+next)
	fleet[0].revoke(t, kid)
	committed := time.Now()
	late, signed := 0, 0
	for end := committed.Add(3 * repairTime); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if len(fleet) == 3 && time.Since(committed) > 200*time.Millisecond {
			fleet = append(fleet, nemesisMember(t, server.Addr(), "newcomer"))
		}
		for _, m := range fleet {
			if m.accepts(t, token, committed) {
				late++
			}
			before := m.inSync(t)
			if _, err := m.signer.Sign(t.Context(), nemesisTenant, nil); err == nil && before.LastGood.After(committed) && before.Ring.Keys[before.Ring.Signer].KID == kid {
				signed++
			}
		}
	}
	removed := stop()
	if removed == 0 {
		t.Fatal("nothing was removed")
	}
	if late > 0 || signed > 0 {
		t.Errorf("of %d removals: tokens of the revoked key were accepted %d times by instances in sync, and %d tokens were signed with it", removed, late, signed)
	}
	eventually(t, "the revocation to be back", func() bool {
		return server.Client().HExists(t.Context(), nemesisKey("ring:"+nemesisTenant), "x:"+kid).Val()
	})
	for _, m := range fleet {
		eventually(t, m.name+" to refuse the token", func() bool { return m.refuses(t, token) })
	}
}

// An operator's KEK file has the new KEK first, and the fleet has the old one alone. What the
// operator writes must be readable for the fleet, or not be written. No acknowledgement may say that
// it was applied where it was not.
func TestNemesisRevocationUnderAnUnknownKEK(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	fleet := nemesisFleet(t, server.Addr(), "a", "b", "c")
	kid, token := fleet[0].signing(t)
	operator := nemesisMember(t, server.Addr(), "operator", func(c *rotation.Config) { c.KEKs, c.OneShot = keks(t, newKEK(), oldKEK()), true })
	time.Sleep(nemesisPolicy.Freshness + nemesisPolicy.Dwell + nemesisPolicy.ClockSkew) // until the pending key is known
	receipt, err := operator.rotator.Revoke(t.Context(), nemesisTenant, kid)
	t.Logf("Revoke: %v", err)
	lied := make(map[string]int)
	for end := time.Now().Add(2 * repairTime); err == nil && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		acks, _ := operator.rotator.Acks(t.Context(), receipt)
		for _, ack := range acks {
			for _, m := range fleet {
				if _, err := m.verifier.Verify(t.Context(), token); m.name == ack.Instance && ack.Applied && err == nil {
					lied[m.name]++
				}
			}
		}
	}
	if len(lied) > 0 {
		t.Errorf("instances accepted the revoked key's token after they had acknowledged the revocation: %v", lied)
	}
	for _, m := range fleet {
		eventually(t, m.name+" to be in sync", func() bool { return m.inSync(t).Fresh })
		if err == nil {
			eventually(t, m.name+" to refuse the token", func() bool { return m.refuses(t, token) })
		}
	}
}

// A revocation only takes trust away, so a ring with a field that cannot be read takes it.
func TestNemesisRevokeNextToAnUnreadableField(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	fleet := nemesisFleet(t, server.Addr(), "a", "b")
	kid, token := fleet[0].signing(t)
	do(t, server, "HSET", nemesisKey("ring:"+nemesisTenant), "k:junk", "junk")
	for _, m := range fleet {
		eventually(t, m.name+" to find the field", func() bool { return m.inSync(t).Err != nil })
	}
	receipt, err := fleet[0].rotator.Revoke(t.Context(), nemesisTenant, kid, rotation.Force)
	for end := time.Now().Add(2 * repairTime); err != nil && time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // a busy machine may lose an answer
		receipt, err = fleet[0].rotator.Revoke(t.Context(), nemesisTenant, kid, rotation.Force)
	}
	if err != nil {
		t.Fatalf("Revoke: %+v, %v", receipt, err)
	}
	for _, m := range fleet {
		eventually(t, m.name+" to refuse the token", func() bool { return m.refuses(t, token) })
	}
}

// A token of a key that an instance knows to be revoked is refused at once, whether or not Redis
// answers.
func TestNemesisKnownRevocationNeedsNoRedis(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	fleet := nemesisFleet(t, server.Addr(), "a")
	proxy := redistest.RunProxy(t, server.Addr())
	m := nemesisMember(t, proxy.Addr(), "b")
	kid, token := fleet[0].signing(t)
	fleet[0].revoke(t, kid)
	eventually(t, "b to know the revocation", func() bool { return !m.inSync(t).Ring.Keys[0].RevokedAt.IsZero() })
	proxy.Blackhole()
	defer proxy.Heal()
	least, bad := time.Hour, 0
	for n := range 40 {
		if n == 20 {
			eventually(t, "b to be out of sync", func() bool { return !m.inSync(t).Fresh })
		}
		began := time.Now()
		_, err := m.verifier.Verify(t.Context(), token)
		least = min(least, time.Since(began))
		if !errors.Is(err, verifier.ErrInvalid) {
			bad++
			t.Logf("after %v: %v", time.Since(began), err)
		}
	}
	if bad > 0 || least > 50*time.Millisecond {
		t.Errorf("%d of 40 answers were no 401, and the quickest took %v", bad, least)
	}
}

// A replica that takes writes passes no write on. So a store refuses it, like one that does not.
func TestNemesisWritableReplicaIsRefused(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	p := redistest.RunPair(t, redistest.Options{})
	do(t, p.Replica, "CONFIG", "SET", "replica-read-only", "no")
	primary, replica := open(t, "redis://"+p.Primary.Addr()), open(t, "redis://"+p.Replica.Addr())
	at := begin(t, primary)
	set(t, primary, tenant, "f", "1")
	if err := p.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(t.Context(), replica, at) {
		if err := call(); !errors.Is(err, rediskeys.ErrReplica) {
			t.Errorf("%s: error %v, want %v", name, err, rediskeys.ErrReplica)
		}
	}
}

// A hidingStore is a store for an operator from whom a person hides every acknowledgement.
type hidingStore struct{ rotation.Store }

func (hidingStore) Acks(context.Context, int) ([]rotation.RawAck, time.Time, error) {
	return nil, time.Now(), nil
}

// All acknowledgements are removed at every moment. Redis still says that instances listen, so the
// operator is told that none has confirmed the revocation.
func TestNemesisRevocationWithoutAcknowledgements(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	fleet := nemesisFleet(t, server.Addr(), "a", "b")
	kid, _ := fleet[0].signing(t)
	k, err := rotation.Open(t.Context(), hidingStore{open(t, "redis://"+server.Addr())}, rotation.Config{
		KEKs: keks(t, oldKEK()), Tenants: []string{nemesisTenant}, OneShot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close(t.Context())
	operator, err := rotation.NewRotator(k)
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := operator.Revoke(t.Context(), nemesisTenant, kid, rotation.Force)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if acks, err := operator.Await(ctx, receipt); !errors.Is(err, ring.ErrUnconfirmed) {
		t.Errorf("Await: %+v, %v, want ErrUnconfirmed", acks, err)
	}
}
