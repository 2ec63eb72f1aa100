package verifier_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

func TestToken(t *testing.T) {
	tok := verified(t, with(`"jti":"j\u00e9"`))
	if tok.Tenant() != "acme" || tok.Issuer() != "https://acme.example" || tok.Subject() != "ann" || tok.ID() != "jé" ||
		tok.KeyID() != "1" || tok.Algorithm() != keystore.HS256 || tok.Cached() ||
		!tok.Expires().Equal(time.Unix(1800003600, 0)) || !tok.IssuedAt().Equal(time.Unix(1799999940, 0)) {
		t.Errorf("%+v: %q %q %q %q %q %v %v", tok, tok.Tenant(), tok.Issuer(), tok.Subject(), tok.ID(), tok.KeyID(), tok.Expires(), tok.IssuedAt())
	}
	r := acme(t)
	r.AllowNoExpiry = true
	bare, err := newVerifier(t, r).Verify(t.Context(), sign(`{"alg":"HS256"}`, `{"iss":"https://acme.example","aud":"api"}`))
	if err != nil {
		t.Fatal(err)
	}
	for scope := range bare.EachScope {
		t.Errorf("EachScope yields %q", scope)
	}
	if bare.Subject() != "" || bare.ID() != "" || bare.KeyID() != "" || !bare.Expires().IsZero() || !bare.IssuedAt().IsZero() || bare.Scopes() != nil {
		t.Errorf("a token without those claims has some: %q", bare.Scopes())
	}
}

func TestAudienceAndScopes(t *testing.T) {
	for _, tt := range []struct {
		member    string
		aud       []string
		scopes    []string
		not       string // neither a scope nor an audience
		wantScope string
	}{
		{`"aud":"api"`, []string{"api"}, nil, "", ""},
		{`"aud":["x", "api" , "y\n"]`, []string{"x", "api", "y\n"}, nil, "y", ""},
		{`"scope":"read write"`, []string{"api"}, []string{"read", "write"}, "read write", "write"},
		{`"scope":" read  write "`, []string{"api"}, []string{"read", "write"}, "", "read"},
		{"\"scope\":\"a\u00a0b\"", []string{"api"}, []string{"a\u00a0b"}, "a", "a\u00a0b"},
		{`"scope":""`, []string{"api"}, nil, "", ""},
		{`"scope":{"read":true}`, []string{"api"}, nil, "read", ""},
		{`"scp":"read write"`, []string{"api"}, []string{"read", "write"}, "", "write"},
		{`"scp":["read","write all"]`, []string{"api"}, []string{"read", "write", "all"}, "write all", "read"},
		{`"scp":["read",1]`, []string{"api"}, nil, "read", ""},
		{`"scope":"a","scp":"b"`, []string{"api"}, []string{"a"}, "b", "a"},
		{`"scope":null,"scp":"b"`, []string{"api"}, nil, "b", ""},
	} {
		tok := verified(t, with(tt.member))
		if got := tok.Audience(); !slices.Equal(got, tt.aud) {
			t.Errorf("%s: audience %q, want %q", tt.member, got, tt.aud)
		}
		if got := tok.Scopes(); !slices.Equal(got, tt.scopes) {
			t.Errorf("%s: scopes %q, want %q", tt.member, got, tt.scopes)
		}
		for most := range tt.scopes {
			var some []string
			for scope := range tok.EachScope {
				if some = append(some, scope); len(some) == most+1 {
					break
				}
			}
			if !slices.Equal(some, tt.scopes[:most+1]) {
				t.Errorf("%s: the first %d scopes are %q", tt.member, most+1, some)
			}
		}
		if tok.HasScope(tt.not) || tok.HasAudience(tt.not) {
			t.Errorf("%s: has %q", tt.member, tt.not)
		}
		if tt.wantScope != "" && !tok.HasScope(tt.wantScope) {
			t.Errorf("%s: lacks %q", tt.member, tt.wantScope)
		}
		if !tok.HasAudience(tt.aud[0]) {
			t.Errorf("%s: lacks audience %q", tt.member, tt.aud[0])
		}
	}
}

// TestTokenIsImmutable: if a caller changes a result of a Token, no other caller sees it.
func TestTokenIsImmutable(t *testing.T) {
	tok := verified(t, strings.Replace(with(`"roles":["admin"],"scope":"read"`), `"aud":"api"`, `"aud":["api","x"]`, 1))
	m, err := verifier.Claims[map[string]any](tok)
	if err != nil {
		t.Fatal(err)
	}
	m["roles"].([]any)[0] = "root"
	maps.DeleteFunc(m, func(string, any) bool { return true })
	tok.Audience()[0], tok.Scopes()[0] = "evil", "evil"

	again, err := verifier.Claims[struct {
		Roles []string `json:"roles"`
	}](tok)
	if err != nil || !slices.Equal(again.Roles, []string{"admin"}) || !tok.HasAudience("api") || !tok.HasScope("read") {
		t.Errorf("%v, %v, %v, %v", again, err, tok.Audience(), tok.Scopes())
	}
}

