package protocol

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// firstRead is a first read at 100 s, with W of 5 s. The newest entries of the log are b, c and d.
var firstRead = FirstRead{Self: "self", Ends: [16]byte{1}, Now: sec(100), Run: "run", Place: "d", Late: []string{"b", "c"}, Gap: 5 * time.Second}

// wantVouched checks what each change of an acknowledgement makes of it.
func wantVouched(t *testing.T, good AckView, tests map[string]func(*AckView), want bool) {
	t.Helper()
	for name, edit := range tests {
		a := good
		edit(&a)
		if got := firstRead.Vouched([]AckView{a}); got != want {
			t.Errorf("%s: vouched %v", name, got)
		}
	}
}

func TestVouched(t *testing.T) {
	good := AckView{Instance: "other", At: sec(95.001), GoodSince: sec(90), Ends: firstRead.Ends, Nonce: "a"}
	wantVouched(t, good, map[string]func(*AckView){
		"in sync for long enough, and said so just now": func(*AckView) {},
		"its clock is ahead":                            func(a *AckView) { a.At = sec(104.999) },
		"of this run":                                   func(a *AckView) { a.Run = "run" },
	}, true)
	wantVouched(t, good, map[string]func(*AckView){
		"too long ago":                           func(a *AckView) { a.At = sec(95) },
		"far ahead":                              func(a *AckView) { a.At = sec(105) },
		"in sync for less long":                  func(a *AckView) { a.GoodSince = sec(90.001) },
		"not in sync":                            func(a *AckView) { a.GoodSince = time.Time{} },
		"this instance, before it was restarted": func(a *AckView) { a.Instance = "self" },
		"it knows of other revocations":          func(a *AckView) { a.Ends[15] = 1 },
		"not authentic":                          func(a *AckView) { a.Unreadable = true },
		"of before a failover":                   func(a *AckView) { a.Run = "another" },
	}, false)
	if firstRead.Vouched(nil) {
		t.Error("vouched by no instance")
	}
}

// A run of the store loses nothing: what an instance said in it counts whatever its age, and whether or
// not it still runs.
func TestVouchedByRun(t *testing.T) {
	good := AckView{Instance: "self", At: sec(1), GoodSince: sec(0.5), Ends: firstRead.Ends, Nonce: "b", Run: "run"}
	wantVouched(t, good, map[string]func(*AckView){
		"said long ago, by this instance": func(*AckView) {},
		"up to the newest entry":          func(a *AckView) { a.Nonce = "d" },
	}, true)
	wantVouched(t, good, map[string]func(*AckView){
		"another run":                   func(a *AckView) { a.Run = "another" },
		"it had not been in sync":       func(a *AckView) { a.Run = "" },
		"it is not":                     func(a *AckView) { a.GoodSince = time.Time{} },
		"its place is gone":             func(a *AckView) { a.Nonce = "a" },
		"it knows of other revocations": func(a *AckView) { a.Ends[15] = 1 },
		"not authentic":                 func(a *AckView) { a.Unreadable = true },
	}, false)
	silent := firstRead
	silent.Run = ""
	if good.Run = ""; silent.Vouched([]AckView{good}) {
		t.Error("the store does not tell its run, and it counts as the same")
	}
}

func TestLiveInstancesAgree(t *testing.T) {
	acks := []AckView{
		{Instance: "here", At: sec(91), KEKs: []string{"b", "a"}},
		{Instance: "away", At: sec(89.999), KEKs: []string{"a"}},
		{Instance: "ahead", At: sec(110), KEKs: []string{"b"}},
		{Instance: "far ahead", At: sec(110.001), KEKs: []string{"a"}},
	}
	live := Live(acks, sec(100), 10*time.Second)
	if len(live) != 2 || live[0].Instance != "here" || live[1].Instance != "ahead" || len(acks) != 4 {
		t.Fatalf("live are %+v", live)
	}
	for _, tt := range []struct {
		name, kek string
		more      []AckView
		agree     bool
		lack      []string
	}{
		{"all have it first", "b", nil, true, nil},
		{"none has it first", "a", nil, false, []string{"ahead"}},
		{"one has it, but not first", "b", []AckView{{Instance: "old", KEKs: []string{"a", "b"}}}, false, nil},
		{"one cannot be read", "b", []AckView{{Instance: "strange", Unreadable: true}}, false, []string{"strange"}},
		{"one names none", "b", []AckView{{Instance: "none"}}, false, []string{"none"}},
	} {
		all := slices.Concat(live, tt.more)
		if agree, lack := AgreeOn(tt.kek, all), AllHold(tt.kek, all); agree != tt.agree || !slices.Equal(lack, tt.lack) {
			t.Errorf("%s: agree %v, %q lack it", tt.name, agree, lack)
		}
	}
	if !AgreeOn("b", nil) {
		t.Error("where no instance is live, none disagrees")
	}
}

