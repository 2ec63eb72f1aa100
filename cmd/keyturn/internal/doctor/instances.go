package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// An Instance is a process that has told Redis how far it has read.
type Instance struct {
	Name   string
	At     time.Time // its newest acknowledgement, by its own clock
	Opened bool      // its acknowledgements were read with our KEKs; else only Name and At are known
	InSync bool      // in all buckets that it has acknowledged
	KEKs   []string  // the first one seals; none if this command lacks its first KEK

	Verifies []string // the algorithms of the tokens that it accepts; none means all
}

// instances says which instances live, whether they are in sync, and whether they have our KEK.
func (f *Facts) instances() []Finding {
	const check = "instances"
	var all []Finding
	if f.Forged > 0 {
		all = append(all, found(check, Bad, `docs/operations.md, "Someone writes to Redis"`, "%s not authentic: a person without the KEK writes to this Redis", wereAcks(f.Forged)))
	}
	live := 0
	for i := range f.Instances {
		in := &f.Instances[i]
		if f.Now.Sub(in.At) > f.stale() {
			all = append(all, found(check, Warn, "see that it runs and reaches Redis; if it has ended, it goes from this list after a day",
				"instance %s was last heard of %s ago: it is cut off, or has ended without Close", in.Name, words(f.Now.Sub(in.At))))
			continue
		}
		live++
		if in.Opened {
			all = append(all, f.instance(in)...)
		}
	}
	switch {
	case f.AcksErr != "":
		return append(all, found(check, Unknown, "mend that first; then run doctor again", "not all acknowledgements can be read: %s", f.AcksErr))
	case live == 0:
		return append(all, found(check, Warn, "start the service, or keyturn serve "+f.Flags, "no instance lives: no key is rotated, and what Redis loses is not put back"))
	case !f.HasKEK:
		return append(all, found(check, Unknown, "give --kek-file, or set KEYTURN_KEK_FILE", "%s; without a KEK what they say cannot be read", lives(live)))
	}
	return append(all, found(check, OK, "", "%s", lives(live)))
}

// stale is how old the acknowledgement of a live instance is at most. Policies may differ between
// rings, so it is that of a default policy at least.
func (f *Facts) stale() time.Duration { return max(f.Timing.Freshness, DefaultTiming().Freshness) }

// instance says what is odd about a live instance.
func (f *Facts) instance(in *Instance) (all []Finding) {
	const check = "instances"
	switch {
	case len(in.KEKs) == 0:
		return []Finding{found(check, Warn, "give this command the KEK file of the service", "instance %s has another KEK first, which is not in the file here: what it says cannot be read", in.Name)}
	case f.Primary != "" && in.KEKs[0] != f.Primary:
		all = append(all, found(check, Warn, `finish the change of KEKs: docs/operations.md, "A new KEK"`, "instance %s has KEK %s first, and here it is %s (it has %s)",
			in.Name, in.KEKs[0], f.Primary, strings.Join(in.KEKs, ", ")))
	}
	switch {
	case in.listsNone():
		all = append(all, found(check, OK, "", "the tenants of instance %s list no algorithm in common: no key of another algorithm is made unless it is forced", in.Name))
	case len(in.Verifies) > 0:
		all = append(all, found(check, OK, "", "instance %s accepts tokens of %s alone: no key of another algorithm is made before it lists that too",
			in.Name, strings.Join(in.Verifies, ", ")))
	}
	if !in.InSync {
		all = append(all, found(check, Warn, "wait for a minute, and run doctor again; if it stays, see its log and its /readyz", "instance %s is not in sync: it has just started, or cannot read all that it holds", in.Name))
	}
	return all
}

// listsNone reports whether the tenants of the instance have no algorithm in common.
func (in *Instance) listsNone() bool {
	return len(in.Verifies) == 1 && in.Verifies[0] == string(ring.NoAlgorithm)
}

func lives(n int) string {
	if n == 1 {
		return "1 instance lives"
	}
	return fmt.Sprintf("%d instances live", n)
}

func wereAcks(n int) string {
	if n == 1 {
		return "1 acknowledgement is"
	}
	return fmt.Sprintf("%d acknowledgements are", n)
}
