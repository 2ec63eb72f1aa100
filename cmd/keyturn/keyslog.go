package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

const logLong = `log shows who changed what, and when: a line for each change that Redis has in its logs,
the oldest first. Without --tenant it shows the changes of all tenants. It changes
nothing. Redis keeps about 10000 changes in each of 256 buckets of tenants.

A line has the time, the tenant, the operation, the kid, and the instance or command
that made the change. An entry is authentic if a holder of the KEK wrote it. The time
is that of Redis, which nothing proves, and a person who can write to Redis can remove
entries. A line says NOT AUTHENTIC where such a person wrote the entry or copied it,
and "not checked" where it cannot be told: without a KEK, with another one, or after a
newer keyturn. No instance takes a key, a promotion or a revocation from an entry that
is not authentic.

Operations are create, mint, promote, rotate, revoke, rekey, import and the like;
collect: keys whose tokens have ended were removed; merge: an instance put back what
Redis had lost. The store itself writes begin, the first entry of an empty log, and
list: an instance found that the name of a tenant was missing. Nothing seals these two.

With --json it prints one array of {"at","tenant","op","kid","seq","actor","check",
"error","bucket","id"}: "check" is authentic, not_authentic, not_checked or unsealed,
and "error" says why. "at" is in RFC 3339, or null if the ID says a date after 2199.`

const logExits = `Exit codes: 0 all was read, 1 an entry is not authentic, 2 the command line is not
right, 3 a part of the log cannot be read.`

func newKeysLog(a *app) *cobra.Command {
	since := &option[time.Time]{kind: "D|DATE", shown: "all that Redis has", parse: func(s string) (time.Time, error) { return parseSince(s, a.now()) }}
	c, cmd := newKeysCommand(a, "log --redis URL [--tenant TENANT] [--since D|DATE]", "Show who changed what, and when",
		logLong, `  keyturn keys log --redis redis://localhost:6379 --kek-file kek --since 7d
  keyturn keys log --redis redis://localhost:6379 --kek-file kek --tenant acme --json
  keyturn keys log --redis redis://localhost:6379 --since 2026-11-29T08:00:00Z`)
	cmd.Long += "\n\n" + logExits
	describeTenant(cmd, "the tenant whose changes are shown; all tenants without it", "")
	cmd.Flags().Var(since, "since", "how long ago, or the date, from which changes are shown")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.log(cmd.Context(), since.value) }
	return cmd
}

// parseSince reads a time that has passed: a duration before now, RFC 3339 or Unix seconds.
func parseSince(s string, now time.Time) (time.Time, error) {
	if d, err := parseLong(s); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 && n < 1<<33 {
		return time.Unix(n, 0), nil
	}
	return time.Time{}, errors.New("want how long ago, such as 24h or 7d, or a date such as 2026-11-29T08:00:00Z or 1795939200")
}

// anySession is connect for a command that can do without a KEK.
func (a *app) anySession(flags *ringFlags) (*ringSession, error) {
	_, hasKEK := a.env(envKEK)
	_, hasFile := a.env(envKEKFile)
	if hasKEK || hasFile || flags.kekFile.given {
		return a.connect(flags)
	}
	return a.connectWith(flags, noKEKs)
}

// noKEKs is for a session that opens no ring.
func noKEKs() (*rotation.KEKs, error) { return nil, nil }

// log shows the logs of all buckets as one, or what the log of one bucket says of the tenant.
func (c *keysCommand) log(ctx context.Context, since time.Time) error {
	s, err := c.anySession(&c.ring)
	if err != nil {
		return err
	}
	defer s.store.close()
	l := &logPrinter{keysCommand: c, out: bufio.NewWriter(c.stdout), seen: make(map[string]bool)}
	if s.keks != nil {
		if l.check, err = s.keks.EntryCheck(s.realm, s.otherRealms...); err != nil {
			return ringError(err)
		}
	}
	m := newLogMerge(s.store, since, c.buckets()...)
	ctx, stop := interruptible(ctx)
	defer stop()
	l.begin()
	for e, ok := m.next(ctx); ok; e, ok = m.next(ctx) {
		l.add(e)
		if m.hungry {
			l.out.Flush() // its error stays, and end returns it
		}
	}
	c.printed = true
	if err := l.end(m.failed > 0); err != nil {
		return exitf(exitCannotTell, "cannot write the answer to standard output")
	}
	return c.answer(l.outcome(ctx, m))
}

// buckets returns the bucket of the tenant, or nothing for all.
func (c *keysCommand) buckets() []int {
	if !c.tenant.given {
		return nil
	}
	return []int{rotation.BucketOf(c.tenant.value)}
}

// The answers of "keys log --json" to the question whether an entry is authentic.
const (
	checkAuthentic    = "authentic"
	checkNotAuthentic = "not_authentic"
	checkNot          = "not_checked"
	checkUnsealed     = "unsealed"
)

// The operations of entries that the store itself writes.
const opBegin, opList ring.Op = "begin", "list"

