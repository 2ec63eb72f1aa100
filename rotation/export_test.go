package rotation

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// AddKey mints a key that is pending, however soon after the last, and returns it
// with what signs with it.
func (r *Rotator) AddKey(ctx context.Context, tenant string) (keystore.ID, func([]byte) []byte, error) {
	note, made := r.minting()
	p, _, err := r.apply(ctx, tenant, false, func(s *scene) (*proposal, error) {
		note(s)
		p := &proposal{op: OpMint}
		return p, s.mint(p, *s.policy(), s.held.maxSeq()+1, s.now.Add(time.Hour), made())
	})
	if err != nil {
		return keystore.ID{}, nil, err
	}
	h := r.k.ring(tenant).state.Load()
	rec, err := h.opened(r.k.cfg.KEKs, h.find(p.kid))
	if err != nil {
		return keystore.ID{}, nil, err
	}
	return keystore.ID{Tenant: tenant, KID: p.kid}, func(msg []byte) []byte {
		sig, err := rec.sign(msg)
		if err != nil {
			panic(err)
		}
		return sig
	}, nil
}

// Reload reads a ring again.
func (k *Keyring) Reload(ctx context.Context, tenant string) error {
	return k.sync(ctx, tenant, Facts{})
}
