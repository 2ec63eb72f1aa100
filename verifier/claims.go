package verifier

import (
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/jwt"
)

// checkClaims applies the rules for the times, the registered claims, the spelling
// of names, typ, and the claims that the tenant demands, in this order. It is a
// pure function of its arguments.
func (r *rules) checkClaims(p *parsed, now time.Time) *Error {
	c := &p.claims
	if bad := r.checkTimes(c, now); bad != nil {
		return bad
	}
	if bad := r.checkIssuer(c); bad != nil {
		return bad
	}
	if bad := r.checkAudience(c); bad != nil {
		return bad
	}
	if bad := r.checkMatch(c); bad != nil {
		return bad
	}
	if bad := r.checkHeader(p); bad != nil {
		return bad
	}
	if bad := r.checkName(c.sub.text, "sub", errSubNumber); bad != nil {
		return bad
	}
	if bad := r.checkName(c.jti.text, "jti", errJTINumber); bad != nil {
		return bad
	}
	if c.misspelt != "" {
		return refuseClaim(errClaimFold, strings.Clone(c.misspelt)) // a part of the payload
	}
	if name := r.spelling.misspelt(c); name != "" {
		return refuseClaim(errClaimCase, strings.Clone(name))
	}
	if name := r.misspeltInside(c); name != "" {
		return refuseClaim(errClaimCase, strings.Clone(name))
	}
	if !r.types.accept(p.typ, p.hasTyp) {
		return refuse(r.wants().typ)
	}
	return r.checkDemanded(c)
}

// checkName demands that sub or jti, if it is there, is a string (RFC 7519, sections 4.1.2 and
// 4.1.7), or an integer if the tenant tolerates that. number is the error for one that it does
// not.
func (r *rules) checkName(text, name string, number error) *Error {
	switch {
	case text == "" || text[0] == '"':
		return nil
	case !jwt.Integer(text):
		return refuseClaim(nullOr(text, true, ErrClaim), name)
	case r.tolerates&needSubject == 0:
		return refuseClaim(number, name)
	}
	return nil
}

var (
	errClaimFold = detail(ErrClaim, "a name that differs from a registered one only by case")
	errClaimCase = detail(ErrClaim, "a name that differs only by case from one that is read: scope, scp, TenantClaim, Required or Match")
	errSubNumber = detail(ErrClaim, `claim "sub" is a number; RFC 7519 wants a string. `+wantTolerance(NumericSubject))
	errJTINumber = detail(ErrClaim, `claim "jti" is a number; RFC 7519 wants a string. `+wantTolerance(NumericSubject))
	errDate      = detail(ErrClaim, "not a number of seconds from 0 to 2^53")
)

// checkTimes checks exp, nbf, iat and the tenant's MaxAge (RFC 7519, sections 4.1.4
// to 4.1.6). exp is exclusive and nbf inclusive, each with the tenant's leeway.
func (r *rules) checkTimes(c *claims, now time.Time) *Error {
	if c.exp.text == "" && !r.AllowNoExpiry {
		return refuseClaim(ErrMissingClaim, "exp")
	}
	exp, ok := optionalDate(c.exp.text)
	if !ok {
		return refuseClaim(nullOr(c.exp.text, r.AllowNoExpiry, errDate), "exp")
	}
	nbf, ok := optionalDate(c.nbf.text)
	if !ok {
		return refuseClaim(nullOr(c.nbf.text, true, errDate), "nbf")
	}
	iat, ok := optionalDate(c.iat.text)
	if !ok {
		return refuseClaim(nullOr(c.iat.text, r.MaxAge == 0, errDate), "iat")
	}
	if c.iat.text == "" && r.MaxAge > 0 {
		return refuseClaim(ErrMissingClaim, "iat")
	}
	switch {
	case c.exp.text != "" && !now.Before(exp.Add(r.leeway)):
		return refuseClaim(ErrExpired, "exp")
	case c.nbf.text != "" && now.Before(nbf.Add(-r.leeway)):
		return refuseClaim(ErrNotYetValid, "nbf")
	case c.iat.text != "" && now.Before(iat.Add(-r.leeway)):
		return refuseClaim(ErrNotYetValid, "iat")
	case r.MaxAge > 0 && now.After(iat.Add(r.MaxAge).Add(r.leeway)):
		return refuseClaim(ErrTooOld, "iat")
	}
	return nil
}

