package revocations

import (
	"encoding/binary"

	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// tenantOf returns the short name of the tenant with that digest.
func tenantOf(d table.Digest) uint64 { return binary.BigEndian.Uint64(d[:8]) }

// sessionOf returns the session of a token.
func sessionOf(t *verifier.Token) string {
	if s, ok := any(t).(interface{ SessionID() string }); ok {
		return s.SessionID()
	}
	return ""
}
