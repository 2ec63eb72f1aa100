package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// logouts are the users of a fleet. They log in all along, and their tokens, sessions, subjects and
// tenants are revoked. Each instance has a list of revocations on its connections to Redis, and
// verifiers whose keys never change: so what they say is about the list alone.
type logouts struct {
	f        *fleet
	maxStale time.Duration
	measures bool // revocations are heard at once, so that the time of that means something

	mu     sync.Mutex // guards all below
	seq    int
	tokens []*userToken           // the newest ones
	orders map[revocable][]*order // that were begun
	knows  map[knowledge]bool     // instances that have refused a token because of an order
	hidden time.Time              // until then the store may lack committed revocations
	count  logoutCount
}

// logoutCount are the counts of the revocations in a run.
type logoutCount struct {
	Revoked, Failed int             // revocations, and calls that did not say that they had done it
	Verified        int             // verifications of live tokens
	Unavailable     int             // 503
	Late            int             // revoked tokens accepted by an instance that calls itself ready, after commit and bound, or by the one that revoked them
	Forgotten       int             // revoked tokens accepted by an instance that had refused them, or by any after the end of the faults
	Refused         int             // tokens that were not revoked, and were refused
	Longest         time.Duration   // after a commit at which an instance that calls itself ready accepted a token
	Heard           []time.Duration // how long revocations took to reach an instance
}

// bad returns the sum of the counts that must be zero.
func (c *logoutCount) bad() int { return c.Late + c.Forgotten + c.Refused }

// A userToken is a token of a user. It outlives the run.
type userToken struct {
	raw, tenant, jti, sid, sub string
	iat                        int64
}

// A revocable is something that can be revoked.
type revocable struct {
	kind         revocations.Kind
	tenant, name string
}

func (t *userToken) revocables() []revocable {
	return []revocable{{revocations.Token, t.tenant, t.jti}, {revocations.Session, t.tenant, t.sid}, {revocations.Subject, t.tenant, t.sub}, {revocations.Tenant, t.tenant, ""}}
}

// An order is a revocation that was begun.
type order struct {
	what      revocable
	before    int64 // it revokes tokens that were issued earlier
	by        *instance
	committed time.Time // when the call had returned; zero: it has not, or with an error
	token     *userToken
}

// knowledge says that an instance has refused a token because of an order.
type knowledge struct {
	*instance
	*order
}

const (
	userLife   = 30 * time.Minute
	userSecret = "the secret of all user tokens...."
	clubs      = 4 // tenants of which all tokens are revoked now and then, and as many of which none are
)

func userTenant(n int) string { return fmt.Sprint([]string{"users-", "club-"}[n/clubs%2], n%clubs) }

func newLogouts(f *fleet, measures bool) *logouts {
	return &logouts{f: f, maxStale: max(10*time.Second, 3*f.pace.listGap()), measures: measures,
		orders: make(map[revocable][]*order), knows: make(map[knowledge]bool)}
}

// listPoll is how often a list polls. It reads all buckets, so a whole fleet cannot do that as often as
// keyrings of five tenants.
func (p pace) listPoll() time.Duration { return max(4*fast.poll, 2*p.poll) }

// listGap returns how long after a change every list that reaches the store has read it.
func (p pace) listGap() time.Duration { return p.listPoll() + p.listPoll()/5 + p.deadline }

// open gives an instance a list, and verifiers that ask it.
func (u *logouts) open(ctx context.Context, m *instance) error {
	var stores [2]rotation.Store
	for i := range stores {
		var err error
		if stores[i], err = rediskeys.New(m.clients[i], rediskeys.Config{Prefix: listPrefix, LogLength: 512}); err != nil {
			return err
		}
	}
	var err error
	m.list, err = revocations.OpenStore(ctx, splitStore{Store: stores[0], nudges: stores[1]}, revocations.Config{
		KEKs: newKEKs(), Instance: m.name, MaxStale: u.maxStale, ClockSkew: u.f.pace.ClockSkew,
		Poll: u.f.pace.listPoll(), Deadline: u.f.pace.deadline, Now: m.now, Logger: u.f.log.With("instance", m.name),
	})
	if err != nil {
		return err
	}
	return m.openGuards()
}

