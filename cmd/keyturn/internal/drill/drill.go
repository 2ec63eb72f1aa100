// Package drill judges what a drill on a canary ring measured, against the bounds that docs/rotation.md
// states. Each judgement is a pure function of the observations: nothing here asks Redis or reads a clock.
// Its [Link] is what a drill cuts to play an outage.
package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Result says how a measurement stands to its bound.
type Result string

// The results.
const (
	OK       Result = "ok"
	Exceeded Result = "exceeded" // a documented bound does not hold, or a token got the wrong answer
	Unknown  Result = "unknown"  // it cannot be told; Do says how it can
	Info     Result = "info"     // nothing is promised about it
)

// A Line is one measurement of a drill.
type Line struct {
	Step     string   `json:"step"`
	Instance *string  `json:"instance"` // null if it is not about one instance
	Took     *float64 `json:"took"`     // seconds; null if it has not happened, or took no time
	Bound    *float64 `json:"bound"`    // seconds; null without one
	Result   Result   `json:"result"`
	Found    string   `json:"found"`
	Do       *string  `json:"do"` // null if there is nothing to do
}

// Times are the bounds of a drill.
type Times struct {
	Within    time.Duration // in which a change reaches an instance by pub/sub, and its word comes back
	Polls     time.Duration // without pub/sub: one poll finds it, and the next one says so
	Gap       time.Duration // the longest time between two polls of an instance that holds the canary
	Freshness time.Duration // in which a ring that was removed without a log entry is missed
}

// A Heard is what one live instance said about a change.
type Heard struct {
	Instance string
	Applied  bool          // it has said that it applied the change
	Took     time.Duration // until it was seen to have said so
	Holds    bool          // it holds the ring; else it only heard of the change
	Unread   bool          // its KEK is not one of this command's, so it cannot be read
	Own      bool          // it is the drill's own instance
}

// A Change is a change that the drill made, and what the live instances said about it.
type Change struct {
	Step      string
	Heard     []Heard
	Listeners int           // clients that hear a message of pub/sub; -1 if that is not known
	Waited    time.Duration // for those that have not applied it
}

// JudgeChange says which instances heard of a change in time. If all of those that are not the drill's
// own needed a poll, pub/sub is at fault, and not each of them.
func (t Times) JudgeChange(c Change) []Line {
	var lines []Line
	late, inTime := 0, 0
	for _, h := range c.Heard {
		line := t.judgeHeard(c, h)
		switch {
		case h.Own:
		case line.Result == OK:
			inTime++
		case h.Applied:
			late++
		}
		lines = append(lines, line)
	}
	if late > 0 && inTime == 0 {
		lines = append(lines, t.deaf(c, late))
	}
	return lines
}

// deaf says that no instance hears messages of pub/sub.
func (t Times) deaf(c Change, late int) Line {
	line := newLine(c.Step+": pub/sub", Exceeded, fmt.Sprintf("none of the %s that applied it heard of it by pub/sub: they found it with a poll, and a revocation takes as long", instances(late)))
	switch {
	case c.Listeners == 0:
		line.Found += "; no client listens to the channel"
	case c.Listeners > 0:
		line.Found += fmt.Sprintf("; %s to the channel", listen(c.Listeners))
	}
	return line.do(`see that the user of Redis may SUBSCRIBE to kt:* ("keyturn doctor", rights), and the instances' logs for "cannot be listened to"`)
}

func (t Times) judgeHeard(c Change, h Heard) Line {
	line := newLine(c.Step, OK, "applied")
	line.Instance, line.Bound = &h.Instance, seconds(t.Within)
	if h.Applied {
		line.Took = seconds(h.Took)
	}
	if h.Applied && !h.Holds {
		line.Found = "heard of it, and does not hold the canary (its tenants are listed)"
	}
	switch {
	case h.Unread:
		line.Result, line.Found = Unknown, "has another KEK first, so what it says cannot be read"
		return line.do("give this command the KEK file of the service")
	case !h.Applied && c.Waited < t.Polls:
		line.Result, line.Found = Unknown, fmt.Sprintf("not applied, and the wait ended after %v", round(c.Waited))
		return line.do("run the drill again, to its end")
	case !h.Applied:
		line.Result, line.Bound = Exceeded, seconds(t.Polls)
		line.Found = fmt.Sprintf("has NOT applied it after %v, in which it polls twice", round(c.Waited))
		return line.do("look at its log and its /readyz; if it has ended, repeat the drill in a minute")
	case h.Took > t.Polls:
		line.Result, line.Bound = Exceeded, seconds(t.Polls)
		line.Found = "applied it later than its second poll"
		return line.do("look at its log, its processor and its link to Redis")
	case h.Took > t.Within:
		line.Result = Exceeded
		line.Found += ", slowly: it did not hear of it by pub/sub, or its link or its processor is slow"
		return line.do(`look at its log for "cannot be listened to", and measure its link to Redis`)
	}
	return line
}

// A Check is something that has to happen, once, within a bound.
type Check struct {
	Step     string
	Found    string        // in words, if it happened
	Missing  string        // in words, if it did not
	Happened bool          // within Took
	Took     time.Duration // until it happened, or until the drill gave up
	Bound    time.Duration // 0: it has to be so at once, and no time is measured
	Cut      bool          // the drill was ended before the bound
	Do       string        // if it did not happen, or too late
}

