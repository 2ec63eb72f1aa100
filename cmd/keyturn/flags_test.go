package main

import (
	"strings"
	"testing"
	"time"
)

func TestUnixFlag(t *testing.T) {
	for text, want := range map[string]time.Time{
		"0": time.Unix(0, 0), "1800000000": time.Unix(1800000000, 0), "007": time.Unix(7, 0),
		"1.5": time.Unix(1, 5e8), ".5": time.Unix(0, 5e8), "1.": time.Unix(1, 0),
		"9007199254740991": time.Unix(1<<53-1, 0),
	} {
		if got, err := newUnix().parse(text); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", ".", "..5", "1.5.", "-1", "+1", "1e3", "0x1", "now", " 1", "9007199254740992"} {
		if got, err := newUnix().parse(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

// The help names the tenant that a command takes without --tenant, and none where that means all.
func TestHelpNamesTenant(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"keys create": `(default "default")`, "keys rotate": `(default "default")`, "drill rotate": `(default "canary")`,
		"keys list": "", "keys log": "", "keys backup": "", "keys restore": "", "keys rekey": "", "keys shred": "", "doctor": "",
	} {
		r := (&call{}).run(t, append(strings.Fields(args), "--help")...).wantCode(t, exitYes)
		_, line, _ := strings.Cut(r.stdout, "--tenant TENANT   ")
		line, _, _ = strings.Cut(line, "\n")
		if _, got, _ := strings.Cut(line, "(default"); strings.TrimPrefix(want, "(default") != got {
			t.Errorf("%s: %s", args, line)
		}
	}
}
