package revocations

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
)

// SetKEKs replaces the KEKs of [Config], such as after a KEK file has changed. Digest keys that could not be
// opened are read again at once. It changes nothing and returns an error if the new KEKs cannot open a
// digest key that the old ones could: this list could not be opened again then. Before the list has read its
// digest keys it takes any KEKs, and stays unready if they open none. A list with KEKs stays one
// with KEKs, and one without stays without: all instances would need the other form at one moment.
//
// It is safe for concurrent use, and does no I/O.
func (l *List) SetKEKs(keks *rotation.KEKs) error {
	switch {
	case l.cfg.KEKs == nil:
		return errors.New("revocations: SetKEKs: the list has no KEK: its digest keys lie in the store in clear, for all instances")
	case keks == nil:
		return errors.New("revocations: SetKEKs needs a KEK")
	}
	cfg := l.cfg
	cfg.KEKs = keks
	box, err := cfg.box()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, field := range slices.Sorted(maps.Keys(l.keys.sealed)) {
		value := l.keys.sealed[field]
		if _, _, err := codec.OpenKey(*l.box.Load(), field, value); err != nil {
			continue
		}
		if _, _, err := codec.OpenKey(box, field, value); err != nil {
			return fmt.Errorf("revocations: SetKEKs: the new KEKs do not open the digest key %.64q, which the old ones do: keep the old KEK in the file until keyturn keys rekey has sealed it again: %w", field, err)
		}
	}
	l.box.Store(&box)
	l.rebox.Store(true)
	l.cfg.Logger.Info("revocations: the KEKs were replaced", "keks", keks.IDs())
	l.nudge(l.keys.bucket.index)
	return nil
}
