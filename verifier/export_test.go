package verifier

import (
	"sync/atomic"

	"github.com/keyturn/keyturn/keystore"
)

// CountChecks makes v count the signatures that it checks, and returns the counter.
func (v *Verifier) CountChecks() *atomic.Int64 {
	n := new(atomic.Int64)
	check := v.signed
	v.signed = func(k *keystore.Key, signed, sig []byte) bool {
		n.Add(1)
		return check(k, signed, sig)
	}
	return n
}
