package rediskeys

import (
	"crypto/fips140"
	"crypto/sha1"
	"encoding/hex"
	"slices"
	"strconv"
)

// digest computes what the function of that name in common.lua does: the SHA-1 of
// the sorted SHA-1 sums of all fields, in hexadecimal. The lengths keep a name and
// its value apart. The digest of a ring without fields is "".
//
// SHA-1 is the only hash that Lua in Redis has. A collision does no harm: to use
// one an attacker must be able to write to Redis, and the fields are sealed. See
// sha1hex for FIPS 140.
func digest(fields map[string][]byte) string {
	if len(fields) == 0 {
		return ""
	}
	sums := make([]string, 0, len(fields))
	var b []byte
	for name, value := range fields {
		b = strconv.AppendInt(b[:0], int64(len(name)), 10)
		b = append(append(b, ':'), name...)
		b = strconv.AppendInt(b, int64(len(value)), 10)
		b = append(append(b, ':'), value...)
		sums = append(sums, sha1hex(b))
	}
	slices.Sort(sums)
	b = b[:0]
	for _, sum := range sums {
		b = append(b, sum...)
	}
	return sha1hex(b)
}

// sha1hex returns the SHA-1 of b in hexadecimal. It runs without the enforcement of
// GODEBUG=fips140=only, under which SHA-1 panics. That is right, because no security
// depends on it: it names scripts, as EVALSHA of Redis wants it, and finds out whether
// a ring has changed. Seals prove that a ring is authentic.
func sha1hex(b []byte) (text string) {
	fips140.WithoutEnforcement(func() {
		sum := sha1.Sum(b)
		text = hex.EncodeToString(sum[:])
	})
	return text
}
