package verifier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// Verify decides whether token is good. Its tenant is the verifier's only one, or
// the one whose Issuer equals the token's iss byte for byte.
//
// The error is an [*Error]. It is [ErrInvalid] if the token is bad, and
// [ErrUnavailable] if the verifier cannot tell now.
//
// Verify waits in two cases only: the key store asks its source for a key that it
// does not hold, or [Config.Resolve] is asked for a tenant. If ctx ends meanwhile, the error also wraps ctx.Err(). After the wait
// the verifier reads the clock again, and judges by the tenant as it is then.
func (v *Verifier) Verify(ctx context.Context, token string) (*Token, error) {
	return v.verify(ctx, nil, token)
}

// VerifyTenant is [Verifier.Verify] for the tenant that a trusted hint names, such
// as the host of the request. A token of another tenant is refused. An empty
// tenant is an unknown one, and never means that there is no hint.
func (v *Verifier) VerifyTenant(ctx context.Context, tenant, token string) (*Token, error) {
	return v.verify(ctx, &tenant, token)
}

func (v *Verifier) verify(ctx context.Context, hint *string, token string) (*Token, error) {
	start := v.now()
	d := decision{now: start, waits: maxWaits}
	t, bad := v.decide(ctx, &d, hint, token)
	for d.overtaken {
		d.overtaken = false
		t, bad = v.decide(ctx, &d, hint, token)
	}
	if v.observe != nil {
		v.observe(ctx, newEvent(ctx, t, bad, v.now().Sub(start)))
	}
	if bad != nil {
		return nil, bad
	}
	t.v().rules.noteUse(d.now)
	return t, nil
}

// A decision is what one call of Verify carries over its waits.
//
// A store may take seconds to ask its source. What a change or the clock has made wrong
// meanwhile must not decide: on 2026-11-28 a token that waited passed after Suspend had
// returned, and after its exp. So the clock is read again after each wait, and if the
// rules were replaced, the present ones decide from the start.
type decision struct {
	now       time.Time // the moment that every rule judges: read at the start, and after a wait
	waits     int       // how often the token may still wait
	overtaken bool      // the rules were replaced during a wait, so the verdict does not count
	asked     int       // how often the token has waited for Config.Resolve
}

// maxWaits is how often a token waits for a key: once more if its tenant was replaced
// during the first wait.
const maxWaits = 2

var errOvertaken = errors.New("the tenant was changed each time that its key store was asked for the key")

