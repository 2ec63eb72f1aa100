package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A replaceJSON is what "keys replace --json" prints.
type replaceJSON struct {
	Before    *string            `json:"before"` // null without --all-tenants
	Rings     int                `json:"rings"`
	Replaced  int                `json:"replaced"`
	Left      int                `json:"left"`
	From      *string            `json:"from"`
	Tenants   []replacedRingJSON `json:"tenants"`
	Instances []ackJSON          `json:"instances"`
	Undone    bool               `json:"undone"`
	Waited    float64            `json:"waited"` // in seconds
}

// A replacedRingJSON is one ring of a [replaceJSON].
type replacedRingJSON struct {
	Tenant        string   `json:"tenant"`
	Revoked       []string `json:"revoked"`
	Promoted      *string  `json:"promoted"`
	Minted        *string  `json:"minted"`
	Left          []string `json:"left"`
	From          *string  `json:"from"`
	NoSignerUntil *string  `json:"no_signer_until"`
	WorstCase     *string  `json:"worst_case"`
	ReadersUntil  *string  `json:"readers_until"`
	Error         *string  `json:"error"`
}

// rings returns all rings that exist.
func (r *replacing) rings() (all []*replacedRing) {
	for _, bucket := range r.buckets {
		for _, one := range bucket {
			if !one.none {
				all = append(all, one)
			}
		}
	}
	slices.SortFunc(all, func(a, b *replacedRing) int { return strings.Compare(a.tenant, b.tenant) })
	return all
}

// left reports whether a leaked key may not be revoked yet.
func (one *replacedRing) isLeft() bool { return !one.done || one.err != nil }

// sum returns how many rings have a leaked key left, and when the first next step may be made.
func (r *replacing) sum() (left int, from time.Time) {
	for _, one := range r.rings() {
		if one.isLeft() {
			left++
		}
		if !one.done && (from.IsZero() || one.from.Before(from)) {
			from = one.from
		}
	}
	return left, from
}

func (r *replacing) object() string {
	left, from := r.sum()
	o := replaceJSON{Rings: len(r.rings()), Replaced: len(r.rings()) - left, Left: left, From: when(from), Tenants: []replacedRingJSON{},
		Instances: acksJSON(r.roster()), Undone: r.seen.undone, Waited: r.seen.waited.Round(time.Millisecond).Seconds()}
	if r.all {
		o.Before = when(r.before.value)
	}
	for _, one := range r.rings() {
		shown := replacedRingJSON{Tenant: one.tenant, Revoked: append([]string{}, one.revoked...), Promoted: orNull(one.promoted), Minted: orNull(one.minted),
			Left: append([]string{}, one.left...), NoSignerUntil: when(one.silent), WorstCase: when(one.worst), ReadersUntil: when(one.readers)}
		if !one.done {
			shown.From = when(one.from)
		}
		if one.err != nil {
			shown.Error = orNull(one.err.Error())
		}
		o.Tenants = append(o.Tenants, shown)
	}
	return toJSON(o)
}

func (r *replacing) roster() []ackSeen {
	return slices.SortedFunc(maps.Values(r.instances), func(a, b ackSeen) int { return strings.Compare(a.Instance, b.Instance) })
}

// text is for people.
func (r *replacing) text() string {
	var b strings.Builder
	left, _ := r.sum()
	if r.all {
		fmt.Fprintf(&b, "rings: %d of %d have no key any more that was made before %s\n", len(r.rings())-left, len(r.rings()), stampNano(r.before.value))
	}
	for _, one := range r.rings() {
		b.WriteString(one.text(r.app.now(), r.all))
	}
	if roster := r.roster(); len(roster) > 0 && !r.waits.noWait && r.changedAny() {
		applied := slices.DeleteFunc(slices.Clone(roster), func(a ackSeen) bool { return !a.Applied })
		b.WriteString(appliedBy(len(applied), len(roster)) + "\n")
	}
	return b.String()
}

// text reports on a ring. Of many rings, those that are done are only counted.
func (one *replacedRing) text(now time.Time, many bool) string {
	var b strings.Builder
	line := func(format string, args ...any) {
		fmt.Fprintf(&b, "tenant %s: %s\n", quoteShort(one.tenant), fmt.Sprintf(format, args...))
	}
	if one.promoted != "" && !many {
		line("key %q signs", one.promoted)
	}
	if len(one.revoked) > 0 && !many {
		line("revoked: %s", printable(strings.Join(one.revoked, " "), false))
	}
	if !one.silent.IsZero() {
		line("NO SIGNER until %s, %s", one.silent.UTC().Format(milliseconds), since(one.silent.Add(time.Second-1), now))
	}
	if !one.worst.IsZero() && !many {
		line("an instance that is cut off may accept a revoked key until %s", stamp(one.worst))
	}
	if !one.readers.IsZero() && !many {
		line("readers of the JWK Set may accept it until %s", stamp(one.readers))
	}
	if one.isLeft() && len(one.left) > 0 {
		line("NOT revoked yet: %s", printable(strings.Join(one.left, " "), false))
	}
	if one.err != nil && many {
		line("%s", one.err)
	}
	if one.done && one.err == nil && one.last.CommittedAt.IsZero() && !many {
		line("nothing to do: it was revoked already")
	}
	return b.String()
}

