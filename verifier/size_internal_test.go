package verifier

import (
	"math/bits"
	"reflect"
	"testing"
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
