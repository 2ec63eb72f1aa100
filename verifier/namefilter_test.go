package verifier_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// TestListOfManyNames revokes cached tokens by each kind of name, more than the first filter of a list
// has room for. Each must be refused afterwards, also those of the first ones, and no other.
func TestListOfManyNames(t *testing.T) {
	const n = 300
	list := verifier.NewRevocationList(n)
	w := newTwinWith(t, list, acme(t), tenant(t, "globex", "https://globex", nil))
	token := func(i int) string { return sign(goodHeader, with(fmt.Sprintf(`"jti":"j%d","sid":"s%d"`, i, i))) }
	other := tokenOf("globex", `"iss":"https://globex","jti":"j0","sid":"s1","iat":1700000000`)
	w.verify("another tenant's, with the same names", other, nil)
	for i := range n {
		w.verify("at first", token(i), nil)
	}
	exp, long := time.Unix(nowUnix+3600, 0), time.Unix(1, 0)
	for i := range n {
		var err error
		switch i % 3 {
		case 0:
			err = list.RevokeToken("acme", fmt.Sprint("j", i), exp)
		case 1:
			err = list.RevokeSession("acme", fmt.Sprint("s", i), exp)
		}
		if err := errors.Join(err, list.RevokeSubject("acme", fmt.Sprint("nobody", i), exp), list.RevokeTenant(fmt.Sprint("gone", i), long)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		want := verifier.ErrRevoked
		if i%3 == 2 {
			want = nil
		}
		w.verifyN("revoked in part", token(i), want, 1)
	}
	w.hit("another tenant's", other)
	if err := list.RevokeTenant("globex", exp); err != nil {
		t.Fatal(err)
	}
	w.verify("another tenant's, revoked as a whole", other, verifier.ErrRevoked)
}

// embedded is a list with a Revoked of its own.
type embedded struct {
	*verifier.RevocationList
	revoked bool
}

func (e *embedded) Revoked(*verifier.Token) (bool, error) { return e.revoked, nil }

// TestEmbeddedListIsAsked: a type that embeds a RevocationList does not become a Marker by that, so its
// own Revoked is asked on a hit.
func TestEmbeddedListIsAsked(t *testing.T) {
	list := &embedded{RevocationList: verifier.NewRevocationList(1)}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Now: at(nowUnix), Revocations: list})
	if err != nil {
		t.Fatal(err)
	}
	token := sign(goodHeader, goodPayload)
	for _, want := range []error{nil, nil, verifier.ErrRevoked} {
		list.revoked = want != nil
		tok, err := v.Verify(t.Context(), token)
		check(t, "embedded", tok, err, want)
	}
}