// decide applies the rules of the package comment in their order. The first rule
// that fails decides. The cache stands before the parser, but after the checks
// that refuse plain garbage without the cost of a digest.
func (v *Verifier) decide(ctx context.Context, d *decision, hint *string, token string) (*Token, *Error) {
	if len(token) > v.maxTokenBytes {
		return nil, refuse(detail(ErrTooLarge, fmt.Sprintf("%d bytes, and MaxTokenBytes allows %d", len(token), v.maxTokenBytes)))
	}
	if strings.IndexByte(token, '.') < 0 {
		return nil, refuse(errParts)
	}
	tenants := v.tenants.Load()
	t, cacheKey := v.cached(tenants, hint, token, d.now)
	if t != nil {
		return t, nil
	}
	first, second, bad := findDots(token)
	if bad != nil {
		return nil, bad
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	knownHeader := v.headers.find(token[:first])
	p, bad := s.parse(token, first, second, knownHeader)
	if bad != nil {
		if unmet := s.parsed.unmet(tenants.known(hint)); unmet != nil {
			bad = unmet // it comes first in the order of the rules
		}
		return nil, bad
	}
	r, bad := tenants.pick(hint, &p.claims)
	if v.resolver != nil {
		if bad := v.askTenant(ctx, d, tenants, hint, p, r); bad != nil || d.overtaken {
			return nil, bad
		}
	}
	if unmet := p.unmet(r); unmet != nil {
		return nil, unmet
	}
	if bad != nil {
		return nil, bad.withTenant(r)
	}
	if r.tolerates&needNull != 0 {
		p.claims.dropNulls()
	}
	e, bad := v.judge(ctx, d, r, p)
	if bad != nil {
		return nil, bad.withTenant(r)
	}
	// Only a good token leaves a trace.
	if knownHeader == nil {
		v.headers.remember(token[:first], p.header)
	}
	v.remember(cacheKey, e, d.now)
	return &e.Value.fresh, nil
}

// judge applies the rules of one tenant to a token that is well formed: the rules
// from "not suspended" on. It returns what the cache keeps of a good token.
func (v *Verifier) judge(ctx context.Context, d *decision, r *rules, p *parsed) (*entry, *Error) {
	if r.suspended || r.Suspended {
		return nil, refuse(ErrSuspended)
	}
	listed := slices.Index(r.Algorithms, p.alg)
	if listed < 0 {
		return nil, refuse(r.wants().algorithm)
	}
	p.alg = r.Algorithms[listed] // so that the cached alg does not hold the token in memory
	w := wanted{keystore.ID{Tenant: r.ID, KID: p.kid}, p.alg, d.now}
	keys, bad := v.findKeys(ctx, d, &w, r, p)
	if bad != nil {
		return nil, bad.withKey(w.id)
	}
	key, bad := v.signedAndPlausible(ctx, d, &w, r, keys, p)
	if bad != nil {
		return nil, bad.withKey(w.id)
	}
	e := v.allocate()
	e.Value.fill(r, key, p, d.now, v.cacheTTL)
	if r.lease != nil {
		e.Value.notAfter = min(e.Value.notAfter, r.lease.next(d.now))
	}
	if bad := r.checkOwn(&e.Value.fresh); bad != nil {
		return nil, bad.withKey(w.id)
	}
	if bad := v.checkRevoked(e, d.now); bad != nil {
		return nil, bad.withKey(w.id)
	}
	return e, nil
}

// signedAndPlausible applies the rules for the signature and the claims, and returns the
// key that signed the token.
//
// The signature comes first, with one exception: a token without kid that several keys may
// have signed. Each candidate would cost a check, and anyone can write such a token: on
// 2026-11-28, 249 bytes whose claims could never pass cost four checks of ES512, 12 ms. So
// there the claims come first.
func (v *Verifier) signedAndPlausible(ctx context.Context, d *decision, w *wanted, r *rules, keys []*keystore.Key, p *parsed) (*keystore.Key, *Error) {
	claimsFirst := p.kid == "" && w.candidates(keys) > 1
	if claimsFirst {
		if bad := r.checkClaims(p, w.now); bad != nil {
			return nil, bad
		}
	}
	key := v.signer(w, keys, nil, p)
	if key == nil {
		var bad *Error
		if key, bad = v.askSigner(ctx, d, w, r, keys, p); bad != nil {
			return nil, bad
		}
		claimsFirst = false // after a wait they are judged again
	}
	if !claimsFirst {
		if bad := r.checkClaims(p, w.now); bad != nil {
			return nil, bad
		}
	}
	return key, nil
}

// findKeys returns the keys that may have signed the token. If the store holds
// none, findKeys asks it for news, but only for a plausible token.
func (v *Verifier) findKeys(ctx context.Context, d *decision, w *wanted, r *rules, p *parsed) ([]*keystore.Key, *Error) {
	keys, err := w.lookup(r)
	if err == nil {
		return keys, nil
	}
	if errors.Is(err, keystore.ErrRevoked) && isMiss(err) {
		return nil, refuse(ErrRevokedKey) // which is final, so the store is not asked
	}
	if !r.plausible(p, w.now) {
		return nil, implausible(err)
	}
	keys, _, bad := v.askStore(ctx, d, w, r, p, err)
	return keys, bad
}

// askStore asks the store for news of a plausible token, and returns the keys that may have signed
// it. err says why the store has not returned any yet. If there are keys, outage is not nil where the
// store could not tell whether it has others.
func (v *Verifier) askStore(ctx context.Context, d *decision, w *wanted, r *rules, p *parsed, err error) (keys []*keystore.Key, outage, bad *Error) {
	store, ok := r.Keys.(keystore.Refresher)
	if !ok {
		return nil, nil, noKey(err)
	}
	if d.waits == 0 {
		return nil, nil, cannotTell(errOvertaken)
	}
	d.waits--
	news := store.Refresh(ctx, w.id)
	d.now = v.now()
	w.now = d.now
	if !r.live.Load() {
		d.overtaken = true
		return nil, nil, cannotTell(errOvertaken)
	}
	outage = outageOf(ctx, news)
	keys, err = w.lookup(r)
	switch {
	case err == nil:
		return keys, outage, nil
	case !r.plausible(p, w.now): // it has expired meanwhile
		return nil, nil, implausible(err)
	case outage != nil:
		return nil, nil, outage
	}
	return nil, nil, noKey(err)
}

// outageOf returns the verdict if a Refresh that returned news could not tell, and otherwise nil.
func outageOf(ctx context.Context, news error) *Error {
	if news == nil || isMiss(news) {
		return nil
	}
	if ctx.Err() != nil && !errors.Is(news, ctx.Err()) {
		news = errors.Join(news, ctx.Err())
	}
	return cannotTell(news)
}

// plausible reports whether the token would be good if a key had signed it. An
// unknown kid costs the store a question to its source, and anyone can write one:
// so findKeys applies the rules for claims ahead of their turn, and a token that
// fails them costs nothing. What they say stays out of the verdict, since the key
// comes first in the order of the rules.
func (r *rules) plausible(p *parsed, now time.Time) bool { return r.checkClaims(p, now) == nil }

// noKey turns the error of a store into the verdict. Any error but ErrNotFound
// means that the store cannot tell.
func noKey(err error) *Error {
	if isMiss(err) {
		return unknownKey(err)
	}
	return cannotTell(err)
}

// implausible returns the verdict for a token that has no key at hand and would be refused if it
// had, so that it does not matter whether the store can tell.
func implausible(err error) *Error {
	if isMiss(err) {
		return unknownKey(err)
	}
	return refuse(ErrUnknownKey)
}

// unknownKey returns the verdict for the ErrNotFound of a store, with what the store says of it.
func unknownKey(err error) *Error {
	if errors.Is(err, keystore.ErrRevoked) {
		return refuse(ErrRevokedKey)
	}
	if text := keystore.NotFoundDetail(err); text != "" {
		return refuse(detail(ErrUnknownKey, text))
	}
	return refuse(ErrUnknownKey)
}

// An unsure store may lack keys although it returned some: see [keystore.KeyStore].
type unsure interface {
	Unsure(id keystore.ID, alg keystore.Algorithm) error
}

// askSigner returns the key of a token whose signature none of the keys at hand verifies, or the
// verdict. The store is asked for keys that it lacks, within the bounds of a token with an unknown
// key, in two cases:
//
//   - The store may lack keys: see [keystore.KeyStore]. While it cannot tell, the signature is not
//     invalid.
//   - The token has no kid, so nothing tells a key that is too new from that of a forger. Some issuers
//     write no kid (https://github.com/nextcloud/user_oidc/issues/1214), and rotate all the same. If
//     the store could not ask its source, the verdict is that on an unknown kid: the token may be good.
//
// A kid that the store has is not asked for: the issuer has said which key that is.
func (v *Verifier) askSigner(ctx context.Context, d *decision, w *wanted, r *rules, keys []*keystore.Key, p *parsed) (*keystore.Key, *Error) {
	why := r.mayLack(w)
	if why == nil && !(p.kid == "" && r.asks()) || !r.plausible(p, w.now) {
		return nil, refuse(ErrSignature)
	}
	tried := slices.DeleteFunc(slices.Clone(keys), func(k *keystore.Key) bool { return !w.fits(k) })
	keys, outage, bad := v.askStore(ctx, d, w, r, p, why)
	if bad != nil {
		return nil, bad
	}
	if key := v.signer(w, keys, tried, p); key != nil {
		return key, nil
	}
	why = r.mayLack(w)
	switch {
	case !r.plausible(p, w.now): // it has expired meanwhile
		return nil, refuse(ErrSignature)
	case why != nil:
		return nil, cannotTell(why)
	case outage != nil:
		return nil, outage
	}
	return nil, refuse(ErrSignature)
}

// mayLack returns why the store may lack keys although it returned some, or nil.
func (r *rules) mayLack(w *wanted) error {
	if r.unsure == nil {
		return nil
	}
	return r.unsure.Unsure(w.id, w.alg)
}

// asks reports whether the store can ask its source for keys.
func (r *rules) asks() bool {
	_, ok := r.Keys.(keystore.Refresher)
	return ok
}

// isMiss reports whether a store is sure that there is no such key. An error that
// joins those of several stores is no miss if one of them cannot tell.
func isMiss(err error) bool {
	return errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrUnavailable)
}