// A change counts as applied once the copy has what the entry names, and not before.
func TestApplied(t *testing.T) {
	of := func(facts ...factAt) *Copy { return ringOf(facts, key("k1", 1, -100, 0)) }
	for _, tt := range []struct {
		name string
		c    *Copy
		op   ring.Op
		kid  string
		want bool
	}{
		{"no copy", nil, ring.OpRevoke, "k1", false},
		{"minted", of(), ring.OpMint, "k1", true},
		{"not minted yet", of(), ring.OpMint, "k2", false},
		{"created", of(), ring.OpCreate, "k1", true},
		{"promoted", of(factAt{ring.FactPromoted, "k1", 1}), ring.OpPromote, "k1", true},
		{"not promoted yet", of(), ring.OpRotate, "k1", false},
		{"revoked", of(factAt{ring.FactRevoked, "k1", 1}), ring.OpRevoke, "k1", true},
		{"not revoked yet", of(factAt{ring.FactPromoted, "k1", 1}), ring.OpRevoke, "k1", false},
		{"a merge", of(), ring.OpMerge, "k2", true},
		{"a collection", of(), ring.OpCollect, "k2", true},
	} {
		applied, waiting := Applied(tt.c, []Entry{{Op: tt.op, KID: tt.kid, Nonce: "n"}}, true)
		if got := len(applied) == 1 && applied[0].Nonce == "n"; got != tt.want || len(waiting) == len(applied) {
			t.Errorf("%s: applied %v, waiting %v", tt.name, applied, waiting)
		}
		// In a ring that could not be read whole, only a revocation counts.
		if applied, _ := Applied(tt.c, []Entry{{Op: tt.op, KID: tt.kid}}, false); len(applied) == 1 != (tt.want && tt.op == ring.OpRevoke) {
			t.Errorf("%s: applied %v in a ring that is not whole", tt.name, applied)
		}
	}
}

// TestRemember: of more changes than there is room for, the oldest of those that nobody waits for
// leaves first, and a revocation last.
func TestRemember(t *testing.T) {
	const most = 8
	ops := map[byte]ring.Op{'m': ring.OpMint, 'g': ring.OpMerge, 'c': ring.OpCollect, 'p': ring.OpPromote, 'r': ring.OpRotate, 'n': ring.OpCreate, 'k': ring.OpRekey, 'x': ring.OpRevoke}
	for _, tt := range []struct{ in, want string }{
		{"mgcp", "mgcp"},
		{"xmmmmmmmmmmm", "xmmmmmmm"},
		{"xrmmmmmmmmmm", "xrmmmmmm"},
		{"mxrgcpnkxm", "xrcpnkxm"},
		{"rpnkrpnkrx", "nkrpnkrx"},
		{"xxxxxxxxxx", "xxxxxxxx"},
		{"xxxxxxxxmr", "xxxxxxmr"},
		{"xxxxxxxxmrm", "xxxxxxrm"},
	} {
		var kept []Entry
		for i := range tt.in {
			e := Entry{Op: ops[tt.in[i]], Nonce: strconv.Itoa(i)}
			kept = Remember(Remember(kept, e, most), e, most)
		}
		got := ""
		for _, e := range kept {
			i, _ := strconv.Atoi(e.Nonce)
			got += tt.in[i : i+1]
		}
		if got != tt.want {
			t.Errorf("of %s it keeps %s, want %s", tt.in, got, tt.want)
		}
	}
}
