package verifier

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/jwt"
	"github.com/keyturn/keyturn/keystore"
)

// A Hint names the tenant that [Config.Resolve] is asked for. One of its fields is set.
type Hint struct {
	// Tenant is the ID, from the caller of [Verifier.VerifyTenant]. The tenant returned must have it.
	Tenant string

	// Issuer is the iss of a token, which nothing has proved yet: look it up as it is, and ask
	// nothing at that address. The tenant returned must have it as Issuer or among its OtherIssuers.
	Issuer string
}

const (
	defaultMaxResolved      = 10_000
	defaultResolvePerSecond = 100
	defaultResolveTTL       = 5 * time.Minute
	defaultResolveTimeout   = 2 * time.Second

	absentFor   = 5 * time.Second // how long the answer counts that there is no such tenant
	failedFor   = time.Second     // how long a name is not asked for again after a failure
	maxHintSize = 512             // in bytes; names that are longer are not asked for
	maxAsking   = 64              // questions at one time: for tenants that are not held, and as many for held ones
	maxAttempts = 3               // of one question, and of one token, if tenants are removed meanwhile
)

func (c Config) validateResolve() error {
	switch {
	case c.Resolve == nil && (c.MaxResolved != 0 || c.ResolvePerSecond != 0 || c.ResolveTTL != 0 || c.ResolveTimeout != 0):
		return errors.New("verifier: Config has bounds for Resolve, and no Resolve")
	case c.MaxResolved < 0:
		return fmt.Errorf("verifier: Config.MaxResolved is %d, want 0 or more", c.MaxResolved)
	case c.ResolvePerSecond < 0:
		return fmt.Errorf("verifier: Config.ResolvePerSecond is %d, want 0 or more", c.ResolvePerSecond)
	case c.ResolveTTL < 0:
		return fmt.Errorf("verifier: Config.ResolveTTL is %v, want 0 or more", c.ResolveTTL)
	case c.ResolveTimeout < 0:
		return fmt.Errorf("verifier: Config.ResolveTimeout is %v, want 0 or more", c.ResolveTimeout)
	}
	return nil
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// openResolver prepares for cfg.Resolve, if it is set.
func (v *Verifier) openResolver(cfg Config) {
	v.leases = leases{most: orDefault(cfg.MaxResolved, defaultMaxResolved), fresh: list.New()}
	if cfg.Resolve == nil {
		return
	}
	v.resolver = &resolver{
		v: v, resolve: cfg.Resolve,
		ttl:     orDefault(cfg.ResolveTTL, defaultResolveTTL),
		timeout: orDefault(cfg.ResolveTimeout, defaultResolveTimeout),
		budget:  questionBudget{rate: orDefault(cfg.ResolvePerSecond, defaultResolvePerSecond)},
		proved:  provedNames{seed: maphash.MakeSeed(), most: min(4*v.leases.most, maxProved)},
		flights: make(map[Hint]*flight),
		memory:  make(map[Hint]memo),
	}
}

// askTenant asks [Config.Resolve], where the token's tenant r is not held, or its lease has run out or is
// due. It returns the verdict if there can be no other, and sets d.overtaken if the tenants have changed.
func (v *Verifier) askTenant(ctx context.Context, d *decision, tenants *tenants, hint *string, p *parsed, r *rules) *Error {
	if r != nil {
		return v.askAgain(ctx, d, r)
	}
	h, ok := tenants.question(hint, p, d.now)
	if !ok {
		return nil
	}
	if d.asked == maxAttempts {
		return cannotTell(errResolvedOvertaken)
	}
	err := v.resolver.wait(ctx, d, h, nil)
	if err == nil {
		d.overtaken = true
		return nil
	}
	now, bad := v.tenants.Load().pick(hint, &p.claims)
	switch {
	case now != nil: // it was put meanwhile
		d.overtaken = d.asked < maxAttempts
		return cannotTell(err)
	case err == errNoTenant:
		return bad
	}
	return cannotTell(err)
}

// askAgain is askTenant for a tenant that is held.
func (v *Verifier) askAgain(ctx context.Context, d *decision, r *rules) *Error {
	if r.lease == nil || r.suspended || !r.lease.due(d.now) && !r.lease.expired(d.now) {
		return nil
	}
	if d.asked == maxAttempts {
		return cannotTell(errResolvedOvertaken)
	}
	err := v.resolver.wait(ctx, d, Hint{Tenant: r.ID}, r)
	switch {
	case !r.live.Load():
		d.overtaken = true
		return cannotTell(errResolvedOvertaken)
	case r.lease.expired(d.now):
		if err == nil {
			err = errResolvedOvertaken
		}
		return cannotTell(err).withTenant(r)
	}
	return nil
}

// question returns whom to ask for. A token that no tenant would accept asks nothing.
func (t *tenants) question(hint *string, p *parsed, now time.Time) (h Hint, ok bool) {
	if exp, is := jwt.NumericDate(p.claims.exp.text); is && !now.Before(exp.Add(maxLeeway)) || !p.alg.Known() {
		return h, false
	}
	if hint != nil {
		h.Tenant = *hint
	} else {
		h.Issuer, _ = jwt.String(p.claims.iss.text)
		if _, shared := t.byIssuer.Get(h.Issuer); shared {
			return h, false // several are held, and a hint has to tell them apart
		}
	}
	size := len(h.Tenant) + len(h.Issuer)
	return h, size > 0 && size <= maxHintSize
}

var (
	errNoTenant          = errors.New("Config.Resolve knows no such tenant")
	errResolveBudget     = errors.New("Config.Resolve was asked for as many tenants as Config.ResolvePerSecond allows: later, or raise it")
	errResolveBusy       = errors.New("Config.Resolve has too many questions to answer already: is the database slow?")
	errResolveTimeout    = errors.New("Config.Resolve did not answer within Config.ResolveTimeout")
	errResolvedOvertaken = errors.New("the tenant was changed each time that Config.Resolve was asked for it")
	errResolveEnded      = errors.New("Config.Resolve ended its goroutine without an answer")
)

// A resolver asks [Config.Resolve], once for all tokens that wait for the same tenant.
type resolver struct {
	v       *Verifier
	resolve func(context.Context, Hint) (Tenant, error)
	ttl     time.Duration
	timeout time.Duration

	mu      sync.Mutex // taken after Verifier.mu, if both are; guards the rest, and the flights' marks
	budget  questionBudget
	proved  provedNames
	flights map[Hint]*flight
	asking  [lanes]int // questions under way
	memory  map[Hint]memo
	order   []Hint // of memory, the oldest first
	stats   ResolveStats
}

// The lanes of questions: for tenants that are held, for others, and for some others that are proved.
const (
	laneHeld = iota
	laneCommon
	laneProved
	lanes
)

// laneRoom is how many questions of each lane are asked at one time.
var laneRoom = [lanes]int{laneHeld: maxAsking, laneCommon: maxAsking - maxAsking/keptShare, laneProved: maxAsking / keptShare}

// ResolveStats count how [Config.Resolve] was asked, and how many of its tenants are held.
type ResolveStats struct {
	Found   uint64 // questions that brought the tenant
	Unknown uint64 // questions whose answer was that there is no such tenant
	Failed  uint64 // questions with another error, and answers that were refused
	Refused uint64 // tokens for which it was not asked, because of ResolvePerSecond or too many open questions

	Held int // tenants of Resolve now, except suspended ones
}

// ResolveStats returns the counters of [Config.Resolve]. All are zero without it.
func (v *Verifier) ResolveStats() ResolveStats {
	if v.resolver == nil {
		return ResolveStats{}
	}
	v.mu.Lock()
	held := v.leases.size()
	v.mu.Unlock()
	v.resolver.mu.Lock()
	defer v.resolver.mu.Unlock()
	s := v.resolver.stats
	s.Held = held
	return s
}

// A memo is a question that brought no tenant, as it is remembered.
type memo struct {
	err   error
	until time.Time
}

// A flight is one question under way.
type flight struct {
	hint Hint
	held *rules // the tenant as it was held, or nil
	lane int
	ctx  context.Context
	done chan struct{}
	err  error // once done is closed

	// Tenants removed since the question was asked. Its answer must not bring them back.
	removed map[string]bool
	swept   bool // all
}

// wait asks for h, or waits for an answer to the same question that is under way. A nil error means that
// the tenants are worth looking at again. held is the tenant, if it is held; while it serves, nothing is
// waited for that is under way.
func (r *resolver) wait(ctx context.Context, d *decision, h Hint, held *rules) error {
	serves := held != nil && !held.lease.expired(d.now)
	f, err := r.board(ctx, h, held, serves, d.now)
	if f == nil {
		return err
	}
	d.asked++
	select {
	case <-f.done:
		err = f.err
	case <-f.ctx.Done():
		select {
		case <-f.done:
			err = f.err
		default:
			err = errResolveTimeout
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	d.now = r.v.now()
	return err
}

// board returns the flight to wait for, or nil and the reason against one.
func (r *resolver) board(ctx context.Context, h Hint, held *rules, serves bool, now time.Time) (*flight, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.flights[h]; f != nil {
		if serves {
			return nil, nil
		}
		return f, nil
	}
	if m, ok := r.memory[h]; ok && now.Before(m.until) && m.until.Sub(now) <= absentFor {
		return nil, m.err
	}
	f := &flight{hint: Hint{strings.Clone(h.Tenant), strings.Clone(h.Issuer)}, held: held, done: make(chan struct{}), err: errResolveEnded}
	proved := held == nil && (r.proved.empty() || r.proved.has(h))
	switch {
	case held != nil:
		f.lane = laneHeld
	case proved && r.asking[laneProved] < laneRoom[laneProved]:
		f.lane = laneProved
	default:
		f.lane = laneCommon
	}
	switch {
	case r.asking[f.lane] == laneRoom[f.lane]:
		r.stats.Refused++
		return nil, errResolveBusy
	case held == nil && !r.budget.take(proved, now):
		r.stats.Refused++
		return nil, errResolveBudget
	}
	if held != nil {
		held.lease.putOff(now, r.ttl) // others do not ask meanwhile, nor soon if it fails
	}
	r.asking[f.lane]++
	r.flights[f.hint] = f
	var cancel context.CancelFunc
	f.ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	go r.fly(f, cancel)
	return f, nil
}

// fly asks the question, and installs the answer. Its tokens wait for it until the timeout. If Resolve
// does not keep to that, the flight keeps its place in asking, which bounds such goroutines.
//
// If another tenant of Resolve has the same issuer, that one is asked for as well: its row may have changed. If
// it has not, the answer is refused. So no customer takes over an issuer by a row of their own.
func (r *resolver) fly(f *flight, cancel context.CancelFunc) {
	defer r.land(f, cancel)
	asked := ""
	for range maxAttempts {
		f.err = r.attempt(f, f.hint, f.held)
		var rival *rivalError
		switch {
		case f.err == errResolvedOvertaken:
		case errors.As(f.err, &rival) && rival.ID != asked:
			asked = rival.ID
			if r.attempt(f, Hint{Tenant: rival.ID}, rival.rules); rival.live.Load() {
				return
			}
		default:
			return
		}
	}
}

// rivalError reports that another tenant of Resolve contradicts an answer.
type rivalError struct {
	*rules
	cause error
}

func (e *rivalError) Error() string { return e.cause.Error() }

// attempt asks once. A panic of Resolve, or of a key store that is asked about the tenant, is an error.
func (r *resolver) attempt(f *flight, h Hint, held *rules) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("Config.Resolve panicked: %v", p)
		}
	}()
	r.mu.Lock()
	f.removed, f.swept = nil, false
	r.mu.Unlock()
	asked := r.v.now()
	t, err := r.resolve(f.ctx, h)
	switch {
	case err == nil:
	case isNoTenant(err):
		r.v.dropAbsent(held)
		return errNoTenant
	default:
		return fmt.Errorf("Config.Resolve: %w", err)
	}
	fresh, err := h.check(t)
	if err == nil {
		err = r.v.putResolved(f, &t, fresh, asked)
	}
	if err != nil && err != errResolvedOvertaken {
		return fmt.Errorf("Config.Resolve: %w", err)
	}
	return err
}

