package rediskeys

import (
	"encoding/binary"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"unsafe"
)

// A packer writes MessagePack as Redis does: with the shortest header.
type packer struct{ b []byte }

func (p *packer) array(n int) {
	switch {
	case n < 16:
		p.b = append(p.b, 0x90|byte(n))
	case n < 1<<16:
		p.b = binary.BigEndian.AppendUint16(append(p.b, 0xdc), uint16(n))
	default:
		p.b = binary.BigEndian.AppendUint32(append(p.b, 0xdd), uint32(n))
	}
}

func (p *packer) text(s string) {
	switch n := len(s); {
	case n < 32:
		p.b = append(p.b, 0xa0|byte(n))
	case n < 1<<8:
		p.b = append(p.b, 0xd9, byte(n))
	case n < 1<<16:
		p.b = binary.BigEndian.AppendUint16(append(p.b, 0xda), uint16(n))
	default:
		p.b = binary.BigEndian.AppendUint32(append(p.b, 0xdb), uint32(n))
	}
	p.b = append(p.b, s...)
}

func packed(texts ...string) string {
	p := new(packer)
	p.array(len(texts))
	for _, s := range texts {
		p.text(s)
	}
	return string(p.b)
}

// Fields of each size, and so many of them, come through MessagePack as they are.
func TestUnpackFields(t *testing.T) {
	for _, size := range []int{0, 1, 31, 32, 255, 256, 65535, 65536} {
		name, value := strings.Repeat("n", size), strings.Repeat("v", size)
		got, ok := unpackFields(packed("a", value, name, "b"))
		if !ok || len(got) != 2 || string(got["a"]) != value || string(got[name]) != "b" {
			t.Errorf("%d bytes: %t, %d fields", size, ok, len(got))
		}
		value2 := append(got["a"], 'x') // has memory of its own, and so overwrites no other value
		if string(got[name]) != "b" || len(value2) != size+1 {
			t.Errorf("%d bytes: append to one value changed another", size)
		}
	}
	for _, n := range []int{0, 7, 8, 32767, 32768} {
		var texts []string
		for i := range n {
			texts = append(texts, fmt.Sprint("f", i), fmt.Sprint("v", i))
		}
		got, ok := unpackFields(packed(texts...))
		if want, _ := listedFields(anys(texts)); !ok || !maps.EqualFunc(got, want, func(a, b []byte) bool { return string(a) == string(b) }) || len(got) != n {
			t.Errorf("%d fields: %t, got %d", n, ok, len(got))
		}
	}
}

// A name keeps no other memory alive: a keyring holds the kid of a key, which is a part of a name, for as long as the
// key, and anyone who writes to Redis can fill a ring with 1 MiB of other fields.
func TestUnpackFieldsNames(t *testing.T) {
	text := packed("k:1", "v", "x", strings.Repeat("w", 1<<20))
	begin := uintptr(unsafe.Pointer(unsafe.StringData(text)))
	fields, _ := unpackFields(text)
	for name := range fields {
		if at := uintptr(unsafe.Pointer(unsafe.StringData(name))); at >= begin && at < begin+uintptr(len(text)) {
			t.Errorf("the name %q is a part of the reply of %d bytes", name, len(text))
		}
	}
	if len(fields) != 2 {
		t.Errorf("%d fields, want 2", len(fields))
	}
	runtime.KeepAlive(text)
}

func BenchmarkUnpackFields(b *testing.B) {
	text := packed("head", strings.Repeat("h", 100), "k:0123456789abcdef", strings.Repeat("k", 150), "p:kid", "1796000392928",
		"r:0123456789012345678901", strings.Repeat("r", 330), "r:1123456789012345678901", strings.Repeat("r", 330))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := unpackFields(text); !ok {
			b.Fatal("refused")
		}
	}
}

func anys(texts []string) []any {
	all := make([]any, len(texts))
	for i, s := range texts {
		all[i] = s
	}
	return all
}

// A text that is no such array is refused as a whole: a part of a ring would look like a store that has lost the rest.
func TestUnpackFieldsRefuses(t *testing.T) {
	whole := packed("a", strings.Repeat("v", 40), "b", strings.Repeat("w", 300))
	for i := range len(whole) {
		if _, ok := unpackFields(whole[:i]); ok {
			t.Errorf("accepted when cut to %d of %d bytes", i, len(whole))
		}
	}
	for _, bad := range []string{
		whole + "x", packed("a"), packed("a", "b", "c"), "\xc0", "\x81\xa1a\xa1b", "\x92\xa1a\x01", "\x92\xc4\x01a\xa1b",
		"\xdc", "\xdd\xff\xff\xff\xfe", "\xdd\x7f\xff\xff\xfe\xa1a\xa1b", "\x92\xdb\xff\xff\xff\xffa\xa1b", "\x92\xdb\x80\x00\x00\x00",
	} {
		if got, ok := unpackFields(bad); ok {
			t.Errorf("%.20q = %q", bad, got)
		}
	}
}

func FuzzUnpackFields(f *testing.F) {
	f.Add(packed("head", "x", "k:1", strings.Repeat("y", 300)))
	f.Add("\xdd\x00\x00\x00\x02\xda\x00\x01a\xdb\x00\x00\x00\x01b")
	f.Fuzz(func(t *testing.T, text string) {
		fields, ok := unpackFields(text)
		size := 0
		for name, value := range fields {
			size += len(name) + len(value)
		}
		if !ok && fields != nil || size > len(text) {
			t.Errorf("%q = %d bytes, %t", text, size, ok)
		}
	})
}
