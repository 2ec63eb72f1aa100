package verifier

import (
	"reflect"
	"testing"
)

// TestSizes: the bytes that the cache counts are those that are in use.
func TestSizes(t *testing.T) {
	if got := reflect.TypeFor[verified]().Size(); got != verifiedBytes {
		t.Errorf("a verified has %d bytes, and verifiedBytes is %d", got, verifiedBytes)
	}
	if got := reflect.TypeFor[Marks]().Size(); got != marksBytes {
		t.Errorf("a Marks has %d bytes, and marksBytes is %d", got, marksBytes)
	}
	v := &verified{payload: "{}", marks: &Marks{Next: &Marks{}}}
	if got := v.size(); got != verifiedBytes+2*marksBytes+2 {
		t.Errorf("size = %d, want %d", got, verifiedBytes+2*marksBytes+2)
	}
}