// isNoTenant reports whether the resolver is sure that there is no such tenant.
func isNoTenant(err error) bool {
	return (errors.Is(err, ErrUnknownTenant) || errors.Is(err, keystore.ErrNotFound)) && !errors.Is(err, ErrUnavailable)
}

// check compiles the answer to a question, and refuses another tenant than that.
func (h Hint) check(t Tenant) (*rules, error) {
	if h.Tenant != "" && t.ID != h.Tenant {
		return nil, fmt.Errorf("it was asked for tenant %q and returned %q", h.Tenant, t.ID)
	}
	fresh, err := compile(t)
	if err != nil {
		return nil, err
	}
	if h.Issuer != "" && !slices.Contains(fresh.issuers, h.Issuer) {
		return nil, fmt.Errorf("it was asked for the issuer of a token and returned tenant %q, which does not have it", t.ID)
	}
	return fresh, nil
}

// land ends a flight: those who wait look at f.err.
func (r *resolver) land(f *flight, cancel context.CancelFunc) {
	now := r.v.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flights, f.hint)
	r.asking[f.lane]--
	r.forget(now)
	switch {
	case f.err == nil:
		r.stats.Found++
		delete(r.memory, f.hint)
	case f.err == errNoTenant:
		r.stats.Unknown++
		r.proved.drop(f.hint)
		r.remember(f.hint, memo{f.err, now.Add(absentFor)})
	default:
		r.stats.Failed++
		r.remember(f.hint, memo{f.err, now.Add(failedFor)})
	}
	close(f.done)
	cancel() // later: those who wait must not take it for the timeout
}

