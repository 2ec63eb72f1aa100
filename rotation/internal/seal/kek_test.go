package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/rotation/ring"
)

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
		{name: "line ends of Windows", text: a + "\r\n\r\n" + b + "\r\n", want: derived},
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
		{name: "twice", text: a + "\nx:" + a, wantError: "line 2: the same key as"},
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

// TestDerivedID: the id and the check value of a KEK depend on its bytes alone.
func TestDerivedID(t *testing.T) {
	a, b := mustKEKs(t, 1), mustKEKs(t, 1)
	if a.IDs()[0] != b.IDs()[0] || len(a.IDs()[0]) != 16 {
		t.Errorf("ids %q and %q", a.IDs(), b.IDs())
	}
	if c := mustKEKs(t, 2); c.IDs()[0] == a.IDs()[0] || c.list[0].name.Check == a.list[0].name.Check {
		t.Error("two keys share an id or a check value")
	}
}

// TestNoKEK: nil and zero KEKs seal nothing.
func TestNoKEK(t *testing.T) {
	for _, ks := range []*KEKs{nil, {}} {
		if _, _, err := NewTenantKey(ks, "acme"); err == nil {
			t.Error("NewTenantKey without a KEK")
		}
		if _, err := SealFact(ks, ks.Primary(), "acme", ring.FactRevoked, "k", minDate); err == nil {
			t.Error("SealFact without a KEK")
		}
		if got := fmt.Sprint(ks); got != "no KEK" {
			t.Errorf("prints %q", got)
		}
	}
	if _, err := NewKEKs(); err == nil {
		t.Error("NewKEKs of nothing")
	}
}

// TestKEKsPrintIDs: every verb prints the ids and nothing else.
func TestKEKsPrintIDs(t *testing.T) {
	ks := named(t, "new", testKEK(1), "old", testKEK(2))
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

// TestWrongKEK: a ring under another KEK is refused, the error names both, and nothing may be
// written over it.
func TestWrongKEK(t *testing.T) {
	ours, theirs := mustKEKs(t, 1), mustKEKs(t, 2)
	s := newSealedRing(t, theirs, "acme")
	opened, err := OpenRing(ours, "acme", s.fields)
	if !errors.Is(err, ErrWrongKEK) || errors.Is(err, ErrTampered) {
		t.Fatalf("under another KEK: %v", err)
	}
	want := fmt.Sprintf("it is sealed under KEK %q, this process has KEK %q", theirs.IDs()[0], ours.IDs()[0])
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %q", err, want)
	}
	bad := new(ring.UnreadableError)
	if errors.As(err, &bad); len(Replaceable(bad, HeldBytes{})) > 0 || len(opened.Records) > 0 {
		t.Errorf("replaceable: %q; %d records", Replaceable(bad, HeldBytes{}), len(opened.Records))
	}

	main := func(key []byte) *KEKs {
		ks, err := ParseKEKs([]byte("main:" + base64.StdEncoding.EncodeToString(key)))
		if err != nil {
			t.Fatal(err)
		}
		return ks
	}
	s = newSealedRing(t, main(testKEK(2)), "acme")
	_, err = OpenRing(main(testKEK(1)), "acme", s.fields)
	if !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), `another KEK that is also called "main"`) {
		t.Errorf("another key of the same name: %v", err)
	}
	// An operator may rename a KEK.
	if _, err := OpenRing(theirs, "acme", s.fields); err != nil {
		t.Errorf("the same key under another name: %v", err)
	}
	for _, none := range []*KEKs{nil, {}} {
		if _, err := OpenRing(none, "acme", s.fields); !errors.Is(err, ErrWrongKEK) {
			t.Errorf("without a KEK: %v", err)
		}
	}
	s = newSealedRing(t, InsecurePlaintext(), "acme")
	if _, err := OpenRing(InsecurePlaintext(), "acme", s.fields); err != nil {
		t.Errorf("insecure: %v", err)
	}
	if _, err := OpenRing(ours, "acme", s.fields); !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), `"insecure"`) {
		t.Errorf("an insecure ring with a KEK: %v", err)
	}
}

// TestKEKChange follows the steps of docs/formats.md, "Changing KEKs".
func TestKEKChange(t *testing.T) {
	before, both, after := mustKEKs(t, 1), mustKEKs(t, 2, 1), mustKEKs(t, 2)
	s := newSealedRing(t, before, "acme")
	field := PrefixKey + s.key.ID

	wrapped, err := RewrapTenantKey(both, both.Primary(), "acme", s.key.ID, s.fields[field])
	if err != nil {
		t.Fatal(err)
	}
	fields := s.with(field, wrapped)
	opened, err := OpenRing(both, "acme", fields)
	if err != nil || len(opened.Records) != 2 || !opened.Facts.Equal(s.facts) {
		t.Fatalf("old facts and records under both KEKs: %v", err)
	}
	// Without the old KEK, facts that were not sealed again cannot be read. Records can.
	opened, err = OpenRing(after, "acme", fields)
	if !errors.Is(err, ErrWrongKEK) || len(opened.Records) != 2 {
		t.Errorf("old facts without the old KEK: %v", err)
	}
	for id, at := range s.facts.All {
		if fields[FactField(id.Kind, id.KID)], err = SealFact(both, both.Primary(), "acme", id.Kind, id.KID, at); err != nil {
			t.Fatal(err)
		}
	}
	if fields[FieldHead], err = SealHead(both, both.Primary(), "acme", Head{Seq: 2, Count: 4}); err != nil {
		t.Fatal(err)
	}
	opened, err = OpenRing(after, "acme", fields)
	if err != nil || !opened.Facts.Equal(s.facts) {
		t.Errorf("after the change: %v", err)
	}
	if _, err := RewrapTenantKey(after, after.Primary(), "acme", s.key.ID, s.fields[field]); !errors.Is(err, ErrWrongKEK) {
		t.Errorf("rewrapped without the old KEK: %v", err)
	}
	if _, err := RewrapTenantKey(both, both.Primary(), "globex", s.key.ID, s.fields[field]); !errors.Is(err, ErrTampered) {
		t.Errorf("rewrapped for another tenant: %v", err)
	}
}
