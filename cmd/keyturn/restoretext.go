package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/backup"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A restoredJSON is one ring in the answer of "keys restore --json".
type restoredJSON struct {
	Tenant   string   `json:"tenant"`
	Taken    *string  `json:"taken_at"`
	PutBack  []string `json:"put_back"`
	Better   []string `json:"better"`
	Left     []string `json:"left"`
	EndsOnly bool     `json:"ends_only"`
	Error    *string  `json:"error"`
}

// add says what was done with one ring. Its error ends the run.
func (r *restoring) add(ctx context.Context, e backup.Entry, report ring.Restored, err error) error {
	r.done.Add(1)
	failure := ""
	if err != nil {
		f := new(exitError)
		if !errors.As(err, &f) {
			errors.As(ringError(err), &f)
		}
		failure = strings.ReplaceAll(f.text, "\n", " ")
		if errors.Is(err, rotation.ErrRefused) {
			return f // the next ring would be refused too
		}
		if r.failed++; r.failed == 1 {
			r.failure = failure
		}
	}
	if len(report.PutBack) > 0 {
		r.restored++
	}
	if report.EndsOnly && len(report.Left) > 0 {
		r.tooOld++
	}
	if failure != "" || len(report.PutBack)+len(report.Better)+len(report.Left) > 0 {
		r.write(e, report, failure)
	}
	if ctx.Err() != nil {
		return exitf(exitCannotTell, "interrupted after %d of %s: repeat it for the others", r.done.Load(), countRings(r.file.wanted))
	}
	return nil
}

func (r *restoring) write(e backup.Entry, report ring.Restored, failure string) {
	r.shown++
	if !r.json {
		r.out.WriteString(restoredLine(e.Tenant, report, failure, r.dryRun))
		return
	}
	if r.shown > 1 {
		r.out.WriteString(",")
	}
	r.out.WriteString(strings.TrimSuffix(toJSON(restoredJSON{Tenant: e.Tenant, Taken: when(e.Ring.Now), PutBack: append([]string{}, report.PutBack...),
		Better: append([]string{}, report.Better...), Left: append([]string{}, report.Left...), EndsOnly: report.EndsOnly, Error: orNull(failure)}), "\n"))
}

// restoredLine is for people.
func restoredLine(tenant string, report ring.Restored, failure string, dryRun bool) string {
	var parts []string
	if failure != "" {
		parts = append(parts, "FAILED: "+failure)
	}
	if words := putBackWords(report.PutBack); words != "" && dryRun {
		parts = append(parts, "would put back "+words)
	} else if words != "" {
		parts = append(parts, "put back "+words)
	}
	for _, field := range report.Better {
		parts = append(parts, betterWords(field))
	}
	if n := len(report.Left); n > 0 && report.EndsOnly {
		parts = append(parts, fmt.Sprintf("left out %s: the backup is too old (--older)", countKeys(n)))
	} else if n > 0 && !slices.Contains(report.Better, "dead") {
		parts = append(parts, fmt.Sprintf("left out %s whose time is over", countKeys(n)))
	}
	return printable(fmt.Sprintf("%-24s  %s", tenant, strings.Join(parts, "; ")), false) + "\n"
}

// putBackWords names fields that were put back, or is "".
func putBackWords(fields []string) string {
	counts := make(map[string]int)
	for _, field := range fields {
		kind, _, _ := strings.Cut(field, ":")
		counts[kind]++
	}
	var words []string
	for _, kind := range []struct{ prefix, one, more string }{
		{"k", "one key", "%d keys"}, {"v", "one accepted key", "%d accepted keys"}, {"x", "one revocation", "%d revocations"},
		{"dead", "that it was destroyed", ""}, {"gone", "that keys were collected", ""},
	} {
		switch n := counts[kind.prefix]; {
		case n == 1:
			words = append(words, kind.one)
		case n > 1:
			words = append(words, fmt.Sprintf(kind.more, n))
		}
	}
	if len(words) == 0 && len(fields) > 0 {
		return "a part"
	}
	return strings.Join(words, ", ")
}

// betterWords says what a field of Redis ends, which the backup lacks.
func betterWords(field string) string {
	kid, isRevoked := strings.CutPrefix(field, "x:")
	switch {
	case isRevoked:
		return quoteKID(kid) + " stays revoked"
	case field == "dead":
		return "it stays destroyed"
	}
	return "keys that were collected stay so"
}

func countKeys(n int) string {
	if n == 1 {
		return "one key"
	}
	return fmt.Sprintf("%d keys", n)
}

// end prints what is to be said of all rings together.
func (r *restoring) end() {
	if r.json {
		var first *string
		if !r.file.first.IsZero() {
			first = when(r.file.first)
		}
		rest := toJSON(struct {
			Taken    *string      `json:"taken_at"`
			Rings    int64        `json:"rings"`
			Restored int          `json:"restored"`
			Missed   []missedRing `json:"missed"`
			Failed   int          `json:"failed"`
		}{first, r.done.Load(), r.restored, append([]missedRing{}, r.file.missed...), r.failed})
		r.out.WriteString("]," + strings.TrimPrefix(rest, "{"))
		return
	}
	for _, m := range r.file.missed {
		r.out.WriteString(printable(fmt.Sprintf("%-24s  the backup lacks its ring: %s", m.Tenant, m.Error), false) + "\n")
	}
	if r.file.wanted == 0 {
		r.out.WriteString("the backup has no rings\n")
		return
	}
	did := "restored"
	if r.dryRun {
		did = "would be restored"
	}
	if r.shown > 0 {
		r.out.WriteString("\n")
	}
	fmt.Fprintf(r.out, "%d of %s %s; Redis had all of the others\n", r.restored, countRings(int(r.done.Load())), did)
	fmt.Fprintf(r.out, "revocations after %s (%s) are not in the backup: revoke such keys again, and shred tenants that were shredded since\n", stamp(r.file.first), since(r.file.first, r.now()))
}

// outcome returns the exit code and its text. err is what has ended the run, or nil.
func (r *restoring) outcome(err error) error {
	switch {
	case err != nil:
		return err
	case r.failed > 0:
		return exitf(exitCannotTell, "%s of %d could not be restored; the first: %s", countRings(r.failed), r.file.wanted, r.failure)
	case r.tooOld > 0:
		return exitf(exitNo, "the backup is %s old: of %s only revocations, collections and destructions were taken; --older takes keys too",
			strings.TrimSuffix(since(r.file.first, r.now()), " ago"), countRings(r.tooOld))
	}
	return nil
}
