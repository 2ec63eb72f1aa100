//go:build !race

package protocol

const shortSteps = 3
