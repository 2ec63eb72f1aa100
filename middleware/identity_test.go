package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// verified returns the good token of acme with these claims.
func verified(t *testing.T, changes ...any) *verifier.Token {
	t.Helper()
	token, err := newVerifier(t, "acme").Verify(t.Context(), good("acme", changes...))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// identityOf returns the headers that id sets for the token.
func identityOf(t *testing.T, id middleware.Identity, token *verifier.Token) http.Header {
	t.Helper()
	h := make(http.Header)
	if err := id.Set(t.Context(), h, token); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestIdentitySetsEveryHeaderOnce(t *testing.T) {
	h := identityOf(t, middleware.Identity{}, verified(t, "scope", "a b", "jti", "7"))
	want := http.Header{"X-Auth-Tenant": {"acme"}, "X-Auth-Subject": {"ann"}, "X-Auth-Scopes": {"a b"},
		"X-Auth-Expires": {fmt.Sprint(now + 600)}, "X-Auth-Token-Id": {"7"}}
	if fmt.Sprint(h) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", h, want)
	}
	h = identityOf(t, middleware.Identity{Prefix: "remote-"}, verified(t, "sub", nil))
	want = http.Header{"Remote-Tenant": {"acme"}, "Remote-Subject": {""}, "Remote-Scopes": {""}, "Remote-Expires": {fmt.Sprint(now + 600)}, "Remote-Token-Id": {""}}
	if fmt.Sprint(h) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", h, want)
	}
}

// A value comes back by decoding it, and holds nothing that a program on the way could read in
// another way.
func TestIdentityValues(t *testing.T) {
	for sub, want := range map[string]string{
		"auth0|1": "auth0|1", "José": "Jos%C3%A9", "a b": "a%20b", "100%": "100%25", "a,b": "a%2Cb", `"a\b"`: "%22a%5Cb%22",
		"a\r\nX-Auth-Tenant: globex": "a%0D%0AX-Auth-Tenant:%20globex", "\x7f": "%7F", "{http.request.header.x}": "{http.request.header.x}", "": "", "%41": "%2541",
	} {
		h := identityOf(t, middleware.Identity{}, verified(t, "sub", sub))
		if got := h.Get("X-Auth-Subject"); got != want {
			t.Errorf("sub %q becomes %q, want %q", sub, got, want)
		}
		if back, err := url.PathUnescape(h.Get("X-Auth-Subject")); err != nil || back != sub {
			t.Errorf("%q decodes to %q, %v, want %q", want, back, err, sub)
		}
	}
	h := identityOf(t, middleware.Identity{}, verified(t, "scope", []string{"read:a,b", "x y", "é"}))
	if got, want := h.Get("X-Auth-Scopes"), "read:a%2Cb x y %C3%A9"; got != want {
		t.Errorf("scopes %q, want %q", got, want)
	}
}

func TestIdentityClaims(t *testing.T) {
	id := middleware.Identity{Claims: map[string]string{"Email": "email", "Admin": "admin", "Org-Number": "org.number", "List": "list", "Object": "org", "Null": "null", "None": "none"}}
	h := identityOf(t, id, verified(t, "email", "ann@é.example", "admin", true, "org", map[string]any{"number": 9007199254740993}, "list", []string{"a"}, "null", nil))
	for name, want := range map[string]string{"Email": "ann@%C3%A9.example", "Admin": "true", "Org-Number": "9007199254740993", "List": "", "Object": "", "Null": "", "None": ""} {
		if got := h["X-Auth-"+name]; len(got) != 1 || got[0] != want {
			t.Errorf("X-Auth-%s is %q, want %q", name, got, want)
		}
	}
}

// A test for each report of an identity header that a client could write.
func TestIdentityStrip(t *testing.T) {
	for report, names := range map[string][]string{
		"GHSA_7r4p_vjf4_gxv4_ClientHeaderSurvives":    {"X-Auth-Subject", "X-Auth-Scopes", "X-Auth-Nothing-Of-Ours", "X-Auth-"},
		"GHSA_vjrc_mh2v_45x6_UnderscoreAlias":         {"X_Auth_Subject", "X-Auth_Subject", "x_auth-subject"},
		"GHSA_f59h_q822_g45g_UnderscoreAliasInCaddy":  {"X_auth_subject"},
		"GHSA_5m6w_wvh7_57vm_DotAliasInTraefik":       {"X.Auth.Subject", "X.Auth-Subject"},
		"GHSA_rf44_j88r_hh8c_OtherCharacters":         {"X~Auth~Subject", "X!Auth'Subject", "X|Auth`Subject", "X#Auth$Subject", "X&Auth*Subject", "X+Auth^Subject"},
		"apache_apisix_13183_CaseThatIsNotCanonical":  {"x-auth-subject", "X-AUTH-SUBJECT", "x-aUTH_sUBJECT"},
		"apache_apisix_11738_HeadersOfOtherProviders": {"X-Auth-Request-User", "X-Auth-User"},
	} {
		t.Run(report, func(t *testing.T) {
			h := http.Header{"X-Authority": {"kept"}, "Authorization": {"kept"}, "X-Auth": {"kept"}, "Auth-Subject": {"kept"}, "Xauth-Subject": {"kept"}}
			want := slices.Sorted(maps.Keys(h))
			for _, name := range names {
				h[name] = []string{"eve", "mallory"}
			}
			middleware.Identity{}.Strip(h)
			if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, want) {
				t.Errorf("left: %q, want %q", got, want)
			}
		})
	}
}