// outcome returns the exit code and its text.
func (r *replacing) outcome() error {
	for _, one := range r.rings() {
		if one.err != nil {
			return one.err
		}
	}
	left, from := r.sum()
	if left == 0 {
		r.seen.acks = r.roster()
		if r.waits.noWait || !r.changedAny() {
			return nil
		}
		return (&watcher{keysCommand: r.keysCommand, limit: r.seen.waited}).outcome(&r.seen)
	}
	again := "repeat the command"
	if r.all {
		again += " with --before " + stampNano(r.before.value)
	}
	if from.After(r.app.now()) {
		again += fmt.Sprintf(" from %s on (%s)", from.UTC().Format(milliseconds), since(from.Add(time.Second-1), r.app.now()))
	}
	return exitf(exitNo, "%s with a leaked key that is not revoked yet: %s", countRings(left), again)
}

// changedAny reports whether the command has changed a ring.
func (r *replacing) changedAny() bool {
	return slices.ContainsFunc(r.rings(), func(one *replacedRing) bool { return !one.last.CommittedAt.IsZero() })
}

// tell shows on stderr how far the command is.
func (r *replacing) tell(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	total := 0
	for _, bucket := range r.buckets {
		total += len(bucket)
	}
	ended := make(chan struct{})
	p := &progress{out: r.stderr, terminal: isTerminal(r.stderr)}
	go func() {
		defer close(ended)
		p.run(ctx, func() string {
			r.mu.Lock()
			defer r.mu.Unlock()
			text := fmt.Sprintf("%d of %s done; Ctrl-C ends it, and a repeated command goes on", r.ready, countRings(total))
			if left := r.until.Sub(r.app.now()).Round(time.Second); left > 0 {
				text += fmt.Sprintf("; until instances know the new key: %v", left)
			}
			return text
		})
	}()
	return func() { cancel(); <-ended }
}

// A foreseenJSON is what a way of replacing comes to.
type foreseenJSON struct {
	SignsFrom     *string `json:"signs_from"`
	RevokedAt     *string `json:"revoked_at"`
	NoSignerUntil *string `json:"no_signer_until"`
	WorstCase     *string `json:"worst_case"`
	ReadersUntil  *string `json:"readers_until"`
	Error         *string `json:"error"`
}

// A foreseenRingJSON is a ring of a [foreseenAllJSON].
type foreseenRingJSON struct {
	Tenant string        `json:"tenant"`
	Left   []string      `json:"left"`
	Next   *string       `json:"next"`
	Safe   *foreseenJSON `json:"safe"`
	Now    *foreseenJSON `json:"now"`
	Live   []string      `json:"live"`
	Error  *string       `json:"error"`

	ways [2]ring.Replacement
}

// A foreseenAllJSON is what "keys replace --dry-run --json" prints.
type foreseenAllJSON struct {
	DryRun  bool               `json:"dry_run"`
	Before  *string            `json:"before"`
	Rings   int                `json:"rings"`
	Tenants []foreseenRingJSON `json:"tenants"`
}

// foresee prints what the replacement would cost, with --now and without.
func (r *replacing) foresee(ctx context.Context) error {
	all := foreseenAllJSON{DryRun: true, Tenants: []foreseenRingJSON{}}
	if r.all {
		all.Before = when(r.before.value)
	}
	var failed error
	for _, rings := range r.buckets {
		var tenants []string
		for _, one := range rings {
			tenants = append(tenants, one.tenant)
		}
		k, err := r.session.open(ctx, tenants...)
		if err != nil {
			return err
		}
		rotator, err := rotation.NewRotator(k)
		if err != nil {
			return ringError(err)
		}
		b := &replacedBucket{replacing: r, keyring: k, rotator: rotator}
		for _, one := range rings {
			shown, err := b.foresee(ctx, one)
			if one.none {
				continue
			}
			if err != nil && failed == nil {
				failed = err
			}
			all.Tenants = append(all.Tenants, shown)
		}
		k.Close(context.WithoutCancel(ctx))
	}
	all.Rings = len(all.Tenants)
	if !r.all && failed != nil {
		return failed
	}
	text := all.text(r)
	if r.json {
		text = toJSON(all)
	}
	r.printed = true
	if err := r.print(text); err != nil {
		return err
	}
	return failed
}

