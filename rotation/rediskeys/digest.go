package rediskeys

import (
	"crypto/sha1"
	"encoding/hex"
	"slices"
	"strconv"
)

// digest returns what the script of that name does: the SHA-1 of the sorted
// SHA-1s of all fields, in hexadecimal. Lengths keep name and value apart.
// SHA-1 is what Lua in Redis has; whoever can make two rings of one digest can
// write to Redis, and what they write is sealed.
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