func TestClaims(t *testing.T) {
	type claims struct {
		Sub   string `json:"sub"`
		Exp   int64  `json:"exp"`
		Email string `json:"email"`
		Org   *struct {
			ID int `json:"id"`
		} `json:"org"`
	}
	tok := verified(t, with(`"email":"ann@example.com","Email":"x","org":{"id":7}`))
	got, err := verifier.Claims[claims](tok)
	if err != nil || got.Sub != "ann" || got.Exp != 1800003600 || got.Email != "ann@example.com" || got.Org == nil || got.Org.ID != 7 {
		t.Errorf("%+v, %v", got, err)
	}

	tok = verified(t, with(`"email":["secret-of-ann"]`))
	got, err = verifier.Claims[claims](tok)
	if err == nil || strings.Contains(err.Error(), "secret-of-ann") || !strings.Contains(err.Error(), `"email"`) {
		t.Errorf("claims that do not fit: %v", err)
	}
	if got != (claims{}) {
		t.Errorf("half-decoded claims along with an error: %+v", got)
	}
	if _, err := verifier.Claims[claims](nil); err == nil {
		t.Error("claims of no token")
	}
}

func TestContext(t *testing.T) {
	if tok, ok := verifier.FromContext(t.Context()); ok || tok != nil {
		t.Error("a token from nowhere")
	}
	tok := verified(t, goodPayload)
	if got, ok := verifier.FromContext(verifier.NewContext(t.Context(), tok)); !ok || got != tok {
		t.Error("not the token put in")
	}
	if _, ok := verifier.FromContext(verifier.NewContext(t.Context(), nil)); ok {
		t.Error("no token is a token")
	}
}

// TestNothingLeaks searches everything that a program might print for the token, the
// secret and the values of claims.
func TestNothingLeaks(t *testing.T) {
	r := acme(t)
	r.Check = func(tok *verifier.Token) error {
		if tok.HasScope("refuse") {
			return fmt.Errorf("subject %s", tok.Subject())
		}
		return nil
	}
	v := newVerifier(t, r)
	const private = "private-value-of-ann"
	tokens := []string{
		sign(goodHeader, with(`"sub":"`+private+`"`)),
		sign(goodHeader, with(`"sub":"`+private+`","exp":1,"iat":0`)),
		sign(goodHeader, with(`"sub":["`+private+`"]`)),
		sign(goodHeader, with(`"sub":"`+private+`","aud":"`+private+`"`)),
		sign(goodHeader, with(`"sub":"`+private+`","scope":"refuse"`)),
		sign(goodHeader, with(`"sub":"`+private+`","iss":"`+private+`"`)),
		sign(goodHeader, with(`"sub":"`+private+`",`)),
		sign(`{"alg":"`+private+`"}`, goodPayload),
		sign(`{"alg":"HS256","kid":"1","typ":"`+private+`"}`, goodPayload),
		sign(goodHeader, `{"sub":"`+private+`"`),
		sign(goodHeader, with(`"sub":"`+private+`"`))[3:],
	}
	for _, token := range tokens {
		tok, err := v.Verify(t.Context(), token)
		var b bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&b, verb+verb+verb+verb, tok, err, struct {
				T *verifier.Token
				E error
				V *verifier.Verifier
			}{tok, err, v}, struct {
				t *verifier.Token
				e error
				v *verifier.Verifier
			}{tok, err, v})
			if tok != nil {
				fmt.Fprintf(&b, verb+verb, *tok, []verifier.Token{*tok})
			}
		}
		for _, h := range []slog.Handler{slog.NewJSONHandler(&b, nil), slog.NewTextHandler(&b, nil)} {
			slog.New(h).InfoContext(context.Background(), "x", "token", tok, "err", err, "both", []any{tok, err})
		}
		text, _ := json.Marshal([]any{tok, err})
		b.Write(text)
		out := b.String()
		parts := append(strings.Split(token, "."), token, private, b64([]byte(private)), string(secret), fmt.Sprintf("%x", private))
		for _, p := range parts {
			if len(p) > 8 && strings.Contains(out, p) {
				t.Errorf("%v, %v: what is printed holds %q", tok, err, p)
			}
		}
	}
}

// A Token that no verifier made has no claims, as a nil one has none.
func TestClaimsOfNoToken(t *testing.T) {
	for _, tok := range []*verifier.Token{nil, {}} {
		if claims, err := verifier.Claims[map[string]any](tok); claims != nil || err == nil {
			t.Errorf("Claims of %v = %v, %v", tok, claims, err)
		}
	}
}
