package doctor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Ring is what a tenant's ring looks like from here.
type Ring struct {
	Tenant   string
	Err      string    // why it could not be read, or not all of it; "" if it was
	Dead     bool      // it was destroyed
	View     ring.Ring // now; without keys if the store has no ring of the tenant
	Accepted []ring.Accepted
	Sealed   ring.Rekeyed // under which KEKs it is
	KEKErr   string       // why Sealed is not known, or ""
	Only     bool         // this Redis has no other ring
	Flags    string       // how keyturn commands reach it, such as "--redis URL --tenant acme"
	Now      time.Time

	Instances []Instance // that have acknowledged its bucket
}

// Check returns what is to say about one ring.
func (r *Ring) Check() []Finding {
	list := "keyturn keys list " + r.Flags
	switch {
	case r.Err != "":
		return of(r.Tenant, found("ring", Bad, list+`; then docs/operations.md, "Which error"`, "it cannot be read, or not all of it: %s", r.Err))
	case r.Dead:
		return of(r.Tenant, found("ring", OK, "", "it was destroyed"))
	case len(r.View.Keys) == 0 && len(r.Accepted) > 0:
		return of(r.Tenant, append(r.accepted(), found("ring", OK, "", "it has accepted keys, and no ring: nothing is signed for it"))...)
	case len(r.View.Keys) == 0:
		return of(r.Tenant, found("ring", Warn, `docs/operations.md, "Redis came back empty"; if the tenant never had one: keyturn keys create `+r.Flags,
			"Redis names the tenant, and has no ring of it"))
	}
	return of(r.Tenant, slices.Concat(r.signs(), r.rotation(), r.algorithms(), r.verified(), r.accepted(), r.policy(), r.keks())...)
}

// signer returns the key that signs, or nil.
func (r *Ring) signer() *ring.Key {
	if i := r.View.Signer; i >= 0 && i < len(r.View.Keys) {
		return &r.View.Keys[i]
	}
	return nil
}

// pending returns the first key that is to sign, or nil.
func (r *Ring) pending() *ring.Key {
	for i := range r.View.Keys {
		if r.View.Keys[i].State == ring.Pending {
			return &r.View.Keys[i]
		}
	}
	return nil
}

// timing returns the policy of the ring: that of its newest key.
func (r *Ring) timing() ring.Policy {
	newest := slices.MaxFunc(r.View.Keys, func(a, b ring.Key) int { return a.Seq - b.Seq })
	return newest.Timing
}

func (r *Ring) signs() []Finding {
	signer, pending := r.signer(), r.pending()
	switch {
	case signer != nil:
		return []Finding{found("ring", OK, "", "it opens, and key %s signs with %s", signer.KID, signer.Algorithm)}
	case pending != nil && pending.ActivatesAt.IsZero():
		return []Finding{found("ring", Bad, "keyturn keys rotate "+r.Flags, "no key signs now, and the next one waits for a rotation")}
	case pending != nil:
		return []Finding{found("ring", Bad, `docs/operations.md, "No key signs"`, "no key signs now; the next one does in %s", words(pending.ActivatesAt.Sub(r.Now)))}
	}
	return []Finding{found("ring", Bad, "keyturn keys rotate "+r.Flags+", twice", "no key signs now, and none is pending")}
}

// rotation wants a pending key soon after the signing one took over. A rotator mints it within
// Freshness + Dwell + ClockSkew, which is the least time between two mints.
func (r *Ring) rotation() []Finding {
	const check = "rotation"
	signer, pending, timing := r.signer(), r.pending(), r.timing()
	switch {
	case signer == nil:
		return nil // said already
	case pending != nil && pending.ActivatesAt.IsZero():
		return []Finding{found(check, OK, "", "the ring is held: key %s signs until \"keyturn keys rotate\", and the next key waits", signer.KID)}
	case pending != nil:
		return []Finding{found(check, OK, "", "a key is pending; the next rotation is in %s", words(pending.ActivatesAt.Sub(r.Now)))}
	case r.Now.Sub(signer.ActivatesAt) < 2*timing.HeardWithin():
		return []Finding{found(check, OK, "", "the last rotation was %s ago, and the next key is to be made", words(r.Now.Sub(signer.ActivatesAt)))}
	}
	return []Finding{found(check, Bad, "start a rotator (keyturn serve --redis, or rotation.Rotator.Run); until then: keyturn keys rotate "+r.Flags,
		"no key is pending, and the last rotation was %s ago: no rotator runs, and signing ends in %s", words(r.Now.Sub(signer.ActivatesAt)), words(signer.SignUntil.Sub(r.Now)))}
}