// JudgeCheck says whether something happened within its bound.
func JudgeCheck(c Check) Line {
	line := newLine(c.Step, OK, c.Found)
	if c.Bound > 0 {
		line.Took, line.Bound = seconds(c.Took), seconds(c.Bound)
	}
	switch {
	case c.Happened && (c.Bound == 0 || c.Took <= c.Bound):
		return line
	case c.Happened:
		line.Result, line.Found = Exceeded, c.Found+", too late"
	case c.Cut:
		line.Result, line.Found, line.Took = Unknown, c.Missing+" before the drill was ended", nil
		return line.do("run the drill again, to its end")
	default:
		line.Result, line.Found, line.Took = Exceeded, c.Missing, nil
	}
	return line.do(c.Do)
}

// An Outage is what the drill's own instance did while its link was cut.
type Outage struct {
	Lasted         time.Duration
	Signed, Failed int // tokens that it signed, and that it could not sign
	Verified       int
	Refused        int    // good tokens that it refused, or could not tell of
	Why            string // of the first failure
	Heard          bool   // it heard of a change meanwhile, so its link was not cut
}

// JudgeOutage says whether an instance without Redis went on: within SignFor it signs, and it verifies
// what it knows.
func JudgeOutage(o Outage) []Line {
	sign := newLine("signed while away", OK, fmt.Sprintf("%s in %v, and none failed", count(o.Signed, "token"), round(o.Lasted)))
	if o.Failed > 0 {
		sign.Result, sign.Found = Exceeded, fmt.Sprintf("%d of %d tokens could not be signed: %s", o.Failed, o.Failed+o.Signed, o.Why)
		sign = sign.do(`docs/operations.md, "It does not sign"`)
	}
	verify := newLine("verified while away", OK, fmt.Sprintf("%s, and none was refused", count(o.Verified, "token")))
	if o.Refused > 0 {
		verify.Result, verify.Found = Exceeded, fmt.Sprintf("%d of %d good tokens were refused: %s", o.Refused, o.Refused+o.Verified, o.Why)
		verify = verify.do(`docs/operations.md, "It cannot verify: 503"`)
	}
	if o.Signed+o.Failed == 0 || o.Verified+o.Refused == 0 {
		for _, line := range []*Line{&sign, &verify} {
			line.Result, line.Found = Unknown, "the drill was ended before a token was tried"
			*line = line.do("run the drill again, to its end")
		}
	}
	if o.Heard {
		for _, line := range []*Line{&sign, &verify} {
			line.Result, line.Found = Unknown, "the instance heard of a change meanwhile, so its link was not cut"
			*line = line.do("report it: the drill does not fit this Redis")
		}
	}
	return []Line{sign, verify}
}

// JudgeFleet says which instances live, and which of them do not hold the canary. Without one that
// does, nothing was measured but the drill's own instance. unread counts the buckets of the store that may
// have more of the others.
func JudgeFleet(holds, others []string, unread int, needed bool) []Line {
	var lines []Line
	if unread > 0 {
		lines = append(lines, newLine("instances", Unknown, fmt.Sprintf("%s of the store could not be read in time: an instance that lives there alone is not named", count(unread, "bucket"))).
			do("run it again when Redis answers faster"))
	}
	for _, name := range others {
		line := newLine("instances", Info, "lives, and does not hold the canary: its tenants are listed, so it is not measured")
		line.Instance = &name
		lines = append(lines, line)
	}
	if len(holds) == 0 && needed {
		lines = append(lines, newLine("instances", Unknown, "no live instance holds the canary: only the drill's own was measured").
			do("run it beside a service that holds all tenants (it has no Config.Tenants), or name the canary among its tenants"))
	}
	return lines
}

// Exit returns the exit code of a drill with these lines: 1 if a bound was exceeded, else 3 if
// something cannot be told, else 0.
func Exit(lines []Line) int {
	switch has := func(r Result) bool {
		return slices.ContainsFunc(lines, func(l Line) bool { return l.Result == r })
	}; {
	case has(Exceeded):
		return 1
	case has(Unknown):
		return 3
	}
	return 0
}

// Sum returns the result of a drill as a whole.
func Sum(lines []Line) Result {
	return map[int]Result{0: OK, 1: Exceeded, 3: Unknown}[Exit(lines)]
}

// Note returns a line about which nothing is promised.
func Note(step, format string, args ...any) Line {
	return newLine(step, Info, fmt.Sprintf(format, args...))
}

func newLine(step string, r Result, found string) Line {
	return Line{Step: step, Result: r, Found: found}
}

// do returns l with what to do.
func (l Line) do(text string) Line {
	if text = strings.TrimSpace(text); text != "" {
		l.Do = &text
	}
	return l
}

func seconds(d time.Duration) *float64 {
	s := d.Round(time.Millisecond).Seconds()
	return &s
}

func round(d time.Duration) time.Duration {
	if d >= 10*time.Second {
		return d.Round(time.Second)
	}
	return d.Round(10 * time.Millisecond)
}

func instances(n int) string { return count(n, "instance") }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func listen(n int) string {
	if n == 1 {
		return "1 client listens"
	}
	return fmt.Sprintf("%d clients listen", n)
}
