package protocol

import (
	"errors"
	"testing"

	"github.com/keyturn/keyturn/rotation/ring"
)

// No key is minted sooner than F + D + S, 16s, after the last: they become known one by one.
func TestMintIsNotTooEarly(t *testing.T) {
	alone := ringOf(nil, key("k1", 1, 0, 0))
	for _, now := range []float64{15.999, 16} {
		early := now < 16
		if p, err := baseOf(alone, now).MintDue(); err != nil || (p == nil) != early {
			t.Errorf("by itself at %v: minted %v, %v", now, p != nil, err)
		}
		_, err := baseOf(alone, now).Rotate(false)
		var refused *ring.RefusedError
		if errors.As(err, &refused) != early || !early && err != nil || early && !refused.From.Equal(sec(16)) {
			t.Errorf("by hand at %v: %v", now, err)
		}
	}
}