// algorithms says which algorithms the verifiers have to list, if keys of several are in use.
func (r *Ring) algorithms() []Finding {
	until := make(map[keystore.Algorithm]time.Time) // when the last of its keys ends; zero if that is not known
	for _, k := range r.View.Keys {
		if !k.Verifies() {
			continue
		}
		end, known := until[k.Algorithm]
		if !known || k.DroppedAt.IsZero() || !end.IsZero() && k.DroppedAt.After(end) {
			until[k.Algorithm] = k.DroppedAt
		}
	}
	if len(until) < 2 {
		return nil
	}
	names := slices.Sorted(maps.Keys(until))
	text, mixed := "", false
	for _, alg := range names {
		text += string(alg) + " "
		if end := until[alg]; !end.IsZero() {
			text += "(for another " + words(end.Sub(r.Now)) + ") "
		}
		mixed = mixed || alg.Symmetric() != names[0].Symmetric()
	}
	do := "see that every verifier of the tenant lists them in Algorithms"
	if mixed {
		do += ", with MixedFamilies: true"
	}
	return []Finding{found("algorithms", Warn, do, "keys of several algorithms are in use: %s", strings.TrimSpace(text))}
}

// verified compares the algorithms of the signing and the pending keys with those that the live instances
// list. An instance says what all its tenants list, so only one with a single ring surely refuses the rest.
func (r *Ring) verified() (all []Finding) {
	const check = "verified"
	stale := max(r.timing().Freshness, DefaultTiming().Freshness)
	for i := range r.Instances {
		in := &r.Instances[i]
		if !in.Opened || len(in.Verifies) == 0 || in.listsNone() || r.Now.Sub(in.At) > stale {
			continue
		}
		key := r.unlisted(in)
		if key == nil {
			continue
		}
		listed, verb := strings.Join(in.Verifies, ", "), "signs with "+string(key.Algorithm)
		do := fmt.Sprintf("add %s to Tenant.Algorithms of tenant %s and to Config.Verifies in its program, and roll that out", key.Algorithm, r.Tenant)
		if key.State == ring.Pending {
			verb = fmt.Sprintf("will sign with %s", key.Algorithm)
			if !key.ActivatesAt.IsZero() {
				verb += " in " + words(key.ActivatesAt.Sub(r.Now))
			}
			do += fmt.Sprintf("; or undo the change before that: keyturn keys revoke %s -- %s", r.Flags, key.KID)
		}
		if r.Only {
			all = append(all, found(check, Bad, do, "instance %s accepts tokens of %s alone, and key %s %s: they are refused there (401)", in.Name, listed, key.KID, verb))
			continue
		}
		all = append(all, found(check, Warn, do, "instance %s lists %s for all its tenants, and not %s, with which key %s %s: if its rules for this tenant do not list it, tokens are refused there (401)",
			in.Name, listed, key.Algorithm, key.KID, strings.Replace(verb, " with "+string(key.Algorithm), "", 1)))
	}
	return all
}

// unlisted returns the signing key, or else the first pending one, whose algorithm the instance does not
// list, or nil.
func (r *Ring) unlisted(in *Instance) *ring.Key {
	lists := func(alg keystore.Algorithm) bool {
		return slices.ContainsFunc(in.Verifies, func(listed string) bool { return alg.Same(keystore.Algorithm(listed)) })
	}
	if s := r.signer(); s != nil && !lists(s.Algorithm) {
		return s
	}
	for i := range r.View.Keys {
		if k := &r.View.Keys[i]; k.State == ring.Pending && !lists(k.Algorithm) {
			return k
		}
	}
	return nil
}

