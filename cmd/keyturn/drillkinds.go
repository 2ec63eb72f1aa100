package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/drill"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
)

// rehearse runs the drill on the canary's ring, which was just made.
func (r *drillRun) rehearse(ctx context.Context) {
	defer func() { // at the end: an instance that has just started says so with its second poll
		if ctx.Err() == nil {
			r.fleet(ctx)
		}
	}()
	token, err := r.firstToken(ctx)
	if err != nil {
		r.fail(ctx, "first token", err)
		return
	}
	switch r.kind {
	case drillRotate:
		r.rotate(ctx, token)
	case drillRevoke:
		r.revoke(ctx, token)
	case drillOutage:
		r.outage(ctx, token)
	case drillRestore:
		r.restore(ctx, token)
	}
}

// firstToken returns a token of the new ring. An instance signs only with a key that a sync has
// confirmed after Dwell, since a failover may lose it until then.
func (r *drillRun) firstToken(ctx context.Context) (token string, err error) {
	r.say("waiting until the canary's first key signs")
	policy := canaryPolicy(r.freshness.value)
	for end := time.Now().Add(policy.Dwell + r.times.Gap + r.times.Within); ; {
		if token, err = r.own.sign(ctx); err == nil || time.Now().After(end) || !pause(ctx, drillLooks) {
			return token, err
		}
	}
}

// rotate makes the next key sign. Tokens of both keys have to be good.
func (r *drillRun) rotate(ctx context.Context, token string) {
	receipt, err := r.whenAllowed(ctx, "rotating", func(ctx context.Context, w *rotation.Rotator, opts ...rotation.Option) (rotation.Receipt, error) {
		return w.Rotate(ctx, r.tenant.value, opts...)
	})
	if err != nil {
		r.fail(ctx, "rotated", err)
		return
	}
	r.say("rotated; waiting for the instances")
	r.hear(ctx, "rotated", receipt, r.signsWith(ctx, receipt.Promoted))
	r.good(ctx, "old token verified", token)
}

// signsWith is a probe for a token of a key that has just taken over.
func (r *drillRun) signsWith(ctx context.Context, kid string) *probe {
	return &probe{
		Check: drill.Check{Step: "new token verified", Bound: r.times.Within, Found: "the next key signs, and its token is good",
			Missing: "no token of the next key was good", Do: `docs/operations.md, "It does not sign"`},
		test: func() bool {
			token, err := r.own.sign(ctx)
			if err != nil {
				return false
			}
			got, err := r.own.verify(ctx, token)
			return err == nil && got == kid
		},
	}
}

// good notes whether a token of before is still good.
func (r *drillRun) good(ctx context.Context, step, token string) {
	_, err := r.own.verify(ctx, token)
	check := drill.Check{Step: step, Happened: err == nil, Found: "the token of before is good", Cut: ctx.Err() != nil, Do: `docs/operations.md, "It is not there: 401 or 404"`}
	if err != nil {
		check.Missing = "a good token was refused: " + errorText(err)
	}
	r.lines = append(r.lines, drill.JudgeCheck(check))
}

// revoke revokes the key that signs. Its token has to be refused, and the next key to sign.
func (r *drillRun) revoke(ctx context.Context, token string) {
	kid, _ := r.kids()
	receipt, err := r.whenAllowed(ctx, "revoking", func(ctx context.Context, w *rotation.Rotator, opts ...rotation.Option) (rotation.Receipt, error) {
		return w.Revoke(ctx, r.tenant.value, kid, opts...)
	})
	if err != nil {
		r.fail(ctx, "revoked", err)
		return
	}
	r.say("revoked; waiting for the instances")
	refused := &probe{
		Check: drill.Check{Step: "revoked token refused", Bound: r.times.Within, Found: "the drill's own instance refuses its token",
			Missing: "the drill's own instance still accepts its token", Do: `docs/operations.md, "Not applied everywhere"`},
		test: func() bool {
			_, err := r.own.verify(ctx, token)
			return errors.Is(err, verifier.ErrUnknownKey)
		},
	}
	r.hear(ctx, "revoked", receipt, refused, r.signsWith(ctx, receipt.Promoted))
	r.lines = append(r.lines, drill.Note("worst case", "an instance that is cut off and hears of nothing would accept it until %s", stamp(receipt.WorstCase)))
}

