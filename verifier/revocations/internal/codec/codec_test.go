package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

func testKey(t testing.TB, n byte) *Key {
	t.Helper()
	secret := make([]byte, KeySize)
	for i := range secret {
		secret[i] = n + byte(i)
	}
	k, err := ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// samples returns a value of each kind under k, by its name in the vectors.
func samples(t testing.TB, k *Key) (table.Entry, Logged, Ack, map[string][]byte) {
	t.Helper()
	e := table.Entry{Digest: k.Digest(table.Subject, "acme", "ann"), Tenant: k.TenantID("acme"), Kind: table.Subject, Key: k.ID, Before: 1_900_000_000, End: 1_934_560_380}
	l := Logged{Op: "revoke", Group: "e0123", Actor: "pod-1", Nonce: "N1", Entries: []table.Entry{e}, Whole: true}
	a := Ack{Instance: "pod-1", Bucket: 7, At: time.UnixMilli(1_900_000_000_123).UTC(), Good: time.UnixMilli(1_899_999_000_000).UTC(), Place: "N2", Last: "N1", Run: "r1",
		Held: k.Fingerprint(e), Minute: 1_899_999_960, Applied: []string{"N0", "N1"}}
	field, plain, err := SealKey(PlainBox(), k)
	if err != nil {
		t.Fatal(err)
	}
	return e, l, a, map[string][]byte{"entry": k.SealEntry(e), "log": k.SealLog(l), "ack": k.SealAck(a), field: plain}
}

// TestVectors: the values are byte for byte those of docs/formats.md.
func TestVectors(t *testing.T) {
	k := testKey(t, 1)
	e, _, _, values := samples(t, k)
	got := map[string]string{"field": Field(e.Digest), "digest_token": fmt.Sprintf("%x", k.Digest(table.Token, "acme", "7")), "digest_session": fmt.Sprintf("%x", k.Digest(table.Session, "acme", "7")),
		"digest_subject": fmt.Sprintf("%x", k.Digest(table.Subject, "acme", "7")), "digest_tenant": fmt.Sprintf("%x", k.Digest(table.Tenant, "acme", "")),
		"fingerprint": fmt.Sprintf("%016x", uint64(k.Fingerprint(e)))}
	for name, value := range values {
		got[name] = fmt.Sprintf("%x", value)
	}
	want := make(map[string]string)
	text, err := os.ReadFile("testdata/vectors.json")
	if err == nil {
		err = json.Unmarshal(text, &want)
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		out, _ := json.MarshalIndent(got, "", "  ")
		t.Errorf("%v: the vectors are\n%s", err, out)
	}
}

// TestRoundTrip: a sealed value opens to the same, and with one bit changed it does not open.
func TestRoundTrip(t *testing.T) {
	k := testKey(t, 1)
	keys := Keys{k}
	e, l, a, values := samples(t, k)
	opens := map[string]func(b []byte) (any, error){
		"entry": func(b []byte) (any, error) {
			got, f, err := OpenEntry(keys, Field(e.Digest), b)
			return []any{got, f}, err
		},
		"log": func(b []byte) (any, error) {
			bare := l
			bare.Entries, bare.Whole = nil, false
			return asAny(OpenLog(keys, bare, b))
		},
		"ack": func(b []byte) (any, error) { return asAny(OpenAck(keys, a.Instance, a.Bucket, b)) },
	}
	for name, want := range map[string]any{"entry": []any{e, k.Fingerprint(e)}, "log": l, "ack": a} {
		value := values[name]
		if got, err := opens[name](value); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		for bit := range 8 * len(value) {
			changed := slices.Clone(value)
			changed[bit/8] ^= 1 << (bit % 8)
			if got, err := opens[name](changed); err == nil {
				t.Fatalf("%s: bit %d of %x changed: %+v", name, bit, value, got)
			}
		}
		for n := range value {
			if _, err := opens[name](value[:n]); err == nil {
				t.Errorf("%s: %d bytes of %d open", name, n, len(value))
			}
		}
		if _, err := opens[name](append(slices.Clone(value), 0)); err == nil {
			t.Errorf("%s opens with a byte more", name)
		}
		newer := slices.Clone(value)
		newer[2] = 2
		if _, err := opens[name](newer); !errors.Is(err, ErrNewer) {
			t.Errorf("%s of a newer version: %v", name, err)
		}
	}
	if len(values["entry"]) > 64 || len(values["entry"]) != entrySize {
		t.Errorf("an entry has %d bytes: above 64 Redis keeps no hash compact", len(values["entry"]))
	}
}

func asAny[T any](v T, err error) (any, error) { return v, err }

// TestMoved: a value opens at its place only.
func TestMoved(t *testing.T) {
	k, other := testKey(t, 1), testKey(t, 2)
	_, l, a, values := samples(t, k)
	if _, _, err := OpenEntry(Keys{k}, Field(k.Digest(table.Subject, "acme", "bob")), values["entry"]); !errors.Is(err, ErrForged) {
		t.Errorf("an entry of another digest: %v", err)
	}
	if _, _, err := OpenEntry(Keys{other}, Field(k.Digest(table.Subject, "acme", "ann")), values["entry"]); !errors.Is(err, ErrNoKey) {
		t.Errorf("an entry of another key: %v", err)
	}
	for _, edit := range []func(l *Logged){
		func(l *Logged) { l.Op = "x" }, func(l *Logged) { l.Group = "e0124" }, func(l *Logged) { l.Actor = "x" }, func(l *Logged) { l.Nonce = "x" },
		func(l *Logged) { l.Op, l.Group = l.Op+l.Group[:1], l.Group[1:] },
	} {
		moved := l
		edit(&moved)
		if _, err := OpenLog(Keys{k}, moved, values["log"]); !errors.Is(err, ErrForged) {
			t.Errorf("an entry of the log that was moved: %v", err)
		}
	}
	if _, err := OpenAck(Keys{k}, "pod-2", a.Bucket, values["ack"]); !errors.Is(err, ErrForged) {
		t.Errorf("an acknowledgement of another instance: %v", err)
	}
	if _, err := OpenAck(Keys{k}, a.Instance, 8, values["ack"]); !errors.Is(err, ErrForged) {
		t.Errorf("an acknowledgement of another bucket: %v", err)
	}
	if _, err := OpenAck(Keys{other}, a.Instance, a.Bucket, values["ack"]); !errors.Is(err, ErrNoKey) {
		t.Errorf("an acknowledgement under another key: %v", err)
	}
	field, sealed, _ := SealKey(PlainBox(), k)
	if got, _, err := OpenKey(PlainBox(), field, sealed); err != nil || got.ID != k.ID || !bytes.Equal(got.Secret(), k.Secret()) {
		t.Errorf("a digest key: %v", err)
	}
	if _, _, err := OpenKey(PlainBox(), FieldPrefix+other.Name(), sealed); !errors.Is(err, ErrForged) {
		t.Errorf("a digest key under another name: %v", err)
	}
}

// TestDigests: no two names share a digest, whatever their kinds and tenants, and an empty one has none.
func TestDigests(t *testing.T) {
	k := testKey(t, 1)
	seen := make(map[table.Digest]string)
	for _, kind := range []table.Kind{table.Token, table.Session, table.Subject} {
		for _, tenant := range []string{"", "a", "ab"} {
			for _, name := range []string{"b", "bc", "abc", strings.Repeat("x", 1000)} {
				d, what := k.Digest(kind, tenant, name), fmt.Sprint(kind, "|", tenant, "|", name)
				if seen[d] != "" || d == (table.Digest{}) {
					t.Errorf("%s and %s have one digest", what, seen[d])
				}
				seen[d] = what
			}
			if k.Digest(kind, tenant, "") != (table.Digest{}) {
				t.Error("an empty name has a digest")
			}
		}
	}
	if d := testKey(t, 2).Digest(table.Token, "", "b"); seen[d] != "" {
		t.Error("two keys give one digest")
	}
	if n := testing.AllocsPerRun(100, func() { k.Digest(table.Token, "acme", "jti") }); n > 0 && !raceEnabled {
		t.Errorf("a digest allocates %v times", n)
	}
	if text := fmt.Sprintf("%v %+v %#v %s %x", k, k, k, k, k); strings.Contains(text, "010203") || strings.Contains(text, `\x01\x02`) || strings.Contains(text, "1, 0x2") {
		t.Errorf("a digest key prints as %s", text)
	}
}

// TestKeys: at most four digest keys are held, in one order for all instances, and those that are there stay.
func TestKeys(t *testing.T) {
	var up, down Keys
	for n := range byte(5) {
		var ok bool
		if up, ok = up.With(testKey(t, n)); ok != (n < MaxKeys) {
			t.Errorf("key %d: %t", n, ok)
		}
	}
	for n := byte(MaxKeys); n > 0; n-- {
		down, _ = down.With(testKey(t, n-1))
	}
	if len(up) != MaxKeys || !slices.EqualFunc(up, down, func(a, b *Key) bool { return a.ID == b.ID }) || up.First().ID != down.First().ID {
		t.Errorf("the keys are %v and %v", up, down)
	}
	if same, ok := up.With(testKey(t, 1)); !ok || len(same) != MaxKeys {
		t.Errorf("one that is there: %t", ok)
	}
}

// FuzzOpen: no bytes make a value open, or this process panic, that were not sealed.
func FuzzOpen(f *testing.F) {
	k := testKey(f, 1)
	e, l, a, values := samples(f, k)
	for _, v := range values {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range values {
			if bytes.Equal(b, v) {
				return // it was sealed
			}
		}
		if got, _, err := OpenEntry(Keys{k}, Field(e.Digest), b); err == nil {
			t.Errorf("an entry opens: %+v", got)
		}
		if got, err := OpenLog(Keys{k}, l, b); err == nil {
			t.Errorf("an entry of the log opens: %+v", got)
		}
		if got, err := OpenAck(Keys{k}, a.Instance, a.Bucket, b); err == nil {
			t.Errorf("an acknowledgement opens: %+v", got)
		}
	})
}

// TestPlaceOf: a place fits into an acknowledgement, and names its entry whatever nonce a person has given it.
func TestPlaceOf(t *testing.T) {
	long := strings.Repeat("n", 64)
	for _, tt := range []struct{ id, nonce, want string }{
		{"1-0", "n", "n@1-0"}, {"1-0", "", "@1-0"}, {"1-0", "a@b", "a@b@1-0"}, {"1-0", long, "@1-0"}, {"1-0", long[:60], long[:60] + "@1-0"},
	} {
		if got := PlaceOf(tt.id, tt.nonce); got != tt.want || len(got) > maxText {
			t.Errorf("PlaceOf(%q, %q) = %q, want %q", tt.id, tt.nonce, got, tt.want)
		}
	}
}
