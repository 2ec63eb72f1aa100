package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// A token is a token that an instance signed, with the claims that anyone can read in it.
type token struct {
	raw    string
	tenant tenant
	kid    string
	exp    time.Time
	cached int // 0: for the verifiers without a cache; 1: with one
	by     string
	signed time.Time
	leeway time.Duration // the leeway of its verifiers
	guest  *guest        // nil: the token is not a guest's
	from   origin        // which of the guest's keys signed it
	until  time.Time     // the date until which its key is accepted; zero: none
}

// end returns the time until which a verifier must accept the token, by the verifier's own clock.
func (t token) end() time.Time {
	end := t.exp.Add(t.leeway)
	if t.until.IsZero() || end.Before(t.until) {
		return end
	}
	return t.until
}

func (p pace) readToken(raw string, of tenant) (token, error) {
	t := token{raw: raw, tenant: of, signed: time.Now(), leeway: p.Leeway}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return t, errors.New("a token has three parts")
	}
	var header struct {
		KID string `json:"kid"`
	}
	var claims struct {
		Exp int64 `json:"exp"`
	}
	err := errors.Join(readPart(parts[0], &header), readPart(parts[1], &claims))
	t.kid, t.exp = header.KID, time.Unix(claims.Exp, 0)
	return t, err
}

func readPart(part string, into any) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// traffic signs tokens at the fleet's rate until ctx ends. Each token is verified several times
// until it expires.
func (f *fleet) traffic(ctx context.Context) {
	began := time.Now()
	for i := 0; ; i++ {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(f.rate))
		if sleep(ctx, time.Until(due)) != nil {
			return
		}
		f.issue(f.random(1)[0], tenants[f.intN(len(tenants))], i%2)
	}
}

// issue signs a token at an instance and schedules its verifications.
func (f *fleet) issue(from *instance, of tenant, cached int) {
	before, away := from.fresh(of.name), from.away.Load()
	raw, err := from.signer.Sign(context.Background(), of.name, nil)
	f.checkAwaySigned(from, away, err)
	f.tally.signing(err, before && err != nil && from.fresh(of.name))
	if err != nil {
		return
	}
	t, err := f.pace.readToken(raw, of)
	if err != nil {
		f.tally.violation("%s signed a malformed token: %v", from.name, err)
		return
	}
	t.cached, t.by = cached, from.name
	f.tally.used(of.name, t.kid)
	others := slices.DeleteFunc(f.random(len(offsets)+1), func(m *instance) bool { return m == from })
	for _, m := range others {
		f.checkKnows(m, t)
	}
	f.schedule(t)
}

// checkKnows checks that an instance, if it is in sync, has the key that a token was just signed
// with.
func (f *fleet) checkKnows(m *instance, t token) {
	before := m.fresh(t.tenant.name)
	_, err := m.keys.Lookup(keystore.ID{Tenant: t.tenant.name, KID: t.kid}, t.tenant.alg)
	fresh := before && m.fresh(t.tenant.name)
	if err == nil || !fresh || !m.now().Before(t.end()) || f.tally.isRevoked(t.kid) {
		return
	}
	f.tally.lacking("%s lacks key %s of %s, which %s has just signed with: %v", m.name, t.kid, t.tenant.name, t.by, err)
}

// schedule schedules the verifications of a token: at once, twice while it lives, and just before
// its end. A token of an accepted key is verified once more right after that.
func (f *fleet) schedule(t token) {
	life := max(0, time.Until(t.exp))
	f.after(0, t, f.random(1)[0])
	f.after(f.between(0, life), t, nil)
	f.after(f.between(0, life), t, nil)
	last := f.random(1)[0]
	f.after(t.end().Sub(last.now())-f.between(5*time.Millisecond, f.pace.ClockSkew), t, last)
	if t.from == ofPartner {
		f.after(t.end().Sub(last.now())+f.between(5*time.Millisecond, f.pace.ClockSkew), t, last)
	}
}

// after verifies t after a while, at m, or at a random instance if m is nil.
func (f *fleet) after(d time.Duration, t token, m *instance) {
	f.pending.Add(1)
	time.AfterFunc(d, func() {
		defer f.pending.Done()
		if m == nil {
			m = f.random(1)[0]
		}
		f.verify(m, t)
	})
}

func (f *fleet) verify(m *instance, t token) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if t.guest != nil {
		f.verifyGuest(ctx, m, t)
		return
	}
	v := verdict{by: m, token: t}
	before, good := m.inSync(t.tenant.name)
	v.good, v.began = good.Add(-m.offset), time.Now()
	_, v.err = m.verifiers[t.cached].VerifyTenant(ctx, t.tenant.name, t.raw)
	v.fresh = before && m.fresh(t.tenant.name)
	f.tally.ofSnapshot(m, v.err)
	now, err, fresh := m.now(), v.err, v.fresh
	if !now.Before(t.end()) {
		return // the verifier may, or must, reject it
	}
	if f.judge != nil {
		f.judge.hear(v)
	}
	if err != nil && f.tally.isRevoked(t.kid) {
		return
	}
	f.tally.verdict(err, fresh)
	if f.judge != nil {
		f.judge.reject(v)
	}
	if errors.Is(err, verifier.ErrInvalid) {
		f.tally.note("%s refuses, fresh %v, cache %d, a token of %s that %s signed %v ago with key %s, and that ends in %v: %v", m.name, fresh,
			t.cached, t.tenant.name, t.by, time.Since(t.signed), t.kid, t.end().Sub(now), err)
	}
}

