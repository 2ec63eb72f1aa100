package verifier_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

func TestRevocationListRefuses(t *testing.T) {
	l := verifier.NewRevocationList(2)
	now := time.Now()
	for _, tt := range []struct {
		what string
		err  error
		want string
	}{
		{"no jti", l.RevokeToken("acme", "", now), "no jti"},
		{"no subject", l.RevokeSubject("acme", "", now), "no subject"},
		{"one", l.RevokeToken("acme", "1", now.Add(time.Hour)), ""},
		{"two", l.RevokeSubject("acme", "ann", now), ""},
		{"one again", l.RevokeToken("acme", "1", now.Add(2*time.Hour)), ""},
		{"three", l.RevokeTenant("acme", now), "full: it holds 2"},
		{"three, of a kind that is there", l.RevokeToken("acme", "3", now), "full"},
	} {
		if tt.want == "" && tt.err != nil || tt.want != "" && (tt.err == nil || !strings.Contains(tt.err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.what, tt.err, tt.want)
		}
	}
	if n := l.Len(); n != 2 {
		t.Errorf("Len = %d", n)
	}
	if n := verifier.NewRevocationList(-1); n.RevokeTenant("acme", now) != nil {
		t.Error("a list of less than one entry holds one")
	}
}

// TestRevocationListForgets: a full list drops the tokens that have expired for the longest
// leeway, and nothing else.
func TestRevocationListForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := verifier.NewRevocationList(3)
		soon := time.Now().Add(time.Minute)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		must(l.RevokeToken("acme", "soon", soon))
		must(l.RevokeToken("acme", "never", time.Time{}))
		must(l.RevokeSubject("acme", "ann", soon))
		full := func(want bool) {
			t.Helper()
			if err := l.RevokeToken("acme", "more", soon.Add(time.Hour)); (err != nil) != want {
				t.Errorf("%v after the end: %v", time.Since(soon), err)
			}
		}
		full(true)
		time.Sleep(time.Minute + 5*time.Minute)
		full(true) // a leeway of 5m has not passed yet
		time.Sleep(time.Nanosecond)
		full(false)
		if l.Len() != 3 {
			t.Errorf("Len = %d", l.Len())
		}
		full(false) // it is there
		time.Sleep(100 * time.Hour)
		must(l.RevokeToken("acme", "last", time.Now().Add(time.Hour)))
		if err := l.RevokeToken("acme", "one too many", time.Now()); err == nil {
			t.Error("a token without end, a subject, or one that has not ended was forgotten")
		}
	})
}

func TestRevocationListConcurrently(t *testing.T) {
	l := verifier.NewRevocationList(10_000)
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Now: at(nowUnix), Revocations: l})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				jti := fmt.Sprint(g, "-", i)
				token := sign(goodHeader, with(fmt.Sprintf(`"jti":%q`, jti)))
				if _, err := v.Verify(t.Context(), token); err != nil {
					t.Error(err)
				}
				if err := l.RevokeToken("acme", jti, time.Unix(1800003600, 0)); err != nil {
					t.Error(err)
				}
				tok, err := v.Verify(t.Context(), token)
				check(t, "revoked by now", tok, err, verifier.ErrRevoked)
			}
		})
	}
	wg.Wait()
}

// TestRevocationListPrintsNothing: a list prints neither a jti nor a subject.
func TestRevocationListPrintsNothing(t *testing.T) {
	l := verifier.NewRevocationList(10)
	l.RevokeToken("acme", "jti-of-ann", time.Time{})
	l.RevokeSubject("acme", "sub-ann", time.Now())
	if out := fmt.Sprintf("%v %+v %#v %s %d", l, l, l, l, l); strings.Contains(out, "ann") || !strings.Contains(out, "list of 2") {
		t.Error(out)
	}
}

type revocations struct {
	revoked bool
	err     error
	asked   *verifier.Token
}

func (r *revocations) Revoked(t *verifier.Token) (bool, error) {
	r.asked = t
	return r.revoked, r.err
}

// TestRevocations pins rule 17: the revocations come last, and only for good tokens.
func TestRevocations(t *testing.T) {
	for _, tt := range []struct {
		name  string
		list  revocations
		token string
		asked bool
		want  error
	}{
		{"not revoked", revocations{}, sign(goodHeader, goodPayload), true, nil},
		{"revoked", revocations{revoked: true}, sign(goodHeader, goodPayload), true, verifier.ErrRevoked},
		{"cannot tell", revocations{err: errOdd}, sign(goodHeader, goodPayload), true, verifier.ErrUnavailable},
		{"expired is not asked", revocations{revoked: true}, sign(goodHeader, with(`"exp":1`)), false, verifier.ErrExpired},
	} {
		v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Now: at(nowUnix), Revocations: &tt.list})
		if err != nil {
			t.Fatal(err)
		}
		tok, err := v.Verify(t.Context(), tt.token)
		check(t, tt.name, tok, err, tt.want)
		if (tt.list.asked != nil) != tt.asked {
			t.Errorf("%s: asked %v", tt.name, tt.list.asked)
		}
	}
}
