//go:build race

package protocol

// shortSteps is fewer under the race detector: it makes the exploration ten times as slow, and no two
// goroutines take part in it. The same test without it is one of the next stages of make test.
const shortSteps = 2
