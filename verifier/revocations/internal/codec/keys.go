package codec

import (
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

// With returns the keys with k, at most MaxKeys: of more those that were there stay. ok reports
// whether k is among them.
func (ks Keys) With(k *Key) (joined Keys, ok bool) {
	switch {
	case ks.Find(k.ID) != nil:
		return ks, true
	case len(ks) >= MaxKeys:
		return ks, false
	}
	joined = append(slices.Clone(ks), k)
	slices.SortFunc(joined, func(a, b *Key) int { return strings.Compare(a.Name(), b.Name()) })
	return joined, true
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
