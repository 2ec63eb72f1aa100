package token

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestSetClaimsRefuses: the error says which claim is wrong, and quotes no value.
func TestSetClaimsRefuses(t *testing.T) {
	type expiry struct {
		Exp string `json:"exp"`
	}
	for _, tt := range []struct {
		claims      any
		claim, want string
	}{
		{map[string]any{"exp": "private"}, "exp", `claim "exp" must be a number of seconds`},
		{expiry{"private"}, "exp", `claim "exp" must be a number of seconds`},
		{map[string]any{"sub": 17}, "sub", `claim "sub" must be a string`},
		{map[string]any{"aud": []any{"private", 1}}, "aud", `claim "aud" must be a string or an array of strings`},
		{map[string]any{"Exp": 1}, "", `claim "Exp" differs from "exp" only by case`},
		{[]string{"private"}, "", "want a JSON object"},
		{"private", "", "want a JSON object"},
		{map[string]any{"f": func() {}}, "", "cannot be encoded as JSON"},
		{map[string]any{"s": "private\xff"}, "", "cannot be encoded as JSON"},
	} {
		b := NewBuffer()
		claim, err := b.SetClaims(tt.claims)
		if err == nil || claim != tt.claim || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "private") {
			t.Errorf("%T %v: claim %q, %v, want %q", tt.claims, tt.claims, claim, err, tt.want)
		}
		if strings.Contains(tt.want, "encoded") != errors.Is(err, ErrNotJSON) {
			t.Errorf("%v is ErrNotJSON: %t", err, errors.Is(err, ErrNotJSON))
		}
		b.Release()
	}
}

// general has the claims of a map, but not its type: SetClaims takes the general encoder for it.
type general map[string]any

// FuzzSetClaims: the short way for claims of the usual types, and the general encoder, agree about
// every claim and about the registered ones.
func FuzzSetClaims(f *testing.F) {
	f.Add("exp", "sub", "ann", 1.8e9, int64(1), true)
	f.Add("Exp", "", "\xff", 1e300, int64(-1), false)
	f.Add("aud", "iss", "\u2028<\"\\\x00", 0.5, int64(1)<<62, true)
	f.Fuzz(func(t *testing.T, name1, name2, text string, number float64, whole int64, yes bool) {
		for _, value := range []any{text, number, whole, int(whole), yes, []string{text, name1}, []string{}, nil} {
			claims := map[string]any{name1: value, name2: text}
			short, long := new(Buffer), new(Buffer)
			_, err1 := short.SetClaims(claims)
			_, err2 := long.SetClaims(general(claims))
			if (err1 == nil) != (err2 == nil) {
				t.Fatalf("%q: %v, in general %v", claims, err1, err2)
			}
			if err1 != nil {
				continue
			}
			var got, want any
			if err := errors.Join(json.Unmarshal(short.payload, &got), json.Unmarshal(long.payload, &want)); err != nil {
				t.Fatalf("%s, in general %s: %v", short.payload, long.payload, err)
			}
			if !reflect.DeepEqual(got, want) || short.has.set != long.has.set || !short.has.exp.Equal(long.has.exp) || short.has.fraction != long.has.fraction {
				t.Errorf("%s %+v, in general %s %+v", short.payload, short.has, long.payload, long.has)
			}
		}
	})
}
