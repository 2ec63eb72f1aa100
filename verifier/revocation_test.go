package verifier_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// newList returns a list with room for two tokens, sessions and subjects of a tenant, and one tenant, and tokens
// of an hour at most.
func newList(t *testing.T) *verifier.RevocationList {
	t.Helper()
	l, err := verifier.NewRevocationListWith(verifier.RevocationListConfig{Tokens: 3, Sessions: 3, Subjects: 3, Tenants: 1, MaxTokenTTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestRevocationListRefuses(t *testing.T) {
	l := newList(t)
	now := time.Now()
	for _, tt := range []struct {
		what string
		err  error
		want string
	}{
		{"no jti", l.RevokeToken("acme", "", now), "no jti"},
		{"no session", l.RevokeSession("acme", "", now), "no session"},
		{"no subject", l.RevokeSubject("acme", "", now), "no subject"},
		{"a token", l.RevokeToken("acme", "1", now.Add(time.Hour)), ""},
		{"another", l.RevokeToken("acme", "2", now), ""},
		{"again", l.RevokeToken("acme", "1", now.Add(2*time.Hour)), ""},
		{"a token too many", l.RevokeToken("acme", "3", now), `full: it holds 2 of at most 3, and tenant "acme" 2 tokens`},
		{"a session", l.RevokeSession("acme", "s", now), ""},
		{"another session", l.RevokeSession("acme", "t", now), ""},
		{"the session again", l.RevokeSession("acme", "t", time.Time{}), ""},
		{"a session too many", l.RevokeSession("acme", "u", now), `full: it holds 2 of at most 3, and tenant "acme" 2 sessions`},
		{"a subject", l.RevokeSubject("acme", "ann", now), ""},
		{"another subject", l.RevokeSubject("acme", "bob", now), ""},
		{"a subject too many", l.RevokeSubject("acme", "cat", now), `full: it holds 2 of at most 3, and tenant "acme" 2 subjects`},
		{"another tenant's", l.RevokeSubject("globex", "cat", now), ""},
		{"the last room", l.RevokeSubject("initech", "cat", now), "full: it holds 3"},
		{"the tenant", l.RevokeTenant("acme", now), ""},
		{"the tenant again", l.RevokeTenant("acme", now.Add(time.Second)), ""},
		{"a tenant too many", l.RevokeTenant("globex", now), "full: it holds 1 tenants"},
	} {
		if tt.want == "" && tt.err != nil || tt.want != "" && (tt.err == nil || !strings.Contains(tt.err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.what, tt.err, tt.want)
		}
	}
	if n := l.Len(); n != 2+2+1+1 {
		t.Errorf("Len = %d", n)
	}
	if n := verifier.NewRevocationList(-1); n.RevokeToken("acme", "1", now) != nil {
		t.Error("a list of less than one entry holds one")
	}
}

func TestRevocationListConfig(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name string
		cfg  verifier.RevocationListConfig
		want string
	}{
		{"no room", verifier.RevocationListConfig{MaxTokenTTL: day}, "no room"},
		{"tokens alone", verifier.RevocationListConfig{Tokens: 1}, ""},
		{"subjects without an end", verifier.RevocationListConfig{Tokens: 1, Subjects: 1}, "MaxTokenTTL is 0s"},
		{"sessions without an end", verifier.RevocationListConfig{Sessions: 1}, "MaxTokenTTL is 0s"},
		{"negative sessions", verifier.RevocationListConfig{Sessions: -1}, "Sessions is -1"},
		{"tenants without an end", verifier.RevocationListConfig{Tenants: 1}, "MaxTokenTTL is 0s"},
		{"400 days", verifier.RevocationListConfig{Subjects: 1, MaxTokenTTL: 400 * day}, ""},
		{"above 400 days", verifier.RevocationListConfig{Subjects: 1, MaxTokenTTL: 400*day + 1}, "at most 400 days"},
		{"negative", verifier.RevocationListConfig{Tokens: 1, MaxTokenTTL: -1}, "MaxTokenTTL is -1ns"},
		{"negative tokens", verifier.RevocationListConfig{Tokens: -1}, "Tokens is -1"},
		{"negative subjects", verifier.RevocationListConfig{Subjects: -1}, "Subjects is -1"},
		{"negative tenants", verifier.RevocationListConfig{Tenants: -1}, "Tenants is -1"},
	} {
		l, err := verifier.NewRevocationListWith(tt.cfg)
		if tt.want == "" && err != nil || tt.want != "" && (l != nil || err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	l, err := verifier.NewRevocationListWith(verifier.RevocationListConfig{Tokens: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.RevokeSubject("acme", "ann", time.Now()), l.RevokeTenant("acme", time.Now())); err == nil || strings.Count(err.Error(), "full") != 2 {
		t.Errorf("kinds without room: %v", err)
	}
}

// TestRevocationListForgets: where there is no room, the list forgets the revocations whose
// tokens no verifier accepts any longer, whatever its leeway, and nothing else.
func TestRevocationListForgets(t *testing.T) {
	for _, tt := range []struct {
		kind   string
		lives  time.Duration // how long the revocation is needed, without leeway
		revoke func(l *verifier.RevocationList, tenant, name string) error
	}{
		{"token", time.Minute, func(l *verifier.RevocationList, tenant, name string) error {
			return l.RevokeToken(tenant, name, time.Now().Add(time.Minute))
		}},
		{"session", time.Minute, func(l *verifier.RevocationList, tenant, name string) error {
			return l.RevokeSession(tenant, name, time.Now().Add(time.Minute))
		}},
		{"session without until", time.Hour, func(l *verifier.RevocationList, tenant, name string) error {
			return l.RevokeSession(tenant, name, time.Time{})
		}},
		{"subject", time.Hour, func(l *verifier.RevocationList, tenant, name string) error {
			return l.RevokeSubject(tenant, name, time.Now())
		}},
		{"tenant", time.Hour, func(l *verifier.RevocationList, _, name string) error {
			return l.RevokeTenant(name, time.Now())
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newList(t)
			for i := 0; tt.revoke(l, "acme", fmt.Sprint(i)) == nil; i++ {
				if i > 3 {
					t.Fatalf("%s: no bound", tt.kind)
				}
			}
			n := l.Len()
			time.Sleep(tt.lives + 5*time.Minute)
			if err := tt.revoke(l, "acme", "more"); err == nil {
				t.Errorf("%s: forgotten at the end of the leeway", tt.kind)
			}
			time.Sleep(time.Nanosecond)
			if err := tt.revoke(l, "acme", "more"); err != nil || l.Len() != 1 {
				t.Errorf("%s: after the end %v, %d of %d left", tt.kind, err, l.Len(), n)
			}
		})
	}
}

// TestRevocationListNeverForgets: the revocation of a token without exp stays.
func TestRevocationListNeverForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newList(t)
		for i := range 2 {
			if err := l.RevokeToken("acme", fmt.Sprint(i), time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * 365 * 24 * time.Hour)
		if err := l.RevokeToken("acme", "more", time.Now()); err == nil {
			t.Error("a token without end was forgotten")
		}
		if err := l.RevokeTenant("acme", time.Now()); err != nil || l.Len() != 3 {
			t.Errorf("%v; %d left, want the tenant and two tokens that outlive its revocation", err, l.Len())
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
	l.RevokeSession("acme", "sid-ann", time.Now())
	if out := fmt.Sprintf("%v %+v %#v %s %d", l, l, l, l, l); strings.Contains(out, "ann") || !strings.Contains(out, "list of 3") {
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

// TestRevocationListRemoves: a revocation that is taken back leaves nothing, and leaves
// others as they are.
func TestRevocationListRemoves(t *testing.T) {
	l := verifier.NewRevocationList(10)
	tok := verified(t, with(`"jti":"7","sid":"s"`)) // of acme and ann
	is := func(what string, want bool) {
		t.Helper()
		if got, err := l.Revoked(tok); got != want || err != nil {
			t.Errorf("%s: revoked %v, %v", what, got, err)
		}
	}
	now := tok.IssuedAt().Add(time.Minute)
	for _, tt := range []struct {
		kind   string
		revoke func() error
		remove func(tenant string) bool
	}{
		{"token", func() error { return l.RevokeToken("acme", "7", tok.Expires()) }, func(tenant string) bool { return l.RemoveToken(tenant, "7") }},
		{"session", func() error { return l.RevokeSession("acme", "s", tok.Expires()) }, func(tenant string) bool { return l.RemoveSession(tenant, "s") }},
		{"subject", func() error { return l.RevokeSubject("acme", "ann", now) }, func(tenant string) bool { return l.RemoveSubject(tenant, "ann") }},
		{"tenant", func() error { return l.RevokeTenant("acme", now) }, l.RemoveTenant},
	} {
		if err := tt.revoke(); err != nil {
			t.Fatal(err)
		}
		is(tt.kind, true)
		if tt.remove("globex") || !tt.remove("acme") || tt.remove("acme") {
			t.Errorf("%s: wrongly there or not there", tt.kind)
		}
		is(tt.kind+" removed", false)
		if l.Len() != 0 {
			t.Errorf("%s: Len = %d", tt.kind, l.Len())
		}
	}
}

// TestRevokeTenantReplaces: the revocation of a tenant takes the place of its older ones, and
// of nothing else.
func TestRevokeTenantReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := verifier.NewRevocationList(10)
		revoke := func(tenant string) error {
			now := time.Now()
			return errors.Join(l.RevokeToken(tenant, "1", now.Add(time.Hour)), l.RevokeToken(tenant, "forever", time.Time{}),
				l.RevokeSubject(tenant, "ann", now), l.RevokeSubject(tenant, "later", now.Add(time.Hour)),
				l.RevokeSession(tenant, "s", now.Add(time.Hour)))
		}
		if err := errors.Join(revoke("acme"), revoke("globex")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Minute - time.Second)
		steps := []struct {
			what string
			want int // of acme, its own revocation included
		}{
			{"the token may have been issued after it, by a clock that is ahead", 5},
			{"all but what is later, or outlives it", 4},
			{"a subject that is covered takes no room", 4},
		}
		for i, step := range steps {
			if err := l.RevokeTenant("acme", time.Now()); err != nil {
				t.Fatal(err)
			}
			if i == 2 {
				if err := l.RevokeSubject("acme", "bob", time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			if got := l.Len() - 5; got != step.want {
				t.Errorf("%s: %d of acme are left, want %d", step.what, got, step.want)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestRevokeSession: a session ends for tokens of every iat, of its own tenant, and for nothing that
// merely has its name.
func TestRevokeSession(t *testing.T) {
	w := newTwin(t, tenant(t, "acme", "https://acme", nil), tenant(t, "globex", "https://globex", nil))
	late := tokenOf("acme", `"iss":"https://acme","sid":"s","iat":1800000000`)
	undated := tokenOf("acme", `"iss":"https://acme","sid":"s"`)
	others := []string{
		tokenOf("globex", `"iss":"https://globex","sid":"s"`), tokenOf("acme", `"iss":"https://acme","sid":"S"`), tokenOf("acme", `"iss":"https://acme","jti":"s","sub":"s"`),
		tokenOf("acme", `"iss":"https://acme","sid":["s"]`), tokenOf("acme", `"iss":"https://acme"`),
	}
	w.hit("at first", late)
	list := w.revocations.(*verifier.RevocationList)
	if err := list.RevokeSession("acme", "s", time.Unix(1800003600, 0)); err != nil {
		t.Fatal(err)
	}
	w.verify("revoked", late, verifier.ErrRevoked)
	w.verify("revoked, without iat", undated, verifier.ErrRevoked)
	for i, token := range others {
		w.verify(fmt.Sprint("other ", i), token, nil)
	}
	if err := list.RevokeTenant("acme", time.Unix(1799999999, 0)); err != nil {
		t.Fatal(err)
	}
	w.verify("the tenant is revoked before its iat", late, verifier.ErrRevoked)
}
