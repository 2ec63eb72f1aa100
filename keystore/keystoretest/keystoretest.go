// Package keystoretest checks an implementation of [keystore.KeyStore] against
// the words of that interface.
//
// An implementation's own test says how keys come and go, as a [Subject], and
// calls [Run]:
//
//	func TestContract(t *testing.T) {
//		keystoretest.Run(t, func(t *testing.T) keystoretest.Subject {
//			store := openMyStore(t)
//			return keystoretest.Subject{Store: store, Tenant: "acme", Add: ..., Reload: ..., Remove: ...}
//		})
//	}
//
// Run it with the race detector: one of the checks looks keys up while others
// come and go.
package keystoretest

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// A Subject is a store under test, and the means to change what it holds. Its
// functions are called one at a time, from the goroutine of the test, and
// return once [keystore.KeyStore.Lookup] tells of the change.
type Subject struct {
	// Store is the store. If it is a [keystore.Refresher] too, or has the
	// optional Serves method, those are checked as well.
	Store keystore.KeyStore

	// Tenant is the tenant of the keys that Add adds. The store may hold keys
	// of it from the start.
	Tenant string

	// Add makes the store hold one more key of Tenant, with a kid of its own,
	// for an hour at least. Up to eight are added.
	Add func(t *testing.T) Signing

	// Reload makes the store read everything afresh from where its keys come
	// from, without a change there.
	Reload func(t *testing.T)

	// Remove takes away what Add added under that ID, for good, as after a leak.
	Remove func(t *testing.T, id keystore.ID)

	// Now is the store's clock. Nil means [time.Now].
	Now func() time.Time
}

// A Signing is a key that a store was made to hold, with the means to sign.
type Signing struct {
	ID        keystore.ID // its KID is not empty
	Algorithm keystore.Algorithm
	Sign      func(msg []byte) []byte
}

// Run checks the store that open returns. It calls open once for each subtest;
// open registers with t what there is to clean up.
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
