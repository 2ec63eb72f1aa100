package rotation_test

import (
	"crypto/fips140"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

// virtual runs test in a bubble of virtual time. In FIPS mode, randomness is seeded by the time that
// small pieces of work take. In a bubble they take none, and the runtime panics. So there it comes
// from a fixed seed. Every test of this package passes under GODEBUG=fips140=only: see `make soak`.
func virtual(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		cryptotest.SetGlobalRandom(t, 1)
	}
	synctest.Test(t, test)
}
