package verifier_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// TestRevocationListShares: one tenant that revokes as much as it can leaves room for every
// other tenant, and for the revocation of the tenant itself.
func TestRevocationListShares(t *testing.T) {
	now := time.Now()
	l := verifier.NewRevocationList(100)
	fill := func(tenant string) (tokens, subjects int) {
		for l.RevokeToken(tenant, fmt.Sprint(tokens), now.Add(time.Hour)) == nil && tokens < 1000 {
			tokens++
		}
		for l.RevokeSubject(tenant, fmt.Sprint(subjects), now) == nil && subjects < 1000 {
			subjects++
		}
		return tokens, subjects
	}
	if tokens, subjects := fill("greedy"); tokens != 100 || subjects != 100 {
		t.Errorf("alone in the list: %d tokens, %d subjects", tokens, subjects)
	}
	for _, tenant := range []string{"a", "b", "c"} {
		if tokens, subjects := fill(tenant); tokens < 10 || subjects < 10 {
			t.Errorf("%s has room for %d tokens, %d subjects", tenant, tokens, subjects)
		}
	}
	for _, tenant := range []string{"greedy", "a", "b", "c", "d"} {
		if err := l.RevokeTenant(tenant, now); err != nil {
			t.Errorf("%s: %v", tenant, err)
		}
	}
	if err := l.RevokeToken("greedy", "again", now); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("beyond its share: %v", err)
	}
}

// TestRevocationListOfAYearAgo: on 2026-11-28 a list that was full of subjects accepted
// nothing more, for ever.
func TestRevocationListOfAYearAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := verifier.NewRevocationList(1000)
		for i := range 1000 {
			if err := l.RevokeSubject("acme", fmt.Sprint(i), time.Now()); err != nil {
				t.Fatal(i, err)
			}
		}
		if err := l.RevokeToken("acme", "1", time.Now().Add(time.Hour)); err != nil {
			t.Errorf("subjects take the room of tokens: %v", err)
		}
		time.Sleep(401 * 24 * time.Hour)
		for i := range 1000 {
			if err := l.RevokeSubject("acme", fmt.Sprint("new", i), time.Now()); err != nil {
				t.Fatal(i, err)
			}
		}
	})
}

// TestRevocationIsRoundedUp: a token that was issued before the revocation, in the same
// second, carries that second as its iat: it is revoked.
func TestRevocationIsRoundedUp(t *testing.T) {
	for _, tt := range []struct {
		before time.Time
		iat    string
		want   error
	}{
		{time.Unix(1799999900, 0), "1799999899", verifier.ErrRevoked},
		{time.Unix(1799999900, 0), "1799999899.9", verifier.ErrRevoked},
		{time.Unix(1799999900, 0), "1799999900", nil},
		{time.Unix(1799999900, 1), "1799999900", verifier.ErrRevoked},
		{time.Unix(1799999900, 1), "1799999900.5", verifier.ErrRevoked},
		{time.Unix(1799999900, 999999999), "1799999900", verifier.ErrRevoked},
		{time.Unix(1799999900, 1), "1799999901", nil},
	} {
		for kind, revoke := range map[string]func(revoker) error{
			"subject": func(l revoker) error { return l.RevokeSubject("acme", "ann", tt.before) },
			"tenant":  func(l revoker) error { return l.RevokeTenant("acme", tt.before) },
		} {
			w := newTwin(t, acme(t))
			if err := revoke(w.revocations); err != nil {
				t.Fatal(err)
			}
			w.verify(fmt.Sprintf("%s, before %v, iat %s", kind, tt.before, tt.iat), sign(goodHeader, with(`"iat":`+tt.iat)), tt.want)
		}
	}
}

// TestRevocationListKeepsNoToken: a jti and a subject that were read from a token do not
// keep the token's claims in memory.
func TestRevocationListKeepsNoToken(t *testing.T) {
	const n = 500
	v := newVerifier(t, acme(t))
	l := verifier.NewRevocationList(n)
	before := heap()
	for i := range n {
		tok, err := v.Verify(t.Context(), sign(goodHeader, with(fmt.Sprintf(`"sub":"s%d","jti":"%d","x":"%s"`, i, i, strings.Repeat("x", 5000)))))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.RevokeToken(tok.Tenant(), tok.ID(), tok.Expires()); err != nil {
			t.Fatal(err)
		}
		if err := l.RevokeSubject(tok.Tenant(), tok.Subject(), tok.IssuedAt()); err != nil {
			t.Fatal(err)
		}
	}
	v = nil
	if grown := heap() - before; grown > n*1000 {
		t.Errorf("%d revocations keep %d bytes", 2*n, grown)
	}
	if l.Len() != 2*n {
		t.Errorf("Len = %d", l.Len())
	}
}
