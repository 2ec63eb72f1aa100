package jwks

import (
	"cmp"
	"fmt"
	"slices"
)

// The most that MaxKeys and MaxBytes of a [SourceConfig] can be.
const (
	MostKeys  = 8192
	MostBytes = 16 << 20
)

// Bounds on a set. A [SourceConfig] may have others.
const (
	defaultMaxBytes = 1 << 20
	defaultMaxKeys  = 512  // that serve
	minElements     = 1024 // of the "keys" array, usable or not, or twice the keys that may serve
)

// A reading says how a set is read. The zero reading is that of [Parse].
type reading struct {
	secrets  bool     // of a file that is trusted: its secrets serve
	uses     []string // further values of "use", and of key_ops, that serve
	maxBytes int      // 0 is the default
	maxKeys  int      // 0 is the default
	settings bool     // the limits are settings of a source, for the words of an error
}

// takes reports whether a key of this use or operation serves although the RFCs do not say so.
func (r reading) takes(use string) bool { return slices.Contains(r.uses, use) }

func (r reading) bytes() int { return cmp.Or(r.maxBytes, defaultMaxBytes) }

func (r reading) keys() int { return cmp.Or(r.maxKeys, defaultMaxKeys) }

// elements is how many JWKs a set may have, those that do not serve included.
func (r reading) elements() int { return max(minElements, 2*r.keys()) }

// over returns an error about a limit.
func (r reading) over(limit Setting, format string, args ...any) *Error {
	failed := failf("", format, args...)
	if r.settings {
		failed.allowedBy(limit, "raises the limit")
	}
	return failed
}

// reading returns how the sets of a source are read.
func (c SourceConfig) reading() reading {
	return reading{uses: c.Uses, maxBytes: c.MaxBytes, maxKeys: c.MaxKeys, settings: true}
}

// key names what sources must agree on to share sets. It is empty without settings, so that files on
// disk keep their names.
func (r reading) key() string {
	if len(r.uses) == 0 && r.maxBytes == 0 && r.maxKeys == 0 {
		return ""
	}
	return fmt.Sprintf(" uses %q at most %d %d", r.uses, r.bytes(), r.keys())
}

func (r reading) validate() *Error {
	switch {
	case r.maxBytes < 0 || r.maxBytes > MostBytes:
		return failf("", "SourceConfig.MaxBytes is %d: want a number of bytes up to %d, or 0 for %d", r.maxBytes, MostBytes, defaultMaxBytes)
	case r.maxKeys < 0 || r.maxKeys > MostKeys:
		return failf("", "SourceConfig.MaxKeys is %d: want a number of keys up to %d, or 0 for %d", r.maxKeys, MostKeys, defaultMaxKeys)
	case r.takes("enc") || slices.ContainsFunc(r.uses, isEncryption):
		return failf("", `SourceConfig.Uses has "enc" or an operation of encryption: such a key verifies nothing (RFC 7517, sections 4.2 and 4.3)`)
	case r.takes(""):
		return failf("", "SourceConfig.Uses has an empty text: a key without use serves already")
	}
	return nil
}

// sorted returns texts in one order, each once.
func sorted(texts []string) []string {
	all := slices.Clone(texts)
	slices.Sort(all)
	return slices.Compact(all)
}
