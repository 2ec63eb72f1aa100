// Package wycheproof runs the test vectors of Project Wycheproof for the signatures, MACs and JSON
// Web Keys that keyturn verifies: every file of these kinds, and every case of each. The file
// differences_test.go names the cases where keyturn decides otherwise, with the reason.
//
// It is a module of its own, so that users of keyturn do not inherit the vectors. Its go.sum pins
// them. From the root: make test, or here: go test .
package wycheproof