// wanted says which keys may have signed the token.
type wanted struct {
	id  keystore.ID
	alg keystore.Algorithm
	now time.Time
}

// fits reports whether k may have signed the token, and is still usable. A store
// that keeps its contract returns no key of another tenant, kid or algorithm; fits
// does not rely on it.
func (w *wanted) fits(k *keystore.Key) bool {
	return k != nil && k.Algorithm().Same(w.alg) && k.ID().Tenant == w.id.Tenant &&
		(w.id.KID == "" || k.ID().KID == w.id.KID) && k.Usable(w.now)
}

// lookup returns the keys of the tenant's store, of which at least one fits. If none does, because
// the end of each has come, a store that may lack others cannot tell. A store that breaks its
// contract, and returns more than one token may cost, has none.
func (w *wanted) lookup(r *rules) ([]*keystore.Key, error) {
	keys, err := r.Keys.Lookup(w.id, w.alg)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(keys, w.fits) {
		if why := r.mayLack(w); why != nil {
			return nil, why
		}
		return nil, keystore.ErrNotFound
	}
	if err := keystore.CheckCost(w.id, keys); err != nil {
		return nil, err
	}
	return keys, nil
}

// candidates returns how many of the keys may cost a check of the signature.
func (w *wanted) candidates(keys []*keystore.Key) int {
	n := 0
	for _, k := range keys {
		if w.fits(k) {
			n++
		}
	}
	return n
}

// signer returns the key that signed the token, or nil. It does not try those of tried.
func (v *Verifier) signer(w *wanted, keys, tried []*keystore.Key, p *parsed) *keystore.Key {
	for _, k := range keys {
		if w.fits(k) && !slices.Contains(tried, k) && v.signed(k, p.signed, p.sig) {
			return k
		}
	}
	return nil
}

// checkOwn applies the tenant's own Check.
func (r *rules) checkOwn(t *Token) *Error {
	if r.Check == nil {
		return nil
	}
	if err := r.Check(t); err != nil {
		return &Error{Reason: ReasonClaim, Err: &checkFailed{err}}
	}
	return nil
}