func TestIdentityStripGolang50580_ConnectionNamesIdentity(t *testing.T) {
	for value, want := range map[string]string{
		"X-Auth-Subject": "", "close, X-Auth-Subject": "close", "x_auth_subject,\tkeep-alive": "keep-alive", "Upgrade": "Upgrade", "close, te": "close, te", " , x-auth-a, ": ",",
	} {
		for _, name := range []string{"Connection", "Trailer"} {
			h := http.Header{name: {"X-Auth-Tenant", value}}
			middleware.Identity{}.Strip(h)
			if got := strings.Join(h[name], "; "); strings.TrimSpace(got) != want {
				t.Errorf("%s: %q becomes %q, want %q", name, value, got, want)
			}
		}
	}
}

// Set leaves no header of the client's that may be taken for one of its own.
func TestIdentitySetStrips(t *testing.T) {
	h := http.Header{"X_Auth_Subject": {"eve"}, "X-Auth-Subject": {"eve", "eve"}, "X-Auth-Email": {"eve"}, "Accept": {"*/*"}}
	if err := (middleware.Identity{}).Set(t.Context(), h, verified(t)); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(h); strings.Contains(got, "eve") || h.Get("X-Auth-Subject") != "ann" || len(h) != 6 {
		t.Errorf("got %v", h)
	}
}

func TestIdentityTooLarge(t *testing.T) {
	fits := strings.Repeat("s", 1<<10-len("X-Auth-Subject: \r\n"))
	nine := map[string]string{"A": "a", "B": "a", "C": "a", "D": "a"}
	for _, tt := range []struct {
		name   string
		id     middleware.Identity
		claims []any
		ok     bool
	}{
		{"one header of 1 KiB", middleware.Identity{}, []any{"sub", fits}, true},
		{"one header of a byte more", middleware.Identity{}, []any{"sub", fits + "s"}, false},
		{"it counts as it is encoded", middleware.Identity{}, []any{"sub", fits[:500] + strings.Repeat(" ", 200)}, false},
		{"all of them below 3 KiB", middleware.Identity{Claims: nine}, []any{"a", fits[:600]}, true},
		{"all of them above 3 KiB", middleware.Identity{Claims: nine}, []any{"a", fits[:800]}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{"X-Auth-Subject": {"eve"}}
			err := tt.id.Set(t.Context(), h, verified(t, tt.claims...))
			if tt.ok != (err == nil) {
				t.Fatalf("error %v", err)
			}
			if !tt.ok && (!errors.Is(err, middleware.ErrTooLarge) || middleware.Status(err) != 403 || len(h) != 0) {
				t.Errorf("error %v, headers %v; want ErrTooLarge, 403 and none", err, h)
			}
		})
	}
	w := httptest.NewRecorder()
	middleware.Refuse(w, request("GET", "/"), middleware.ErrTooLarge)
	if w.Code != 403 || !strings.Contains(w.Body.String(), `"identity_too_large"`) {
		t.Errorf("the answer: %s", answerOf(w))
	}
}

func TestIdentityValidate(t *testing.T) {
	for _, bad := range []middleware.Identity{
		{Prefix: "X-Auth"}, {Prefix: "-"}, {Prefix: "X-"}, {Prefix: "X_Auth-"}, {Prefix: "X-Äuth-"}, {Prefix: "Content-"}, {Prefix: "x-forwarded-"}, {Prefix: "X-Forwarded-User-"}, {Prefix: "x-\r\n-"},
		{Prefix: strings.Repeat("x", 64) + "-"}, {Prefix: "-X-"}, {Claims: map[string]string{"": "email"}}, {Claims: map[string]string{"E mail": "email"}}, {Claims: map[string]string{"Email": ""}},
		{Claims: map[string]string{"Token_Id": "email"}}, {Claims: map[string]string{"token-id": "jti"}}, {Claims: map[string]string{"assertion": "email"}}, {Claims: map[string]string{"Email": "a", "email": "b"}},
		{Claims: map[string]string{"Aud": "aud"}}, {Claims: map[string]string{"Roles": "realm_access"}}, {AssertTenant: "x"}, {Asserter: asserts("x")},
		{Asserter: asserts("x"), AssertTenant: "x", AssertTTL: -1}, {Asserter: asserts("x"), AssertTenant: "x", AssertTTL: time.Hour},
	} {
		err := bad.Validate()
		if err == nil {
			t.Errorf("%+v is accepted", bad)
			continue
		}
		if err := bad.Set(t.Context(), make(http.Header), verified(t)); middleware.Status(err) != 503 {
			t.Errorf("%+v: Set returns %v, want 503", bad, err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v: Strip does not panic", bad)
				}
			}()
			bad.Strip(nil)
		}()
	}
	many := middleware.Identity{Claims: make(map[string]string)}
	for i := range 17 {
		if err := many.Validate(); err != nil {
			t.Errorf("%d claims: %v", i, err)
		}
		many.Claims[fmt.Sprintf("C%d", i)] = "c"
	}
	if many.Validate() == nil {
		t.Error("17 claims are accepted")
	}
}

