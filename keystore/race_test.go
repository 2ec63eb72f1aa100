//go:build race

package keystore_test

const raceEnabled = true
