package verifier

import (
	"math/bits"
	"reflect"
	"testing"
	"unsafe"
)

// TestSizes: the bytes that the cache counts are those that are in use, with words of 64 bits, and
// not less than those with words of 32.
func TestSizes(t *testing.T) {
	wrong := func(got, counted uintptr) bool {
		return got > counted || bits.UintSize == 64 && got != counted
	}
	if got := reflect.TypeFor[verified]().Size(); wrong(got, verifiedBytes) {
		t.Errorf("a verified has %d bytes, and verifiedBytes is %d", got, verifiedBytes)
	}
	if got := reflect.TypeFor[Marks]().Size(); wrong(got, marksBytes) {
		t.Errorf("a Marks has %d bytes, and marksBytes is %d", got, marksBytes)
	}
	v := &verified{payload: "{}", marks: &Marks{Next: &Marks{}}}
	if got := v.size(); got != verifiedBytes+2*marksBytes+2 {
		t.Errorf("size = %d, want %d", got, verifiedBytes+2*marksBytes+2)
	}
}

// TestHitReadsTwoLines: the fields that a hit reads lie in two lines of the processor's cache, if the marks
// say that the token is clean. An entry with marks is allocated with 320 bytes, a multiple of a line.
func TestHitReadsTwoLines(t *testing.T) {
	var e markedEntry
	at := func(field unsafe.Pointer) uintptr { return uintptr(field) - uintptr(unsafe.Pointer(&e)) }
	first, last := at(unsafe.Pointer(&e.marks.Generation)), at(unsafe.Pointer(&e.Value.twinName))
	if size := unsafe.Sizeof(e); bits.UintSize == 64 && (first/64+1 != last/64 || size > 320 || size <= 288) {
		t.Errorf("they lie at %d to %d of %d bytes", first, last, size)
	}
}