func (r *resolver) remember(h Hint, m memo) {
	if _, there := r.memory[h]; !there {
		r.order = append(r.order, h)
	}
	r.memory[h] = m
}

// forget drops memos that have run out. The budget bounds the number of the others.
func (r *resolver) forget(now time.Time) {
	for len(r.order) > 0 {
		m, there := r.memory[r.order[0]]
		if there && now.Before(m.until) && m.until.Sub(now) <= absentFor {
			return
		}
		delete(r.memory, r.order[0])
		r.order = r.order[1:]
	}
}

// removed keeps the answers to questions that are under way from bringing back tenants that are removed
// now. The caller holds Verifier.mu.
func (r *resolver) removed(ids []string) {
	if len(ids) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flights {
		if f.removed == nil {
			f.removed = make(map[string]bool)
		}
		for _, id := range ids {
			f.removed[id] = true
		}
	}
}

// sweep is removed for all tenants.
func (r *resolver) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flights {
		f.swept = true
	}
}

// keepNames remembers the names of a tenant that makes room for another, and that a good token has used.
// Its tokens then do not compete with made-up names. The caller holds Verifier.mu.
func (r *resolver) keepNames(t *rules) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proved.add(Hint{Tenant: t.ID})
	for _, issuer := range t.issuers {
		r.proved.add(Hint{Issuer: issuer})
	}
}

