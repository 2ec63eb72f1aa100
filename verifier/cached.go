package verifier

import (
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/cache"
	"github.com/keyturn/keyturn/internal/jwt"
	"github.com/keyturn/keyturn/keystore"
)

const (
	defaultCacheEntries = 64 << 10
	defaultCacheBytes   = 64 << 20
	defaultCacheTTL     = 5 * time.Minute
)

// openCache makes the cache of verified tokens, unless cfg turns it off.
func (v *Verifier) openCache(cfg Config) error {
	if cfg.CacheTTL < 0 {
		return nil
	}
	v.cacheTTL = cfg.CacheTTL
	if v.cacheTTL == 0 {
		v.cacheTTL = defaultCacheTTL
	}
	bounds := cache.Config{Entries: cfg.CacheEntries, Bytes: cfg.CacheBytes}
	if bounds.Entries == 0 {
		bounds.Entries = defaultCacheEntries
	}
	if bounds.Bytes == 0 {
		bounds.Bytes = defaultCacheBytes
	}
	var err error
	if v.cache, err = cache.New[verified](bounds); err != nil {
		return fmt.Errorf("verifier: %w", err)
	}
	return nil
}

// CacheStats returns the counters and the size of the cache of verified tokens. All
// are zero if the cache is off.
func (v *Verifier) CacheStats() cache.Stats {
	if v.cache == nil {
		return cache.Stats{}
	}
	return v.cache.Stats()
}

// cached returns the token if it was verified before and everything that the
// verdict relied on still holds. Otherwise it returns nil, which is no verdict:
// the full check decides, and remember stores its result under key.
//
// The serial of the hinted tenant's rules is part of the key, and 0 if there is no
// hint. So a token that is good without a hint is not thereby good with one.
func (v *Verifier) cached(tenants *tenants, hint *string, token string, now time.Time) (t *Token, key cache.Key) {
	if v.cache == nil {
		return nil, key
	}
	var domain uint64
	if hint != nil {
		r := tenants.named(*hint)
		if r == nil {
			return nil, key
		}
		domain = r.serial
	}
	at := keystore.UnixNano(now)
	found, key := v.cache.Get(domain, token, func(e *verified) bool {
		return e.verifiedAt <= at && at < e.notAfter && e.rules.live.Load() &&
			e.key.Usable(now) && (e.hasKID && !e.rules.several || e.offered()) && !v.hitIsRevoked(e, now)
	})
	if found == nil {
		return nil, key
	}
	return &found.cached, key
}

// offered reports whether the store still offers the key to the token. For a token without
// kid a store that holds too many keys to try offers none of them. And of stores that answer
// together, one may have revoked the kid of a key that another one has.
func (v *verified) offered() bool {
	id := keystore.ID{Tenant: v.rules.ID}
	if v.hasKID {
		id = v.key.ID()
	}
	keys, err := v.rules.Keys.Lookup(id, v.alg())
	return err == nil && slices.Contains(keys, v.key) && keystore.CheckCost(id, keys) == nil
}

// An entry of the cache holds a verified token.
type entry = cache.Entry[verified]

// fill fills v for a token that passed the rules r at now, and that key signed.
func (v *verified) fill(r *rules, key *keystore.Key, p *parsed, now time.Time, ttl time.Duration) {
	c := &p.claims
	v.rules, v.key, v.hasKID, v.payload = r, key, p.kid != "", c.payload
	v.twinName = p.alg != key.Algorithm()
	v.iss, v.sub, v.aud, v.exp, v.iat, v.jti, v.sid = c.iss.span(), c.sub.span(), c.aud.span(), c.exp.span(), c.iat.span(), c.jti.span(), c.sid.span()
	v.scopes = c.scp.span()
	if c.scope.text != "" {
		v.scopes = c.scope.span()
	}
	v.handle.of, v.fresh.h, v.cached.h = v, &v.handle, &v.handle

	v.verifiedAt = keystore.UnixNano(now)
	v.notAfter = keystore.UnixNano(now.Add(ttl))
	if exp, ok := jwt.NumericDate(c.exp.text); ok {
		v.notAfter = min(v.notAfter, keystore.UnixNano(exp.Add(r.leeway)))
	}
	if iat, ok := jwt.NumericDate(c.iat.text); ok && r.MaxAge > 0 {
		v.notAfter = min(v.notAfter, keystore.UnixNano(iat.Add(r.MaxAge).Add(r.leeway)))
	}
}

// verifiedBytes is the size of a verified in bytes, without the payload.
const verifiedBytes = 152

// remember adds a good token to the cache. Entries that can never serve again make
// room first.
func (v *Verifier) remember(key cache.Key, e *entry, now time.Time) {
	if v.cache == nil || key == (cache.Key{}) {
		return
	}
	at := keystore.UnixNano(now)
	v.cache.Add(key, e.Value.rules.ID, e, e.Value.size(), func(o *verified) bool {
		return at >= o.notAfter || !o.rules.live.Load() || !o.key.Usable(now)
	})
}
