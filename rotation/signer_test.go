package rotation_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

var (
	id     = keystore.ID{Tenant: "acme", KID: `k"1`}
	secret = []byte(strings.Repeat("s", 64))
	now    = time.Unix(1800000000, 999_999_999)
)

func config() rotation.SignerConfig {
	return rotation.SignerConfig{
		Issuer:   func(tenant string) string { return "https://" + tenant + ".example" },
		Audience: func(string) []string { return []string{"api"} },
		Now:      func() time.Time { return now },
	}
}

// split returns a token's header, claims, signing input and signature.
func split(t *testing.T, token string) (header, claims map[string]any, signed, sig []byte) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil {
			t.Fatal(err)
		}
		raw[i] = b
	}
	if err := errors.Join(json.Unmarshal(raw[0], &header), json.Unmarshal(raw[1], &claims)); err != nil {
		t.Fatal(err)
	}
	return header, claims, []byte(parts[0] + "." + parts[1]), raw[2]
}

func TestEveryAlgorithmVerifies(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[keystore.Algorithm]any{
		"HS256": secret, "HS384": secret, "HS512": secret,
		"RS256": rsaKey, "RS384": rsaKey, "RS512": rsaKey, "PS256": rsaKey, "PS384": rsaKey, "PS512": rsaKey,
		"ES256": ec(elliptic.P256()), "ES384": ec(elliptic.P384()), "ES512": ec(elliptic.P521()),
		"EdDSA": ed, "Ed25519": ed,
	}
	for _, alg := range keystore.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			s, err := rotation.NewStaticSigner(id, alg, keys[alg], config())
			if err != nil {
				t.Fatal(err)
			}
			var k *keystore.Key
			if private, ok := keys[alg].(crypto.Signer); ok {
				k, err = keystore.NewPublic(id, alg, private.Public())
			} else {
				k, err = keystore.NewSecret(id, alg, secret)
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 20 { // R and S of ECDSA are shorter now and then
				token, err := s.Sign(t.Context(), "acme", nil)
				if err != nil {
					t.Fatal(err)
				}
				header, _, signed, sig := split(t, token)
				if !k.Verify(signed, sig) {
					t.Fatal("its signature does not verify")
				}
				if header["alg"] != string(alg) || header["kid"] != id.KID || header["typ"] != "JWT" || len(header) != 3 {
					t.Fatalf("header %v", header)
				}
			}
		})
	}
}

