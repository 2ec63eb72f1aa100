package keystore

import "fmt"

// An Error says why a [Key] or a [Static] cannot be made. Its text is "keystore: Detail; Hint", of
// which a missing Hint is left out. It may be logged: it holds no key material.
type Error struct {
	Detail string // what is wrong
	Hint   string // which function or package to use instead, or ""
}

// Error returns the parts as one text.
func (e *Error) Error() string {
	if e.Hint != "" {
		return "keystore: " + e.Detail + "; " + e.Hint
	}
	return "keystore: " + e.Detail
}

func failf(format string, args ...any) *Error { return &Error{Detail: fmt.Sprintf(format, args...)} }

// hint adds to e which function or package to use instead.
func (e *Error) hint(text string) *Error {
	e.Hint = text
	return e
}
