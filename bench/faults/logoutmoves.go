package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/verifier/revocations"
)

// A logoutAttack is an adversary who reads and writes all keys of the lists, like a person with
// redis-cli and without a KEK. It makes one move after the other, each against a revocation that was
// committed just before.
type logoutAttack struct {
	u      *logouts
	client *redis.Client
	old    []listDump // what the store had earlier
	rows   map[string]*logoutRow
}

// A logoutRow has the counts of one move.
type logoutRow struct {
	Blows, Unrepaired int
	logoutCount
	Healed time.Duration // the longest time from the end of the move until all lists were ready
}

// A listDump has the keys of the lists, as DUMP gives them.
type listDump map[string]string

// A logoutMove is one thing that the adversary does.
type logoutMove struct {
	name, title string
	do          func(ctx context.Context, b *logoutBlow) error
	hides       bool // it may remove every trace of a revocation
}

// A logoutBlow is one use of a move.
type logoutBlow struct {
	*logoutAttack
	before  listDump // of before the revocation
	changed []string // the groups that the revocation changed
}

var logoutMoves = []logoutMove{
	{"delete", "deletes the group", deleteGroups, false},
	{"hide", "deletes the group and the log entries", hideGroups, true},
	{"newcomer", "the same, while an instance starts", hideFromNewcomer, true},
	{"edit", "flips bits of entries", editEntries, false},
	{"replay", "puts back the group of before", replayGroups, false},
	{"replay-old", "puts back all groups of minutes ago", replayOldGroups, false},
	{"replay-all", "puts back everything of before", replayAll, true},
	{"forge", "writes forged entries, and copies in other groups", forgeGroups, false},
	{"keys", "deletes the digest keys", deleteDigestKeys, false},
	{"keys-edit", "flips bits of the digest keys, and writes junk beside them", editDigestKeys, false},
	{"acks", "deletes all acks, again and again", deleteAcks, true},
	{"trim", "deletes the logs", deleteLogs, true},
	{"type", "makes the group one of another type", wrongGroupType, true},
	{"flush", "deletes everything", flushLists, true},
}