// openGuards makes the verifiers of the users' tokens.
func (m *instance) openGuards() (err error) {
	for i, ttl := range []time.Duration{-1, 0} {
		cfg := verifier.Config{CacheTTL: ttl, Now: m.now, Revocations: m.list}
		for n := range 2 * clubs {
			k, err1 := keystore.NewSecret(keystore.ID{Tenant: userTenant(n), KID: "u"}, keystore.HS256, []byte(userSecret))
			keys, err2 := keystore.NewStatic(k)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			cfg.Tenants = append(cfg.Tenants, verifier.Tenant{ID: userTenant(n), Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
				Issuer: issuer(userTenant(n)), AnyAudience: true, Leeway: 2 * time.Second})
		}
		if m.guards[i], err = verifier.New(cfg); err != nil {
			return err
		}
	}
	return nil
}

// listPrefix is the prefix of the lists' keys in Redis, see docs/formats.md.
const listPrefix = "kt:rv"

// login returns a new token of a user: of one who was there before, or of a new one.
func (u *logouts) login(tenant, sub string) *userToken {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seq++
	t := &userToken{tenant: tenant, sub: sub, jti: fmt.Sprint("jti-", u.seq), sid: fmt.Sprint("sid-", u.seq), iat: time.Now().Unix()}
	if t.sub == "" {
		t.sub = fmt.Sprint("sub-", u.seq)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","kid":"u"}`)) + "." + encode(fmt.Appendf(nil, `{"iss":%q,"sub":%q,"sid":%q,"jti":%q,"iat":%d,"exp":%d}`,
		issuer(tenant), t.sub, t.sid, t.jti, t.iat, t.iat+int64(userLife/time.Second)))
	mac := hmac.New(sha256.New, []byte(userSecret))
	mac.Write([]byte(text))
	t.raw = text + "." + encode(mac.Sum(nil))
	const kept = 400
	u.tokens = append(u.tokens[max(0, len(u.tokens)-kept):], t)
	return t
}

// traffic lets users log in and out until ctx ends.
func (u *logouts) traffic(ctx context.Context) {
	var visits sync.WaitGroup
	defer visits.Wait()
	free := make(chan struct{}, 16)
	every := 20 * time.Second / time.Duration(u.f.rate)
	for n := 0; sleep(ctx, every) == nil; n++ {
		select {
		case free <- struct{}{}:
			visits.Go(func() {
				defer func() { <-free }()
				u.visit(ctx, n)
			})
		default: // while Redis is away, revocations take their time
		}
	}
}

// visit logs a user in, revokes that, and logs the user in again.
func (u *logouts) visit(ctx context.Context, n int) {
	kind := []revocations.Kind{revocations.Token, revocations.Session, revocations.Subject}[n%3]
	tenant := userTenant(n % clubs)
	if n%10 == 9 {
		kind, tenant = revocations.Tenant, userTenant(clubs+n/10%clubs)
	}
	t := u.login(tenant, "")
	members := u.f.random(3)
	for _, m := range members {
		for range 3 { // a verifier caches a token that comes again
			u.verify(m, t, 1)
		}
	}
	o := u.revoke(ctx, members[0], kind, t)
	if u.measures && o != nil {
		u.hear(ctx, members[len(members)-1], o)
	}
	again := time.Unix(time.Now().Unix()+1, 0)
	if sleep(ctx, time.Until(again)) == nil {
		u.login(tenant, t.sub) // and it must be good, unless the whole tenant is revoked meanwhile
		u.login(userTenant(clubs+n%clubs), "")
	}
}

// revoke lets an instance revoke a token, and what belongs to it. It returns nil unless that is done.
func (u *logouts) revoke(ctx context.Context, by *instance, kind revocations.Kind, t *userToken) *order {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	before := time.Now()
	o := u.begin(by, kind, t, before)
	err := revoke(ctx, by.list, kind, t, before)
	u.mu.Lock()
	if err != nil {
		u.count.Failed++
	} else {
		u.count.Revoked++
		o.committed = time.Now()
	}
	u.mu.Unlock()
	if err != nil {
		return nil
	}
	u.verify(by, t, 0)
	u.verify(by, t, 1)
	return o
}

