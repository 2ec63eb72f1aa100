package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// sign makes a token with the guest's old key or its partner's key, by hand.
func (g *guest) sign(f *fleet, of origin, life time.Duration) (token, error) {
	kid, end := g.old.KID, time.Time{}
	if of == ofPartner {
		g.mu.Lock()
		kid, end = g.partner.KID, g.until
		g.mu.Unlock()
	}
	header := map[string]string{"alg": "HS256", "typ": "JWT"}
	if kid != "" {
		header["kid"] = kid
	}
	now := time.Now()
	claims := map[string]any{"iss": issuer(g.tenant.name), "iat": now.Unix(), "exp": now.Add(life).Unix(), "jti": fmt.Sprint(now.UnixNano())}
	first, err1 := json.Marshal(header)
	second, err2 := json.Marshal(claims)
	if err1 != nil || err2 != nil {
		return token{}, fmt.Errorf("a token: %v, %v", err1, err2)
	}
	text := base64.RawURLEncoding.EncodeToString(first) + "." + base64.RawURLEncoding.EncodeToString(second)
	mac := hmac.New(sha256.New, g.secrets[of])
	mac.Write([]byte(text))
	t, err := f.pace.readToken(text+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), g.tenant)
	t.guest, t.from, t.until, t.by, t.cached = g, of, end, "the holder of its own key", f.intN(2)
	return t, err
}

// host lets guests come and go, one after the other, until ctx ends. It waits for the last one, which
// goes on until life ends.
func (f *fleet) host(ctx, life context.Context) {
	for sleep(ctx, f.between(0, time.Second)) == nil {
		g := f.newGuest()
		if err := f.stay(life, g); err != nil && life.Err() == nil {
			f.tally.wrong(func(o *ops) { o.Refused[ofRing]++ }, "%s: %v", g.tenant.name, err)
		}
	}
}

// stay does to a guest what operators do, from the import of its key to the end of its ring.
func (f *fleet) stay(ctx context.Context, g *guest) error {
	hold := f.intN(2) == 0
	if err := f.adopt(ctx, g, hold); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if err := f.accept(ctx, g, f.between(2*f.pace.MaxTokenTTL, 4*f.pace.MaxTokenTTL)); err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	if err := f.changePolicy(ctx, g); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if f.intN(2) == 0 {
		if err := f.accept(ctx, g, f.between(4*f.pace.MaxTokenTTL, 5*f.pace.MaxTokenTTL)); err != nil {
			return fmt.Errorf("accept until a later date: %w", err)
		}
	}
	if err := f.sendAway(ctx, g, f.random(1)[0]); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if hold {
		if err := f.endHold(ctx, g); err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	if err := sleep(ctx, f.between(0, g.old.Longest)); err != nil { // until the last token of its old key has ended, or not
		return err
	}
	if err := f.shred(ctx, g); err != nil {
		return fmt.Errorf("shred: %w", err)
	}
	return nil
}

// adopt imports the guest's key. Half of the instances hear of the tenant before, the others after.
func (f *fleet) adopt(ctx context.Context, g *guest, hold bool) error {
	all := f.random(len(f.instances()))
	if err := f.welcome(ctx, g, all[:len(all)/2]...); err != nil {
		return err
	}
	err := f.insistOnce(ctx, "an import", func(*rotation.Rotator) error {
		all := f.random(len(f.instances()))
		m := all[max(0, slices.IndexFunc(all, func(m *instance) bool { return g.stayAt(m).held() }))]
		if err := f.tryWelcome(ctx, g, m); err != nil { // those that held it have ended
			return err
		}
		_, err := m.rotator.Adopt(ctx, g.tenant.name, g.old, f.pace.policy(g.tenant), rotation.AdoptOptions{Hold: hold})
		return err
	})
	if err != nil {
		return err
	}
	f.tally.do(func(c *count) {
		c.Ops.Imported++
		if hold {
			c.Ops.Held++
		}
	})
	f.mu.Lock()
	f.guests = append(f.guests, g)
	f.mu.Unlock()
	if err := f.welcome(ctx, g, f.instances()...); err != nil {
		return err
	}
	id := keystore.ID{Tenant: g.tenant.name, KID: g.old.KID}
	err = f.allHave(ctx, g, "an imported key", func(m *instance) bool {
		found, err := m.keys.Lookup(id, g.old.Algorithm)
		return err == nil && len(found) > 0
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settled, g.oldEnds = true, time.Now().Add(time.Hour)
	if hold {
		return nil
	}
	for _, m := range f.instances() { // one that does not hold the guest has no keys of it
		if s, err := m.keys.Tenant(g.tenant.name); err == nil && len(s.Ring.Keys) > 0 && s.Ring.Keys[0].RetiresAt.Before(g.oldEnds) {
			g.oldEnds = s.Ring.Keys[0].RetiresAt
		}
	}
	return nil
}

// allHave waits until done is true of every instance that holds the guest.
func (f *fleet) allHave(ctx context.Context, g *guest, what string, done func(*instance) bool) error {
	return await(ctx, "all instances to have "+what, func() bool {
		for _, m := range f.instances() {
			if g.stayAt(m).held() && !done(m) {
				return false
			}
		}
		return true
	})
}

// accept accepts the key of the guest's partner until a date, or until a later one.
func (f *fleet) accept(ctx context.Context, g *guest, life time.Duration) error {
	var until time.Time
	var receipt rotation.Receipt
	err := f.insist(ctx, "a key to be accepted", func(r *rotation.Rotator) (err error) {
		g.mu.Lock()
		until = later(g.latest, time.Now().Add(life).Truncate(time.Millisecond)) // an attempt of which the answer was lost may have been made
		g.latest = until
		g.mu.Unlock()
		receipt, err = r.Accept(ctx, g.tenant.name, []ring.ForeignKey{g.partner}, until)
		return err
	})
	if err != nil {
		return err
	}
	f.tally.do(func(c *count) { c.Ops.Accepted++ })
	kid := receipt.Accepted[0]
	err = f.allHave(ctx, g, "an accepted key", func(m *instance) bool {
		if !time.Now().Before(until) {
			return true // it has ended before a cut off instance could hear of it
		}
		s, err := m.keys.Tenant(g.tenant.name)
		for _, a := range s.Accepted {
			if err == nil && a.KID == kid && !a.Until.Before(until) {
				return true
			}
		}
		return false
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Now().Before(until) {
		g.accepted, g.until = kid, until
	}
	return nil
}

// changePolicy lets the guest's next key be of another algorithm.
func (f *fleet) changePolicy(ctx context.Context, g *guest) error {
	err := f.insist(ctx, "a policy to be set", func(r *rotation.Rotator) error {
		_, err := r.SetPolicy(ctx, g.tenant.name, f.pace.policy(tenant{g.tenant.name, keystore.ES256}))
		return err
	})
	f.tally.policy(err)
	return err
}

// endHold lets the guest's second key take over, once its old programs have stopped to sign.
func (f *fleet) endHold(ctx context.Context, g *guest) error {
	g.mu.Lock()
	g.oldEnds = time.Now()
	g.mu.Unlock()
	err := f.insist(ctx, "the end of a hold", func(r *rotation.Rotator) error {
		_, err := r.Rotate(ctx, g.tenant.name)
		return err
	})
	f.tally.rotated(err)
	return err
}
