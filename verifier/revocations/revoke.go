package revocations

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/rules"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// A Kind says what a revocation is about.
type Kind string

// The kinds of revocations.
const (
	Token   Kind = "token"
	Session Kind = "session"
	Subject Kind = "subject"
	Tenant  Kind = "tenant"
)

var kinds = [...]Kind{table.Token: Token, table.Session: Session, table.Subject: Subject, table.Tenant: Tenant}

func kindOf(k table.Kind) Kind { return kinds[k] }

// A Receipt describes a revocation, and when the store had it.
type Receipt struct {
	Kind   Kind   `json:"kind"`
	Tenant string `json:"tenant"`

	// Before is the second from which logins count again: tokens of the subject or the tenant are
	// revoked that were issued earlier. It is zero for a token and a session, which are revoked whatever
	// their iat.
	Before time.Time `json:"before,omitzero"`

	// Ends is when the revocation may be forgotten, since all its tokens have expired. It is zero if
	// that is never.
	Ends time.Time `json:"ends,omitzero"`

	Committed time.Time `json:"committed"` // by the store's clock

	// Known says that it was revoked already, at least as far. To revoke a subject or a tenant again as of
	// now, or a session without exp, revokes more than before: then it is false.
	Known bool `json:"known"`

	entry table.Entry
	nonce string
	told  int
}

// RevokeToken revokes a token that was issued, by its jti. exp is its exp: so long, and 5m for leeway,
// the revocation is kept. With the zero Time it is kept for ever.
//
// When it has returned, this list refuses the token, and every other within a second while it reaches
// the store: see [List.Watch]. After an error the revocation may be in force all the same; to repeat it
// does no harm. It is an error if the jti is empty, since that names no token, and [ErrFull] if the
// tenant has no room left.
func (l *List) RevokeToken(ctx context.Context, tenant, jti string, exp time.Time) (Receipt, error) {
	if jti == "" {
		return Receipt{}, errors.New("revocations: no jti to revoke: revoke the subject instead")
	}
	return l.revoke(ctx, order{kind: table.Token, tenant: tenant, name: jti, exp: exp})
}

// RevokeSession is [List.RevokeToken] for all tokens of a session, by their claim sid (OpenID Connect
// Back-Channel Logout 1.0, section 2.1): also those that are issued later. exp is when the last of them
// expires; with the zero Time it is MaxTokenTTL from now.
func (l *List) RevokeSession(ctx context.Context, tenant, sid string, exp time.Time) (Receipt, error) {
	if sid == "" {
		return Receipt{}, errors.New("revocations: no session to revoke: revoke the subject instead")
	}
	if exp.IsZero() {
		exp = l.cfg.Now().Add(l.cfg.MaxTokenTTL)
	}
	return l.revoke(ctx, order{kind: table.Session, tenant: tenant, name: sid, exp: exp})
}

// revokeSpare is [List.RevokeSession] for a session whose tokens end in another way, too: see checkRoom.
func (l *List) revokeSpare(ctx context.Context, tenant, sid string, exp time.Time) (Receipt, error) {
	return l.revoke(ctx, order{kind: table.Session, tenant: tenant, name: sid, exp: exp, spare: true})
}

// holdsToken reports whether the list holds a revocation of the token alone, whatever its subject, session and tenant are.
func (l *List) holdsToken(tenant, jti string) bool {
	for _, k := range l.current() {
		if _, held := l.table.Get(k.Digest(table.Token, tenant, jti)); held {
			return true
		}
	}
	return false
}

// RevokeSubject is [List.RevokeToken] for the tokens of a subject whose iat is earlier than before, and
// those without iat. A later time replaces an earlier one, and never the reverse.
//
// before is rounded up to a whole second, as most issuers round iat down to one: so every token is
// revoked that was issued up to before. One that is issued later in the same second cannot be told
// apart, and is revoked too: Receipt.Before is the second from which logins count. A time that is more
// than two seconds ahead of the store's clock is [ErrFuture], since it could not be undone.
func (l *List) RevokeSubject(ctx context.Context, tenant, sub string, before time.Time) (Receipt, error) {
	if sub == "" {
		return Receipt{}, errors.New("revocations: no subject to revoke: revoke the tenant instead")
	}
	return l.revoke(ctx, order{kind: table.Subject, tenant: tenant, name: sub, before: before})
}