func revoke(ctx context.Context, by *revocations.List, kind revocations.Kind, t *userToken, before time.Time) (err error) {
	switch exp := time.Unix(t.iat, 0).Add(userLife); kind {
	case revocations.Token:
		_, err = by.RevokeToken(ctx, t.tenant, t.jti, exp)
	case revocations.Session:
		_, err = by.RevokeSession(ctx, t.tenant, t.sid, exp)
	case revocations.Subject:
		_, err = by.RevokeSubject(ctx, t.tenant, t.sub, before)
	default:
		_, err = by.RevokeTenant(ctx, t.tenant, before)
	}
	return err
}

// begin notes that a revocation has begun: from now on a token may be refused because of it.
func (u *logouts) begin(by *instance, kind revocations.Kind, t *userToken, before time.Time) *order {
	o := &order{by: by, before: math.MaxInt64, token: t}
	for _, r := range t.revocables() {
		if r.kind == kind {
			o.what = r
		}
	}
	if kind == revocations.Subject || kind == revocations.Tenant {
		o.before = before.Add(time.Second - 1).Unix() // rounded up
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.orders[o.what] = append(u.orders[o.what], o)
	return o
}

// ordersLocked returns the orders that revoke a token.
func (u *logouts) ordersLocked(t *userToken) (all []*order) {
	for _, r := range t.revocables() {
		for _, o := range u.orders[r] {
			if t.iat < o.before {
				all = append(all, o)
			}
		}
	}
	return all
}

// hear waits until an instance refuses the token of an order.
func (u *logouts) hear(ctx context.Context, m *instance, o *order) {
	for time.Since(o.committed) < u.maxStale {
		at := time.Now()
		if errors.Is(u.verify(m, o.token, 1), verifier.ErrRevoked) {
			u.mu.Lock()
			u.count.Heard = append(u.count.Heard, max(0, at.Sub(o.committed)))
			u.mu.Unlock()
			return
		}
		if sleep(ctx, time.Millisecond) != nil {
			return
		}
	}
}

// probe verifies random tokens of users, revoked or not, until ctx ends.
func (u *logouts) probe(ctx context.Context) {
	every := 2 * time.Second / time.Duration(u.f.rate)
	for sleep(ctx, every) == nil {
		u.mu.Lock()
		var t *userToken
		if n := len(u.tokens); n > 0 {
			t = u.tokens[u.f.intN(n)]
		}
		u.mu.Unlock()
		if t != nil {
			u.verify(u.f.random(1)[0], t, u.f.intN(2))
		}
	}
}

// hide says that until then the store may lack revocations that were committed before.
func (u *logouts) hide(until time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hidden = until
}

// ready returns why an instance is not ready, or nil.
func (u *logouts) ready() error {
	for _, m := range u.f.instances() {
		if s := m.list.Status(); !s.Ready || s.InDoubt {
			return fmt.Errorf("the list of %s is not ready, in doubt %v: %w", m.name, s.InDoubt, errors.Join(s.Err, s.Unread))
		}
	}
	return nil
}

// after is called after the faults, when nothing is revoked any more. Every instance must refuse what
// was revoked, and so must one that has just come.
func (u *logouts) after(ctx context.Context) error {
	newcomer, err := u.f.join(ctx)
	if err != nil {
		return err
	}
	var late error
	err = awaitEvery(ctx, 20*time.Millisecond, patience, "the lists to be ready", func() bool { late = u.ready(); return late == nil })
	if err != nil {
		return errors.Join(err, late)
	}
	if err := sleep(ctx, 2*u.f.pace.listGap()); err != nil {
		return err
	}
	u.checkAll()
	return u.f.leave(newcomer)
}

// checkAll checks that every instance refuses the revoked tokens.
func (u *logouts) checkAll() {
	u.mu.Lock()
	orders := u.committedLocked()
	u.mu.Unlock()
	for _, o := range orders {
		for _, m := range u.f.instances() {
			if err := u.verify(m, o.token, 0); err == nil {
				u.wrong(func(c *logoutCount) { c.Forgotten++ }, "after the faults %s accepts a token of a revoked %s", m.name, o.what.kind)
			}
		}
	}
}

func (u *logouts) committedLocked() (all []*order) {
	for _, orders := range u.orders {
		for _, o := range orders {
			if !o.committed.IsZero() {
				all = append(all, o)
			}
		}
	}
	return all
}

func (u *logouts) wrong(change func(*logoutCount), format string, args ...any) {
	u.mu.Lock()
	change(&u.count)
	u.mu.Unlock()
	u.f.tally.note(format, args...)
}

func (u *logouts) result() logoutCount {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.count
}