// outage cuts the link of the drill's own instance, changes the ring, and heals the link. The change is
// the revocation of the pending key, which has to wait for nothing.
func (r *drillRun) outage(ctx context.Context, token string) {
	_, pending := r.kids()
	r.lines = append(r.lines, drill.Note("link cut", "for %v, of the drill's own instance %s; the others stay connected", r.lasts.value, r.name))
	r.own.link.Cut()
	_, err := r.whenAllowed(ctx, "changing the ring", func(ctx context.Context, w *rotation.Rotator, opts ...rotation.Option) (rotation.Receipt, error) {
		return w.Revoke(ctx, r.tenant.value, pending, opts...)
	})
	if err != nil {
		r.own.link.Heal()
		r.fail(ctx, "change meanwhile", err)
		return
	}
	o := r.away(ctx, token)
	o.Heard = r.revoked(pending)
	r.lines = append(r.lines, drill.JudgeOutage(o)...)
	healed := r.now()
	r.own.link.Heal()
	r.say("healed; waiting until the instance has caught up")
	bound := r.times.Gap + r.times.Within
	if o.Lasted >= r.times.Freshness {
		bound += 2 * r.times.Gap // it recovers for two polls: docs/rotation.md, "When Redis comes back with less"
	}
	do := "look at the load of this machine and at its link to Redis"
	r.hearAfter(ctx, bound,
		&probe{drill.Check{Step: "change heard of", Bound: r.times.Gap + r.times.Within, Do: do,
			Found: "the instance has what was changed meanwhile", Missing: "the instance has NOT what was changed meanwhile"}, func() bool { return r.revoked(pending) }},
		&probe{drill.Check{Step: "in sync again", Bound: bound, Do: do, Found: "after the link healed", Missing: "the instance is not in sync"},
			func() bool { return r.own.inSyncSince(healed) }})
	r.good(ctx, "token verified", token)

}

// revoked reports whether the drill's own instance knows that a key is revoked.
func (r *drillRun) revoked(kid string) bool {
	status, err := r.own.keyring.Tenant(r.tenant.value)
	return err == nil && slices.ContainsFunc(status.Ring.Keys, func(k ring.Key) bool { return k.KID == kid && k.State == ring.Revoked })
}

// away signs and verifies while the link is cut.
func (r *drillRun) away(ctx context.Context, token string) (o drill.Outage) {
	begin := time.Now()
	for o.Lasted < r.lasts.value && ctx.Err() == nil {
		r.say("the link is cut for another %v", (r.lasts.value - o.Lasted).Round(time.Second))
		made, err := r.own.sign(ctx)
		if err != nil {
			o.Failed, o.Why = o.Failed+1, errorText(err)
		} else {
			o.Signed++
		}
		for _, text := range []string{token, cmp.Or(made, token)} {
			if _, err := r.own.verify(ctx, text); err != nil {
				o.Refused, o.Why = o.Refused+1, errorText(err)
			} else {
				o.Verified++
			}
		}
		pause(ctx, drillLooks)
		o.Lasted = time.Since(begin)
	}
	return o
}

// hearAfter asks probes until all have happened, or twice the bound is over.
func (r *drillRun) hearAfter(ctx context.Context, bound time.Duration, probes ...*probe) {
	begin := time.Now()
	for !ask(probes, begin) && time.Since(begin) <= 2*bound && pause(ctx, drillLooks) {
	}
	r.judge(ctx, probes)
}

// restore removes the canary's ring from Redis, as a person or a loss would, and waits until an
// instance puts it back.
func (r *drillRun) restore(ctx context.Context, token string) {
	before, err := r.stored(ctx)
	if err == nil && len(before) == 0 {
		err = errors.New("Redis has no ring of the canary")
	}
	if err == nil {
		err = r.deleteRing(ctx)
	}
	if err != nil {
		r.fail(ctx, "ring removed", err)
		return
	}
	r.say("the ring is removed; waiting until an instance puts it back, %v at most", r.times.Freshness)
	refused := ""
	back := &probe{
		Check: drill.Check{Step: "ring put back", Bound: r.times.Freshness + r.times.Within, Found: "all keys are there again", Missing: "Redis has NOT the whole ring again",
			Do: `look at the logs of the instances, and at docs/operations.md, "The repair fails"`},
		test: func() bool {
			if _, err := r.own.verify(ctx, token); err != nil {
				refused = errorText(err)
			}
			after, err := r.stored(ctx)
			return err == nil && !slices.ContainsFunc(before, func(field string) bool { return !slices.Contains(after, field) })
		},
	}
	r.hearAfter(ctx, r.times.Freshness, back)
	if back.Happened {
		r.lines = append(r.lines, drill.Note("put back by", "%s", r.restorer(ctx)))
	}
	check := drill.Check{Step: "verified meanwhile", Happened: refused == "", Found: "the token of before was good all the time",
		Missing: "a good token was refused: " + refused, Do: `docs/operations.md, "It cannot verify: 503"`}
	r.lines = append(r.lines, drill.JudgeCheck(check))
}

// stored returns the names of the fields that Redis has of the canary's ring.
func (r *drillRun) stored(ctx context.Context) (fields []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	s := r.session.store.Load(ctx, []string{r.tenant.value})[0]
	for name := range s.Fields {
		fields = append(fields, name)
	}
	return fields, s.Err
}

// restorer says which instance has put the ring back.
func (r *drillRun) restorer(ctx context.Context) string {
	name, err := r.lastActor(ctx, ring.OpMerge, r.now().Add(-2*r.times.Freshness-time.Minute))
	if err != nil {
		return "the log cannot be read: " + errorText(err)
	}
	switch name {
	case "":
		return "the log does not say by which instance"
	case r.name:
		return "the drill's own instance"
	}
	return "instance " + shownName(name, 64)
}

// deleteRing removes the canary's ring, as a loss in Redis would.
func (r *drillRun) deleteRing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	key := fmt.Sprintf("kt:{%d}:ring:%s", rotation.BucketOf(r.tenant.value), r.tenant.value)
	return r.session.store.client.Del(ctx, key).Err()
}
