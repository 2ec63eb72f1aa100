package jwt

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// A Claim is one of the registered claims (RFC 7519, section 4.1), or
// Unregistered. There are fewer than eight registered ones, so that a set of
// them fits in a byte: 1 << c for each.
type Claim uint8

// The registered claims.
const (
	Unregistered Claim = iota
	Iss
	Sub
	Aud
	Exp
	Nbf
	Iat
	Jti
)

var claimNames = [...]string{Unregistered: "", Iss: "iss", Sub: "sub", Aud: "aud", Exp: "exp", Nbf: "nbf", Iat: "iat", Jti: "jti"}

// String returns the name of c, or "" for Unregistered.
func (c Claim) String() string { return claimNames[c] }

// ClaimNamed returns the registered claim with this name, compared byte for byte,
// or Unregistered.
func ClaimNamed(name string) Claim {
	switch name {
	case "iss":
		return Iss
	case "sub":
		return Sub
	case "aud":
		return Aud
	case "exp":
		return Exp
	case "nbf":
		return Nbf
	case "iat":
		return Iat
	case "jti":
		return Jti
	}
	return Unregistered
}

// FoldsToClaim returns the registered claim that name differs from only by case,
// or Unregistered. A reader that folds case, as encoding/json does, would take
// EXP for exp: so a verifier refuses such a name, and a writer does not write it.
//
// Case means Unicode's simple folding: "iſs" folds to "iss". The name of a
// registered claim itself does not differ, and gives Unregistered.
func FoldsToClaim(name string) Claim {
	if mayFold(name) {
		for c := Iss; c <= Jti; c++ {
			if strings.EqualFold(name, claimNames[c]) {
				return c
			}
		}
	}
	return Unregistered
}

// headerNames are the header parameters of RFC 7515, section 4.1, with b64 (RFC
// 7797), enc and zip (RFC 7516, sections 4.1.2 and 4.1.3).
var headerNames = []string{"alg", "jku", "jwk", "kid", "x5u", "x5c", "x5t", "x5t#S256", "typ", "cty", "crit", "b64", "zip", "enc"}

// IsHeader reports whether name is a parameter of a header that the standards define, compared byte
// for byte.
func IsHeader(name string) bool { return slices.Contains(headerNames, name) }

// FoldsToHeader is [FoldsToClaim] for the parameters of a header: it reports
// whether name differs from one of them only by case.
func FoldsToHeader(name string) bool {
	if mayFold(name) {
		for _, n := range headerNames {
			if name != n && strings.EqualFold(name, n) {
				return true
			}
		}
	}
	return false
}

// mayFold reports whether name could fold to a name that it is not. It decides
// most names without a comparison.
func mayFold(name string) bool {
	return 3 <= len(name) && len(name) <= 10 && strings.ContainsFunc(name, isOdd)
}

// isOdd reports whether r is unlike the letters and digits of the names above,
// which are lower case in all names but "x5t#S256": that one has a #.
func isOdd(r rune) bool { return 'A' <= r && r <= 'Z' || r >= utf8.RuneSelf || r == '#' }
