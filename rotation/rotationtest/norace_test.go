//go:build !race

package rotationtest_test

const raceEnabled = false
