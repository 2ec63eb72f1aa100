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
func digest(fields map[string][]byte) (text string) {
	if len(fields) == 0 {
		return ""
	}
	fips140.WithoutEnforcement(func() { text = digestOf(fields) }) // once: see sha1hex
	return text
}

// digestOf is digest of a ring that has fields.
func digestOf(fields map[string][]byte) string {
	var sumsRoom [16][sha1.Size]byte // enough for most rings
	var room [1024]byte
	sums, b := sumsRoom[:0], room[:0]
	for name, value := range fields {
		b = strconv.AppendInt(b[:0], int64(len(name)), 10)
		b = append(append(b, ':'), name...)
		b = strconv.AppendInt(b, int64(len(value)), 10)
		b = append(append(b, ':'), value...)
		sums = append(sums, sha1.Sum(b))
	}
	// In hexadecimal they have the same order.
	slices.SortFunc(sums, func(a, b [sha1.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	b = b[:0]
	for i := range sums {
		b = hex.AppendEncode(b, sums[i][:])
	}
	sum := sha1.Sum(b)
	return hex.EncodeToString(sum[:])
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
