package keystore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

func TestEveryAlgorithmVerifies(t *testing.T) {
	all := signers()
	if got, want := len(all), len(keystore.Algorithms()); got != want {
		t.Fatalf("the tests sign with %d algorithms, want all %d", got, want)
	}
	msg := []byte("header.payload")
	for _, s := range all {
		t.Run(string(s.alg), func(t *testing.T) {
			k, sig := s.key(t, acme1), s.sign(msg)
			if k.ID() != acme1 || k.Algorithm() != s.alg {
				t.Errorf("the key is %v, want %v with %s", k, acme1, s.alg)
			}
			if !k.Verify(msg, sig) {
				t.Error("Verify of a good signature = false")
			}
			if !k.Verify(msg, s.sign(msg)) {
				t.Error("Verify of a second good signature = false")
			}
			for name, bad := range map[string][]byte{
				"nil":       nil,
				"empty":     {},
				"truncated": sig[:len(sig)-1],
				"extended":  append(bytes.Clone(sig), 0),
				"doubled":   append(bytes.Clone(sig), sig...),
				"zero":      make([]byte, len(sig)),
				"0xff":      bytes.Repeat([]byte{0xff}, len(sig)),
			} {
				if k.Verify(msg, bad) {
					t.Errorf("Verify of a signature that is %s = true", name)
				}
			}
			for i := range sig {
				bad := bytes.Clone(sig)
				bad[i] ^= 1
				if k.Verify(msg, bad) {
					t.Errorf("Verify with a bit of byte %d flipped = true", i)
				}
				if s.alg[0] != 'H' && i > 8 {
					break // public key operations are slow
				}
			}
			if k.Verify([]byte("header.payloae"), sig) || k.Verify(nil, sig) {
				t.Error("Verify of another message = true")
			}
		})
	}
}

func TestKeysOfOtherAlgorithmsDoNotVerify(t *testing.T) {
	msg := []byte("header.payload")
	for _, s := range signers() {
		sig := s.sign(msg)
		for _, o := range signers() {
			// EdDSA and Ed25519 are two names of one algorithm.
			want := o.alg == s.alg || s.alg[:2] == "Ed" && o.alg[:2] == "Ed"
			if got := o.key(t, acme1).Verify(msg, sig); got != want {
				t.Errorf("%s key, %s signature: Verify = %v, want %v", o.alg, s.alg, got, want)
			}
		}
	}
}

func TestAlgorithm(t *testing.T) {
	for _, a := range keystore.Algorithms() {
		if !a.Known() {
			t.Errorf("%s.Known() = false", a)
		}
		if got, want := a.Symmetric(), strings.HasPrefix(string(a), "HS"); got != want {
			t.Errorf("%s.Symmetric() = %v, want %v", a, got, want)
		}
	}
	for _, a := range []keystore.Algorithm{"", "none", "None", "hs256", "HS256 ", "HS257", "ES256K", "RSA-OAEP", "Ed448"} {
		if a.Known() || a.Symmetric() {
			t.Errorf("%q is Known or Symmetric", a)
		}
	}
	keystore.Algorithms()[0] = "none"
	if keystore.Algorithms()[0] != keystore.HS256 {
		t.Error("a caller can change what Algorithms returns")
	}
}