// outdated reports whether the tenant was removed since the question was asked.
func (r *resolver) outdated(f *flight, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return f.swept || f.removed[id]
}

// dropAbsent removes a tenant of Resolve that is no longer there, unless it was changed or suspended
// meanwhile.
func (v *Verifier) dropAbsent(held *rules) {
	if held == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := v.tenants.Load().named(held.ID); now != nil && now.lease == held.lease && !now.suspended {
		e := v.newEdit()
		e.set(now.ID, nil)
		v.install(e)
	}
}

// putResolved installs the answer t to a question, compiled. A tenant that was put meanwhile counts more.
func (v *Verifier) putResolved(f *flight, t *Tenant, fresh *rules, asked time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.resolver.outdated(f, t.ID) {
		return errResolvedOvertaken
	}
	e := v.newEdit()
	held := e.named(t.ID)
	switch {
	case held != nil && held.lease == nil:
		return nil
	case held != nil && held.madeOf(t):
		held.lease.renew(asked, v.resolver.ttl)
		return nil
	case held != nil:
		fresh.lease = held.lease
	default:
		fresh.lease = &lease{id: t.ID}
	}
	e.put(fresh)
	if err := e.check(); err != nil {
		if rival := e.rival(fresh); rival != nil {
			return &rivalError{rival, err}
		}
		return err
	}
	if held == nil {
		for _, l := range v.leases.makeRoom() {
			if l.used.Load() > 0 {
				v.resolver.keepNames(e.named(l.id))
			}
			e.set(l.id, nil)
		}
	}
	fresh.lease.renew(asked, v.resolver.ttl)
	v.install(e)
	return nil
}
