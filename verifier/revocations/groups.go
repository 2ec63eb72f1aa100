package revocations

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"sync"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// allGroups is how many groups a list has. A group is what the store calls a ring, and its entries are
// the fields. A million entries are 16 a group, so that a write costs the reading of 16 fields.
const allGroups = 1 << 16

// keysGroup is the group of the digest keys.
const keysGroup = "keys"

// groupOf returns the number of the group of a digest, of so many groups.
func groupOf(d table.Digest, groups int) int { return int(binary.BigEndian.Uint16(d[:])) % groups }

// groupName returns the name of a group: "e" and 4 hexadecimal digits.
func groupName(group int) string {
	return "e" + hex.EncodeToString(binary.BigEndian.AppendUint16(nil, uint16(group)))
}

// groupNumber returns the number of a group.
func groupNumber(name string) (int, bool) {
	if len(name) != 5 || name[0] != 'e' {
		return 0, false
	}
	n, err := strconv.ParseUint(name[1:], 16, 16)
	return int(n), err == nil && groupName(int(n)) == name
}

// bucketsOf says in which bucket of a store each group lies. It never changes.
var bucketsOf = sync.OnceValue(func() *[allGroups]uint8 {
	all := new([allGroups]uint8)
	for g := range all {
		all[g] = uint8(rotation.BucketOf(groupName(g)))
	}
	return all
})
