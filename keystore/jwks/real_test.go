package jwks_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// real returns documents that were found in public, by name. They are beside the repository.
func real(t *testing.T, pattern string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "real", pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("no documents in ../shared/real")
		}
		t.Skip("no documents in ../shared/real")
	}
	docs := make(map[string][]byte)
	for _, path := range paths {
		doc, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		docs[filepath.Base(path)] = doc
	}
	return docs
}

// Each JWK of each public set serves if and only if a judge says so who was written from the RFCs,
// and shares no code with Parse.
func TestRealSets(t *testing.T) {
	count := make(map[string]int)
	for name, doc := range real(t, "jwks/*.json") {
		elements, isSet := judgeDocument(doc)
		r, err := jwks.Inspect("acme", doc)
		if isSet != (err == nil) {
			t.Errorf("%s: error %v, but it is a set: %v", name, err, isSet)
		}
		if !isSet {
			count["no set"]++
			if text := err.Error(); !strings.HasPrefix(text, "jwks: not a JWK Set: ") && !strings.HasPrefix(text, "jwks: a single JWK, not a JWK Set: ") {
				t.Errorf("%s: the error does not say what it is: %v", name, err)
			}
			continue
		}
		var want []string
		for i, raw := range elements {
			j := judgeKey(raw)
			want = append(want, j.names()...)
			compareKey(t, name, i, raw, j)
			for what, is := range map[string]bool{"serves": len(j.algs) > 0, "exposed": j.exposed, "irregular": j.irregular, "refused": len(j.algs) == 0 && !j.exposed} {
				if is {
					count[what]++
				}
			}
		}
		if got := eachName(r.Keys); !slices.Equal(sortedOnce(got), sortedOnce(want)) {
			t.Errorf("%s: the set gives %v, its keys one by one %v", name, got, want)
		}
	}
	t.Log(count)
	for _, what := range []string{"no set", "serves", "exposed", "irregular", "refused"} {
		if count[what] == 0 {
			t.Errorf("there is none that is %s", what)
		}
	}
}

// compareKey compares what Inspect says of a set of one key with the judge.
func compareKey(t *testing.T, name string, i int, raw json.RawMessage, j judgement) {
	t.Helper()
	r, err := jwks.Inspect("acme", slices.Concat([]byte(`{"keys":[`), raw, []byte(`]}`)))
	if err != nil {
		t.Fatalf("%s, key %d: %v", name, i, err)
	}
	if got := eachName(r.Keys); !slices.Equal(sortedOnce(got), sortedOnce(j.names())) {
		t.Errorf("%s, key %d: serves as %v, want %v; skipped %v", name, i, got, j.names(), r.Skipped)
	}
	if exposed := len(r.Skipped) > 0 && r.Skipped[0].Exposed; exposed != j.exposed {
		t.Errorf("%s, key %d: exposed %v, want %v", name, i, exposed, j.exposed)
	}
	if irregular := len(r.Irregular) > 0; irregular != j.irregular {
		t.Errorf("%s, key %d: irregular %v, want %v", name, i, r.Irregular, j.irregular)
	}
	if len(r.Keys) == 0 && len(r.Skipped) != 1 {
		t.Errorf("%s, key %d: neither serves nor is skipped: %v", name, i, r.Skipped)
	}
}

// eachName returns kid and alg of each key.
func eachName(keys []*keystore.Key) (all []string) {
	for _, k := range keys {
		all = append(all, k.ID().KID+":"+string(k.Algorithm()))
	}
	return all
}

func sortedOnce(all []string) []string {
	all = slices.Clone(all)
	slices.Sort(all)
	return slices.Compact(all)
}

