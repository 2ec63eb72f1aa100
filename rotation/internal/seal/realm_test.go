package seal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/keyturn/keyturn/rotation/ring"
)

// TestRealms: what was sealed in one realm does not open in another under the same KEKs, and the
// error says so by name.
func TestRealms(t *testing.T) {
	none := mustKEKs(t, 1, 2)
	staging, production := mustIn(t, none, "staging"), mustIn(t, none, "production")
	for _, tt := range []struct{ theirs, ours *KEKs }{{staging, production}, {production, staging}, {none, staging}, {staging, none}} {
		s := wholeRing(t, tt.theirs)
		delete(s.fields, FieldDead)
		opened, err := OpenRing(tt.ours, "acme", s.fields)
		for field := range s.fields {
			if isSealed(field) {
				wantRefused(t, "in another realm", field, opened, err)
			}
		}
		bad := new(ring.UnreadableError)
		errors.As(err, &bad)
		for field, cause := range bad.Failed {
			if !errors.Is(cause, ErrWrongRealm) || !errors.Is(cause, ErrWrongKEK) || !strings.Contains(cause.Error(), fmt.Sprintf("this process is in %q", tt.ours.ownRealms()[0])) {
				t.Errorf("%q of another realm: %v", field, cause)
			}
		}
		if may := Replaceable(bad, HeldBytes{KEKs: tt.ours, Stored: s.fields}); len(may) > 0 || len(opened.Records) > 0 {
			t.Errorf("of another realm %q are replaceable, %d records open", may, len(opened.Records))
		}
		ack, err := SealAck(tt.theirs, testAck())
		if err != nil {
			t.Fatal(err)
		}
		entry, err := SealEntry(tt.theirs, tt.theirs.Primary(), testEntry())
		if err != nil {
			t.Fatal(err)
		}
		_, err1 := OpenAck(tt.ours, "pod-1", 7, ack)
		_, err2 := OpenEntry(tt.ours, testEntry(), entry)
		if !errors.Is(err1, ErrWrongRealm) || !errors.Is(err2, ErrWrongRealm) {
			t.Errorf("of another realm: %v, %v", err1, err2)
		}
	}
}

// TestIn: a realm is a name for the same keys.
func TestIn(t *testing.T) {
	none := mustKEKs(t, 1, 2)
	staging := mustIn(t, none, "staging")
	if again := mustIn(t, mustIn(t, staging, "other"), "staging"); !slices.Equal(again.Names(), staging.Names()) {
		t.Errorf("again %v, want %v", again.Names(), staging.Names())
	}
	if back := mustIn(t, staging, ""); !slices.Equal(back.Names(), none.Names()) {
		t.Errorf("back %v, want %v", back.Names(), none.Names())
	}
	for i, name := range staging.Names() {
		other := none.Names()[i]
		if name.ID != other.ID || name.Check != other.Check || name.Realm == other.Realm || none.Has(name) || !staging.Has(name) {
			t.Errorf("%+v in a realm, %+v in none", name, other)
		}
		for _, use := range []string{useWrap, useFacts, useHead, useAcks, useLog, useSnapshot} {
			if string(staging.list[i].derive(use)) == string(none.list[i].derive(use)) {
				t.Errorf("%s is the same in both realms", use)
			}
		}
	}
	if staging.Names()[0].Realm == staging.Names()[1].Realm {
		t.Error("two KEKs have the same realm check")
	}
	for _, realm := range []string{strings.Repeat("a", 64), strings.Repeat("ü", 32), "a:b", "\x00"} {
		mustIn(t, none, realm)
	}
	for _, realm := range []string{strings.Repeat("a", 65), "\xff"} {
		if ks, err := none.In(realm); err == nil || ks != nil {
			t.Errorf("In(%q) = %v, %v", realm, ks, err)
		}
	}
	for _, ks := range []*KEKs{nil, {}} {
		if in := mustIn(t, ks, "staging"); len(in.Names()) > 0 || in.Primary() != (KEKName{}) || in.Has(KEKName{}) {
			t.Errorf("nothing in a realm: %v", in.Names())
		}
	}
}

