// Package keystoretest checks an implementation of [keystore.KeyStore] against the
// contract of that interface.
//
// The test of an implementation describes how to change its keys, as a [Subject], and
// calls [Run]:
//
//	func TestContract(t *testing.T) {
//		keystoretest.Run(t, func(t *testing.T) keystoretest.Subject {
//			store := openMyStore(t)
//			return keystoretest.Subject{Store: store, Tenant: "acme", Add: ..., Reload: ..., Remove: ...}
//		})
//	}
//
// Run it with the race detector: one of the checks looks keys up while other keys
// come and go.
package keystoretest

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// A Subject is a store under test, with functions that change its keys. Run calls
// the functions one at a time, from the goroutine of the test. Each returns after
// [keystore.KeyStore.Lookup] shows the change.
type Subject struct {
	// Store is the store. If it is also a [keystore.Refresher], or has the optional
	// method Serves, Run checks these too.
	Store keystore.KeyStore

	// Tenant is the tenant of the keys that Add adds. The store may have keys of
	// this tenant from the start.
	Tenant string

	// Add adds one key of Tenant with a new kid, which stays for at least an hour.
	// Run calls it up to eight times on one Subject.
	Add func(t *testing.T) Signing

	// Reload makes the store read all its keys again from their source, which has
	// not changed.
	Reload func(t *testing.T)

	// Remove permanently removes the key that Add added under this ID, as after a
	// leak.
	Remove func(t *testing.T, id keystore.ID)

	// Now is the store's clock. Nil means [time.Now].
	Now func() time.Time
}

// A Signing is a key that was added to the store, with its signing half.
type Signing struct {
	ID        keystore.ID // its KID is not empty
	Algorithm keystore.Algorithm
	Sign      func(msg []byte) []byte
}

// Run checks the store that open returns. It calls open once for each subtest. open
// registers its cleanup with t.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range c.run(t, open(t)) {
				t.Error(err)
			}
		})
	}
}

func (s Subject) now() time.Time {
	now := s.Now
	if now == nil {
		now = time.Now
	}
	return now()
}
