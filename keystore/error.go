package keystore

import "fmt"

// An Error says why a [Key] or a [Static] cannot be made. Its text is "keystore: Detail; Hint",
// without the semicolon if there is no Hint. It may be logged: it holds no key material.
type Error struct {
	Detail string // the fault
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

// hint sets e.Hint, and returns e.
func (e *Error) hint(text string) *Error {
	e.Hint = text
	return e
}