// underLogoutAttack lets an adversary make all moves again and again, for a while.
func underLogoutAttack(ctx context.Context, o options, moves []logoutMove, long time.Duration) (a *logoutAttack, err error) {
	server, err := startSingle(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	o.logouts = inAll
	f, err := newFleet(ctx, server, o, "logout-adversary")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	a = &logoutAttack{u: f.logouts, client: redis.NewClient(&redis.Options{Addr: server.(single).Addr(), Protocol: 2, DisableIdentity: true}), rows: make(map[string]*logoutRow)}
	defer a.client.Close()
	return a, a.run(ctx, moves, long)
}

// run makes the moves while users log in and out, and checks the revocations afterwards.
func (a *logoutAttack) run(ctx context.Context, moves []logoutMove, long time.Duration) error {
	traffic, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	jobs := []func(context.Context){a.u.traffic, a.u.probe}
	go func() { done <- atOnce(len(jobs), func(i int) error { jobs[i](traffic); return nil }) }()
	err := a.strikes(ctx, moves, long)
	cancel()
	<-done
	if err != nil {
		return err
	}
	return a.count("after", func() error { return a.u.after(ctx) })
}

// strikes makes all moves once, in random order, and then again, until the time is over.
func (a *logoutAttack) strikes(ctx context.Context, moves []logoutMove, long time.Duration) error {
	end := time.Now().Add(long)
	for {
		for _, n := range rand.Perm(len(moves)) {
			if time.Now().After(end) {
				return nil
			}
			if err := a.count(moves[n].name, func() error { return a.strike(ctx, &moves[n]) }); err != nil {
				return fmt.Errorf("%s: %w", moves[n].name, err)
			}
		}
	}
}

// count adds what happens during do to the counts of a move.
func (a *logoutAttack) count(move string, do func() error) error {
	was := a.u.result()
	err := do()
	now, row := a.u.result(), a.row(move)
	row.Revoked += now.Revoked - was.Revoked
	row.Failed += now.Failed - was.Failed
	row.Verified += now.Verified - was.Verified
	row.Unavailable += now.Unavailable - was.Unavailable
	row.Late += now.Late - was.Late
	row.Forgotten += now.Forgotten - was.Forgotten
	row.Refused += now.Refused - was.Refused
	return err
}

func (a *logoutAttack) row(move string) *logoutRow {
	if a.rows[move] == nil {
		a.rows[move] = new(logoutRow)
	}
	return a.rows[move]
}

// strike revokes something, makes a move against that, and waits until the fleet has recovered.
func (a *logoutAttack) strike(ctx context.Context, m *logoutMove) error {
	u, row := a.u, a.row(m.name)
	row.Blows++
	if m.hides {
		u.hide(time.Now().Add(time.Hour))
	}
	b, err := a.revoke(ctx)
	if err != nil {
		return err
	}
	if err := m.do(ctx, b); err != nil {
		return err
	}
	ended := time.Now()
	if err := awaitEvery(ctx, 20*time.Millisecond, patience/2, "the lists", func() bool { return u.ready() == nil }); err != nil {
		row.Unrepaired++
		u.f.tally.note("after %s: %v", m.name, u.ready())
		return err
	}
	row.Healed = max(row.Healed, time.Since(ended))
	wait := 2 * u.f.pace.listGap()
	if m.hides {
		u.hide(time.Now().Add(wait))
	}
	return sleep(ctx, wait+u.f.pace.listGap())
}

// revoke lets an instance revoke something, and returns what that changed in the store.
func (a *logoutAttack) revoke(ctx context.Context) (*logoutBlow, error) {
	b := &logoutBlow{logoutAttack: a}
	var err error
	if b.before, err = a.dump(ctx); err != nil {
		return nil, err
	}
	u, kinds := a.u, []revocations.Kind{revocations.Token, revocations.Session, revocations.Subject, revocations.Tenant}
	u.revoke(ctx, u.f.random(1)[0], kinds[u.f.intN(len(kinds))], u.login(userTenant(clubs+u.f.intN(clubs)), ""))
	now, err := a.dump(ctx)
	if err != nil {
		return nil, err
	}
	a.old = append(a.old[max(0, len(a.old)-20):], b.before)
	for key, text := range now {
		if strings.Contains(key, ":ring:e") && b.before[key] != text {
			b.changed = append(b.changed, key)
		}
	}
	return b, nil
}

// keys returns the names of the lists' keys that contain a text.
func (a *logoutAttack) keys(ctx context.Context, part string) ([]string, error) {
	all, err := a.client.Keys(ctx, listPrefix+":*").Result()
	return slices.DeleteFunc(all, func(key string) bool { return !strings.Contains(key, part) }), err
}

func (a *logoutAttack) dump(ctx context.Context) (listDump, error) {
	keys, err := a.keys(ctx, "")
	if err != nil {
		return nil, err
	}
	pipe, d := a.client.Pipeline(), make(listDump)
	texts := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		texts[i] = pipe.Dump(ctx, key)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	for i, key := range keys {
		if text := texts[i].Val(); text != "" {
			d[key] = text
		}
	}
	return d, nil
}

// restore puts keys back as a dump has them; one that it lacks is deleted.
func (a *logoutAttack) restore(ctx context.Context, d listDump, keys ...string) error {
	pipe := a.client.TxPipeline()
	for _, key := range keys {
		pipe.Del(ctx, key)
		if text := d[key]; text != "" {
			pipe.RestoreReplace(ctx, key, 0, text)
		}
	}
	_, err := pipe.Exec(ctx)
	return err
}

func (a *logoutAttack) delete(ctx context.Context, part string) error {
	keys, err := a.keys(ctx, part)
	if err != nil || len(keys) == 0 {
		return err
	}
	return a.client.Del(ctx, keys...).Err()
}

// hold calls do again and again, for about as long as three polls.
func (b *logoutBlow) hold(ctx context.Context, do func() error) error {
	for end := time.Now().Add(3 * b.u.f.pace.listPoll()); time.Now().Before(end); {
		if err := do(); err != nil {
			return err
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func deleteGroups(ctx context.Context, b *logoutBlow) error {
	return b.hold(ctx, func() error { return b.restore(ctx, nil, b.changed...) })
}

func hideGroups(ctx context.Context, b *logoutBlow) error {
	keys := slices.Clone(b.changed)
	for _, group := range b.changed {
		bucket, _, _ := strings.Cut(group, ":ring:")
		keys = append(keys, bucket+":log")
	}
	return b.hold(ctx, func() error { return b.restore(ctx, b.before, keys...) })
}

func hideFromNewcomer(ctx context.Context, b *logoutBlow) error {
	hiding, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for hiding.Err() == nil {
			_ = hideGroups(hiding, b) // it ends with hiding
		}
	}()
	m, err := b.u.f.join(ctx)
	if err == nil {
		err = sleep(ctx, 3*b.u.f.pace.listGap())
	}
	cancel()
	<-done
	if err != nil {
		return err
	}
	if err := awaitEvery(ctx, 20*time.Millisecond, patience/2, "the newcomer", func() bool { return b.u.ready() == nil }); err != nil {
		return errors.Join(err, b.u.ready())
	}
	return b.u.f.leave(m)
}

// fields calls do for each field of groups, and writes what do returns.
func (b *logoutBlow) fields(ctx context.Context, groups []string, do func(group, field, value string) (toField, toValue string)) error {
	for _, group := range groups {
		all, err := b.client.HGetAll(ctx, group).Result()
		if err != nil {
			return err
		}
		for field, value := range all {
			to, changed := do(group, field, value)
			if err := b.client.HSet(ctx, group, to, changed).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

func flipBit(text string) string {
	b := []byte(text)
	if len(b) > 0 {
		b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
	}
	return string(b)
}

func editEntries(ctx context.Context, b *logoutBlow) error {
	groups, err := b.keys(ctx, ":ring:e")
	if err != nil {
		return err
	}
	rand.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
	groups = append(groups[:min(len(groups), 20)], b.changed...)
	return b.fields(ctx, groups, func(_, field, value string) (string, string) { return field, flipBit(value) })
}

func replayGroups(ctx context.Context, b *logoutBlow) error {
	return b.hold(ctx, func() error { return b.restore(ctx, b.before, b.changed...) })
}

func replayOldGroups(ctx context.Context, b *logoutBlow) error {
	groups, err := b.keys(ctx, ":ring:e")
	if err != nil {
		return err
	}
	return b.restore(ctx, b.old[0], groups...)
}

func replayAll(ctx context.Context, b *logoutBlow) error {
	keys, err := b.keys(ctx, "")
	if err != nil {
		return err
	}
	return b.restore(ctx, b.before, keys...)
}

// forgeGroups writes entries of made-up names, entries that were moved to another group or name, and
// entries with a changed end, in the name of the digest key that is in use.
func forgeGroups(ctx context.Context, b *logoutBlow) error {
	groups, err := b.keys(ctx, ":ring:e")
	if err != nil || len(groups) == 0 {
		return err
	}
	return b.fields(ctx, groups[:min(len(groups), 30)], func(_, field, value string) (string, string) {
		switch rand.IntN(3) {
		case 0:
			return flipBit(field), value
		case 1:
			_ = b.client.HSet(ctx, groups[rand.IntN(len(groups))], field, value).Err() // the move goes on without it
			return field, value
		}
		return string(randomBytes(16)), string(randomBytes(len(value)))
	})
}

func deleteDigestKeys(ctx context.Context, b *logoutBlow) error { return b.delete(ctx, ":ring:keys") }

func editDigestKeys(ctx context.Context, b *logoutBlow) error {
	keys, err := b.keys(ctx, ":ring:keys")
	if err != nil {
		return err
	}
	return b.fields(ctx, keys, func(key, field, value string) (string, string) {
		_ = b.client.HSet(ctx, key, randomBytes(8), randomBytes(60)).Err() // the move goes on without it
		return field, flipBit(value)
	})
}

func deleteAcks(ctx context.Context, b *logoutBlow) error {
	return b.hold(ctx, func() error { return b.delete(ctx, ":ack") })
}

func deleteLogs(ctx context.Context, b *logoutBlow) error { return b.delete(ctx, ":log") }

func wrongGroupType(ctx context.Context, b *logoutBlow) error {
	for _, key := range b.changed {
		if err := b.client.Set(ctx, key, "junk", 0).Err(); err != nil {
			return err
		}
	}
	if err := sleep(ctx, 2*b.u.f.pace.listGap()); err != nil {
		return err
	}
	return b.restore(ctx, nil, b.changed...) // instances do not delete a key of another type
}

func flushLists(ctx context.Context, b *logoutBlow) error { return b.delete(ctx, "") }

// notes has a line for each violation, at most 20.
func (a *logoutAttack) notes() []string {
	_, notes := a.u.f.tally.result()
	return notes
}

// broken returns an error if a promise was broken.
func (a *logoutAttack) broken() error {
	var errs []error
	for move, row := range a.rows {
		if row.bad()+row.Unrepaired > 0 {
			errs = append(errs, fmt.Errorf("the adversary of users, %s: %d late, %d forgotten, %d refused, %d helped", move, row.Late, row.Forgotten, row.Refused, row.Unrepaired))
		}
	}
	return errors.Join(errs...)
}

const logoutAttackText = `## An adversary that writes the lists

The users of the section above log in and out, with a KEK, on one server without a fault. An adversary
with full access to Redis and no KEK makes a move right after a revocation. The counts are those of
the section above. If the move may remove every trace of the revocation, *late* counts from two polls
after the lists are ready again. *Helped*: moves after which the lists did not recover by themselves.
*Healed*: the longest time from the end of a move until all lists were ready.

| the adversary | moves | revoked | failed | verifications | late | forgotten | refused | helped | 503 | healed |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
`

func (a *logoutAttack) write(w io.Writer) {
	fmt.Fprint(w, logoutAttackText)
	for _, m := range logoutMoves {
		if row := a.rows[m.name]; row != nil {
			row.write(w, m.title)
		}
	}
	if row := a.rows["after"]; row != nil {
		row.write(w, "(has ended)")
	}
	fmt.Fprintln(w)
}

func (r *logoutRow) write(w io.Writer, title string) {
	fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %s | %s | %s | %s | %d | %s |\n", title, r.Blows, r.Revoked, r.Failed, r.Verified,
		zero(r.Late), zero(r.Forgotten), zero(r.Refused), zero(r.Unrepaired), r.Unavailable, round(r.Healed))
}
