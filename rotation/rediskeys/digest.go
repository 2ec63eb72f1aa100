package rediskeys

import (
	"bytes"
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
	sums := make([][2 * sha1.Size]byte, 0, len(fields))
	b := make([]byte, 0, 512)
	for name, value := range fields {
		b = strconv.AppendInt(b[:0], int64(len(name)), 10)
		b = append(append(b, ':'), name...)
		b = strconv.AppendInt(b, int64(len(value)), 10)
		b = append(append(b, ':'), value...)
		sum := sha1of(b)
		sums = append(sums, [2 * sha1.Size]byte(hex.AppendEncode(b[:0], sum[:])))
	}
	slices.SortFunc(sums, func(a, b [2 * sha1.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	b = b[:0]
	for i := range sums {
		b = append(b, sums[i][:]...)
	}
	return sha1hex(b)
}

// sha1hex returns the SHA-1 of b in hexadecimal. It runs without the enforcement of
// GODEBUG=fips140=only, under which SHA-1 panics. That is right, because no security
// depends on it: it names scripts, as EVALSHA of Redis wants it, and finds out whether
// a ring has changed. Seals prove that a ring is authentic.
func sha1hex(b []byte) (text string) {
	sum := sha1of(b)
	return hex.EncodeToString(sum[:])
}

// sha1of is sha1hex in bytes.
func sha1of(b []byte) (sum [sha1.Size]byte) {
	fips140.WithoutEnforcement(func() { sum = sha1.Sum(b) })
	return sum
}