// A member of each kind, as it is and as it should not be, in each key of the public sets.
func TestChangedRealKeys(t *testing.T) {
	t.Parallel()
	respell := func(change func(b []byte) []byte, encode func([]byte) string) func(any) any {
		return func(v any) any {
			text, _ := v.(string)
			b, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil || len(b) == 0 {
				return v
			}
			return encode(change(b))
		}
	}
	same := func(b []byte) []byte { return b }
	zero := func(b []byte) []byte { return append([]byte{0}, b...) }
	values := map[string]func(any) any{
		"padded": respell(same, base64.URLEncoding.EncodeToString), "standard": respell(same, base64.RawStdEncoding.EncodeToString),
		"zero": respell(zero, b64), "two zeros": respell(func(b []byte) []byte { return zero(zero(b)) }, b64),
		"cut": respell(func(b []byte) []byte { return b[1:] }, b64), "longer": respell(func(b []byte) []byte { return append(b, 1) }, b64),
		"flipped": respell(func(b []byte) []byte { b[len(b)/2] ^= 4; return b }, b64), "space": func(v any) any { text, _ := v.(string); return text + " " },
		"too much padding": func(v any) any { text, _ := v.(string); return text + "===" }, "half a set": func(v any) any { return []any{v} },
	}
	for _, v := range []any{nil, "", []any{}, 0.0, false, map[string]any{}, "sig", "enc", "AQAB", "RS256", "ES256", "HS256", []any{"verify"}, []any{"sign"}, []any{"verify", "encrypt"}, []any{nil}, strings.Repeat("k", 257)} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		values[string(text)] = func(any) any { return v }
	}
	names, least := slices.Sorted(maps.Keys(values)), 5_000
	if raceEnabled {
		least /= 5
	}
	changed, shapes := 0, make(map[string]bool)
	for name, doc := range real(t, "jwks/*.json") {
		elements, _ := judgeDocument(doc)
		for i, raw := range elements {
			m, _ := judgeMembers(raw)
			shape := fmt.Sprint(m["kty"], m["crv"], slices.Sorted(maps.Keys(m)))
			if len(judgeKey(raw).algs) == 0 || shapes[shape] {
				continue // the first of each shape that serves is enough
			}
			shapes[shape] = true
			for _, member := range []string{"kty", "crv", "n", "e", "x", "y", "kid", "use", "alg", "key_ops", "d", "k", "oth", "other"} {
				for n, what := range names {
					if raceEnabled && n%5 != len(shapes)%5 {
						continue // make test has all of them without the race detector
					}
					m, _ := judgeMembers(raw)
					m[member] = values[what](m[member])
					again, err := json.Marshal(m)
					if err != nil {
						t.Fatal(err)
					}
					compareKey(t, name+" with "+member+" "+what, i, again, judgeKey(again))
					changed++
				}
			}
		}
	}
	if changed < least {
		t.Errorf("%d keys", changed)
	}
}

// A realToken is a published token with its set. Good says that a key of the set has signed it.
type realToken struct {
	Source, Alg, Token string
	Set                json.RawMessage
	Good               bool
}

// Published tokens with their sets: a key verifies the signature if and only if it is good. Four are
// health cards, whose payload is compressed, so that only their signature can be checked.
func TestRealTokens(t *testing.T) {
	var all []realToken
	if err := json.Unmarshal(real(t, "tokens.json")["tokens.json"], &all); err != nil {
		t.Fatal(err)
	}
	whole, cards := 0, 0
	for i, tt := range all {
		keys, skipped, err := jwks.Parse("acme", tt.Set)
		if err != nil {
			t.Errorf("%d, %s: %v", i, tt.Source, err)
			continue
		}
		if good := tt.verifies(keys); good != tt.Good {
			t.Errorf("%d, %s: verified: %v, want %v; keys %v, skipped %v", i, tt.Source, good, tt.Good, keys, skipped)
		}
		switch {
		case strings.HasPrefix(tt.Source, "health-card"):
			cards++
		case tt.Source == "service mesh sample", strings.HasPrefix(tt.Source, "C++ proxy"):
			whole++
			tt.verifyWhole(t, keys)
		}
	}
	if whole < 10 || cards < 4 {
		t.Errorf("%d tokens were verified as a whole, and %d health cards", whole, cards)
	}
}

// header returns the kid and alg that a token names.
func (r realToken) header() (kid, alg string) {
	first, _, _ := strings.Cut(r.Token, ".")
	text, err := base64.RawURLEncoding.DecodeString(first)
	var h struct{ KID, Alg string }
	if err != nil || json.Unmarshal(text, &h) != nil {
		return "", ""
	}
	return h.KID, h.Alg
}

