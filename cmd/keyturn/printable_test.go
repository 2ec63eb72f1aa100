package main

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// wantPrintable checks that a terminal can only show text, not obey it.
func wantPrintable(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Fatalf("the output holds %U", r)
		}
	}
	if !utf8.ValidString(text) {
		t.Fatal("the output is not valid UTF-8")
	}
}

func TestPrintable(t *testing.T) {
	for _, tt := range []struct {
		text  string
		lines bool
		want  string
	}{
		{"plain, ü and 世界", false, "plain, ü and 世界"},
		{"a\nb", true, "a\nb"},
		{"a\nb", false, `a\u000ab`},
		{"a\r\nb", true, `a\u000d` + "\nb"},
		{"\x1b[2J", false, `\u001b[2J`},
		{"\u009b2J\u007f", false, `\u009b2J\u007f`}, // one-byte forms of escape sequences
		{"\u202egnp.exe", false, `\u202egnp.exe`},   // changes the direction of writing
		{"\u2028\u2029\u200b", false, `\u2028\u2029\u200b`},
		{"\U000E0041", false, `\udb40\udc41`}, // a tag character
		{"\xff\xc3(", false, `\xff\xc3(`},
		{"\uFFFD", false, "\uFFFD"},
	} {
		if got := printable(tt.text, tt.lines); got != tt.want {
			t.Errorf("printable(%q, %v) = %q, want %q", tt.text, tt.lines, got, tt.want)
		}
	}
}

func TestQuoteJSON(t *testing.T) {
	if got, want := quoteJSON("a\"\\\n\u009b\xff"), `"a\"\\\n\u009b`+"\uFFFD\""; got != want {
		t.Errorf("quoteJSON = %s, want %s", got, want)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[0m\n\xff\u202e", true)
	f.Fuzz(func(t *testing.T, text string, lines bool) {
		got := printable(text, lines)
		wantPrintable(t, got)
		if !lines && strings.Contains(got, "\n") {
			t.Errorf("printable(%q) holds a line feed", text)
		}
	})
}

// The JSON of the command escapes nothing for HTML: it goes to terminals and programs.
func TestToJSON(t *testing.T) {
	if got, want := toJSON("a > b & <c>\u009b"), `"a > b & <c>\u009b"`+"\n"; got != want {
		t.Errorf("toJSON = %s, want %s", got, want)
	}
}
