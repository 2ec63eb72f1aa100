package drill

import (
	"strings"
	"testing"
	"time"
)

const s, ms = time.Second, time.Millisecond

var times = Times{Within: s, Polls: 40 * s, Gap: 20 * s, Freshness: time.Minute}

// check compares lines with those that are wanted, each as "result step instance".
func check(t *testing.T, lines []Line, want ...string) {
	t.Helper()
	var got []string
	for _, l := range lines {
		name := ""
		if l.Instance != nil {
			name = " " + *l.Instance
		}
		got = append(got, string(l.Result)+" "+l.Step+name)
		if (l.Result == Exceeded || l.Result == Unknown) && l.Do == nil {
			t.Errorf("%s does not say what to do", got[len(got)-1])
		}
		if l.Found == "" {
			t.Errorf("%s says nothing", got[len(got)-1])
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("lines:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestJudgeChange(t *testing.T) {
	in := func(name string, took time.Duration) Heard {
		return Heard{Instance: name, Applied: true, Holds: true, Took: took}
	}
	own := in("own", 5*ms)
	own.Own = true
	lateOwn := own
	lateOwn.Took = 2 * s
	unread := Heard{Instance: "a", Unread: true}
	missing := Heard{Instance: "a"}
	for name, tt := range map[string]struct {
		heard  []Heard
		waited time.Duration
		want   []string
	}{
		"in time":                        {[]Heard{in("a", 0), in("b", s), own}, s, []string{"ok c a", "ok c b", "ok c own"}},
		"one is slow":                    {[]Heard{in("a", s+1), in("b", 5*ms), own}, 2 * s, []string{"exceeded c a", "ok c b", "ok c own"}},
		"pub/sub is lost":                {[]Heard{in("a", 20*s), in("b", 7*s), own}, 20 * s, []string{"exceeded c a", "exceeded c b", "ok c own", "exceeded c: pub/sub"}},
		"the only one is slow":           {[]Heard{in("a", 2*s)}, 2 * s, []string{"exceeded c a", "exceeded c: pub/sub"}},
		"later than two polls":           {[]Heard{in("a", 41*s), in("b", 0)}, 41 * s, []string{"exceeded c a", "ok c b"}},
		"our own is late":                {[]Heard{in("a", 0), lateOwn}, 2 * s, []string{"ok c a", "exceeded c own"}},
		"our own is late, and alone":     {[]Heard{lateOwn}, 2 * s, []string{"exceeded c own"}},
		"one is missing":                 {[]Heard{missing, in("b", 0)}, 40 * s, []string{"exceeded c a", "ok c b"}},
		"missing, but the wait was cut":  {[]Heard{missing, in("b", 0)}, 40*s - 1, []string{"unknown c a", "ok c b"}},
		"missing is not late":            {[]Heard{missing, own}, 40 * s, []string{"exceeded c a", "ok c own"}},
		"another KEK":                    {[]Heard{unread}, 40 * s, []string{"unknown c a"}},
		"another KEK hides no lost push": {[]Heard{unread, in("b", 9*s)}, 40 * s, []string{"unknown c a", "exceeded c b", "exceeded c: pub/sub"}},
		"no instance":                    {nil, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, times.JudgeChange(Change{Step: "c", Heard: tt.heard, Listeners: -1, Waited: tt.waited}), tt.want...)
		})
	}
}

func TestJudgeChangeWords(t *testing.T) {
	late := Heard{Instance: "a", Applied: true, Took: 3 * s}
	for listeners, want := range map[int]string{-1: "", 0: "no client listens", 1: "1 client listens", 2: "2 clients listen"} {
		lines := times.JudgeChange(Change{Step: "c", Heard: []Heard{late}, Listeners: listeners})
		if found := lines[1].Found; !strings.Contains(found, want) || strings.Contains(found, "listen") != (want != "") {
			t.Errorf("%d listeners: %s", listeners, found)
		}
		if !strings.Contains(lines[0].Found, "does not hold the canary") || *lines[0].Took != 3 || *lines[0].Bound != 1 {
			t.Errorf("%+v", lines[0])
		}
	}
	l := times.JudgeChange(Change{Step: "c", Heard: []Heard{{Instance: "a"}}, Waited: 41 * s})[0]
	if l.Took != nil || *l.Bound != 40 || !strings.Contains(l.Found, "41s") {
		t.Errorf("a missing one: %+v", l)
	}
}

func TestJudgeCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		check Check
		want  Result
		took  bool
	}{
		"in time":            {Check{Happened: true, Took: s, Bound: s}, OK, true},
		"too late":           {Check{Happened: true, Took: s + 1, Bound: s}, Exceeded, true},
		"not at all":         {Check{Took: 2 * s, Bound: s}, Exceeded, false},
		"ended before":       {Check{Took: ms, Bound: s, Cut: true}, Unknown, false},
		"happened, and cut":  {Check{Happened: true, Took: ms, Bound: s, Cut: true}, OK, true},
		"at once":            {Check{Happened: true, Took: time.Hour}, OK, false},
		"not at once":        {Check{}, Exceeded, false},
		"not at once, ended": {Check{Cut: true}, Unknown, false},
	} {
		c := tt.check
		c.Step, c.Found, c.Missing, c.Do = "c", "yes", "no", "look"
		l := JudgeCheck(c)
		if l.Result != tt.want || (l.Took != nil) != tt.took || (l.Bound != nil) != (c.Bound > 0) {
			t.Errorf("%s: %+v", name, l)
		}
		check(t, []Line{l}, string(tt.want)+" c")
	}
}

