package rotationtest_test

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// An adoption says how the rings of a world begin: with a key that other programs sign with.
type adoption struct {
	rotation.AdoptOptions
	longest time.Duration // the longest life of its tokens
}

// oldSecret is the key of a tenant's old programs.
func oldSecret(tenant string) []byte {
	secret := sha256.Sum256([]byte("the old programs of " + tenant))
	return secret[:]
}

// adopt makes the ring of a tenant with the key of its old programs, whose tokens have no kid.
func (i *instance) adopt(ctx context.Context, tenant string, a adoption) (rotation.Receipt, error) {
	return i.r.Load().Adopt(ctx, tenant, rotation.Imported{NoKID: true, Algorithm: keystore.HS256, Key: oldSecret(tenant), Longest: a.longest}, i.w.policy, a.AdoptOptions)
}

// signAsOldProgram lets an old program sign a token that lives as long as one can, and returns its
// index. Old programs sign as long as i does with their key, by i's clock; otherwise it returns -1.
func (i *instance) signAsOldProgram(tenant string) int {
	st, err := i.k.Load().Tenant(tenant)
	if err != nil || st.Ring.Signer < 0 || st.Ring.Keys[st.Ring.Signer].Origin != ring.Legacy || i.sign(tenant) < 0 {
		return -1
	}
	key := st.Ring.Keys[st.Ring.Signer]
	now := i.now()
	s, err := rotation.NewStaticSigner(keystore.ID{Tenant: tenant}, key.Algorithm, oldSecret(tenant), rotation.SignerConfig{TTL: key.TokenTTL(), Now: func() time.Time { return now }})
	if err != nil {
		panic(err)
	}
	text, err := s.Sign(i.w.ctx, tenant, nil)
	if err != nil {
		panic(err)
	}
	t := parse(text)
	t.tenant, t.kid, t.noKID, t.signer, t.issued = tenant, key.KID, true, i.w.oldProgram(), now
	n := i.w.h.addToken(t)
	i.w.h.add(event{kind: evSign, inst: t.signer, tenant: tenant, token: n, result: ok})
	return n
}

// oldProgram returns the number by which the history names all old programs.
func (w *world) oldProgram() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.old == 0 {
		w.old = w.h.addInstance("an old program")
	}
	return w.old
}

// named sets the kid of the record that t names without a kid: its own, or that of the key that
// signs now.
func (i *instance) named(t token, keys []ring.Key) token {
	if t.kid != "" {
		return t
	}
	t.noKID = true
	for _, signing := range []bool{false, true} {
		for _, k := range slices.Backward(keys) {
			if k.NoKID && (!signing || k.State == ring.Signing) {
				t.kid = k.KID
			}
		}
	}
	return t
}

// id returns how t names its key.
func (t *token) id(tenant string) keystore.ID {
	if t.noKID {
		return keystore.ID{Tenant: tenant}
	}
	return keystore.ID{Tenant: tenant, KID: t.kid}
}
