// Package adapters puts keyturn in front of the handlers of other frameworks: docs/adapters.md shows
// these files. It is a module of its own, so that keyturn depends on none of them.
//
// Where the framework's middleware is a func(http.Handler) http.Handler, [middleware.Require] is that,
// and the function here only shows where it goes. The others are middleware.Authenticator and
// middleware.Refuse in the shape that the framework asks for: no adapter reads a header by itself.
package adapters