// accepted tells of accepted keys that are weak, or end soon: their tokens are rejected from then on,
// also those of programs that were forgotten.
func (r *Ring) accepted() []Finding {
	const check, soon = "accepted", 7 * 24 * time.Hour
	var all []Finding
	for _, k := range r.Accepted {
		left := k.Until.Sub(r.Now)
		switch {
		case !k.Verifies(r.Now): // it has ended
		case k.Weak:
			all = append(all, found(check, Warn, "move the programs that sign with it to the ring; then: keyturn keys revoke "+r.Flags+" -- KID",
				"key %q is a weak secret, and accepted for another %s: a person who guesses it can sign tokens of the tenant", k.KID, words(left)))
		case left < soon:
			all = append(all, found(check, Warn, "if its tokens are still in use: keyturn keys accept with a later --until",
				"key %q is accepted for another %s, and then its tokens are rejected", k.KID, words(left)))
		}
	}
	return all
}

// policy checks the inequalities of the ring's policy, and says how long Redis may be away.
func (r *Ring) policy() []Finding {
	timing := r.timing()
	all := []Finding{}
	if err := timing.Validate(); err != nil {
		text := err.Error()
		if e := (*ring.PolicyError)(nil); errors.As(err, &e) {
			text = e.Text(func(field string) string { return field })
		}
		all = append(all, found("policy", Bad, "give it a policy that holds: keyturn keys policy "+r.Flags+` (Rotator.SetPolicy); docs/operations.md, "Policies"`, "%s", text))
	}
	return append(all, r.outage(timing))
}

// outage says for how long Redis may be away. An instance signs for SignFor after its last sync, and
// no longer than the last key that it knows. What was signed by then verifies until it expires.
func (r *Ring) outage(timing ring.Policy) Finding {
	const check, short = "outage", 5 * time.Minute // a restart of Redis, or a failover by hand, takes that long
	last := time.Time{}
	for _, k := range r.View.Keys {
		if k.State == ring.Signing || k.State == ring.Pending {
			end := k.SignUntil
			if k.Hold {
				end = r.Now.Add(timing.SignFor) // it has no end of its own
			}
			if k.ActivatesAt.After(k.ActivateAt) { // SignUntil moves with it: see ring.View
				end = end.Add(k.ActivatesAt.Sub(k.ActivateAt))
			}
			if end.After(last) {
				last = end
			}
		}
	}
	budget := max(0, min(timing.SignFor, last.Sub(r.Now)))
	text := fmt.Sprintf("Redis may be away for %s before signing is at risk, and for %s before good tokens are refused",
		words(budget), words(budget+timing.MaxTokenTTL+timing.Leeway))
	if budget < short {
		return found(check, Warn, "give it a longer SignFor (and Propagation): keyturn keys policy --sign-for DURATION "+r.Flags+" (Rotator.SetPolicy)", "%s", text)
	}
	return found(check, OK, "", "%s", text)
}

// keks says which of the ring is still under a KEK that is not the first one here.
func (r *Ring) keks() []Finding {
	const check = "kek"
	fields := 0
	for _, names := range r.Sealed.Others {
		fields += len(names)
	}
	switch {
	case r.KEKErr != "":
		return []Finding{found(check, Unknown, "keyturn keys rekey --check "+r.Flags, "it cannot be told under which KEK it is: %s", r.KEKErr)}
	case fields > 0:
		return []Finding{found(check, Warn, "keyturn keys rekey "+r.Flags, "%s under another KEK than %s, the first one here: %s; that one is still needed to read the ring",
			count(fields, "field"), r.Sealed.Primary, strings.Join(slices.Sorted(maps.Keys(r.Sealed.Others)), ", "))}
	case len(r.Sealed.OldKeys) > 0:
		return []Finding{found(check, OK, "", "it is under KEK %s; %s made under another one, and will go with the next rotations, or at the date until which it is accepted", r.Sealed.Primary, wereKeys(len(r.Sealed.OldKeys)))}
	}
	return []Finding{found(check, OK, "", "it is under KEK %s", r.Sealed.Primary)}
}

func wereKeys(n int) string {
	if n == 1 {
		return "1 key was"
	}
	return fmt.Sprintf("%d keys were", n)
}