// optionalDate returns the zero Time for a missing date.
func optionalDate(value string) (t time.Time, ok bool) {
	if value == "" {
		return time.Time{}, true
	}
	return jwt.NumericDate(value)
}

// checkIssuer demands that iss is a string and equals one of the tenant's issuers byte
// for byte (RFC 7519, section 4.1.1).
func (r *rules) checkIssuer(c *claims) *Error {
	if c.iss.text == "" && r.AnyIssuer {
		return nil
	}
	iss, ok := jwt.String(c.iss.text)
	switch {
	case r.AnyIssuer && !ok:
		return refuseClaim(nullOr(c.iss.text, true, ErrIssuer), "iss")
	case !r.AnyIssuer && (!ok || !slices.Contains(r.issuers, iss)):
		return refuseClaim(slashed(r.wants().issuer, r.issuers, iss), "iss")
	}
	return nil
}

// checkAudience demands that aud is a string or an array of strings, and holds one
// of the tenant's Audiences (RFC 7519, section 4.1.3).
func (r *rules) checkAudience(c *claims) *Error {
	if c.aud.text == "" && r.AnyAudience {
		return nil
	}
	ours := r.AnyAudience
	ok := jwt.EachString(c.aud.text, func(aud string) {
		for _, a := range r.Audiences {
			ours = ours || a == aud
		}
	})
	switch {
	case ok && ours:
		return nil
	case r.AnyAudience:
		return refuseClaim(nullOr(c.aud.text, true, ErrAudience), "aud")
	}
	var bad = r.wants().audience
	jwt.EachString(c.aud.text, func(aud string) { bad = slashed(bad, r.Audiences, aud) })
	return refuseClaim(bad, "aud")
}

// checkDemanded applies the tenant's TenantClaim and Required.
func (r *rules) checkDemanded(c *claims) *Error {
	if r.TenantClaim != "" {
		if tenant, ok := jwt.String(c.find(r.TenantClaim)); !ok || tenant != r.ID {
			return refuseClaim(r.wants().tenant, r.TenantClaim)
		}
	}
	for _, name := range r.Required {
		if value := c.find(name); value == "" || value == "null" {
			return refuseClaim(ErrMissingClaim, name)
		}
	}
	return nil
}

// types are the "typ" values that a tenant accepts.
type types struct {
	missing bool     // a header without typ is accepted
	names   []string // in the form of canonicalType
}

var (
	defaultTypes  = []string{"", "JWT", "at+jwt"}
	acceptDefault = newTypes(defaultTypes) // one for all tenants
)

func newTypes(list []string) (t types) {
	for _, name := range list {
		if name == "" {
			t.missing = true
			continue
		}
		t.names = append(t.names, canonicalType(name))
	}
	return t
}

func (t *types) accept(typ string, present bool) bool {
	if !present {
		return t.missing
	}
	typ = canonicalType(typ)
	for _, name := range t.names {
		if equalFoldASCII(name, typ) {
			return true
		}
	}
	return false
}

// canonicalType removes "application/", which a typ may leave out. It keeps it if
// another slash follows (RFC 7515, section 4.1.9).
func canonicalType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && equalFoldASCII(typ[:len(prefix)], prefix) && strings.IndexByte(typ[len(prefix):], '/') < 0 {
		return typ[len(prefix):]
	}
	return typ
}

// equalFoldASCII compares as media types are compared (RFC 2045, section 5.1).
// Unlike strings.EqualFold, it never equates an ASCII letter with another letter,
// such as s with ſ.
func equalFoldASCII(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