func TestKID(t *testing.T) {
	tests := []struct {
		name string
		kid  string
		ok   bool
	}{
		{name: "empty", kid: "", ok: true},
		{name: "256 bytes", kid: strings.Repeat("k", 256), ok: true},
		{name: "257 bytes", kid: strings.Repeat("k", 257)},
		{name: "256 bytes, fewer characters", kid: strings.Repeat("é", 128), ok: true},
		{name: "258 bytes, fewer characters", kid: strings.Repeat("é", 129)},
		{name: "anything that is UTF-8", kid: "../\n\x00\"☃", ok: true},
		{name: "not UTF-8", kid: "a\xff"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := keystore.ID{Tenant: "acme", KID: tt.kid}
			if _, err := keystore.NewSecret(id, keystore.HS256, secret64); (err == nil) != tt.ok {
				t.Errorf("NewSecret error = %v, want ok %v", err, tt.ok)
			}
			if _, err := keystore.NewPublic(id, keystore.EdDSA, ed25519Key().Public()); (err == nil) != tt.ok {
				t.Errorf("NewPublic error = %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestIDStringQuotes(t *testing.T) {
	id := keystore.ID{Tenant: "a/b", KID: "x\n\"y"}
	if got, want := id.String(), `"a/b"/"x\n\"y"`; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
}

func TestUsable(t *testing.T) {
	end := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	tests := []struct {
		name string
		end  *time.Time
		now  time.Time
		want bool
	}{
		{name: "a new key has no end", now: end, want: true},
		{name: "nor in the year 2500", now: year(2500), want: true},
		{name: "nor in the year 300000", now: year(300000), want: true},
		{name: "nor in the year 1", now: time.Time{}, want: true},
		{name: "before its end", end: &end, now: end.Add(-1), want: true},
		{name: "the end is exclusive", end: &end, now: end},
		{name: "after its end", end: &end, now: end.Add(1)},
		{name: "in another time zone", end: &end, now: end.In(time.FixedZone("", 3600)).Add(-1), want: true},
		{name: "the zero Time is long past", end: new(time.Time{}), now: end},
		{name: "the zero Time is past before 1970", end: new(time.Time{}), now: year(1700)},
		{name: "an end in the year 2500", end: new(year(2500)), now: end, want: true},
		{name: "an end in the year 300000", end: new(year(300000)), now: year(2200), want: true},
		{name: "ends long after 2262 have come by then", end: new(year(2500)), now: year(300000)},
		{name: "long after its end", end: &end, now: year(300000)},
		{name: "long before its end", end: &end, now: time.Time{}, want: true},
		{name: "an end in the year -300000", end: new(year(-300000)), now: end},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := hs256(t, "acme", "1", "a")
			if tt.end != nil {
				k.SetUntil(*tt.end)
			}
			if got := k.Usable(tt.now); got != tt.want {
				t.Errorf("Usable(%v) = %v, want %v", tt.now, got, tt.want)
			}
			k.Withdraw()
			if k.Usable(tt.now) {
				t.Error("Usable of a withdrawn key = true")
			}
		})
	}
}

func TestSetUntilMovesEndEitherWay(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	k := hs256(t, "acme", "1", "a")
	for _, d := range []time.Duration{time.Hour, time.Minute, -time.Minute, 2 * time.Hour} {
		k.SetUntil(now.Add(d))
		if got, want := k.Usable(now), d > 0; got != want {
			t.Errorf("with the end in %v: Usable = %v, want %v", d, got, want)
		}
	}
}

func TestVerifyIgnoresClock(t *testing.T) {
	for _, s := range signers() {
		k := s.key(t, acme1)
		k.SetUntil(time.Time{})
		if msg := []byte("m"); !k.Verify(msg, s.sign(msg)) {
			t.Errorf("%s: Verify of a key past its end = false", s.alg)
		}
	}
}

func TestWithdrawIsFinal(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, s := range signers() {
		t.Run(string(s.alg), func(t *testing.T) {
			k, msg := s.key(t, acme1), []byte("m")
			sig := s.sign(msg)
			k.Withdraw()
			k.SetUntil(now.Add(time.Hour))
			k.Withdraw()
			if k.Usable(now) || k.Usable(time.Time{}) {
				t.Error("Usable after Withdraw and SetUntil = true")
			}
			if k.Verify(msg, sig) {
				t.Error("Verify after Withdraw = true")
			}
			if _, ok := k.Public(); ok {
				t.Error("Public after Withdraw = true")
			}
			if k.ID() != acme1 || k.Algorithm() != s.alg {
				t.Errorf("after Withdraw the key is %v: it has lost its name", k)
			}
		})
	}
}

func TestWithdrawBeatsSetUntil(t *testing.T) {
	for range 100 {
		k := hs256(t, "acme", "1", "a")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { k.SetUntil(time.Unix(1<<40, 0)) })
		}
		wg.Go(k.Withdraw)
		wg.Wait()
		if k.Usable(time.Unix(0, 0)) {
			t.Fatal("a key that was withdrawn is Usable")
		}
	}
}

func TestZeroKeyVerifiesNothing(t *testing.T) {
	var k keystore.Key
	if k.Verify(nil, nil) || k.Verify([]byte("m"), []byte("s")) {
		t.Error("Verify of the zero Key = true")
	}
	if _, ok := k.Public(); ok {
		t.Error("Public of the zero Key = true")
	}
	if k.Usable(time.Unix(1, 0)) {
		t.Error("the zero Key is Usable")
	}
}

