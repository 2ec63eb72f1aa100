package main

import (
	"fmt"
	"io"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
)

// An app is everything that a command uses besides its flags and files.
type app struct {
	env            func(string) (string, bool) // such as [os.LookupEnv]
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	remark         func(string) // receives what note says; nil means that stderr does
	network        jwks.Config  // how issuers are reached; zero except in tests
	seen           *seenFiles   // notes the files that are read; nil: nothing does
	reloading      bool         // a configuration is read again
}

// note prints a remark to stderr that is not an error. A command that runs for long logs it.
func (a *app) note(format string, args ...any) {
	if a.remark != nil {
		a.remark(fmt.Sprintf(format, args...))
		return
	}
	fmt.Fprintf(a.stderr, "keyturn: note: "+format+"\n", args...)
}

// print writes the whole answer to stdout.
func (a *app) print(text string) error {
	if _, err := io.WriteString(a.stdout, text); err != nil {
		return exitf(exitCannotTell, "cannot write the answer to standard output")
	}
	return nil
}
