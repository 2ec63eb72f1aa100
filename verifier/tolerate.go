package verifier

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/internal/jwt"
)

// A Tolerance names one departure from the standards that a [Tenant] may let in, because its
// issuer is known for it. Each holds for that tenant alone, and lets in what it names and nothing
// else. A crit or b64 in a header can never be tolerated: both change what the signature covers,
// or demand an extension that is not understood (RFC 7515, section 4.1.11; RFC 7797).
type Tolerance string

// The tolerances.
const (
	// NullMembers lets a header parameter or registered claim be null: it counts as missing.
	// Required claims stay required. Serializers of .NET write null for members that are not set.
	NullMembers Tolerance = "null-members"

	// NumericSubject lets sub and jti be JSON integers, written with digits alone.
	// [Token.Subject] and [Token.ID] return their decimal text, so 7 and "7" are one subject:
	// list it only if the issuer has no two users that differ in this alone. RFC 7519, sections
	// 4.1.2 and 4.1.7, wants strings.
	NumericSubject Tolerance = "numeric-sub"

	// ContentType lets a header have cty, which is ignored. RFC 7519, section 5.2, has it for
	// nested tokens alone, but some issuers write json or JWT into every token. The payload must
	// be a claims object all the same.
	ContentType Tolerance = "cty"

	// Zip lets a header have zip, which is ignored: LinkedIn writes it. RFC 7516, section 4.1.3,
	// has it for encrypted tokens. The payload is read as it is and never inflated, so a payload
	// that is compressed stays malformed.
	Zip Tolerance = "zip"

	// Padding demands that every part is padded base64url, as AWS's load balancers write it, and
	// RFC 7515, section 2, forbids. A token has one spelling all the same: without its padding
	// it is refused, as with padding elsewhere. A part whose length is a multiple of four needs
	// none.
	Padding Tolerance = "padding"
)

// Tolerances returns all tolerances. The slice is the caller's.
func Tolerances() []Tolerance {
	return []Tolerance{NullMembers, NumericSubject, ContentType, Zip, Padding}
}

// needs are the tolerances that a token needs, or that a tenant has: a set of bits.
type needs uint8

const (
	needNull needs = 1 << iota
	needSubject
	needCty
	needZip
	needPadding

	// A cty or zip that is null needs one of two, and no tenant has these bits.
	needNullOrCty
	needNullOrZip
)

var needOf = map[Tolerance]needs{
	NullMembers: needNull, NumericSubject: needSubject, ContentType: needCty, Zip: needZip, Padding: needPadding,
}

// newTolerances returns the tolerances of a list, or an error that names the first one which does
// not exist.
func newTolerances(list []Tolerance) (needs, error) {
	var all needs
	for _, t := range list {
		bit, ok := needOf[t]
		switch {
		case t == "crit" || t == "b64":
			return 0, fmt.Errorf("Tolerate holds %q, which can never be tolerated: a token with it may mean something else than it seems", string(t))
		case !ok:
			return 0, fmt.Errorf("Tolerate holds %q: want some of %v", string(t), Tolerances())
		}
		all |= bit
	}
	return all, nil
}

// The errors for what could be tolerated. Each says how.
var (
	errPadded       = detail(ErrMalformed, "a part is padded base64url, and RFC 7515 wants none. "+wantTolerance(Padding))
	errUnpadded     = detail(ErrMalformed, "a part is not padded base64url, and this tenant tolerates padding, which demands it of every part")
	errHeaderNull   = detail(ErrMalformed, "the header has a parameter that is null. "+wantTolerance(NullMembers))
	errHeaderZip    = detail(ErrCritical, `the header has "zip", which is for encrypted tokens (RFC 7516). `+wantTolerance(Zip))
	errHeaderNested = detail(ErrType, `the header has "cty": nested tokens are not accepted. `+wantTolerance(ContentType))
)

func wantTolerance(t Tolerance) string {
	return "If this issuer always does that: Tolerate " + string(t)
}

// unmet returns the error for the first thing that the token needs and the tenant does not
// tolerate, or nil. r may be nil: then nothing is tolerated. The order is that of the rules.
func (p *parsed) unmet(r *rules) *Error {
	var has needs
	if r != nil {
		has = r.tolerates
	}
	if p.needs == 0 && has&needPadding == 0 {
		return nil
	}
	switch left := p.needs &^ has; {
	case p.bare && has&needPadding != 0:
		return refuse(errUnpadded)
	case left&needPadding != 0:
		return refuse(errPadded)
	case left&needNull != 0:
		return refuse(errHeaderNull)
	case left&needZip != 0, left&needNullOrZip != 0 && has&(needNull|needZip) == 0:
		return refuse(errHeaderZip)
	case left&needCty != 0, left&needNullOrCty != 0 && has&(needNull|needCty) == 0:
		return refuse(errHeaderNested)
	}
	return nil
}

// Needs returns the tolerances without which every tenant refuses the token, in the order of
// [Tolerances]. It verifies nothing. The error is one of [ErrMalformed] or [ErrCritical] if no
// tolerance could let the token in.
func Needs(token string) ([]Tolerance, error) {
	first, second, bad := findDots(token)
	if bad != nil {
		return nil, bad
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	p, bad := s.parse(token, first, second, nil)
	if bad != nil {
		return nil, bad
	}
	n := p.needs | p.claims.needs()
	if n&(needNullOrCty|needNullOrZip) != 0 {
		n |= needNull
	}
	var list []Tolerance
	for _, t := range Tolerances() {
		if n&needOf[t] != 0 {
			list = append(list, t)
		}
	}
	return list, nil
}

// needs returns the tolerances that the registered claims need.
func (c *claims) needs() (n needs) {
	for _, claim := range c.registered() {
		if claim.text == null {
			n |= needNull
		}
	}
	if jwt.Integer(c.sub.text) || jwt.Integer(c.jti.text) {
		n |= needSubject
	}
	return n
}

const null = "null"

// registered returns the registered claims (RFC 7519, section 4.1).
func (c *claims) registered() [7]*claim {
	return [...]*claim{&c.iss, &c.sub, &c.aud, &c.exp, &c.nbf, &c.iat, &c.jti}
}

// dropNulls makes the registered claims that are null missing.
func (c *claims) dropNulls() {
	for _, claim := range c.registered() {
		if claim.text == null {
			*claim = zeroClaim
		}
	}
}

var zeroClaim claim

// nullOr returns the error that names NullMembers if text is null and the tenant would let that
// claim be missing, and else err.
func nullOr(text string, mayMiss bool, err error) error {
	if text != null || !mayMiss {
		return err
	}
	return &detailed{sentinelOf(err), "null counts as missing only if tolerated. " + wantTolerance(NullMembers)}
}

// sentinelOf returns the refusal that err is, or that it details.
func sentinelOf(err error) *refusal {
	if r, ok := err.(*refusal); ok {
		return r
	}
	d := (*detailed)(nil)
	errors.As(err, &d)
	return d.refusal
}

// hasTwice returns the first element that list has twice, or "".
func hasTwice(list []string) string {
	for i, a := range list {
		if slices.Contains(list[:i], a) {
			return a
		}
	}
	return ""
}