// watch tells the tally which keys are minted, and the judge which keys instances have, until ctx
// ends.
func (f *fleet) watch(ctx context.Context) {
	for sleep(ctx, f.pace.glance()) == nil {
		for _, m := range f.instances() {
			for _, t := range tenants {
				s, err := m.keys.Tenant(t.name)
				if err != nil {
					continue
				}
				f.tally.minted(t.name, s.Ring)
				if f.judge != nil {
					f.judge.watch(m, t.name, s)
				}
			}
		}
	}
}

// operate rotates a random tenant's keys by hand every few seconds, or replaces the key that signs, or
// sets a policy, until ctx ends.
func (f *fleet) operate(ctx context.Context) {
	for n := 1; sleep(ctx, f.between(time.Second, 3*time.Second)) == nil; n++ {
		t := tenants[f.intN(len(tenants))]
		switch {
		case n%8 == 0:
			f.replace(ctx, t)
			continue
		case n%4 == 1: // the next keys sign for longer
			policy := f.pace.policy(t)
			policy.Every += f.between(0, policy.Every/4)
			_, err := f.random(1)[0].rotator.SetPolicy(ctx, t.name, policy)
			f.tally.policy(err)
			continue
		}
		_, err := f.random(1)[0].rotator.Rotate(ctx, t.name)
		f.tally.rotated(err)
	}
}

// replace replaces the key that signs, as if it had leaked. Each step is made by another instance.
func (f *fleet) replace(ctx context.Context, t tenant) {
	s, err := f.random(1)[0].keys.Tenant(t.name)
	if err != nil || s.Ring.Signer < 0 {
		return
	}
	leaked := s.Ring.Keys[s.Ring.Signer].KID
	f.tally.setRevoked(leaked, true) // its tokens are rejected from one of the steps on
	ctx, cancel := context.WithTimeout(ctx, 4*f.pace.Propagation)
	defer cancel()
	for ctx.Err() == nil {
		next, receipt, err := f.random(1)[0].rotator.Replace(ctx, t.name, []string{leaked})
		switch {
		case receipt.Promoted != "":
			f.tally.rotated(err)
		case err == nil && len(next.Left) == 0:
			return
		}
		_ = sleep(ctx, max(f.pace.onePoll(), time.Until(next.From)))
	}
}

// revoke revokes the signing key of a random tenant, while all instances have one of its tokens in
// their caches. It waits until all instances reject that token.
func (f *fleet) revoke(ctx context.Context) error {
	t, receipt, err := f.revokeSigning(ctx, tenants[f.intN(len(tenants))], f.random(1)[0])
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	all := f.instances()
	took := make([]time.Duration, len(all))
	err = atOnce(len(all), func(i int) (err error) {
		took[i], err = all[i].refuses(ctx, t, receipt.CommittedAt)
		return err
	})
	f.tally.revoked(took)
	return err
}

// revokeSigning revokes the signing key as soon as another one can take over, and returns a token
// of the revoked key. On a busy machine an attempt may fail, although the key was revoked. Then
// revokeSigning goes on with the key that signs next.
func (f *fleet) revokeSigning(ctx context.Context, of tenant, by *instance, opts ...rotation.Option) (token, rotation.Receipt, error) {
	for {
		t, err := f.remembered(of, by)
		var receipt rotation.Receipt
		if err == nil {
			f.tally.setRevoked(t.kid, true)
			receipt, err = by.rotator.Revoke(ctx, of.name, t.kid, opts...)
		}
		if err == nil && !receipt.CommittedAt.IsZero() {
			return t, receipt, nil
		}
		wait := 100 * time.Millisecond
		if refused := new(rotation.RefusedError); errors.As(err, &refused) {
			f.tally.setRevoked(t.kid, false)
			wait = max(wait, time.Until(refused.From))
		}
		if err2 := sleep(ctx, wait); err2 != nil {
			return t, receipt, errors.Join(err, err2)
		}
	}
}

// remembered returns a new token that every instance has in its cache.
func (f *fleet) remembered(of tenant, by *instance) (token, error) {
	raw, err := by.signer.Sign(context.Background(), of.name, nil)
	if err != nil {
		return token{}, err
	}
	t, err := f.pace.readToken(raw, of)
	for _, m := range f.instances() {
		for range 3 {
			_, _ = m.verifiers[1].VerifyTenant(context.Background(), of.name, raw)
		}
	}
	return t, err
}

// refuses waits until the instance rejects the token, and returns how long after since that was.
func (m *instance) refuses(ctx context.Context, t token, since time.Time) (time.Duration, error) {
	for {
		at := time.Now()
		_, err := m.verifiers[1].VerifyTenant(ctx, t.tenant.name, t.raw)
		if errors.Is(err, verifier.ErrInvalid) {
			if errors.Is(err, verifier.ErrExpired) {
				return 0, fmt.Errorf("instance %s accepted a token of a revoked key to its end", m.name)
			}
			return max(0, at.Sub(since)), nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return 0, err
		}
	}
}