// TestSeveralRealms: KEKs of two realms open what is sealed in either, seal in the first one, and
// take a ring from one to the other.
func TestSeveralRealms(t *testing.T) {
	none := named(t, "new", testKEK(1), "old", testKEK(2))
	both, err := none.In("live", "")
	if err != nil {
		t.Fatal(err)
	}
	live := mustIn(t, none, "live")
	if both.Primary() != live.Primary() || len(both.Names()) != 4 || !slices.Equal(both.IDs(), []string{"new", "old"}) || live.SeveralRealms() || !both.SeveralRealms() {
		t.Errorf("names %v, ids %q", both.Names(), both.IDs())
	}
	for _, ks := range []*KEKs{none, live} {
		s := wholeRing(t, ks)
		delete(s.fields, FieldDead)
		if _, err := OpenRing(both, "acme", s.fields); err != nil {
			t.Errorf("what is sealed in %q: %v", ks.ownRealms(), err)
		}
	}
	tk, blob, err := NewTenantKey(none, "acme")
	if err != nil {
		t.Fatal(err)
	}
	moved, err := RewrapTenantKey(both, both.Primary(), "acme", tk.ID, blob)
	if err != nil {
		t.Fatal(err)
	}
	there, err := OpenTenantKey(live, "acme", tk.ID, moved)
	if err != nil || there.Born != tk.Born || there.KEK != live.Primary() {
		t.Errorf("moved: %+v, %v", there, err)
	}
	if _, err := OpenTenantKey(none, "acme", tk.ID, moved); !errors.Is(err, ErrWrongRealm) {
		t.Errorf("in the old realm: %v", err)
	}
	_, err = OpenTenantKey(both, "acme", tk.ID, blobOf(NewTenantKey(mustIn(t, none, "third"), "acme")))
	if !errors.Is(err, ErrWrongRealm) || !strings.Contains(err.Error(), `this process is in "live" and ""`) {
		t.Errorf("of a third realm: %v", err)
	}
	if in := both.Describe(none.Primary()); in != none.Primary().String()+` in realm ""` || live.Describe(live.Primary()) != live.Primary().String() {
		t.Errorf("described as %q and %q", in, live.Describe(live.Primary()))
	}
	if again := mustIn(t, both, "live"); !slices.Equal(again.Names(), live.Names()) {
		t.Errorf("again in one realm: %v", again.Names())
	}
	for _, others := range [][]string{{"live"}, {"a", "a"}, {"\xff"}, {"1", "2", "3", "4", "5", "6", "7", "8"}} {
		if ks, err := none.In("live", others...); err == nil || ks != nil {
			t.Errorf("In(live, %q) = %v, %v", others, ks, err)
		}
	}
}

// blobOf returns what to store of a tenant key.
func blobOf(_ *TenantKey, blob []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return blob
}

// TestNames: names and labels do not depend on the id that an operator gives.
func TestNames(t *testing.T) {
	a, b := named(t, "new", testKEK(1), "old", testKEK(2)), mustKEKs(t, 2, 1)
	if a.Primary() != a.Names()[0] || a.Primary().ID != "new" {
		t.Errorf("primary %v of %v", a.Primary(), a.Names())
	}
	if got, want := a.Primary().String(), fmt.Sprintf("new (check value %x)", a.Primary().Check); got != want {
		t.Errorf("prints %q, want %q", got, want)
	}
	for i, name := range a.Names() {
		other := b.Names()[1-i]
		if !b.Has(name) || !a.Has(other) || a.Label(name.Check) != b.Label(other.Check) || name.ID == other.ID {
			t.Errorf("%v and %v are not the same KEK", name, other)
		}
	}
	if mustKEKs(t, 3).Has(a.Primary()) {
		t.Error("has another KEK")
	}
	var none *KEKs
	if got, want := none.Label(a.Primary().Check), a.Label(a.Primary().Check); got != want || got == a.Label(a.Names()[1].Check) {
		t.Errorf("label %q, want %q", got, want)
	}
}

