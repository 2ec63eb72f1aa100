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

// TestOneEncoding: no value has a second encoding, and none lies out of its range, even if a holder of
// the key has sealed it.
func TestOneEncoding(t *testing.T) {
	keks := mustKEKs(t, 1)
	kek := keks.list[0]
	tk, _, err := NewTenantKey(keks, "acme")
	if err != nil {
		t.Fatal(err)
	}
	m := mustMaterial(t, keystore.ES256)
	h := header{Record: testRecord("acme", 1, m), tenantKey: tk.ID, public: m.public}
	name, late := kek.name.append(nil), u64(uint64(maxDate.UnixMilli()))
	at := u64(1_800_000_000_000)
	seals := map[string]func(open []byte) error{
		"record": func(open []byte) error {
			box, _ := tk.box()
			_, err := OpenRecord(map[string]*TenantKey{tk.ID: tk}, "acme", h.KID, sealed(t, box, open, h.place(), m.secret()))
			return err
		},
		"fact": func(open []byte) error {
			_, err := openFact(keks, "acme", ring.FactRevoked, "k", append(open, kek.mac(useFacts, slices.Concat(open, []byte("x"), str("acme"), str("k")))...))
			return err
		},
		"dead": func(open []byte) error {
			_, err := openFact(keks, "acme", ring.FactDestroyed, "", append(open, kek.mac(useFacts, slices.Concat(open, []byte("d"), str("acme"), str("")))...))
			return err
		},
		"head": func(open []byte) error {
			_, err := openHead(keks, "acme", append(open, kek.mac(useHead, slices.Concat(open, str("acme")))...))
			return err
		},
		"ack": func(open []byte) error {
			_, err := OpenAck(keks, "a", 0, append(open, kek.mac(useAcks, slices.Concat(open, []byte{0, 0}, str("a")))...))
			return err
		},
		"entry": func(open []byte) error {
			e := Entry{Op: "op", Tenant: "acme", Nonce: "n"}
			_, err := OpenEntry(keks, e, append(open, kek.mac(useLog, slices.Concat(open, str("op"), str("acme"), str(""), str(""), str("n"), u32(0)))...))
			return err
		},
	}
	long := append(append([]byte{65}, strings.Repeat("a", 65)...), name[17:]...)
	fact := func(at, name []byte) []byte { return slices.Concat([]byte("kt\x01F"), at, name) }
	dead := func(life uint32) []byte { return slices.Concat([]byte("kt\x01D"), at, u32(life), name) }
	head := func(seq uint32, count uint64) []byte {
		return slices.Concat([]byte("kt\x01H"), u32(seq), u64(count), name)
	}
	ack := func(good []byte, id, nonce string, names []byte, applied ...string) []byte {
		b := slices.Concat([]byte("kt\x01A"), at, good, make([]byte, 16), str(id), str(nonce), names, []byte{0, byte(len(applied))})
		for _, a := range applied {
			b = append(b, str(a)...)
		}
		return b
	}
	accepts := func(algs ...byte) []byte { // an acknowledgement of algorithms
		b := ack(at, "0-1", "n", append([]byte{1}, name...))
		return slices.Concat(b[:len(b)-2], []byte{byte(len(algs))}, algs, []byte{0})
	}
	end := func(kind byte, kid string, at []byte) []byte { return slices.Concat([]byte{kind}, str(kid), at) }
	entry := func(n byte, ends ...[]byte) []byte {
		return slices.Concat([]byte("kt\x01L"), []byte{n}, slices.Concat(ends...), name)
	}
	names, edit := append([]byte{1}, name...), func(i int, to ...byte) []byte { b := h.append(nil); copy(b[i:], to); return b }
	checkEncodings(t, seals, map[string]map[string][]byte{
		"record": {"": h.append(nil), "seq 0": edit(4, 0, 0, 0, 0), "seq 2^31": edit(4, 0x80), "created 0": edit(8, u64(0)...), "created late": edit(8, late...),
			"origin": edit(32, 'x'), "a flag of bit 3": edit(33, 8), "holds and waits": edit(33, 6), "alg 0": edit(34, 0), "alg 15": edit(34, 15), "policy's alg 0": edit(35, 0),
			"11 years": edit(36, 0xff), "a long public part": edit(98, 0xff), "a longest of 11 years": edit(81, 0xff), "a life below 0": edit(86, 0xff)},
		"fact": {"": fact(at, name), "at 0": fact(u64(0), name), "late": fact(late, name), "no id": fact(at, append([]byte{0}, name[17:]...)),
			"a long id": fact(at, long), "an id with a slash": fact(at, append([]byte{16, '/'}, name[2:]...))},
		"dead": {"": dead(1), "life 0": dead(0), "life 2^31": dead(1 << 31), "a fact without a life": fact(at, name)},
		"head": {"": head(0, 1), "seq 2^31": head(1<<31, 1), "count 0": head(1, 0)},
		"ack": {"": ack(u64(0), "0-1", "n", names), "good since late": ack(late, "0-1", "n", names), "no place": ack(at, "", "n", names), "no nonce": ack(at, "0-1", "", names),
			"a long nonce": ack(at, "0-1", strings.Repeat("n", 65), names), "not UTF-8": ack(at, "\xff", "n", names), "no KEK": ack(at, "0-1", "n", []byte{0}),
			"17 KEKs": ack(at, "0-1", "n", append([]byte{17}, slices.Repeat(name, 17)...)), "an empty change": ack(at, "0-1", "n", names, ""),
			"an unknown algorithm": accepts(15), "15 algorithms": accepts(slices.Repeat([]byte{1}, 15)...),
			"33 changes": ack(at, "0-1", "n", names, slices.Repeat([]string{"n"}, 33)...)},
		"entry": {"": entry(2, end('x', "a", at), end('x', "b", at)), "other order": entry(2, end('x', "b", at), end('x', "a", at)),
			"twice": entry(2, end('x', "a", at), end('x', "a", at)), "a promotion": entry(1, end('a', "a", at)), "gone": entry(1, end('g', "", at)),
			"no kid": entry(1, end('x', "", at)), "dead with a kid": entry(1, end('d', "a", at), u32(1)), "dead of no life": entry(1, end('d', "", at), u32(0)), "a life below 0": entry(1, end('d', "", at), u32(1<<31)), "at 0": entry(1, end('x', "a", u64(0))),
			"fewer than it says": entry(2, end('x', "a", at)), "more than it says": entry(0, end('x', "a", at))},
	})
}

// checkEncodings checks that of each kind the encoding without a name opens, and no other.
func checkEncodings(t *testing.T, seals map[string]func([]byte) error, all map[string]map[string][]byte) {
	t.Helper()
	for what, blobs := range all {
		for name, open := range blobs {
			if err := seals[what](open); name == "" && err != nil || name != "" && !errors.Is(err, ErrMalformed) {
				t.Errorf("%s, %q: %v", what, name, err)
			}
		}
	}
}
