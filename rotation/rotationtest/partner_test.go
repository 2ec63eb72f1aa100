package rotationtest_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A partner is a program whose key is accepted: it signs tokens, and knows no store.

// partnerSecret is the secret of a partner.
func partnerSecret(tenant, name string) []byte {
	secret := sha256.Sum256([]byte("the partner " + name + " of " + tenant))
	return secret[:]
}

// partnerKey is the key of a partner, with a kid of that name, or without one.
func partnerKey(tenant, name string, noKID bool) ring.ForeignKey {
	k := ring.ForeignKey{KID: name, Algorithm: keystore.HS256, Key: partnerSecret(tenant, name)}
	if k.NoKID = noKID; noKID {
		k.KID = ""
	}
	return k
}

// accept accepts the key of a partner for d, by the world's clock.
func (i *instance) accept(ctx context.Context, tenant, name string, noKID bool, d time.Duration) (rotation.Receipt, error) {
	return i.r.Load().Accept(ctx, tenant, []ring.ForeignKey{partnerKey(tenant, name, noKID)}, time.Now().Add(d))
}

// signAsPartner lets a partner sign a token, and returns its index. kid is that of its accepted key.
func (w *world) signAsPartner(tenant, name, kid string) int {
	now := time.Now()
	id := keystore.ID{Tenant: tenant}
	if kid == name {
		id.KID = kid
	}
	s, err := rotation.NewStaticSigner(id, keystore.HS256, partnerSecret(tenant, name), rotation.SignerConfig{TTL: w.policy.MaxTokenTTL, Now: func() time.Time { return now }})
	if err != nil {
		panic(err)
	}
	text, err := s.Sign(w.ctx, tenant, nil)
	if err != nil {
		panic(err)
	}
	t := parse(text)
	t.tenant, t.kid, t.noKID, t.partner, t.signer, t.issued = tenant, kid, id.KID == "", true, -1, now
	return w.h.addToken(t)
}

// partnerOf names one of the two partners of a tenant. In another life of the ring it has another key.
func (s *sim) partnerOf(tenant string, lives int) string {
	return fmt.Sprintf("%s-partner-%d-%d", tenant, s.partners.IntN(2), lives)
}

// partner lets a partner sign, or an operator accept, extend or revoke its key. It draws from a source of
// its own, so that the rest of a history is that of its seed.
func (s *sim) partner() {
	i, tenant := s.randomPartnerInstance()
	if i == nil {
		return
	}
	st, err := i.k.Load().Tenant(tenant)
	if err != nil {
		return
	}
	name := s.partnerOf(tenant, st.Ring.Lives)
	switch n := s.partners.IntN(40); {
	case n < 8:
		d := time.Second + time.Duration(s.partners.Int64N(int64(9*time.Second)))
		i.runOp("accept "+name, tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return i.accept(ctx, tenant, name, false, d)
		})
	case n < 9:
		i.runOp("disown "+name, tenant, func(ctx context.Context, r *rotation.Rotator) (rotation.Receipt, error) {
			return r.Revoke(ctx, tenant, name)
		})
	default:
		s.partnerTokens = append(s.partnerTokens, s.signAsPartner(tenant, name, name))
		recent := s.partnerTokens[max(0, len(s.partnerTokens)-20):]
		for _, other := range s.alive() {
			other.verify(recent[s.partners.IntN(len(recent))])
		}
		i.verifyAs(recent[s.partners.IntN(len(recent))], s.tenants[s.partners.IntN(len(s.tenants))])
	}
}

func (s *sim) randomPartnerInstance() (*instance, string) {
	alive := s.alive()
	if len(alive) == 0 {
		return nil, ""
	}
	return alive[s.partners.IntN(len(alive))], s.tenants[s.partners.IntN(len(s.tenants))]
}
