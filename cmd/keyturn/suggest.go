package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// fromClone returns how to type the command with args: once for users who have installed keyturn, and
// once for users with a clone of the project.
func fromClone(args string) string {
	return "keyturn " + args + "   (from a clone: go run ./cmd/keyturn " + args + ")"
}

// shellWord quotes a word so that a shell reads it as one word, and a terminal shows it safely.
func shellWord(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,+@%"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(printable(word, false), "'", `'\''`) + "'"
}

// seeHelp says how to print a command's help.
func seeHelp(cmd *cobra.Command) string {
	args := strings.TrimPrefix(cmd.CommandPath()+" --help", "keyturn ")
	return fmt.Sprintf(`see "keyturn %s" (from a clone: go run ./cmd/keyturn %[1]s)`, args)
}

// nearestFlag returns the name of the flag of cmd that was probably meant, or "". The name is one of
// ours, never the typed text, so that it may be printed.
func nearestFlag(cmd *cobra.Command, typed string) (name string) {
	typed = strings.ToLower(typed)
	if len(typed) < 2 || len(typed) > 20 {
		return ""
	}
	least := tooFar
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := flagDistance(typed, f.Name); d < least || d == least && len(f.Name) < len(name) {
			least, name = d, f.Name
		}
	})
	return name
}

// tooFar is the distance of two names of which neither is meant where the other is typed.
const tooFar = 3

// flagDistance returns how far what was typed is from the name of a flag, up to tooFar.
func flagDistance(typed, name string) int {
	d := distance(typed, name)
	if 2*d > max(len(typed), len(name)) {
		d = tooFar
	}
	// An abbreviation, or the whole word: --allow, --issuer.
	short, long := typed, name
	if len(short) > len(long) {
		short, long = long, short
	}
	if len(short) >= 3 && strings.HasPrefix(long, short) && !strings.Contains(typed, "-") {
		d = min(d, 2)
	}
	return d
}

// distance returns the Levenshtein distance: how many bytes must be added, left out or changed to
// make b from a.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // the distance from a[:i] to each b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
