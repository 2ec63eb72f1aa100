package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/rotation/ring"
)

// testKEK returns the n-th of some keys that are not weak.
func testKEK(n int) []byte {
	key := make([]byte, kekSize)
	for i := range key {
		key[i] = byte(31*n + 7*i + 1)
	}
	return key
}

func mustKEKs(t testing.TB, ns ...int) *KEKs {
	t.Helper()
	var keys [][]byte
	for _, n := range ns {
		keys = append(keys, testKEK(n))
	}
	ks, err := NewKEKs(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

func TestParseKEKs(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	a, b := b64(testKEK(1)), b64(testKEK(2))
	derived := mustKEKs(t, 1, 2).IDs()
	insecure := b64(insecureKey[:])
	many := ""
	for i := range maxKEKs + 1 {
		many += b64(testKEK(i)) + "\n"
	}
	for _, tt := range []struct {
		name, text string
		want       []string
		wantError  string
	}{
		{name: "one", text: a, want: derived[:1]},
		{name: "a trailing line end", text: a + "\n", want: derived[:1]},
		{name: "as Windows writes it", text: a + "\r\n\r\n" + b + "\r\n", want: derived},
		{name: "the first is the primary", text: b + "\n" + a, want: []string{derived[1], derived[0]}},
		{name: "empty lines", text: "\n\n" + a + "\n\n" + b + "\n\n", want: derived},
		{name: "with ids", text: "2026-11:" + a + "\nold_1.x:" + b, want: []string{"2026-11", "old_1.x"}},
		{name: "some with ids", text: "new:" + a + "\n" + b, want: []string{"new", derived[1]}},
		{name: "the longest id", text: strings.Repeat("a", 64) + ":" + a, want: []string{strings.Repeat("a", 64)}},
		{name: "nothing", text: "\n", wantError: "no KEK; make one with: (umask 077; openssl rand -base64 32 > kek)"},
		{name: "31 bytes", text: b64(testKEK(1)[:31]), wantError: "line 1: not base64 of 32 bytes; make one with"},
		{name: "33 bytes", text: b64(append(testKEK(1), 1)), wantError: "line 1: not base64"},
		{name: "not base64", text: a + "\nhello", wantError: "line 2: not base64"},
		{name: "hexadecimal", text: fmt.Sprintf("%x", testKEK(1)), wantError: "not base64 of 32 bytes"},
		{name: "base64url", text: base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb, 0xff}, 16)), wantError: "not base64"},
		{name: "without padding", text: strings.TrimRight(a, "="), wantError: "not base64"},
		{name: "bits after the end", text: a[:42] + "B=", wantError: "not base64"},
		{name: "a comment", text: "# ours\n" + a, wantError: "line 1: not base64"},
		{name: "a space", text: a + " ", wantError: "not base64"},
		{name: "a line end within", text: a[:20] + "\r" + a[20:], wantError: "not base64"},
		{name: "all zero", text: b64(make([]byte, 32)), wantError: "all bytes are the same; make one with"},
		{name: "all the same", text: b64(bytes.Repeat([]byte{'a'}, 32)), wantError: "all bytes are the same"},
		{name: "twice", text: a + "\nx:" + a, wantError: "line 2: the key of"},
		{name: "an id twice", text: "x:" + a + "\nx:" + b, wantError: `line 2: a second key that is called "x"`},
		{name: "an empty id", text: ":" + a, wantError: "no id"},
		{name: "an id with a space", text: "a b:" + a, wantError: "no id"},
		{name: "an id too long", text: strings.Repeat("a", 65) + ":" + a, wantError: "no id"},
		{name: "called insecure", text: "insecure:" + a, wantError: `only InsecurePlaintext is called "insecure"`},
		{name: "the published key", text: "mine:" + insecure, wantError: "published"},
		{name: "too many", text: many, wantError: "more than 16 keys"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ks, err := ParseKEKs([]byte(tt.text))
			if tt.wantError == "" {
				if err != nil || !slices.Equal(ks.IDs(), tt.want) {
					t.Fatalf("ParseKEKs = %v, %v, want %q", ks, err, tt.want)
				}
				return
			}
			if err == nil || ks != nil || !strings.Contains(err.Error(), tt.wantError) {
				t.Fatalf("ParseKEKs = %v, %v, want an error with %q", ks, err, tt.wantError)
			}
			for line := range strings.Lines(tt.text) {
				if line = strings.TrimSpace(line); len(line) > 20 && strings.Contains(err.Error(), line[len(line)-20:]) {
					t.Errorf("the error %q quotes the key", err)
				}
			}
		})
	}
}

func TestKEKIDFollowsFromTheKey(t *testing.T) {
	a, b := mustKEKs(t, 1), mustKEKs(t, 1)
	if a.IDs()[0] != b.IDs()[0] || len(a.IDs()[0]) != 16 {
		t.Errorf("ids %q and %q", a.IDs(), b.IDs())
	}
	if c := mustKEKs(t, 2); c.IDs()[0] == a.IDs()[0] || c.list[0].check == a.list[0].check {
		t.Error("two keys share an id or a check value")
	}
}

func TestNoKEKSealsNothing(t *testing.T) {
	for _, ks := range []*KEKs{nil, {}} {
		if _, _, err := NewTenantKey(ks, "acme"); err == nil {
			t.Error("newTenantKey without a KEK")
		}
		if _, err := SealFact(ks, "acme", ring.FactRevoked, "k", minDate); err == nil {
			t.Error("sealFact without a KEK")
		}
		if got := fmt.Sprint(ks); got != "no KEK" {
			t.Errorf("prints %q", got)
		}
	}
	if _, err := NewKEKs(); err == nil {
		t.Error("NewKEKs of nothing")
	}
}

func TestKEKsPrintTheirNames(t *testing.T) {
	ks, err := ParseKEKs([]byte("new:" + base64.StdEncoding.EncodeToString(testKEK(1)) + "\nold:" + base64.StdEncoding.EncodeToString(testKEK(2))))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, ks); got != `KEKs "new", "old"` {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	if got := fmt.Sprint(InsecurePlaintext()); got != `KEK "insecure"` {
		t.Errorf("prints %q", got)
	}
	doc, err := json.Marshal(struct{ KEKs *KEKs }{ks})
	if err != nil || string(doc) != `{"KEKs":{}}` {
		t.Errorf("as JSON %s, %v", doc, err)
	}
}
