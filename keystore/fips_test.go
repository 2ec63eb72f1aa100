package keystore_test

import (
	"crypto/fips140"
	"fmt"
	"testing"
)

// outsideFIPS calls a function of a test that makes what FIPS 140-3 forbids: a bad signature, or a
// key of another kind. Package keystore itself, and all else in its tests, runs with
// GODEBUG=fips140=only too. There, outsideFIPS checks that it is still needed.
func outsideFIPS(t *testing.T, make func() error) {
	t.Helper()
	if fips140.Enforced() && try(make) == nil {
		t.Error("FIPS 140-3 does not forbid this: call it without outsideFIPS")
	}
	var err error
	fips140.WithoutEnforcement(func() { err = try(make) })
	if err != nil {
		t.Fatal(err)
	}
}

// try turns a panic of f into an error: some functions of package crypto panic.
func try(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}
