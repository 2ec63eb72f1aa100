package token

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// sign returns the claims of a token that was made from claims, and the Buffer's exp.
func sign(t *testing.T, claims any, d Defaults) (map[string]any, time.Time) {
	t.Helper()
	key, err := NewKey(keystore.ID{Tenant: "acme", KID: "k"}, keystore.HS256, secret32(), "JWT")
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuffer()
	defer b.Release()
	if _, err := b.SetClaims(claims); err != nil {
		t.Fatal(err)
	}
	b.AddDefaults(d)
	signed, err := b.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(signed, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatalf("%s: %v", payload, err)
	}
	return got, b.Exp()
}

// TestAddDefaults: a token gets the claims that it lacks, and keeps its own.
func TestAddDefaults(t *testing.T) {
	now := time.Unix(1_800_000_000, 999e6)
	d := Defaults{Now: now, TTL: time.Minute, Issuer: "https://issuer", Audience: []string{"a", "b"}}
	got, exp := sign(t, nil, d)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, []string{"aud", "exp", "iat", "iss", "jti"}) {
		t.Errorf("claims %q", names)
	}
	if got["iat"] != 1.8e9 || got["exp"] != 1.8e9+60 || got["iss"] != "https://issuer" || !exp.Equal(time.Unix(1_800_000_060, 0)) {
		t.Errorf("claims %v, exp %v", got, exp)
	}
	if jti, err := base64.RawURLEncoding.DecodeString(got["jti"].(string)); err != nil || len(jti) != 16 {
		t.Errorf("jti %q, %v", got["jti"], err)
	}

	own := map[string]any{"iat": 1.0, "exp": 2e9, "iss": "me", "aud": "you", "jti": "1", "sub": "ann"}
	if got, exp := sign(t, own, d); !maps.Equal(got, own) || !exp.Equal(time.Unix(2e9, 0)) {
		t.Errorf("claims %v, exp %v, want %v", got, exp, own)
	}
	if got, _ := sign(t, map[string]any{"sub": "ann"}, Defaults{Now: now, TTL: time.Minute}); got["iss"] != nil || got["aud"] != nil || got["sub"] != "ann" {
		t.Errorf("claims %v", got)
	}
}

// TestLastSecond: an exp with a fraction ends in the second after it.
func TestLastSecond(t *testing.T) {
	for exp, want := range map[float64]int64{1.8e9: 1_800_000_000, 1.8e9 + .5: 1_800_000_001} {
		b := NewBuffer()
		if _, err := b.SetClaims(map[string]any{"exp": exp}); err != nil {
			t.Fatal(err)
		}
		if b.Exp().Unix() != 1_800_000_000 || b.LastSecond().Unix() != want {
			t.Errorf("exp %v: Exp %v, LastSecond %v", exp, b.Exp(), b.LastSecond())
		}
		b.Release()
	}
}

// TestBufferHasNoPast: a Buffer that was used before makes the same token as a new one.
func TestBufferHasNoPast(t *testing.T) {
	b := NewBuffer()
	for _, claims := range []any{map[string]any{"exp": 1, "iss": "x", "pad": strings.Repeat("x", maxPooled)}, struct{ Aud []string }{[]string{"a"}}} {
		b.SetClaims(claims)
		b.AddDefaults(Defaults{Now: time.Unix(1, 0), TTL: time.Second})
	}
	if _, err := b.SetClaims(nil); err != nil || string(b.payload) != "{}" || b.HasIssuer() || b.HasAudience() || !b.Exp().IsZero() {
		t.Errorf("payload %s, exp %v, %v", b.payload, b.Exp(), err)
	}
}
