package main

import "fmt"

// The exit codes of the command.
const (
	exitYes           = 0
	exitNo            = 1 // a bad token, or a refused change
	exitUsage         = 2 // the command line, a file or the environment is not right
	exitCannotTell    = 3
	exitNotEverywhere = 4 // a change is made, and a live instance has not applied it yet
)

// An exitError is an error with an exit code. Without text, the command has said everything.
type exitError struct {
	code int
	text string
}

// Error implements the error interface.
func (e *exitError) Error() string { return e.text }

func exitf(code int, format string, args ...any) error {
	return &exitError{code, fmt.Sprintf(format, args...)}
}

func usagef(format string, args ...any) error { return exitf(exitUsage, format, args...) }
