package rotation_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/rotation"
)

// kekBytes returns the n-th of some keys that are not weak.
func kekBytes(n int) []byte {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(31*n + 7*i + 1)
	}
	return key
}

type fakeKMS struct{ err error }

func (k fakeKMS) Unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return kekBytes(int(wrapped[0])), k.err
}

func TestUnwrapKEKs(t *testing.T) {
	want, err := rotation.NewKEKs(kekBytes(1), kekBytes(2))
	if err != nil {
		t.Fatal(err)
	}
	ks, err := rotation.UnwrapKEKs(t.Context(), fakeKMS{}, []byte{1}, []byte{2})
	if err != nil || !slices.Equal(ks.IDs(), want.IDs()) {
		t.Errorf("UnwrapKEKs = %v, %v", ks, err)
	}
	denied := errors.New("denied")
	if ks, err := rotation.UnwrapKEKs(t.Context(), fakeKMS{denied}, []byte{1}); ks != nil || !errors.Is(err, denied) {
		t.Errorf("UnwrapKEKs of a KMS that refuses = %v, %v", ks, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rotation.UnwrapKEKs(ctx, fakeKMS{}, []byte{1}); !errors.Is(err, context.Canceled) {
		t.Errorf("UnwrapKEKs after its end = %v", err)
	}
	if ks, err := rotation.UnwrapKEKs(t.Context(), fakeKMS{}); ks != nil || err == nil {
		t.Errorf("UnwrapKEKs of nothing = %v, %v", ks, err)
	}
}