// TestSealsUnder: each seal is under the KEK that is named, and fails without that KEK.
func TestSealsUnder(t *testing.T) {
	keks, first, second := mustKEKs(t, 1, 2), mustKEKs(t, 1), mustKEKs(t, 2)
	tk, wrapped, err := NewTenantKey(first, "acme")
	if err != nil {
		t.Fatal(err)
	}
	seals := map[string]func(ks *KEKs, under KEKName) ([]byte, error){
		"fact": func(ks *KEKs, under KEKName) ([]byte, error) {
			return SealFact(ks, under, "acme", ring.FactRevoked, "k", sealedAt)
		},
		"head":  func(ks *KEKs, under KEKName) ([]byte, error) { return SealHead(ks, under, "acme", Head{1, 1}) },
		"entry": func(ks *KEKs, under KEKName) ([]byte, error) { return SealEntry(ks, under, testEntry()) },
		"tenant key": func(ks *KEKs, under KEKName) ([]byte, error) {
			return RewrapTenantKey(ks, under, "acme", tk.ID, wrapped)
		},
	}
	opens := map[string]func(ks *KEKs, blob []byte) error{
		"fact": func(ks *KEKs, blob []byte) error {
			_, err := openFact(ks, "acme", ring.FactRevoked, "k", blob)
			return err
		},
		"head":       func(ks *KEKs, blob []byte) error { _, err := openHead(ks, "acme", blob); return err },
		"entry":      func(ks *KEKs, blob []byte) error { _, err := OpenEntry(ks, testEntry(), blob); return err },
		"tenant key": func(ks *KEKs, blob []byte) error { _, err := OpenTenantKey(ks, "acme", tk.ID, blob); return err },
	}
	for what, seal := range seals {
		blob, err := seal(keks, second.Primary())
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if err := opens[what](second, blob); err != nil {
			t.Errorf("%s under the second KEK: %v", what, err)
		}
		if err := opens[what](first, blob); !errors.Is(err, ErrWrongKEK) {
			t.Errorf("%s under the second KEK opens with the first: %v", what, err)
		}
		for _, under := range []KEKName{{}, second.Primary(), mustIn(t, first, "staging").Primary()} {
			if blob, err := seal(first, under); !errors.Is(err, ErrWrongKEK) || blob != nil {
				t.Errorf("%s under %v, without that KEK: %x, %v", what, under, blob, err)
			}
		}
		if blob, err := seal(nil, KEKName{}); err == nil || blob != nil {
			t.Errorf("%s without a KEK: %x", what, blob)
		}
	}
}

// TestSharedMemory: what a large keyring holds of each ring is in memory once.
func TestSharedMemory(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	opened, err := OpenRing(keks, "acme", s.fields)
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b string) bool { return a == b && unsafe.StringData(a) == unsafe.StringData(b) }
	for id := range opened.Facts.All {
		if !slices.ContainsFunc(opened.Records, func(r OpenedRecord) bool { return same(r.KID, id.KID) }) &&
			!slices.ContainsFunc(opened.Accepts, func(a OpenedAccept) bool { return same(a.KID, id.KID) }) {
			t.Errorf("the kid of fact %c is a copy", id.Kind)
		}
	}
	for _, r := range opened.Records {
		if !same(r.Tenant, opened.Records[0].Tenant) || !same(r.TenantKey, opened.TenantKeys[s.key.ID].ID) {
			t.Errorf("the tenant or the tenant key of %q is a copy", r.KID)
		}
	}
	key := opened.TenantKeys[s.key.ID]
	if !same(keks.Label(key.Born), keks.Label(key.KEK.Check)) || !same(key.KEK.ID, keks.Primary().ID) {
		t.Error("the name of the KEK is a copy")
	}
}
