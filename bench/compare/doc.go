// Package compare looks at keyturn beside other libraries that verify JSON Web
// Tokens: how fast each is, with the same token and the same checks, each used
// the way its own documentation says; and whether each accepts what the others
// make. It is a module of its own, so that nobody inherits their requirements.
//
// From the root: make bench, or here: go test -bench .
package compare