// RevokeTenant is [List.RevokeSubject] for all tokens of a tenant. It always finds room, and replaces
// the revocations of the tenant's subjects up to before, and of its tokens that were revoked 5m before
// that or earlier.
func (l *List) RevokeTenant(ctx context.Context, tenant string, before time.Time) (Receipt, error) {
	return l.revoke(ctx, order{kind: table.Tenant, tenant: tenant, before: before})
}

// An order is what a caller wants to be revoked.
type order struct {
	kind         table.Kind
	tenant, name string
	exp          time.Time // of tokens and sessions
	before       time.Time // of subjects and tenants
	spare        bool      // its tokens end in another way, too: see checkRoom
}

// maxName is how long a tenant and a name may be, in bytes. No token has longer ones.
const maxName = 64 << 10

// revoke writes a revocation.
func (l *List) revoke(ctx context.Context, o order) (Receipt, error) {
	if len(o.tenant) >= maxName || len(o.name) >= maxName {
		return Receipt{}, fmt.Errorf("revocations: a tenant of %d bytes and a name of %d, want less than %d", len(o.tenant), len(o.name), maxName)
	}
	k, err := l.keyToWrite(ctx)
	if err != nil {
		return Receipt{}, failed(o.kind, err)
	}
	e := l.entryOf(o, k)
	if err := l.checkRoom(e, o.spare); err != nil {
		return Receipt{}, err
	}
	receipt, err := l.commit(ctx, e, k)
	receipt.Tenant = o.tenant
	if err != nil {
		return Receipt{}, failed(o.kind, err)
	}
	return receipt, nil
}

// failed returns the error of a revocation. It names no subject, session or jti.
func failed(kind table.Kind, err error) error {
	return fmt.Errorf("revocations: the %s could not be revoked: %w", kindOf(kind), err)
}

// entryOf returns the entry of an order.
func (l *List) entryOf(o order, k *codec.Key) table.Entry {
	e := table.Entry{Digest: k.Digest(o.kind, o.tenant, o.name), Tenant: k.TenantID(o.tenant), Kind: o.kind, Key: k.ID, End: codec.Forever}
	switch {
	case o.kind == table.Subject || o.kind == table.Tenant:
		e.Before = max(0, rules.Seconds(o.before))
		e.End = rules.End(time.Unix(e.Before, 0).Add(l.cfg.MaxTokenTTL), l.cfg.ClockSkew)
	case !o.exp.IsZero():
		e.End = max(0, rules.End(o.exp, l.cfg.ClockSkew))
	}
	if o.kind == table.Token {
		e.Before = rules.TokenBefore(l.cfg.Now())
	}
	return e
}

// checkRoom refuses a new entry if its tenant's share is taken. A command that has not read all of the
// store does not know that. The lists hold up to twice the share for such. A spare entry may take the first half of
// the room alone: a user who logs in and out all day must not keep others from logging out.
func (l *List) checkRoom(e table.Entry, spare bool) error {
	if _, held := l.table.Get(e.Digest); held || e.Kind == table.Tenant {
		return nil
	}
	perTenant, all := l.cfg.MaxPerTenant, l.cfg.MaxEntries
	if spare {
		perTenant, all = perTenant/2, all/2
	}
	switch n := l.table.LenOf(e.Tenant); {
	case n >= perTenant:
		return fmt.Errorf("%w: the tenant has %d revocations, and may have %d: revoke the whole tenant, or raise Config.MaxPerTenant", ErrFull, n, perTenant)
	case l.table.Len() >= all:
		return fmt.Errorf("%w: it holds %d of at most %d: raise Config.MaxEntries", ErrFull, l.table.Len(), all)
	}
	return nil
}