// asserts is an Asserter with one answer.
type asserts string

func (a asserts) Sign(context.Context, string, any) (string, error) { return string(a), nil }

type assertFails struct{ err error }

func (a assertFails) Sign(context.Context, string, any) (string, error) { return "", a.err }

// An assertion is a token of another issuer: it says who the caller is, and ends with the caller's
// token.
func TestIdentityAssertion(t *testing.T) {
	clock := func() time.Time { return time.Unix(now, 0) }
	signer, err := rotation.NewStaticSigner(secretKey(t, "globex", "kid-globex").ID(), "HS256", secretOf("globex"), rotation.SignerConfig{Now: clock,
		Issuer: func(string) string { return "https://globex.example" }, Audience: func(string) []string { return []string{"api"} }})
	if err != nil {
		t.Fatal(err)
	}
	id := middleware.Identity{Asserter: signer, AssertTenant: "globex", Now: clock}
	for exp, want := range map[int64]int64{now + 600: now + 60, now + 30: now + 30} {
		h := identityOf(t, id, verified(t, "exp", exp, "sub", "José", "act", map[string]any{"sub": "x"}, "scope", "all"))
		token, err := newVerifier(t, "globex").Verify(t.Context(), h.Get("X-Auth-Assertion"))
		if err != nil {
			t.Fatal(err)
		}
		claims, err := verifier.Claims[map[string]any](token)
		if err != nil || claims["tenant"] != "acme" || claims["sub"] != "José" || claims["exp"] != float64(want) || claims["act"] != nil || claims["scope"] != nil || claims["jti"] == nil {
			t.Errorf("claims %v, %v; want exp %d", claims, err, want)
		}
	}
	for _, bad := range []middleware.Asserter{asserts(""), asserts("a\r\nb"), assertFails{errors.New("hush")}, assertFails{verifier.ErrInvalid}, assertFails{&verifier.Error{Reason: verifier.ReasonExpired, Err: verifier.ErrExpired}}} {
		h := make(http.Header)
		if err := (middleware.Identity{Asserter: bad, AssertTenant: "x"}).Set(t.Context(), h, verified(t)); middleware.Status(err) != 503 || len(h) != 0 {
			t.Errorf("%v: error %v, headers %v; want 503 and none", bad, err, h)
		}
	}
	if err := (middleware.Identity{}).Set(t.Context(), make(http.Header), nil); middleware.Status(err) != 503 {
		t.Errorf("no token: %v", err)
	}
}

func FuzzIdentity(f *testing.F) {
	f.Add("X_Auth_Subject", "ann", "a,b")
	f.Add("x-auth-", "José\x00%", " \t")
	f.Fuzz(func(t *testing.T, name, sub, email string) {
		h := http.Header{name: {"eve"}}
		id := middleware.Identity{Claims: map[string]string{"Email": "email"}}
		token, err := newVerifier(t, "acme").Verify(t.Context(), good("acme", "sub", sub, "email", email))
		if err != nil || id.Set(t.Context(), h, token) != nil {
			return // not UTF-8, or too large
		}
		for header, values := range h {
			if header == name {
				if folded := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name)); strings.HasPrefix(folded, "x-auth-") && values[0] == "eve" {
					t.Errorf("%q is left", name)
				}
				continue
			}
			if len(values) != 1 || strings.ContainsFunc(values[0], func(r rune) bool { return r <= ' ' || r > '~' || r == ',' || r == '"' }) {
				t.Errorf("%s: %q", header, values)
			}
		}
		for header, want := range map[string]string{"X-Auth-Subject": sub, "X-Auth-Email": email} {
			if got, err := url.PathUnescape(h.Get(header)); err != nil || got != want && header != name {
				t.Errorf("%s: %q, %v, want %q", header, got, err, want)
			}
		}
	})
}