// foresee returns the outlook of a ring.
func (b *replacedBucket) foresee(ctx context.Context, one *replacedRing) (f foreseenRingJSON, err error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	f = foreseenRingJSON{Tenant: one.tenant, Left: []string{}, Live: []string{}}
	fail := func(err error) (foreseenRingJSON, error) {
		text := err.Error()
		f.Error = &text
		return f, err
	}
	if err := b.read(one); err != nil || one.none {
		if err != nil {
			return fail(err)
		}
		return f, nil
	}
	status, err := ringOf(b.keyring, one.tenant)
	if err != nil {
		return fail(err)
	}
	live, err := b.liveIn(ctx, b.rotator, one.tenant, newestTiming(status.Ring))
	if err != nil {
		return fail(err)
	}
	f.Live = namesOf(live)
	for i, opts := range [][]rotation.Option{{rotation.DryRun}, {rotation.DryRun, rotation.Force}} {
		o, _, err := b.rotator.Replace(ctx, one.tenant, one.kids, opts...)
		shown := &foreseenJSON{SignsFrom: when(o.SignsFrom), RevokedAt: when(o.RevokedAt), NoSignerUntil: when(o.NoSignerUntil), WorstCase: when(o.WorstCase), ReadersUntil: when(o.ReadersUntil)}
		if err != nil {
			err = b.replaceError(one, err)
			if len(o.Left) == 0 {
				return fail(err)
			}
			text := err.Error()
			shown.Error = &text
		}
		if f.ways[i] = o; i == 0 {
			f.Safe, f.Left, f.Next = shown, append(f.Left, o.Left...), orNull(string(o.Next))
		} else {
			f.Now = shown
		}
	}
	return f, nil
}

// text is for people. Of many rings it says what the costliest comes to.
func (all *foreseenAllJSON) text(r *replacing) string {
	var b strings.Builder
	b.WriteString("dry run: nothing is changed\n")
	if r.all {
		fmt.Fprintf(&b, "%s with keys that were made before %s\n", countRings(all.left()), stampNano(r.before.value))
	}
	for _, f := range all.Tenants {
		switch {
		case f.Error != nil:
			fmt.Fprintf(&b, "tenant %s: %s\n", quoteShort(f.Tenant), *f.Error)
		case len(f.Left) == 0 && !r.all:
			fmt.Fprintf(&b, "tenant %s: nothing to do: it was revoked already\n", quoteShort(f.Tenant))
		case len(f.Left) > 0 && !r.all:
			fmt.Fprintf(&b, "tenant %s: to be replaced: %s; %s would have to hear of it\n", quoteShort(f.Tenant), printable(strings.Join(f.Left, " "), false), instances(len(f.Live)))
		}
	}
	for i, name := range []string{"without --now", "with --now"} {
		all.way(&b, i, name, r.app.now())
	}
	return b.String()
}

// left returns how many rings have a leaked key.
func (all *foreseenAllJSON) left() (n int) {
	for _, f := range all.Tenants {
		n += min(1, len(f.Left))
	}
	return n
}

// way writes what one way comes to: the latest time of all rings.
func (all *foreseenAllJSON) way(b *strings.Builder, i int, name string, now time.Time) {
	var o ring.Replacement
	silent, refused := 0, 0
	for _, f := range all.Tenants {
		w := f.ways[i]
		o.SignsFrom, o.RevokedAt, o.NoSignerUntil = later(o.SignsFrom, w.SignsFrom), later(o.RevokedAt, w.RevokedAt), later(o.NoSignerUntil, w.NoSignerUntil)
		o.WorstCase, o.ReadersUntil = later(o.WorstCase, w.WorstCase), later(o.ReadersUntil, w.ReadersUntil)
		if !w.NoSignerUntil.IsZero() {
			silent++
		}
		if way := []*foreseenJSON{f.Safe, f.Now}[i]; way != nil && way.Error != nil {
			refused++
			fmt.Fprintf(b, "%s: tenant %s: %s\n", name, quoteShort(f.Tenant), *way.Error)
		}
	}
	if o.RevokedAt.IsZero() {
		return
	}
	fmt.Fprintf(b, "%s:\n", name)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	if !o.SignsFrom.IsZero() {
		line("signs", "another key, %s (%s)", since(o.SignsFrom, now), stamp(o.SignsFrom))
	}
	line("revoked", "%s (%s), and its tokens rejected from then on", since(o.RevokedAt, now), stamp(o.RevokedAt))
	line("worst case", "an instance that is cut off accepts them until %s", stamp(o.WorstCase))
	if !o.ReadersUntil.IsZero() {
		line("readers", "of the JWK Set accept them until %s", stamp(o.ReadersUntil))
	}
	switch {
	case silent == 0:
		line("signer", "at every moment")
	case len(all.Tenants) > 1:
		line("NO SIGNER", "in %s, until %s at the latest", countRings(silent), stamp(o.NoSignerUntil))
	default:
		line("NO SIGNER", "until %s, %s", o.NoSignerUntil.UTC().Format(milliseconds), since(o.NoSignerUntil.Add(time.Second-1), now))
	}
}
