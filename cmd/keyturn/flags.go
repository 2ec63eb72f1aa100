package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/jwt"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// An option is the value of a flag that may be given once. Its errors never repeat the value: that
// may be a token or a secret in the wrong place. It implements [pflag.Value].
type option[T any] struct {
	value T
	given bool
	kind  string // what the help calls the value
	shown string // the default, as the help shows it
	parse func(string) (T, error)
}

// Set implements [pflag.Value].
func (o *option[T]) Set(s string) error {
	if o.given {
		return errors.New("given twice")
	}
	v, err := o.parse(s)
	if err != nil {
		return err
	}
	o.value, o.given = v, true
	return nil
}

// String implements [pflag.Value].
func (o *option[T]) String() string { return o.shown }

// Type implements [pflag.Value].
func (o *option[T]) Type() string { return o.kind }

// A list is the value of a flag that may be given several times.
type list[T any] struct {
	values []T
	kind   string
	parse  func(string) (T, error)
}

// Set implements [pflag.Value].
func (l *list[T]) Set(s string) error {
	v, err := l.parse(s)
	if err != nil {
		return err
	}
	l.values = append(l.values, v)
	return nil
}

// String implements [pflag.Value].
func (l *list[T]) String() string { return "" }

// Type implements [pflag.Value].
func (l *list[T]) Type() string { return l.kind }

func newText(kind, standard string) *option[string] {
	return &option[string]{value: standard, kind: kind, shown: standard, parse: parseText}
}

func newTenant() *option[string] {
	o := newText("TENANT", defaultTenant)
	o.shown = strconv.Quote(defaultTenant)
	return o
}

// describeTenant gives --tenant of one command its own usage and default in the help. The flag is
// registered already, and pflag copies the default then.
func describeTenant(cmd *cobra.Command, usage, standard string) {
	f := cmd.Flags().Lookup("tenant")
	f.Usage, f.DefValue = usage, standard
}

func newTexts(kind string) *list[string] { return &list[string]{kind: kind, parse: parseText} }

// parseText refuses text that no token can hold, and empty text: most often that is a variable of the
// shell that is not set.
func parseText(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("is empty")
	case !utf8.ValidString(s):
		return "", errors.New("is not valid UTF-8")
	}
	return s, nil
}

func newPath() *option[string] {
	return &option[string]{kind: "FILE", parse: func(s string) (string, error) {
		switch s {
		case "":
			return "", errors.New("is empty")
		case "-":
			return "", errors.New("- is not standard input here: use /dev/stdin, or ./- for a file of that name")
		}
		return s, nil
	}}
}

// newDuration returns a flag for a duration between least and most, both included.
func newDuration(least, most, standard time.Duration, shown string) *option[time.Duration] {
	parse := func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return 0, errors.New("want a duration such as 5s, 15m or 1h30m")
		case d < least:
			return 0, fmt.Errorf("want at least %v", least)
		case d > most:
			return 0, fmt.Errorf("want at most %v", most)
		}
		return d, nil
	}
	return &option[time.Duration]{value: standard, kind: "DURATION", shown: shown, parse: parse}
}

// newUnix returns a flag for a moment in seconds since 1970.
func newUnix() *option[time.Time] {
	return &option[time.Time]{kind: "UNIX", parse: func(s string) (time.Time, error) {
		t, ok := time.Time{}, false
		if strings.Trim(s, "0123456789.") == "" {
			number := s
			if len(s) > 1 && s[0] == '.' { // a JSON number has a digit before the point
				number = "0" + s
			}
			t, ok = jwt.NumericDate(number)
		}
		if !ok {
			return t, errors.New("want seconds since 1970, such as 1800000000")
		}
		return t, nil
	}}
}

// newAlgorithms returns a flag for a list of algorithms, separated by commas.
func newAlgorithms() *option[[]keystore.Algorithm] {
	return &option[[]keystore.Algorithm]{kind: "ALG[,ALG]", parse: func(s string) (algs []keystore.Algorithm, err error) {
		for name := range strings.SplitSeq(s, ",") {
			alg, err := parseAlgorithm(name)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(algs, alg) {
				algs = append(algs, alg)
			}
		}
		return algs, nil
	}}
}

func parseAlgorithm(name string) (keystore.Algorithm, error) {
	alg := keystore.Algorithm(name)
	switch {
	case alg.Known():
		return alg, nil
	case name == "":
		return "", fmt.Errorf("is empty: want some of %s, with commas without spaces between them", algorithmNames())
	case strings.ContainsAny(name, " \t\r\n"):
		return "", errors.New("holds white space: put commas without spaces between the names, as in HS256,HS384")
	case strings.EqualFold(name, "none"):
		return "", errors.New(`"none" is not an algorithm: unsigned tokens are never accepted`)
	}
	return "", fmt.Errorf("holds an unknown algorithm: want some of %s, spelled like this and with commas between them", algorithmNames())
}