func TestJudgeOutage(t *testing.T) {
	const sign, verify = " signed while away", " verified while away"
	for name, tt := range map[string]struct {
		outage       Outage
		sign, verify Result
	}{
		"all went on":         {Outage{Signed: 3, Verified: 6}, OK, OK},
		"one was not signed":  {Outage{Signed: 3, Failed: 1, Verified: 6}, Exceeded, OK},
		"none was signed":     {Outage{Failed: 1, Verified: 6}, Exceeded, OK},
		"one was refused":     {Outage{Signed: 3, Verified: 5, Refused: 1}, OK, Exceeded},
		"it was ended before": {Outage{}, Unknown, Unknown},
		"it was not cut":      {Outage{Signed: 3, Verified: 6, Heard: true}, Unknown, Unknown},
	} {
		t.Run(name, func(t *testing.T) { check(t, JudgeOutage(tt.outage), string(tt.sign)+sign, string(tt.verify)+verify) })
	}
}

func TestJudgeFleet(t *testing.T) {
	check(t, JudgeFleet([]string{"a"}, nil, 0, true))
	check(t, JudgeFleet([]string{"a"}, []string{"x", "y"}, 0, true), "info instances x", "info instances y")
	check(t, JudgeFleet(nil, []string{"x"}, 0, true), "info instances x", "unknown instances")
	check(t, JudgeFleet(nil, nil, 0, false))
	check(t, JudgeFleet([]string{"a"}, []string{"x"}, 2, false), "unknown instances", "info instances x")
}

func TestOneOfAKind(t *testing.T) {
	lines := append(JudgeOutage(Outage{Signed: 1, Verified: 1}), JudgeFleet([]string{"a"}, nil, 1, false)...)
	for i, want := range []string{"1 token in 0s, and none failed", "1 token, and none was refused", "1 bucket of the store could not be read"} {
		if !strings.HasPrefix(lines[i].Found, want) {
			t.Errorf("%q does not begin with %q", lines[i].Found, want)
		}
	}
}

func TestExit(t *testing.T) {
	ok, exceeded, unknown, info := Line{Result: OK}, Line{Result: Exceeded}, Line{Result: Unknown}, Line{Result: Info}
	for _, tt := range []struct {
		lines []Line
		code  int
		sum   Result
	}{
		{nil, 0, OK}, {[]Line{ok, info}, 0, OK}, {[]Line{ok, unknown}, 3, Unknown}, {[]Line{unknown, exceeded, ok}, 1, Exceeded},
	} {
		if code, sum := Exit(tt.lines), Sum(tt.lines); code != tt.code || sum != tt.sum {
			t.Errorf("%v: %d %s, want %d %s", tt.lines, code, sum, tt.code, tt.sum)
		}
	}
}