func TestEqual(t *testing.T) {
	a := hs256(t, "acme", "1", "a")
	withdrawn := hs256(t, "acme", "1", "a")
	withdrawn.Withdraw()
	ended := hs256(t, "acme", "1", "a")
	ended.SetUntil(time.Time{})
	rs256 := publicKey(keystore.RS256, &rsaKey().PublicKey)
	tests := []struct {
		name string
		a, b *keystore.Key
		want bool
	}{
		{name: "itself", a: a, b: a, want: true},
		{name: "the same secret", a: a, b: hs256(t, "acme", "1", "a"), want: true},
		{name: "the same, at its end", a: a, b: ended, want: true},
		{name: "another secret", a: a, b: hs256(t, "acme", "1", "b")},
		{name: "another kid", a: a, b: hs256(t, "acme", "2", "a")},
		{name: "another tenant", a: a, b: hs256(t, "globex", "1", "a")},
		{name: "another algorithm", a: secretKey(keystore.HS256, secret64)(t, acme1), b: secretKey(keystore.HS512, secret64)(t, acme1)},
		{name: "the same public key", a: rs256(t, acme1), b: rs256(t, acme1), want: true},
		{name: "another algorithm of a public key", a: rs256(t, acme1), b: publicKey(keystore.PS256, &rsaKey().PublicKey)(t, acme1)},
		{name: "nil", a: a},
		{name: "of nil", b: a},
		{name: "two nils", want: true},
		{name: "a withdrawn key", a: a, b: withdrawn},
		{name: "a withdrawn key and itself", a: withdrawn, b: withdrawn, want: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.a.Equal(tt.b); got != tt.want {
				t.Errorf("Equal = %v, want %v", got, tt.want)
			}
		})
	}
	for _, s := range signers() {
		if !s.key(t, acme1).Equal(s.key(t, acme1)) {
			t.Errorf("%s: two keys of the same material are not Equal", s.alg)
		}
	}
}

func TestString(t *testing.T) {
	k := publicKey(keystore.ES256, &p256Key().PublicKey)(t, keystore.ID{Tenant: "acme", KID: "2026-11\n"})
	if got, want := k.String(), `key "acme"/"2026-11\n" (ES256)`; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	if got := fmt.Sprint((*keystore.Key)(nil)); got != "key <nil>" {
		t.Errorf("a nil Key prints %q", got)
	}
}

// No verb, logger or encoder prints the material of a Key, secret or public, however
// deep the Key is nested.
func TestKeysAreNotPrinted(t *testing.T) {
	secret := []byte("correct horse battery staple, 32")
	k := secretKey(keystore.HS256, secret)(t, acme1)
	type holder struct {
		Name string
		Key  *keystore.Key
		priv *keystore.Key
	}
	store, err := keystore.NewStatic(k)
	if err != nil {
		t.Fatal(err)
	}
	values := []any{
		k, holder{"h", k, k}, &holder{"h", k, k}, []*keystore.Key{k}, map[string]*keystore.Key{"k": k},
		map[string]any{"h": holder{"h", k, k}}, store, [1]any{k},
	}
	var out bytes.Buffer
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%p", "%t", "%T"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if doc, err := json.Marshal(v); err == nil {
			out.Write(doc)
		}
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(h).Info("key", "v", v, slog.Group("g", "v", v))
		}
	}
	// A Key must not be copied, but a mistake must not cost the secret.
	copied := reflect.ValueOf(k).Elem().Interface()
	fmt.Fprintf(&out, "%v %+v %#v %x\n", copied, copied, copied, copied)

	for name, needle := range map[string]string{
		"the secret":              string(secret),
		"a part of the secret":    string(secret[:8]),
		"the secret in hex":       hex.EncodeToString(secret[:8]),
		"the secret in HEX":       strings.ToUpper(hex.EncodeToString(secret[:8])),
		"the secret in base64":    base64.RawStdEncoding.EncodeToString(secret[:9]),
		"the secret in base64url": base64.RawURLEncoding.EncodeToString(secret[:9]),
		"the secret as numbers":   strings.Trim(fmt.Sprint(secret[:8]), "[]"),
		"the secret in Go syntax": strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret[:8]), "[]byte{"), "}"),
	} {
		if strings.Contains(out.String(), needle) {
			t.Errorf("%s is in what was printed", name)
		}
	}
	if !strings.Contains(out.String(), `key "acme"/"1" (HS256)`) {
		t.Error("what was printed does not name the key")
	}
}

func TestUnixNano(t *testing.T) {
	first, last := time.Unix(-1<<40, 0), time.Unix(1<<40, 0)
	for _, tt := range []struct {
		name string
		a, b time.Time
		less bool
	}{
		{"a nanosecond apart", time.Unix(1, 0), time.Unix(1, 1), true},
		{"equal", time.Unix(1, 1), time.Unix(1, 1), false},
		{"before the range and in it", first, time.Unix(0, 0), true},
		{"in the range and after it", time.Unix(0, 0), last, true},
		{"both before the range", first, first.Add(time.Hour), false},
		{"both after the range", last, last.Add(time.Hour), false},
		{"the zero Time and 1970", time.Time{}, time.Unix(0, 0), true},
	} {
		a, b := keystore.UnixNano(tt.a), keystore.UnixNano(tt.b)
		if a > b || (a < b) != tt.less {
			t.Errorf("%s: UnixNano = %d and %d, want less: %v", tt.name, a, b, tt.less)
		}
	}
	if moment := time.Unix(1700000000, 123456789); keystore.UnixNano(moment) != moment.UnixNano() {
		t.Errorf("UnixNano(%v) = %d, want %d", moment, keystore.UnixNano(moment), moment.UnixNano())
	}
}