// verifies reports whether one of keys verifies the signature, whatever its kid.
func (r realToken) verifies(keys []*keystore.Key) bool {
	i := max(0, strings.LastIndexByte(r.Token, '.'))
	sig, err := base64.RawURLEncoding.DecodeString(r.Token[i+1:])
	_, alg := r.header()
	return err == nil && alg == r.Alg && slices.ContainsFunc(keys, func(k *keystore.Key) bool {
		return k.Algorithm() == keystore.Algorithm(alg) && k.Verify([]byte(r.Token[:i]), sig)
	})
}

// verifyWhole verifies a token with its claims, at a time at which it was good. Some name a kid that
// the set lacks, though its key has signed them: their key is unknown.
func (r realToken) verifyWhole(t *testing.T, keys []*keystore.Key) {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(r.Token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	claims := struct{ Exp, Iat int64 }{Exp: 2_000_000_000}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	store, err := keystore.NewStatic(keys...)
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifier.New(verifier.Config{
		Now: func() time.Time { return time.Unix(max(claims.Iat, claims.Exp-60), 0) },
		Tenants: []verifier.Tenant{{
			ID: "acme", Keys: store, Algorithms: []keystore.Algorithm{keystore.Algorithm(r.Alg)},
			AnyIssuer: true, AnyAudience: true, AllowNoExpiry: true,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	kid, _ := r.header()
	var want error
	if kid != "" && !slices.ContainsFunc(keys, func(k *keystore.Key) bool { return k.ID().KID == kid }) {
		want = verifier.ErrUnknownKey
	}
	if _, err := v.Verify(t.Context(), r.Token); !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", r.Token, err, want)
	}
	if want == nil {
		want = verifier.ErrSignature
	}
	if _, err := v.Verify(t.Context(), r.Token[:len(r.Token)-8]+"AAAAAAAA"); !errors.Is(err, want) {
		t.Errorf("%s with another signature: %v, want %v", r.Token, err, want)
	}
}

// judgeDocument returns the elements of a JWK Set (RFC 7517, section 5).
func judgeDocument(doc []byte) (elements []json.RawMessage, isSet bool) {
	doc = bytes.TrimPrefix(doc, []byte{0xef, 0xbb, 0xbf})
	members, once := judgeMembers(doc)
	keys, ok := members["keys"].([]any)
	if !ok || !once {
		return nil, false
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	return set.Keys, json.Unmarshal(doc, &set) == nil && len(set.Keys) == len(keys)
}

// judgeMembers returns the members of a JSON object. once says that no name is there twice.
func judgeMembers(doc []byte) (members map[string]any, once bool) {
	if !json.Valid(doc) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, false
	}
	members, once = make(map[string]any), true
	for d.More() {
		name, err := d.Token()
		var value any
		if err := errors.Join(err, d.Decode(&value)); err != nil {
			return nil, false
		}
		_, twice := members[name.(string)]
		once = once && !twice
		members[name.(string)] = value
	}
	_, err := d.Token()
	_, end := d.Token()
	return members, once && err == nil && end == io.EOF
}

// A judgement says what a JWK is good for.
type judgement struct {
	kid       string
	algs      []string // with which it must serve; none: it must not
	exposed   bool     // it holds a private key or a secret
	irregular bool     // it serves, but is spelled otherwise than the RFCs want
}

func (j judgement) names() (all []string) {
	for _, alg := range j.algs {
		all = append(all, j.kid+":"+alg)
	}
	return all
}

// holds reports whether a member has content: neither null nor an empty text or array.
func holds(v any) bool {
	list, isList := v.([]any)
	return v != nil && v != "" && (!isList || len(list) > 0)
}

// judgeKey judges a JWK by RFC 7517, section 4, RFC 7518, section 6, RFC 8037, section 2, and RFC
// 9864, and by what of it may be liberal.
func judgeKey(raw json.RawMessage) (j judgement) {
	m, once := judgeMembers(raw)
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		j.exposed = j.exposed || holds(m[private])
	}
	texts := make(map[string]string)
	for _, name := range []string{"kty", "crv", "use", "alg", "kid"} {
		text, isText := m[name].(string)
		if m[name] != nil && !isText {
			return j
		}
		texts[name] = text
	}
	j.kid = texts["kid"]
	if !once || j.exposed || len(j.kid) > 256 || m["use"] != nil && texts["use"] != "sig" || !judgeOps(m["key_ops"], m["use"] != nil) {
		return j
	}
	algs, irregular := judgeMaterial(texts["kty"], texts["crv"], m)
	if m["alg"] != nil {
		algs = slices.DeleteFunc(algs, func(alg string) bool { return alg != texts["alg"] })
	}
	j.algs, j.irregular = algs, irregular && len(algs) > 0
	return j
}

func judgeOps(v any, withUse bool) bool {
	list, isList := v.([]any)
	if v == nil || isList && len(list) == 0 {
		return true
	}
	return isList && slices.Contains(list, any("verify")) &&
		!(withUse && slices.ContainsFunc(list, func(op any) bool { return op != "sign" && op != "verify" }))
}

// judgeMaterial returns the algorithms of a public key.
func judgeMaterial(kty, crv string, m map[string]any) (algs []string, irregular bool) {
	a, odd1 := judgeNumber(m[map[string]string{"RSA": "n", "EC": "x", "OKP": "x"}[kty]])
	b, odd2 := judgeNumber(m[map[string]string{"RSA": "e", "EC": "y"}[kty]])
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[crv]
	switch {
	case kty == "RSA" && a != nil && b != nil:
		n, e := new(big.Int).SetBytes(a), new(big.Int).SetBytes(b)
		printable := len(bytes.Trim(a, "0123456789abcdefABCDEF\n")) == 0
		if n.BitLen() < 2048 || n.BitLen() > 8192 || n.Bit(0) == 0 || e.Cmp(big.NewInt(65537)) != 0 || printable {
			return nil, false
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, odd1 || odd2 || a[0] == 0 || b[0] == 0
	case kty == "EC" && a != nil && b != nil && curve != nil:
		size := (curve.Params().BitSize + 7) / 8
		if !judgePoint(curve.Params(), a, b) {
			return nil, false
		}
		return []string{map[int]string{32: "ES256", 48: "ES384", 66: "ES512"}[size]}, odd1 || odd2 || len(a) != size || len(b) != size
	case kty == "OKP" && crv == "Ed25519" && len(a) == 32:
		return []string{"EdDSA", "Ed25519"}, odd1
	}
	return nil, false
}

// judgePoint reports whether x and y are a point of y² = x³ - 3x + b, in at most a byte more than
// the field needs.
func judgePoint(c *elliptic.CurveParams, xs, ys []byte) bool {
	x, y := new(big.Int).SetBytes(xs), new(big.Int).SetBytes(ys)
	if most := (c.BitSize+7)/8 + 1; len(xs) > most || len(ys) > most || x.Cmp(c.P) >= 0 || y.Cmp(c.P) >= 0 {
		return false
	}
	right := new(big.Int).Exp(x, big.NewInt(3), nil)
	right.Sub(right, new(big.Int).Mul(x, big.NewInt(3))).Add(right, c.B).Mod(right, c.P)
	left := new(big.Int).Exp(y, big.NewInt(2), c.P)
	return left.Cmp(right) == 0
}

// judgeNumber reads base64 bit by bit, in one of its two alphabets, padded or not. odd says that it
// is not as RFC 7515, section 2, wants it.
func judgeNumber(v any) (octets []byte, odd bool) {
	text, _ := v.(string)
	body := strings.TrimSuffix(strings.TrimSuffix(text, "="), "=")
	if len(body) != len(text) && len(text)%4 != 0 || len(body)%4 == 1 || body == "" {
		return nil, false
	}
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	alphabet := letters + "-_"
	if strings.ContainsAny(body, "+/") {
		alphabet = letters + "+/"
	}
	number := new(big.Int)
	for _, letter := range body {
		bits := strings.IndexRune(alphabet, letter)
		if bits < 0 {
			return nil, false
		}
		number.Lsh(number, 6).Or(number, big.NewInt(int64(bits)))
	}
	over := uint(len(body) * 6 % 8)
	if new(big.Int).And(number, big.NewInt(1<<over-1)).Sign() != 0 {
		return nil, false
	}
	return number.Rsh(number, over).FillBytes(make([]byte, len(body)*6/8)), len(body) != len(text) || strings.HasSuffix(alphabet, "/") && alphabet[62] == '+'
}