// newTolerances returns a flag for tolerances, which may be given several times, and with commas.
func newTolerances() *list[[]verifier.Tolerance] {
	return &list[[]verifier.Tolerance]{kind: "NAMES", parse: func(s string) (list []verifier.Tolerance, err error) {
		for name := range strings.SplitSeq(s, ",") {
			t, err := parseTolerance(name)
			if err != nil {
				return nil, err
			}
			list = append(list, t)
		}
		return list, nil
	}}
}

func parseTolerance(name string) (verifier.Tolerance, error) {
	switch t := verifier.Tolerance(name); {
	case slices.Contains(verifier.Tolerances(), t):
		return t, nil
	case name == "crit" || name == "b64":
		return "", fmt.Errorf("%s can never be tolerated: a token with it may mean something else than it seems", name)
	}
	return "", fmt.Errorf("holds an unknown name: want some of %s", joinTolerances(verifier.Tolerances()))
}

func joinTolerances(list []verifier.Tolerance) string {
	var names []string
	for _, t := range list {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// newMaxTokenBytes returns a flag for the longest token that is accepted.
func newMaxTokenBytes() *option[int] {
	return &option[int]{kind: "BYTES", shown: strconv.Itoa(server.DefaultMaxTokenBytes), parse: func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			n = 0
		}
		return n, checkMaxTokenBytes(n)
	}}
}

func checkMaxTokenBytes(n int) error {
	if n < 1 || n > maxInputBytes {
		return fmt.Errorf("want a number of bytes from 1 to %d", maxInputBytes)
	}
	return nil
}

func algorithmNames() string { return joinAlgorithms(keystore.Algorithms()) }

func joinAlgorithms(algs []keystore.Algorithm) string {
	var names []string
	for _, alg := range algs {
		names = append(names, string(alg))
	}
	return strings.Join(names, ", ")
}

// flagError returns one line about a mistake in the command line. It does not repeat the value of a
// flag.
func flagError(cmd *cobra.Command, err error) error {
	help := seeHelp(cmd)
	switch e := err.(type) {
	case *pflag.InvalidValueError:
		if e.GetFlag().Value.Type() == "bool" {
			return usagef("--%s takes no value; %s", e.GetFlag().Name, help)
		}
		return usagef("--%s: %v; %s", e.GetFlag().Name, e.Unwrap(), help)
	case *pflag.ValueRequiredError:
		return usagef("--%s needs a value; %s", e.GetFlag().Name, help)
	case *pflag.NotExistError:
		if err := unknownFlag(cmd, e, help); err != nil {
			return err
		}
	}
	return usagef(`unknown flag: flags are long, such as --secret-file, and a TOKEN that begins with a dash goes after "--", as does a KID; %s`, help)
}

// unknownFlag says which flag was probably meant. It repeats the unknown one only if that looks like
// the name of a flag. It returns nil if it can say neither.
func unknownFlag(cmd *cobra.Command, e *pflag.NotExistError, help string) error {
	name, shorts := e.GetSpecifiedName(), e.GetSpecifiedShortnames()
	if name == "secret" && cmd.Flags().Lookup("secret-file") != nil {
		return usagef("a secret is never given as a flag: --secret-file takes the path of a file that holds it, or set %s; %s", envSecrets, help)
	}
	what := "unknown flag"
	if shorts == "" && isWord(name) {
		what += " --" + name
	}
	if shorts != "" {
		name = shorts // -adr
	}
	if near := nearestFlag(cmd, name); near != "" {
		return usagef("%s: did you mean --%s? %s", what, near, help)
	}
	if what == "unknown flag" {
		return nil
	}
	return usagef("%s; %s", what, help)
}

// wantToken is the [cobra.PositionalArgs] of the commands that take a token.
func wantToken(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 1:
		return nil
	case 0:
		return usagef("give a TOKEN, or - to read one from standard input; %s", seeHelp(cmd))
	}
	return usagef("%d arguments where one TOKEN is wanted: is there a space in it, or a flag without its dashes? %s", len(args), seeHelp(cmd))
}

// wantNothing returns the [cobra.PositionalArgs] of a command that takes only flags. hint returns
// which flag an argument was probably meant for, or "".
func wantNothing(hint func(arg string) string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		more := ""
		if h := hint(args[0]); h != "" {
			more = ": " + h
		}
		return usagef("an argument that is no flag, where none is wanted%s; %s", more, seeHelp(cmd))
	}
}

// defaultTenant is the tenant if --tenant does not name one.
const defaultTenant = "default"
