//go:build !linux

package main

// noDumps protects nothing on this system: it has no prctl(2).
func noDumps() error { return nil }