// commit joins an entry with that of the store, and writes the result. It also writes an entry that the
// store has already, so that acknowledgements tell of it.
func (l *List) commit(ctx context.Context, e table.Entry, k *codec.Key) (Receipt, error) {
	g := groupOf(e.Digest, len(l.prints))
	var last error
	for try := range maxTries {
		if try > 0 {
			if err := l.pause(ctx, try); err != nil {
				return Receipt{}, errors.Join(err, last)
			}
		}
		s := l.load(ctx, []string{groupName(g)})[0]
		if s.Err != nil {
			last = s.Err
			continue
		}
		if s, last = l.makeRoom(ctx, g, s); last != nil {
			continue
		}
		stored, known := l.storedEntry(s, e.Digest)
		joined := e
		if known {
			joined = rules.Join(stored, e)
		}
		result, err := l.writeEntry(ctx, g, s.Digest, joined, k)
		switch {
		case err == nil && result.Code == rotation.Committed:
			return l.receiptOf(joined, result, known && rules.Known(stored, joined)), nil
		case err == nil && result.Code == rotation.OutOfBounds:
			return Receipt{}, &futureError{e.Before, result.Now}
		case err == nil:
			last = errBusy
		default:
			last = err
		}
	}
	return Receipt{}, last
}

// makeRoom removes what no keyturn wrote from a group that has too much of it for another entry. It returns the group as
// it is then.
func (l *List) makeRoom(ctx context.Context, g int, s rotation.Snapshot) (rotation.Snapshot, error) {
	if sizeOf(s.Fields) <= maxGroup {
		return s, nil
	}
	garbage := openGroup(l.current(), s.Fields, g, len(l.prints)).garbage
	if len(garbage) == 0 {
		return s, nil
	}
	result, err := l.removeGarbage(ctx, g, s.Digest, garbage)
	if err == nil && result.Code != rotation.Committed {
		err = errBusy
	}
	for _, field := range garbage {
		delete(s.Fields, field)
	}
	s.Digest = result.Digest
	return s, err
}

// pause waits before a write is tried again.
func (l *List) pause(ctx context.Context, try int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return ErrClosed
	case <-time.After(min(time.Duration(try*try)*5*time.Millisecond, l.cfg.Deadline)):
		return nil
	}
}

// storedEntry returns the entry of a digest in a group.
func (l *List) storedEntry(s rotation.Snapshot, d table.Digest) (table.Entry, bool) {
	field := codec.Field(d)
	value, ok := s.Fields[field]
	if !ok {
		return table.Entry{}, false
	}
	e, _, err := codec.OpenEntry(l.current(), field, value)
	return e, err == nil
}

// writeEntry writes one entry. A revocation is dated by the store's clock, so that a time of the future
// is refused there. An entry that was sent may have been written, also after an error: then it is held.
func (l *List) writeEntry(ctx context.Context, g int, digest string, e table.Entry, k *codec.Key) (rotation.Result, error) {
	key := l.current().Find(e.Key)
	change := rotation.Change{Tenant: groupName(g), If: digest, Set: map[string][]byte{codec.Field(e.Digest): key.SealEntry(e)}, Op: opRevoke}
	if e.Kind == table.Subject || e.Kind == table.Tenant {
		change.Bounds = []ring.Bound{{At: time.Unix(e.Before, 0), From: -ages, To: 2*l.cfg.ClockSkew + time.Second}}
	}
	result, err := l.write(ctx, change, k, codec.Logged{Entries: []table.Entry{e}, Whole: true})
	switch {
	case err == nil && result.Code == rotation.Committed:
		l.holdEarly(e)
		l.nudge(int(bucketsOf()[g]))
	case err != nil && result.Code == 0:
		l.holdEarly(e)
		l.countEarly(e, key)
	}
	return result, err
}

// ages is longer than any revocation lies back. A person can push the store's clock to the year 2199, with
// the date of an entry of the log.
const ages = 250 * 365 * 24 * time.Hour

func (l *List) receiptOf(e table.Entry, result rotation.Result, known bool) Receipt {
	entry := entryOf(e)
	return Receipt{Kind: entry.Kind, Before: entry.Before, Ends: entry.Ends, Committed: result.Now, Known: known,
		entry: e, nonce: result.Place.Nonce, told: result.Told}
}