func TestSignFillsIn(t *testing.T) {
	type custom struct {
		Sub string `json:"sub"`
		Exp int64  `json:"exp,omitzero"`
	}
	two := config()
	two.Audience = func(string) []string { return []string{"a", "b\"\n"} }
	two.TTL = time.Hour
	two.Type = "at+jwt"
	bare := rotation.SignerConfig{Now: two.Now}
	tests := []struct {
		name   string
		cfg    rotation.SignerConfig
		claims any
		want   string // without jti
	}{
		{"nothing", config(), nil, `{"aud":"api","exp":1800000900,"iat":1800000000,"iss":"https://acme.example"}`},
		{"a map", config(), map[string]any{"sub": "ann", "n": 1}, `{"aud":"api","exp":1800000900,"iat":1800000000,"iss":"https://acme.example","n":1,"sub":"ann"}`},
		{"a struct", config(), custom{Sub: "ann"}, `{"aud":"api","exp":1800000900,"iat":1800000000,"iss":"https://acme.example","sub":"ann"}`},
		{"what the claims say stays", config(), custom{Sub: "ann", Exp: 7}, `{"aud":"api","exp":7,"iat":1800000000,"iss":"https://acme.example","sub":"ann"}`},
		{"all of it", config(), json.RawMessage(`{"iss":"i","aud":["x"],"exp":9.5,"iat":1,"nbf":2}`), `{"aud":["x"],"exp":9.5,"iat":1,"iss":"i","nbf":2}`},
		{"white space and escapes", bare, json.RawMessage(" { \"\\u0065xp\" : 9 ,\r\n\t\"a\\\"}\" : { \"exp\" : [ 1 , \"]\\\\\" ] } , \"iat\" : 1 } "), `{"a\"}":{"exp":[1,"]\\"]},"exp":9,"iat":1}`},
		{"all plain types", bare, map[string]any{"s": "a\"\u2028<", "b": true, "i": 7, "l": int64(-8), "f": 9.0, "a": []string{"x", "y\n"}, "": "", "exp": 9}, `{"":"","a":["x","y\n"],"b":true,"exp":9,"f":9,"i":7,"iat":1800000000,"l":-8,"s":"a\"` + "\\u2028" + `<"}`},
		{"other types", bare, map[string]any{"f": 9.5, "m": map[string]any{"x": nil}, "u": uint8(3), "sub": "ann", "exp": 1e9}, `{"exp":1000000000,"f":9.5,"iat":1800000000,"m":{"x":null},"sub":"ann","u":3}`},
		{"two audiences, an hour", two, nil, `{"aud":["a","b\"\n"],"exp":1800003600,"iat":1800000000,"iss":"https://acme.example"}`},
		{"neither issuer nor audience", bare, nil, `{"exp":1800000900,"iat":1800000000}`},
		{"an empty map", bare, map[string]string{}, `{"exp":1800000900,"iat":1800000000}`},
		{"a nil map", bare, map[string]any(nil), `{"exp":1800000900,"iat":1800000000}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := rotation.NewStaticSigner(id, keystore.HS256, secret, tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			token, err := s.Sign(t.Context(), "acme", tt.claims)
			if err != nil {
				t.Fatal(err)
			}
			header, claims, _, _ := split(t, token)
			if jti, _ := claims["jti"].(string); len(jti) != 22 {
				t.Errorf("jti %q", jti)
			}
			delete(claims, "jti")
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			if err := e.Encode(claims); err != nil {
				t.Fatal(err)
			}
			if got := strings.NewReplacer("1.8000009e+09", "1800000900").Replace(strings.TrimSpace(b.String())); got != tt.want {
				t.Errorf("claims %s\nwant   %s", got, tt.want)
			}
			if want := tt.cfg.Type; want != "" && header["typ"] != want {
				t.Errorf("header %v", header)
			}
		})
	}
}

func TestOwnJTIStays(t *testing.T) {
	s, err := rotation.NewStaticSigner(keystore.ID{Tenant: "acme"}, keystore.HS256, secret, rotation.SignerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Sign(t.Context(), "acme", map[string]string{"jti": "mine"})
	if err != nil {
		t.Fatal(err)
	}
	header, claims, _, _ := split(t, token)
	if _, ok := header["kid"]; ok || claims["jti"] != "mine" {
		t.Errorf("%v %v", header, claims)
	}
}

func TestSignRefuses(t *testing.T) {
	s, err := rotation.NewStaticSigner(id, keystore.HS256, secret, config())
	if err != nil {
		t.Fatal(err)
	}
	const private = "private-value"
	for _, tt := range []struct {
		name   string
		tenant string
		claims any
		want   string
	}{
		{"another tenant", "globex", nil, `"globex"`},
		{"no tenant", "", nil, `""`},
		{"not an object", "acme", []string{private}, "JSON object"},
		{"a string", "acme", private, "JSON object"},
		{"a nil pointer", "acme", (*struct{})(nil), "JSON object"},
		{"not JSON", "acme", json.RawMessage(`{"a":` + private), "cannot be encoded"},
		{"twice", "acme", json.RawMessage(`{"sub":"` + private + `","sub":"x"}`), "cannot be encoded"},
		{"not encodable", "acme", map[string]any{private: func() {}}, "cannot be encoded"},
		{"exp a string", "acme", map[string]any{"exp": private}, `"exp" must be a number`},
		{"exp null", "acme", map[string]any{"exp": nil}, `"exp" must be a number`},
		{"exp beyond 2^53", "acme", map[string]any{"exp": 1 << 53}, `"exp" must be a number`},
		{"nbf negative", "acme", map[string]any{"nbf": -1}, `"nbf" must be a number`},
		{"iat true", "acme", map[string]any{"iat": true}, `"iat" must be a number`},
		{"a string that is not UTF-8", "acme", map[string]any{"x": private + "\xff"}, "cannot be encoded"},
		{"a name that is not UTF-8", "acme", map[string]any{private + "\xff": 1}, "cannot be encoded"},
		{"aud a number", "acme", map[string]any{"aud": 1}, `"aud" must be a string or`},
		{"aud mixed", "acme", map[string]any{"aud": []any{private, 1}}, `"aud" must be a string or`},
		{"sub a number", "acme", map[string]any{"sub": 1}, `"sub" must be a string`},
		{"iss null", "acme", map[string]any{"iss": nil}, `"iss" must be a string`},
		{"jti a list", "acme", map[string]any{"jti": []string{private}}, `"jti" must be a string`},
		{"exp a string, with white space", "acme", json.RawMessage(` { "x" : [ { } ] , "exp" : "` + private + `" } `), `"exp" must be a number`},
		{"a folded name, escaped", "acme", json.RawMessage(`{"x":{},"\u017fub":1}`), `differs from "sub"`},
		{"a folded name", "acme", map[string]any{"EXP": 1}, `"EXP" differs from "exp" only by case`},
	} {
		token, err := s.Sign(t.Context(), tt.tenant, tt.claims)
		if err == nil || token != "" || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q, %v; want an error with %q", tt.name, token, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), private) {
			t.Errorf("%s: the error holds a value: %v", tt.name, err)
		}
	}
	if _, err := s.Sign(t.Context(), "globex", nil); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("another tenant: %v, want ErrNotFound", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Sign(ctx, "acme", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestNewStaticSignerRefuses(t *testing.T) {
	var small *rsa.PrivateKey
	var err error
	fips140.WithoutEnforcement(func() { small, err = rsa.GenerateKey(rand.Reader, 1024) }) // FIPS 186-5: 2048 at least
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		alg  keystore.Algorithm
		key  any
		ttl  time.Duration
		want string
	}{
		{"a short secret", "HS256", secret[:31], 0, "31 bytes"},
		{"a small RSA key", "RS256", small, 0, "1024 bits"},
		{"the wrong curve", "ES256", p384, 0, "P-256"},
		{"a private key as secret", "HS256", ed, 0, "HS256"},
		{"a secret for an asymmetric algorithm", "RS256", secret, 0, "want a crypto.Signer"},
		{"a public key", "RS256", small.Public(), 0, "crypto.Signer"},
		{"a string", "HS256", string(secret), 0, "[]byte"},
		{"a nil private key", "RS256", (*rsa.PrivateKey)(nil), 0, "empty or cut"},
		{"an empty Ed25519 key", "EdDSA", ed25519.PrivateKey(nil), 0, "empty or cut"},
		{"a cut Ed25519 key", "EdDSA", ed[:40], 0, "empty or cut"},
		{"nothing", "HS256", nil, 0, "[]byte"},
		{"none", "none", secret, 0, `"none"`},
		{"a short TTL", "HS256", secret, time.Second - 1, "1s"},
		{"a negative TTL", "HS256", secret, -1, "1s"},
	} {
		s, err := rotation.NewStaticSigner(id, tt.alg, tt.key, rotation.SignerConfig{TTL: tt.ttl})
		if err == nil || s != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// A broken is a crypto.Signer, such as a remote one, that returns what it should
// not.
type broken struct {
	crypto.Signer
	sig []byte
	err error
}

func (b broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return b.sig, b.err }

func TestBrokenSigner(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("away")
	for _, b := range []broken{{key, nil, away}, {key, nil, nil}, {key, []byte("x"), nil}, {key, make([]byte, 64), nil},
		{key, []byte{0x30, 6, 2, 1, 0, 2, 1, 1}, nil}, {key, []byte{0x30, 6, 2, 1, 1, 2, 1, 1, 0}, nil}} {
		s, err := rotation.NewStaticSigner(id, keystore.ES256, b, config())
		if err != nil {
			t.Fatal(err)
		}
		token, err := s.Sign(t.Context(), "acme", nil)
		if err == nil || token != "" || b.err != nil && !errors.Is(err, b.err) {
			t.Errorf("%x, %v: %q, %v", b.sig, b.err, token, err)
		}
	}
}

// TestSecretIsCopied: what the caller does to its secret afterwards changes
// nothing.
func TestSecretIsCopied(t *testing.T) {
	own := bytes.Clone(secret)
	s, err := rotation.NewStaticSigner(id, keystore.HS256, own, config())
	if err != nil {
		t.Fatal(err)
	}
	clear(own)
	token, err := s.Sign(t.Context(), "acme", nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keystore.NewSecret(id, keystore.HS256, secret)
	if err != nil {
		t.Fatal(err)
	}
	_, _, signed, sig := split(t, token)
	if !k.Verify(signed, sig) {
		t.Error("it signs with another secret")
	}
}

func TestConcurrentSign(t *testing.T) {
	s, err := rotation.NewStaticSigner(id, keystore.HS256, secret, config())
	if err != nil {
		t.Fatal(err)
	}
	k, err := keystore.NewSecret(id, keystore.HS256, secret)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var seen sync.Map
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				token, err := s.Sign(context.Background(), "acme", map[string]any{"n": i})
				if err != nil {
					t.Error(err)
					return
				}
				if _, dup := seen.LoadOrStore(token, i); dup {
					t.Error("the same token twice")
				}
				_, claims, signed, sig := split(t, token)
				if !k.Verify(signed, sig) || claims["n"] != float64(i) {
					t.Errorf("claims %v", claims)
				}
			}
		})
	}
	wg.Wait()
}

func TestSignerDoesNotLeak(t *testing.T) {
	s, err := rotation.NewStaticSigner(id, keystore.HS256, secret, config())
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%v %+v %#v %v %+v", s, s, s, *s, struct{ S rotation.Signer }{*s})
	for _, p := range []string{string(secret[:16]), fmt.Sprintf("%x", secret[:16]), base64.StdEncoding.EncodeToString(secret[:15]), "115 115 115"} {
		if strings.Contains(out, p) {
			t.Errorf("%s", out)
		}
	}
}

func TestSource(t *testing.T) {
	s, err := rotation.NewStaticSigner(id, keystore.HS256, secret, config())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		claims any
		want   int64
	}{{nil, 1800000900}, {map[string]any{"exp": 1800000005}, 1800000005}, {map[string]any{"exp": 1800000005.9}, 1800000005}} {
		source := s.Source("acme", tt.claims)
		first, expires, err := source.Token(t.Context())
		second, _, err2 := source.Token(t.Context())
		if err != nil || err2 != nil || first == second || !expires.Equal(time.Unix(tt.want, 0)) {
			t.Errorf("%v: expires %v, %v", tt.claims, expires, errors.Join(err, err2))
		}
	}
	if token, _, err := s.Source("globex", nil).Token(t.Context()); err == nil || token != "" {
		t.Errorf("another tenant: %v", err)
	}
}
