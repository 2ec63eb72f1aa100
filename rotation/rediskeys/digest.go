package rediskeys

import (
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
// one an attacker must be able to write to Redis, and the fields are sealed.
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

func sha1hex(b []byte) string {
	sum := sha1.Sum(b)
	return hex.EncodeToString(sum[:])
}