// A logPrinter prints entries of the log, one line each.
type logPrinter struct {
	*keysCommand
	out   *bufio.Writer
	check func(rotation.LogEntry) error // nil without a KEK
	seen  map[string]bool               // the nonces of authentic entries: no two changes have the same

	begun   []int // buckets whose logs begin here, for people: one line says it for all of them
	lines   int
	forged  int
	tooFar  int // entries whose date is after 2199
	unknown int // entries that were not checked
}

func (l *logPrinter) begin() {
	if l.json {
		l.out.WriteString("[")
	}
}

// add prints an entry.
func (l *logPrinter) add(e loggedEntry) {
	if l.tenant.given && e.Tenant != l.tenant.value && e.Op != opBegin {
		return
	}
	check, why := l.judge(e)
	l.count(e, check)
	if !l.json {
		l.line(e, check, why)
		return
	}
	if l.lines > 0 {
		l.out.WriteString(",")
	}
	l.lines++
	l.out.WriteString(strings.TrimSuffix(toJSON(entryJSON{
		At: when(e.At), Tenant: orNull(e.Tenant), Op: string(e.Op), KID: orNull(e.KID), Seq: e.Seq, Actor: orNull(e.Actor),
		Check: check, Error: orNull(why), Bucket: e.bucket, ID: e.ID,
	}), "\n"))
}

// count counts what outcome tells of.
func (l *logPrinter) count(e loggedEntry, check string) {
	switch check {
	case checkNotAuthentic:
		l.forged++
	case checkNot:
		l.unknown++
	}
	if e.At.IsZero() {
		l.tooFar++
	}
}

// An entryJSON is an entry in the array of "keys log --json".
type entryJSON struct {
	At     *string `json:"at"`
	Tenant *string `json:"tenant"`
	Op     string  `json:"op"`
	KID    *string `json:"kid"`
	Seq    int     `json:"seq"`
	Actor  *string `json:"actor"`
	Check  string  `json:"check"`
	Error  *string `json:"error"`
	Bucket int     `json:"bucket"`
	ID     string  `json:"id"`
}

// judge says whether an instance wrote the entry, and why not.
func (l *logPrinter) judge(e loggedEntry) (check, why string) {
	if len(e.TooLong) > 0 {
		return checkNotAuthentic, "longer than any that keyturn writes: " + strings.Join(e.TooLong, ", ")
	}
	if len(e.MAC) == 0 && (e.Op == opBegin && e.Tenant == "" || e.Op == opList) {
		return checkUnsealed, ""
	}
	if e.Tenant == "" {
		return checkNotAuthentic, "it names no tenant"
	}
	if rotation.BucketOf(e.Tenant) != e.bucket {
		return checkNotAuthentic, fmt.Sprintf("the tenant is not of bucket %d, so no keyturn wrote it there", e.bucket)
	}
	return l.judgeSeal(e)
}

// judgeSeal is judge for an entry that has to be sealed.
func (l *logPrinter) judgeSeal(e loggedEntry) (check, why string) {
	if l.check == nil {
		return checkNot, "no KEK is given"
	}
	err := l.check(e.LogEntry)
	switch {
	case err == nil && l.seen[e.Nonce]:
		return checkNotAuthentic, "a copy of an earlier entry"
	case err == nil:
		l.seen[e.Nonce] = true
		return checkAuthentic, ""
	case errors.Is(err, rotation.ErrWrongKEK), errors.Is(err, rotation.ErrNewer):
		return checkNot, errorText(err)
	}
	return checkNotAuthentic, errorText(err)
}

// line is for people. Whatever a person without the KEK may have chosen is escaped, and cut.
func (l *logPrinter) line(e loggedEntry, check, why string) {
	if check == checkUnsealed && e.Op == opBegin {
		l.begun = append(l.begun, e.bucket)
		return
	}
	l.tellBegun()
	at := "after 2199"
	if !e.At.IsZero() {
		at = e.At.UTC().Format(milliseconds)
	}
	text := fmt.Sprintf("%-24s  %-20s  %-8s", at, shownName(e.Tenant, 40), shownName(string(e.Op), 32))
	if e.KID != "" {
		text += "  " + shownName(e.KID, 64)
	}
	if e.Actor != "" {
		text += "  by " + shownName(e.Actor, 64)
	}
	switch check {
	case checkNotAuthentic:
		text += "  NOT AUTHENTIC: " + why
	case checkNot:
		text += "  not checked: " + why
	}
	l.out.WriteString(printable(text, false) + "\n")
	l.lines++
}

// tellBegun says which logs begin at this point.
func (l *logPrinter) tellBegun() {
	switch n := len(l.begun); n {
	case 0:
		return
	case 1:
		fmt.Fprintf(l.out, "the log of bucket %d begins\n", l.begun[0])
	default:
		fmt.Fprintf(l.out, "the logs of %d buckets begin\n", n)
	}
	l.begun = nil
	l.lines++
}

// shownName returns a name of the log for people. It is quoted where it is empty or has other than
// letters, digits and the like, so that it cannot pass for the columns after it.
func shownName(s string, most int) string {
	odd := func(r rune) bool {
		return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == '"' || r == utf8.RuneError
	}
	if s == "" || len(s) > most || strings.ContainsFunc(s, odd) {
		return quoteCut(s, most)
	}
	return s
}

