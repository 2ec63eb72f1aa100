package main

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/keyturn/keyturn/keystore"
)

// dropLineEnd removes one line end from the end of b.
func dropLineEnd(b []byte) []byte {
	if rest, ok := bytes.CutSuffix(b, []byte("\n")); ok {
		return bytes.TrimSuffix(rest, []byte("\r"))
	}
	return b
}

const (
	envSecret       = "KEYTURN_SECRET"
	envMastraSecret = "MASTRA_JWT_SECRET" // the name in the guide to MastraJwtAuth
	envSecrets      = envSecret + " or " + envMastraSecret
)

// secretForm is what the help says of a secret.
const secretForm = `A secret is used as it is: base64 is not decoded; one line end at the end of a
file is dropped.`

// A secret is a shared secret, and where it came from. The bytes are behind a function, so that
// formatting a secret does not print them.
type secret struct {
	bytes  func() []byte
	source string
}

// secret reads the shared secret from the file or, without a file, from the environment. It returns
// nil if neither has one.
func (a *app) secret(file *option[string]) (*secret, error) {
	if file.given {
		return a.fileSecret("--secret-file", file.value)
	}
	own, hasOwn := a.env(envSecret)
	theirs, hasTheirs := a.env(envMastraSecret)
	switch {
	case hasOwn && own == "":
		return nil, usagef("%s is set, but empty: set it to the secret, or unset it", envSecret)
	case hasTheirs && theirs == "":
		return nil, usagef("%s is set, but empty: set it to the secret, or unset it", envMastraSecret)
	case hasOwn && hasTheirs && own != theirs:
		return nil, usagef("%s and %s are both set, and differ: unset one of them", envSecret, envMastraSecret)
	case hasOwn:
		return newSecret([]byte(own), envSecret), nil
	case hasTheirs:
		return newSecret([]byte(theirs), envMastraSecret), nil
	}
	return nil, nil
}

// fileSecret reads a secret from the file that a flag names.
func (a *app) fileSecret(flag, path string) (*secret, error) {
	f, err := a.readFile(flag, path, "the secret", holdsSecret)
	if err != nil {
		return nil, err
	}
	doc := dropLineEnd(f.text)
	if len(bytes.TrimRight(doc, " \t\r\n\v\f")) < len(doc) {
		a.note("the secret in the file of %s ends in white space, which counts as part of it", flag)
	}
	return newSecret(doc, flag), nil
}

func newSecret(b []byte, source string) *secret {
	return &secret{bytes: func() []byte { return b }, source: source}
}

// key returns the secret as a key. Its error says where the secret came from.
func (s *secret) key(id keystore.ID, alg keystore.Algorithm) (*keystore.Key, error) {
	k, err := keystore.NewSecret(id, alg, s.bytes())
	if err != nil {
		text := errorText(err)
		if e := new(keystore.Error); errors.As(err, &e) && e.Hint != "" { // it is a public key
			text += "; to verify, give public keys with --jwks, as a JWK Set"
		}
		return nil, usagef("%s: %s", s.source, text)
	}
	return k, nil
}

// stripToken removes white space and "Bearer" around a token, and says which of them it found.
func stripToken(text string) (token string, found []string) {
	token = strings.TrimSpace(text)
	if token != text && token != "" {
		found = append(found, "there is white space around the token, which is not part of it")
	}
	if bare, ok := cutBearer(token); ok {
		found = append(found, `it begins with "Bearer", which belongs to the Authorization header and not to the token`)
		token = bare
	}
	return token, found
}

// cutBearer removes the scheme of an Authorization header. If no token follows the scheme, bare is
// empty.
func cutBearer(token string) (bare string, ok bool) {
	const scheme = "bearer"
	if len(token) < len(scheme) || !strings.EqualFold(token[:len(scheme)], scheme) {
		return token, false
	}
	rest := token[len(scheme):]
	bare = strings.TrimSpace(rest)
	if bare != "" && bare == rest {
		return token, false // a token that only begins with the same letters
	}
	return bare, true
}

// noteIfEmpty tells the user that text holds no token.
func (a *app) noteIfEmpty(text string) {
	if token, _ := stripToken(text); token == "" {
		a.note("the TOKEN is empty: is the variable set?")
	}
}

// maxInputBytes is the most that the command reads of standard input.
const maxInputBytes = 1 << 20

// token returns the TOKEN argument byte for byte or, for "-", one token from standard input without
// its line end. Of a token longer than most bytes it returns a part that is also longer than most,
// so that the token is refused as too long.
func (a *app) token(arg string, most int) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	const lineEnd = 2
	text, err := io.ReadAll(io.LimitReader(a.stdin, int64(most+lineEnd+1)))
	if err != nil {
		return "", usagef("cannot read the token from standard input")
	}
	if len(text) > most+lineEnd {
		// Read on, so that the writer does not get a broken pipe.
		io.CopyN(io.Discard, a.stdin, int64(max(0, maxInputBytes-len(text))))
	}
	return string(dropLineEnd(text)), nil
}

func newStatic(keys ...*keystore.Key) (*keystore.Static, error) {
	s, err := keystore.NewStatic(keys...)
	if err != nil {
		return nil, usagef("%s", errorText(err))
	}
	return s, nil
}
