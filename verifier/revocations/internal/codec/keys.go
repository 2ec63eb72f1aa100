package codec

import (
	"errors"
	"slices"
	"strings"
)

// MaxKeys is how many digest keys a list may have. A token is looked up under each.
const MaxKeys = 4

// FieldPrefix begins the name of the field of a digest key; its name follows.
const FieldPrefix = "k:"

// Keys are the digest keys of a list, sorted by ID. They are immutable.
type Keys []*Key

// Find returns the key of that ID, or nil.
func (ks Keys) Find(id uint32) *Key {
	for _, k := range ks { // a few
		if k.ID == id {
			return k
		}
	}
	return nil
}

// First returns the key under which new entries are made, or nil without any. All instances choose
// the same one.
func (ks Keys) First() *Key {
	if len(ks) == 0 {
		return nil
	}
	return ks[0]
}

// With returns the keys with k, at most MaxKeys: of more those that were there stay, and so does another key
// of the same ID. ok reports whether k is among them.
func (ks Keys) With(k *Key) (joined Keys, ok bool) {
	switch held := ks.Find(k.ID); {
	case held != nil:
		return ks, held.Same(k)
	case len(ks) >= MaxKeys:
		return ks, false
	}
	joined = append(slices.Clone(ks), k)
	slices.SortFunc(joined, func(a, b *Key) int { return strings.Compare(a.Name(), b.Name()) })
	return joined, true
}

// Replace returns the keys with k in the place of the one of its ID.
func (ks Keys) Replace(k *Key) Keys {
	replaced := slices.Clone(ks)
	for i := range replaced {
		if replaced[i].ID == k.ID {
			replaced[i] = k
		}
	}
	return replaced
}

// A Box seals digest keys.
type Box struct {
	Seal func(place string, secret []byte) ([]byte, error)
	Open func(place string, sealed []byte) (secret []byte, other string, err error) // other is the KEK that it is under, or "" if that is the first
}

// PlainBox returns a Box that leaves digest keys in clear.
func PlainBox() Box {
	return Box{
		Seal: func(_ string, secret []byte) ([]byte, error) {
			return append(appendStart(nil, kindPlain), secret...), nil
		},
		Open: func(_ string, sealed []byte) ([]byte, string, error) {
			secret, err := cutStart(sealed, kindPlain)
			return secret, "", err
		},
	}
}

// SealKey returns the field of a key, and its value.
func SealKey(b Box, k *Key) (field string, value []byte, err error) {
	field = FieldPrefix + k.Name()
	value, err = b.Seal(field, k.Secret())
	return field, value, err
}

// maxKeyValue is more than the value of any digest key has, in bytes: one in clear has 36, and a sealed one
// has the name of its KEK besides.
const maxKeyValue = 512

// NamesKey reports whether a field is named as that of a digest key.
func NamesKey(field string) bool {
	name, ok := strings.CutPrefix(field, FieldPrefix)
	return ok && len(name) == 8 && strings.Trim(name, "0123456789abcdef") == ""
}

// MayBeKey reports whether a value that cannot be opened has the form of a digest key: it may be sealed
// under another KEK, be in clear where others are sealed, or be of a newer version.
func MayBeKey(field string, value []byte) bool {
	if !NamesKey(field) || len(value) > maxKeyValue {
		return false
	}
	for _, kind := range []byte{kindPlain, kindSealed} {
		if _, err := cutStart(value, kind); !errors.Is(err, ErrMalformed) {
			return true
		}
	}
	return false
}

// OpenKey opens the field of a key. other is as [Box] has it.
func OpenKey(b Box, field string, value []byte) (k *Key, other string, err error) {
	secret, other, err := b.Open(field, value)
	if err != nil {
		return nil, "", err
	}
	if k, err = ParseKey(secret); err != nil {
		return nil, "", ErrMalformed
	}
	if FieldPrefix+k.Name() != field {
		return nil, "", ErrForged
	}
	return k, other, nil
}
