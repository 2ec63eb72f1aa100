package seal

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestHeaderHasEveryField fails if Record or Policy gets a field that is not sealed.
func TestHeaderHasEveryField(t *testing.T) {
	m := mustMaterial(t, keystore.HS256)
	base := header{Record: testRecord("acme", 1, m), tenantKey: "0123456789abcdef"}
	base.Timing = ring.Policy{Algorithm: keystore.HS256}
	authenticated := func(h header) []byte { return append(h.append(nil), h.place()...) }
	check := func(name string, h header) {
		if bytes.Equal(authenticated(h), authenticated(base)) {
			t.Errorf("%s is not authenticated", name)
		}
		got := h.append(nil)
		back, n, err := readHeader(got)
		back.Tenant, back.KID = h.Tenant, h.KID // they are told by the place
		if err != nil || n != len(got) || !reflect.DeepEqual(back.Record, h.Record) {
			t.Errorf("%s: read back as %+v, %v", name, back.Record, err)
		}
	}
	set := func(v reflect.Value, name string, h *header) {
		switch f := v.Interface().(type) {
		case string:
			v.SetString("other")
		case int:
			v.SetInt(12)
		case bool:
			v.SetBool(true)
		case time.Time:
			v.Set(reflect.ValueOf(f.Add(time.Millisecond)))
		case time.Duration:
			v.SetInt(int64(f + time.Millisecond))
		case keystore.Algorithm:
			v.SetString(string(keystore.HS512))
		case ring.Origin:
			v.SetString(string(ring.Legacy))
		default:
			t.Fatalf("%s is a %T, which this test does not know", name, f)
		}
		check(name, *h)
	}
	for i := range reflect.TypeFor[ring.Record]().NumField() {
		name := reflect.TypeFor[ring.Record]().Field(i).Name
		if name == "Timing" {
			continue
		}
		h := base
		set(reflect.ValueOf(&h.Record).Elem().Field(i), name, &h)
	}
	for i := range reflect.TypeFor[ring.Policy]().NumField() {
		h := base
		set(reflect.ValueOf(&h.Timing).Elem().Field(i), "Timing."+reflect.TypeFor[ring.Policy]().Field(i).Name, &h)
	}
}

// TestNewerVersion: a field of a newer version is refused as such, whatever follows the version,
// and must not be written over.
func TestNewerVersion(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	for field, value := range s.fields {
		if !isSealed(field) {
			continue
		}
		for _, newer := range [][]byte{[]byte("kt\x02"), []byte("kt\xff\x01"), append([]byte("kt\x02"), value[3:]...)} {
			opened, err := OpenRing(keks, "acme", s.with(field, newer))
			wantRefused(t, field, field, opened, err)
			bad := new(ring.UnreadableError)
			if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "newer keyturn") {
				t.Errorf("%q of a newer version: %v", field, err)
			}
			if errors.As(err, &bad); slices.Contains(Replaceable(bad, HeldBytes{}), field) {
				t.Errorf("%q of a newer version: replaceable are %q", field, Replaceable(bad, HeldBytes{}))
			}
		}
	}
}

// TestCutOrExtended: a sealed field that is cut anywhere, or continued, is refused.
func TestCutOrExtended(t *testing.T) {
	keks := mustKEKs(t, 1)
	s := newSealedRing(t, keks, "acme")
	for field, value := range s.fields {
		if !isSealed(field) {
			continue
		}
		for n := range value {
			opened, err := OpenRing(keks, "acme", s.with(field, value[:n]))
			wantRefused(t, fmt.Sprintf("%q cut at %d", field, n), field, opened, err)
		}
		for _, more := range [][]byte{{0}, {1}, value, make([]byte, 1<<16)} {
			opened, err := OpenRing(keks, "acme", s.with(field, slices.Concat(value, more)))
			wantRefused(t, fmt.Sprintf("%q with %d more", field, len(more)), field, opened, err)
		}
	}
}
