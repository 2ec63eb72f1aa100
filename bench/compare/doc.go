// Package compare measures keyturn and other libraries that verify JSON Web Tokens: how fast each
// is, with the same token and the same checks, used as its own documentation says. It also tests
// whether each library accepts the tokens of the others. It is a module of its own, so that users
// of keyturn do not inherit these requirements.
//
// From the root: make bench, or here: go test -bench .
package compare