// end prints the rest. It says that there are no changes only if the whole log was read.
func (l *logPrinter) end(partly bool) error {
	if l.json {
		l.out.WriteString("]\n")
	} else if l.tellBegun(); l.lines == 0 && !partly {
		l.out.WriteString("the log has no such changes\n")
	}
	return l.out.Flush()
}

// outcome returns an error if not all was read, or an entry is not authentic.
func (l *logPrinter) outcome(ctx context.Context, m *logMerge) error {
	if l.tooFar > 0 {
		l.note(`%s a date after 2199: docs/operations.md, "A log entry from the far future"`, entriesWith(l.tooFar, "has", "have"))
	}
	switch {
	case ctx.Err() != nil:
		return exitf(exitCannotTell, "interrupted: this is not the whole log")
	case m.failed > 0:
		return exitf(exitCannotTell, "THIS IS NOT THE WHOLE LOG: %d of %d buckets cannot be read: %s", m.failed, len(m.logs), printable(errorText(m.why), false))
	case l.forged > 0:
		return exitf(exitNo, `%s not authentic: a person without the KEK writes to this Redis; docs/operations.md, "Someone writes to Redis"`, entriesWith(l.forged, "is", "are"))
	case l.unknown > 0:
		l.note("%s not checked: give the KEKs of the service, with --kek-file or %s", entriesWith(l.unknown, "was", "were"), envKEKFile)
	}
	return nil
}

func entriesWith(n int, one, many string) string {
	if n == 1 {
		return "1 entry " + one
	}
	return fmt.Sprintf("%d entries %s", n, many)
}

// A loggedEntry is an entry of a bucket's log.
type loggedEntry struct {
	rediskeys.LoggedEntry
	bucket int
}

// logPage is how many entries are read at once. A writer of Redis can make a command hold no
// more than a page of each bucket, and the store bounds its bytes.
const logPage = 200

// A logMerge reads the logs of buckets as one, by the time in their IDs, and holds a page of each.
type logMerge struct {
	store  *store
	logs   []*bucketLog
	hungry bool  // some log has to be read before the next entry is known
	failed int   // logs that could not be read to their end
	why    error // of the first
}

// A bucketLog has the entries of a log that were read and not taken yet.
type bucketLog struct {
	bucket int
	ms, n  uint64 // of the ID of the first of entries

	entries []rediskeys.LoggedEntry
	after   string // the ID of the last entry that was read
	from    time.Time
	ended   bool // entries has the rest
}

// newLogMerge returns a merge of the logs of those buckets, or of all.
func newLogMerge(s *store, since time.Time, buckets ...int) *logMerge {
	m := &logMerge{store: s, hungry: true}
	for i := 0; len(buckets) == 0 && i < rotation.Buckets; i++ {
		m.logs = append(m.logs, &bucketLog{bucket: i, from: since})
	}
	for _, i := range buckets {
		m.logs = append(m.logs, &bucketLog{bucket: i, from: since})
	}
	return m
}

// next returns the oldest entry that was not returned yet. Of two of one time that of the lower bucket
// is first; entries of one bucket stay in their order.
func (m *logMerge) next(ctx context.Context) (loggedEntry, bool) {
	for m.hungry && ctx.Err() == nil {
		m.fill(ctx)
	}
	var first *bucketLog
	for _, l := range m.logs {
		if len(l.entries) > 0 && (first == nil || l.ms < first.ms || l.ms == first.ms && l.n < first.n) {
			first = l
		}
	}
	if first == nil || ctx.Err() != nil {
		return loggedEntry{}, false
	}
	e := loggedEntry{first.entries[0], first.bucket}
	first.take(first.entries[1:])
	m.hungry = len(first.entries) == 0 && !first.ended
	return e, true
}

// take makes entries those that are left.
func (l *bucketLog) take(entries []rediskeys.LoggedEntry) {
	if l.entries = entries; len(entries) > 0 {
		ms, n, _ := strings.Cut(entries[0].ID, "-")
		l.ms, _ = strconv.ParseUint(ms, 10, 64)
		l.n, _ = strconv.ParseUint(n, 10, 64)
	}
}

// fill reads the next page of each log of which all was taken.
func (m *logMerge) fill(ctx context.Context) {
	m.hungry = false
	var empty []*bucketLog
	var reads []rediskeys.LogRead
	for _, l := range m.logs {
		if len(l.entries) == 0 && !l.ended {
			empty = append(empty, l)
			reads = append(reads, rediskeys.LogRead{Bucket: l.bucket, After: l.after, From: l.from, Count: logPage})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	for i, page := range m.store.log(ctx, reads) {
		l := empty[i]
		l.ended = page.Err != nil || !page.More
		if n := len(page.Entries); n > 0 {
			l.after = page.Entries[n-1].ID
		}
		if page.Err != nil {
			if m.failed++; m.failed == 1 {
				m.why = &rotation.Error{Kind: keystore.ErrUnavailable, Err: page.Err}
			}
		}
		l.take(page.Entries)
		m.hungry = m.hungry || len(l.entries) == 0 && !l.ended
	}
}
